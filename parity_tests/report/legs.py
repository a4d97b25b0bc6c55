"""The legs that the suite stands on: which tests are of which, and what each shows.

A test belongs to the first row that takes it; the last row takes every test.
"""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
from collections.abc import Iterable
from typing import Any

Test = dict[str, Any]
OUTCOMES = ("passed", "failed", "error", "skipped")


@dataclasses.dataclass(frozen=True)
class Leg:
    """A row: tests of ``files``, where ``live`` and ``text`` (in the id) allow.

    ``judge`` is what this package was held against there, if that is somebody else.
    """

    name: str
    title: str
    shows: str
    files: tuple[str, ...] = ("*",)
    live: bool | None = None
    text: str = ""
    judge: str | None = None

    def takes(self, test: Test) -> bool:
        return (
            any(fnmatch.fnmatch(test["file"], f"*parity_tests/{file}") for file in self.files)
            and (self.live is None or self.live == ("live" in test["markers"]))
            and self.text in test["id"]
        )


LEGS = (
    Leg(
        "mutants",
        "Mutants",
        "Mistakes that ports make, made on purpose: the suite notices each.",
        ("meta/test_*mutants.py",),
    ),
    Leg(
        "instruments",
        "The suite itself",
        "The equations agree with finite differences; the comparator rejects what is not equal.",
        (
            "meta/*",
            "test_oracle.py",
            "test_plugin.py",
            "test_fuzz.py",
            "test_report.py",
            "test_workflows.py",
            "test_benchmarks.py",
        ),
    ),
    Leg(
        "deviations",
        "Deviations",
        "Each place where Keras disagrees with itself comes again, on live Keras and here.",
        ("test_deviations.py",),
    ),
    Leg(
        "published",
        "Published files",
        "Files that other people published predict here what they predict in tf_keras.",
        ("test_real.py",),
        judge="published Keras files",
    ),
    Leg(
        "backends",
        "Live Keras on JAX and torch",
        "Keras's other backends say the same, as far as they can.",
        ("test_backends.py",),
        judge="live Keras on JAX and torch",
    ),
    Leg(
        "time_major",
        "Live tf_keras, time first",
        "time_major, which Keras 2 alone has: the same numbers.",
        ("test_time_major.py",),
        live=True,
        judge="live tf_keras",
    ),
    Leg(
        "tf_keras",
        "Live tf_keras",
        "Keras 2, running beside this package, gives the same numbers.",
        live=True,
        text="tf_keras",
        judge="live tf_keras",
    ),
    Leg(
        "keras",
        "Live Keras 3 on TensorFlow",
        "Keras, running beside this package on the same inputs: outputs, states and gradients.",
        live=True,
        judge="live Keras 3",
    ),
    Leg(
        "goldens",
        "Goldens",
        "What live Keras gave when it was recorded, on every device, without TensorFlow.",
        ("test_goldens*.py",),
        judge="recorded Keras",
    ),
    Leg(
        "equations",
        "Float64 equations",
        "Outputs, states and every gradient against a float64 LSTM written from the equations.",
        (
            "test_parity.py",
            "test_masks.py",
            "test_bidirectional.py",
            "test_stacked.py",
            "test_time_distributed.py",
            "test_cell.py",
            "test_activations.py",
        ),
        judge="the float64 equations",
    ),
    Leg(
        "precision",
        "Precisions and engines",
        "16 bits and mixed policies stay as near the truth as Keras; all engines say the same.",
        ("test_precision.py", "test_engines.py", "test_native.py", "test_cuda.py"),
    ),
    Leg(
        "hostile",
        "Hostile files",
        "A crafted file is refused with its error or loads rightly, fast, and touches nothing.",
        ("test_hostile.py", "test_load_crafted.py"),
    ),
    Leg(
        "hostile_hdf5",
        "Hostile HDF5",
        "The same for HDF5 files, down to their bytes.",
        ("test_files.py",),
        text="hostile",
    ),
    Leg(
        "files",
        "Files and fixtures",
        "Files of many Keras versions load and give what Keras gave; saved and converted, too.",
        (
            "test_fixtures.py",
            "test_files.py",
            "test_load.py",
            "test_save.py",
            "test_convert.py",
            "test_storage.py",
            "test_weights.py",
            "test_plain.py",
        ),
        judge="recorded files",
    ),
    Leg(
        "rest",
        "Everything else",
        "Configs, errors, training, the command line, and the layer as a torch module.",
    ),
)

# The order in which people read them: the claim, what carries it, what surrounds it.
SHOWN = (
    "equations", "keras", "tf_keras", "time_major", "backends", "goldens", "precision", "files",
    "published", "hostile", "hostile_hdf5", "deviations", "mutants", "instruments", "rest",
)  # fmt: skip


def leg_of(test: Test) -> Leg:
    """The first leg that takes the test."""
    in_suite = fnmatch.fnmatch(test["file"], "*parity_tests/*")
    return next(leg for leg in LEGS if leg.takes(test)) if in_suite else LEGS[-1]


def device_of(test: Test) -> str:
    """What names no device runs on the CPU."""
    return test["device"] or "cpu"


def counted(tests: Iterable[Test]) -> dict[str, int]:
    """How many tests had each outcome."""
    found = collections.Counter(test["outcome"] for test in tests)
    return {outcome: found[outcome] for outcome in OUTCOMES}


def reasons(tests: Iterable[Test]) -> list[dict[str, Any]]:
    """Why tests were skipped, the most frequent first."""
    found = collections.Counter(
        test["reason"] or "no reason given" for test in tests if test["outcome"] == "skipped"
    )
    return [{"reason": reason, "count": count} for reason, count in found.most_common()]


def summed_up(tests: list[Test]) -> list[dict[str, Any]]:
    """Each leg that has tests, with its counts on each device and its skips."""
    found = []
    for leg in sorted(LEGS, key=lambda leg: SHOWN.index(leg.name)):
        own = [test for test in tests if test["leg"] == leg.name]
        if not own:
            continue
        devices = sorted({device_of(test) for test in own})
        found.append(
            {
                "name": leg.name,
                "title": leg.title,
                "shows": leg.shows,
                "judge": leg.judge,
                "devices": {d: counted(t for t in own if device_of(t) == d) for d in devices},
                "seconds": sum(test["seconds"] for test in own),
                "skips": reasons(own),
            }
        )
    return found
