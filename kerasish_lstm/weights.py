"""The weights of an LSTM as arrays, and the layouts in which libraries store them.

One table, one function: a layout says how its arrays are stored, and :func:`relayout` reads the
table forwards for the source and backwards for the target, so no transpose is written twice.
NumPy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .errors import ConfigError, WeightMismatch


class LSTMWeights(NamedTuple):
    """The weights of one LSTM in Keras's layout; gates in the order i, f, g, o.

    kernel (F, 4U), recurrent_kernel (U, 4U), bias (4U,) or None.
    """

    kernel: np.ndarray
    recurrent_kernel: np.ndarray
    bias: np.ndarray | None


@dataclass(frozen=True)
class Layout:
    """How one library stores an LSTM.

    gates: the order of the gates along the axis GU (= 4U). This is the dangerous fact.
    matrix: the stored axes of the two matrices; N is F for the input's and U for the state's.
    steps: from the stored matrix to axes (G, N, U): reshape to the left side, permute to the right
        one. A second step reads the same memory under other axes.
    bias: the stored axes of the bias, where 2GU is the input's bias and then the state's.
    biases: how many arrays hold the bias: one, or one for the input and one for the state.
    arrays: the library's own names, in its own order.
    """

    gates: str
    matrix: str
    steps: tuple[str, ...]
    bias: str
    biases: int
    arrays: tuple[str, ...]
    bias_required: bool = False


LAYOUTS: dict[str, Layout] = {
    "keras": Layout(
        gates="ifgo",
        matrix="N GU",
        steps=("N G U -> G N U",),
        bias="GU",
        biases=1,
        arrays=("kernel", "recurrent_kernel", "bias"),
    ),
    "torch": Layout(
        gates="ifgo",
        matrix="GU N",
        steps=("G U N -> G N U",),
        bias="GU",
        biases=2,
        arrays=("weight_ih", "weight_hh", "bias_ih", "bias_hh"),
    ),
    # CuDNNLSTM of Keras 2: each gate's (N, U) block holds the memory of a (U, N) matrix.
    "keras_cudnn": Layout(
        gates="ifgo",
        matrix="N GU",
        steps=("N G U -> G N U", "G U N -> G N U"),
        bias="2GU",
        biases=1,
        arrays=("kernel", "recurrent_kernel", "bias"),
        bias_required=True,
    ),
    # ONNX's LSTM operator, one direction: D = 1.
    "onnx": Layout(
        gates="iofg",
        matrix="D GU N",
        steps=("D G U N -> D G N U",),
        bias="D 2GU",
        biases=1,
        arrays=("W", "R", "B"),
    ),
}

_CANONICAL_GATES = "ifgo"


def relayout(arrays: Sequence[np.ndarray], source: str, target: str) -> tuple[np.ndarray, ...]:
    """The same LSTM's weights in another layout.

    Args:
        arrays: the arrays in the order of the source layout: ``keras`` K (F, 4U), R (U, 4U),
            b (4U,); ``torch`` w_ih (4U, F), w_hh (4U, U), b_ih (4U,), b_hh (4U,);
            ``keras_cudnn`` K (F, 4U), R (U, 4U), b (8U,); ``onnx`` W (1, 4U, F), R (1, 4U, U),
            B (1, 8U), gates i o f c. Leave the bias out for a layer without one.
        source, target: names of :data:`LAYOUTS`.

    Returns:
        New arrays in the order of the target layout, of the given dtypes. Every number is moved,
        none is computed (``keras`` to any and back is bitwise), with one exception: two biases that
        both have a nonzero entry become one by adding them. An all-zero second bias is dropped, not
        added, because -0.0 + 0.0 would lose the sign.

    Raises:
        ConfigError: an unknown layout.
        WeightMismatch: a wrong number of arrays, a shape or a dtype that does not fit.

    Sources: Keras 3.15 ``LSTMCell``; torch 2.13 ``nn.LSTM``; Keras 2.15
    ``hdf5_format._convert_rnn_weights``; ONNX operator ``LSTM``, version 22.
    """
    src, dst = _layout(source), _layout(target)
    given = [_as_float_array(a, f"array {i}", source) for i, a in enumerate(arrays)]
    features, units = _sizes(given, source)
    order = [src.gates.index(g) for g in _CANONICAL_GATES]
    kernel, recurrent_kernel = (
        _unstack(a, src, n, units)[order] for a, n in zip(given, (features, units), strict=False)
    )
    biases = [b.reshape(-1, 4, units)[:, order] for b in given[2:]]  # each (1 or 2, G, U)
    pair = np.concatenate(biases) if biases else None  # (1 or 2, G, U)

    order = [_CANONICAL_GATES.index(g) for g in dst.gates]
    result = [
        _stack(kernel[order], dst, features, units),
        _stack(recurrent_kernel[order], dst, units, units),
    ]
    if pair is None:
        if dst.bias_required:
            raise WeightMismatch(
                f"relayout: the layout {target!r} always has a bias and {source!r} gave none. "
                "Add one of zeros, of shape (4U,), to the source."
            )
        return tuple(result)
    if "2" not in dst.bias and dst.biases == 1:
        pair = _fold(pair)
    elif len(pair) == 1:
        pair = np.concatenate([pair, np.zeros_like(pair)])
    pair = pair[:, order]
    shape = _shape(dst.bias, 0, units)
    result += [np.ascontiguousarray(b.reshape(shape)) for b in np.split(pair, dst.biases)]
    return tuple(result)


def _fold(pair: np.ndarray) -> np.ndarray:
    """One bias (1, G, U) of one or two; zeros are dropped, not added."""
    if len(pair) == 1 or not pair[1].any():
        return pair[:1]
    if not pair[0].any():
        return pair[1:]
    total: np.ndarray = pair[:1] + pair[1:]
    return total


def _layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise ConfigError(f"relayout: {name!r} is not a layout; known are {', '.join(LAYOUTS)}.")
    return LAYOUTS[name]


def _as_float_array(array: object, name: str, source: str) -> np.ndarray:
    a: np.ndarray = np.asarray(array)
    if a.dtype.kind != "f" and a.dtype.name != "bfloat16":
        raise WeightMismatch(
            f"{name} of an LSTM in the layout {source!r} has dtype {a.dtype}; allowed are the "
            "floating-point dtypes (float16, bfloat16, float32, float64)."
        )
    return a


def _shape(axes: str, features: int, units: int) -> tuple[int, ...]:
    """The sizes of axes such as ``"N GU"`` or ``"D G U N"``."""
    size = {"N": features, "U": units, "G": 4, "GU": 4 * units, "2GU": 8 * units, "D": 1}
    return tuple(size[axis] for axis in axes.split())


def _sizes(given: list[np.ndarray], source: str) -> tuple[int, int]:
    """(F, U) of the arrays, after checking that every one of them agrees."""
    layout = LAYOUTS[source]
    counts = {2 + layout.biases} if layout.bias_required else {2, 2 + layout.biases}
    if len(given) not in counts:
        allowed = " or ".join(str(c) for c in sorted(counts, reverse=True))
        raise WeightMismatch(
            f"an LSTM in the layout {source!r} has {allowed} arrays "
            f"({', '.join(layout.arrays)}); {len(given)} were given."
        )
    axes = layout.matrix.split()
    ranks = [len(axes), len(axes)] + [len(layout.bias.split())] * layout.biases
    if any(a.ndim != rank for a, rank in zip(given, ranks, strict=False)):
        raise WeightMismatch(_disagreement(given, source, None, None))
    features = given[0].shape[axes.index("N")]
    units = given[1].shape[axes.index("N")]
    if [a.shape for a in given] != _expected(layout, features, units)[: len(given)] or not units:
        raise WeightMismatch(_disagreement(given, source, features, units))
    return features, units


def _expected(layout: Layout, features: int, units: int) -> list[tuple[int, ...]]:
    matrices = [_shape(layout.matrix, features, units), _shape(layout.matrix, units, units)]
    return matrices + [_shape(layout.bias, 0, units)] * layout.biases


def _disagreement(
    given: list[np.ndarray], source: str, features: int | None, units: int | None
) -> str:
    layout = LAYOUTS[source]
    lines = [f"these arrays are no LSTM in the layout {source!r}:"]
    for i, a in enumerate(given):
        axes = layout.matrix if i < 2 else layout.bias
        axes = axes.replace("N", "F" if i == 0 else "U").replace("D", "1")
        axes = axes.replace("2GU", "8U").replace("GU", "4U")
        want = f"({', '.join(axes.split())}{',' if len(axes.split()) == 1 else ''})"
        differs = ""
        if features is not None and units is not None:
            expected = _expected(layout, features, units)[i]
            if a.shape != expected:
                differs = f" = {expected}   <- differs"
        lines.append(f"  {layout.arrays[i]:<17} given {a.shape!s:<16} expected {want}{differs}")
    hint = _guess(given, source)
    return "\n".join(lines) + (f"\n{hint}" if hint else "")


def _guess(given: list[np.ndarray], source: str) -> str:
    """What the arrays look like instead, where their shapes say it."""
    recurrent = given[1].shape
    if len(recurrent) >= 2 and min(recurrent[-2:]) > 0:
        ratio = max(recurrent[-2:]) / min(recurrent[-2:])
        if ratio == 3:
            return "Three gates a unit: this looks like a GRU, which is not an LSTM."
        if ratio == 1:
            return "One gate a unit: this looks like a SimpleRNN, which is not an LSTM."
        if ratio == 4:
            if source == "keras" and len(given) == 3:
                if given[2].shape == (8 * min(recurrent),):
                    return "A bias of 8U: this looks like a CuDNNLSTM; its layout is 'keras_cudnn'."
                if recurrent[0] > recurrent[1]:
                    return "The matrices look transposed; torch's layout is 'torch'."
            if source == "torch" and len(recurrent) == 2 and recurrent[0] < recurrent[1]:
                return "The matrices look transposed; Keras's layout is 'keras'."
        if math.isfinite(ratio) and ratio != 4:
            return f"The recurrent matrix has {ratio:g} columns a unit; an LSTM has 4."
    return ""


def _permutation(step: str) -> tuple[list[str], list[str]]:
    left, right = step.split("->")
    return left.split(), right.split()


def _unstack(array: np.ndarray, layout: Layout, features: int, units: int) -> np.ndarray:
    """A stored matrix as (G, N, U), gates in the layout's order."""
    for step in layout.steps:
        left, right = _permutation(step)
        array = array.reshape(_shape(" ".join(left), features, units))
        array = np.ascontiguousarray(array.transpose([left.index(axis) for axis in right]))
    return array.reshape(4, features, units)


def _stack(array: np.ndarray, layout: Layout, features: int, units: int) -> np.ndarray:
    """The inverse of :func:`_unstack`: the same steps, read from right to left."""
    for step in reversed(layout.steps):
        left, right = _permutation(step)
        array = array.reshape(_shape(" ".join(right), features, units))
        array = np.ascontiguousarray(array.transpose([right.index(axis) for axis in left]))
    return array.reshape(_shape(layout.matrix, features, units))
