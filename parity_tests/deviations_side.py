"""What live Keras does at each row of deviations.txt; runs in the live-Keras process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def deviations() -> dict[str, Any]:
    """What live Keras does at each row of deviations.txt."""
    import keras
    import tensorflow as tf

    found: dict[str, Any] = {}
    x = tf.constant([[0.3, 0.2, -0.9], [2.0, -1.0, 0.5]], "float64")
    found["x"] = x.numpy()
    for name in ("sparsemax", "gelu", "leaky_relu"):
        found[name] = getattr(keras.activations, name)(x).numpy()
    layer = keras.layers.LSTM(2)
    poisoned = np.ones((1, 3, 2), np.float32)
    poisoned[0, 1] = np.nan
    with tf.GradientTape() as tape:
        y = layer(tf.constant(poisoned), mask=tf.constant([[True, False, True]]))
    gradients = tape.gradient(y, layer.trainable_weights[0].value)
    found["masked"] = (bool(np.isfinite(y).all()), bool(np.isnan(gradients).any()))
    try:
        found["empty batch"] = layer(np.zeros((0, 3, 2), np.float32)).shape
    except tf.errors.InvalidArgumentError as error:
        found["empty batch"] = type(error).__name__
    found["no feature"] = tuple(keras.layers.LSTM(2)(np.zeros((1, 3, 0), np.float32)).shape)
    constant = keras.layers.LSTM(1, bias_initializer=keras.initializers.Constant(0.25))
    constant.build((1, 3, 2))
    found["bias"] = constant.get_weights()[2]
    both = keras.layers.Bidirectional(keras.layers.LSTM(2, stateful=True, return_state=True))
    try:
        found["bidirectional"] = len(both(np.ones((1, 3, 2), np.float32)))
    except TypeError as error:
        found["bidirectional"] = type(error).__name__
    for look in (_dropout, _masks, _stacks, _wrappers, _objects):
        found |= look(keras, tf)
    inner = {"dtype": "float64"}
    wide = np.ones((2, 5, 3))
    wrappers = [
        keras.layers.Bidirectional(keras.layers.LSTM(2, **inner)),
        keras.layers.RNN(keras.layers.LSTMCell(2, **inner)),
    ]
    found["wrapper dtypes"] = [w(tf.constant(wide)).dtype.name for w in wrappers]
    cell = keras.layers.LSTMCell(2, dtype="mixed_bfloat16", autocast=False)
    cell.build((1, 3))
    kernel = np.random.RandomState(2).uniform(-1, 1, (3, 8))
    cell.set_weights([kernel, np.zeros((2, 8)), np.zeros(8)])
    zeros = tf.zeros((1, 2))
    found["cell without autocast"] = kernel, np.asarray(cell(tf.ones((1, 3)), [zeros, zeros])[0])
    found["autocast"] = [
        keras.layers.LSTM(2, autocast=a)(tf.constant(wide)).dtype.name for a in (False, True)
    ]
    return found


def _outcome(call: Callable[[], Any]) -> str:
    """The name of the error that a call raises, or "runs"."""
    try:
        call()
    except Exception as error:  # whatever it is: the question is whether it runs
        return type(error).__name__
    return "runs"


X = np.random.RandomState(0).uniform(-1, 1, (5, 7, 3)).astype(np.float32)
MASK = np.random.RandomState(1).uniform(size=(5, 7)) < 0.6


def _dropout(keras: Any, tf: Any) -> dict[str, Any]:
    lstm = keras.layers.LSTM
    one = lstm(2, dropout=1.0)
    return {
        "implementation 1": [
            _outcome(lambda k=k: lstm(2, implementation=1, dropout=0.5, **k)(X, training=True))
            for k in ({}, {"use_cudnn": False})
        ],
        "dropout 1": bool(np.array_equal(one(X, training=True), one(X))),
    }


def _masks(keras: Any, tf: Any) -> dict[str, Any]:
    first, second = keras.layers.LSTM(2, return_sequences=True), keras.layers.LSTM(2)
    y = first(X, mask=tf.constant(MASK))  # the mask hangs on y
    bare = tf.constant(np.asarray(y))
    state = [tf.ones((5, 2)), tf.ones((5, 2))]
    mask = tf.constant(MASK)
    same = {
        "attached": np.array_equal(second(y), second(bare, mask=mask)),
        "attached, with a state": np.array_equal(
            second(y, initial_state=state), second(bare, initial_state=state)
        ),
        "passed, with a state": np.array_equal(
            second(bare, initial_state=state, mask=mask), second(bare, initial_state=state)
        ),
    }
    backwards = keras.layers.LSTM(2, return_sequences=True, go_backwards=True)
    leaving = np.asarray(keras.src.backend.get_keras_mask(backwards(X, mask=mask)))
    masking = keras.layers.Masking(0.1, dtype="float64")
    masked = np.asarray(masking.compute_mask(tf.constant([[[0.1], [0.2]]], "float64")))
    return {
        "mask and state": same,
        "backwards mask": bool(np.array_equal(leaving, MASK)),
        "masking 0.1": masked.tolist(),
    }


def _stacks(keras: Any, tf: Any) -> dict[str, Any]:
    cell, rnn = keras.layers.LSTMCell, keras.layers.RNN
    stateful = rnn([cell(3), cell(2)], stateful=True)
    stateful(X)
    cells = [cell(3, dtype="float64"), cell(2, dtype="float64")]
    wide = rnn(cells, dtype="float64")
    return {
        "one cell": [_outcome(lambda: rnn([cell(3)])(X)),
                     _outcome(lambda: rnn([cell(3)])(X, mask=tf.constant(MASK)))],
        "reset": _outcome(stateful.reset_state),
        "float64 stack": [_outcome(lambda: wide(X)),
                          _outcome(lambda: wide(X, mask=tf.constant(MASK)))],
    }  # fmt: skip


def _wrappers(keras: Any, tf: Any) -> dict[str, Any]:
    layers = keras.layers
    slices = np.stack([X, X * 2], 1)
    states = layers.TimeDistributed(layers.LSTM(2, return_state=True))
    active = layers.TimeDistributed(layers.LSTM(2, activity_regularizer="l2"))
    active(slices)
    weights = [np.ones((3, 8)), np.ones((2, 8)), np.ones(8)] * 2
    both = layers.Bidirectional(layers.LSTM(2), weights=weights)
    both(X)
    uneven = layers.Bidirectional(
        layers.LSTM(2, return_sequences=True),
        backward_layer=layers.LSTM(5, return_sequences=True, go_backwards=True),
    )
    return {
        "slices with states": tuple(states(slices).shape),
        "inner activity": len(active.losses),
        "weights": bool(np.array_equal(both.get_weights()[0], weights[0])),
        "uneven": (uneven.compute_output_shape((5, 7, 3))[-1], uneven(X).shape[-1]),
    }


def _objects(keras: Any, tf: Any) -> dict[str, Any]:
    orthogonal = keras.regularizers.OrthogonalRegularizer()
    identity = keras.initializers.Identity(gain=2.0)
    wrong = keras.layers.LSTM(
        2, kernel_initializer=lambda shape, dtype: tf.ones((shape[0] - 1, shape[1]))
    )
    return {
        "l1_l2": _outcome(lambda: keras.layers.LSTM(2, kernel_regularizer="l1_l2")),
        "orthogonal": [
            _outcome(lambda d=d: orthogonal(tf.constant(X[0], d))) for d in ("float32", "float64")
        ],
        "identity": keras.initializers.serialize(identity)["config"],
        "wrong shape": _outcome(lambda: wrong.build((5, 7, 3))),
        "forgotten": sorted(
            {"use_cudnn", "implementation"}
            - keras.layers.LSTM(2, use_cudnn=False, implementation=1).get_config().keys()
        ),
        "repeats": _repeats(keras),
    }


def _repeats(keras: Any) -> bool:
    """Whether one unseeded initializer gives two weights of one shape the same numbers."""
    one = keras.initializers.RandomNormal()
    layer = keras.layers.LSTM(2, kernel_initializer=one, recurrent_initializer=one)
    layer.build((5, 7, 2))
    kernel, recurrent, _ = layer.get_weights()
    return bool(np.array_equal(kernel, recurrent))


def masked_elsewhere() -> dict[str, Any]:
    """What a backend gives at masked steps, and how exact its float64 is; runs on any backend."""
    import keras

    def run(**keywords: Any) -> np.ndarray:
        layer = keras.layers.LSTM(2, return_sequences=True, dtype="float64", **keywords)
        layer.build((2, 4, 3))
        rng = np.random.RandomState(3)
        layer.set_weights([rng.uniform(-1, 1, w.shape) for w in layer.get_weights()])
        x, states = rng.uniform(-1, 1, (2, 4, 3)), [np.ones((2, 2)), np.ones((2, 2))]
        convert = keras.ops.convert_to_tensor
        result = layer(convert(x), initial_state=[convert(s) for s in states], mask=convert(mask))
        return np.asarray(result.detach() if hasattr(result, "detach") else result, np.float64)

    mask = np.array([[False, True, True, False], [True, True, False, True]])
    zero = {"zero_output_for_mask": True}
    x = np.linspace(-2, 2, 105)
    tanh = keras.ops.tanh(keras.ops.convert_to_tensor(x, "float64"))
    return {
        "tanh": float(np.abs(np.asarray(tanh) - np.tanh(x)).max()),
        "sequence": run(),
        "backwards": run(**zero, go_backwards=True),
        "unrolled forwards": run(**zero, unroll=True),
        "long mask": _or_error(_long_mask),
        "predicted twice": _or_error(_predicted_twice),
        "unrolled": _or_error(lambda: run(**zero, go_backwards=True, unroll=True)),
    }


def _long_mask() -> str:
    """A mask of more steps than the input."""
    import keras

    layer = keras.layers.LSTM(2)
    layer(keras.ops.ones((2, 4, 3)), mask=keras.ops.ones((2, 5), "bool"))
    return "runs"


def _predicted_twice() -> float:
    """How far a stateful model's second prediction lies from its first, of the same input."""
    import keras

    model = keras.Sequential(
        [keras.Input((4, 3), batch_size=2), keras.layers.LSTM(2, stateful=True)]
    )
    x = np.ones((2, 4, 3), np.float32)
    first, second = (model.predict(x, verbose=0, batch_size=2) for _ in range(2))
    return float(np.abs(first - second).max())


