"""Keras on TensorFlow, the layer (and its gradient) in one ``tf.function(jit_compile=True)``."""

from __future__ import annotations

from benchmarks.implementations import tensorflow_function
from benchmarks.implementations.tensorflow_function import output, run

MOST = 8 << 30  # bytes

__all__ = ["output", "prepare", "run"]


def prepare(case, data):
    # Its backward keeps the recurrent kernel's gradient of every step.
    size = case.T * 4 * case.H**2 * (8 if case.dtype == "float64" else 4)
    if case.mode == "training" and size > MOST:
        raise NotImplementedError(f"its gradients would take more than {size / 2**30:.0f} GiB")
    return tensorflow_function.prepare(case, data, jit_compile=True)
