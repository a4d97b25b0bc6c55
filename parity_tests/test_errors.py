"""What is refused, when, and in which words; and that nothing accepted is silently ignored."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib.util
import inspect
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kerasish_lstm import (
    ACTIVATIONS,
    LSTM,
    Bidirectional,
    DropoutMasks,
    LazyLSTM,
    LSTMCell,
    LSTMConfig,
    StackedLSTM,
    TimeDistributed,
    activations,
    native_engine,
    regularizers,
    to_keras,
)
from kerasish_lstm.errors import (
    ConfigError,
    EngineError,
    InputError,
    KerasishError,
    WeightMismatch,
)
from kerasish_lstm.layers.options import LSTMOptions
from kerasish_lstm.parity import assert_parity, oracle
from kerasish_lstm.parity.bounds import FLOAT64

from .runs import CHOSEN

pytestmark = pytest.mark.smoke

B, T, F, U = 5, 7, 3, 2
LABEL = "LSTM(input_size=3, units=2)"


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(22)
        yield


def layer_of(units: int = U, **keywords: Any) -> LSTM[Any]:
    layer: LSTM[Any] = LSTM(F, units, dtype=torch.float64, **keywords)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return layer


def batch() -> Tensor:
    return torch.randn(B, T, F, dtype=torch.float64)


def assert_says(error: BaseException, *parts: str) -> None:
    missing = [part for part in parts if part not in str(error)]
    assert not missing, f"{missing} not in: {error}"


def shown(value: Any) -> str:
    """A readable part of a test's id, without addresses; nothing for the words of an error."""
    if isinstance(value, dict):
        return ",".join(f"{k}={shown(v)}" for k, v in value.items())
    return "" if isinstance(value, tuple) else getattr(value, "__name__", str(value))


# Inputs

X = torch.zeros(B, T, F)
BAD_INPUTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "rank 2": (X[0], ("(7, 3)", "3 axes", "(batch, time, features)", "x.unsqueeze(0)")),
    "rank 4": (X[None], ("(1, 5, 7, 3)", "3 axes")),
    "rank 0": (X[0, 0, 0], ("()", "3 axes")),
    "more features": (torch.zeros(B, T, 4), ("(5, 7, 4)", "4 features", "takes 3")),
    "features and time swapped": (X.mT, ("(5, 3, 7)", "7 features", "takes 3")),
    "no features": (X[:, :, :0], ("(5, 7, 0)", "0 features", "takes 3")),
    "no time step": (X[:, :0], ("(5, 0, 3)", "no time step")),
    "complex": (X.to(torch.complex64), ("complex", "torch.complex64", "real")),
    "an array": (X.numpy(), ("ndarray", "torch.Tensor", "torch.as_tensor")),
    "a list": (X.tolist(), ("list", "torch.Tensor", "torch.as_tensor")),
    "None": (None, ("NoneType", "torch.Tensor")),
    "another device": (X.to("meta"), ("meta", "cpu", ".to()")),
}


@pytest.mark.parametrize("use_cudnn", ["auto", True, False], ids=["native", "fused", "scan"])
@pytest.mark.parametrize("what", BAD_INPUTS)
def test_a_bad_input_is_refused(what: str, use_cudnn: Any) -> None:
    x, parts = BAD_INPUTS[what]
    with pytest.raises(InputError) as caught:
        LSTM(F, U, use_cudnn=use_cudnn)(x)
    assert_says(caught.value, LABEL, *parts)


def test_an_error_names_the_layer_by_its_own_name() -> None:
    with pytest.raises(InputError, match="'encoder'"):
        LSTM(F, U, name="encoder")(X[0])


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool], ids=str)
def test_integers_and_booleans_are_cast(dtype: torch.dtype) -> None:
    layer = layer_of()
    x = torch.randint(0, 2 if dtype == torch.bool else 11, (B, T, F)).to(dtype)
    assert_parity(layer(x), layer(x.double()), bound=0.0)
    assert layer(x).dtype == torch.float64


# Masks

