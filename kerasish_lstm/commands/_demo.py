"""``kerasish-lstm demo``: the LSTMs of a Keras file in PyTorch, beside Keras's own numbers."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from .._version import __version__
from ..config import LSTMConfig
from ..convert import read_layers
from ..errors import ConfigError, FileFormatError, NotBuiltError
from ..files import FileLayer
from ..layers.lstm import LSTM
from ..layers.parameters import recurrent_parts
from ..parity import bounds, oracle
from ..parity.trials import bound_of, has_keras, in_float64, run, run_keras, trials
from ._console import errors_end_it, escape

NOTEBOOK = Path(__file__).parents[1] / "demo" / "notebook.keras"
ROWS = 2  # of a batch
SHOWN = 5  # numbers of a row
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Comparison:
    """One layer's results beside other sources' numbers for the same input."""

    name: str
    layer: Any
    shape: tuple[int, ...]
    results: dict[str, np.ndarray]  # output, h, c
    others: dict[str, dict[str, np.ndarray]]  # source -> output, h, c
    bound: float

    def difference(self, source: str) -> float:
        """The largest over everything that the layer returned."""
        theirs = self.others[source]
        return max(bounds.error(self.results[k], np.asarray(v)) for k, v in theirs.items())

    @property
    def equal(self) -> bool:
        return all(self.difference(source) <= self.bound for source in self.others)


def demo(file: Path | None, batch: int, steps: int, seed: int) -> None:
    """Run the packaged file, or a user's, and show how it compares."""
    console = Console(highlight=False)
    left_out: list[FileLayer] = []
    with errors_end_it():
        if file is None:
            compared = _notebook()
            said = f"written by Keras {_recorded()['versions']['keras']}"
        else:
            compared, left_out, said = _file(file, batch, steps, seed)
    _head(console, (file or NOTEBOOK).name, said)
    for one in compared:
        _show(console, one)
    if file is None:
        _states(console, compared)
    _summary(console, compared)
    _skipped(console, left_out)
    if not all(one.equal for one in compared):
        raise typer.Exit(1)


# What is compared


def _recorded() -> Any:
    return json.loads(NOTEBOOK.with_suffix(".json").read_text())


def _notebook() -> list[Comparison]:
    """The packaged file, beside what Keras gave when it wrote it."""
    recorded = _recorded()
    if hashlib.sha256(NOTEBOOK.read_bytes()).hexdigest() != recorded["sha256"]:
        raise FileFormatError(
            f"{NOTEBOOK.name} is not the file beside which Keras's outputs were recorded. "
            "Install the package again."
        )
    layers, _, _ = read_layers(NOTEBOOK)
    source = f"Keras {recorded['versions']['keras']}"
    compared = []
    for name, layer in layers.items():
        record = recorded["layers"][name]
        x = np.array(recorded["inputs"][record["input"]], np.float32)
        theirs = {k: np.array(record[k]) for k in ("output", "h", "c") if k in record}
        results = _run(layer, x)
        if results.keys() != theirs.keys() or layer.count_params() != record["parameters"]:
            raise FileFormatError(f"{NOTEBOOK.name}: the layer {name!r} is not as recorded.")
        # Fresh weights and three steps: rounding is all that can differ.
        bound = 4 * bounds.FLOAT32_ULPS
        compared.append(Comparison(name, layer, x.shape, results, {source: theirs}, bound))
    return compared


def _file(
    path: Path, batch: int, steps: int, seed: int
) -> tuple[list[Comparison], list[FileLayer], str]:
    """A user's file, beside the float64 equations and, where installed, live Keras."""
    layers, left_out, file = read_layers(path)
    if not layers:
        lost = [f"  {layer.name}: {layer.reason}" for layer in left_out]
        listed = "\n".join(lost) or "  nothing"
        raise NotBuiltError(f"{path.name} has no LSTM to run; it holds\n{listed}")
    compared = [_beside(name, layer, batch, steps, seed) for name, layer in layers.items()]
    said = f"Keras {file.version}, {file.format} format"
    if file.bare:
        said += ", weights alone: built with Keras's defaults, named by the file's groups"
    return compared, left_out, said


def _beside(name: str, stored: Any, batch: int, steps: int, seed: int) -> Comparison:
    """A layer beside float64 and, where installed, live Keras.

    float64 are the equations for an LSTM, and for another layer itself, its LSTMs being that.
    """
    _, x, _ = next(trials(stored, batch=batch, steps=steps, seed=seed))
    if isinstance(stored, LSTM):
        layer: Any = _with_states(stored)
        truth = _truth(layer, x)
    else:
        layer = stored
        truth = _named(run(in_float64(stored), x.astype(np.float64), None, _CPU))
    others = {"float64": truth}
    if has_keras():
        with contextlib.suppress(ConfigError):  # verify says why Keras cannot be asked
            others["live Keras"] = _live(layer, x)
    bound = bound_of(layer, x, None, _CPU)
    return Comparison(name, stored, x.shape, _run(layer, x), others, bound)


def _with_states(stored: LSTM[Any]) -> LSTM[Any]:
    """An LSTM as it is shown: it returns h and c whatever the layer returns, and begins with zeros.

    What matters in training alone is left to its defaults, and mixed policies to float32.
    """
    own = stored.config
    config = LSTMConfig(
        own.units, own.activation, own.recurrent_activation, own.use_bias,
        return_sequences=own.return_sequences, go_backwards=own.go_backwards, return_state=True,
    )  # fmt: skip
    dtype = stored.lstm.weight_ih_l0.dtype
    layer: LSTM[Any] = LSTM.from_lstm_config(stored.input_size, config, dtype=dtype)
    layer.load_state_dict(stored.state_dict())
    return layer.eval()


