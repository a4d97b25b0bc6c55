"""What runs in the live-Keras process for test_dropout."""

from __future__ import annotations

from typing import Any

import numpy as np


def run_tf_keras(requests: list[dict[str, Any]]) -> list[dict[str, np.ndarray]]:
    """Outputs and gradients of tf_keras LSTMs in training, with the masks given."""
    return [_run_tf_keras(**request) for request in requests]


def _run_tf_keras(keywords: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import tensorflow as tf
    import tf_keras

    units = arrays["recurrent_kernel"].shape[0]
    layer = tf_keras.layers.LSTM(units, dtype="float64", **keywords)
    layer.build(arrays["x"].shape)
    names = [n for n in ("kernel", "recurrent_kernel", "bias") if n in arrays]
    layer.set_weights([arrays[n] for n in names])
    # The layer draws where it runs its default code, its cell where it loops.
    for owner in (layer, layer.cell):
        for name in ("dropout_mask", "recurrent_dropout_mask"):
            if name in arrays:
                masks = [tf.constant(m) for m in arrays[name]]
                masks = masks if len(masks) == 4 else masks * 4
                get = f"get_{name}_for_cell"
                setattr(owner, get, lambda *_, masks=masks, **__: masks)
    x = tf.constant(arrays["x"])
    variables = layer.trainable_weights
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, mask=tf.constant(arrays["mask"]), training=True)
        loss = tf.reduce_sum(y * arrays["d_output"])
    d_x, *d_weights = tape.gradient(loss, [x, *variables])
    found = {"output": y, "d_x": d_x}
    found |= {f"d_{n}": d for n, d in zip(names, d_weights, strict=True)}
    return {k: np.asarray(v) for k, v in found.items()}


def drawn(library: str, requests: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
    """The shapes of the masks that a layer draws in a call in training, or None, by request."""
    return [_drawn(library, **request) for request in requests]


def _drawn(library: str, keywords: dict[str, Any], shape: tuple[int, ...]) -> tuple[Any, Any]:
    import importlib

    k = importlib.import_module(library)
    layer = k.layers.LSTM(2, **keywords)
    layer.build(shape)
    seen: dict[str, Any] = {"input": None, "recurrent": None}

    def watch(owner: Any, method: str, role: str) -> None:
        original = getattr(owner, method)

        def watched(*args: Any, **kwargs: Any) -> Any:
            masks = original(*args, **kwargs)
            if masks is not None:
                many = isinstance(masks, list | tuple)
                one = np.shape(masks[0] if many else masks)
                seen[role] = (len(masks) if many else 1, one)
            return masks

        setattr(owner, method, watched)

    if library == "keras":
        watch(layer.cell, "get_dropout_mask", "input")
        watch(layer.cell, "get_recurrent_dropout_mask", "recurrent")
    else:
        for owner in (layer, layer.cell):
            watch(owner, "get_dropout_mask_for_cell", "input")
            watch(owner, "get_recurrent_dropout_mask_for_cell", "recurrent")
    layer(np.ones(shape, np.float32), training=True)
    return seen["input"], seen["recurrent"]
