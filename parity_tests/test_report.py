"""``python -m parity_tests --report`` and ``--render``: what they write, and what the page does."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from . import __main__ as command
from .cases import GROUPS
from .meta import test_golden_mutants, test_mutants
from .report import curves, environment, legs, mutants, page, run

HOSTILE = "parity_tests/test_parity.py::test_x[</script><b id=hostile>&amp;'\"]"
SKIPS = (
    ("cuda", "no CUDA device here"),
    ("live", "live Keras: keras and tensorflow not installed"),
)


def told_of(identity: str, **changes: Any) -> dict[str, Any]:
    """A test as the plugin's report has it."""
    found = {
        "id": identity,
        "file": identity.partition("::")[0],
        "device": None,
        "outcome": "passed",
        "reason": None,
        "seconds": 0.01,
        "markers": [],
        "comparisons": None,
    }
    return {**found, **changes}


def made_up(count: int = 7000, *, keras: bool = True, failing: int = 0) -> dict[str, Any]:
    """A report of the plugin such as a real run gives, with ``count`` tests and no run."""
    chance = random.Random(0)
    cases = [f"{group}-{case.id}" for group, some in GROUPS.items() for case in some]
    oracle, live = "test_float64_equals_the_oracle", "test_float64_equals_live_keras"
    kinds: list[tuple[str, str, str | None, list[str]]] = [
        *(("test_parity.py", f"{oracle}[{c}-{d}]", d, []) for c in cases for d in ("cpu", "cuda")),
        *(("test_parity.py", f"{live}[{c}]", None, ["live"]) for c in cases),
        *(
            ("test_goldens.py", f"test_equals_recorded_keras[{c}-{d}-{t}]", d, [])
            for c in cases[::3]
            for d in ("cpu", "cuda")
            for t in ("float64", "float32")
        ),
        *(
            ("test_save.py", f"test_saved[{name}-{case}]", None, ["live"])
            for name in ("keras", "tf_keras")
            for case in cases[::9]
        ),
        *(("meta/test_mutants.py", f"test_the_suite_kills[{m}]", None, []) for m in MUTANTS),
        *(
            ("meta/test_golden_mutants.py", f"test_the_golden_leg_kills[layer: {m}]", None, [])
            for m in MUTANTS
        ),
        *(("test_hostile.py", f"test_a_hostile_file[{n}]", None, []) for n in range(192)),
        *(("test_deviations.py", f"test_reproduces[{n}]", None, ["live"]) for n in range(39)),
        *(("test_config.py", f"test_config[{n}]", None, []) for n in range(900)),
    ]
    if len(kinds) < count:
        kinds += [
            ("test_errors.py", f"test_is_refused[{n}]", None, []) for n in range(count - len(kinds))
        ]
    tests = []
    for file, name, device, markers in kinds[:count]:
        test = told_of(f"parity_tests/{file}::{name}", device=device, markers=markers)
        test["seconds"] = chance.lognormvariate(-4, 1)
        tests.append(test)
        if device == "cuda" or (markers and not keras):
            reason = dict(SKIPS)["cuda" if device == "cuda" else "live"]
            test |= {"outcome": "skipped", "reason": reason}
        elif "equal" in name or "saved" in name:
            single = "float32" in name
            bound = 5e-7 if single else 1e-12
            wrong = bound * min(0.97, chance.lognormvariate(-2 if single else -6, 1.2))
            test["comparisons"] = compared(wrong * (chance.random() > 0.05), bound, single)
        elif "meta" in file:
            test["comparisons"] = compared(chance.random(), 1e-12)
    for test in [one for one in tests if one["outcome"] == "passed"][:failing]:
        test |= {"outcome": "failed", "reason": "ParityError: fused d_kernel: 6 of 24 elements lie"}
        test["comparisons"] = compared(3.2e-3, 1e-12)
    return {"tests": tests, "seconds": 512.0, "exit": int(failing > 0)}


MUTANTS = list(test_mutants.MUTANTS)


def compared(wrong: float, bound: float, single: bool = False) -> dict[str, Any]:
    dtype, eps = ("float32", 2.0**-23) if single else ("float64", 2.0**-52)
    return {
        "count": 12,
        "worst": {
            "what": "fused d_recurrent_kernel", "error": wrong, "absolute": wrong * 1.7,
            "scale": 1.7, "ulps": wrong / eps, "bound": bound, "dtype": dtype,
        },
    }  # fmt: skip


