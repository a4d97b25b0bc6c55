"""What is recorded from live Keras besides the plain layer: wrappers, losses, training.

Each family is the cases of a test file, how Keras is asked for them, and how this package runs
them. ``make_goldens`` records them; ``test_goldens`` compares on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from . import (
    test_bidirectional,
    test_cell,
    test_regularized,
    test_stacked,
    test_time_distributed,
)

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Family:
    """Cases of one kind.

    cases: by id.
    function: of the Keras process, which takes a list of requests.
    request: of a case; ours: its results here, in float64.
    features: the features of Keras that the cases cover.
    """

    cases: Mapping[str, Any]
    function: str
    request: Callable[[Any], dict[str, Any]]
    ours: Callable[[Any, torch.device], Arrays]
    features: str


def _both(case: test_bidirectional.Both) -> dict[str, Any]:
    return {
        "keywords": case.keywords(), "merge_mode": case.merge_mode, "units": case.units(),
        "arrays": case.inputs(), "results": case.results(), "dtype": "float64",
    }  # fmt: skip


def _stack(case: test_stacked.Stack) -> dict[str, Any]:
    return {
        "form": case.form, "layers": case.specs(), "keywords": case.keywords(),
        "arrays": case.inputs(),
    }  # fmt: skip


def _cell(name: str) -> dict[str, Any]:
    keywords = {"units": test_cell.U, **test_cell.KEYWORDS[name]}
    return {"keywords": keywords, "arrays": test_cell.inputs(name)}


def _slices(case: Any) -> dict[str, Any]:
    keywords = {"units": test_time_distributed.U, **test_time_distributed.keywords(case)}
    arrays = test_time_distributed.inputs(case)
    return {"keywords": keywords, "merge_mode": case[5], "arrays": arrays}


def _losses(case: test_regularized.Call) -> dict[str, Any]:
    return {"spec": case.spec, "arrays": case.arrays()}


def _our_losses(case: test_regularized.Call, device: torch.device) -> Arrays:
    with device:
        found = test_regularized.ours(case)
    return {name: value for name, value in found.items() if not name.startswith("result")}


def _run(run: test_regularized.Run) -> dict[str, Any]:
    weights, batches = run.problem()
    return {
        "spec": run.spec(), "arrays": weights, "batches": batches, "dtype": "float64",
        "optimizer": run.optimizer, "rate": test_regularized.LR[run.optimizer],
    }  # fmt: skip


def _our_run(run: test_regularized.Run, device: torch.device) -> Arrays:
    with device:
        return named(test_regularized.trained(run))


def named(answer: Any) -> Arrays:
    """The weights after a training, which come as a list, by number."""
    if isinstance(answer, Mapping):
        return {name: np.asarray(value) for name, value in answer.items()}
    return {f"weight{i:02d}": np.asarray(value) for i, value in enumerate(answer)}


FAMILIES: dict[str, Family] = {
    "bidirectional": Family(
        {c.id: c for c in test_bidirectional.LIVE},
        "keras_side.run_bidirectional",
        _both,
        lambda case, device: test_bidirectional.ours(case, torch.float64, device),
        "every merge_mode, another backward layer, states, masks",
    ),
    "stacked": Family(
        {c.id: c for c in test_stacked.CASES},
        "stack_side.run",
        _stack,
        test_stacked.ours,
        "RNN over one cell and several, chains of layers with Bidirectional among them",
    ),
    "cell": Family(
        {name: name for name in test_cell.KEYWORDS},
        "stack_side.steps",
        _cell,
        test_cell.ours,
        "LSTMCell step by step, with both dropouts",
    ),
    "time_distributed": Family(
        {test_time_distributed.shown(c): c for c in test_time_distributed.CASES},
        "stack_side.time_distributed",
        _slices,
        test_time_distributed.ours,
        "slices of a sequence of sequences, states between them, a mask of each",
    ),
    "losses": Family(
        {c.id: c for c in test_regularized.CALLS},
        "regularized_side.losses",
        _losses,
        _our_losses,
        "regularizers of weights and activity, frozen weights, the losses' order and gradients",
    ),
    "training": Family(
        {r.id: r for r in test_regularized.RUNS},
        "regularized_side.train",
        _run,
        _our_run,
        "SGD and Adam, twenty masked steps with regularizers, constraints and dropout",
    ),
}
EVERY = [(name, key) for name, family in FAMILIES.items() for key in family.cases]
