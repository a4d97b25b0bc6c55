"""``get_config`` and ``from_config``: Keras's own configs, of every Keras, both ways."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm import (
    ACTIVATIONS,
    LSTM,
    Bidirectional,
    LazyLSTM,
    LSTMCell,
    LSTMConfig,
    StackedLSTM,
    TimeDistributed,
    initializers,
)
from kerasish_lstm.config import KERAS_1, detected_version
from kerasish_lstm.convert import register_keras_objects
from kerasish_lstm.errors import ConfigError
from kerasish_lstm.layers.lazy import LazyLSTMCell
from kerasish_lstm.parity import assert_parity

from . import config_side, sampling
from .config_side import Made
from .keras_live import KerasLive
from .properties import given, settings, st

F, U, V = 4, 3, 2
CLOSE = 1e-12

# What each layer is asked to be


def lstm(name: str = "lstm", units: int = U, **keywords: Any) -> Made:
    return Made("LSTM", {"units": units, "name": name, **keywords})


def cell(name: str = "cell", units: int = U, **keywords: Any) -> Made:
    return Made("LSTMCell", {"units": units, "name": name, **keywords})


def around(kind: str, *inside: Made, listed: bool = False, **keywords: Any) -> Made:
    return Made(kind, {"name": kind.lower(), **keywords}, inside, listed)


def objects(**config: Any) -> dict[str, Any]:
    """One keyword ``kind=(class, arguments)`` in the form that every Keras reads."""
    return {k: {"class_name": c, "config": a} for k, (c, a) in config.items()}


KEYWORDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "return_sequences": {"return_sequences": True},
    "return_state": {"return_state": True},
    "every flag": {
        "return_sequences": True, "return_state": True, "go_backwards": True, "stateful": True,
        "unroll": True, "zero_output_for_mask": True,
    },
    "no bias": {"use_bias": False},
    "forget bias": {"unit_forget_bias": False},
    "frozen": {"trainable": False},
    "activations": {"activation": "relu", "recurrent_activation": "softsign"},
    "linear": {"activation": None, "recurrent_activation": None},
    "aliases": {"activation": "swish", "recurrent_activation": "silu"},
    "dropout": {"dropout": 0.25},
    "both dropouts": {"dropout": 1.0, "recurrent_dropout": 0.5},
    "float64": {"dtype": "float64"},
    "mixed": {"dtype": "mixed_float16"},
    "mixed_bfloat16": {"dtype": "mixed_bfloat16"},
    "no initializer": {"kernel_initializer": None, "recurrent_initializer": None},
    "names": {
        "kernel_initializer": "he_normal", "recurrent_initializer": "glorot_normal",
        "bias_initializer": "ones", "kernel_regularizer": "l2", "recurrent_regularizer": "l1",
        "kernel_constraint": "max_norm", "bias_constraint": "non_neg",
    },
    "initializers": objects(
        kernel_initializer=("VarianceScaling", {"scale": 2.0, "distribution": "uniform"}),
        recurrent_initializer=("Orthogonal", {"gain": 0.5, "seed": 3}),
        bias_initializer=("Constant", {"value": 0.25}),
    ),
    "random initializers": objects(
        kernel_initializer=("TruncatedNormal", {"stddev": 0.1, "seed": 5}),
        recurrent_initializer=("RandomUniform", {"minval": -0.5}),
        bias_initializer=("RandomNormal", {"mean": 1.0}),
    ),
    "regularizers": objects(
        kernel_regularizer=("L1L2", {"l1": 0.1, "l2": 0.2}),
        recurrent_regularizer=("OrthogonalRegularizer", {"factor": 0.3, "mode": "columns"}),
        bias_regularizer=("L2", {"l2": 0.1}),
    ),
    "constraints": objects(
        kernel_constraint=("MaxNorm", {"max_value": 3, "axis": None}),
        recurrent_constraint=("MinMaxNorm", {"min_value": 0.5, "rate": 0.9, "axis": 1}),
        bias_constraint=("UnitNorm", {"axis": 0}),
    ),
}  # fmt: skip
LAYER_ALONE = ("return_sequences", "return_state", "every flag")

CASES: dict[str, Made] = {f"LSTM, {k}": lstm(**v) for k, v in KEYWORDS.items()}
CASES |= {f"LSTMCell, {k}": cell(**v) for k, v in KEYWORDS.items() if k not in LAYER_ALONE}
CASES |= {f"Bidirectional, {k}": around("Bidirectional", lstm(**v)) for k, v in KEYWORDS.items()
          if k not in ("every flag", "float64", "mixed", "mixed_bfloat16")}  # fmt: skip
WIDE = {"dtype": "float64"}
CASES |= {
    "LSTM, activity": lstm(activity_regularizer="l2", return_state=True),
    "Bidirectional, sum": around("Bidirectional", lstm(return_sequences=True), merge_mode="sum"),
    "Bidirectional, mul": around("Bidirectional", lstm(return_state=True), merge_mode="mul"),
    "Bidirectional, ave": around("Bidirectional", lstm(), merge_mode="ave"),
    "Bidirectional, none": around("Bidirectional", lstm(return_state=True), merge_mode=None),
    "Bidirectional, float64": around("Bidirectional", lstm(**WIDE), **WIDE),
    "Bidirectional, frozen itself": around("Bidirectional", lstm(), trainable=False),
    "Bidirectional, two": around(
        "Bidirectional", lstm("a"), lstm("b", V, go_backwards=True, activation="relu")
    ),
    "Bidirectional, two, backwards first": around(
        "Bidirectional", lstm("a", go_backwards=True), lstm("b", dropout=0.5)
    ),
    "Bidirectional, one direction frozen": around(
        "Bidirectional", lstm("a"), lstm("b", go_backwards=True, trainable=False)
    ),
    "RNN": around("RNN", cell()),
    "RNN, list of one": around("RNN", cell(), listed=True),
    "RNN, two": around("RNN", cell("a"), cell("b", V)),
    "RNN, flags": around(
        "RNN", cell("a", dropout=0.5), cell("b", V, recurrent_dropout=0.5), cell("c", 5),
        return_sequences=True, return_state=True, go_backwards=True, unroll=True,
        zero_output_for_mask=True,
    ),
    "RNN, stateful": around("RNN", cell(), stateful=True),
    "RNN, frozen": around("RNN", cell("a"), cell("b"), trainable=False),
    "RNN, frozen cells": around("RNN", cell("a", trainable=False), cell("b", trainable=False)),
    "RNN, a frozen cell": around("RNN", cell("a", trainable=False), cell("b")),
    "Sequential": around("Sequential", lstm("a", return_sequences=True), lstm("b", V)),
    "Sequential, one": around("Sequential", lstm()),
    "Sequential, Bidirectional": around(
        "Sequential",
        around("Bidirectional", lstm("a", return_sequences=True)),
        lstm("b", return_sequences=True),
        around("Bidirectional", lstm("c", V), name="last", merge_mode="ave"),
    ),
    "TimeDistributed": around("TimeDistributed", lstm()),
    "TimeDistributed, sequences": around("TimeDistributed", lstm(return_sequences=True)),
    "TimeDistributed, frozen": around(
        "TimeDistributed", around("Bidirectional", lstm()), trainable=False
    ),
    "TimeDistributed, Bidirectional": around("TimeDistributed", around("Bidirectional", lstm())),
    "TimeDistributed, RNN": around("TimeDistributed", around("RNN", cell("a"), cell("b", V))),
    "TimeDistributed, Sequential": around(
        "TimeDistributed", around("Sequential", lstm("a", return_sequences=True), lstm("b", V))
    ),
}  # fmt: skip
# What tf_keras's get_config forgets, does not have, or (forward_) names twice.
KERAS_ALONE: dict[str, Made] = {
    "Sequential, two outputs": around(
        "Sequential",
        lstm("a", return_sequences=True),
        around("Bidirectional", lstm("b"), merge_mode=None),
    ),
    "Bidirectional, forward_": around("Bidirectional", lstm("forward_x")),
    "LSTM, seed": lstm(seed=3, dropout=0.5),
    "LSTMCell, seed": cell(seed=3, dropout=0.5),
    "LSTM, axes": lstm(
        **objects(kernel_initializer=("GlorotUniform", {"input_axes": [0], "output_axes": [1]}))
    ),
    "LSTM, sparsemax": lstm(activation="sparsemax", recurrent_activation="hard_swish"),
    "LSTM, hard_sigmoid": lstm(recurrent_activation="hard_sigmoid"),
    "Bidirectional, activity": around("Bidirectional", lstm(), activity_regularizer="l1"),
    "RNN, activity": around("RNN", cell(), activity_regularizer="l2"),
    "TimeDistributed, activity": around("TimeDistributed", lstm(), activity_regularizer="l2"),
}
TF_KERAS_ALONE: dict[str, Made] = {
    "LSTM, implementation": lstm(implementation=1),
    "LSTMCell, implementation": cell(implementation=1),
    "LSTM, time_major": lstm(time_major=True),
}
OF_LIBRARY = {"keras": {**CASES, **KERAS_ALONE}, "tf_keras": {**CASES, **TF_KERAS_ALONE}}


def made_here(made: Made) -> Any:
    return config_side.ours(made, F)


# Live Keras


@functools.cache
def live_configs(library: str, live: KerasLive) -> list[Any]:
    """What that Keras's own ``get_config`` gives of each of its cases."""
    found: list[Any] = live.call("config_side.configs", library, list(OF_LIBRARY[library].values()))
    return found


