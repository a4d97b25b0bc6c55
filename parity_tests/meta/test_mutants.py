"""Mistakes that ports make, made on purpose: the suite's own test must fail for each, by name."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from kerasish_lstm import _engines, _masks, activations, weights
from kerasish_lstm.errors import ParityError
from kerasish_lstm.layers import lstm, parameters

from ..cases import Case
from ..test_parity import test_float64_equals_the_oracle as the_suites_test

pytestmark = pytest.mark.smoke

CPU = torch.device("cpu")
PLAIN = Case("none", "given", True, True)
GAPS = Case("gaps", "given", True, True)
SQUARE = Case("none", "none", True, True, batch=2, steps=3, features=12, units=3)  # F == 4U
LAST = Case("right", "none")
BACKWARDS = Case("gaps", "none", True, True, go_backwards=True)
HARD = Case("none", "none", True, recurrent_activation="hard_sigmoid")

Patch = pytest.MonkeyPatch
Mutant = Callable[[Patch], None]


def survives(case: Case) -> bool:
    """Whether the suite's test passes. A crash would be another failure, and is not hidden."""
    try:
        the_suites_test("meta", case, CPU)
    except ParityError:
        return False
    return True


def gate_order(gates: str) -> Mutant:
    def mutate(patch: Patch) -> None:
        wrong = dataclasses.replace(weights.LAYOUTS["torch"], gates=gates)
        patch.setitem(weights.LAYOUTS, "torch", wrong)

    return mutate


def missing_transpose(patch: Patch) -> None:
    original = weights._stack

    def stack(array: Any, layout: Any, features: int, units: int) -> Any:
        stacked = original(array, layout, features, units)
        return stacked.T.copy() if layout.matrix == "GU N" and features == 4 * units else stacked

    patch.setattr(weights, "_stack", stack)


def doubled_bias(patch: Patch) -> None:
    load = parameters.LSTMParameters._load

    def twice(self: Any, *args: Any, **kwargs: Any) -> None:
        load(self, *args, **kwargs)
        if self.config.use_bias:
            self.lstm.bias_hh_l0.copy_(self.lstm.bias_ih_l0.detach())

    patch.setattr(parameters.LSTMParameters, "_load", twice)


def h_and_c_swapped(patch: Patch) -> None:
    for name in ("fused", "scan"):
        engine = getattr(parameters, name)

        def swapped(*args: Any, engine: Any = engine) -> Any:
            y, (h, c) = engine(*args)
            return y, _engines.LSTMState(c, h)

        patch.setattr(parameters, name, swapped)


def initial_h_and_c_swapped(patch: Patch) -> None:
    begin = lstm.LSTM._begin
    patch.setattr(lstm.LSTM, "_begin", lambda *args: _engines.LSTMState(*reversed(begin(*args))))


def masks_changed(patch: Patch, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """In a checked call and in a quick one."""
    as_mask, quickly = lstm.as_mask, lstm.LSTM._quickly

    def changed(*args: Any) -> Any:
        mask = as_mask(*args)
        return None if mask is None else change(mask)

    def quickly_changed(self: Any, x: Any, mask: Any, training: bool) -> Any:
        is_mask = torch.is_tensor(mask) and mask.dim() == 2
        return quickly(self, x, change(mask) if is_mask else mask, training)

    patch.setattr(lstm, "as_mask", changed)
    patch.setattr(lstm.LSTM, "_quickly", quickly_changed)


def mask_shifted(patch: Patch) -> None:
    masks_changed(patch, lambda mask: mask.roll(1, 1))


def mask_not_reversed(patch: Patch) -> None:
    """Undo the flip of the mask alone, by flipping it before."""
    masks_changed(patch, lambda mask: mask.flip(1))


def sequence_not_in_processing_order(patch: Patch) -> None:
    forward = lstm.LSTM.forward

    def flipped(self: Any, *args: Any, **kwargs: Any) -> Any:
        output, *state = forward(self, *args, **kwargs)
        return (output.flip(1) if self.config.go_backwards else output, *state)

    patch.setattr(lstm.LSTM, "forward", flipped)


def last_step_for_last_valid_step(patch: Patch) -> None:
    def last(y: Any, mask: Any, zero: bool) -> Any:
        return y[:, -1]

    patch.setattr(lstm, "last_output", last)


def final_state_of_the_last_step(patch: Patch) -> None:
    def careless(lstm_: Any, x: Any, state: Any, lengths: Any, final_state: bool) -> Any:
        return _engines.fused(lstm_, x, state, None, final_state)

    patch.setattr(parameters, "fused", careless)


def hard_sigmoid_of_the_other_version(patch: Patch) -> None:
    patch.setitem(
        activations.ACTIVATIONS, "hard_sigmoid", activations.ACTIVATIONS["hard_sigmoid_v2"]
    )


def masked_inputs_not_zeroed(patch: Patch) -> None:
    """Every output is still right; the gradients are NaN."""

    def compact(x: Any, mask: Any) -> Any:
        order = torch.argsort(~mask, dim=1, stable=True)
        return x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[2])), mask.sum(1)

    patch.setattr(lstm, "compact", compact)


