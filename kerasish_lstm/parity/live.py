"""A module beside a live Keras layer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ..errors import ConfigError, ParityError
from ..storage import MODULES, Module
from .compare import assert_parity
from .trials import bound_of, flat, run, run_layer, trials


def assert_same_as_keras(
    module: Module,
    keras_layer: Any,
    *,
    device: torch.device | str = "cpu",
    batch: int = 3,
    steps: int = 7,
    seed: int = 0,
    bound: float | None = None,
) -> float:
    """Raise unless a module gives what a live Keras layer gives; return the largest error.

    Both run on the same random inputs (uniform in -1..1): without a mask, padded, with gaps. Each
    starts without a state, in inference, and every output and state is compared. A stateful layer
    and a stateful module keep the states that they hold.

    Args:
        module: any module of this package. It is moved to ``device`` and set to eval mode.
        keras_layer: a built layer, model or cell of Keras 3 (any backend) or tf_keras.
        device: where the module runs.
        batch, steps, seed: of the inputs, (B, T, F); of a cell (B, F).
        bound: the largest allowed error, relative to max(1, largest result). None: ten times what
            rounding weights and inputs to the module's dtype moves its results, as measured.

    Raises:
        ParityError: other shapes, other numbers.
        ConfigError: ``module`` is none of this package's.

    Source: Keras 3.15.1 and tf_keras 2.21.
    """
    if not isinstance(module, MODULES):
        raise ConfigError(
            f"assert_same_as_keras: a {type(module).__name__} is no module of kerasish_lstm. Pass "
            "what from_keras, load_keras or from_torch gives."
        )
    where = torch.device(device)
    name = getattr(keras_layer, "name", type(keras_layer).__name__)
    worst = 0.0
    for what, x, mask in trials(module, batch=batch, steps=steps, seed=seed):
        with _without_states(keras_layer):
            theirs = run_layer(keras_layer, x, mask)
        mine = run(module, x, mask, where)
        if len(mine) != len(theirs):
            raise ParityError(
                f"{name!r}, {what}: the module returns {len(mine)} tensors, Keras {len(theirs)}."
            )
        allowed = bound_of(module, x, mask, where) if bound is None else bound
        for number, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            said = f"{name!r}, {what}, result {number}"
            worst = max(worst, assert_parity(one, other, bound=allowed, what=said))
    return worst


@contextlib.contextmanager
def _without_states(layer: Any) -> Iterator[None]:
    """A live layer begins with zeros, and has its own states again afterwards."""
    kept = [(variable, variable + 0) for variable in _states(layer)]
    for variable, _ in kept:
        variable.assign(np.zeros(tuple(variable.shape), np.float32))
    try:
        yield
    finally:
        for variable, value in kept:
            variable.assign(value)


def _states(layer: Any) -> list[Any]:
    """The variables in which the stateful layers inside keep their states, in either Keras."""
    inside = layer._flatten_layers() if hasattr(layer, "_flatten_layers") else [layer]
    return [
        variable
        for one in inside
        if getattr(one, "stateful", False) and type(one).__name__ in ("LSTM", "RNN")
        for variable in flat(one.states)
        if variable is not None
    ]
