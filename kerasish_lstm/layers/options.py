"""The keywords of the layers, for type checkers."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from ..config import Activation, DropoutStyle
from ..serialization.policies import Device, DType


class CellOptions(TypedDict, total=False):
    """Every keyword of :class:`LSTMCell`."""

    activation: Activation | None
    recurrent_activation: Activation | None
    use_bias: bool
    kernel_initializer: Any
    recurrent_initializer: Any
    bias_initializer: Any
    unit_forget_bias: bool
    kernel_regularizer: Any
    recurrent_regularizer: Any
    bias_regularizer: Any
    activity_regularizer: Any
    kernel_constraint: Any
    recurrent_constraint: Any
    bias_constraint: Any
    dropout: float
    recurrent_dropout: float
    seed: int | None
    implementation: int
    name: str | None
    trainable: bool
    autocast: bool
    input_shape: Any
    input_dim: int | None
    dropout_style: DropoutStyle
    device: Device
    dtype: DType


class LSTMOptions(CellOptions, total=False):
    """Every keyword of :class:`LSTM` but ``return_state``."""

    return_sequences: bool
    go_backwards: bool
    stateful: bool
    unroll: bool
    use_cudnn: bool | Literal["auto"]
    zero_output_for_mask: bool
    time_major: bool
