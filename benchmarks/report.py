"""The report of a run: NAME.json with everything, NAME.md to read, NAME*.png to look at."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable
from functools import reduce
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import floors, plots
from benchmarks.cases import BASELINE, GROUPS, GROWTH, OURS, QUICK_GROWTH, TARGETS, Case, cases_of
from benchmarks.verdicts import (
    Row,
    Run,
    combined,
    exponents,
    fastest_peer,
    judge,
    lowest_floors,
    measured,
    ratio,
    ratios,
    timed,
)

SHORT = {
    "missing": "not installed", "unsupported": "–", "too slow": "too slow", "wrong": "**wrong**",
    "error": "**error**",
}  # fmt: skip


def write(folder: Path, about: dict[str, Any], runs: list[Run]) -> list[Path]:
    """Write the files, each whole or not at all, and give their paths."""
    name = about["name"]
    rows = combined(run["cases"] for run in runs)
    floor = lowest_floors(runs)
    runs = [run | {"floors": floor} for run in runs]
    targets = []
    if about["device"] == "cpu" and about["threads"] == 2:  # which they are about
        targets = [v for target in TARGETS for v in judge(target, about["threads"], runs)]
    growth = exponents(rows, QUICK_GROWTH if about["quick"] else GROWTH, about["threads"])
    asked = about.get("runs asked", len(runs))
    complete = about.get("complete", True) and len(runs) >= asked
    found = {"targets": targets, "growth": growth}
    about = {**about, "runs": len(runs), "runs asked": asked, "complete": complete}
    try:
        pictures = plots.draw(about | {"where": where(about)}, *ratios(rows, floor), growth)
    except Exception as error:  # the numbers have taken an hour
        pictures = {}
        about = {**about, "no plots": f"{type(error).__name__}: {error}"}
        runs[-1]["failures"].append(f"the plots: {about['no plots']}")  # and ends with 1
    numbers = save(folder / f"{name}.json", about, runs, complete=complete, **found)
    partial(folder, about).unlink(missing_ok=True)
    text = markdown(about, runs, rows, floor, targets, growth, [f"{name}{p}.png" for p in pictures])
    paths = {folder / f"{name}.md": text.encode()}
    for suffix in plots.SUFFIXES:
        path = folder / f"{name}{suffix}.png"
        if suffix in pictures:
            paths[path] = pictures[suffix]
        else:
            path.unlink(missing_ok=True)  # an earlier run's would contradict
    for path, written in paths.items():
        replace(path, written)
    return [numbers, *paths]


def partial(folder: Path, about: dict[str, Any]) -> Path:
    """The file that is written after each set of cases: what a run that is stopped has left."""
    return folder / f"{about['name']}.partial.json"


def save(
    path: Path, about: dict[str, Any], runs: list[Run], *, complete: bool, **more: Any
) -> Path:
    """Write everything that was measured."""
    content = {**about, "runs": len(runs), "complete": complete, "results": runs, **more}
    replace(path, json.dumps(content, indent=1, allow_nan=False).encode())
    return path


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


# Markdown


def table(head: list[str], body: list[list[str]], texts: int) -> str:
    """Markdown, the first ``texts`` columns to the left, the others to the right."""
    align = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, align, *body))


def times_sign(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape))


def milliseconds(seconds: float) -> str:
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 1e-4 else f"{value:.6f}"


def device(about: dict[str, Any]) -> str:
    if about["device"] == "cpu":
        return f"{about['threads']} thread" + "s" * (about["threads"] > 1)
    names = {library.get("device") for library in about["libraries"].values()} - {None}
    return f"CUDA on {', '.join(sorted(names))}, TF32 off"


def where(about: dict[str, Any]) -> str:
    """What the times are of, above a plot."""
    return (
        device(about)
        if about["device"] == "cuda"
        else f"{about['machine']['cpu']}, {device(about)}"
    )


def times_table(
    about: dict[str, Any], rows: list[Row], floor: dict[str, Any], cases: list[Case]
) -> str:
    """Milliseconds and, in parentheses, the ratio to nn.LSTM; then ours beside peer and floor."""
    names = list(about["libraries"])
    by_case = {(row["case"], row["library"]): row for row in rows if not row["growth"]}
    body = []
    for case in cases:
        of_case = {name: by_case.get((case.id, name)) for name in names}
        fine = {name: r for name, r in of_case.items() if r is not None and r["status"] == "ok"}
        line = [f"{case.mode}, {case.variant}, {times_sign(case.shape)}"]
        for row in of_case.values():
            if row is None or row["status"] != "ok":
                line.append("" if row is None else SHORT[row["status"]])
            elif BASELINE in fine:
                value = ratio(row, fine[BASELINE])
                line.append(f"{milliseconds(row['median'])} ({value:.2f})")
            else:
                line.append(milliseconds(row["median"]))
        peer, least = fastest_peer(fine), floor.get(case.id)
        ours = fine.get(OURS)
        line.append(f"{ratio(ours, peer):.2f}" if ours and peer else "")
        if floor:
            line.append(f"{milliseconds(least['seconds'])}, {least['by']}" if least else "")
            line.append(f"{ours['median'] / least['seconds']:.2f}" if ours and least else "")
        body.append(line)
    labels = [about["libraries"][name]["label"] for name in names]
    last = ["ours / best peer", *(["floor", "ours / floor"] if floor else [])]
    return table(["case", *labels, *last], body, texts=1)


SHOWN = (
    Case(2, 3, 4, 5), Case(1, 100, 64, 64), Case(32, 100, 64, 128), Case(64, 128, 256, 256),
    Case(128, 200, 128, 512), Case(1, 1000, 256, 1024),
    Case(32, 100, 64, 128, mask="right"), Case(64, 128, 256, 256, mask="right"),
    Case(64, 128, 256, 256, recurrent_activation="hard_sigmoid"),
    Case(64, 128, 256, 256, recurrent_dropout=0.25),
)  # fmt: skip


SHOWN_PEERS = (
    "torch_lstm", "onnxruntime", "openvino", "jax_jit", "tensorflow_xla", "keras_torch",
)  # fmt: skip


def short_table(content: dict[str, Any]) -> str:
    """README's: ours in milliseconds, and as a multiple of each peer's that did the case."""
    rows = combined(run["cases"] for run in content["results"])
    by_case = {(row["case"], row["library"]): row for row in rows if not row["growth"]}
    names = [n for n in SHOWN_PEERS if content["libraries"].get(n, {}).get("status") == "ok"]
    body = []
    for shown, mode in product(SHOWN, ("inference", "training")):
        case = shown._replace(mode=mode)
        ours = by_case.get((case.id, OURS))
        if ours is None or ours["status"] != "ok":
            continue
        what = "" if case.variant == "plain" else f", {case.variant}"
        line = [f"{mode}, {times_sign(case.shape)}{what}", milliseconds(ours["median"])]
        for name in names:
            peer = by_case.get((case.id, name))
            fine = peer is not None and peer["status"] == "ok"
            line.append(f"{ratio(ours, peer):.2f}" if peer and fine else "–")
        body.append(line)
    head = ["", "this layer, ms", *(content["libraries"][name]["label"] for name in names)]
    return table(head, body, texts=1)


def short_text(content: dict[str, Any]) -> str:
    """README's: what the smallest step is made of, memory, and how many targets were met."""
    runs, targets = content["results"], content["targets"]
    rows = combined(run["cases"] for run in runs)
    case = Case(1, 3, 1, 1, "training")
    of_case = timed((row for row in rows if not row["growth"]), case)
    shares = [
        each.ratio
        for target in TARGETS
        if target.against == "memory"
        for at in target.cases
        for run in runs
        if (each := measured(target, at, run)) is not None
    ]
    judged = [v for v in targets if v["met"] is not None]
    return (
        f"At {times_sign(case.shape)} a compiled JAX step of training takes "
        f"{milliseconds(of_case['jax_jit']['median'])} ms and ours "
        f"{milliseconds(of_case[OURS]['median'])}, of which {empty_step(runs)} go to an "
        "`autograd.Function` that computes nothing. Of memory a training step takes "
        f"{min(shares):.2f} to {max(shares):.2f} of `nn.LSTM`'s. "
        f"{sum(v['met'] for v in judged)} of {len(judged)} targets were met in the worst of "
        f"{len(runs)} runs"
    )