def of_keras_2() -> float:
    """tf_keras: how far the same initial_state leads apart in a stateful layer's second call."""
    import tensorflow as tf
    import tf_keras

    layer = tf_keras.layers.LSTM(2, stateful=True)
    x, state = tf.ones((2, 4, 3)), [tf.ones((2, 2))] * 2
    first = layer(x, initial_state=state).numpy()
    return float(np.abs(layer(x, initial_state=state).numpy() - first).max())


def hard_sigmoid(library: str, x: np.ndarray) -> np.ndarray:
    """ "hard_sigmoid" of keras or tf_keras, of x."""
    import importlib

    import tensorflow as tf

    k = importlib.import_module(library)
    return np.asarray(k.activations.get("hard_sigmoid")(tf.constant(x, tf.float32)))


def on_torch() -> dict[str, Any]:
    """Gradients of Keras on torch: of hard_sigmoid at 0, and of a stateful layer's second call."""
    import keras
    import torch

    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(keras.ops.hard_sigmoid(x).sum(), x)
    layer = keras.layers.LSTM(2, stateful=True)
    x = torch.ones(2, 4, 3, requires_grad=True)

    def twice() -> str:
        for _ in range(2):
            layer(x).sum().backward()
        return "runs"

    return {"slope": slope.item(), "stateful": _or_error(twice)}


def _or_error(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:  # whatever it is: the question is whether it runs
        return type(error).__name__
