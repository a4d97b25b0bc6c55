"""Mistakes that ports make in stacks and in TimeDistributed: the suite kills each, by name.

zero_output_for_mask of the inner cells is no mistake: the next cell looks at no masked step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from kerasish_lstm import LSTM, StackedLSTM, TimeDistributed, _engines
from kerasish_lstm.layers import stacked, state
from kerasish_lstm.layers.parameters import LSTMParameters

from .. import test_regularized, test_stacked, test_time_distributed
from ..test_regularized import Call
from ..test_stacked import Stack

Patch = pytest.MonkeyPatch
Mutant = Callable[[Patch], None]
Check = Callable[[], None]

CPU = torch.device("cpu")


def cells(*case: Any) -> Check:
    return partial(test_stacked.test_cells_equal_the_equations, Stack("cells", *case), CPU)


def results(layer: str, mask: str = "none") -> Check:
    case = Call(layer, mask)
    return partial(test_regularized.test_losses_and_results_equal_the_equations, case)


PLAIN = cells("ll", "none", "given", True, True)
MASKED = cells("lll", "gaps", "none", True, True)
BACKWARDS = cells("ll", "none", "none", True, True, True)
STATEFUL = cells("ll", "gaps", "stateful", True)
SLICES = partial(
    test_time_distributed.test_equals_the_layer_slice_by_slice,
    (False, False, False, False, True, "none"),
    CPU,
)


def survives(check: Check) -> bool:
    """Whether the suite's test passes. A crash would be another failure, and is not hidden."""
    try:
        check()
    except AssertionError:  # as is a ParityError
        return False
    return True


# Cells


def states_in_reverse_order(patch: Patch) -> None:
    run_cells = StackedLSTM._run_cells

    def run(self: Any, *args: Any) -> Any:
        result = run_cells(self, *args)
        return (result[0], *result[:0:-1]) if self.return_state else result

    patch.setattr(StackedLSTM, "_run_cells", run)


def initial_h_and_c_swapped(patch: Patch) -> None:
    begin = StackedLSTM._begin

    def swapped(*args: Any) -> Any:
        return [_engines.LSTMState(c, h) for h, c in begin(*args)]

    patch.setattr(StackedLSTM, "_begin", swapped)


def recurrence(change: Callable[..., Any], lowest: bool) -> Mutant:
    """Cells that run on something else: all, or those above the lowest."""

    def mutate(patch: Patch) -> None:
        recur = LSTMParameters._recur

        def other(self: Any, x: Any, state: Any, lengths: Any, *rest: Any) -> Any:
            if lowest or self.input_size != test_stacked.F:
                x, lengths = change(x, lengths)
            return recur(self, x, state, lengths, *rest)

        patch.setattr(LSTMParameters, "_recur", other)

    return mutate


def _without_mask(x: Any, lengths: Any) -> Any:
    return x, None


def _flipped(x: Any, lengths: Any) -> Any:
    return x.flip(1), lengths


def initial_states_of_upper_cells_ignored(patch: Patch) -> None:
    begin = StackedLSTM._begin

    def first(*args: Any) -> Any:
        state, *others = begin(*args)
        return [state, *(_engines.LSTMState(*map(torch.zeros_like, other)) for other in others)]

    patch.setattr(StackedLSTM, "_begin", first)


def weights_from_the_top(patch: Patch) -> None:
    load = StackedLSTM._load
    patch.setattr(StackedLSTM, "_load", lambda self, w: load(self, [*w[3:], *w[:3]]))


def inner_outputs_held_at_masked_steps(patch: Patch) -> None:
    """What an inner cell shows at a masked step: the output before it, in place of zeros."""

    def held(y: Any, lengths: Any) -> Any:
        steps = torch.arange(y.shape[1]).minimum((lengths - 1).clamp(min=0).unsqueeze(1))
        return y.gather(1, steps.unsqueeze(-1).expand_as(y))

    patch.setattr(stacked, "cleared", held)


# Chains


def mask_that_ends_at_the_first_layer(patch: Patch) -> None:
    patch.setattr(LSTM, "output_mask", lambda layer, mask: None)


# TimeDistributed


def outer_and_inner_time_swapped(patch: Patch) -> None:
    forward = TimeDistributed.forward

    def swapped(self: Any, x: Any, mask: Any = None, training: Any = None) -> Any:
        mask = None if mask is None else mask.transpose(1, 2)
        return forward(self, x.transpose(1, 2), mask, training)

    patch.setattr(TimeDistributed, "forward", swapped)


def slices_put_back_as_rows(patch: Patch) -> None:
    """A batch of B times N slices taken for N times B."""
    forward = TimeDistributed.forward

    def mixed(self: Any, x: Any, mask: Any = None, training: Any = None) -> Any:
        y = forward(self, x, mask, training)
        return y.flatten(0, 1).unflatten(0, (y.shape[1], y.shape[0])).transpose(0, 1)

    patch.setattr(TimeDistributed, "forward", mixed)


def mask_of_the_first_slice_for_all(patch: Patch) -> None:
    forward = TimeDistributed.forward

    def first(self: Any, x: Any, mask: Any = None, training: Any = None) -> Any:
        return forward(self, x, mask[:, :1].expand_as(mask), training)

    patch.setattr(TimeDistributed, "forward", first)


def state_not_carried(patch: Patch) -> None:
    patch.setattr(state.Stateful, "_stored", lambda *args: None)


def state_carried_without_being_asked(patch: Patch) -> None:
    init = TimeDistributed.__init__

    def stateful(self: Any, layer: Any, **keywords: Any) -> None:
        layer.config = layer.config.replace(stateful=True)
        init(self, layer, **keywords)

    patch.setattr(TimeDistributed, "__init__", stateful)


MUTANTS: dict[str, tuple[Mutant, Check]] = {
    "states of the cells in reverse order": (states_in_reverse_order, results("cells alike")),
    "initial h and c swapped": (initial_h_and_c_swapped, PLAIN),
    "initial states of the upper cells ignored": (initial_states_of_upper_cells_ignored, PLAIN),
    "weights from the top": (weights_from_the_top, results("cells alike")),
    "mask not passed to an upper cell": (recurrence(_without_mask, False), MASKED),
    "go_backwards flipped at each cell": (recurrence(_flipped, False), BACKWARDS),
    "states not frozen at masked steps": (recurrence(_without_mask, True), MASKED),
    "stored states not frozen at masked steps": (recurrence(_without_mask, True), STATEFUL),
    "state of a stack not carried": (state_not_carried, STATEFUL),
    "mask that ends at the first layer": (
        mask_that_ends_at_the_first_layer, results("chain", "gaps")
    ),
    "outer and inner time swapped": (outer_and_inner_time_swapped, SLICES),
    "slices put back as rows": (slices_put_back_as_rows, SLICES),
    "mask of the first slice for all": (mask_of_the_first_slice_for_all, SLICES),
    "state not carried along the outer time": (state_not_carried, results("time stateful")),
    "state carried without being asked": (state_carried_without_being_asked, results("time")),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_the_suite_kills(name: str, monkeypatch: Patch) -> None:
    mutate, check = MUTANTS[name]
    assert survives(check), "the case fails without the mutant"
    mutate(monkeypatch)
    assert not survives(check), f"the mutant {name!r} lives"


@pytest.mark.parametrize("check", [MASKED, STATEFUL], ids=["masked", "stateful"])
def test_what_inner_cells_show_at_masked_steps_matters_to_nothing(
    check: Check, monkeypatch: Patch
) -> None:
    inner_outputs_held_at_masked_steps(monkeypatch)
    assert survives(check)
