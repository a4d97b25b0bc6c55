"""The libraries' processes, the check before the clock, and the timing in turns."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.cases import (
    BASELINE,
    CLOSE,
    FEW_ROUNDS,
    FEW_SECONDS,
    HOPELESS,
    LIBRARIES,
    MOST_REPEATS,
    OURS,
    REST,
    Case,
)
from benchmarks.truth import Arrays, compare, truth

ROOT = Path(__file__).resolve().parent.parent
SLOW = 0.1  # seconds; a call this long is not called before the rounds
ANSWER = 240.0  # seconds until a worker that has not answered is stopped
# What would change a library's threads, kernels or precision, were it the user's.
SETTINGS = (
    "ATEN_",
    "DNNL_",
    "GOMP_",
    "JAX_",
    "KERAS",
    "KMP_",
    "LD_PRELOAD",
    "MALLOC_",
    "MKL_",
    "OMP_",
    "ONEDNN_",
    "OPENVINO_",
    "ORT_",
    "OV_",
    "PYTORCH_",
    "TF_",
    "TORCH_",
    "XLA_",
)

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
    own = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    return {**own, **changed}


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
                bufsize=0,
            )
        self.unread = b""

    def revive(self) -> bool:
        """A new process, where the last one has died of a case; whether it was needed."""
        if self.about["status"] != "ok" or self.process.poll() is None:
            return False
        self.end()
        self.begin()
        self.greet()
        return True

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def read(self, limit: float) -> dict[str, Any]:
        """Its next answer, or an error's where it has died, or after so many seconds."""
        end = time.monotonic() + limit
        while b"\n" not in self.unread:
            if not select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))[
                0
            ]:
                self.end()
                return {"status": "error", "message": f"no answer in {limit:.0f} s: it was stopped"}
            some = os.read(self.process.stdout.fileno(), 1 << 16)
            if not some:
                return {"status": "error", "message": self.last_words()}
            self.unread += some
        line, self.unread = self.unread.split(b"\n", 1)
        return json.loads(line)

    def last_words(self) -> str:
        code = self.process.wait()
        last = self.stderr.read_text(errors="replace").strip().splitlines()[-1:]
        return f"its process ended with {code}" + "".join(f": {line[:300]}" for line in last)

    def ask(self, limit: float = ANSWER, /, **request: Any) -> dict[str, Any]:
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:  # it has died; read() says how
            pass
        return self.read(limit)

    def greet(self) -> None:
        self.about = self.read(ANSWER)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what it has not read is lost
                pipe.close()


def is_close(library: str, seconds: float, fastest: float) -> bool:
    """Whether a verdict could be about it, so that more of the time is its."""
    return library in (OURS, BASELINE) or seconds <= CLOSE * fastest


class Pace(NamedTuple):
    """How often to call: in ``rounds`` turns, ``budget`` seconds a library and case together, each
    turn after ``warm_up`` seconds of untimed calls, and one at least; ``rest`` seconds between
    the turns of two libraries."""

    rounds: int
    budget: float
    close_budget: float
    warm_up: float
    rest: float = REST

    def repeats(self, library: str, seconds: float, fastest: float) -> int:
        """Calls in one round."""
        budget = self.close_budget if is_close(library, seconds, fastest) else self.budget
        return max(1, min(MOST_REPEATS, int(budget / self.rounds / max(seconds, 1e-9))))

    def turns(self, library: str, seconds: float, fastest: float) -> int:
        """The rounds that a library takes part in: all, but where it is slow beyond interest."""
        hopeless = library != OURS and seconds > 1 and seconds > HOPELESS * fastest
        if library in LIBRARIES and (hopeless or not is_close(library, seconds, fastest)):
            return max(1, min(self.rounds, FEW_ROUNDS, math.ceil(FEW_SECONDS / seconds)))
        return self.rounds


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
    row |= judged(case, arrays, true)
    if row["status"] != "ok":
        return row
    if answer["way"] is not None:
        row["way"] = answer["way"]
    if case.recurrent_dropout:
        drawn = library.ask(do="draw", case=case)
        if drawn["status"] != "ok":
            return row | {"status": drawn["status"], "message": drawn["message"]}
    row |= {"prepared": answer["prepared"], "first_call": answer["first"]}
    return row | {"seconds": answer["second"], "rounds": {}}


