"""What a module adds to the loss besides the user's own: Keras's ``layer.losses``.

Activity losses come from the last call, weight losses from the weights as they are when asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from . import regularizers

# None: a call's activity losses replace the last call's. False: they are not recorded. Otherwise
# the token of an accumulate_losses(), within which they are added up.
_recording: ContextVar[object] = ContextVar("recording", default=None)


class WithLosses(nn.Module):
    """A module with losses of its own; those of modules inside it follow.

    ``_activity_regularizer`` is a function of a tensor, or None.
    """

    _activity_regularizer: Callable[[Tensor], Tensor] | None
    _activity_losses: list[Tensor]
    _activity_token: object

    def _regularize_activity(self, regularizer: Any) -> None:
        """Take an activity regularizer in any of Keras's forms."""
        self._activity_regularizer = regularizers.get(regularizer, "activity_regularizer")
        self._activity_losses = []
        self._activity_token = None

    def _record_activity(self, result: Any) -> None:
        """Regularize every tensor of a call's result, each divided by its batch size."""
        token = _recording.get()
        if self._activity_regularizer is None or token is False:
            return
        losses = []
        for output in _tensors(result):
            loss = self._activity_regularizer(output)
            losses.append(loss / len(output) if len(output) else torch.zeros_like(loss))
        if token is not None and token is self._activity_token:
            losses = self._activity_losses + losses
        self._activity_losses, self._activity_token = losses, token

    def _weight_losses(self) -> list[Tensor]:
        return []

    @property
    def losses(self) -> list[Tensor]:
        """Scalars to add to the loss, in Keras's order.

        First the activity losses of the last call, one for each tensor that it returned (h and c
        too), each ``regularizer(output) / batch``; then those of the kernel, the recurrent kernel
        and the bias as they are now, where they are trainable.

        Source: Keras 3.15.1 ``Layer.losses`` and ``Layer.__call__``.
        """
        within = [m for m in self.modules() if isinstance(m, WithLosses)]
        activity = [loss for m in within for loss in m._activity_losses]
        return activity + [loss for m in within for loss in m._weight_losses()]

    def __getstate__(self) -> dict[str, Any]:
        # What is left of a graph can be neither pickled nor copied.
        return {**self.__dict__, "_activity_losses": [], "_activity_token": None}


def _tensors(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, list | tuple):
        for part in result:
            yield from _tensors(part)


@contextmanager
def without_activity_losses() -> Iterator[None]:
    """No call within records an activity loss."""
    before = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(before)


@contextmanager
def accumulate_losses() -> Iterator[None]:
    """Within, a layer that is called several times keeps the activity losses of every call.

    In Keras a model's call is such a span; torch does not know where a model begins. Wrap the
    forward of a model that calls one layer more than once::

        with accumulate_losses():
            y = model(x)
        loss = criterion(y, target) + regularization_loss(model)
    """
    before = _recording.set(object())
    try:
        yield
    finally:
        _recording.reset(before)


def regularization_loss(module: nn.Module) -> Tensor:
    """The sum of the losses of every layer of this package inside a module, a scalar tensor.

    Add it to the loss, as Keras's ``fit`` does. Zero where nothing is regularized.
    """
    total: Tensor | None = None
    for m in module.modules():
        if isinstance(m, WithLosses):
            for loss in (*m._activity_losses, *m._weight_losses()):
                total = loss if total is None else total + loss.to(total)
    if total is None:
        first = next(module.parameters(), None)
        return torch.zeros(()) if first is None else first.new_zeros(())
    return total
