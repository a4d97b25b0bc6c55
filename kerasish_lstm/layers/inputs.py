"""What a caller hands to a layer, checked before anything is computed from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._engines import LSTMState
from ..errors import InputError, StateError, WeightMismatch

Label = Callable[[], str]  # what errors call a layer; composing it at each call would cost time
InitialState = LSTMState | Sequence[Tensor]
Mask = Tensor | Sequence[Tensor | None] | None


def as_sequence(x: Any, input_size: int, like: Tensor, label: Label) -> Tensor:
    """x (B, T, F), if it fits a layer whose parameters are as ``like``; not yet in their dtype."""
    if not isinstance(x, Tensor):
        raise InputError(
            f"{label()}: the input is a {type(x).__name__}; pass a torch.Tensor of shape "
            "(B, T, F) (torch.as_tensor makes one of an array or a list)."
        )
    if x.ndim != 3:
        raise InputError(
            f"{label()}: the input has shape {tuple(x.shape)}; it must have 3 axes, "
            "(batch, time, features)."
            + (" Add the batch axis: x.unsqueeze(0)." if x.ndim == 2 else "")
        )
    if x.shape[2] != input_size:
        raise InputError(
            f"{label()}: the input has shape {tuple(x.shape)}, so {x.shape[2]} features; "
            f"the layer takes {input_size}. Axes are (batch, time, features)."
        )
    if x.shape[1] == 0:
        raise InputError(f"{label()}: the input has no time step: shape {tuple(x.shape)}.")
    return as_real(x, like, label)


def as_real(x: Tensor, like: Tensor, label: Label) -> Tensor:
    """x, if it is real and on the parameters' device."""
    if x.is_complex():
        raise InputError(f"{label()}: the input is complex ({x.dtype}); pass real numbers.")
    if x.device != like.device:
        raise InputError(
            f"{label()}: the input is on {x.device}, the layer on {like.device}. "
            "Move one with .to()."
        )
    return x


def as_mask(mask: Any, x: Tensor, label: Label) -> Tensor | None:
    """The mask as bool (B, T), or None."""
    if isinstance(mask, list | tuple) and mask and (mask[0] is None or torch.is_tensor(mask[0])):
        mask = mask[0]  # Keras: of a list of masks, the first is the sequence's
    if mask is None:
        return None
    if not isinstance(mask, Tensor):
        raise InputError(
            f"{label()}: the mask is a {type(mask).__name__}; pass a torch.Tensor of shape "
            f"(B, T) = {tuple(x.shape[:2])}, True where a step counts."
        )
    shape = tuple(mask.shape)
    if mask.ndim == 3 and mask.shape[2] == 1:
        mask = mask.squeeze(2)
    if mask.ndim != 2 or mask.shape[1] != x.shape[1] or mask.shape[0] not in (1, x.shape[0]):
        raise InputError(
            f"{label()}: the mask has shape {shape}; for an input of shape "
            f"{tuple(x.shape)} it must be (B, T) = {tuple(x.shape[:2])}."
        )
    if mask.device != x.device:
        raise InputError(
            f"{label()}: the mask is on {mask.device}, the input on {x.device}. Move it with .to()."
        )
    steps: Tensor = mask.to(torch.bool).expand(x.shape[0], -1)
    return steps


def as_pair(
    state: Any, units: int, label: Label, called: str = "initial_state"
) -> tuple[Tensor, Tensor]:
    """(h, c) of what the caller gave as a state, under the name ``called``."""
    if not isinstance(state, list | tuple):
        raise InputError(
            f"{label()}: {called} is a {type(state).__name__}; pass a pair (h, c), a "
            f"list, a tuple or an LSTMState, each of shape (B, {units})."
        )
    if len(state) != 2:
        raise InputError(f"{label()}: {called} has {len(state)} entries; it must have 2, (h, c).")
    for letter, s in zip("hc", state, strict=True):
        if not isinstance(s, Tensor) or s.is_complex():
            raise InputError(
                f"{label()}: {called}'s {letter} is a "
                f"{s.dtype if isinstance(s, Tensor) else type(s).__name__}; pass a real "
                f"torch.Tensor of shape (B, {units})."
            )
    return state[0], state[1]


def as_stored(state: Any, units: int, label: Label) -> LSTMState:
    """The state that a layer's ``states`` is set to, each (B, U).

    Raises:
        InputError: no pair of real tensors.
        StateError: tensors of other shapes.
    """
    h, c = as_pair(state, units, label, "states")
    if h.ndim != 2 or h.shape[1] != units or h.shape != c.shape:
        raise StateError(
            f"{label()}: a state must be (h, c), both of shape (B, {units}); "
            f"given {tuple(h.shape)} and {tuple(c.shape)}."
        )
    return LSTMState(h, c)


def as_state(state: Any, units: int, x: Tensor, label: Label) -> LSTMState:
    """The caller's state for an input x (B, ...), each (B, U), in x's dtype."""
    batch = x.shape[0]
    allowed = [(batch, units), (1, units), (units,)]
    pair = []
    for letter, s in zip("hc", as_pair(state, units, label), strict=True):
        if s.shape not in allowed:
            raise InputError(
                f"{label()}: initial_state's {letter} has shape {tuple(s.shape)}; "
                f"it must be (B, units) = {(batch, units)}."
            )
        allowed += [(batch, 1), (1, 1), (1,), ()]  # of c; h is multiplied by a matrix
        if s.device != x.device:
            raise InputError(
                f"{label()}: initial_state's {letter} is on {s.device}, "
                f"the input on {x.device}. Move it with .to()."
            )
        pair.append(s.to(x.dtype).expand(batch, units))
    return LSTMState(*pair)


def as_dtype(value: Any, dtype: torch.dtype | None) -> Any:
    """Every tensor of a nest of lists in a dtype, as Keras casts what a wrapper is called with."""
    if dtype is not None and isinstance(value, Tensor):
        return value.to(dtype)
    if dtype is not None and isinstance(value, list | tuple):
        return [as_dtype(one, dtype) for one in value]
    return value


def as_arrays(weights: Any, label: str) -> list[Any]:
    """The arrays that ``set_weights`` was given, as a list.

    Raises:
        WeightMismatch: no list of arrays.
    """
    if isinstance(weights, str) or not isinstance(weights, Iterable):
        raise WeightMismatch(
            f"{label}.set_weights(): a {type(weights).__name__} was given; pass a list of arrays, "
            "as get_weights() gives it."
        )
    return list(weights)