def drawn() -> dict[str, Any]:
    """Curves as ``curves.measured`` gives them, made up."""
    lines = [
        {
            "name": name, "title": title, "device": device, "against": against, "at": list(at),
            "median": [3e-8 * (n + 1) for n in range(len(at))],
            "largest": [4e-8 * (n + 1) for n in range(len(at))],
        }
        for name, title in (
            ("fused", "this package, fused"), ("scan", "this package, scan"),
            ("nn.LSTM", "torch.nn.LSTM"), ("keras", "Keras 3 on TensorFlow"),
        )
        for device in (("cpu",) if name == "keras" else ("cpu", "cuda"))
        for against, at in (("steps", curves.STEPS), ("scale", curves.SCALES))
    ]  # fmt: skip
    sizes = {"batch": 5, "features": 7, "units": 31, "steps": 31}
    return {"lines": lines, "sizes": sizes, "seeds": 5, "ulp": 2.0**-23, "missing": {}}


WHOLE: dict[str, Any] = {"device": "all", "expression": None, "paths": [], "full": True}


def report_of(
    measured: dict[str, Any],
    asked: dict[str, Any] = WHOLE,
    *,
    curves: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return run.assembled(
        measured,
        asked,
        status=measured["exit"],
        drawn=curves,
        command="python -m parity_tests --report R",
    )


def one(*tests: dict[str, Any], status: int = 0) -> dict[str, Any]:
    return report_of({"tests": list(tests), "seconds": 1.0, "exit": status})


@pytest.fixture
def libraries() -> None:
    lacking = page.missing()
    if lacking:
        pytest.skip(f"the page: {' and '.join(lacking)} not installed")


# The report.


BARE = """
import json, sys
for name in (
    "safetensors typer rich hypothesis keras tf_keras tensorflow jax jinja2 plotly itables pandas"
).split():
    sys.modules[name] = None
import pytest
class Collected:
    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items):
        told = [(item.nodeid, [marker.name for marker in item.iter_markers()]) for item in items]
        with open(sys.argv[1], "w") as file:
            json.dump(told, file)
raise SystemExit(pytest.main(sys.argv[2:], plugins=[Collected()]))
"""


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[tuple[str, list[str]]]]:
    """A run of a few goldens with torch, NumPy, h5py and pytest; all that it collected."""
    file = tmp_path_factory.mktemp("bare") / "collected.json"
    options = ("-qq", "-p", "no:cacheprovider", "--full", "-k", "test_goldens and cpu and sizes")
    done = subprocess.run(
        [sys.executable, "-c", BARE, str(file), *options, "parity_tests"],
        cwd=environment.ROOT, env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done, json.loads(file.read_text()) if file.exists() else []


def test_the_suite_needs_torch_numpy_h5py_and_pytest_alone(collected: Any) -> None:
    """On a GPU machine there may be nothing else."""
    done, tests = collected
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert len(tests) > 5000
    assert "." * 6 in done.stdout


def test_every_test_is_of_one_leg_and_every_leg_has_tests(collected: Any) -> None:
    tests = [told_of(identity, markers=markers) for identity, markers in collected[1]]
    assert {legs.leg_of(test).name for test in tests} == {leg.name for leg in legs.LEGS}
    assert sorted(legs.SHOWN) == sorted(leg.name for leg in legs.LEGS)
    elsewhere = told_of("../somewhere/test_parity.py::test_mine")
    assert legs.leg_of(elsewhere).name == "rest"


@pytest.mark.parametrize(
    ("identity", "markers", "leg"),
    [
        ("test_parity.py::test_float64_equals_the_oracle[a-cpu]", [], "equations"),
        ("test_parity.py::test_float64_equals_live_keras[a]", ["live"], "keras"),
        ("test_save.py::test_saved[tf_keras-a]", ["live"], "tf_keras"),
        ("test_time_major.py::test_equals_tf_keras[a]", ["live"], "time_major"),
        ("test_backends.py::test_equals_live_keras[jax]", ["live"], "backends"),
        ("test_goldens.py::test_equals_recorded_keras[a-cpu]", [], "goldens"),
        ("test_goldens_more.py::test_x", [], "goldens"),
        ("test_real.py::test_x", ["live"], "published"),
        ("test_files.py::test_hostile_hdf5_is_refused[a]", [], "hostile_hdf5"),
        ("test_files.py::test_old_forms", [], "files"),
        ("meta/test_stack_mutants.py::test_the_suite_kills[a]", [], "mutants"),
        ("meta/test_comparator.py::test_x", [], "instruments"),
        ("test_oracle.py::test_one_step_by_hand", [], "instruments"),
        ("test_citizen.py::test_x", [], "rest"),
    ],
)
def test_legs(identity: str, markers: list[str], leg: str) -> None:
    assert legs.leg_of(told_of(f"parity_tests/{identity}", markers=markers)).name == leg


def test_legs_count_by_device_and_say_why_tests_were_skipped() -> None:
    found = report_of(made_up(keras=False))
    by_name = {leg["name"]: leg for leg in found["legs"]}
    cases = sum(map(len, GROUPS.values()))
    assert by_name["equations"]["devices"]["cpu"]["passed"] == cases
    assert by_name["equations"]["devices"]["cuda"]["skipped"] == cases
    assert by_name["equations"]["skips"] == [{"reason": SKIPS[0][1], "count": cases}]
    assert by_name["keras"]["devices"]["cpu"]["passed"] == 0
    total = sum(sum(c.values()) for leg in found["legs"] for c in leg["devices"].values())
    assert total == len(found["tests"]) == sum(found["counts"].values())
    assert {skip["reason"] for skip in found["skips"]} == {reason for _, reason in SKIPS}
    judges = page.judges(found)
    assert "the float64 equations" in judges["held"]
    assert "live Keras 3" in judges["not held"]


@pytest.mark.parametrize(
    ("outcomes", "status", "verdict", "exit_status"),
    [
        (["passed", "skipped"], 0, "equal", 0),
        (["passed", "failed"], 1, "not equal", 1),
        (["passed", "error"], 1, "not equal", 1),
        (["passed", None], 2, "not equal", 2),
        (["failed"], 0, "not equal", 1),
        (["passed"], 2, "broken off", 2),
        (["skipped"], 0, "nothing ran", 1),
        ([], 5, "nothing ran", 5),
        ([], 0, "nothing ran", 1),
    ],
)
def test_the_verdict_and_the_exit_status(
    outcomes: list[str], status: int, verdict: str, exit_status: int
) -> None:
    tests = [told_of(f"parity_tests/a.py::test_{n}", outcome=o) for n, o in enumerate(outcomes)]
    found = one(*tests, status=status)
    assert found["verdict"] == verdict
    assert run.status_of(found) == exit_status
    assert found["exit"] == status


def test_mutants_are_told_from_both_files() -> None:
    own, goldens = "meta/test_{}mutants.py::test_the_{}_kills[{}]".format, "golden_"
    named = next(iter(test_golden_mutants.NOT_RECORDED))
    kind, _, name = named.partition(": ")
    made = [
        (own("", "suite", "h and c swapped"), "passed", None),
        (own(goldens, "golden_leg", "layer: h and c swapped"), "passed", None),
        (own(f"{kind}_", "suite", name), "passed", None),
        (own(goldens, "golden_leg", named), "skipped", f"{named}: given their masks"),
        (own("stack_", "suite", "weights from the top"), "failed", "the mutant lives"),
        ("meta/test_comparator.py::test_x", "passed", None),
    ]
    tests = [told_of(f"parity_tests/{i}", outcome=o, reason=r) for i, o, r in made]
    assert mutants.tried(tests) == [
        {"kind": "layer", "name": "h and c swapped", "suite": "killed", "goldens": "killed",
         "reasons": []},
        {"kind": kind, "name": name, "suite": "killed", "goldens": "not tried",
         "reasons": ["given their masks"]},
        {"kind": "stack", "name": "weights from the top", "suite": "not killed", "goldens": None,
         "reasons": ["the mutant lives"]},
    ]  # fmt: skip
    counts = [(kind["killed"], kind["lives"]) for kind in page.by_kind(mutants.tried(tests))]
    assert counts == [(1, 0), (1, 0), (0, 1)]


def test_infinities_get_through_json() -> None:
    worst = compared(1.0, 1e-12)
    worst["worst"] |= {"error": "infinite", "bound": float("inf"), "absolute": float("nan")}
    found = one(told_of("parity_tests/a.py::test_a", outcome="failed", comparisons=worst))
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text)["tests"][0]["comparisons"]["worst"]["absolute"] == "not a number"
    assert page.share_of(found["tests"][0]) == float("inf")


