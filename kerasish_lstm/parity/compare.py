"""The comparator: it raises, and says where and by how much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ParityError


@dataclass(frozen=True)
class Comparison:
    """One comparison that :func:`assert_parity` made.

    Args:
        what: what was compared.
        absolute: the largest absolute difference.
        scale: what it is divided by.
        bound: the largest allowed ``error``.
        dtype: what the result was computed in.
    """

    what: str
    absolute: float
    scale: float
    bound: float
    dtype: str

    @property
    def error(self) -> float:
        """The largest difference, relative to the scale."""
        return self.absolute / self.scale

    @property
    def ulps(self) -> float:
        """The largest difference in units of the last place of the scale."""
        return self.error / _EPS[self.dtype]


_EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}

# Who wants to know of every comparison: the pytest plugin's report.
listeners: list[Callable[[Comparison], None]] = []


def assert_parity(
    actual: Any,
    expected: Any,
    *,
    bound: float,
    what: str = "output",
    scale: float | None = None,
    dtype: Any = None,
) -> float:
    """Raise unless ``actual`` equals ``expected`` within ``bound``; return the error observed.

    Args:
        actual, expected: arrays or tensors of one shape, floating-point.
        bound: the largest allowed max|actual - expected| / scale.
        what: what messages and reports call it.
        scale: None means max(1, max|expected|).
        dtype: what ``actual`` was computed in, where it was converted since; for reports.

    Raises:
        ParityError: another shape, a dtype that is not floating-point, NaN or infinity on one
            side only, or an error beyond the bound.
    """
    a, own = _array(actual, what)
    e, _ = _array(expected, what)
    if a.shape != e.shape:
        raise ParityError(f"{what}: shape {a.shape}, expected {e.shape}.")
    special = ~np.isfinite(a) | ~np.isfinite(e)
    with np.errstate(invalid="ignore"):
        same = (a == e) | (np.isnan(a) & np.isnan(e))
    difference = np.zeros(a.shape)
    difference[~special] = np.abs(a[~special] - e[~special])
    difference[special & ~same] = np.inf
    finite = np.abs(e[np.isfinite(e)])
    size = max(1.0, float(finite.max())) if scale is None and finite.size else (scale or 1.0)
    largest = float(difference.max()) if difference.size else 0.0
    name = own if dtype is None else str(dtype).removeprefix("torch.").removeprefix("mixed_")
    made = Comparison(what, largest, size, bound, name)
    for listener in listeners:
        listener(made)
    if not made.error <= bound:
        worst = np.unravel_index(int(difference.argmax()), difference.shape)
        count = int((difference > bound * size).sum())
        raise ParityError(
            f"{what}: {count} of {a.size} elements lie beyond the bound; the worst, at "
            f"{tuple(int(i) for i in worst)}, is {a[worst]!r}, expected {e[worst]!r}. "
            f"Error {made.error:.3g}, bound {bound:.3g} (relative to {size:.3g})."
        )
    return made.error


def _array(value: Any, what: str) -> tuple[np.ndarray, str]:
    """The value in float64, and its own dtype's name."""
    if hasattr(value, "detach"):
        if not value.is_floating_point():
            raise ParityError(f"{what}: dtype {value.dtype} is not floating-point.")
        return value.detach().cpu().double().numpy(), str(value.dtype).removeprefix("torch.")
    array: np.ndarray = np.asarray(value)
    if array.dtype.kind != "f":
        raise ParityError(f"{what}: dtype {array.dtype} is not floating-point.")
    return array.astype(np.float64), array.dtype.name
