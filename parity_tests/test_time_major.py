"""time_major, which tf_keras has and Keras 3 has not: x, mask and sequences are (T, B, ...)."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm import LSTM, Bidirectional, TimeDistributed
from kerasish_lstm.errors import ConfigError, InputError
from kerasish_lstm.parity import assert_parity
from kerasish_lstm.parity.bounds import FLOAT64

from .cases import mask_of
from .keras_live import KerasLive

B, T, F, U = 5, 7, 3, 2
FLAGS = ("return_sequences", "go_backwards", "zero_output_for_mask")


def inputs() -> dict[str, np.ndarray]:
    rng = np.random.RandomState(13)
    arrays = {"kernel": (F, 4 * U), "recurrent_kernel": (U, 4 * U), "bias": (4 * U,)}
    drawn = {k: rng.uniform(-1, 1, s) for k, s in arrays.items()}
    drawn |= {"x": rng.uniform(-2, 2, (T, B, F)), "mask": mask_of("gaps", B, T, rng).T.copy()}
    return drawn | {k: rng.uniform(-1, 1, (B, U)) for k in ("h0", "c0")}


def layer_of(**keywords: Any) -> LSTM[Any]:
    layer: LSTM[Any] = LSTM(F, U, return_state=True, dtype=torch.float64, **keywords)
    a = inputs()
    layer.set_weights([a["kernel"], a["recurrent_kernel"], a["bias"]])
    return layer


@pytest.mark.live
@pytest.mark.parametrize("flags", list(itertools.product((False, True), repeat=3)), ids=str)
def test_equals_tf_keras(flags: Any, tf_keras: KerasLive) -> None:
    keywords = dict(zip(FLAGS, flags, strict=True))
    a = inputs()
    expected = tf_keras.call(
        "keras_side.run_tf_keras", {"time_major": True, "return_state": True, **keywords}, a
    )
    t = {k: torch.tensor(v) for k, v in a.items()}
    layer = layer_of(time_major=True, **keywords)
    actual = layer(t["x"], (t["h0"], t["c0"]), t["mask"])
    for name, mine, theirs in zip(("output", "h", "c"), actual, expected, strict=True):
        assert_parity(mine.detach(), theirs, bound=FLOAT64, what=name)


@pytest.mark.parametrize("sequences", [False, True])
def test_is_the_batch_first_layer_transposed(sequences: bool, device: torch.device) -> None:
    t = {k: torch.tensor(v, device=device) for k, v in inputs().items()}
    plain, major = (
        layer_of(return_sequences=sequences, time_major=m).to(device) for m in (False, True)
    )
    mine = major(t["x"], mask=t["mask"])
    expected = plain(t["x"].transpose(0, 1), mask=t["mask"].t())
    first = mine[0].transpose(0, 1) if sequences else mine[0]
    assert first.shape == ((B, T, U) if sequences else (B, U))
    for a, b in zip((first, *mine[1:]), expected, strict=True):
        assert torch.equal(a, b)


def test_a_wrong_mask_and_a_bidirectional_are_refused() -> None:
    layer = layer_of(time_major=True)
    x = torch.zeros(T, B, F)
    with pytest.raises(InputError, match="the mask has shape"):
        layer(x, mask=torch.ones(B, T))
    with pytest.raises(ConfigError, match="time_major=True"):
        Bidirectional(layer_of(time_major=True))
    with pytest.raises(ConfigError, match="time_major=True"):
        TimeDistributed(layer_of(time_major=True))
