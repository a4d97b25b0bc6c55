"""Check every library against the float64 truth, time it, write the report.

    python -m benchmarks [--quick] [--libraries a,b] [--device cuda] [--threads N] [--out DIR]

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
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import report
from benchmarks.cases import (
    BOUNDS,
    BUDGET,
    CLOSE,
    CLOSE_BUDGET,
    CUDA_LIBRARIES,
    LIBRARIES,
    MODES,
    MOST_REPEATS,
    QUICK_BUDGET,
    QUICK_LIBRARIES,
    QUICK_ROUNDS,
    QUICK_SHAPES,
    ROUNDS,
    SHAPES,
    Case,
    data,
)
from kerasish_lstm.parity import oracle

ROOT = Path(__file__).resolve().parent.parent
SLOW = 0.5  # seconds; a call this long needs no warm-up in each round


class Library:
    """A library's process: lines of JSON to it and from it (see worker.py)."""

    def __init__(self, name: str, source: str, environment: dict[str, str], folder: Path) -> None:
        self.name = name
        self.label = LIBRARIES.get(name, name)
        self.stderr = folder / f"{name}.stderr"
        with self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.worker", source],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=ROOT,
                env=environment,
                text=True,
            )

    def read(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        code = self.process.wait()
        last = self.stderr.read_text(errors="replace").strip().splitlines()[-1:]
        message = f"its process ended with {code}" + "".join(f": {line}" for line in last)
        return {"status": "error", "message": message}

    def ask(self, **request: Any) -> dict[str, Any]:
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except OSError:  # it has died; read() says how
            pass
        return self.read()

    def greet(self) -> None:
        self.about = self.read()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


class Pace(NamedTuple):
    """How often to call: in ``rounds`` turns, ``budget`` seconds a library and case together."""

    rounds: int
    budget: float
    close_budget: float

    def repeats(self, library: str, seconds: float) -> int:
        budget = self.close_budget if library in CLOSE else self.budget
        return max(1, min(MOST_REPEATS, int(budget / self.rounds / max(seconds, 1e-9))))


def truth(case: Case) -> dict[str, np.ndarray]:
    """The float64 output (B, H) and, in training, the gradients of its sum, Keras's layout."""
    arrays = data(case)
    inputs = [arrays[name] for name in ("x", "kernel", "recurrent_kernel", "bias")]
    output = oracle.forward(*inputs, mask=arrays["mask"]).output
    if case.mode == "inference":
        return {"output": output}
    gradients = oracle.gradients(*inputs, mask=arrays["mask"], d_output=np.ones_like(output))
    return {
        "output": output,
        "kernel_gradient": gradients.kernel,
        "recurrent_kernel_gradient": gradients.recurrent_kernel,
        "bias_gradient": gradients.bias,
    }


def compare(found: dict[str, np.ndarray], true: dict[str, np.ndarray]) -> tuple[dict, list[str]]:
    """The error of each array beside its bound, and what is wrong, in words."""
    errors, wrong = {}, []
    for name, expected in true.items():
        errors[name] = {"error": None, "bound": BOUNDS[name]}
        actual = found.get(name)
        if actual is None:
            wrong.append(f"{name} is not there")
        elif actual.shape != expected.shape:
            wrong.append(f"{name} has shape {actual.shape}, not {expected.shape}")
        elif actual.dtype != np.float32:
            wrong.append(f"{name} is {actual.dtype}, not float32")
        elif not np.isfinite(actual).all():
            wrong.append(f"{name} is not finite")
        else:
            scale = 1.0 if name == "output" else float(np.abs(expected).max())
            error = float(np.abs(actual - expected).max()) / scale
            errors[name]["error"] = error
            if not error <= BOUNDS[name]:
                wrong.append(f"{name} is {error:.1e} off, more than {BOUNDS[name]:.0e}")
    return errors, wrong


def check(library: Library, case: Case, true: dict[str, np.ndarray], arrays: Path) -> dict:
    """Run a case twice, untimed, and hold it against the truth: the case's row in the report."""
    row = {
        "library": library.name,
        "case": case.id,
        "shape": list(case.shape),
        "mode": case.mode,
        "masked": case.masked,
        "message": "",
        "errors": {},
    }
    answer = library.about
    if answer["status"] == "ok":
        answer = library.ask(do="prepare", case=case, arrays=str(arrays))
    if answer["status"] != "ok":
        return row | {"status": answer["status"], "message": answer["message"]}
    try:
        with np.load(arrays) as found:
            row["errors"], wrong = compare(dict(found), true)
    except (OSError, ValueError) as error:
        return row | {"status": "error", "message": f"its arrays cannot be read: {error}"}
    arrays.unlink()
    if wrong:
        return row | {"status": "wrong", "message": "; ".join(wrong)}
    row |= {"status": "ok", "first_call": answer["first"]}
    return row | {"seconds": answer["second"], "rounds": []}


def measure(cases: list[Case], libraries: list[Library], pace: Pace, folder: Path) -> list[dict]:
    """Rows of cases that belong together. Each is right before the first of them is timed."""
    rows = []
    for case in cases:
        true = truth(case)
        for library in libraries:
            rows.append((library, case, check(library, case, true, folder / "arrays.npz")))
    turns = [turn for turn in rows if turn[2]["status"] == "ok"]
    # Round 0 is thrown away: a second call is often slow, and would decide how many are made.
    for number in range(pace.rounds + 1):
        # Every other round backwards, so that nobody always comes behind the same neighbour.
        for library, case, row in turns[:: -1 if number % 2 else 1]:
            slow = row["seconds"] > SLOW
            if row["status"] != "ok" or (slow and number == 0):
                continue
            answer = library.ask(
                do="time",
                case=case,
                warm_up=0 if slow else 1,
                repeats=pace.repeats(library.name, row["seconds"]) if number else 3,
            )
            if answer["status"] != "ok":
                row.update(status="error", message=answer["message"])
            elif number:
                row["rounds"].append(answer["times"])
            else:
                row["seconds"] = float(np.median(answer["times"]))
    return [summary(row) for _, _, row in rows]


def summary(row: dict) -> dict:
    """The row with median and quartiles, in seconds, in place of the times themselves."""
    rounds = row.pop("rounds", [])
    row.pop("seconds", None)
    if row["status"] != "ok":
        return row
    times = np.concatenate(rounds)
    low, median, high = (float(q) for q in np.quantile(times, (0.25, 0.5, 0.75)))
    return row | {
        "median": median,
        "quartiles": [low, high],
        "count": len(times),
        "round_medians": [float(np.median(r)) for r in rounds],
    }


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


def environment(device: str, threads: int, folder: Path) -> dict[str, str]:
    """What the workers see: the same threads for all, and no settings of the user's."""
    count = str(threads)
    changed = {
        "BENCHMARK_THREADS": count,
        "BENCHMARK_DEVICE": device,
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "TF_NUM_INTRAOP_THREADS": count,
        "TF_NUM_INTEROP_THREADS": count,
        "KERAS_HOME": str(folder),  # a keras.json could set another float type
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PYTHONUNBUFFERED": "1",
    }
    if device == "cpu":
        changed["CUDA_VISIBLE_DEVICES"] = "-1"  # TensorFlow would take a GPU unasked
    return {**os.environ, **changed}


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="two small shapes, two libraries: does it work?"
    )
    parser.add_argument(
        "--libraries", help=f"comma-separated, of {', '.join(LIBRARIES)}, or paths of .py files"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=min(2, cores()))
    parser.add_argument("--rounds", type=int, help=f"turns of each library (default {ROUNDS})")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--name", help="of the files in --out (default: the device, or quick)")
    options = parser.parse_args(argv)

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
    if options.rounds < 1:
        parser.error(f"--rounds: {options.rounds} is less than 1")
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


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    pace = Pace(options.rounds, BUDGET, CLOSE_BUDGET)
    if options.quick:
        pace = Pace(options.rounds, QUICK_BUDGET, QUICK_BUDGET)
    about = {
        "name": options.name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": options.quick,
        "device": options.device,
        "threads": options.threads,
        "rounds": options.rounds,
        "machine": machine(),
    }

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    rows: list[dict] = []
    libraries: list[Library] = []
    shapes = QUICK_SHAPES if options.quick else SHAPES
    groups = [(shape, mode) for shape in shapes for mode in MODES]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        variables = environment(options.device, options.threads, folder)
        try:
            say(f"starting {', '.join(options.sources)}")
            for name, source in options.sources.items():
                libraries.append(Library(name, source, variables, folder))
            for library in libraries:
                library.greet()
                if library.about["status"] != "ok":
                    say(f"  {library.name}: {library.about['message']}")
            for number, (shape, mode) in enumerate(groups, 1):
                say(f"{number}/{len(groups)} {mode} {'x'.join(map(str, shape))}")
                cases = [Case(*shape, mode, masked) for masked in (False, True)]
                found = measure(cases, libraries, pace, folder)
                for row in found:
                    if row["status"] in ("wrong", "error"):
                        say(f"  {row['library']}, {row['case']}: {row['message']}")
                rows += found
        except KeyboardInterrupt:
            say("stopped; nothing is written")
            return 130
        finally:
            for library in libraries:
                library.end()

    about["libraries"] = {library.name: {"label": library.label, **library.about}
                          for library in libraries}  # fmt: skip
    for path in report.write(options.out, about, rows):
        print(path)
    return int(any(row["status"] in ("wrong", "error") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
