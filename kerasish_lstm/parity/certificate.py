"""Keras's own results for random inputs, recorded as JSON, to be compared without Keras.

    {"keras": "3.15.1", "backend": "tensorflow", "seed": 0, "layers": {name: [
        {"x": ARRAY, "mask": ARRAY or null, "results": [ARRAY, ...]}, ...]}}

ARRAY is ``{"shape": [...], "dtype": "float32", "data": BASE64}``, little-endian.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import FileFormatError
from ..storage import Module
from .trials import quiet, run_keras, trials

LIMIT = 2**20  # bytes of arrays in one file
_DTYPES = ("float32", "float64", "bool")


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
