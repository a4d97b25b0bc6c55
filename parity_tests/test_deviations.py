"""Every row of deviations.txt, shown on live Keras and on this package."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm import (
    ACTIVATIONS,
    LSTM,
    Bidirectional,
    LSTMCell,
    Masking,
    StackedLSTM,
    TimeDistributed,
    compute_mask,
    initializers,
    regularizers,
)
from kerasish_lstm.errors import ConfigError

from .deviations_page import BACKENDS, PAGE, page, rows
from .keras_live import KerasLive, missing
from .make_fixtures import FOLDER
from .test_fixtures import INDEX, inputs, load


@pytest.fixture(scope="module")
def seen(
    keras: KerasLive, tf_keras: KerasLive, live_on: Callable[[str], KerasLive]
) -> dict[str, Any]:
    found = keras.call("deviations_side.deviations")
    found["tensorflow"] = keras.call("deviations_side.masked_elsewhere")
    found["tf_keras"] = tf_keras.call("deviations_side.of_keras_2")
    x = np.linspace(-4, 4, 101)
    for library, live in (("keras", keras), ("tf_keras", tf_keras)):
        found[f"hard_sigmoid of {library}"] = live.call("deviations_side.hard_sigmoid", library, x)
    found["torch"] = live_on("torch").call("deviations_side.masked_elsewhere")
    found["on torch"] = live_on("torch").call("deviations_side.on_torch")
    if missing("jax") is None:
        found["jax"] = live_on("jax").call("deviations_side.masked_elsewhere")
    return found


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
    layer: LSTM = LSTM(2, 1, bias_initializer=initializers.Constant(0.25))
    assert layer.get_weights()[2].tolist() == [0.25, 1.0, 0.25, 0.25]


def bidirectional_stateful_state(seen: dict[str, Any]) -> None:
    assert seen["bidirectional"] == "TypeError"
    layer = Bidirectional(LSTM(2, 3, stateful=True, return_state=True))
    _, *first = layer(torch.ones(1, 3, 2))
    _, *second = layer(torch.ones(1, 3, 2))
    assert len(first) == 4 and not any(
        torch.equal(a, b) for a, b in zip(first, second, strict=True)
    )


X = torch.rand(5, 7, 3) - 0.5
MASK = torch.rand(5, 7) < 0.6
MASK[0, 1] = False


def implementation_1_dropout(seen: dict[str, Any]) -> None:
    assert seen["implementation 1"] == ["InvalidArgumentError", "runs"]
    layer: LSTM = LSTM(3, 2, implementation=1, dropout=0.5)
    assert layer(X).shape == (5, 2) and layer._plan == ("gates", None)


def dropout_of_1(seen: dict[str, Any]) -> None:
    assert seen["dropout 1"]
    layer: LSTM = LSTM(3, 2, dropout=1.0, recurrent_dropout=1.0)
    assert torch.equal(layer(X, training=True), layer(X, training=False))


def mask_ignored_with_state(seen: dict[str, Any]) -> None:
    assert seen["mask and state"] == {
        "attached": True, "attached, with a state": True, "passed, with a state": False,
    }  # fmt: skip
    layers = [LSTM(3, 2, return_sequences=True), LSTM(2, 2)]
    state = [torch.ones(5, 2)] * 4
    y = layers[0](X, state[:2], MASK)
    bare, masked = layers[1](y, state[:2]), layers[1](y, state[:2], MASK)
    assert torch.equal(StackedLSTM(layers)(X, state, MASK), bare)
    explicit = StackedLSTM(layers, mask_propagation="explicit")
    assert torch.equal(explicit(X, state, MASK), masked) and not torch.equal(bare, masked)


def backwards_mask_not_reversed(seen: dict[str, Any]) -> None:
    assert seen["backwards mask"]
    layer: LSTM = LSTM(3, 2, return_sequences=True, go_backwards=True)
    assert compute_mask(layer, MASK) is MASK


def masking_value_float32(seen: dict[str, Any]) -> None:
    assert seen["masking 0.1"] == [[True, True]]
    x = torch.tensor([[[0.1], [0.2]]], dtype=torch.float64)
    assert Masking(0.1)(x)[1].all() and not Masking(0.1)(x.float())[1].all()


def one_cell_in_a_list(seen: dict[str, Any]) -> None:
    assert seen["one cell"] == ["runs", "ValueError"]
    assert StackedLSTM([LSTMCell(3, 2)])(X, mask=MASK).shape == (5, 2)


def stacked_reset(seen: dict[str, Any]) -> None:
    assert seen["reset"] == "AttributeError"
    stack = StackedLSTM([LSTMCell(3, 2), LSTMCell(2, 2)], stateful=True)
    first = stack(X)
    stack.reset_state()
    assert torch.equal(stack(X), first)


def stacked_float64(seen: dict[str, Any]) -> None:
    assert seen["float64 stack"] == ["runs", "InvalidArgumentError"]
    cells = [LSTMCell(3, 2, dtype="float64"), LSTMCell(2, 2, dtype="float64")]
    assert StackedLSTM(cells)(X, mask=MASK).dtype == torch.float64


def time_distributed_states(seen: dict[str, Any]) -> None:
    assert seen["slices with states"] == (3, 2, 5, 2)
    layer = TimeDistributed(LSTM(3, 2, return_state=True))
    assert layer(torch.stack([X, X], 1)).shape == (3, 2, 5, 2)


def time_distributed_activity(seen: dict[str, Any]) -> None:
    assert seen["inner activity"] == 0
    layer = TimeDistributed(LSTM(3, 2, activity_regularizer="l2"))
    layer(torch.stack([X, X], 1))
    assert layer.losses == []


def bidirectional_weights(seen: dict[str, Any]) -> None:
    assert not seen["weights"]
    with pytest.warns(UserWarning, match=r"call set_weights\(\)"):
        both = Bidirectional(LSTM(3, 2), weights=[torch.ones(3, 8).numpy()] * 6)
    assert both.get_weights()[0].std() > 0


def bidirectional_uneven_shape(seen: dict[str, Any]) -> None:
    assert seen["uneven"] == (4, 7)
    sequences = {"return_sequences": True}
    other = LSTM(3, 5, go_backwards=True, **sequences)
    both = Bidirectional(LSTM(3, 2, **sequences), backward_layer=other)
    assert StackedLSTM([both, LSTM(7, 2)])(X).shape == (5, 2)


def l1_l2_string(seen: dict[str, Any]) -> None:
    assert seen["l1_l2"] == "ValueError"
    layer: LSTM = LSTM(3, 2, kernel_regularizer="l1_l2")
    assert torch.equal(layer.losses[0], regularizers.L1L2(0.01, 0.01)(layer.kernel))


def orthogonal_regularizer_float64(seen: dict[str, Any]) -> None:
    assert seen["orthogonal"] == ["runs", "InvalidArgumentError"]
    wide: LSTM = LSTM(3, 2, kernel_regularizer="orthogonal_regularizer", dtype="float64")
    assert wide.losses[0].dtype == torch.float64 and wide.losses[0].isfinite()


def identity_gain(seen: dict[str, Any]) -> None:
    assert seen["identity"] == {}
    gain = initializers.serialize(initializers.Identity(gain=2.0))
    assert gain is not None and gain["config"] == {"gain": 2.0}


def initializer_of_another_shape(seen: dict[str, Any]) -> None:
    assert seen["wrong shape"] == "runs"
    with pytest.raises(ConfigError, match=r"gave a tensor of shape \(2, 8\) for \(3, 8\)"):
        LSTM(3, 2, kernel_initializer=lambda shape, dtype: torch.ones(shape[0] - 1, shape[1]))


def unrolled_backwards_mask(seen: dict[str, Any]) -> None:
    rolled, unrolled = seen["tensorflow"]["backwards"], seen["tensorflow"]["unrolled"]
    assert np.abs(rolled - unrolled).max() > 0.01
    assert np.abs(rolled - seen["torch"]["backwards"]).max() < 1e-6
    assert seen["torch"]["unrolled"] == "AttributeError"
    options: dict[str, Any] = {"return_sequences": True, "go_backwards": True}
    options |= {"zero_output_for_mask": True, "dtype": torch.float64}
    one, two = LSTM(3, 2, **options), LSTM(3, 2, unroll=True, **options)
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(X, mask=MASK), two(X, mask=MASK))


def float64_on_torch(seen: dict[str, Any]) -> None:
    far = np.abs(seen["tensorflow"]["sequence"] - seen["torch"]["sequence"]).max()
    assert 1e-12 < far < 1e-5  # that this package's is float64 is test_parity's


def config_forgets(seen: dict[str, Any]) -> None:
    assert seen["forgotten"] == ["implementation", "use_cudnn"]
    config = LSTM(3, 2, use_cudnn=False, implementation=1).get_config()
    assert (config["use_cudnn"], config["implementation"]) == (False, 1)


def initializer_object_repeats(seen: dict[str, Any]) -> None:
    assert seen["repeats"]
    one = initializers.RandomNormal()
    layer: LSTM = LSTM(2, 2, kernel_initializer=one, recurrent_initializer=one)
    assert not torch.equal(layer.kernel, layer.recurrent_kernel)


def wrapper_dtype(seen: dict[str, Any]) -> None:
    assert seen["wrapper dtypes"] == ["float32", "float32"]
    inner: LSTM[Any] = LSTM(3, 2, dtype="float64")
    assert Bidirectional(inner)(X).dtype == torch.float64
    assert Bidirectional(inner, dtype="float32")(X).dtype == torch.float32
    assert StackedLSTM(LSTMCell(3, 2, dtype="float64"))(X).dtype == torch.float64


def cell_autocast_mixed(seen: dict[str, Any]) -> None:
    kernel, y = seen["cell without autocast"]
    rounded = torch.tensor(kernel).bfloat16().double().numpy()
    assert np.abs(rounded - kernel).max() > 1e-4
    by_hand = [_one_step(k) for k in (rounded, kernel)]
    assert np.abs(y - by_hand[0]).max() < 1e-6 < np.abs(y - by_hand[1]).max()
    mine = LSTMCell(3, 2, dtype="mixed_bfloat16", autocast=False)
    mine.set_weights([kernel, np.zeros((2, 8)), np.zeros(8)])
    output, _ = mine(torch.ones(1, 3), (torch.zeros(1, 2), torch.zeros(1, 2)))
    assert output.dtype == torch.float32
    assert np.abs(output.detach().numpy() - y).max() < 1e-6


def _one_step(kernel: np.ndarray) -> np.ndarray:
    """h after one step from zeros on ones, without recurrent weights and bias."""
    i, _, g, o = np.split(np.ones((1, 3)) @ kernel, 4, axis=1)
    sigmoid = [1 / (1 + np.exp(-z)) for z in (i, o)]
    h: np.ndarray = sigmoid[1] * np.tanh(sigmoid[0] * np.tanh(g))
    return h


def lstm_autocast(seen: dict[str, Any]) -> None:
    assert seen["autocast"] == ["float32", "float32"]
    assert LSTM(3, 2, autocast=False)(X).dtype == torch.float32


def needs_jax(seen: dict[str, Any]) -> dict[str, Any]:
    if "jax" not in seen:
        pytest.skip(f"live Keras on JAX: {missing('jax')}")
    found: dict[str, Any] = seen["jax"]
    return found


def float64_tanh_on_jax(seen: dict[str, Any]) -> None:
    assert 1e-9 < needs_jax(seen)["tanh"] < 1e-6
    assert seen["tensorflow"]["tanh"] < 1e-15
    x = torch.linspace(-2, 2, 105, dtype=torch.float64)
    assert np.abs(ACTIVATIONS["tanh"](x).numpy() - np.tanh(x.numpy())).max() < 1e-15


def masked_output_on_jax(seen: dict[str, Any]) -> None:
    assert (needs_jax(seen)["sequence"][0, 0] == 1).all()  # the initial h
    assert (seen["tensorflow"]["sequence"][0, 0] == 0).all()
    layer: LSTM = LSTM(3, 2, return_sequences=True)
    mask = torch.tensor([[False, True]])
    state = (torch.ones(1, 2), torch.ones(1, 2))
    assert (layer(torch.rand(1, 2, 3), mask=mask, initial_state=state)[0, 0] == 0).all()


def hard_sigmoid_slope_on_torch(seen: dict[str, Any]) -> None:
    assert seen["on torch"]["slope"] == float(np.float32(1 / 6)) != 1 / 6
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    ACTIVATIONS["hard_sigmoid"](x).backward()
    assert x.grad is not None and abs(x.grad.item() - 1 / 6) < 1e-16


def stateful_gradients_on_torch(seen: dict[str, Any]) -> None:
    assert seen["on torch"]["stateful"] == "RuntimeError"
    layer: LSTM = LSTM(3, 2, stateful=True)
    for _ in range(2):
        layer(X).sum().backward()


def unrolled_zero_output_on_jax(seen: dict[str, Any]) -> None:
    first = seen["tensorflow"]["unrolled forwards"][0, 3]
    assert (first == 0).all() and (needs_jax(seen)["unrolled forwards"][0, 3] != 0).all()
    layer: LSTM = LSTM(3, 2, return_sequences=True, zero_output_for_mask=True, unroll=True)
    mask = torch.tensor([[True, False]])
    assert (layer(torch.rand(1, 2, 3), mask=mask)[0, 1] == 0).all()


def stateful_prediction_on_jax(seen: dict[str, Any]) -> None:
    assert needs_jax(seen)["predicted twice"] == 0 < seen["tensorflow"]["predicted twice"]
    layer: LSTM = LSTM(3, 2, stateful=True)
    assert not torch.equal(layer(X), layer(X))


def mask_longer_than_the_input(seen: dict[str, Any]) -> None:
    assert seen["torch"]["long mask"] == "runs" != seen["tensorflow"]["long mask"]
    with pytest.raises(ValueError, match="mask"):
        LSTM(3, 2)(X, mask=torch.ones(len(X), X.shape[1] + 1, dtype=torch.bool))


def state_given_to_a_stateful_layer(seen: dict[str, Any]) -> None:
    assert seen["tf_keras"] > 1e-3
    layer: LSTM = LSTM(3, 2, stateful=True)
    state = (torch.ones(len(X), 2), torch.ones(len(X), 2))
    first = layer(X, initial_state=state)
    assert torch.equal(layer(X, initial_state=state), first)


def hard_sigmoid_of_two_generations(seen: dict[str, Any]) -> None:
    """Live, and in what Keras 1.2.2 and 2.3.1 gave for their layers."""
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)
    new, old = seen["hard_sigmoid of keras"], seen["hard_sigmoid of tf_keras"]
    assert np.abs(new - ACTIVATIONS["hard_sigmoid"](x).numpy()).max() < 1e-6
    assert np.abs(old - ACTIVATIONS["hard_sigmoid_v2"](x).numpy()).max() < 1e-6
    assert np.abs(new - old).max() > 0.05
    with np.load(FOLDER / "arrays.npz") as arrays:
        for model in ("keras-1.2.2/sequential", "keras-2.3.1/trained"):
            (layer,) = (one for one in INDEX["models"][model] if one["name"] == "first")
            file = next(f for f in INDEX["files"] if f["model"] == model)
            first = load(file)["first"]
            given, keywords = inputs(layer)
            recorded = arrays[layer["outputs"][0][0]]
            assert first.config.recurrent_activation == "hard_sigmoid_v2"
            with torch.no_grad():
                assert np.abs(first(given, **keywords).numpy() - recorded).max() < 1e-6
                wrong = LSTM.from_lstm_config(
                    first.input_size, first.config.replace(recurrent_activation="hard_sigmoid")
                )
                wrong.set_weights(first.get_weights())
                assert np.abs(wrong(given, **keywords).numpy() - recorded).max() > 1e-4


SHOWN: list[Callable[[dict[str, Any]], None]] = [
    sparsemax_threshold, gelu_constant, leaky_relu_slope, masked_nan_gradients, empty_batch,
    no_feature, unit_forget_bias_document, bidirectional_stateful_state,
    implementation_1_dropout, dropout_of_1, mask_ignored_with_state, backwards_mask_not_reversed,
    masking_value_float32, one_cell_in_a_list, stacked_reset, stacked_float64,
    time_distributed_states, time_distributed_activity, bidirectional_weights,
    bidirectional_uneven_shape, l1_l2_string, orthogonal_regularizer_float64, identity_gain,
    initializer_of_another_shape, unrolled_backwards_mask, float64_on_torch, config_forgets,
    initializer_object_repeats, wrapper_dtype, cell_autocast_mixed, lstm_autocast,
    float64_tanh_on_jax, masked_output_on_jax, hard_sigmoid_slope_on_torch,
    stateful_gradients_on_torch, unrolled_zero_output_on_jax, stateful_prediction_on_jax,
    mask_longer_than_the_input, state_given_to_a_stateful_layer, hard_sigmoid_of_two_generations,
]  # fmt: skip


@pytest.mark.live
@pytest.mark.parametrize("show", SHOWN, ids=lambda f: f.__name__)
def test_the_deviation_reproduces(show: Callable[[dict[str, Any]], None], seen: Any) -> None:
    show(seen)


def test_every_row_is_shown_and_whole() -> None:
    assert [row[0].replace("-", "_") for row in rows()] == [f.__name__ for f in SHOWN]
    assert all(len(row) == 5 and all(row) for row in rows())


def test_the_page_is_that_of_the_table() -> None:
    assert PAGE.read_text() == page(), "run python -m parity_tests.deviations_page"
    assert {row[2].partition(",")[0] for row in rows()} == set(BACKENDS)
    for row in rows():
        assert f"| `{row[0].replace('-', '_')}` |" in page()
