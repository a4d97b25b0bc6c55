"""Files that save_keras wrote: loaded by live Keras, and read back."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from kerasish_lstm import (
    LSTM,
    Bidirectional,
    LazyLSTM,
    LSTMCell,
    StackedLSTM,
    TimeDistributed,
    from_torch,
    load_keras,
)
from kerasish_lstm.errors import ConfigError
from kerasish_lstm.files import _write
from kerasish_lstm.parity import assert_parity
from kerasish_lstm.saving import save_keras

from . import sampling
from .keras_live import KerasLive

TARGETS = {"keras": "keras3", "tf_keras": "tf_keras"}
FORMATS = {"keras": ".keras", "h5": ".h5"}


def frozen(module: Any, *names: str) -> Any:
    for name in names:
        module.get_submodule(name).trainable = False
    return module


def chain(**options: Any) -> StackedLSTM:
    below = LSTM(3, 4, return_sequences=True, **options)
    return StackedLSTM([below, LSTM(4, 2, **options)])


CASES: dict[str, Callable[[], Any]] = {
    "lstm": lambda: LSTM(3, 4, name="mine"),
    "no_bias": lambda: LSTM(3, 4, use_bias=False),
    "dropout": lambda: LSTM(3, 4, dropout=0.2, recurrent_dropout=0.1),
    "regularized": lambda: LSTM(3, 4, kernel_regularizer="l2", bias_constraint="non_neg"),
    "backwards": lambda: LSTM(3, 4, go_backwards=True, return_sequences=True),
    "state": lambda: LSTM(3, 4, return_state=True, return_sequences=True),
    "frozen": lambda: frozen(LSTM(3, 4), ""),
    "stateful": lambda: LSTM(3, 4, stateful=True),
    "unroll": lambda: LSTM(3, 4, unroll=True),
    "cell": lambda: LSTMCell(3, 4),
    "bidirectional": lambda: Bidirectional(LSTM(3, 4, return_sequences=True), name="both"),
    "two_outputs": lambda: Bidirectional(LSTM(3, 4), None),
    "two_states": lambda: Bidirectional(LSTM(3, 4, return_state=True), "sum"),
    "forward_frozen": lambda: frozen(Bidirectional(LSTM(3, 4)), "forward_layer"),
    "cells": lambda: StackedLSTM([LSTMCell(3, 4), LSTMCell(4, 2)], return_sequences=True),
    "cells_state": lambda: StackedLSTM([LSTMCell(3, 4), LSTMCell(4, 2)], return_state=True),
    "cell_frozen": lambda: frozen(StackedLSTM([LSTMCell(3, 4), LSTMCell(4, 2)]), "layers.0"),
    "chain": lambda: StackedLSTM(
        [
            LSTM(3, 4, return_sequences=True),
            Bidirectional(LSTM(4, 2, return_sequences=True)),
            LSTM(4, 3, name="top"),
        ]
    ),
    "chain_state": lambda: StackedLSTM(
        [
            LSTM(3, 4, return_sequences=True, return_state=True),
            Bidirectional(LSTM(4, 2, return_state=True), None),
        ]
    ),
    "outer": lambda: TimeDistributed(LSTM(3, 4)),
    "outer_both": lambda: TimeDistributed(Bidirectional(LSTM(3, 4, return_sequences=True))),
    "outer_chain": lambda: TimeDistributed(frozen(chain(), "layers.0")),
    "outer_cells": lambda: TimeDistributed(StackedLSTM([LSTMCell(3, 4), LSTMCell(4, 2)])),
    "many": lambda: {f"l{i}": LSTM(3, 2 + i % 3, activation="softsign") for i in range(12)},
    "all": lambda: {
        "a": chain(),
        "b": LSTM(3, 5),
        "input_layer": Bidirectional(LSTM(3, 2), None),
        "d": LSTMCell(3, 3),
        "e": StackedLSTM([LSTMCell(3, 4), LSTMCell(4, 2)]),
        "f": TimeDistributed(chain()),
        "g": nn.LSTM(3, 2, 2, batch_first=True),
    },
    "plain": lambda: nn.LSTM(3, 4, 2, bidirectional=True),
    "float16": lambda: LSTM(3, 4, dtype="float16"),
    "bfloat16": lambda: Bidirectional(LSTM(3, 4, dtype="bfloat16")),
    "mixed_float16": lambda: LSTM(3, 4, dtype="mixed_float16"),
    "mixed_bfloat16": lambda: LSTM(3, 4, dtype="mixed_bfloat16"),
    "float64": lambda: chain(dtype="float64"),
}
BOUNDS = {
    "float16": 2e-3, "mixed_float16": 4e-3, "bfloat16": 3e-2, "mixed_bfloat16": 3e-2,
    "float64": 1e-14,
}  # fmt: skip
OPTIONS: dict[str, Any] = {"stateful": {"batch_size": 2}, "unroll": {"steps": 5}}


def made(name: str) -> Any:
    torch.manual_seed(3)
    return CASES[name]()


def written(module: Any) -> list[Any]:
    """The layers whose calls the model must equal."""
    modules = list(module.values()) if isinstance(module, dict) else [module]
    modules = [from_torch(m) if isinstance(m, nn.LSTM) else m for m in modules]
    return [StackedLSTM(m) if isinstance(m, LSTMCell) else m for m in modules]


def flat(value: Any) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else [t for v in value for t in flat(v)]


def answers(module: Any, name: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(an input for each layer, all results)"""
    inputs, results = [], []
    generator = np.random.default_rng(4)
    for layer in written(module):
        shape = (2, 6, 5, 3) if isinstance(layer, TimeDistributed) else (2, 5, 3)
        x = generator.normal(size=shape).astype("float64" if name == "float64" else "float32")
        inputs.append(x)
        given = torch.from_numpy(x)
        given = given if "mixed" in name else given.to(next(layer.parameters()).dtype)
        with torch.no_grad():
            found = copy.deepcopy(layer).eval()(given)
        results += [t.double().numpy() for t in flat(found)]
    return inputs, results


