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
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import _C, Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter
from torch.utils._device import DeviceContext

from ._dropout import DropoutMasks
from ._engines import NATIVE_ACTIVATIONS, LSTMState
from .activations import Function
from .config import LSTMConfig
from .errors import NativeEngineWarning

DTYPES = {torch.float32: 4, torch.float64: 8}
INTERFACE = 4  # of native/lstm.h, as its KL_INTERFACE
_STALE, _NO_MEMORY, DENORMAL = 1, 2, 3  # what a call returns, else 0
_REINSTALL = (
    "install it again in a clone: KERASISH_LSTM_BUILD=1 pip install --force-reinstall --no-deps ."
)


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
        ("threads", ctypes.c_int64),
    ]


def _fields(declared: str) -> list[tuple[str, Any]]:
    """Of "name name* ...": 64-bit integers, and with a star pointers."""
    return [
        (name.rstrip("*"), ctypes.c_void_p if name.endswith("*") else ctypes.c_int64)
        for name in declared.split()
    ]


class Forward(ctypes.Structure):
    _fields_ = _fields(
        "B T F H w_ih* w_hh* b_ih* b_hh* pack* fresh x* x_row x_step mask* mask_row mask_step "
        "h0* c0* x_drop* h_drop* h_drop_gates hs* hs_row hs_step gates* cs* h_end* c_end* "
        "activation recurrent_activation reverse threads"
    )


class Backward(ctypes.Structure):
    _fields_ = _fields(
        "B T F H start stop pack* mask* mask_row mask_step gates* cs* h_drop* h_drop_gates "
        "dy* dy_row dy_step dh* dc* dz* dz_row* sums x* h0* hs* w_ih* x_row x_step "
        "d_x* d_ih* d_hh* d_bias* activation recurrent_activation reverse threads"
    )


class _Engine(NamedTuple):
    """The library, or why there is none, and whether somebody wanted it so."""

    functions: Any
    reason: str | None
    path: Path
    parallel: bool = False
    on_purpose: bool = False


def _absent(path: Path) -> _Engine:
    """Why the library is not at its path, as setup.py has left it said there."""
    note = path.with_name("not_built.json")
    if note.exists():
        told = json.loads(note.read_text())
        cure = _REINSTALL if told["on_purpose"] else f"with a C++ compiler, {_REINSTALL}"
        reason = f"it was not built when the package was installed: {told['why']}; {cure}"
        return _Engine(None, reason, path, on_purpose=told["on_purpose"])
    if path.with_name("engine.cpp").exists():
        tree = path.parents[2]
        return _Engine(
            None,
            f"{tree} is a source tree in which it was not built. Run: pip install -e {tree}",
            path,
        )
    return _Engine(None, f"{path} is gone; {_REINSTALL}", path)


def _load(path: Path) -> _Engine:
    if not path.exists():
        return _absent(path)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return _Engine(None, f"{path} cannot be loaded: {error}", path)
    if not hasattr(library, "kl_interface") or library.kl_interface() != INTERFACE:
        return _Engine(None, f"{path} is of another version; {_REINSTALL}", path)
    integer, pointer, text = ctypes.c_int64, ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
        ("kl_interface", integer, []),
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
        ("kl_denormals_are_zero", None, [integer, integer]),
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

    allowed: bool = os.environ.get("KERASISH_LSTM_NATIVE", "").lower() not in ("0", "no", "off")
    contexts: dict[object, bool] = field(default_factory=dict)  # native_engine's: the last counts
    forked: bool = False
    warned: bool = False
    engine: _Engine | None = None  # loaded at the first question

    @property
    def disabled(self) -> bool:
        entered = tuple(self.contexts.values())  # at once: other threads enter and leave
        return not (entered[-1] if entered else self.allowed)


_process = _Process()


def _in_a_child() -> None:
    _process.forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_child)


def functions() -> Any:
    """The library's functions, once it is known to be there."""
    return _loaded().functions


def _loaded() -> _Engine:
    if _process.engine is None:
        _process.engine = _load(Path(__file__).parent / "native" / "engine.so")
    return _process.engine


def native_status() -> NativeStatus:
    """Whether the native engine is there, and what it uses."""
    library, reason, path, parallel, _ = _loaded()
    if library is None:
        return NativeStatus(False, reason, None, None, (), False)
    if _process.disabled:
        reason = "it is turned off (KERASISH_LSTM_NATIVE=0, or native_engine(False))"
    chosen, sets = library.kl_chosen().decode(), library.kl_instruction_sets().decode()
    return NativeStatus(
        not _process.disabled, reason, str(path), chosen, tuple(sets.split()), parallel
    )


