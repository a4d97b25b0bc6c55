"""The float64 truth, checked against torch.nn.LSTM, by hand, and by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kerasish_lstm.parity import assert_parity, oracle

from .cases import MASKS, Case

pytestmark = pytest.mark.smoke


def arguments(case: Case) -> tuple[list[np.ndarray], dict[str, object]]:
    a = case.inputs()
    weights = [a["x"], a["kernel"], a["recurrent_kernel"]] + ([a["bias"]] if case.use_bias else [])
    keywords: dict[str, object] = {k: a[k] for k in ("h0", "c0", "mask") if k in a}
    for name in ("go_backwards", "return_sequences", "zero_output_for_mask"):
        keywords[name] = getattr(case, name)
    keywords["activation"] = case.activation
    keywords["recurrent_activation"] = case.recurrent_activation
    return weights, keywords


def test_one_step_by_hand() -> None:
    one = np.ones((1, 1, 1))
    result = oracle.forward(one, np.array([[0.0, 0, 1, 0]]), np.zeros((1, 4)), np.zeros(4))
    c = 0.5 * np.tanh(1.0)  # every gate is sigmoid(0) = 1/2
    assert result.c == pytest.approx(c, abs=1e-15)
    assert result.h == pytest.approx(0.5 * np.tanh(c), abs=1e-15)


@pytest.mark.parametrize("features", [3, 20], ids=["F3", "F4U"])
def test_equals_nn_lstm(features: int) -> None:
    case = Case("none", "given", True, True, batch=3, steps=7, features=features, units=5)
    a = case.inputs()
    lstm = torch.nn.LSTM(features, 5, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(torch.tensor(a["kernel"].T))
        lstm.weight_hh_l0.copy_(torch.tensor(a["recurrent_kernel"].T))
        lstm.bias_ih_l0.copy_(torch.tensor(a["bias"]))
        lstm.bias_hh_l0.zero_()
    x, h0, c0 = (torch.tensor(a[k], requires_grad=True) for k in ("x", "h0", "c0"))
    y, (h, c) = lstm(x, (h0[None], c0[None]))
    positional, keywords = arguments(case)
    result = oracle.forward(*positional, **keywords)
    for actual, truth in zip(result, (y, h[0], c[0]), strict=True):
        assert_parity(actual, truth, bound=1e-14)
    cotangents = {k: a[k] for k in ("d_output", "d_h", "d_c")}
    loss = sum(
        (v * torch.tensor(d)).sum()
        for v, d in zip((y, h[0], c[0]), cotangents.values(), strict=True)
    )
    wanted = torch.autograd.grad(
        loss, [x, lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, h0, c0]
    )
    found = oracle.gradients(*positional, **keywords, **cotangents)
    for i, (actual, truth) in enumerate(zip(found, wanted, strict=True)):
        assert_parity(actual, truth.T if i in (1, 2) else truth, bound=1e-13)


@pytest.mark.parametrize("name", oracle.ACTIVATIONS)
def test_activation_slopes_by_finite_differences(name: str) -> None:
    forward, backward = oracle.ACTIVATIONS[name]
    rng = np.random.RandomState(7)
    x, dy = rng.uniform(-4, 4, (11, 5)) + 0.0123, rng.uniform(-1, 1, (11, 5))
    numeric = np.empty_like(x)
    step = 1e-6
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        numeric[index] = ((forward(up) - forward(down)) * dy).sum() / (2 * step)
    assert_parity(backward(x, dy), numeric, bound=1e-7)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("zero", [False, True], ids=["hold", "zero"])
@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequence"])
@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
def test_gradients_by_finite_differences(
    mask: str, zero: bool, sequences: bool, backwards: bool
) -> None:
    case = Case(
        mask, "given", sequences, True, backwards, zero,
        activation="softsign", recurrent_activation="softmax", batch=3, steps=5,
    )  # fmt: skip
    positional, keywords = arguments(case)
    a = case.inputs()
    cotangents = {k: a[k] for k in ("d_output", "d_h", "d_c")}
    found = oracle.gradients(*positional, **keywords, **cotangents)
    state = [keywords.pop("h0"), keywords.pop("c0")]
    everything = [np.array(v, np.float64) for v in [*positional, *state]]

    def loss() -> float:
        *args, h0, c0 = everything
        result = oracle.forward(*args, h0=h0, c0=c0, **keywords)
        return sum(float((r * d).sum()) for r, d in zip(result, cotangents.values(), strict=True))

    for value, gradient in zip(everything, found, strict=True):
        numeric = np.empty_like(value)
        for index in np.ndindex(value.shape):
            kept = value[index]
            value[index] = kept + 1e-6
            up = loss()
            value[index] = kept - 1e-6
            numeric[index] = (up - loss()) / 2e-6
            value[index] = kept
        assert_parity(gradient, numeric, bound=1e-8)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_masked_steps_are_never_looked_at(poison: float) -> None:
    case = Case("gaps", "given", True, True)
    (x, *weights), keywords = arguments(case)
    a = case.inputs()
    cotangents = {k: a[k] for k in ("d_output", "d_h", "d_c")}
    bad = x.copy()
    bad[~a["mask"]] = poison
    for f, more in ((oracle.forward, {}), (oracle.gradients, cotangents)):
        clean, poisoned = f(x, *weights, **keywords, **more), f(bad, *weights, **keywords, **more)
        for one, other in zip(clean, poisoned, strict=True):
            assert np.array_equal(one, other)
