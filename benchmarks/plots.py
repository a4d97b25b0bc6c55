"""The plots: ratio to the best peer by case, distance to the floor, growth."""

from __future__ import annotations

import io
from typing import Any

from benchmarks.cases import BASELINE, LIBRARIES, OURS

Row = dict[str, Any]
SUFFIXES = ("", "-floor", "-growth")
# Okabe and Ito's colours, told apart by the colour-blind too; a library's stay the same.
COLOURS = (
    "#D55E00", "#000000", "#7F7F7F", "#0072B2", "#E69F00", "#B8860B", "#56B4E9", "#009E73",
    "#CC79A7", "#8A2BE2",
)  # fmt: skip
MARKERS = ("o", "s", "x", "v", "^", "<", ">", "D", "P", "X")


def draw(
    about: dict[str, Any],
    to_peer: list[Row],
    to_floor: list[Row],
    growth: list[dict[str, Any]],
) -> dict[str, bytes]:
    """Suffix of the file's name -> PNG; empty without matplotlib, or with nothing to show.

    to_peer, to_floor: rows with a "ratio". about's "where" stands above each plot.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return {}
    plain = [row for row in to_floor if row["variant"] == "plain" and row["threads"] != 1]
    plain = plain or [row for row in to_floor if row["variant"] == "plain"]
    figures = {
        "": by_case(Figure, about, to_peer, "time / time of the fastest peer"),
        "-floor": by_case(Figure, about, plain, "time / floor"),
        "-growth": growths(Figure, about, growth),
    }
    pictures = {}
    for suffix, figure in figures.items():
        if figure is not None:
            content = io.BytesIO()
            figure.savefig(content, format="png")
            pictures[suffix] = content.getvalue()
    return pictures


def style(about: dict[str, Any], name: str) -> dict[str, Any]:
    """A library's colour and marker; ours lies below the others, larger, so that none is hidden."""
    known, names = list(LIBRARIES), list(about["libraries"])
    at = known.index(name) if name in known else names.index(name)
    big = name in (OURS, BASELINE)
    return {
        "color": COLOURS[at % len(COLOURS)],
        "marker": MARKERS[at % len(MARKERS)],
        "s": 70 if name == OURS else 34,
        "zorder": 2 if name == OURS else 4 if big else 3,
        "linewidths": 1.2,
    }


def log_ticks(axis: Any, low: float, high: float) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    digits = (1, 2, 5) if high / low < 1e3 else (1,)
    ticks = [m * 10.0**e for e in range(-4, 6) for m in digits]
    axis.set_major_locator(FixedLocator([t for t in ticks if low <= t <= high]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def label(row: Row) -> str:
    threads = "" if row["threads"] != 1 else ", 1 thread"
    variant = "" if row["variant"] == "plain" else f"{row['variant']}, "
    return f"{variant}{'×'.join(map(str, row['shape']))}{threads}"


def by_case(figure_class: Any, about: dict[str, Any], rows: list[Row], x: str) -> Any:
    """A panel a mode, a line a case, a mark a library at its ratio; None with nothing to show."""
    modes = [m for m in ("inference", "training") if any(row["mode"] == m for row in rows)]
    names = [n for n in about["libraries"] if any(row["library"] == n for row in rows)]
    if not rows:
        return None
    lines = [list(dict.fromkeys(label(r) for r in rows if r["mode"] == m)) for m in modes]
    height = 2.6 + 0.27 * max(map(len, lines))
    figure = figure_class(figsize=(6.5 * len(modes) + 0.5, height), dpi=130, layout="constrained")
    panels = figure.subplots(1, len(modes), squeeze=False)[0]
    ratios = [row["ratio"] for row in rows] + [1.0]
    low, high = min(ratios) / 1.2, max(ratios) * 1.2
    handles = {}
    for axes, mode, texts in zip(panels, modes, lines, strict=True):
        for name in names:
            here = [row for row in rows if row["mode"] == mode and row["library"] == name]
            handles[name] = axes.scatter(
                [row["ratio"] for row in here],
                [texts.index(label(row)) for row in here],
                **style(about, name),
            )
        axes.axvline(1, color="0.3", linewidth=1.2, zorder=1)
        axes.set_title(mode, fontsize=11)
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        log_ticks(axes.xaxis, low, high)
        axes.set_xlabel(x)
        axes.set_yticks(range(len(texts)), texts, fontsize=8)
        axes.set_ylim(len(texts) - 0.5, -0.5)
        axes.grid(color="0.9", zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(about["where"], fontsize=12)
    figure.legend(
        list(handles.values()),
        [about["libraries"][name]["label"] for name in handles],
        loc="outside lower center",
        ncols=min(5, len(handles)),
        frameon=False,
    )
    return figure


def growths(figure_class: Any, about: dict[str, Any], growth: list[dict[str, Any]]) -> Any:
    """A panel an axis and mode: times over sizes, both logarithmic, the exponent in the legend."""
    if not growth:
        return None
    axes_names = list(dict.fromkeys(g["axis"] for g in growth))
    modes = list(dict.fromkeys(g["mode"] for g in growth))
    size = (4 * len(axes_names), 3.2 * len(modes) + 0.4)
    figure = figure_class(figsize=size, dpi=130, layout="constrained")
    grid = figure.subplots(len(modes), len(axes_names), squeeze=False)
    for panels, mode in zip(grid, modes, strict=True):
        for axes, name in zip(panels, axes_names, strict=True):
            times = []
            for g in growth:
                if (g["axis"], g["mode"]) != (name, mode):
                    continue
                mark = style(about, g["library"])
                text = f"{about['libraries'][g['library']]['label']}: {g['exponent']:.2f}"
                seconds = [1e3 * s for s in g["seconds"]]
                times += seconds
                axes.plot(
                    g["sizes"], seconds, label=text, color=mark["color"], marker=mark["marker"],
                    markersize=5, linewidth=1.3,
                )  # fmt: skip
                sizes = g["sizes"]
            if not times:  # a case of this growth was wrong
                axes.set_visible(False)
                continue
            axes.set_xscale("log")
            axes.set_yscale("log")
            low, high = min(times) / 1.3, max(times) * 1.3
            axes.set_ylim(low, high)
            log_ticks(axes.yaxis, low, high)
            log_ticks(axes.xaxis, 1, 2)  # no marks but those of the sizes
            axes.set_xticks(sizes, [str(s) for s in sizes])
            axes.set_xlabel(name)
            axes.set_title(mode, fontsize=10)
            axes.grid(color="0.9")
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=8, title="exponent", title_fontsize=8)
    for left in grid[:, 0]:
        left.set_ylabel("milliseconds")
    figure.suptitle(about["where"], fontsize=12)
    return figure
