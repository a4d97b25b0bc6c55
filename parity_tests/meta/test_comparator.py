"""The comparator rejects what is not equal, and errors of live Keras are not lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm.errors import ParityError
from kerasish_lstm.parity import assert_parity
from kerasish_lstm.parity.bounds import error

from ..keras_live import KerasLive, missing

TRUTH = np.array([[1.0, -2.0], [0.5, 4.0]])


@pytest.mark.parametrize(
    ("actual", "said"),
    [
        (TRUTH + np.array([[0, 0], [0, 1e-6]]), r"1 of 4 elements.*\(1, 1\).*bound 1e-07"),
        (TRUTH * np.nan, "4 of 4"),
        (np.where(TRUTH > 3, np.inf, TRUTH), "1 of 4"),
        (TRUTH[:1], r"shape \(1, 2\), expected \(2, 2\)"),
        (TRUTH[None], "shape"),
        (TRUTH.astype(int), "not floating-point"),
        (torch.tensor([[1, 2], [3, 4]]), "not floating-point"),
        (-TRUTH, "4 of 4"),
        (TRUTH.T, "2 of 4"),
    ],
)
def test_what_is_not_equal_is_rejected(actual: Any, said: str) -> None:
    with pytest.raises(ParityError, match=said):
        assert_parity(actual, TRUTH, bound=1e-7)


def test_what_is_equal_passes_and_the_error_is_relative_to_the_largest_truth() -> None:
    assert assert_parity(TRUTH, TRUTH, bound=0.0) == 0.0
    assert assert_parity(TRUTH + 4e-8, TRUTH, bound=1.1e-8) == pytest.approx(1e-8)
    assert error(TRUTH + 4e-8, TRUTH) == pytest.approx(1e-8)
    with pytest.raises(ParityError):
        assert_parity(TRUTH + 4e-8, TRUTH, bound=0.9e-8)
    small = TRUTH / 100  # below 1 the error is absolute
    assert assert_parity(small + 1e-8, small, bound=1.1e-8) == pytest.approx(1e-8)


def test_the_error_takes_nan_for_nan_and_infinity_for_infinity() -> None:
    both = np.array([np.nan, np.inf, 1.0])
    assert error(both, both) == 0.0
    assert error(np.array([np.nan, np.inf, 1.5]), both) == pytest.approx(0.5)
    assert error(np.array([0.0, np.inf, 1.0]), both) == np.inf
    assert error(np.array([np.nan, -np.inf, 1.0]), both) == np.inf


def test_infinities_and_nans_must_stand_in_the_same_places() -> None:
    both = np.array([np.nan, np.inf, 1.0])
    assert assert_parity(both, both, bound=1e-9) == 0.0
    with pytest.raises(ParityError):
        assert_parity(np.array([np.nan, -np.inf, 1.0]), both, bound=1e-9)


@pytest.mark.live
def test_an_error_of_live_keras_is_raised_here(keras: KerasLive) -> None:
    with pytest.raises(RuntimeError, match="live Keras failed in nothing"):
        keras.call("nothing")


def test_a_missing_keras_is_named() -> None:
    assert missing("no_such_backend") is not None
    assert "no_such_backend" in str(missing("no_such_backend"))