BAD_MASKS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "rank 1": (torch.ones(T), ("(7,)", "(B, T) = (5, 7)", "(5, 7, 3)")),
    "a feature axis": (torch.ones(B, T, F), ("(5, 7, 3)", "(B, T) = (5, 7)")),
    "transposed": (torch.ones(T, B), ("(7, 5)", "(B, T) = (5, 7)")),
    "another batch": (torch.ones(B - 1, T), ("(4, 7)", "(B, T) = (5, 7)")),
    "more steps": (torch.ones(B, T + 1), ("(5, 8)", "(B, T) = (5, 7)")),
    "an array": (np.ones((B, T), bool), ("ndarray", "torch.Tensor", "(B, T) = (5, 7)", "True")),
    "nested lists": ([[True] * T] * B, ("list", "torch.Tensor", "(B, T) = (5, 7)")),
    "a flag": (True, ("bool", "torch.Tensor", "(B, T) = (5, 7)")),
    "another device": (torch.ones(B, T, device="meta"), ("meta", "cpu", ".to()")),
}


@pytest.mark.parametrize("what", BAD_MASKS)
def test_a_bad_mask_is_refused(what: str) -> None:
    mask, parts = BAD_MASKS[what]
    with pytest.raises(InputError) as caught:
        LSTM(F, U)(X, mask=mask)
    assert_says(caught.value, LABEL, "mask", *parts)


FORMS: dict[str, Callable[[Tensor], Any]] = {
    "int64": lambda m: m.long(),
    "float": lambda m: m.double() * -0.5,  # any number but zero
    "(B, T, 1)": lambda m: m.unsqueeze(2),
    "a list of masks": lambda m: [m, None],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_mask_has_several_forms(form: str) -> None:
    layer, x, mask = layer_of(), batch(), torch.rand(B, T) < 0.6
    expected = oracle.forward(x.numpy(), *layer.get_weights(), mask=mask.numpy())
    assert_parity(layer(x, mask=FORMS[form](mask)), expected.output, bound=FLOAT64)


def test_one_row_of_mask_holds_for_the_whole_batch() -> None:
    layer, x, mask = layer_of(), batch(), torch.arange(T)[None] % 3 > 0
    assert torch.equal(layer(x, mask=mask), layer(x, mask=mask.repeat(B, 1)))


@pytest.mark.parametrize("mask", [[None], (None,), [None, None]], ids=str)
def test_a_list_whose_first_mask_is_none_masks_nothing(mask: Any) -> None:
    """As in Keras, whose LSTM takes the first of the flattened masks."""
    layer, x = layer_of(), batch()
    assert torch.equal(layer(x, mask=mask), layer(x))


# Initial states

S = torch.zeros(B, U)
BAD_STATES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "one tensor": (torch.zeros(2, B, U), ("Tensor", "pair (h, c)", "(B, 2)")),
    "one entry": ([S], ("1 entries", "must have 2", "(h, c)")),
    "three entries": ([S, S, S], ("3 entries", "must have 2", "(h, c)")),
    "a name": ("zeros", ("str", "pair (h, c)")),
    "h of other units": ((torch.zeros(B, 3), S), ("h has shape (5, 3)", "(B, units) = (5, 2)")),
    "c of another batch": ((S, torch.zeros(4, U)), ("c has shape (4, 2)", "(5, 2)")),
    "torch's axis of layers": ((S[None], S[None]), ("h has shape (1, 5, 2)", "(5, 2)")),
    "c an array": ((S, S.numpy()), ("c is a ndarray", "torch.Tensor", "(B, 2)")),
    "h None": ((None, S), ("h is a NoneType", "torch.Tensor")),
    "h complex": ((S.to(torch.complex64), S), ("h is a torch.complex64", "real")),
    "c on another device": ((S, S.to("meta")), ("c is on meta", "cpu", ".to()")),
}


@pytest.mark.parametrize("what", BAD_STATES)
def test_a_bad_initial_state_is_refused(what: str) -> None:
    state, parts = BAD_STATES[what]
    with pytest.raises(InputError) as caught:
        LSTM(F, U)(X, initial_state=state)
    assert_says(caught.value, LABEL, "initial_state", *parts)


@pytest.mark.parametrize("shape", [(1, U), (U,)])
def test_one_state_holds_for_the_whole_batch(shape: tuple[int, ...]) -> None:
    layer, x = layer_of(), batch()
    h, c = torch.randn(2, *shape, dtype=torch.float64)
    whole = (h.expand(B, U), c.expand(B, U))
    assert torch.equal(layer(x, initial_state=(h, c)), layer(x, initial_state=whole))


