"""The version, in a file that imports nothing: a build reads it where torch is not installed."""

__version__ = "0.1.0"