@contextmanager
def native_engine(enabled: bool) -> Iterator[None]:
    """Use the native engine, or not, within this context, for all threads.

    As ``torch.backends.mkldnn.flags`` does for oneDNN; of contexts in several threads the one that
    was entered last holds. Where the engine is not there, or a layer is not for it, True changes
    nothing.
    """
    token = object()
    _process.contexts[token] = enabled
    try:
        yield
    finally:
        del _process.contexts[token]


def why_not_library() -> str | None:
    """Why no layer can use the engine, or None."""
    if _process.disabled:
        return "the native engine is turned off"
    return None if _loaded().functions is not None else "the native engine is not built"


def warn_if_not_built(x: Tensor) -> None:
    """Warn once where the engine would compute a call, and is not there, and nobody wanted it so.

    Args:
        x: the input of a call whose layer the engine can compute.
    """
    if _process.warned or torch.compiler.is_compiling() or x.device.type != "cpu":
        return
    engine = _loaded()
    wanted = engine.functions is None and not engine.on_purpose and not _process.disabled
    if wanted and x.dtype in DTYPES and why_not_now() is None:
        _process.warned = True
        warnings.warn(
            "LSTMs are computed without this package's native engine, 2 to 8 times slower on this "
            "CPU (KERASISH_LSTM_NATIVE=0 turns the engine and this warning off): "
            f"{engine.reason}",
            NativeEngineWarning,
            stacklevel=2,
        )


def why_not_call(x: Tensor, weights: Sequence[Tensor | None], *others: Tensor | None) -> str | None:
    """Why these tensors of one call cannot be handed over as pointers, or None.

    Args:
        weights: w_ih, w_hh, b_ih, b_hh. Whatever a user has put there, it must be what the engine
            reads: torch's own operators would refuse it, C would not.
    """
    if x.device.type != "cpu":
        return f"the input is on {x.device.type}"
    if x.dtype not in DTYPES:
        return f"the input is {x.dtype}"
    for tensor in (x, *weights, *others):
        if tensor is None:
            continue
        if type(tensor) not in (Tensor, Parameter) or tensor.layout != torch.strided:
            return f"a tensor is a {type(tensor).__name__} of layout {tensor.layout}"
        if tensor.dtype != x.dtype or tensor.device != x.device:
            return f"a tensor is {tensor.dtype} on {tensor.device}"
    assert weights[1] is not None
    units = weights[1].shape[-1]
    shapes = ((4 * units, x.shape[-1]), (4 * units, units), (4 * units,), (4 * units,))
    for weight, shape in zip(weights, shapes, strict=True):
        if weight is not None and weight.shape != shape:
            return f"a weight is {tuple(weight.shape)}, not {shape}"
    if (reason := why_not_now()) is not None:
        return reason
    there = all(t is None or has_memory(t) for t in (x, *weights, *others))
    return None if there else "a tensor has no memory"


