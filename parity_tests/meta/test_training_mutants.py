"""Mistakes that ports make in training: dropout, regularizers, constraints. The suite kills each.

A regularizer that sees transposed weights makes a difference to OrthogonalRegularizer alone, and a
second bias that is regularized too only where it is not zero: here it is a buffer of zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from kerasish_lstm import _dropout, _engines, initializers, regularizers
from kerasish_lstm.layers import losses as layer_losses
from kerasish_lstm.layers import parameters

from .. import test_citizen, test_dropout, test_parity, test_regularized
from ..cases import Case
from ..test_regularized import Call, Run

Patch = pytest.MonkeyPatch
Mutant = Callable[[Patch], None]
Check = Callable[[], None]
Layer = parameters.LSTMParameters

CPU = torch.device("cpu")
one_thread = test_regularized.one_thread  # the fixture, for this file too


def dropout(kind: str) -> Check:
    case = Case("gaps", "given", True, True, dropout=kind)
    return partial(test_parity.test_float64_equals_the_oracle, "meta", case, CPU)


def losses(layer: str) -> Check:
    return partial(test_regularized.test_losses_and_results_equal_the_equations, Call(layer))


def training(*run: Any) -> Check:
    return partial(test_regularized.test_training_equals_the_equations, Run("lstm", *run))


INPUT, GATES, RECURRENT = dropout("input"), dropout("gates"), dropout("recurrent")
DRAWN = test_dropout.test_entries_are_independent_over_rows_features_and_gates
BACKWARDS = partial(test_regularized.test_masks_of_each_step_equal_the_equations, "gaps", True)
LSTM, STATES, FROZEN = losses("lstm"), losses("lstm states"), losses("lstm frozen")
REGULARIZED = training("sgd", True, "none")
MAX, UNIT = training("adam", False, "max"), training("sgd", False, "unit")
AXES = test_regularized.test_a_regularizer_that_sees_axes_sees_keras_s
UNSTEPPED = test_regularized.test_the_hook_leaves_alone_what_is_not_stepped
BIAS = partial(test_citizen.test_the_bias_is_zero_but_for_the_forget_gate, True)


def survives(check: Check) -> bool:
    """Whether the suite's test passes. A crash would be another failure, and is not hidden."""
    try:
        check()
    except AssertionError:  # as is a ParityError
        return False
    return True


# Dropout


def a_mask_a_step(patch: Patch) -> None:
    def on_input(x: Any, masks: Any, _: Any) -> Any:
        if masks.input is None:
            return x, masks
        steps = [masks.input.roll(t, 0) for t in range(x.shape[1])]
        return x * torch.stack(steps, 1), masks._replace(input=None)

    patch.setattr(parameters, "on_input", on_input)


def permuted(field: str) -> Mutant:
    """The masks in the order i, c, f, o of Keras 1's weights."""

    def mutate(patch: Patch) -> None:
        original = Layer._masks_of_a_call

        def masks_of_a_call(*args: Any) -> Any:
            masks = original(*args)
            return masks._replace(**{field: getattr(masks, field)[[0, 2, 1, 3]]})

        patch.setattr(Layer, "_masks_of_a_call", masks_of_a_call)

    return mutate


def step_with(change: Callable[..., Any]) -> Mutant:
    """A step in which the recurrent mask multiplies something else than h before R."""

    def mutate(patch: Patch) -> None:
        step = _engines.lstm_step

        def other(z: Any, state: Any, r: Any, a: Any, g: Any, dropped: Any = None) -> Any:
            return change(partial(step, z), state, (r, a, g), dropped[0])

        patch.setattr(_engines, "lstm_step", other)

    return mutate


def _on_c(step: Any, state: Any, functions: Any, mask: Any) -> Any:
    return step(_engines.LSTMState(state.h, state.c * mask), *functions)


def _on_output(step: Any, state: Any, functions: Any, mask: Any) -> Any:
    h, c = step(state, *functions)
    return _engines.LSTMState(h * mask, c)


