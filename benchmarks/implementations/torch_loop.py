"""A loop over the steps in torch, as one writes it by hand: one product with all of x before it.

``unbind`` and no index: the backward of an index into x's product takes all of it, at every step.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch.nn.functional import hardsigmoid

from benchmarks.implementations.torch_lstm import array, change, tensor


def lstm(case, weights, x, mask, dropout):
    """The outputs of all steps, each (B, H). dropout: (4, B, H), by gate."""
    kernel, recurrent_kernel, bias = weights
    gate = torch.sigmoid if case.recurrent_activation == "sigmoid" else hardsigmoid
    h = c = x.new_zeros(x.shape[0], case.H)
    keeps = [None] * x.shape[1] if mask is None else mask.unsqueeze(-1).unbind(1)
    by_gate = recurrent_kernel.unflatten(1, (4, case.H)).transpose(0, 1)  # (4, H, H)
    outputs = []
    for projected, keep in zip((x @ kernel + bias).unbind(1), keeps, strict=True):
        if dropout is None:
            i, f, g, o = torch.addmm(projected, h, recurrent_kernel).chunk(4, 1)
        else:
            i, f, g, o = (torch.bmm(h * dropout, by_gate)).unbind(0)
            i, f, g, o = (p + z for p, z in zip(projected.chunk(4, 1), (i, f, g, o), strict=True))
        new_c = gate(f) * c + gate(i) * torch.tanh(g)
        new_h = gate(o) * torch.tanh(new_c)
        h = new_h if keep is None else torch.where(keep, new_h, h)
        c = new_c if keep is None else torch.where(keep, new_c, c)
        outputs.append(h)
    return outputs


def _last(state):
    case, x, mask, dropout = state.case, state.x, state.mask, state.dropout
    if case.recurrent_dropout and dropout is None:
        kept = 1 - case.recurrent_dropout
        dropout = x.new_empty(4, case.B, case.H).bernoulli_(kept).div_(kept)
    first, second = state.weights[:3], state.weights[3:]
    outputs = lstm(case, first, x, mask, dropout)
    if case.structure == "stack":
        outputs = lstm(case, second, torch.stack(outputs, 1), mask, None)
    elif case.structure == "bidirectional":
        flipped = None if mask is None else mask.flip(1)
        return torch.cat([outputs[-1], lstm(case, second, x.flip(1), flipped, None)[-1]], -1)
    return outputs[-1]


def prepare(case, data):
    weights = [tensor(values, case) for values in data["weights"].values()]
    for weight in weights:
        weight.requires_grad_(case.mode == "training")
    x, mask, dropout = (tensor(data[name], case) for name in ("x", "mask", "dropout"))
    return SimpleNamespace(case=case, weights=weights, x=x, mask=mask, dropout=dropout, y=None)


def draw_own_masks(state):
    state.dropout = None


def between(state):
    change(state.weights, state.case)


def run(state):
    if state.case.mode == "inference":
        with torch.inference_mode():
            state.y = _last(state)
    else:
        for weight in state.weights:
            weight.grad = None
        state.y = _last(state)
        state.y.sum().backward()


def output(state):
    return [array(state.y), *(array(w.grad) for w in state.weights if w.grad is not None)]
