"""``python -m kerasish_lstm``: the command ``kerasish-lstm``."""

from .cli import main

if __name__ == "__main__":
    main()