def test_an_error_that_was_meant_to_be_refused_has_no_share() -> None:
    beyond = compared(1e-3, 1e-12)
    assert page.share_of(told_of("a", comparisons=beyond)) is None
    assert page.share_of(told_of("a", comparisons=beyond, outcome="failed")) == pytest.approx(1e9)
    assert page.share_of(told_of("a", comparisons=compared(0.0, 0.0))) == 0
    assert page.share_of(told_of("a", comparisons=compared(1e-9, 0.0), outcome="failed")) == (
        float("inf")
    )


def test_the_environment_says_null_of_what_is_not_there() -> None:
    found = environment.described()
    assert found["versions"]["torch"]
    assert set(found["versions"]) == set(environment.PACKAGES)
    for name in ("keras", "jax", "tf_keras"):
        assert (found["versions"][name] is None) == (importlib.util.find_spec(name) is None)
    json.dumps(found, allow_nan=False)


def test_curves_on_a_tiny_scale() -> None:
    found = curves.measured(curves.points((1, 3), (0.1, 1.0)), seeds=2, live=False)
    lines = {(line["name"], line["against"]): line for line in found["lines"]}
    assert {name for name, _ in lines} == {"fused", "scan", "nn.LSTM"}
    for (_, against), line in lines.items():
        assert line["at"] == ([1, 3] if against == "steps" else [0.1, 1.0])
        for median, largest in zip(line["median"], line["largest"], strict=True):
            assert 0 < median <= largest < 1e-6
    assert found["missing"] == {"Keras 3 on TensorFlow": "not asked for"}


