"""Keras on TensorFlow, the layer (and its gradient) in one ``tf.function(jit_compile=True)``."""

from __future__ import annotations

from benchmarks.implementations import tensorflow_function
from benchmarks.implementations.tensorflow_function import output, run

__all__ = ["output", "prepare", "run"]


def prepare(case, data):
    return tensorflow_function.prepare(case, data, jit_compile=True)
