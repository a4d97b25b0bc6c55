"""The numbers of the README: how far this package lies from Keras over the recorded cases.

    python -m parity_tests.how_equal [--device cuda]

For each dtype the largest error over all golden cases and engines, relative to max(1, largest
|truth|), where the truth is Keras's float64 result. Needs neither Keras nor TensorFlow.

Then, reported and asserted nowhere: a chaotic regime, weights from N(0, 1) at T = 100, where an
ulp grows until any two implementations part.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch

from kerasish_lstm import LSTM
from kerasish_lstm.parity import oracle
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
    table = Table(title=f"Largest error over {count} cases recorded from Keras")
    table.add_column("")
    for header in ("float64", "float32", "Keras's own float32"):
        table.add_column(header, justify="right")
    for row, cells in found.items():
        table.add_row(row, *(f"{v:.1e}" for v in cells.values()))
    console = Console()
    console.print(table)
    regime = ", ".join(f"{name} {value:.1e}" for name, value in chaos(device).items())
    console.print(f"Chaotic regime, float32, N(0, 1) weights, T = 100 (asserted nowhere): {regime}")


if __name__ == "__main__":
    main()
