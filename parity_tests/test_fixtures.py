"""Files that Keras of many versions wrote, against what Keras gave for them, without any Keras.

``make_fixtures`` made them, and says what is in them.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm import LSTM, StackedLSTM, TimeDistributed, load_keras, save_keras
from kerasish_lstm.parity import assert_parity

from .fixture_models import checksum, uniform
from .make_fixtures import FOLDER, VERSIONS

pytestmark = pytest.mark.smoke

INDEX = json.loads((FOLDER / "index.json").read_text())
# Against Keras's own float32, which errs as much as this package does.
BOUNDS = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 1e-2}
CLASSES = {  # here, of Keras's
    "LSTM": "LSTM",
    "CuDNNLSTM": "LSTM",
    "Bidirectional": "Bidirectional",
    "RNN": "StackedLSTM",
    "TimeDistributed": "TimeDistributed",
}


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "arrays.npz") as archive:
        return {key: archive[key] for key in archive.files}


def test_the_fixtures_are_those_of_the_plans() -> None:
    planned = {
        (label, f"{label}/{model}", form)
        for label, version in VERSIONS.items()
        for model, forms in version.plan.items()
        for form in forms.split(",")
    }
    assert {(f["version"], f["model"], f["format"]) for f in INDEX["files"]} == planned
    assert not any(version["failed"] for version in INDEX["versions"].values())
    every = {p.relative_to(FOLDER).as_posix() for p in FOLDER.rglob("*") if p.is_file()}
    named = {f[key] for f in INDEX["files"] for key in ("file", "config") if key in f}
    shards = {f for f in every if "_0000" in f}
    assert every - shards == named | {"index.json", "arrays.npz"}
    assert sum((FOLDER / f).stat().st_size for f in every) < 2_500_000


def load(file: dict[str, Any]) -> dict[str, Any]:
    path = FOLDER / file["file"]
    if "weights" not in file["format"]:
        return dict(load_keras(path))
    if "config" in file:
        return dict(load_keras(path, config=FOLDER / file["config"]))
    with warnings.catch_warnings():  # a subclassed model has no config; the defaults are right
        warnings.filterwarnings("ignore", ".*holds weights alone")
        return dict(load_keras(path))


def inputs(layer: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
    """What Keras's layer was given."""
    x = uniform(layer["input"]["seed"], layer["input"]["shape"])
    keywords: dict[str, Any] = {}
    if "mask" in layer:
        mask = np.array(layer["mask"])
        x[~mask] = 0
        keywords["mask"] = torch.tensor(mask)
    if "initial_state" in layer:
        state = layer["initial_state"]
        keywords["initial_state"] = tuple(
            torch.tensor(uniform(seed, state["shape"])) for seed in state["seeds"]
        )
    return torch.tensor(x), keywords


@pytest.mark.parametrize("file", INDEX["files"], ids=lambda f: f["file"])
def test_loads_and_gives_what_keras_gave(
    file: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    layers = INDEX["models"][file["model"]]
    found = load(file)
    assert list(found) == [layer["name"] for layer in layers]
    for layer in layers:
        name = layer["name"]
        module = found[name]
        assert type(module).__name__ == CLASSES[layer["class"]], name
        assert checksum(module.get_weights()) == layer["weights"], name
        assert not module.training
        x, keywords = inputs(layer)
        for keys in layer["outputs"]:  # of one call after the other
            with torch.no_grad():
                result = module(x, **keywords)
            results = result if isinstance(result, tuple) else (result,)
            assert len(results) == len(keys), name
            for actual, key in zip(results, keys, strict=True):
                assert_parity(actual, arrays[key], bound=BOUNDS[layer["compute_dtype"]], what=key)


def test_a_chain_in_a_time_distributed_is_read(tmp_path: Path) -> None:
    chain = StackedLSTM([LSTM(3, 2, return_sequences=True), LSTM(2, 5)])
    module = TimeDistributed(chain)
    save_keras(module, tmp_path / "m.keras")
    (again,) = load_keras(tmp_path / "m.keras").values()
    x = torch.rand(2, 3, 7, 3)
    assert torch.equal(again(x), module(x))
