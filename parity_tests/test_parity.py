"""The claim itself: outputs, h, c and gradients equal Keras's, over every flag, mask and state."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm.parity import assert_parity
from kerasish_lstm.parity.bounds import FLOAT32_ULPS, FLOAT64, KERAS_FACTOR, error

from .cases import GROUPS, MASKS, STATES, Case
from .keras_live import KerasLive
from .runs import ours, truth
from .sampling import fields, sampled

EVERY = [(group, case) for group, cases in GROUPS.items() for case in cases]
# What live Keras is asked, in both precisions. By default it is a share; some of the others are
# recorded (test_goldens).
SHARES = {"product": 1 / 8, "sizes": 1, "activations": 1 / 6, "dropout": 1 / 2}
LIVE = {group: sampled(GROUPS[group], share, fields) for group, share in SHARES.items()}
ENGINES = {"native": {}, "fused": {"use_cudnn": True}, "scan": {"use_cudnn": False}}


def engines(case: Case) -> dict[str, dict[str, Any]]:
    default = (case.activation, case.recurrent_activation) == ("tanh", "sigmoid")
    default = default and case.dropout in ("none", "input")
    return ENGINES if default else {name: ENGINES[name] for name in ("native", "scan")}


@pytest.mark.parametrize(("group", "case"), EVERY, ids=lambda v: getattr(v, "id", v))
def test_float64_equals_the_oracle(group: str, case: Case, device: torch.device) -> None:
    expected = truth(case)
    for engine, keywords in engines(case).items():
        actual = ours(case, torch.float64, device, **keywords)
        assert actual.keys() == expected.keys()
        for name, value in expected.items():
            assert_parity(actual[name], value, bound=FLOAT64, what=f"{engine} {name}")


@pytest.fixture(scope="module")
def live_results(keras: KerasLive) -> Any:
    """``live_results(group, dtype)``: what live Keras gives for a group's cases, by case id."""
    found: dict[tuple[str, str], dict[str, dict[str, np.ndarray]]] = {}

    def results(group: str, dtype: str) -> dict[str, dict[str, np.ndarray]]:
        if (group, dtype) not in found:
            cases = LIVE[group]
            answers = keras.run([c.request(dtype) for c in cases])
            found[group, dtype] = {c.id: a for c, a in zip(cases, answers, strict=True)}
        return found[group, dtype]

    return results


@pytest.mark.live
@pytest.mark.parametrize(
    ("group", "case"), [(g, c) for g, cases in LIVE.items() for c in cases],
    ids=lambda v: getattr(v, "id", v),
)  # fmt: skip
def test_float64_equals_live_keras(group: str, case: Case, live_results: Any) -> None:
    expected = live_results(group, "float64")[case.id]
    for engine, keywords in engines(case).items():
        actual = ours(case, torch.float64, **keywords)
        assert actual.keys() == expected.keys()
        for name, value in expected.items():
            assert_parity(actual[name], value, bound=FLOAT64, what=f"{engine} {name}")


@pytest.mark.live
@pytest.mark.parametrize("group", GROUPS)
def test_float32_errs_no_more_than_live_keras(group: str, live_results: Any) -> None:
    """Against float64 truth: three times Keras's own largest error in the group, and four ulps."""
    truth, single = live_results(group, "float64"), live_results(group, "float32")
    limits: dict[str, float] = {}
    for case in LIVE[group]:
        for name, value in truth[case.id].items():
            limits[name] = max(limits.get(name, 0.0), error(single[case.id][name], value))
    for case in LIVE[group]:
        for engine, keywords in engines(case).items():
            actual = ours(case, torch.float32, **keywords)
            for name, value in truth[case.id].items():
                bound = KERAS_FACTOR * limits[name] + FLOAT32_ULPS
                what = f"{case.id} {engine} {name}"
                assert_parity(actual[name], value, bound=bound, what=what, dtype="float32")


def test_the_live_cases_meet_every_value() -> None:
    for group, cases in GROUPS.items():
        for field in dataclasses.fields(Case):
            every = {getattr(c, field.name) for c in cases}
            assert {getattr(c, field.name) for c in LIVE[group]} == every, (group, field.name)
    assert {(c.mask, c.state) for c in LIVE["product"]} == set(itertools.product(MASKS, STATES))


def test_every_case_has_an_id_of_its_own() -> None:
    ids = [case.id for _, case in EVERY]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("case", GROUPS["product"][::7], ids=lambda c: c.id)
def test_inputs_are_float32_values_and_masks_are_real(case: Case) -> None:
    arrays = case.inputs()
    for name, value in arrays.items():
        if name == "mask":
            assert value.any()
            assert case.mask == "full" or not value.all()
        else:
            assert np.array_equal(value, value.astype(np.float32))
