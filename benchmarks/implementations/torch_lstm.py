"""The yardstick: a plain torch.nn.LSTM, batch_first. Masked: packed by the lengths, and its h_n.

It is handed the lengths ready-made; the layers that take a mask find them out in the timed call. On
CUDA too the lengths stay on the host, where packing wants them.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch.nn.utils.rnn import pack_padded_sequence

from benchmarks.cases import DEVICE


def prepare(case, data):
    lstm = torch.nn.LSTM(case.F, case.H, batch_first=True)
    with torch.no_grad():  # Keras's gates are i f c o, torch's i f g o: the same order
        lstm.weight_ih_l0.copy_(torch.from_numpy(data["kernel"]).T)
        lstm.weight_hh_l0.copy_(torch.from_numpy(data["recurrent_kernel"]).T)
        lstm.bias_ih_l0.copy_(torch.from_numpy(data["bias"]))
        lstm.bias_hh_l0.zero_()
    lstm.to(DEVICE).train(case.mode == "training")
    x = torch.from_numpy(data["x"]).to(DEVICE)
    lengths = None if data["lengths"] is None else torch.from_numpy(data["lengths"])
    return SimpleNamespace(case=case, lstm=lstm, x=x, lengths=lengths, y=None)


def _last(state):
    if state.lengths is None:
        return state.lstm(state.x)[0][:, -1]
    packed = pack_padded_sequence(state.x, state.lengths, batch_first=True, enforce_sorted=False)
    return state.lstm(packed)[1][0][0]


def run(state):
    if state.case.mode == "inference":
        with torch.inference_mode():
            state.y = _last(state)
    else:
        state.lstm.zero_grad()
        state.y = _last(state)
        state.y.sum().backward()


def output(state):
    arrays = {"output": state.y.detach().cpu().numpy()}
    if state.case.mode == "training":
        arrays["kernel_gradient"] = state.lstm.weight_ih_l0.grad.T.cpu().numpy()
        arrays["recurrent_kernel_gradient"] = state.lstm.weight_hh_l0.grad.T.cpu().numpy()
        arrays["bias_gradient"] = state.lstm.bias_ih_l0.grad.cpu().numpy()
    return arrays
