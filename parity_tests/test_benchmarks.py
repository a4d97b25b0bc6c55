"""The benchmarks' driver, on its quick shapes: what it checks and writes, never how fast it was."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import floors, libraries, report, verdicts, worker
from benchmarks.cases import (
    BASELINE,
    GROUPS,
    LIBRARIES,
    MODES,
    OURS,
    QUICK_LIBRARIES,
    TARGETS,
    Case,
    Target,
    as_bfloat16,
    cases_of,
    data,
    result_names,
)
from benchmarks.truth import compare, truth

from .sampling import amount, sampled

ROOT = Path(__file__).resolve().parent.parent
TIMED = [g for g in GROUPS if g not in ("growth", "memory", "start")]
VARIANT_GROUPS = ("masks", "activations", "dropout", "structures", "dtypes")
VARIANTS = list(dict.fromkeys(c for g in VARIANT_GROUPS for c in cases_of(g, 2, True)))
LARGE = (64, 128, 256, 256)
QUICK = amount([name for name in QUICK_LIBRARIES if name != "torch_loop"], QUICK_LIBRARIES)

# Always right, without a calculation: the truth lies beside it.
RIGHT = """
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from benchmarks.cases import as_bfloat16, result_names
def prepare(case, data):
    return SimpleNamespace(case=case, calls=0, sign="", drawn=0)
def run(state):
    state.calls += 1
def between(state):
    if state.case.mode == "training":
        state.sign = "" if state.sign else "negated "
def draw_own_masks(state):
    state.drawn = 0.1
def output(state):
    case = state.case
    with np.load(Path(__file__).with_name(case.id + ".npz")) as true:
        found = [true[state.sign + name] + state.drawn for name in result_names(case)]
    if case.dtype == "bfloat16":
        return [as_bfloat16(array) for array in found]
    return [array.astype(case.dtype) for array in found]
"""
# Its output is a little off, or in training not a number; every run leaves a mark.
OFF = """
def run(state):
    with Path(__file__).with_name("runs").open("a") as runs:
        runs.write(state.case.id + chr(10))
right = output
def output(state):
    output, *gradients = right(state)
    off = 2 if state.case.dtype == "bfloat16" else output[0, 0] + 1e-4
    output[0, 0] = off if state.case.mode == "inference" else float("nan")
    return [output, *gradients]
"""
# Right at the first call alone: its gradients add up.
ADDING = """
def prepare(case, data, prepare=prepare):
    if case.recurrent_dropout:
        raise NotImplementedError("it knows no dropout")
    return prepare(case, data)
right = output
def output(state):
    output, *gradients = right(state)
    return [output, *(state.calls * gradient for gradient in gradients)]
"""
# Takes every case for the plain one in float32.
IGNORING = """
def prepare(case, data, prepare=prepare):
    return prepare(case.plain._replace(dtype="float32"), data)
"""
# Dies of two masked cases, and is there again for the others.
FRAGILE = """
import os
def prepare(case, data, prepare=prepare):
    if case.mask in ("right", "gaps") and case.mode == "inference":
        os._exit(9)
    return prepare(case, data)
"""
# Reads its weights once: what is written to them later it does not see.
STALE = """
between = lambda state: None
"""
# Those on TensorFlow, which is imported once for all: the file beside it names whose turn it is.
TENSORFLOW = ("tensorflow_predict", "tensorflow_function", "tensorflow_xla")
TOGETHER = f"""
from importlib import import_module
from pathlib import Path
modules = {{name: import_module("benchmarks.implementations." + name) for name in {TENSORFLOW}}}
def prepare(case, data):
    module = modules[Path(__file__).with_suffix(".turn").read_text()]
    return module, module.prepare(case, data)
def run(state):
    state[0].run(state[1])
def output(state):
    return state[0].output(state[1])
