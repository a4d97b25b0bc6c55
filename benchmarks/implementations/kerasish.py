"""This project's layer."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from benchmarks.cases import DEVICE
from kerasish_lstm import LSTM


def prepare(case, data):
    layer = LSTM(case.F, case.H, device=DEVICE)
    layer.set_weights([data["kernel"], data["recurrent_kernel"], data["bias"]])
    layer.train(case.mode == "training")
    x = torch.from_numpy(data["x"]).to(DEVICE)
    mask = None if data["mask"] is None else torch.from_numpy(data["mask"]).to(DEVICE)
    return SimpleNamespace(case=case, layer=layer, x=x, mask=mask, y=None)


def run(state):
    if state.case.mode == "inference":
        with torch.inference_mode():
            state.y = state.layer(state.x, mask=state.mask)
    else:
        state.layer.zero_grad()
        state.y = state.layer(state.x, mask=state.mask)
        state.y.sum().backward()


def output(state):
    arrays = {"output": state.y.detach().cpu().numpy()}
    if state.case.mode == "training":
        lstm = state.layer.lstm
        arrays["kernel_gradient"] = lstm.weight_ih_l0.grad.T.cpu().numpy()
        arrays["recurrent_kernel_gradient"] = lstm.weight_hh_l0.grad.T.cpu().numpy()
        arrays["bias_gradient"] = lstm.bias_ih_l0.grad.cpu().numpy()
    return arrays
