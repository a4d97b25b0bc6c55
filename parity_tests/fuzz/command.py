"""The walk itself, what it reports, and its command line."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from ..keras_live import KerasLive, missing
from .judges import Judged, Verdict, exclusions, judged, request
from .shrinking import shrunk
from .walk import BATCH_OF_CASES, VOID, Walk, drawn, parsed


@dataclasses.dataclass(frozen=True)
class Failure:
    """A case that a judge refuses, and the simplest like it."""

    number: int
    seed: int
    walk: Walk
    shrunk: Walk
    verdict: Verdict  # on the shrunk one

    @property
    def command(self) -> str:
        return f'python -m parity_tests --case "{self.shrunk!r}"'

    def __str__(self) -> str:
        return f"case {self.number} of seed {self.seed}: {self.verdict}\n    {self.command}"


@dataclasses.dataclass
class Report:
    """What a walk has met."""

    seed: int
    count: int = 0
    seconds: float = 0.0
    failed: int = 0
    failures: list[Failure] = dataclasses.field(default_factory=list)
    kinds: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    dtypes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    judges: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    notes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    largest: dict[str, tuple[Verdict, Walk]] = dataclasses.field(default_factory=dict)

    def take(self, walk: Walk, result: Judged) -> None:
        self.count += 1
        self.kinds[walk.kind] += 1
        self.dtypes[walk.dtype] += 1
        self.notes.update(result.notes)
        self.judges.update({v.judge for v in result.verdicts})
        for verdict in result.verdicts:
            if verdict.holds and 0 < verdict.bound < VOID:
                held = self.largest.get(verdict.judge)
                if held is None or verdict.ratio > held[0].ratio:
                    self.largest[verdict.judge] = verdict, walk

    def as_json(self, versions: dict[str, str]) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "count": self.count,
            "failed": self.failed,
            "seconds": round(self.seconds, 1),
            "versions": versions,
            "cases_by_kind": dict(self.kinds.most_common()),
            "cases_by_dtype": dict(self.dtypes.most_common()),
            "cases_by_judge": dict(self.judges.most_common()),
            "notes": dict(self.notes.most_common()),
            "largest_error_per_bound": {
                judge: {
                    "ratio": float(f"{v.ratio:.3g}"), "error": float(f"{v.error:.3g}"),
                    "bound": float(f"{v.bound:.3g}"), "what": v.what, "case": repr(walk),
                }
                for judge, (v, walk) in sorted(self.largest.items())
            },
            "failures": [
                {
                    "number": f.number, "case": repr(f.walk), "shrunk": repr(f.shrunk),
                    "verdict": str(f.verdict), "command": f.command,
                }
                for f in self.failures
            ],
        }  # fmt: skip


class Judge:
    """Judges cases one by one, with live Keras where there is one."""

    def __init__(self, keras: KerasLive | None) -> None:
        self._keras = keras

    def answers(self, walks: list[Walk]) -> list[Any]:
        """Live Keras's, None where it is not asked."""
        asked = [None if self._keras is None else request(w, w.arrays()) for w in walks]
        sent = [r for r in asked if r is not None]
        got = iter(self._keras.call("fuzz_side.run", sent) if self._keras and sent else ())
        found: list[Any] = [None if r is None else next(got) for r in asked]
        for walk, answer in zip(walks, found, strict=True):
            if walk.kind == "LSTMCell" and answer is not None and "d_x" in answer:
                answer["d_x"] = answer["d_x"][:, None]  # it has no axis of time
        return found

    def __call__(self, walk: Walk) -> Judged:
        return judged(walk, self.answers([walk])[0])

    def refusal(self, walk: Walk, judge: str) -> Verdict | None:
        """The worst verdict of a judge on a case, where it does not hold."""
        keras = judge.startswith("keras")
        result = self(walk) if keras else judged(walk)
        wrong = [v for v in result.failures() if v.judge == judge]
        return max(wrong, key=lambda v: v.ratio, default=None)


SHRUNK_FAILURES = 3  # of each judge; the others are counted