# Keywords

BAD_KEYWORDS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"units": 0}, ("units=0", "positive integer")),
    ({"units": -5}, ("units=-5", "positive integer")),
    ({"units": 5.0}, ("units=5.0", "positive integer")),
    ({"units": True}, ("units=True", "positive integer")),
    ({"units": "5"}, ("units='5'", "positive integer")),
    ({"units": None}, ("units=None", "positive integer")),
    ({"input_size": 0}, ("input_size=0", "one feature or more", "always 0")),
    ({"input_size": -1}, ("input_size=-1", "one feature or more")),
    ({"input_size": 3.0}, ("input_size=3.0", "positive integer")),
    ({"input_size": True}, ("input_size=True", "positive integer")),
    ({"dtype": torch.int64}, ("dtype=torch.int64", "floating-point")),
    ({"dtype": torch.complex64}, ("dtype=torch.complex64", "floating-point")),
    ({"activation": "tanhh"}, ("activation='tanhh'", "did you mean 'tanh'", *ACTIVATIONS)),
    ({"recurrent_activation": "sigmiod"}, ("recurrent_activation=", "did you mean 'sigmoid'")),
    ({"activation": "Tanh"}, ("activation='Tanh'", "did you mean 'tanh'")),
    ({"activation": "zzz"}, ("activation='zzz'", "any callable")),
    ({"activation": 3}, ("activation=3", "a callable", "kerasish_lstm.ACTIVATIONS")),
    ({"activation": "glu"}, ("activation='glu'", "it halves the units", "callable")),
    (
        {"recurrent_activation": "threshold"},
        ("recurrent_activation='threshold'", "functools.partial(kerasish_lstm.activations.thresh"),
    ),
    *[
        ({flag: value}, (f"{flag}={value!r}", "pass True or False"))
        for flag in (
            "use_bias", "unit_forget_bias", "return_sequences", "return_state", "go_backwards",
            "stateful", "unroll", "zero_output_for_mask", "trainable",
        )
        for value in (None, 2, "yes", "False")
    ],
    *[
        ({rate: value}, (f"{rate}={value!r}", "between 0 and 1"))
        for rate in ("dropout", "recurrent_dropout")
        for value in (math.nan, None, "0.5", True)
    ],
    ({"use_cudnn": "yes"}, ("use_cudnn='yes'", "'auto'", "True", "False")),
    ({"use_cudnn": None}, ("use_cudnn=None", "'auto'", "True", "False")),
    ({"implementation": 3}, ("implementation=3", "1 or 2")),
    ({"seed": 1.5}, ("seed=1.5", "integer or None")),
    ({"seed": True}, ("seed=True", "integer or None")),
    ({"name": "a/b"}, ("name='a/b'", "without '/'")),
    ({"name": 5}, ("name=5", "string")),
]  # fmt: skip