def recurrent_mask_of_the_first_step(patch: Patch) -> None:
    def scan(lstm: Any, x: Any, state: Any, lengths: Any, *rest: Any) -> Any:
        *functions, masks = rest
        first = lengths.clamp(max=1)
        y, state = _engines.scan(lstm, x[:, :1], state, first, *functions, masks)
        later, state = _engines.scan(lstm, x[:, 1:], state, lengths - first, *functions)
        return torch.cat([y, later], 1), state

    patch.setattr(parameters, "scan", scan)


def given_masks_not_scaled(patch: Patch) -> None:
    prepared = parameters.prepared

    def bare(*args: Any) -> Any:
        masks = prepared(*args)
        return type(masks)(*(None if m is None else (m != 0).to(m.dtype) for m in masks))

    patch.setattr(parameters, "prepared", bare)


def drawn_masks_not_scaled(patch: Patch) -> None:
    draw = _dropout.draw
    patch.setattr(_dropout, "draw", lambda *args: (draw(*args) != 0).float())


def masks_of_steps_not_reversed(patch: Patch) -> None:
    """In the order of processing, in place of x's."""
    masks_of_a_call = Layer._masks_of_a_call

    def flipped(self: Any, *args: Any) -> Any:
        masks = masks_of_a_call(self, *args)
        return masks._replace(input=masks.input.flip(1)) if self.config.go_backwards else masks

    patch.setattr(Layer, "_masks_of_a_call", flipped)


# Losses


def activity_of_the_output_alone(patch: Patch) -> None:
    tensors = layer_losses._tensors
    patch.setattr(layer_losses, "_tensors", lambda result: [next(tensors(result))])


def activity_not_divided(patch: Patch) -> None:
    patch.setattr(layer_losses, "_divide", lambda loss, batch: loss)


def activity_of_every_call(patch: Patch) -> None:
    """As if all calls were in one span."""
    patch.setattr(layer_losses._Recording, "token", property(lambda self: "one"))


def activity_inside_time_distributed(patch: Patch) -> None:
    """As if the layer inside were called like any other."""
    patch.setattr(layer_losses._Recording, "dropped", property(lambda self: None))
    patch.setattr(layer_losses._Recording, "slices", property(lambda self: 1))


def weight_losses_first(patch: Patch) -> None:
    of = layer_losses.WithLosses.losses.fget

    def losses(self: Any) -> Any:
        found = of(self)
        return found[1:] + found[:1]

    patch.setattr(layer_losses.WithLosses, "losses", property(losses))


def directions_in_the_other_order(patch: Patch) -> None:
    below = layer_losses._below
    patch.setattr(layer_losses, "_below", lambda module: reversed(list(below(module))))


def in_the_order_of_torch(patch: Patch) -> None:
    """Each layer before those inside it, the first before the second, on every floor."""

    def collected(module: Any) -> Any:
        return (m for m in module.modules() if isinstance(m, layer_losses.WithLosses))

    patch.setattr(layer_losses, "_collected", collected)


def frozen_weights_regularized(patch: Patch) -> None:
    def weight_losses(self: Any) -> Any:
        return [self._regularizers[r](w) for r, w in self._weights_by_role()]

    patch.setattr(Layer, "_weight_losses", weight_losses)


def bias_regularized_twice(patch: Patch) -> None:
    weight_losses = Layer._weight_losses

    def twice(self: Any) -> Any:
        *others, bias = weight_losses(self)
        return [*others, 2 * bias]

    patch.setattr(Layer, "_weight_losses", twice)


def half_an_l2(patch: Patch) -> None:
    """As weight decay in torch, whose gradient is w, not 2 w."""
    call = regularizers.L2.__call__
    patch.setattr(regularizers.L2, "__call__", lambda self, x: call(self, x) / 2)


def regularizers_on_torch_s_axes(patch: Patch) -> None:
    roles = Layer._weights_by_role

    def turned(self: Any) -> Any:
        return [(role, w.t() if w.ndim == 2 else w) for role, w in roles(self)]

    patch.setattr(Layer, "_weights_by_role", turned)


# Constraints and optimizers


def constraints_on_torch_s_axes(patch: Patch) -> None:
    @torch.no_grad()
    def apply_constraints(self: Any, only: Any) -> None:
        for (role, _), p in zip(self._weights_by_role(), self.lstm.parameters(), strict=True):
            p.copy_(self._constraints[role](p))

    patch.setattr(Layer, "apply_constraints", apply_constraints)


