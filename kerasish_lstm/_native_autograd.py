"""The native engine under autograd.

The engine gives dz, the gradient before the activations, of some steps at a time; what is left is
matrix products, which are torch's. A step that is masked has no row in dz.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import _C, Tensor

from ._dropout import NO_DROPOUT, DropoutMasks
from ._engines import (
    NATIVE_ACTIVATIONS,
    LSTMState,
    TorchLSTM,
    input_product,
    lstm_step,
    outside_graphs,
)
from ._native import (
    DENORMAL,
    DTYPES,
    Backward,
    Pack,
    Prepared,
    Recurrence,
    Saved,
    check,
    functions,
    pointer,
    run_forward,
    threads,
    unit_stride,
    why_not_now,
)

_CHUNK = 2**23  # bytes of dz at a time
# The engine adds up the gradients of the weights itself where that is so many multiplications at
# most (2**20 took as long either way), of so few rows: it adds one after the other, and torch in
# blocks, whose roundings grow less.
_FEW_SUMS, _FEW_ROWS = 2**19, 1024


class Call(NamedTuple):
    """One LSTM's call. x: (B, T, F) as it is given: what is masked is not read. state: or zeros.

    weights: w_ih, w_hh, b_ih, b_hh, read once, since one may be computed at each reading.
    """

    weights: tuple[Tensor | None, ...]
    pack: Pack
    x: Tensor
    state: LSTMState | None
    recurrence: Recurrence


def weights_of(lstm: TorchLSTM) -> tuple[Tensor | None, ...]:
    """w_ih, w_hh, b_ih, b_hh; None for a bias that it has not."""
    biases = (lstm.bias_ih_l0, lstm.bias_hh_l0) if lstm.bias else (None, None)
    return (lstm.weight_ih_l0, lstm.weight_hh_l0, *biases)


def native(*calls: Call) -> list[tuple[Tensor | None, LSTMState]]:
    """Run one call, or two of one batch, length and number of units at once.

    Returns:
        Of each h after each step, in processing order, (B, T, U), or None where it is not wanted,
        and the state at the end. At a masked step h is what it was before, and so is the state at
        the end.
    """
    prepared, traced = [], []
    for call in calls:
        h, c = (None, None) if call.state is None else call.state
        inputs = (call.x, h, c, *call.weights)
        saved = None
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs):
            _, w_hh, *_ = call.weights
            assert w_hh is not None
            saved = Saved.of(call.x, w_hh.shape[1])
        recurrence = call.recurrence
        if saved is not None and recurrence.mask is not None:
            # The caller may write to it before the backward, as to what torch has copied.
            recurrence = recurrence._replace(mask=recurrence.mask.clone())
        with torch.no_grad():
            one = Prepared(call.x, h, c, call.weights, call.pack, recurrence, saved)
        prepared.append(one)
        if saved is not None:
            traced.append(Traced(inputs, recurrence, saved, one.end))
    run_forward(*prepared)
    if len(traced) == len(calls):
        return differentiable(*traced)
    given = iter(traced)
    return [differentiable(next(given))[0] if one.traced else (one.hs, one.end) for one in prepared]


class Traced(NamedTuple):
    """What a call has given, and what its backward needs.

    inputs: x, h, c, w_ih, w_hh, b_ih, b_hh.
    """

    inputs: tuple[Tensor | None, ...]
    recurrence: Recurrence
    saved: Saved
    end: LSTMState


def differentiable(*calls: Traced) -> list[tuple[Tensor | None, LSTMState]]:
    """The results of calls, as those of :func:`native`, under autograd."""
    inputs = [t for call in calls for t in call.inputs]
    outputs = iter(NativeFunction.apply(calls, *inputs))  # type: ignore[no-untyped-call]
    results = []
    for call, every, h, c in zip(calls, outputs, outputs, outputs, strict=True):
        hs = every.transpose(0, 1) if call.recurrence.sequences else None
        results.append((hs, LSTMState(h, c)))
    return results


_INPUTS, _KEPT = 7, 6  # of a call: its inputs; and Saved, its mask and its dropout masks


def _by_call(values: Sequence[Any], count: int) -> list[Sequence[Any]]:
    return [values[at : at + count] for at in range(0, len(values), count)]


class NativeFunction(torch.autograd.Function):
    """What has been computed, with its backward: of one call, or of two at once."""

    @staticmethod
    def forward(ctx: Any, calls: tuple[Traced, ...], *inputs: Tensor | None) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.calls = [call.recurrence._replace(mask=None, dropout=NO_DROPOUT) for call in calls]
        kept = [t for c in calls for t in (*c.saved, c.recurrence.mask, *c.recurrence.dropout)]
        ctx.save_for_backward(*inputs, *kept)
        return tuple(t for call in calls for t in (call.saved.hs, *call.end))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        wanted, count = _by_call(ctx.needs_input_grad[1:], _INPUTS), len(ctx.calls)
        tensors = ctx.saved_tensors
        inputs = _by_call(tensors[: _INPUTS * count], _INPUTS)
        kept = _by_call(tensors[_INPUTS * count :], _KEPT)
        found: list[list[Tensor | None]] = [[None] * _INPUTS] * count
        asked = []
        for n, (call, given) in enumerate(zip(ctx.calls, _by_call(gradients, 3), strict=True)):
            if any(d is not None for d in given):
                mask, *dropout = kept[n][3:]
                call = call._replace(mask=mask, dropout=DropoutMasks(*dropout))  # noqa: PLW2901
                asked.append((n, (inputs[n], wanted[n], given, Saved(*kept[n][:3]), call)))
        if torch.is_autocast_enabled("cpu"):  # of the backward: the forward knew none
            with torch.autocast("cpu", enabled=False):
                results = _gradients([one for _, one in asked])
        else:
            results = _gradients([one for _, one in asked])
        for (n, _), result in zip(asked, results, strict=True):
            found[n] = result
        return (None, *(gradient for some in found for gradient in some))


Asked = tuple[Sequence[Any], Sequence[bool], Sequence[Tensor | None], Saved, Recurrence]


@outside_graphs
def _gradients(asked: Sequence[Asked]) -> list[list[Tensor | None]]:
    """Of each call, from its inputs, which of them need one, and the gradients of its results.

    By operators of torch where the result is to be differentiated again, or a transform of torch
    (batched gradients, say) must see them.
    """
    again = torch.is_grad_enabled()
    batched = any(
        d is not None and _C._functorch.is_legacy_batchedtensor(d) for one in asked for d in one[2]
    )
    if again or batched or why_not_now() is not None:
        return [_by_torch(*one[:3], one[4], again=again) for one in asked]
    with _threads_that_there_are():
        parts = [_Backward(*one) for one in asked]
        _run_backward(parts)
        return [part.results for part in parts]


class _Rows(NamedTuple):
    """Which steps the rows of a dz are of.

    span: the steps from its first to behind its last, in processing order.
    numbers: of the rows among (steps, B), or None where all are there.
    """

    start: int
    stop: int
    batch: int
    numbers: Tensor | None

    def masked(self, value: Tensor, mask: Tensor) -> Tensor:
        """value (rows, n), each row times that of mask (B, n) which is its example's."""
        if self.numbers is None:
            steps = len(value) // max(1, self.batch)
            return (value.view(steps, *mask.shape) * mask).view(value.shape)
        return value * mask[self.numbers % self.batch]


