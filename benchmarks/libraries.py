"""The libraries' processes, the check before the clock, and the timing in turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.cases import (
    CLOSE,
    HOPELESS,
    HOPELESS_BUDGET,
    LIBRARIES,
    MOST_REPEATS,
    Case,
)
from benchmarks.truth import Arrays, compare, truth

ROOT = Path(__file__).resolve().parent.parent
SLOW = 0.5  # seconds; a call this long needs no warm-up in each round

Row = dict[str, Any]


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


class Library:
    """A library's process: lines of JSON to it and from it (see worker.py)."""

    def __init__(self, name: str, source: str, environment: dict[str, str], folder: Path) -> None:
        self.name = name
        self.label = LIBRARIES.get(name, name)
        self.folder = folder
        self.stderr = folder / f"{name}.stderr"
        self.source = source
        self.environment = environment
        self.begin()

    def begin(self) -> None:
        with self.stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.worker", self.source],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=ROOT,
                env=self.environment,
                text=True,
            )

    def revive(self) -> None:
        """A new process, where the last one has died of a case."""
        if self.about["status"] == "ok" and self.process.poll() is not None:
            self.end()
            self.begin()
            self.greet()

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def read(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        code = self.process.wait()
        last = self.stderr.read_text(errors="replace").strip().splitlines()[-1:]
        message = f"its process ended with {code}" + "".join(f": {line[:300]}" for line in last)
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
        """Calls in one round."""
        budget = self.close_budget if library in CLOSE else self.budget
        return max(1, min(MOST_REPEATS, int(budget / self.rounds / max(seconds, 1e-9))))

    def turns(self, seconds: float, fastest: float) -> int:
        """The rounds that a library takes part in: all, but where it is slow beyond interest."""
        if seconds <= 1 or seconds < HOPELESS * fastest:
            return self.rounds
        return max(1, min(self.rounds, int(HOPELESS_BUDGET / seconds)))


def blank(library: Library, case: Case) -> Row:
    return {
        "library": library.name,
        "case": case.id,
        "shape": list(case.shape),
        "variant": case.variant,
        **{k: v for k, v in case._asdict().items() if k not in "BTFH"},
        "message": "",
        "errors": {},
    }


def check(library: Library, case: Case, true: Arrays) -> Row:
    """Run a case twice, untimed, and hold it against the truth: the case's row in the report."""
    row = blank(library, case)
    arrays = library.folder / f"{library.name}.npz"
    answer = library.about
    if answer["status"] == "ok":
        answer = library.ask(do="prepare", case=case, arrays=str(arrays))
    if answer["status"] != "ok":
        return row | {"status": answer["status"], "message": answer["message"]}
    try:
        with np.load(arrays) as found:
            row["errors"], wrong = compare(case, dict(found), true)
    except (OSError, ValueError) as error:
        return row | {"status": "error", "message": f"its arrays cannot be read: {error}"}
    arrays.unlink()
    if wrong:
        return row | {"status": "wrong", "message": "; ".join(wrong)}
    row |= {"status": "ok", "prepared": answer["prepared"], "first_call": answer["first"]}
    return row | {"seconds": answer["second"], "rounds": {}}


def measure(cases: list[Case], libraries: list[Library], pace: Pace) -> list[Row]:
    """Rows of cases that belong together. Each is right before the first of them is timed."""
    for library in libraries:
        library.revive()
        library.ask(do="forget")
    rows = []
    for case in cases:
        true = truth(case)
        rows += [(library, case, check(library, case, true)) for library in libraries]
    turns = [turn for turn in rows if turn[2]["status"] == "ok"]
    fastest = {}
    for _, case, row in turns:
        fastest[case] = min(row["seconds"], fastest.get(case, np.inf))
    # Round 0 is thrown away: a second call is often slow, and would decide how many are made.
    for number in range(pace.rounds + 1):
        # Every other round backwards, so that nobody always comes behind the same neighbour.
        for library, case, row in turns[:: -1 if number % 2 else 1]:
            slow = row["seconds"] > SLOW
            left_out = number > pace.turns(row["seconds"], fastest[case])
            if row["status"] != "ok" or left_out or (slow and number == 0):
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
                row["rounds"][number] = answer["times"]
            else:
                row["seconds"] = float(np.median(answer["times"]))
    return [summary(row, pace.rounds) for _, _, row in rows]


def summary(row: Row, rounds: int) -> Row:
    """The row with median and quartiles, in seconds, in place of the times themselves."""
    times = row.pop("rounds", {})
    row.pop("seconds", None)
    if row["status"] != "ok":
        return row
    low, median, high = np.quantile(np.concatenate(list(times.values())), (0.25, 0.5, 0.75))
    medians = [statistics.median(times[n]) if n in times else None for n in range(1, rounds + 1)]
    return row | {
        "median": float(median),
        "quartiles": [float(low), float(high)],
        "count": sum(map(len, times.values())),
        "round_medians": medians,
    }


def alone(
    sources: dict[str, str], cases: list[Case], variables: dict[str, str], folder: Path
) -> Iterable[tuple[Library, Case, Row]]:
    """Each library and case in a fresh process, checked, while no other is there."""
    for case in cases:
        for name, source in sources.items():
            with Library(name, source, variables, folder) as library:
                library.greet()
                row = check(library, case, truth(case))
                row.pop("rounds", None)
                yield library, case, row | {"second_call": row.pop("seconds", None)}


def memory(
    sources: dict[str, str], cases: list[Case], variables: dict[str, str], folder: Path
) -> list[Row]:
    """The peak of memory in the third call of a process, above what it held before that call."""
    rows = []
    for library, case, row in alone(sources, cases, variables, folder):
        if row["status"] == "ok":
            answer = library.ask(do="memory", case=case)
            if answer["status"] == "ok":
                row["peak"] = answer["peak"]
            else:
                row.update(status=answer["status"], message=answer["message"])
        rows.append(row)
    return rows


def start(
    sources: dict[str, str], case: Case, repeats: int, variables: dict[str, str], folder: Path
) -> list[Row]:
    """Medians over fresh processes: the import, the preparation, the first and the second call."""
    tries: dict[str, list[Row]] = {}
    for _ in range(repeats):
        for library, _, row in alone(sources, [case], variables, folder):
            row["imported"] = library.about.get("imported")
            tries.setdefault(library.name, []).append(row)
    rows = []
    for found in tries.values():
        row = next((r for r in found if r["status"] != "ok"), found[0])
        if row["status"] == "ok":
            for name in ("imported", "prepared", "first_call", "second_call"):
                row[name] = statistics.median(r[name] for r in found)
        rows.append(row)
    return rows
