"""``--report``: run the suite in processes of its own; write DIR/parity.json, .xml and .html."""

from __future__ import annotations

import importlib.util
import json
import math
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from kerasish_lstm.storage import write_atomically
from pytest_kerasish_lstm import without_cuda

from . import curves, environment, legs, mutants, page

FORMAT, VERSION = "kerasish_lstm parity report", 1
MAKE_PAGE = "python -m parity_tests --render"


def report(
    folder: Path,
    *,
    device: str = "all",
    expression: str | None = None,
    paths: list[str] | None = None,
    full: bool = False,
    with_curves: bool = True,
    command: str = "python -m parity_tests",
) -> int:
    """Run, write the files, print a summary. Returns pytest's status, never 0 if nothing ran."""
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    drawn = None
    if with_curves:
        print("Error curves, then the suite.", flush=True)
        drawn = curves.measured() if full else curves.measured(curves.points()[::2], seeds=3)
    for name in ("parity.json", "parity.xml", "parity.html"):  # an earlier run's would contradict
        (folder / name).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".run.") as scratch:
        raw, junit = Path(scratch, "raw.json"), Path(scratch, "parity.xml")
        options = [f"--parity-report={raw}", f"--junitxml={junit}", f"--parity-device={device}"]
        options += ["-k", expression] if expression else []
        options += ["--full"] if full else []
        options += spread(device, paths)
        done = subprocess.run(
            [sys.executable, "-u", "-m", "pytest", "-p", "pytest_kerasish_lstm",
             "-c", str(environment.ROOT / "setup.cfg"), *options, "--", *_absolute(paths)],
            cwd=environment.ROOT,
            check=False,
        )  # fmt: skip
        measured = json.loads(raw.read_text()) if raw.exists() else {"tests": [], "seconds": 0.0}
        if junit.exists():
            junit.replace(folder / junit.name)
    asked = {"device": device, "expression": expression, "paths": paths or [], "full": full}
    found = assembled(measured, asked, status=done.returncode, drawn=drawn, command=command)
    write_atomically(folder / "parity.json", json.dumps(found, indent=1, allow_nan=False).encode())
    lacking = page.missing()
    if not lacking:
        write_atomically(folder / "parity.html", page.rendered(found).encode())
    print("\n".join(summary(found, folder, lacking)))
    return status_of(found)


def spread(device: str, paths: list[str] | None) -> list[str]:
    """pytest's options for every core, as in the README: none for one file, nor for one GPU."""
    files = [path.partition("::")[0] for path in paths or [""]]
    one = len(files) == 1 and files[0].endswith(".py")
    if one or device == "cuda" or importlib.util.find_spec("xdist") is None:
        return []
    return ["-n", "logical", "--dist", "loadfile"]


def _absolute(paths: list[str] | None) -> list[str]:
    """Paths of pytest, which may go on with ``::test``, from where the caller stands."""
    given = [path.partition("::") for path in paths or [str(environment.ROOT / "parity_tests")]]
    return [f"{Path(path).absolute()}{colons}{rest}" for path, colons, rest in given]


def assembled(
    measured: dict[str, Any],
    asked: dict[str, Any],
    *,
    status: int,
    drawn: dict[str, Any] | None,
    command: str,
) -> dict[str, Any]:
    """The report, from what the plugin wrote."""
    tests = [
        # A test that was broken off has no outcome.
        {**_finite(test), "leg": legs.leg_of(test).name, "outcome": test["outcome"] or "error"}
        for test in measured["tests"]
    ]
    found: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "command": command,
        "asked": asked,
        "seconds": measured["seconds"],
        "exit": status,
        "counts": legs.counted(tests),
        "environment": environment.described(),
        "legs": legs.summed_up(tests),
        "skips": legs.reasons(tests),
        "not_run": _not_run(measured.get("without_cuda", 0)),
        "mutants": mutants.tried(tests),
        "curves": drawn,
        "tests": tests,
    }
    found["verdict"] = verdict(found)
    return found


def _not_run(functions: int) -> str | None:
    """A line on the CUDA leg where its tests were not collected."""
    again = "python -m parity_tests --report DIR --device cuda"
    return f"{without_cuda(functions)} {again}" if functions else None


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: their names stand for them."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    return value


def verdict(found: dict[str, Any]) -> str:
    """``equal``, ``not equal``, ``nothing ran``; or ``broken off``: pytest failed, and no test."""
    counts = found["counts"]
    if counts["failed"] or counts["error"]:
        return "not equal"
    if not counts["passed"]:
        return "nothing ran"
    return "equal" if found["exit"] == 0 else "broken off"


def status_of(found: dict[str, Any]) -> int:
    """The exit status: 0 for ``equal`` alone."""
    return 0 if found["verdict"] == "equal" else int(found["exit"]) or 1


def summary(found: dict[str, Any], folder: Path, lacking: list[str]) -> list[str]:
    """Lines for a terminal: the legs with their counts, the verdict, where the files are."""
    lines = [""]
    for leg in found["legs"]:
        for device, counts in leg["devices"].items():
            ran = counts["passed"] + counts["failed"] + counts["error"]
            failed = counts["failed"] + counts["error"]
            lines.append(
                f"{leg['title']:<32} {device:<5} {ran:>6} ran {failed:>5} failed "
                f"{counts['skipped']:>5} skipped"
            )
    lines += [found["not_run"]] if found["not_run"] else []
    lines.append(f"{page.TITLES[found['verdict']]}: {page.in_words(found['counts'])}.")
    lines += [str(path) for path in sorted(folder.glob("parity.*"))]
    if lacking:
        where = shlex.quote(str(folder / "parity.json"))
        lines.append(
            f"No page: {' and '.join(lacking)} not installed here. Where they are, "
            f"'{MAKE_PAGE} {where}' makes it."
        )
    return lines


def render(source: Path, target: Path | None) -> Path:
    """``--render``: the page of a report's JSON, beside it unless ``target`` says where."""
    lacking = page.missing()
    if lacking:
        raise SystemExit(
            f"--render: {' and '.join(lacking)} not installed: pip install {' '.join(lacking)}"
        )
    try:
        found = json.loads(source.read_text())
    except (OSError, ValueError) as error:
        raise SystemExit(f"--render: cannot read {source}: {error}") from error
    if not isinstance(found, dict) or (found.get("format"), found.get("version")) != (
        FORMAT,
        VERSION,
    ):
        raise SystemExit(f"--render: {source} is no {FORMAT}, version {VERSION}.")
    target = source.with_suffix(".html") if target is None else target
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, page.rendered(found).encode())
    return target
