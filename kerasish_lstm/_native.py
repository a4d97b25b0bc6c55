"""The native engine: the recurrence on a CPU in C++, with masks, activations and dropout inside.

``kerasish_lstm/native`` is built with the package where a C++ compiler is, as a library of plain C
functions that knows neither torch nor Python; this module hands it pointers. :func:`native_status`
says whether it is there, :func:`native_engine` turns it off, and so does the environment variable
``KERASISH_LSTM_NATIVE=0``.

It computes in float32 and float64, on torch's own OpenMP threads. ctypes releases the GIL for the
time of a call. In a process that was forked it uses one thread, since GNU's OpenMP cannot start
others there.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import _C, Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter
from torch.utils._device import DeviceContext

from ._dropout import DropoutMasks
from ._engines import NATIVE_ACTIVATIONS, LSTMState, TorchLSTM, input_product, lstm_step
from .activations import Function
from .config import LSTMConfig

DTYPES = {torch.float32: 4, torch.float64: 8}
_STALE, _NO_MEMORY = 1, 2
_CHUNK = 2**23  # bytes of gradients before the activations that a backward holds at a time


class NativeStatus(NamedTuple):
    """What :func:`native_status` says.

    available: whether the engine runs; enabled layers use it on a CPU by themselves.
    reason: why not, or None.
    path: of the library.
    instruction_set: what it uses: ``avx512``, ``avx2`` or ``base`` (NEON on ARM).
    instruction_sets: what this build and this processor have, best first.
    parallel: whether it found torch's threads; without them it uses one.
    """

    available: bool
    reason: str | None
    path: str | None
    instruction_set: str | None
    instruction_sets: tuple[str, ...]
    parallel: bool


class _Weights(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("F", "H")),
        *((name, ctypes.c_void_p) for name in ("w_ih", "w_hh", "b_ih", "b_hh")),
    ]


def _fields(declared: str) -> list[tuple[str, Any]]:
    """Of "name name* ...": 64-bit integers, and with a star pointers."""
    return [
        (name.rstrip("*"), ctypes.c_void_p if name.endswith("*") else ctypes.c_int64)
        for name in declared.split()
    ]


class _Forward(ctypes.Structure):
    _fields_ = _fields(
        "B T F H w_ih* w_hh* b_ih* b_hh* pack* x* x_row x_step mask* mask_row mask_step h0* c0* "
        "x_drop* h_drop* h_drop_gates hs* hs_row hs_step gates* cs* h_end* c_end* "
        "activation recurrent_activation reverse threads"
    )


class _Backward(ctypes.Structure):
    _fields_ = _fields(
        "B T H start stop pack* mask* mask_row mask_step gates* cs* h_drop* h_drop_gates "
        "dy* dy_row dy_step dh* dc* dz* dz_row* activation recurrent_activation reverse threads"
    )


class _Engine(NamedTuple):
    """The library, or why there is none."""

    functions: Any
    reason: str | None
    path: Path
    parallel: bool = False


def _load() -> _Engine:
    path = Path(__file__).parent / "native" / "engine.so"
    if not path.exists():
        return _Engine(
            None,
            "the package was installed without it: g++ or clang++ was not found, or failed. With "
            "one, reinstall: KERASISH_LSTM_BUILD=1 pip install --force-reinstall --no-deps .",
            path,
        )
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return _Engine(None, f"{path} cannot be loaded: {error}", path)
    integer, pointer, text = ctypes.c_int64, ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
        ("kl_use_openmp", None, [pointer] * 3),
        ("kl_instruction_sets", text, []),
        ("kl_choose", ctypes.c_int, [text]),
        ("kl_chosen", text, []),
        ("kl_pack_size", integer, [integer] * 3),
        ("kl_pack", ctypes.c_int, [integer, pointer, pointer]),
        ("kl_pack_backward_size", integer, [integer] * 3),
        ("kl_pack_backward", ctypes.c_int, [integer, integer, integer, pointer, pointer]),
        ("kl_run_forward", ctypes.c_int, [integer, pointer, integer]),
        ("kl_run_backward", ctypes.c_int, [integer, pointer, integer]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    itself = ctypes.CDLL(None) if os.name == "posix" else None
    needed = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
    parallel = itself is not None and all(hasattr(itself, name) for name in needed)
    if parallel:
        library.kl_use_openmp(*(ctypes.cast(getattr(itself, n), pointer).value for n in needed))
    return _Engine(library, None, path, parallel)


@dataclass
class _Process:
    """What holds for all layers of a process."""

    disabled: bool = os.environ.get("KERASISH_LSTM_NATIVE", "").lower() in ("0", "no", "off")
    forked: bool = False
    engine: _Engine | None = None  # loaded at the first question


_process = _Process()


def _in_a_child() -> None:
    _process.forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_child)


def _loaded() -> _Engine:
    if _process.engine is None:
        _process.engine = _load()
    return _process.engine


def native_status() -> NativeStatus:
    """Whether the native engine is there, and what it uses."""
    functions, reason, path, parallel = _loaded()
    if functions is None:
        return NativeStatus(False, reason, None, None, (), False)
    if _process.disabled:
        reason = "it is turned off (KERASISH_LSTM_NATIVE=0, or native_engine(False))"
    chosen, sets = functions.kl_chosen().decode(), functions.kl_instruction_sets().decode()
    return NativeStatus(
        not _process.disabled, reason, str(path), chosen, tuple(sets.split()), parallel
    )


@contextmanager
def native_engine(enabled: bool) -> Iterator[None]:
    """Use the native engine, or not, within this context, for all threads.

    As ``torch.backends.mkldnn.flags`` does for oneDNN. Where the engine is not there, or a layer is
    not for it, True changes nothing.
    """
    before = _process.disabled
    _process.disabled = not enabled
    try:
        yield
    finally:
        _process.disabled = before


def why_not_library() -> str | None:
    """Why no layer can use the engine, or None."""
    if _process.disabled:
        return "the native engine is turned off"
    return None if _loaded().functions is not None else "the native engine is not built"


def why_not_call(x: Tensor, *others: Tensor | None) -> str | None:
    """Why these tensors of one call cannot be handed over as pointers, or None."""
    if x.device.type != "cpu":
        return f"the input is on {x.device.type}"
    if x.dtype not in DTYPES:
        return f"the input is {x.dtype}"
    for tensor in (x, *others):
        if tensor is not None and type(tensor) not in (Tensor, torch.nn.Parameter):
            return f"a tensor is a {type(tensor).__name__}"
    return why_not_now()


def why_not_now() -> str | None:
    """What of torch is at work around this call that must see its operators, or None."""
    if _C._are_functorch_transforms_active():
        return "a transform of torch.func is active"
    if _C._len_torch_dispatch_stack():
        return "a mode of torch is active"
    if _C._len_torch_function_stack():
        modes = torch.overrides._get_current_function_mode_stack()  # type: ignore[no-untyped-call]
        if not all(isinstance(mode, DeviceContext) for mode in modes):  # set_default_device's
            return "a mode of torch is active"
    if _C._is_tracing():
        return "torch is tracing"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation is active"
    return "autocast is on" if torch.is_autocast_enabled("cpu") else None


class Pack:
    """A layer's weights in the order in which the engine reads them, and a copy of them.

    The engine compares that copy with the weights, bit by bit, at each call: whatever wrote them,
    a stale pack is never used. It is not copied or pickled with its layer.
    """

    __slots__ = ("memory", "quick")

    def __init__(self) -> None:
        self.memory: Tensor | None = None
        self.quick: tuple[LSTMConfig | None, torch.dtype | None, Quick | None] = (None, None, None)

    def __deepcopy__(self, memo: dict[int, Any]) -> Pack:
        return Pack()

    def __reduce__(self) -> tuple[type[Pack], tuple[()]]:
        return Pack, ()


class Recurrence(NamedTuple):
    """What a call computes, beside its tensors.

    mask: (B, T), bool, in the order of x; None where every step counts.
    reverse: the steps run from the last to the first.
    sequences: whether h after each step is wanted.
    functions: the activation and the recurrent activation, as numbers and on tensors.
    """

    mask: Tensor | None
    reverse: bool
    sequences: bool
    names: tuple[str, str]
    functions: tuple[Function, Function]
    dropout: DropoutMasks


class Quick:
    """A call without mask, state, dropout and gradients, for which the most is known before.

    A small layer's call takes longer to prepare than to compute.
    """

    def __init__(self, features: int, dtype: torch.dtype, config: LSTMConfig) -> None:
        self._wide, self._dtype = DTYPES[dtype], dtype
        self._features, self._units = features, config.units
        self._sequences = config.return_sequences
        names: Any = (config.activation, config.recurrent_activation)
        self._usual = _Forward(F=features, H=config.units, reverse=config.go_backwards)
        self._usual.activation, self._usual.recurrent_activation = map(
            NATIVE_ACTIVATIONS.index, names
        )

    def __call__(
        self, weights: Mapping[str, Tensor | None], b_hh: Tensor | None, pack: Pack, x: Any
    ) -> tuple[Tensor | None, Tensor, Tensor] | None:
        """hs (B, T, U) where it is wanted, h and c; None where it is no such call.

        Args:
            weights, b_hh: the parameters of an ``nn.LSTM``, and its second bias where it has one.
        """
        w_ih, w_hh, memory = weights.get("weight_ih_l0"), weights["weight_hh_l0"], pack.memory
        b_ih = None if b_hh is None else weights.get("bias_ih_l0")
        if not (type(x) is Tensor and type(w_ih) is type(w_hh) is Parameter) or memory is None:
            return None
        if not (x.is_cpu and w_ih.is_cpu and x.dtype is w_ih.dtype is self._dtype and x.ndim == 3):
            return None
        if torch.is_grad_enabled() and (
            x.requires_grad
            or w_ih.requires_grad
            or w_hh.requires_grad
            or (b_ih is not None and b_ih.requires_grad)
        ):
            return None
        if not (x.is_contiguous() and w_ih.is_contiguous() and w_hh.is_contiguous()):
            return None
        batch, steps, features = x.shape
        if features != self._features or not steps or _process.disabled:
            return None
        if (b_ih is None) is not (b_hh is None) or why_not_now() is not None:
            return None
        one = _Forward.from_buffer_copy(self._usual)
        one.B, one.T = batch, steps
        one.w_ih, one.w_hh, one.pack = w_ih.data_ptr(), w_hh.data_ptr(), memory.data_ptr()
        if b_ih is not None and b_hh is not None:
            one.b_ih, one.b_hh = b_ih.data_ptr(), b_hh.data_ptr()
        one.x, one.x_row, one.x_step = x.data_ptr(), steps * features, features
        hs = None
        if self._sequences:
            hs = x.new_empty(batch, steps, self._units)
            one.hs, one.hs_row, one.hs_step = hs.data_ptr(), steps * self._units, self._units
        h, c = x.new_empty(batch, self._units), x.new_empty(batch, self._units)
        one.h_end, one.c_end, one.threads = h.data_ptr(), c.data_ptr(), _threads()
        engine = _process.engine
        assert engine is not None  # which made the pack
        status = engine.functions.kl_run_forward(self._wide, ctypes.byref(one), 1)
        if status == _STALE:
            return None
        _check(status)
        return hs, h, c


def native(
    lstm: TorchLSTM, pack: Pack, x: Tensor, state: LSTMState | None, call: Recurrence
) -> tuple[Tensor | None, LSTMState]:
    """h after each step, in processing order, and the state at the end.

    Args:
        x: (B, T, F), as it is given: what is masked is not read.
        state: None is zeros.

    Returns:
        (B, T, U), or None where it is not wanted, and the state. At a masked step h is what it was
        before, and so is the state at the end.
    """
    weights = (lstm.weight_ih_l0, lstm.weight_hh_l0)
    biases = (lstm.bias_ih_l0, lstm.bias_hh_l0) if lstm.bias else (None, None)
    h, c = (None, None) if state is None else state
    if torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, h, c, *weights, *biases)
    ):
        hs, h, c = _Native.apply(x, h, c, *weights, *biases, pack, call)  # type: ignore[no-untyped-call]
        return hs.transpose(0, 1) if call.sequences else None, LSTMState(h, c)
    return _forward(x, h, c, weights, biases, pack, call)


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _threads() -> int:
    return 1 if _process.forked else torch.get_num_threads()


def _rows(tensor: Tensor) -> Tensor:
    """A tensor whose last axis has stride 1."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def _forward(
    x: Tensor,
    h: Tensor | None,
    c: Tensor | None,
    weights: tuple[Tensor, Tensor],
    biases: tuple[Tensor | None, Tensor | None],
    pack: Pack,
    call: Recurrence,
    saved: tuple[Tensor, Tensor, Tensor] | None = None,
) -> tuple[Tensor | None, LSTMState]:
    """Run it; ``saved`` takes hs (T, B, U), gates (T, B, 4U) and cs (T + 1, B, U)."""
    x = _rows(x)
    batch, steps, features = x.shape
    units = weights[1].shape[1]
    weights = (weights[0].contiguous(), weights[1].contiguous())
    hs, gates, cs, row, step = None, None, None, 0, 0
    if saved is not None:
        hs, gates, cs = saved
        row, step = units, batch * units
    elif call.sequences:
        hs, row, step = x.new_empty(batch, steps, units), steps * units, units
    end = LSTMState(x.new_empty(batch, units), x.new_empty(batch, units))
    h, c = (None if s is None else s.contiguous() for s in (h, c))
    mask, dropped, gated = call.mask, call.dropout.recurrent, call.dropout.input
    if dropped is not None:
        dropped = dropped.contiguous()
    if gated is not None:
        gated = gated.contiguous()
    functions = _loaded().functions
    wide = DTYPES[x.dtype]
    arguments = _Forward(
        batch, steps, features, units,
        weights[0].data_ptr(), weights[1].data_ptr(), _pointer(biases[0]), _pointer(biases[1]),
        None, x.data_ptr(), x.stride(0), x.stride(1),
        _pointer(mask), *((0, 0) if mask is None else mask.stride()),
        _pointer(h), _pointer(c), _pointer(gated),
        _pointer(dropped), 0 if dropped is None else (4 if dropped.ndim == 3 else 1),
        _pointer(hs), row, step, _pointer(gates), _pointer(cs), end.h.data_ptr(), end.c.data_ptr(),
        *map(NATIVE_ACTIVATIONS.index, call.names), call.reverse, _threads(),
    )  # fmt: skip
    memory = pack.memory
    status = _STALE
    if memory is not None:
        arguments.pack = memory.data_ptr()
        status = functions.kl_run_forward(wide, ctypes.byref(arguments), 1)
    if status == _STALE:
        size = functions.kl_pack_size(wide, features, units)
        memory = torch.empty(size, dtype=torch.uint8, device="cpu")
        given = _Weights(features, units, *map(_pointer, (*weights, *biases)))
        functions.kl_pack(wide, ctypes.byref(given), memory.data_ptr())
        # Another one, not the old one written anew: another thread may be reading that.
        pack.memory = memory
        arguments.pack = memory.data_ptr()
        status = functions.kl_run_forward(wide, ctypes.byref(arguments), 1)
    _check(status)
    return hs, end