def target_table(targets: list[dict[str, Any]]) -> str:
    body = []
    judged = [verdict for verdict in targets if verdict["met"] is not None]
    for v in judged:
        body.append(
            [
                v["target"], v["mode"], times_sign(v["shape"]), v["against"] or "",
                ", ".join(f"{value:.3f}" for value in v["runs"] or ()),
                "" if v["ratio"] is None else f"{v['ratio']:.3f}",
                f"{v['at_most']:g}",
                ("met" if v["met"] else "**not met**") + (f" ({v['note']})" if v["note"] else ""),
            ]
        )  # fmt: skip
    count = sum(v["met"] for v in judged)
    lost = [v for v in targets if v["met"] is None]
    text = f"{count} of {len(judged)} met; {len(lost)} not measured."
    if not judged:
        return text
    if lost:
        names = (f"{v['target']}, {v['mode']}, {times_sign(v['shape'])}" for v in lost)
        text += "\n\nNot measured: " + "; ".join(names) + "."
    head = ["target", "mode", "shape", "against", "runs", "largest", "limit", "verdict"]
    return text + "\n\n" + table(head, body, texts=4)


def peaks_table(runs: list[Run]) -> str:
    """The best of all runs, in GFLOP/s and GB/s."""
    body = []
    for threads in runs[0]["peaks"]:
        best = reduce(floors.better, (run["peaks"][threads] for run in runs))
        line = [threads, *(f"{best['gemm'][dtype] / 1e9:.0f}" for dtype in floors.ITEMSIZE)]
        line.append(f"{best['copy'] / 1e9:.0f}")
        line.append(", ".join(f"{size >> 10}: {rate / 1e9:.0f}" for size, rate in best["read"]))
        body.append(line)
    head = ["threads", *floors.ITEMSIZE, "copy, GB/s", "read, GB/s by KiB"]
    return table(head, body, texts=1)


