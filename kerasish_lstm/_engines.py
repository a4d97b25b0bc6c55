"""The recurrence by torch: ``fused`` (torch.nn.LSTM's kernels) and ``scan`` (any activation).

    i, f, g, o = split(x_t K + h R + b, 4)
    c' = s(f) * c + s(i) * a(g)
    h' = s(o) * a(c')

with a the activation and s the recurrent activation. Source: Keras 3.15.1 ``LSTMCell.call``
(Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000).

Both engines read the parameters of the same ``nn.LSTM`` and have one signature,
``(lstm, x, state, lengths, final_state, ...) -> (y, state)``. Neither sees a mask: rows are
packed to the left, zeros follow after ``lengths``, and the outputs there are arbitrary. The third
engine, ``native`` (``_native.py``), takes the mask itself.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar, cast

import torch
from torch import Tensor, nn
from torch._C._dynamo import eval_frame
from torch._compile import _disable_dynamo

from ._dropout import NO_DROPOUT, DropoutMasks, DropoutPlan
from ._masks import at_length
from .activations import Function
from .config import LSTMConfig
from .errors import InputError

P = ParamSpec("P")
R = TypeVar("R")


def dynamo_watches() -> bool:
    """Whether ``torch.compile`` traces this code, or would trace what it calls.

    After a break in a graph the code runs by itself, and Dynamo looks at each function it calls.
    """
    return torch.compiler.is_compiling() or eval_frame.get_eval_frame_callback() is not None


def outside_graphs(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which ``torch.compile`` leaves out of its graphs, as it does nn.LSTM.

    ``torch.compiler.disable`` imports all of ``torch._dynamo`` where it is applied, which takes
    nearly as long as ``import torch``; torch's own form of it waits for the first call.
    """
    apart: Callable[P, R] = _disable_dynamo(function)

    @functools.wraps(function)
    def call(*arguments: P.args, **keywords: P.kwargs) -> R:
        return (apart if dynamo_watches() else function)(*arguments, **keywords)

    return call


if TYPE_CHECKING:

    class TorchLSTM(nn.LSTM):
        """``nn.LSTM``, as what it is to this package: its weights are tensors."""

        weight_ih_l0: Tensor
        weight_hh_l0: Tensor
        bias_ih_l0: Tensor
        bias_hh_l0: Tensor

else:
    TorchLSTM = nn.LSTM


