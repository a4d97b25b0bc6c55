"""What an engine must be beside equal: linear in T, and the one that was asked for."""

from __future__ import annotations

import itertools
import statistics
import time

import numpy as np
import pytest
import torch

from kerasish_lstm import LSTM, _engines
from kerasish_lstm.parity import assert_parity, oracle
from kerasish_lstm.parity.bounds import FLOAT64, error

from .cases import PRODUCT, Case
from .properties import given, st
from .runs import ours, truth
from .test_masks import test_both_engines_equal_the_oracle as of_any_mask

pytestmark = pytest.mark.smoke


def seconds(steps: int) -> float:
    layer: LSTM = LSTM(7, 11, use_cudnn=False, return_sequences=True)
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
    layer: LSTM = LSTM(3, 5, use_cudnn=False, return_sequences=True)
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
    limit = 8 * 2.5  # eight times the steps; quadratic would be 64
    assert any(seconds(1600) / seconds(200) < limit for _ in range(3))


def test_fused_holds_the_cell_behind_the_end_at_any_scale() -> None:
    """The column that holds c must win against any recurrent term."""
    rng = np.random.RandomState(2)
    weights = [rng.uniform(-900, 900, s) for s in ((3, 20), (5, 20), (20,))]
    x, mask = rng.uniform(-90, 90, (4, 9, 3)), np.arange(9) < np.array([[1], [0], [9], [4]])
    layer = LSTM(3, 5, use_cudnn=True, return_state=True, dtype=torch.float64)
    layer.set_weights(weights)
    result = layer(torch.tensor(x), mask=torch.tensor(mask))
    for mine, theirs in zip(result, oracle.forward(x, *weights, mask=mask), strict=True):
        assert_parity(mine, theirs, bound=1e-12)


@pytest.mark.parametrize("size", [1e18, 1e25, 1e30])
def test_fused_holds_the_cell_against_huge_weights(size: float) -> None:
    layer = LSTM(3, 5, use_cudnn=True, return_state=True)
    layer.set_weights([w * size for w in layer.get_weights()])
    x, mask = torch.randn(2, 7, 3), torch.arange(7) < torch.tensor([[3], [7]])
    _, h, c = layer(x, mask=mask)
    _, h3, c3 = layer(x[:, :3])
    assert torch.equal(c[0], c3[0]) and torch.equal(h[0], h3[0])


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


# Segments


@given(st.lists(st.integers(0, 29), max_size=9), st.sampled_from([1, 10**9]))
def test_segments_cover_every_step_of_every_row_once(lengths: list[int], work: int) -> None:
    lengths = sorted(lengths, reverse=True)
    pieces = _engines.segments(lengths, work)
    assert pieces[0].start == 0
    assert pieces[-1].stop == max([1, *lengths])
    assert all(one.stop == other.start for one, other in itertools.pairwise(pieces))
    for row, length in enumerate(lengths):
        run = sum(p.stop - p.start for p in pieces if row < p.rows)
        assert run >= length
        if len(pieces) > 1:  # a row leaves at the first boundary behind its end
            assert row >= max((p.rows for p in pieces if p.start >= length), default=0)


def test_segments_are_cut_where_it_pays() -> None:
    uniform = sorted((n % 100 + 1 for n in range(0, 3200, 37)), reverse=True)
    assert len(_engines.segments(uniform, 4 * 128 * 192)) == 4
    assert len(_engines.segments(uniform, 4 * 8 * 16)) == 1
    assert len(_engines.segments([100] * 64, 4 * 512 * 1024)) == 1  # nothing to save


@pytest.fixture
def cut_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_engines, "_WORTH_CUTTING", -1)


@pytest.mark.usefixtures("cut_always")
@pytest.mark.parametrize(
    "case", [c for c in PRODUCT if c.mask not in ("none", "full")][::5], ids=lambda c: c.id
)
def test_segments_change_nothing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    run = _engines._run_segments
    monkeypatch.setattr(_engines, "_run_segments", lambda *a: used.append(1) or run(*a))
    actual = ours(case, torch.float64, use_cudnn=True)
    assert used
    for name, value in truth(case).items():
        assert_parity(actual[name], value, bound=FLOAT64, what=name)


@pytest.mark.usefixtures("cut_always")
def test_segments_change_nothing_for_any_mask() -> None:
    of_any_mask()


@pytest.mark.parametrize("state", [False, True])
def test_segments_at_a_size_that_is_cut_by_itself(state: bool) -> None:
    torch.manual_seed(1)
    layer = LSTM(64, 128, use_cudnn=True, return_state=state, dtype=torch.float64)
    x, mask = torch.randn(31, 101, 64, dtype=torch.float64), torch.rand(31, 101) < 0.5
    mask &= torch.arange(101) < torch.randint(0, 102, (31, 1))
    result = layer(x, mask=mask)
    weights = [w for w in layer.get_weights()]
    expected = oracle.forward(x.numpy(), *weights, mask=mask.numpy())
    for mine, theirs in zip(result if state else (result,), expected, strict=False):
        assert_parity(mine, theirs, bound=FLOAT64)