@pytest.mark.live
def test_the_config_of_every_layer_is_keras_s_own(either: tuple[str, KerasLive]) -> None:
    library, live = either
    cases = OF_LIBRARY[library]
    theirs = live_configs(library, live)
    for (name, made), expected in zip(cases.items(), theirs, strict=True):
        assert made_here(made).get_config(library) == expected, name


@pytest.mark.live
def test_keras_reads_it_as_its_own(either: tuple[str, KerasLive]) -> None:
    library, live = either
    cases = OF_LIBRARY[library]
    theirs = live_configs(library, live)
    modules = [made_here(made) for made in cases.values()]
    written = [(m.keras_class, m.get_config(library)) for m in modules]
    assert live.call("config_side.read", library, written) == theirs


@pytest.mark.live
def test_keras_s_own_comes_back_equal(either: tuple[str, KerasLive]) -> None:
    library, live = either
    cases = OF_LIBRARY[library]
    theirs = live_configs(library, live)
    for (name, made), config in zip(cases.items(), theirs, strict=True):
        kind, before = type(made_here(made)), copy.deepcopy(config)
        for text in (config, {"class_name": made.kind, "config": config}):
            lazy = kind.from_config(text)
            sized = kind.from_config(json.loads(json.dumps(text)), F)
            assert lazy.get_config(library) == config, name
            assert sized.get_config(library) == config, name
            assert type(sized) is kind
        assert config == before, "the caller's config was changed"


def in_float64(made: Made) -> Made:
    dtype = {} if made.kind in ("Sequential", "TimeDistributed") else WIDE
    return dataclasses.replace(
        made, keywords={**made.keywords, **dtype}, inside=tuple(map(in_float64, made.inside))
    )


def runs(name: str) -> bool:
    """Keras cannot run a stateful layer of an open batch, nor unroll and reverse with a mask."""
    return not any(word in name for word in ("every flag", "stateful", "flags", "time_major"))


@pytest.mark.live
def test_weights_carried_over_predict_the_same(either: tuple[str, KerasLive]) -> None:
    """By default a case is met with a mask or without one."""
    library, live = either
    cases = {k: in_float64(v) for k, v in OF_LIBRARY[library].items() if runs(k)}
    if library == "tf_keras":  # whose set_weights wants the frozen arrays last
        del cases["RNN, a frozen cell"]
    # Keras's RNN of a list of one fails with a mask, and its TimeDistributed of a stack takes none.
    never = ("RNN, list of one", "TimeDistributed, Sequential")
    unmaskable = {k for k, v in cases.items() if k in never or v.kind == "Sequential"}
    pairs = [(k, m) for k in cases for m in (False, True) if not (m and k in unmaskable)]
    pairs = sampling.sampled(pairs, 0.5, lambda pair: f"{pair[0]}-{pair[1]}")
    for masked in (False, True):
        names = [k for k, m in pairs if m is masked]
        given = [cases[k] for k in names]
        found = live.call("config_side.errors_of_round_trips", library, given, F, masked)
        worst = dict(zip(names, found, strict=True))
        assert {k: v for k, v in worst.items() if not v <= CLOSE} == {}, masked


@pytest.mark.live
def test_every_activation_goes_over_or_is_refused(either: tuple[str, KerasLive]) -> None:
    library, live = either
    taken, refused = {}, []
    for name in ACTIVATIONS:
        try:
            made_here(lstm(activation=name)).get_config(library)
        except ConfigError as error:
            refused.append(name)
            assert f"{name!r} is not an activation of {library}" in str(error)
        else:
            taken[name] = in_float64(lstm(activation=name))
            taken[f"{name} in the gates"] = in_float64(lstm(recurrent_activation=name))
    names = sampling.sampled(list(taken), 0.5, lambda name: name.replace(" ", "-", 1))
    given = [taken[name] for name in names]
    found = live.call("config_side.errors_of_round_trips", library, given, F, False)
    worst = dict(zip(names, found, strict=True))
    assert {k: v for k, v in worst.items() if not v <= CLOSE} == {}
    # and those refused are unknown there
    unknown = [("LSTM", {"units": 3, "activation": name}) for name in refused]
    assert all(live.call("config_side.errors", library, unknown))
    assert refused == [] or library == "tf_keras"


@pytest.mark.live
def test_keras_takes_what_its_own_config_forgets(keras: KerasLive) -> None:
    config = LSTM(F, U, use_cudnn=False, implementation=1).get_config()
    assert keras.call("config_side.attributes", config, ["use_cudnn", "implementation"]) == [
        False, 1,
    ]  # fmt: skip
    assert LSTM(F, U).get_config().keys().isdisjoint({"use_cudnn", "implementation"})


