"""The comparator: it raises, and says where and by how much."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ParityError


def assert_parity(
    actual: Any, expected: Any, *, bound: float, what: str = "output", scale: float | None = None
) -> float:
    """Raise unless ``actual`` equals ``expected`` within ``bound``; return the error observed.

    Args:
        actual, expected: arrays or tensors of one shape, floating-point.
        bound: the largest allowed max|actual - expected| / scale.
        scale: None means max(1, max|expected|).

    Raises:
        ParityError: another shape, a dtype that is not floating-point, NaN or infinity on one
            side only, or an error beyond the bound.
    """
    a, e = _array(actual, what), _array(expected, what)
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
    error = float(difference.max()) / size if difference.size else 0.0
    if not error <= bound:
        worst = np.unravel_index(int(difference.argmax()), difference.shape)
        count = int((difference > bound * size).sum())
        raise ParityError(
            f"{what}: {count} of {a.size} elements lie beyond the bound; the worst, at "
            f"{tuple(int(i) for i in worst)}, is {a[worst]!r}, expected {e[worst]!r}. "
            f"Error {error:.3g}, bound {bound:.3g} (relative to {size:.3g})."
        )
    return error


def _array(value: Any, what: str) -> np.ndarray:
    if hasattr(value, "detach"):
        if not value.is_floating_point():
            raise ParityError(f"{what}: dtype {value.dtype} is not floating-point.")
        value = value.detach().cpu().double().numpy()
    array: np.ndarray = np.asarray(value)
    if array.dtype.kind != "f":
        raise ParityError(f"{what}: dtype {array.dtype} is not floating-point.")
    return array.astype(np.float64)
