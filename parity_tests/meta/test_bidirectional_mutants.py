"""Mistakes that ports of Bidirectional make: the suite's own test must fail for each, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kerasish_lstm import Bidirectional
from kerasish_lstm.errors import ParityError
from kerasish_lstm.layers import bidirectional

from ..test_bidirectional import Both
from ..test_bidirectional import test_float64_equals_the_equations as the_suites_test

CPU = torch.device("cpu")
PLAIN = Both("concat", "none", True, True, "given")
MASKED = Both("sum", "gaps", True, True, "none")
MEAN = Both("ave", "none", False, False, "none")

Patch = pytest.MonkeyPatch


def survives(case: Both) -> bool:
    try:
        the_suites_test(case, CPU)
    except ParityError:
        return False
    return True


def directions_swapped(patch: Patch) -> None:
    merge = bidirectional.MERGES["concat"]
    patch.setitem(bidirectional.MERGES, "concat", lambda f, b: merge(b, f))


def merge_before_flip(patch: Patch) -> None:
    """The backward sequence merged in its order of processing."""
    merge = bidirectional.MERGES["concat"]
    patch.setitem(bidirectional.MERGES, "concat", lambda f, b: merge(f, b.flip(1)))


def states_in_the_wrong_order(patch: Patch) -> None:
    forward = Bidirectional.forward

    def swapped(self: Any, *args: Any) -> Any:
        output, h_f, c_f, h_b, c_b = forward(self, *args)
        return output, h_f, h_b, c_f, c_b

    patch.setattr(Bidirectional, "forward", swapped)


def initial_states_to_the_other_direction(patch: Patch) -> None:
    forward = Bidirectional.forward

    def swapped(self: Any, x: Any, state: Any, mask: Any) -> Any:
        return forward(self, x, None if state is None else [*state[2:], *state[:2]], mask)

    patch.setattr(Bidirectional, "forward", swapped)


def weights_backward_first(patch: Patch) -> None:
    take = Bidirectional.set_weights
    patch.setattr(Bidirectional, "set_weights", lambda self, w: take(self, [*w[3:], *w[:3]]))


def mask_given_to_one_direction(patch: Patch) -> None:
    forward = Bidirectional.forward

    def half(self: Any, x: Any, state: Any, mask: Any) -> Any:
        x = x.masked_fill(x.isnan(), 0.0)
        layer = self.backward_layer.forward
        self.backward_layer.forward = lambda x, state, *_, **__: layer(x, state)
        return forward(self, x, state, mask)

    patch.setattr(Bidirectional, "forward", half)


def masked_steps_hold_the_output(patch: Patch) -> None:
    """zero_output_for_mask as the user set it, False, in place of Keras's override."""
    build = Bidirectional.__init__

    def keep(self: Any, *args: Any) -> None:
        build(self, *args)
        for layer in (self.forward_layer, self.backward_layer):
            layer.config = layer.config.replace(zero_output_for_mask=False)

    patch.setattr(Bidirectional, "__init__", keep)


def mean_that_is_a_sum(patch: Patch) -> None:
    patch.setitem(bidirectional.MERGES, "ave", torch.add)


MUTANTS: dict[str, tuple[Callable[[Patch], None], Both]] = {
    f.__name__.replace("_", " "): (f, case)
    for f, case in (
        (directions_swapped, PLAIN),
        (merge_before_flip, PLAIN),
        (states_in_the_wrong_order, PLAIN),
        (initial_states_to_the_other_direction, PLAIN),
        (weights_backward_first, PLAIN),
        (mask_given_to_one_direction, MASKED),
        (masked_steps_hold_the_output, MASKED),
        (mean_that_is_a_sum, MEAN),
    )
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_suite_kills(name: str, monkeypatch: Patch) -> None:
    mutate, case = MUTANTS[name]
    assert survives(case), "the case fails without the mutant"
    mutate(monkeypatch)
    assert not survives(case), f"the mutant {name!r} lives"