@pytest.mark.parametrize(("keywords", "parts"), BAD_KEYWORDS, ids=shown)
def test_a_bad_keyword_is_refused(keywords: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        LSTM(**{"input_size": F, "units": U, **keywords})
    assert_says(caught.value, "LSTM", *parts)


@pytest.mark.parametrize("keyword", ["use_cuddn", "bidirectional", "num_layers", "batch_first"])
def test_an_unknown_keyword_is_refused(keyword: str) -> None:
    with pytest.raises(TypeError, match=keyword):
        LSTM(F, U, **{keyword: True})


@pytest.mark.parametrize("integer", [np.int64, np.int32, np.uint8])
def test_numpy_s_integers_are_sizes(integer: Callable[[int], Any]) -> None:
    layer: LSTM[Any] = LSTM(integer(F), integer(U))
    assert (type(layer.units), type(layer.input_size)) == (int, int)
    assert layer(X).shape == (B, U)


@pytest.mark.parametrize("value", [0, np.False_], ids=repr)
def test_use_cudnn_false_has_other_spellings(value: Any) -> None:
    assert LSTM(F, U, use_cudnn=value).engine == "scan"


@pytest.mark.parametrize("value", [1, np.True_], ids=repr)
def test_use_cudnn_true_has_other_spellings(value: Any) -> None:
    with pytest.raises(EngineError):
        LSTM(F, U, use_cudnn=value, activation="relu")(X)


@pytest.mark.parametrize("rate", ["dropout", "recurrent_dropout"])
def test_rates_outside_0_to_1_are_clamped_as_in_keras(rate: str) -> None:
    assert getattr(LSTM(F, U, **{rate: -0.5}).config, rate) == 0.0
    assert getattr(LSTMConfig(U, **{rate: 1.5}), rate) == 1.0


# Activations that are callables


def test_a_partial_of_threshold_works() -> None:
    cut = functools.partial(activations.threshold, threshold=0.1, default_value=-0.2)
    layer, x = layer_of(activation=cut, return_sequences=True), batch()
    kernel, recurrent, bias = layer.get_weights()
    h = c = np.zeros((B, U))
    expected = []
    for t in range(T):
        i, f, g, o = np.split(x[:, t].numpy() @ kernel + h @ recurrent + bias, 4, axis=1)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        c = f * c + i * np.where(g > 0.1, g, -0.2)
        h = o * np.where(c > 0.1, c, -0.2)
        expected.append(h)
    assert_parity(layer(x), np.stack(expected, 1), bound=FLOAT64)


@pytest.mark.parametrize("keyword", ["activation", "recurrent_activation"])
@pytest.mark.parametrize(
    ("change", "shape"),
    [
        (functools.partial(activations.glu, axis=-1), "(5, 3)"),
        (lambda x: torch.cat([x, x], 1), "(5, 12)"),
        (lambda x: x[:3], "(3, 6)"),
    ],
    ids=["glu", "concatenate", "fewer rows"],
)
def test_a_callable_that_changes_the_shape_is_an_input_error(
    change: Callable[[Tensor], Tensor], shape: str, keyword: str
) -> None:
    layer = layer_of(units=6, **{keyword: change})
    with pytest.raises(InputError) as caught:
        layer(batch())
    assert_says(caught.value, "LSTM", shape, "(5, 6)", "must keep the shape")


def test_a_callable_without_a_hash_works() -> None:
    class Tanh:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, x: Tensor) -> Tensor:
            return torch.tanh(x)

    layer, x = layer_of(activation=Tanh()), batch()
    expected = oracle.forward(x.numpy(), *layer.get_weights()).output
    assert_parity(layer(x), expected, bound=FLOAT64)


def test_a_callable_that_broadcasts_is_an_input_error() -> None:
    with pytest.raises(InputError) as caught:
        layer_of(activation=lambda x: x.unsqueeze(0))(batch())
    assert_says(caught.value, "LSTM", "(5, 2)", "1, 5, 2)", "must keep the shape")


@pytest.mark.parametrize(
    "callables",
    [
        (torch.tanh, torch.sigmoid),
        (nn.functional.tanh, nn.functional.sigmoid),
        (ACTIVATIONS["tanh"], ACTIVATIONS["sigmoid"]),
    ],
)
def test_torch_s_own_functions_are_known_by_name(callables: tuple[Any, Any]) -> None:
    layer: LSTM[Any] = LSTM(F, U, activation=callables[0], recurrent_activation=callables[1])
    assert (layer.config.activation, layer.config.recurrent_activation) == ("tanh", "sigmoid")
    assert layer.engine == CHOSEN


# Code of the model's author, which a file's config names

AUTHORS = {"module": "their_model", "class_name": "Own", "config": {}, "registered_name": "x>Own"}
MATTERS_IN_TRAINING = [
    "kernel_regularizer",
    "recurrent_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "kernel_constraint",
    "recurrent_constraint",
    "bias_constraint",
    "kernel_initializer",
    "recurrent_initializer",
    "bias_initializer",
]


@pytest.mark.parametrize("keyword", MATTERS_IN_TRAINING)
def test_an_author_s_object_is_refused_by_the_constructor(keyword: str) -> None:
    builders: list[Any] = [functools.partial(LSTM, F), LazyLSTM]
    if keyword != "activity_regularizer":
        builders.append(functools.partial(LSTMCell, F))
    for build in builders:
        with pytest.raises(ConfigError) as caught:
            build(U, **{keyword: AUTHORS})
        assert_says(caught.value, keyword, "code of the model's author", "callable")