def has_memory(tensor: Tensor) -> bool:
    """Whether there is something to read; no for what torch knows to be zero.

    Raises:
        RuntimeError: its memory has been freed. Of the other engines some would read it anyway.
    """
    if not tensor.numel():
        return True
    if not tensor.untyped_storage().nbytes():
        raise RuntimeError(
            f"LSTM: the memory of a tensor of shape {tuple(tensor.shape)} has been freed. Under "
            "FSDP weights are there during the call of the wrapped module alone: call that one."
        )
    return tensor.data_ptr() != 0


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
    names, functions: the activation and the recurrent activation, for the engine and on tensors.
    """

    mask: Tensor | None
    reverse: bool
    sequences: bool
    names: tuple[str, str]
    functions: tuple[Function, Function]
    dropout: DropoutMasks


class Saved(NamedTuple):
    """What the backward needs of the forward, in the order of the steps' processing.

    hs: (T, B, U). gates: (T, B, 4U), after their activations. cs: (T + 1, B, U), from the initial.
    """

    hs: Tensor
    gates: Tensor
    cs: Tensor

    @classmethod
    def of(cls, x: Tensor, units: int) -> Saved:
        batch, steps, _ = x.shape
        return cls(
            x.new_empty(steps, batch, units),
            x.new_empty(steps, batch, 4 * units),
            x.new_empty(steps + 1, batch, units),
        )


class Quickly(NamedTuple):
    """What a :class:`Quick` call gives: hs (B, T, U) where it is wanted, the state at the end, and
    where gradients are, what they are computed from: x, h, c and the weights, and the call."""

    hs: Tensor | None
    end: LSTMState
    saved: Saved | None
    inputs: tuple[Tensor | None, ...]
    recurrence: Recurrence


class Quick:
    """A call without state and dropout, for which the most is known before.

    A small layer's call takes longer to prepare than to compute.
    """

    def __init__(
        self,
        features: int,
        dtype: torch.dtype,
        config: LSTMConfig,
        functions: tuple[Function, Function],
    ) -> None:
        self._wide, self._dtype = DTYPES[dtype], dtype
        self._units = units = config.units
        self._shapes = ((4 * units, features), (4 * units, units), (4 * units,))
        self._sequences = config.return_sequences
        names: Any = (config.activation, config.recurrent_activation)
        self._usual = Forward(F=features, H=config.units, reverse=config.go_backwards)
        self._usual.activation, self._usual.recurrent_activation = map(
            NATIVE_ACTIVATIONS.index, names
        )
        self._recurrence = Recurrence(
            None, config.go_backwards, self._sequences, names, functions, DropoutMasks()
        )

    def __call__(
        self,
        weights: Mapping[str, Tensor | None],
        b_hh: Tensor | None,
        pack: Pack,
        x: Any,
        mask: Any,
    ) -> Quickly | None:
        """The call; None where it is no such call, or what it was given is yet to be checked.

        Args:
            weights, b_hh: the parameters of an ``nn.LSTM``, and its second bias where it has one.
        """
        w_ih, w_hh, memory = weights.get("weight_ih_l0"), weights["weight_hh_l0"], pack.memory
        b_ih = None if b_hh is None else weights.get("bias_ih_l0")
        if not (type(x) is Tensor and type(w_ih) is type(w_hh) is Parameter):
            return None
        if not (
            x.is_cpu
            and w_ih.is_cpu
            and w_hh.is_cpu
            and x.dtype is w_ih.dtype is self._dtype
            and x.ndim == 3
        ):
            return None
        if not (x.is_contiguous() and w_ih.is_contiguous() and w_hh.is_contiguous()):
            return None
        batch, steps, features = x.shape
        of_ih, of_hh, of_b = self._shapes
        if (
            features != of_ih[1]
            or not steps
            or x.is_neg()
            or w_ih.is_neg()
            or w_hh.is_neg()
            or why_not_library() is not None
        ):
            return None
        if w_ih.shape != of_ih or w_hh.shape != of_hh or w_hh.dtype is not self._dtype:
            return None
        if b_hh is not None and not (
            b_ih is not None
            and b_ih.shape == b_hh.shape == of_b
            and b_ih.dtype is b_hh.dtype is self._dtype
            and b_ih.is_contiguous()
            and b_hh.is_contiguous()
            and b_ih.is_cpu
            and b_hh.is_cpu
        ):
            return None
        if mask is not None and not (
            type(mask) is Tensor
            and mask.dtype is torch.bool
            and mask.shape == (batch, steps)
            and mask.is_cpu
        ):
            return None
        if why_not_now() is not None:
            return None
        if not (  # what has_memory asks, of the biases at their pointers
            x.untyped_storage().nbytes()
            and w_ih.untyped_storage().nbytes()
            and w_hh.untyped_storage().nbytes()
            and x.data_ptr()
        ):
            return None
        one, call = Forward.from_buffer_copy(self._usual), self._recurrence
        one.B, one.T = batch, steps
        if mask is not None:
            one.mask, (one.mask_row, one.mask_step) = mask.data_ptr(), mask.stride()
        one.w_ih, one.w_hh = w_ih.data_ptr(), w_hh.data_ptr()
        if b_ih is not None and b_hh is not None:
            first, second = b_ih.data_ptr(), b_hh.data_ptr()
            if not (first and second):
                return None
            one.b_ih, one.b_hh = first, second
        one.x, one.x_row, one.x_step = x.data_ptr(), steps * features, features
        hs, saved, units = None, None, self._units
        if torch.is_grad_enabled() and (
            x.requires_grad
            or w_ih.requires_grad
            or w_hh.requires_grad
            or (b_ih is not None and b_ih.requires_grad)
            or (b_hh is not None and b_hh.requires_grad)
        ):
            saved = Saved.of(x, units)
            if mask is not None:
                call = call._replace(mask=mask.clone())  # not one that the caller may write to
            one.hs, one.hs_row, one.hs_step = saved.hs.data_ptr(), units, batch * units
            one.gates, one.cs = saved.gates.data_ptr(), saved.cs.data_ptr()
        elif self._sequences:
            hs = x.new_empty(batch, steps, units)
            one.hs, one.hs_row, one.hs_step = hs.data_ptr(), steps * units, units
        h, c = x.new_empty(batch, units), x.new_empty(batch, units)
        one.h_end, one.c_end, one.threads = h.data_ptr(), c.data_ptr(), threads()
        engine, status = functions(), _STALE
        if memory is not None:
            one.pack = memory.data_ptr()
            status = engine.kl_run_forward(self._wide, ctypes.byref(one), 1)
        if status == _STALE:
            memory = packed(pack, self._wide, one)
            status = engine.kl_run_forward(self._wide, ctypes.byref(one), 1)
        check(status)
        inputs = (x, None, None, w_ih, w_hh, b_ih, b_hh)
        return Quickly(hs, LSTMState(h, c), saved, inputs, call)


def pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def threads() -> int:
    return 1 if _process.forked else torch.get_num_threads()


def unit_stride(tensor: Tensor) -> Tensor:
    """A tensor whose last axis has stride 1."""
    tensor = tensor.resolve_neg()
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


class Prepared:
    """One call, with its results' memory, ready to run.

    Args:
        weights: w_ih, w_hh, b_ih, b_hh.
        saved: takes what the backward needs.
    """

    def __init__(
        self,
        x: Tensor,
        h: Tensor | None,
        c: Tensor | None,
        weights: Sequence[Tensor | None],
        pack: Pack,
        call: Recurrence,
        saved: Saved | None = None,
    ) -> None:
        x = unit_stride(x)
        batch, steps, features = x.shape
        h, c, gated, dropped, *weights = (
            None if t is None else t.resolve_neg().contiguous()
            for t in (h, c, call.dropout.input, call.dropout.recurrent, *weights)
        )
        assert weights[1] is not None
        units = weights[1].shape[1]
        hs, gates, cs, row, step = None, None, None, 0, 0
        if saved is not None:
            hs, gates, cs = saved
            row, step = units, batch * units
        elif call.sequences:
            hs, row, step = x.new_empty(batch, steps, units), steps * units, units
        end = LSTMState(x.new_empty(batch, units), x.new_empty(batch, units))
        mask, memory = call.mask, pack.memory  # read once: another thread may pack anew
        self.wide, self.pack = DTYPES[x.dtype], pack
        self.arguments = Forward(
            batch, steps, features, units, *map(pointer, weights),
            pointer(memory), 0, x.data_ptr(), x.stride(0), x.stride(1),
            pointer(mask), *((0, 0) if mask is None else mask.stride()),
            pointer(h), pointer(c), pointer(gated),
            pointer(dropped), 0 if dropped is None else (4 if dropped.ndim == 3 else 1),
            pointer(hs), row, step, pointer(gates), pointer(cs), end.h.data_ptr(),
            end.c.data_ptr(), *map(NATIVE_ACTIVATIONS.index, call.names), call.reverse, threads(),
        )  # fmt: skip
        self.hs, self.end, self.traced = hs, end, saved is not None
        self._kept = [x, h, c, gated, dropped, mask, memory, *weights]  # while C reads them

    def pack_again(self) -> None:
        """Pack the weights: they are new, or have changed."""
        self._kept.append(packed(self.pack, self.wide, self.arguments))


def packed(pack: Pack, wide: int, call: Forward) -> Tensor:
    """The weights of a call, packed anew for it and for those that follow.

    The caller keeps the result while C reads it: another thread may replace it in the layer.
    """
    engine = functions()
    size = engine.kl_pack_size(wide, call.F, call.H)
    # Another one, not the old one written anew: another thread may be reading that.
    memory = torch.empty(size, dtype=torch.uint8, device="cpu")
    given = _Weights(call.F, call.H, call.w_ih, call.w_hh, call.b_ih, call.b_hh, call.threads)
    check(engine.kl_pack(wide, ctypes.byref(given), memory.data_ptr()))
    pack.memory, call.pack, call.fresh = memory, memory.data_ptr(), 1
    return memory


def run_forward(*calls: Prepared) -> None:
    """Run one call, or two of one batch, length and size at once."""
    engine, wide = functions(), calls[0].wide
    array = (Forward * len(calls))(*(call.arguments for call in calls))
    status = _STALE
    if all(call.arguments.pack is not None for call in calls):
        status = engine.kl_run_forward(wide, array, len(calls))
    if status == _STALE:
        for number, call in enumerate(calls):
            call.pack_again()
            array[number] = call.arguments
        status = engine.kl_run_forward(wide, array, len(calls))
    check(status)


def check(status: int) -> None:
    if status == _NO_MEMORY:
        raise MemoryError("kerasish_lstm's native engine got no memory for its working state.")
    if status not in (0, DENORMAL):
        raise RuntimeError(f"kerasish_lstm's native engine gave the unknown status {status}.")
