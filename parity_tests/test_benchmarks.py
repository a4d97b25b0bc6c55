"""The benchmarks' driver, on its quick shapes: what it checks and writes, never how fast it was."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cases import MODES, QUICK_LIBRARIES, QUICK_SHAPES, Case
from benchmarks.worker import load

ROOT = Path(__file__).resolve().parent.parent
CASES = {
    Case(*shape, mode, masked).id
    for shape in QUICK_SHAPES
    for mode in MODES
    for masked in (False, True)
}

# Its output is a little off, or in training not a number; every run leaves a mark.
OFF = """
from pathlib import Path
from benchmarks.implementations import torch_lstm
from benchmarks.implementations.torch_lstm import prepare
RUNS = Path(__file__).with_name("runs")
def run(state):
    with RUNS.open("a") as runs:
        runs.write(state.case.id + chr(10))
    torch_lstm.run(state)
def output(state):
    arrays = torch_lstm.output(state)
    arrays["output"][0, 0] += 1e-4 if state.case.mode == "inference" else float("nan")
    return arrays
"""
# Right at the first call alone: its gradients add up.
ADDING = """
from benchmarks.implementations import torch_lstm
from benchmarks.implementations.torch_lstm import output, prepare
def run(state):
    state.lstm.zero_grad = lambda: None
    torch_lstm.run(state)
