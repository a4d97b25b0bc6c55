"""What ``kerasish_lstm.parity`` offers to tests of one's own: comparisons, the pytest plugin."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm.errors import ConfigError, ParityError
from kerasish_lstm.parity import assert_parity, bounds, compare

from .cases import GOLDEN
from .keras_live import KerasLive
from .runs import ours, truth
from .sampling import sampled
from .test_parity import engines

ROOT = Path(__file__).resolve().parent.parent

MINE = """
import numpy as np
import pytest
import torch
from kerasish_lstm import LSTM
from kerasish_lstm.parity import assert_parity, oracle

@pytest.mark.parametrize("off", [0.0, 1e-3])
def test_mine(parity_device, parity_tolerance, off):
    layer = LSTM(3, 5, device=parity_device)
    x = np.random.default_rng(0).uniform(-1, 1, (2, 7, 3)).astype(np.float32)
    with torch.inference_mode():
        actual = layer(torch.from_numpy(x).to(parity_device))
    expected = oracle.forward(x.astype(float), *layer.get_weights()).output
    assert_parity(actual + off, expected, bound=parity_tolerance(torch.float32), what="mine")

def test_without_a_device():
    pass

def test_skipped():
    pytest.skip("not today")

@pytest.fixture
def broken():
    raise RuntimeError("no fixture")

def test_with_a_broken_fixture(broken):
    pass
"""


# Each run's options; CHILD makes them all in one process, for torch is imported once then.
RUNS = {
    "plain": ["--junitxml", "plain.xml"],
    "alone": ["--parity-report", "alone.json", "--parity-device", "cpu", "--junitxml", "alone.xml"],
    "cuda": ["--parity-report", "cuda.json", "--parity-device", "cuda"],
    "spread": ["-n", "2", "--parity-report", "spread.json"],
    "spread cpu": ["-n", "1", "--parity-device", "cpu", "-k", "not 0.001 and not broken"],
    "spread cuda": ["-n", "1", "--parity-device", "cuda"],
}
CHILD = """
import contextlib, io, json, sys
import pytest
found = {}
for name, options in json.loads(sys.argv[1]).items():
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = pytest.main(["-q", "-p", "no:cacheprovider", *options, *sys.argv[2:]])
    found[name] = [int(status), said.getvalue()]