@pytest.mark.parametrize("keyword", MATTERS_IN_TRAINING)
def test_an_unknown_name_is_refused_by_the_constructor(keyword: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LSTM(F, U, **{keyword: "nope"})
    assert_says(caught.value, f"{keyword}='nope'", "Known are", "callable")


@pytest.mark.parametrize(
    "keywords",
    [
        {"kernel_initializer": "GlorotUniform"},
        {"kernel_initializer": None},
        {"kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}}},
        {"recurrent_initializer": {"class_name": "Orthogonal", "config": {"gain": 1.0}}},
        {"bias_initializer": "zeros", "seed": 3, "dropout": 0, "recurrent_dropout": 0.0},
    ],
    ids=shown,
)
def test_keras_s_defaults_in_other_words_are_accepted(keywords: dict[str, Any]) -> None:
    assert LSTM(F, U, **keywords)(X).shape == (B, U)


@pytest.mark.parametrize("keyword", MATTERS_IN_TRAINING)
def test_an_author_s_object_from_a_file_infers_and_refuses_to_train(keyword: str) -> None:
    layer = LSTM.from_lstm_config(F, LSTMConfig(U, **{keyword: AUTHORS}), dtype=torch.float64)
    reference, x = layer_of(), batch()
    layer.set_weights(reference.get_weights())
    refused = [lambda: layer.train()(x), lambda: layer.eval()(x, training=True)]
    for call in refused:
        with pytest.raises(ConfigError) as caught:
            call()
        assert_says(caught.value, LABEL, keyword, "layer.eval()", "training=False")
    assert torch.equal(layer.eval()(x), reference(x))
    assert torch.equal(layer.train()(x, training=False), reference(x))


@pytest.mark.parametrize("keyword", [k for k in MATTERS_IN_TRAINING if "initializer" in k])
def test_an_author_s_initializer_from_a_file_refuses_to_reinitialize(keyword: str) -> None:
    layer = LSTM.from_lstm_config(F, LSTMConfig(U, **{keyword: AUTHORS}))
    layer.set_weights(LSTM(F, U).get_weights())
    before = layer.get_weights()
    with pytest.raises(ConfigError) as caught:
        layer.reset_parameters()
    assert_says(caught.value, LABEL, keyword, "cannot be initialized")
    assert all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), before, strict=True))


# Engines

OTHER: list[tuple[dict[str, Any], str]] = [
    ({"activation": "relu"}, "activation is relu"),
    ({"recurrent_activation": "hard_sigmoid"}, "recurrent_activation is hard_sigmoid"),
    ({"activation": None}, "activation is linear"),
    ({"activation": torch.sin}, "activation is sin"),
]


@pytest.mark.parametrize(("keywords", "reason"), OTHER, ids=shown)
def test_use_cudnn_true_refuses_at_the_call_with_the_reason(
    keywords: dict[str, Any], reason: str
) -> None:
    layer: LSTM[Any] = LSTM(F, U, use_cudnn=True, **keywords)
    with pytest.raises(EngineError) as caught:
        layer(X)
    assert_says(caught.value, "use_cudnn=True", reason, "use_cudnn='auto'")
    assert str(layer.why_not_fused()) in str(caught.value)


@pytest.mark.parametrize(
    ("keywords", "reason"), [*OTHER, ({"use_cudnn": False}, "use_cudnn=Fal")], ids=shown
)
def test_repr_shows_the_engine_and_the_reason(keywords: dict[str, Any], reason: str) -> None:
    with native_engine(False):
        layer: LSTM[Any] = LSTM(F, U, **keywords)
        assert re.search(rf"^LSTM\(\n  3, 2, .*engine=scan \({re.escape(reason)}", repr(layer))
        assert "engine=fused" in repr(LSTM(F, U))
        assert "engine=fused (" not in repr(LSTM(F, U))
    assert f"engine={CHOSEN}\n" in repr(LSTM(F, U)).replace(")", "\n", 1)


