"""This project's layer."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from benchmarks.cases import DEVICE
from benchmarks.implementations.torch_lstm import array, change, tensor
from kerasish_lstm import LSTM, Bidirectional, DropoutMasks, StackedLSTM


def prepare(case, data):
    def lstm(features, **options):
        return LSTM(
            features,
            case.H,
            recurrent_activation=case.recurrent_activation,
            recurrent_dropout=case.recurrent_dropout,
            dtype=getattr(torch, case.dtype),
            device=DEVICE,
            **options,
        )

    if case.structure == "bidirectional":
        layer = Bidirectional(lstm(case.F))
        layers = [layer.forward_layer, layer.backward_layer]
    elif case.structure == "stack":
        layers = [lstm(case.F, return_sequences=True), lstm(case.H)]
        layer = StackedLSTM(layers)
    else:
        layer = lstm(case.F)
        layers = [layer]
    given = list(data["weights"].values())
    for at, each in enumerate(layers):
        each.set_weights(given[3 * at : 3 * at + 3])
    layer.train(case.mode == "training")
    x, mask, dropout = (tensor(data[name], case) for name in ("x", "mask", "dropout"))
    options = {} if dropout is None else {"dropout_masks": DropoutMasks(recurrent=dropout)}
    return SimpleNamespace(
        case=case, layer=layer, layers=layers, x=x, mask=mask, options=options, y=None
    )


def draw_own_masks(state):
    state.options = {}


def between(state):
    change(state.layer.parameters(), state.case)


def run(state):
    if state.case.mode == "inference":
        with torch.inference_mode():
            state.y = state.layer(state.x, mask=state.mask)
    else:
        state.layer.zero_grad()
        state.y = state.layer(state.x, mask=state.mask, **state.options)
        state.y.sum().backward()


def output(state):
    arrays = [array(state.y)]
    if state.case.mode == "training":
        for each in state.layers:
            lstm = each.lstm
            for weight in (lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0):
                arrays.append(array(weight.grad.t()))
    return arrays
