"""The LSTM in float64 NumPy, forward and backward, written from its equations.

    z = x_t K + h R + b          i, f, g, o = split(z, 4)
    c' = s(f) * c + s(i) * a(g)
    h' = s(o) * a(c')

Shapes: x (B, T, F), K (F, 4U), R (U, 4U), b (4U,), h and c (B, U), mask (B, T). A masked step
leaves h and c as they are; the output there is the previous output, zeros before the first
unmasked step, or zeros with ``zero_output_for_mask``. Dropout masks multiply x and h before their
products, one for each gate: input_dropout (4, B, T, F), recurrent_dropout (4, B, U).

This is the truth that the suite measures errors from. It imports NumPy alone, loops over time and
knows nothing of compaction, engines or torch. Source: Keras 3.15.1 on TensorFlow, ``unroll=False``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Array = np.ndarray
Forward = Callable[[Array], Array]
Backward = Callable[[Array, Array], Array]  # (x, dy) -> dx

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805
# TensorFlow holds these two in float32, for float64 tensors too.
_LEAK, _SQRT_HALF = float(np.float32(0.2)), float(np.float32(math.sqrt(0.5)))
_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, 0.0)


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    softmax: Array = e / e.sum(-1, keepdims=True)
    return softmax


def _log_softmax(x: Array) -> Array:
    x = x - x.max(-1, keepdims=True)
    log_softmax: Array = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return log_softmax


def _sparsemax_threshold(x: Array) -> tuple[Array, Array]:
    """Keras's threshold, and its derivative by each entry of x (see activations.sparsemax)."""
    order = np.argsort(-x, -1, kind="stable")
    sums = np.cumsum(np.take_along_axis(x, order, -1), -1)
    ranks = np.arange(1, x.shape[-1] + 1)
    support = np.take_along_axis(x, order, -1) - (sums - 1) / ranks > 0
    size = support.sum(-1, keepdims=True)
    threshold = (np.where(support, sums, 0.0).sum(-1, keepdims=True) - 1) / size
    slope = np.empty_like(x)  # the entry of rank j is in the sums of the ranks j .. |S|
    np.put_along_axis(slope, order, np.maximum(size - ranks + 1, 0) / size, -1)
    return threshold, slope


def _sparsemax(x: Array) -> Array:
    return np.maximum(x - _sparsemax_threshold(x)[0], 0.0)


def _sparsemax_backward(x: Array, dy: Array) -> Array:
    threshold, slope = _sparsemax_threshold(x)
    dy = np.where(x > threshold, dy, 0.0)
    return dy - slope * dy.sum(-1, keepdims=True)


def _elementwise(f: Forward, slope: Forward) -> tuple[Forward, Backward]:
    return f, lambda x, dy: dy * slope(x)


def _elu(x: Array) -> Array:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def _elu_slope(x: Array) -> Array:
    return np.where(x > 0, 1.0, np.exp(np.minimum(x, 0)))


def _mish_slope(x: Array) -> Array:
    t = np.tanh(_softplus(x))
    return t + x * (1 - t * t) * _sigmoid(x)


def _silu_slope(x: Array) -> Array:
    s = _sigmoid(x)
    return s * (1 + x * (1 - s))


def _gelu_slope(x: Array) -> Array:
    density = _SQRT_HALF * np.exp(-((x * _SQRT_HALF) ** 2)) / math.sqrt(math.pi)
    return 0.5 * (1 + _erf(x * _SQRT_HALF)) + x * density


def _hard_sigmoid(x: Array) -> Array:
    return np.clip(x + 3, 0, 6) / 6


def _inside(low: float, high: float, slope: float = 1.0) -> Forward:
    return lambda x: np.where((x > low) & (x < high), slope, 0.0)


_SILU = _elementwise(lambda x: x * _sigmoid(x), _silu_slope)
_HARD_SILU = _elementwise(
    lambda x: x * _hard_sigmoid(x), lambda x: _hard_sigmoid(x) + x * _inside(-3, 3, 1 / 6)(x)
)
_ELU = _elementwise(_elu, _elu_slope)

