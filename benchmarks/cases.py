"""What is measured, as literal tables. NumPy only: every worker imports this file."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

BASELINE = "torch_lstm"

# name -> what it is; the order is that of the report.
LIBRARIES = {
    "kerasish": "kerasish_lstm.LSTM",
    "torch_lstm": "torch.nn.LSTM",
    "keras_torch": "Keras on torch",
    "tensorflow_predict": "Keras on TF, predict_on_batch",
    "tensorflow_function": "Keras on TF, tf.function",
    "tensorflow_xla": "Keras on TF, XLA",
    "jax_jit": "JAX lax.scan, jit",
}
QUICK_LIBRARIES = ("kerasish", "torch_lstm")
CUDA_LIBRARIES = ("kerasish", "torch_lstm", "keras_torch")

DEVICE = os.environ.get("BENCHMARK_DEVICE", "cpu")  # a worker's, as the parent has set it

# (B, T, F, H)
SHAPES = ((1, 100, 64, 64), (32, 100, 64, 128), (64, 128, 256, 256), (256, 64, 32, 32))
QUICK_SHAPES = ((2, 5, 3, 4), (4, 7, 5, 8))

MODES = ("inference", "training")

ROUNDS, QUICK_ROUNDS = 10, 2
MOST_REPEATS = 100  # a round
# Seconds of timing for one library and case; at least one call a round is made all the same.
# The two whose ratio is to be known to a few percent get more.
BUDGET, CLOSE_BUDGET, QUICK_BUDGET = 1.5, 5.0, 0.05
CLOSE = ("kerasish", "torch_lstm")

# Largest error against the float64 truth. Outputs lie in (-1, 1), so theirs is absolute; a
# gradient's is relative to the largest element of the true gradient.
BOUNDS = {
    "output": 5e-6,
    "kernel_gradient": 3e-5,
    "recurrent_kernel_gradient": 3e-5,
    "bias_gradient": 3e-5,
}


class Case(NamedTuple):
    """One thing to compute: B sequences of T steps of F features by H units."""

    B: int
    T: int
    F: int
    H: int
    mode: str  # "inference", or "training": forward, sum of the output, backward to the weights
    masked: bool

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.B, self.T, self.F, self.H)

    @property
    def id(self) -> str:
        mask = "masked" if self.masked else "unmasked"
        return f"{self.mode}-{mask}-{'x'.join(map(str, self.shape))}"


class Target(NamedTuple):
    """The ratio of two measured times that we want, and the limit on it."""

    text: str
    shapes: tuple[tuple[int, int, int, int], ...]
    modes: tuple[str, ...]
    of: tuple[str, bool]  # library, masked
    to: tuple[str, bool]
    at_most: float | None = None
    at_least: float | None = None


TARGETS = (
    Target(
        "unmasked: at most 1.03 times nn.LSTM's time",
        ((32, 100, 64, 128), (64, 128, 256, 256)), MODES,
        of=("kerasish", False), to=("torch_lstm", False), at_most=1.03,
    ),
    Target(
        "masked: at most 1.6 times its own unmasked time",
        ((32, 100, 64, 128), (64, 128, 256, 256)), ("inference",),
        of=("kerasish", True), to=("kerasish", False), at_most=1.6,
    ),
    Target(
        "masked: Keras on torch takes at least 3 times as long",
        SHAPES, MODES,
        of=("keras_torch", True), to=("kerasish", True), at_least=3.0,
    ),
)  # fmt: skip


def data(case: Case) -> dict[str, Any]:
    """The arrays of a case, float32, the same in every process, masked or not.

    Returns:
        kernel (F, 4H), recurrent_kernel (H, 4H), bias (4H,), in Keras's layout, uniform in
        ±1/sqrt(H); x (B, T, F), standard normal, in the padding too; lengths (B,), int64, uniform
        in 1..T; mask (B, T), bool, True in the first lengths[b] steps. An unmasked case has None
        for lengths and mask.
    """
    B, T, F, H = case.shape
    rng = np.random.default_rng([20, B, T, F, H])
    limit = H**-0.5

    def uniform(*shape: int) -> np.ndarray:
        return rng.uniform(-limit, limit, shape).astype(np.float32)

    kernel, recurrent_kernel, bias = uniform(F, 4 * H), uniform(H, 4 * H), uniform(4 * H)
    x = rng.standard_normal((B, T, F), dtype=np.float32)
    lengths = rng.integers(1, T + 1, B)
    mask = np.arange(T) < lengths[:, None]  # (B, T)
    return {
        "kernel": kernel,
        "recurrent_kernel": recurrent_kernel,
        "bias": bias,
        "x": x,
        "lengths": lengths if case.masked else None,
        "mask": mask if case.masked else None,
    }
