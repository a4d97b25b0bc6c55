"""``inspect``, ``convert`` and ``verify``, as a person and as a pipe see them."""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm import (
    LSTM,
    Bidirectional,
    LSTMCell,
    StackedLSTM,
    TimeDistributed,
    from_keras,
    load_keras,
    load_safetensors,
    register_keras_objects,
    safetensors_metadata,
    save_keras,
    save_safetensors,
)
from kerasish_lstm.parity import assert_same_as_keras, certificate, trials
from kerasish_lstm.parity.live import _states
from kerasish_lstm.parity.trials import has_keras

from .test_convert import real

testing = pytest.importorskip("typer.testing")
cli = pytest.importorskip("kerasish_lstm.cli")
open_file = pytest.importorskip("kerasish_lstm.commands._sources").open_file

F, U = 3, 5
FIXTURES = Path(__file__).parent / "fixtures"
live = pytest.mark.live
needs_keras = pytest.mark.skipif(not has_keras(), reason="keras not installed")


def run(*arguments: Any, columns: int = 140) -> tuple[int, str]:
    result = testing.CliRunner().invoke(
        cli.main, [str(a) for a in arguments], env={"COLUMNS": str(columns)}
    )
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def modules() -> dict[str, Any]:
    torch.manual_seed(5)
    return {
        "encoder": LSTM(F, U, return_sequences=True, recurrent_activation="hard_sigmoid"),
        "both": Bidirectional(LSTM(F, 2), "sum"),
        "cells": StackedLSTM([LSTMCell(F, 2), LSTMCell(2, 7)], return_state=True),
        "time": TimeDistributed(LSTM(F, U)),
    }


@pytest.fixture()
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.keras"
    save_keras(modules(), path)
    return path


def test_inspect_says_what_is_in_a_file(file: Path) -> None:
    code, text = run("inspect", file)
    assert code == 0
    for word in ("Keras 3.15.1, keras format", "encoder", "tanh/hard_sigmoid", "scan", "fused"):
        assert word in text, text
    assert "merge_mode=sum" in text and "return_sequences" in text
    assert "encoder needs the scan engine: recurrent_activation is hard_sigmoid" in text
    code, text = run("inspect", file, "--json")
    found = json.loads(text)
    assert code == 0 and [x["name"] for x in found["layers"]] == list(modules())
    by_name = {x["name"]: x for x in found["layers"]}
    assert by_name["encoder"]["weights"] == [[F, 4 * U], [U, 4 * U], [4 * U]]
    assert by_name["cells"]["units"] == [2, 7] and by_name["cells"]["class"] == "StackedLSTM"
    assert by_name["both"]["parameters"] == 2 * 4 * 2 * (F + 2 + 1)
    assert by_name["encoder"]["why_not_fused"] and not by_name["both"]["why_not_fused"]


def test_inspect_reports_nan_and_what_is_left_out(tmp_path: Path) -> None:
    layer = LSTM(F, U, name="sick")
    with torch.no_grad():
        layer.lstm.bias_ih_l0[3] = float("nan")
    save_safetensors(layer, tmp_path / "m.safetensors")
    code, text = run("inspect", tmp_path / "m.safetensors")
    assert code == 0 and "sick has NaN or infinite weights: lstm.bias_ih_l0" in text


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5", ".safetensors", ".pt"])
def test_convert_to_each_format_and_back(suffix: str, file: Path, tmp_path: Path) -> None:
    out = tmp_path / f"out{suffix}"
    code, text = run("convert", file, out, "--layer", "encoder", "--no-golden")
    assert code == 0 and out.exists(), text
    assert f"out{suffix} written from model.keras (Keras 3.15.1, keras format): encoder" in text
    code, text = run("verify", file, out, "--layer", "encoder", "--no-keras")
    if suffix in (".keras", ".safetensors"):
        assert code == 0 and "3 of 3 equal" in text, text
    else:  # they hold no config: sigmoid is assumed, and the last output alone
        assert code in (1, 2), text
    back = tmp_path / "back.safetensors"
    code, text = run("convert", out, back, "--no-golden")
    assert code == 0, text
    (module,) = load_safetensors(back).values()
    for mine, theirs in zip(
        module.get_weights(), load_keras(file)["encoder"].get_weights(), strict=True
    ):
        assert mine.tobytes() == theirs.tobytes()


