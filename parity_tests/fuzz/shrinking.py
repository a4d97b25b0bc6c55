"""From a case that fails to one that is as simple as the fields allow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from .walk import VALUES, Walk, settled


def cost(walk: Walk) -> int:
    """How far it is from the simplest case."""
    places = [VALUES[n].index(getattr(walk, n)) for n in VALUES]
    return sum(places) + (walk.data != 0)


def simpler(walk: Walk) -> Iterator[Walk]:
    """Cases with one field nearer to its simplest value, the boldest steps first."""
    here, seen = cost(walk), {walk}
    steps: list[tuple[int, str, Any]] = [(-1, "data", 0)]
    for name, values in VALUES.items():
        at = values.index(getattr(walk, name))
        # The simplest, half of the way, one step; of names each.
        places = range(at) if isinstance(values[0], str) and at < 8 else (0, at // 2, at - 1)
        steps += [(place, name, values[place]) for place in places if 0 <= place < at]
    for _, name, value in sorted(steps, key=lambda s: s[0]):
        candidate = settled(dataclasses.replace(walk, **{name: value}))
        if candidate not in seen and cost(candidate) < here:
            seen.add(candidate)
            yield candidate


def shrunk(walk: Walk, fails: Callable[[Walk], bool]) -> Walk:
    """The simplest case on a greedy way down on which ``fails`` holds."""
    while True:
        for candidate in simpler(walk):
            if fails(candidate):
                walk = candidate
                break
        else:
            return walk
