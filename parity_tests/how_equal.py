"""The numbers of the README: how far this package lies from Keras, in each precision.

    python -m parity_tests.how_equal [--device cuda]

For each precision the largest error over its cases and engines, relative to max(1, largest
|truth|), beside Keras's own. In float64 and float32 the truth is Keras's float64 result, over all
golden cases; in 16 bits it is the float64 equations, over ``cases.PRECISION``. Needs neither Keras
nor TensorFlow.

Then, reported and asserted nowhere: a chaotic regime, weights from N(0, 1) at T = 100, where an
ulp grows until any two implementations part.
"""

from __future__ import annotations

import argparse
import json
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from kerasish_lstm import LSTM
from kerasish_lstm.parity import oracle
from kerasish_lstm.parity.bounds import error

from .cases import GOLDEN, PRECISION
from .make_goldens import FOLDER
from .runs import ours, truth
from .test_goldens import of_layer
from .test_parity import ENGINES, engines

COLUMNS = {
    "outputs, h and c": ("output", "h", "c"),
    "gradients": ("d_x", "d_kernel", "d_recurrent_kernel", "d_bias", "d_h0", "d_c0"),
}
COLUMN_OF = {name: column for column, names in COLUMNS.items() for name in names}
# What the suite asserts of each.
PROMISES = {
    "float64": "1e-12",
    "float32": "3 × Keras's own + 4 ulps",
    "bfloat16": "3 × Keras's own",
    "float16": "3 × Keras's own",
    "mixed_bfloat16": "3 × Keras's own",
    "mixed_float16": "3 × Keras's own",
    "float32 under torch.autocast (bfloat16)": "3 × Keras's mixed_bfloat16",
}
Row = dict[str, dict[str, float | None]]  # {column: {"here": ..., "Keras": ...}}


def _largest(found: Row, side: str, errors: dict[str, float]) -> None:
    for name, value in errors.items():
        cell = found[COLUMN_OF[name]]
        cell[side] = max(cell[side] or 0.0, value)


def measure(device: str = "cpu") -> dict[str, Row]:
    """{precision: {column: {"here": ..., "Keras": ...}}}; Keras's is None where it is the truth."""
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    table: dict[str, Row] = {
        row: {column: {"here": 0.0, "Keras": None} for column in COLUMNS} for row in PROMISES
    }
    for limits in manifest["float32_errors"].values():
        _largest(table["float32"], "Keras", limits)
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    goldens = of_layer()
    for case in (c for cases in GOLDEN.values() for c in cases):
        for dtype in ("float64", "float32"):
            for keywords in engines(case).values():
                actual = ours(case, getattr(torch, dtype), device, **keywords)
                errors = {n: error(actual[n], v) for n, v in goldens[case.id].items()}
                _largest(table[dtype], "here", errors)
    truths = {case: truth(case) for case in PRECISION}
    for row, cells in table.items():
        if row in ("float64", "float32"):
            continue
        autocast = "autocast" in row
        policy = "mixed_bfloat16" if autocast else row
        _largest(cells, "Keras", manifest["low_precision_errors"][policy])
        dtype: Any = row if row.startswith("mixed") else getattr(torch, row, torch.float32)
        for case, exact in truths.items():
            for keywords in ENGINES.values():
                context: AbstractContextManager[Any] = nullcontext()
                if autocast:
                    context = torch.autocast(device, dtype=torch.bfloat16)
                with context:
                    actual = ours(case, dtype, device, **keywords)
                _largest(cells, "here", {n: error(actual[n], v) for n, v in exact.items()})
    torch.backends.cudnn.allow_tf32 = tf32
    return table


def chaos(device: str = "cpu") -> dict[str, float]:
    """Errors against the float64 equations of this package's engines and of nn.LSTM itself."""
    batch, steps, features, units = 5, 100, 7, 31
    rng = np.random.RandomState(0)
    weights = [rng.normal(size=s) for s in ((features, 4 * units), (units, 4 * units), 4 * units)]
    x = rng.normal(size=(batch, steps, features))
    truth = oracle.forward(x, *weights).output
    tensor = torch.tensor(x, dtype=torch.float32, device=device)
    found = {}
    for name, engine in (("fused", "auto"), ("scan", False)):
        layer: LSTM = LSTM(features, units, use_cudnn=engine, device=device)
        layer.set_weights(weights)
        with torch.inference_mode():
            found[name] = error(layer(tensor).cpu().numpy(), truth)
    plain = torch.nn.LSTM(features, units, batch_first=True, device=device)
    plain.load_state_dict(layer.lstm.state_dict())
    with torch.no_grad():
        found["nn.LSTM"] = error(plain(tensor)[0][:, -1].cpu().numpy(), truth)
    return found


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    found = measure(device)
    count = sum(map(len, GOLDEN.values()))
    table = Table(
        title=f"Largest errors; {count} cases recorded from Keras, {len(PRECISION)} in 16 bits"
    )
    table.add_column("")
    for column in COLUMNS:
        table.add_column(column, justify="right")
        table.add_column("Keras's own", justify="right")
    table.add_column("asserted")
    for row, cells in found.items():
        numbers = [v for column in COLUMNS for v in cells[column].values()]
        table.add_row(row, *("-" if v is None else f"{v:.1e}" for v in numbers), PROMISES[row])
    console = Console()
    console.print(table)
    regime = ", ".join(f"{name} {value:.1e}" for name, value in chaos(device).items())
    console.print(f"Chaotic regime, float32, N(0, 1) weights, T = 100 (asserted nowhere): {regime}")


if __name__ == "__main__":
    main()
