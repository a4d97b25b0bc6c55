"""What of its long sweeps the suite runs by default; ``--full`` runs them whole.

A sample is drawn by a fixed seed, so that every run of one commit tests the same. Each value that
occurs in the ids of a sweep occurs in its sample too: no kind of case is left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

full = False  # conftest.py sets it, before any test is collected

T = TypeVar("T")


def sampled(values: Sequence[T], share: float, id_of: Callable[[T], str] = str) -> list[T]:
    """A share of the values, in their order; all of them with ``--full``.

    Args:
        share: of the values, from 0 to 1; more are taken where that would leave out a kind.
        id_of: the id of a value, its kinds joined by "-".
    """
    if full:
        return list(values)
    order = list(range(len(values)))
    random.Random(7).shuffle(order)
    seen: set[str] = set()
    needed, others = [], []
    for index in order:
        kinds = set(id_of(values[index]).split("-"))
        (others if kinds <= seen else needed).append(index)
        seen |= kinds
    count = round(share * len(values))
    return [values[index] for index in sorted((needed + others)[: max(count, len(needed))])]


def fields(case: Any) -> str:
    """An id of a dataclass's instance by which each value of each field is a kind."""
    return "-".join(f"{name}={value}" for name, value in vars(case).items())


def amount(usual: Any, whole: Any) -> Any:
    """How many, or how long: ``usual`` by default, ``whole`` with ``--full``."""
    return whole if full else usual
