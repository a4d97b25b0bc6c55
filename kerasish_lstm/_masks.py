"""Any Keras mask, before and after an engine that knows none.

``compact`` moves each row's unmasked steps to the front, in order, and clears the rest; the engine
runs over rows of known lengths; ``spread`` and ``last_output`` show each original step what Keras
shows there. With p(t) = cumsum(mask)(t) - 1, the number of the last unmasked step up to t:

    output(t) = y(p(t))    if p(t) >= 0, and mask(t) or not zero_output_for_mask
                0          otherwise: before the first unmasked step, or zeroed

which is Keras 3.15 on TensorFlow, ``unroll=False`` (``keras/src/backend/tensorflow/rnn.py``),
without its loop. All steps here are in processing order: flip for ``go_backwards`` before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def compact(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The unmasked steps of every row, packed to the left, zeros behind them.

    Args:
        x: (B, T, F). mask: (B, T), bool, True where a step counts.

    Returns:
        x of the same shape, and lengths (B,), int64. Masked steps are cleared *before* anything
        is computed from them: an infinity or a NaN there would pass every test of the forward
        and turn the weights' gradients into NaN.
    """
    lengths = mask.sum(1)
    x = x.masked_fill(~mask.unsqueeze(-1), 0)
    if _is_left_packed(mask):
        return x, lengths
    order = torch.argsort(~mask, dim=1, stable=True)  # (B, T)
    return x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[2])), lengths


def _is_left_packed(mask: Tensor) -> bool:
    """Whether nothing needs to move. Asked on a CPU only: elsewhere the answer is a wait."""
    if mask.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return not bool((mask[:, 1:] & ~mask[:, :-1]).any())


def spread(y: Tensor, mask: Tensor, zero_output_for_mask: bool) -> Tensor:
    """Outputs of packed rows (B, T, U), back at the steps where Keras shows them."""
    position = mask.cumsum(1) - 1  # (B, T)
    shown = position >= 0
    if zero_output_for_mask:
        shown = shown & mask
    index = position.clamp(min=0).unsqueeze(-1).expand(-1, -1, y.shape[2])
    return y.gather(1, index).masked_fill(~shown.unsqueeze(-1), 0)


def cleared(y: Tensor, lengths: Tensor) -> Tensor:
    """y (B, T, U) of packed rows with zeros behind their ends."""
    steps = torch.arange(y.shape[1], device=y.device)
    return y.masked_fill((steps >= lengths.unsqueeze(1)).unsqueeze(-1), 0)


def at_length(y: Tensor, lengths: Tensor) -> Tensor:
    """y (B, T, U) at each row's last step, (B, U); rows of length 0 show their first step."""
    index = (lengths - 1).clamp(min=0).reshape(-1, 1, 1).expand(-1, 1, y.shape[2])
    return y.gather(1, index).squeeze(1)


def last_output(y: Tensor, mask: Tensor, zero_output_for_mask: bool) -> Tensor:
    """What Keras gives for the last processed step alone, (B, U)."""
    shown = mask[:, -1] if zero_output_for_mask else mask.any(1)
    return at_length(y, mask.sum(1)).masked_fill(~shown.unsqueeze(-1), 0)


def mask_after_rnn(layer: Any, mask: Tensor | None, entries: int) -> Any:
    """The mask that leaves Keras's RNN: a None for each entry of its state, too.

    Args:
        entries: h and c of an LSTM, the cells of a stack.
    """
    leaving = mask if layer.return_sequences else None
    return [leaving] + [None] * entries if layer.return_state else leaving