def test_repr_shows_what_is_not_default() -> None:
    text = repr(LSTM(F, U, go_backwards=True, name="encoder", return_sequences=False))
    assert f"go_backwards=True, name='encoder', engine={CHOSEN}" in text
    assert "return_sequences" not in text


CALLS = [
    {"masked": masked, "return_state": return_state, "stateful": stateful, "training": training}
    for masked in (False, True)
    for return_state in (False, True)
    for stateful in (False, True)
    for training in (False, True)
]


def run(layer: LSTM[Any], call: dict[str, bool], device: torch.device) -> None:
    layer.to(device).train(call["training"])
    mask = (torch.rand(B, T) < 0.6).to(device) if call["masked"] else None
    result = layer(batch().to(device), mask=mask)
    (result[0] if isinstance(result, tuple) else result).sum().backward()


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("this engine must not run")


@pytest.mark.parametrize("call", CALLS, ids=lambda c: "-".join(k for k in c if c[k]) or "plain")
def test_use_cudnn_false_never_runs_torch_s_lstm(
    call: dict[str, bool], device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.LSTM, "forward", refuse)
    monkeypatch.setattr(torch._VF, "lstm", refuse, raising=False)
    options = {k: call[k] for k in ("return_state", "stateful")}
    run(layer_of(use_cudnn=False, **options), call, device)
    with pytest.raises(AssertionError, match="must not run"):
        run(layer_of(use_cudnn=True, **options), call, device)


@pytest.mark.parametrize("use_cudnn", ["auto", True])
@pytest.mark.parametrize("call", CALLS, ids=lambda c: "-".join(k for k in c if c[k]) or "plain")
def test_the_default_activations_never_run_the_scan(
    call: dict[str, bool], use_cudnn: Any, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kerasish_lstm.layers.parameters.scan", refuse)
    monkeypatch.setattr("kerasish_lstm._engines.lstm_step", refuse)
    options = {k: call[k] for k in ("return_state", "stateful")}
    run(layer_of(use_cudnn=use_cudnn, **options), call, device)
    with pytest.raises(AssertionError, match="must not run"):
        run(layer_of(use_cudnn=False, **options), call, device)


@pytest.mark.parametrize("use_cudnn", ["auto", True, False], ids=["native", "fused", "scan"])
@pytest.mark.parametrize("keywords", [{"unroll": True}, {"implementation": 1}], ids=str)
def test_unroll_and_implementation_change_no_bit(keywords: dict[str, Any], use_cudnn: Any) -> None:
    one, other = layer_of(use_cudnn=use_cudnn), layer_of(use_cudnn=use_cudnn, **keywords)
    other.load_state_dict(one.state_dict())
    x, mask = batch(), torch.rand(B, T) < 0.6
    assert torch.equal(other(x, mask=mask), one(x, mask=mask))


# set_weights

K, R, BIAS = (np.zeros(s, np.float32) for s in ((F, 4 * U), (U, 4 * U), (4 * U,)))
BAD_WEIGHTS: dict[str, tuple[list[Any], tuple[str, ...]]] = {
    "no bias": ([K, R], ("2 arrays were given", "has 3", "use_bias=True")),
    "nothing": ([], ("0 arrays were given", "has 3")),
    "four": ([K, R, BIAS, BIAS], ("4 arrays were given", "has 3")),
    "other features": (
        [np.zeros((4, 4 * U)), R, BIAS],
        ("kernel", "(4, 8)", "(3, 8)", "differs", "4 features", "LSTM(4, 2)"),
    ),
    "transposed": ([K.T, R.T, BIAS], ("kernel", "(8, 3)", "(3, 8)", "(8, 2)", "(2, 8)", "differs")),
    "a GRU's": (
        [np.zeros((F, 3 * U)), np.zeros((U, 3 * U)), np.zeros((2, 3 * U))],
        ("(3, 6)", "(2, 6)", "(2, 6)", "GRU"),
    ),
    "bias last wrong": ([K, R, np.zeros(2 * U)], ("bias", "(4,)", "(8,)", "differs")),
    "swapped": ([R, K, BIAS], ("(2, 8)", "(3, 8)", "differs")),
    "integers": ([K, R, np.zeros(4 * U, int)], ("array 2", "int64", "floating-point")),
    "complex": ([K, R.astype(complex), BIAS], ("array 1", "complex128", "floating-point")),
    "objects": ([K.astype(object), R, BIAS], ("array 0", "object", "floating-point")),
}


@pytest.mark.parametrize("what", BAD_WEIGHTS)
def test_bad_weights_are_refused_and_nothing_is_half_loaded(what: str) -> None:
    arrays, parts = BAD_WEIGHTS[what]
    layer = layer_of()
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    with pytest.raises(WeightMismatch) as caught:
        layer.set_weights(arrays)
    assert_says(caught.value, *parts)
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())


