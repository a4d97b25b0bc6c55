"""The numbers of the README: how far this package lies from Keras over the recorded cases.

    python -m parity_tests.how_equal [--device cuda]

For each dtype the largest error over all golden cases and engines, relative to max(1, largest
|truth|), where the truth is Keras's float64 result. Needs neither Keras nor TensorFlow.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from kerasish_lstm.parity.bounds import error

from .cases import GOLDEN
from .make_goldens import FOLDER
from .runs import ours
from .test_parity import engines

ROWS = {
    "outputs, h and c": ("output", "h", "c"),
    "gradients": ("d_x", "d_kernel", "d_recurrent_kernel", "d_bias", "d_h0", "d_c0"),
}


def measure(device: str = "cpu") -> dict[str, dict[str, float]]:
    """{row: {"float64": ..., "float32": ..., "Keras float32": ...}}."""
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    found = {row: {"float64": 0.0, "float32": 0.0, "Keras float32": 0.0} for row in ROWS}
    rows = {name: row for row, names in ROWS.items() for name in names}
    for limits in manifest["float32_errors"].values():
        for name, value in limits.items():
            cell = found[rows[name]]
            cell["Keras float32"] = max(cell["Keras float32"], value)
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    with np.load(FOLDER / "keras.npz") as goldens:
        names: dict[str, list[str]] = {}
        for key in goldens.files:
            names.setdefault(key.rpartition("/")[0], []).append(key.rpartition("/")[2])
        for case in (c for cases in GOLDEN.values() for c in cases):
            for dtype in ("float64", "float32"):
                for keywords in engines(case).values():
                    actual = ours(case, getattr(torch, dtype), device, **keywords)
                    for name in names[case.id]:
                        far = error(actual[name], goldens[f"{case.id}/{name}"])
                        found[rows[name]][dtype] = max(found[rows[name]][dtype], far)
    torch.backends.cudnn.allow_tf32 = tf32
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    found = measure(parser.parse_args().device)
    count = sum(map(len, GOLDEN.values()))
    table = Table(title=f"Largest error over {count} cases recorded from Keras")
    table.add_column("")
    for header in ("float64", "float32", "Keras's own float32"):
        table.add_column(header, justify="right")
    for row, cells in found.items():
        table.add_row(row, *(f"{v:.1e}" for v in cells.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
