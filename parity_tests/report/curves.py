"""How float32 parts from float64 truth: against the number of steps, and against weight scale.

The truth is ``kerasish_lstm.parity.oracle``; the error is of the whole sequence of outputs,
relative to max(1, largest |truth|). Measured here and asserted nowhere: with large weights an LSTM
is chaotic, and any two implementations part.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from kerasish_lstm import LSTM
from kerasish_lstm.parity import oracle
from kerasish_lstm.parity.bounds import error

from ..keras_live import KerasLive, missing

STEPS = (1, 3, 10, 31, 100, 316)
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
SEEDS = 5
BATCH, FEATURES, UNITS, AT_STEPS = 5, 7, 31, 31

Arrays = dict[str, np.ndarray]
Compute = Callable[[list[Arrays]], list[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Point:
    """One place on a curve's axis."""

    against: str
    at: float
    steps: int
    scale: float

    def arrays(self, seed: int) -> Arrays:
        """Weights uniform in ±scale/sqrt(units), x in ±2; all of them float32 values."""
        rng = np.random.RandomState(seed)
        size = self.scale / np.sqrt(UNITS)

        def draw(*shape: int, scale: float) -> np.ndarray:
            return rng.uniform(-scale, scale, shape).astype(np.float32).astype(np.float64)

        return {
            "kernel": draw(FEATURES, 4 * UNITS, scale=size),
            "recurrent_kernel": draw(UNITS, 4 * UNITS, scale=size),
            "bias": draw(4 * UNITS, scale=size),
            "x": draw(BATCH, self.steps, FEATURES, scale=2.0),
            "d_output": np.ones((BATCH, self.steps, UNITS)),
        }


def points(steps: Iterable[int] = STEPS, scales: Iterable[float] = SCALES) -> list[Point]:
    """Both axes."""
    return [Point("steps", t, t, 1.0) for t in steps] + [
        Point("scale", scale, AT_STEPS, scale) for scale in scales
    ]


def measured(
    where: list[Point] | None = None, *, seeds: int = SEEDS, live: bool = True
) -> dict[str, Any]:
    """Median and largest error over the seeds, of each line at each point, and who was missing."""
    where = points() if where is None else where
    inputs = [point.arrays(seed) for point in where for seed in range(seeds)]
    truths = [
        oracle.forward(
            a["x"], a["kernel"], a["recurrent_kernel"], a["bias"], return_sequences=True
        ).output
        for a in inputs
    ]
    lines: list[dict[str, Any]] = []

    def add(name: str, title: str, device: str, compute: Compute) -> None:
        errors = [error(a, truth) for a, truth in zip(compute(inputs), truths, strict=True)]
        for against in ("steps", "scale"):
            line: dict[str, Any] = {"name": name, "title": title, "device": device}
            line |= {"against": against, "at": [], "median": [], "largest": []}
            for index, point in enumerate(where):
                if point.against == against:
                    here = errors[index * seeds : (index + 1) * seeds]
                    line["at"].append(point.at)
                    line["median"].append(statistics.median(here))
                    line["largest"].append(max(here))
            lines.append(line)

    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        with _as_in_the_suite():
            for name, title, compute in _ours(device):
                add(name, title, device, compute)
    lacking = missing() if live else "not asked for"
    if lacking is None:
        with KerasLive() as keras:
            add("keras", "Keras 3 on TensorFlow", "cpu", lambda a: _keras(keras, a))
    return {
        "lines": lines,
        "sizes": {"batch": BATCH, "features": FEATURES, "units": UNITS, "steps": AT_STEPS},
        "seeds": seeds,
        "ulp": float(np.finfo(np.float32).eps),
        "missing": {} if lacking is None else {"Keras 3 on TensorFlow": lacking},
    }


@contextmanager
def _as_in_the_suite() -> Iterator[None]:
    """One thread, and no TF32."""
    threads = torch.get_num_threads()
    before = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def _ours(device: str) -> Iterator[tuple[str, str, Compute]]:
    """Both engines, and the plain ``nn.LSTM`` with the same parameters."""
    plain: torch.nn.LSTM = torch.nn.LSTM(FEATURES, UNITS, batch_first=True, device=device)
    for name, title, engine in (
        ("fused", "this package, fused", True),
        ("scan", "this package, scan", False),
    ):
        layer: LSTM = LSTM(FEATURES, UNITS, return_sequences=True, use_cudnn=engine, device=device)
        yield name, title, lambda inputs, layer=layer: [_run(layer, layer, a) for a in inputs]

    def as_plain(inputs: list[Arrays]) -> list[np.ndarray]:
        return [_run(layer, plain, a) for a in inputs]

    yield "nn.LSTM", "torch.nn.LSTM", as_plain


def _run(layer: LSTM, runs: torch.nn.Module, arrays: Arrays) -> np.ndarray:
    layer.set_weights([arrays[name] for name in ("kernel", "recurrent_kernel", "bias")])
    if runs is not layer:
        runs.load_state_dict(layer.lstm.state_dict())
    x = torch.tensor(arrays["x"], dtype=torch.float32, device=next(layer.parameters()).device)
    with torch.no_grad():
        found = runs(x)
    output: torch.Tensor = found[0] if isinstance(found, tuple) else found
    return output.double().cpu().numpy()


def _keras(keras: KerasLive, inputs: list[Arrays]) -> list[np.ndarray]:
    asked = [
        {"keywords": {"return_sequences": True}, "arrays": a, "dtype": "float32"} for a in inputs
    ]
    return [answer["output"] for answer in keras.run(asked)]