print(json.dumps(found))
"""


@dataclasses.dataclass
class Runs:
    """What pytest said, by name, of a file outside of this repository, with the plugin."""

    folder: Path
    found: dict[str, tuple[int, str]]

    def __getitem__(self, name: str) -> tuple[int, str]:
        if name not in self.found:
            pytest.skip("pytest-xdist not installed")
        return self.found[name]

    def report(self, name: str) -> dict[str, Any]:
        assert self[name]
        found: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text())
        return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "test_mine.py").write_text(MINE)
    spread = importlib.util.find_spec("xdist") is not None
    asked = {name: options for name, options in RUNS.items() if spread or "-n" not in options}
    plugin = () if _installed() else ("-p", "pytest_kerasish_lstm")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(asked), *plugin],
        cwd=folder, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Runs(folder, json.loads(done.stdout))


def _installed() -> bool:
    from importlib.metadata import entry_points

    return any(e.name == "pytest_kerasish_lstm" for e in entry_points(group="pytest11"))


@pytest.mark.parametrize("name", ["alone", "spread"])
def test_the_report_has_every_test_with_what_was_measured(runs: Runs, name: str) -> None:
    status, said = runs[name]
    assert status == 1, said
    found = runs.report(name)
    assert found["exit"] == 1 and found["seconds"] > 0
    tests = {test["id"].partition("::")[2]: test for test in found["tests"]}
    tests = {name: test for name, test in tests.items() if test["device"] != "cuda"}
    assert {name: test["outcome"] for name, test in tests.items()} == {
        "test_mine[cpu-0.0]": "passed",
        "test_mine[cpu-0.001]": "failed",
        "test_without_a_device": "passed",
        "test_skipped": "skipped",
        "test_with_a_broken_fixture": "error",
    }
    good, bad = tests["test_mine[cpu-0.0]"], tests["test_mine[cpu-0.001]"]
    assert (good["device"], tests["test_skipped"]["device"]) == ("cpu", None)
    assert tests["test_skipped"]["reason"] == "not today"
    assert "no fixture" in tests["test_with_a_broken_fixture"]["reason"]
    assert "mine: 10 of 10 elements" in bad["reason"]
    worst = good["comparisons"]["worst"]
    assert (worst["what"], worst["dtype"], worst["bound"]) == ("mine", "float32", 2**-19)
    assert 0 <= worst["ulps"] < 16 and good["comparisons"]["count"] == 1
    assert bad["comparisons"]["worst"]["error"] == pytest.approx(1e-3, rel=1e-2)


def test_tests_that_ran_elsewhere_count(runs: Runs) -> None:
    status, said = runs["spread cpu"]
    assert status == 0, said


def test_without_an_option_a_run_is_as_without_the_plugin(runs: Runs) -> None:
    assert "<property" not in (runs.folder / "plain.xml").read_text()
    assert "<property" in (runs.folder / "alone.xml").read_text()


without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA tests would run here")


@without_cuda
@pytest.mark.parametrize("name", ["plain", "spread"])
def test_where_there_is_no_cuda_one_line_says_so(runs: Runs, name: str) -> None:
    """The function counts once, however many processes collected it."""
    said = [line for line in runs[name][1].splitlines() if "CUDA" in line]
    assert said == [
        "CUDA: not run, since torch finds no CUDA device here (1 test functions). "
        "Where one is: python -m pytest --parity-device cuda"
    ]


@without_cuda
def test_where_there_is_no_cuda_the_report_says_so(runs: Runs) -> None:
    assert runs.report("alone")["without_cuda"] == runs.report("cuda")["without_cuda"] == 0
    assert runs.report("spread")["without_cuda"] == 1


@without_cuda
@pytest.mark.parametrize("name", ["cuda", "spread cuda"])
def test_a_leg_that_ran_nothing_fails(runs: Runs, name: str) -> None:
    status, said = runs[name]
    assert status == 1
    assert "--parity-device cuda: not one CUDA test ran" in said


def test_the_plugin_imports_no_torch() -> None:
    """Every run of pytest in a user's environment imports it."""
    code = "import sys, pytest_kerasish_lstm; print({'torch', 'kerasish_lstm'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_listeners_hear_of_every_comparison() -> None:
    heard: list[Any] = []
    compare.listeners.append(heard.append)
    try:
        assert_parity(torch.ones(3) * 4, np.full(3, 4.0), bound=1e-6, what="same")
        with pytest.raises(ParityError):
            assert_parity(np.array([4.5]), np.array([4.0]), bound=1e-6, dtype=torch.float32)
    finally:
        compare.listeners.remove(heard.append)
    assert [(c.what, c.absolute, c.scale, c.dtype) for c in heard] == [
        ("same", 0.0, 4.0, "float32"),
        ("output", 0.5, 4.0, "float32"),
    ]
    assert heard[1].error == 0.125 and heard[1].ulps == 2**20


# cuDNN's, of nn.LSTM in bfloat16: see test_cuda.
@pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous chunk")
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_tolerance_holds_for_every_recorded_case(
    dtype: str, parity_device: torch.device, parity_tolerance: Any
) -> None:
    cases = GOLDEN["product"] + GOLDEN["sizes"]
    for case in sampled(cases, 0.4, lambda case: case.id):
        exact = truth(case)
        for keywords in engines(case).values():
            actual = ours(case, getattr(torch, dtype), parity_device, **keywords)
            for name in {"output", "h", "c"} & set(exact):
                bound = parity_tolerance(dtype)
                assert_parity(actual[name], exact[name], bound=bound, what=case.id, dtype=dtype)


def test_tolerance_knows_its_dtypes_and_devices() -> None:
    assert bounds.tolerance(torch.float32, "cuda:1") == bounds.CUDA_FLOAT32
    for dtype, device in ((torch.int8, "cpu"), ("float32", "tpu")):
        with pytest.raises(ConfigError, match="allowed are float64"):
            bounds.tolerance(dtype, device)


@pytest.mark.live
def test_same_as_live_keras_or_not(either: tuple[str, KerasLive]) -> None:
    library, live = either
    for name, (error, said) in live.call("parity_side.compared", library).items():
        assert error < 1e-6, name
        assert "elements lie beyond the bound" in said, name


@pytest.mark.live
def test_what_cannot_be_compared_is_said(keras: KerasLive) -> None:
    plain, states, units = keras.call("parity_side.refused")
    assert "ConfigError: assert_same_as_keras: a LSTM is no module of kerasish_lstm" in plain
    assert "ParityError" in states and "returns 3 tensors, Keras 1" in states
    assert "ParityError" in units and "shape (3, 7), expected (3, 5)" in units