"""
# Without TensorFlow, which Keras would import on torch too.
ALONE = """
import sys
sys.modules["tensorflow"] = None
from benchmarks.implementations.keras_torch import between, draw_own_masks, output, prepare, run
"""
ABSENT = "import a_library_that_nobody_has"
DYING = "import os; os._exit(3)"


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a quick run wrote."""
    from benchmarks.__main__ import main

    folder = tmp_path_factory.mktemp("quick") / "results"
    asked = ["--libraries", ",".join(QUICK), "--name", "quick"]
    assert main(["--quick", "--threads", "2", "--out", str(folder), *asked]) == 0
    return folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Broken implementations side by side: their folder, and the run's only result."""
    folder = tmp_path_factory.mktemp("broken")
    for case in VARIANTS:
        other = {f"negated {name}": array for name, array in truth(case, negated=True).items()}
        np.savez(folder / f"{case.id}.npz", **truth(case), **other)
    sources = {
        "off": RIGHT + OFF, "adding": RIGHT + ADDING, "ignoring": RIGHT + IGNORING,
        "fragile": RIGHT + FRAGILE, "stale": RIGHT + STALE, "absent": ABSENT, "dying": DYING,
    }  # fmt: skip
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    paths = ",".join(str(folder / f"{name}.py") for name in sources)
    groups = ("--cases", ",".join((*VARIANT_GROUPS, "memory", "start")))
    groups = ("--name", "quick", *groups)
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "--quick",
        "--threads",
        "2",
        "--out",
        str(folder),
    ]
    done = subprocess.run(
        [*command, "--libraries", paths, *groups],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    (run,) = json.loads((folder / "quick.json").read_text())["results"]
    return folder, run


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are empty files: what they show is not what is tested."""
    there = importlib.util.find_spec("matplotlib") is not None
    suffixes = report.plots.SUFFIXES if there else ()
    monkeypatch.setattr(report.plots, "draw", lambda *_: dict.fromkeys(suffixes, b""))


# The cases and their truth


def test_ids_are_unique_and_every_target_is_measured() -> None:
    cases = {c for group in GROUPS for c in cases_of(group, 2, False)}
    assert len({case.id for case in cases}) == len(cases)
    for target in TARGETS:
        for case in target.cases if target.against != "memory" else ():
            assert {case, case.plain} <= cases
    assert {case for group in GROUPS for case in cases_of(group, 2, True)}.isdisjoint(cases)


def test_the_plain_case_of_a_variant_stands_beside_it() -> None:
    for quick in (False, True):
        for group in VARIANT_GROUPS:
            cases = cases_of(group, 2, quick)
            assert {case.plain for case in cases} <= set(cases)


def test_masks_have_the_same_steps_at_other_places() -> None:
    case = Case(16, 11, 3, 4)
    masks = {kind: data(case._replace(mask=kind))["mask"] for kind in ("right", "left", "gaps")}
    lengths = data(case._replace(mask="right"))["lengths"]
    assert data(case)["mask"] is data(case)["lengths"] is None
    assert all((mask.sum(1) == lengths).all() for mask in masks.values())
    assert (np.diff(masks["right"].astype(int), axis=1) <= 0).all()
    assert (masks["left"] == masks["right"][:, ::-1]).all()
    assert (np.abs(np.diff(masks["gaps"].astype(int), axis=1)).sum(1) > 1).any()
    assert lengths.min() >= 1 and lengths.max() <= 11 and len(set(lengths)) > 4


@pytest.mark.parametrize("case", VARIANTS, ids=lambda case: case.id)
def test_the_truth_is_autograds_in_float64(case: Case) -> None:
    """nn.LSTM's where it knows the case, else that of a loop of torch operations."""
    from benchmarks.implementations import torch_loop, torch_lstm

    if case.dtype == "bfloat16":
        case = case._replace(B=3)  # other shapes too: truth and data are any shape's
    exact = case._replace(dtype="float64")
    arrays = data(exact)
    if case.dtype == "bfloat16":
        given = data(case)
        arrays |= {"x": given["x"].astype(float)}
        arrays["weights"] = {name: w.astype(float) for name, w in given["weights"].items()}
    for module in (torch_lstm, torch_loop):
        try:
            state = module.prepare(exact, arrays)
        except NotImplementedError:
            continue
        module.run(state)
        found = dict(zip(result_names(case), module.output(state), strict=True))
        true = truth(case)
        assert list(found) == list(true)
        # torch's hardsigmoid has its sixth in float32, backwards.
        atol = 1e-11 if case.recurrent_activation == "sigmoid" else 1e-6
        for name, array in true.items():
            assert array.dtype == np.float64
            np.testing.assert_allclose(found[name], array, rtol=0, atol=atol)


@pytest.mark.parametrize("case", VARIANTS, ids=lambda case: case.id)
def test_the_loop_is_right_at_every_variant(case: Case) -> None:
    from benchmarks.implementations import torch_loop

    state = torch_loop.prepare(case, data(case))
    for negated in (True, False):
        torch_loop.between(state)
        torch_loop.run(state)
        found = dict(zip(result_names(case), torch_loop.output(state), strict=True))
        true = truth(case, negated=negated and case.mode == "training")
        assert compare(case, found, true)[1] == []
    torch_loop.draw_own_masks(state)
    torch_loop.run(state)
    drawn = torch_loop.output(state)[0]
    assert np.array_equal(drawn, found["output"]) == (not case.recurrent_dropout)


@pytest.mark.parametrize("mode", MODES)
def test_no_variant_has_the_plain_truth(mode: str) -> None:
    cases = [case for case in VARIANTS if case.mode == mode and case.dtype == "float32"]
    outputs = [truth(case)["output"] for case in cases]
    for i, one in enumerate(outputs):
        for other in outputs[:i]:
            assert one.shape != other.shape or np.abs(one - other).max() > 1e-3


def test_bfloat16_is_rounded_as_torch_rounds() -> None:
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    values[:3] = 1 + 2**-8, 1 + 3 * 2**-8, 0  # two ties
    assert (as_bfloat16(values) == torch.from_numpy(values).bfloat16().float().numpy()).all()


def test_compare_wants_the_cases_dtype() -> None:
    for dtype, given, said in (
        ("float32", np.float64, "output is float64, not float32"),
        ("float64", np.float32, "output is float32, not float64"),
        ("bfloat16", np.float32, "output is more precise than bfloat16"),
    ):
        case = Case(2, 3, 4, 5, dtype=dtype)
        true = truth(case)
        assert compare(case, {"output": true["output"].astype(given)}, true)[1] == [said]
    case = Case(2, 3, 4, 5, "training")
    true = truth(case)
    found = {name: array.astype(np.float32) for name, array in true.items()}
    assert compare(case, found, true)[1] == []
    found["bias_gradient"] = found["bias_gradient"] * np.float32(1.001)
    del found["kernel_gradient"]
    missing, off = compare(case, found, true)[1]
    assert missing == "kernel_gradient is not there"
    assert off == "bias_gradient is 1.0e-03 off, more than 3e-05"


# A quick run


def test_every_case_is_right_and_timed(quick: Path) -> None:
    result = json.loads((quick / "quick.json").read_text())
    (run,) = result["results"]
    assert set(result["libraries"]) == set(QUICK)
    found = {(r["library"], r["case"]): r for r in run["cases"] if not r["growth"]}
    cases = {c.id: c for group in TIMED for c in cases_of(group, 2, True)}
    assert set(found) == {(library, case) for library in QUICK for case in cases}
    assert {1, 2} == {case.threads for case in cases.values()}
    for (library, case), row in found.items():
        if row["status"] != "ok":
            assert row["status"] in ("unsupported", "missing"), row
            assert library not in (OURS, "torch_loop")
            continue
        assert set(row["errors"]) == set(result_names(cases[case]))
        assert all(0 <= e["error"] <= e["bound"] for e in row["errors"].values())
        low, high = row["quartiles"]
        assert 0 < low <= row["median"] <= high
        assert row["count"] >= result["rounds"] == len(row["round_medians"])
    for about in result["libraries"].values():
        if "torch" in about.get("versions", {}):
            assert about["threads"]["torch.get_num_threads"] == result["threads"]
    assert result["machine"]["cpu"] and result["machine"]["cores"] >= 1


def test_peaks_floors_growth_memory_and_start_are_measured(quick: Path) -> None:
    result = json.loads((quick / "quick.json").read_text())
    (run,) = result["results"]
    assert set(run["peaks"]) == {"1", "2"}
    for peaks in run["peaks"].values():
        assert min(*peaks["gemm"].values(), peaks["copy"], *dict(peaks["read"]).values()) > 0
    timed = {row["case"] for row in run["cases"]}
    assert set(run["floors"]) == timed
    assert all(floor["seconds"] > 0 for floor in run["floors"].values())
    fitted = {(g["axis"], g["mode"], g["library"]) for g in result["growth"]}
    assert fitted == {(a, m, name) for a in "TBH" for m in MODES for name in (OURS, BASELINE)}
    ours = [row for row in run["memory"] if row["library"] == OURS]
    assert ours and all(row["peak"] >= 0 for row in ours)
    (start,) = (row for row in run["start"] if row["library"] == OURS)
    assert start["imported"] > 0 and start["first_call"] > 0 and start["prepared"] > 0


def test_files(quick: Path) -> None:
    text = (quick / "quick.md").read_text()
    assert f"| case | {' | '.join(LIBRARIES[name] for name in QUICK)} |" in text
    for group in TIMED:
        section = text.split(f"### {GROUPS[group]}\n")[1].split("\n#")[0]
        rows = [s for s in section.splitlines() if s.startswith(("| inference", "| training"))]
        assert len(rows) == len(cases_of(group, 2, True))
    names = {path.name for path in quick.iterdir()}  # and no temporary ones
    if importlib.util.find_spec("matplotlib") is None:
        assert names == {"quick.json", "quick.md"}
        assert "No plots: matplotlib is not installed" in text
    else:
        pictures = {"quick.png", "quick-floor.png", "quick-growth.png"}
        assert names == {"quick.json", "quick.md", *pictures}
        for name in pictures:
            assert (quick / name).read_bytes().startswith(b"\x89PNG")
            assert f"![{name}]({name})" in text


def test_report_without_matplotlib(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = json.loads((quick / "quick.json").read_text())
    (tmp_path / "quick-floor.png").write_text("of an earlier run")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    report.write(tmp_path, result, result["results"])
    assert {path.name for path in tmp_path.iterdir()} == {"quick.json", "quick.md"}
    assert "No plots: matplotlib is not installed" in (tmp_path / "quick.md").read_text()


def test_several_runs_are_one_report(undrawn: None, quick: Path, tmp_path: Path) -> None:
    result = json.loads((quick / "quick.json").read_text())
    (run,) = result["results"]
    slow = json.loads(json.dumps(run))
    for row in slow["cases"]:
        if "median" in row:
            row["median"] *= 3
    report.write(tmp_path, result, [run, slow, slow])
    written = json.loads((tmp_path / "quick.json").read_text())
    assert written["runs"] == len(written["results"]) == 3
    for before, after in zip(result["growth"], written["growth"], strict=True):
        assert after["seconds"] == pytest.approx([3 * s for s in before["seconds"]])
        assert after["exponent"] == pytest.approx(before["exponent"])


def kinds_of(pair: tuple[str, Case]) -> str:
    library, case = pair
    return f"{library} {case.variant}-{library} {case.mode}"


@pytest.mark.live
@pytest.mark.slow
def test_the_other_libraries_are_right(tmp_path: Path) -> None:
    others = ("keras_torch", *TENSORFLOW[1:], "jax_jit", "openvino")
    pairs = sampled([(name, case) for name in others for case in VARIANTS], 0, kinds_of)
    pairs += [(TENSORFLOW[0], case) for case in VARIANTS]
    together, alone = tmp_path / "together.py", tmp_path / "keras_torch.py"
    together.write_text(TOGETHER)
    alone.write_text(ALONE)
    groups = {str(together): TENSORFLOW, str(alone): others[:1]}
    groups |= {name: (name,) for name in ("jax_jit", "openvino")}
    # Compiled faster, it is as right.
    quickly = amount({"XLA_FLAGS": "--xla_backend_optimization_level=0"}, {})
    variables = libraries.environment("cpu", 2, tmp_path) | quickly
    rows = []
    for source, names in groups.items():
        with libraries.Library(names[0], source, variables, tmp_path) as library:
            library.greet()
            for name in names:
                together.with_suffix(".turn").write_text(name)
                cases = [case for other, case in pairs if other == name]
                pace = libraries.Pace(1, 0.0, 0.0, 0.0, 0.0)
                found = libraries.measure(cases, [library], pace, ())
                rows += [{**row, "library": name} for row in found]
    assert len(rows) == len(pairs)
    for row in rows:
        if row["status"] in ("ok", "missing"):
            continue
        assert row["status"] == "unsupported" and row["mode"] == "training", row
        dropout = row["library"].startswith("tensorflow") and "dropout" in row["variant"]
        assert dropout or row["library"] == "tensorflow_predict", row


def test_files_are_named_for_what_was_asked_for(tmp_path: Path) -> None:
    from benchmarks.__main__ import arguments

    (tmp_path / "mine.py").touch()
    asked = ["--cases", "masks,dtypes", "--libraries", f"jax_jit,{tmp_path / 'mine.py'}"]
    asked += ["--out", str(tmp_path)]
    assert arguments(["--quick", *asked]).name == "quick-masks-dtypes-jax_jit-mine"
    assert arguments(asked).name == "cpu-masks-dtypes-jax_jit-mine"
    quick = arguments(["--quick", "--out", str(tmp_path)])
    assert (quick.name, tuple(quick.sources)) == ("quick", QUICK_LIBRARIES)


# What is wrong is not timed


def test_wrong_is_reported_and_never_timed(broken: tuple[Path, Any]) -> None:
    folder, run = broken
    rows = {row["case"]: row for row in run["cases"] if row["library"] == "off"}
    assert set(rows) == {case.id for case in VARIANTS}
    for case, row in rows.items():
        assert row["status"] == "wrong"
        if row["mode"] == "training":
            assert row["message"] == "output is not finite"
        else:
            assert row["message"].startswith("output is "), case
            assert " off, more than " in row["message"]
        assert "median" not in row and "count" not in row
    (row,) = (row for row in run["memory"] if row["library"] == "off")
    assert row["status"] == "wrong" and "peak" not in row
    # Two calls a case, to be checked by, and no more; memory and start check theirs too.
    alone = [row["case"] for t in ("memory", "start") for row in run[t] if row["library"] == "off"]
    expected = [*rows, *alone] * 2
    assert sorted((folder / "runs").read_text().split()) == sorted(expected)
    assert (folder / "quick.md").read_text().count("**wrong**") >= len(VARIANTS)


def test_gradients_that_add_up_are_wrong(broken: tuple[Path, Any]) -> None:
    _, run = broken
    status = {r["case"]: r["status"] for r in run["cases"] if r["library"] == "adding"}
    assert status.pop(next(c.id for c in VARIANTS if c.recurrent_dropout)) == "unsupported"
    known = {case: found for case, found in status.items() if found != "unsupported"}
    assert len(known) >= 10
    assert known == {case: "wrong" if "training" in case else "ok" for case in known}


def test_a_variant_that_is_ignored_is_wrong(broken: tuple[Path, Any]) -> None:
    _, run = broken
    status = {r["case"]: r["status"] for r in run["cases"] if r["library"] == "ignoring"}
    for case in VARIANTS:
        assert status[case.id] == ("ok" if case.variant == "plain" else "wrong"), case.id


def test_old_weights_are_wrong(broken: tuple[Path, Any]) -> None:
    folder, run = broken
    rows = {r["case"]: r for r in run["cases"] if r["library"] == "stale"}
    for case in VARIANTS:
        row = rows[case.id]
        unseen = case.mode == "inference" or case.recurrent_dropout  # its masks are its own
        assert row["status"] == ("ok" if unseen else "wrong"), case.id
        assert unseen or row["message"].startswith("after the last round: output is ")
        assert ("median" in row) == bool(unseen)
    assert (
        "stale, training-plain-4x7x5x8-2, wrong: after the last"
        in (folder / "quick.md").read_text()
    )


def test_missing_or_dead_library_is_a_row(broken: tuple[Path, Any]) -> None:
    folder, run = broken
    for name, status, message in (
        ("absent", "missing", "a_library_that_nobody_has is not installed"),
        ("dying", "error", "its process ended with 3"),
    ):
        rows = [row for row in run["cases"] if row["library"] == name]
        assert {row["case"] for row in rows} == {case.id for case in VARIANTS}
        rows += [row for t in ("memory", "start") for row in run[t] if row["library"] == name]
        assert {(row["status"], row["message"]) for row in rows} == {(status, message)}
    assert "not installed" in (folder / "quick.md").read_text()


def test_a_library_that_died_is_there_for_the_next_cases(broken: tuple[Path, Any]) -> None:
    _, run = broken
    rows = {r["case"]: r for r in run["cases"] if r["library"] == "fragile"}
    for case in VARIANTS:
        dead = case.mode == "inference" and case.mask in ("right", "gaps")
        assert rows[case.id]["status"] == ("error" if dead else "ok"), case.id


def test_a_growth_that_is_not_whole_has_no_exponent_and_is_no_plot(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report.plots, "by_case", lambda *_: None)  # the other plots
    result = json.loads((quick / "quick.json").read_text())
    for row in result["results"][0]["cases"]:
        if row["growth"] and row["mode"] == "training" and row["status"] == "ok":
            row["status"] = "wrong"
    report.write(tmp_path, result, result["results"])
    written = json.loads((tmp_path / "quick.json").read_text())
    assert {g["mode"] for g in written["growth"]} == {"inference"}
    lost = {"H", "B"}
    for row in result["results"][0]["cases"]:
        if row["growth"] and row["mode"] == "training":
            row["status"] = "ok" if row["shape"][0] == 2 and row["shape"][3] == 4 else "wrong"
    report.write(tmp_path, result, result["results"])
    written = json.loads((tmp_path / "quick.json").read_text())
    assert {g["axis"] for g in written["growth"] if g["mode"] == "training"} == set("TBH") - lost


# The command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--libraries", "kerasish,keras_on_abacus"), "no library 'keras_on_abacus'"),
        (("--libraries", "nowhere.py"), "there is no file nowhere.py"),
        (("--libraries", "kerasish,kerasish"), "kerasish is there twice"),
        (("--cases", "masks,gloves"), "no group 'gloves'; there are shapes, masks"),
        (("--threads", "0"), "--threads: 0 is not in 1.."),
        (("--runs", "0"), "--runs: 0 is less than 1"),
        (("--cases", ""), "--cases: no group ''"),
        (("--name", ".."), "--name: '..' is not the name of a file"),
        (("--name", ""), "--name: '' is not the name of a file"),
        (("--cases", "threads", "--threads", "1"), "--cases: threads has no case with 1 thread"),
        (("--render", "nowhere.json"), "--render: there is no file nowhere.json"),
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
    from benchmarks.__main__ import main

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(SystemExit) as stopped:
        main(["--device", "cuda", "--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert "torch finds no CUDA device here" in capsys.readouterr().err


# Verdicts, from made-up numbers


def row(case: Case, library: str, *medians: float, **more: Any) -> dict[str, Any]:
    middle = sorted(medians)[len(medians) // 2] if medians else 0.0
    return {
        "case": case.id, "library": library, "status": "ok", "growth": False, "errors": {},
        "median": middle, "round_medians": list(medians), **more,
    }  # fmt: skip


def run(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"cases": list(rows), "memory": [], "start": [], "peaks": {}, "floors": {}, **more}


def verdict(target: Target, *runs: dict[str, Any]) -> dict[str, Any]:
    (found,) = verdicts.judge(target, 2, list(runs))
    return found


def test_the_fastest_peer_sets_the_limit() -> None:
    case = Case(*LARGE)
    target = Target("", "peer", (case,), 1.0, 1.03)
    ours, torch_lstm = row(case, OURS, 1.02), row(case, BASELINE, 1.0)
    found = verdict(target, run(ours, torch_lstm, row(case, "onnxruntime", 1.1)))
    assert (found["against"], found["at_most"], found["met"]) == (BASELINE, 1.03, True)
    found = verdict(target, run(ours, torch_lstm, row(case, "onnxruntime", 0.99)))
    assert (found["against"], found["at_most"], found["met"]) == ("onnxruntime", 1.0, False)
    assert found["ratio"] == pytest.approx(1.02 / 0.99)
    # A peer that was wrong is none.
    wrong = row(case, "onnxruntime", 0.5, status="wrong")
    assert verdict(target, run(ours, torch_lstm, wrong))["met"] is True
    assert verdict(target, run(ours))["met"] is None
    found = verdict(target, run(row(case, OURS, 1.0, status="wrong"), torch_lstm))
    assert (found["met"], found["note"]) == (False, "wrong")
    # Each peer has its own limit: the fastest one here allows more.
    close = row(case, "onnxruntime", 1.005)
    found = verdict(target, run(ours, torch_lstm, close))
    assert (found["against"], found["at_most"], found["met"]) == ("onnxruntime", 1.0, False)
    assert found["note"] == f"of 2 of {len(LIBRARIES) - 1} peers"
    unable = [row(case, name, status="unsupported") for name in LIBRARIES if name != OURS]
    rest = [r for r in unable if r["library"] not in (BASELINE, "onnxruntime")]
    assert verdict(target, run(ours, torch_lstm, close, *rest))["note"] == ""
    # One that failed in one of the runs is not simply gone.
    failed = row(case, "onnxruntime", 0.5, status="error")
    runs = run(ours, torch_lstm, close, *rest), run(ours, torch_lstm, failed, *rest)
    assert verdict(target, *runs)["note"] == "of 1 of 2 peers"


def test_the_largest_ratio_of_the_runs_counts() -> None:
    case = Case(*LARGE)
    target = Target("", "peer", (case,), 1.0, 1.03)
    runs = [run(row(case, OURS, value), row(case, BASELINE, 1.0)) for value in (0.9, 1.04, 1.0)]
    found = verdict(target, *runs)
    assert (found["runs"], found["ratio"], found["met"]) == ([0.9, 1.04, 1.0], 1.04, False)
    # The run that is furthest beyond its own limit, not the one with the largest ratio.
    strict = run(row(case, OURS, 1.02), row(case, "jax_jit", 1.0))
    found = verdict(target, run(row(case, OURS, 1.025), row(case, BASELINE, 1.0)), strict)
    assert (found["ratio"], found["at_most"], found["met"]) == (1.02, 1.0, False)
    found = verdict(target, runs[0], run(row(case, BASELINE, 1.0)))
    assert (found["met"], found["runs"]) == (True, [0.9])
    assert found["note"].endswith("; 1 of 2 runs")


def test_ratios_are_taken_within_rounds_and_over_the_run() -> None:
    """The machine got twice as fast between two rounds, and nobody won by it."""
    case = Case(*LARGE)
    ours, other = row(case, OURS, 2.0, 1.02, 1.1), row(case, BASELINE, 2.0, 1.0, 1.0)
    ours["median"] = other["median"] = 1.0
    assert verdicts.ratio(ours, other) == verdicts.largest_ratio(ours, other) == 1.02
    ours["median"] = 1.04  # the whole run says otherwise
    assert verdicts.largest_ratio(ours, other) == 1.04
    other["round_medians"] = [None, 0.5, None]  # a slow one, in one round alone
    assert verdicts.ratio(ours, other) == 2.04
    other["round_medians"] = [None, None, None]
    assert verdicts.ratio(ours, other) == 1.04


def test_a_variant_is_held_against_the_plain_case() -> None:
    case = Case(*LARGE, structure="bidirectional")
    target = Target("", "plain", (case,), 1.05, times=2)
    plain = row(case.plain, OURS, 1.0)
    assert verdict(target, run(row(case, OURS, 2.08), plain))["met"] is True
    found = verdict(target, run(row(case, OURS, 2.2), plain, row(case, BASELINE, 1.0)))
    assert (found["ratio"], found["met"]) == (pytest.approx(1.1), False)
    assert found["against"] == "2 × kerasish, plain"
    assert verdict(target, run(row(case, OURS, 2.0)))["met"] is None


def test_a_target_may_name_a_library() -> None:
    case = Case(*LARGE, mask="right")
    target = Target("", "keras_torch", (case,), 1 / 3)
    for ours, met in ((1.0, True), (1.1, False)):
        found = verdict(target, run(row(case, OURS, ours), row(case, "keras_torch", 3.1)))
        assert (found["met"], found["against"]) == (met, "keras_torch")
    assert verdict(target, run(row(case, OURS, 1.0), row(case, BASELINE, 9.0)))["met"] is None


def test_bounds_grow_beyond_the_sums_they_are_set_for() -> None:
    assert Case(256, 64, 32, 32, "training").bound("bias_gradient") == 3e-5
    assert Case(1, 1000, 256, 1024, "training").bound("kernel_gradient") == 3e-5
    assert 4.2e-5 < Case(512, 64, 64, 128, "training").bound("bias_gradient") < 4.3e-5
    assert Case(512, 64, 64, 128, "training").bound("output") == 5e-6


def test_the_floor_and_memory_are_judged() -> None:
    case = Case(*LARGE)
    target = Target("", "floor", (case,), 1.15)
    floor = {case.id: {"seconds": 2.0, "by": "products"}}
    assert verdict(target, run(row(case, OURS, 2.2), floors=floor))["met"] is True
    found = verdict(target, run(row(case, OURS, 2.4), floors=floor))
    assert (found["ratio"], found["against"], found["met"]) == (1.2, "products", False)
    under = run(row(case, OURS, 2.2), row(case, "onnxruntime", 1.9), floors=floor)
    found = verdict(target, under)
    assert (found["met"], found["note"]) == (False, "floor too high: 0.95")
    assert verdict(target, run(row(case, OURS, 2.2)))["met"] is None

    case = case._replace(mode="training")
    target = Target("", "memory", (case,), 1.0)
    memory = [row(case, OURS, peak=90), row(case, BASELINE, peak=100)]
    assert verdict(target, run(memory=memory))["ratio"] == 0.9
    memory[0]["peak"] = 101
    assert verdict(target, run(memory=memory))["met"] is False
    memory[1]["status"] = "error"
    assert verdict(target, run(memory=memory))["met"] is None
    # A run in which nn.LSTM failed does not hide what another one says.
    worse = run(memory=[row(case, OURS, peak=900), row(case, BASELINE, peak=100)])
    found = verdict(target, worse, run(memory=memory))
    assert (found["met"], found["ratio"], found["note"]) == (False, 9.0, "1 of 2 runs")


def test_the_table_of_targets_counts() -> None:
    case = Case(*LARGE)
    runs = [run(row(case, OURS, 1.2), row(case, BASELINE, 1.0))]
    found = [v for target in TARGETS for v in verdicts.judge(target, 2, runs)]
    text = report.target_table(found)
    assert text.startswith(f"0 of 1 met; {len(found) - 1} not measured.")
    assert "against the fastest peer, training, 1×3×1×1; " in text.split("\n\n")[1]
    line = "| inference | 64×128×256×256 | torch_lstm | 1.200 | 1.200 | 1.03 | **not met** "
    assert line in text


def test_slow_libraries_take_part_in_fewer_rounds() -> None:
    pace = libraries.Pace(10, 1.0, 3.0, 0.0)
    assert pace.turns(OURS, 0.9, 0.001) == pace.turns(OURS, 5.0, 4.0) == 10
    assert pace.turns(BASELINE, 2.0, 0.1) == 2
    assert pace.turns("torch_loop", 0.16, 0.1) == 4 and pace.turns("torch_loop", 3.2, 2.0) == 2
    assert pace.turns("torch_loop", 40.0, 0.4) == 1 and pace.turns("a_file", 9.0, 0.1) == 10
    assert pace.repeats(OURS, 0.03, 0.001) == 10 and pace.repeats("torch_loop", 0.02, 0.01) == 5
    assert pace.repeats(OURS, 4.0, 4.0) == 1 and pace.repeats(OURS, 1e-9, 1e-9) == 4000
    # Whoever is close, whatever its name, is measured as ours is.
    assert pace.turns("torch_loop", 0.14, 0.1) == 10
    assert pace.repeats("torch_loop", 0.03, 0.02) == 10


def test_who_is_far_behind_in_the_first_run_is_in_no_later_one() -> None:
    from benchmarks.__main__ import behind

    case, other = Case(*LARGE), Case(*LARGE, mode="training")
    first = run(
        row(case, OURS, 0.5), row(case, BASELINE, 9.0), row(case, "onnxruntime", 1.0),
        row(case, "jax_jit", 1.9), row(case, "torch_loop", 2.1), row(other, "torch_loop", 3.0),
        row(case, "keras_torch", 5.0, status="wrong"),
    )  # fmt: skip
    assert behind(first) == {("torch_loop", case.id)}
    masked = Case(*LARGE, mask="right")  # where a target names it
    first = run(row(masked, "keras_torch", 9.0), row(masked, BASELINE, 1.0))
    assert behind(first) == set()


def test_a_library_that_is_in_the_first_run_alone() -> None:
    case = Case(*LARGE)
    both, once = row(case, OURS, 1.0, 2.0), row(case, "torch_loop", 3.0, 4.0)
    rows = verdicts.combined([[both, once], [both]])
    assert rows[0]["round_medians"] == [1.0, 2.0, 1.0, 2.0]
    assert rows[1]["round_medians"] == [3.0, 4.0, None, None]
    assert verdicts.ratio(rows[1], rows[0]) == 2.5
    failed = row(case, OURS, status="error", message="died")
    (found,) = verdicts.combined([[both], [failed], [both]])
    assert (found["status"], found["failed"]) == ("ok", "error in 1 of 3 runs")
    assert report.listed([found], ("error",)) == [
        f"- {OURS}, {case.id}, error in 1 of 3 runs: died"
    ]


def test_plots_that_fail_lose_no_numbers(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = json.loads((quick / "quick.json").read_text())
    monkeypatch.setattr(report.plots, "draw", lambda *_: 1 / 0)
    report.write(tmp_path, result, result["results"])
    assert "No plots: ZeroDivisionError: division by zero." in (tmp_path / "quick.md").read_text()
    assert result["results"][0]["failures"] == ["the plots: ZeroDivisionError: division by zero"]


def test_a_run_that_is_stopped_leaves_what_it_measured_and_older_files(
    undrawn: None,
    quick: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from benchmarks import __main__ as driver

    (measured,) = json.loads((quick / "quick.json").read_text())["results"]
    older = {"quick.json": "an older run's", "quick.md": "an older run's"}
    asked: list[Any] = []

    def one_run(options: Any, folder: Path, about: Any, first: Any, save: Any) -> Any:
        asked.append(first)
        about["libraries"] = json.loads((quick / "quick.json").read_text())["libraries"]
        if len(asked) > whole:
            if begins:
                save(measured | {"cases": measured["cases"][:3]})
            raise KeyboardInterrupt
        return measured

    monkeypatch.setattr(driver, "one_run", one_run)
    for whole, begins in ((0, False), (0, True), (1, True)):
        asked.clear()
        for name, text in older.items():
            (tmp_path / name).write_text(text)
        assert driver.main(["--quick", "--runs", "2", "--out", str(tmp_path)]) == 130
        said = capsys.readouterr().err
        assert f"stopped after {whole} of 2 runs" in said
        partial = tmp_path / "quick.partial.json"
        assert partial.is_file() == (str(partial) in said) == begins
        if begins:
            assert len(json.loads(partial.read_text())["results"]) == whole + 1
        if not whole:
            assert {name: (tmp_path / name).read_text() for name in older} == older
            assert ("nothing yet" in said) == (not begins)
            continue
        written = json.loads((tmp_path / "quick.json").read_text())
        assert (written["runs"], written["runs asked"], written["complete"]) == (1, 2, False)
        text = (tmp_path / "quick.md").read_text()
        assert "runs: 1 of 2" in text and "It was stopped before its end" in text


def test_a_file_of_numbers_becomes_a_page_again(undrawn: None, quick: Path, tmp_path: Path) -> None:
    from benchmarks.__main__ import main

    content = json.loads((quick / "quick.json").read_text())
    (tmp_path / "quick.json").write_text(json.dumps(content))
    assert main(["--render", str(tmp_path / "quick.json")]) == 0
    text = (quick / "quick.md").read_text()
    assert (tmp_path / "quick.md").read_text() == text and "stopped" not in text
    assert json.loads((tmp_path / "quick.json").read_text()) == content
    content |= {"complete": False, "groups": ["shapes"]}
    content["results"][0]["failures"] = ["a set of cases: RuntimeError: it broke"]
    (tmp_path / "quick.json").write_text(json.dumps(content))
    assert main(["--render", str(tmp_path / "quick.json")]) == 0
    text = (tmp_path / "quick.md").read_text()
    assert "It was stopped before its end" in text
    assert "\n- a set of cases: RuntimeError: it broke\n" in text
    assert "\n- the group growth: not asked for\n" in text
    assert json.loads((tmp_path / "quick.json").read_text())["complete"] is False


def test_a_worker_that_does_not_answer_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "asleep.py"
    path.write_text("import time\nprepare = lambda case, data: time.sleep(60)")
    with libraries.Library(
        "asleep", str(path), libraries.environment("cpu", 1, tmp_path), tmp_path
    ) as one:
        one.greet()
        assert one.about["status"] == "ok"
        begun = time.monotonic()
        answer = one.ask(0.5, do="prepare", case=Case(1, 1, 1, 1), arrays="")
        assert answer["message"] == "no answer in 0 s: it was stopped"
        assert time.monotonic() - begun < 5 and one.revive()
        assert one.about["status"] == "ok" and not one.revive()


def test_workers_see_no_settings_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XLA_FLAGS", "OMP_WAIT_POLICY", "KERASISH_LSTM_NATIVE", "SOMETHING_ELSE"):
        monkeypatch.setenv(name, "0")
    seen = libraries.environment("cpu", 1, tmp_path)
    assert not {"XLA_FLAGS", "OMP_WAIT_POLICY", "KERASISH_LSTM_NATIVE"} & set(seen)
    assert seen["SOMETHING_ELSE"] == "0" and seen["OMP_NUM_THREADS"] == "1"


def test_weights_change_between_training_steps_and_not_before_the_check(tmp_path: Path) -> None:
    (tmp_path / "some.py").write_text(
        "log = []\n"
        "prepare = lambda case, data: log\n"
        "run = lambda s: s.append('run')\n"
        "between = lambda s: s.append('between')\n"
        "output = lambda s: [[len(s)]]\n"
    )
    case = Case(1, 1, 1, 1)
    requests = [
        {"do": "prepare", "case": case, "arrays": str(tmp_path / "a.npz")},
        {"do": "time", "case": case, "warm_up": 0.0, "repeats": 2},
        {"do": "prepare", "case": case, "arrays": str(tmp_path / "b.npz")},
    ]
    answers = io.StringIO()
    worker.serve(map(json.dumps, requests), answers, str(tmp_path / "some.py"))
    assert [json.loads(line)["status"] for line in answers.getvalue().splitlines()] == ["ok"] * 4
    assert np.load(tmp_path / "a.npz")["output"].item() == 2
    warmed_up = 2  # a call at least
    assert np.load(tmp_path / "b.npz")["output"].item() == 2 + warmed_up + 4 + 2


@pytest.mark.parametrize("name", ["kerasish", "torch_lstm", "torch_loop"])
def test_what_changes_the_weights_keeps_their_size(name: str) -> None:
    implementation = worker.load(name)
    case = Case(2, 3, 4, 5, "training")
    state = implementation.prepare(case, data(case))
    implementation.run(state)
    before = implementation.output(state)
    implementation.between(state)
    implementation.run(state)
    assert np.abs(implementation.output(state)[0] - before[0]).max() > 1e-3
    implementation.between(state)
    implementation.run(state)
    for a, b in zip(implementation.output(state), before, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_both_ways_of_a_masked_torch_lstm_are_right(packs: bool, mode: str) -> None:
    implementation = worker.load("torch_lstm")
    case = Case(4, 7, 5, 8, mode, mask="right")
    state = implementation.prepare(case, data(case))
    state.packs = packs
    implementation.run(state)
    names = result_names(case)
    found = dict(zip(names, implementation.output(state), strict=True))
    assert not compare(case, found, truth(case))[1]


def test_a_mask_of_its_own_is_drawn_and_checked(tmp_path: Path) -> None:
    (tmp_path / "some.py").write_text(
        "import numpy as np\n"
        "prepare = lambda case, data: None\n"
        "run = draw_own_masks = lambda s: None\n"
        "output = lambda s: [np.ones((1, 1))]\n"
    )
    case = Case(1, 1, 1, 1, recurrent_dropout=0.25)
    prepare = {"do": "prepare", "case": case, "arrays": str(tmp_path / "a.npz")}
    requests = map(json.dumps, (prepare, {"do": "draw", "case": case}))
    answers = io.StringIO()
    worker.serve(requests, answers, str(tmp_path / "some.py"))
    _, _, answer = map(json.loads, answers.getvalue().splitlines())
    assert answer["message"] == "AssertionError: it draws no masks of its own"


def test_a_summary_keeps_the_rounds_apart() -> None:
    given = {"status": "ok", "seconds": 1.0, "rounds": {1: [3.0, 1.0, 2.0], 3: [5.0, 5.0]}}
    found = libraries.summary(given, 3)
    assert (found["median"], found["count"]) == (3.0, 5)
    assert found["round_medians"] == [2.0, None, 5.0]


# Floors and growth, from made-up peaks and times

PEAKS = {
    "threads": 2,
    "gemm": {"float32": 1e9, "float64": 5e8, "bfloat16": 4e9},
    "copy": 1e8,
    "read": [[4 << 20, 4e9], [16 << 20, 2e9]],
    "l1": 64 << 10,
    "l2": 4 << 20,
    "step": 3e-5,
}


def test_the_work_of_a_case() -> None:
    B, T, F, H = 2, 3, 4, 5
    plain = floors.work(Case(B, T, F, H))
    weights = 4 * H * (F + H + 1)
    assert plain["flops"] == 2 * B * T * (F + H) * 4 * H
    assert plain["bytes"] == 4 * (B * T * F + weights + B * H)
    assert (plain["recurrent"], plain["steps"]) == (4 * 4 * H * H, T)
    training = floors.work(Case(B, T, F, H, "training"))
    # Forward, both kernels' gradients, and h's; x needs none.
    assert training["flops"] == 2 * B * T * 4 * H * (2 * (F + H) + H)
    assert training["bytes"] == plain["bytes"] + 4 * weights and training["steps"] == 2 * T
    assert floors.work(Case(B, T, F, H, structure="bidirectional"))["flops"] == 2 * plain["flops"]
    stack = floors.work(Case(B, T, F, H, "training", structure="stack"))
    # The upper layer's input needs its gradient.
    assert stack["flops"] == training["flops"] + 2 * B * T * 4 * H * (2 * 2 * H + H + H)
    assert floors.work(Case(B, T, F, H, dtype="float64"))["bytes"] == 2 * plain["bytes"]
    lengths = data(Case(B, T, F, H, mask="gaps"))["lengths"]
    masked = floors.work(Case(B, T, F, H, mask="gaps"))
    assert masked["flops"] == 2 * lengths.sum() * (F + H) * 4 * H
    assert masked["steps"] == lengths.max()


def test_the_floor_is_the_largest_limit() -> None:
    case = Case(64, 128, 256, 256)
    needs = floors.work(case)
    found = floors.floor(case, PEAKS)
    assert (found["by"], found["seconds"]) == ("products", needs["flops"] / 1e9)
    assert floors.floor(case._replace(dtype="float64"), PEAKS)["seconds"] == needs["flops"] / 5e8
    found = floors.floor(case, PEAKS | {"copy": 1e3})
    assert (found["by"], found["seconds"]) == ("memory", needs["bytes"] / 1e3)
    # The recurrent weights, at every step: what the L2s (the L1s) do not hold, at the rate of the
    # largest size not above theirs (of the L2s).
    case = Case(1, 1000, 256, 1024)  # 16 MiB
    found = floors.floor(case, PEAKS | {"gemm": {"float32": 1e11}})
    assert found["by"] == "weights"
    assert found["seconds"] == 1000 * ((12 << 20) / 2e9)
    # A larger size that was read faster shows that theirs can be.
    faster = {"read": [*PEAKS["read"], [32 << 20, 3e9]]}
    limits = floors.floor(case, PEAKS | faster)["limits"]
    assert limits["weights"] == 1000 * ((12 << 20) / 3e9)
    limits = floors.floor(case._replace(H=512), PEAKS)["limits"]
    assert limits["weights"] == 1000 * (((4 << 20) - (64 << 10)) / 4e9)
    limits = floors.floor(case._replace(H=256), PEAKS)["limits"]
    assert limits["weights"] == 1000 * (((1 << 20) - (64 << 10)) / 4e9)
    assert "weights" not in floors.floor(case._replace(H=64), PEAKS)["limits"]  # the L1s hold them


def test_the_better_of_two_measurements() -> None:
    other = PEAKS | {"copy": 2e8, "step": 4e-5, "read": [[4 << 20, 3e9], [16 << 20, 5e9]]}
    found = floors.better(PEAKS, other)
    assert (found["copy"], found["gemm"], found["step"]) == (2e8, PEAKS["gemm"], 3e-5)
    assert found["read"] == [[4 << 20, 4e9], [16 << 20, 5e9]]


def test_exponents_are_fitted() -> None:
    sizes = [2.0, 4.0, 8.0, 16.0]
    assert verdicts.exponent(sizes, [3 * n**1.5 for n in sizes]) == pytest.approx(1.5)
    assert verdicts.exponent([1, 10, 100], [1.0, 5.0, 1.0]) == pytest.approx(0)
    shapes = {"H": ((2, 3, 4, 8), (2, 3, 4, 16), (2, 3, 4, 32))}
    rows = [
        row(Case(*shape, mode), name, shape[3] ** power, growth=True)
        for shape in shapes["H"]
        for mode in MODES
        for name, power in ((OURS, 1.0), (BASELINE, 2.0))
    ]
    rows[-1]["status"] = "wrong"
    found = {(g["mode"], g["library"]): g["exponent"] for g in verdicts.exponents(rows, shapes, 2)}
    assert found == {
        ("inference", OURS): pytest.approx(1),
        ("inference", BASELINE): pytest.approx(2),
        ("training", OURS): pytest.approx(1),
    }


def test_the_peak_of_memory_is_that_of_the_call() -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells")
    before = np.ones(32 << 17)  # 32 MiB, freed before
    del before
    size = 96 << 20
    peak = worker.peak_memory(lambda n: np.ones(n // 8).sum(), size)
    assert size * 0.9 < peak < size * 1.3


def test_a_first_call_beyond_patience_is_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some.py").write_text(
        "prepare = lambda case, data: []\nrun = lambda s: s.append(1)"
    )
    monkeypatch.setattr(worker, "PATIENCE", -1.0)
    request = {"do": "prepare", "case": Case(1, 1, 1, 1), "arrays": str(tmp_path / "a.npz")}
    answers = io.StringIO()
    worker.serve([json.dumps(request)], answers, str(tmp_path / "some.py"))
    _, answer = map(json.loads, answers.getvalue().splitlines())
    assert answer == {"status": "too slow", "message": "one call took 0 s: not gone on with"}
    assert not (tmp_path / "a.npz").exists()


def test_load_takes_a_path(tmp_path: Path) -> None:
    (tmp_path / "some.py").write_text("X = 1")
    assert worker.load(str(tmp_path / "some.py")).X == 1


def test_files_measures_and_says_whether_the_targets_are_met(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.files import main

    code = main(["--mebibytes", "1", "--rounds", "1", "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "files.json").read_text())["rows"]
    assert [(row["name"], row["layers"]) for row in rows] == [("one layer", 1), ("eight layers", 8)]
    assert all(0.8 < row["bytes"] / 2**20 <= 1.01 and row["load_keras"] > 0 for row in rows)
    met = all(row["speed"] >= 1 / 3 and row["memory"] <= 1.3 for row in rows)
    assert code == (not met)
    assert (tmp_path / "files.md").read_text() in capsys.readouterr().out
