"""LSTMCell beside live Keras, step by step, with gradients."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm import LSTM, DropoutMasks, LazyLSTMCell, LSTMCell, LSTMState
from kerasish_lstm.errors import ConfigError, InputError
from kerasish_lstm.parity import assert_parity, oracle
from kerasish_lstm.parity.bounds import FLOAT64

from .keras_live import KerasLive

pytestmark = pytest.mark.smoke

B, T, F, U = 5, 7, 3, 2

KEYWORDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no bias": {"use_bias": False},
    "activations": {"activation": "softsign", "recurrent_activation": "hard_sigmoid"},
    "implementation 1": {"implementation": 1},
    "dropout": {"dropout": 0.4},
    "dropout of each gate": {"dropout": 0.4, "implementation": 1},
    "recurrent dropout": {"recurrent_dropout": 0.3},
    "both": {"dropout": 0.4, "recurrent_dropout": 0.3},
}


def inputs(name: str) -> dict[str, np.ndarray]:
    """x (T, B, F), the masks (1 or 4, B, size), weights in Keras's layout."""
    rng = np.random.RandomState(zlib.crc32(name.encode()))

    def draw(*shape: int, scale: float = 1.0) -> np.ndarray:
        return rng.uniform(-scale, scale, shape)

    keywords = KEYWORDS[name]
    arrays = {"x": draw(T, B, F, scale=2.0), "state00": draw(B, U), "state01": draw(B, U)}
    shapes = [(F, 4 * U), (U, 4 * U), (4 * U,)][: 3 if keywords.get("use_bias", True) else 2]
    arrays |= {f"weight{i:02d}": draw(*s) for i, s in enumerate(shapes)}
    arrays |= {"d_0": draw(T, B, U), "d_1": draw(B, U), "d_2": draw(B, U)}
    four = keywords.get("implementation") == 1 or "recurrent_dropout" in keywords
    for rate, size in (("dropout", F), ("recurrent_dropout", U)):
        if rate in keywords:
            kept = rng.uniform(size=(4 if four else 1, B, size)) >= keywords[rate]
            arrays[f"{rate}_mask"] = kept / (1 - keywords[rate])
    return arrays


def ours(name: str, device: torch.device) -> dict[str, np.ndarray]:
    arrays = inputs(name)
    cell = LSTMCell(F, U, dtype=torch.float64, **KEYWORDS[name])
    cell.set_weights([arrays[n] for n in sorted(arrays) if n.startswith("weight")])
    cell.to(device)
    t = {k: torch.tensor(v, device=device) for k, v in arrays.items()}
    given = (t.get("dropout_mask"), t.get("recurrent_dropout_mask"))
    masks = DropoutMasks(*(m if m is None or len(m) == 4 else m[0] for m in given))
    options = {"dropout_masks": masks} if masks != (None, None) else {}
    x = t["x"].requires_grad_()
    begin = (t["state00"].requires_grad_(), t["state01"].requires_grad_())
    state: Any = begin
    outputs = []
    for x_t in x:
        output, state = cell(x_t, state, **options)
        assert isinstance(state, LSTMState) and output is state.h
        outputs.append(output)
    results = [torch.stack(outputs), *state]
    loss = sum((r * t[f"d_{i}"]).sum() for i, r in enumerate(results))
    watched = {"d_x": x, "d_state00": begin[0], "d_state01": begin[1]}
    watched |= {f"d_weight{i:02d}": p for i, p in enumerate(cell.parameters())}
    gradients = torch.autograd.grad(loss, list(watched.values()))
    found = {f"result{i}": r for i, r in enumerate(results)}
    for key, gradient in zip(watched, gradients, strict=True):
        found[key] = gradient.t() if "weight" in key and gradient.ndim == 2 else gradient
    return {k: v.detach().cpu().numpy() for k, v in found.items()}


