"""Every row of deviations.txt, shown on live Keras and on this package."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm import ACTIVATIONS, LSTM, Bidirectional
from kerasish_lstm.errors import ConfigError, NotBuiltError

from .keras_live import KerasLive


def rows() -> list[list[str]]:
    lines = (Path(__file__).parent / "deviations.txt").read_text().splitlines()
    return [[f.strip() for f in s.split("|")] for s in lines if s and not s.startswith("#")]


@pytest.fixture(scope="module")
def seen(keras: KerasLive) -> dict[str, Any]:
    return keras.call("keras_side.deviations")


def activation(name: str, seen: dict[str, Any], by_the_book: np.ndarray) -> None:
    mine = ACTIVATIONS[name](torch.tensor(seen["x"])).numpy()
    assert np.abs(mine - seen[name]).max() < 1e-15
    assert np.abs(seen[name] - by_the_book).max() > 1e-10


def sparsemax_threshold(seen: dict[str, Any]) -> None:
    paper = np.array([[0.55, 0.45, 0.0], [1.0, 0.0, 0.0]])
    assert np.abs(paper.sum(1) - 1).max() < 1e-15
    activation("sparsemax", seen, paper)


def gelu_constant(seen: dict[str, Any]) -> None:
    erf = np.vectorize(math.erf)
    activation("gelu", seen, 0.5 * seen["x"] * (1 + erf(seen["x"] / math.sqrt(2))))


def leaky_relu_slope(seen: dict[str, Any]) -> None:
    activation("leaky_relu", seen, np.where(seen["x"] > 0, 1.0, 0.2) * seen["x"])


def masked_nan_gradients(seen: dict[str, Any]) -> None:
    assert seen["masked"] == (True, True)
    layer: LSTM = LSTM(2, 2)
    x = torch.ones(1, 3, 2)
    x[0, 1] = float("nan")
    layer(x, mask=torch.tensor([[True, False, True]])).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


def empty_batch(seen: dict[str, Any]) -> None:
    assert seen["empty batch"] == "InvalidArgumentError"
    assert LSTM(2, 2)(torch.zeros(0, 3, 2)).shape == (0, 2)


def no_feature(seen: dict[str, Any]) -> None:
    assert seen["no feature"] == (1, 2)
    with pytest.raises(ConfigError, match="one feature"):
        LSTM(0, 2)


def unit_forget_bias_document(seen: dict[str, Any]) -> None:
    assert list(seen["bias"]) == [0.25, 1.0, 0.25, 0.25]
    with pytest.raises(NotBuiltError, match="bias_initializer"):
        LSTM(2, 1, bias_initializer={"class_name": "Constant", "config": {"value": 0.25}})


def bidirectional_stateful_state(seen: dict[str, Any]) -> None:
    assert seen["bidirectional"] == "TypeError"
    layer = Bidirectional(LSTM(2, 3, stateful=True, return_state=True))
    _, *first = layer(torch.ones(1, 3, 2))
    _, *second = layer(torch.ones(1, 3, 2))
    assert len(first) == 4 and not any(
        torch.equal(a, b) for a, b in zip(first, second, strict=True)
    )


SHOWN: list[Callable[[dict[str, Any]], None]] = [
    sparsemax_threshold, gelu_constant, leaky_relu_slope, masked_nan_gradients, empty_batch,
    no_feature, unit_forget_bias_document, bidirectional_stateful_state,
]  # fmt: skip


@pytest.mark.live
@pytest.mark.parametrize("show", SHOWN, ids=lambda f: f.__name__)
def test_the_deviation_reproduces(show: Callable[[dict[str, Any]], None], seen: Any) -> None:
    show(seen)


def test_every_row_is_shown_and_whole() -> None:
    assert [row[0].replace("-", "_") for row in rows()] == [f.__name__ for f in SHOWN]
    assert all(len(row) == 5 and all(row) for row in rows())
