"""Checks of the keywords that layers and Keras's configs share; they need no torch."""

from __future__ import annotations

import numbers
from typing import Any

from .errors import ConfigError


def checked_name(name: Any, kind: str) -> str | None:
    """The name of a layer of class ``kind``, as the caller gave it.

    Raises:
        ConfigError: neither None nor a string without ``/``.
    """
    if name is not None and (not isinstance(name, str) or "/" in name):
        raise ConfigError(f"{kind}: name={name!r} is not possible; pass a string without '/'.")
    return name


def features_of(input_shape: Any, input_dim: Any, kind: str) -> int | None:
    """F of Keras's ``input_shape=(..., F)`` or ``input_dim=F``; None where neither says it.

    Raises:
        ConfigError: no shape, or one whose last entry is neither a positive integer nor None.
    """
    if input_dim is not None:
        input_shape = (input_dim,)
    if input_shape is None:
        return None
    shape = tuple(input_shape) if isinstance(input_shape, list | tuple) else ()
    sizes = [n for n in shape if n is not None]
    if not shape or any(
        isinstance(n, bool) or not isinstance(n, numbers.Integral) or n < 1 for n in sizes
    ):
        given = f"input_shape={input_shape!r}" if input_dim is None else f"input_dim={input_dim!r}"
        raise ConfigError(
            f"{kind}: {given} is not possible; pass the shape of one example as a tuple of "
            "positive integers (None where a size is open), the features last."
        )
    return None if shape[-1] is None else int(shape[-1])


def check_features(input_size: int, input_shape: Any, input_dim: Any, kind: str) -> None:
    """Refuse an ``input_shape`` or ``input_dim`` that contradicts the input size.

    Raises:
        ConfigError: another number of features, or no shape.
    """
    features = features_of(input_shape, input_dim, kind)
    if features not in (None, input_size):
        raise ConfigError(
            f"{kind}: input_shape or input_dim says {features} features and input_size={input_size}"
            " says otherwise. Pass input_size alone."
        )


def is_flag(value: Any) -> bool:
    """Whether it is True or False, or the 1 or 0 that some configs have instead."""
    is_number = isinstance(value, numbers.Number) or type(value).__name__ in ("bool", "bool_")
    return is_number and value in (0, 1)


def as_flag(value: Any, keyword: str, kind: str) -> bool:
    """A flag as the caller gave it.

    Raises:
        ConfigError: neither True, False, 1 nor 0.
    """
    if not is_flag(value):
        raise ConfigError(f"{kind}: {keyword}={value!r} is a flag; pass True or False.")
    return bool(value)