def truth(name: str) -> dict[str, np.ndarray]:
    """The layer's float64 equations over the same steps."""
    a, keywords = inputs(name), KEYWORDS[name]
    weights = [a[n] for n in sorted(a) if n.startswith("weight")]
    x = a["x"].transpose(1, 0, 2)
    options: dict[str, Any] = {
        k: v for k, v in keywords.items() if k in ("activation", "recurrent_activation")
    }
    options |= {"h0": a["state00"], "c0": a["state01"], "return_sequences": True}
    if "dropout_mask" in a:
        options["input_dropout"] = a["dropout_mask"][:, :, None]
    options["recurrent_dropout"] = a.get("recurrent_dropout_mask")
    result = oracle.forward(x, *weights, **options)
    g = oracle.gradients(
        x, *weights, d_output=a["d_0"].transpose(1, 0, 2), d_h=a["d_1"], d_c=a["d_2"], **options
    )
    found = {"result0": result.output.transpose(1, 0, 2), "result1": result.h, "result2": result.c}
    found |= {"d_x": g.x.transpose(1, 0, 2), "d_state00": g.h0, "d_state01": g.c0}
    for i, value in enumerate((g.kernel, g.recurrent_kernel, g.bias)[: len(weights)]):
        found[f"d_weight{i:02d}"] = value
    return found


@pytest.mark.parametrize("name", KEYWORDS)
def test_steps_equal_the_equations(name: str, device: torch.device) -> None:
    actual, expected = ours(name, device), truth(name)
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        assert_parity(actual[key], value, bound=FLOAT64, what=key)


@pytest.mark.live
def test_steps_equal_live_keras(keras: KerasLive) -> None:
    requests = [{"keywords": {"units": U, **k}, "arrays": inputs(n)} for n, k in KEYWORDS.items()]
    for name, expected in zip(KEYWORDS, keras.call("stack_side.steps", requests), strict=True):
        actual = ours(name, torch.device("cpu"))
        assert actual.keys() == expected.keys()
        for key, value in expected.items():
            assert_parity(actual[key], value, bound=FLOAT64, what=f"{name} {key}")


def test_masks_serve_until_they_are_reset() -> None:
    cell = LSTMCell(F, U, dropout=0.5, recurrent_dropout=0.5, seed=3)
    x, state = torch.rand(B, F), (torch.rand(B, U), torch.rand(B, U))
    first, _ = cell(x, state)
    assert torch.equal(cell(x, state)[0], first)
    cell.reset_dropout_mask()
    second, _ = cell(x, state)
    assert not torch.equal(second, first)
    cell.reset_recurrent_dropout_mask()
    assert not torch.equal(cell(x, state)[0], second)
    with pytest.raises(InputError, match=r"for a batch of 5; this batch has 2"):
        cell(x[:2], (state[0][:2], state[1][:2]))
    cell.reset_dropout_mask()
    cell.reset_recurrent_dropout_mask()
    cell(x[:2])
    assert torch.equal(cell.eval()(x, state)[0], cell(x, state, training=False)[0])


def test_no_state_is_zeros_and_a_layer_s_weights_fit() -> None:
    cell, layer = LSTMCell(F, U), LSTM(F, U)
    layer.load_state_dict(cell.state_dict())
    x = torch.rand(B, F)
    assert torch.allclose(cell(x)[0], layer(x.unsqueeze(1)), atol=1e-6)
    zeros = cell.get_initial_state(B)
    assert torch.equal(cell(x, zeros)[0], cell(x)[0]) and zeros.h.shape == (B, U)
    assert cell.count_params() == layer.count_params() == 4 * U * (F + U + 1)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_mixed_policy_computes_in_16_bits(policy: str) -> None:
    cell = LSTMCell(F, U, dtype=policy)
    output, state = cell(torch.rand(B, F))
    assert {t.dtype for t in (output, *state)} == {cell.compute_dtype}
    output.float().sum().backward()
    assert {p.grad.dtype for p in cell.parameters()} == {torch.float32}


def test_a_lazy_cell_learns_its_input_size() -> None:
    cell = LazyLSTMCell(U, use_bias=False)
    assert cell.input_size == 0
    with pytest.raises(InputError, match=r"LazyLSTMCell\(2\).*\(batch, features\)"):
        cell(torch.zeros(B, T, F))
    cell(torch.rand(B, F))
    assert type(cell) is LSTMCell and cell.input_size == F


def test_what_does_not_fit_says_why() -> None:
    cell = LSTMCell(F, U, name="step")
    for x, said in (
        (torch.zeros(B, T, F), r"'step'.*\(5, 7, 3\)"),
        (torch.zeros(B, 2), r"\(B, 3\)"),
        (torch.zeros(B, F, dtype=torch.complex64), "complex"),
    ):
        with pytest.raises(InputError, match=said):
            cell(x)
    with pytest.raises(InputError, match="3 entries"):
        cell(torch.zeros(B, F), [torch.zeros(B, U)] * 3)
    with pytest.raises(ConfigError, match="LSTMCell: input_size=0"):
        LSTMCell(0, U)
