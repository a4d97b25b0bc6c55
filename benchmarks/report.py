"""The report of a run: NAME.json with everything, NAME.md to read, NAME.png to look at."""

from __future__ import annotations

import contextlib
import io
import json
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.cases import BASELINE, LIBRARIES, TARGETS, Target

Row = dict[str, Any]
SHORT = {"missing": "not installed", "unsupported": "–", "wrong": "**wrong**", "error": "**error**"}
# Okabe and Ito's colours, told apart by the colour-blind too; a library's stay the same.
TARGET_HEAD = ["target", "mode", "shape", "ratio", "over the rounds", "whole run", "verdict"]
COLOURS = ("#D55E00", "#000000", "#0072B2", "#E69F00", "#56B4E9", "#009E73", "#CC79A7")
MARKERS = ("o", "_", "s", "v", "^", "D", "P")


def write(folder: Path, about: dict[str, Any], rows: list[Row]) -> list[Path]:
    """Write the three files, each whole or not at all, and give their paths."""
    targets = [verdict for target in TARGETS for verdict in judge(target, rows)]
    name = about["name"]
    picture = plot(about, rows)
    paths = {
        folder / f"{name}.json": json.dumps(
            {**about, "cases": rows, "targets": targets}, indent=1, allow_nan=False
        ).encode(),
        folder / f"{name}.md": markdown(about, rows, targets, picture is not None).encode(),
    }
    if picture is None:
        (folder / f"{name}.png").unlink(missing_ok=True)  # an earlier run's would contradict
    else:
        paths[folder / f"{name}.png"] = picture
    for path, content in paths.items():
        replace(path, content)
    return list(paths)


def replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def ratio(of: Row, to: Row) -> tuple[float, float, float]:
    """The ratio of two rows' medians: its median over the rounds, the lowest, the highest.

    Taken within each round, since a shared machine is now faster and now slower for minutes.
    """
    each = [a / b for a, b in zip(of["round_medians"], to["round_medians"], strict=True)]
    return statistics.median(each), min(each), max(each)


def judge(target: Target, rows: list[Row]) -> Iterator[dict[str, Any]]:
    """Each shape and mode of a target: the ratio of medians, its range over rounds, the verdict."""
    found = {(r["library"], r["masked"], tuple(r["shape"]), r["mode"]): r for r in rows}
    for shape in target.shapes:
        for mode in target.modes:
            of, to = (found.get((*side, shape, mode)) for side in (target.of, target.to))
            verdict = {
                "target": target.text,
                "shape": list(shape),
                "mode": mode,
                "at_most": target.at_most,
                "at_least": target.at_least,
                "ratio": None,
                "rounds": None,
                "whole_run": None,
                "met": None,
            }
            if of and to and of["status"] == to["status"] == "ok":
                value, low, high = ratio(of, to)
                whole = of["median"] / to["median"]
                verdict |= {"ratio": value, "rounds": [low, high], "whole_run": whole}
                # Met only where both ways to take the ratio say so: where they differ is noise.
                verdict["met"] = all(
                    (target.at_most is None or r <= target.at_most)
                    and (target.at_least is None or r >= target.at_least)
                    for r in (value, whole)
                )
            yield verdict


def by_case(rows: list[Row]) -> dict[str, dict[str, Row]]:
    """case id -> library -> row, unmasked before masked within a mode and shape."""
    cases: dict[str, dict[str, Row]] = {}
    for row in rows:
        cases.setdefault(row["case"], {})[row["library"]] = row
    return cases


def table(head: list[str], body: list[list[str]], texts: int) -> str:
    """Markdown, the first ``texts`` columns to the left, the others to the right."""
    align = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, align, *body))


def times_sign(shape: list[int]) -> str:
    return "×".join(map(str, shape))


def milliseconds(seconds: float) -> str:
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def device(about: dict[str, Any]) -> str:
    if about["device"] == "cpu":
        return f"{about['threads']} threads"
    names = {library.get("device") for library in about["libraries"].values()} - {None}
    return f"CUDA on {', '.join(sorted(names))}, TF32 off"


