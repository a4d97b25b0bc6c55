"""What an engine must be beside equal: linear in T, and the one that was asked for."""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest
import torch

from kerasish_lstm import LSTM
from kerasish_lstm.parity import assert_parity, oracle
from kerasish_lstm.parity.bounds import error

from .cases import Case
from .runs import ours, truth


def seconds(steps: int) -> float:
    layer: LSTM = LSTM(7, 11, activation="softsign", return_sequences=True)
    x = torch.randn(5, steps, 7)
    layer(x).sum().backward()
    times = []
    for _ in range(5):
        output = layer(x).sum()
        begin = time.perf_counter()
        output.backward()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


@pytest.mark.parametrize("masked", [False, True])
def test_scan_backward_takes_the_steps_apart_once(masked: bool) -> None:
    """Quadratic would be one select a step: each of their backwards fills a whole (B, T, 4U)."""
    layer: LSTM = LSTM(3, 5, activation="relu", return_sequences=True)
    mask = torch.ones(2, 11, dtype=torch.bool) if masked else None
    x = torch.randn(2, 11, 3, requires_grad=True)
    seen, names = set(), []
    queue = [layer(x, mask=mask).grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        names.append(type(node).__name__)
        queue += [n for n, _ in node.next_functions]
    assert names.count("UnbindBackward0") == 1
    assert not [n for n in names if n.startswith("Select")]


def test_scan_backward_is_linear_in_time() -> None:
    ratio = min(seconds(1600) / seconds(200) for _ in range(3))
    assert ratio < 8 * 2.5  # eight times the steps; quadratic would be 64


def test_fused_holds_the_cell_behind_the_end_at_any_scale() -> None:
    """The column that holds c must win against any recurrent term."""
    rng = np.random.RandomState(2)
    weights = [rng.uniform(-900, 900, s) for s in ((3, 20), (5, 20), (20,))]
    x, mask = rng.uniform(-90, 90, (4, 9, 3)), np.arange(9) < np.array([[1], [0], [9], [4]])
    layer = LSTM(3, 5, return_state=True, dtype=torch.float64)
    layer.set_weights(weights)
    result = layer(torch.tensor(x), mask=torch.tensor(mask))
    for mine, theirs in zip(result, oracle.forward(x, *weights, mask=mask), strict=True):
        assert_parity(mine, theirs, bound=1e-12)


def test_tf32_costs_what_it_costs(device: torch.device) -> None:
    """Labelled: on CUDA with TF32 on, ten bits of mantissa. On a CPU the flags mean nothing."""
    case = Case("gaps", "given", True, True, batch=7, steps=11, features=5, units=13)
    before = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        actual = ours(case, torch.float32, device)
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
    expected = truth(case)
    worst = max(error(actual[name], value) for name, value in expected.items())
    assert worst < (5e-3 if device.type == "cuda" else 1e-5)
