"""Keras's regularizers: a penalty of a tensor, to be added to the loss.

    L1            l1 sum|x|
    L2            l2 sum x^2
    L1L2          l1 sum|x| + l2 sum x^2
    OrthogonalRegularizer    factor mean over the pairs of rows (or columns) of |cosine|

Tensors are in Keras's axes: a kernel is (F, 4U). A penalty is a scalar tensor of the tensor's
dtype, and values and gradients are those of Keras 3.15 on TensorFlow
(``keras/src/regularizers/regularizers.py``), which rounds factors to float32 for every dtype.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._objects import KerasObject, Room, serialize
from ._objects import get as _get
from .errors import InputError

__all__ = [
    "L1",
    "L1L2",
    "L2",
    "REGULARIZERS",
    "OrthogonalRegularizer",
    "Regularizer",
    "get",
    "serialize",
]


@dataclasses.dataclass(frozen=True)
class Regularizer(KerasObject):
    """The base of the regularizers."""

    module = "keras.regularizers"

    def __call__(self, x: Tensor) -> Tensor:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class L1(Regularizer):
    """l1 sum|x|; its slope at 0 is 0. Keras holds l1 in float32, in the config too."""

    l1: float = 0.01

    def __post_init__(self) -> None:
        _factor(self, "l1", 0.01)
        self._set("l1", _float32(self.l1))

    def __call__(self, x: Tensor) -> Tensor:
        return _coefficient(self.l1, x) * x.abs().sum()


@dataclasses.dataclass(frozen=True)
class L2(Regularizer):
    """l2 sum x^2."""

    l2: float = 0.01

    def __post_init__(self) -> None:
        _factor(self, "l2", 0.01)

    def __call__(self, x: Tensor) -> Tensor:
        return _coefficient(self.l2, x) * x.square().sum()


@dataclasses.dataclass(frozen=True)
class L1L2(Regularizer):
    """l1 sum|x| + l2 sum x^2, each where it is not 0."""

    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        _factor(self, "l1", 0.0)
        _factor(self, "l2", 0.0)

    def __call__(self, x: Tensor) -> Tensor:
        penalty = x.new_zeros(())
        if self.l1 != 0:
            penalty = penalty + L1(self.l1)(x)
        if self.l2 != 0:
            penalty = penalty + L2(self.l2)(x)
        return penalty


@dataclasses.dataclass(frozen=True)
class OrthogonalRegularizer(Regularizer):
    """factor times the mean |cosine| of the pairs of rows, or of columns, of a matrix.

    A vector of zeros has cosine 0 and gradient 0 with every other; those shorter than 1e-7 count
    by their length. One row alone has no pair and gives NaN, as in Keras. Unlike Keras's, which
    fails on them, this takes float64 and 16-bit tensors.
    """

    factor: float = 0.01
    mode: str = "rows"

    def __post_init__(self) -> None:
        self._check_factor("factor")
        self._set("factor", _float32(self.factor))
        self._check_choice("mode", ("rows", "columns"))

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim != 2:
            raise InputError(
                f"OrthogonalRegularizer: a tensor of shape {tuple(x.shape)} has no rows and "
                "columns; it takes matrices: a kernel, or the output (B, U) of an LSTM without "
                "return_sequences."
            )
        with torch.autocast(x.device.type, enabled=False):  # Keras's weights stay float32
            rows = x.to(torch.promote_types(x.dtype, torch.float32))
            rows = rows if self.mode == "rows" else rows.t()
            # Keras clips after the root, whose slope at 0 torch would turn into NaN.
            rows = rows * rows.square().sum(1, keepdim=True).clamp(min=_EPSILON**2).rsqrt()
            size = rows.shape[0]
            cosines = (rows @ rows.t()) * (1 - torch.eye(size, dtype=rows.dtype, device=x.device))
            pairs = size * (size - 1.0) / 2.0
            penalty: Tensor = self.factor * 0.5 * cosines.abs().sum() / pairs
        return penalty.to(x.dtype)


REGULARIZERS: dict[str, type[Regularizer]] = {
    "L1": L1,
    "l1": L1,
    "L2": L2,
    "l2": L2,
    "L1L2": L1L2,
    "l1l2": L1L2,
    "l1_l2": L1L2,
    "OrthogonalRegularizer": OrthogonalRegularizer,
    "orthogonal_regularizer": OrthogonalRegularizer,
    # Keras 1
    "WeightRegularizer": L1L2,
    "L1L2Regularizer": L1L2,
    "ActivityRegularizer": L1L2,
}

_BASE = "it is Keras's base class, which has no penalty and no config. Pass None for no penalty."
_ROOM = Room(
    what="a regularizer",
    base=Regularizer,
    table=REGULARIZERS,
    call="callable(tensor), for a scalar tensor",
    refused={"Regularizer": _BASE, "regularizer": _BASE},
)


def get(identifier: Any, keyword: str = "regularizer") -> Callable[..., Tensor] | None:
    """The regularizer of an identifier, as ``keras.regularizers.get``; None for None.

    The string ``"l1_l2"`` is L1L2(0.01, 0.01), as Keras 2 has it and Keras 3 documents it; Keras 3
    itself does not know it, and its ``"l1l2"`` is L1L2(0, 0).

    Raises:
        ConfigError: see ``_objects.get``.
    """
    if isinstance(identifier, str) and identifier == "l1_l2":
        return L1L2(0.01, 0.01)
    regularizer: Callable[..., Tensor] | None = _get(identifier, keyword, _ROOM)
    return regularizer


_EPSILON = 1e-7  # keras.config.epsilon()


def _factor(owner: Regularizer, field: str, default: float) -> None:
    """A checked factor; None is the default, as in Keras."""
    if getattr(owner, field) is None:
        owner._set(field, default)
    owner._check_factor(field)


def _float32(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def _coefficient(value: float, x: Tensor) -> Tensor:
    """Keras's ``ops.cast(value, x.dtype)``: by way of float32."""
    return torch.full((), value, dtype=torch.float32, device=x.device).to(x.dtype)
