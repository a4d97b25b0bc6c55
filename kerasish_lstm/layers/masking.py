"""Where masks come from and where they go: ``Masking``, ``Embedding(mask_zero=True)``, and what
leaves a layer.

Keras hangs a mask on a tensor, where the next layer finds it. Here a mask is a value like any
other: what makes one returns it, and :func:`compute_mask` says what a layer hands on.

    x, mask = masking(x)                          # (B, T, F), (B, T), True where a step counts
    y = first(x, mask=mask)
    mask = compute_mask(first, mask)
    y = second(y, mask=mask)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, InputError
from ..keywords import checked_name
from .inputs import Mask

if TYPE_CHECKING:
    from .lstm import LSTM

Propagation = Literal["keras_3.15", "keras_3.16"]
MaskValue = float | Sequence[Any] | np.ndarray | Tensor | Mapping[str, Any]

# Entries of a Masking layer's config, in any Keras, that change nothing here.
_IGNORED = ("trainable", "autocast", "batch_input_shape", "batch_shape", "input_shape")


class Masking(nn.Module):
    """Keras's ``Masking``: steps in which every feature equals ``mask_value`` do not count.

        mask_t = any(x_t != mask_value);  x'_t = x_t if mask_t else 0

    Args:
        mask_value: a number, or one for each feature: a list, an array, a tensor. A step with a NaN
            always counts, so ``mask_value=nan`` masks nothing.
        dtype: floating-point inputs are cast to it first, as Keras casts to the dtype of its layer
            (float32 unless told otherwise). None: they stay as they are.
        name: as in Keras.

    Shapes: x (B, T, F); gives x' (B, T, F) and mask (B, T), bool. Axes between T and F are
    possible.

    Raises:
        ConfigError: a mask_value that is no real number, a dtype that is not floating-point.

    As in Keras, a Python float becomes a float32, and the two are compared in the wider of their
    dtypes: ``mask_value=0.1`` equals no step of a float64 or a 16-bit x, where 0.1 is another
    number. Take one that all of them hold, such as -1.0, or ``np.float64(0.1)`` for float64. A mask
    that x had before plays no part: Keras replaces it too.

    Source: Keras 3.15.1, ``keras/src/layers/core/masking.py``, TensorFlow backend.
    """

    __call__: Callable[..., tuple[Tensor, Tensor]]

    def __init__(
        self,
        mask_value: MaskValue = 0.0,
        *,
        dtype: torch.dtype | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__()
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise ConfigError(
                f"Masking: dtype={dtype!r} is not a floating-point torch.dtype, such as "
                "torch.float32; None keeps the input's."
            )
        name = checked_name(name, "Masking")
        # Neither parameter nor buffer: .half() would round it, and Keras's layer has no weights.
        self._value = _as_tensor(mask_value)
        given = not isinstance(mask_value, Tensor | Mapping)
        self.mask_value: Any = mask_value if given else self._value
        self.dtype = dtype
        self.name = name

    def extra_repr(self) -> str:
        parts = [f"mask_value={self.mask_value!r}"]
        parts += [] if self.dtype is None else [f"dtype={self.dtype}"]
        return ", ".join(parts + ([f"name={self.name!r}"] if self.name else []))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x with its masked steps cleared, and the mask.

        The gradient is 0 at masked steps, whatever stands there, infinities included.

        Raises:
            InputError: an x that is no real tensor, has fewer than 3 axes, or whose features do not
                fit mask_value.
        """
        if not isinstance(x, Tensor) or x.is_complex():
            what = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise InputError(
                f"Masking: the input is a {what}; pass a real torch.Tensor of shape (B, T, F)."
            )
        if x.ndim < 3:
            raise InputError(
                f"Masking: the input has shape {tuple(x.shape)}; it must have 3 axes or more, "
                "(batch, time, features). For ids of shape (batch, time) take embedding_mask(ids)."
            )
        value = self._value
        fits = zip(value.shape[::-1], x.shape[::-1], strict=False)
        if value.ndim > x.ndim or any(v not in (1, size) for v, size in fits):
            raise InputError(
                f"Masking: mask_value has shape {tuple(value.shape)} and the input "
                f"{tuple(x.shape)}; give one number, or one for each of the {x.shape[-1]} features."
            )
        if x.dtype == torch.bool:
            x = x.to(torch.int32)  # as in Keras
        elif self.dtype is not None and x.is_floating_point():
            x = x.to(self.dtype)
        common = torch.promote_types(x.dtype, value.dtype)
        value = value.to(common)
        if value.ndim:  # a number needs no copy to the device
            value = value.to(x.device)
        mask = (x.to(common) != value).any(-1)  # (B, T)
        return x.masked_fill(~mask.unsqueeze(-1), 0), mask

    def get_config(self) -> dict[str, Any]:
        """The keywords that make the same layer here, by :meth:`from_config`, and in Keras."""
        value = self.mask_value
        if isinstance(value, Tensor):  # NumPy has no bfloat16
            value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        config = {
            "name": self.name,
            "dtype": None if self.dtype is None else str(self.dtype).removeprefix("torch."),
        }
        return {**{k: v for k, v in config.items() if v is not None}, "mask_value": value}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Masking:
        """A layer of a config: from :meth:`get_config`, a live Keras layer, or a Keras file's JSON.

        Keras's configs have a dtype: what they make casts floating-point inputs to it, as there.

        Raises:
            ConfigError: an entry that no Masking layer has, and what the constructor refuses.
        """
        known = ("mask_value", "dtype", "name")
        for key in config:
            if key not in (*known, *_IGNORED):
                raise ConfigError(
                    f"Masking {config.get('name')!r}: its config has the unknown entry {key!r}; "
                    f"known are {', '.join(map(repr, (*known, *_IGNORED)))}."
                )
        values = {k: config[k] for k in known if k in config}
        policy = values.pop("dtype", None)
        if isinstance(policy, Mapping):  # {"class_name": "DTypePolicy", "config": {"name": ...}}
            policy = (policy.get("config") or {}).get("name", policy.get("name"))
        if policy is not None:
            name = str(policy).removeprefix("mixed_")
            # What torch lacks goes to the constructor as it is, whose error names it.
            values["dtype"] = getattr(torch, name, policy)
        return cls(**values)


