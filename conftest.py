"""In a bare checkout the plugin is found here, not by its entry point."""

import os

# Threads of OpenMP that wait sleep, and do not spin on the cores that other tests use.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

pytest_plugins = ["pytest_kerasish_lstm"]
