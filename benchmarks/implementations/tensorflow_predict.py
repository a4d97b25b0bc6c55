"""Keras on TensorFlow, by ``model.predict_on_batch``: NumPy in, NumPy out. Inference only."""

from __future__ import annotations

import os
from types import SimpleNamespace

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf

from benchmarks.implementations.keras_layers import build


def prepare(case, data):
    if case.mode == "training":
        raise NotImplementedError("predict_on_batch does not train")
    x = keras.Input((case.T, case.F), batch_size=case.B, dtype=case.dtype)
    mask = keras.Input((case.T,), batch_size=case.B, dtype="bool")
    layer = build(case, data)
    array = data["x"].astype(tf.as_dtype(case.dtype).as_numpy_dtype)
    if case.mask == "none":
        model, inputs = keras.Model(x, layer(x)), array
    else:
        model, inputs = keras.Model([x, mask], layer(x, mask=mask)), [array, data["mask"]]
    return SimpleNamespace(model=model, inputs=inputs, y=None)


def run(state):
    state.y = state.model.predict_on_batch(state.inputs)


def output(state):
    return [state.y if state.y.dtype == np.float64 else state.y.astype(np.float32)]
