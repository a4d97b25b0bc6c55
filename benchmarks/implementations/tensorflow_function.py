"""Keras on TensorFlow, the layer (and its gradient) in one ``tf.function``."""

from __future__ import annotations

import os
from types import SimpleNamespace

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf


def prepare(case, data, jit_compile=False):
    layer = keras.layers.LSTM(case.H)
    layer.build((case.B, case.T, case.F))
    layer.set_weights([data["kernel"], data["recurrent_kernel"], data["bias"]])
    variables = [v.value for v in layer.trainable_variables]

    if case.mode == "inference":

        def step(x, mask):
            return layer(x, mask=mask, training=False), []
    else:

        def step(x, mask):
            with tf.GradientTape() as tape:
                y = layer(x, mask=mask, training=True)
                loss = tf.reduce_sum(y)
            return y, tape.gradient(loss, variables)

    mask = None if data["mask"] is None else tf.constant(data["mask"])
    return SimpleNamespace(
        step=tf.function(step, jit_compile=jit_compile),
        x=tf.constant(data["x"]),
        mask=mask,
        result=None,
    )


def run(state):
    y, gradients = state.step(state.x, state.mask)
    state.result = (y.numpy(), [g.numpy() for g in gradients])  # .numpy() waits


def output(state):
    y, gradients = state.result
    names = ("kernel_gradient", "recurrent_kernel_gradient", "bias_gradient")
    return {"output": y, **dict(zip(names, gradients, strict=False))}
