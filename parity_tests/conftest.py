"""Fixtures and options of the suite."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from . import keras_live, sampling

REAL_FILES = Path(
    os.environ.get("KERASISH_REAL_FILES", Path(__file__).resolve().parents[2] / "shared" / "real")
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("kerasish_lstm").addoption(
        "--full",
        action="store_true",
        help="this suite's sweeps and random walks whole, not sampled",
    )


def pytest_configure(config: pytest.Config) -> None:
    sampling.full = config.getoption("--full")
    if hasattr(config.option, "loadscopereorder"):  # pytest-xdist's: files with many tests first
        config.option.loadscopereorder = False
    # The cases are too small for a second thread, which waits where the machine is busy.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest come first, so that no worker has a long one alone at the end."""
    seconds: dict[Path, float] = {}
    for item in items:
        takes = 15.0 if item.get_closest_marker("slow") else 0.03
        takes += 0.1 if item.get_closest_marker("live") else 0.0
        seconds[item.path] = seconds.get(item.path, 0.0) + takes
    items.sort(key=lambda item: -seconds[item.path])


@pytest.fixture
def device(parity_device: torch.device) -> torch.device:
    """Each device in turn, with TF32 off."""
    return parity_device


@pytest.fixture
def poison() -> Iterator[None]:
    """Uninitialized memory holds NaN, so that code which forgets to write it shows."""
    assert torch.utils.deterministic.fill_uninitialized_memory
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture(scope="session")
def live_on() -> Iterator[Callable[[str], keras_live.KerasLive]]:
    """Live Keras by its backend: one process each, started where it is first asked for."""
    with contextlib.ExitStack() as stack:
        yield functools.cache(lambda backend: stack.enter_context(keras_live.KerasLive(backend)))


@pytest.fixture(scope="session")
def keras(live_on: Callable[[str], keras_live.KerasLive]) -> keras_live.KerasLive:
    """Live Keras 3 on TensorFlow, or a skip that names what is missing."""
    lacking = keras_live.missing()
    if lacking:
        pytest.skip(f"live Keras: {lacking}")
    return live_on("tensorflow")


@pytest.fixture(scope="session")
def tf_keras(live_on: Callable[[str], keras_live.KerasLive]) -> keras_live.KerasLive:
    """Live Keras 2, in the process of Keras 3, or a skip that names what is missing."""
    lacking = keras_live.missing("tf_keras")
    if lacking:
        pytest.skip(f"live tf_keras: {lacking}")
    return live_on("tensorflow")


@pytest.fixture(params=["keras", "tf_keras"])
def either(request: pytest.FixtureRequest) -> tuple[str, keras_live.KerasLive]:
    """Each live Keras in turn, with its name."""
    return request.param, request.getfixturevalue(request.param)
