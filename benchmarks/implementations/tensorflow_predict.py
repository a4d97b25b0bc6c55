"""Keras on TensorFlow, by ``model.predict_on_batch``: NumPy in, NumPy out. Inference only."""

from __future__ import annotations

import os
from types import SimpleNamespace

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf  # noqa: F401  (so that a missing TensorFlow is named as such)


def prepare(case, data):
    if case.mode == "training":
        raise NotImplementedError("predict_on_batch does not train")
    x = keras.Input((case.T, case.F), batch_size=case.B)
    mask = keras.Input((case.T,), batch_size=case.B, dtype="bool")
    layer = keras.layers.LSTM(case.H)
    if case.masked:
        model = keras.Model([x, mask], layer(x, mask=mask))
        inputs = [data["x"], data["mask"]]
    else:
        model = keras.Model(x, layer(x))
        inputs = data["x"]
    layer.set_weights([data["kernel"], data["recurrent_kernel"], data["bias"]])
    return SimpleNamespace(model=model, inputs=inputs, y=None)


def run(state):
    state.y = state.model.predict_on_batch(state.inputs)


def output(state):
    return {"output": state.y}
