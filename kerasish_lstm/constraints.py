"""Keras's constraints: the projection of a weight after each step of the optimizer.

    MaxNorm       w n' / (n + 1e-7),  n' = clip(n, 0, max_value)
    MinMaxNorm    w n' / (n + 1e-7),  n' = rate clip(n, min_value, max_value) + (1 - rate) n
    UnitNorm      w / (n + 1e-7)
    NonNeg        max(w, 0)

with n the Euclidean norm over ``axis``. Axes are Keras's, so axis 0 of a kernel (F, 4U) is F, which
is axis 1 of torch's ``weight_ih_l0``; the tensors come in Keras's axes too. Source: Keras 3.15.1,
``keras/src/constraints/constraints.py``.

16-bit weights are projected in float32. Keras projects them in their dtype, and float16's range
then turns a zero vector into NaN under MinMaxNorm (0 times min_value / 1e-7).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ._objects import KerasObject, Room, serialize
from ._objects import get as _get
from .errors import ConfigError

__all__ = [
    "CONSTRAINTS",
    "Constraint",
    "MaxNorm",
    "MinMaxNorm",
    "NonNeg",
    "UnitNorm",
    "get",
    "serialize",
]

Axis = int | Sequence[int] | None


@dataclasses.dataclass(frozen=True)
class Constraint(KerasObject):
    """The base of the constraints. Keras's is one too, and leaves a weight as it is."""

    module = "keras.constraints"

    def __call__(self, w: Tensor) -> Tensor:
        """The weight that fulfils the constraint, of the same dtype."""
        return self._project(w.to(torch.promote_types(w.dtype, torch.float32))).to(w.dtype)

    def _project(self, w: Tensor) -> Tensor:
        return w


@dataclasses.dataclass(frozen=True)
class NonNeg(Constraint):
    """Negative weights become 0."""

    def _project(self, w: Tensor) -> Tensor:
        return w.clamp(min=0)


@dataclasses.dataclass(frozen=True)
class MaxNorm(Constraint):
    """Norms above ``max_value`` become ``max_value``."""

    max_value: float = 2
    axis: Axis = 0

    def __post_init__(self) -> None:
        self._check_numbers("max_value")
        _check_axis(self)

    def _project(self, w: Tensor) -> Tensor:
        n = _norms(w, self.axis, self)
        return w * (_clip(n, 0, self.max_value) / (_EPSILON + n))


@dataclasses.dataclass(frozen=True)
class UnitNorm(Constraint):
    """Norms become 1."""

    axis: Axis = 0

    def __post_init__(self) -> None:
        _check_axis(self)

    def _project(self, w: Tensor) -> Tensor:
        return w / (_EPSILON + _norms(w, self.axis, self))


@dataclasses.dataclass(frozen=True)
class MinMaxNorm(Constraint):
    """Norms outside [min_value, max_value] move to its nearer end, all the way at rate 1."""

    min_value: float = 0.0
    max_value: float = 1.0
    rate: float = 1.0
    axis: Axis = 0

    def __post_init__(self) -> None:
        self._check_numbers("min_value", "max_value", "rate")
        _check_axis(self)

    def _project(self, w: Tensor) -> Tensor:
        n = _norms(w, self.axis, self)
        wanted = self.rate * _clip(n, self.min_value, self.max_value) + (1 - self.rate) * n
        return w * (wanted / (_EPSILON + n))


CONSTRAINTS: dict[str, type[Constraint]] = {
    "Constraint": Constraint,
    "constraint": Constraint,
    "MaxNorm": MaxNorm,
    "max_norm": MaxNorm,
    "maxnorm": MaxNorm,  # Keras 1 and 2
    "MinMaxNorm": MinMaxNorm,
    "min_max_norm": MinMaxNorm,
    "NonNeg": NonNeg,
    "non_neg": NonNeg,
    "nonneg": NonNeg,  # Keras 1 and 2
    "UnitNorm": UnitNorm,
    "unit_norm": UnitNorm,
    "unitnorm": UnitNorm,  # Keras 1 and 2
}

_ROOM = Room(
    what="a constraint",
    base=Constraint,
    table=CONSTRAINTS,
    call="callable(weight in Keras's axes), for a tensor of the same shape",
    renamed={"m": "max_value", "low": "min_value", "high": "max_value"},
    none_is_meant=("axis",),  # all axes together
)


def get(identifier: Any, keyword: str = "constraint") -> Callable[..., Tensor] | None:
    """The constraint of an identifier, as ``keras.constraints.get``; None for None.

    Raises:
        ConfigError: see ``_objects.get``.
    """
    constraint: Callable[..., Tensor] | None = _get(identifier, keyword, _ROOM)
    return constraint


_EPSILON = 1e-7  # keras.config.epsilon()


def _check_axis(owner: MaxNorm | UnitNorm | MinMaxNorm) -> None:
    if isinstance(owner.axis, list | tuple):
        owner._check_axes("axis")
    elif owner.axis is not None and type(owner.axis) is not int:
        raise owner._reject("axis", "an integer, a list of integers or None (all axes)")


def _norms(w: Tensor, axis: Axis, owner: Constraint) -> Tensor:
    """The Euclidean norms over the axes, which stay, with size 1."""
    axes = tuple(range(w.ndim)) if axis is None else (axis,) if isinstance(axis, int) else axis
    places = {a % w.ndim if -w.ndim <= a < w.ndim else None for a in axes}
    if None in places or len(places) != len(axes):
        raise ConfigError(
            f"{type(owner).__name__}: axis={axis!r} does not fit a weight of shape "
            f"{tuple(w.shape)}, in Keras's axes. A kernel has the axes 0 and 1, a bias has axis 0."
        )
    square = w.square()
    return (square.sum(tuple(axes), keepdim=True) if axes else square).sqrt()


def _clip(n: Tensor, low: float, high: float) -> Tensor:
    """TensorFlow's clip: where low > high, it is low; torch's ``clamp`` gives high."""
    return n.clamp(max=high).clamp(min=low)
