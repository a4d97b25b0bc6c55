"""Of rows of times: ratios, verdicts on the targets, several runs as one, growth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import Any, NamedTuple

from benchmarks.cases import BASELINE, LIBRARIES, OURS, Case, Target

Row = dict[str, Any]
Run = dict[str, Any]
TOO_HIGH = 0.97  # of a floor: who takes less shows that it is none


# Ratios and verdicts


def ratio(of: Row, to: Row) -> float:
    """The ratio of two rows' medians: of the medians in each round, the median.

    Taken within rounds, since a shared machine is now faster and now slower for minutes; of the
    whole run's medians where the two have no round in common.
    """
    pairs = zip(of["round_medians"], to["round_medians"], strict=True)
    each = [a / b for a, b in pairs if a is not None and b is not None]
    return statistics.median(each) if each else of["median"] / to["median"]


def largest_ratio(of: Row, to: Row) -> float:
    """The larger of the ratio within rounds and that of the whole run's medians."""
    return max(ratio(of, to), of["median"] / to["median"])


def timed(rows: Iterable[Row], case: Case) -> dict[str, Row]:
    """library -> row, of those that computed a case right."""
    return {r["library"]: r for r in rows if r["case"] == case.id and r["status"] == "ok"}


def fastest_peer(of_case: dict[str, Row]) -> Row | None:
    peers = [row for name, row in of_case.items() if name != OURS]
    return min(peers, key=lambda row: row["median"], default=None)


def ratios(rows: list[Row], floor: dict[str, Any]) -> tuple[list[Row], list[Row]]:
    """For the plots: each case and library with its ratio to the fastest peer, and to the floor."""
    to_peer, to_floor = [], []
    fine = [row for row in rows if row["status"] == "ok" and not row["growth"]]
    for row in fine:
        peer = fastest_peer({r["library"]: r for r in fine if r["case"] == row["case"]})
        if peer is not None:
            to_peer.append(row | {"ratio": ratio(row, peer)})
        if row["case"] in floor:
            to_floor.append(row | {"ratio": row["median"] / floor[row["case"]]["seconds"]})
    return to_peer, to_floor


class Measured(NamedTuple):
    """One run's ratio in a case of a target, the limit on it, and what it is against.

    note: what keeps a verdict from being "met", where something does.
    """

    ratio: float
    limit: float
    against: str
    note: str = ""


def peers(runs: list[Run], case: Case) -> tuple[int, int]:
    """How many peers have been right and timed in every run that had them, and how many can."""
    rows = [row for run in runs for row in run["cases"]]
    found: dict[str, set[str]] = {}
    for row in rows:
        if row["case"] == case.id and row["library"] != OURS and row["status"] != "unsupported":
            found.setdefault(row["library"], set()).add(row["status"])
    named = {row["library"] for row in rows}
    absent = [name for name in LIBRARIES if name != OURS and name not in named]
    return sum(statuses == {"ok"} for statuses in found.values()), len(found) + len(absent)


def measured(target: Target, case: Case, run: Run) -> Measured | None:
    """What one run says of a target; None where something is missing."""
    if target.against == "memory":
        peaks = {library: row["peak"] for library, row in timed(run["memory"], case).items()}
        if OURS not in peaks or not peaks.get(BASELINE):
            return None
        return Measured(peaks[OURS] / peaks[BASELINE], target.at_most, BASELINE)
    of_case = timed(run["cases"], case)
    ours = of_case.pop(OURS, None)
    if ours is None:
        return None
    if target.against == "floor":
        floor = run["floors"].get(case.id)
        if not floor:
            return None
        least = min(row["median"] for row in (ours, *of_case.values())) / floor["seconds"]
        note = f"floor too high: {least:.2f}" if least < TOO_HIGH else ""
        return Measured(ours["median"] / floor["seconds"], target.at_most, floor["by"], note)
    if target.against == "peer":
        found = []
        for name, peer in of_case.items():
            torch_limit = target.at_most_torch if name == BASELINE else None
            limit = target.at_most if torch_limit is None else torch_limit
            found.append(Measured(largest_ratio(ours, peer), limit, name))
        return max(found, key=lambda each: each.ratio / each.limit, default=None)
    if target.against in LIBRARIES:
        other = of_case.get(target.against)
        return other and Measured(largest_ratio(ours, other), target.at_most, target.against)
    plain = timed(run["cases"], case.plain).get(OURS)
    times = f"{target.times} × " if target.times > 1 else ""
    return plain and Measured(
        largest_ratio(ours, plain) / target.times, target.at_most, f"{times}{OURS}, plain"
    )


