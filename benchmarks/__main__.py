"""Check every library against the float64 truth, time it, write the report.

    python -m benchmarks [--quick] [--cases a,b] [--libraries a,b] [--runs N] [--out DIR] ...
    python -m benchmarks --render FILE.json

Ends with 0; with 1 where a library was wrong or failed; with 2 where the command is; with 130 where
it was stopped.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # for the truth: NumPy's threads would spin, against each other's core
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from benchmarks import floors, libraries, report
from benchmarks.cases import (
    BASELINE,
    BUDGET,
    CLOSE_BUDGET,
    CUDA_LIBRARIES,
    GROUPS,
    LIBRARIES,
    MEMORY_SHAPES,
    OURS,
    OUT_OF_THE_RACE,
    QUICK_BUDGET,
    QUICK_LIBRARIES,
    QUICK_ROUNDS,
    QUICK_SHAPES,
    ROUNDS,
    START_REPEATS,
    START_SHAPE,
    TARGETS,
    WARM_UP,
    Case,
    cases_of,
)
from benchmarks.libraries import Library, Pace, environment

Run = dict[str, Any]


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def machine() -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    return {
        "cpu": model,
        "cores": cores(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="small shapes, few libraries: does it work?"
    )
    parser.add_argument("--cases", help=f"comma-separated, of {', '.join(GROUPS)}; default all")
    parser.add_argument(
        "--libraries", help=f"comma-separated, of {', '.join(LIBRARIES)}, or paths of .py files"
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda: the libraries on torch"
    )
    parser.add_argument(
        "--threads", type=int, default=min(2, cores()), help="of each library (default %(default)s)"
    )
    parser.add_argument("--rounds", type=int, help=f"turns of each library (default {ROUNDS})")
    parser.add_argument("--runs", type=int, default=1, help="times to do it all")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results",
        help="the folder of the files (default: benchmarks/results)",
    )  # fmt: skip
    parser.add_argument("--name", help="of the files in --out (default: the device, or quick)")
    parser.add_argument(
        "--render", type=Path, metavar="JSON", help="measure nothing: page and plots of this file"
    )
    options = parser.parse_args(argv)
    if options.render is not None:
        if not options.render.is_file():
            parser.error(f"--render: there is no file {options.render}")
        return options

    named = options.cases is not None
    options.groups = list(dict.fromkeys(options.cases.split(","))) if named else [*GROUPS]
    for group in options.groups:
        if group not in GROUPS:
            parser.error(f"--cases: no group {group!r}; there are {', '.join(GROUPS)}")
    known = CUDA_LIBRARIES if options.device == "cuda" else tuple(LIBRARIES)
    given = options.libraries.split(",") if options.libraries is not None else ()
    options.sources = {}
    for source in given or (QUICK_LIBRARIES if options.quick else known):
        path = Path(source)
        if path.suffix == ".py":
            if not path.is_file():
                parser.error(f"--libraries: there is no file {source}")
            name, source = path.stem, str(path.resolve())  # noqa: PLW2901
        elif source not in known:
            parser.error(
                f"--libraries: no library {source!r} on {options.device}; there are "
                f"{', '.join(known)}, and paths ending .py"
            )
        else:
            name = source
        if name in options.sources:
            parser.error(f"--libraries: {name} is there twice")
        options.sources[name] = source
    if not any(
        group in ("memory", "start") or cases_of(group, options.threads, options.quick)
        for group in options.groups
    ):
        parser.error(f"--cases: {options.cases} has no case with {options.threads} threads")
    if not 1 <= options.threads <= cores():
        parser.error(f"--threads: {options.threads} is not in 1..{cores()}, the cores there are")
    if options.rounds is None:
        options.rounds = QUICK_ROUNDS if options.quick else ROUNDS
    for name in ("rounds", "runs"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: {getattr(options, name)} is less than 1")
    if options.name is None:
        part = [*options.groups] if named else []
        part += [Path(source).stem for source in given]
        options.name = "-".join(["quick" if options.quick else options.device, *part])
    if Path(options.name).name != options.name or options.name in ("", ".."):
        parser.error(f"--name: {options.name!r} is not the name of a file")
    if options.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            parser.error("--device cuda: torch finds no CUDA device here")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=options.out):
            pass
    except OSError as error:
        parser.error(f"--out: {options.out} cannot be written to: {error.strerror}")
    return options


def counted(threads: int) -> str:
    return f"{threads} thread" + "s" * (threads > 1)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def sets_of(options: argparse.Namespace) -> dict[tuple[Any, ...], list[Case]]:
    """The cases to time, by what is timed in the same rounds: a case and its variants, and the
    cases of a growth."""
    sets: dict[tuple[Any, ...], dict[Case, None]] = {}
    for group in options.groups:
        for case in cases_of(group, options.threads, options.quick):
            shape = "growth" if group == "growth" else "x".join(map(str, case.shape))
            key = (case.threads, case.mode, shape, case.dtype)
            sets.setdefault(key, {})[case] = None
    by_threads = sorted(sets, key=lambda key: -key[0])  # as they are run; else in their order
    return {key: list(sets[key]) for key in by_threads}


def peaks(
    options: argparse.Namespace, variables: Callable[[int], dict[str, str]], threads: int
) -> floors.Peaks:
    quick = {"BENCHMARK_QUICK": "1"} if options.quick else {}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.floors"],
        cwd=libraries.ROOT, env=variables(threads) | quick, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def source() -> dict[str, str]:
    """What was measured: the commit, where this is a git checkout, and the engine's bytes."""
    found: dict[str, str] = {}
    engine = libraries.ROOT / "kerasish_lstm" / "native" / "engine.so"
    if engine.is_file():
        found["engine"] = hashlib.sha256(engine.read_bytes()).hexdigest()[:12]
    code = "kerasish_lstm benchmarks ':(exclude)*.md' ':(exclude)benchmarks/results'"
    commands = {"commit": "rev-parse --short=12 HEAD", "changes": f"status --short -- {code}"}
    for name, command in commands.items():
        try:
            done = subprocess.run(
                ["git", *shlex.split(command)], cwd=libraries.ROOT, capture_output=True, text=True,
                check=True,
            )  # fmt: skip
        except (OSError, subprocess.CalledProcessError):
            return found
        found[name] = done.stdout.strip()
    found["commit"] += " with changes" if found.pop("changes") else ""
    return found


