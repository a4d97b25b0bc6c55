"""Files with every class of layer, from live Keras: the same weights, the same outputs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from kerasish_lstm import load_keras
from kerasish_lstm.errors import ConfigError
from kerasish_lstm.parity import assert_parity
from kerasish_lstm.parity.bounds import FLOAT32_ULPS

from . import load_side
from .keras_live import KerasLive

CLASSES = {  # here, of Keras's
    "LSTM": "LSTM",
    "LSTMCell": "LSTMCell",
    "Bidirectional": "Bidirectional",
    "RNN": "StackedLSTM",
    "TimeDistributed": "TimeDistributed",
}
Made = tuple[str, Path, dict[str, load_side.Answers]]


@pytest.fixture(scope="module", params=["keras", "tf_keras"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """(library, folder of files that it wrote, what its layers did)."""
    live: KerasLive = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, live.call("load_side.make", str(folder), request.param)


def check(layers: dict[str, Any], answers: load_side.Answers, *, outputs: bool = True) -> None:
    """The same names in the same order, the same bits in the weights, the same outputs."""
    assert list(layers) == list(answers)
    for name, answer in answers.items():
        module = layers[name]
        assert type(module).__name__ == CLASSES[answer["class"]], name
        assert not module.training
        for mine, theirs in zip(module.get_weights(), answer["weights"], strict=True):
            assert mine.dtype == theirs.dtype
            assert mine.tobytes() == theirs.tobytes(), name
        if outputs:
            actual = module(torch.from_numpy(answer["x"]))
            assert_parity(actual, answer["output"], bound=4 * FLOAT32_ULPS, what=name)


def quietly(path: Path) -> dict[str, Any]:
    """Of weights alone, which are loaded with a warning."""
    with pytest.warns(UserWarning, match="holds weights alone|lists no layers"):
        return dict(load_keras(path))


@pytest.mark.live
@pytest.mark.parametrize("form", load_side.FORMATS)
@pytest.mark.parametrize("model", load_side.MODELS)
def test_every_class_in_every_format(made: Made, model: str, form: str) -> None:
    library, folder, answers = made
    if form not in load_side.forms_of(library):
        pytest.skip(f"{library} does not write it")
    path = Path(f"{folder / model}{load_side.FORMATS[form]}")
    config = folder / f"{model}.json" if "weights" in form or form == "sharded" else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(dict(load_keras(path, config=config)), answers[model])


@pytest.mark.live
@pytest.mark.parametrize("form", ["weights", "h5 weights", "sharded"])
@pytest.mark.parametrize("model", ["kinds", "time distributed", "nested", "many"])
def test_without_a_config_the_groups_tell_the_classes(made: Made, model: str, form: str) -> None:
    library, folder, answers = made
    if form not in load_side.forms_of(library):
        pytest.skip(f"{library} does not write it")
    layers = quietly(Path(f"{folder / model}{load_side.FORMATS[form]}"))
    # Names and order are the file's; each set of weights must be there, in its class.
    held = {
        tuple(w.tobytes() for w in module.get_weights()): type(module).__name__
        for module in layers.values()
    }
    for name, answer in answers[model].items():
        if name == "chain-each":  # two layers
            continue
        kind = held[tuple(w.tobytes() for w in answer["weights"])]
        legacy = {"one": "LSTM", "lstm-each": "LSTM", "both-each": "Bidirectional"}
        legacy |= {"stack-each": "StackedLSTM"}  # that it is run at each step, no array tells
        wanted = CLASSES[answer["class"]]
        assert kind == (legacy.get(name, wanted) if form == "h5 weights" else wanted), name


@pytest.mark.live
def test_layers_that_two_models_share(either: tuple[str, KerasLive], tmp_path: Path) -> None:
    library, live = either
    answers = live.call("load_side.shared", str(tmp_path), library)
    for form in ("keras", "weights", "h5"):
        path = Path(f"{tmp_path / 'shared'}{load_side.FORMATS[form]}")
        config = tmp_path / "shared.json" if form == "weights" else None
        check(dict(load_keras(path, config=config)), answers)


@pytest.mark.live
def test_subclassed_models_by_their_groups(either: tuple[str, KerasLive], tmp_path: Path) -> None:
    """Keras calls the groups by attributes, or by classes, whatever its alphabet reaches first."""
    library, live = either
    answers = live.call("load_side.subclassed", str(tmp_path), library)
    for suffix in (".weights.h5", ".keras"):
        layers = quietly(tmp_path / f"subclassed{suffix}")
        keys = {tuple(w.tobytes() for w in m.get_weights()): n for n, m in layers.items()}
        assert len(keys) == len(layers) == len(answers)
        blocks = []
        for name, answer in answers.items():
            key = keys[tuple(w.tobytes() for w in answer["weights"])]
            module = layers[key]
            assert type(module).__name__ == CLASSES[answer["class"]], name
            if name != "both":  # whose last output backwards is another
                last = module(torch.from_numpy(answer["x"]))  # the defaults return it alone
                expected = answer["output"][:, -1]
                assert_parity(last, expected, bound=4 * FLOAT32_ULPS, what=f"{name}{suffix}")
            blocks += [key] if name.startswith("blocks") else []
        assert blocks == [key for key in layers if key in blocks]  # in the order of their numbers


@pytest.mark.live
def test_cudnn_layers_of_tf_keras(tf_keras: KerasLive, tmp_path: Path) -> None:
    answers = tf_keras.call("load_side.cudnn", str(tmp_path))
    for form in load_side.forms_of("tf_keras"):
        path = Path(f"{tmp_path / 'cudnn'}{load_side.FORMATS[form]}")
        config = tmp_path / "cudnn.json" if "weights" in form else None
        check(dict(load_keras(path, config=config)), answers)
        if config is not None:
            alone = list(quietly(path).values())
            for answer in answers.values():
                assert [w.tobytes() for w in answer["weights"]] in [
                    [w.tobytes() for w in module.get_weights()] for module in alone
                ]


@pytest.mark.live
def test_code_of_the_author_does_not_stop_inference(keras: KerasLive, tmp_path: Path) -> None:
    answers = keras.call("load_side.authors_code", str(tmp_path))
    layers = load_keras(tmp_path / "own.keras")
    check(dict(layers), answers)
    for name in ("plain", "both", "stack"):
        with pytest.raises(ConfigError, match="author"):
            layers[name].train()(torch.from_numpy(answers[name]["x"]))


@pytest.mark.live
def test_loading_draws_no_random_numbers(made: Made) -> None:
    _, folder, _ = made
    torch.manual_seed(1)
    before = torch.get_rng_state()
    load_keras(folder / "kinds.keras")
    assert torch.equal(torch.get_rng_state(), before)


def test_nan_and_infinite_weights_are_kept_and_named(tmp_path: Path) -> None:
    rng = np.random.RandomState(0)
    arrays = [rng.uniform(-1, 1, s).astype(np.float32) for s in ((3, 8), (2, 8), (8,))]
    arrays[0][0, 0], arrays[2][3] = np.nan, -np.inf
    path = tmp_path / "w.weights.h5"
    with h5py.File(path, "w") as file:
        for where in ("forward_layer", "backward_layer"):
            for n, array in enumerate(arrays):
                file[f"layers/bidirectional/{where}/cell/vars/{n}"] = array
    with pytest.warns(UserWarning) as caught:
        (layer,) = load_keras(path).values()
    (said,) = [str(w.message) for w in caught if "infinite" in str(w.message)]
    assert "'layers/bidirectional'" in said and "kernel" in said and "bias" in said
    assert "recurrent_kernel" not in said
    for mine, theirs in zip(layer.get_weights(), arrays * 2, strict=True):
        assert mine.tobytes() == theirs.tobytes()