def _run(layer: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    return _named(run(layer, x, None, _CPU), layer)


def _live(layer: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    return _named(run_keras(layer, x, None), layer)


def _named(results: list[np.ndarray], layer: Any = None) -> dict[str, np.ndarray]:
    """The results by name: of an LSTM output, h and c."""
    names = ["output", "h", "c"] if isinstance(layer, LSTM) else ["output"]
    names += (f"result {i}" for i in range(len(names), len(results)))
    return dict(zip(names, results, strict=False))


def _truth(layer: LSTM[Any], x: np.ndarray) -> dict[str, np.ndarray]:
    config = layer.config
    result = oracle.forward(
        x,
        *layer.get_weights(),
        go_backwards=config.go_backwards,
        return_sequences=config.return_sequences,
        activation=str(config.activation),
        recurrent_activation=str(config.recurrent_activation),
    )
    return dict(result._asdict())


# What is shown


def _head(console: Console, name: str, said: str) -> None:
    console.print(f"[bold]{escape(name)}[/], {escape(said)}")
    console.print(f"[dim]run by kerasish_lstm {__version__} on torch {torch.__version__}[/]\n")


def _call(layer: Any) -> str:
    """``LSTM(5, return_state=True)``, as it was written in Keras."""
    if not isinstance(layer, LSTM):
        return (
            f"{type(layer).__name__} of {' and '.join(map(_call_of_part, recurrent_parts(layer)))}"
        )
    config = layer.config
    flags = ("return_sequences", "return_state", "go_backwards", "stateful")
    parts = [str(config.units)] + [f"{f}=True" for f in flags if getattr(config, f)]
    for keyword, default in (("activation", "tanh"), ("recurrent_activation", "sigmoid")):
        value = getattr(config, keyword)
        parts += [f"{keyword}={value}"] if value != default else []
    return f"LSTM({', '.join(parts)})"


def _call_of_part(part: Any) -> str:
    return f"{type(part).__name__}({part.units})"


def _engine(layer: Any) -> str:
    """The slowest engine of its parts."""
    found = {part._engine_now() for part in recurrent_parts(layer)}
    return next(name for name in ("scan", "fused", "native") if name in found)


def _show(console: Console, one: Comparison) -> None:
    console.print(f"[bold cyan]{escape(_call(one.layer))}[/]")
    console.print(
        f"[dim]{escape(repr(one.name))}, {one.layer.count_params()} parameters, "
        f"input {one.shape}, {_engine(one.layer)} engine[/]"
    )
    for quantity, mine in one.results.items():
        sources = {"PyTorch": mine, **{s: o[quantity] for s, o in one.others.items()}}
        for row in range(min(ROWS, len(mine))):
            index = (row, *[-1] * (mine.ndim - 2))
            where = escape(f"{quantity}[{', '.join(map(str, index))}]")
            console.print(f"  [bold]{where}[/] [dim]of {mine.shape}[/]")
            for source, array in sources.items():
                console.print(f"    {escape(source):<13}{_numbers(np.asarray(array)[index])}")
    for source in one.others:
        colour = "green" if one.difference(source) <= one.bound else "bold red"
        difference = f"[{colour}]{one.difference(source):.1e}[/]"
        console.print(f"  largest difference from {escape(source)}: {difference}")
    console.print()


def _numbers(row: np.ndarray) -> str:
    return " ".join(f"{v:9.6f}" for v in row[:SHOWN]) + (" …" if row.size > SHOWN else "")


def _states(console: Console, compared: list[Comparison]) -> None:
    """What the notebook ends with."""
    for one in compared:
        if "h" not in one.results:
            continue
        output, h, c = one.results.values()
        last, what = (output[:, -1], "result[:, -1]") if output.ndim == 3 else (output, "output")
        console.print(f"[bold cyan]{escape(_call(one.layer))}[/]")
        console.print(f"  {escape(what)} == h  {_truth_value(bool((last == h).all()))}")
        console.print(f"  {'c == h':<{len(what) + 5}}  {_truth_value(bool((c == h).any()))}")
    console.print()


def _truth_value(value: bool) -> str:
    return f"[bold]{value}[/]"


def _summary(console: Console, compared: list[Comparison]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer", overflow="fold")
    table.add_column("parameters", justify="right")
    table.add_column("output")
    sources = list(dict.fromkeys(source for one in compared for source in one.others))
    for source in sources:
        table.add_column(f"to {source}", justify="right")
    table.add_column("bound", justify="right")
    table.add_column()
    for one in compared:
        table.add_row(
            escape(one.name),
            str(one.layer.count_params()),
            str(one.results["output"].shape),
            *(f"{one.difference(s):.1e}" if s in one.others else "–" for s in sources),
            f"{one.bound:.1e}",
            "[bold green]equal[/]" if one.equal else "[bold red]DIFFERS[/]",
        )
    console.print(table)


def _skipped(console: Console, left_out: list[FileLayer]) -> None:
    if not left_out:
        return
    console.print("\n[bold]Left out[/]")
    for layer in left_out:
        style = "yellow" if layer.has_lstm else "dim"
        console.print(f"  [{style}]{escape(layer.name)}: {escape(layer.reason or '')}[/]")