def test_all_layers_go_through_safetensors(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    code, text = run("convert", file, out, "--rename", "both=two", "--no-golden")
    assert code == 0, text
    assert list(load_safetensors(out)) == ["encoder", "two", "cells", "time"]
    head = safetensors_metadata(out)
    assert head["provenance"]["file"] == "model.keras"
    assert head["provenance"]["keras_version"].startswith("3.")
    assert len(head["provenance"]["sha256"]) == 64
    again = tmp_path / "again.keras"
    assert run("convert", out, again, "--rename", "two=both")[0] == 0
    code, text = run("verify", file, again, "--no-keras")
    assert code == 0 and "12 of 12 equal" in text, text


def test_a_plain_torch_file_becomes_a_keras_model(tmp_path: Path) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = torch.nn.LSTM(F, U, num_layers=2, bidirectional=True)
            self.gru = torch.nn.GRU(F, U)
            self.head = torch.nn.Linear(U, 1)

    model = Model()
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, tmp_path / "model.pt")
    code, text = run("convert", tmp_path / "model.pt", tmp_path / "model.keras")
    assert code == 0 and "(a torch state dict): rnn" in text, text
    x = torch.rand(2, 7, F)
    y, _ = model.rnn(x.transpose(0, 1))
    layers = load_keras(tmp_path / "model.keras")
    z: Any = x
    for layer in layers.values():
        z = layer(z)
        z = z[0] if isinstance(z, tuple) else z
    assert torch.allclose(z, y.transpose(0, 1), atol=1e-6)


def test_verify_shows_what_differs(file: Path, tmp_path: Path) -> None:
    other = modules()
    with torch.no_grad():
        other["both"].forward_layer.lstm.weight_hh_l0[0, 0] += 1e-3
    save_safetensors(other, tmp_path / "other.safetensors")
    code, text = run("verify", file, tmp_path / "other.safetensors", "--no-keras")
    assert code == 1 and "9 of 12 equal" in text, text
    assert text.count("DIFFERS") == 3
    save_safetensors({"encoder": LSTM(F + 1, U)}, tmp_path / "wide.safetensors")
    code, text = run(
        "verify", file, tmp_path / "wide.safetensors", "--no-keras", "--layer", "encoder"
    )
    assert code == 1 and "it takes 4 features, not 3" in text, text