# The page, without a browser.


def test_the_page_comes_from_the_json_alone(
    tmp_path: Path, libraries: None, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "parity.json"
    source.write_text(json.dumps(report_of(made_up(400), curves=drawn())))
    command.main(["--render", str(source)])
    assert capsys.readouterr().out == f"{tmp_path / 'parity.html'}\n"
    html = (tmp_path / "parity.html").read_text()
    assert "Equal here" in html
    assert html.count("<script") == html.count("</script>") == 5
    for address in ("src=", "href=h", "@import", "url("):
        assert address not in html.split("<script")[0]
    command.main(["--render", str(source), "--out", str(tmp_path / "other.html")])
    assert (tmp_path / "other.html").read_text() == html


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "kerasish_lstm parity report"}'])
def test_another_file_is_refused(tmp_path: Path, libraries: None, text: str) -> None:
    source = tmp_path / "other.json"
    source.write_text(text)
    with pytest.raises(SystemExit, match=r"--render: .*other\.json"):
        run.render(source, None)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("made", "title"),
    [
        (made_up(300, failing=3), "Not equal"),
        ({"tests": [], "seconds": 0.0, "exit": 4}, "Nothing ran"),
        (
            {"tests": [told_of("parity_tests/a.py::test_a")], "seconds": 1.0, "exit": 2},
            "Broken off",
        ),
    ],
)
def test_what_is_not_equal_is_said_first(made: dict, title: str, libraries: None) -> None:
    html = page.rendered(report_of(made))
    assert f">{title}</h1>" in html
    assert ("ParityError: fused d_kernel" in html) == (title == "Not equal")


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({}, ""),
        ({"device": "cpu"}, "--device cpu"),
        ({"expression": "goldens"}, '-k "goldens"'),
        ({"paths": ["parity_tests/meta"]}, "parity_tests/meta"),
    ],
)
def test_a_part_of_the_suite_is_called_one(
    asked: dict[str, Any], text: str, libraries: None
) -> None:
    html = page.rendered(report_of(made_up(3), WHOLE | asked))
    said = html.partition("Only a part of the suite was asked for: ")[2].partition("</p>")[0]
    assert text in said
    assert bool(said) == bool(asked)


def test_where_the_cuda_leg_did_not_run_one_line_says_so(tmp_path: Path, libraries: None) -> None:
    line = (
        "CUDA: not run, since torch finds no CUDA device here (12 test functions). "
        "Where one is: python -m parity_tests --report DIR --device cuda"
    )
    found = report_of(made_up(3) | {"without_cuda": 12})
    assert found["not_run"] == line
    assert line in run.summary(found, tmp_path, [])
    assert page.rendered(found).count(line) == 1
    ran = report_of(made_up(3) | {"without_cuda": 0})
    assert ran["not_run"] is None
    del ran["not_run"]  # as in a report of an earlier version
    assert "CUDA: not run" not in page.rendered(ran)


def test_a_sample_is_called_one(libraries: None) -> None:
    for full in (False, True):
        html = page.rendered(report_of(made_up(3), WHOLE | {"full": full}))
        assert ("Long sweeps were sampled" in html) == (not full)


