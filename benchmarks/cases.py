"""What is measured, as literal tables. NumPy only: every worker imports this file."""

from __future__ import annotations

import os
from itertools import product
from typing import Any, NamedTuple

import numpy as np

OURS, BASELINE = "kerasish", "torch_lstm"

# name -> what it is; the order is that of the report.
LIBRARIES = {
    "kerasish": "kerasish_lstm.LSTM",
    "torch_lstm": "torch.nn.LSTM",
    "torch_loop": "torch, a loop",
    "keras_torch": "Keras on torch",
    "tensorflow_predict": "Keras on TF, predict_on_batch",
    "tensorflow_function": "Keras on TF, tf.function",
    "tensorflow_xla": "Keras on TF, XLA",
    "jax_jit": "JAX lax.scan, jit",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
}
QUICK_LIBRARIES = ("kerasish", "torch_lstm", "torch_loop", "onnxruntime")
CUDA_LIBRARIES = ("kerasish", "torch_lstm", "torch_loop", "keras_torch")

DEVICE = os.environ.get("BENCHMARK_DEVICE", "cpu")  # a worker's, as the parent has set it

Shape = tuple[int, int, int, int]  # (B, T, F, H)
SHAPES = (
    (1, 3, 1, 1),
    (2, 3, 4, 5),
    (1, 100, 64, 64),
    (32, 100, 64, 128),
    (256, 64, 32, 32),
    (64, 128, 256, 256),
    (128, 200, 128, 512),
    (1, 1000, 256, 1024),
)
VARIANT_SHAPES = ((32, 100, 64, 128), (64, 128, 256, 256))
KERAS_SHAPES = ((1, 100, 64, 64), (32, 100, 64, 128), (64, 128, 256, 256), (256, 64, 32, 32))
QUICK_SHAPES = ((2, 5, 3, 4), (4, 7, 5, 8))

MODES = ("inference", "training")
STRUCTURES = ("one", "bidirectional", "stack")
WEIGHTS = ("kernel", "recurrent_kernel", "bias")
PARTS = {"one": ("",), "bidirectional": ("forward_", "backward_"), "stack": ("lower_", "upper_")}

ROUNDS, QUICK_ROUNDS = 10, 2
MOST_REPEATS = 4000  # a round
# Seconds of timing for one library and case; at least one call a round is made all the same.
# Ours, nn.LSTM and who takes no more than so many times the fastest one's time get more: their
# ratio is to be known to a few percent.
BUDGET, CLOSE_BUDGET, QUICK_BUDGET = 1.0, 2.5, 0.002
CLOSE = 1.5
# The others take part in so many rounds at most, and in no more than fit into so many seconds; so
# does nn.LSTM where it is behind the fastest by this factor, with calls of more than a second.
FEW_ROUNDS, FEW_SECONDS, HOPELESS = 4, 4.0, 3.0
# A peer that took this many times the fastest peer's time in the first run is in no later one.
OUT_OF_THE_RACE = 2.0
# Seconds; a library whose first call takes longer is neither checked nor timed.
PATIENCE = 30.0
# Seconds of untimed calls before the timed ones, and of rest between two libraries' turns: threads
# of OpenMP and ONNX Runtime spin for up to 40 ms after their last work.
WARM_UP, REST = 0.02, 0.05
START_REPEATS = 3

# Largest error against the float64 truth, by dtype: of the output, which lies in (-1, 1), and of a
# gradient, relative to the largest element of the true one. See Case.bound.
BOUNDS = {
    "float32": {"output": 5e-6, "gradient": 3e-5},
    "float64": {"output": 1e-13, "gradient": 1e-12},
    "bfloat16": {"output": 5e-2, "gradient": 1e-1},
}


class Case(NamedTuple):
    """One thing to compute: B sequences of T steps of F features by H units, the last output."""

    B: int
    T: int
    F: int
    H: int
    mode: str = "inference"  # or "training": forward, sum of the output, backward to the weights
    mask: str = "none"  # "right": lengths uniform in 1..T; "left", "gaps": as many steps, elsewhere
    recurrent_activation: str = "sigmoid"
    recurrent_dropout: float = 0.0
    structure: str = "one"  # or "bidirectional" (concat), "stack" (a second LSTM of H on top)
    dtype: str = "float32"  # or "float64", "bfloat16"
    threads: int = 2

    @property
    def shape(self) -> Shape:
        return (self.B, self.T, self.F, self.H)

    @property
    def variant(self) -> str:
        """What it is beside the plain layer in float32, or "plain"."""
        mask = "" if self.mask == "none" else f"{self.mask} mask"
        activation = "" if self.recurrent_activation == "sigmoid" else self.recurrent_activation
        dropout = f"recurrent dropout {self.recurrent_dropout:g}" if self.recurrent_dropout else ""
        structure = "" if self.structure == "one" else self.structure
        dtype = "" if self.dtype == "float32" else self.dtype
        return ", ".join(filter(None, (mask, activation, dropout, structure, dtype))) or "plain"

    @property
    def id(self) -> str:
        variant = self.variant.replace(", ", "-").replace(" ", "-")
        return f"{self.mode}-{variant}-{'x'.join(map(str, self.shape))}-{self.threads}"

    def bound(self, result: str) -> float:
        """The largest error of a result, "output" or the gradient of a weight.

        A gradient is a sum over B T steps, whose roundings add up as a square root; the bound of
        float32 is that of up to 16384 of them. (512, 64, 64, 128) was measured at 3.6e-5, ours and
        nn.LSTM's alike.
        """
        if result == "output":
            return BOUNDS[self.dtype]["output"]
        growth = (self.B * self.T / 16384) ** 0.5 if self.dtype == "float32" else 1.0
        return BOUNDS[self.dtype]["gradient"] * max(1.0, growth)

    @property
    def plain(self) -> Case:
        """The case without mask, hard_sigmoid, dropout and a second layer."""
        return Case(*self.shape, self.mode, dtype=self.dtype, threads=self.threads)