def markdown(about: dict[str, Any], rows: list[Row], targets: list[dict], plotted: bool) -> str:
    names = list(about["libraries"])
    labels = [about["libraries"][name]["label"] for name in names]
    machine = about["machine"]
    body = []
    for of_case in by_case(rows).values():
        first = next(iter(of_case.values()))
        yardstick = of_case.get(BASELINE, {})
        line = [
            f"{first['mode']}, {'masked' if first['masked'] else 'unmasked'}, "
            f"{times_sign(first['shape'])}"
        ]
        for name in names:
            row = of_case[name]
            if row["status"] != "ok":
                line.append(SHORT[row["status"]])
            elif "median" in yardstick:
                line.append(f"{milliseconds(row['median'])} ({ratio(row, yardstick)[0]:.2f})")
            else:
                line.append(milliseconds(row["median"]))
        body.append(line)

    judged = []
    for verdict in targets:
        line = [verdict["target"], verdict["mode"], times_sign(verdict["shape"])]
        if verdict["met"] is None:
            line += ["", "", "", "not measured"]
        else:
            low, high = verdict["rounds"]
            line += [f"{verdict['ratio']:.3f}", f"{low:.3f} to {high:.3f}"]
            line += [f"{verdict['whole_run']:.3f}"]
            line += ["met" if verdict["met"] else "**not met**"]
        judged.append(line)

    worst = []
    for name in names:
        shares = [
            e["error"] / e["bound"]
            for row in rows
            if row["library"] == name
            for e in row["errors"].values()
            if e["error"] is not None
        ]
        if shares:
            worst.append(f"{about['libraries'][name]['label']}: {max(shares):.2g}")

    troubles = {}
    for row in rows:
        if row["status"] in ("wrong", "error"):
            troubles[f"- {row['library']}, {row['case']}, {row['status']}: {row['message']}"] = None
    versions: dict[str, str] = {}
    for name in names:
        versions |= about["libraries"][name].get("versions", {})

    parts = [
        f"# Speed: {about['name']}",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['os']}; {device(about)}; "
        f"{about['rounds']} rounds; {about['date']}.",
        ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
    ]
    if about["quick"]:
        parts.append("A quick run: it shows that everything works, and no speed.")
    parts += [
        "## Times",
        "Median milliseconds of a call and, in parentheses, its ratio to torch.nn.LSTM in the same "
        "row (of the medians of each round, the median over the rounds): above 1 is slower. In a "
        "masked row torch.nn.LSTM runs over a packed sequence. "
        "Shapes are B×T×F×H; training is forward and backward to the weights.",
        table(["case", *labels], body, texts=1),
        f"![Ratio to torch.nn.LSTM]({about['name']}.png)"
        if plotted
        else "The plot was left out: matplotlib is not installed, or there was nothing to compare.",
        "## Targets",
        "Met is what both ratios meet: the one taken within rounds, and that of the medians of the "
        "whole run.\n\n" + table(TARGET_HEAD, judged, texts=3)
        if not about["quick"]
        else "They are about shapes that a quick run leaves out.",
        "## Errors",
        "Every case was held against a float64 computation before it was timed. "
        "The largest error of each library, as a share of the bound on it: "
        + ("; ".join(worst) or "none was checked")
        + ".",
        *(["\n".join(troubles)] if troubles else []),
    ]
    return "\n\n".join(parts) + "\n"


def plot(about: dict[str, Any], rows: list[Row]) -> bytes | None:
    """A PNG: a panel per mode and mask, a mark per library and shape at its ratio, log axis."""
    cases = [of for of in by_case(rows).values() if "median" in of.get(BASELINE, {})]
    names = [name for name in about["libraries"] if name != BASELINE]
    if not cases or not names:
        return None
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
    except ModuleNotFoundError:
        return None

    known = list(LIBRARIES)
    styles = {n: known.index(n) if n in known else i for i, n in enumerate(names)}
    figure = Figure(figsize=(10, 7.5), dpi=150, layout="constrained")
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    shapes = list(dict.fromkeys(tuple(next(iter(of.values()))["shape"]) for of in cases))
    ratios: list[float] = [1.0]
    handles = {}
    for panels, masked in zip(grid, (False, True), strict=True):
        for axes, mode in zip(panels, ("inference", "training"), strict=True):
            axes.axhline(1, color="0.3", linewidth=1.2, zorder=1)
            axes.set_title(f"{mode}, {'masked' if masked else 'unmasked'}", fontsize=11)
            for position, name in enumerate(names):
                shift = (position - (len(names) - 1) / 2) * 0.8 / len(names)
                here = [
                    (shapes.index(tuple(of[name]["shape"])), of[name], of[BASELINE])
                    for of in cases
                    if of[name]["mode"] == mode
                    and of[name]["masked"] == masked
                    and "median" in of[name]
                ]
                heights = [ratio(row, base)[0] for _, row, base in here]
                ratios += heights
                handles[name] = axes.scatter(
                    [x + shift for x, _, _ in here],
                    heights,
                    s=42,
                    color=COLOURS[styles[name] % len(COLOURS)],
                    marker=MARKERS[styles[name] % len(MARKERS)],
                    zorder=3,
                )
            for border in range(1, len(shapes)):
                axes.axvline(border - 0.5, color="0.85", linewidth=0.8, zorder=0)
            axes.set_yscale("log")
            axes.grid(axis="y", color="0.9", zorder=0)
            axes.set_xlim(-0.5, len(shapes) - 0.5)
            texts = [f"B {b}, T {t}\nF {f}, H {h}" for b, t, f, h in shapes]
            axes.set_xticks(range(len(shapes)), texts, fontsize=8.5)
            axes.spines[["top", "right"]].set_visible(False)
    low, high = min(ratios) / 1.3, max(ratios) * 1.3
    ticks = [m * 10.0**e for e in range(-4, 6) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    grid[0][0].set_ylim(low, high)
    for axes in grid.flat:
        axes.yaxis.set_major_locator(FixedLocator(ticks))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for left in grid[:, 0]:
        left.set_ylabel("time / time of torch.nn.LSTM")
    figure.suptitle(f"{about['machine']['cpu']}, {device(about)}", fontsize=12)
    figure.legend(
        list(handles.values()),
        [about["libraries"][name]["label"] for name in handles],
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
