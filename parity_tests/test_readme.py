"""The README says what is: its code runs, its numbers come again, its paths exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cases import GROUPS as SPEED
from benchmarks.report import short_table, short_text

from .cases import GOLDEN, GROUPS
from .how_equal import PROMISES, measure
from .keras_live import ROOT, missing

README = (ROOT / "README.md").read_text()
NOTEBOOK = ROOT / "kerasish_lstm" / "demo" / "notebook.keras"
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PLAIN = [b for b in BLOCKS if "import keras\n" not in b]
LIVE = [b for b in BLOCKS if "import keras\n" in b]


def run(code: str, folder: Path) -> None:
    shutil.copy(NOTEBOOK, folder / "model.keras")
    (folder / "readme.py").write_text(code)
    found = subprocess.run(
        [sys.executable, "-W", "error", "readme.py"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr


def test_the_blocks_run_one_after_the_other(tmp_path: Path) -> None:
    assert len(PLAIN) >= 4
    run("\n".join(PLAIN), tmp_path)


@pytest.mark.live
def test_the_blocks_with_live_keras_run(tmp_path: Path) -> None:
    if lacking := missing():
        pytest.skip(f"live Keras: {lacking}")
    assert LIVE
    body = "\n".join(LIVE) + "\nassert again.get_weights()[0].shape == (4, 20)\n"
    # Keras's own imports warn; only the block itself is held to warn of nothing.
    run("import warnings\nwarnings.simplefilter('ignore')\n" + body, tmp_path)


def test_its_numbers_come_again() -> None:
    """Rounding differs between machines: twice the number is still that number."""
    table = README[README.index("<!-- how equal -->") :]
    for row, columns in measure().items():
        line = next(s for s in table.splitlines() if s.startswith(f"| {row} |"))
        *quoted, promise = (cell.strip() for cell in line.split("|")[2:-1])
        assert promise == PROMISES[row]
        found = [(column, side, v) for column, c in columns.items() for side, v in c.items()]
        for (column, side, value), said in zip(found, quoted, strict=True):
            what = f"{row}: {column}, {side}"
            assert (value is None) == (said == "-"), what
            if value is not None:
                assert value <= 2 * float(said), what
                assert value >= float(said) / 4, f"{what} is better than the README says"


def test_the_count_of_cases_is_the_suites() -> None:
    assert f"{sum(map(len, GROUPS.values()))} configurations of the layer beside live" in README
    assert f"over {sum(map(len, GOLDEN.values()))} recorded configurations" in README


def test_the_fast_numbers_are_those_of_the_recorded_run() -> None:
    section = README[README.index("<!-- how fast -->") : README.index("## What is the same")]
    recorded = json.loads((ROOT / "benchmarks" / "results" / "cpu.json").read_text())
    assert recorded["complete"] and recorded["runs"] == 3 and set(recorded["groups"]) == set(SPEED)
    assert short_table(recorded) in section
    assert short_text(recorded) in " ".join(section.split())


GUIDE = (ROOT / "parity_tests" / "README.md").read_text()


@pytest.mark.live
def test_the_guide_s_certificate_is_made_and_checked(tmp_path: Path) -> None:
    if lacking := missing():
        pytest.skip(f"live Keras: {lacking}")
    shutil.copy(NOTEBOOK, tmp_path / "model.keras")
    (commands, *_) = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
    lines = [line.split("#")[0].split() for line in commands.splitlines()]
    assert [line[:2] for line in lines] == [["kerasish-lstm", w] for w in ("convert", "verify")]
    for line in lines:
        done = subprocess.run(
            [sys.executable, "-m", "kerasish_lstm", *line[1:]],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("equal") >= 5


def test_the_guide_s_test_runs(tmp_path: Path) -> None:
    shutil.copy(NOTEBOOK, tmp_path / "model.keras")
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    (tmp_path / "test_mine.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and re.search("[12] passed", done.stdout), done.stdout


def test_the_files_that_the_guide_names_exist() -> None:
    for path in re.findall(r"`([\w/]+\.py|[a-z]+/)`", GUIDE):
        assert (ROOT / path).exists() or (ROOT / "parity_tests" / path).exists(), path


def test_the_paths_that_it_names_exist() -> None:
    for path in re.findall(r"`((?:parity_tests|benchmarks|kerasish_lstm)/[\w./]+)`", README):
        assert (ROOT / path).exists(), path
