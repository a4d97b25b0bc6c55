"""Keras's own LSTM on its torch backend, called eagerly."""

from __future__ import annotations

import os
from types import SimpleNamespace

from benchmarks.cases import DEVICE

os.environ["KERAS_BACKEND"] = "torch"
os.environ["KERAS_TORCH_DEVICE"] = DEVICE

import keras
import torch


def prepare(case, data):
    layer = keras.layers.LSTM(case.H)
    layer.build((case.B, case.T, case.F))
    layer.set_weights([data["kernel"], data["recurrent_kernel"], data["bias"]])
    x = torch.from_numpy(data["x"]).to(DEVICE)
    mask = None if data["mask"] is None else torch.from_numpy(data["mask"]).to(DEVICE)
    return SimpleNamespace(case=case, layer=layer, x=x, mask=mask, y=None)


def run(state):
    if state.case.mode == "inference":
        with torch.inference_mode():
            state.y = state.layer(state.x, mask=state.mask, training=False)
    else:
        for variable in state.layer.trainable_variables:
            variable.value.grad = None
        state.y = state.layer(state.x, mask=state.mask, training=True)
        state.y.sum().backward()


def output(state):
    arrays = {"output": state.y.detach().cpu().numpy()}
    if state.case.mode == "training":
        names = ("kernel_gradient", "recurrent_kernel_gradient", "bias_gradient")
        for name, variable in zip(names, state.layer.trainable_variables, strict=True):
            arrays[name] = variable.value.grad.cpu().numpy()
    return arrays
