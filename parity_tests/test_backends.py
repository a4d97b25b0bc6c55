"""Live Keras 3 on JAX and on torch: its other backends say the same, as far as they can."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from kerasish_lstm.parity import assert_parity
from kerasish_lstm.parity.bounds import FLOAT32_ULPS, FLOAT64

from .cases import GOLDEN, Case
from .keras_live import KerasLive, missing
from .runs import ours
from .sampling import fields, sampled
from .test_parity import engines


def slopes(case: Case) -> bool:
    """Whether gradients are compared: Keras on torch has none through a stateful layer's states,
    which it changes in place, and under a mask its gradients of masked NaN steps are NaN.
    """
    return case.mask == "none" and case.state != "stateful"


WHOLE = {
    # JAX compiles each case, which takes it half a second.
    "jax": [*GOLDEN["product"][::3], *GOLDEN["sizes"][::2], *GOLDEN["activations"][::5]],
    "torch": [*GOLDEN["product"], *GOLDEN["sizes"], *GOLDEN["activations"]],
}


def kinds(case: Case) -> str:
    return f"{case.state}.{slopes(case)}-{fields(case)}"


CASES = {backend: sampled(cases, 1 / 2, kinds) for backend, cases in WHOLE.items()}
# Of the float32 that Keras computes in: its own rounding, over these short cases.
SINGLE = 16 * FLOAT32_ULPS


@pytest.fixture(scope="module", params=["jax", "torch"])
def answers(
    request: pytest.FixtureRequest, live_on: Callable[[str], KerasLive]
) -> tuple[str, dict[str, Any]]:
    """A backend and what Keras gives on it, by case id."""
    backend = request.param
    lacking = missing(backend)
    if lacking:
        pytest.skip(f"live Keras on {backend}: {lacking}")
    live = live_on(backend)
    assert backend in live.call("backends_side.versions")
    cases = CASES[backend]
    requests = [{**c.request("float64"), "gradients": slopes(c)} for c in cases]
    found = live.call("backends_side.run", requests)
    return backend, {case.id: answer for case, answer in zip(cases, found, strict=True)}


@pytest.mark.live
def test_equals_live_keras(answers: tuple[str, dict[str, Any]]) -> None:
    backend, found = answers
    for case in CASES[backend]:
        assert {"output"} <= found[case.id].keys()
        for engine, keywords in engines(case).items():
            actual = ours(case, torch.float64, **keywords)
            for name, value in found[case.id].items():
                if name == "output" and _is_told_otherwise(backend, case):
                    continue
                bound = _bound(backend, case, name)
                what = f"{backend} {case.id} {engine} {name}"
                assert_parity(actual[name], value, bound=bound, what=what)


def _is_told_otherwise(backend: str, case: Case) -> bool:
    """Whether outputs of masked steps may be the initial h (``deviations.txt``)."""
    masked = case.mask not in ("none", "full") and not case.zero_output_for_mask
    return backend == "jax" and masked and case.state != "none"


def _bound(backend: str, case: Case, name: str) -> float:
    """float64's, but for what ``deviations.txt`` names: there Keras computes in float32."""
    if backend == "jax":  # its tanh
        return SINGLE
    gates = {case.activation, case.recurrent_activation}
    its_slope = name.startswith("d_") and "hard_sigmoid" in gates
    return SINGLE if case.mask != "none" or its_slope else FLOAT64


@pytest.mark.parametrize("backend", CASES)
def test_the_cases_meet_every_value(backend: str) -> None:
    for field in dataclasses.fields(Case):
        every = {getattr(c, field.name) for c in WHOLE[backend]}
        assert {getattr(c, field.name) for c in CASES[backend]} == every, field.name


@pytest.mark.live
def test_gradients_are_compared_too(answers: tuple[str, dict[str, Any]]) -> None:
    backend, found = answers
    with_slopes = [case for case in CASES[backend] if slopes(case)]
    states = {name for case in with_slopes for name in found[case.id]}
    assert {"d_x", "d_kernel", "d_recurrent_kernel", "d_bias", "d_h0", "d_c0"} <= states