@pytest.mark.live
def test_a_config_without_names_is_read(either: tuple[str, KerasLive]) -> None:
    library, live = either

    def nameless(made: Made) -> Made:
        keywords = {k: v for k, v in made.keywords.items() if k != "name"}
        return dataclasses.replace(
            made, keywords=keywords, inside=tuple(map(nameless, made.inside))
        )

    modules = [made_here(nameless(made)) for made in CASES.values()]
    written = [(m.keras_class, m.get_config(library)) for m in modules]
    assert '"name": "' not in json.dumps([c for _, c in written]).replace(
        '"config": {"name": "',
        "",  # that of a dtype policy
    )
    live.call("config_side.read", library, written)


@pytest.mark.live
def test_the_other_hard_sigmoid_is_a_registered_function(keras: KerasLive) -> None:
    with pytest.raises(ConfigError, match="allowed are 'keras' and 'tf_keras'"):
        register_keras_objects("theano")  # type: ignore[arg-type]
    config = LSTM(F, U, recurrent_activation="hard_sigmoid_v2").get_config()
    assert config["recurrent_activation"]["config"] == "kerasish_lstm>hard_sigmoid_v2"
    assert LSTM.from_config(config, F).config.recurrent_activation == "hard_sigmoid_v2"
    keras.call("config_side.read", "keras", [("LSTM", config)])
    config = LSTM(F, U, recurrent_activation="hard_sigmoid").get_config("tf_keras")
    assert config["recurrent_activation"]["config"] == "kerasish_lstm>hard_sigmoid_v3"
    assert LSTM.from_config(config, F).config.recurrent_activation == "hard_sigmoid"


@pytest.mark.live
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_time_major_layers_compute_as_tf_keras_s(
    tf_keras: KerasLive, return_sequences: bool, go_backwards: bool
) -> None:
    """There x, the mask and sequences are (T, B, ...), and states are (B, U)."""
    rng = np.random.RandomState(3)
    layer = LSTM(
        F, U, time_major=True, return_state=True, return_sequences=return_sequences,
        go_backwards=go_backwards, dtype="float64",
    )  # fmt: skip
    x, mask = rng.uniform(-1, 1, (5, 2, F)), rng.uniform(size=(5, 2)) < 0.6
    state = [rng.uniform(-1, 1, (2, U)) for _ in "hc"]
    weights, config = layer.get_weights(), layer.get_config("tf_keras")
    theirs = tf_keras.call("config_side.run_time_major", config, weights, x, mask, state)
    back = LSTM.from_config(config, F)
    back.set_weights(weights)
    h, c = (torch.from_numpy(s) for s in state)
    mine = back(torch.from_numpy(x), (h, c), torch.from_numpy(mask))
    for a, b in zip(mine, theirs, strict=True):
        assert_parity(a, b, bound=CLOSE)


# Old Keras, typed from its sources

NO_OBJECTS = {
    f"{role}_{room}": None
    for role in ("kernel", "recurrent", "bias")
    for room in ("regularizer", "constraint")
}
MULTI_BACKEND_OBJECTS = {
    **NO_OBJECTS,
    "kernel_initializer": {
        "class_name": "VarianceScaling",
        "config": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": None},
    },
    "recurrent_initializer": {"class_name": "Orthogonal", "config": {"gain": 1.0, "seed": None}},
    "bias_initializer": {"class_name": "Zeros", "config": {}},
}

# Keras 1.2.2, keras/layers/recurrent.py: Recurrent.get_config (line 256), LSTM.get_config (891);
# keras/engine/topology.py: Layer.get_config (996); keras/regularizers.py (83).
KERAS_1_LSTM: dict[str, Any] = {
    "name": "lstm_1",
    "trainable": True,
    "batch_input_shape": [None, 10, F],
    "input_dtype": "float32",
    "return_sequences": True,
    "go_backwards": False,
    "stateful": False,
    "unroll": False,
    "consume_less": "mem",
    "input_dim": F,
    "input_length": 10,
    "output_dim": U,
    "init": "he_uniform",
    "inner_init": "orthogonal",
    "forget_bias_init": "one",
    "activation": "tanh",
    "inner_activation": "hard_sigmoid",
    "W_regularizer": {"name": "L1L2Regularizer", "l1": 0.0, "l2": 0.01},
    "U_regularizer": {"name": "WeightRegularizer", "l1": 0.02, "l2": 0.0},
    "b_regularizer": None,
    "dropout_W": 0.2,
    "dropout_U": 0.1,
}
# Keras 1.2.2, keras/layers/wrappers.py: Wrapper.get_config (32), Bidirectional.get_config (268).
KERAS_1_BIDIRECTIONAL: dict[str, Any] = {
    "name": "bidirectional_1",
    "trainable": True,
    "batch_input_shape": [None, 10, F],
    "input_dtype": "float32",
    "layer": {"class_name": "LSTM", "config": {
        **{k: v for k, v in KERAS_1_LSTM.items() if not k.startswith(("batch_", "input_"))},
        "input_dim": None, "input_length": None,
    }},
    "merge_mode": "concat",
}  # fmt: skip
KERAS_1_TIME_DISTRIBUTED: dict[str, Any] = {
    "name": "timedistributed_1",
    "trainable": True,
    "batch_input_shape": [None, 6, 10, F],
    "input_dtype": "float32",
    "layer": {
        "class_name": "LSTM",
        "config": {**KERAS_1_BIDIRECTIONAL["layer"]["config"], "return_sequences": False},
    },
}
# Keras 1.2.2, keras/models.py: Sequential.get_config (1014) is a list.
KERAS_1_SEQUENTIAL: list[dict[str, Any]] = [
    {"class_name": "LSTM", "config": KERAS_1_LSTM},
    {
        "class_name": "Bidirectional",
        "config": {k: v for k, v in KERAS_1_BIDIRECTIONAL.items() if "input" not in k},
    },
]

