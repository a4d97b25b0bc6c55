"""Keras's own results for random inputs, recorded as JSON, to be compared without Keras.

    {"keras": "3.15.1", "backend": "tensorflow", "seed": 0, "layers": {name: [
        {"x": ARRAY, "mask": ARRAY or null, "results": [ARRAY, ...]}, ...]}}

ARRAY is ``{"shape": [...], "dtype": "float32", "data": BASE64}``, little-endian.
"""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import FileFormatError, KerasishError
from ..layers.cell import LSTMCell
from ..layers.time_distributed import TimeDistributed
from ..storage import Module
from .trials import input_size, quiet, run_keras, trials

LIMIT = 2**20  # bytes of arrays in one file
MAX_RECORDS = 16  # of a layer
MAX_STEPS = 4096  # of an input
_FLOATS = ("float32", "float64")


def record(
    modules: Mapping[str, Module], *, seed: int = 0, at: Callable[[str], None] = lambda name: None
) -> tuple[dict[str, Any], dict[str, str]]:
    """What live Keras gives for each module, as long as it fits, and why not, for the others.

    Args:
        at: called with the name of each layer before Keras is asked about it.

    Raises:
        ImportError: Keras is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet():
        import keras

    left, layers, reasons = LIMIT, dict[str, Any](), dict[str, str]()
    for name, module in modules.items():
        at(name)
        try:
            records, size = _records(module, seed)
        except KerasishError as error:
            reasons[name] = str(error)
            continue
        if size > left:
            reasons[name] = f"its results have {size} bytes; {left} of {LIMIT} bytes are left."
            continue
        left -= size
        layers[name] = records
    golden = {
        "keras": keras.__version__, "backend": keras.backend.backend(), "seed": seed,
        "layers": layers,
    }  # fmt: skip
    return golden, reasons


def _records(module: Module, seed: int) -> tuple[list[dict[str, Any]], int]:
    """The records of one module, and how many bytes their arrays have."""
    records, size = [], 0
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
    return records, size


def _written(array: np.ndarray) -> dict[str, Any]:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "data": base64.b64encode(little.tobytes()).decode(),
    }


def _read(entry: Any, dtypes: tuple[str, ...] = (*_FLOATS, "bool")) -> np.ndarray:
    """An array of the JSON. Its shape is believed where the data are of that size.

    Raises:
        FileFormatError: it is none.
    """
    try:
        dtype, shape = entry["dtype"], entry["shape"]
        if dtype not in dtypes:
            raise ValueError(f"dtype {dtype!r}; allowed are {', '.join(dtypes)}")
        if not isinstance(shape, list) or any(type(n) is not int or n < 1 for n in shape):
            raise ValueError(f"shape {shape!r}; a list of sizes of 1 or more was expected")
        data = base64.b64decode(entry["data"], validate=True)
        array = np.frombuffer(data, np.dtype(dtype).newbyteorder("<"))
        if math.prod(shape) != array.size:
            raise ValueError(f"shape {shape}, with {array.size} numbers")
        return array.reshape(shape).astype(dtype)
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"a recorded array is damaged: {error}") from error


def check(golden: Any, modules: Mapping[str, Module]) -> None:
    """Refuse a golden that cannot be of these modules, before anything is run.

    Raises:
        FileFormatError: it is damaged.
    """
    size = 0
    for name, module in modules.items():
        for _, x, _, results in recorded(golden, name, module):
            size += sum(a.nbytes for a in (x, *results))
    if size > LIMIT:
        raise FileFormatError(
            f"the golden of the file is damaged: its arrays have {size} bytes; {LIMIT} are read."
        )


def names(golden: Any) -> list[str]:
    """The layers of which a file's golden has records.

    Raises:
        FileFormatError: it is damaged.
    """
    layers = golden.get("layers", {}) if isinstance(golden, Mapping) else None
    if not isinstance(layers, Mapping):
        raise FileFormatError(
            f"the golden of the file is damaged: its layers are a {type(layers).__name__}, no dict."
        )
    return sorted(layers)


def recorded(
    golden: Any, name: str, module: Module
) -> list[tuple[str, np.ndarray, np.ndarray | None, list[np.ndarray]]]:
    """(what, x, mask, results) of a layer in a file's golden; none where it has none.

    Raises:
        FileFormatError: it is damaged, or its inputs do not fit the module.
    """
    layers = golden.get("layers") if isinstance(golden, Mapping) else None
    records = layers.get(name, []) if isinstance(layers, Mapping) else None
    if not isinstance(records, list):
        raise FileFormatError("the golden of the file is damaged: it has no list of records.")
    if not isinstance(golden.get("keras"), str):
        raise FileFormatError(
            f"the golden of the file is damaged: its Keras is {golden.get('keras')!r}, no version."
        )
    if len(records) > MAX_RECORDS:
        raise FileFormatError(
            f"the golden of {name!r} is damaged: it has {len(records)} records; {MAX_RECORDS} are "
            "read."
        )
    found = []
    for number, entry in enumerate(records):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("results"), list):
            raise FileFormatError(f"the golden of {name!r} is damaged: record {number} is none.")
        x = _read(entry.get("x"), _FLOATS)
        _check_input(x, name, module)
        mask = None if entry.get("mask") is None else _read(entry["mask"], ("bool",))
        if mask is not None and (x.ndim == 2 or mask.shape != x.shape[:-1]):
            raise FileFormatError(
                f"the golden of {name!r} is damaged: a mask of shape {mask.shape}, for an input of "
                f"shape {x.shape}."
            )
        results = [_read(r, _FLOATS) for r in entry["results"]]
        found.append((f"recorded {number}", x, mask, results))
    return found


def _check_input(x: np.ndarray, name: str, module: Module) -> None:
    rank = {LSTMCell: 2, TimeDistributed: 4}.get(type(module), 3)
    if x.ndim != rank or x.shape[-1] != input_size(module):
        raise FileFormatError(
            f"the golden of {name!r} is damaged: an input of shape {x.shape}; the layer takes "
            f"{rank} axes, the last of {input_size(module)}."
        )
    if math.prod(x.shape[1:-1]) > MAX_STEPS:
        raise FileFormatError(
            f"the golden of {name!r} is damaged: an input of shape {x.shape}; at most {MAX_STEPS} "
            "steps are run."
        )
