"""Hostile files: each is refused with its error or loads rightly, fast, and touching nothing.

The files of :mod:`parity_tests.hostile` are loaded in a process of its own, and so are the mutants
of :mod:`parity_tests.hostile_fuzz`. Where a fuzzed file fails, it is kept, and the message has its
seed and number. ``KERASISH_FUZZ_SEED`` and ``KERASISH_FUZZ_SECONDS`` choose another run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kerasish_lstm import load_keras
from kerasish_lstm.errors import FileFormatError
from kerasish_lstm.files import _open

from . import hostile, hostile_fuzz, sampling
from .hostile import EITHER, EVIL, LOADS, MIB, OUTSIDE, TABLE
from .test_files import U, arrays, keras3, legacy, lstm, named, same, sequential

# Linux alone tells a process's peak memory and what is opened in a folder.
linux = pytest.mark.skipif(sys.platform != "linux", reason="measured on Linux")
ROOT = Path(__file__).resolve().parents[1]
MAX_CPU, MAX_MIB = 2.0, 300


def run(*arguments: str, seconds: float) -> tuple[int, list[dict[str, Any]], str]:
    """A child's exit status, its lines of JSON, and what it said last."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def outcomes(names: list[str], *command: str) -> dict[str, dict[str, Any]]:
    """What a child says of each file, and anew behind each that ends it."""
    found: dict[str, dict[str, Any]] = {}
    left = names
    while left:
        status, lines, said = run(*command, *left, seconds=120)
        found |= {line["name"]: line for line in lines if "name" in line}
        if status == 0:
            break
        started = [line["start"] for line in lines if "start" in line]
        assert started, said
        found[started[-1]] = {"died": f"exit status {status}: {said[-2000:]}"}
        left = left[left.index(started[-1]) + 1 :]
    return found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of each file of the table. One that ended the process is named in its own test."""
    folder = tmp_path_factory.mktemp("hostile")
    hostile.write(folder)
    found = outcomes(list(TABLE), "parity_tests.hostile", "--load", str(folder))
    assert not (folder / OUTSIDE / "RAN").exists(), "code of a file was run"
    assert not list(folder.rglob("RAN")) and not Path("/tmp/RAN").exists()
    assert not (ROOT / EVIL).exists(), "os.system was run"
    return found


@linux
@pytest.mark.parametrize("name", TABLE)
def test_a_hostile_file(name: str, corpus: dict[str, dict[str, Any]]) -> None:
    """Its own error or a load, in 2 s and 300 MiB; nothing imported, run or opened elsewhere."""
    found, (_, expected, said) = corpus[name], TABLE[name]
    assert "died" not in found, found["died"]
    what = f"{found['outcome']}: {found['message']}"
    classes = found["outcome"].split(",")
    if isinstance(expected, str):
        assert LOADS in classes or (expected == EITHER and "KerasishError" in classes), what
    else:
        assert expected.__name__ in classes, what
        assert re.search(said, found["message"], re.DOTALL), what
    assert found["cpu"] < MAX_CPU
    assert found["mib"] < MAX_MIB
    assert (found["imported"], found["events"], found["outside"]) == ([], [], [])


def test_the_corpus_has_one_file_for_each_name(tmp_path: Path) -> None:
    """The script writes what the table says."""
    some = [name for name in TABLE if name.startswith(("group", "units", "pickle"))]
    hostile.write(tmp_path, some)
    assert {p.name for p in tmp_path.iterdir()} == {*some, OUTSIDE}


# What the limits let through


@pytest.mark.parametrize("name", ["gzip", "gzip and shuffle", "in chunks"])
def test_a_compressed_file_is_read_exactly(name: str, tmp_path: Path) -> None:
    path = tmp_path / "w.weights.h5"
    TABLE[f"{name}.weights.h5"][0](path)
    with pytest.warns(UserWarning):
        (layer,) = load_keras(path).values()
    for mine, theirs in zip(layer.get_weights(), arrays(), strict=True):
        assert mine.dtype == np.float64 and np.array_equal(mine, theirs)


def test_chunks_that_are_not_stored_have_the_fill_value(tmp_path: Path) -> None:
    path = keras3(tmp_path / "w.weights.h5")
    where = "layers/lstm/cell/vars/2"
    with h5py.File(path, "r+") as file:
        del file[where]
        made = file.create_dataset(
            where, (4 * U,), "f4", chunks=(3,), compression="gzip", fillvalue=0.5
        )
        made[3:5] = 7.0
    with pytest.warns(UserWarning):
        (layer,) = load_keras(path).values()
    assert layer.get_weights()[2].tolist() == [0.5] * 3 + [7.0] * 2 + [0.5] * 3


def test_a_large_config_does_not_make_lists_of_texts_too_long(tmp_path: Path) -> None:
    """3000 names beside a config of 2 MiB, all texts of variable length: 6 GiB by a bad bound."""
    dense = {"class_name": "Dense", "config": {"name": "d", "note": "x" * 2 * MIB}}
    names = [f"dense_{n}" for n in range(3000)]
    path = legacy(
        tmp_path / "m.h5", {"d": [], "a": named("a")}, config=sequential(dense, lstm("a"))
    )
    with h5py.File(path, "r+") as file:
        file["model_weights/d"].attrs.create(
            "weight_names", names[:1500], dtype=h5py.string_dtype()
        )
    assert same(load_keras(path)["a"])


def test_a_budget_is_of_all_arrays_together(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    budget = _open.Budget(path)
    assert budget.spend(_open.ARRAYS_FREE_BYTES - 1) and not budget.spend(2) and budget.spend(1)


@pytest.mark.parametrize("size", [4 * MIB, 20 * MIB])
def test_a_json_file_is_not_read_beyond_the_limit(size: int, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(b"[" + b" " * (size - 2) + b"]")
    if size < _open.MAX_JSON_BYTES:
        assert _open.read_json(path) == []
    else:
        with pytest.raises(FileFormatError, match="at most 16777216 are read"):
            _open.read_json(path)


INSPECT = """
import sys
from kerasish_lstm.cli import main
for path in sys.argv[1:]:
    try:
        main(["inspect", path])
    except SystemExit as end:
        print(end.code, flush=True)
