"""TimeDistributed around an LSTM beside live Keras, with gradients."""

from __future__ import annotations

import itertools
import zlib
from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm import LSTM, Bidirectional, DropoutMasks, LSTMCell, StackedLSTM, TimeDistributed
from kerasish_lstm.errors import ConfigError, InputError
from kerasish_lstm.parity import assert_parity
from kerasish_lstm.parity.bounds import FLOAT64

from .keras_live import KerasLive
from .sampling import sampled

B, N, T, F, U = 5, 3, 7, 2, 11  # N is the outer time

# return_sequences, return_state, stateful, go_backwards, masked, merge mode of a Bidirectional
CASES = [
    case
    for case in itertools.product(*[(False, True)] * 5, ("none", "concat", None))
    if not (case[0] and case[1]) and not (case[3] and case[5] != "none")
    # the states of a Bidirectional have another shape than its output; Keras cannot run it stateful
    and not (case[5] != "none" and (case[1] or case[2]))
]  # fmt: skip
# All of these are recorded (test_goldens).
ASKED = sampled(CASES, 1 / 3, lambda c: "-".join(f"{i}.{value}" for i, value in enumerate(c)))


def shown(case: Any) -> str:
    flags = ("return_sequences", "return_state", "stateful", "go_backwards", "masked")
    return "-".join([f for f, v in zip(flags, case, strict=False) if v] + [str(case[5])])


def keywords(case: Any) -> dict[str, Any]:
    flags = ("return_sequences", "return_state", "stateful", "go_backwards")
    return dict(zip(flags, case, strict=False))


def inputs(case: Any) -> dict[str, np.ndarray]:
    rng = np.random.RandomState(zlib.crc32(shown(case).encode()))

    def draw(*shape: int, scale: float = 1.0) -> np.ndarray:
        return rng.uniform(-scale, scale, shape)

    arrays = {"x": draw(B, N, T, F, scale=2.0), "first_x": draw(B, N, T, F)}
    directions = 1 if case[5] == "none" else 2
    for i, s in enumerate([(F, 4 * U), (U, 4 * U), (4 * U,)] * directions):
        arrays[f"weight{i:02d}"] = draw(*s, scale=U**-0.5)
    if case[4]:
        arrays["mask"] = rng.uniform(size=(B, N, T)) < 0.6
        arrays["mask"][0, 1] = False
    inner = (B, N, T) if case[0] else (B, N)
    if case[5] is None:
        arrays["d_0"] = draw(2, N, B, *inner[2:], U)
    elif case[1]:
        arrays["d_0"] = draw(3, N, B, U)
    else:
        arrays["d_0"] = draw(*inner, U * (2 if case[5] == "concat" else 1))
    return arrays


def build(case: Any) -> TimeDistributed:
    inner: Any = LSTM(F, U, dtype=torch.float64, **keywords(case))
    if case[5] != "none":
        inner = Bidirectional(inner, case[5])
    layer = TimeDistributed(inner)
    arrays = inputs(case)
    layer.set_weights([arrays[n] for n in sorted(arrays) if n.startswith("weight")])
    return layer


def ours(case: Any, device: torch.device) -> dict[str, np.ndarray]:
    arrays = inputs(case)
    layer = build(case).to(device)
    if case[4]:
        arrays["x"] = np.where(arrays["mask"][..., None], arrays["x"], np.nan)
    t = {k: torch.tensor(v, device=device) for k, v in arrays.items()}
    if case[2]:
        layer(t["first_x"], mask=t.get("mask"))
    x = t["x"].requires_grad_()
    y = layer(x, mask=t.get("mask"))
    watched = {"d_x": x} | {f"d_weight{i:02d}": p for i, p in enumerate(layer.parameters())}
    gradients = torch.autograd.grad((y * t["d_0"]).sum(), list(watched.values()))
    found = {"result0": y}
    for key, gradient in zip(watched, gradients, strict=True):
        found[key] = gradient.t() if "weight" in key and gradient.ndim == 2 else gradient
    return {k: v.detach().cpu().numpy() for k, v in found.items()}