ACTIVATIONS: dict[str, tuple[Forward, Backward]] = {
    "celu": _ELU,
    "elu": _ELU,
    "exponential": _elementwise(np.exp, np.exp),
    "gelu": _elementwise(lambda x: 0.5 * x * (1 + _erf(x * _SQRT_HALF)), _gelu_slope),
    "hard_shrink": _elementwise(
        lambda x: np.where(np.abs(x) > 0.5, x, 0.0), lambda x: np.where(np.abs(x) > 0.5, 1.0, 0.0)
    ),
    "hard_sigmoid": _elementwise(_hard_sigmoid, _inside(-3, 3, 1 / 6)),
    "hard_sigmoid_v2": _elementwise(
        lambda x: np.clip(0.2 * x + 0.5, 0, 1), _inside(-2.5, 2.5, 0.2)
    ),
    "hard_silu": _HARD_SILU,
    "hard_swish": _HARD_SILU,
    "hard_tanh": _elementwise(lambda x: np.clip(x, -1, 1), _inside(-1, 1)),
    "leaky_relu": _elementwise(
        lambda x: np.where(x > 0, x, _LEAK * x), lambda x: np.where(x > 0, 1.0, _LEAK)
    ),
    "linear": _elementwise(lambda x: x, np.ones_like),
    "log_sigmoid": _elementwise(lambda x: -_softplus(-x), lambda x: _sigmoid(-x)),
    "log_softmax": (_log_softmax, lambda x, dy: dy - _softmax(x) * dy.sum(-1, keepdims=True)),
    "mish": _elementwise(lambda x: x * np.tanh(_softplus(x)), _mish_slope),
    "relu": _elementwise(lambda x: np.maximum(x, 0), _inside(0, np.inf)),
    "relu6": _elementwise(lambda x: np.clip(x, 0, 6), _inside(0, 6)),
    "selu": _elementwise(
        lambda x: _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(np.minimum(x, 0))),
        lambda x: _SELU_SCALE * np.where(x > 0, 1.0, _SELU_ALPHA * np.exp(np.minimum(x, 0))),
    ),
    "sigmoid": _elementwise(_sigmoid, lambda x: _sigmoid(x) * _sigmoid(-x)),
    "silu": _SILU,
    "soft_shrink": _elementwise(
        lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0),
        lambda x: np.where(np.abs(x) > 0.5, 1.0, 0.0),
    ),
    "softmax": (
        _softmax,
        lambda x, dy: _softmax(x) * (dy - (dy * _softmax(x)).sum(-1, keepdims=True)),
    ),
    "softplus": _elementwise(_softplus, _sigmoid),
    "softsign": _elementwise(lambda x: x / (1 + np.abs(x)), lambda x: 1 / (1 + np.abs(x)) ** 2),
    "sparse_plus": _elementwise(
        lambda x: np.where(x <= -1, 0.0, np.where(x < 1, (x + 1) ** 2 / 4, x)),
        lambda x: np.clip((x + 1) / 2, 0, 1),
    ),
    "sparse_sigmoid": _elementwise(lambda x: np.clip((x + 1) / 2, 0, 1), _inside(-1, 1, 0.5)),
    "sparsemax": (_sparsemax, _sparsemax_backward),
    "squareplus": _elementwise(
        lambda x: (x + np.sqrt(x * x + 4)) / 2, lambda x: (1 + x / np.sqrt(x * x + 4)) / 2
    ),
    "swish": _SILU,
    "tanh": _elementwise(np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "tanh_shrink": _elementwise(lambda x: x - np.tanh(x), lambda x: np.tanh(x) ** 2),
}


class Result(NamedTuple):
    """What the layer returns: output (B, U) or (B, T, U), h (B, U), c (B, U)."""

    output: Array
    h: Array
    c: Array


class Gradients(NamedTuple):
    """The loss's derivatives, in Keras's layout."""

    x: Array
    kernel: Array
    recurrent_kernel: Array
    bias: Array | None
    h0: Array
    c0: Array