def constraints_before_the_step(patch: Patch) -> None:
    optimizer = torch.optim.Optimizer
    patch.setattr(optimizer, "register_step_post_hook", optimizer.register_step_pre_hook)


def constraints_on_everything(patch: Patch) -> None:
    apply_constraints = Layer.apply_constraints
    patch.setattr(Layer, "apply_constraints", lambda self, only: apply_constraints(self))


def constraints_of_the_kernel_alone(patch: Patch) -> None:
    apply_constraints = Layer.apply_constraints

    def kernel(self: Any, only: Any) -> None:
        apply_constraints(self, lambda p: p is self.lstm.weight_ih_l0)

    patch.setattr(Layer, "apply_constraints", kernel)


def torch_s_own_adam(patch: Patch) -> None:
    """Without keras_adam's hook before the step."""
    patch.setattr(torch.optim.Optimizer, "register_step_pre_hook", lambda self, hook: None)


def ones_at_another_gate(patch: Patch) -> None:
    """unit_forget_bias at g, which is where f stands in Keras 1's order i, c, f, o."""
    bias = initializers.bias

    def moved(initializer: Any, units: int, *args: Any) -> Any:
        return bias(initializer, units, *args).roll(units)

    patch.setattr(initializers, "bias", moved)


MUTANTS: dict[str, tuple[Mutant, Check]] = {
    "a dropout mask a step": (a_mask_a_step, INPUT),
    "input masks of the gates permuted": (permuted("input"), GATES),
    "recurrent masks of the gates permuted": (permuted("recurrent"), RECURRENT),
    "recurrent mask on c": (step_with(_on_c), RECURRENT),
    "recurrent mask on the output": (step_with(_on_output), RECURRENT),
    "recurrent mask of the first step": (recurrent_mask_of_the_first_step, RECURRENT),
    "given masks not scaled": (given_masks_not_scaled, INPUT),
    "drawn masks not scaled": (drawn_masks_not_scaled, DRAWN),
    "masks of steps not reversed": (masks_of_steps_not_reversed, BACKWARDS),
    "activity of the output alone": (activity_of_the_output_alone, STATES),
    "activity of the output alone, in training": (activity_of_the_output_alone, REGULARIZED),
    "activity not divided": (activity_not_divided, LSTM),
    "activity not divided, in training": (activity_not_divided, REGULARIZED),
    "activity of every call": (activity_of_every_call, LSTM),
    "activity inside TimeDistributed": (activity_inside_time_distributed, losses("time")),
    "weight losses first": (weight_losses_first, LSTM),
    "directions in the other order": (directions_in_the_other_order, losses("both")),
    "losses in the order of torch": (in_the_order_of_torch, losses("chain")),
    "frozen weights regularized": (frozen_weights_regularized, FROZEN),
    "bias regularized twice": (bias_regularized_twice, LSTM),
    "bias regularized twice, in training": (bias_regularized_twice, REGULARIZED),
    "half an L2": (half_an_l2, REGULARIZED),
    "regularizers on torch's axes": (regularizers_on_torch_s_axes, AXES),
    "constraints on torch's axes": (constraints_on_torch_s_axes, UNIT),
    "constraints before the step": (constraints_before_the_step, UNIT),
    "constraints on what is not stepped": (constraints_on_everything, UNSTEPPED),
    "constraints of the kernel alone": (constraints_of_the_kernel_alone, UNIT),
    "torch's own Adam": (torch_s_own_adam, MAX),
    "ones at another gate": (ones_at_another_gate, BIAS),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_suite_kills(name: str, monkeypatch: Patch) -> None:
    mutate, check = MUTANTS[name]
    assert survives(check), "the case fails without the mutant"
    mutate(monkeypatch)
    assert not survives(check), f"the mutant {name!r} lives"


def test_a_transposed_weight_has_the_same_l1_and_l2(monkeypatch: Patch) -> None:
    regularizers_on_torch_s_axes(monkeypatch)
    assert survives(LSTM)