@pytest.mark.live
def test_keras_s_results_travel_in_the_file(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_keras():
        pytest.skip("keras not installed")
    out = tmp_path / "out.safetensors"
    code, text = run("convert", file, out)
    assert code == 0 and "with results of Keras 3.15.1 for 4 of 4 layers" in text, text
    monkeypatch.setattr("kerasish_lstm.commands._verify.has_keras", lambda: False)
    code, text = run("verify", out)
    assert code == 0 and "12 of 12 equal" in text, text
    assert "Keras 3.15.1, recorded in out.safetensors" in text
    # A weight that changes afterwards is seen.
    layers = load_safetensors(out)
    with torch.no_grad():
        layers["cells"].layers[1].lstm.weight_hh_l0[1, 1] += 1
    golden = safetensors_metadata(out)["golden"]
    save_safetensors(layers, out, golden=golden)
    code, text = run("verify", out)
    assert code == 1 and text.count("DIFFERS") == 3, text
    monkeypatch.undo()
    code, text = run("verify", file, "--layer", "cells")
    assert code == 0 and "live Keras" in text and "3 of 3 equal" in text, text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["inspect", "nothing.keras"], "there is no file"),
        (["inspect", "text.keras"], "neither a zip"),
        (["inspect", "text.pt"], "text.pt is"),
        (["inspect", "text.safetensors"], "is damaged or no safetensors file"),
        (["inspect", "linear.pt"], "holds no LSTM"),
        (["inspect", "pickle.pt"], "without running code"),
        (["convert", "model.keras", "model.onnx"], "the suffix must be one of .keras"),
        (["convert", "model.keras", "text.keras"], "exists. Pass --force"),
        (["convert", "model.keras", "o.keras", "--layer", "x"], "no such LSTM; it has 'encoder'"),
        (["convert", "model.keras", "o.keras", "--rename", "x=y"], "pass OLD=NEW"),
        (["convert", "model.keras", "o.keras", "--rename", "both=time"], "same name"),
        (["convert", "model.keras", "o.keras", "--map", "text.keras"], "is no JSON"),
        (["convert", "model.keras", "no/where.keras"], "no"),
        (["verify", "model.keras", "model.keras", "--device", "nowhere"], "--device nowhere"),
        (["verify", "plain.pt", "--no-keras"], "can be compared with nothing: --no-keras was give"),
        (["verify", "model.keras", "--device", "meta"], "--device meta: it holds no numbers"),
        (["verify", "model.keras", "model.keras", "--config", "map.json"], "Leave --config out"),
        (["convert", "model.keras", "loop.keras"], "loop.keras"),
        (["convert", "model.keras", "loop.keras", "--force"], "Too many levels of symbolic links"),
        (["convert", "model.keras", "o.keras", "--map", "pipe.json"], "is no regular file"),
        (["convert", "model.keras", "o.keras", "--map", "huge.json"], "at most 16777216 are read"),
        (
            ["convert", "model.keras", "o.keras", "--rename", "both=b", "--rename", "both=c"],
            "'both' is called 'b' by another --rename",
        ),
        (["convert", "model.keras", "o.pt", "--steps", "3"], "o.pt is no .keras file"),
        (["convert", "model.keras", "o.h5", "--batch-size", "3"], "o.h5 is no .keras file"),
        (["verify", "model.keras", "plain.pt", "--no-keras"], "layers of different names"),
    ],
)
def test_what_cannot_be_done_says_why_and_writes_nothing(
    arguments: list[str], said: str, file: Path, tmp_path: Path
) -> None:
    for name in ("text.keras", "text.pt", "text.safetensors"):
        (tmp_path / name).write_text("nothing of that kind")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pt")
    torch.save(torch.nn.LSTM(2, 2).state_dict(), tmp_path / "plain.pt")
    torch.save(torch.nn.LSTM(2, 2), tmp_path / "pickle.pt")
    (tmp_path / "map.json").write_text("{}")
    (tmp_path / "huge.json").write_bytes(b" " * 17 * 2**20)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "loop.keras").symlink_to("loop2.keras")
    (tmp_path / "loop2.keras").symlink_to("loop.keras")
    given = [a if a.startswith("--") or "." not in a else str(tmp_path / a) for a in arguments]
    code, text = run(*given, columns=1000)
    assert code == 2 and said in text, text
    assert "Traceback" not in text
    assert {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before


def test_force_overwrites(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    out.write_text("old")
    assert run("convert", file, out, "--layer", "both")[0] == 2
    assert out.read_text() == "old"
    assert run("convert", file, out, "--layer", "both", "--force")[0] == 0
    assert out.read_bytes()[1:4] == b"HDF"


@pytest.mark.parametrize("command", ["inspect", "convert", "verify", "demo"])
def test_help_teaches(command: str) -> None:
    code, text = run(command, "--help")
    assert code == 0
    assert "Exit status" in text or command == "demo"


def test_the_published_files_can_be_inspected() -> None:
    for name in ("ethnicolr_census2000.h5", "dtln_model.h5", "textgenrnn_weights.hdf5"):
        path = real(name)
        code, text = run("inspect", path)
        assert code == 0 and "lstm" in text.lower(), text


def test_a_golden_that_lies_is_refused(tmp_path: Path) -> None:
    layer = LSTM(F, U, name="a")
    bad: list[Any] = [
        {"layers": {"a": 3}}, {"layers": []}, {"layers": {"a": [3]}},
        {"layers": {"a": [{"results": [], "x": {"dtype": "object", "shape": [1], "data": ""}}]}},
        {"layers": {"a": [{"results": [], "x": {"dtype": "float32", "shape": [2], "data": "AA"}}]}},
        {"layers": {"a": [{"results": [], "x": None}]}},
    ]  # fmt: skip
    for golden in bad:
        save_safetensors({"a": layer}, tmp_path / "m.safetensors", golden=golden)
        code, text = run("verify", tmp_path / "m.safetensors", "--no-keras")
        assert code == 2 and "damaged" in text, (golden, text)


def test_arrays_of_goldens_go_round() -> None:
    for dtype in ("float32", "float64", "bool"):
        array = np.arange(6).reshape(2, 3).astype(dtype)
        again = certificate._read(certificate._written(array))
        assert again.dtype == array.dtype and np.array_equal(again, array)


# Keras, where it can be asked


@live
@needs_keras
def test_a_stateful_layer_equals_keras(tmp_path: Path) -> None:
    path = FIXTURES / "keras-3.15.1/stateful.h5"
    code, text = run("verify", path)
    assert code == 0 and "DIFFERS" not in text, text
    code, text = run("convert", path, tmp_path / "o.safetensors")
    assert code == 0 and "with results of Keras 3.15.1 for" in text and "not for" not in text, text
    code, text = run("verify", tmp_path / "o.safetensors")
    assert code == 0 and "recorded in o.safetensors" in text, text


def stateful() -> list[Any]:
    return [
        LSTM(F, U, stateful=True),
        Bidirectional(LSTM(F, U, stateful=True)),
        StackedLSTM([LSTMCell(F, U), LSTMCell(U, 2)], stateful=True),
        StackedLSTM([LSTM(F, U, stateful=True, return_sequences=True), LSTM(U, 2)]),
        TimeDistributed(LSTM(F, U, stateful=True)),
    ]


@pytest.mark.parametrize("number", range(5))
def test_a_comparison_leaves_the_state_as_it_was(number: int) -> None:
    module = stateful()[number].eval()
    x = torch.rand(2, 3, 4, F) if isinstance(module, TimeDistributed) else torch.rand(2, 4, F)
    module(x)
    cpu = torch.device("cpu")
    other = trials_of(module)
    expected = trials.run(module, other, None, cpu)
    again = trials.run(module, other, None, cpu)
    assert all(np.array_equal(a, b) for a, b in zip(expected, again, strict=True))
    kept = [m._state[0].h.shape[0] for m in trials._stateful(module)]
    assert kept and set(kept) == {2}
    rest = trials.at_rest(module, 7)
    states = [s for m in trials._stateful(rest) for pair in m._state for s in pair]
    assert states and all(s.shape[0] == 7 and not s.any() for s in states)


def trials_of(module: Any) -> np.ndarray:
    return next(trials.trials(module, batch=3, steps=4, seed=1))[1]


@live
@needs_keras
@pytest.mark.parametrize("number", range(5))
def test_live_comparison_begins_without_a_state(number: int) -> None:
    module = stateful()[number].eval()
    x = trials_of(module)
    mine = trials.run(module, x, None, torch.device("cpu"))
    for _ in range(2):
        theirs = trials.run_keras(module, x, None)
        assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(mine, theirs, strict=True))


@live
@needs_keras
@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_a_live_layer_keeps_its_state(library: str) -> None:
    keras: Any = pytest.importorskip(library)
    layer = keras.layers.RNN([keras.layers.LSTMCell(U), keras.layers.LSTMCell(2)], stateful=True)
    layer.build((2, None, F))
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3, F)).astype(np.float32)
    layer(x)
    before = [np.asarray(v).copy() for v in _states(layer)]
    assert_same_as_keras(from_keras(layer), layer, batch=2)
    after = [np.asarray(v).copy() for v in _states(layer)]
    assert before[0].any()
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@live
@needs_keras
def test_a_layer_about_which_keras_cannot_be_asked_is_skipped(tmp_path: Path) -> None:
    path, out = FIXTURES / "keras-2.2.4/bidirectional.h5", tmp_path / "o.safetensors"
    code, text = run("convert", path, out, columns=1000)
    assert code == 0 and out.exists(), text
    assert "Keras was asked for" in text and "repeats outputs at masked steps" in text, text
    code, text = run("verify", path, out, columns=1000)
    assert code == 0 and "repeats outputs at masked steps" in text, text  # compared with the other
    other = {"a": LSTM(F, U, name="a"), **load_keras(path)}
    save_safetensors(other, tmp_path / "two.safetensors")
    code, text = run("verify", tmp_path / "two.safetensors", columns=1000)
    assert code == 1 and "3 of 3 equal" in text and "not compared: " in text, text


