"""The state that a stateful layer keeps between its calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from .._engines import LSTMState
from ..errors import InputError, StateError


class Stateful(nn.Module):
    """A module that may keep one :class:`LSTMState` for each of its cells.

    The state is no buffer: DistributedDataParallel would overwrite it with rank 0's at every
    forward, and Keras saves it nowhere. It moves with ``.to()`` and is detached between calls.
    """

    _state: tuple[LSTMState, ...] | None

    def _stored(self, batch: int, label: Callable[[], str]) -> tuple[LSTMState, ...] | None:
        if self._state is not None and self._state[0].h.shape[0] != batch:
            raise StateError(
                f"{label()} is stateful and holds the state of a batch of "
                f"{self._state[0].h.shape[0]}; this batch has {batch}. Call reset_state() before "
                "another batch size."
            )
        return self._state

    def _keep(
        self,
        states: Sequence[LSTMState],
        like: Sequence[Tensor],
        dtype: torch.dtype | None = None,
    ) -> None:
        """Store states: detached, as ``like`` parameters, usable outside inference_mode.

        Args:
            like: a parameter for each state.
            dtype: in place of the parameters'.
        """
        with torch.inference_mode(False), torch.no_grad():
            self._state = tuple(
                LSTMState(*(s.detach().to(w.device, dtype or w.dtype, copy=True) for s in state))
                for state, w in zip(states, like, strict=True)
            )

    def reset_state(self) -> None:
        """Begin the next call with zeros, with any batch size. Harmless if not stateful."""
        self._state = None

    def reset_states(self) -> None:
        """Keras's other name of :meth:`reset_state`."""
        self.reset_state()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        if any(p.is_meta for p in self.parameters()):
            self._state = None  # to_empty() would fill it with whatever lies in memory
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._state is not None:
            self._state = tuple(LSTMState(*(fn(s) for s in state)) for state in self._state)
        return self


def check_states(value: Any, size: int, label: str, what: str) -> list[Any] | None:
    """What a wrapper's ``states`` is set to, as a list of ``size`` entries; None is none.

    Raises:
        InputError: another number of entries.
    """
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != size:
        held = len(value) if isinstance(value, list | tuple) else "no"
        raise InputError(
            f"{label}: states is a {type(value).__name__} with {held} entries; pass {size}, {what},"
            " or None to forget them."
        )
    return list(value)


def of_one_batch(states: Sequence[LSTMState], label: str) -> None:
    """Refuse states that are set together and are of different batch sizes.

    Raises:
        StateError: they are.
    """
    sizes = [len(state.h) for state in states]
    if len(set(sizes)) > 1:
        raise StateError(
            f"{label}: the states are of the batch sizes {', '.join(map(str, sizes))}; one call "
            "needs states of one batch size."
        )