class _Backward:
    """The backward of one call: the engine's arguments, and the gradients, which grow by chunks."""

    def __init__(
        self,
        inputs: Sequence[Any],
        wanted: Sequence[bool],
        gradients: Sequence[Tensor | None],
        saved: Saved,
        call: Recurrence,
    ) -> None:
        x, h, _, w_ih, w_hh, _, _ = inputs
        d_hs, d_h, d_c = gradients
        hs, gates, cs = saved
        batch, steps, features = x.shape
        units = w_hh.shape[1]
        sizes = ((steps, batch, units), (steps, batch, 4 * units), (steps + 1, batch, units))
        hs, gates, cs = map(_as_saved, saved, sizes, [x.dtype] * 3)
        engine, self.wide = functions(), DTYPES[x.dtype]
        dropped, gated = call.dropout.recurrent, call.dropout.input
        self.by_gate = dropped is not None and dropped.ndim == 3
        dropped, gated = (
            None if mask is None else mask.resolve_neg().contiguous() for mask in (dropped, gated)
        )
        size = engine.kl_pack_backward_size(self.wide, units, self.by_gate)
        memory = torch.empty(size, dtype=torch.uint8, device="cpu")
        w_hh = w_hh.resolve_neg().contiguous()
        engine.kl_pack_backward(self.wide, units, self.by_gate, w_hh.data_ptr(), memory.data_ptr())
        dh, dc = (
            x.new_zeros(batch, units)
            if d is None
            else d.resolve_neg().clone(memory_format=torch.contiguous_format)
            for d in (d_h, d_c)
        )
        d_hs = None if d_hs is None else unit_stride(d_hs)
        rows = batch * steps
        few = rows <= _FEW_ROWS and rows * 4 * units * (features + units) <= _FEW_SUMS
        self.few = few and dropped is None and gated is None
        w_ih = w_ih.resolve_neg()
        if self.few:
            x, w_ih = unit_stride(x), w_ih.contiguous()
            h = None if h is None else h.resolve_neg().contiguous()
        self.d_x = d_x = x.new_zeros(x.shape) if wanted[0] else None
        self.d_ih = d_ih = torch.zeros_like(w_ih) if wanted[3] else None
        self.d_hh = d_hh = torch.zeros_like(w_hh) if wanted[4] else None
        self.d_bias = d_bias = x.new_zeros(4 * units) if any(wanted[5:]) else None
        self.arguments = Backward(
            batch, steps, features, units, 0, 0, memory.data_ptr(),
            pointer(call.mask), *((0, 0) if call.mask is None else call.mask.stride()),
            gates.data_ptr(), cs.data_ptr(),
            pointer(dropped), 0 if dropped is None else (4 if self.by_gate else 1),
            pointer(d_hs), *((0, 0) if d_hs is None else (d_hs.stride(1), d_hs.stride(0))),
            dh.data_ptr(), dc.data_ptr(), None, None,
            self.few, x.data_ptr(), pointer(h), hs.data_ptr(), w_ih.data_ptr(), *x.stride()[:2],
            *map(pointer, (d_x, d_ih, d_hh, d_bias)),
            *map(NATIVE_ACTIVATIONS.index, call.names), call.reverse, threads(),
        )  # fmt: skip
        self._x, self._h, self._w_ih, self._hs, self._call = x, h, w_ih, hs, call
        self._dropped, self._gated = dropped, gated
        self._kept = (memory, d_hs, dh, dc, gates, cs)  # while C reads them
        self._active = None
        if call.mask is not None and not self.few:  # (T, B), in processing order
            self._active = (call.mask.flip(1) if call.reverse else call.mask).t()
        ends = (dh if wanted[1] else None, dc if wanted[2] else None)
        self._biases = wanted[5:]
        self._others = [d_x, *ends, d_ih, d_hh]

    @property
    def results(self) -> list[Tensor | None]:
        """Of x, h, c, w_ih, w_hh, b_ih and b_hh, once all steps are done."""
        first, second = (self.d_bias if one else None for one in self._biases)
        if first is not None and second is not None:  # two tensors, as from torch
            second = second.clone()
        return [*self._others, first, second]

    def begin(self, start: int, stop: int) -> Backward:
        """The arguments for the steps stop - 1 down to start."""
        arguments = self.arguments
        arguments.start, arguments.stop = start, stop
        count = (stop - start) * arguments.B
        numbers = None
        if self._active is not None:
            some = self._active[start:stop].reshape(-1)
            numbers = some.nonzero().squeeze(1)
            self._places = some.cumsum(0).sub_(1)
            arguments.dz_row, count = self._places.data_ptr(), len(numbers)
        self._dz = self._x.new_empty(count, 4 * arguments.H)
        arguments.dz = self._dz.data_ptr()
        self._rows = _Rows(start, stop, arguments.B, numbers)
        return arguments

    def add(self) -> None:
        """Add what these steps' dz gives, once the engine has run."""
        if self.few:  # it has been added
            return
        if self.d_bias is not None:
            self.d_bias += self._dz.sum(0)
        if self.d_hh is not None:
            _add_recurrent(self.d_hh, self._dz, self._rows, self._h, self._hs, self._dropped)
        if self.d_ih is not None or self.d_x is not None:
            sums, reverse = (self.d_x, self.d_ih), self._call.reverse
            _add_input(
                sums, self._dz, self._rows, self._x, self._w_ih, self._gated, reverse=reverse
            )