def test_a_hostile_id_is_text(libraries: None) -> None:
    hostile = told_of(HOSTILE, outcome="failed", reason="</script><b id=hostile>")
    mutant = told_of("parity_tests/meta/test_mutants.py::test_the_suite_kills[<b id=hostile>]")
    skipped = told_of("parity_tests/a.py::test_b", outcome="skipped", reason="<b id=hostile>")
    html = page.rendered(one(hostile, mutant, skipped, status=1))
    assert "<b id=hostile>" not in html
    assert html.count("&lt;b id=hostile&gt;") >= 4


def test_without_the_libraries_the_page_is_for_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "missing", lambda: ["jinja2", "itables"])
    lines = run.summary(one(told_of("parity_tests/a.py::test_a")), tmp_path, page.missing())
    assert lines[-1] == (
        "No page: jinja2 and itables not installed here. Where they are, "
        f"'python -m parity_tests --render {tmp_path / 'parity.json'}' makes it."
    )
    with pytest.raises(SystemExit, match="pip install jinja2 itables"):
        run.render(tmp_path / "parity.json", None)


# The command.


def main(*arguments: str) -> int:
    """``python -m parity_tests``, but for pytest in this process; its exit status."""
    with pytest.raises(SystemExit) as end:
        command.main(list(arguments))
    assert isinstance(end.value.code, int)
    return end.value.code


def test_a_report_from_end_to_end(
    tmp_path: Path,
    libraries: None,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two files, which are spread over processes; ``--full`` gets there."""
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "1")
    name, folder = "test_every_case_has_an_id_of_its_own", tmp_path / "report"
    own, beside = tmp_path / "test_whole.py", environment.ROOT / "parity_tests" / "test_parity.py"
    own.write_text("def test_whole(pytestconfig): assert pytestconfig.getoption('--full')\n")
    asked = ["--report", str(folder), "--no-curves", "--full", "-k", f"whole or {name}"]
    status = main(*asked, str(beside), str(own))
    said = capfd.readouterr().out
    assert status == 0, said
    assert {f.name for f in folder.iterdir()} == {"parity.json", "parity.xml", "parity.html"}
    found = json.loads((folder / "parity.json").read_text())
    assert found["verdict"] == "equal"
    assert {test["id"].rpartition("::")[2] for test in found["tests"]} == {name, "test_whole"}
    assert found["environment"]["git"]["commit"]
    suite = xml.etree.ElementTree.parse(folder / "parity.xml").getroot()
    assert {case.get("name") for case in suite.iter("testcase")} == {name, "test_whole"}
    assert "Equal here: 2 passed." in said
    assert "[100%]" in said  # how far it is
    assert str(folder / "parity.html") in said
    assert (found["not_run"] is None) == torch.cuda.is_available()


@pytest.mark.parametrize(
    ("device", "paths", "spreads"),
    [
        ("all", None, True),
        ("cpu", ["parity_tests/meta"], True),
        ("cpu", ["a/test_a.py", "test_b.py::test_b"], True),
        ("cpu", ["test_b.py::test_b[a.b]"], False),
        ("cuda", None, False),
    ],
)
def test_files_are_spread_over_the_cores(
    device: str, paths: list[str] | None, spreads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    everywhere = ["-n", "logical", "--dist", "loadfile"]
    assert run.spread(device, paths) == (everywhere if spreads else [])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run.spread(device, paths) == []


def test_a_report_without_the_libraries(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in page.NEEDS:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    test = tmp_path / "test_mine.py"
    test.write_text("def test_one(): assert 2 > 3, 'no <b>'\n")
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "parity.html").write_text("an earlier run's")
    assert main("--report", str(folder), "--no-curves", str(test)) == 1
    assert {f.name for f in folder.iterdir()} == {"parity.json", "parity.xml"}
    said = capfd.readouterr().out
    assert "No page: jinja2 and plotly and itables not installed here" in said
    found = json.loads((folder / "parity.json").read_text())
    assert found["verdict"] == "not equal"
    assert "no <b>" in found["tests"][0]["reason"]


def test_a_run_of_nothing_fails(tmp_path: Path) -> None:
    test = tmp_path / "test_mine.py"
    test.write_text("def test_one(): pass\n")
    assert main("--report", str(tmp_path), "--no-curves", "-k", "no_such", str(test)) == 5
    assert json.loads((tmp_path / "parity.json").read_text())["verdict"] == "nothing ran"


def test_no_command_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main([])
    assert "--report, --render" in capsys.readouterr().err


# The page in a browser.

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if importlib.util.find_spec("playwright") is None or not Path(CHROMIUM).exists():
        pytest.skip("playwright or chromium not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    lacking = page.missing()
    if lacking:
        pytest.skip(f"the page: {' and '.join(lacking)} not installed")
    made = made_up(failing=2)
    made["tests"].append(told_of(HOSTILE, outcome="error", reason="</script><b id=hostile>"))
    file = tmp_path_factory.mktemp("page") / "parity.html"
    file.write_text(page.rendered(report_of(made, curves=drawn())))
    assert file.stat().st_size < 8e6
    return file.as_uri()


class Opened:
    """The page, open and whole; ``said`` is what the console said, ``asked`` the network."""

    def __init__(self, browser: Any, address: str, width: int = 1280) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on(
            "console", lambda m: m.type in ("error", "warning") and self.said.append(m.text)
        )
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.goto(address)
        self.page.wait_for_selector("#cases tbody tr td.id", timeout=20000)
        self.page.wait_for_function(
            "document.querySelectorAll('.chart .main-svg').length >= 3", timeout=20000
        )

    def shown(self) -> int:
        """How many rows the table's foot speaks of."""
        return int(self.page.inner_text(".dt-info").split(" of ")[1].split()[0].replace(",", ""))


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Opened]:
    one = Opened(browser, address)
    yield one
    one.page.close()


