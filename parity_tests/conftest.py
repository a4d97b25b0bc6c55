"""Fixtures and options of the suite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from . import keras_live
from .cases import GROUPS

REAL_FILES = Path(
    os.environ.get("KERASISH_REAL_FILES", Path(__file__).resolve().parents[2] / "shared" / "real")
)
_cuda_runs = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_cuda_runs] = 0
    # The cases are too small for a second thread, which waits where the machine is busy.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--device")
    if wanted == "all":
        return
    kept, dropped = [], []
    for item in items:
        device = getattr(getattr(item, "callspec", None), "params", {}).get("device")
        # What names no device runs on the CPU.
        (kept if (device or "cpu") == wanted else dropped).append(item)
    config.hook.pytest_deselected(items=dropped)
    items[:] = kept


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if config.getoption("--device") == "cuda" and not config.stash[_cuda_runs]:
        print("\n--device cuda: not one CUDA case ran; that is a failure.")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Each device in turn. On CUDA the suite, never the package, turns TF32 off for the test."""
    if request.param == "cpu":
        yield torch.device("cpu")
        return
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    before = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    request.config.stash[_cuda_runs] += 1
    yield torch.device("cuda")
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(scope="session")
def keras() -> Iterator[keras_live.KerasLive]:
    """Live Keras 3 on TensorFlow, or a skip that names what is missing."""
    lacking = keras_live.missing()
    if lacking:
        pytest.skip(f"live Keras: {lacking}")
    with keras_live.KerasLive() as live:
        yield live


@pytest.fixture(scope="session")
def tf_keras() -> Iterator[keras_live.KerasLive]:
    """Live Keras 2, or a skip that names what is missing."""
    lacking = keras_live.missing("tf_keras")
    if lacking:
        pytest.skip(f"live tf_keras: {lacking}")
    with keras_live.KerasLive("tf_keras") as live:
        yield live


@pytest.fixture(params=["keras", "tf_keras"])
def either(request: pytest.FixtureRequest) -> tuple[str, keras_live.KerasLive]:
    """Each live Keras in turn, with its name."""
    return request.param, request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def live_results(keras: keras_live.KerasLive) -> Any:
    """``live_results(group, dtype)``: what live Keras gives for a group's cases, by case id."""
    found: dict[tuple[str, str], dict[str, dict[str, np.ndarray]]] = {}

    def results(group: str, dtype: str) -> dict[str, dict[str, np.ndarray]]:
        if (group, dtype) not in found:
            cases = GROUPS[group]
            answers = keras.run([c.request(dtype) for c in cases])
            found[group, dtype] = {c.id: a for c, a in zip(cases, answers, strict=True)}
        return found[group, dtype]

    return results
