"""Keras's activations on torch tensors, by name.

Each is the function of Keras 3.15 on TensorFlow (``keras/src/activations/activations.py``,
``keras/src/backend/tensorflow/nn.py``) and is compared with it, value and gradient, in the suite.
The LSTM applies them to tensors of shape (B, U), so the axis of ``softmax`` is the units.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .config import Activation
from .errors import ConfigError

Function = Callable[[Tensor], Tensor]

_SQRT_HALF = float(np.float32(np.sqrt(0.5)))


def linear(x: Tensor) -> Tensor:
    return x


def hard_sigmoid(x: Tensor) -> Tensor:
    """Keras 3: relu6(x + 3) / 6. F.hardsigmoid is bitwise this, but its float64 gradient is not:
    it multiplies by a float32 sixth."""
    return F.relu6(x + 3) / 6


def hard_silu(x: Tensor) -> Tensor:
    """x relu6(x + 3) / 6. On CUDA F.hardswish multiplies float64 by a float32 sixth: 3e-9 off."""
    return x * hard_sigmoid(x)


def hard_sigmoid_v2(x: Tensor) -> Tensor:
    """Keras 1 and 2: clip(0.2 x + 0.5, 0, 1)."""
    return torch.clamp(0.2 * x + 0.5, 0.0, 1.0)


def leaky_relu(x: Tensor, negative_slope: float = 0.2) -> Tensor:
    """TensorFlow's operator holds the slope in float32, for float64 tensors too; so does this."""
    return F.leaky_relu(x, float(np.float32(negative_slope)))


def gelu(x: Tensor) -> Tensor:
    """x Phi(x). TensorFlow rounds sqrt(1/2) to float32, for float64 tensors too; so does this."""
    return 0.5 * x * torch.erfc(-x * _SQRT_HALF)


def squareplus(x: Tensor, b: float = 4.0) -> Tensor:
    return (x + torch.sqrt(torch.square(x) + b)) / 2


def sparse_plus(x: Tensor) -> Tensor:
    return torch.where(x <= -1, 0.0, torch.where(x < 1, torch.square(x + 1) / 4, x))


def sparse_sigmoid(x: Tensor) -> Tensor:
    return torch.where(x <= -1, 0.0, torch.where(x >= 1, 1.0, 0.5 * (x + 1)))


def tanh_shrink(x: Tensor) -> Tensor:
    return x - torch.tanh(x)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) everywhere; F.softplus is x above 20, which float64 can tell apart."""
    return torch.logaddexp(x, torch.zeros_like(x))


def mish(x: Tensor) -> Tensor:
    return x * torch.tanh(softplus(x))


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    return F.softmax(x, dim=axis)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    return F.log_softmax(x, dim=axis)


def sparsemax(x: Tensor, axis: int = -1) -> Tensor:
    """Keras 3.15's sparsemax, which is not the paper's.

    With z sorted downwards, s = cumsum(z) and S the ranks k where z_k > (s_k - 1) / k, Martins and
    Astudillo (2016) subtract (s_|S| - 1) / |S|, so that the result sums to 1; Keras subtracts
    (sum of s_k over S - 1) / |S|. They agree where |S| = 1.
    """
    ranked = x.sort(dim=axis, descending=True).values
    sums = ranked.cumsum(axis)
    shape = [1] * x.ndim
    shape[axis] = -1
    ranks = torch.arange(1, x.shape[axis] + 1, dtype=x.dtype, device=x.device).reshape(shape)
    support = ranked - (sums - 1) / ranks > 0
    size = support.sum(axis, keepdim=True).to(x.dtype)
    threshold = (torch.where(support, sums, 0.0).sum(axis, keepdim=True) - 1) / size
    return torch.clamp(x - threshold, min=0.0)


def glu(x: Tensor, axis: int = -1) -> Tensor:
    return F.glu(x, dim=axis)


def threshold(x: Tensor, threshold: float, default_value: float) -> Tensor:
    return F.threshold(x, threshold, default_value)


ACTIVATIONS: dict[str, Function] = {
    "celu": F.celu,
    "elu": F.elu,
    "exponential": torch.exp,
    "gelu": gelu,
    "hard_shrink": F.hardshrink,
    "hard_sigmoid": hard_sigmoid,
    "hard_sigmoid_v2": hard_sigmoid_v2,
    "hard_silu": hard_silu,
    "hard_swish": hard_silu,
    "hard_tanh": F.hardtanh,
    "leaky_relu": leaky_relu,
    "linear": linear,
    "log_sigmoid": F.logsigmoid,
    "log_softmax": log_softmax,
    "mish": mish,
    "relu": torch.relu,
    "relu6": F.relu6,
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "soft_shrink": F.softshrink,
    "softmax": softmax,
    "softplus": softplus,
    "softsign": F.softsign,
    "sparse_plus": sparse_plus,
    "sparse_sigmoid": sparse_sigmoid,
    "sparsemax": sparsemax,
    "squareplus": squareplus,
    "swish": F.silu,
    "tanh": torch.tanh,
    "tanh_shrink": tanh_shrink,
}

_SAME: dict[Function, str] = {
    torch.tanh: "tanh",
    torch.sigmoid: "sigmoid",
    F.tanh: "tanh",
    F.sigmoid: "sigmoid",
    torch.special.expit: "sigmoid",
}

_NOT_AN_LSTM_ACTIVATION = {
    "glu": "it halves the units. Pass functools.partial(kerasish_lstm.activations.glu, ...) where "
    "half of them broadcast to all (units=2), or another callable.",
    "threshold": "it needs two arguments. Pass functools.partial(kerasish_lstm.activations."
    "threshold, threshold=..., default_value=...), or another callable.",
}


def canonical(identifier: Activation | None, keyword: str) -> Activation:
    """The name of an activation where it has one here, else the callable itself.

    Raises:
        ConfigError: an unknown name; ``glu`` and ``threshold``, which need arguments.
    """
    if identifier is None:
        return "linear"
    if not isinstance(identifier, str):
        try:
            return _SAME.get(identifier, identifier)
        except TypeError:  # an unhashable callable has no name here
            return identifier
    if identifier in _NOT_AN_LSTM_ACTIVATION:
        raise ConfigError(
            f"LSTM: {keyword}={identifier!r} cannot run in an LSTM, in Keras neither: "
            f"{_NOT_AN_LSTM_ACTIVATION[identifier]}"
        )
    if identifier not in ACTIVATIONS:
        near = difflib.get_close_matches(identifier, ACTIVATIONS, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(
            f"LSTM: {keyword}={identifier!r} is not an activation{hint}. "
            f"Known are {', '.join(ACTIVATIONS)}; any callable on tensors works too."
        )
    return identifier


def function(activation: Activation) -> Function:
    """The function of a canonical activation."""
    return ACTIVATIONS[activation] if isinstance(activation, str) else activation
