"""Activations: every name of Keras's, both hard_sigmoids, partials and callables."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm import ACTIVATIONS, LSTM, activations
from kerasish_lstm.errors import ConfigError, InputError
from kerasish_lstm.parity import assert_parity, oracle
from kerasish_lstm.parity.bounds import FLOAT64

from .cases import Case
from .keras_live import KerasLive
from .runs import CHOSEN, build

pytestmark = pytest.mark.smoke

# keras.activations of 3.15.1, by string; its LSTM cannot run the last two.
KERAS_NAMES = {
    "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh",
    "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu",
    "sigmoid", "silu", "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus",
    "sparse_sigmoid", "sparsemax", "squareplus", "tanh", "tanh_shrink",
}  # fmt: skip
CANNOT = ("glu", "threshold")


def test_the_names_are_keras_and_one_more() -> None:
    assert set(ACTIVATIONS) == {*KERAS_NAMES, "swish", "hard_swish", "hard_sigmoid_v2"}
    assert set(oracle.ACTIVATIONS) == set(ACTIVATIONS)
    assert len(KERAS_NAMES) == 28


@pytest.mark.live
def test_live_keras_has_these_names_and_cannot_run_the_other_two(keras: KerasLive) -> None:
    names, failing = keras.call("keras_side.activation_names")
    assert set(names) == {*KERAS_NAMES, "swish", "hard_swish", *CANNOT}
    assert set(failing) == set(CANNOT)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_and_slopes_equal_the_equations(name: str, dtype: torch.dtype) -> None:
    forward, backward = oracle.ACTIVATIONS[name]
    rng = np.random.RandomState(5)
    x = rng.uniform(-7, 7, (11, 5)).astype(np.float32).astype(np.float64)
    dy = rng.uniform(-1, 1, x.shape).astype(np.float32).astype(np.float64)
    tensor = torch.tensor(x, dtype=dtype, requires_grad=True)
    y = ACTIVATIONS[name](tensor)
    (dx,) = torch.autograd.grad(y, tensor, torch.tensor(dy, dtype=dtype))
    bound = 8 * torch.finfo(dtype).eps
    assert_parity(y, forward(x), bound=bound, what=name)
    assert_parity(dx, backward(x, dy), bound=bound, what=f"slope of {name}")


def test_hard_sigmoid_is_bitwise_torchs_and_not_keras_2s() -> None:
    x = torch.linspace(-4, 4, 200_003)
    assert torch.equal(ACTIVATIONS["hard_sigmoid"](x), torch.nn.functional.hardsigmoid(x))
    apart = (ACTIVATIONS["hard_sigmoid"](x) - ACTIVATIONS["hard_sigmoid_v2"](x)).abs()
    assert apart.max() == pytest.approx(1 / 12, abs=1e-5)


@pytest.mark.live
def test_hard_sigmoid_v2_is_tf_keras(tf_keras: KerasLive) -> None:
    case = Case("gaps", "given", True, True, recurrent_activation="hard_sigmoid_v2")
    arrays = case.inputs()
    arrays["kernel"] *= 4  # into the corners
    keywords = {**case.keywords(), "recurrent_activation": "hard_sigmoid"}
    keywords.pop("zero_output_for_mask")
    expected = tf_keras.call("keras_side.run_tf_keras", keywords, arrays)
    layer = build(case, arrays, torch.float64)
    tensors = {k: torch.tensor(v) for k, v in arrays.items()}
    result = layer(tensors["x"], (tensors["h0"], tensors["c0"]), tensors["mask"])
    for mine, theirs in zip(result, expected, strict=True):
        assert_parity(mine, theirs, bound=FLOAT64)


@pytest.mark.parametrize("name", CANNOT)
def test_what_keras_cannot_run_is_a_clear_error(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' cannot run.*functools\.partial"):
        LSTM(3, 5, activation=name)


def run(layer: LSTM, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    x = torch.randn(2, 7, layer.input_size, dtype=torch.float64)
    return x, layer(x)


def test_partials_and_callables_run_and_are_differentiated() -> None:
    threshold = functools.partial(activations.threshold, threshold=0.1, default_value=-0.2)
    by_hand: Any = lambda x: torch.where(x > 0.1, x, -0.2)  # noqa: E731
    one: LSTM = LSTM(3, 5, activation=threshold, dtype=torch.float64)
    other: LSTM = LSTM(3, 5, activation=by_hand, dtype=torch.float64)
    other.load_state_dict(one.state_dict())
    x, y = run(one)
    assert torch.equal(y, other(x))
    y.sum().backward()
    other(x).sum().backward()
    assert torch.equal(one.lstm.weight_ih_l0.grad, other.lstm.weight_ih_l0.grad)
    assert one.engine == "scan" and "partial" in repr(one)


@pytest.mark.live
def test_a_partial_of_glu_broadcasts_where_keras_does(keras: KerasLive) -> None:
    glu = functools.partial(activations.glu, axis=-1)
    layer: LSTM = LSTM(3, 2, activation=glu, dtype=torch.float64)
    x, y = run(layer)
    assert_parity(y, keras.call("keras_side.run_glu", x.numpy(), layer.get_weights()), bound=1e-14)


def test_an_activation_that_changes_the_shape_says_so() -> None:
    halving = functools.partial(activations.glu, axis=-1)
    with pytest.raises(InputError, match=r"shape \(2, 6\) into \(2, 3\); it must keep"):
        run(LSTM(3, 6, activation=halving, dtype=torch.float64))


@pytest.mark.parametrize("function", [torch.tanh, torch.nn.functional.tanh])
def test_torchs_own_functions_are_known_by_name(function: Any) -> None:
    layer: LSTM = LSTM(3, 5, activation=function, recurrent_activation=torch.sigmoid)
    assert layer.engine == CHOSEN
    assert layer.config.activation == "tanh"


def test_none_is_linear_in_both_roles() -> None:
    layer: LSTM = LSTM(3, 5, activation=None, recurrent_activation=None, dtype=torch.float64)
    named: LSTM = LSTM(
        3, 5, activation="linear", recurrent_activation="linear", dtype=torch.float64
    )
    named.load_state_dict(layer.state_dict())
    x, y = run(layer)
    assert torch.equal(y, named(x))
    assert layer.config.activation == layer.config.recurrent_activation == "linear"
