"""A CPU standing in for CUDA: real numbers on CUDA's branches, and a note of each wait.

Within ``AsCuda`` a tensor on "cuda" is a CPU tensor that says it lies on CUDA: the package takes
the branches that it takes there, and what it computes can be compared. Noted is what a host waits
for on CUDA: a tensor's value, a shape that depends on values, a copy from or to the host. As there,
tensors of both devices do not mix. ``Graph`` records a call as a CUDA graph does, as the operators
that ran, and replays them on what their inputs hold by then.

It cannot show cuDNN's arithmetic, nor waits inside of CUDA's own operators. Of cuDNN's rules it
knows one: a forward in eval mode has no backward.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from pathlib import Path
from typing import Any, Self
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import kerasish_lstm

CUDA = torch.device("cuda", 0)
PACKAGE = f"{Path(kerasish_lstm.__file__).parent}{os.sep}"

READS = {
    getattr(Tensor, name)
    for name in ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "__contains__")
}
FROM_DATA = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}
# With lengths or batch sizes on the host: how many of the first results are on the device.
PACKING = {torch._VF._pack_padded_sequence: 1, torch._VF._pad_packed_sequence: 1, torch._VF.lstm: 3}
# Asked of a tensor and its copy on another device.
ASKS = {torch._has_compatible_shallow_copy_type}
aten = torch.ops.aten
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}  # if by a mask
ON_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class OnCuda(Tensor):
    """A CPU tensor that says it lies on CUDA."""

    @property
    def device(self) -> torch.device:
        return CUDA

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False


class AsCuda(TorchFunctionMode):
    """Within, ``device="cuda"`` means the stand-in; ``waits`` lists what was waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # .to() gives an OnCuda
        self._open.callback(torch.__future__.set_overwrite_module_params_on_conversion, before)
        # nn.LSTM would lay out its weights in one piece for cuDNN.
        cudnn = mock.patch.object(torch.backends.cudnn, "is_acceptable", lambda _: False)
        self._open.enter_context(cudnn)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._open.close()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        here = any(isinstance(tensor, OnCuda) for tensor in tensors)
        if func in (Tensor.to, Tensor.cuda, Tensor.cpu):
            return self._moved(func, *args, **kwargs)
        if kwargs.get("device") is not None:
            return self._made(func, args, kwargs, here)
        if not here:
            return func(*args, **kwargs)
        if func in (Tensor.numpy, Tensor.__array__):
            raise TypeError("a tensor on CUDA is no NumPy array; copy it to the host first")
        if func in READS:
            self.note(_name(func))
            return func(*args, **kwargs)
        if func is Tensor.copy_ and not all(isinstance(tensor, OnCuda) for tensor in tensors):
            self.note("a copy between the devices")
        elif func not in {*PACKING, *ASKS} and any(
            tensor.ndim and not isinstance(tensor, OnCuda) for tensor in tensors
        ):
            raise RuntimeError(f"{_name(func)}: tensors on both cuda:0 and cpu")
        if func == torch._VF.lstm:
            _refuse_a_backward_in_eval_mode(args, tensors)
        with _Operators(self):
            result = func(*args, **kwargs)
        if func in PACKING:
            on_device = PACKING[func]
            return (*result[:on_device], *(_as(r, Tensor) for r in result[on_device:]))
        return result

    def note(self, what: str) -> None:
        """Note a wait, with the package's line that asked for it."""
        for frame, line in traceback.walk_stack(None):
            code = frame.f_code
            if code.co_filename.startswith(PACKAGE):
                what = f"{Path(code.co_filename).name}:{line} {code.co_name}: {what}"
                break
        self.waits.append(what)

    def _made(self, func: Any, args: Any, kwargs: dict[str, Any], here: bool) -> Any:
        """A new tensor on the device that was asked for."""
        on_cuda = torch.device(kwargs.pop("device")).type == "cuda"
        if func in FROM_DATA and on_cuda and not here:
            self.note(f"{_name(func)}: a copy to the device")
        return _as(func(*args, device="cpu", **kwargs), OnCuda if on_cuda else Tensor)

    def _moved(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``.to()``, ``.cuda()`` or ``.cpu()``."""
        copy = kwargs.pop("copy", False)
        if func is not Tensor.to:
            device, dtype, nonblocking = torch.device(_name(func).split(".")[1]), None, False
        elif args and isinstance(args[0], Tensor):
            device, dtype, nonblocking = args[0].device, args[0].dtype, False
        else:
            device, dtype, nonblocking, _ = torch._C._nn._parse_to(*args, **kwargs)
        was_on_cuda = isinstance(tensor, OnCuda)
        on_cuda = was_on_cuda if device is None else device.type == "cuda"
        if was_on_cuda and not on_cuda:
            self.note(f"{_name(func)}: a copy to the host")
        if on_cuda and not was_on_cuda and not nonblocking:
            self.note(f"{_name(func)}: a copy to the device")
        with torch._C.DisableTorchFunctionSubclass():
            moved = tensor.to(dtype=dtype or tensor.dtype, copy=copy or on_cuda != was_on_cuda)
        return _as(moved, OnCuda if on_cuda else Tensor)


class _Operators(TorchDispatchMode):
    """Notes the operators below a function that depend on values."""

    def __init__(self, owner: AsCuda) -> None:
        super().__init__()
        self.owner = owner

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        depends = bool(ON_VALUES & set(func.tags))
        if func in INDEXING:
            depends = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        if depends:
            self.owner.note(func.name())
        return func(*args, **(kwargs or {}))


def _as(value: Any, kind: type[Tensor]) -> Any:
    """Tensors as of a class."""

    def one(tensor: Tensor) -> Tensor:
        if type(tensor) is kind or (kind is Tensor and not isinstance(tensor, OnCuda)):
            return tensor
        return tensor.as_subclass(kind)

    with torch._C.DisableTorchFunctionSubclass():
        return tree_map_only(Tensor, one, value)


def _refuse_a_backward_in_eval_mode(args: Any, tensors: list[Tensor]) -> None:
    """cuDNN keeps for the backward what it needs in training mode alone; it says so there."""
    packed = isinstance(args[1], Tensor)  # the batch sizes, in place of the state
    train = args[7 if packed else 6]
    if not train and torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        raise RuntimeError("cudnn RNN backward can only be called in training mode")


def _name(func: Any) -> str:
    owner = "Tensor." if getattr(Tensor, func.__name__, None) is func else ""
    return owner + func.__name__


class Graph(TorchDispatchMode):
    """What ran within, to run again: a CUDA graph's rule, by which the host decides nothing anew.

    ``replay()`` computes the same operators from what their inputs hold by then, into the tensors
    that the recorded call gave.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ran: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self._ran.append((func, args, kwargs, result))
        return result

    def replay(self) -> None:
        with torch.no_grad(), torch._C.DisableTorchFunction():
            for func, args, kwargs, result in self._ran:
                alias = [r.alias_info for r in func._schema.returns]
                if any(a is not None and not a.is_write for a in alias):
                    continue  # a view shows its base's new values
                again = func(*args, **kwargs)
                if not any(a is not None for a in alias):
                    for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                        if isinstance(old, Tensor):
                            old.copy_(new)
