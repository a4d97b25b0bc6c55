"""One step of an LSTM: ``keras.layers.LSTMCell``."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, Self

import torch
from torch import Tensor

from .._dropout import NO_PLAN, DropoutMasks
from .._engines import LSTMState, input_product, lstm_step
from ..config import Activation, DropoutStyle, LSTMConfig
from ..errors import InputError
from ..keywords import as_flag, check_features
from ..serialization.policies import Device, DType
from .inputs import InitialState, as_real, as_state
from .parameters import LSTMParameters


class LSTMCell(LSTMParameters, keras_classes=("LSTMCell",)):
    """Keras's LSTMCell on torch tensors: one step.

        i, f, g, o = split(x K + h R + b, 4)
        c' = s(f) * c + s(i) * a(g)
        h' = s(o) * a(c')

    Args:
        input_size: F, the number of input features. :class:`LazyLSTMCell` learns it.
        units: U, the size of h and of c.
        activity_regularizer: of the three tensors that a step returns, as in Keras. In a
            :class:`StackedLSTM` those of every step add up.
        autocast: False casts neither x nor the states: a step is computed in the widest dtype
            among them and the policy's.
        The other keywords: as in :class:`LSTM`, of which a cell has those that matter in one step.

    Shapes: x (B, F), h and c (B, U).

    The parameters are those of a ``torch.nn.LSTM`` in :attr:`lstm`, named as in :class:`LSTM`: a
    cell's ``state_dict`` loads into a layer, and a layer's into a cell.

    In training the dropout masks are drawn at the first step and serve until
    :meth:`reset_dropout_mask` and :meth:`reset_recurrent_dropout_mask`, as in Keras.
    :class:`StackedLSTM` runs cells over time, and draws them once a call.

    Raises:
        ConfigError: a value that Keras would refuse.

    Source: Keras 3.15.1 ``LSTMCell``.
    """

    __call__: Callable[..., tuple[Tensor, LSTMState]]

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
        implementation: int = 2,
        name: str | None = None,
        trainable: bool = True,
        autocast: bool = True,
        input_shape: Any = None,
        input_dim: int | None = None,
        dropout_style: DropoutStyle = "keras",
        device: Device = None,
        dtype: DType = None,
    ) -> None:
        autocast = as_flag(autocast, "autocast", self.keras_class)
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
            implementation=implementation,
            name=name,
            trainable=trainable,
            autocast=autocast,
            dropout_style=dropout_style,
        )
        self._build(input_size, config, device, dtype)
        check_features(self.lstm.input_size, input_shape, input_dim, self.keras_class)
        self.reset_parameters()

    def _build(self, *args: Any, **kwargs: Any) -> None:
        super()._build(*args, **kwargs)
        self._cached_masks = DropoutMasks()

    def get_initial_state(self, batch_size: int) -> LSTMState:
        """Zeros, each (B, U)."""
        zeros = self.lstm.weight_hh_l0.new_zeros(batch_size, self.units, dtype=self.compute_dtype)
        return LSTMState(zeros, zeros)

    def reset_dropout_mask(self) -> None:
        """Draw another input mask at the next step."""
        self._cached_masks = self._cached_masks._replace(input=None)

    def reset_recurrent_dropout_mask(self) -> None:
        """Draw another recurrent mask at the next step."""
        self._cached_masks = self._cached_masks._replace(recurrent=None)

    def forward(
        self,
        x: Tensor,
        states: InitialState | None = None,
        training: bool | None = None,
        *,
        dropout_masks: DropoutMasks | None = None,
    ) -> tuple[Tensor, LSTMState]:
        """One step.

        Args:
            x: (B, F), any real dtype.
            states: (h, c), each (B, U); None is zeros.
            training: None means ``self.training``.
            dropout_masks: the masks of this step in training; where one is None, the one that is
                kept serves.

        Returns:
            (output, LSTMState(h, c)), each (B, U); output is h.

        Raises:
            InputError: a wrong rank, size or type.
        """
        training = self.training if training is None else bool(training)
        if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[1] != self.input_size:
            found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise InputError(
                f"{self._label}: the input of a step is {found}; it must be a torch.Tensor of "
                f"shape (batch, features) = (B, {self.input_size})."
            )
        x = as_real(x, self.lstm.weight_ih_l0, self._describe)
        x = x.to(dtype := self._dtype_of_step(x, states))
        if training and self._plan != NO_PLAN and isinstance(dropout_masks, DropoutMasks | None):
            x, dropout_masks = self._masks_of_step(x, dropout_masks or DropoutMasks())
        if states is None:
            state = LSTMState(*(s.to(dtype) for s in self.get_initial_state(len(x))))
        else:
            state = as_state(states, self.units, x, self._describe)
        sequence, left = self._dropout(x.unsqueeze(1), dropout_masks, training)
        lstm = self._for_engine(dtype)
        state = lstm_step(
            input_product(lstm, sequence.squeeze(1), left.input),
            state,
            lstm.weight_hh_l0.t(),
            self._activation,
            self._recurrent_activation,
            left.recurrent,
        )
        self._record_activity((state.h, state))
        return state.h, state

    def _dtype_of_step(self, x: Tensor, states: InitialState | None) -> torch.dtype:
        if self.config.autocast:
            return self.compute_dtype
        given = [s for s in states or () if isinstance(s, Tensor)]
        return reduce(torch.promote_types, [t.dtype for t in (*given, x)], self.compute_dtype)

    def _masks_of_step(self, x: Tensor, given: DropoutMasks) -> tuple[Tensor, DropoutMasks]:
        """The masks given, else those kept, else drawn ones, which are kept; and x for them.

        A batch of one is repeated for a mask of more rows, and a mask of one row for a batch.
        """
        kept = self._cached_masks
        used = [k for g, k in zip(given, kept, strict=True) if g is None and k is not None]
        sizes = {mask.shape[-2] for mask in used} | {len(x)}
        if len(sizes - {1}) > 1:
            held = next(mask.shape[-2] for mask in used if mask.shape[-2] not in (1, len(x)))
            raise InputError(
                f"{self._label} keeps dropout masks for a batch of {held}; this batch has "
                f"{len(x)}. Call reset_dropout_mask() and reset_recurrent_dropout_mask() before "
                "another sequence."
            )
        rows = next(iter(sizes - {1}), 1)
        fitting = (None if k is None else k.expand(*k.shape[:-2], rows, k.shape[-1]) for k in kept)
        wanted = DropoutMasks(*(k if g is None else g for g, k in zip(given, fitting, strict=True)))
        x = x.expand(rows, -1)
        masks = self._masks_of_a_call(x.unsqueeze(1), wanted, True)
        self._cached_masks = DropoutMasks(
            *(
                m if g is None and k is None else k
                for g, k, m in zip(given, kept, masks, strict=True)
            )
        )
        return x, masks

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._cached_masks = DropoutMasks()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