# Keras 2.0.8, keras/layers/recurrent.py: Recurrent.get_config (353 of the class), LSTM.get_config;
# keras/engine/topology.py: Layer.get_config (1213 and on).
KERAS_2_0_LSTM: dict[str, Any] = {
    "name": "lstm_1",
    "trainable": True,
    "batch_input_shape": [None, None, F],
    "dtype": "float32",
    "return_sequences": False,
    "return_state": False,
    "go_backwards": False,
    "stateful": False,
    "unroll": False,
    "implementation": 0,
    "units": U,
    "activation": "tanh",
    "recurrent_activation": "hard_sigmoid",
    "use_bias": True,
    **MULTI_BACKEND_OBJECTS,
    "unit_forget_bias": True,
    "activity_regularizer": None,
    "dropout": 0.3,
    "recurrent_dropout": 0.0,
}
# Keras 2.2.4, keras/layers/recurrent.py: RNN.get_config (699 of the class), LSTM.get_config (2264);
# a layer behind the first has no dtype and no batch_input_shape (keras/engine/base_layer.py, 1070).
KERAS_2_2_LSTM: dict[str, Any] = {
    **{k: v for k, v in KERAS_2_0_LSTM.items() if k not in ("batch_input_shape", "dtype")},
    "implementation": 1,
}
# Keras 2.3.1, the same, with its new defaults; dtype is always written (base_layer.py, 1140).
KERAS_2_3_LSTM: dict[str, Any] = {
    **KERAS_2_2_LSTM,
    "dtype": "float32",
    "implementation": 2,
    "recurrent_activation": "sigmoid",
}
# Keras 2.2.4, keras/layers/recurrent.py: RNN.get_config, StackedRNNCells.get_config, LSTMCell's.
LAYER_KEYS = (
    "return_sequences", "return_state", "go_backwards", "stateful", "unroll",
    "activity_regularizer",
)  # fmt: skip
KERAS_2_2_CELL: dict[str, Any] = {
    **{k: v for k, v in KERAS_2_2_LSTM.items() if k not in LAYER_KEYS},
    "name": "lstm_cell_1",
}
KERAS_2_2_RNN: dict[str, Any] = {
    "name": "rnn_1",
    "trainable": True,
    "batch_input_shape": [None, 10, F],
    "dtype": "float32",
    "return_sequences": False,
    "return_state": False,
    "go_backwards": False,
    "stateful": False,
    "unroll": False,
    "cell": {
        "class_name": "StackedRNNCells",
        "config": {
            "name": "stacked_rnn_cells_1",
            "trainable": True,
            "cells": [
                {"class_name": "LSTMCell", "config": KERAS_2_2_CELL},
                {"class_name": "LSTMCell", "config": {**KERAS_2_2_CELL, "units": V}},
            ],
        },
    },
}
# Keras 2.2.4, keras/layers/wrappers.py: Bidirectional.get_config (638).
KERAS_2_2_BIDIRECTIONAL: dict[str, Any] = {
    "name": "bidirectional_1",
    "trainable": True,
    "layer": {"class_name": "LSTM", "config": {**KERAS_2_2_LSTM, "return_sequences": True}},
    "merge_mode": "sum",
}
# tf.keras of TensorFlow 2.3: as tf_keras, with initializers of their own names and no "module".
TF_2_3_LSTM: dict[str, Any] = {
    **KERAS_2_3_LSTM,
    "time_major": False,
    "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
}
TF_2_3_CELL: dict[str, Any] = {k: v for k, v in TF_2_3_LSTM.items() if k not in LAYER_KEYS}
del TF_2_3_CELL["time_major"]
# Keras 3.0.5 wrote the dtype as a name.
KERAS_3_0_LSTM: dict[str, Any] = {
    **KERAS_2_3_LSTM,
    "seed": None,
    "zero_output_for_mask": False,
    "kernel_initializer": {
        "module": "keras.initializers", "class_name": "GlorotUniform", "config": {"seed": None},
        "registered_name": None,
    },
}  # fmt: skip
del KERAS_3_0_LSTM["implementation"]


def test_a_keras_1_lstm_is_read_entry_by_entry() -> None:
    layer = LSTM.from_config(KERAS_1_LSTM)
    assert (type(layer), layer.input_size) == (LSTM, F)
    default = LSTMConfig(U)
    changed = {k: v for k, v in vars(layer.config).items() if v != getattr(default, k)}
    assert changed == {
        "recurrent_activation": "hard_sigmoid_v2",
        "kernel_initializer": "he_uniform",
        "kernel_regularizer": {"name": "L1L2Regularizer", "l1": 0.0, "l2": 0.01},
        "recurrent_regularizer": {"name": "WeightRegularizer", "l1": 0.02, "l2": 0.0},
        "dropout": 0.2,
        "recurrent_dropout": 0.1,
        "return_sequences": True,
        "implementation": 1,
        "name": "lstm_1",
        "dropout_style": "keras_2",
    }
    assert layer._regularizers["kernel"] is not None


def test_every_name_of_keras_1_goes_to_its_keyword() -> None:
    for old, value, new, expected in (
        ("output_dim", 7, "units", 7),
        ("init", "normal", "kernel_initializer", "normal"),
        ("inner_init", "identity", "recurrent_initializer", "identity"),
        ("forget_bias_init", "one", "unit_forget_bias", True),
        ("forget_bias_init", "zero", "unit_forget_bias", False),
        ("activation", "relu", "activation", "relu"),
        ("inner_activation", "sigmoid", "recurrent_activation", "sigmoid"),
        ("inner_activation", "hard_sigmoid", "recurrent_activation", "hard_sigmoid_v2"),
        ("W_regularizer", "l1", "kernel_regularizer", "l1"),
        ("U_regularizer", "l1", "recurrent_regularizer", "l1"),
        ("b_regularizer", "l1", "bias_regularizer", "l1"),
        ("dropout_W", 0.5, "dropout", 0.5),
        ("dropout_U", 0.5, "recurrent_dropout", 0.5),
        ("consume_less", "cpu", "implementation", 0),
        ("consume_less", "mem", "implementation", 1),
        ("consume_less", "gpu", "implementation", 2),
    ):
        config = {**KERAS_1_LSTM, old: value}
        assert getattr(LSTMConfig.from_keras(config, "1.2.2"), new) == expected, (old, value)
    assert KERAS_1.keys() <= KERAS_1_LSTM.keys()


def test_a_forget_bias_that_no_later_keras_has_is_said() -> None:
    with pytest.warns(UserWarning, match="forget_bias_init='uniform' has no equal"):
        layer = LSTM.from_config({**KERAS_1_LSTM, "forget_bias_init": "uniform"})
    assert layer.config.unit_forget_bias
    with pytest.raises(ConfigError, match=r"consume_less='gpus'.*'cpu', 'mem' or 'gpu'"):
        LSTM.from_config({**KERAS_1_LSTM, "consume_less": "gpus"})


def test_a_keras_1_model_is_a_list() -> None:
    for config in (KERAS_1_SEQUENTIAL, {"class_name": "Sequential", "config": KERAS_1_SEQUENTIAL}):
        stack = StackedLSTM.from_config(config)
        first, second = stack.layers
        assert type(first) is LSTM and first.input_size == F
        assert isinstance(second, Bidirectional) and second.forward_layer.input_size == U
        assert second.forward_layer.name == "forward_lstm_1"
        assert stack(torch.zeros(2, 5, F)).shape == (2, 5, 2 * U)


def test_keras_1_wrappers_are_read() -> None:
    both = Bidirectional.from_config(KERAS_1_BIDIRECTIONAL)
    assert both.forward_layer.input_size == F and both.name == "bidirectional_1"
    assert both.backward_layer.config.dropout_style == "keras_2"
    outer = TimeDistributed.from_config(KERAS_1_TIME_DISTRIBUTED)
    assert outer(torch.zeros(2, 6, 10, F)).shape == (2, 6, U)
    assert outer.layer.config.recurrent_activation == "hard_sigmoid_v2"


