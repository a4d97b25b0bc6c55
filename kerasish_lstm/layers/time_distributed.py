"""An LSTM over every slice of a sequence of sequences: ``keras.layers.TimeDistributed``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._dropout import DropoutMasks
from ..errors import ConfigError, InputError
from ..keywords import as_flag, checked_name
from ..serialization.entry import Entry, only
from ..serialization.policies import DType, plain_dtype, result_dtype
from ..serialization.reader import Reader
from ..serialization.writer import Writer
from .base import KerasLayer
from .bidirectional import Bidirectional
from .lazy import take_features
from .losses import WithLosses, losses_of_slices
from .lstm import LSTM
from .parameters import recurrent_parts
from .stacked import StackedLSTM


class TimeDistributed(KerasLayer, WithLosses, keras_classes=("TimeDistributed",)):
    """Keras's ``TimeDistributed`` around an LSTM.

        output[:, i] = layer(x[:, i], mask=mask[:, i])    for each i of the outer time

    Args:
        layer: an :class:`LSTM`, :class:`Bidirectional` or :class:`StackedLSTM`, used as it is.
        activity_regularizer, name, trainable: as in Keras.
        dtype: the dtype or policy to which x is cast first, as Keras casts it; the results have
            the layer's own dtype all the same. autocast=False does not cast it.
        input_shape, input_dim: accepted where they agree with the layer's ``input_size``; a lazy
            layer takes its size from their last entry.

    Shapes: x (B, T1, T2, F), mask (B, T1, T2); output (B, T1, U), or (B, T1, T2, U) where the layer
    returns sequences. A layer with several results of one shape (its output, h and c, without
    sequences; two outputs of ``merge_mode=None``) gives them stacked, (n, T1, B, ...): so does
    Keras, whose shape inference knows nothing of it.

    A stateful layer carries its state along the outer time. The layer's own activity regularizer
    has no effect, and those of layers inside it count once for each slice: so it is in Keras.

    Raises:
        ConfigError: another layer, or results of different shapes (``return_state`` with
            ``return_sequences``).

    Source: Keras 3.15.1 ``TimeDistributed``.
    """

    def __init__(
        self,
        layer: LSTM[Any] | Bidirectional | StackedLSTM,
        *,
        activity_regularizer: Any = None,
        name: str | None = None,
        trainable: bool = True,
        autocast: bool = True,
        input_shape: Any = None,
        input_dim: int | None = None,
        dtype: DType = None,
    ) -> None:
        super().__init__()
        if not isinstance(layer, LSTM | Bidirectional | StackedLSTM):
            raise ConfigError(
                f"TimeDistributed: layer is a {type(layer).__name__}; pass a kerasish_lstm.LSTM, "
                "Bidirectional or StackedLSTM."
            )
        if getattr(getattr(layer, "config", None), "time_major", False):
            raise ConfigError(
                "TimeDistributed: the layer has time_major=True; give one that takes (B, T, F)."
            )
        if layer.return_state and layer.return_sequences:
            raise ConfigError(
                "TimeDistributed: the layer returns sequences and states, whose shapes differ; "
                "Keras cannot stack them either. Build it with return_state=False."
            )
        name = checked_name(name, "TimeDistributed")
        self.layer = layer
        self._regularize_activity(activity_regularizer)
        self.activity_regularizer = activity_regularizer
        self.name = name
        self.dtype = plain_dtype(dtype)
        self.autocast = as_flag(autocast, "autocast", "TimeDistributed")
        self._input_dtype = result_dtype(dtype, "TimeDistributed")
        take_features(self.input_parts(), input_shape, input_dim)
        if not trainable:
            self.trainable = False

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        training: bool | None = None,
        *,
        dropout_masks: Sequence[Any] | None = None,
    ) -> Tensor:
        """Run the layer over every x[:, i].

        Args:
            x: (B, T1, T2, F). mask: (B, T1, T2), True where a step counts.
            training: None means ``self.training``.
            dropout_masks: one entry for each outer step: what the layer takes, or None.

        Raises:
            InputError: a wrong rank or size.
        """
        if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] == 0:
            found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise InputError(
                f"TimeDistributed: the input is {found}; it must be a torch.Tensor of shape "
                "(batch, outer time, time, features), with one outer step or more."
            )
        if mask is not None and (not isinstance(mask, Tensor) or mask.shape != x.shape[:3]):
            found = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            raise InputError(
                f"TimeDistributed: the mask is {found}; for an input of shape {tuple(x.shape)} it "
                f"must be a torch.Tensor of shape {tuple(x.shape[:3])}."
            )
        training = self.training if training is None else bool(training)
        if dropout_masks is not None and (
            not isinstance(dropout_masks, list | tuple)
            or isinstance(dropout_masks, DropoutMasks)
            or len(dropout_masks) != x.shape[1]
        ):
            raise InputError(
                f"TimeDistributed: dropout_masks must be a list of {x.shape[1]} entries, one an "
                "outer step, each what the layer takes, or None."
            )
        x = x.to(self._input_dtype if self.autocast else None)
        by_slice = self.layer.stateful or dropout_masks is not None  # its state goes on
        with losses_of_slices(self.layer, 1 if by_slice else x.shape[1]):
            if by_slice:
                steps_of = [None] * x.shape[1] if mask is None else mask.unbind(1)
                masks_of = dropout_masks or [None] * x.shape[1]
                slices = [
                    _stacked(self.layer(s, mask=m, training=training, dropout_masks=d))
                    for s, m, d in zip(x.unbind(1), steps_of, masks_of, strict=True)
                ]
                result = torch.stack(slices, self._batch_axis + 1)
            else:
                flat = x.flatten(0, 1)
                steps = None if mask is None else mask.flatten(0, 1)
                out = _stacked(self.layer(flat, mask=steps, training=training))
                before, after = out.shape[: self._batch_axis], out.shape[self._batch_axis + 1 :]
                result = out.reshape(*before, *x.shape[:2], *after)
        if self._several:
            result = result.transpose(1, 2)  # Keras puts the outer time first
        self._record_activity(result)
        return result

    @property
    def _several(self) -> bool:
        """Whether the layer has several results."""
        return self.layer.return_state or self.layer.output_count > 1

    @property
    def _batch_axis(self) -> int:
        return 1 if self._several else 0

    def input_parts(self) -> list[Any]:
        """Those of the layer."""
        return self.layer.input_parts()

    @property
    def output_size(self) -> int:
        """That of the layer."""
        return self.layer.output_size

    def output_mask(self, mask: Tensor | None) -> Tensor | None:
        """The mask as it is, whatever the layer inside does, as Keras's Wrapper has it."""
        return mask

    # Its config

    def _write(self, writer: Writer) -> dict[str, Any]:
        parts = recurrent_parts(self)
        trainable, inside = writer.inside(parts)
        found = writer.wrapper(self, trainable, parts[-1])
        return {**found, "layer": inside.wrapped(self.layer)}

    @classmethod
    def _read(cls, reader: Reader, entry: Entry, size: int | None) -> TimeDistributed:
        config = entry.entries("layer", "activity_regularizer")
        kinds = ("LSTM", "Bidirectional", "RNN", "Sequential")
        size = size or only(entry.sizes(4))
        layer = reader.inner(config.get("layer"), "layer", kinds, size)
        module = cls(
            layer,
            activity_regularizer=config.get("activity_regularizer"),
            name=entry.name,
            autocast=entry.autocast,
            dtype=reader.wrapper_dtype(entry, recurrent_parts(layer)[-1]),
        )
        return entry.freeze(module)

    # Weights and state

    def get_weights(self) -> list[np.ndarray]:
        """Those of the layer."""
        return self.layer.get_weights()

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Those of the layer."""
        self.layer.set_weights(weights)

    def count_params(self) -> int:
        """The number of weights as Keras's ``summary()`` counts them."""
        return self.layer.count_params()

    def reset_state(self) -> None:
        """Begin the next call with zeros, with any batch size. Harmless if not stateful."""
        self.layer.reset_state()

    def reset_states(self) -> None:
        """Keras's other name of :meth:`reset_state`."""
        self.reset_state()

    def extra_repr(self) -> str:
        return f"name={self.name!r}" if self.name else ""


def _stacked(result: Any) -> Tensor:
    """Several results of one shape as one tensor."""
    if isinstance(result, Tensor):
        return result
    parts: list[Tensor] = []
    for part in result:
        parts.extend([part] if isinstance(part, Tensor) else part)
    if len({p.shape for p in parts}) > 1:
        raise InputError(
            f"TimeDistributed: the layer's results have the shapes "
            f"{[tuple(p.shape) for p in parts]}, which cannot be stacked. Use one output."
        )
    return torch.stack(parts)