class CastLSTM:
    """An ``nn.LSTM`` as the engines see it, its parameters in another dtype.

    Keras's ``mixed_float16`` and ``mixed_bfloat16`` keep float32 weights and cast them for each
    call; gradients flow back through the cast. Where a step is computed in another dtype than that
    of the policy, they are rounded to the policy's first, as in Keras.
    """

    def __init__(self, lstm: TorchLSTM, policy: torch.dtype, dtype: torch.dtype) -> None:
        for name, tensor in (*lstm.named_parameters(), *lstm.named_buffers()):
            setattr(self, name, tensor.to(policy).to(dtype))
        self.bias, self.training = lstm.bias, lstm.training
        self.input_size, self.hidden_size = lstm.input_size, lstm.hidden_size

    def __call__(self, x: Tensor, hx: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        itself = cast(TorchLSTM, self)
        y, h, c = _kernel(itself, x, hx, itself.weight_ih_l0, torch.is_grad_enabled())
        return y, (h, c)


class LSTMState(NamedTuple):
    """The state of an LSTM: h (B, U), its output, and c (B, U), its cell."""

    h: Tensor
    c: Tensor


def why_not_fused(config: LSTMConfig, dropout: DropoutPlan) -> str | None:
    """Why ``nn.LSTM``'s kernels cannot compute this layer with these masks, or None where they can.

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
    if dropout.recurrent is not None:
        return "recurrent_dropout > 0 in training changes h between the steps"
    if dropout.input == "gates":
        return "implementation=1 in training gives each gate a dropout mask of its own"
    return None


NATIVE_ACTIVATIONS = (
    "linear",
    "tanh",
    "sigmoid",
    "relu",
    "softsign",
    "hard_sigmoid",
    "hard_sigmoid_v2",
)  # in the order of their numbers in native/lstm.h


def why_not_native(config: LSTMConfig) -> str | None:
    """Why the native engine does not compute this layer, or None where it does, on a CPU.

    Wherever it can it is chosen: at no size that was measured was another one faster.
    """
    if config.use_cudnn != "auto":
        return f"use_cudnn={config.use_cudnn}"
    for keyword in ("activation", "recurrent_activation"):
        value = getattr(config, keyword)
        if not isinstance(value, str) or value not in NATIVE_ACTIVATIONS:
            name = value if isinstance(value, str) else getattr(value, "__name__", repr(value))
            return f"{keyword} is {name}, the native engine has {', '.join(NATIVE_ACTIVATIONS)}"
    return None


def lstm_step(
    z_x: Tensor,
    state: LSTMState,
    recurrent: Tensor,
    activation: Function,
    gate: Function,
    dropped: Tensor | None = None,
) -> LSTMState:
    """One step: z_x (B, 4U) is x K + b, recurrent (U, 4U) is R.

    dropped multiplies h before R: (B, U), or (4, B, U) by gate.
    """
    h, c = state
    if dropped is not None and dropped.ndim == 3:
        by_gate = recurrent.reshape(len(recurrent), 4, -1).transpose(0, 1)  # (4, U, U)
        z = z_x + torch.bmm(h * dropped, by_gate).transpose(0, 1).flatten(1)
    else:
        z = torch.addmm(z_x, h if dropped is None else h * dropped, recurrent)
    i, f, g, o = z.chunk(4, dim=1)  # each (B, U)
    c = gate(f) * c + gate(i) * activation(g)
    return LSTMState(gate(o) * activation(c), c)


def input_product(lstm: TorchLSTM, x: Tensor, dropped: Tensor | None = None) -> Tensor:
    """x K + b, (..., 4U), of x (B, ..., F); dropped (4, B, F) multiplies x, another one by gate."""
    bias = lstm.bias_ih_l0 + lstm.bias_hh_l0 if lstm.bias else None
    if dropped is None:
        return nn.functional.linear(x, lstm.weight_ih_l0, bias)
    masks = dropped.reshape(4, x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1])
    products = [
        nn.functional.linear(x * mask, kernel)
        for mask, kernel in zip(masks, lstm.weight_ih_l0.chunk(4), strict=True)
    ]
    z = torch.cat(products, -1)
    return z if bias is None else z + bias


def scan(
    lstm: TorchLSTM,
    x: Tensor,
    state: LSTMState,
    lengths: Tensor | None,
    final_state: bool,
    activation: Function,
    gate: Function,
    dropout: DropoutMasks = NO_DROPOUT,
) -> tuple[Tensor, LSTMState]:
    """The recurrence as a loop over time, for any activations, with dropout masks inside.

    The steps are taken apart by one ``unbind``: indexing ``z[t]`` would make the backward
    quadratic in T, since each select's backward fills a whole (B, T, 4U).

    Rows that have ended compute on from zeros, and the result is dropped. So a callable activation
    with an infinite slope at 0 (a square root, say) makes their gradients NaN; none of Keras's own
    has one.
    """
    del final_state  # it is at hand anyway
    z = input_product(lstm, x, dropout.input)  # (B, T, 4U)
    state = LSTMState(*(s.to(z.dtype) for s in state))
    recurrent = lstm.weight_hh_l0.t()
    active: tuple[Tensor, ...] | None = None
    if lengths is not None:
        steps = torch.arange(x.shape[1], device=x.device)
        active = (steps.unsqueeze(1) < lengths).unsqueeze(-1).unbind(0)  # T times (B, 1)
    outputs = []
    functions = _checked(activation), _checked(gate)
    for t, z_t in enumerate(z.unbind(1)):
        if t == 1:
            functions = activation, gate
        if active is None:
            state = lstm_step(z_t, state, recurrent, *functions, dropout.recurrent)
        else:
            # Ended rows compute a step from zeros: their own values could overflow by now,
            # and 0 * inf in the backward is NaN.
            begin = LSTMState(*(s.masked_fill(~active[t], 0) for s in state))
            end = lstm_step(z_t, begin, recurrent, *functions, dropout.recurrent)
            state = LSTMState(
                *(torch.where(active[t], new, old) for new, old in zip(end, state, strict=True))
            )
        outputs.append(state.h)
    return torch.stack(outputs, 1), state


def _checked(function: Function) -> Function:
    """The function, with an error for a result that does not fit where it is used."""

    def checked(x: Tensor) -> Tensor:
        y = function(x)
        # Keras broadcasts, so a (B, 1) for a (B, U) is fine.
        sizes = zip(y.shape[::-1], x.shape[::-1], strict=False)
        if y.ndim > 2 or any(n not in (1, m) for n, m in sizes):
            raise InputError(
                f"LSTM: the activation {function!r} turned a tensor of shape {tuple(x.shape)} into "
                f"{tuple(y.shape)}; it must keep the shape (B, U)."
            )
        return y

    return checked


class Segment(NamedTuple):
    """Steps ``start`` to ``stop`` of the ``rows`` longest rows, which run together."""

    start: int
    stop: int
    rows: int


def segments(lengths: list[int], work: int) -> list[Segment]:
    """How to run rows of these lengths, longest first, without the steps behind their ends.

    Args:
        lengths: of the rows, in descending order.
        work: multiplications for a step of a row, 4U (F + U).

    Returns:
        Four segments of shrinking batch where that saves more than it costs, else one. None goes
        beyond the longest row, and there is always one step.

    Measured on a CPU (torch 2.13, 2 cores, lengths uniform in 1..T), four segments against one, as
    a ratio of times in inference and in training: 0.78 and 0.78 at (B, T, F, U) =
    (32, 100, 64, 128), 0.67 and 0.54 at (64, 128, 256, 256), 0.88 and 0.85 at (64, 100, 64, 64),
    but 1.16 and 1.17 at (8, 100, 64, 128), 1.39 and 0.97 at (256, 64, 32, 32): hence the limit.
    """
    longest = max(lengths[:1], default=0)
    whole = [Segment(0, max(1, longest), len(lengths))]
    cuts = sorted({-(-longest * k // _PIECES) for k in range(_PIECES + 1)})
    pieces = [
        Segment(start, stop, sum(n > start for n in lengths))
        for start, stop in itertools.pairwise(cuts)
    ]
    steps = sum((p.stop - p.start) * p.rows for p in pieces)
    saved = (longest * len(lengths) - steps) * work
    return pieces if pieces and saved > _WORTH_CUTTING else whole


_PIECES = 4
_WORTH_CUTTING = 6e7  # multiplications, which take about half a millisecond


def fused(
    lstm: TorchLSTM, x: Tensor, state: LSTMState, lengths: Tensor | None, final_state: bool
) -> tuple[Tensor, LSTMState]:
    """The recurrence by ``nn.LSTM``: cuDNN, oneDNN or what torch has.

    The state is that of the last step of the row, or at ``lengths`` where ``final_state`` asks
    for it (otherwise it is not looked for, and must not be read). y ends with the longest row.
    """
    hx = (state.h.unsqueeze(0), state.c.unsqueeze(0))
    if lengths is None:
        y, h, c = _run(lstm, x, hx)
        return y, LSTMState(h.squeeze(0), c.squeeze(0))
    if x.is_cuda and final_state and len(lengths):  # an empty batch cannot be packed
        return _fused_packed(lstm, x, hx, lengths)

    pieces = [Segment(0, x.shape[1], x.shape[0])]
    ends_early = True
    if not (x.is_cuda or torch.compiler.is_compiling()):  # there, to ask is to wait
        sizes = sorted(lengths.tolist(), reverse=True)
        pieces = segments(sizes, 4 * lstm.hidden_size * (lstm.input_size + lstm.hidden_size))
        ends_early = not sizes or sizes[-1] < pieces[-1].stop
    weight_ih = lstm.weight_ih_l0
    if final_state and ends_early:
        x, weight_ih = _with_hold(lstm, x, lengths)
    if len(pieces) == 1:
        y, h, c = _run(lstm, x[:, : pieces[0].stop], hx, weight_ih)
    else:
        y, h, c = _run_segments(lstm, x, hx, weight_ih, lengths, pieces)
    h, c = h.squeeze(0), c.squeeze(0)
    if final_state and ends_early:  # the column holds c, and h only by its way through y
        begin = state.h.to(y.dtype)
        h = torch.where((lengths > 0).unsqueeze(-1), at_length(y, lengths), begin)
    return y, LSTMState(h, c)


def _run(
    lstm: TorchLSTM, x: Tensor, hx: tuple[Tensor, Tensor], weight_ih: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """``nn.LSTM``, or its kernel where it must see another input weight or mode."""
    # cuDNN has no backward for a forward in eval mode. With dropout 0 the mode means nothing else.
    train = x.is_cuda and torch.is_grad_enabled()
    if (weight_ih is None or weight_ih is lstm.weight_ih_l0) and (lstm.training or not train):
        y, (h, c) = lstm(x, hx)
        return y, h, c
    weight_ih = lstm.weight_ih_l0 if weight_ih is None else weight_ih
    y, h, c = _kernel(lstm, x, hx, weight_ih, torch.is_grad_enabled())
    return y, h, c


def _run_segments(
    lstm: TorchLSTM,
    x: Tensor,
    hx: tuple[Tensor, Tensor],
    weight_ih: Tensor,
    lengths: Tensor,
    pieces: list[Segment],
) -> tuple[Tensor, Tensor, Tensor]:
    """One run a segment, each of the rows that have not ended; zeros behind the others' ends."""
    order = lengths.argsort(descending=True, stable=True)
    x, h, c = x[order], hx[0][:, order], hx[1][:, order]
    outputs, ended = [], []
    for start, stop, rows in pieces:
        ended.append((h[:, rows:], c[:, rows:]))
        y, h, c = _run(lstm, x[:rows, start:stop], (h[:, :rows], c[:, :rows]), weight_ih)
        outputs.append(nn.functional.pad(y, (0, 0, 0, 0, 0, x.shape[0] - rows)))
    ended.append((h, c))
    back = order.argsort()
    h, c = (
        torch.cat([s.to(y.dtype) for s in reversed(parts)], 1)[:, back]
        for parts in zip(*ended, strict=True)
    )
    return torch.cat(outputs, 1)[back], h, c


def _with_hold(lstm: TorchLSTM, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """x and the input weight with one more column, which holds the cell behind the end.

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
    return torch.cat([x, ended], 2), torch.cat([lstm.weight_ih_l0, column], 1)


def _saturating(x: Tensor) -> float:
    """A number that decides a gate against any sum of recurrent terms, in x's precision."""
    dtype = x.dtype
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
    return torch.finfo(dtype).max / 4


def _fused_packed(
    lstm: TorchLSTM, x: Tensor, hx: tuple[Tensor, Tensor], lengths: Tensor
) -> tuple[Tensor, LSTMState]:
    """The state at ``lengths`` by ``pack_padded_sequence``, cuDNN's own way.

    cuDNN wants its weights in one buffer, which the extra column of ``_with_hold`` is not.
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


@outside_graphs
def _kernel(
    lstm: TorchLSTM, x: Tensor, hx: tuple[Tensor, Tensor], weight_ih: Tensor, train: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The call inside ``nn.LSTM.forward``, with another input weight or mode."""
    y, h, c = torch._VF.lstm(
        x, hx, _weights(lstm, weight_ih), lstm.bias, 1, 0.0, train, False, True
    )
    return y, h, c
