"""In a bare checkout the plugin is found here, not by its entry point."""

pytest_plugins = ["pytest_kerasish_lstm"]