def judged(case: Case, arrays: Path, true: Arrays) -> Row:
    """Of the results that a worker has written: errors, status and message of a row."""
    try:
        with np.load(arrays) as found:
            errors, wrong = compare(case, dict(found), true)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        return {"status": "error", "message": f"its arrays cannot be read: {error}"}
    arrays.unlink()
    status = "wrong" if wrong else "ok"
    return {"status": status, "message": "; ".join(wrong), "errors": errors}


def check_again(library: Library, case: Case, row: Row) -> None:
    """Once more after the clock has run, of weights that are not those of the first check.

    A result that has gone wrong in between, or is of old weights, makes the row wrong.
    """
    if case.recurrent_dropout:  # its masks are its own by now
        return
    arrays = library.folder / f"{library.name}.npz"
    answer = library.ask(do="again", case=case, arrays=str(arrays))
    if answer["status"] == "ok":
        negated = answer["negated"] and case.mode == "training"
        found = judged(case, arrays, truth(case, negated=negated))
    else:
        found = {"status": answer["status"], "message": answer["message"]}
    if found["status"] != "ok":
        row.update(status=found["status"], message=f"after the last round: {found['message']}")


def measure(
    cases: list[Case], libraries: list[Library], pace: Pace, left_out: Collection[tuple[str, str]]
) -> list[Row]:
    """Rows of cases that belong together. Each is right before the first of them is timed.

    left_out: (library, case's id), which have no row.
    """
    for library in libraries:
        library.revive()
        library.ask(do="forget")
    rows = []
    for case in cases:
        true = truth(case)
        for library in libraries:
            if (library.name, case.id) not in left_out:
                row = check(library, case, true)
                rows.append((library, case, row))
                if library.revive():
                    prepare_again(library, rows)
    turns = [turn for turn in rows if turn[2]["status"] == "ok"]
    # A library's cases one after the other: a variant within the same seconds as the plain layer.
    turns.sort(key=lambda turn: libraries.index(turn[0]))
    before = None
    # Round 0 is thrown away: a second call is often slow, and would decide how many are made.
    for number in range(pace.rounds + 1):
        if number < 2:
            fastest: dict[Case, float] = {}
            for _, case, row in turns:
                fastest[case] = min(row["seconds"], fastest.get(case, math.inf))
        # Every other round backwards, so that nobody always comes behind the same neighbour.
        for library, case, row in turns[:: -1 if number % 2 else 1]:
            seconds = row["seconds"]
            late = number > pace.turns(library.name, seconds, fastest[case])
            if row["status"] != "ok" or late or (seconds > SLOW and number == 0):
                continue
            if before not in (None, library):
                time.sleep(pace.rest)
            before = library
            repeats = pace.repeats(library.name, seconds, fastest[case]) if number else 3
            answer = library.ask(
                60 + 20 * ((repeats + 1) * seconds + pace.warm_up),
                do="time", case=case, warm_up=pace.warm_up, repeats=repeats,
            )  # fmt: skip
            if answer["status"] != "ok":
                row.update(status="error", message=f"in round {number}: {answer['message']}")
                if library.revive():
                    prepare_again(library, rows)
            elif number:
                row["rounds"][number] = answer["times"]
            else:
                row["seconds"] = float(np.median(answer["times"]))
    for library, case, row in turns:
        if row["status"] == "ok":
            check_again(library, case, row)
            if library.revive():
                prepare_again(library, rows)
    return [summary(row, pace.rounds) for _, _, row in rows]


def prepare_again(library: Library, rows: list[tuple[Library, Case, Row]]) -> None:
    """In a new process, the cases that had been right in the one that died."""
    for other, case, row in rows:
        if other is library and row["status"] == "ok":
            again = check(library, case, truth(case))
            if again["status"] != "ok":
                row.update(status="error", message=f"in a new process: {again['message']}")


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