@live
@needs_keras
def test_whatever_keras_raises_at_a_layer_is_a_reason(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(layer: Any, *rest: Any) -> Any:
        if type(layer).__name__ == "LSTM":
            raise TypeError("no such thing")
        return run_layer(layer, *rest)

    run_layer = trials.run_layer
    monkeypatch.setattr(trials, "run_layer", raising)
    code, text = run("convert", file, tmp_path / "o.safetensors", columns=1000)
    assert code == 0 and "for 3 of 4 layers" in text, text
    assert "encoder: Keras raises TypeError: no such thing" in text, text
    code, text = run("verify", file, "--layer", "encoder", columns=1000)
    assert code == 2 and "Keras cannot be asked about" in text and "no such thing" in text, text


@live
@needs_keras
def test_results_that_are_too_large_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "LIMIT", 3000)
    golden, reasons = certificate.record({"wide": LSTM(50, U), "small": LSTM(2, 2)})
    assert list(golden["layers"]) == ["small"] and "bytes are left" in reasons["wide"]


# Two files


def test_a_config_serves_each_file_that_is_bare(file: Path, tmp_path: Path) -> None:
    bare, config = tmp_path / "w.weights.h5", tmp_path / "config.json"
    save_keras(modules(), bare)
    config.write_bytes(zipfile.ZipFile(file).read("config.json"))
    for one, other in ((bare, bare), (file, bare), (bare, file)):
        code, text = run("verify", one, other, "--config", config, "--no-keras")
        assert code == 0 and "12 of 12 equal" in text, text


