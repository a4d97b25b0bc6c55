"""What Keras does in a stack of cells because it runs them step by step.

A stack here runs each cell over the whole sequence. What the steps leave behind is made here: one
dropout mask for each cell and call, the dtype of a cell that does not cast, and the losses of the
cells' activity regularizers.

Source: Keras 3.15.1 ``RNN``, ``StackedRNNCells`` and ``rnn()`` of the TensorFlow backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from .._dropout import DropoutMasks, on_input
from .._engines import LSTMState, TorchLSTM, input_product, lstm_step
from .cell import LSTMCell


class Run(NamedTuple):
    """One cell of a stack in one call: its parameters as they are computed with, and its masks."""

    cell: LSTMCell
    lstm: TorchLSTM
    dtype: torch.dtype
    masks: DropoutMasks

    def step(self, x: Tensor, state: LSTMState) -> LSTMState:
        """x (B, F) of any dtype."""
        cell = self.cell
        sequence, left = on_input(x.to(self.dtype).unsqueeze(1), self.masks, cell._plan)
        return lstm_step(
            input_product(self.lstm, sequence.squeeze(1), left.input),
            LSTMState(*(s.to(self.dtype) for s in state)),
            self.lstm.weight_hh_l0.t(),
            cell._activation,
            cell._recurrent_activation,
            left.recurrent,
        )


def run_of(
    cell: LSTMCell,
    x: Tensor,
    state: LSTMState,
    given: DropoutMasks | None,
    before: Sequence[Run],
    training: bool,
    *,
    mixed: bool,
) -> Run:
    """How a cell computes in a call on x (B, T, F), above the runs ``before``.

    A cell without autocast takes x as it comes, and computes in the widest dtype among x, the state
    and its weights. They are rounded to its policy's dtype first, but not inside a wrapper of a
    mixed policy (``mixed``): so it is in Keras.

    A cell that stands in the stack twice has one set of dropout masks a call.
    """
    dtype = cell.compute_dtype
    rounded = cell.config.autocast or not mixed
    if not cell.config.autocast:
        own = dtype if rounded else cell.lstm.weight_hh_l0.dtype
        dtype = reduce(torch.promote_types, (x.dtype, state.h.dtype, state.c.dtype), own)
    kept = next((run.masks for run in before if run.cell is cell), DropoutMasks())
    if training and kept != DropoutMasks() and isinstance(given, DropoutMasks | None):
        own_masks = given or DropoutMasks()
        given = DropoutMasks(*(k if g is None else g for g, k in zip(own_masks, kept, strict=True)))
    masks = cell._masks_of_a_call(x.to(dtype), given, training)
    return Run(cell, cell._for_engine(dtype, rounded=rounded), dtype, masks)


def record_losses(
    runs: Sequence[Run],
    x: Tensor,
    mask: Tensor | None,
    states: Sequence[LSTMState],
    *,
    go_backwards: bool,
    unroll: bool,
    in_a_list: bool,
) -> None:
    """The activity losses of the cells in a call: of output, h and c of each call of each cell.

    A step is computed at masked steps too, from the x that stands there and the state before; then
    the state is what it was. Two calls on the first x come before the steps: one of the cells of a
    list, for their dropout masks, and one to learn the dtype of the output, unless it unrolls.

    Args:
        x, mask: (B, T, F) and (B, T), in processing order.
        states: before the first step.
    """
    called: dict[LSTMCell, list[LSTMState]] = {run.cell: [] for run in runs}

    def step(x: Tensor, states: Sequence[LSTMState]) -> list[LSTMState]:
        ends = []
        for run, state in zip(runs, states, strict=True):
            ends.append(run.step(x, state))
            called[run.cell].append(ends[-1])
            x = ends[-1].h
        return ends

    if mask is not None:  # NaN at a masked step would be in the gradient of every weight
        x = x.masked_fill(~mask.unsqueeze(-1) & ~x.isfinite(), 0)
    first = x[:, -1 if go_backwards else 0]
    states = [
        LSTMState(*(s.to(run.dtype) for s in state))
        for run, state in zip(runs, states, strict=True)
    ]
    for _ in range(in_a_list + (not unroll)):
        step(first, states)
    active = None if mask is None else mask.unsqueeze(-1).unbind(1)  # T times (B, 1)
    for t, x_t in enumerate(x.unbind(1)):
        ends = step(x_t, states)
        if active is not None:
            ends = [
                LSTMState(*(torch.where(active[t], n, o) for n, o in zip(new, old, strict=True)))
                for new, old in zip(ends, states, strict=True)
            ]
        states = ends
    for cell, results in called.items():
        cell._record_activity([(state.h, state) for state in results])
