"""The recorded results of live Keras, on every device: the leg that needs no TensorFlow."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm.parity import assert_parity
from kerasish_lstm.parity.bounds import CUDA_FLOAT32, FLOAT32_ULPS, FLOAT64, KERAS_FACTOR

from . import families
from .cases import ACTIVATION_CASES, GOLDEN, Case
from .families import FAMILIES
from .make_goldens import FOLDER, checksum, checksum_of_request
from .runs import ours
from .test_parity import engines

EVERY = [(group, case) for group, cases in GOLDEN.items() for case in cases]


@pytest.fixture(scope="module")
def manifest() -> Any:
    return json.loads((FOLDER / "manifest.json").read_text())


@pytest.fixture(scope="module")
def goldens() -> dict[str, dict[str, np.ndarray]]:
    return of_layer()


def of_layer() -> dict[str, dict[str, np.ndarray]]:
    """What was recorded of the layer, by case."""
    found: dict[str, dict[str, np.ndarray]] = {}
    with np.load(FOLDER / "keras.npz") as archive:
        for key in archive.files:
            case, _, name = key.rpartition("/")
            found.setdefault(case, {})[name] = archive[key]
    return found


def test_the_goldens_are_those_of_the_manifest(manifest: Any, goldens: Any) -> None:
    for name, checksum_of_file in manifest["sha256"].items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == checksum_of_file
    assert set(manifest["sha256"]) == {"keras.npz", "families.npz"}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 5 * 2**20
    assert set(manifest["inputs"]) == set(goldens) == {case.id for _, case in EVERY}
    assert {"keras", "tensorflow", "numpy"} <= manifest["versions"].keys()


def test_the_goldens_meet_every_flag_and_activation() -> None:
    for field in ("mask", "state", "return_sequences", "return_state", "go_backwards",
                  "zero_output_for_mask", "use_bias"):  # fmt: skip
        every = {getattr(c, field) for _, c in EVERY}
        assert {getattr(c, field) for c in GOLDEN["product"]} == every, field
    for role in ("activation", "recurrent_activation"):
        every = {getattr(c, role) for c in ACTIVATION_CASES}
        assert {getattr(c, role) for c in GOLDEN["activations"]} == every


@pytest.mark.parametrize(("group", "case"), EVERY, ids=lambda v: getattr(v, "id", v))
def test_equals_recorded_keras(
    group: str, case: Case, device: torch.device, goldens: Any, manifest: Any
) -> None:
    assert checksum(case) == manifest["inputs"][case.id], "recorded for other inputs: record again"
    limits = manifest["float32_errors"][group]
    for dtype in (torch.float64, torch.float32):
        assert_case(case, device, dtype, goldens[case.id], limits)


def assert_case(
    case: Case, device: torch.device, dtype: torch.dtype, expected: Any, limits: dict[str, float]
) -> None:
    """A case of the layer equals what was recorded of it, on every engine; limits are Keras's."""
    for engine, keywords in engines(case).items():
        actual = ours(case, dtype, device, **keywords)
        assert actual.keys() == expected.keys()
        for name, value in expected.items():
            bound = FLOAT64
            if dtype == torch.float32:
                bound = KERAS_FACTOR * limits[name] + FLOAT32_ULPS
                bound = max(bound, CUDA_FLOAT32) if device.type == "cuda" else bound
            what = f"{engine} {name} on {device.type} in {dtype}"
            assert_parity(actual[name], value, bound=bound, what=what, dtype=dtype)


@pytest.fixture(scope="module")
def recorded_families() -> dict[tuple[str, str], dict[str, np.ndarray]]:
    return of_families()


def of_families() -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """What was recorded, by family and case."""
    found: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    with np.load(FOLDER / "families.npz") as archive:
        for key in archive.files:
            family, _, rest = key.partition("/")
            case, _, name = rest.rpartition("/")
            found.setdefault((family, case), {})[name] = archive[key]
    return found


@pytest.mark.parametrize(("family", "case"), families.EVERY)
def test_a_family_equals_recorded_keras(
    family: str, case: str, device: torch.device, recorded_families: Any, manifest: Any
) -> None:
    known = FAMILIES[family]
    request = known.request(known.cases[case])
    assert checksum_of_request(request) == manifest["families"][family][case], "record again"
    assert_family(family, case, device, recorded_families[family, case])


def assert_family(family: str, case: str, device: torch.device, expected: Any) -> None:
    """A family's case equals what was recorded of it."""
    actual = FAMILIES[family].ours(FAMILIES[family].cases[case], device)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert_parity(actual[name], value, bound=FLOAT64, what=f"{family} {case} {name}")