def test_an_lstm_that_is_left_out_is_named_and_not_called_equal(file: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(tmp_path / "m.keras", "w") as out:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json":
                data = data.replace(
                    b'"recurrent_activation": "hard_sigmoid', b'"recurrent_activation": "mine'
                )
                data = data.replace(b"kerasish_lstm>hard_sigmoid_v2", b"mine>mine")
            out.writestr(name, data)
    path = tmp_path / "m.keras"
    code, text = run("verify", path, path, "--no-keras", columns=1000)
    assert code == 1 and "9 of 9 equal" in text, text
    assert "not compared: encoder of m.keras:" in text, text
    code, text = run("verify", path, path, "--no-keras", "--layer", "both", columns=1000)
    assert code == 0 and "not compared" not in text, text


# Torch files


def converted(module: Any, tmp_path: Path) -> tuple[Any, dict[str, torch.Tensor], str]:
    """What comes back of a module that goes through a .pt file, its entries, and what was said."""
    save_safetensors({"it": module}, tmp_path / "m.safetensors")
    code, text = run(
        "convert", tmp_path / "m.safetensors", tmp_path / "m.pt", "--force", columns=1000
    )
    assert code == 0, text
    (back,) = open_file(tmp_path / "m.pt").modules.values()
    return back, torch.load(tmp_path / "m.pt", weights_only=True), text


def test_names_that_a_torch_file_would_change_are_refused(file: Path, tmp_path: Path) -> None:
    for name in ("time.", "x.forward_layer..", "\n."):
        code, text = run("convert", file, tmp_path / "o.pt", "--rename", f"both={name}")
        assert code == 2 and "--rename" in text, text
        assert not (tmp_path / "o.pt").exists()


SEQUENCES: Any = {"return_sequences": True, "return_state": True}
RELU: Any = {"activation": "relu"}


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: LSTM(F, U), "return_sequences=False, return_state=False"),
        (lambda: LSTM(F, U, **RELU, recurrent_activation="hard_sigmoid", go_backwards=True),
         "of it: activation=relu, recurrent_activation=hard_sigmoid, return_sequences=False"),
        (lambda: Bidirectional(LSTM(F, U, **SEQUENCES)), None),
        (lambda: Bidirectional(LSTM(F, U, **SEQUENCES), "sum"), "merge_mode=sum"),
        (lambda: Bidirectional(
            LSTM(F, U, **SEQUENCES), "concat",
            LSTM(F, 2, **RELU, go_backwards=True, **SEQUENCES)), "activation (backward)=relu"),
        (lambda: StackedLSTM([LSTM(F, U, **RELU, **SEQUENCES), LSTM(U, 2, **SEQUENCES)]),
         "activation (layer 0)=relu"),
        (lambda: StackedLSTM(
            [Bidirectional(LSTM(F, U, **RELU, **SEQUENCES)), LSTM(2 * U, 2, **SEQUENCES)]),
         "activation (layer 0)=relu"),
        (lambda: StackedLSTM([LSTMCell(F, 2), LSTMCell(2, U)]), "StackedLSTM of cells"),
        (lambda: TimeDistributed(Bidirectional(LSTM(F, U))), "TimeDistributed"),
        (lambda: LSTMCell(F, U), None),
        (lambda: LSTMCell(F, U, activation="relu"), "activation=relu"),
    ],
)  # fmt: skip
def test_what_a_torch_file_cannot_hold_is_said(made: Any, said: str | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = made()
    back, _, text = converted(module, tmp_path)
    inner = module.layer if isinstance(module, TimeDistributed) else module
    assert type(back) is type(inner)
    for mine, theirs in zip(inner.get_weights(), back.get_weights(), strict=True):
        assert mine.tobytes() == theirs.tobytes()
    assert text.count("warning:") == (said is not None), text
    if said is not None:
        assert f"{said}" in text and "m.pt holds weights alone" in text, text
        assert "A .safetensors file keeps them" in text, text


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_a_plain_lstm_goes_through_the_package(
    layers: int, bidirectional: bool, bias: bool, tmp_path: Path
) -> None:
    plain = torch.nn.LSTM(F, U, layers, bias=bias, bidirectional=bidirectional, batch_first=True)
    torch.save(plain.state_dict(), tmp_path / "a.pt")
    code, text = run("convert", tmp_path / "a.pt", tmp_path / "b.pt")
    assert code == 0 and "warning" not in text, text
    again = torch.nn.LSTM(F, U, layers, bias=bias, bidirectional=bidirectional, batch_first=True)
    again.load_state_dict(torch.load(tmp_path / "b.pt", weights_only=True))
    x = torch.rand(2, 4, F)
    assert torch.allclose(plain(x)[0], again(x)[0], atol=1e-6)


def test_what_a_torch_file_does_hold_is_not_called_lost(tmp_path: Path) -> None:
    cells = [LSTMCell(F, 2), LSTMCell(2, 2)]
    _, state, text = converted(StackedLSTM(cells, **SEQUENCES), tmp_path)
    assert "of it: StackedLSTM of cells. A" in text and "weight_ih_l1" in state, text


def test_this_package_s_own_state_dicts_are_known(tmp_path: Path) -> None:
    """Of modules inside a model, saved without the command; an ordinary model is not."""
    torch.manual_seed(0)
    model = torch.nn.Module()
    model.both = Bidirectional(LSTM(F, U, activation="relu"))
    model.stack = StackedLSTM([LSTM(F, 2, return_sequences=True), LSTM(2, 4)])
    model.one = LSTM(F, U)
    model.block = torch.nn.Module()
    model.block.layers = torch.nn.ModuleList([torch.nn.Module(), torch.nn.Module()])
    for layer in model.block.layers:
        layer.lstm = torch.nn.LSTM(2, 2)
    model.cell = torch.nn.LSTMCell(F, U)
    model.gru = torch.nn.GRUCell(F, U)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    found = open_file(tmp_path / "m.pt").modules
    assert {name: type(m).__name__ for name, m in found.items()} == {
        "both": "Bidirectional", "stack": "StackedLSTM", "one.lstm": "LSTM",
        "block.layers.0.lstm": "LSTM", "block.layers.1.lstm": "LSTM", "cell": "LSTMCell",
    }  # fmt: skip
    for name in ("both", "stack"):
        weights = getattr(model, name).get_weights()
        assert all(map(np.array_equal, found[name].get_weights(), weights))


def test_several_layers_go_through_a_torch_file_with_one_warning(
    file: Path, tmp_path: Path
) -> None:
    code, text = run("convert", file, tmp_path / "o.pt", columns=1000)
    assert code == 0 and text.count("warning:") == 1, text
    for said in ("of encoder: recurrent_activation=hard_sigmoid", "of both: merge_mode=sum",
                 "of cells: StackedLSTM of cells", "of time: TimeDistributed"):  # fmt: skip
        assert said in text, text
    assert list(open_file(tmp_path / "o.pt").modules) == list(modules())


# Keras files


@pytest.mark.parametrize("name", ["O.KERAS", "O.H5", "O.WEIGHTS.H5", "O.Keras"])
def test_a_suffix_of_large_letters(name: str, file: Path, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    code, text = run("convert", file, tmp_path / name, "--layer", "both")
    assert code == 0, text
    assert set(tmp_path.iterdir()) - before == {tmp_path / name}
    assert len(open_file(tmp_path / name).modules) == 1
    assert run("convert", file, tmp_path / name, "--layer", "both")[0] == 2
    assert run("convert", file, tmp_path / name, "--layer", "both", "--force")[0] == 0
    assert set(tmp_path.iterdir()) - before == {tmp_path / name}


def test_stateful_and_unrolled_layers_become_a_model(tmp_path: Path) -> None:
    layers = {"kept": LSTM(F, U, stateful=True), "flat": LSTM(F, U, unroll=True)}
    save_safetensors(layers, tmp_path / "m.safetensors")
    out = tmp_path / "o.keras"
    code, text = run("convert", tmp_path / "m.safetensors", out, columns=1000)
    assert code == 2 and "batch_size" in text, text
    options = ("--batch-size", "4", "--steps", "6")
    code, text = run("convert", tmp_path / "m.safetensors", out, *options)
    assert code == 0 and list(load_keras(out)) == list(layers), text
    config = zipfile.ZipFile(out).read("config.json")
    assert b'"batch_shape": [4, 6, 3]' in config


@pytest.mark.parametrize(
    ("target", "name", "call"),
    [
        ("keras3", "hard_sigmoid_v2", "register_keras_objects()"),
        ("tf_keras", "hard_sigmoid", 'register_keras_objects("tf_keras")'),
        ("keras3", "hard_sigmoid", None),
    ],
)
def test_what_keras_needs_before_it_loads_a_file_is_said_once(
    target: str, name: str, call: str | None, tmp_path: Path
) -> None:
    layer = LSTM(F, U, recurrent_activation=name)
    save_safetensors({"a": layer}, tmp_path / "m.safetensors")
    arguments = ("convert", tmp_path / "m.safetensors", tmp_path / "o.keras", "--target", target)
    code, text = run(*arguments, columns=1000)
    assert code == 0 and text.count("warning:") == (call is not None), text
    if call is not None:
        assert f"    {call}\n" in text, text
    with warnings.catch_warnings(record=True) as caught:  # of the function itself, the same
        warnings.simplefilter("always")
        save_keras(layer, tmp_path / "own.keras", target=target)
        save_keras(layer, tmp_path / "own.weights.h5", target=target)  # has no config
    assert [str(w.message).endswith(str(call)) for w in caught] == [True] * (call is not None)


def test_a_warning_of_save_keras_is_shown_once(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*given: Any, **options: Any) -> None:
        for _ in range(2):
            warnings.warn("call register_keras_objects() before", stacklevel=1)
        save_keras(*given, **options)

    monkeypatch.setattr("kerasish_lstm.commands._sources.save_keras", save)
    code, text = run("convert", file, tmp_path / "o.keras", columns=1000)
    assert code == 0 and text.count("register_keras_objects") == 1, text


@live
@needs_keras
def test_keras_loads_a_file_after_the_two_lines(tmp_path: Path) -> None:
    import keras

    layer = LSTM(F, U, recurrent_activation="hard_sigmoid_v2").eval()
    save_safetensors({"a": layer}, tmp_path / "m.safetensors")
    assert run("convert", tmp_path / "m.safetensors", tmp_path / "o.keras")[0] == 0
    register_keras_objects()
    x = torch.rand(2, 4, F)
    theirs = np.asarray(keras.models.load_model(tmp_path / "o.keras")(x.numpy()))
    assert np.allclose(theirs, layer(x).detach().numpy(), atol=1e-6)


def test_a_spinner_names_the_layer(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("rich.status.Status.update", lambda self, text: told.append(text))
    assert run("verify", file, file, "--no-keras")[0] == 0
    assert told == [f"comparing {name}" for name in modules()]
