"""How fast a weights file becomes modules, beside h5py reading the same arrays.

    python -m benchmarks.files [--mebibytes 500] [--rounds 7] [--out DIR]

Each round is a process of its own. It loads the file (one LSTM that is all of it, and one of eight
LSTMs) once: then it is warm, and the peak of memory is that of this load, above what the process
held after its imports. Every number is checked: the modules' weights are the file's, bit by bit.
Then it measures, in turn, h5py and ``load_keras``.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from .report import replace, table

RESULTS = Path(__file__).parent / "results"
MINIMUM_SPEED = 1 / 3  # of h5py's
MAXIMUM_MEMORY = 1.3  # of the arrays


def write(folder: Path, name: str, layers: int, mebibytes: int) -> int:
    """A file of LSTMs with as many features as units; the bytes of its arrays."""
    units = int((mebibytes * 2**20 / layers / 4 / 8) ** 0.5)
    rng = np.random.default_rng(0)
    entries = []
    with h5py.File(folder / f"{name}.weights.h5", "w") as file:
        file.create_group("vars")
        for layer in range(layers):
            group = f"layers/lstm_{layer}" if layer else "layers/lstm"
            for i, shape in enumerate([(units, 4 * units), (units, 4 * units), (4 * units,)]):
                file[f"{group}/cell/vars/{i}"] = rng.standard_normal(shape, dtype=np.float32)
            config = {"name": f"layer_{layer}", "units": units, "return_sequences": True}
            entries.append({"class_name": "LSTM", "config": config})
    config = {"class_name": "Sequential", "config": {"name": "m", "layers": entries}}
    (folder / f"{name}.json").write_text(json.dumps(config))
    return layers * 4 * (8 * units * units + 4 * units)


CHILD = """
import json, sys, time
import h5py, numpy, torch, kerasish_lstm
torch.set_num_threads(int(sys.argv[3]))
path, config = sys.argv[1:3]
def high():
    with open("/proc/self/status") as status:
        return next(int(s.split()[1]) for s in status if s.startswith("VmHWM")) * 1024
def arrays():
    found = []
    with h5py.File(path) as file:
        file.visititems(lambda n, o: found.append(o[()]) if isinstance(o, h5py.Dataset) else None)
    return found
def modules():
    return kerasish_lstm.load_keras(path, config=config)
def check(result):
    with h5py.File(path) as file:
        for i, module in enumerate(result.values()):
            group = f"layers/lstm_{i}" if i else "layers/lstm"
            lstm = module.lstm
            for n, w in enumerate((lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0)):
                given = w.detach().t() if w.ndim == 2 else w.detach()
                assert (given.numpy() == file[f"{group}/cell/vars/{n}"][()]).all(), (i, n)
base = high()
result = modules()
peak, times = high() - base, {}
check(result)
for name, call in (("h5py", arrays), ("load_keras", modules)):
    for _ in range(2):
        result = None
        start = time.perf_counter()
        result = call()
        times[name] = time.perf_counter() - start
check(result)
print(json.dumps({"times": times, "peak": peak}))
"""


def run(folder: Path, name: str, threads: int) -> dict[str, Any]:
    """One process: the seconds of each, and the peak of memory above the imports."""
    paths = [str(folder / f"{name}.weights.h5"), str(folder / f"{name}.json")]
    command = [sys.executable, "-c", CHILD, *paths, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(name: str, layers: int, mebibytes: int, rounds: int, threads: int) -> dict[str, Any]:
    """One file: medians of both, the median of the rounds' ratios, the peak of memory."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        size = write(folder, name, layers, mebibytes)
        found = [run(folder, name, threads) for _ in range(rounds)]
    times = [one["times"] for one in found]
    return {
        "name": name,
        "layers": layers,
        "bytes": size,
        "h5py": statistics.median(t["h5py"] for t in times),
        "load_keras": statistics.median(t["load_keras"] for t in times),
        "speed": statistics.median(t["h5py"] / t["load_keras"] for t in times),
        "memory": max(one["peak"] for one in found) / size,
    }


def main(argv: list[str] | None = None) -> int:
    """Measure, write ``files.json`` and ``files.md``; 1 where a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.files")
    parser.add_argument("--mebibytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(argv)
    rows = [
        measure(name, layers, given.mebibytes, given.rounds, given.threads)
        for name, layers in (("one layer", 1), ("eight layers", 8))
    ]
    about = {
        "machine": platform.processor() or platform.machine(), "threads": given.threads,
        "torch": torch.__version__, "h5py": h5py.__version__, "numpy": np.__version__,
        "rounds": given.rounds,
    }  # fmt: skip
    replace(given.out / "files.json", json.dumps({"about": about, "rows": rows}, indent=1).encode())
    body = [
        [
            row["name"], f"{row['bytes'] / 2**20:.0f}", f"{row['h5py']:.3f}",
            f"{row['load_keras']:.3f}", f"{row['speed']:.2f}", f"{row['memory']:.2f}",
        ]
        for row in rows
    ]  # fmt: skip
    head = ["file", "MiB", "h5py, s", "load_keras, s", "speed, of h5py's", "memory, of the arrays"]
    text = "# A weights file becomes modules\n\n" + table(head, body, 1)
    text += "\n\nSpeed is the median of the rounds' ratios, meant to be at least 0.33; memory the "
    text += "peak above the imports, meant to be at most 1.3.\n\n"
    text += ", ".join(f"{key} {value}" for key, value in about.items()) + "\n"
    replace(given.out / "files.md", text.encode())
    print(text)
    met = all(r["speed"] >= MINIMUM_SPEED and r["memory"] <= MAXIMUM_MEMORY for r in rows)
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
