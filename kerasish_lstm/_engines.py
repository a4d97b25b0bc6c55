"""The recurrence itself, twice: ``fused`` (torch.nn.LSTM's kernels) and ``scan`` (any activation).

    i, f, g, o = split(x_t K + h R + b, 4)
    c' = s(f) * c + s(i) * a(g)
    h' = s(o) * a(c')

with a the activation and s the recurrent activation. Source: Keras 3.15.1 ``LSTMCell.call``
(Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000).

Both engines read the parameters of the same ``nn.LSTM`` and have one signature,
``(lstm, x, state, lengths, final_state, ...) -> (y, state)``. No engine sees a mask: rows are
packed to the left, zeros follow after ``lengths``, and the outputs there are arbitrary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ._masks import at_length
from .activations import ACTIVATIONS, Function
from .config import LSTMConfig
from .errors import InputError

if TYPE_CHECKING:

    class TorchLSTM(nn.LSTM):
        """``nn.LSTM``, as what it is to this package: its weights are tensors."""

        weight_ih_l0: Tensor
        weight_hh_l0: Tensor
        bias_ih_l0: Tensor
        bias_hh_l0: Tensor

else:
    TorchLSTM = nn.LSTM


class LSTMState(NamedTuple):
    """The state of an LSTM: h (B, U), its output, and c (B, U), its cell."""

    h: Tensor
    c: Tensor


def why_not_fused(config: LSTMConfig, training: bool) -> str | None:
    """Why ``nn.LSTM``'s kernels cannot compute this layer, or None where they can.

    This one function is the choice of the engine, the text of ``repr`` and the text of the
    error that ``use_cudnn=True`` raises.
    """
    if config.use_cudnn is False:
        return "use_cudnn=False"
    for keyword, needed in (("activation", "tanh"), ("recurrent_activation", "sigmoid")):
        value = getattr(config, keyword)
        if value != needed:
            name = value if isinstance(value, str) else getattr(value, "__name__", repr(value))
            return f"{keyword} is {name}, the fused kernels have {needed} alone"
    if training and config.recurrent_dropout > 0:
        return "recurrent_dropout > 0 in training changes h between the steps"
    return None


def lstm_step(
    z_x: Tensor, state: LSTMState, recurrent: Tensor, activation: Function, gate: Function
) -> LSTMState:
    """One step: z_x (B, 4U) is x K + b, recurrent (U, 4U) is R."""
    h, c = state
    i, f, g, o = torch.addmm(z_x, h, recurrent).chunk(4, dim=1)  # each (B, U)
    c = gate(f) * c + gate(i) * activation(g)
    return LSTMState(gate(o) * activation(c), c)


def scan(
    lstm: TorchLSTM,
    x: Tensor,
    state: LSTMState,
    lengths: Tensor | None,
    final_state: bool,
    activation: Function,
    gate: Function,
) -> tuple[Tensor, LSTMState]:
    """The recurrence as a loop over time, for any activations.

    The steps are taken apart by one ``unbind``: indexing ``z[t]`` would make the backward
    quadratic in T, since each select's backward fills a whole (B, T, 4U).
    """
    del final_state  # it is at hand anyway
    bias = lstm.bias_ih_l0 + lstm.bias_hh_l0 if lstm.bias else None
    z = nn.functional.linear(x, lstm.weight_ih_l0, bias)  # (B, T, 4U)
    state = LSTMState(*(s.to(z.dtype) for s in state))
    recurrent = lstm.weight_hh_l0.t()
    active: tuple[Tensor, ...] | None = None
    if lengths is not None:
        steps = torch.arange(x.shape[1], device=x.device)
        active = (steps.unsqueeze(1) < lengths).unsqueeze(-1).unbind(0)  # T times (B, 1)
    for function in {activation, gate} - set(ACTIVATIONS.values()):
        shape = function(state.c).shape
        if shape != state.c.shape:
            raise InputError(
                f"LSTM: the activation {function!r} turned a tensor of shape "
                f"{tuple(state.c.shape)} into {tuple(shape)}; it must keep the shape (B, U)."
            )
    outputs = []
    for t, z_t in enumerate(z.unbind(1)):
        if active is None:
            state = lstm_step(z_t, state, recurrent, activation, gate)
        else:
            # Ended rows compute a step from zeros: their own values could overflow by now,
            # and 0 * inf in the backward is NaN.
            begin = LSTMState(*(s.masked_fill(~active[t], 0) for s in state))
            end = lstm_step(z_t, begin, recurrent, activation, gate)
            state = LSTMState(
                *(torch.where(active[t], new, old) for new, old in zip(end, state, strict=True))
            )
        outputs.append(state.h)
    return torch.stack(outputs, 1), state


def fused(
    lstm: TorchLSTM, x: Tensor, state: LSTMState, lengths: Tensor | None, final_state: bool
) -> tuple[Tensor, LSTMState]:
    """The recurrence by ``nn.LSTM``: cuDNN, oneDNN or what torch has.

    The state is that of the last step of the row, or at ``lengths`` where ``final_state`` asks
    for it (otherwise it is not looked for, and must not be read).
    """
    hx = (state.h.unsqueeze(0), state.c.unsqueeze(0))
    if lengths is not None and final_state:
        if x.is_cuda:
            return _fused_packed(lstm, x, hx, lengths)
        return _fused_held(lstm, x, hx, lengths)
    if x.is_cuda and torch.is_grad_enabled() and not lstm.training:
        # cuDNN has no backward for a forward in eval mode. With dropout 0 the mode means
        # nothing else.
        y, h, c = _kernel(lstm, x, hx, lstm.weight_ih_l0, train=True)
    else:
        y, (h, c) = lstm(x, hx)
    return y, LSTMState(h.squeeze(0), c.squeeze(0))


def _fused_held(
    lstm: TorchLSTM, x: Tensor, hx: tuple[Tensor, Tensor], lengths: Tensor
) -> tuple[Tensor, LSTMState]:
    """The state at ``lengths`` by one more input column, which holds the cell behind the end.

    The column is 1 behind a row's end; its weights saturate the input gate to 0 and the forget
    gate to 1, so c stays, and so does its gradient. Measured on a CPU (torch 2.13, 2 cores):
    0.5 of ``pack_padded_sequence``'s time, in inference and in training; needs no lengths on the
    host.
    """
    steps = torch.arange(x.shape[1], device=x.device)
    ended = (steps >= lengths.unsqueeze(1)).unsqueeze(-1).to(x.dtype)  # (B, T, 1)
    units = lstm.hidden_size
    big = _saturating(x)
    column = lstm.weight_ih_l0.new_zeros(4 * units, 1)
    column[:units] = -big  # i
    column[units : 2 * units] = big  # f
    weight_ih = torch.cat([lstm.weight_ih_l0, column], 1)
    y, _, c = _kernel(lstm, torch.cat([x, ended], 2), hx, weight_ih, torch.is_grad_enabled())
    h0 = hx[0].squeeze(0).to(y.dtype)
    h = torch.where((lengths > 0).unsqueeze(-1), at_length(y, lengths), h0)
    return y, LSTMState(h, c.squeeze(0))


def _saturating(x: Tensor) -> float:
    """A number that decides a gate against any sum of recurrent terms, in x's precision."""
    dtype = x.dtype
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
    return 2.0**15 if dtype == torch.float16 else 2.0**60


