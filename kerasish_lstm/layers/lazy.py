"""A layer and a cell that learn their input size at the first call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Unpack, cast, overload

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter, is_lazy

from .._engines import TorchLSTM
from ..errors import InputError
from ..keywords import check_features, features_of
from .cell import LSTMCell
from .lstm import LSTM, Output, WithState
from .options import CellOptions, LSTMOptions
from .parameters import LSTMParameters


class LazyLSTM(LSTM[Output]):
    """An :class:`LSTM` that learns ``input_size`` at its first call, and is an LSTM from then on.

    As torch's lazy modules: run one batch through it before you hand its parameters to
    anything that counts or copies them; ``state_dict`` can be saved and loaded before.

    Args:
        units and the keywords: as in :class:`LSTM`. With ``input_shape=(T, F)`` or ``input_dim=F``
            it is one at once.
    """

    @overload
    def __init__(
        self: LazyLSTM[Tensor],
        units: int,
        *,
        return_state: Literal[False] = ...,
        **options: Unpack[LSTMOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: LazyLSTM[WithState],
        units: int,
        *,
        return_state: Literal[True],
        **options: Unpack[LSTMOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: LazyLSTM[Any], units: int, *, return_state: bool, **options: Unpack[LSTMOptions]
    ) -> None: ...

    def __init__(self, units: int, **options: Any) -> None:
        features = _features(options, "LazyLSTM")
        super().__init__(features or 1, units, **options)
        if features is None:
            unlearn(self)
        else:
            _become(self)


class LazyLSTMCell(LSTMCell):
    """An :class:`LSTMCell` that learns ``input_size`` at its first call, and is one from then on.

    Args:
        units and the keywords: as in :class:`LSTMCell`.
    """

    def __init__(self, units: int, **options: Unpack[CellOptions]) -> None:
        features = _features(options, "LazyLSTMCell")
        super().__init__(features or 1, units, **options)
        if features is None:
            unlearn(self)
        else:
            _become(self)


LSTM._lazy, LSTMCell._lazy = LazyLSTM, LazyLSTMCell


def _features(options: Any, kind: str) -> int | None:
    """F, where ``input_shape`` or ``input_dim`` says it."""
    return features_of(options.get("input_shape"), options.get("input_dim"), kind)


class _LazyParameters(LazyModuleMixin, TorchLSTM):
    """An ``nn.LSTM`` whose ``weight_ih_l0`` has no shape yet, saved and loaded as torch's are."""

    def flatten_parameters(self) -> None:
        if not is_lazy(self.weight_ih_l0):
            super().flatten_parameters()

    def _load_from_state_dict(self, *args: Any) -> None:
        LazyModuleMixin._lazy_load_hook(self, *args)
        super()._load_from_state_dict(*args)


def unlearn(module: LSTMParameters) -> None:
    """Forget the input size of a layer or cell that was built for 1, and learn it when called."""
    weight = module.lstm.weight_ih_l0
    module.lstm.__class__ = _LazyParameters
    like: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
    like["requires_grad"] = weight.requires_grad
    module.lstm.weight_ih_l0 = UninitializedParameter(**like)
    module._learn_hook = module.register_forward_pre_hook(_at_first_call, with_kwargs=True)


def learn(module: LSTMParameters, features: int) -> None:
    """Make a lazy layer or cell what it would have been with ``input_size=features``."""
    weight = module.lstm.weight_ih_l0
    if is_lazy(weight):
        with torch.inference_mode(False):  # a parameter made inside could never be trained
            like = module.lstm.weight_hh_l0  # a lazy one forgets dtype and device when pickled
            shape = (4 * module.units, features)
            cast(UninitializedParameter, weight).materialize(shape, like.device, like.dtype)
            module._reset_kernel()
    module.lstm.input_size = module.input_size
    module.lstm.__class__ = nn.LSTM  # type: ignore[assignment]
    module.lstm.flatten_parameters()
    assert module._learn_hook is not None  # as long as it is lazy
    module._learn_hook.remove()
    module._learn_hook = None
    _become(module)


def take_features(parts: Sequence[LSTMParameters], input_shape: Any, input_dim: Any) -> None:
    """What ``input_shape`` or ``input_dim`` of a wrapper says to the layers that see its input."""
    for part in parts:
        if is_lazy(part.lstm.weight_ih_l0):
            if features := features_of(input_shape, input_dim, part.keras_class):
                learn(part, features)
        else:
            check_features(part.input_size, input_shape, input_dim, part.keras_class)


def _become(module: LSTMParameters) -> None:
    """What a lazy one is once it knows its size."""
    module.__class__ = LSTMCell if isinstance(module, LSTMCell) else LSTM


def _at_first_call(module: LSTMParameters, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    x = args[0] if args else kwargs.get("x")
    ndim, shape = (2, "(batch, features)") if isinstance(module, LSTMCell) else (3, "")
    if not isinstance(x, Tensor) or x.ndim != ndim or x.shape[-1] == 0:
        found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(
            f"Lazy{module.keras_class}({module.units}): the first input must be a torch.Tensor of "
            f"shape {shape or '(batch, time, features)'}, from which it learns the features; given "
            f"{found}."
        )
    learn(module, x.shape[-1])
