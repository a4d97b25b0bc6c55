"""What live Keras does with masks, in the process of keras_live."""

from __future__ import annotations

from typing import Any

import numpy as np


def _read(tensor: Any) -> np.ndarray:
    """Any tensor as float64: NumPy has no bfloat16."""
    import tensorflow as tf

    return np.asarray(tf.cast(tensor, tf.float64))


def _structure(masks: Any) -> Any:
    """What ``compute_mask`` gave, with arrays in the place of tensors."""
    if masks is None:
        return None
    if isinstance(masks, list | tuple):
        return type(masks)(_structure(m) for m in masks)
    return np.asarray(masks)


def run_masking(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Outputs, masks and gradients of Masking layers; a float is cast to x's dtype first."""
    return [_run_masking(**request) for request in requests]


def _run_masking(
    mask_value: Any, x: np.ndarray, dtype: str, layer_dtype: str | None, d_y: np.ndarray
) -> dict[str, Any]:
    import keras
    import tensorflow as tf

    layer = keras.layers.Masking(mask_value, dtype=layer_dtype)
    tensor = tf.cast(tf.constant(x), dtype)
    with tf.GradientTape() as tape:
        if tensor.dtype.is_floating:
            tape.watch(tensor)
        y = layer(tensor)
        loss = tf.reduce_sum(tf.cast(y, "float64") * tf.constant(d_y))
    found = {"y": _read(y), "dtype": y.dtype.name, "mask": np.asarray(y._keras_mask)}
    found["compute_mask"] = np.asarray(layer.compute_mask(layer.dtype_policy.convert_input(
        tensor, autocast=True, dtype=layer.compute_dtype
    )))  # fmt: skip
    if tensor.dtype.is_floating:
        found["d_x"] = _read(tape.gradient(loss, tensor))
    return found


def masking_configs(values: list[Any]) -> list[dict[str, Any]]:
    """The config of a Masking layer of each value, as ``get_config`` and as a file gives it."""
    import keras

    def plain(config: dict[str, Any]) -> dict[str, Any]:
        value = config["mask_value"]  # Keras makes a list of its own kind of a list
        return {**config, "mask_value": list(value) if isinstance(value, list) else value}

    layers = [keras.layers.Masking(v, name="skip", dtype="float64") for v in values]
    serialize = keras.saving.serialize_keras_object
    return [{"live": plain(m.get_config()), "file": plain(serialize(m)["config"])} for m in layers]


def masks_of_configs(configs: list[dict[str, Any]], x: np.ndarray) -> list[np.ndarray]:
    """The masks that Masking layers of these configs make of x."""
    import keras

    return [np.asarray(keras.layers.Masking.from_config(c)(x)._keras_mask) for c in configs]


def _layer(kind: str, keywords: dict[str, Any], dtype: str) -> Any:
    import keras
    import tensorflow as tf

    class Stop(keras.layers.Layer):  # type: ignore[misc]
        """Another tensor, on which no mask hangs: it supports none, and Keras warns of that."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.supports_masking = False

        def call(self, x: Any) -> Any:
            return tf.identity(x)

    layers = keras.layers
    options = {**keywords, "dtype": dtype}
    if kind == "Bidirectional":
        merge_mode = options.pop("merge_mode", "concat")
        return layers.Bidirectional(layers.LSTM(**options), merge_mode, dtype=dtype)
    if kind == "StackedLSTM":
        units = options.pop("units")
        if isinstance(units, int):
            return layers.RNN(layers.LSTMCell(units, dtype=dtype), **options)
        return layers.RNN([layers.LSTMCell(u, dtype=dtype) for u in units], **options)
    if kind.startswith("TimeDistributed"):
        inner = {"LSTM": layers.LSTM, "Dense": layers.Dense}[kind.partition(" ")[2]]
        return layers.TimeDistributed(inner(**options), dtype=dtype)
    return {"Stop": Stop}.get(kind, getattr(layers, kind, None))(**options)


def run_stack(
    stack: list[tuple[str, dict[str, Any]]],
    weights: list[list[np.ndarray]],
    x: np.ndarray,
    d_output: np.ndarray,
) -> dict[str, Any]:
    """A Sequential of layers in float64, through which Keras itself hands the masks.

    Returns:
        output, the mask that reaches each layer of weights and leaves the last, the gradients of
        every layer's weights, and of x where it is floating-point.
    """
    import keras
    import tensorflow as tf

    layers = [_layer(kind, keywords, "float64") for kind, keywords in stack]
    model = keras.Sequential([keras.layers.Input(x.shape[1:], dtype=x.dtype.name), *layers])
    heavy = [m for m in layers if m.weights]
    for layer, values in zip(heavy, weights, strict=True):
        layer.set_weights(values)
    tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        if tensor.dtype.is_floating:
            tape.watch(tensor)
        output = model(tensor)
        loss = tf.reduce_sum(output * tf.constant(d_output))
    watched = [[w.value for w in m.weights] for m in heavy]
    gradients = tape.gradient(loss, [*watched, tensor] if x.dtype.kind == "f" else watched)
    found = {"output": _read(output)}
    if x.dtype.kind == "f":
        found["d_x"] = _read(gradients.pop())
    # An embedding's gradient comes as IndexedSlices.
    found["d_weights"] = [[_read(tf.convert_to_tensor(g)) for g in row] for row in gradients]
    masks, y = [], tensor
    for layer in layers:
        y = layer(y)
        mask = getattr(y, "_keras_mask", None)
        masks.append(None if mask is None else np.asarray(mask))
    return {**found, "masks": masks}


def run_masks(requests: list[dict[str, Any]]) -> list[Any]:
    """For layers that were called: what compute_mask gives, and what hangs on each output."""
    return [_run_masks(**request) for request in requests]


def _run_masks(
    kind: str, keywords: dict[str, Any], shape: tuple[int, ...], mask: np.ndarray | None
) -> dict[str, Any]:
    import keras
    import tensorflow as tf

    layer = _layer(kind, keywords, "float32")
    x = tf.ones(shape)
    given = None if mask is None else tf.constant(mask)
    try:
        outputs = keras.tree.flatten(layer(x, mask=given))
    except Exception as error:  # which, is what the suite asks
        return {"error": type(error).__name__}
    hanging = [_structure(getattr(y, "_keras_mask", None)) for y in outputs]
    return {"compute_mask": _structure(layer.compute_mask(x, given)), "hanging": hanging}


def train_embedding(table: np.ndarray, ids: np.ndarray, rate: float) -> dict[str, Any]:
    """One step of SGD on the sum of what ``Embedding(mask_zero=True)`` gives for ids."""
    import keras
    import tensorflow as tf

    layer = keras.layers.Embedding(*table.shape, mask_zero=True, dtype="float64")
    layer.build()
    fresh = layer.get_weights()[0]
    layer.set_weights([table])
    rule = keras.optimizers.SGD(learning_rate=rate)
    with tf.GradientTape() as tape:
        y = layer(tf.constant(ids))
        loss = tf.reduce_sum(y)
    rule.build(layer.trainable_variables)
    rule.apply(tape.gradient(loss, [v.value for v in layer.trainable_variables]))
    return {
        "fresh": fresh, "y": _read(y), "mask": np.asarray(y._keras_mask),
        "trained": layer.get_weights()[0],
    }  # fmt: skip


def changed_since_keras_2(value: float, dtype: str) -> tuple[list[bool], np.ndarray]:
    """What tf_keras's Masking makes of a step of ``value``: its mask, and the step itself."""
    import tensorflow as tf
    import tf_keras

    layer = tf_keras.layers.Masking(value, dtype=dtype)
    x = tf.cast(np.full((1, 1, 3), value), dtype)
    return np.asarray(layer.compute_mask(x)).ravel().tolist(), _read(layer(x)).ravel()