def segments_left_in_their_order(patch: Patch) -> None:
    """Rows sorted by length for the segments, and never put back."""
    patch.setattr(_engines, "_WORTH_CUTTING", -1)
    original = torch.Tensor.argsort

    def argsort(self: Any, *args: Any, **kwargs: Any) -> Any:
        order = original(self, *args, **kwargs)
        return order if kwargs else torch.arange(len(order))  # the second call is the way back

    patch.setattr(torch.Tensor, "argsort", argsort)


def outputs_before_the_first_step_are_h0(patch: Patch) -> None:
    """What Keras does on JAX and NumPy."""

    def spread(y: Any, mask: Any, zero: bool) -> Any:
        position = (mask.cumsum(1) - 1).clamp(min=0)
        return y.gather(1, position.unsqueeze(-1).expand(-1, -1, y.shape[2]))

    patch.setattr(lstm, "spread", spread)


def zero_output_for_mask_ignored(patch: Patch) -> None:
    patch.setattr(lstm, "spread", lambda y, mask, _: _masks.spread(y, mask, False))


def forget_gate_on_the_candidate(patch: Patch) -> None:
    def step(z: Any, state: Any, recurrent: Any, activation: Any, gate: Any, _: Any) -> Any:
        h, c = state
        i, f, g, o = torch.addmm(z, h, recurrent).chunk(4, dim=1)
        c = gate(i) * c + gate(f) * activation(g)
        return _engines.LSTMState(gate(o) * activation(c), c)

    patch.setattr(_engines, "lstm_step", step)


MUTANTS: dict[str, tuple[Mutant, Case]] = {
    **{
        f"gate order {''.join(order)}": (gate_order("".join(order)), PLAIN)
        for order in itertools.permutations("ifgo")
        if "".join(order) != "ifgo"
    },
    "missing transpose at F == 4U": (missing_transpose, SQUARE),
    "doubled bias": (doubled_bias, PLAIN),
    "h and c swapped": (h_and_c_swapped, PLAIN),
    "initial h and c swapped": (initial_h_and_c_swapped, PLAIN),
    "mask shifted": (mask_shifted, GAPS),
    "mask not reversed with go_backwards": (mask_not_reversed, BACKWARDS),
    "sequence not in processing order": (sequence_not_in_processing_order, BACKWARDS),
    "last step for last valid step": (last_step_for_last_valid_step, LAST),
    "final state of the last step": (final_state_of_the_last_step, GAPS),
    "hard_sigmoid of the other version": (hard_sigmoid_of_the_other_version, HARD),
    "masked inputs not zeroed": (masked_inputs_not_zeroed, GAPS),
    "segments left in their order": (segments_left_in_their_order, GAPS),
    "outputs before the first step are h0": (
        outputs_before_the_first_step_are_h0, Case("left", "given", True)
    ),
    "zero_output_for_mask ignored": (
        zero_output_for_mask_ignored, Case("gaps", "none", True, zero_output_for_mask=True)
    ),
    "forget gate on the candidate": (forget_gate_on_the_candidate, PLAIN),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_the_suite_kills(name: str, monkeypatch: Patch) -> None:
    mutate, case = MUTANTS[name]
    assert survives(case), "the case fails without the mutant"
    mutate(monkeypatch)
    assert not survives(case), f"the mutant {name!r} lives"
