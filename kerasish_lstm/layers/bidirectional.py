"""Two LSTMs, one over time as it is and one backwards, merged: ``keras.layers.Bidirectional``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .._dropout import DropoutMasks
from .._engines import LSTMState, dynamo_watches
from .._native_autograd import native
from ..config import is_multi_backend
from ..errors import ConfigError, InputError, WeightMismatch
from ..keywords import as_flag, checked_name
from ..serialization.entry import Entry, label, only, sizes_of
from ..serialization.policies import DType, plain_dtype, result_dtype
from ..serialization.reader import Reader
from ..serialization.writer import Writer
from .base import KerasLayer
from .inputs import Mask, as_arrays, as_dtype
from .lazy import LazyLSTM, take_features
from .losses import WithLosses
from .lstm import LSTM
from .parameters import is_hooked
from .state import check_states, of_one_batch

MergeMode = Literal["concat", "sum", "mul", "ave"] | None

MERGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "concat": lambda forward, backward: torch.cat([forward, backward], -1),
    "sum": torch.add,
    "mul": torch.mul,
    "ave": lambda forward, backward: (forward + backward) / 2,
}


class Bidirectional(KerasLayer, WithLosses, keras_classes=("Bidirectional",)):
    """Keras's ``Bidirectional`` around an LSTM.

        f = forward_layer(x);  b = backward_layer(x), flipped back to time if a sequence
        output = merge(f, b)

    Args:
        layer: an :class:`LSTM` or :class:`LazyLSTM`. It is a pattern: both directions are fresh
            layers of its config, device and dtype, newly initialized, as in Keras.
        merge_mode: ``"concat"`` on the last axis, ``"sum"``, ``"mul"``, ``"ave"`` (the mean), or
            None for both outputs.
        backward_layer: the backward layer itself, used as it is; it needs the opposite
            ``go_backwards`` and the same ``return_sequences``, ``return_state`` and ``stateful``.
            Its units may differ.
        weights: Keras 3 takes this keyword and does nothing with it; so does this, with a warning.
            Call :meth:`set_weights`.
        activity_regularizer: of the wrapper's results, beside those of the directions.
        name, trainable: as in Keras; the directions are called ``forward_...`` and
            ``backward_...`` after the layer.
        dtype: the dtype or policy to which x and the states are cast before the call, and the
            output, not the states, after it, as in Keras; None casts nothing, where Keras takes
            its default of float32.
        autocast: False does not cast x and the states.
        input_shape, input_dim: accepted where they agree with the layer's ``input_size``; lazy
            layers take their size from their last entry.

    Shapes: x (B, T, F); output (B, 2U) or (B, T, 2U), with U for the other merges.

    Raises:
        ConfigError: a layer that is no LSTM, an unknown merge_mode, directions that do not fit.

    Where sequences are returned both directions get ``zero_output_for_mask=True``, else False,
    whatever was asked for: so a masked step gives zeros, and a merge of them.

    One ``nn.LSTM(bidirectional=True)`` for both directions was measured on a CPU (torch 2.13, 2
    cores) at 0.96 to 1.09 times the speed of two calls, so there are two calls.

    Source: Keras 3.15.1, ``keras/src/layers/rnn/bidirectional.py``. On purpose different: with
    ``stateful`` and ``return_state`` together Keras raises TypeError on every call.
    """

    def __init__(
        self,
        layer: LSTM[Any],
        merge_mode: MergeMode = "concat",
        backward_layer: LSTM[Any] | None = None,
        *,
        weights: Any = None,
        activity_regularizer: Any = None,
        name: str | None = None,
        trainable: bool = True,
        autocast: bool = True,
        input_shape: Any = None,
        input_dim: int | None = None,
        dtype: DType = None,
    ) -> None:
        super().__init__()
        for role, given in (("layer", layer), ("backward_layer", backward_layer)):
            if not isinstance(given, LSTM) and not (role == "backward_layer" and given is None):
                raise ConfigError(
                    f"Bidirectional: {role} is a {type(given).__name__}; pass a "
                    "kerasish_lstm.LSTM or LazyLSTM."
                )
        if merge_mode is not None and (not isinstance(merge_mode, str) or merge_mode not in MERGES):
            raise ConfigError(
                f"Bidirectional: merge_mode={merge_mode!r} is not possible; allowed are "
                f"{', '.join(map(repr, MERGES))} and None (both outputs)."
            )
        name = checked_name(name, "Bidirectional")
        self.forward_layer = _fresh(layer, "forward", go_backwards=layer.go_backwards)
        if backward_layer is None:
            backward_layer = _fresh(layer, "backward", go_backwards=True)
        self.backward_layer = backward_layer
        self.merge_mode = merge_mode
        self.name = name
        self._check_directions()
        zero, engine = layer.return_sequences, layer.config.use_cudnn
        for direction in (self.forward_layer, self.backward_layer):
            direction.config = direction.config.replace(zero_output_for_mask=zero, use_cudnn=engine)
        self._regularize_activity(activity_regularizer)
        self.activity_regularizer = activity_regularizer
        self.dtype = plain_dtype(dtype)
        self._result_dtype = result_dtype(dtype, "Bidirectional")
        self.autocast = as_flag(autocast, "autocast", "Bidirectional")
        take_features(self.input_parts(), input_shape, input_dim)
        if weights is not None:
            warnings.warn(
                "Bidirectional: weights= has no effect, as in Keras 3; call set_weights().",
                stacklevel=2,
            )
        if not trainable:
            self.trainable = False

    def _check_directions(self) -> None:
        forward, backward = self.forward_layer.config, self.backward_layer.config
        if forward.time_major or backward.time_major:
            raise ConfigError(
                "Bidirectional: a layer has time_major=True; give layers that take (B, T, F), and "
                "transpose the input and the output."
            )
        if forward.go_backwards == backward.go_backwards:
            raise ConfigError(
                f"Bidirectional: both directions have go_backwards={forward.go_backwards}; one "
                "must run backwards. Give a layer with go_backwards=False, or a backward_layer "
                "with the opposite of the layer's."
            )
        for field in ("stateful", "return_sequences", "return_state"):
            one, other = getattr(forward, field), getattr(backward, field)
            if one != other:
                raise ConfigError(
                    f"Bidirectional: {field} is {one} in the forward layer and {other} in the "
                    "backward layer; it must be the same."
                )

    @property
    def return_sequences(self) -> bool:
        return self.forward_layer.return_sequences

    @property
    def return_state(self) -> bool:
        return self.forward_layer.return_state

    @property
    def stateful(self) -> bool:
        return self.forward_layer.stateful

    @property
    def go_backwards(self) -> bool:
        return self.forward_layer.go_backwards

    @property
    def input_size(self) -> int:
        """F, or 0 while lazy layers have not learnt it."""
        return self.forward_layer.input_size

    def input_parts(self) -> list[Any]:
        """Both directions."""
        return [self.forward_layer, self.backward_layer]

    @property
    def output_size(self) -> int:
        """The units of both with ``"concat"``, else of one; Keras broadcasts one unit."""
        units = [part.units for part in self.input_parts()]
        return sum(units) if self.merge_mode == "concat" else max(units)

    @property
    def output_count(self) -> int:
        """One, or with ``merge_mode=None`` one for each direction."""
        return 2 if self.merge_mode is None else 1

    def output_mask(self, mask: Tensor | None) -> Any:
        """See :func:`kerasish_lstm.compute_mask`."""
        leaving = mask if self.return_sequences else None
        return (leaving, leaving) if self.merge_mode is None else leaving

    def extra_repr(self) -> str:
        return f"merge_mode={self.merge_mode!r}" + (f", name={self.name!r}" if self.name else "")

    def forward(
        self,
        x: Tensor,
        initial_state: Sequence[Tensor] | None = None,
        mask: Mask = None,
        training: bool | None = None,
        *,
        dropout_masks: Sequence[DropoutMasks | None] | None = None,
    ) -> Any:
        """Run both directions.

        Args:
            x, mask, training: as in :meth:`LSTM.forward`.
            initial_state: (h_f, c_f, h_b, c_b), each (B, U) of its direction.
            dropout_masks: the masks of the forward and of the backward layer.

        Returns:
            output; with ``merge_mode=None`` (forward output, backward output); with
            ``return_state`` a tuple that goes on with h_f, c_f, h_b, c_b.

        Raises:
            InputError, StateError, EngineError: as in :meth:`LSTM.forward`.
        """
        if initial_state is None:
            states: tuple[Any, Any] = (None, None)
        elif not isinstance(initial_state, list | tuple) or len(initial_state) != 4:
            held = len(initial_state) if isinstance(initial_state, list | tuple) else "no"
            raise InputError(
                f"Bidirectional: initial_state is a {type(initial_state).__name__} with {held} "
                "entries; pass 4 tensors, (h, c) of the forward and (h, c) of the backward layer."
            )
        else:
            states = (initial_state[:2], initial_state[2:])
        if self.autocast:
            x, states = as_dtype(x, self._result_dtype), as_dtype(states, self._result_dtype)
        if dropout_masks is not None and (
            not isinstance(dropout_masks, list | tuple)
            or isinstance(dropout_masks, DropoutMasks)
            or len(dropout_masks) != 2
        ):
            raise InputError(
                "Bidirectional: dropout_masks must be a pair, a DropoutMasks (or None) for the "
                "forward and one for the backward layer."
            )
        masks = dropout_masks or (None, None)
        results = [_listed(one) for one in self._run(x, states, mask, training, masks)]
        (forward, *forward_state), (backward, *backward_state) = results
        forward, backward = (y.to(self._result_dtype) for y in (forward, backward))
        if self.return_sequences:
            backward = backward.flip(1)
        if self.merge_mode is None:
            outputs: tuple[Tensor, ...] = (forward, backward)
        else:
            outputs = (self._merged(forward, backward),)
        result: Any = outputs[0]
        if self.return_state or self.merge_mode is None:
            result = (*outputs, *forward_state, *backward_state)
        self._record_activity(result)
        return result

    def _run(
        self, x: Any, states: Sequence[Any], mask: Any, training: bool | None, masks: Sequence[Any]
    ) -> list[Any]:
        """The result of each direction: at once, where the native engine computes both."""
        layers = (self.forward_layer, self.backward_layer)
        given = list(zip(layers, states, masks, strict=True))
        if dynamo_watches() or not all(map(_is_plain, layers)):
            return [layer(x, s, mask, training, dropout_masks=d) for layer, s, d in given]
        calls = [
            layer._given(x, s, mask, d, layer.training if training is None else bool(training))
            for layer, s, d in given
        ]
        asked = [
            layer._native_call(None, call.x, call.state, layer._recurrence(call))
            for layer, call in zip(layers, calls, strict=True)
        ]
        found: list[Any] = [None, None]
        ready = [call for call in asked if call is not None]
        alike = layers[0].units == layers[1].units
        if len(ready) == 2 and alike and ready[0].x.dtype == ready[1].x.dtype:
            found = native(*ready)
        else:
            found = [None if call is None else native(call)[0] for call in asked]
        return [
            layer._result(call, one) for layer, call, one in zip(layers, calls, found, strict=True)
        ]

    def _merged(self, forward: Tensor, backward: Tensor) -> Tensor:
        assert self.merge_mode is not None
        units = {forward.shape[-1], backward.shape[-1]}
        if self.merge_mode != "concat" and len(units - {1}) > 1:  # Keras broadcasts one unit
            raise InputError(
                f"Bidirectional: merge_mode={self.merge_mode!r} needs the same units in both "
                f"directions; they have {forward.shape[-1]} and {backward.shape[-1]}. "
                "Use 'concat' or None."
            )
        return MERGES[self.merge_mode](forward, backward)

    # Its config

    def _repeats_at_masked_steps(self) -> bool:
        """Whether it does what Keras did before 2.4, where later ones give zeros."""
        return self.forward_layer.config.zero_output_for_mask != self.return_sequences

    def _write(self, writer: Writer) -> dict[str, Any]:
        if self._repeats_at_masked_steps() and not writer.beside and not writer.later:
            raise ConfigError(
                f"{label('Bidirectional', self.name)}: it repeats outputs at masked steps, as "
                "Keras did before 2.4; later ones give zeros, whatever the config says. Build one "
                "by Bidirectional.from_config(config, version='2.4') to have zeros here too."
            )
        both = self.forward_layer, self.backward_layer
        trainable, inside = writer.inside(both)
        if not writer.is_keras_3:
            trainable = trainable and any(map(writer.trains, both))
        found = writer.wrapper(self, trainable, self.forward_layer)
        found["merge_mode"] = self.merge_mode
        layers = [inside.wrapped(layer) for layer in both]
        if writer.is_keras_3:
            return {**found, "layer": layers[0], "backward_layer": layers[1]}
        # tf_keras names and flags the directions itself, and holds a backward layer only if it is
        # not what it would make of the forward one.
        for layer, prefix in zip(layers, ("forward_", "backward_"), strict=True):
            config = layer["config"]
            config.pop("zero_output_for_mask", None)
            if "name" in config:
                config["name"] = config["name"].removeprefix(prefix)
        found["layer"] = layers[0]
        if _without_direction(layers[0]) != _without_direction(layers[1]):
            found["backward_layer"] = layers[1]
        return found

    @classmethod
    def _read(cls, reader: Reader, entry: Entry, size: int | None) -> Bidirectional:
        config = entry.entries("layer", "backward_layer", "merge_mode", "activity_regularizer")
        if not isinstance(config.get("merge_mode"), str | None):
            raise ConfigError(f"merge_mode={config['merge_mode']!r} is no text.")
        size = size or only(entry.sizes(3) + sizes_of(config.get("layer"), 3))
        layer = reader.inner(config.get("layer"), "layer", ("LSTM",), size)
        backward, given = None, config.get("backward_layer")
        if given is None and layer.go_backwards and not reader.is_keras_3:
            # Keras 2 turns the direction round; Keras 3 sets it.
            pattern = dict(Entry.of(config["layer"]).config, go_backwards=False)
            given = {"class_name": "LSTM", "config": pattern}
        if given is not None:
            backward = reader.inner(given, "backward_layer", ("LSTM",), size)
            if not reader.is_keras_3 and backward.name is not None:
                backward.config = backward.config.replace(name=f"backward_{backward.name}")
        module = cls(
            layer,
            config.get("merge_mode", "concat"),
            backward,
            activity_regularizer=config.get("activity_regularizer"),
            name=entry.name,
            autocast=entry.autocast,
            dtype=reader.wrapper_dtype(entry, layer),
        )
        if is_multi_backend(reader.version):  # it knew no zero_output_for_mask
            for direction in (module.forward_layer, module.backward_layer):
                direction.config = direction.config.replace(zero_output_for_mask=False)
        return entry.freeze(module)

    # Weights and state

    def get_weights(self) -> list[np.ndarray]:
        """[kernel, recurrent_kernel, bias] of the forward layer, then of the backward layer."""
        return [*self.forward_layer.get_weights(), *self.backward_layer.get_weights()]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Take weights in the order of :meth:`get_weights`.

        Raises:
            WeightMismatch: a wrong number, shape or dtype. Nothing has been written then.
        """
        weights = as_arrays(weights, "Bidirectional")
        cut = 3 if self.forward_layer.config.use_bias else 2
        total = cut + (3 if self.backward_layer.config.use_bias else 2)
        if len(weights) != total:
            raise WeightMismatch(
                f"Bidirectional.set_weights(): {len(weights)} arrays were given, the layer has "
                f"{total}: kernel, recurrent_kernel and bias of the forward layer, then of the "
                "backward layer."
            )
        before = self.forward_layer.get_weights()
        self.forward_layer._load(weights[:cut], source="the forward part of set_weights()")
        try:
            self.backward_layer._load(weights[cut:], source="the backward part of set_weights()")
        except WeightMismatch:
            self.forward_layer._load(before, source="itself")
            raise

    def count_params(self) -> int:
        """The number of weights as Keras's ``summary()`` counts them."""
        return self.forward_layer.count_params() + self.backward_layer.count_params()

    def reset_parameters(self) -> None:
        """Initialize the weights of both directions, and forget their states."""
        self.forward_layer.reset_parameters()
        self.backward_layer.reset_parameters()

    @property
    def states(self) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """The stored state of a stateful layer, (h_f, c_f, h_b, c_b), or None before a call."""
        forward, backward = self.forward_layer.states, self.backward_layer.states
        return None if forward is None or backward is None else (*forward, *backward)

    @states.setter
    def states(self, value: Sequence[Tensor] | None) -> None:
        forward, backward = self._checked_states(value) or (None, None)
        self.forward_layer.states = forward
        self.backward_layer.states = backward

    def _checked_states(self, value: Any) -> list[LSTMState] | None:
        """The states that ``states`` can be set to, of both directions."""
        given = check_states(value, 4, "Bidirectional", "h_f, c_f, h_b, c_b")
        forward = self.forward_layer._checked_states(given and given[:2])
        backward = self.backward_layer._checked_states(given and given[2:])
        if forward is None or backward is None:
            return None
        of_one_batch([forward, backward], "Bidirectional")
        return [forward, backward]

    def reset_state(self) -> None:
        """Begin the next call with zeros, with any batch size. Harmless if not stateful."""
        self.forward_layer.reset_state()
        self.backward_layer.reset_state()

    def reset_states(self) -> None:
        """Keras's other name of :meth:`reset_state`."""
        self.reset_state()