def _fused_packed(
    lstm: TorchLSTM, x: Tensor, hx: tuple[Tensor, Tensor], lengths: Tensor
) -> tuple[Tensor, LSTMState]:
    """The state at ``lengths`` by ``pack_padded_sequence``, cuDNN's own way.

    cuDNN wants its weights in one buffer, which the extra column of ``_fused_held`` is not.
    Copies the lengths to the host.
    """
    packed = nn.utils.rnn.pack_padded_sequence(
        x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False
    )
    there, back = packed.sorted_indices, packed.unsorted_indices
    assert there is not None and back is not None  # enforce_sorted=False sets both
    result = torch._VF.lstm(
        packed.data,
        packed.batch_sizes,
        tuple(s.index_select(1, there) for s in hx),
        _weights(lstm, lstm.weight_ih_l0),
        lstm.bias,
        1,
        0.0,
        torch.is_grad_enabled(),
        False,
    )
    data, h, c = result
    ordered = packed._replace(data=data)
    y, _ = nn.utils.rnn.pad_packed_sequence(ordered, batch_first=True, total_length=x.shape[1])
    some = (lengths > 0).unsqueeze(-1)
    final = (s.index_select(1, back).squeeze(0) for s in (h, c))
    begin = (s.squeeze(0).to(y.dtype) for s in hx)
    return y, LSTMState(*(torch.where(some, a, b) for a, b in zip(final, begin, strict=True)))


def _weights(lstm: TorchLSTM, weight_ih: Tensor) -> list[Any]:
    weights: list[Any] = [weight_ih, lstm.weight_hh_l0]
    return [*weights, lstm.bias_ih_l0, lstm.bias_hh_l0] if lstm.bias else weights


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _kernel(
    lstm: TorchLSTM, x: Tensor, hx: tuple[Tensor, Tensor], weight_ih: Tensor, train: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The call inside ``nn.LSTM.forward``, with another input weight or mode."""
    y, h, c = torch._VF.lstm(
        x, hx, _weights(lstm, weight_ih), lstm.bias, 1, 0.0, train, False, True
    )
    return y, h, c