def empty_step(runs: list[Run]) -> str:
    return milliseconds(min(p["step"] for run in runs for p in run["peaks"].values()))


def growth_table(about: dict[str, Any], growth: list[dict[str, Any]]) -> str:
    body = [
        [
            f"{g['axis']} of {', '.join(map(str, g['sizes']))}", g["mode"],
            about["libraries"][g["library"]]["label"],
            ", ".join(milliseconds(s) for s in g["seconds"]), f"{g['exponent']:.2f}",
        ]
        for g in growth
    ]  # fmt: skip
    return table(["growth", "mode", "library", "ms", "exponent"], body, texts=3)


def memory_table(about: dict[str, Any], rows: list[Row]) -> str:
    names = list(about["libraries"])
    body = []
    for case in dict.fromkeys(row["case"] for row in rows):
        of_case = {row["library"]: row for row in rows if row["case"] == case}
        base = of_case.get(BASELINE, {}).get("peak")
        line = [times_sign(next(iter(of_case.values()))["shape"])]
        for name in names:
            row = of_case[name]
            if row["status"] != "ok":
                line.append(SHORT[row["status"]])
            else:
                share = f" ({row['peak'] / base:.2f})" if base else ""
                line.append(f"{row['peak'] / 2**20:.1f}{share}")
        body.append(line)
    labels = [about["libraries"][name]["label"] for name in names]
    return table(["MiB", *labels], body, texts=1)


def start_table(about: dict[str, Any], rows: list[Row]) -> str:
    columns = ("imported", "prepared", "first_call", "second_call")
    body = []
    for row in rows:
        label = about["libraries"][row["library"]]["label"]
        if row["status"] == "ok":
            body.append([label, *(milliseconds(row[name]) for name in columns)])
        else:
            body.append([label, SHORT[row["status"]], *[""] * (len(columns) - 1)])
    head = ["library", "import, ms", "preparation", "first call", "second call"]
    return table(head, body, texts=1)


def listed(rows: list[Row], statuses: tuple[str, ...]) -> list[str]:
    """What did not go: a line a library and message."""
    lines = []
    for row in rows:
        status = row.get("failed") or row["status"]
        if status.partition(" in ")[0] in statuses:
            at = "" if status in ("missing", "unsupported") else f", {row['case']}"
            lines.append(f"- {row['library']}{at}, {status}: {row['message']}")
    return list(dict.fromkeys(lines))