@pytest.mark.parametrize(
    ("config", "version", "activation", "style", "implementation"),
    [
        (KERAS_1_LSTM, "1.2.2", "hard_sigmoid_v2", "keras_2", 1),
        (KERAS_2_0_LSTM, "2.0.8", "hard_sigmoid_v2", "keras_2", 0),
        (KERAS_2_2_LSTM, "2.2.4", "hard_sigmoid_v2", "keras_2", 1),
        (KERAS_2_3_LSTM, "2.3.1", "sigmoid", "keras_2", 2),
        (TF_2_3_LSTM, "2.2.4-tf", "sigmoid", "tf_keras", 2),
        (TF_2_3_LSTM, "2.15.0", "sigmoid", "tf_keras", 2),
        (TF_2_3_LSTM, "2", "sigmoid", "tf_keras", 2),
        (KERAS_3_0_LSTM, "3.0.5", "sigmoid", "keras_3.0", 2),
        (KERAS_3_0_LSTM, "3.7.0", "sigmoid", "keras_3.0", 2),
        (KERAS_3_0_LSTM, "3.8.0", "sigmoid", "keras", 2),
        (KERAS_3_0_LSTM, "3.15.1", "sigmoid", "keras", 2),
        (KERAS_3_0_LSTM, "3", "sigmoid", "keras", 2),
    ],
)
def test_a_version_settles_what_the_config_leaves_open(
    config: dict[str, Any], version: str, activation: str, style: str, implementation: int
) -> None:
    left = {
        k: v for k, v in config.items() if k not in ("recurrent_activation", "inner_activation")
    }
    for one in (config, left):  # every config writes what was the default then
        layer = LSTM.from_config(one, F, version=version)
        assert layer.config.recurrent_activation == activation
    assert layer.config.dropout_style == style
    assert layer.config.implementation == implementation


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.2.2", "hard_sigmoid_v2"), ("2.3.1", "hard_sigmoid_v2"), ("2.15.0", "hard_sigmoid_v2"),
        ("2.2.4-tf", "hard_sigmoid_v2"), ("3.0.0", "hard_sigmoid"), ("3.15.1", "hard_sigmoid"),
    ],
)  # fmt: skip
def test_hard_sigmoid_is_that_of_the_version(version: str, expected: str) -> None:
    config = {"units": U, "activation": "hard_sigmoid", "recurrent_activation": "hard_sigmoid"}
    layer = LSTM.from_config(config, F, version=version)
    assert (layer.config.activation, layer.config.recurrent_activation) == (expected, expected)


@pytest.mark.parametrize(
    ("config", "version"),
    [
        (KERAS_1_LSTM, "1"),
        (KERAS_1_SEQUENTIAL, "1"),
        (KERAS_1_BIDIRECTIONAL, "1"),
        ({"output_dim": 3}, "1"),
        (KERAS_2_0_LSTM, "2.3.1"),
        (KERAS_2_2_LSTM, "2.3.1"),
        (KERAS_2_3_LSTM, "2.3.1"),
        (KERAS_2_2_RNN, "2.3.1"),
        (KERAS_2_2_BIDIRECTIONAL, "2.3.1"),
        (KERAS_2_2_CELL, "2.3.1"),
        (TF_2_3_LSTM, "2"),
        (TF_2_3_CELL, "2"),
        (LSTMCell(F, U, seed=3).get_config("tf_keras"), "2"),
        ({"units": 3, "time_major": False}, "2"),
        (KERAS_3_0_LSTM, "3"),
        ({"units": 3}, "3"),
        ({"units": 3, "use_cudnn": "auto", "implementation": 1}, "3"),
        ({"class_name": "Sequential", "keras_version": "2.2.4", "config": []}, "2.2.4"),
    ],
)
def test_a_version_is_detected_by_what_only_it_writes(config: Any, version: str) -> None:
    assert detected_version(config) == version


@pytest.mark.parametrize("name", CASES)
def test_our_own_configs_are_never_mistaken(name: str) -> None:
    """Keras 3's have an implementation here, where it is not the default."""

    def with_implementation(made: Made) -> Made:
        more = {"implementation": 1} if made.kind in ("LSTM", "LSTMCell") else {}
        inside = tuple(map(with_implementation, made.inside))
        return dataclasses.replace(made, keywords={**made.keywords, **more}, inside=inside)

    module = made_here(with_implementation(CASES[name]))
    assert detected_version(module.get_config("keras")) == "3"
    assert detected_version(module.get_config("tf_keras")) == "2"
    for target in ("keras", "tf_keras"):
        back = type(module).from_config(module.get_config(target))
        assert back.get_config(target) == module.get_config(target)


def test_a_multi_backend_stack_is_read() -> None:
    stack = StackedLSTM.from_config(KERAS_2_2_RNN, version="2.2.4")
    assert [c.input_size for c in stack.layers] == [F, U]
    assert [c.config.dropout_style for c in stack.layers] == ["keras_2"] * 2
    assert stack(torch.zeros(2, 5, F)).shape == (2, V)


@pytest.mark.parametrize("version", ["2.2.4", None])
def test_a_multi_backend_bidirectional_repeats_outputs_at_masked_steps(
    version: str | None,
) -> None:
    """Keras before 2.4 had no zero_output_for_mask (keras/layers/wrappers.py of 2.3.1)."""
    both = Bidirectional.from_config(KERAS_2_2_BIDIRECTIONAL, F, version=version, dtype="float64")
    later = Bidirectional.from_config(KERAS_2_2_BIDIRECTIONAL, F, version="2.4", dtype="float64")
    later.eval().set_weights(both.eval().get_weights())
    x = torch.randn(1, 4, F, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, False]])
    old, new = both(x, mask=mask), later(x, mask=mask)
    assert torch.equal(old[:, :2], new[:, :2])
    assert torch.equal(old[:, 2:], both.forward_layer(x, mask=mask)[:, 2:])
    assert not new[:, 2:].any()
    with pytest.raises(ConfigError, match=r"'bidirectional_1': it repeats.*version='2\.4'"):
        both.get_config()
    later.get_config()


@pytest.mark.parametrize("version", ["2.15.0", "3.15.1"])
def test_keras_2_turns_a_backward_pattern_round_and_keras_3_refuses(version: str) -> None:
    config = {
        "layer": {"class_name": "LSTM", "config": {"units": U, "name": "a", "go_backwards": True}},
        "merge_mode": "concat",
    }
    if version.startswith("3"):
        with pytest.raises(ConfigError, match="both directions have go_backwards=True"):
            Bidirectional.from_config(config, F, version=version)
        return
    both = Bidirectional.from_config(config, F, version=version)
    assert (both.forward_layer.go_backwards, both.backward_layer.go_backwards) == (True, False)
    assert (both.forward_layer.name, both.backward_layer.name) == ("forward_a", "backward_a")


# Input sizes