class _Step(NamedTuple):
    x: Array
    h: Array
    c: Array
    gates: tuple[Array, ...]  # pre-activations i f g o
    c_new: Array


class _Dropout(NamedTuple):
    """What multiplies x and h before each gate's products, in processing order."""

    input: Array  # (4, B, T, F)
    recurrent: Array  # (4, B, U)

    @classmethod
    def of(
        cls, input: Array | None, recurrent: Array | None, x: Array, units: int, backwards: bool
    ) -> _Dropout:
        batch, time, features = x.shape
        inputs = np.ones(()) if input is None else np.asarray(input, np.float64)
        states = np.ones(()) if recurrent is None else np.asarray(recurrent, np.float64)
        inputs = np.broadcast_to(inputs, (4, batch, time, features))
        return cls(
            inputs[:, :, ::-1] if backwards else inputs,
            np.broadcast_to(states, (4, batch, units)),
        )


def _by_gate(a: Array) -> list[Array]:
    """Of a matrix (N, 4U), the four (N, U)."""
    return np.split(a, 4, axis=1)


class _Trace(NamedTuple):
    steps: list[_Step]
    mask: Array  # (B, T), in processing order
    outputs: Array  # (B, T, U), in processing order
    h: Array
    c: Array


def _run(
    x: Array,
    weights: tuple[Array, Array, Array | None],
    h0: Array | None,
    c0: Array | None,
    mask: Array | None,
    go_backwards: bool,
    zero_output_for_mask: bool,
    functions: tuple[Forward, Forward],
    dropout: _Dropout,
) -> _Trace:
    act, gate = functions
    kernel, recurrent_kernel, bias = weights
    batch, time, _ = x.shape
    units = recurrent_kernel.shape[0]
    m = np.ones((batch, time), bool) if mask is None else np.asarray(mask, bool)
    x = np.where(m[:, :, None], x, 0.0)  # what stands in a masked step is never looked at
    if go_backwards:
        x, m = x[:, ::-1], m[:, ::-1]
    h = np.zeros((batch, units)) if h0 is None else np.asarray(h0, np.float64)
    c = np.zeros((batch, units)) if c0 is None else np.asarray(c0, np.float64)
    shown = np.zeros((batch, units))
    steps, outputs = [], []
    kernels, recurrent_kernels = _by_gate(kernel), _by_gate(recurrent_kernel)
    biases = np.split(np.zeros(4 * units) if bias is None else bias, 4)
    for t in range(time):
        i, f, g, o = (
            (x[:, t] * dx[:, t]) @ k + (h * dh) @ r + b
            for dx, dh, k, r, b in zip(*dropout, kernels, recurrent_kernels, biases, strict=True)
        )
        c_new = gate(f) * c + gate(i) * act(g)
        h_new = gate(o) * act(c_new)
        steps.append(_Step(x[:, t], h, c, (i, f, g, o), c_new))
        now = m[:, t, None]
        h, c = np.where(now, h_new, h), np.where(now, c_new, c)
        shown = np.where(now, h_new, 0.0 if zero_output_for_mask else shown)
        outputs.append(shown)
    return _Trace(steps, m, np.stack(outputs, 1), h, c)


def forward(
    x: Array,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    *,
    h0: Array | None = None,
    c0: Array | None = None,
    mask: Array | None = None,
    go_backwards: bool = False,
    return_sequences: bool = False,
    zero_output_for_mask: bool = False,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    input_dropout: Array | None = None,
    recurrent_dropout: Array | None = None,
) -> Result:
    """Output, h and c in float64. With ``go_backwards`` sequences stay in processing order."""
    weights = _double(kernel, recurrent_kernel, bias)
    functions = ACTIVATIONS[activation][0], ACTIVATIONS[recurrent_activation][0]
    units = weights[1].shape[0]
    dropout = _Dropout.of(input_dropout, recurrent_dropout, x, units, go_backwards)
    trace = _run(
        np.asarray(x, np.float64), weights, h0, c0, mask, go_backwards, zero_output_for_mask,
        functions, dropout,
    )  # fmt: skip
    output = trace.outputs if return_sequences else trace.outputs[:, -1]
    return Result(output, trace.h, trace.c)