def _as_tensor(value: Any) -> Tensor:
    """A mask_value on the CPU, in the dtype that Keras's ``convert_to_tensor`` gives it."""
    if isinstance(value, Tensor):
        if value.is_complex():
            raise ConfigError(f"Masking: mask_value is {value.dtype}; pass real numbers.")
        return value.detach().to("cpu", copy=True)
    try:
        if isinstance(value, Mapping):  # {"class_name": "__numpy__", "config": {"value", "dtype"}}
            dtype = getattr(torch, value["config"]["dtype"])
            return torch.tensor(value["config"]["value"], dtype=dtype, device="cpu")
        array = np.asarray(value)
        if array.dtype.kind in "iu":
            array = array.astype(np.int64, casting="safe")
        elif array.dtype.kind not in "bf":
            raise TypeError(f"dtype {array.dtype}")
        elif array.dtype == np.float64 and not isinstance(value, np.ndarray | np.generic):
            array = array.astype(np.float32)
        return torch.tensor(array, device="cpu")
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"Masking: mask_value={value!r} is not possible; pass a real number, or one for each "
            "feature: a list, an array or a tensor."
        ) from error


def embedding_mask(ids: Tensor) -> Tensor:
    """The mask that Keras's ``Embedding(mask_zero=True)`` makes: ``ids != 0``.

        embedding = torch.nn.Embedding(1000, 64)
        y = lstm(embedding(ids), mask=embedding_mask(ids))

    Give that ``torch.nn.Embedding`` no ``padding_idx``. Keras's row 0 is a row like the others: it
    begins random, id 0 gives it and not zeros, and it learns wherever a layer takes it in that
    ignores the mask. ``padding_idx=0`` clears the row and stops its gradient. Behind a layer that
    takes the mask, such as :class:`LSTM`, the gradient of row 0 is 0 in both.

    Args:
        ids: (B, T), integers; any shape is possible.

    Returns:
        mask of the same shape, bool.

    Raises:
        InputError: ids that are no tensor.

    Source: Keras 3.15.1, ``keras/src/layers/core/embedding.py``.
    """
    if not isinstance(ids, Tensor):
        raise InputError(
            f"embedding_mask: the ids are a {type(ids).__name__}; pass a torch.Tensor of integers, "
            "of shape (B, T)."
        )
    return ids != 0


