"""Speed of the layer against other libraries' LSTMs. See README.md."""