def walked(
    seed: int,
    count: int,
    keras: KerasLive | None = None,
    *,
    stop_at: int | None = None,
    tell: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Judge so many cases of a seed.

    Args:
        keras: live Keras, or None.
        stop_at: so many failures.
        tell: called after each case.
    """
    judge, report = Judge(keras), Report(seed)
    begun = time.perf_counter()
    numbers = [range(i, min(i + BATCH_OF_CASES, count)) for i in range(0, count, BATCH_OF_CASES)]
    batches = [[drawn(seed, n) for n in batch] for batch in numbers]
    with ThreadPoolExecutor(1) as other:  # Keras answers the next batch in the meantime
        asked = [other.submit(judge.answers, batches[0])]
        for i, (batch, walks) in enumerate(zip(numbers, batches, strict=True)):
            answers = asked[i].result()
            if i + 1 < len(batches):
                asked.append(other.submit(judge.answers, batches[i + 1]))
            for number, walk, answer in zip(batch, walks, answers, strict=True):
                result = judged(walk, answer)
                report.take(walk, result)
                if keras is not None:
                    report.notes.update(exclusions(walk))
                if result.failures():
                    asked[-1].result()  # one call at a time
                    report.failed += 1
                    _take_failures(judge, report, number, walk, result)
                report.seconds = time.perf_counter() - begun
                tell(report)
                if stop_at is not None and report.failed >= stop_at:
                    return report
            asked[i] = asked[-1]  # its arrays are no longer needed
    return report


def _take_failures(judge: Judge, report: Report, number: int, walk: Walk, result: Judged) -> None:
    for name in dict.fromkeys(v.judge for v in result.failures()):
        least, verdict = (
            walk,
            max((v for v in result.failures() if v.judge == name), key=lambda v: v.ratio),
        )
        known = [f for f in report.failures if f.verdict.judge == name]
        if len(known) < SHRUNK_FAILURES:
            least = shrunk(walk, lambda w, name=name: judge.refusal(w, name) is not None)
            verdict = judge.refusal(least, name) or verdict
        report.failures.append(Failure(number, report.seed, walk, least, verdict))


# The command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The walk's options."""
    group = parser.add_argument_group("a random walk over configurations")
    group.add_argument("--fuzz", type=_count, metavar="N", help="judge N cases")
    group.add_argument("--seed", type=_seed, default=0, metavar="S", help="of the cases (0)")
    group.add_argument("--case", type=parsed, metavar="LINE", help='judge one: "Walk(steps=3)"')
    group.add_argument(
        "--live",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="ask live Keras (where it is installed)",
    )
    group.add_argument("--results", type=Path, metavar="FILE", help="write a JSON file")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of cases, 1 or more")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no seed, an integer from 0")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """The exit status: 1 where a case fails."""
    lacking = missing()
    if arguments.live and lacking:
        print(f"--live: {lacking}", file=sys.stderr)
        return 1
    live = not lacking if arguments.live is None else bool(arguments.live)
    torch.set_num_threads(1)
    keras: AbstractContextManager[KerasLive | None] = KerasLive() if live else nullcontext()
    with keras as process:
        if process is not None:
            process.call("fuzz_side.begin")
        if arguments.case is not None:
            return _run_one(arguments.case, process)
        return _run_many(arguments, process)


def _run_one(walk: Walk, keras: KerasLive | None) -> int:
    result = Judge(keras)(walk)
    print(repr(walk))
    for verdict in result.verdicts:
        print("ok    " if verdict.holds else "WRONG ", verdict)
    for note in sorted(result.notes) + (exclusions(walk) if keras else []):
        print("note  ", note)
    return int(bool(result.failures()))


def _run_many(arguments: argparse.Namespace, keras: KerasLive | None) -> int:
    print(f"seed {arguments.seed}, {arguments.fuzz} cases", flush=True)
    with _progress(arguments.fuzz) as tell:
        report = walked(arguments.seed, arguments.fuzz, keras, tell=tell)
    for failure in report.failures:
        print(failure)
    if arguments.results is not None:
        _write(arguments.results, report.as_json(versions(keras)))
    judges = ", ".join(f"{n} {j}" for j, n in report.judges.most_common())
    print(f"{report.count} cases in {report.seconds:.0f} s, {report.failed} failed ({judges})")
    return int(report.failed > 0)


def versions(keras: KerasLive | None) -> dict[str, str]:
    """Of what has judged, and where."""
    own = {n: importlib.metadata.version(n) for n in ("torch", "numpy")}
    theirs = {} if keras is None else keras.call("versions")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"
    return theirs | own | {"python": platform.python_version(), "machine": machine}


def _write(path: Path, value: dict[str, Any]) -> None:
    """All of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(beside, path)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[Report], None]]:
    """rich's bar on a terminal, else a line each 1000 cases."""
    if sys.stderr.isatty() and importlib.util.find_spec("rich") is not None:
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task("cases", total=total)

            def move(report: Report) -> None:
                text = f"cases, {report.failed} failed"
                bar.update(task, completed=report.count, description=text)

            yield move
        return

    def line(report: Report) -> None:
        if report.count % 1000 == 0:
            done = f"{report.count} cases, {report.failed} failed, {report.seconds:.0f} s"
            print(done, file=sys.stderr, flush=True)

    yield line
