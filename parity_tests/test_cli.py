"""The command line, as a person and as a pipe see it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from kerasish_lstm import LSTM, __version__, load_keras, native_engine, native_status
from kerasish_lstm.parity import assert_parity

from .keras_live import KerasLive
from .test_convert import real
from .test_files import archive, lstm, sequential

pytestmark = pytest.mark.smoke

# The CUDA leg runs from a bare checkout, where the command line's libraries may be missing.
testing = pytest.importorskip("typer.testing")
cli = pytest.importorskip("kerasish_lstm.cli")
demo = pytest.importorskip("kerasish_lstm.commands._demo")

RECORDED = json.loads(demo.NOTEBOOK.with_suffix(".json").read_text())


def run(*arguments: str) -> tuple[int, str]:
    result = testing.CliRunner().invoke(cli.main, list(arguments), env={"COLUMNS": "100"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_the_notebook() -> None:
    code, text = run("demo")
    assert code == 0, text
    for call in (
        "LSTM(1)", "LSTM(10)", "LSTM(5, return_sequences=True)", "LSTM(5, return_state=True)",
        "LSTM(5, return_sequences=True, return_state=True)",
    ):  # fmt: skip
        assert call in text
    for shape in ("(2, 1)", "(2, 10)", "(2, 3, 5)", "(2, 5)"):
        assert shape in text
    assert text.count("200 parameters") == 3
    assert re.search(r"result\[:, -1\] == h\s+True\s+c == h\s+False", text)
    assert re.search(r"output == h\s+True\s+c == h\s+False", text)
    assert text.count("equal") == 5 and "DIFFERS" not in text
    number = RECORDED["layers"]["both"]["c"][0][0]
    assert text.count(f"{number:9.6f}") >= 2  # ours and Keras's


@pytest.mark.live
def test_live_keras_gives_what_is_recorded_for_the_notebook(keras: KerasLive) -> None:
    inputs = {
        name: np.array(RECORDED["inputs"][record["input"]], np.float32)
        for name, record in RECORDED["layers"].items()
    }
    found = keras.call("keras_side.run_file", str(demo.NOTEBOOK), inputs)
    for name, results in found.items():
        record = RECORDED["layers"][name]
        keys = [k for k in ("output", "h", "c") if k in record]
        for key, result in zip(keys, results, strict=True):
            assert_parity(result, np.array(record[key]), bound=1e-6, what=name)


def test_a_wrong_number_shows_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "NOTEBOOK", Path(shutil.copy(demo.NOTEBOOK, tmp_path)))
    changed = json.loads(json.dumps(RECORDED))
    changed["layers"]["state"]["c"][1][4] += 1e-5
    (tmp_path / "notebook.json").write_text(json.dumps(changed))
    code, text = run("demo")
    assert code == 1
    assert re.search(r"state .*DIFFERS", text) and text.count("DIFFERS") == 1


def test_another_notebook_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "NOTEBOOK", Path(shutil.copy(demo.NOTEBOOK, tmp_path)))
    changed = {**RECORDED, "sha256": "0" * 64}
    (tmp_path / "notebook.json").write_text(json.dumps(changed))
    code, text = run("demo")
    assert code == 2 and "Install the package again" in text


def test_a_wrong_engine_shows_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = LSTM.forward

    def off(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        result = forward(self, *args, **kwargs)
        return tuple(r + 1e-5 for r in result) if isinstance(result, tuple) else result + 1e-5

    monkeypatch.setattr(LSTM, "forward", off)
    code, text = run("demo")
    assert code == 1 and text.count("DIFFERS") == 5


def test_piped_output_is_plain_text(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from kerasish_lstm.cli import main; main()", "demo"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "\x1b" not in result.stdout and result.stderr == ""
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_published_file() -> None:
    code, text = run("demo", str(real("ethnicolr_census2000.h5")), "--steps", "20", "--batch", "3")
    assert code == 0, text
    assert "Keras 2.5.0" in text and "82432 parameters" in text and "(3, 20, 32)" in text
    assert re.search(r"lstm .* equal", text)
    for name in ("embedding", "dense", "embedding_input"):
        assert re.search(rf"^  {name}: \w+ is not an LSTM", text, re.MULTILINE)


def test_a_layer_that_cannot_be_built_is_named_and_the_others_run(tmp_path: Path) -> None:
    by_hand = {"class_name": "function", "config": "mine"}
    config = sequential(lstm("good"), lstm("bad", activation=by_hand), lstm("worse", dtype="int8"))
    path = archive(tmp_path / "m.keras", config)
    with h5py.File(path.with_suffix(".h5"), "r+") as file:
        for n in (1, 2):
            file.copy("layers/lstm", f"layers/lstm_{n}")
    path = archive(path, config, weights=path.with_suffix(".h5").read_bytes())
    code, text = run("demo", str(path))
    assert code == 0, text
    assert re.search(r"good .* equal", text)
    said = " ".join(text.split())
    assert "bad: LSTM 'bad': activation=" in said and "code of the model's author" in said
    assert "worse: the LSTM 'worse'" in said and "'int8'" in said


def test_a_wrong_engine_shows_in_a_file_too(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = LSTM.forward

    def off(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        return tuple(r + 2e-5 for r in forward(self, *args, **kwargs))

    monkeypatch.setattr(LSTM, "forward", off)
    monkeypatch.setattr(demo, "_live", demo._truth)
    code, text = run("demo", str(demo.NOTEBOOK))
    assert code == 1 and text.count("DIFFERS") == 5


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path: Path) -> None:
    path = archive(tmp_path / "m.keras", sequential(lstm("a\x1b[31mb")))
    code, text = run("demo", str(path))
    assert code == 0 and "\x1b" not in text and "a?[31mb" in text


def test_live_keras_stands_beside_the_float64_equations() -> None:
    code, text = run("demo", str(demo.NOTEBOOK))
    assert code == 0, text
    # output, h and c of five layers, two rows each
    assert text.count("PyTorch") == text.count("    float64 ") == 30
    installed = all(map(importlib.util.find_spec, ("keras", "tensorflow")))
    assert text.count("    live Keras ") == (30 if installed else 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demo", "nowhere.keras"], "there is no file nowhere.keras"),
        (["demo", "."], "folder"),
        (["demo", __file__], "neither a zip (.keras) nor HDF5 (.h5)"),
        (["demo", "--steps", "0"], "--steps"),
    ],
)
def test_what_cannot_be_run_exits_2_and_says_why(arguments: list[str], said: str) -> None:
    code, text = run(*arguments)
    assert code == 2
    assert said in " ".join(text.split())


def test_a_cudnn_file_runs() -> None:
    code, text = run("demo", str(real("textgenrnn_weights.hdf5")))
    assert code == 0 and "'rnn_1'" in text and text.count("equal") == 2


def test_layers_around_lstms_run() -> None:
    folder = Path(__file__).parent / "fixtures" / "keras-3.15.1"
    for name, said in (
        ("bidirectional.keras", "Bidirectional of LSTM(3) and LSTM(3)"),
        ("stacked.keras", "StackedLSTM of LSTMCell(3) and LSTMCell(5)"),
    ):
        code, text = run("demo", str(folder / name))
        assert code == 0 and said in text and "DIFFERS" not in text, text


def test_a_file_without_an_lstm_says_what_it_holds(tmp_path: Path) -> None:
    dense = {"class_name": "Dense", "config": {"name": "head", "units": 2}}
    code, text = run("demo", str(archive(tmp_path / "m.keras", sequential(dense))))
    assert code == 2
    assert "has no LSTM to run" in text and "head: Dense is not an LSTM" in text


def test_version_and_help() -> None:
    assert run("--version") == (0, f"{__version__}\n")
    code, text = run("--help")
    assert code == 0 and "demo" in text


def test_load_keras_reads_the_notebook() -> None:
    assert list(load_keras(demo.NOTEBOOK)) == list(RECORDED["layers"])


def test_info_says_what_a_bug_report_needs() -> None:
    code, text = run("info", "--json")
    found = json.loads(text)
    assert code == 0 and found["versions"]["torch"] == importlib.metadata.version("torch")
    assert found["versions"]["kerasish_lstm"] == __version__
    assert found["native"] == json.loads(json.dumps(native_status()._asdict()))
    with native_engine(False):
        assert "not active: it is turned off" in run("info")[1]
    for shown in (*found["versions"], str(found["threads"]), "native engine"):
        assert shown in run("info")[1]
