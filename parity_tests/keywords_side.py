"""What runs in the live-Keras process for test_keywords."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np


def steps_without_autocast(requests: list[dict[str, Any]]) -> list[Any]:
    """(dtype, output, h, c) of a step of LSTMCell(autocast=False), or the error's name."""
    import keras
    import tensorflow as tf

    found: list[Any] = []
    for request in requests:
        x, h, c = (tf.constant(a) for a in request["arrays"])
        cell = keras.layers.LSTMCell(request["units"], dtype=request["policy"], autocast=False)
        cell.build(x.shape)
        cell.set_weights(request["weights"])
        try:
            output, state = cell(x, [h, c])
        except tf.errors.InvalidArgumentError as error:
            found.append(type(error).__name__)
            continue
        found.append((output.dtype.name, *(np.asarray(t) for t in (output, *state))))
    return found


def wrappers_without_autocast(
    x: np.ndarray, weights: list[np.ndarray], policy: str, autocast: bool
) -> dict[str, np.ndarray]:
    """Outputs of wrappers of a lower precision around layers of float64."""
    import keras
    import tensorflow as tf

    lay = keras.layers
    options = {"dtype": policy, "autocast": autocast}
    units = weights[1].shape[0]
    layers = {
        "LSTM": lay.LSTM(units, dtype="float64", autocast=autocast),
        "Bidirectional": lay.Bidirectional(lay.LSTM(units, dtype="float64"), "sum", **options),
        "RNN": lay.RNN(lay.LSTMCell(units, dtype="float64"), **options),
        "TimeDistributed": lay.TimeDistributed(lay.LSTM(units, dtype="float64"), **options),
    }
    found = {}
    for name, layer in layers.items():
        given = tf.constant(x[:, None] if name == "TimeDistributed" else x)
        layer.build(tuple(given.shape))
        layer.set_weights(weights * (len(layer.weights) // 3))
        found[name] = np.asarray(tf.cast(layer(given), "float64"))
    return found


def losses_of_a_cell(arrays: list[np.ndarray], weights: list[np.ndarray]) -> list[float]:
    """Those of the second of two steps of LSTMCell(activity_regularizer="l2")."""
    import keras

    cell = keras.layers.LSTMCell(weights[1].shape[0], dtype="float64", activity_regularizer="l2")
    cell.build(arrays[0].shape)
    cell.set_weights(weights)
    _, state = cell(arrays[0], arrays[1:])
    cell(arrays[0], state)
    return [float(loss) for loss in cell.losses]


def broadcast_states(
    x: np.ndarray, h: np.ndarray, cs: list[np.ndarray], weights: list[np.ndarray]
) -> list[np.ndarray]:
    """The output of an LSTM for each c."""
    import keras

    layer = keras.layers.LSTM(weights[1].shape[0], dtype="float64")
    layer.build(x.shape)
    layer.set_weights(weights)
    return [np.asarray(layer(x, initial_state=[h, c])) for c in cs]


def a_cell_twice(x: np.ndarray, weights: list[np.ndarray]) -> tuple[int, int, np.ndarray]:
    """How many weights RNN([cell, cell]) has, how many parameters, and its output."""
    import keras

    cell = keras.layers.LSTMCell(weights[1].shape[0], dtype="float64")
    stack = keras.layers.StackedRNNCells([cell, cell], dtype="float64")
    layer = keras.layers.RNN(stack, dtype="float64")
    layer(x)
    layer.set_weights(weights)
    return len(layer.get_weights()), layer.count_params(), np.asarray(layer(x))


def default_dtype_of_wrappers(x: np.ndarray) -> dict[str, str]:
    """The dtype of what wrappers give that were told none, over layers of float64."""
    import keras

    lay = keras.layers
    layers = {
        "Bidirectional": lay.Bidirectional(lay.LSTM(2, dtype="float64")),
        "RNN": lay.RNN(lay.LSTMCell(2, dtype="float64")),
    }
    return {name: layer(x).dtype.name for name, layer in layers.items()}


def keywords(names: list[str]) -> dict[str, str]:
    """What each class does with input_shape, input_dim and autocast: "taken" or the error."""
    import keras

    lay = keras.layers
    makers: dict[str, Any] = {
        "LSTM": lambda **k: lay.LSTM(2, **k),
        "LSTMCell": lambda **k: lay.LSTMCell(2, **k),
        "Bidirectional": lambda **k: lay.Bidirectional(lay.LSTM(2), **k),
        "RNN": lambda **k: lay.RNN(lay.LSTMCell(2), **k),
        "TimeDistributed": lambda **k: lay.TimeDistributed(lay.LSTM(2), **k),
    }
    values: dict[str, Any] = {"input_shape": (5, 3), "input_dim": 3, "autocast": False}
    found = {}
    for kind, make in makers.items():
        for name in names:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    make(**{name: values[name]})
                    found[f"{kind} {name}"] = "taken"
                except Exception as error:  # whatever it is: the question is whether it is taken
                    found[f"{kind} {name}"] = type(error).__name__
    return found


def state_dtypes(x: np.ndarray) -> dict[str, list[str]]:
    """The dtypes of the stored states of stateful stacks of cells."""
    import keras

    lay = keras.layers
    found = {}
    for policy in ("float32", "float64", "mixed_bfloat16"):
        cells = [lay.LSTMCell(2, dtype="float64"), lay.LSTMCell(3, dtype="float64")]
        stack = lay.StackedRNNCells(cells, dtype="float64")
        layer = lay.RNN(stack, stateful=True, dtype=policy)
        layer(x)
        flat = [v for pair in layer.states for v in pair]
        found[policy] = [str(v.dtype).removeprefix("<dtype: '").removesuffix("'>") for v in flat]
    return found


def _stack(spec: dict[str, Any], **options: Any) -> tuple[Any, list[Any]]:
    """An RNN of float64 over cells with the activity regularizers of a spec, and its cells."""
    import keras

    lay = keras.layers
    units = spec["weights"][1].shape[0]
    cells = [
        lay.LSTMCell(units, dtype="float64", activity_regularizer=r) for r in spec["regularizers"]
    ]
    if spec.get("order"):
        cells = [cells[i] for i in spec["order"]]
    cell = cells[0] if spec.get("alone") else lay.StackedRNNCells(cells, dtype="float64")
    layer = lay.RNN(cell, dtype="float64", **spec.get("keywords", {}), **options)
    return layer, cells


def losses_of_stacks(x: np.ndarray, specs: list[dict[str, Any]]) -> list[Any]:
    """(losses, gradients of their sum for x and the weights, output) of stacks of cells."""
    import tensorflow as tf

    found = []
    for spec in specs:
        layer, _ = _stack(spec)
        layer.build(x.shape)
        layer.set_weights(spec["weights"] * len(spec["regularizers"]))
        mask = spec.get("mask")
        states = spec.get("states")
        watched = [tf.constant(x), *(w.value for w in layer.weights)]
        with tf.GradientTape() as tape:
            tape.watch(watched)
            y = layer(
                watched[0],
                mask=None if mask is None else tf.constant(mask),
                initial_state=states and [tf.constant(s) for s in states],
            )
            losses = list(layer.losses)
            total = tf.add_n(losses)
        gradients = [
            np.zeros(w.shape) if g is None else np.asarray(g)
            for g, w in zip(tape.gradient(total, watched), watched, strict=True)
        ]
        found.append(([float(loss) for loss in losses], gradients, np.asarray(y)))
    return found


def losses_within_time_distributed(x: np.ndarray, spec: dict[str, Any]) -> list[float]:
    """Of TimeDistributed(RNN(cells)) on x (B, T1, T2, F)."""
    import keras

    layer = keras.layers.TimeDistributed(_stack(spec)[0], dtype="float64")
    layer.build(x.shape)
    layer.set_weights(spec["weights"] * len(spec["regularizers"]))
    layer(x)
    return [float(loss) for loss in layer.losses]


def stacks_without_autocast(
    x: np.ndarray, weights: list[np.ndarray], cases: list[tuple[str, bool, str, str]]
) -> list[Any]:
    """What the cell computes in RNN(StackedRNNCells([LSTMCell(autocast=False)])), and its dtype.

    A case is the RNN's policy and autocast, the policy of the StackedRNNCells, the cell's.
    """
    import keras
    import tensorflow as tf

    lay = keras.layers
    found: list[Any] = []
    for policy, autocast, between, own in cases:
        cell = lay.LSTMCell(weights[1].shape[0], dtype=own, autocast=False)
        stack = lay.StackedRNNCells([cell], dtype=between)
        layer = lay.RNN(stack, dtype=policy, autocast=autocast)
        layer.build(x.shape)
        layer.set_weights(weights)
        seen, call = [], cell.call
        cell.call = lambda *a, call=call, seen=seen, **k: seen.append(call(*a, **k)) or seen[-1]
        layer(tf.constant(x))
        found.append((seen[-1][0].dtype.name, np.asarray(tf.cast(seen[-1][0], "float64"))))
    return found


def dropout_of_a_shared_cell(x: np.ndarray, weights: list[np.ndarray]) -> tuple[Any, np.ndarray]:
    """The distinct dropout masks of a call of RNN([cell, cell]) in training, and its output."""
    import keras
    import tensorflow as tf

    cell = keras.layers.LSTMCell(weights[1].shape[0], dtype="float64", dropout=0.5, seed=3)
    stack = keras.layers.StackedRNNCells([cell, cell], dtype="float64")
    layer = keras.layers.RNN(stack, dtype="float64")
    layer.build(x.shape)
    layer.set_weights(weights)
    seen, call = [], cell.call

    def spy(*arguments: Any, **keywords: Any) -> Any:
        result = call(*arguments, **keywords)
        seen.append(np.asarray(cell._dropout_mask))
        return result

    cell.call = spy
    y = np.asarray(layer(tf.constant(x), training=True))
    return np.unique(np.stack(seen), axis=0), y


def steps_of_other_batches(
    x: np.ndarray, weights: list[np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(kept mask, two outputs) of a cell in training: of one row and then all, and back."""
    import keras
    import tensorflow as tf

    found = []
    for first, second in ((x[:1], x), (x, x[:1])):
        cell = keras.layers.LSTMCell(weights[1].shape[0], dtype="float64", dropout=0.5)
        cell.build(x.shape)
        cell.set_weights(weights)
        outputs = []
        for given in (first, second):
            zeros = [tf.zeros((len(given), weights[1].shape[0]), "float64")] * 2
            outputs.append(np.asarray(cell(tf.constant(given), zeros, training=True)[0]))
        found.append((np.asarray(cell._dropout_mask), *outputs))
    return found


def config_of_a_shared_cell(units: int) -> tuple[dict[str, Any], int]:
    """The config of RNN([cell, cell]), and how many weights the layer of it has."""
    import keras

    cell = keras.layers.LSTMCell(units, name="shared")
    stack = keras.layers.StackedRNNCells([cell, cell], name="both")
    config = keras.layers.RNN(stack, name="over").get_config()
    again = keras.layers.RNN.from_config(copy.deepcopy(config))  # it takes it apart
    again.build((None, None, units))
    return config, len(again.weights)


def is_a_config(config: dict[str, Any], features: int) -> int:
    """How many weights Keras's RNN of this config has."""
    import keras

    layer = keras.layers.RNN.from_config(config)
    layer.build((None, None, features))
    return len(layer.weights)