@pytest.fixture(scope="module")
def live(keras: KerasLive) -> dict[str, dict[str, np.ndarray]]:
    requests = [
        {"keywords": {"units": U, **keywords(c)}, "merge_mode": c[5], "arrays": inputs(c)}
        for c in ASKED
    ]
    answers = keras.call("stack_side.time_distributed", requests)
    return {shown(c): a for c, a in zip(ASKED, answers, strict=True)}


@pytest.mark.live
@pytest.mark.parametrize("case", ASKED, ids=shown)
def test_equals_live_keras(case: Any, live: Any) -> None:
    actual, expected = ours(case, torch.device("cpu")), live[shown(case)]
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert_parity(actual[name], value, bound=FLOAT64, what=name)


def test_the_live_cases_meet_every_value() -> None:
    for every, asked in zip(zip(*CASES, strict=True), zip(*ASKED, strict=True), strict=True):
        assert set(every) == set(asked)


@pytest.mark.parametrize("case", [c for c in CASES if c[5] == "none"], ids=shown)
def test_equals_the_layer_slice_by_slice(case: Any, device: torch.device) -> None:
    """Without one call for all: each slice by the layer alone, whose parity is proven elsewhere."""
    arrays = inputs(case)
    layer, alone = build(case).to(device), build(case).layer.to(device)
    x = torch.tensor(arrays["x"], device=device)
    mask = torch.tensor(arrays["mask"], device=device) if case[4] else None
    slices = []
    for i in range(N):
        result = alone(x[:, i], mask=None if mask is None else mask[:, i])
        slices.append(torch.stack(result) if isinstance(result, tuple) else result)
    expected = torch.stack(slices, 1)
    y = layer(x, mask=mask)
    if case[1]:  # (N, 3, B, U) with the outer time first in each result
        expected = torch.stack(slices).transpose(0, 1)
    assert_parity(y.detach(), expected.detach().cpu().numpy(), bound=FLOAT64)


DROPPED = ["none", "concat", "cells"]  # the layer inside


def dropped_inputs(inside: str) -> dict[str, np.ndarray]:
    rng = np.random.RandomState(len(inside))
    sizes = [(F, U)] + {"none": [], "concat": [(F, U)], "cells": [(U, 5)]}[inside]
    arrays = {"x": rng.uniform(-2, 2, (B, N, T, F)), "mask": rng.uniform(size=(B, N, T)) < 0.7}
    shapes = [s for f, u in sizes for s in ((f, 4 * u), (u, 4 * u), (4 * u,))]
    for i, shape in enumerate(shapes):
        arrays[f"weight{i:02d}"] = rng.uniform(-0.4, 0.4, shape)
    for i, (f, u) in enumerate(sizes):  # (N, 4, B, size): by slice and gate
        for role, size in (("input", f), ("recurrent", u)):
            kept = rng.uniform(size=(N, 4, B, size)) < 0.6
            arrays[f"{role}{i}"] = kept / 0.6
    arrays["d_0"] = rng.uniform(-1, 1, (B, N, {"none": U, "concat": 2 * U, "cells": 5}[inside]))
    return arrays


def dropped_ours(inside: str) -> dict[str, np.ndarray]:
    arrays = dropped_inputs(inside)
    t = {k: torch.tensor(v) for k, v in arrays.items()}
    rates: dict[str, Any] = {"dropout": 0.4, "recurrent_dropout": 0.4, "dtype": "float64"}
    masks = [
        [
            DropoutMasks(t[f"input{i}"][n], t[f"recurrent{i}"][n])
            for i in range(2 - (inside == "none"))
        ]
        for n in range(N)
    ]
    inner: Any = LSTM(F, U, **rates)
    if inside == "concat":
        inner = Bidirectional(inner)
    elif inside == "cells":
        inner = StackedLSTM([LSTMCell(F, U, **rates), LSTMCell(U, 5, **rates)])
    layer = TimeDistributed(inner)
    layer.set_weights([arrays[n] for n in sorted(arrays) if n.startswith("weight")])
    given = [m[0] for m in masks] if inside == "none" else masks
    x = t["x"].requires_grad_()
    y = layer(x, mask=t["mask"], dropout_masks=given)
    watched = {"d_x": x} | {f"d_weight{i:02d}": p for i, p in enumerate(layer.parameters())}
    gradients = torch.autograd.grad((y * t["d_0"]).sum(), list(watched.values()))
    found = {"result0": y}
    for key, gradient in zip(watched, gradients, strict=True):
        found[key] = gradient.t() if "weight" in key and gradient.ndim == 2 else gradient
    return {k: v.detach().numpy() for k, v in found.items()}