@overload
def compute_mask(
    module: LSTM[Tensor], mask: Mask, *, propagation: Propagation = ...
) -> Tensor | None: ...


@overload
def compute_mask(
    module: LSTM[tuple[Tensor, Tensor, Tensor]], mask: Mask, *, propagation: Propagation = ...
) -> list[Tensor | None]: ...


@overload
def compute_mask(module: nn.Module, mask: Mask, *, propagation: Propagation = ...) -> Any: ...


def compute_mask(module: nn.Module, mask: Mask, *, propagation: Propagation = "keras_3.15") -> Any:
    """The mask that leaves a layer with its output, given the mask that went in.

    Args:
        module: a layer of this package.
        mask: what the layer was called with: (B, T), None, or a list of which the first counts.
        propagation: ``"keras_3.15"``, or ``"keras_3.16"``, which is Keras's main branch since
            July 2026: no recurrent layer hands a mask on, so that it reaches the first of them and
            ends there. A model with several gives other numbers then.

    Returns:
        The mask itself, not a copy, or None, in the form that Keras gives:

        LSTM            the mask with ``return_sequences``, else None;
                        with ``return_state`` a list [that, None, None]
        Bidirectional   the mask with ``return_sequences``, else None, with ``return_state`` too;
                        with ``merge_mode=None`` a tuple of it twice, for both outputs

        With ``"keras_3.16"`` the same forms, with None in every place.

    Raises:
        ConfigError: a module that has no rule here, an unknown propagation.
        InputError: a mask that is no tensor.

    As in Keras, what leaves a layer with ``go_backwards`` is *not* reversed, though its sequence
    is: the two run in opposite directions, and the next layer skips the wrong steps. Flip the mask
    (``mask.flip(1)``) where you want it to fit and do not need Keras's numbers.

    Source: Keras 3.15.1, ``compute_mask`` of ``keras/src/layers/rnn/{rnn,bidirectional}.py``. On
    purpose different: for a stateful Bidirectional with ``return_state`` Keras raises TypeError.
    """
    if propagation not in get_args(Propagation):
        raise ConfigError(
            f"compute_mask: propagation={propagation!r} is not possible; allowed are "
            f"{', '.join(map(repr, get_args(Propagation)))}."
        )
    if isinstance(mask, list | tuple) and mask:
        mask = mask[0]
    if mask is not None and not isinstance(mask, Tensor):
        raise InputError(
            f"compute_mask: the mask is a {type(mask).__name__}; pass a torch.Tensor of shape "
            "(B, T), None, or a list of these."
        )
    rule: Any = getattr(module, "output_mask", None)
    if rule is None:
        raise ConfigError(
            f"compute_mask: a {type(module).__name__} has no rule; LSTM, Bidirectional, "
            "StackedLSTM and TimeDistributed have one (a layer of your own gets one by a method "
            "output_mask(mask)). Layers that treat each step alone, such as torch.nn.Linear or "
            "Dropout, hand a mask on as it is: use the mask itself."
        )
    return rule(mask if propagation == "keras_3.15" else None)