@pytest.mark.slow
def test_the_page_opens_without_network_and_errors(opened: Opened) -> None:
    assert opened.said == []
    assert {url.partition(":")[0] for url in opened.asked} <= {"file", "blob", "data"}
    assert opened.page.inner_text("#trouble") == ""
    assert opened.page.locator("#hostile").count() == 0
    assert "<b id=hostile>" in opened.page.inner_text("#cases tbody")
    ready = opened.page.evaluate("performance.now()")
    assert ready < 20000  # a busy machine; 3 s where it is not


@pytest.mark.slow
def test_charts_have_drawn(opened: Opened) -> None:
    for name, lines in (("steps", 7), ("scale", 7), ("shares", 2)):
        traces = opened.page.locator(f"#chart-{name} .trace")
        assert traces.count() >= lines, name
        box = opened.page.locator(f"#chart-{name} .main-svg").first.bounding_box()
        assert box["width"] > 300
        assert box["height"] > 300


@pytest.mark.slow
def test_filters_filter(opened: Opened) -> None:
    total = opened.shown()
    assert total == 7001
    page = opened.page
    page.select_option("#filter-outcome", "failed")
    assert opened.shown() == 2
    page.select_option("#filter-outcome", "")
    page.select_option("#filter-leg", label="Mutants")
    assert opened.shown() == 2 * len(MUTANTS)
    page.fill("#filter-search", "h and c swapped")
    assert opened.shown() == 4
    page.fill("#filter-search", "")
    page.select_option("#filter-leg", "")
    page.select_option("#filter-device", "cuda")
    on_cuda = opened.shown()
    page.select_option("#filter-outcome", "skipped")
    assert 0 < on_cuda == opened.shown() < total
    page.select_option("#filter-outcome", "passed")
    assert "No case is like that." in page.inner_text("#cases tbody")


@pytest.mark.slow
def test_columns_sort_as_numbers(opened: Opened) -> None:
    head = opened.page.locator("#cases thead th", has_text="Ulps")
    head.click()
    opened.page.wait_for_selector("#cases th[aria-sort='descending']:has-text('Ulps')")
    cells = opened.page.locator("#cases tbody tr td:nth-child(10)").all_inner_texts()
    values = [float(text) for text in cells]
    assert values == sorted(values, reverse=True)
    assert values[0] > 1e12


@pytest.mark.slow
@pytest.mark.parametrize("width", [375, 768, 1280])
def test_nothing_overflows(browser: Any, address: str, width: int) -> None:
    opened = Opened(browser, address, width)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    opened.page.close()


@pytest.mark.slow
def test_light_and_dark(browser: Any, address: str) -> None:
    opened = Opened(browser, address)
    grounds, inks = [], []
    for scheme in ("light", "dark"):
        opened.page.emulate_media(color_scheme=scheme)
        style = "getComputedStyle(document.body).backgroundColor"
        grounds.append(opened.page.evaluate(style))
        tick = "getComputedStyle(document.querySelector('#chart-steps .xtick text')).fill"
        inks.append(opened.page.evaluate(tick))
    assert len(set(grounds)) == len(set(inks)) == 2
    opened.page.close()
