"""What ``kerasish_lstm.parity`` offers to tests of one's own: comparisons, the pytest plugin."""

from __future__ import annotations

import json
import os
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


def run(folder: Path, *options: str) -> tuple[int, str]:
    """pytest on a file outside of this repository, with the plugin."""
    (folder / "test_mine.py").write_text(MINE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    if not _installed():
        command += ["-p", "pytest_kerasish_lstm"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def _installed() -> bool:
    from importlib.metadata import entry_points

    return any(e.name == "pytest_kerasish_lstm" for e in entry_points(group="pytest11"))


@pytest.mark.parametrize("processes", [0, 2])
def test_the_report_has_every_test_with_what_was_measured(tmp_path: Path, processes: int) -> None:
    several = ("-n", str(processes)) if processes else ()
    if processes:
        pytest.importorskip("xdist")
    options = ("--parity-report", "report.json", "--parity-device", "cpu")
    status, said = run(tmp_path, *options, *several)
    assert status == 1, said
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["exit"] == 1 and found["seconds"] > 0
    tests = {test["id"].partition("::")[2]: test for test in found["tests"]}
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


def test_tests_that_ran_elsewhere_count(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    status, said = run(
        tmp_path, "-n", "2", "--parity-device", "cpu", "-k", "not 0.001 and not broken"
    )
    assert status == 0, said


def test_without_an_option_a_run_is_as_without_the_plugin(tmp_path: Path) -> None:
    run(tmp_path, "--junitxml", "junit.xml", "-k", "without")
    assert "<property" not in (tmp_path / "junit.xml").read_text()
    run(tmp_path, "--junitxml", "junit.xml", "-k", "mine", "--parity-report", "report.json")
    assert "mine" in (tmp_path / "junit.xml").read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA tests would run here")
def test_a_leg_that_ran_nothing_fails(tmp_path: Path) -> None:
    status, said = run(tmp_path, "--parity-device", "cuda")
    assert status == 1
    assert "--parity-device cuda: not one CUDA test ran" in said
    assert "no CUDA device here" in run(tmp_path, "-rs", "-k", "test_mine")[1]


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
    for case in cases:
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


BARE = """
import sys
for name in "safetensors typer rich hypothesis keras tf_keras tensorflow jax".split():
    sys.modules[name] = None
import pytest
raise SystemExit(pytest.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "arguments",
    [("parity_tests", "--collect-only"), ("parity_tests/test_goldens.py", "-k", "cpu and sizes")],
    ids=["collected", "run"],
)
def test_the_suite_needs_torch_numpy_h5py_and_pytest_alone(arguments: tuple[str, ...]) -> None:
    """On a GPU machine there may be nothing else."""
    done = subprocess.run(
        [sys.executable, "-c", BARE, "-qq", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT, env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
