"""``inspect``, ``convert`` and ``verify``, as a person and as a pipe see them."""

from __future__ import annotations

import json
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
    load_keras,
    load_safetensors,
    safetensors_metadata,
    save_keras,
    save_safetensors,
)
from kerasish_lstm.parity import certificate
from kerasish_lstm.parity.trials import has_keras

from .test_convert import real

testing = pytest.importorskip("typer.testing")
cli = pytest.importorskip("kerasish_lstm.cli")

F, U = 3, 5


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
        (["verify", "plain.pt", "--no-keras"], "can be compared with nothing"),
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
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    given = [a if a.startswith("--") or "." not in a else str(tmp_path / a) for a in arguments]
    code, text = run(*given, columns=1000)
    assert code == 2 and said in text, text
    assert "Traceback" not in text
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


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