def test_a_bias_for_a_layer_without_one_is_refused() -> None:
    with pytest.raises(WeightMismatch) as caught:
        layer_of(use_bias=False).set_weights([K, R, BIAS])
    assert_says(caught.value, LABEL, "set_weights()", "3 arrays were given", "use_bias=False")


# Errors as classes


@pytest.mark.parametrize(
    ("call", "builtin"),
    [
        (lambda: LSTM(F, 0), ValueError),
        (lambda: LSTM(F, U)(X[0]), ValueError),
        (lambda: LSTM(F, U, use_cudnn=True, activation="relu")(X), RuntimeError),
        (lambda: LSTM(F, U).set_weights([]), ValueError),
        (lambda: setattr(LSTM(F, U), "states", (S, S)), RuntimeError),
    ],
)
def test_each_error_is_ours_and_a_builtin(
    call: Callable[[], Any], builtin: type[Exception]
) -> None:
    with pytest.raises(KerasishError) as caught:
        call()
    assert isinstance(caught.value, builtin)


# The keywords against Keras's, and against themselves


def defaults(function: Any) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def keras_keywords(file: str, class_name: str) -> dict[str, Any]:
    """The keywords and defaults of a Keras class, read from its source: Keras is not imported."""
    spec = importlib.util.find_spec("keras")
    if spec is None or spec.origin is None:
        pytest.skip("keras not installed")
    tree = ast.parse((Path(spec.origin).parent / "src" / "layers" / file).read_text())
    top = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name)
    init = next(n for n in top.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    positional = init.args.args[len(init.args.args) - len(init.args.defaults) :]
    pairs = [*zip(positional, init.args.defaults, strict=True)]
    pairs += zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)  # type: ignore[arg-type]
    found = {a.arg: ast.literal_eval(d) for a, d in pairs if d is not None}
    for node in ast.walk(init):  # kwargs.pop("implementation", 2)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "kwargs.pop":
            found[ast.literal_eval(node.args[0])] = ast.literal_eval(node.args[1])
    return found


OF_KERAS = {  # which classes of Keras's source have the keywords of a class here
    LSTM: [("rnn/lstm.py", "LSTM"), ("rnn/rnn.py", "RNN")],
    LSTMCell: [("rnn/lstm.py", "LSTMCell")],
    Bidirectional: [("rnn/bidirectional.py", "Bidirectional")],
    StackedLSTM: [("rnn/rnn.py", "RNN")],
    TimeDistributed: [("rnn/time_distributed.py", "TimeDistributed")],
}


@pytest.mark.parametrize("kind", OF_KERAS)
def test_every_keyword_of_keras_is_here_with_its_default(kind: Any) -> None:
    ours, theirs = defaults(kind.__init__), keras_keywords("layer.py", "Layer")
    assert {"activity_regularizer", "autocast", "input_shape", "input_dim"} <= theirs.keys()
    for file, class_name in OF_KERAS[kind]:
        theirs |= keras_keywords(file, class_name)
    assert {k: ours.get(k, "missing") for k in theirs} == theirs


def test_the_options_for_type_checkers_are_the_constructor_s() -> None:
    signature = inspect.signature(LSTM.__init__).parameters
    keywords = {n: p.annotation for n, p in signature.items() if p.kind is p.KEYWORD_ONLY}
    del keywords["return_state"]  # the overloads have it
    options = {k: v.__forward_arg__ for k, v in LSTMOptions.__annotations__.items()}
    assert options == keywords