def arrays_of(module: Any) -> list[np.ndarray]:
    return [array for layer in written(module) for array in layer.get_weights()]


def check(arrays: list[Any], others: list[Any], what: str) -> None:
    """The same arrays, bitwise."""
    assert len(arrays) == len(others), what
    for mine, theirs in zip(arrays, others, strict=True):
        assert mine.shape == theirs.shape and mine.dtype == theirs.dtype, what
        assert mine.tobytes() == theirs.tobytes(), what


def check_all(arrays: list[Any], others: list[Any], name: str, what: str) -> None:
    if name == "all":  # Keras sorts layers by their distance from the outputs
        arrays, others = (
            sorted(given, key=lambda a: (a.shape, a.tobytes())) for given in (arrays, others)
        )
    check(arrays, others, f"{name} {what}")


def is_met(number: int, library: str, form: str) -> bool:
    """By default each library has a case in one format, and the other library in the other."""
    return sampling.full or (number + (library == "keras") + (form == "keras")) % 2 == 1


LIVE = [
    (library, name, form)
    for library in TARGETS
    for number, name in enumerate(CASES)
    for form in FORMATS
    if is_met(number, library, form)
]


@pytest.mark.live
@pytest.mark.parametrize(("library", "name", "form"), LIVE)
def test_live_keras_loads_it(
    library: str, name: str, form: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    live: KerasLive = request.getfixturevalue(library)
    module, options = made(name), OPTIONS.get(name, {})
    inputs, expected = answers(module, name)
    # Both targets' weights alone, where this library reads them.
    others = [
        (suffix, target)
        for suffix in (".weights.h5", ".h5", ".hdf5")
        for target in TARGETS.values()
        if (name, suffix, target, library) != ("bfloat16", ".weights.h5", "keras3", "tf_keras")
    ]
    if library == "tf_keras":  # which knows no such suffix
        others = [other for other in others if other[0] != ".hdf5" or other[1] != "keras3"]
    weights = [str(tmp_path / f"{target}{suffix}") for suffix, target in others]
    for path, (_, target) in zip(weights, others, strict=True):
        save_keras(module, path, target=target)
    whole = {f: tmp_path / f"model{suffix}" for f, suffix in FORMATS.items()}
    for f, path in whole.items():
        save_keras(module, path, format=f, target=TARGETS[library], **options)
    found = live.call("save_side.loaded", library, str(whole[form]), inputs, weights)
    what = f"{name} {library} {form}"
    scale = max(np.abs(array).max() for array in expected)
    for mine, theirs in zip(expected, found["results"], strict=True):
        assert mine.shape == theirs.shape, what
        assert np.abs(mine - theirs).max() <= BOUNDS.get(name, 1e-6) * scale, what
    loaded = [array for arrays in found["layers"].values() for array in arrays]
    check_all(arrays_of(module), loaded, name, what)
    again = list(zip(found["again"], weights, strict=True))
    if library == "keras":
        built = live.call("save_side.built", library, str(whole["keras"]), weights)
        again += [(layers, f"{path} built") for layers, path in zip(built, weights, strict=True)]
    for layers, path in again:
        for layer, arrays in found["layers"].items():
            check(arrays, layers[layer], f"{what} {path}")
    assert found["model"] == ("Sequential" if len(expected) == 1 else "Functional")
    assert (found["frozen"] == list(found["layers"])) == (name == "frozen")


@pytest.mark.parametrize(("library", "name", "form"), LIVE)
def test_read_back(library: str, name: str, form: str, tmp_path: Path) -> None:
    """Equal in function, and the same bits from the second file on."""
    module, options = made(name), OPTIONS.get(name, {})
    paths = [tmp_path / f"{n}{FORMATS[form]}" for n in range(3)]
    for path in paths:
        save_keras(module, path, format=form, target=TARGETS[library], **options)
        before, module = module, load_keras(path)
        check_all(arrays_of(before), arrays_of(dict(module)), name, str(path))
    assert contents(paths[1]) == contents(paths[2])


def contents(path: Path) -> dict[str, Any]:
    """All that a file holds, but for the date."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            inner = path.with_suffix(".inner.h5")
            inner.write_bytes(archive.read("model.weights.h5"))
            return {"config": json.loads(archive.read("config.json")), **contents(inner)}
    found: dict[str, Any] = {}
    with h5py.File(path) as file:

        def visit(name: str, item: Any) -> None:
            found[name] = {k: np.asarray(v).tolist() for k, v in item.attrs.items()}
            if isinstance(item, h5py.Dataset):
                found[name]["data"] = item[()].tobytes()

        visit("", file)
        file.visititems(visit)
    return found


def test_names(tmp_path: Path) -> None:
    def names(modules: Any) -> list[str]:
        path = tmp_path / "names.h5"
        save_keras(modules, path, overwrite=True)
        with h5py.File(path) as file:
            return [name.decode() for name in file.attrs["layer_names"]]

    assert names(LSTM(3, 4, name="own")) == ["own"]
    assert names(LSTM(3, 4)) == ["lstm"]
    assert names({"key": LSTM(3, 4)}) == ["key"]
    assert names({"key": LSTM(3, 4, name="own")}) == ["key"]
    assert names({"in/ner/x": LSTM(3, 4)}) == ["in_ner_x"]
    assert names({"n" * 255: LSTM(3, 4)}) == ["n" * 255]
    assert names({"b": LSTM(3, 4, name="own"), "a": LSTM(3, 4)}) == ["b", "a"]
    assert names(chain()) == ["lstm", "lstm_1"]
    assert names({"key": chain()}) == ["key_0", "key_1"]

    def stack(*own: str | None) -> StackedLSTM:
        return StackedLSTM([LSTM(3, 3, return_sequences=True, name=name) for name in own])

    assert names(stack("x", None)) == ["x", "lstm"]
    assert names(stack(None, "lstm")) == ["lstm_1", "lstm"]
    assert names(stack("x", "x")) == ["lstm", "lstm_1"]
    assert names({"key": stack("x", "y")}) == ["x", "y"]
    assert names({"a": stack("x", "y"), "b": stack("x", "z")}) == ["a_0", "b_0", "y", "z"]
    assert names({"a": stack("x", "y"), "y": LSTM(3, 4, name="x")}) == ["x", "a_1", "y"]
    assert names({"key": nn.LSTM(3, 4, 2)}) == ["key_0", "key_1"]


def test_many_names(tmp_path: Path) -> None:
    """HDF5 has no room for them in one attribute."""
    modules = {f"{'n' * 250}{i}": LSTM(1, 1, use_bias=False) for i in range(270)}
    save_keras(modules, tmp_path / "many.h5")
    with h5py.File(tmp_path / "many.h5") as file:
        pieces = [file.attrs[f"layer_names{n}"] for n in range(2)]
    assert [n.decode() for piece in pieces for n in piece] == list(modules)


def test_a_stateful_layer_has_the_batch_size_of_its_state(tmp_path: Path) -> None:
    layer = Bidirectional(LSTM(3, 4, stateful=True))
    with pytest.raises(ConfigError, match="batch_size"):
        save_keras(layer, tmp_path / "a.keras")
    layer(torch.zeros(7, 2, 3))
    save_keras(layer, tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        config = json.loads(archive.read("config.json"))["config"]
    assert config["layers"][0]["config"]["batch_shape"] == [7, None, 3]
    save_keras(layer, tmp_path / "a.weights.h5")


class Own(LSTM[Any]):
    pass


SHARED = LSTM(3, 4)
CELL = LSTMCell(3, 3)


@pytest.mark.parametrize(
    ("modules", "name", "options", "message"),
    [
        (LSTM(3, 4), "a.txt", {}, "ends in none of"),
        (LSTM(3, 4), "a.keras", {"format": "h5"}, "does not fit"),
        (LSTM(3, 4), "a.weights.h5", {"format": "h5"}, "does not fit"),
        (LSTM(3, 4), "a.keras", {"format": "zip"}, "format='zip'"),
        (LSTM(3, 4), "a.keras", {"target": "keras2"}, "target='keras2'"),
        (LSTM(3, 4), "a.keras", {"batch_size": 0}, "batch_size=0"),
        ({}, "a.keras", {}, "no layer"),
        ({"a/b": LSTM(3, 4), "a_b": LSTM(3, 4)}, "a.keras", {}, "called 'a_b'"),
        (LSTM(3, 5, name="n" * 66000), "a.h5", {}, "255 characters"),
        ({"n" * 256: LSTM(3, 5)}, "a.keras", {}, "255 characters"),
        ({"": LSTM(3, 4)}, "a.keras", {}, "''"),
        ({1: LSTM(3, 4)}, "a.keras", {}, "called 1"),
        ({"a b": LSTM(3, 4)}, "a.keras", {"target": "tf_keras"}, "'a b'"),
        ({"a": SHARED, "b": SHARED}, "a.keras", {}, "twice"),
        ({"a": chain(), "a_1": LSTM(3, 4)}, "a.keras", {}, "called 'a_1'"),
        (LazyLSTM(4), "a.keras", {}, "has not learnt"),
        ({"x": LazyLSTM(4)}, "a.weights.h5", {}, "has not learnt"),
        (Own(3, 4), "a.keras", {}, "class of your own"),
        (nn.Linear(3, 4), "a.keras", {}, "is not one of"),
        (LSTM(3, 4, device="meta"), "a.keras", {}, "meta device"),
        (nn.LSTM(3, 4, proj_size=2), "a.keras", {}, "proj_size"),
        (LSTM(3, 4, unroll=True), "a.keras", {}, "steps"),
        (LSTM(3, 4, activation=lambda x: x), "a.keras", {}, "torch code of your own"),
        (LSTM(3, 4, time_major=True), "a.keras", {}, "time_major"),
        (
            Bidirectional(LSTM(3, 4, stateful=True, return_state=True)),
            "a.keras",
            {"batch_size": 2},
            "TypeError",
        ),
        (
            Bidirectional(LSTM(3, 4), "sum", LSTM(3, 4, go_backwards=True, use_bias=False)),
            "a.h5",
            {"target": "tf_keras"},
            "one direction alone",
        ),
        (
            TimeDistributed(LSTM(3, 4, stateful=True)),
            "a.keras",
            {"target": "tf_keras", "batch_size": 2},
            "does not carry on",
        ),
        (StackedLSTM([CELL, CELL]), "a.keras", {}, "twice"),
        (TimeDistributed(StackedLSTM([CELL, CELL])), "a.h5", {}, "twice"),
    ],
)
def test_refused(modules: Any, name: str, options: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        save_keras(modules, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


SEVERAL: dict[str, Callable[[], Any]] = {
    "state": lambda: LSTM(3, 4, return_state=True),
    "both": lambda: Bidirectional(LSTM(3, 4), None),
    "chain": lambda: chain(return_state=True),
    "cells": lambda: StackedLSTM([LSTMCell(3, 4), LSTMCell(4, 2)], return_state=True),
}


@pytest.mark.parametrize("target", TARGETS.values())
@pytest.mark.parametrize("name", SEVERAL)
def test_several_results_in_a_time_distributed(name: str, target: str, tmp_path: Path) -> None:
    module = TimeDistributed(SEVERAL[name]())
    for form, suffix in FORMATS.items():
        with pytest.raises(ConfigError, match="no Keras can load"):
            save_keras(module, tmp_path / f"a{suffix}", format=form, target=target)
    assert not list(tmp_path.iterdir())
    save_keras(module, tmp_path / "a.weights.h5", target=target)


@pytest.mark.live
@pytest.mark.parametrize(
    ("library", "activation"),
    [("keras", "hard_sigmoid_v2"), ("tf_keras", "hard_sigmoid")],
)
def test_live_the_other_hard_sigmoid(
    library: str, activation: str, tmp_path: Path, request: Any
) -> None:
    live = request.getfixturevalue(library)
    live.call("save_side.registered", library)
    lstm = LSTM(3, 4, recurrent_activation=activation)
    cell = LSTMCell(3, 4, recurrent_activation=activation)
    both, outer = Bidirectional(copy.deepcopy(lstm)), TimeDistributed(lstm)
    for number, module in enumerate((lstm, both, cell, outer)):
        inputs, (expected,) = answers(module, "")
        for form in (f for f in FORMATS if is_met(number, library, f)):
            path = tmp_path / f"a{FORMATS[form]}"
            with pytest.warns(UserWarning, match="register_keras_objects"):
                save_keras(module, path, format=form, target=TARGETS[library], overwrite=True)
            (found,) = live.call("save_side.loaded", library, str(path), inputs, [])["results"]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
            (again,) = load_keras(path).values()
            parts = [m for m in again.modules() if isinstance(m, LSTM | LSTMCell)]
            assert {m.config.recurrent_activation for m in parts} == {activation}


@pytest.mark.live
@pytest.mark.parametrize("form", FORMATS)
def test_live_cudnn_is_not_asked_of_a_cpu(form: str, keras: KerasLive, tmp_path: Path) -> None:
    layers = {"a": LSTM(3, 4, use_cudnn=True), "b": Bidirectional(LSTM(3, 4, use_cudnn=True))}
    inputs, expected = answers(layers, "")
    path = tmp_path / f"a{FORMATS[form]}"
    save_keras(layers, path, format=form, target="keras")
    results = keras.call("save_side.loaded", "keras", str(path), inputs, [])["results"]
    for found, mine in zip(results, expected, strict=True):
        np.testing.assert_allclose(found, mine, rtol=0, atol=1e-6)
    assert load_keras(path)["a"].config.use_cudnn == "auto"
    save_keras(LSTM(3, 4, use_cudnn=False), path, format=form, overwrite=True)
    assert load_keras(path)["lstm"].config.use_cudnn is False


FIXTURES = Path(__file__).parent / "fixtures" / "keras-3.15.1"


@pytest.mark.live
@pytest.mark.parametrize("name", ["frozen.h5", "nested.weights.json"])
def test_live_what_was_loaded_of_nested_models(
    name: str, either: tuple[str, KerasLive], tmp_path: Path
) -> None:
    library, live = either
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layers = load_keras(FIXTURES / name)
    assert any("/" in key for key in layers)
    layers["x/y"] = TimeDistributed(Bidirectional(LSTM(3, 4)))
    for form in (f for f in FORMATS if is_met(name == "frozen.h5", library, f)):
        path = tmp_path / f"a{FORMATS[form]}"
        save_keras(layers, path, format=form, target=TARGETS[library])
        shapes = [(2, 5, next(m.input_size for m in y.modules() if hasattr(m, "input_size")))
                  for y in layers.values()]  # fmt: skip
        shapes[-1] = (2, 6, 5, 3)
        inputs = [np.zeros(shape, "float32") for shape in shapes]
        found = live.call("save_side.loaded", library, str(path), inputs, [])["layers"]
        assert set(found) == {key.replace("/", "_") for key in layers}
        for key, layer in layers.items():
            check(layer.get_weights(), found[key.replace("/", "_")], f"{name} {key}")


def test_messages(tmp_path: Path) -> None:
    """They name this function, its keywords and the caller's path."""
    plain = nn.LSTM(3, 4, 2, dropout=0.5, bidirectional=True)
    with pytest.raises(ConfigError) as caught:
        save_keras(plain, tmp_path / "a.keras")
    assert str(caught.value).startswith("save_keras: from_torch: ")
    assert str(caught.value).endswith(
        " Pass save_keras the result of from_torch(module, inference_only=True) to leave it out."
    )
    save_keras(from_torch(plain, inference_only=True), tmp_path / "a.keras")
    for module in (LSTM(3, 4, time_major=True), LSTM(3, 4, activation=lambda x: x)):
        with pytest.raises(ConfigError, match=r"^save_keras: the layer 'k': LSTM"):
            save_keras({"k": module}, tmp_path / "b.keras")
    path = tmp_path / "none" / "a.keras"
    with pytest.raises(FileNotFoundError) as missing:
        save_keras(LSTM(3, 4), path)
    assert missing.value.filename == str(path) and ".tmp" not in str(missing.value)


def test_keras_is_keras3(tmp_path: Path) -> None:
    layer = LSTM(3, 4, dtype="bfloat16")
    for suffix in (".weights.h5", ".h5", ".keras"):
        paths = [tmp_path / f"{target}{suffix}" for target in ("keras", "keras3")]
        for path in paths:
            save_keras(layer, path, target=path.name.partition(".")[0])  # type: ignore[arg-type]
        assert contents(paths[0]) == contents(paths[1])


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
@pytest.mark.parametrize("fails", ["arrays", "replace", "fsync"])
def test_it_is_written_whole_or_not_at_all(
    suffix: str, fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"model{suffix}"
    save_keras(LSTM(3, 4), path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="overwrite"):
        save_keras(LSTM(3, 5), path)

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("the disk is full")

    second = LSTM(3, 5)
    with monkeypatch.context() as patch:
        if fails == "arrays":
            patch.setattr(second, "get_weights", fail)
        else:
            patch.setattr(_write.os, fails, fail)
        with pytest.raises(OSError, match="the disk is full"):
            save_keras({"a": LSTM(3, 4), "b": second}, path, overwrite=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    os.chmod(path, 0o640)
    save_keras(second, path, overwrite=True)
    assert path.read_bytes() != before
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.keras").mkdir()
    with pytest.raises(ConfigError, match="folder"):
        save_keras(LSTM(3, 4), tmp_path / "a.keras", overwrite=True)
    with pytest.raises(FileNotFoundError):
        save_keras(LSTM(3, 4), tmp_path / "none" / "a.keras")


def test_nothing_of_the_module_is_changed(tmp_path: Path) -> None:
    cell = LSTMCell(3, 4)
    stack = frozen(chain(), "layers.0")
    states = {k: v.clone() for k, v in stack.state_dict().items()}
    save_keras({"a": cell, "b": stack}, tmp_path / "a.keras")
    assert stack.training and not stack.layers[0].trainable and stack.layers[1].trainable
    assert cell.name is None and stack.layers[0].name is None
    for key, value in stack.state_dict().items():
        assert torch.equal(value, states[key])


def test_an_old_bidirectional_is_saved_with_a_warning(tmp_path: Path) -> None:
    """Those of Keras before 2.4 repeat outputs at masked steps; without a mask they are equal."""
    layers = load_keras(Path(__file__).parent / "fixtures" / "keras-2.2.4" / "bidirectional.h5")
    with (
        pytest.warns(UserWarning, match="register_keras_objects"),  # its hard_sigmoid is Keras 2's
        pytest.warns(UserWarning, match="repeats outputs at masked steps"),
    ):
        save_keras(layers, tmp_path / "m.keras")
    again = load_keras(tmp_path / "m.keras")
    repeating = [n for n, m in layers.items() if m.return_sequences]
    for name in repeating:
        x = torch.rand(2, 7, layers[name].input_size)
        mask = torch.arange(7) < torch.tensor([[7], [3]])
        assert_parity(again[name](x), layers[name](x).detach(), bound=1e-6)
        zeros = again[name](x, mask=mask)[1, 3:]
        assert not zeros.any() and layers[name](x, mask=mask)[1, 3:].any()
    assert repeating


def test_a_name_that_tensorflow_refuses_is_said(tmp_path: Path) -> None:
    layer: LSTM = LSTM(3, 4)
    for name in ("a b", "é", "x:0", "a\\b"):
        with pytest.warns(UserWarning, match="TensorFlow takes no layer called"):
            save_keras({name: layer}, tmp_path / "m.keras", overwrite=True)
        with pytest.raises(ConfigError, match="TensorFlow takes no layer called"):
            save_keras({name: layer}, tmp_path / "t.keras", target="tf_keras")


@pytest.mark.parametrize("name", ["M.KERAS", "m.Weights.H5", "m.HDF5"])
def test_a_suffix_may_be_of_large_letters(tmp_path: Path, name: str) -> None:
    layer: LSTM = LSTM(3, 4)
    save_keras({"mine": layer}, tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (again,) = load_keras(tmp_path / name).values()
    assert all(map(np.array_equal, again.get_weights(), layer.get_weights()))


NO_ROOM = """
import resource, sys
from kerasish_lstm import LSTM, save_keras
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
for path in sys.argv[1:]:
    try:
        save_keras(LSTM(200, 200), path, overwrite=True)
    except OSError as error:
        print("refused", error.errno)
"""


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room cannot be asked for here")
def test_a_full_disk_is_an_error_and_no_crash(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("m.h5", "m.keras", "m.weights.h5")]
    for path in paths:
        save_keras(LSTM(3, 4), path)
    before = [path.read_bytes() for path in paths]
    command = [sys.executable, "-c", NO_ROOM, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line.split()[0] for line in done.stdout.splitlines()]
    assert (done.returncode, said) == (0, ["refused"] * 3), done.stderr
    assert [path.read_bytes() for path in paths] == before
    assert sorted(tmp_path.iterdir()) == paths
