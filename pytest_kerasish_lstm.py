"""pytest's side of ``kerasish_lstm.parity``: for this package's suite, and for tests of your own.

    def test_my_layer(parity_device, parity_tolerance):
        layer = load_keras("mine.keras")["encoder"].to(parity_device)
        assert_parity(layer(x), expected, bound=parity_tolerance(torch.float32))

``parity_device`` is each device in turn; on CUDA, TF32 is off for the test. With
``--parity-device cuda`` one device's tests run alone, and a run in which none ran fails;
``--parity-report FILE`` writes, as JSON, what ``assert_parity`` measured in each test.

torch is imported by the fixtures, not by this module, which every run of pytest here imports.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

    from kerasish_lstm.parity import Comparison

_TEST = "kerasish_lstm"  # properties of a test, in JUnit's XML too
_PROPERTY = "parity"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kerasish_lstm", "parity with Keras")
    group.addoption(
        "--parity-device",
        choices=("all", "cpu", "cuda"),
        default="all",
        help="run one device's tests alone; a run in which none ran fails. What names no device "
        "runs on the cpu.",
    )
    group.addoption(
        "--parity-report",
        type=Path,
        metavar="FILE",
        help="write each test's outcome and what assert_parity measured in it, as JSON",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Run(config), "kerasish_lstm_parity")


@pytest.fixture
def parity_device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Each device in turn. On CUDA, TF32 is off for the test: it rounds inputs to 10 bits.

    Where torch finds no CUDA device, its tests are not collected, and the summary says so.
    """
    import torch

    if request.param == "cpu":
        yield torch.device("cpu")
        return
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    before = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield torch.device("cuda")
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture
def parity_tolerance(parity_device: torch.device) -> Callable[[torch.dtype | str], float]:
    """``parity_tolerance(dtype)``: ``bounds.tolerance`` on the test's device."""
    from kerasish_lstm.parity import bounds

    return functools.partial(bounds.tolerance, device=parity_device)


class _Run:
    """One run of pytest: on which devices tests ran, and what was measured in each.

    Both come with the tests' reports, which reach this process from others too (pytest-xdist).
    """

    def __init__(self, config: pytest.Config) -> None:
        self.wanted: str = config.getoption("--parity-device")
        self.report: Path | None = config.getoption("--parity-report")
        self.is_worker = hasattr(config, "workerinput")  # of pytest-xdist
        self.ran: set[str] = set()
        self.without_cuda: set[str] = set()  # functions whose CUDA tests were not collected
        self.tests: dict[str, dict[str, Any]] = {}
        self.began = time.perf_counter()

    @pytest.hookimpl(tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "parity_device" not in metafunc.fixturenames:
            return
        devices = ["cpu", "cuda"] if self.wanted == "all" else [self.wanted]
        if self.wanted == "all" and not _has_cuda():
            devices.remove("cuda")
            self.without_cuda.add(metafunc.definition.nodeid)
        metafunc.parametrize("parity_device", devices, indirect=True)

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        if self.wanted == "all":
            return
        dropped = [item for item in items if (_device_of(item) or "cpu") != self.wanted]
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if (_device_of(item) or "cpu") == self.wanted]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Any:
        if self.report is None:
            return (yield)
        from kerasish_lstm.parity import compare

        made: list[Comparison] = []
        listener = made.append
        compare.listeners.append(listener)
        try:
            return (yield)
        finally:
            compare.listeners.remove(listener)
            if made:
                item.user_properties.append((_PROPERTY, json.dumps(_summary(made))))

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        if self.report is None and self.wanted == "all":
            return
        own = {"device": _device_of(item), "markers": sorted({m.name for m in item.iter_markers()})}
        item.user_properties.append((_TEST, json.dumps(own)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told = dict(report.user_properties)
        own = json.loads(str(told.get(_TEST, "{}")))
        test = self.tests.setdefault(
            report.nodeid,
            {
                "id": report.nodeid,
                "file": report.nodeid.partition("::")[0],
                "device": own.get("device"),
                "outcome": None,
                "reason": None,
                "seconds": 0.0,
                "markers": own.get("markers", []),
                "comparisons": None,
            },
        )
        test["seconds"] += report.duration
        if _PROPERTY in told:
            test["comparisons"] = json.loads(str(told[_PROPERTY]))
        if report.when == "call" or (report.outcome != "passed" and test["outcome"] is None):
            failed_around = report.when != "call" and report.outcome == "failed"
            test["outcome"] = "error" if failed_around else report.outcome
            test["reason"] = _reason(report)
        if report.when == "call" and report.outcome != "skipped":
            self.ran.add(test["device"] or "")

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """A process of pytest-xdist has ended: it collected, this one did not."""
        self.without_cuda |= set(getattr(node, "workeroutput", {}).get(_TEST, ()))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.without_cuda:
            terminalreporter.write_line(
                f"{without_cuda(len(self.without_cuda))} python -m pytest --parity-device cuda"
            )

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.is_worker:
            session.config.workeroutput[_TEST] = sorted(self.without_cuda)  # type: ignore[attr-defined]
        if self.is_worker or session.config.getoption("collectonly"):
            return
        if self.wanted != "all" and self.wanted not in self.ran:
            print(
                f"\n--parity-device {self.wanted}: not one {self.wanted.upper()} test ran; that is "
                "a failure."
            )
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self.report is not None:
            found = {
                "tests": list(self.tests.values()),
                "seconds": time.perf_counter() - self.began,
                "exit": int(session.exitstatus),
                "without_cuda": len(self.without_cuda),
            }
            temporary = self.report.with_name(f".{self.report.name}.{os.getpid()}")
            temporary.write_text(json.dumps(found))
            temporary.replace(self.report)


def without_cuda(functions: int) -> str:
    """What is said where CUDA tests were not collected; the command that runs them follows."""
    return (
        f"CUDA: not run, since torch finds no CUDA device here ({functions} test functions). "
        "Where one is:"
    )


@functools.cache
def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _device_of(item: pytest.Item) -> str | None:
    device: str | None = getattr(getattr(item, "callspec", None), "params", {}).get("parity_device")
    return device


def _summary(made: list[Comparison]) -> dict[str, Any]:
    worst = max(made, key=lambda one: one.error / one.bound if one.bound else one.error)
    values = {"error": worst.error, "absolute": worst.absolute, "ulps": worst.ulps}
    return {
        "count": len(made),
        "worst": {
            "what": worst.what,
            **{name: v if v < float("inf") else "infinite" for name, v in values.items()},
            "scale": worst.scale,
            "bound": worst.bound,
            "dtype": worst.dtype,
        },
    }


def _reason(report: pytest.TestReport) -> str | None:
    if report.outcome == "passed":
        return None
    said: Any = report.longrepr
    if isinstance(said, tuple):  # of a skip: (file, line, reason)
        return str(said[2]).removeprefix("Skipped: ")
    crash = getattr(said, "reprcrash", None)
    return str(crash.message if crash else said).strip().split("\n")[0][:500]
