"""The layer: ``keras.layers.LSTM`` around one ``torch.nn.LSTM``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Literal, NamedTuple, TypeVar, Unpack, cast, overload

import torch
from torch import Tensor

from .._dropout import NO_PLAN, DropoutMasks
from .._engines import LSTMState, dynamo_watches, why_not_native
from .._masks import compact, last_output, mask_after_rnn, spread
from .._native import DTYPES, Quick, Recurrence
from .._native_autograd import Traced, differentiable
from ..config import Activation, DropoutStyle, LSTMConfig
from ..errors import EngineError, StateError
from ..keywords import check_features
from ..serialization.policies import Device, DType
from .inputs import InitialState, Mask, as_mask, as_sequence, as_state, as_stored
from .options import LSTMOptions
from .parameters import LSTMParameters, is_hooked
from .state import Stateful

Output = TypeVar("Output")
WithState = tuple[Tensor, Tensor, Tensor]


class Given(NamedTuple):
    """A call's checked arguments: x (B, T, F), mask (B, T) and state in the order of x."""

    x: Tensor
    mask: Tensor | None
    state: LSTMState | None
    dropout: DropoutMasks
    training: bool


class LSTM(Stateful, LSTMParameters, Generic[Output], keras_classes=("LSTM",)):
    """Keras's LSTM on torch tensors.

        i, f, g, o = split(x_t K + h R + b, 4)
        c' = s(f) * c + s(i) * a(g)
        h' = s(o) * a(c')

    The parameters are those of the one ``torch.nn.LSTM`` in :attr:`lstm`, except that its second
    bias, ``bias_hh_l0``, is a buffer of zeros: Keras trains one bias. ``state_dict`` has the keys
    and shapes of ``nn.LSTM`` under ``lstm.``; the state dict of a plain ``nn.LSTM`` loads too, its
    two biases folded into one.

    Args:
        input_size: F, the number of input features. :class:`LazyLSTM` learns it at the first call.
        units: U, the size of h, of c and of the output.
        activation: a. A name of :data:`kerasish_lstm.ACTIVATIONS`, any callable on tensors of
            shape (B, U), or None for linear.
        recurrent_activation: s, likewise.
        use_bias, unit_forget_bias: whether there is a bias, whether its forget gate begins at 1.
        kernel_initializer, recurrent_initializer, bias_initializer: a name, a config or an object
            of :mod:`kerasish_lstm.initializers`, or a callable ``(shape, dtype) -> tensor``, on
            Keras's axes: (F, 4U), (U, 4U), (4U,).
        kernel_regularizer, recurrent_regularizer, bias_regularizer, activity_regularizer: of
            :mod:`kerasish_lstm.regularizers`, or a callable ``tensor -> scalar``. See
            :attr:`losses`.
        kernel_constraint, recurrent_constraint, bias_constraint: of
            :mod:`kerasish_lstm.constraints`, or a callable ``tensor -> tensor``. See
            :func:`kerasish_lstm.constrain`.
        dropout, recurrent_dropout: the fraction of x and of h to drop in training, clamped to
            [0, 1]. :class:`kerasish_lstm.DropoutMasks` says which masks there are.
        seed: of the dropout masks, which then come from a generator of the layer's own; None draws
            from torch's global one.
        return_sequences: give every step's output, (B, T, U), instead of the last, (B, U).
        return_state: give (output, h, c) instead of the output.
        go_backwards: process x from its last step to its first. The sequence returned stays in
            the order of processing, as in Keras.
        stateful: begin each call with the state in which the last one ended.
        zero_output_for_mask: outputs at masked steps are 0 instead of the previous output.
        use_cudnn: ``"auto"`` picks the engine: native, or else fused, or else scan. True asks for
            the fused one, ``nn.LSTM``'s kernels, on a CPU too, and raises where it cannot run.
            False asks for scan, the loop of torch's operators.
        unroll: accepted, and without effect on any number (but see ``dropout_style``).
        implementation: 1 gives each gate an input dropout mask of its own; else without effect.
        name, trainable: as in Keras; not trainable means ``requires_grad=False``.
        autocast: accepted, and without effect on any number: in Keras the cell inside casts all the
            same. It has one in an :class:`LSTMCell` and in the wrappers.
        input_shape, input_dim: accepted where they agree with ``input_size``; a :class:`LazyLSTM`
            takes its size from their last entry.
        time_major: as in tf_keras: x, mask and sequences are (T, B, ...).
        dropout_style: whose masks: ``"keras"`` (3.8 and later), ``"keras_3.0"`` (to 3.7),
            ``"tf_keras"``, ``"keras_2"`` (multi-backend Keras 2).
        device, dtype: as in ``torch.nn.LSTM``. dtype may also be one of Keras's policies:
            ``"mixed_bfloat16"`` keeps float32 parameters and computes in bfloat16.

    Shapes: x (B, T, F), mask (B, T), h and c (B, U).

    Raises:
        ConfigError: a value that Keras would refuse.

    Source: Keras 3.15.1, TensorFlow backend on a CPU, ``unroll=False``.

    On purpose different from Keras: ``training=None`` means ``self.training``;
    ``reset_state()`` forgets the batch size too; float16 and bfloat16 layers can be initialized.
    """

    __call__: Callable[..., Output]

    @overload
    def __init__(
        self: LSTM[Tensor],
        input_size: int,
        units: int,
        *,
        return_state: Literal[False] = ...,
        **options: Unpack[LSTMOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: LSTM[WithState],
        input_size: int,
        units: int,
        *,
        return_state: Literal[True],
        **options: Unpack[LSTMOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: LSTM[Any],
        input_size: int,
        units: int,
        *,
        return_state: bool,
        **options: Unpack[LSTMOptions],
    ) -> None: ...

    def __init__(
        self,
        input_size: int,
        units: int,
        *,
        activation: Activation | None = "tanh",
        recurrent_activation: Activation | None = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        use_cudnn: bool | Literal["auto"] = "auto",
        implementation: int = 2,
        zero_output_for_mask: bool = False,
        name: str | None = None,
        trainable: bool = True,
        autocast: bool = True,
        input_shape: Any = None,
        input_dim: int | None = None,
        time_major: bool = False,
        dropout_style: DropoutStyle = "keras",
        device: Device = None,
        dtype: DType = None,
    ) -> None:
        config = LSTMConfig(
            units=units,
            activation=activation,  # type: ignore[arg-type]  # None becomes linear
            recurrent_activation=recurrent_activation,  # type: ignore[arg-type]
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            unit_forget_bias=unit_forget_bias,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            use_cudnn=use_cudnn,
            implementation=implementation,
            zero_output_for_mask=zero_output_for_mask,
            name=name,
            trainable=trainable,
            autocast=autocast,
            time_major=time_major,
            dropout_style=dropout_style,
        )
        self._build(input_size, config, device, dtype)
        check_features(self.lstm.input_size, input_shape, input_dim, self.keras_class)
        self.reset_parameters()

    def _build(self, *args: Any, **kwargs: Any) -> None:
        super()._build(*args, **kwargs)
        self._state = None

    def reset_parameters(self) -> None:
        """Initialize the weights as the config says, and forget the stored state.

        A layer that comes from ``to_empty()`` is whole after this call. Draws come from torch's
        global generator, unless an initializer has a seed.

        Raises:
            ConfigError: an initializer of a file that is code of the model's author.
        """
        self._state = None
        super().reset_parameters()

    # What it is

    @property
    def return_sequences(self) -> bool:
        return self.config.return_sequences

    @property
    def return_state(self) -> bool:
        return self.config.return_state

    @property
    def go_backwards(self) -> bool:
        return self.config.go_backwards

    @property
    def stateful(self) -> bool:
        return self.config.stateful

    @property
    def engine(self) -> str:
        """The engine that would run now: ``"native"``, ``"fused"`` or ``"scan"``."""
        return self._engine_now()

    def extra_repr(self) -> str:
        reason = self.why_not_fused() if self.engine == "scan" else None
        engine = f"engine={self.engine}" + (f" ({reason})" if reason else "")
        return f"{super().extra_repr()}, {engine}"

    # State

    @property
    def states(self) -> LSTMState | None:
        """The stored state of a stateful layer: (h, c), each (B, U), or None before a call."""
        return None if self._state is None else self._state[0]

    @states.setter
    def states(self, value: InitialState | None) -> None:
        state = self._checked_states(value)
        if state is None:
            self._state = None
        else:
            self._keep([state], [self.lstm.weight_hh_l0])

    def _checked_states(self, value: Any) -> LSTMState | None:
        """The state that ``states`` can be set to."""
        if not self.config.stateful:
            raise StateError(
                f"{self._label} keeps no state; build it with stateful=True, or pass initial_state."
            )
        return None if value is None else as_stored(value, self.units, self._describe)

    def output_mask(self, mask: Tensor | None) -> Any:
        """See :func:`kerasish_lstm.compute_mask`."""
        return mask_after_rnn(self, mask, 2)

    # The call

    def forward(
        self,
        x: Tensor,
        initial_state: InitialState | None = None,
        mask: Mask = None,
        training: bool | None = None,
        *,
        dropout_masks: DropoutMasks | None = None,
    ) -> Output:
        """Run the layer.

        Args:
            x: (B, T, F), any real dtype; it is cast to the parameters' dtype, as in Keras.
            initial_state: (h, c), each (B, U) (or (1, U) or (U,), the same for each row; c also
                (B, 1), (1,) or (), the same for each unit). In a stateful layer it overrides the
                stored state for this call.
            mask: (B, T), True (or nonzero) where a step counts. Whatever stands in a masked step
                reaches neither an output nor a gradient.
            training: None means ``self.training``.
            dropout_masks: the dropout masks of this call in training; None draws them.

        Returns:
            output (B, U), or (B, T, U) with ``return_sequences``; with ``return_state`` the tuple
            (output, h, c), h and c (B, U) the final state.

        Raises:
            InputError: a wrong rank, size or type of x, mask, initial_state or dropout_masks.
            StateError: a stateful layer called with another batch size than its state's.
            EngineError: ``use_cudnn=True``, and the fused engine cannot compute the layer.
            ConfigError: in training, where a file gave code of the model's author.
        """
        training = self.training if training is None else bool(training)
        if initial_state is None and dropout_masks is None:
            found = self._quickly(x, mask, training)
            if found is not None:
                return cast(Output, found)
        given = self._given(x, initial_state, mask, dropout_masks, training)
        call = self._recurrence(given)
        return cast(Output, self._result(given, self._natively(given.x, given.state, call)))

    def _given(
        self, x: Any, initial_state: Any, mask: Any, dropout_masks: Any, training: bool
    ) -> Given:
        """What a call was given, checked; the dropout masks drawn."""
        config = self.config
        if config.use_cudnn is True and (reason := self.why_not_fused(training)) is not None:
            raise EngineError(
                f"use_cudnn=True, but the fused engine cannot compute this layer: {reason}. "
                "Pass use_cudnn='auto' to let another engine compute it."
            )
        if config.time_major:
            x, mask = _batch_first(x), _batch_first(mask)
        x = as_sequence(x, self.lstm.input_size, self.lstm.weight_ih_l0, self._describe)
        x = x.to(self.compute_dtype)
        steps = as_mask(mask, x, self._describe)
        state = self._begin(x, initial_state)
        x, dropout = self._dropout(x, dropout_masks, training)
        return Given(x, steps, state, dropout, training)

    def _recurrence(self, given: Given) -> Recurrence:
        reverse, sequences = self.config.go_backwards, self.config.return_sequences
        return self._to_compute(given.mask, given.dropout, reverse=reverse, sequences=sequences)

    def _result(self, given: Given, found: tuple[Tensor | None, LSTMState] | None) -> Any:
        """The result of a call from that of the native engine, or by another one."""
        config, (x, steps, state, dropout, training) = self.config, given
        if steps is not None and config.go_backwards:
            steps = steps.flip(1)
        if found is not None:
            y, end = found
            output = self._shown(end.h if y is None else y, steps, state)
        else:
            x = x.flip(1) if config.go_backwards else x
            output, end = self._compacted(x, steps, state, dropout, training)
        if config.time_major and config.return_sequences:
            output = output.transpose(0, 1)
        if config.stateful:
            self._keep([end], [self.lstm.weight_hh_l0])
        result = (output, end.h, end.c) if config.return_state else output
        self._record_activity(result)
        return result

    def _quickly(self, x: Any, mask: Any, training: bool) -> Any:
        """The result of a call without state and dropout by the native engine, or None."""
        config = self.config
        lstm = self._modules["lstm"]
        assert lstm is not None
        weight = lstm._parameters.get("weight_hh_l0")
        if weight is None or dynamo_watches():  # it is computed from something else
            return None
        b_hh = lstm._buffers.get("bias_hh_l0")
        if is_hooked(lstm) or (b_hh is None and lstm.bias):  # or its second bias is a parameter
            return None
        known, dtype, quick = self._pack.quick
        if known is not config or dtype is not weight.dtype:
            quick = self._new_quick(weight.dtype)
            self._pack.quick = config, weight.dtype, quick
        if quick is None or self._activity_regularizer is not None:
            return None
        if training and (self._authors or self._plan != NO_PLAN):
            return None
        found = quick(lstm._parameters, b_hh, self._pack, x, mask)
        if found is None:
            return None
        y, (h, c) = found.hs, found.end
        if found.saved is not None:
            traced = Traced(found.inputs, found.recurrence, found.saved, found.end)
            ((y, (h, c)),) = differentiable(traced)
        if mask is not None and config.go_backwards:
            mask = mask.flip(1)
        output = self._shown(h if y is None else y, mask, None)
        return (output, h, c) if config.return_state else output

    def _new_quick(self, dtype: torch.dtype) -> Quick | None:
        config, size = self.config, self.input_size
        usual = not config.stateful and not config.time_major and self.compute_dtype == dtype
        if not (size and usual and dtype in DTYPES) or why_not_native(config) is not None:
            return None
        return Quick(size, dtype, config, (self._activation, self._recurrent_activation))

    def _compacted(
        self,
        x: Tensor,
        steps: Tensor | None,
        state: LSTMState | None,
        dropout: DropoutMasks,
        training: bool,
    ) -> tuple[Tensor, LSTMState]:
        """The output and the state at the end by an engine that knows no mask.

        x (B, T, F) and steps, the mask, are in processing order.
        """
        config, lengths = self.config, None
        if steps is not None:
            x, lengths = compact(x, steps)
        if state is None:
            zeros = x.new_zeros(x.shape[0], self.units)
            state = LSTMState(zeros, zeros)
        final_state = config.return_state or config.stateful
        y, end = self._recur(x, state, lengths, final_state, dropout, training)
        if steps is None:
            output = y if config.return_sequences else y[:, -1]
        elif config.return_sequences:
            output = spread(y, steps, config.zero_output_for_mask)
        else:
            output = last_output(y, steps, config.zero_output_for_mask)
        return output, end

    def _shown(self, h: Tensor, steps: Tensor | None, state: LSTMState | None) -> Tensor:
        """The output from h after each step (B, T, U), or after the last one (B, U)."""
        sequences = self.config.return_sequences
        if not sequences and (self.config.return_state or self.config.stateful):
            h = h.clone()  # not the state's own memory
        if steps is None:
            return h
        if self.config.zero_output_for_mask:
            shown = steps if sequences else steps[:, -1]
        elif state is not None:  # before the first step that counts h is not shown
            shown = steps.cumsum(1) > 0 if sequences else steps.any(1)
        else:
            return h
        return h.masked_fill(~shown.unsqueeze(-1), 0)

    def _begin(self, x: Tensor, initial_state: InitialState | None) -> LSTMState | None:
        """The state before the first step; None is zeros."""
        stored = self._stored(x.shape[0], self._describe) if self.config.stateful else None
        if initial_state is not None:
            return as_state(initial_state, self.units, x, self._describe)
        if stored is not None:
            return LSTMState(*(s.to(x.dtype) for s in stored[0]))
        return None


def _batch_first(value: Any) -> Any:
    """(B, T, ...) of a tensor (T, B, ...); what is none is left for the checks."""
    return value.transpose(0, 1) if isinstance(value, Tensor) and value.ndim > 1 else value
