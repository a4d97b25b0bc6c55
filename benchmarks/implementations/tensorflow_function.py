"""Keras on TensorFlow, the layer (and its gradient) in one ``tf.function``."""

from __future__ import annotations

import os
from types import SimpleNamespace

os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np
import tensorflow as tf

from benchmarks.implementations.keras_layers import build


def prepare(case, data, jit_compile=False):
    if case.recurrent_dropout:
        raise NotImplementedError("it draws its masks itself, so nothing can check it")
    layer = build(case, data)
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
        x=tf.constant(data["x"], case.dtype),
        mask=mask,
        result=None,
    )


def run(state):
    y, gradients = state.step(state.x, state.mask)
    state.result = [y.numpy(), *(g.numpy() for g in gradients)]  # .numpy() waits


def output(state):
    return [a if a.dtype == np.float64 else a.astype(np.float32) for a in state.result]
