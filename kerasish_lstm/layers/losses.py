"""What a module adds to the loss besides the user's own: Keras's ``layer.losses``.

Activity losses come from the last call, weight losses from the weights as they are when asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import regularizers


class _Recording(NamedTuple):
    """What becomes of the activity losses of the calls within a span."""

    token: object = None  # of a span within which they add up; None: each call replaces the last's
    dropped: nn.Module | None = None  # the module whose own are not recorded
    slices: int = 1  # how many calls of Keras's one call is, their batches interleaved


_ORDINARY = _Recording()
_recording: ContextVar[_Recording] = ContextVar("recording", default=_ORDINARY)


class WithLosses(nn.Module):
    """A module with losses of its own; those of modules inside it follow.

    ``_activity_regularizer`` is a function of a tensor, or None.
    """

    _activity_regularizer: Callable[[Tensor], Tensor] | None
    _activity_losses: list[Tensor]
    _activity_token: object
    _reversed = False  # whether those inside are one floor further down in Keras

    def _regularize_activity(self, regularizer: Any) -> None:
        """Take an activity regularizer in any of Keras's forms."""
        self._activity_regularizer = regularizers.get(regularizer, "activity_regularizer")
        self._activity_losses = []
        self._activity_token = None

    def _record_activity(self, result: Any) -> None:
        """Regularize every tensor of a call's result, each divided by its batch size."""
        regularizer = self._activity_regularizer
        if regularizer is None:
            return
        recording = _recording.get()
        losses = []
        if self is not recording.dropped:
            for outputs in _slices(result, recording.slices):
                for output in outputs:
                    losses.append(_divide(regularizer(output), len(output)))
        if recording.token is not None and recording.token is self._activity_token:
            losses = self._activity_losses + losses
        self._activity_losses, self._activity_token = losses, recording.token

    def _weight_losses(self) -> list[Tensor]:
        return []

    @property
    def losses(self) -> list[Tensor]:
        """Scalars to add to the loss, in Keras's order.

        First the activity losses of the last call, one for each tensor that it returned (h and c
        too), each ``regularizer(output) / batch``; then those of the kernel, the recurrent kernel
        and the bias as they are now, where they are trainable. Of layers inside, too; activity
        losses of layers two floors down and deeper come in reverse. A layer that a later forward
        does not call keeps the losses of its last call.

        Source: Keras 3.15.1 ``Layer.losses``, ``Layer.__call__`` and ``Layer._flatten_layers``.
        """
        activity = [x for m in dict.fromkeys(_collected(self)) for x in m._activity_losses]
        within = [m for m in self.modules() if isinstance(m, WithLosses)]
        return activity + [loss for m in within for loss in m._weight_losses()]

    def __getstate__(self) -> dict[str, Any]:
        # What is left of a graph can be neither pickled nor copied.
        return {**self.__dict__, "_activity_losses": [], "_activity_token": None}


def _divide(loss: Tensor, batch: int) -> Tensor:
    """The quotient; of an empty batch 0, whatever the loss is, as Keras's ``divide_no_nan``."""
    return loss / batch if batch else loss.masked_fill(torch.ones_like(loss).bool(), 0)


def _tensors(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, list | tuple):
        for part in result:
            yield from _tensors(part)


def _slices(result: Any, slices: int) -> Iterator[Iterator[Tensor]]:
    """The tensors of a result, of each slice, where its batch holds several, interleaved."""
    for i in range(slices):
        yield (tensor[i::slices] if slices > 1 else tensor for tensor in _tensors(result))


def _collected(module: WithLosses, top: bool = True) -> Iterator[WithLosses]:
    """A module and those inside it in the order of Keras's ``Layer._flatten_layers``."""
    yield module
    below = list(_below(module))
    for inner in below if top and not module._reversed else reversed(below):
        yield from _collected(inner, top=False)


def _below(module: nn.Module) -> Iterator[WithLosses]:
    for child in module.children():
        if isinstance(child, WithLosses):
            yield child
        else:
            yield from _below(child)


@contextmanager
def losses_of_slices(layer: nn.Module, slices: int = 1) -> Iterator[None]:
    """The calls of a TimeDistributed, which are ``layer.call`` in Keras, not ``layer``.

    So the layer's own activity losses are dropped. Those of layers inside it are not: there is one
    for each slice, in turn.

    Args:
        slices: how many slices one call takes, as a batch that goes (row, slice).
    """
    token = _recording.get().token or object()
    before = _recording.set(_Recording(token, layer, slices))
    try:
        yield
    finally:
        _recording.reset(before)


@contextmanager
def accumulate_losses(module: nn.Module | None = None) -> Iterator[None]:
    """Within, a layer that is called several times keeps the activity losses of every call.

    In Keras a model's call is such a span, and begins by forgetting the losses of the last one;
    torch does not know where a model begins. Wrap the forward of a model that calls one layer more
    than once, or that does not call every layer each time::

        with accumulate_losses(model):
            y = model(x)
        loss = criterion(y, target) + regularization_loss(model)

    Args:
        module: whose layers forget their activity losses first; None forgets nothing.
    """
    for m in () if module is None else module.modules():
        if isinstance(m, WithLosses):
            m._activity_losses = []
    before = _recording.set(_Recording(object()))
    try:
        yield
    finally:
        _recording.reset(before)


def regularization_loss(module: nn.Module) -> Tensor:
    """The sum of the losses of every layer of this package inside a module, a scalar tensor.

    Add it to the loss, as Keras's ``fit`` does. Losses in 16 bits are added up in float32. Zero
    where nothing is regularized.
    """
    total: Tensor | None = None
    for m in module.modules():
        if isinstance(m, WithLosses):
            for loss in (*m._activity_losses, *m._weight_losses()):
                wide = loss.to(torch.promote_types(loss.dtype, torch.float32))
                total = wide if total is None else total + wide.to(total.device)
    if total is None:
        first = next(module.parameters(), None)
        return torch.zeros(()) if first is None else first.new_zeros(())
    return total
