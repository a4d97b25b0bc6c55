"""What Keras's ``fit`` does besides the step of an optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .errors import ConfigError
from .layers.losses import accumulate_losses, regularization_loss
from .layers.parameters import LSTMParameters

__all__ = ["accumulate_losses", "constrain", "regularization_loss"]


def constrain(optimizer: torch.optim.Optimizer, module: nn.Module) -> Any:
    """Make an optimizer apply the constraints of every layer in a module after each step.

    As Keras's optimizers do: once the step is done, each weight that has a constraint, is one of
    the optimizer's and has a gradient is overwritten in place by its constrained value. A step
    that a ``GradScaler`` skips leaves the weights as they are.

    Args:
        optimizer: any torch optimizer over parameters of the module.
        module: a layer of this package, or a module with such layers inside.

    Returns:
        The handle of the hook; its ``remove()`` ends it.

    Raises:
        ConfigError: no layer inside has a constraint, or none of its weights is the optimizer's;
            the optimizer applies it already.

    Source: Keras 3.15.1 ``BaseOptimizer.apply``.
    """
    if not isinstance(optimizer, torch.optim.Optimizer) or not isinstance(module, nn.Module):
        raise ConfigError(
            f"constrain: a {type(optimizer).__name__} and a {type(module).__name__} were given; "
            "pass a torch optimizer and a module."
        )
    constrained = [
        m
        for m in module.modules()
        if isinstance(m, LSTMParameters) and any(m._constraints.values())
    ]
    if not constrained:
        raise ConfigError(
            f"constrain: no layer in {type(module).__name__} has a constraint. Build one with "
            "kernel_constraint, recurrent_constraint or bias_constraint."
        )

    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for layer in constrained:
        if not any(id(p) in owned for p in layer.parameters()):
            raise ConfigError(
                f"constrain: no weight of {layer._label}, which has a constraint, is the "
                f"{type(optimizer).__name__}'s. Build the optimizer over module.parameters()."
            )
    hooks = optimizer._optimizer_step_post_hooks.values()
    before = {id(m) for hook in hooks for m in getattr(hook, "constrained", ())}
    if any(id(layer) in before for layer in constrained):
        raise ConfigError(
            f"constrain: the {type(optimizer).__name__} applies the constraints of "
            f"{type(module).__name__} already. Call constrain once."
        )

    def after_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        # Set for the step by a GradScaler, where the optimizer skips it by itself (fused=True).
        infinite = getattr(optimizer, "found_inf", None)
        if infinite is not None and bool(infinite):
            return
        stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for layer in constrained:
            layer.apply_constraints(lambda p: id(p) in stepped and p.grad is not None)

    after_step.constrained = constrained  # type: ignore[attr-defined]
    return optimizer.register_step_post_hook(after_step)
