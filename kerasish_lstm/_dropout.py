"""Dropout as each Keras does it: the masks of a call, drawn once or given by the caller.

A mask holds 0 where a unit is dropped and 1 / (1 - rate) elsewhere. It multiplies the input of the
kernel, or h before the recurrent kernel; never c, never the output. One mask serves every step of a
call (except in the style ``tf_keras``, below). With gates i, f, g, o:

    style        recurrent_dropout = 0                recurrent_dropout > 0
    keras        input (B, F)                         input (4, B, F), recurrent (4, B, U)
    keras_3.0    input (B, F)                         input (B, F), recurrent (B, U)
    tf_keras     input (B, T, F), one a step          as keras
    keras_2      (B, F) and (B, U); with implementation 0 or 1 (4, B, F) and (4, B, U)

``implementation=1`` has four input masks in the styles ``keras`` and ``tf_keras`` too. tf_keras
draws a mask a step only where its default code runs: an LSTM layer (no cell) with tanh, sigmoid and
a bias, not unrolled. A rate of 1 drops nothing, as in Keras on TensorFlow (tf_keras raises).

Sources: Keras 3.15.1 ``LSTMCell.call`` (keras; since 3.8), Keras 3.6.0 (keras_3.0), tf_keras 2.21
``LSTM.call`` and ``LSTMCell.call`` (tf_keras), Keras 2.3.1 (keras_2; also Keras 1's, whose
``consume_less="gpu"`` is implementation 2). Gal and Ghahramani 2016 for the recurrent masks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .config import LSTMConfig
from .errors import InputError

Kind = Literal["shared", "gates", "steps"]


class DropoutMasks(NamedTuple):
    """The masks of one call; None is drawn where the layer has dropout there.

    input: (B, F), or (4, B, F) by gate, or (B, T, F) by step, the steps in the order of x.
    recurrent: (B, U), or (4, B, U) by gate.
    """

    input: Tensor | None = None
    recurrent: Tensor | None = None


NO_DROPOUT = DropoutMasks()


class DropoutPlan(NamedTuple):
    """Which masks a layer needs in training: the kind of each, or None for none."""

    input: Kind | None
    recurrent: Kind | None

    @classmethod
    def of(cls, config: LSTMConfig, *, is_cell: bool = False) -> DropoutPlan:
        """The plan of a config; ``is_cell`` for an LSTMCell, which sees one step."""
        style = config.dropout_style
        if style == "tf_keras" and not is_cell and not config.recurrent_dropout:
            default = (config.activation, config.recurrent_activation) == ("tanh", "sigmoid")
            if default and config.use_bias and not config.unroll:
                return cls("steps" if 0 < config.dropout < 1 else None, None)
        if style == "keras_3.0":
            kind: Kind = "shared"
        elif style == "keras_2":
            kind = "shared" if config.implementation == 2 else "gates"
        else:
            four = config.implementation == 1 or config.recurrent_dropout != 0
            kind = "gates" if four else "shared"
        return cls(
            kind if 0 < config.dropout < 1 else None,
            kind if 0 < config.recurrent_dropout < 1 else None,
        )


NO_PLAN = DropoutPlan(None, None)


def on_input(x: Tensor, masks: DropoutMasks, plan: DropoutPlan) -> tuple[Tensor, DropoutMasks]:
    """x (B, T, F) under its mask, and the masks that are left for the engine."""
    if masks.input is None or plan.input == "gates":
        return x, masks
    mask = masks.input if plan.input == "steps" else masks.input.unsqueeze(1)
    return x * mask, masks._replace(input=None)


def mask_shape(kind: Kind, batch: int, steps: int, size: int) -> tuple[int, ...]:
    """Of a mask of a kind over an input of shape (B, T, size)."""
    return {
        "shared": (batch, size),
        "gates": (4, batch, size),
        "steps": (batch, steps, size),
    }[kind]


def draw(shape: tuple[int, ...], rate: float, like: Tensor, generator: object) -> Tensor:
    """A mask of independent entries: 0 with probability ``rate``, else 1 / (1 - rate)."""
    assert generator is None or isinstance(generator, torch.Generator)
    # 16-bit floats cannot hold every 1 / (1 - rate); the rounding is that of the result alone.
    kept = torch.empty(shape, dtype=torch.float32, device=like.device)
    kept.bernoulli_(1 - rate, generator=generator)
    return kept.to(like.dtype).mul_(1 / (1 - rate))


def prepared(
    given: DropoutMasks | None,
    plan: DropoutPlan,
    config: LSTMConfig,
    x: Tensor,
    generator: object,
    label: Callable[[], str],
) -> DropoutMasks:
    """The masks of a call in training: those given, checked, and the others drawn.

    Args:
        x: (B, T, F), as the layer takes it.

    Raises:
        InputError: a mask that the layer does not use, or of another shape or device.
    """
    if given is not None and not isinstance(given, DropoutMasks):
        raise InputError(
            f"{label()}: dropout_masks is a {type(given).__name__}; pass a "
            "kerasish_lstm.DropoutMasks(input=..., recurrent=...)."
        )
    batch, steps, features = x.shape
    sizes = (features, config.units)
    rates = (config.dropout, config.recurrent_dropout)
    masks: list[Tensor | None] = []
    for name, kind, size, rate, mask in zip(
        DropoutMasks._fields, plan, sizes, rates, given or NO_DROPOUT, strict=True
    ):
        if kind is None:
            if mask is not None:
                raise InputError(
                    f"{label()}: dropout_masks.{name} was given, and the layer has no dropout "
                    f"there ({'dropout' if name == 'input' else 'recurrent_dropout'}={rate})."
                )
            masks.append(None)
            continue
        shape = mask_shape(kind, batch, steps, size)
        if mask is None:
            masks.append(draw(shape, rate, x, generator))
            continue
        if not isinstance(mask, Tensor) or tuple(mask.shape) != shape:
            found = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            meaning = {"shared": "(B, size)", "gates": "(4, B, size)", "steps": "(B, T, size)"}
            raise InputError(
                f"{label()}: dropout_masks.{name} is {found}; it must be a tensor of shape "
                f"{shape}, {meaning[kind]}: see kerasish_lstm.DropoutMasks."
            )
        if mask.device != x.device:
            raise InputError(
                f"{label()}: dropout_masks.{name} is on {mask.device}, the input on {x.device}. "
                "Move it with .to()."
            )
        masks.append(mask.to(x.dtype))
    return DropoutMasks(*masks)