def judge(target: Target, threads: int, runs: list[Run]) -> list[dict[str, Any]]:
    """Each case of a target: every run's ratio, and the verdict on the worst of them.

    met is None where nothing was measured; a wrong result or an error of ours is not met. Runs in
    which what it is against is missing are said, and not counted.
    """
    verdicts = []
    for asked in target.cases:
        case = asked._replace(threads=threads)
        table = "memory" if target.against == "memory" else "cases"
        failed = [
            row["status"]
            for run in runs
            for row in run[table]
            if row["library"] == OURS
            and row["case"] in (case.id, case.plain.id)
            and row["status"] in ("wrong", "error", "too slow")
        ]
        known = [m for m in (measured(target, case, run) for run in runs) if m is not None]
        verdict: dict[str, Any] = {
            "target": target.text, "case": case.id, "shape": list(case.shape), "mode": case.mode,
            "at_most": target.at_most, "ratio": None, "runs": None, "against": None, "met": None,
            "note": "",
        }  # fmt: skip
        if failed:
            verdict |= {"met": False, "note": failed[0]}
        elif known:
            worst = max(known, key=lambda each: each.ratio / each.limit)
            note = next((each.note for each in known if each.note), "")
            verdict |= {
                "at_most": worst.limit,
                "ratio": worst.ratio,
                "runs": [each.ratio for each in known],
                "against": worst.against,
                "met": worst.ratio <= worst.limit and not note,
                "note": note,
            }
            there, able = peers(runs, case) if target.against == "peer" else (0, 0)
            notes = [note] if note else []
            notes += [f"of {there} of {able} peers"] if there != able else []
            notes += [f"{len(known)} of {len(runs)} runs"] if len(known) < len(runs) else []
            verdict["note"] = "; ".join(notes)
        verdicts.append(verdict)
    return verdicts


# Several runs as one


def combined(tables: Iterable[list[Row]]) -> list[Row]:
    """One table of all runs: medians of their medians, their rounds one after the other.

    A library that failed in some runs shows the others, and in ``message`` how it failed.
    """
    found: dict[tuple[str, str, bool], dict[int, Row]] = {}
    count = 0
    for number, table in enumerate(tables):
        count = number + 1
        for row in table:
            key = (row["case"], row["library"], row.get("growth", False))
            found.setdefault(key, {})[number] = row
    rows = []
    for each in found.values():
        fine = {number: row for number, row in each.items() if row["status"] == "ok"}
        bad = [row for row in each.values() if row["status"] != "ok"]
        row = next(iter((fine or each).values()))
        if fine:
            row = row | {"errors": worst_errors(list(fine.values()))}
            for name in ("median", "imported", "prepared", "first_call", "second_call", "peak"):
                if name in row:
                    row[name] = statistics.median(r[name] for r in fine.values())
            if "round_medians" in row:
                none = [None] * len(row["round_medians"])
                rounds = [fine[n]["round_medians"] if n in fine else none for n in range(count)]
                row["round_medians"] = [median for some in rounds for median in some]
            if bad:
                row["failed"] = f"{bad[0]['status']} in {len(bad)} of {len(each)} runs"
                row["message"] = bad[0]["message"]
        rows.append(row)
    return rows


def worst_errors(rows: list[Row]) -> dict[str, Any]:
    return {
        name: max((row["errors"][name] for row in rows), key=lambda e: e["error"])
        for name in rows[0]["errors"]
    }


def lowest_floors(runs: list[Run]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        for case, floor in run["floors"].items():
            if case not in found or floor["seconds"] < found[case]["seconds"]:
                found[case] = floor
    return found


# Growth


def exponent(sizes: list[float], seconds: list[float]) -> float:
    """p of seconds ~ sizes**p, by least squares on the logarithms."""
    x, y = [math.log(v) for v in sizes], [math.log(v) for v in seconds]
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return slope / sum((a - mean_x) ** 2 for a in x)


def exponents(
    rows: list[Row], growth: dict[str, tuple[tuple[int, ...], ...]], threads: int
) -> list[dict[str, Any]]:
    """By axis, mode and library: the sizes, the times and the fitted exponent."""
    growing = [row for row in rows if row.get("growth") and row["status"] == "ok"]
    found = []
    for axis, shapes in growth.items():
        at = "BTFH".index(axis)
        for mode in ("inference", "training"):
            times = [timed(growing, Case(*shape, mode, threads=threads)) for shape in shapes]
            for library in dict.fromkeys(row["library"] for row in growing):
                if all(library in of_shape for of_shape in times):
                    sizes = [shape[at] for shape in shapes]
                    seconds = [of_shape[library]["median"] for of_shape in times]
                    found.append(
                        {
                            "axis": axis, "mode": mode, "library": library, "sizes": sizes,
                            "seconds": seconds, "exponent": exponent(sizes, seconds),
                        }
                    )  # fmt: skip
    return found
