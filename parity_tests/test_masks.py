"""Any mask, any shape: properties by hypothesis, against the float64 oracle."""

from __future__ import annotations

import numpy as np
import torch

from kerasish_lstm import LSTM
from kerasish_lstm._masks import compact, last_output, spread
from kerasish_lstm.parity import assert_parity, oracle

from .properties import given, hnp, st

SIZES = st.integers(1, 7)
POISON = st.sampled_from([np.nan, np.inf, -np.inf, 1e300])


@st.composite
def masks(draw: st.DrawFn, batch: int | None = None) -> np.ndarray:
    shape = (draw(SIZES) if batch is None else batch, draw(st.integers(1, 11)))
    return draw(hnp.arrays(bool, shape))


@given(masks(), SIZES, SIZES, st.tuples(*[st.booleans()] * 4), POISON, st.integers(0, 2**32 - 1))
def test_both_engines_equal_the_oracle(
    mask: np.ndarray, features: int, units: int, flags: tuple[bool, ...], poison: float, seed: int
) -> None:
    sequences, backwards, zero, bias = flags
    batch, steps = mask.shape
    rng = np.random.RandomState(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.uniform(-1, 1, shape) / np.sqrt(units)

    weights = [draw(features, 4 * units), draw(units, 4 * units)]
    weights += [draw(4 * units)] if bias else []
    x, h0, c0 = draw(batch, steps, features), draw(batch, units), draw(batch, units)
    options = {
        "return_sequences": sequences, "go_backwards": backwards, "zero_output_for_mask": zero
    }  # fmt: skip
    truth = oracle.forward(x, *weights, h0=h0, c0=c0, mask=mask, **options)
    cotangents = {
        "d_output": rng.uniform(-1, 1, truth.output.shape),
        "d_h": rng.uniform(-1, 1, truth.h.shape),
        "d_c": rng.uniform(-1, 1, truth.c.shape),
    }
    slopes = oracle.gradients(x, *weights, h0=h0, c0=c0, mask=mask, **options, **cotangents)
    x[~mask] = poison
    for engine in ("auto", True, False):
        layer = LSTM(
            features, units, use_bias=bias, use_cudnn=engine, return_state=True,
            dtype=torch.float64, **options,
        )  # fmt: skip
        layer.set_weights(weights)
        begin = [torch.tensor(s, requires_grad=True) for s in (h0, c0)]
        tensor = torch.tensor(x, requires_grad=True)
        result = layer(tensor, begin, torch.tensor(mask))
        for mine, theirs in zip(result, truth, strict=True):
            assert_parity(mine, theirs, bound=1e-12)
        loss = sum(
            (r * torch.tensor(d)).sum() for r, d in zip(result, cotangents.values(), strict=True)
        )
        parameters = list(layer.parameters())
        found = torch.autograd.grad(loss, [tensor, *parameters, *begin], allow_unused=True)
        wanted = [slopes.x, slopes.kernel.T, slopes.recurrent_kernel.T]
        wanted += [slopes.bias] if bias else []
        for mine, theirs in zip(found, [*wanted, slopes.h0, slopes.c0], strict=True):
            mine = torch.zeros(theirs.shape) if mine is None else mine  # noqa: PLW2901
            assert_parity(mine.double(), theirs, bound=1e-12)


@given(masks(), SIZES)
def test_compact_keeps_the_unmasked_steps_in_order_and_clears_the_rest(
    mask: np.ndarray, features: int
) -> None:
    x = np.arange(1.0, mask.size * features + 1).reshape(*mask.shape, features)
    packed, lengths = compact(torch.tensor(x), torch.tensor(mask))
    for row, kept, steps, length in zip(packed.numpy(), mask, x, lengths, strict=True):
        assert length == kept.sum()
        assert np.array_equal(row[:length], steps[kept])
        assert not row[length:].any()


@given(masks(), st.booleans())
def test_spread_shows_each_step_the_last_output_so_far(mask: np.ndarray, zero: bool) -> None:
    y = np.arange(1.0, mask.size + 1).reshape(*mask.shape, 1)
    shown = spread(torch.tensor(y), torch.tensor(mask), zero).numpy()
    last = last_output(torch.tensor(y), torch.tensor(mask), zero).numpy()
    for b, row in enumerate(mask):
        done, held = 0, 0.0
        for t, counts in enumerate(row):
            done += counts
            held = y[b, done - 1, 0] if counts else (0.0 if zero else held)
            assert shown[b, t, 0] == held
        assert last[b, 0] == held


@given(masks(batch=3), st.integers(0, 2**32 - 1))
def test_an_integer_or_float_mask_and_one_row_for_all_mean_the_same(
    mask: np.ndarray, seed: int
) -> None:
    torch.manual_seed(seed)
    layer: LSTM = LSTM(2, 3, return_sequences=True)
    x = torch.randn(3, mask.shape[1], 2)
    truth = torch.tensor(mask)
    expected = layer(x, mask=truth)
    for same in (truth.int(), truth.double(), truth.unsqueeze(-1), [truth, None]):
        assert torch.equal(layer(x, mask=same), expected)
    row = truth[:1]
    assert torch.equal(layer(x, mask=row), layer(x, mask=row.expand(3, -1)))
