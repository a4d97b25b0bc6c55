"""Keras's own results for random inputs, recorded as JSON, to be compared without Keras.

    {"keras": "3.15.1", "backend": "tensorflow", "seed": 0, "layers": {name: [
        {"x": ARRAY, "mask": ARRAY or null, "results": [ARRAY, ...]}, ...]}}

ARRAY is ``{"shape": [...], "dtype": "float32", "data": BASE64}``, little-endian.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from ..cell import LSTMCell
from ..convert import to_keras
from ..errors import FileFormatError
from ..storage import Module
from ..time_distributed import TimeDistributed

LIMIT = 2**20  # bytes of arrays in one file
_DTYPES = ("float32", "float64", "bool")


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
    """Everything that a module returns, flat, in float64."""
    module = module.to(device).eval()
    if not isinstance(module, LSTMCell):
        module.reset_state()
    with torch.inference_mode():
        given = {} if mask is None else {"mask": torch.from_numpy(mask).to(device)}
        result = module(torch.from_numpy(x).to(device), **given)
    return [t.double().cpu().numpy() for t in flat(result)]


def flat(result: Any) -> list[Any]:
    """The tensors of a nest of lists and tuples."""
    if isinstance(result, list | tuple):
        return [t for part in result for t in flat(part)]
    return [result]


def run_keras(module: Module, x: np.ndarray, mask: np.ndarray | None) -> list[np.ndarray]:
    """What live Keras gives for a module's weights and config."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet():
        layer = to_keras(module)
        given = {} if mask is None else {"mask": mask}
        if isinstance(module, LSTMCell):
            zeros = [np.zeros((len(x), module.units), np.float32)] * 2
            result = layer(x, zeros)
        else:
            result = layer(x, **given)
        return [np.asarray(_wide(t), np.float64) for t in flat(result)]


def _wide(tensor: Any) -> Any:
    """bfloat16, which NumPy lacks, in float32."""
    import keras

    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float64"))


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


def record(modules: Mapping[str, Module], *, seed: int = 0) -> dict[str, Any]:
    """What live Keras gives for each module, as long as it fits.

    Raises:
        ImportError: Keras is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet():
        import keras

    size, layers = 0, {}
    for name, module in modules.items():
        records = []
        for _, x, mask in trials(module, batch=3, steps=7, seed=seed):
            results = [r.astype(np.float32) for r in run_keras(module, x, mask)]
            size += sum(a.nbytes for a in (x, *results))
            records.append(
                {
                    "x": _written(x),
                    "mask": None if mask is None else _written(mask),
                    "results": [_written(r) for r in results],
                }
            )
        if size > LIMIT:
            break
        layers[name] = records
    return {
        "keras": keras.__version__, "backend": keras.backend.backend(), "seed": seed,
        "layers": layers,
    }  # fmt: skip


def _written(array: np.ndarray) -> dict[str, Any]:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "data": base64.b64encode(little.tobytes()).decode(),
    }


def _read(entry: Any) -> np.ndarray:
    """An array of the JSON.

    Raises:
        FileFormatError: it is none.
    """
    try:
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"dtype {entry['dtype']!r}")
        data = base64.b64decode(entry["data"], validate=True)
        array = np.frombuffer(data, np.dtype(entry["dtype"]).newbyteorder("<"))
        return array.reshape(entry["shape"]).astype(entry["dtype"])
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"a recorded array is damaged: {error}") from error


def recorded(
    golden: Any, name: str
) -> list[tuple[str, np.ndarray, np.ndarray | None, list[np.ndarray]]]:
    """(what, x, mask, results) of a layer in a file's golden; none where it has none.

    Raises:
        FileFormatError: it is damaged.
    """
    layers = golden.get("layers") if isinstance(golden, Mapping) else None
    records = layers.get(name, []) if isinstance(layers, Mapping) else None
    if not isinstance(records, list):
        raise FileFormatError("the golden of the file is damaged: it has no list of records.")
    found = []
    for number, entry in enumerate(records):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("results"), list):
            raise FileFormatError(f"the golden of {name!r} is damaged: record {number} is none.")
        mask = None if entry.get("mask") is None else _read(entry["mask"])
        results = [_read(r) for r in entry["results"]]
        found.append((f"recorded {number}", _read(entry.get("x")), mask, results))
    return found
