"""Check every library against the float64 truth, time it, write the report.

    python -m benchmarks [--quick] [--cases a,b] [--libraries a,b] [--runs N] [--out DIR] ...

Ends with 0; with 1 where a library was wrong or failed; with 2 where the command is.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
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
    QUICK_BUDGET,
    QUICK_LIBRARIES,
    QUICK_ROUNDS,
    QUICK_SHAPES,
    ROUNDS,
    START_REPEATS,
    START_SHAPE,
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
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=min(2, cores()))
    parser.add_argument("--rounds", type=int, help=f"turns of each library (default {ROUNDS})")
    parser.add_argument("--runs", type=int, default=1, help="times to do it all")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--name", help="of the files in --out (default: the device, or quick)")
    options = parser.parse_args(argv)

    options.groups = list(dict.fromkeys(options.cases.split(","))) if options.cases else [*GROUPS]
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
    if not 1 <= options.threads <= cores():
        parser.error(f"--threads: {options.threads} is not in 1..{cores()}, the cores there are")
    if options.rounds is None:
        options.rounds = QUICK_ROUNDS if options.quick else ROUNDS
    for name in ("rounds", "runs"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: {getattr(options, name)} is less than 1")
    if options.name is None:
        options.name = "quick" if options.quick else options.device
    if Path(options.name).name != options.name:
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


def one_run(options: argparse.Namespace, folder: Path, about: dict[str, Any]) -> Run:
    """Everything once: rows of times, of memory and of the start, the peaks and the floors."""

    def variables(threads: int) -> dict[str, str]:
        # Nobody looks at a quick run's times: its threads sleep where they would spin.
        quiet = {"OMP_WAIT_POLICY": "passive"} if options.quick else {}
        return environment(options.device, threads, folder) | quiet

    def complain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for row in rows:
            if row["status"] in ("wrong", "error"):
                say(f"  {row['library']}, {row['case']}: {row['message']}")
        return rows

    sets = sets_of(options)
    pace = Pace(options.rounds, BUDGET, CLOSE_BUDGET)
    if options.quick:
        pace = Pace(options.rounds, QUICK_BUDGET, QUICK_BUDGET)
    run: Run = {"cases": [], "memory": [], "start": [], "peaks": {}, "floors": {}}
    counts = sorted({options.threads, *(key[0] for key in sets)}, reverse=True)
    measured = counts if options.device == "cpu" else []
    for threads in measured:
        say(f"this machine's peaks, {counted(threads)}")
        run["peaks"][str(threads)] = peaks(options, variables, threads)

    fields = {"threads": options.threads}
    if "start" in options.groups:
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
        found = libraries.memory(options.sources, cases, variables(options.threads), folder)
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
                about["libraries"].setdefault(
                    library.name, {"label": library.label, **library.about}
                )
            for key, cases in sets.items():
                if key[0] != threads:
                    continue
                say(f"{numbered[key]}/{len(sets)} " + ", ".join(map(str, key[1:])))
                growing = key[2] == "growth"
                taking = [
                    each for each in started
                    if not growing or each.name in (OURS, BASELINE) or each.name not in LIBRARIES
                ]  # fmt: skip
                found = complain(libraries.measure(cases, taking, pace))
                run["cases"] += [{**row, "growth": growing} for row in found]

    for threads in (
        () if options.quick else measured
    ):  # again, since the machine may have been busy before
        again = peaks(options, variables, threads)
        run["peaks"][str(threads)] = floors.better(run["peaks"][str(threads)], again)
    if measured:
        for case in dict.fromkeys(case for cases in sets.values() for case in cases):
            run["floors"][case.id] = floors.floor(case, run["peaks"][str(case.threads)])
    return run


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    about = {
        "name": options.name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": options.quick,
        "device": options.device,
        "threads": options.threads,
        "rounds": options.rounds,
        "groups": options.groups,
        "machine": machine(),
        "libraries": {},
    }
    load = about["machine"]["load"]
    if load is not None and load > 0.5 and not options.quick:
        say(f"the machine is busy (load {load:.1f}): ratios of small differences will be noise")
    runs: list[Run] = []
    paths: list[Path] = []
    with tempfile.TemporaryDirectory() as temporary:
        try:
            for number in range(1, options.runs + 1):
                if options.runs > 1:
                    say(f"run {number} of {options.runs}")
                runs.append(one_run(options, Path(temporary), about))
                paths = report.write(options.out, about, runs)
        except KeyboardInterrupt:
            say("stopped; " + (f"{len(runs)} runs are written" if runs else "nothing is written"))
            return 130
    for path in paths:
        print(path)
    rows = [row for run in runs for table in ("cases", "memory", "start") for row in run[table]]
    return int(any(row["status"] in ("wrong", "error") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
