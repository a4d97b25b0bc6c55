"""What runs in the live-Keras process for test_keywords."""

from __future__ import annotations

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