def markdown(
    about: dict[str, Any],
    runs: list[Run],
    rows: list[Row],
    floor: dict[str, Any],
    targets: list[dict[str, Any]],
    growth: list[dict[str, Any]],
    pictures: list[str],
) -> str:
    machine, groups = about["machine"], about["groups"]
    memory, start = (combined(run[name] for run in runs) for name in ("memory", "start"))
    versions: dict[str, str] = {}
    for library in about["libraries"].values():
        versions |= library.get("versions", {})

    parts = [
        f"# Speed: {about['name']}",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['os']}; {device(about)}; "
        f"runs: {about['runs']} of {about['runs asked']}, of {about['rounds']} rounds; "
        f"{about['date']}.",
        ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
    ]
    if source := about.get("source"):
        parts.append(", ".join(f"{name} {value}" for name, value in source.items()) + ".")
    if not about["complete"]:
        parts.append("**It was stopped before its end: what is empty was not measured.**")
    spent = [
        f"{run['minutes']:.0f} min, {run['steal']:.1%} stolen" for run in runs if "minutes" in run
    ]
    if spent:
        load = about["machine"]["load"]
        parts.append(f"Load before: {load:.2f}. By run: {'; '.join(spent)}.")
    native = about["libraries"].get(OURS, {}).get("native")
    if native and about["device"] == "cpu":
        parts.append(f"kerasish_lstm's native engine: {native}".rstrip(".") + ".")
    if about["quick"]:
        parts.append("A quick run: it shows that everything works, and no speed.")
    parts += [
        "## Targets",
        "They are about shapes that a quick run leaves out."
        if about["quick"]
        else "They are about a CPU with two threads."
        if about["device"] != "cpu" or about["threads"] != 2
        else "The verdict is on the largest ratio of the runs, against each peer with its own "
        "limit.\n\n" + target_table(targets),
        "## Times",
        "Median milliseconds of a call and, in parentheses, the ratio to torch.nn.LSTM in the same "
        "row (of the medians of each round, the median over the rounds): above 1 is slower. "
        "Shapes are B×T×F×H; training is forward and backward to the weights, which are others "
        "at each step; plain is the layer with Keras's defaults in float32. torch.nn.LSTM runs a "
        "right mask over a packed sequence or over the padding, as is faster. A peer that took "
        "twice the fastest peer's time in the first run is in no later one.",
        *(f"![{picture}]({picture})" for picture in pictures),
    ]
    if not pictures:
        why = about.get("no plots", "matplotlib is not installed, or there was nothing to compare")
        parts.append(f"No plots: {why}.")
    for group in groups:
        cases = cases_of(group, about["threads"], about["quick"])
        if group != "growth" and cases:
            parts += [f"### {GROUPS[group]}", times_table(about, rows, floor, cases)]
    if runs[0]["peaks"]:
        parts += [
            "## The machine's peaks",
            "GFLOP/s of matrix products by dtype (torch.mm, or oneDNN with a packed matrix), and "
            "bandwidths; the floors come from them.",
            peaks_table(runs),
            "A training step of torch that computes nothing (an autograd.Function, the sum of its "
            f"output, the backward) takes {empty_step(runs)} ms.",
        ]
    if growth:
        parts += [
            "## Growth",
            "Fitted exponents of the time, with the other sizes fixed.",
            growth_table(about, growth),
        ]
    if memory:
        parts += [
            "## Peak memory of a training step",
            "MiB above what the process held before it and, in parentheses, the ratio to nn.LSTM.",
            memory_table(about, memory),
        ]
    if start:
        shape = times_sign(start[0]["shape"])
        parts += [
            "## Import and first call",
            f"Milliseconds in a fresh process, inference at {shape}; Python and NumPy are loaded.",
            start_table(about, start),
        ]
    unasked = [f"- the group {name}: not asked for" for name in GROUPS if name not in groups]
    worst = []
    checked = [*rows, *memory, *start]
    for name, library in about["libraries"].items():
        shares = [
            e["error"] / e["bound"]
            for row in checked
            if row["library"] == name
            for e in row["errors"].values()
            if e["error"] is not None
        ]
        if shares:
            worst.append(f"{library['label']}: {max(shares):.2g}")
    parts += [
        "## Errors",
        "Every case was held against a float64 computation before it was timed. "
        "The largest error of each library, as a share of the bound on it: "
        + ("; ".join(worst) or "none was checked")
        + ".",
        "\n".join(
            [
                *listed(checked, ("wrong", "error")),
                *(f"- {failure}" for run in runs for failure in run["failures"]),
            ]
        ),
        "## Left out",
        "\n".join(listed(checked, ("missing", "unsupported", "too slow")) + unasked) or "Nothing.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