@pytest.mark.live
@pytest.mark.parametrize("inside", DROPPED)
def test_injected_masks_of_each_slice_equal_live_keras(inside: str, keras: KerasLive) -> None:
    expected = keras.call("stack_side.time_distributed_dropout", inside, U, dropped_inputs(inside))
    actual = dropped_ours(inside)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert_parity(actual[name], value, bound=FLOAT64, what=name)


@pytest.mark.live
def test_sequences_and_states_cannot_be_stacked_in_keras_either(keras: KerasLive) -> None:
    x = np.zeros((B, N, T, F), np.float32)
    assert keras.call("stack_side.time_distributed_sequences_and_states", x) != "runs"
    with pytest.raises(ConfigError, match="whose shapes differ"):
        TimeDistributed(LSTM(F, U, return_sequences=True, return_state=True))


def test_a_stack_runs_over_the_slices() -> None:
    cells = StackedLSTM([LSTMCell(F, U), LSTMCell(U, 5)], return_sequences=True)
    x = torch.rand(B, N, T, F)
    y = TimeDistributed(cells)(x)
    assert y.shape == (B, N, T, 5)
    assert torch.allclose(y[:, 1], cells(x[:, 1]), atol=1e-6)


def test_state_goes_along_the_outer_time_and_is_reset() -> None:
    layer = TimeDistributed(LSTM(F, U, stateful=True))
    x = torch.rand(B, N, T, F)
    first = layer(x)
    whole: LSTM = LSTM(F, U, return_sequences=True)
    whole.load_state_dict(layer.layer.state_dict())
    expected = whole(x.flatten(1, 2))[:, T - 1 :: T]
    assert torch.allclose(first, expected, atol=1e-6)
    assert not torch.allclose(layer(x), first)
    layer.reset_states()
    assert torch.equal(layer(x), first)


def test_dropout_draws_masks_of_their_own_for_each_slice() -> None:
    layer = TimeDistributed(LSTM(F, U, dropout=0.5, seed=3))
    x = torch.ones(101, N, T, F)
    y = layer(x)
    assert not torch.equal(y[:, 0], y[:, 1])
    assert torch.equal(layer.eval()(x)[:, 0], layer(x)[:, 1])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: TimeDistributed(torch.nn.LSTM(F, U)), "layer is a LSTM; pass a kerasish_lstm.L"),
        (lambda: TimeDistributed(LSTM(F, U), name="a/b"), "without '/'"),
        (lambda: TimeDistributed(LSTM(F, U))(torch.zeros(B, T, F)), r"\(5, 7, 2\)"),
        (lambda: TimeDistributed(LSTM(F, U))(torch.zeros(B, 0, T, F)), "one outer step or more"),
        (
            lambda: TimeDistributed(LSTM(F, U))(torch.zeros(B, N, T, F), torch.ones(B, N)),
            r"must be a torch.Tensor of shape \(5, 3, 7\)",
        ),
        (
            lambda: TimeDistributed(Bidirectional(LSTM(F, U), None, LSTM(F, 5, go_backwards=True)))(
                torch.zeros(B, N, T, F)
            ),
            "cannot be stacked",
        ),
    ],
)
def test_what_does_not_fit_says_why(call: Any, said: str) -> None:
    with pytest.raises((ConfigError, InputError), match=said):
        call()