def test_the_config_has_the_constructor_s_keywords_and_defaults() -> None:
    keywords = defaults(LSTM.__init__)
    for of_the_call in ("device", "input_shape", "input_dim"):
        keywords.pop(of_the_call)
    assert {f.name: f.default for f in dataclasses.fields(LSTMConfig)[1:]} == keywords


def test_every_keyword_reaches_the_config() -> None:
    other = {
        "activation": "relu", "recurrent_activation": "hard_sigmoid", "use_bias": False,
        "kernel_initializer": "GlorotUniform", "recurrent_initializer": "Orthogonal",
        "bias_initializer": "Zeros", "unit_forget_bias": False, "seed": 5, "name": "encoder",
        "return_sequences": True, "return_state": True, "go_backwards": True, "stateful": True,
        "unroll": True, "use_cudnn": False, "implementation": 1, "zero_output_for_mask": True,
        "trainable": False, "dropout": 0.5, "recurrent_dropout": 0.25, "dropout_style": "keras_2",
        "time_major": True, "kernel_regularizer": "l2", "recurrent_regularizer": "l1",
        "bias_regularizer": "l1_l2", "activity_regularizer": "l2", "kernel_constraint": "non_neg",
        "recurrent_constraint": "max_norm", "bias_constraint": "unit_norm",
        "autocast": False,
    }  # fmt: skip
    not_there = {"dtype", "device", "input_shape", "input_dim"}
    assert set(other) == set(defaults(LSTM.__init__)) - not_there
    config = LSTM(F, U, **other).config
    assert {k: getattr(config, k) for k in other} == other


def test_repr_shows_an_array_by_its_shape() -> None:
    text = repr(
        LSTM(F, U, kernel_initializer=np.zeros((F, 4 * U)), recurrent_initializer=torch.ones(2, 8))
    )
    assert "kernel_initializer=<ndarray (3, 8)>" in text and "<Tensor (2, 8)>" in text


@pytest.mark.parametrize(
    "build",
    [
        lambda: Bidirectional(LSTM(F, U)),
        lambda: Bidirectional(LazyLSTM(U)),
        lambda: StackedLSTM([LSTMCell(F, U), LSTMCell(U, U)]),
        lambda: TimeDistributed(LSTM(F, U)),
        lambda: LSTMCell(F, U),
    ],
)
def test_the_trainable_flag_reaches_every_weight(build: Any) -> None:
    module = build()
    assert module.trainable
    module.trainable = False
    assert not any(p.requires_grad for p in module.parameters()) and not module.trainable
    module.trainable = True
    assert all(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("ask", ["count_params", "get_weights"])
def test_a_lazy_layer_says_that_it_has_no_size_yet(ask: str) -> None:
    with pytest.raises(ConfigError, match=r"has not learnt its input size.*Call it once"):
        getattr(LazyLSTM(U), ask)()


# What else is refused, or taken


def test_a_dropout_mask_on_another_device_is_refused() -> None:
    layer = layer_of(dropout=0.5).train()
    with pytest.raises(InputError) as caught:
        layer(X, dropout_masks=DropoutMasks(torch.ones(len(X), F, device="meta")))
    assert_says(caught.value, "dropout_masks.input is on meta", ".to()")


def test_numbers_of_numpy_and_numbers_that_are_too_large() -> None:
    assert regularizers.L2(np.float32(0.5)).get_config() == {"l2": 0.5}
    with pytest.raises(ConfigError, match="a number of at most"):
        regularizers.L2(1e300 * 1e8)


def test_integers_are_taken_by_a_stack_that_does_not_cast() -> None:
    stack = StackedLSTM([LSTMCell(F, U)], autocast=False)
    assert torch.equal(stack(torch.ones(2, 3, F, dtype=torch.int64)), stack(torch.ones(2, 3, F)))


def test_a_lazy_layer_cannot_become_keras_s() -> None:
    with pytest.raises(ConfigError, match="has not learnt its input size"):
        to_keras(LazyLSTM(U))


def test_implementation_0_of_keras_2() -> None:
    """Keras 2.0 had three, and each later Keras 2 reads 0 as 1."""
    config = {"units": U, "implementation": 0, "dropout": 0.2}
    for version, expected in (("2.0.9", 0), ("2.2.4", 1)):
        read = LSTMConfig.from_keras(config, version=version)
        assert read.implementation == expected, version
