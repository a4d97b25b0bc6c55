"""16 bits: each engine no further from the float64 truth than three times Keras is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kerasish_lstm.parity import assert_parity
from kerasish_lstm.parity.bounds import KERAS_FACTOR, error

from .cases import PRODUCT, SIZES, Case
from .keras_live import KerasLive
from .runs import ours, truth
from .test_parity import ENGINES

# A stride that is coprime to every factor of the product meets each value of each flag.
SOME = [*PRODUCT[::23], *SIZES]


@pytest.fixture(scope="module")
def keras_errors(keras: KerasLive) -> dict[str, dict[str, float]]:
    """Keras's largest error in a dtype, by quantity."""
    found: dict[str, dict[str, float]] = {}
    for dtype in ("float16", "bfloat16"):
        requests = [c.request(dtype) for c in SOME]
        largest: dict[str, float] = {}
        for case, answer in zip(SOME, keras.run(requests), strict=True):
            for name, value in truth(case).items():
                largest[name] = max(largest.get(name, 0.0), error(answer[name], value))
        found[dtype] = largest
    return found


@pytest.mark.live
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits(dtype: str, engine: str, keras_errors: Any) -> None:
    for case in SOME:
        actual = ours(case, getattr(torch, dtype), **ENGINES[engine])
        for name, value in truth(case).items():
            bound = KERAS_FACTOR * keras_errors[dtype][name]
            assert_parity(actual[name], value, bound=bound, what=f"{case.id} {name}")


def test_some_cases_meet_every_flag() -> None:
    for field in ("mask", "state", "return_sequences", "return_state", "go_backwards",
                  "zero_output_for_mask", "use_bias"):  # fmt: skip
        values = {getattr(c, field) for c in PRODUCT}
        assert {getattr(c, field) for c in SOME} == values, field


@pytest.mark.parametrize("engine", ENGINES)
def test_autocast_computes_in_16_bits_and_stays_close(engine: str) -> None:
    case = Case("gaps", "given", True, True, batch=5, steps=11, features=7, units=13)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = ours(case, torch.float32, **ENGINES[engine])
    for name, value in truth(case).items():
        assert_parity(actual[name], value, bound=4e-2, what=name)
        assert error(actual[name], value) > 1e-6, f"{name} was not computed in 16 bits"
