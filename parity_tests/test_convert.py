"""The converter: files that real Keras wrote, and live layers both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm import LSTM, Bidirectional, StackedLSTM, from_keras, load_keras
from kerasish_lstm.errors import ConfigError, FileFormatError, NotBuiltError
from kerasish_lstm.parity import assert_parity
from kerasish_lstm.parity.bounds import FLOAT32_ULPS, FLOAT64

from . import keras_side
from .conftest import REAL_FILES
from .keras_live import ROOT, KerasLive

NOTEBOOK = ROOT / "kerasish_lstm" / "demo" / "notebook.keras"
LOADED = ("sequential", "many", "nested", "thawed", "cell", "stateful", "half", "wrapped")
Answers = dict[str, dict[str, Any]]
Made = tuple[str, Path, Answers]


@pytest.fixture(scope="session", params=["keras", "tf_keras"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """(library, folder of files that it wrote, what its layers did)."""
    live: KerasLive = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, live.call("keras_side.make_files", str(folder), request.param)


def check(layers: dict[str, Any], answers: dict[str, Any], what: str) -> None:
    """The same names in the same order, the same bits in the weights, the same outputs."""
    assert list(layers) == list(answers), what
    for name, (x, weights, expected) in answers.items():
        layer = layers[name]
        for mine, theirs in zip(layer.get_weights(), weights, strict=True):
            assert mine.dtype == theirs.dtype
            assert mine.tobytes() == theirs.tobytes(), f"{what} {name}"
        result = layer(torch.from_numpy(x))
        result = result if isinstance(result, tuple) else (result,)
        # Keras computes its mixed_float16 and float16 layers in 16 bits.
        policy = str(layer.config.dtype) if isinstance(layer, LSTM) else ""
        bound = 1e-2 if "float16" in policy else 4 * FLOAT32_ULPS
        for mine, theirs in zip(result, expected, strict=True):
            assert_parity(mine, theirs, bound=bound, what=f"{what} {name}")


@pytest.mark.live
@pytest.mark.parametrize("model", LOADED)
@pytest.mark.parametrize("form", keras_side.FORMATS)
def test_files_that_keras_wrote(made: Made, model: str, form: str) -> None:
    library, folder, answers = made
    path = folder / f"{model}.{keras_side.FORMATS[form]}"
    config = folder / f"{model}.json" if form == "weights" else None
    layers = load_keras(path, config=config)
    check(layers, answers[model], f"{library} {path.name}")
    assert all(not layer.training for layer in layers.values())


@pytest.mark.live
def test_the_config_of_a_file_is_that_of_its_version(made: Made) -> None:
    library, folder, _ = made
    layers = load_keras(folder / "sequential.keras")
    gate = {"keras": "hard_sigmoid", "tf_keras": "hard_sigmoid_v2"}[library]
    assert layers["alpha"].config.recurrent_activation == gate
    assert layers["alpha"].config.go_backwards and not layers["zeta"].config.go_backwards
    assert layers["zeta"].config.dropout == 0.2
    layers["zeta"].train()(torch.zeros(1, 7, 4))
    stateful = load_keras(folder / "stateful.h5")
    (layer,) = stateful.values()
    assert layer.stateful and layer.states is None
    assert layer.config.kernel_regularizer["class_name"] == "L2"
    half = load_keras(folder / "half.keras")
    assert half["half"].lstm.weight_ih_l0.dtype == torch.float16
    assert half["mixed"].lstm.weight_ih_l0.dtype == torch.float32


@pytest.mark.live
def test_weights_alone_are_keyed_by_group_and_say_so_once(made: Made) -> None:
    library, folder, answers = made
    _, weights, _ = answers["sequential"]["zeta"]
    with pytest.warns(UserWarning, match="keyed by the file's groups") as caught:
        layers = load_keras(folder / "sequential.weights.h5")
    assert len(caught) == 1
    assert list(layers) == ["layers/lstm", "layers/lstm_1"]
    for mine, theirs in zip(layers["layers/lstm"].get_weights(), weights, strict=True):
        assert np.array_equal(mine, theirs)
    assert layers["layers/lstm_1"].config.recurrent_activation == "sigmoid"
    with pytest.warns(UserWarning):
        many = load_keras(folder / "many.weights.h5")
    assert [layer.units for layer in many.values()] == list(range(2, 14))
    with pytest.warns(UserWarning):
        nested = load_keras(folder / "nested.weights.h5")
    inner = "layers/sequential/layers/lstm"
    expected = answers["nested"]["inner/frozen"][1]
    assert np.array_equal(nested[inner].get_weights()[0], expected[0]), list(nested)
    if library == "tf_keras":
        with pytest.warns(UserWarning):
            legacy = load_keras(folder / "sequential_weights.h5", names={"zeta": "first"})
        assert list(legacy) == ["first", "alpha"]
        config = load_keras(folder / "nested_weights.h5", config=folder / "nested.json")
        check(config, answers["nested"], "legacy weights with a config")


@pytest.mark.live
def test_names_rename(made: Made) -> None:
    _, folder, _ = made
    layers = load_keras(folder / "sequential.keras", names={"zeta": "encoder"})
    assert list(layers) == ["encoder", "alpha"]
    with pytest.raises(ConfigError, match=r"'beta'.*'zeta', 'alpha'"):
        load_keras(folder / "sequential.keras", names={"beta": "encoder"})
    with pytest.raises(ConfigError, match="two layers"):
        load_keras(folder / "sequential.keras", names={"zeta": "alpha"})


@pytest.mark.live
def test_wrappers_without_a_config_are_what_their_groups_say(made: Made) -> None:
    _, folder, answers = made
    with pytest.warns(UserWarning, match="weights alone"):
        layers = load_keras(folder / "wrapped.weights.h5")
    found = {name.rpartition("/")[2]: module for name, module in layers.items()}
    kinds = {"bidirectional": Bidirectional, "lstm": LSTM, "lstm_1": LSTM, "rnn": StackedLSTM}
    assert {n: type(m) for n, m in found.items()} == kinds
    for group, name in (("bidirectional", "both"), ("rnn", "rnn")):
        for mine, theirs in zip(
            found[group].get_weights(), answers["wrapped"][name][1], strict=True
        ):
            assert mine.tobytes() == theirs.tobytes()


@pytest.mark.live
@pytest.mark.parametrize("form", ["keras", "h5"])
def test_lstms_that_hide_are_found(
    either: tuple[str, KerasLive], form: str, tmp_path: Path
) -> None:
    library, live = either
    live.call("keras_side.hidden_lstms", str(tmp_path), library)
    with pytest.raises(NotBuiltError, match=r"enc.*the config does not say"):
        load_keras(tmp_path / f"encoder.{form}")
    with pytest.raises(NotBuiltError, match="twice: LSTM is code of the model's author"):
        load_keras(tmp_path / "foreign.keras")


@pytest.mark.live
def test_a_config_of_another_model_is_refused(made: Made) -> None:
    _, folder, _ = made
    with pytest.raises(FileFormatError, match="sequential"):
        load_keras(folder / "sequential.weights.h5", config=folder / "nested.json")
    with pytest.raises(FileFormatError, match="holds its own config"):
        load_keras(folder / "sequential.keras", config=folder / "nested.json")


@pytest.mark.live
def test_bfloat16_files(keras: KerasLive, tmp_path: Path) -> None:
    path = tmp_path / "b.weights.h5"
    weights = keras.call("keras_side.bfloat16_file", str(path))
    with pytest.warns(UserWarning):
        (layer,) = load_keras(path).values()
    assert layer.lstm.weight_ih_l0.dtype == torch.bfloat16
    for mine, theirs in zip(layer.get_weights(), weights, strict=True):
        assert np.array_equal(mine, theirs)


KEYWORDS: dict[str, dict[str, Any]] = {
    "plain": {"units": 5},
    "flags": {"units": 5, "return_sequences": True, "return_state": True, "go_backwards": True},
    "no bias": {"units": 5, "use_bias": False, "name": "mine"},
    "stateful": {"units": 5, "stateful": True, "return_state": True},
    "hard_sigmoid": {"units": 5, "recurrent_activation": "hard_sigmoid", "activation": "softsign"},
    "training": {
        "units": 5, "dropout": 0.3, "recurrent_dropout": 0.2,
        "kernel_regularizer": {"class_name": "L2", "config": {"l2": 0.5}},
        "recurrent_constraint": "max_norm", "bias_initializer": "ones", "implementation": 1,
    },
}  # fmt: skip


@pytest.mark.live
@pytest.mark.parametrize("keywords", KEYWORDS)
def test_live_layers_both_ways(either: tuple[str, KerasLive], keywords: str) -> None:
    library, live = either
    x = np.random.RandomState(11).uniform(-1, 1, (2, 7, 3)).astype(np.float32)
    found = live.call("keras_side.round_trip", library, KEYWORDS[keywords], x)
    for name in ("torch", "to keras", "to tf_keras", "back from keras", "back from tf_keras"):
        for mine, theirs in zip(found[name], found["live"], strict=True):
            assert_parity(mine, theirs, bound=4 * FLOAT32_ULPS, what=name)
    assert found["style"] == library
    for name in ("keras", "tf_keras"):
        assert found[f"config from {name}"] == found["config"]
        for mine, theirs in zip(found[f"weights from {name}"], found["weights"], strict=True):
            assert mine.tobytes() == theirs.tobytes()


@pytest.mark.live
def test_wrappers_and_cells_go_both_ways(either: tuple[str, KerasLive]) -> None:
    library, live = either
    for name, found in live.call("convert_side.round_trips", library).items():
        for stop in ("torch", "to keras", "to tf_keras", "back from keras", "back from tf_keras"):
            assert len(found[stop]) == len(found["live"])
            for mine, theirs in zip(found[stop], found["live"], strict=True):
                assert_parity(mine, theirs, bound=FLOAT64, what=f"{name}: {stop}")
        for other in ("keras", "tf_keras"):
            assert found[f"trainable from {other}"] == found["trainable"], name
            for mine, theirs in zip(found[f"weights from {other}"], found["weights"], strict=True):
                assert mine.tobytes() == theirs.tobytes()
        assert len(set(found["trainable"])) == (2 if name == "frozen" else 1)


@pytest.mark.live
def test_a_chain_becomes_a_sequential(keras: KerasLive) -> None:
    found = keras.call("convert_side.chain")
    for other in ("keras", "tf_keras"):
        for mine, theirs in zip(found["torch"], found[other], strict=True):
            assert_parity(mine, theirs, bound=FLOAT64, what=other)


@pytest.mark.live
def test_what_the_converter_refuses(either: tuple[str, KerasLive]) -> None:
    library, live = either
    found = live.call("keras_side.refused", library)
    wanted = {
        "own activation": "which is not",
        "not built": "'raw' is not built",
        "another layer": "GRU is not the LSTM",
        "no layer": "builtins.int is not the LSTM",
        "backend": "allowed are 'keras' and 'tf_keras'",
        "no module": "is not a kerasish_lstm.LSTM",
        "callable": "torch code of your own",
        "stateful": "holds no state",
        "unknown there": "is not an activation of tf_keras",
    }
    assert found.keys() == wanted.keys()
    for name, text in wanted.items():
        assert text in found[name]


@pytest.mark.live
def test_to_keras_takes_what_the_module_is_now(keras: KerasLive) -> None:
    """Its dtype and whether it is trained, not what they were when it was converted."""
    assert keras.call("keras_side.changed_since") == ("float64", False, "mixed_float16", "float32")


def test_a_config_or_names_of_the_wrong_kind_say_so(tmp_path: Path) -> None:
    path = tmp_path / "any.h5"
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match="config is a list; pass a model's config as a dict"):
        load_keras(path, config=[1])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"json\.loads"):
        load_keras(path, config='{"class_name": "Sequential"}')
    with pytest.raises(ConfigError, match="the value 3"):
        load_keras(NOTEBOOK, names={"both": 3})  # type: ignore[dict-item]


def test_from_keras_needs_no_keras_to_refuse() -> None:
    with pytest.raises(ConfigError, match=r"torch\.nn\.modules\.rnn\.LSTM is not"):
        from_keras(torch.nn.LSTM(2, 3))


def real(name: str) -> Path:
    if not (REAL_FILES / name).exists():
        pytest.skip(f"the published file {name} is not here")
    return REAL_FILES / name


def test_a_published_keras_2_model() -> None:
    layers = load_keras(real("ethnicolr_census2000.h5"))
    (layer,) = layers.values()
    assert list(layers) == ["lstm"]
    assert (layer.input_size, layer.units, layer.config.dropout) == (32, 128, 0.2)
    assert layer.config.implementation == 1
    assert torch.isfinite(layer(torch.zeros(1, 20, 32))).all()


def test_published_weights_alone() -> None:
    with pytest.warns(UserWarning, match="weights alone"):
        layers = load_keras(real("dtln_model.h5"))
    assert [(n, m.input_size, m.units) for n, m in layers.items()] == [
        ("lstm", 257, 128), ("lstm_1", 128, 128), ("lstm_2", 256, 128), ("lstm_3", 128, 128),
    ]  # fmt: skip


def test_a_published_cudnn_file() -> None:
    path = real("textgenrnn_weights.hdf5")
    with pytest.warns(UserWarning, match="weights alone"):
        layers = load_keras(path)
    sizes = [(n, m.input_size, m.units) for n, m in layers.items()]
    assert sizes == [("rnn_1", 100, 128), ("rnn_2", 128, 128)]
    import h5py

    with h5py.File(path) as file:
        kernel, recurrent, bias = (
            file[f"rnn_1/rnn_1/{name}:0"][()] for name in ("kernel", "recurrent_kernel", "bias")
        )
    # cuDNN's equations: gates i f g o, each W x + R h + b_W + b_R.
    x = np.random.RandomState(4).uniform(-1, 1, (3, 7, 100))
    h = c = np.zeros((3, 128))
    w = [k.reshape(128, 100) for k in np.hsplit(kernel.astype(np.float64), 4)]
    r = [k.T for k in np.hsplit(recurrent.astype(np.float64), 4)]
    b = [u + v for u, v in zip(np.split(bias[:512], 4), np.split(bias[512:], 4), strict=True)]
    for t in range(7):
        z = [x[:, t] @ w[g].T + h @ r[g] + b[g] for g in range(4)]
        i, f, o = (1 / (1 + np.exp(-z[g])) for g in (0, 1, 3))
        c = f * c + i * np.tanh(z[2])
        h = o * np.tanh(c)
    y = layers["rnn_1"](torch.tensor(x, dtype=torch.float32))
    assert_parity(y, h, bound=1e-5)
