"""Keras's name of a class, and the class here that stands for it."""

from __future__ import annotations

from typing import Any

# Each layer enters itself when it is defined; importing ``kerasish_lstm.layers`` defines them all.
CLASSES: dict[str, type[Any]] = {}