@pytest.mark.parametrize(
    ("kind", "config", "size"),
    [
        (LSTM, {"units": U}, None),
        (LSTM, {"units": U, "input_dim": F}, F),
        (LSTM, {"units": U, "batch_input_shape": [2, 5, F]}, F),
        (LSTM, {"units": U, "batch_input_shape": [2, 5, None]}, None),
        (LSTM, {"units": U, "input_shape": [5, F]}, F),
        (LSTM, {"units": U, "batch_input_shape": [2, 5, F], "input_dim": 9}, None),
        (LSTM, {"units": U, "input_dim": 0}, None),
        (LSTM, {"class_name": "LSTM", "config": {"units": U},
                "build_config": {"input_shape": [None, None, F]}}, F),
        (LSTMCell, {"class_name": "LSTMCell", "config": {"units": U},
                    "build_config": {"input_shape": [None, F]}}, F),
        (LSTMCell, {"units": U}, None),
        (Bidirectional, {"layer": {"class_name": "LSTM", "config": {"units": U}}}, None),
        (Bidirectional, {"layer": {"class_name": "LSTM", "config": {"units": U},
                                   "build_config": {"input_shape": [None, 5, F]}}}, F),
        (StackedLSTM, {"layers": [
            {"class_name": "InputLayer", "config": {"batch_shape": [None, 5, F]}},
            {"class_name": "LSTM", "config": {"units": U}}]}, F),
        (StackedLSTM, {"layers": [{"class_name": "LSTM", "config": {"units": U}}],
                       "build_input_shape": [None, 5, F]}, F),
        (StackedLSTM, {"layers": [{"class_name": "LSTM", "config": {"units": U}}],}, None),
        (StackedLSTM, {"cell": {"class_name": "LSTMCell", "config": {"units": U},
                                "build_config": {"input_shape": [None, F]}}}, F),
        (TimeDistributed, {"layer": {"class_name": "LSTM", "config": {"units": U}},
                           "trainable": True, "batch_input_shape": [None, 2, 5, F]}, F),
    ],
)  # fmt: skip
def test_the_input_size_comes_from_the_config_where_it_is_said(
    kind: Any, config: dict[str, Any], size: int | None
) -> None:
    module = kind.from_config(config)
    (part, *_) = (m for m in module.modules() if isinstance(m, LSTM | LSTMCell))
    lazy = isinstance(part, LazyLSTM | LazyLSTMCell)
    assert (part.input_size, lazy) == ((size, False) if size else (0, True))
    if kind is LSTM and size and "batch_input_shape" not in config and "units" in config:
        with pytest.raises(ConfigError, match=f"says {F} features and input_size=7"):
            kind.from_config(config, 7)
        return
    given = kind.from_config(config, 7)  # the caller knows best
    (part, *_) = (m for m in given.modules() if isinstance(m, LSTM | LSTMCell))
    assert part.input_size == 7


def test_in_a_chain_the_layer_below_says_the_size() -> None:
    stale = {"units": V, "batch_input_shape": [None, 5, 9]}
    config = [
        {"class_name": "LSTM", "config": {"units": U, "return_sequences": True}},
        {"class_name": "LSTM", "config": stale},
    ]
    for size in (F, None):
        below, above = StackedLSTM.from_config(config, size).layers
        assert (below.input_size, above.input_size) == (size or 0, U)


def test_a_lazy_class_reads_as_its_plain_one() -> None:
    assert type(LazyLSTM.from_config({"units": U})) is LazyLSTM
    assert type(LazyLSTM.from_config({"units": U}, F)) is LSTM
    assert type(LazyLSTMCell.from_config({"units": U}, F)) is LSTMCell


def test_a_class_of_your_own_is_made() -> None:
    class Mine(LSTM[Any]):
        pass

    assert type(Mine.from_config({"units": U}, F)) is Mine
    with pytest.raises(ConfigError, match=r"a Mine cannot learn its input size.*pass input_size"):
        Mine.from_config({"units": U})


def test_device_and_dtype_are_the_caller_s() -> None:
    config = Bidirectional(LSTM(F, U, dtype="float32"), dtype="float32").get_config()
    module = Bidirectional.from_config(config, F, device="meta", dtype=torch.float64)
    assert {(p.device.type, p.dtype) for p in module.parameters()} == {("meta", torch.float64)}
    module = Bidirectional.from_config(config, F, dtype="mixed_bfloat16")
    assert module(torch.zeros(1, 2, F)).dtype == torch.bfloat16
    assert Bidirectional.from_config(config, F).double()(torch.zeros(1, 2, F)).dtype == (
        torch.float64
    )
    cast = Bidirectional.from_config({**config, "dtype": "float64"}, F)
    assert cast(torch.zeros(1, 2, F)).dtype == torch.float64
    assert cast.get_config()["dtype"]["config"] == {"name": "float64"}


def test_the_config_says_what_the_layer_is_now() -> None:
    layer = LSTM(F, U).double()
    layer.trainable = False
    config = layer.get_config()
    assert (config["dtype"]["config"], config["trainable"]) == ({"name": "float64"}, False)
    mixed = LSTM(F, U, dtype="mixed_bfloat16")
    assert mixed.get_config()["dtype"]["config"] == {"name": "mixed_bfloat16"}
    assert mixed.double().get_config()["dtype"]["config"] == {"name": "float64"}


def test_new_weights_are_as_the_config_says() -> None:
    config = LSTM(
        F, U, kernel_initializer=initializers.Constant(2.0), bias_initializer="ones",
        recurrent_initializer=initializers.Orthogonal(0.5, seed=3), unit_forget_bias=False,
    ).get_config()  # fmt: skip
    first, second = (LSTM.from_config(config, F).get_weights() for _ in range(2))
    assert (first[0] == 2).all() and (first[2] == 1).all()
    assert np.array_equal(first[1], second[1])
    lazy = LSTM.from_config(config)
    lazy(torch.zeros(1, 2, F))
    assert (lazy.get_weights()[0] == 2).all()


# What is refused

AUTHORS = {"class_name": "Mine", "module": "author", "config": {}, "registered_name": "p>Mine"}


