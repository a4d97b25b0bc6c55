"""Records what live Keras gives for the golden cases, so that machines without it can compare.

    python -m parity_tests.make_goldens

Writes parity_tests/goldens/keras.npz (float64 results of the layer's cases), families.npz (those of
families.py) and manifest.json: versions, this command, the checksums of both and of each case's
inputs, Keras's own float32 errors by group, and its errors in 16 bits.
Needs Keras 3 on TensorFlow.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kerasish_lstm.parity.bounds import error

from .cases import GOLDEN, GROUPS, PRECISION, Case
from .families import FAMILIES, named
from .keras_live import KerasLive
from .runs import truth

FOLDER = Path(__file__).resolve().parent / "goldens"


def checksum(case: Case) -> str:
    """Of a case's inputs: a golden is worth nothing for others."""
    sha = hashlib.sha256()
    for name, array in sorted(case.inputs().items()):
        sha.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()[:16]


def checksum_of_request(request: Any) -> str:
    """Of everything that a family's request tells Keras."""
    sha = hashlib.sha256()

    def take(value: Any) -> None:
        if isinstance(value, Mapping):
            for key in sorted(value):
                sha.update(f"{key}:".encode())
                take(value[key])
        elif isinstance(value, list | tuple):
            for part in value:
                take(part)
        elif isinstance(value, np.ndarray):
            sha.update(str(value.shape).encode() + np.ascontiguousarray(value).tobytes())
        else:
            sha.update(repr(value).encode())

    take(request)
    return sha.hexdigest()[:16]


def largest_errors(keras: KerasLive, cases: list[Case], dtype: str) -> dict[str, float]:
    """Keras's largest error in a dtype or policy against the float64 equations, by quantity."""
    largest: dict[str, float] = {}
    answers = keras.run([c.request(dtype) for c in cases])
    for case, answer in zip(cases, answers, strict=True):
        for name, value in truth(case).items():
            largest[name] = max(largest.get(name, 0.0), error(answer[name], value))
    return largest


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    float32: dict[str, dict[str, float]] = {}
    with KerasLive() as keras:
        versions = keras.call("versions")
        for group, cases in GROUPS.items():
            double, single = (
                keras.run([c.request(dtype) for c in cases]) for dtype in ("float64", "float32")
            )
            # The float32 limits are those of the whole group, as in the live leg.
            limits = float32.setdefault(group, {})
            for case, exact, rounded in zip(cases, double, single, strict=True):
                for name, value in exact.items():
                    limits[name] = max(limits.get(name, 0.0), error(rounded[name], value))
                    if case in GOLDEN[group]:
                        arrays[f"{case.id}/{name}"] = value
        low = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
        low_precision = {dtype: largest_errors(keras, PRECISION, dtype) for dtype in low}
        others: dict[str, np.ndarray] = {}
        families: dict[str, dict[str, str]] = {}
        for name, family in FAMILIES.items():
            requests = [family.request(case) for case in family.cases.values()]
            answers = keras.call(family.function, requests)
            families[name] = dict(
                zip(family.cases, map(checksum_of_request, requests), strict=True)
            )
            for key, answer in zip(family.cases, answers, strict=True):
                others |= {f"{name}/{key}/{what}": a for what, a in named(answer).items()}
    data, more = npz(arrays), npz(others)
    manifest = {
        "command": "python -m parity_tests.make_goldens",
        "versions": versions,
        "sha256": {
            "keras.npz": hashlib.sha256(data).hexdigest(),
            "families.npz": hashlib.sha256(more).hexdigest(),
        },
        "float32_errors": float32,
        "low_precision_errors": low_precision,
        "families": families,
        "inputs": {c.id: checksum(c) for cases in GOLDEN.values() for c in cases},
    }
    FOLDER.mkdir(exist_ok=True)
    for name, content in (
        ("keras.npz", data),
        ("families.npz", more),
        ("manifest.json", (json.dumps(manifest, indent=1) + "\n").encode()),
    ):
        temporary = FOLDER / f".{name}"
        temporary.write_bytes(content)
        os.replace(temporary, FOLDER / name)
    count = sum(map(len, (*GOLDEN.values(), *families.values())))
    print(f"{count} cases, {len(data) + len(more)} bytes")


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    """An .npz without dates, so that the same results give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in sorted(arrays.items()):
            member = io.BytesIO()
            np.save(member, array)
            archive.writestr(
                zipfile.ZipInfo(f"{name}.npy"), member.getvalue(), zipfile.ZIP_DEFLATED
            )
    return buffer.getvalue()


if __name__ == "__main__":
    main()
