"""Crafted files of wrappers: old forms, frozen halves, models of the author's, broken configs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kerasish_lstm import load_keras
from kerasish_lstm.errors import KerasishError, NotBuiltError

from .test_files import (
    NAMES,
    F,
    U,
    archive,
    arrays,
    keras3,
    legacy,
    lstm,
    named,
    same,
    sequential,
)

pytestmark = pytest.mark.smoke


def test_a_class_derived_from_a_functional_model_is_opened(tmp_path: Path) -> None:
    ends: Any = {"input_layers": [], "output_layers": []}
    mine = {"class_name": "Mine", "module": "me", "config": {"layers": [lstm("a")], **ends}}
    inside = keras3(tmp_path / "m.h5", "layers/mine/layers/lstm").read_bytes()
    path = archive(tmp_path / "m.keras", sequential({**mine, "name": "x"}), weights=inside)
    assert same(load_keras(path)["x/a"])
    assert same(load_keras(archive(tmp_path / "n.keras", mine))["a"])


def one_of(kind: str, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": "it", **config}}


CELL = {"class_name": "LSTMCell", "config": {"units": U}}


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (one_of("Bidirectional", layer=3, cell=CELL), "Bidirectional around an LSTM"),
        (one_of("RNN", cell=[CELL]), "RNN around an LSTM"),
        (one_of("RNN", cell=one_of("StackedRNNCells", cells=CELL)), "RNN around an LSTM"),
        (one_of("RNN", cell=one_of("Stack", cells=[CELL])), "RNN around an LSTM"),
        (one_of("TimeDistributed", layer=lstm(units="2")), "units='2'"),
        (one_of("TimeDistributed", layer=one_of("Mine", cell=CELL)), "TimeDistributed around"),
        (one_of("RNN", cell=CELL, go_backwards="no"), "go_backwards='no'"),
        (one_of("Bidirectional", layer=lstm(units=10**12)), r"units=1000000000000.*has none"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["class_name"],
)
def test_broken_wrappers_are_named(tmp_path: Path, layer: dict[str, Any], said: str) -> None:
    groups = {"RNN": "rnn", "TimeDistributed": "time_distributed/layer", "Bidirectional": "none"}
    path = keras3(tmp_path / "w.weights.h5", f"layers/{groups[layer['class_name']]}")
    with pytest.raises(KerasishError, match=rf"(?s)w\.weights\.h5.*it.*{said}"):
        load_keras(path, config=sequential(layer))


def test_cells_that_make_no_layer_are_named(tmp_path: Path) -> None:
    path = keras3(tmp_path / "w.weights.h5", "layers/bidirectional/forward_layer")
    with pytest.raises(NotBuiltError, match="1 LSTM cells that make no Bidirectional"):
        load_keras(path)
    path = keras3(tmp_path / "w.weights.h5", "layers/rnn/cell/cells/lstm_cell")
    with h5py.File(path, "r+") as file:
        cells = file["layers/rnn/cell/cells"]
        cells.move("lstm_cell/cell/vars", "lstm_cell/vars")
        file.copy(cells["lstm_cell"], cells, "lstm_cell_1")
    with pytest.raises(NotBuiltError, match="2 LSTM cells that make no RNN"):  # 2 units on 3
        load_keras(path)


def gatewise(prefix: str, features: int, seed: int) -> tuple[Any, list[np.ndarray]]:
    """Keras 1's twelve arrays of an LSTM, by name, and the three that they make."""
    rng = np.random.RandomState(seed)
    shapes = {"W": (features, U), "U": (U, U), "b": (U,)}
    gates = {
        f"{w}_{g}": rng.uniform(-1, 1, shapes[w]).astype(np.float32) for g in "icfo" for w in "WUb"
    }
    joined = [np.concatenate([gates[f"{w}_{g}"] for g in "ifco"], -1) for w in "WUb"]
    return [(f"{prefix}_{key}", array) for key, array in gates.items()], joined


def test_wrappers_of_keras_1_and_of_multi_backend_keras_2(tmp_path: Path) -> None:
    forward, first = gatewise("forward_lstm_1", F, 1)
    backward, second = gatewise("backward_lstm_1", F, 2)
    inner = {"class_name": "LSTM", "config": {"name": "lstm_1", "output_dim": U}}
    config = sequential(one_of("Bidirectional", layer=inner, merge_mode="sum"))
    stored = {"it": [*forward, *backward]}
    whole = load_keras(legacy(tmp_path / "m.h5", stored, config=config, version="1.2.2"))
    with pytest.warns(UserWarning):
        alone = load_keras(legacy(tmp_path / "w.h5", stored, version=None))
    for layers in (whole, alone):
        assert type(layers["it"]).__name__ == "Bidirectional"
        for mine, theirs in zip(layers["it"].get_weights(), first + second, strict=True):
            assert mine.tobytes() == theirs.tobytes()
    cells = [(f"it/{n}:0", a) for n, a in zip(NAMES, arrays(1), strict=True)]
    above = [np.ones((U, 4 * U)), np.ones((U, 4 * U)), np.ones(4 * U)]
    cells += [(f"it/{n}_1:0", a.astype(np.float32)) for n, a in zip(NAMES, above, strict=True)]
    with pytest.warns(UserWarning):
        layers = load_keras(legacy(tmp_path / "w.h5", {"it": cells}, version="2.2.4"))
    assert type(layers["it"]).__name__ == "StackedLSTM"
    assert layers["it"].get_weights()[3].tobytes() == above[0].astype(np.float32).tobytes()


def test_frozen_directions_are_told_apart_by_name_or_by_place(tmp_path: Path) -> None:
    cold = lstm("forward_x", trainable=False)
    both = one_of("Bidirectional", layer=cold, backward_layer=lstm("own", go_backwards=True))
    for names in ("it/own", "it/forward_x"), ("", ""):
        last, first = (f"{n}/" if n else f"it/{i}/" for i, n in enumerate(names))
        stored = [*named(last.rstrip("/"), 2), *named(first.rstrip("/"), 1)]
        path = legacy(tmp_path / "m.h5", {"it": stored}, config=sequential(both), version="3.3.3")
        weights = load_keras(path)["it"].get_weights()
        for mine, theirs in zip(weights, arrays(1) + arrays(2), strict=True):
            assert mine.tobytes() == theirs.tobytes()


def test_an_array_of_a_shared_map_may_lie_in_a_second_file(tmp_path: Path) -> None:
    for number, parts in enumerate(((0, 1), (2,))):
        with h5py.File(tmp_path / f"m_{number:05d}.weights.h5", "w") as file:
            for n in parts:
                file[f"layers/lstm/cell/vars/{n}"] = arrays()[n].astype(">f4")
    names = ["m_00000.weights.h5", "m_00001.weights.h5"]
    (tmp_path / "m.weights.json").write_text(
        json.dumps({"weight_map": {"/layers/lstm/cell/vars": names}})
    )
    layers = load_keras(tmp_path / "m.weights.json", config=sequential(lstm("mine")))
    assert same(layers["mine"])