def weight_names(case: Case) -> list[str]:
    """Of the weights, in the order of Keras's get_weights."""
    return [part + name for part in PARTS[case.structure] for name in WEIGHTS]


def result_names(case: Case) -> list[str]:
    """Of the arrays that ``output(state)`` of an implementation returns."""
    gradients = weight_names(case) if case.mode == "training" else []
    return ["output", *(f"{name}_gradient" for name in gradients)]


# What is measured at VARIANT_SHAPES beside the plain layer.
VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "masks": ({"mask": "right"}, {"mask": "left"}, {"mask": "gaps"}),
    "activations": ({"recurrent_activation": "hard_sigmoid"},),
    "dropout": ({"recurrent_dropout": 0.25},),
    "structures": ({"structure": "bidirectional"}, {"structure": "stack"}),
    "dtypes": ({"dtype": "float64"}, {"dtype": "bfloat16"}),
}
GROWTH = {
    "T": tuple((32, T, 64, 128) for T in (32, 64, 128, 256)),
    "B": tuple((B, 64, 64, 128) for B in (8, 32, 128, 512)),
    "H": tuple((32, 64, 64, H) for H in (64, 128, 256, 512)),
}
QUICK_GROWTH = {
    "T": tuple((2, T, 3, 4) for T in (3, 6)),
    "B": tuple((B, 3, 3, 4) for B in (2, 4)),
    "H": tuple((2, 3, 3, H) for H in (4, 8)),
}
MEMORY_SHAPES = ((32, 100, 64, 128), (64, 128, 256, 256), (128, 200, 128, 512))
START_SHAPE = (32, 100, 64, 128)
# The groups of ``--cases``, in the order of the report; the last three are no tables of times.
GROUPS = {
    "shapes": "The eight shapes",
    "masks": "Masks",
    "activations": "hard_sigmoid",
    "dropout": "Recurrent dropout",
    "structures": "Bidirectional, and a stack of two",
    "dtypes": "float64 and bfloat16",
    "threads": "One thread",
    "growth": "Growth",
    "memory": "Peak memory of a training step",
    "start": "Import and first call",
}


def cases_of(group: str, threads: int, quick: bool) -> list[Case]:
    """The timed cases of a group; a variant's plain case belongs to its group."""
    shapes = QUICK_SHAPES if quick else SHAPES
    variant_shapes = QUICK_SHAPES[1:] if quick else VARIANT_SHAPES
    cases: list[Case] = []
    if group == "shapes":
        cases = [Case(*shape, mode) for shape, mode in product(shapes, MODES)]
    elif group == "threads" and threads > 1:
        threads = 1
        cases = [Case(*shape, mode) for shape, mode in product(variant_shapes, MODES)]
    elif group == "growth":
        growth = QUICK_GROWTH if quick else GROWTH
        cases = [Case(*s, mode) for mode in MODES for axis in growth.values() for s in axis]
    for shape, mode, fields in product(variant_shapes, MODES, VARIANTS.get(group, ())):
        if "recurrent_dropout" not in fields or mode == "training":
            variant = Case(*shape, mode, **fields)
            cases += [variant.plain, variant]
    if group == "masks" and not quick:
        # At the other shapes of a target on masks, the mask that the target is about.
        masked = [Case(*shape, mask="right") for shape in SHAPES[3:] if shape not in variant_shapes]
        masked += _each(KERAS_SHAPES, MODES, mask="right")
        cases += [each for case in masked for each in (case.plain, case)]
    return list(dict.fromkeys(case._replace(threads=threads) for case in cases))