def nested(**changes: Any) -> dict[str, Any]:
    """A Bidirectional in a TimeDistributed, with an entry more in the inner LSTM."""
    inner = {"class_name": "LSTM", "config": {"units": U, "name": "inner", **changes}}
    both = {"name": "both", "layer": inner, "merge_mode": "sum"}
    return {
        "name": "outer", "trainable": True, "layer": {"class_name": "Bidirectional", "config": both}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "config", "said"),
    [
        (LSTM, {"units": U, "activaton": "tanh"},
         r"^LSTM: its config has the unknown entry 'activaton'; .* 'activation'\.$"),
        (LSTM, {"units": U, "name": "x", "zzz": 1}, r"LSTM 'x'.*'zzz'; the nearest known one is '"),
        (LSTM, {"name": "x"}, r"LSTM 'x': its config has no 'units'"),
        (LSTM, {"units": U, "dropout_style": "keras"}, "unknown entry 'dropout_style'"),
        (LSTM, {"class_name": "LSTM", "config": {"units": U}, "build_confg": {}},
         r"'build_confg' beside 'config'; the nearest known one is 'build_config'"),
        (LSTM, {**KERAS_3_0_LSTM, "output_dim": 3},
         r"'output_dim' twice|'units' twice, once under its Keras 1 name"),
        (LSTMCell, {"units": U, "unroll": True}, r"LSTMCell: .*'unroll'; a cell has no such thing"),
        (LSTMCell, {"units": U, "dropot": 0.1}, r"LSTMCell: .*'dropot'.* 'dropout'"),
        (Bidirectional, {"layer": {}, "merge_mod": "sum"},
         r"Bidirectional: .*'merge_mod'; the nearest known one is 'merge_mode'"),
        (TimeDistributed, nested(unts=1),
         r"TimeDistributed 'outer': layer: Bidirectional 'both': layer: LSTM 'inner': its config "
         r"has the unknown entry 'unts'; the nearest known one is 'units'"),
        (TimeDistributed, nested(kernel_initializer={
            "class_name": "Orthogonal", "config": {"gian": 1}}),
         r"LSTM 'inner': kernel_initializer: Orthogonal has no entry 'gian' \(did you mean 'gain'"),
        (TimeDistributed, nested(activation="tahn"), r"LSTM 'inner': activation='tahn'.*'tanh'"),
        (StackedLSTM, {"cell": {"class_name": "LSTMCell", "config": {"units": U}}, "stateul": True},
         r"RNN: .*'stateul'.* 'stateful'"),
        (StackedLSTM, {"cell": {"class_name": "StackedRNNCells", "config": {"cels": []}}},
         r"RNN: cell: StackedRNNCells: .*'cels'.* 'cells'"),
        (StackedLSTM, {"cell": {"class_name": "StackedRNNCells", "config": {"cells": [
            {"class_name": "LSTMCell", "config": {"units": U}},
            {"class_name": "LSTMCell", "config": {"units": U, "name": "c", "us_bias": False}}]}}},
         r"RNN: cell: StackedRNNCells: cells\[1\]: LSTMCell 'c': .*'us_bias'.* 'use_bias'"),
        (StackedLSTM, {"name": "m", "layers": [
            {"class_name": "LSTM", "config": {"units": U, "dropuot": 0.5, "name": "a"}}]},
         r"Sequential 'm': layers\[0\]: LSTM 'a': .*'dropuot'.* 'dropout'"),
        (StackedLSTM, {"name": "m", "layrs": [], "layers": []}, r"Sequential 'm': .*'layrs'"),
    ],
)  # fmt: skip
def test_an_unknown_entry_is_named_with_its_place(
    kind: Any, config: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        kind.from_config(config, F)


MODULES: dict[str, Callable[[], Any]] = {
    "LSTM": lambda: LSTM(F, U),
    "LSTMCell": lambda: LSTMCell(F, U),
    "Bidirectional": lambda: Bidirectional(LSTM(F, U)),
    "RNN": lambda: StackedLSTM(LSTMCell(F, U)),
    "Sequential": lambda: StackedLSTM([LSTM(F, U)]),
    "TimeDistributed": lambda: TimeDistributed(LSTM(F, U)),
}


@pytest.mark.parametrize("target", ["keras", "tf_keras"])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("given", MODULES)
@pytest.mark.parametrize("asked", ["LSTM", "LSTMCell", "Bidirectional", "RNN", "TimeDistributed"])
def test_a_config_of_another_class_names_the_right_one(
    asked: str, given: str, wrapped: bool, target: Any
) -> None:
    module, kind = MODULES[given](), type(MODULES[asked]())
    config = module.get_config(target)
    config = {"class_name": given, "config": config} if wrapped else config
    if type(module) is kind:
        assert type(kind.from_config(config, F)) is kind
        return
    with pytest.raises(ConfigError, match=rf"{given}; call {type(module).__name__}\.from_config"):
        kind.from_config(config, F)


@pytest.mark.parametrize(
    ("kind", "config", "said"),
    [
        (LSTM, {"class_name": "GRU", "config": {"units": U}},
         r"LSTM\.from_config: this is a config of the class GRU; this package has LSTM"),
        (LSTM, {"class_name": "Functional", "config": {"layers": []}}, "the class Functional"),
        (LSTM, {"class_name": "LSTM", "module": "os", "config": {"units": U}}, "author"),
        (LSTM, {"class_name": "LSTM", "registered_name": "a>LSTM", "config": {"units": U}},
         "code of the model's author"),
        (LSTM, {"units": U, "kernel_initializer": AUTHORS}, "code of the model's author"),
        (LSTM, {"units": U, "kernel_initializer": {
            "class_name": "Orthogonal", "module": None, "config": {},
            "registered_name": "p>Orthogonal",
        }}, "code of the model's author"),
        (LSTM, {"units": U, "activation": {
            "class_name": "function", "config": "author>hard_sigmoid_v2"}}, "author"),
        (LSTM, {"units": U, "activation": {"class_name": "__lambda__", "config": {"value": "x"}}},
         "author"),
        (LSTM, 3, "a config must be a dict, not 3"),
        (LSTM, {"class_name": "LSTM", "config": 3}, "must be a dict, not 3"),
        (LSTM, {"units": 2.5}, "units=2.5"),
        (LSTM, {"units": U, "dtype": "int8_from_float32"}, "int8_from_float32"),
        (LSTM, {"units": U, "num_constants": 2}, "num_constants=2"),
        (Bidirectional, {"merge_mode": "sum", "layer": {"class_name": "GRU", "config": {}}},
         r"Bidirectional: layer: 'GRU' is no class that can stand here; possible: LSTM"),
        (Bidirectional, {"merge_mode": "sum", "layer": {"class_name": "RNN", "config": {}}},
         "layer: a RNN cannot stand here; possible: LSTM"),
        (Bidirectional, {"merge_mode": "avg", "layer": {"class_name": "LSTM",
                                                        "config": {"units": U}}}, "'avg'"),
        (StackedLSTM, {"layers": [{"class_name": "LSTM", "config": {"units": U}},
                                  {"class_name": "Dense", "config": {"units": 1}}]},
         r"Sequential: layers\[1\]: 'Dense' is no class.*LSTM, Bidirectional"),
        (StackedLSTM, {"layers": 3}, "layers=3 is no list"),
        (StackedLSTM, {"layers": []}, "layers is"),
        (StackedLSTM, {"cell": {"class_name": "StackedRNNCells", "config": {"cells": []}}},
         "is no list of cells"),
        (StackedLSTM, {"time_major": True, "cell": {"class_name": "LSTMCell",
                                                    "config": {"units": U}}}, "time_major=True"),
        (StackedLSTM, {"cells": []}, "the class StackedRNNCells"),
    ],
)  # fmt: skip
def test_what_is_no_config_here_says_why(kind: Any, config: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        kind.from_config(config, F)


def test_a_version_that_does_not_exist_is_refused() -> None:
    for version in ("4.0", "x", "0.3"):
        with pytest.raises(ConfigError, match=r"known are 1\.x, 2\.x and 3\.x"):
            LSTM.from_config({"units": U}, version=version)
    with pytest.raises(ConfigError, match=r"'output_dim'; it is Keras 1's name of 'units'"):
        LSTM.from_config({"output_dim": U}, version="3.15.1")


@pytest.mark.parametrize(
    ("module", "target", "said"),
    [
        (lambda: LSTM(F, U, activation=torch.sin), "keras", "activation=.*torch code of your own"),
        (lambda: LSTM(F, U, kernel_initializer=lambda shape, dtype: torch.zeros(shape)), "keras",
         r"LSTM\(input_size=4, units=3\): kernel_initializer=.*torch code of your own"),
        (lambda: LSTMCell(F, U, bias_constraint=torch.abs), "tf_keras", "bias_constraint="),
        (lambda: Bidirectional(LSTM(F, U), activity_regularizer=torch.sum), "keras",
         "activity_regularizer="),
        (lambda: LSTM(F, U, name="x", time_major=True), "keras",
         "'x': time_major=True has no word in Keras 3.*target='tf_keras'"),
        (lambda: LSTM(F, U, activation="sparsemax"), "tf_keras",
         "'sparsemax' is not an activation of tf_keras, which has elu, .*target='keras'"),
        (lambda: LSTM(F, U, kernel_initializer=initializers.GlorotUniform(input_axes=[0])),
         "tf_keras", "kernel_initializer: tf_keras's GlorotUniform has no input_axes"),
        (lambda: LSTM(F, U), "keras2", "target='keras2'.*'keras' and 'tf_keras'"),
        (lambda: StackedLSTM([LSTM(F, U, name="a", return_sequences=True), LSTM(U, U, name="a")]),
         "keras", "two layers called 'a'"),
    ],
)  # fmt: skip
def test_what_a_target_has_no_word_for_says_what_to_do(module: Any, target: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        module().get_config(target)


def test_what_tf_keras_forgets_is_written_all_the_same() -> None:
    config = LSTM(F, U, seed=3).get_config("tf_keras")
    assert config["seed"] == 3 and LSTM.from_config(config).config.seed == 3
    both = Bidirectional(LSTM(F, U), activity_regularizer="l2").get_config("tf_keras")
    assert both["activity_regularizer"]["class_name"] == "L2"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | st.sampled_from(
        ["tanh", "sum", "float32", "LSTM", "LSTMCell", "RNN", "Sequential", "3.1", "", "a/b", "l2"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["class_name", "config", "units", "name", "layer", "cells", "module", "x"]),
        inner, max_size=3,
    ),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=sampling.amount(100, 300), deadline=None)
@given(
    name=st.sampled_from(sorted(CASES)),
    path=st.lists(st.integers(0, 50), min_size=1, max_size=6),
    value=JSON,
)
def test_whatever_stands_in_a_config_is_read_or_is_a_config_error(
    name: str, path: list[int], value: Any
) -> None:
    module = made_here(CASES[name])
    config: Any = copy.deepcopy(module.get_config())
    at = config
    for step in path:
        keys: list[Any] = list(at) if isinstance(at, dict) else list(range(len(at)))
        place, key = at, keys[step % len(keys)]
        at = place[key]
        if not at or not isinstance(at, dict | list):
            break
    place[key] = value
    with contextlib.suppress(ConfigError):
        type(module).from_config(config, F, device="meta")


def test_a_short_config_is_that_of_the_class_which_was_asked() -> None:
    assert LSTM.from_config({"units": 3, "trainable": False}, 4).units == 3
    inner = {"class_name": "LSTM", "config": {"units": 3}}
    both = Bidirectional.from_config({"name": "b", "trainable": True, "layer": inner}, 4)
    assert both.merge_mode == "concat"
    with pytest.raises(ConfigError, match="layer"):
        Bidirectional.from_config({"merge_mode": "sum"})
    with pytest.raises(ConfigError, match="input_size=0"):
        LSTM.from_config({"units": 3}, 0)


@pytest.mark.parametrize(
    "own",
    [
        {"module": None, "class_name": "L2", "config": {"l2": 0.5}, "registered_name": "L2"},
        {"module": "keras_contrib.reg", "class_name": "L2", "config": {}, "registered_name": None},
        {"module": "kerastuner", "class_name": "L2", "config": {}, "registered_name": None},
    ],
    ids=lambda own: str(own["module"]),
)
def test_a_class_of_the_author_s_with_a_name_of_keras_s_is_not_taken_for_it(own: Any) -> None:
    config = {"units": 3, "kernel_regularizer": own}
    with pytest.raises(ConfigError, match="code of the model's author"):
        LSTM.from_config(config, 4)
    kept = LSTM.from_lstm_config(4, LSTMConfig.from_keras(config, "3.15.1"))
    with pytest.raises(ConfigError, match="code of the model's author"):
        kept.train()(torch.zeros(1, 2, 4))


def test_a_wrapper_keeps_its_policy() -> None:
    both = Bidirectional(LSTM(3, 2), dtype="mixed_float16")
    assert both.get_config()["dtype"]["config"]["name"] == "mixed_float16"
    assert Bidirectional.from_config(both.get_config(), 3).dtype == "mixed_float16"


@pytest.mark.live
def test_a_bidirectional_keeps_implementation_where_its_keras_does(
    keras: KerasLive, tf_keras: KerasLive
) -> None:
    """Keras 3 copies the layer by a config without it; tf_keras's config has it."""
    made = Made("Bidirectional", {}, (Made("LSTM", {"units": U, "implementation": 1}),))
    for live, style in ((keras, "keras"), (tf_keras, "tf_keras")):
        theirs = live.call("config_side.inner_implementations", style, made)
        pattern: LSTM[Any] = LSTM(F, U, implementation=1, dropout_style=style)  # type: ignore[arg-type]
        both = Bidirectional(pattern)
        parts = (both.forward_layer, both.backward_layer)
        assert [p.config.implementation for p in parts] == theirs, style
    assert theirs == [1, 1]
    assert both.get_config("tf_keras")["layer"]["config"]["implementation"] == 1


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"class_name": "ReLU", "config": {"max_value": None, "negative_slope": 0.0,
                                           "threshold": 0.0}}, "relu"),
        ({"class_name": "ReLU", "config": {"max_value": 6.0, "negative_slope": 0.0,
                                           "threshold": 0.0}}, "relu6"),
        ({"class_name": "LeakyReLU", "config": {"negative_slope": 0.2}}, "leaky_relu"),
        ({"class_name": "LeakyReLU", "config": {"alpha": 0.2}}, "leaky_relu"),
        ({"class_name": "ELU", "config": {"alpha": 1.0}}, "elu"),
        ({"class_name": "Activation", "config": {"activation": "softsign"}}, "softsign"),
        ({"class_name": "LeakyReLU", "config": {"negative_slope": 0.3}}, None),
        ({"class_name": "PReLU", "config": {}}, None),
    ],
)  # fmt: skip
def test_an_activation_that_is_a_layer_of_keras_s(entry: dict[str, Any], name: str | None) -> None:
    config = {"units": 2, "activation": {"module": "keras.layers", **entry}}
    if name is None:
        with pytest.raises(ConfigError, match=f"activation is Keras's layer {entry['class_name']}"):
            LSTM.from_config(config, input_size=3)
    else:
        assert LSTM.from_config(config, input_size=3).config.activation == name


@pytest.mark.parametrize("own", [{"module": "mine"}, {"registered_name": "mine>ReLU"}])
def test_an_author_s_class_of_that_name_is_the_author_s(own: dict[str, Any]) -> None:
    full = {"max_value": None, "negative_slope": 0.0, "threshold": 0.0}
    entry = {"class_name": "ReLU", "config": full, "module": "keras.layers", **own}
    with pytest.raises(ConfigError, match="code of the model's author"):
        LSTM.from_config({"units": 2, "activation": entry}, input_size=3)


def test_an_old_activation_layer_s_hard_sigmoid_is_the_old_one() -> None:
    entry = {"class_name": "Activation", "config": {"activation": "hard_sigmoid"}}
    old = LSTM.from_config({"units": 2, "recurrent_activation": entry}, 3, version="2.15.0")
    assert old.config.recurrent_activation == "hard_sigmoid_v2"
