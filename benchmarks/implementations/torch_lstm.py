"""The yardstick: a plain torch.nn.LSTM, batch_first.

Masked, it has two exact ways to the last output: packed by the lengths, and its h_n; or over the
padding, and the output at each length. ``prepare`` tries both, and the faster one is timed.

It is handed the lengths ready-made; the layers that take a mask find them out in the timed call. On
CUDA too the lengths stay on the host, where packing wants them.
"""

from __future__ import annotations

import time
from types import SimpleNamespace

import torch
from torch.nn.utils.rnn import pack_padded_sequence

from benchmarks.cases import DEVICE

SUFFIXES = {"one": ("l0",), "bidirectional": ("l0", "l0_reverse"), "stack": ("l0", "l1")}


def tensor(values, case):
    """On the device; floats in the case's dtype, which holds them exactly; None stays None."""
    if values is None:
        return None
    found = torch.from_numpy(values).to(DEVICE)
    return found.to(getattr(torch, case.dtype)) if found.is_floating_point() else found


def array(values):
    """A NumPy array; bfloat16 becomes float32."""
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def prepare(case, data):
    if case.recurrent_activation != "sigmoid":
        raise NotImplementedError(f"nn.LSTM knows no {case.recurrent_activation}")
    if case.recurrent_dropout:
        raise NotImplementedError("nn.LSTM knows no recurrent dropout")
    if case.mask not in ("none", "right"):
        raise NotImplementedError("a packed sequence has its steps on the left")
    lstm = torch.nn.LSTM(
        case.F,
        case.H,
        batch_first=True,
        bidirectional=case.structure == "bidirectional",
        num_layers=2 if case.structure == "stack" else 1,
        dtype=getattr(torch, case.dtype),
        device=DEVICE,
    )
    given = iter(data["weights"].values())
    weights = []
    with torch.no_grad():  # Keras's gates are i f c o, torch's i f g o: the same order
        for suffix in SUFFIXES[case.structure]:
            for name in ("weight_ih", "weight_hh", "bias_ih"):
                weights.append(getattr(lstm, f"{name}_{suffix}"))
                weights[-1].copy_(torch.from_numpy(next(given)).t())
            getattr(lstm, f"bias_hh_{suffix}").zero_()
    lstm.train(case.mode == "training")
    lengths = None if data["lengths"] is None else torch.from_numpy(data["lengths"])
    x = tensor(data["x"], case)
    state = SimpleNamespace(
        case=case, lstm=lstm, weights=weights, x=x, lengths=lengths, packs=True, y=None
    )
    if lengths is not None and case.structure != "bidirectional":
        state.at_end = (lengths - 1).view(-1, 1, 1).expand(-1, 1, case.H).to(DEVICE)
        state.packs = _seconds(state, packs=True) < _seconds(state, packs=False)
    return state


def _seconds(state, packs):
    """Of a call, the least of three after one untimed."""
    state.packs = packs
    times = []
    for _ in range(4):
        start = time.perf_counter()
        run(state)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def way(state):
    """Of the ways through a mask, the one that is timed."""
    if state.lengths is None or state.case.structure == "bidirectional":
        return None
    return "packed" if state.packs else "over the padding"


def change(weights, case):
    """Other weights than at the last call, as under an optimizer, and of the same size."""
    if case.mode == "training":
        with torch.no_grad():
            for weight in weights:
                weight.neg_()


def between(state):
    change(state.weights, state.case)


def _last(state):
    x, case = state.x, state.case
    if state.lengths is not None and not state.packs:
        return state.lstm(x)[0].gather(1, state.at_end)[:, 0]
    if state.lengths is not None:
        x = pack_padded_sequence(x, state.lengths, batch_first=True, enforce_sorted=False)
    elif case.structure != "bidirectional":
        return state.lstm(x)[0][:, -1]
    h = state.lstm(x)[1][0]
    return torch.cat([h[0], h[1]], -1) if case.structure == "bidirectional" else h[-1]


def run(state):
    if state.case.mode == "inference":
        with torch.inference_mode():
            state.y = _last(state)
    else:
        state.lstm.zero_grad()
        state.y = _last(state)
        state.y.sum().backward()


def output(state):
    arrays = [array(state.y)]
    if state.case.mode == "training":
        arrays += [array(weight.grad.t()) for weight in state.weights]
    return arrays
