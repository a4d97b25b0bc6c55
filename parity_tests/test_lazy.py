"""LazyLSTM: an LSTM whose number of features is that of its first batch."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from kerasish_lstm import LSTM, LazyLSTM
from kerasish_lstm.errors import ConfigError, InputError

from .runs import CHOSEN

pytestmark = pytest.mark.smoke

B, T, F, U = 5, 7, 3, 11


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(23)
        yield


def lazy_of(**keywords: Any) -> LazyLSTM[Any]:
    layer: LazyLSTM[Any] = LazyLSTM(U, dtype=torch.float64, **keywords)
    return layer


def batch(features: int = F) -> Tensor:
    return torch.randn(B, T, features, dtype=torch.float64)


def through_pickle(layer: Any) -> Any:
    return pickle.loads(pickle.dumps(layer))


def through_torch_save(layer: Any) -> Any:
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def weights_only(state: dict[str, Any]) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_is_an_lstm_of(layer: LSTM[Any], features: int) -> None:
    """Nothing lazy is left: types, hooks, sizes and shapes are those of an LSTM."""
    plain = LSTM(features, U, dtype=torch.float64)
    assert (type(layer), type(layer.lstm)) == (LSTM, nn.LSTM)
    assert (layer.input_size, layer.lstm.input_size) == (features, features)
    assert not layer._forward_pre_hooks and not layer.lstm._forward_pre_hooks
    assert {k: v.shape for k, v in layer.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }
    assert [n for n, _ in layer.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert type(layer.lstm.weight_ih_l0) is nn.Parameter
    assert layer.count_params() == plain.count_params()


# The first call


@pytest.mark.parametrize("use_cudnn", ["auto", True, False], ids=["native", "fused", "scan"])
@pytest.mark.parametrize("features", [1, F, 4 * U])
@pytest.mark.parametrize("by_keyword", [True, False])
def test_the_first_call_makes_it_an_lstm(by_keyword: bool, features: int, use_cudnn: Any) -> None:
    layer, x = lazy_of(use_cudnn=use_cudnn), batch(features)
    assert isinstance(layer.lstm.weight_ih_l0, UninitializedParameter)
    assert layer.input_size == 0
    output = layer(x=x) if by_keyword else layer(x)
    assert_is_an_lstm_of(layer, features)
    same: LSTM[Any] = LSTM(features, U, dtype=torch.float64, use_cudnn=use_cudnn)
    same.set_weights(layer.get_weights())
    assert torch.equal(same(x), output)
    assert torch.equal(layer(x), output)  # the first call was like every other


def test_the_first_call_takes_what_every_call_takes() -> None:
    layer, x = lazy_of(return_sequences=True, return_state=True, stateful=True), batch()
    mask, state = torch.rand(B, T) < 0.6, tuple(torch.randn(2, B, U, dtype=torch.float64))
    results = layer(x, initial_state=state, mask=mask)
    layer.reset_state()
    again = layer(x, state, mask)
    assert all(torch.equal(a, b) for a, b in zip(results, again, strict=True))


def test_it_learns_inside_a_model() -> None:
    model = nn.Sequential(LazyLSTM(U, return_sequences=True), LazyLSTM(2))
    assert model(batch().float()).shape == (B, 2)
    assert [(type(m), m.input_size) for m in model] == [(LSTM, F), (LSTM, U)]


def test_another_number_of_features_is_refused_afterwards() -> None:
    layer = lazy_of()
    layer(batch())
    with pytest.raises(InputError, match=r"2 features; the layer takes 3"):
        layer(batch(2))


def test_gradients_reach_every_parameter() -> None:
    layer = lazy_of()
    layer(batch()).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in layer.parameters())


def test_not_trainable_stays_so_through_the_first_call() -> None:
    layer = lazy_of(trainable=False)
    layer(batch())
    assert not any(p.requires_grad for p in layer.parameters())


def test_the_first_call_may_be_in_inference_mode() -> None:
    layer = lazy_of()
    with torch.inference_mode():
        layer(batch())
    layer(batch()).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


BAD_FIRST_INPUTS: dict[str, tuple[Any, str]] = {
    "rank 2": (torch.zeros(T, F), r"\(7, 3\)"),
    "rank 4": (torch.zeros(1, B, T, F), r"\(1, 5, 7, 3\)"),
    "an array": (np.zeros((B, T, F)), "ndarray"),
    "a list": ([[[0.0]]], "list"),
    "None": (None, "NoneType"),
    "no features": (torch.zeros(B, T, 0), r"\(5, 7, 0\)"),
}


@pytest.mark.parametrize("what", BAD_FIRST_INPUTS)
def test_a_bad_first_input_is_refused_and_teaches_nothing(what: str) -> None:
    layer = lazy_of()
    bad, shown = BAD_FIRST_INPUTS[what]
    with pytest.raises(InputError, match=rf"LazyLSTM\(11\).*\(batch, time, features\).*{shown}"):
        layer(bad)
    assert type(layer) is LazyLSTM
    layer(batch())
    assert_is_an_lstm_of(layer, F)


def test_keywords_are_checked_at_construction() -> None:
    with pytest.raises(ConfigError, match="units=0"):
        LazyLSTM(0)
    with pytest.raises(ConfigError, match="did you mean 'tanh'"):
        LazyLSTM(U, activation="tanhh")
    with pytest.raises(ConfigError, match="dropout='half'"):
        LazyLSTM(U, dropout="half")
    with pytest.raises(TypeError, match="use_cuddn"):
        LazyLSTM(U, use_cuddn=True)


# Before the first call


def test_repr_works_before_and_after() -> None:
    layer = lazy_of(name="encoder", go_backwards=True)
    before = repr(layer)
    assert before.startswith("LazyLSTM(")
    assert f"11, go_backwards=True, name='encoder', engine={CHOSEN}" in before
    layer(batch())
    assert repr(layer).startswith("LSTM(\n  3, 11, go_backwards=True, name='encoder'")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_casts_before_the_first_call_hold(dtype: torch.dtype) -> None:
    layer = lazy_of().to(dtype)
    layer(batch())
    assert {t.dtype for t in layer.state_dict().values()} == {dtype}


def test_the_device_is_kept(device: torch.device) -> None:
    for layer in (LazyLSTM(U, device=device), LazyLSTM(U).to(device)):
        layer(batch().float().to(device))
        assert {t.device.type for t in layer.state_dict().values()} == {device.type}


@pytest.mark.parametrize("through", [copy.deepcopy, through_pickle, through_torch_save])
def test_a_copy_before_the_first_call_learns_on_its_own(through: Callable[[Any], Any]) -> None:
    layer = lazy_of(return_sequences=True)
    twin = through(layer)
    assert type(twin) is LazyLSTM
    layer(batch(2))
    assert type(twin) is LazyLSTM
    x = batch()
    output = twin(x)
    assert_is_an_lstm_of(twin, F)
    assert_is_an_lstm_of(layer, 2)
    assert np.array_equal(twin.get_weights()[1], layer.get_weights()[1])  # known before the copy
    assert torch.equal(twin(x), output)


@pytest.mark.parametrize("through", [copy.deepcopy, through_pickle, through_torch_save])
def test_a_copy_after_the_first_call_is_an_lstm(through: Callable[[Any], Any]) -> None:
    layer, x = lazy_of(), batch()
    expected = layer(x)
    twin = through(layer)
    assert_is_an_lstm_of(twin, F)
    assert torch.equal(twin(x), expected)


# state_dict


def source_of(kind: str) -> nn.Module:
    if kind == "nn.LSTM":
        return nn.LSTM(F, U, batch_first=True, dtype=torch.float64)
    source = LSTM(F, U, dtype=torch.float64) if kind == "LSTM" else lazy_of()
    source(batch())
    nn.init.uniform_(source.lstm.bias_ih_l0)
    return source


@pytest.mark.parametrize("kind", ["LSTM", "LazyLSTM", "nn.LSTM"])
@pytest.mark.parametrize("called_before", [True, False])
def test_a_full_state_dict_loads_before_and_after_the_first_call(
    called_before: bool, kind: str
) -> None:
    source, layer, x = source_of(kind), lazy_of(), batch()
    if called_before:
        layer(batch())
    layer.load_state_dict(weights_only(source.state_dict()))
    expected = source(x)
    expected = expected[0][:, -1] if isinstance(expected, tuple) else expected
    output = layer(x)
    assert torch.equal(output, expected) if kind != "nn.LSTM" else torch.allclose(output, expected)
    assert_is_an_lstm_of(layer, F)
    assert not layer.lstm.bias_hh_l0.any()


def test_loaded_sizes_bind_the_first_call() -> None:
    layer = lazy_of()
    layer.load_state_dict(LSTM(F, U, dtype=torch.float64).state_dict())
    assert layer.input_size == F
    with pytest.raises(InputError, match=r"2 features; the layer takes 3"):
        layer(batch(2))
    assert layer(batch()).shape == (B, U)


def test_a_lazy_state_dict_loads_into_a_lazy_layer() -> None:
    source, layer = lazy_of(), lazy_of()
    state = copy.deepcopy(source.state_dict())
    assert isinstance(state["lstm.weight_ih_l0"], UninitializedParameter)
    layer.load_state_dict(state)
    assert isinstance(layer.lstm.weight_ih_l0, UninitializedParameter)
    layer(batch())
    assert_is_an_lstm_of(layer, F)
    assert np.array_equal(layer.get_weights()[1], source.lstm.weight_hh_l0.detach().numpy().T)


def test_state_dict_keys_are_known_before_the_first_call() -> None:
    assert list(lazy_of().state_dict()) == list(LSTM(F, U).state_dict())


# Initialization


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
def test_it_is_initialized_as_keras_does(dtype: torch.dtype) -> None:
    features, units = 53, 47
    layer: LSTM[Any] = LazyLSTM(units, dtype=dtype)
    layer(torch.zeros(1, 1, features))
    kernel, recurrent, bias = (w.astype(np.float64) for w in layer.get_weights())
    limit = np.sqrt(6 / (features + 4 * units))
    assert 0.999 * limit < np.abs(kernel).max() <= limit * (1 + torch.finfo(dtype).eps)
    # Five standard errors of U(-L, L)'s mean and second moment, for this many draws.
    assert abs(kernel.mean()) < 5 * limit / np.sqrt(3 * kernel.size)
    spread = 5 * limit**2 * np.sqrt(4 / 45 / kernel.size)
    assert abs((kernel**2).mean() - limit**2 / 3) < spread
    assert np.abs(recurrent @ recurrent.T - np.eye(units)).max() < 8 * torch.finfo(dtype).eps
    assert bias.tolist() == [0.0] * units + [1.0] * units + [0.0] * 2 * units


def test_two_first_calls_draw_different_weights() -> None:
    one, other = lazy_of(), lazy_of()
    one(batch())
    other(batch())
    pairs = zip(one.get_weights()[:2], other.get_weights()[:2], strict=True)
    assert not any(np.array_equal(a, b) for a, b in pairs)


def test_a_meta_layer_learns_its_shapes() -> None:
    layer: LSTM[Any] = LazyLSTM(U, device="meta", dtype=torch.float64)
    assert layer(batch().to("meta")).shape == (B, U)
    layer.to_empty(device="cpu").reset_parameters()
    assert_is_an_lstm_of(layer, F)
    assert layer(batch()).isfinite().all()