def processor() -> tuple[int, int]:
    """Ticks of the machine's clock so far, and those that its host has kept for others."""
    try:
        ticks = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    except OSError:
        return 0, 0
    return sum(ticks[:8]), ticks[7]


def behind(run: Run) -> set[tuple[str, str]]:
    """(library, case) of a run that later ones need not measure: no verdict could be about it."""
    named = {(t.against, case.id) for t in TARGETS for case in t.cases}
    fastest: dict[str, float] = {}
    peers = [
        r for r in run["cases"] if r["status"] == "ok" and r["library"] not in (OURS, BASELINE)
    ]
    for row in run["cases"]:
        if row["status"] == "ok" and row["library"] != OURS:
            case = row["case"]
            fastest[case] = min(row["median"], fastest.get(case, row["median"]))
    return {
        (row["library"], row["case"])
        for row in peers
        if row["library"] in LIBRARIES
        and row["median"] > OUT_OF_THE_RACE * fastest[row["case"]]
        and (row["library"], row["case"]) not in named
    }


def one_run(
    options: argparse.Namespace,
    folder: Path,
    about: dict[str, Any],
    first: Run | None,
    save: Callable[[Run], None],
) -> Run:
    """Everything once: rows of times, of memory and of the start, the peaks and the floors.

    first: the first of the runs, which decides what later ones leave out.
    """
    begun, (ticks, stolen) = time.monotonic(), processor()
    left_out = set() if first is None else behind(first)

    def variables(threads: int) -> dict[str, str]:
        # Nobody looks at a quick run's times: its threads sleep where they would spin.
        quiet = {"OMP_WAIT_POLICY": "passive"} if options.quick else {}
        return environment(options.device, threads, folder) | quiet

    def complain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for row in rows:
            if row["status"] in ("wrong", "error"):
                say(f"  {row['library']}, {row['case']}: {row['message']}")
        return rows

    def fail(message: str) -> None:
        say(f"  {message}")
        run["failures"].append(message)

    sets = sets_of(options)
    pace = Pace(options.rounds, BUDGET, CLOSE_BUDGET, WARM_UP)
    if options.quick:
        pace = Pace(options.rounds, QUICK_BUDGET, QUICK_BUDGET, 0.0, 0.0)
    run: Run = {
        "cases": [], "memory": [], "start": [], "peaks": {}, "floors": {}, "failures": []
    }  # fmt: skip
    counts = sorted({options.threads, *(key[0] for key in sets)}, reverse=True)
    measured = counts if options.device == "cpu" else []
    for threads in measured:
        say(f"this machine's peaks, {counted(threads)}")
        run["peaks"][str(threads)] = peaks(options, variables, threads)

    fields = {"threads": options.threads}
    if "start" in options.groups and first is None:
        say("import and first call")
        case = Case(*(QUICK_SHAPES[1] if options.quick else START_SHAPE), **fields)
        repeats = 1 if options.quick else START_REPEATS
        found = libraries.start(
            options.sources, case, repeats, variables(options.threads), folder
        )  # fmt: skip
        run["start"] = complain(found)
    if "memory" in options.groups:
        say("peak memory of a training step")
        shapes = QUICK_SHAPES[1:] if options.quick else MEMORY_SHAPES
        cases = [Case(*shape, "training", **fields) for shape in shapes]
        asked = options.sources
        if first is not None:
            asked = {name: s for name, s in asked.items() if name in (OURS, BASELINE)}
        found = libraries.memory(asked, cases, variables(options.threads), folder)
        run["memory"] = complain(found)

    numbered = {key: number for number, key in enumerate(sets, 1)}
    for threads in counts:
        with ExitStack() as stack:
            say(f"starting {', '.join(options.sources)}, {counted(threads)}")
            started = [
                stack.enter_context(Library(name, source, variables(threads), folder))
                for name, source in options.sources.items()
            ]
            for library in started:
                library.greet()
                if library.about["status"] != "ok":
                    say(f"  {library.name}: {library.about['message']}")
                told = {k: v for k, v in library.about.items() if k != "imported"}  # all at once
                about["libraries"].setdefault(library.name, {"label": library.label, **told})
            for key, cases in sets.items():
                if key[0] != threads:
                    continue
                say(f"{numbered[key]}/{len(sets)} " + ", ".join(map(str, key[1:])))
                growing = key[2] == "growth"
                taking = [
                    each for each in started
                    if not growing or each.name in (OURS, BASELINE) or each.name not in LIBRARIES
                ]  # fmt: skip
                try:
                    found = complain(libraries.measure(cases, taking, pace, left_out))
                except Exception as error:  # the other sets are worth having
                    fail(f"{', '.join(map(str, key))}: {type(error).__name__}: {error}")
                    continue
                run["cases"] += [{**row, "growth": growing} for row in found]
                save(run)

    for threads in () if options.quick else measured:  # again: it may have been busy before
        try:
            again = peaks(options, variables, threads)
        except subprocess.CalledProcessError as error:
            fail(f"peaks, {counted(threads)}: {error}")
            continue
        run["peaks"][str(threads)] = floors.better(run["peaks"][str(threads)], again)
    if measured:
        for case in dict.fromkeys(case for cases in sets.values() for case in cases):
            run["floors"][case.id] = floors.floor(case, run["peaks"][str(case.threads)])
    now, stolen_now = processor()
    run["minutes"] = (time.monotonic() - begun) / 60
    run["steal"] = (stolen_now - stolen) / max(1, now - ticks)
    say(f"it took {run['minutes']:.0f} minutes")
    return run


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    if options.render is not None:
        content = json.loads(options.render.read_text())
        for path in report.write(options.render.parent, content, content["results"])[1:]:
            print(path)
        return 0
    about = {
        "name": options.name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": options.quick,
        "device": options.device,
        "threads": options.threads,
        "runs asked": options.runs,
        "rounds": options.rounds,
        "groups": options.groups,
        "machine": machine(),
        "source": source(),
        "libraries": {},
    }
    load = about["machine"]["load"]
    if load is not None and load > 0.5 and not options.quick:
        say(f"the machine is busy (load {load:.1f}): ratios of small differences will be noise")
    runs: list[Run] = []
    paths: list[Path] = []
    partial = report.partial(options.out, about)
    partial.unlink(missing_ok=True)  # an earlier one's
    with tempfile.TemporaryDirectory() as temporary:
        try:
            for number in range(1, options.runs + 1):
                if options.runs > 1:
                    say(f"run {number} of {options.runs}")

                def save(run: Run) -> None:
                    report.save(partial, about, [*runs, run], complete=False)

                runs.append(
                    one_run(options, Path(temporary), about, runs[0] if runs else None, save)
                )
                paths = report.write(options.out, about, runs)
        except KeyboardInterrupt:
            kept = [path for path in (*paths, partial) if path.is_file()]
            say(f"stopped after {len(runs)} of {options.runs} runs")
            say("what was measured: " + (", ".join(map(str, kept)) or "nothing yet"))
            return 130
    for path in paths:
        print(path)
    rows = [row for run in runs for table in ("cases", "memory", "start") for row in run[table]]
    failures = [failure for run in runs for failure in run["failures"]]
    return int(bool(failures) or any(row["status"] in ("wrong", "error") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