def gradients(
    x: Array,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    *,
    d_output: Array,
    d_h: Array | None = None,
    d_c: Array | None = None,
    h0: Array | None = None,
    c0: Array | None = None,
    mask: Array | None = None,
    go_backwards: bool = False,
    return_sequences: bool = False,
    zero_output_for_mask: bool = False,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    input_dropout: Array | None = None,
    recurrent_dropout: Array | None = None,
) -> Gradients:
    """Derivatives of sum(output d_output) + sum(h d_h) + sum(c d_c), by backpropagation in time."""
    kernel, recurrent_kernel, bias = _double(kernel, recurrent_kernel, bias)
    (act, d_act), (gate, d_gate) = ACTIVATIONS[activation], ACTIVATIONS[recurrent_activation]
    units = recurrent_kernel.shape[0]
    dropout = _Dropout.of(input_dropout, recurrent_dropout, x, units, go_backwards)
    trace = _run(
        np.asarray(x, np.float64), (kernel, recurrent_kernel, bias), h0, c0, mask, go_backwards,
        zero_output_for_mask, (act, gate), dropout,
    )  # fmt: skip
    batch, time, units = trace.outputs.shape
    d_outputs = np.zeros((batch, time, units))
    if return_sequences:
        d_outputs[:] = d_output
    else:
        d_outputs[:, -1] = d_output
    dh = np.zeros((batch, units)) if d_h is None else np.asarray(d_h, np.float64)
    dc = np.zeros((batch, units)) if d_c is None else np.asarray(d_c, np.float64)
    d_shown = np.zeros((batch, units))
    dx = np.zeros((batch, time, kernel.shape[0]))
    dk, dr, db = np.zeros(kernel.shape), np.zeros(recurrent_kernel.shape), np.zeros(4 * units)
    for t in reversed(range(time)):
        step, now = trace.steps[t], trace.mask[:, t, None]
        i, f, g, o = step.gates
        d_shown = d_shown + d_outputs[:, t]
        dh_new = np.where(now, dh + d_shown, 0.0)
        d_shown = np.where(now | zero_output_for_mask, 0.0, d_shown)
        dc_new = np.where(now, dc, 0.0) + d_act(step.c_new, dh_new * gate(o))
        dzs = (
            d_gate(i, dc_new * act(g)),
            d_gate(f, dc_new * step.c),
            d_act(g, dc_new * gate(i)),
            d_gate(o, dh_new * act(step.c_new)),
        )
        masks = [(m[:, t], n) for m, n in zip(*dropout, strict=True)]
        dx[:, t] = sum(
            (dz @ k.T) * m for dz, k, (m, _) in zip(dzs, _by_gate(kernel), masks, strict=True)
        )
        dk += np.concatenate(
            [(step.x * m).T @ dz for dz, (m, _) in zip(dzs, masks, strict=True)], 1
        )
        dr += np.concatenate(
            [(step.h * n).T @ dz for dz, (_, n) in zip(dzs, masks, strict=True)], 1
        )
        db += np.concatenate(dzs, 1).sum(0)
        dh = np.where(now, 0.0, dh) + sum(
            (dz @ r.T) * n
            for dz, r, (_, n) in zip(dzs, _by_gate(recurrent_kernel), masks, strict=True)
        )
        dc = np.where(now, 0.0, dc) + dc_new * gate(f)
    if go_backwards:
        dx = dx[:, ::-1]
    return Gradients(dx, dk, dr, None if bias is None else db, dh, dc)


def _double(
    kernel: Array, recurrent_kernel: Array, bias: Array | None
) -> tuple[Array, Array, Array | None]:
    def wide(a: Array) -> Array:
        return np.asarray(a, np.float64)

    return wide(kernel), wide(recurrent_kernel), None if bias is None else wide(bias)