def _check(status: int) -> None:
    if status == _NO_MEMORY:
        raise MemoryError("kerasish_lstm's native engine got no memory for its working state.")
    if status:
        raise RuntimeError(
            "kerasish_lstm's native engine: the weights were written while they were read."
        )


class _Native(torch.autograd.Function):
    """The engine with its backward."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h: Tensor | None,
        c: Tensor | None,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None,
        b_hh: Tensor | None,
        pack: Pack,
        call: Recurrence,
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, steps, _ = x.shape
        units = w_hh.shape[1]
        hs, gates = (x.new_empty(steps, batch, n * units) for n in (1, 4))
        cs = x.new_empty(steps + 1, batch, units)
        _, end = _forward(x, h, c, (w_ih, w_hh), (b_ih, b_hh), pack, call, (hs, gates, cs))
        ctx.set_materialize_grads(False)
        ctx.call = call
        ctx.save_for_backward(x, h, c, w_ih, w_hh, b_ih, b_hh, hs, gates, cs)
        return hs, end.h, end.c

    @staticmethod
    def backward(
        ctx: Any, d_hs: Tensor | None, d_h: Tensor | None, d_c: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, h, c, w_ih, w_hh, b_ih, b_hh, hs, gates, cs = ctx.saved_tensors
        inputs = (x, h, c, w_ih, w_hh, b_ih, b_hh)
        wanted = ctx.needs_input_grad[: len(inputs)]
        if torch.is_grad_enabled():
            found = _by_torch(inputs, wanted, (d_hs, d_h, d_c), ctx.call)
        else:
            found = _gradients(inputs, wanted, (d_hs, d_h, d_c), (hs, gates, cs), ctx.call)
        return (*found, None, None)


def _gradients(
    inputs: tuple[Any, ...],
    wanted: tuple[bool, ...],
    gradients: tuple[Tensor | None, Tensor | None, Tensor | None],
    saved: tuple[Tensor, Tensor, Tensor],
    call: Recurrence,
) -> list[Tensor | None]:
    """The gradients of x, h, c, w_ih, w_hh, b_ih and b_hh.

    The engine gives dz, the gradient before the activations, of some steps at a time; what is left
    is matrix products, which are torch's.
    """
    x, h, _, w_ih, w_hh, _, _ = inputs
    d_hs, d_h, d_c = gradients
    hs, gates, cs = saved
    batch, steps, _ = x.shape
    units = w_hh.shape[1]
    functions = _loaded().functions
    wide = DTYPES[x.dtype]
    dropped, gated = call.dropout.recurrent, call.dropout.input
    by_gate = dropped is not None and dropped.ndim == 3
    dropped = None if dropped is None else dropped.contiguous()
    size = functions.kl_pack_backward_size(wide, units, by_gate)
    memory = torch.empty(size, dtype=torch.uint8, device="cpu")
    w_hh = w_hh.contiguous()
    functions.kl_pack_backward(wide, units, by_gate, w_hh.data_ptr(), memory.data_ptr())

    dh, dc = (
        x.new_zeros(batch, units) if d is None else d.clone(memory_format=torch.contiguous_format)
        for d in (d_h, d_c)
    )
    d_hs = None if d_hs is None else _rows(d_hs)
    d_x = x.new_zeros(x.shape) if wanted[0] else None
    d_ih = torch.zeros_like(w_ih) if wanted[3] else None
    d_hh = torch.zeros_like(w_hh) if wanted[4] else None
    d_bias = x.new_zeros(4 * units) if any(wanted[5:]) else None
    arguments = _Backward(
        batch, steps, units, 0, 0, memory.data_ptr(),
        _pointer(call.mask), *((0, 0) if call.mask is None else call.mask.stride()),
        gates.data_ptr(), cs.data_ptr(),
        _pointer(dropped), 0 if dropped is None else (4 if by_gate else 1),
        _pointer(d_hs), *((0, 0) if d_hs is None else (d_hs.stride(1), d_hs.stride(0))),
        dh.data_ptr(), dc.data_ptr(), None, None,
        *map(NATIVE_ACTIVATIONS.index, call.names), call.reverse, _threads(),
    )  # fmt: skip
    active = None
    if call.mask is not None:  # (T, B), in processing order
        active = (call.mask.flip(1) if call.reverse else call.mask).t()
    together = max(1, min(steps, _CHUNK // max(1, batch * 4 * units * wide)))
    for stop in range(steps, 0, -together):
        start = max(0, stop - together)
        arguments.start, arguments.stop = start, stop
        rows = None
        count = (stop - start) * batch
        if active is not None:
            some = active[start:stop].reshape(-1)
            rows = some.nonzero().squeeze(1)
            places = some.cumsum(0).sub_(1)
            arguments.dz_row = places.data_ptr()
            count = len(rows)
        dz = x.new_empty(count, 4 * units)
        arguments.dz = dz.data_ptr()
        _check(functions.kl_run_backward(wide, ctypes.byref(arguments), 1))
        if start:
            before = hs[start - 1 : stop - 1]
        else:
            begin = x.new_zeros(batch, units) if h is None else h
            before = torch.cat([begin.unsqueeze(0), hs[: stop - 1]])
        _add_products(
            dz, (start, stop), rows, x, before, w_ih, (d_x, d_ih, d_hh, d_bias), call.reverse,
            dropped, gated,
        )  # fmt: skip
    return [
        d_x,
        dh if wanted[1] else None,
        dc if wanted[2] else None,
        d_ih,
        d_hh,
        *(d_bias if one else None for one in wanted[5:]),
    ]


def _add_products(
    dz: Tensor,
    span: tuple[int, int],
    rows: Tensor | None,
    x: Tensor,
    before: Tensor,
    w_ih: Tensor,
    sums: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
    reverse: bool,
    dropped: Tensor | None,
    gated: Tensor | None,
) -> None:
    """Add what dz (rows, 4U) of the steps in ``span`` makes of the gradients.

    before: (steps, B, U), h before each step.
    rows: the numbers of its rows among (steps, B), or None where all are there.
    """
    d_x, d_ih, d_hh, d_bias = sums
    start, stop = span
    batch, steps, features = x.shape
    if d_bias is not None:
        d_bias += dz.sum(0)
    of_batch = None  # the row of the batch of each row of dz
    if gated is not None or dropped is not None:
        of_batch = torch.arange((stop - start) * batch, device="cpu") if rows is None else rows
        of_batch = of_batch % batch
    if d_hh is not None:
        h = before.reshape(-1, before.shape[2])
        h = h if rows is None else h.index_select(0, rows)
        _add_by_gate(d_hh, dz, h, dropped, of_batch)
    if d_ih is None and d_x is None:
        return
    first = steps - stop if reverse else start
    part = x[:, first : first + stop - start].transpose(0, 1)  # (steps, B, F)
    if reverse:
        part = part.flip(0)
    if d_ih is not None:
        flat = part.reshape(-1, features)
        flat = flat if rows is None else flat.index_select(0, rows)
        _add_by_gate(d_ih, dz, flat, gated, of_batch)
    if d_x is not None:
        if gated is None:
            found = dz @ w_ih
        else:
            assert of_batch is not None
            parts = zip(dz.chunk(4, 1), w_ih.chunk(4), gated, strict=True)
            found = sum(z @ w * mask[of_batch] for z, w, mask in parts)
        if rows is not None:
            whole = x.new_zeros((stop - start) * batch, features)
            found = whole.index_copy_(0, rows, found)
        found = found.view(stop - start, batch, features)
        found = found.flip(0) if reverse else found
        d_x[:, first : first + stop - start] = found.transpose(0, 1)


def _add_by_gate(
    to: Tensor, dz: Tensor, value: Tensor, masks: Tensor | None, of_batch: Tensor | None
) -> None:
    """to (4U, n) += dz' value, the value under a dropout mask, (B, n) or (4, B, n) by gate."""
    if masks is None:
        to.addmm_(dz.t(), value)
        return
    assert of_batch is not None
    if masks.ndim == 2:
        to.addmm_(dz.t(), value * masks[of_batch])
        return
    for part, z, mask in zip(to.chunk(4), dz.chunk(4, 1), masks, strict=True):
        part.addmm_(z.t(), value * mask[of_batch])


def _by_torch(
    inputs: tuple[Any, ...],
    wanted: tuple[bool, ...],
    gradients: tuple[Tensor | None, Tensor | None, Tensor | None],
    call: Recurrence,
) -> list[Tensor | None]:
    """The gradients by operators of torch, so that they can be differentiated again."""
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
        new = lstm_step(z[t], state, w_hh.t(), *call.functions, call.dropout.recurrent)
        if mask is not None:
            on = mask[:, t].unsqueeze(1)
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
            create_graph=True,
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
