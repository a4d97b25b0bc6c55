"""Random inputs and masks for any module, what it gives for them, here and in live Keras."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from .._engines import LSTMState
from ..convert import to_keras
from ..errors import ConfigError, KerasishError
from ..layers.cell import LSTMCell
from ..layers.parameters import recurrent_parts
from ..layers.stacked import StackedLSTM
from ..layers.state import Stateful
from ..layers.time_distributed import TimeDistributed
from ..storage import Module
from . import bounds


def has_keras() -> bool:
    """Whether live Keras can be asked here: on TensorFlow, on which parity is defined."""
    return all(importlib.util.find_spec(name) is not None for name in ("keras", "tensorflow"))


def input_size(module: Module) -> int:
    """F."""
    return int(
        module.layer.input_size if isinstance(module, TimeDistributed) else module.input_size
    )


def trials(
    module: Module, *, batch: int, steps: int, seed: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """What a module is run on: (what, x, mask), x uniform in -1..1, float32.

    Without a mask, with rows that end early, and with gaps anywhere; of a cell one step.
    """
    rng = np.random.default_rng(seed)
    features = input_size(module)
    if isinstance(module, LSTMCell):
        yield "one step", rng.uniform(-1, 1, (batch, features)).astype(np.float32), None
        return
    outer = (batch, 3) if isinstance(module, TimeDistributed) else (batch,)
    shape = (*outer, steps)
    lengths = rng.integers(0, steps + 1, outer)
    for what, mask in (
        ("no mask", None),
        ("padded", np.arange(steps) < lengths[..., None]),
        ("gaps", rng.uniform(size=shape) < 0.6),
    ):
        yield what, rng.uniform(-1, 1, (*shape, features)).astype(np.float32), mask


def run(
    module: Module, x: np.ndarray, mask: np.ndarray | None, device: torch.device
) -> list[np.ndarray]:
    """Everything that a module returns, flat, in float64; it begins without a state.

    The module's own state is as before afterwards.
    """
    module = module.to(device).eval()
    kept = [(one, one._state) for one in _stateful(module)]
    for one, _ in kept:
        one.reset_state()
    try:
        with torch.inference_mode():
            given = {} if mask is None else {"mask": torch.from_numpy(mask).to(device)}
            result = module(torch.from_numpy(x).to(device), **given)
    finally:
        for one, state in kept:
            one._state = state
    return [t.double().cpu().numpy() for t in flat(result)]


def _stateful(module: Module) -> list[Stateful]:
    """What holds a state in a module: its stateful layers, and stacks of cells."""
    return [
        one
        for one in module.modules()
        if isinstance(one, Stateful)
        and getattr(one, "stateful", False)
        and not (isinstance(one, StackedLSTM) and not one.of_cells)
    ]


def flat(result: Any) -> list[Any]:
    """The tensors of a nest of lists and tuples."""
    if isinstance(result, list | tuple):
        return [t for part in result for t in flat(part)]
    return [result]


def run_keras(module: Module, x: np.ndarray, mask: np.ndarray | None) -> list[np.ndarray]:
    """What live Keras gives for a module's weights and config, from a state of zeros.

    Raises:
        ConfigError: Keras cannot be asked about this module; the reason.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet():
        try:
            return run_layer(to_keras(at_rest(module, len(x))), x, mask)
        except (KerasishError, ImportError):
            raise
        except Exception as error:  # whatever Keras and its backend raise at a layer
            said = (str(error).strip() or "no reason").splitlines()[0]
            raise ConfigError(f"Keras raises {type(error).__name__}: {said}") from error


def at_rest(module: Module, batch: int) -> Module:
    """The module; where it is stateful a copy whose states are zeros, of a batch size."""
    if not _stateful(module):
        return module
    copied = copy.deepcopy(module)
    for one in _stateful(copied):
        like = [part.lstm.weight_hh_l0 for part in recurrent_parts(one)]
        zeros = [LSTMState(*(w.new_zeros(batch, w.shape[1]) for _ in "hc")) for w in like]
        one._keep(zeros, like)
    return copied


def run_layer(layer: Any, x: np.ndarray, mask: np.ndarray | None) -> list[np.ndarray]:
    """Everything that a live layer of Keras 3 or tf_keras returns, flat, in float64."""
    if type(layer).__name__ == "LSTMCell":
        old = type(layer).__module__.startswith("tf_keras")
        dtype = {"dtype": layer.compute_dtype} if old else {}
        result = layer(x, layer.get_initial_state(batch_size=len(x), **dtype))
    else:
        result = layer(x) if mask is None else layer(x, mask=mask)
    return [_wide(tensor) for tensor in flat(result)]


def _wide(tensor: Any) -> np.ndarray:
    """A tensor of any backend in float64, bfloat16 too, which NumPy lacks."""
    if hasattr(tensor, "detach"):
        array: np.ndarray = tensor.detach().cpu().double().numpy()
        return array
    return np.asarray(tensor).astype(np.float64)  # TensorFlow and JAX bring NumPy their bfloat16


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the lines that TensorFlow's C++ writes to stderr when it is loaded."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def bound_of(module: Module, x: np.ndarray, mask: np.ndarray | None, device: torch.device) -> float:
    """Ten times what rounding weights and input moves the results, and four ulps.

    No bound holds for all weights (large ones amplify an ulp without limit), so it is measured: on
    copies in float64 whose weights and inputs are half an ulp of the module's dtype away.
    """
    dtypes = [part.compute_dtype for part in recurrent_parts(module)]
    half_ulp = max(float(torch.finfo(d).eps) for d in dtypes) / 2
    half_ulp = max(half_ulp, float(np.finfo(np.float32).eps) / 2)  # what is recorded is float32
    rng = np.random.default_rng(0)
    cpu = torch.device("cpu")
    truth = run(in_float64(module), x.astype(np.float64), mask, cpu)
    moved = 0.0
    for _ in range(3):
        near = in_float64(module)
        with torch.no_grad():
            for parameter in near.parameters():
                sign = torch.from_numpy(rng.choice([-half_ulp, half_ulp], tuple(parameter.shape)))
                parameter.mul_(1 + sign)
        nudged = x * (1 + rng.choice([-half_ulp, half_ulp], x.shape))
        results = run(near, nudged, mask, cpu)
        moved = max([moved, *(bounds.error(r, t) for r, t in zip(results, truth, strict=True))])
    single = any(d != torch.float64 for d in dtypes)
    least = bounds.CUDA_FLOAT32 if device.type == "cuda" and single else 0.0
    return max(10 * moved + 8 * half_ulp, least)


def in_float64(module: Module) -> Module:
    """A copy on the CPU in float64."""
    return copy.deepcopy(module).to("cpu").double()