class Target(NamedTuple):
    """A limit on the ratio of two numbers of one run. ``against`` names the second one.

    A library: that one. peer: the fastest other one; where that is nn.LSTM, ``at_most_torch`` is
    the limit.
    floor: the case's floor. plain: ``times`` the same library's plain case.
    memory: nn.LSTM's peak of memory.
    """

    text: str
    against: str
    cases: tuple[Case, ...]
    at_most: float
    at_most_torch: float | None = None
    times: int = 1


def _each(shapes: tuple[Shape, ...], modes: tuple[str, ...], **fields: Any) -> tuple[Case, ...]:
    return tuple(Case(*shape, mode, **fields) for shape, mode in product(shapes, modes))


TARGETS = (
    Target("against the fastest peer", "peer", _each(SHAPES[:2], MODES[:1]), 2.0),
    Target("against the fastest peer", "peer", _each(SHAPES[2:], MODES[:1]), 1.0, 1.03),
    Target("against the fastest peer", "peer", _each(SHAPES, MODES[1:]), 1.0, 1.03),
    Target("against the floor", "floor", _each(SHAPES[5:], MODES[:1]), 1.15),
    Target(
        "right mask against our own without", "plain",
        _each(SHAPES[5:6], MODES[:1], mask="right"), 1.1,
    ),
    Target(
        "right mask against our own without", "plain",
        _each((*SHAPES[3:5], *SHAPES[6:]), MODES[:1], mask="right"), 1.2,
    ),
    Target(
        "right mask against our own without", "plain",
        _each(SHAPES[5:6], MODES[1:], mask="right"), 0.8,
    ),
    Target(
        "right mask against Keras on torch", "keras_torch",
        _each(KERAS_SHAPES, MODES, mask="right"), 1 / 3,
    ),
    Target(
        "hard_sigmoid against our own sigmoid", "plain",
        _each(VARIANT_SHAPES, MODES, recurrent_activation="hard_sigmoid"), 1.1,
    ),
    Target(
        "recurrent dropout against our own without", "plain",
        _each(VARIANT_SHAPES, MODES[1:], recurrent_dropout=0.25), 1.3,
    ),
    Target(
        "Bidirectional against twice one direction", "plain",
        _each(VARIANT_SHAPES, MODES, structure="bidirectional"), 1.05, times=2,
    ),
    Target(
        "peak memory against nn.LSTM", "memory", _each(MEMORY_SHAPES, MODES[1:]), 1.0,
    ),
)  # fmt: skip


def as_bfloat16(array: np.ndarray) -> np.ndarray:
    """A float32 array rounded to bfloat16's values, to nearest, ties to even."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


def data(case: Case) -> dict[str, Any]:
    """The arrays of a case, the same in every process, whatever its mode, mask and threads.

    Returns:
        weights: name -> array, in Keras's layout and order, uniform in ±1/sqrt(H): kernel (F, 4H),
        recurrent_kernel (H, 4H) and bias (4H,), of each part of a structure. x (B, T, F), standard
        normal, in the padding too. mask (B, T), bool, and lengths (B,), int64, its steps in each
        row, uniform in 1..T, of a single row T; None without a mask. dropout
        (4, B, H), by gate i, f, c, o, what multiplies h before its products: 0 or 1 / (1 - rate);
        None without recurrent dropout.

        All are float32, in a bfloat16 case rounded to bfloat16's values, but float64 in a float64
        case.
    """
    B, T, F, H = case.shape
    rng = np.random.default_rng([20, B, T, F, H])
    limit = H**-0.5

    def stored(array: np.ndarray) -> np.ndarray:
        if case.dtype == "bfloat16":
            return as_bfloat16(array)
        return array.astype(case.dtype)

    def uniform(*shape: int) -> np.ndarray:
        return rng.uniform(-limit, limit, shape).astype(np.float32)

    first = [uniform(F, 4 * H), uniform(H, 4 * H), uniform(4 * H)]
    x = rng.standard_normal((B, T, F), dtype=np.float32)
    lengths = rng.integers(1, T + 1, B) if B > 1 else np.array([T])
    mask = np.arange(T) < lengths[:, None]  # (B, T)
    if case.mask == "left":
        mask = mask[:, ::-1].copy()
    elif case.mask == "gaps":
        mask = np.random.default_rng([21, B, T]).permuted(mask, axis=1)
    rng = np.random.default_rng([22, B, T, F, H])
    second = [uniform(H if case.structure == "stack" else F, 4 * H), uniform(H, 4 * H)]
    second.append(uniform(4 * H))
    dropout = None
    if case.recurrent_dropout:
        kept = np.random.default_rng([23, B, H]).random((4, B, H)) >= case.recurrent_dropout
        dropout = stored((kept / (1 - case.recurrent_dropout)).astype(np.float32))
    masked = case.mask != "none"
    weights = zip(weight_names(case), [*first, *second], strict=False)
    return {
        "weights": {name: stored(array) for name, array in weights},
        "x": stored(x),
        "lengths": lengths if masked else None,
        "mask": mask if masked else None,
        "dropout": dropout,
    }
