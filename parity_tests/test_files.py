"""The file readers on crafted files: old forms that must be read, hostile ones that must not."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from kerasish_lstm import convert, files, load_keras
from kerasish_lstm.errors import ConfigError, FileFormatError, KerasishError, NotBuiltError
from kerasish_lstm.files._open import Hdf5

pytestmark = pytest.mark.smoke

F, U = 3, 2
NAMES = ("kernel", "recurrent_kernel", "bias")
SHAPES = ((F, 4 * U), (U, 4 * U), (4 * U,))


def arrays(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.RandomState(seed)
    return [rng.uniform(-1, 1, shape).astype(np.float32) for shape in SHAPES]


def lstm(name: str = "lstm", **more: Any) -> dict[str, Any]:
    return {"class_name": "LSTM", "config": {"name": name, "units": U, **more}}


def sequential(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"name": "model", "layers": list(layers)}}


def legacy(
    path: Path,
    layers: dict[str, list[tuple[str, np.ndarray]]],
    *,
    config: Any = None,
    version: str | None = "2.4.3",
    encode: bool = True,
) -> Path:
    """A legacy file: {layer: [(weight name, array)]}."""

    def texts(values: list[str]) -> Any:
        return (
            [v.encode() for v in values] if encode else np.array(values, dtype=h5py.string_dtype())
        )

    with h5py.File(path, "w") as file:
        if version is not None:
            file.attrs["keras_version"] = version.encode() if encode else version
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)
        root = file.create_group("model_weights") if config is not None else file
        root.attrs["layer_names"] = texts(list(layers))
        for name, weights in layers.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = texts([w for w, _ in weights])
            for weight, array in weights:
                group[weight] = array
    return path


def named(prefix: str, seed: int = 0, suffix: str = ":0") -> list[tuple[str, np.ndarray]]:
    return [(f"{prefix}/{n}{suffix}", a) for n, a in zip(NAMES, arrays(seed), strict=True)]


def keras3(path: Path, group: str = "layers/lstm", weights: list[np.ndarray] | None = None) -> Path:
    with h5py.File(path, "w") as file:
        for n, array in enumerate(arrays() if weights is None else weights):
            file[f"{group}/cell/vars/{n}"] = array
        file.create_group("vars")
    return path


def archive(
    path: Path, config: Any, *, version: Any = "3.15.1", weights: bytes | None = None,
    more: tuple[tuple[str, bytes], ...] = (), compression: int = zipfile.ZIP_STORED,
) -> Path:  # fmt: skip
    if weights is None:
        inner = keras3(path.with_suffix(".h5"))
        weights = inner.read_bytes()
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("metadata.json", json.dumps({"keras_version": version}))
        file.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        file.writestr("model.weights.h5", weights)
        for name, content in more:
            file.writestr(name, content)
    return path


def same(layer: Any, seed: int = 0) -> bool:
    pairs = zip(layer.get_weights(), arrays(seed), strict=True)
    return all(mine.tobytes() == theirs.tobytes() for mine, theirs in pairs)


# Old forms


@pytest.mark.parametrize("encode", [True, False], ids=["bytes", "str"])
@pytest.mark.parametrize(
    "names",
    ["lstm_1/lstm_1/kernel", "lstm_1/kernel", "lstm_1/lstm_cell_3/kernel", "kernel"],
    ids=["keras 2.2", "keras 2.0", "tf 2.2", "keras 3.0"],
)
def test_weight_names_of_every_age(tmp_path: Path, names: str, encode: bool) -> None:
    prefix = names.rpartition("/")[0]
    weights = [(f"{prefix}/{n}" if prefix else n, a) for n, a in zip(NAMES, arrays(), strict=True)]
    path = legacy(
        tmp_path / "m.h5", {"drop": [], "mine": weights}, encode=encode,
        config=sequential({"class_name": "Dropout", "config": {"name": "drop"}}, lstm("mine")),
    )  # fmt: skip
    assert same(load_keras(path)["mine"])


def test_a_sequential_config_that_is_a_list(tmp_path: Path) -> None:
    config = {"class_name": "Sequential", "config": [lstm("first"), lstm("second")]}
    path = legacy(
        tmp_path / "m.h5",
        {"first": named("first", 1), "second": named("second", 2)},
        config=config,
        version="2.0.6",
    )
    layers = load_keras(path)
    assert list(layers) == ["first", "second"]
    assert same(layers["first"], 1) and same(layers["second"], 2)
    # Keras 2.0's LSTM used hard_sigmoid for its gates where its config does not say.
    assert layers["first"].config.recurrent_activation == "hard_sigmoid_v2"


def test_attributes_that_were_cut_in_pieces(tmp_path: Path) -> None:
    layers = {f"lstm_{n}": named(f"lstm_{n}", n) for n in range(5)}
    path = legacy(tmp_path / "w.h5", layers)
    with h5py.File(path, "r+") as file:
        names = list(file.attrs["layer_names"])
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:3], names[3:]
    with pytest.warns(UserWarning):
        found = load_keras(path)
    assert list(found) == list(layers)
    assert all(same(layer, n) for n, layer in enumerate(found.values()))


def test_frozen_weights_come_last_in_their_group(tmp_path: Path) -> None:
    inner = {
        "class_name": "Model",
        "config": {"name": "inner", "layers": [lstm("a", trainable=False), lstm("b"), lstm("c")]},
    }
    stored = [*named("b", 2), *named("c", 3), *named("a", 1)]
    path = legacy(tmp_path / "m.h5", {"inner": stored}, config=sequential(inner))
    layers = load_keras(path)
    assert list(layers) == ["inner/a", "inner/b", "inner/c"]
    assert [same(layers[f"inner/{n}"], s) for n, s in (("a", 1), ("b", 2), ("c", 3))] == [True] * 3


def test_a_frozen_model_keeps_the_models_order(tmp_path: Path) -> None:
    config = {"name": "inner", "trainable": False, "layers": [lstm("a"), lstm("b")]}
    inner = {"class_name": "Functional", "config": config}
    stored = [*named("a", 1), *named("b", 2)]
    layers = load_keras(legacy(tmp_path / "m.h5", {"inner": stored}, config=sequential(inner)))
    assert same(layers["inner/a"], 1) and same(layers["inner/b"], 2)


def test_a_nested_lstm_without_a_config_is_keyed_by_its_group(tmp_path: Path) -> None:
    dense = ("dense/kernel:0", np.zeros((2, 2), np.float32))
    path = legacy(tmp_path / "w.h5", {"inner": [dense, *named("lstm_2/lstm_cell_5")]})
    with pytest.warns(UserWarning):
        layers = load_keras(path)
    assert list(layers) == ["inner/lstm_2"]
    assert same(layers["inner/lstm_2"])


FROZEN = {"name": "in", "layers": [lstm("a", trainable=False)]}
FROZEN_AROUND = {"name": "in", "trainable": False, "layers": [lstm("a")]}


@pytest.mark.parametrize("inside", [FROZEN, FROZEN_AROUND], ids=["itself", "the model around it"])
def test_frozen_layers_of_nested_models_without_names_are_refused(
    tmp_path: Path, inside: dict[str, Any]
) -> None:
    inner = {"class_name": "Model", "config": inside}
    outer = {"class_name": "Model", "config": {"name": "out", "layers": [inner, lstm("b")]}}
    stored = [*named("x", 1), *named("y", 2)]
    with pytest.raises(FileFormatError, match="which arrays of 'out' are whose cannot be told"):
        load_keras(legacy(tmp_path / "m.h5", {"out": stored}, config=sequential(outer)))


def test_a_nested_model_of_the_class_model_is_functional(tmp_path: Path) -> None:
    inner = {"class_name": "Model", "config": {"name": "in", "layers": [lstm("a")]}}
    path = keras3(tmp_path / "w.weights.h5", "layers/functional/layers/lstm")
    assert same(load_keras(path, config=sequential(inner))["in/a"])


def test_weights_that_the_config_does_not_tell_of_are_named(tmp_path: Path) -> None:
    path = keras3(tmp_path / "w.weights.h5")
    with h5py.File(path, "r+") as file:
        file.copy("layers/lstm", "layers/lstm_1")
    with pytest.raises(NotBuiltError, match="layers/lstm_1: the file has an LSTM's arrays there"):
        load_keras(path, config=sequential(lstm("one")))


@pytest.mark.parametrize(
    ("version", "gate"),
    [
        ("2.0.9", "hard_sigmoid_v2"), ("2.2.5", "hard_sigmoid_v2"), ("2.2.4-tf", "sigmoid"),
        ("2.3.0", "sigmoid"), ("2.15.0", "sigmoid"), ("3.0.0", "sigmoid"),
    ],
)  # fmt: skip
def test_the_default_gate_of_each_version(tmp_path: Path, version: str, gate: str) -> None:
    config = sequential(lstm("a"))
    path = legacy(tmp_path / "m.h5", {"a": named("a")}, config=config, version=version)
    assert load_keras(path)["a"].config.recurrent_activation == gate


def test_a_name_with_a_slash_of_keras_2(tmp_path: Path) -> None:
    path = legacy(tmp_path / "m.h5", {"a/b": named("a/b")}, config=sequential(lstm("a/b")))
    assert list(load_keras(path)) == ["a/b"]


@pytest.mark.parametrize(
    "entry", [{"dtype": {"config": ["x"]}}, {"units": "2"}, {"stateful": "no"}], ids=str
)
def test_a_broken_config_names_the_file(tmp_path: Path, entry: dict[str, Any]) -> None:
    with pytest.raises(KerasishError, match=r"m\.keras"):
        load_keras(archive(tmp_path / "m.keras", sequential(lstm("mine", **entry))))


def test_gru_and_simple_rnn_are_no_lstm(tmp_path: Path) -> None:
    rng = np.random.RandomState(0)
    gru = [rng.rand(F, 3 * U), rng.rand(U, 3 * U), rng.rand(3 * U)]
    path = legacy(
        tmp_path / "w.h5", {"gru": list(zip([f"gru/{n}" for n in NAMES], gru, strict=True))}
    )
    with pytest.raises(FileFormatError, match="holds no LSTM"):
        load_keras(path)
    with pytest.raises(FileFormatError, match="holds no LSTM"):
        load_keras(keras3(tmp_path / "g.weights.h5", "layers/gru", gru))


def test_big_endian_and_float64_weights(tmp_path: Path) -> None:
    path = keras3(tmp_path / "w.weights.h5", weights=[a.astype(">f8") for a in arrays()])
    with pytest.warns(UserWarning):
        (layer,) = load_keras(path).values()
    for mine, theirs in zip(layer.get_weights(), arrays(), strict=True):
        assert mine.dtype == np.float64 and np.array_equal(mine, theirs)


def test_nan_and_negative_zero_pass_bitwise(tmp_path: Path) -> None:
    weights = arrays()
    weights[0][0, 0], weights[1][0, 0], weights[2][:2] = np.nan, np.inf, -0.0
    with pytest.warns(UserWarning):
        (layer,) = load_keras(keras3(tmp_path / "w.weights.h5", weights=weights)).values()
    for mine, theirs in zip(layer.get_weights(), weights, strict=True):
        assert mine.tobytes() == theirs.tobytes()


def test_a_config_given_for_bare_weights(tmp_path: Path) -> None:
    path = keras3(tmp_path / "w.weights.h5")
    whole = {**sequential(lstm("mine", go_backwards=True)), "keras_version": "2.15.0"}
    (tmp_path / "c.json").write_text(json.dumps(whole))
    model_only = whole["config"]
    for config in (whole, model_only, tmp_path / "c.json", str(tmp_path / "c.json")):
        layers = load_keras(path, config=config)
        assert list(layers) == ["mine"] and same(layers["mine"])
        assert layers["mine"].go_backwards


@pytest.mark.parametrize(
    ("entries", "gate"),
    [
        ({"time_major": False}, "hard_sigmoid_v2"),
        ({"implementation": 2}, "hard_sigmoid_v2"),
        ({}, "hard_sigmoid"),
    ],
)
def test_the_generation_of_a_config_that_does_not_say(
    tmp_path: Path, entries: dict[str, Any], gate: str
) -> None:
    config = sequential(lstm(recurrent_activation="hard_sigmoid", **entries))
    layer = load_keras(keras3(tmp_path / "w.weights.h5"), config=config)["lstm"]
    assert layer.config.recurrent_activation == gate


# What cannot be read


def link(kind: str) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        keras3(path)
        other = keras3(path.with_name("other.h5"))
        with h5py.File(path, "r+") as file:
            del file["layers/lstm/cell/vars/0"]
            where = "layers/lstm/cell/vars/0"
            if kind == "soft":
                file[where] = h5py.SoftLink("/layers/lstm/cell/vars/1")
            elif kind == "external link":
                file[where] = h5py.ExternalLink(other.name, "/layers/lstm/cell/vars/0")
            elif kind == "external data":
                raw = path.with_name("raw")
                raw.write_bytes(bytes(4 * F * 4 * U))
                file.create_dataset(
                    where, (F, 4 * U), np.float32, external=[(str(raw), 0, h5py.h5f.UNLIMITED)]
                )
            else:
                layout = h5py.VirtualLayout((F, 4 * U), np.float32)
                layout[:] = h5py.VirtualSource(str(other), where, (F, 4 * U))
                file.create_virtual_dataset(where, layout)
        return path

    return make


def bomb(path: Path) -> Path:
    """44 MB of zeros in a few hundred bytes."""
    keras3(path)
    with h5py.File(path, "r+") as file:
        del file["layers/lstm/cell/vars/0"]
        file.create_dataset(
            "layers/lstm/cell/vars/0",
            (1_400_000, 4 * U),
            np.float32,
            chunks=(100_000, 8),
            fillvalue=0,
        )
    return path


def of_dtype(dtype: Any) -> Callable[[Path], Path]:
    return lambda path: keras3(path, weights=[a.astype(dtype) for a in arrays()])


def truncated(path: Path) -> Path:
    data = keras3(path).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def other_hdf5(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["pandas/table"] = np.zeros(3)
    return path


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "soft link": (link("soft"), "SoftLink.*refused"),
    "external link": (link("external link"), "ExternalLink.*refused"),
    "external data": (link("external data"), "in another file"),
    "virtual data": (link("virtual"), "in another file"),
    "shape bomb": (bomb, "decompression bomb"),
    "complex": (of_dtype(np.complex64), "holds complex64"),
    "integers": (of_dtype(np.int32), "holds int32"),
    "texts": (of_dtype("S4"), r"holds \|S4"),
    "truncated": (truncated, "damaged"),
    "not Keras's": (other_hdf5, "not one of Keras's; it holds pandas"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_hdf5_is_refused(tmp_path: Path, name: str) -> None:
    make, said = HOSTILE[name]
    path = make(tmp_path / "w.weights.h5")
    with pytest.raises(FileFormatError, match=said):
        load_keras(path)


def test_truncation_anywhere_is_an_error_of_ours_or_changes_nothing(tmp_path: Path) -> None:
    whole = legacy(tmp_path / "m.h5", {"lstm": named("lstm")}, config=sequential(lstm()))
    data = whole.read_bytes()
    part = tmp_path / "part.h5"
    for end in range(0, len(data), 512):
        part.write_bytes(data[:end])
        try:
            layers = load_keras(part)
        except KerasishError:
            continue
        assert same(layers["lstm"])


ZIPS: dict[str, tuple[Callable[[Path], Path], type[Exception], str]] = {
    "no config": (
        lambda p: Path(_zip(p, {"metadata.json": b"{}"})), FileFormatError, "0 members called"
    ),
    "two configs": (
        lambda p: archive(p, sequential(lstm()), more=(("config.json", b"{}"),)),
        FileFormatError, "2 members called 'config.json'",
    ),
    "no version": (
        lambda p: archive(p, sequential(lstm()), version=None), FileFormatError, "no keras_version"
    ),
    "a version from the future": (
        lambda p: archive(p, sequential(lstm()), version="4.0"), ConfigError, "not a Keras version"
    ),
    "no JSON": (lambda p: archive(p, "{nope"), FileFormatError, "config.json is no JSON"),
    "deep JSON": (
        lambda p: archive(p, "[" * 200_000), FileFormatError, "is no JSON: RecursionError"
    ),
    "no list of layers": (
        lambda p: archive(p, {"class_name": "Sequential", "config": {}}), FileFormatError, "no list"
    ),
    "weights that are no HDF5": (
        lambda p: archive(p, sequential(lstm()), weights=b"nothing"), FileFormatError, "damaged"
    ),
    "other units": (
        lambda p: archive(p, sequential(lstm(units=7))), FileFormatError, r"units=7.*\(7, 28\)"
    ),
    "absurd units": (
        lambda p: archive(p, sequential(lstm(units=10**12))), FileFormatError, "units=1000000000000"
    ),
    "no units": (
        lambda p: archive(p, sequential({"class_name": "LSTM", "config": {"name": "a"}})),
        ConfigError, "no 'units'",
    ),
    "a bias too many": (
        lambda p: archive(p, sequential(lstm(use_bias=False))), FileFormatError, "use_bias=False"
    ),
    "an unknown entry": (
        lambda p: archive(p, sequential(lstm(unit_forget_bais=True))), ConfigError,
        "'unit_forget_bais'.*'unit_forget_bias'",
    ),
    "an unknown activation": (
        lambda p: archive(p, sequential(lstm(activation="tahn"))), ConfigError, "'tahn'.*'tanh'"
    ),
    "the author's activation": (
        lambda p: archive(
            p, sequential(lstm(activation={"class_name": "function", "config": "os.system"}))
        ),
        ConfigError, "code of the model's author",
    ),
    "an int8 policy": (
        lambda p: archive(p, sequential(lstm(dtype="int8_from_float32"))), ConfigError, "int8"
    ),
    "a zip bomb": (
        lambda p: archive(
            p, sequential(lstm()), weights=bytes(2**25), compression=zipfile.ZIP_DEFLATED
        ),
        FileFormatError, "decompression bomb",
    ),
}  # fmt: skip


def _zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ZIPS)
def test_broken_keras_files_say_what_is_wrong(tmp_path: Path, name: str) -> None:
    make, error, said = ZIPS[name]
    path = make(tmp_path / "m.keras")
    with pytest.raises(error, match=said) as caught:
        load_keras(path)
    assert type(caught.value) is error


def test_a_model_of_its_authors_own_class_is_read_by_groups_or_by_a_config(tmp_path: Path) -> None:
    path = archive(tmp_path / "m.keras", {"class_name": "MyModel", "config": {}})
    with pytest.warns(UserWarning, match=r"class of its author's.*keyed by the file's groups"):
        assert same(load_keras(path)["layers/lstm"])
    told = load_keras(path, config=sequential(lstm("mine", activation="relu")))["mine"]
    assert same(told) and told.config.activation == "relu"
    with pytest.raises(FileFormatError, match="'MyModel', which is code of the model's author"):
        load_keras(keras3(tmp_path / "w.weights.h5"), config={"class_name": "MyModel"})


def test_a_name_in_the_file_that_is_another_layers_is_refused(tmp_path: Path) -> None:
    path = keras3(tmp_path / "w.weights.h5")
    with h5py.File(path, "r+") as file:
        file.create_group("layers/lstm/vars").attrs["name"] = "somebody_else"
    with pytest.raises(FileFormatError, match="'somebody_else'"):
        load_keras(path, config=sequential(lstm("mine")))


def test_keras_1_s_gates_are_put_together(tmp_path: Path) -> None:
    rng = np.random.RandomState(1)
    shapes = {"W": (3, 2), "U": (2, 2), "b": (2,)}
    gates = {
        f"{w}_{g}": rng.uniform(-1, 1, shapes[w]).astype(np.float32) for g in "icfo" for w in "WUb"
    }
    joined = [np.concatenate([gates[f"{w}_{g}"] for g in "ifco"], -1) for w in "WUb"]
    one = {"class_name": "LSTM", "config": {"name": "lstm_1", "output_dim": 2}}
    for arrays in (
        [(f"lstm_1_{key}", array) for key, array in gates.items()],
        [(f"lstm_1_{w}", array) for w, array in zip("WUb", joined, strict=True)],  # "gpu"
    ):
        with pytest.warns(UserWarning, match="weights alone"):
            alone = load_keras(legacy(tmp_path / "w.h5", {"lstm_1": arrays}, version=None))
        whole = legacy(
            tmp_path / "m.h5", {"lstm_1": arrays}, version="1.2.2", config=sequential(one)
        )
        for layer in (alone["lstm_1"], load_keras(whole)["lstm_1"]):
            assert layer.config.recurrent_activation == "hard_sigmoid_v2"
            for mine, theirs in zip(layer.get_weights(), joined, strict=True):
                assert mine.tobytes() == theirs.tobytes()
    broken = [(f"lstm_1_{key}", array[..., :1]) for key, array in gates.items()]
    with pytest.raises(KerasishError, match="holds 1 LSTM cells; the file has arrays for 0"):
        load_keras(legacy(tmp_path / "m.h5", {"lstm_1": broken}, version="1.2.2",
                          config=sequential(one)))  # fmt: skip


def test_shards_lie_beside_their_map_and_are_no_links(tmp_path: Path) -> None:
    def mapped(weight_map: Any) -> Path:
        path = tmp_path / "m.weights.json"
        path.write_text(json.dumps({"weight_map": weight_map}))
        return path

    for name in (
        "../m_00000.weights.h5",
        "/etc/m_00000.weights.h5",
        "m.h5",
        3,
        "a\\m_00000.weights.h5",
    ):
        with pytest.raises(FileFormatError, match="a shard lies in the same folder"):
            load_keras(mapped({"/layers/lstm/cell/vars": name}))
    with pytest.raises(FileFormatError, match=r"'x_00000.weights.h5', which is not there"):
        load_keras(mapped({"/layers/lstm/cell/vars": ["x_00000.weights.h5"]}))
    (tmp_path / "x_00000.weights.h5").symlink_to(tmp_path / "m.weights.json")
    with pytest.raises(FileFormatError, match="is a link, which is refused"):
        load_keras(mapped({"/layers/lstm/cell/vars": ["x_00000.weights.h5"]}))
    for wrong in ({}, [], 3):
        with pytest.raises(FileFormatError, match="weight_map"):
            load_keras(mapped(wrong))


def test_a_layer_that_two_models_share_is_read_at_both_places(tmp_path: Path) -> None:
    shared = lstm("same")
    inner = [
        {"class_name": "Functional", "config": {"name": n, "layers": [shared]}} for n in ("a", "b")
    ]
    inside = keras3(tmp_path / "m.h5", "layers/functional/layers/lstm").read_bytes()
    path = archive(tmp_path / "m.keras", sequential(*inner), weights=inside)
    layers = load_keras(path)
    assert list(layers) == ["a/same", "b/same"]
    assert same(layers["a/same"]) and same(layers["b/same"])
    inner[1]["config"]["layers"] = [lstm("other")]
    path = archive(tmp_path / "m.keras", sequential(*inner), weights=inside)
    with pytest.raises(FileFormatError, match=r"'b/other'.*none \(does it share"):
        load_keras(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x.weights.json", "is no JSON"), ("x.npz", "set_weights"), ("x.pt", "torch.load"),
        ("x.index", "TensorFlow checkpoint"), ("x.txt", "neither a zip"),
    ],
)  # fmt: skip
def test_other_formats_are_named(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_bytes(b'{"weight_map": {}} or other bytes')
    with pytest.raises(FileFormatError, match=said):
        load_keras(tmp_path / name)


def test_a_saved_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(FileFormatError, match=r"SavedModel.*model\.save\('x\.keras'\)"):
        load_keras(tmp_path)


def test_no_file_is_a_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_keras(tmp_path / "nowhere.h5")


def test_what_a_file_holds_in_the_models_order(tmp_path: Path) -> None:
    around = {"name": "two", "layer": {"class_name": "Conv1D", "config": {}}, "cell": lstm("x")}
    bidirectional = {"class_name": "Bidirectional", "config": around}
    custom = {"class_name": "MyLSTM", "config": {"name": "own"}}
    conv = {"class_name": "ConvLSTM2D", "config": {"name": "image"}}
    config = sequential(conv, lstm("zeta"), bidirectional, custom)
    found = files.read(archive(tmp_path / "m.keras", config))
    assert [(x.name, x.kind, x.weights is None, x.has_lstm) for x in found.layers] == [
        ("image", "ConvLSTM2D", True, False),
        ("zeta", "LSTM", False, True),
        ("two", "Bidirectional", True, True),
        ("own", "MyLSTM", True, True),
    ]
    assert (found.format, found.version, found.bare) == ("keras", "3.15.1", False)


def test_a_file_object_in_memory_is_never_written(tmp_path: Path) -> None:
    path = archive(tmp_path / "m.keras", sequential(lstm()))
    before = path.read_bytes()
    path.chmod(0o444)
    assert same(load_keras(path)["lstm"])
    assert path.read_bytes() == before
    assert zipfile.ZipFile(io.BytesIO(before)).testzip() is None


def many_rows(rows: int) -> list[np.ndarray]:
    rng = np.random.RandomState(7)
    return [rng.uniform(-1, 1, s).astype(np.float32) for s in ((rows, 8), (2, 8), (8,))]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_kernel_of_several_blocks_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(convert, "BLOCKS_BYTES", 7 * 32 * threads)  # so seven rows a block
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    weights = many_rows(601)
    config = sequential({"class_name": "LSTM", "config": {"name": "lstm", "units": 2}})
    bare = load_keras(keras3(tmp_path / "w.weights.h5", weights=weights), config=config)["lstm"]
    inner = keras3(tmp_path / "inner.h5", weights=weights).read_bytes()
    archived = load_keras(archive(tmp_path / "m.keras", config, weights=inner))["lstm"]
    for layer in (bare, archived):
        for mine, theirs in zip(layer.get_weights(), weights, strict=True):
            assert mine.tobytes() == theirs.tobytes()


def test_a_matrix_is_read_where_hdf5_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    weights = many_rows(7)
    with h5py.File(path, "w") as file:
        file["plain"] = weights[0]
        file.create_dataset("chunked", data=weights[0], chunks=(2, 8))
        file["line"] = weights[2]
        file.create_dataset("unwritten", (5, 8), np.float32)
        file["swapped"] = weights[0].astype(">f4")
    block = np.empty((4, 8), np.float32)
    with closing(Hdf5(path, path)) as hdf5:
        for other in ("chunked", "line", "unwritten", "swapped", "nowhere"):
            assert hdf5.matrix(other) is None
        matrix = hdf5.matrix("plain")
        assert matrix is not None
        with matrix.open() as opened:
            assert (matrix.rows(opened, 5, block) == weights[0][5:]).all()
    path.write_bytes(path.read_bytes()[: matrix.offset + 100])
    with matrix.open() as opened, pytest.raises(FileFormatError, match="cut off"):
        matrix.rows(opened, 0, block)


def test_a_matrix_whose_place_is_told_wrong_is_left_to_hdf5(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    weights = many_rows(7)
    with h5py.File(path, "w") as file:
        file["plain"] = weights[0]
    with closing(Hdf5(path, path)) as hdf5:
        assert hdf5.matrix("plain") is not None
        other = tmp_path / "other.h5"
        other.write_bytes(path.read_bytes().replace(weights[0].tobytes(), bytes(224)))
        hdf5._source = other  # as if HDF5 read from elsewhere than it says
        assert hdf5.matrix("plain") is None
        assert (hdf5.array("plain") == weights[0]).all()


def test_a_layer_a_thousand_times_is_refused_at_once(tmp_path: Path) -> None:
    """No work that grows with the square of what a config lists."""
    alike = sequential(*[lstm("a") for _ in range(4000)])
    start = time.process_time()
    with pytest.raises(FileFormatError, match="two layers called 'a' in one model"):
        load_keras(archive(tmp_path / "m.keras", alike))
    nested = [
        {"class_name": "Sequential", "config": {"name": f"m{i}", "layers": [lstm("a")]}}
        for i in range(2000)
    ]
    with pytest.raises(FileFormatError, match="'m0/a'"):
        load_keras(archive(tmp_path / "n.keras", sequential(*nested)))
    assert time.process_time() - start < 2


def test_a_nested_model_s_shared_layers_are_found_by_one_owner(tmp_path: Path) -> None:
    models = [
        {"class_name": "Sequential", "config": {"name": f"m{i}", "layers": [lstm("a")]}}
        for i in range(3)
    ]
    path = tmp_path / "m.keras"
    inner = keras3(tmp_path / "inner.h5", group="layers/sequential/layers/lstm")
    archive(path, sequential(*models), weights=inner.read_bytes())
    layers = load_keras(path)
    assert list(layers) == ["m0/a", "m1/a", "m2/a"] and all(map(same, layers.values()))


def _cells_of(path: Path, *names: str) -> Path:
    with h5py.File(path, "w") as file:
        for name in names:
            for number, array in enumerate(arrays()):
                file[f"{name}/vars/{number}"] = array
    return path


def test_a_stack_with_other_cells_is_no_smaller_stack(tmp_path: Path) -> None:
    path = _cells_of(tmp_path / "w.weights.h5", "layers/rnn/cell/cells/lstm_cell")
    with h5py.File(path, "r+") as file:
        file["layers/rnn/cell/cells/gru_cell/vars/0"] = np.ones((F, 3 * U), np.float32)
    with pytest.raises(NotBuiltError, match=r"layers/rnn: 1 of its cells are no LSTMCells"):
        load_keras(path)


def test_a_wrapper_in_a_wrapper_is_no_plain_layer(tmp_path: Path) -> None:
    path = _cells_of(tmp_path / "w.weights.h5", "layers/time_distributed/layer/layer/cell")
    with pytest.raises(NotBuiltError, match="stands in a wrapper"):
        load_keras(path)


def test_a_class_derived_from_sequential_lists_its_layers(tmp_path: Path) -> None:
    entry = {"class_name": "InputLayer", "config": {"name": "in", "batch_shape": [None, 7, F]}}
    own = {**sequential(entry, lstm("mine")), "class_name": "Mine", "registered_name": "my>Mine"}
    assert list(load_keras(archive(tmp_path / "m.keras", own))) == ["mine"]
    inner = keras3(tmp_path / "inner.h5", group="layers/mine/layers/lstm").read_bytes()
    around = archive(tmp_path / "n.keras", sequential({**own}), weights=inner)
    assert list(load_keras(around)) == ["model/mine"]


def test_a_bidirectional_s_backward_layer_of_another_name(tmp_path: Path) -> None:
    forward, backward = "both/forward_lstm/lstm_cell", "both/mine/lstm_cell"
    its = [
        (f"{w}/{n}", a) for w in (forward, backward) for n, a in zip(NAMES, arrays(), strict=True)
    ]
    path = legacy(tmp_path / "w.h5", {"both": its})
    with pytest.warns(UserWarning, match="holds weights alone"):
        both = load_keras(path)["both"]
    assert type(both).__name__ == "Bidirectional"
    assert same(both.forward_layer) and same(both.backward_layer)
