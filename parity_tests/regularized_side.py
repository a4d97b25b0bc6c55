"""What runs in the live-Keras process for test_regularized, which says what a spec is."""

from __future__ import annotations

from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def losses(requests: list[dict[str, Any]]) -> list[Arrays]:
    """``layer.losses`` after a call, one by one, and the gradients of their sum."""
    return [_losses(**request) for request in requests]


def _losses(spec: Any, arrays: Arrays, dtype: str = "float64") -> Arrays:
    import tensorflow as tf

    x, layer, mask = _ready(spec, arrays, dtype)
    call: dict[str, Any] = {} if mask is None else {"mask": mask}
    call |= {"training": True} if any("dropout" in name for name in arrays) else {}
    weights = layer.weights
    watched = {"d_x": x}
    watched |= {
        f"d_weight{i:02d}": w.value
        for i, w in enumerate(weights)
        if any(w is t for t in layer.trainable_weights)
    }
    with tf.GradientTape() as tape:
        tape.watch(list(watched.values()))
        layer(x, **call)
        each = layer.losses
        total = tf.add_n([tf.cast(loss, dtype) for loss in each])
    found = {"losses": tf.stack([tf.cast(loss, tf.float64) for loss in each])}
    for name, gradient in tape.gradient(total, watched).items():
        found[name] = tf.zeros_like(watched[name]) if gradient is None else gradient
    return {k: np.asarray(tf.cast(v, tf.float64)) for k, v in found.items()}


def train(requests: list[dict[str, Any]]) -> list[list[np.ndarray]]:
    """The weights after one step a batch; the loss is mean((output - target)^2) + the losses."""
    return [_train(**request) for request in requests]


def _train(
    spec: Any, arrays: Arrays, batches: list[Arrays], optimizer: str, rate: float, dtype: str
) -> list[np.ndarray]:
    import keras
    import tensorflow as tf

    _, layer, _ = _ready(spec, {**arrays, "x": batches[0]["x"]}, dtype)
    variables = layer.trainable_variables
    rule = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}[optimizer](rate)
    rule.build(variables)
    for batch in batches:
        _inject(layer, batch, dtype)
        with tf.GradientTape() as tape:
            x, mask = tf.constant(batch["x"], dtype), tf.constant(batch["mask"])
            result = layer(x, mask=mask, training=True)
            output = result[0] if isinstance(result, list | tuple) else result
            loss = tf.reduce_mean(tf.square(output - tf.constant(batch["target"], dtype)))
            loss = tf.add_n([loss, *layer.losses])
        rule.apply(tape.gradient(loss, [v.value for v in variables]), variables)
    return [np.asarray(w, np.float64) for w in layer.get_weights()]


def one_gradient(spec: Any, arrays: Arrays, rate: float) -> list[np.ndarray]:
    """The weights after a step of SGD in which the first alone has a gradient, of ones."""
    import keras
    import tensorflow as tf

    _, layer, _ = _ready(spec, arrays, "float64")
    rule = keras.optimizers.SGD(rate)
    first, *others = layer.trainable_variables
    rule.apply([tf.ones_like(first.value), *[None for _ in others]], [first, *others])
    return layer.get_weights()


def empty_batch() -> list[float]:
    """The activity loss of an empty batch, of a Dense: Keras's LSTM takes none."""
    import keras
    import tensorflow as tf

    dense = keras.layers.Dense(2, activity_regularizer=tf.reduce_mean)
    dense(np.ones((0, 3), np.float32))
    return [float(loss) for loss in dense.losses]


def time_major(arrays: Arrays, regularizer: dict[str, Any]) -> list[float]:
    """The activity losses of a tf_keras LSTM that takes (T, B, F)."""
    import tf_keras

    layer = tf_keras.layers.LSTM(
        arrays["weight01"].shape[0],
        time_major=True,
        return_sequences=True,
        return_state=True,
        activity_regularizer=tf_keras.regularizers.get(regularizer),
        dtype="float64",
    )
    layer.build(arrays["x"].shape)
    layer.set_weights([arrays[f"weight0{i}"] for i in range(3)])
    layer(arrays["x"])
    return [float(loss) for loss in layer.losses]


def _ready(spec: Any, arrays: Arrays, dtype: str) -> tuple[Any, Any, Any]:
    """x, the layer built and with its weights, the mask."""
    import tensorflow as tf

    x = tf.constant(arrays["x"], dtype)
    mask = tf.constant(arrays["mask"]) if "mask" in arrays else None
    layer = _layer(spec, dtype, x.shape[1:])
    layer(x[..., ::-1])  # builds, and leaves losses that must not stay
    layer.set_weights([arrays[n] for n in sorted(arrays) if n.startswith("weight")])
    if spec["kind"] == "time" and spec["layers"][0]["keywords"].get("stateful"):
        layer.layer.reset_state()
    _inject(layer, arrays, dtype)
    return x, layer, mask


def _layer(spec: Any, dtype: str, shape: Any = None) -> Any:
    """The layer of a Spec; ``shape`` without the batch, where it is a model."""
    from keras import Input, Model, layers

    kind, keywords = spec["kind"], spec["keywords"]
    inner = [_layer(s, dtype, None if shape is None else shape[1:]) for s in spec["layers"]]
    if kind in ("lstm", "cell"):
        return {"lstm": layers.LSTM, "cell": layers.LSTMCell}[kind](dtype=dtype, **keywords)
    if kind == "both":
        return layers.Bidirectional(inner[0], dtype=dtype, **keywords)
    if kind == "time":
        return layers.TimeDistributed(inner[0], dtype=dtype, **keywords)
    if kind in ("one", "cells"):
        # RNN would wrap a list in StackedRNNCells of float32.
        stacked = inner[0] if kind == "one" else layers.StackedRNNCells(inner, dtype=dtype)
        return layers.RNN(stacked, dtype=dtype, **keywords)
    y = x = Input(shape, dtype=dtype)
    for layer in inner * 2 if kind == "twice" else inner:
        y = layer(y)
    return Model(x, y)


def _cells(layer: Any) -> list[Any]:
    """The LSTMCells inside, in the order of the weights."""
    import keras

    if isinstance(layer, keras.layers.LSTMCell):
        return [layer]
    return [cell for inner in layer._layers for cell in _cells(inner)]


def _inject(layer: Any, arrays: Arrays, dtype: str) -> None:
    """Dropout masks (1 or 4, B, size) for the next call."""
    import tensorflow as tf

    for i, cell in enumerate(_cells(layer)):
        for name in ("dropout", "recurrent_dropout"):
            if f"{name}{i}" in arrays:
                masks = [tf.constant(m, dtype) for m in arrays[f"{name}{i}"]]
                setattr(cell, f"_{name}_mask", masks if len(masks) == 4 else masks[0])