def _as_saved(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """What was saved, in one piece, if the user's hooks have given it back as it was."""
    if tensor.shape != shape or tensor.dtype != dtype or tensor.device.type != "cpu":
        raise RuntimeError(
            f"LSTM: a tensor saved for the backward, {dtype} of shape {shape} on cpu, came "
            f"back as {tensor.dtype} of shape {tuple(tensor.shape)} on {tensor.device}. The "
            "unpack_hook of torch.autograd.graph.saved_tensors_hooks must undo its pack_hook."
        )
    return tensor.contiguous()


def _run_backward(parts: Sequence[_Backward]) -> None:
    """One call's backward, or that of two at once."""
    if not parts:
        return
    if len({part.by_gate for part in parts}) > 1:  # the engine splits them alike
        for part in parts:
            _run_backward([part])
        return
    engine, one, count = functions(), parts[0], len(parts)
    steps, width = one.arguments.T, count * one.arguments.B * 4 * one.arguments.H * one.wide
    together = max(1, min(steps, _CHUNK // max(1, width)))
    for stop in range(steps, 0, -together):
        arguments = [part.begin(max(0, stop - together), stop) for part in parts]
        array = (Backward * count)(*arguments)
        status = engine.kl_run_backward(one.wide, array, count)
        check(status)
        # Torch's products of a denormal would take as long as those of a hundred other numbers.
        team = 0 if status != DENORMAL or all(part.few for part in parts) else threads()
        try:
            if team:
                engine.kl_denormals_are_zero(team, 1)
            for part in parts:
                part.add()
        finally:
            if team:
                engine.kl_denormals_are_zero(team, 0)


@contextmanager
def _threads_that_there_are() -> Iterator[None]:
    """After a fork torch's other threads are gone, and its products would wait for them."""
    count = torch.get_num_threads()
    if threads() == count:
        yield
        return
    torch.set_num_threads(threads())
    try:
        yield
    finally:
        torch.set_num_threads(count)


def _add_recurrent(
    d_hh: Tensor, dz: Tensor, rows: _Rows, h0: Tensor | None, hs: Tensor, dropped: Tensor | None
) -> None:
    """Add dz' h, with h before each step: h0 before the first, and else hs (T, B, U), one back."""
    batch, units = rows.batch, hs.shape[2]
    flat = hs.view(-1, units)
    numbers, at_first = rows.numbers, 0
    if rows.start == 0:
        at_first = batch if numbers is None else int((numbers < batch).sum())
        if h0 is not None and at_first:
            first = rows._replace(numbers=None if numbers is None else numbers[:at_first])
            begin = h0 if numbers is None else h0[numbers[:at_first]]
            _add_by_gate(d_hh, dz[:at_first], begin, first, dropped)
    if numbers is None:
        before = flat[max(0, rows.start - 1) * batch : (rows.stop - 1) * batch]
        later = rows
    else:
        later = rows._replace(numbers=numbers[at_first:])
        before = flat[max(0, rows.start - 1) * batch :]
        offset = batch if rows.start == 0 else 0
        before = before.index_select(0, numbers[at_first:] - offset)
    _add_by_gate(d_hh, dz[at_first:], before, later, dropped)


def _add_input(
    sums: tuple[Tensor | None, Tensor | None],
    dz: Tensor,
    rows: _Rows,
    x: Tensor,
    w_ih: Tensor,
    gated: Tensor | None,
    *,
    reverse: bool,
) -> None:
    """Add dz' x to the gradient of w_ih, and write dz w_ih into that of x."""
    d_x, d_ih = sums
    batch, steps, features = x.shape
    begin = steps - rows.stop if reverse else rows.start
    length = rows.stop - rows.start
    places = None  # of the rows, in x (B T, F)
    if rows.numbers is not None:
        t, example = rows.numbers // batch + rows.start, rows.numbers % batch
        places = example * steps + (steps - 1 - t if reverse else t)
    if d_ih is not None:
        if places is None:
            part = x[:, begin : begin + length].transpose(0, 1)
            if reverse:  # one copy; flip makes one that reshape copies again
                part = part.index_select(0, torch.arange(length - 1, -1, -1, device="cpu"))
            value = part.reshape(-1, features)
        else:
            value = x.reshape(-1, features).index_select(0, places)
        _add_by_gate(d_ih, dz, value, rows, gated)
    if d_x is None:
        return
    if gated is None:
        found = dz @ w_ih
    else:
        parts = zip(dz.chunk(4, 1), w_ih.chunk(4), gated, strict=True)
        found = reduce(torch.add, (rows.masked(z @ w, mask) for z, w, mask in parts))
    if places is None:
        found = found.view(length, batch, features)
        found = found.flip(0) if reverse else found
        d_x[:, begin : begin + length] = found.transpose(0, 1)
    else:
        d_x.view(-1, features).index_copy_(0, places, found)


def _add_by_gate(to: Tensor, dz: Tensor, value: Tensor, rows: _Rows, masks: Tensor | None) -> None:
    """to (4U, n) += dz' value, the value under a dropout mask, (B, n) or (4, B, n) by gate."""
    if masks is None:
        to.addmm_(dz.t(), value)
    elif masks.ndim == 2:
        to.addmm_(dz.t(), rows.masked(value, masks))
    else:
        for part, z, mask in zip(to.chunk(4), dz.chunk(4, 1), masks, strict=True):
            part.addmm_(z.t(), rows.masked(value, mask))


@torch.enable_grad()
def _by_torch(
    inputs: Sequence[Any],
    wanted: Sequence[bool],
    gradients: Sequence[Tensor | None],
    call: Recurrence,
    *,
    again: bool,
) -> list[Tensor | None]:
    """The gradients by operators of torch; ``again``: they are to be differentiated."""
    aliases: list[Any] = [t if t is None else t.view_as(t) for t in inputs]
    x, h, c, w_ih, w_hh, b_ih, b_hh = aliases
    batch, steps, _ = x.shape
    zeros = x.new_zeros(batch, w_hh.shape[1])
    state = LSTMState(*(zeros if s is None else s for s in (h, c)))
    mask = call.mask
    order = range(steps - 1, -1, -1) if call.reverse else range(steps)
    if mask is not None:
        x = x.masked_fill(~mask.unsqueeze(-1), 0)
    one = _Given(w_ih, w_hh, b_ih, b_hh)
    z = input_product(one, x, call.dropout.input).unbind(1)  # type: ignore[arg-type]
    hs = []
    for t in order:
        begin, on = state, None
        if mask is not None:  # a masked step is computed from zeros: see scan
            on = mask[:, t].unsqueeze(1)
            begin = LSTMState(*(s.masked_fill(~on, 0) for s in state))
        new = lstm_step(z[t], begin, w_hh.t(), *call.functions, call.dropout.recurrent)
        if on is not None:
            new = LSTMState(*(torch.where(on, n, o) for n, o in zip(new, state, strict=True)))
        state = new
        hs.append(state.h)
    results = [torch.stack(hs), *state]
    given = [(r, g) for r, g in zip(results, gradients, strict=True) if g is not None]
    asked = [t for t, n in zip(aliases, wanted, strict=True) if n]
    found = iter(
        torch.autograd.grad(
            [r for r, _ in given],
            asked,
            [g for _, g in given],
            create_graph=again,
            allow_unused=True,
        )
    )
    return [next(found) if n else None for n in wanted]


class _Given(NamedTuple):
    """Weights as :func:`input_product` reads them."""

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor | None
    bias_hh_l0: Tensor | None

    @property
    def bias(self) -> bool:
        return self.bias_ih_l0 is not None
