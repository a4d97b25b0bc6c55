"""Each mutant again, before the golden leg alone: what a machine without Keras would notice."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np
import pytest
import torch

from .. import families, test_goldens
from ..sampling import sampled
from ..test_goldens import assert_family
from . import test_bidirectional_mutants, test_mutants, test_stack_mutants, test_training_mutants

Patch = pytest.MonkeyPatch
CPU = torch.device("cpu")
MUTANTS: dict[str, Callable[[Patch], None]] = {
    f"{kind}: {name}": mutate
    for kind, file in (
        ("layer", test_mutants),
        ("bidirectional", test_bidirectional_mutants),
        ("stack", test_stack_mutants),
        ("training", test_training_mutants),
    )
    for name, (mutate, _) in file.MUTANTS.items()
}
# What goldens cannot show: they are given their weights and masks, and each step moves all weights.
NOT_RECORDED = {
    "training: drawn masks not scaled": "goldens are given their masks",
    "training: ones at another gate": "goldens are given their weights",
    "training: constraints on what is not stepped": "each recorded step moves all weights",
}
# Where a kind's mutants show first, in turn; the others follow.
FIRST = {
    "layer": ("plain",),
    "bidirectional": ("bidirectional",),
    "stack": ("stacked", "time_distributed", "losses"),
    "training": ("losses", "training", "plain"),
}
Check = tuple[str, Callable[[], None]]  # with its name


@pytest.fixture(scope="module")
def checks() -> dict[str, list[Check]]:
    """Every recorded case, by family, in an order drawn once; ``plain`` are those of the layer."""
    of_families = test_goldens.of_families()
    found: dict[str, list[Check]] = {}
    for family, case in families.EVERY:
        check = partial(assert_family, family, case, CPU, of_families[family, case])
        found.setdefault(family, []).append((f"{family}-{case}", check))
    layer = test_goldens.of_layer()
    found["plain"] = [
        (f"plain-{c.id}", partial(_layer, c, layer[c.id])) for _, c in test_goldens.EVERY
    ]
    for some in found.values():
        random.Random(1).shuffle(some)
    return found


crashes: list[str] = []


def _layer(case: Any, expected: dict[str, np.ndarray]) -> None:
    test_goldens.assert_case(case, CPU, torch.float64, expected, {})


def ordered(checks: dict[str, list[Check]], kind: str) -> list[Check]:
    """One of each first family, another of each, and so on; then the other families."""
    turns = zip_longest(*(checks[family] for family in FIRST[kind]))
    others = (checks[family] for family in checks if family not in FIRST[kind])
    return [check for turn in (*turns, *others) for check in turn if check is not None]


def failing(checks: list[Check]) -> Iterator[Check]:
    """What gives other numbers, one after the other.

    A mutant is made for cases of its kind, and may crash in others: that says nothing of it.
    """
    for name, check in checks:
        try:
            check()
        except AssertionError:  # as is a ParityError
            yield name, check
        except Exception as error:
            crashes.append(f"{name}: {type(error).__name__}: {error}")


@pytest.mark.parametrize("name", MUTANTS)
def test_the_golden_leg_kills(name: str, checks: Any, monkeypatch: Patch) -> None:
    """By a case that passes without the mutant. (That all do is what test_goldens asserts.)"""
    if name in NOT_RECORDED:
        pytest.skip(f"{name}: {NOT_RECORDED[name]}")
    crashes.clear()
    MUTANTS[name](monkeypatch)
    first = next(failing(ordered(checks, name.partition(":")[0])), None)
    assert first is not None, f"the mutant {name!r} lives; crashes: {crashes[-3:]}"
    monkeypatch.undo()
    first[1]()


def test_what_goldens_cannot_show_lives(checks: Any, monkeypatch: Patch) -> None:
    """Were one to die, it would have to leave the list. They are tried all at once."""
    for name in NOT_RECORDED:
        MUTANTS[name](monkeypatch)
    some = [c for family in checks.values() for c in sampled(family, 0.3, lambda check: check[0])]
    assert [name for name, _ in failing(some)] == []
