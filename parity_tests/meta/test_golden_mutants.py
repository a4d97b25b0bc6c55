"""Each mutant again, before the golden leg alone: what a machine without Keras would notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from .. import families, test_goldens
from ..make_goldens import FOLDER
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
# Where a kind's mutants show first; the others follow.
FIRST = {
    "layer": ("plain",),
    "bidirectional": ("bidirectional",),
    "stack": ("stacked", "time_distributed", "losses"),
    "training": ("losses", "training"),
}


@pytest.fixture(scope="module")
def checks() -> dict[str, list[Callable[[], None]]]:
    """Every recorded case, by family; ``plain`` are those of the layer."""
    of_families = test_goldens.of_families()
    found: dict[str, list[Callable[[], None]]] = {}
    for family, case in families.EVERY:
        check = partial(assert_family, family, case, CPU, of_families[family, case])
        found.setdefault(family, []).append(check)
    with np.load(FOLDER / "keras.npz") as archive:
        layer: dict[str, dict[str, np.ndarray]] = {}
        for key in archive.files:
            case, _, name = key.rpartition("/")
            layer.setdefault(case, {})[name] = archive[key]
    found["plain"] = [partial(_layer, case, layer[case.id]) for _, case in test_goldens.EVERY]
    return found


crashes: list[str] = []


def _layer(case: Any, expected: dict[str, np.ndarray]) -> None:
    test_goldens.assert_case(case, CPU, torch.float64, expected, {})


def failing(checks: dict[str, list[Callable[[], None]]], kind: str) -> Iterator[str]:
    """What gives other numbers, one after the other.

    A mutant is made for cases of its kind, and may crash in others: that says nothing of it.
    """
    for family in dict.fromkeys((*FIRST[kind], *checks)):
        for check in checks[family]:
            try:
                check()
            except AssertionError as error:  # as is a ParityError
                yield f"{family}: {error}"
            except Exception as error:
                crashes.append(f"{family}: {type(error).__name__}: {error}")


@pytest.mark.slow
def test_nothing_fails_without_a_mutant(checks: Any) -> None:
    crashes.clear()
    assert list(failing(checks, "layer")) == crashes == []


@pytest.mark.parametrize("name", MUTANTS)
def test_the_golden_leg_kills(name: str, checks: Any, monkeypatch: Patch) -> None:
    if name in NOT_RECORDED:
        pytest.skip(f"{name}: {NOT_RECORDED[name]}")
    MUTANTS[name](monkeypatch)
    first = next(failing(checks, name.partition(":")[0]), None)
    assert first is not None, f"the mutant {name!r} lives; crashes: {crashes[-3:]}"


@pytest.mark.slow
@pytest.mark.parametrize("name", NOT_RECORDED)
def test_what_goldens_cannot_show_lives(name: str, checks: Any, monkeypatch: Patch) -> None:
    """Were one to die, it would have to leave the list."""
    MUTANTS[name](monkeypatch)
    assert next(failing(checks, name.partition(":")[0]), None) is None
