"""16 bits, stored or under a mixed policy: no further from the float64 truth than 3 times Keras."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from kerasish_lstm import LSTM, Bidirectional
from kerasish_lstm.errors import ConfigError
from kerasish_lstm.parity import assert_parity
from kerasish_lstm.parity.bounds import KERAS_FACTOR, error

from .cases import PRECISION, PRODUCT, Case
from .keras_live import KerasLive
from .make_goldens import largest_errors
from .runs import ours, truth
from .sampling import fields, sampled
from .test_parity import ENGINES

DTYPES: dict[str, Any] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "mixed_float16": "mixed_float16",
    "mixed_bfloat16": "mixed_bfloat16",
}
CASES = sampled(PRECISION, 1 / 2, fields)
exact = functools.cache(truth)
HALF = {"mixed_float16": torch.float16, "mixed_bfloat16": torch.bfloat16}


@pytest.fixture(scope="module")
def keras_errors(keras: KerasLive) -> dict[str, dict[str, float]]:
    """Keras's largest error in a dtype, by quantity."""
    return {dtype: largest_errors(keras, CASES, dtype) for dtype in DTYPES}


@pytest.mark.live
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_16_bits(dtype: str, engine: str, keras_errors: Any) -> None:
    for case in CASES:
        actual = ours(case, DTYPES[dtype], **ENGINES[engine])
        for name, value in exact(case).items():
            bound = KERAS_FACTOR * keras_errors[dtype][name]
            what = f"{case.id} {name}"
            assert_parity(actual[name], value, bound=bound, what=what, dtype=dtype)


@pytest.mark.live
@pytest.mark.parametrize("engine", ENGINES)
def test_autocast_errs_no_more_than_keras_s_mixed_policy(engine: str, keras_errors: Any) -> None:
    """Its states stay float32 in places where Keras's are bfloat16."""
    for case in CASES:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            actual = ours(case, torch.float32, **ENGINES[engine])
        for name, value in exact(case).items():
            bound = KERAS_FACTOR * keras_errors["mixed_bfloat16"][name]
            what = f"{case.id} {name}"
            assert_parity(actual[name], value, bound=bound, what=what, dtype="bfloat16")


def test_some_cases_meet_every_flag() -> None:
    for field in ("mask", "state", "return_sequences", "return_state", "go_backwards",
                  "zero_output_for_mask", "use_bias"):  # fmt: skip
        values = {getattr(c, field) for c in PRODUCT}
        assert {getattr(c, field) for c in PRECISION} == values, field
        assert {getattr(c, field) for c in CASES} == values, field


@pytest.mark.parametrize("engine", ENGINES)
def test_autocast_computes_in_16_bits_and_stays_close(engine: str) -> None:
    case = Case("gaps", "given", True, True, batch=5, steps=11, features=7, units=13)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = ours(case, torch.float32, **ENGINES[engine])
    for name, value in exact(case).items():
        assert_parity(actual[name], value, bound=4e-2, what=name, dtype="bfloat16")
        assert error(actual[name], value) > 1e-6, f"{name} was not computed in 16 bits"


# Mixed policies


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("policy", HALF)
def test_a_mixed_policy_keeps_float32_weights_and_gives_16_bits(policy: str, engine: str) -> None:
    layer = LSTM(3, 5, dtype=policy, return_state=True, stateful=True, **ENGINES[engine])
    x = torch.rand(2, 7, 3)
    for _ in range(2):  # the second call begins with the state that is stored in float32
        result = layer(x, mask=torch.rand(2, 7) < 0.6)
        assert {t.dtype for t in result} == {HALF[policy]}
    assert layer.states is not None and {s.dtype for s in layer.states} == {torch.float32}
    result[0].float().sum().backward()
    assert {p.dtype for p in layer.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in layer.parameters() if p.grad is not None} == {torch.float32}
    assert layer.compute_dtype == HALF[policy]
    both = Bidirectional(LSTM(3, 5, dtype=policy), dtype="float32")
    assert both(x).dtype == torch.float32 and both.forward_layer.compute_dtype == HALF[policy]


def test_a_mixed_layer_that_was_converted_computes_in_its_new_dtype() -> None:
    layer = LSTM(3, 5, dtype="mixed_bfloat16").double()
    assert layer(torch.rand(2, 7, 3)).dtype == layer.compute_dtype == torch.float64


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_keras_s_names_of_dtypes_are_taken(name: str) -> None:
    layer = LSTM(3, 5, dtype=name)
    assert {p.dtype for p in layer.parameters()} == {getattr(torch, name)}
    assert layer(torch.rand(2, 7, 3)).dtype == getattr(torch, name)


@pytest.mark.parametrize("dtype", ["int8", "mixed_float64", "float99", torch.int32, 3])
def test_other_dtypes_are_refused(dtype: Any) -> None:
    with pytest.raises(ConfigError, match="mixed_bfloat16"):
        LSTM(3, 5, dtype=dtype)


@pytest.mark.live
def test_wrappers_cast_what_keras_s_cast(keras: KerasLive) -> None:
    bounds = {"float32": 4e-7, "float64": 1e-12, "mixed_bfloat16": 8e-3}
    found = keras.call("convert_side.dtypes")
    assert len(found) == 36
    for name, inner, outer, same, expected, actual in found:
        what = f"{name} of {outer} over {inner}"
        assert same, f"{what}: other dtypes come out"
        for a, b in zip(actual, expected, strict=True):
            assert_parity(a, b, bound=bounds[inner], what=what, dtype=inner)
