"""The charts, as plotly's own JSON: colours are names that the page gives values by its theme."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import plotly.graph_objects as go

# Of a line: the dash tells apart what lies on each other, as nn.LSTM does on the fused engine.
LINES = {
    "fused": ("ours", "solid", "circle", 4),
    "scan": ("scan", "solid", "square", 2),
    "nn.LSTM": ("plain", "dot", "x", 2),
    "keras": ("keras", "solid", "diamond", 2),
}
TICKS = {"steps": [1, 3, 10, 31, 100, 316], "scale": [0.1, 0.2, 0.5, 1, 2, 5, 10]}
AXES = {"steps": "steps T", "scale": "weights, times uniform ±1/√U"}
BINS_A_DECADE = 2
LOWEST = -8  # shares below 1e-8 stand together
PRECISIONS = {"float64": "ours", "float32": "scan", "float16": "keras", "bfloat16": "half"}


def curve(curves: dict[str, Any], against: str) -> dict[str, Any]:
    """Error against steps or scale: the median as a line, up to the largest as a whisker."""
    figure = go.Figure()
    lines = [line for line in curves["lines"] if line["against"] == against and line["at"]]
    devices = {line["device"] for line in lines}
    for line in lines:
        colour, dash, symbol, width = LINES[line["name"]]
        on_cuda = line["device"] == "cuda"
        beside = {"cuda": ", CUDA", "cpu": ", CPU"}[line["device"]] if len(devices) > 1 else ""
        above = [high - mid for high, mid in zip(line["largest"], line["median"], strict=True)]
        figure.add_scatter(
            x=line["at"],
            y=line["median"],
            name=line["title"] + beside,
            meta={"colour": colour},
            mode="lines+markers",
            line={"dash": "dash" if on_cuda else dash, "width": width},
            marker={"symbol": f"{symbol}-open" if on_cuda else symbol, "size": 7},
            error_y={
                "type": "data", "array": above, "symmetric": False,
                "arrayminus": [0] * len(above), "thickness": 1, "width": 3,
            },
            hovertemplate="%{y:.2e}",
        )  # fmt: skip
    ulp = curves["ulp"]
    figure.add_hline(y=ulp, line={"dash": "dash", "width": 1})
    figure.add_annotation(
        x=0, xref="paper", xanchor="left", y=math.log10(ulp), yanchor="bottom",
        text="1 ulp of float32", showarrow=False,
    )  # fmt: skip
    figure.update_xaxes(
        type="log", title=AXES[against], tickvals=TICKS[against],
        ticktext=[f"{value:g}" for value in TICKS[against]],
    )  # fmt: skip
    heights = [ulp, *(error for line in lines for error in (*line["median"], *line["largest"]))]
    figure.update_yaxes(
        type="log", exponentformat="power", dtick=1, title="error", range=_decades(heights)
    )
    figure.update_layout(hovermode="x unified")
    return _plain(figure)


def _decades(values: list[float]) -> list[int]:
    """The whole decades around positive values, as logarithms."""
    logarithms = [math.log10(value) for value in values if value > 0]
    return [math.floor(min(logarithms)), math.ceil(max(logarithms))]


def shares(rows: list[tuple[str, float]]) -> dict[str, Any]:
    """How many tests have their worst comparison at which share of its bound: (dtype, share)."""
    last = BINS_A_DECADE * (2 - LOWEST)
    edges = [LOWEST + n / BINS_A_DECADE for n in range(last + 1)]
    labels = ["0", f"≤1e{LOWEST}"]
    labels += [f"{10**low:.1e} to {10**high:.1e}" for low, high in itertools.pairwise(edges)]
    labels.append("beyond")
    counts: dict[str, list[int]] = {}
    for dtype, share in rows:
        counts.setdefault(dtype, [0] * len(labels))[_bin(share, last)] += 1
    figure = go.Figure()
    for dtype in sorted(counts, key=lambda name: list(PRECISIONS).index(name)):
        figure.add_bar(
            x=list(range(len(labels))),
            y=counts[dtype],
            name=dtype,
            meta={"colour": PRECISIONS[dtype]},
            customdata=labels,
            hovertemplate="%{y} tests at %{customdata}",
        )
    bound = 2 + BINS_A_DECADE * (0 - LOWEST) - 0.5
    beyond = any(share > 1 for _, share in rows)
    figure.add_vline(x=bound, line={"dash": "dash", "width": 1})
    figure.add_annotation(
        x=bound,
        y=1,
        yref="paper",
        xanchor="right",
        yanchor="top",
        text="the bound ",
        showarrow=False,
    )
    decades = range(LOWEST, 3, 2)
    figure.update_xaxes(
        title="error / bound",
        tickangle=0,
        tickvals=[0, *(1.5 + BINS_A_DECADE * (d - LOWEST) for d in decades)],
        ticktext=["0", *("1" if d == 0 else f"10<sup>{d}</sup>" for d in decades)],
        range=[-0.6, len(labels) - 0.4 if beyond else bound + 1],
    )
    figure.update_yaxes(title="tests")
    figure.update_layout(barmode="stack", bargap=0.08, legend={"traceorder": "normal"})
    return _plain(figure)


def _bin(share: float, last: int) -> int:
    """0 for exactly nothing, 1 for next to nothing, then half decades, then everything beyond."""
    if share == 0:
        return 0
    if math.isinf(share):
        return last + 2
    place = math.floor((math.log10(share) - LOWEST) * BINS_A_DECADE)
    return min(max(place, -1), last) + 2


def _plain(figure: go.Figure) -> dict[str, Any]:
    """Without plotly's template, of which the page has its own."""
    figure.update_layout(template=None)
    plain: dict[str, Any] = json.loads(figure.to_json())
    return plain