"""
ABSENT = "import a_library_that_nobody_has"
DYING = "import os; os._exit(3)"


def benchmarks(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a quick run wrote."""
    folder = tmp_path_factory.mktemp("quick") / "results"
    done = benchmarks("--quick", "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Broken implementations side by side: their folder, and the run's JSON."""
    folder = tmp_path_factory.mktemp("broken")
    sources = {"off": OFF, "adding": ADDING, "absent": ABSENT, "dying": DYING}
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    paths = ",".join(str(folder / f"{name}.py") for name in sources)
    done = benchmarks("--quick", "--out", folder, "--libraries", paths)
    assert done.returncode == 1, done.stderr
    return folder, json.loads((folder / "quick.json").read_text())


def test_every_case_is_right_and_timed(quick: Path) -> None:
    result = json.loads((quick / "quick.json").read_text())
    found = {(row["library"], row["case"]): row for row in result["cases"]}
    assert set(found) == {(library, case) for library in QUICK_LIBRARIES for case in CASES}
    for row in found.values():
        assert row["status"] == "ok"
        arrays = {"output"}
        if row["mode"] == "training":
            arrays |= {"kernel_gradient", "recurrent_kernel_gradient", "bias_gradient"}
        assert set(row["errors"]) == arrays
        assert all(0 <= e["error"] <= e["bound"] for e in row["errors"].values())
        low, high = row["quartiles"]
        assert 0 < low <= row["median"] <= high
        assert row["count"] >= result["rounds"] == len(row["round_medians"])
    for about in result["libraries"].values():
        assert about["threads"]["torch.get_num_threads"] == result["threads"]
        assert about["versions"]["torch"]
    assert result["machine"]["cpu"] and result["machine"]["cores"] >= 1


def test_files(quick: Path) -> None:
    text = (quick / "quick.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith(("| inference", "| training"))]
    assert "| case | kerasish_lstm.LSTM | torch.nn.LSTM |" in text
    assert len(rows) == len(CASES)
    assert all(row.endswith("(1.00) |") for row in rows)
    names = {path.name for path in quick.iterdir()}  # and no temporary ones
    if importlib.util.find_spec("matplotlib") is None:
        assert names == {"quick.json", "quick.md"}
        assert "The plot was left out: matplotlib is not installed" in text
    else:
        assert names == {"quick.json", "quick.md", "quick.png"}
        assert (quick / "quick.png").read_bytes().startswith(b"\x89PNG")
        assert "![" in text


def test_wrong_is_reported_and_never_timed(broken: tuple[Path, Any]) -> None:
    folder, result = broken
    rows = {row["case"]: row for row in result["cases"] if row["library"] == "off"}
    assert set(rows) == CASES
    for case, row in rows.items():
        assert row["status"] == "wrong"
        reason = "output is 1.0e-04 off, more than 5e-06"
        assert row["message"] == (reason if "inference" in case else "output is not finite")
        assert "median" not in row and "count" not in row
    # Two calls a case, to be checked by, and no more.
    assert sorted((folder / "runs").read_text().split()) == sorted([*CASES, *CASES])
    assert (folder / "quick.md").read_text().count("**wrong**") >= len(CASES)


def test_gradients_that_add_up_are_wrong(broken: tuple[Path, Any]) -> None:
    _, result = broken
    status = {r["case"]: r["status"] for r in result["cases"] if r["library"] == "adding"}
    assert status == {case: "wrong" if "training" in case else "ok" for case in CASES}


def test_missing_or_dead_library_is_a_row(broken: tuple[Path, Any]) -> None:
    folder, result = broken
    for name, status, message in (
        ("absent", "missing", "a_library_that_nobody_has is not installed"),
        ("dying", "error", "its process ended with 3"),
    ):
        rows = [row for row in result["cases"] if row["library"] == name]
        assert {row["case"] for row in rows} == CASES
        assert {(row["status"], row["message"]) for row in rows} == {(status, message)}
    assert "not installed" in (folder / "quick.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--libraries", "kerasish,keras_on_abacus"), "no library 'keras_on_abacus'"),
        (("--libraries", "nowhere.py"), "there is no file nowhere.py"),
        (("--libraries", "kerasish,kerasish"), "kerasish is there twice"),
        (("--threads", "0"), "--threads: 0 is not in 1.."),
        (("--device", "cuda", "--libraries", "jax_jit"), "no library 'jax_jit' on cuda"),
    ],
)
def test_impossible_commands(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from benchmarks.__main__ import main

    with pytest.raises(SystemExit) as stopped:
        main(["--quick", "--out", str(tmp_path), *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_cuda_without_cuda(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from benchmarks.__main__ import main

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(SystemExit) as stopped:
        main(["--device", "cuda", "--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert "torch finds no CUDA device here" in capsys.readouterr().err


def test_targets_are_judged_by_ratios_of_medians() -> None:
    """Taken within each round: the machine got twice as fast between them, and nobody won by it."""
    from benchmarks.cases import TARGETS
    from benchmarks.report import judge

    shape = [32, 100, 64, 128]
    own = {"shape": shape, "status": "ok", "masked": False, "mode": "inference"}
    rows = [
        {**own, "library": "kerasish", "median": 1.02, "round_medians": [2.0, 1.02, 1.1]},
        {**own, "library": "torch_lstm", "median": 1.0, "round_medians": [2.0, 1.0, 1.0]},
    ]
    first, *rest = judge(TARGETS[0], rows)
    assert (first["shape"], first["ratio"], first["met"]) == (shape, 1.02, True)
    assert first["rounds"] == [1.0, 1.1]
    assert all(verdict["met"] is None for verdict in rest)
    rows[0]["median"] = 1.04  # the whole run says otherwise
    assert next(judge(TARGETS[0], rows))["met"] is False
    rows[0]["median"], rows[0]["round_medians"][1] = 1.02, 1.04
    assert next(judge(TARGETS[0], rows))["met"] is False
    rows[0]["status"] = "wrong"
    assert next(judge(TARGETS[0], rows))["met"] is None


def test_report_without_matplotlib(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import report

    result = json.loads((quick / "quick.json").read_text())
    (tmp_path / "quick.png").write_text("of an earlier run")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    report.write(tmp_path, result, result["cases"])
    assert {path.name for path in tmp_path.iterdir()} == {"quick.json", "quick.md"}
    assert (
        "The plot was left out: matplotlib is not installed" in (tmp_path / "quick.md").read_text()
    )


def test_load_takes_a_path(tmp_path: Path) -> None:
    (tmp_path / "some.py").write_text("X = 1")
    assert load(str(tmp_path / "some.py")).X == 1


def test_files_measures_and_says_whether_the_targets_are_met(tmp_path: Path) -> None:
    command = "benchmarks.files", "--mebibytes", "1", "--rounds", "1", "--out", str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    rows = json.loads((tmp_path / "files.json").read_text())["rows"]
    assert [(row["name"], row["layers"]) for row in rows] == [("one layer", 1), ("eight layers", 8)]
    assert all(0.8 < row["bytes"] / 2**20 <= 1.01 and row["load_keras"] > 0 for row in rows)
    met = all(row["speed"] >= 1 / 3 and row["memory"] <= 1.3 for row in rows)
    assert done.returncode == (not met)
    assert (tmp_path / "files.md").read_text() in done.stdout