"""


@linux
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipes = [tmp_path / f"m.{suffix}" for suffix in ("h5", "keras", "json", "safetensors", "pt")]
    for pipe in pipes:
        os.mkfifo(pipe)
    command = [sys.executable, "-c", INSPECT, *map(str, pipes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["2"] * len(pipes), done
    for pipe in pipes:
        assert re.search(rf"{pipe.name}\b[^/]*no regular file", done.stderr), done.stderr


# Truncation


@pytest.mark.parametrize("name", ["notebook.keras", "w.weights.h5", "two.h5", "latest.weights.h5"])
def test_a_file_cut_at_every_kib(name: str, tmp_path: Path) -> None:
    """An error that names the file, or the whole layers where only padding is gone."""
    sources = {p.name: p for p in hostile_fuzz.sources(tmp_path / "sources")}
    data = sources[name].read_bytes()
    path = tmp_path / f"cut-{name}"
    for end in range(0, len(data), 1024):
        path.write_bytes(data[:end])
        with pytest.raises(FileFormatError, match="cut-"):
            load_keras(path)


# The fuzzer


def _fuzz(folder: Path, seed: str, seconds: float) -> tuple[list[str], int]:
    """What was found, each with its file, and how many files were loaded."""
    kept = Path(tempfile.gettempdir()) / f"kerasish-fuzz-{seed}"
    findings: list[str] = []
    count = number = 0
    while seconds > 0 and len(findings) < 5:
        status, lines, said = run(
            "parity_tests.hostile_fuzz", str(folder), seed, str(seconds), str(number),
            seconds=seconds + 120,
        )  # fmt: skip
        bad = [line for line in lines if "finding" in line]
        last = max((line["number"] for line in lines if "number" in line), default=number)
        if status:
            said = said[-3000:]
            bad.append({"finding": last, "outcome": f"the process died, status {status}:\n{said}"})
            seconds /= 2  # of the rest at most
        else:
            seconds = 0
        for line in bad:
            kept.mkdir(exist_ok=True)
            for path in folder.glob(f"{line['finding']}-*"):
                shutil.copy(path, kept)
            findings.append(f"seed {seed}, number {line['finding']}, in {kept}: {line}")
        count += last + 1 - number
        number = last + 1
    return findings, count


@linux
@pytest.mark.slow
def test_no_mutant_of_a_real_file_crashes_hangs_or_raises_what_is_not_ours(tmp_path: Path) -> None:
    seed = os.environ.get("KERASISH_FUZZ_SEED", "2026")
    seconds = float(os.environ.get("KERASISH_FUZZ_SECONDS", sampling.amount(6, 60)))
    findings, count = _fuzz(tmp_path, seed, seconds)
    assert not findings, "\n\n".join(findings)
    assert count > seconds, f"{count} files in {seconds} s: the fuzzer does not get anywhere"


def test_a_mutant_depends_on_its_seed_and_number_alone(tmp_path: Path) -> None:
    paths = hostile_fuzz.sources(tmp_path / "sources")
    for number in range(6):
        made = [hostile_fuzz.mutant(paths, "a", number)[0] for _ in range(2)]
        assert made[0] == made[1]
