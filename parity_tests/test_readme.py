"""The README says what is: its code runs, its numbers come again, its paths exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

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


GUIDE = (ROOT / "parity_tests" / "README.md").read_text()
CERTIFIED, *_ = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
COMMANDS = [line.split("#")[0].split() for line in CERTIFIED.splitlines()]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(NOTEBOOK, folder / "model.keras")
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_blocks_run_one_after_the_other_and_the_tests_in_them(tmp_path: Path) -> None:
    """The README's, which are a module with a test, and the guide's own."""
    assert len(PLAIN) >= 4
    (guide,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    (tmp_path / "test_the_readme.py").write_text("\n".join(PLAIN))
    (tmp_path / "test_the_guide.py").write_text(guide)
    found = run(tmp_path, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider")
    assert found.returncode == 0, found.stdout + found.stderr
    assert re.search("[24] passed", found.stdout), found.stdout


@pytest.fixture(scope="module")
def with_keras(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The README's blocks with live Keras, then the guide's two commands, in one process."""
    if lacking := missing():
        pytest.skip(f"live Keras: {lacking}")
    folder = tmp_path_factory.mktemp("with_keras")
    # Keras's own imports warn; only the block itself is held to warn of nothing.
    code = "import warnings\nwarnings.simplefilter('ignore')\n" + "\n".join(LIVE)
    code += "\nassert again.get_weights()[0].shape == (4, 20)\nprint('the blocks ran')\n"
    code += "from kerasish_lstm.cli import main\n"
    for line in COMMANDS:
        code += f"print('command {line[1]}')\nassert not main({line[1:]}, standalone_mode=False)\n"
    (folder / "readme.py").write_text(code)
    return run(folder, "readme.py")


@pytest.mark.live
def test_the_blocks_with_live_keras_run(with_keras: Any) -> None:
    assert LIVE
    assert "the blocks ran" in with_keras.stdout, with_keras.stderr


@pytest.mark.live
def test_the_guide_s_certificate_is_made_and_checked(with_keras: Any) -> None:
    assert [line[:2] for line in COMMANDS] == [["kerasish-lstm", w] for w in ("convert", "verify")]
    assert with_keras.returncode == 0, with_keras.stdout + with_keras.stderr
    assert with_keras.stdout.partition("command verify")[2].count("equal") >= 5


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


def test_the_files_that_the_guide_names_exist() -> None:
    for path in re.findall(r"`([\w/]+\.py|[a-z]+/)`", GUIDE):
        assert (ROOT / path).exists() or (ROOT / "parity_tests" / path).exists(), path


def test_the_paths_that_it_names_exist() -> None:
    for path in re.findall(r"`((?:parity_tests|benchmarks|kerasish_lstm)/[\w./]+)`", README):
        assert (ROOT / path).exists(), path