def _fresh(layer: LSTM[Any], direction: str, *, go_backwards: bool) -> LSTM[Any]:
    """A new layer of the same config, on the same device, in the same dtype."""
    prefix = f"{direction}_"
    name = None if layer.name is None else prefix + layer.name.removeprefix(prefix)
    trainable = layer.trainable  # as it is now, not as it was built
    config = layer.config.replace(name=name, go_backwards=go_backwards, trainable=trainable)
    if config.dropout_style in ("keras", "keras_3.0"):
        config = config.replace(implementation=2)  # Keras 3 copies a layer by a config without it
    weight = layer.lstm.weight_hh_l0
    if isinstance(layer, LazyLSTM):
        options = {k: v for k, v in vars(config).items() if k not in ("units", "dtype")}
        mixed = weight.dtype == torch.float32 and (config.dtype or "").startswith("mixed_")
        dtype = config.dtype if mixed else weight.dtype
        lazy: LSTM[Any] = LazyLSTM(config.units, **options, device=weight.device, dtype=dtype)
        return lazy.train(layer.training)
    fresh: LSTM[Any] = LSTM.from_lstm_config(
        layer.input_size, config, device=weight.device, dtype=weight.dtype
    )
    fresh.train(layer.training)
    if not fresh._authors:
        fresh.reset_parameters()
    return fresh


def _is_plain(layer: LSTM[Any]) -> bool:
    """Whether a call of the layer is its ``forward`` alone: no hook, no class of the user's."""
    return type(layer) is LSTM and not is_hooked(layer)


def _listed(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def _without_direction(layer: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in layer["config"].items() if k not in ("name", "go_backwards")}
