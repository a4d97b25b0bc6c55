"""Keras's own LSTM on its torch backend, called eagerly."""

from __future__ import annotations

import os
from types import SimpleNamespace

from benchmarks.cases import DEVICE

os.environ["KERAS_BACKEND"] = "torch"
os.environ["KERAS_TORCH_DEVICE"] = DEVICE

import torch

from benchmarks.implementations.keras_layers import build
from benchmarks.implementations.torch_lstm import array, change, tensor


def prepare(case, data):
    layer = build(case, data)
    x, mask, dropout = (tensor(data[name], case) for name in ("x", "mask", "dropout"))
    if dropout is not None:
        given = list(dropout)
        layer.cell.get_recurrent_dropout_mask = lambda step_input: given
    return SimpleNamespace(case=case, layer=layer, x=x, mask=mask, y=None)


def draw_own_masks(state):
    del state.layer.cell.get_recurrent_dropout_mask


def between(state):
    change([variable.value for variable in state.layer.trainable_variables], state.case)


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
    arrays = [array(state.y)]
    if state.case.mode == "training":
        arrays += [array(v.value.grad) for v in state.layer.trainable_variables]
    return arrays
