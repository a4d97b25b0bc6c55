"""The commands ``inspect``, ``convert`` and ``verify``."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from ..errors import ConfigError, FileFormatError
from ..files._open import read_json
from ..parity.certificate import record
from ..parity.trials import has_keras
from ..saving import KerasTarget
from ..storage import Module
from ._console import DIFFERS, errors_end_it, escape
from ._inspect import inspected, not_finite
from ._sources import SAFETENSORS, WRITTEN, Source, open_bare, open_file, write_file
from ._verify import Findings, compared


def inspect(file: Path, *, config: Path | None, as_json: bool) -> None:
    """Show what is in a file."""
    console = Console(highlight=False)
    with errors_end_it():
        source = open_file(file, config=config)
        found = inspected(source)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    console.print(f"[bold]{escape(file.name)}[/], {escape(source.said)}\n")
    if found["layers"]:
        _layers(console, found["layers"])
    else:
        console.print("It holds no LSTM that can be loaded.")
    for layer in found["layers"]:
        name = escape(layer["name"])
        for reason in layer["why_not_fused"]:
            console.print(f"[yellow]{name} needs the scan engine:[/] {escape(reason)}")
        if layer["not_finite"]:
            listed = escape(", ".join(layer["not_finite"]))
            console.print(f"[bold red]{name} has NaN or infinite weights:[/] {listed}")
    if source.bare:
        console.print(
            "[yellow]The file holds weights alone: activations and flags above are Keras's "
            "defaults. Pass --config.[/]"
        )
    if found["left_out"]:
        console.print("\n[bold]Left out[/]")
        for layer in found["left_out"]:
            style = "yellow" if layer["has_lstm"] else "dim"
            console.print(f"  [{style}]{escape(layer['name'])}: {escape(layer['reason'] or '')}[/]")


def _layers(console: Console, layers: list[dict[str, Any]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("layer", overflow="fold")
    below: list[tuple[str, str]] = []  # what would make the table wider than a terminal
    for column in ("class", "features", "units", "parameters", "activations", "engine"):
        table.add_column(column, overflow="fold", no_wrap=column not in ("units", "activations"))
    for layer in layers:
        flags = [*layer["flags"]]
        if layer.get("merge_mode", "concat") != "concat":
            flags.append(f"merge_mode={layer['merge_mode']}")
        if not layer["trainable"]:
            flags.append("frozen")
        if layer["dtype"] != "float32":
            flags.append(layer["dtype"])
        table.add_row(
            escape(layer["name"]),
            layer["class"],
            str(layer["input_size"]),
            ", ".join(map(str, layer["units"])),
            str(layer["parameters"]),
            escape(", ".join("/".join(pair) for pair in layer["activations"])),
            layer["engine"],
        )
        if flags:
            below.append((layer["name"], ", ".join(flags)))
    console.print(table)
    for name, flags_of_it in below:
        console.print(f"[dim]{escape(name)}: {escape(flags_of_it)}[/]")


def convert(
    source_file: Path,
    target_file: Path,
    *,
    layer: list[str] | None,
    rename: list[str] | None,
    config: Path | None,
    map_file: Path | None,
    target: KerasTarget,
    batch_size: int | None,
    steps: int | None,
    golden: bool,
    force: bool,
) -> None:
    """Write the LSTMs of a file to another one, and say what was written."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    reasons: dict[str, str] = {}
    with errors_end_it():
        if target_file.suffix.lower() not in WRITTEN:
            raise ConfigError(
                f"{target_file.name}: the suffix must be one of {', '.join(WRITTEN)}."
            )
        if _is_there(target_file) and not force:
            raise ConfigError(f"{target_file} exists. Pass --force to overwrite it.")
        with console.status(f"reading {escape(source_file.name)}"):
            source = open_file(source_file, config=config, names=_names(map_file))
        modules = _renamed(_chosen(source, layer), rename or [])
        recorded = None
        if golden and target_file.suffix.lower() in SAFETENSORS and has_keras():
            with _at_a_layer(console, "asking Keras about") as at:
                recorded, reasons = record(modules, at=at)
        with (
            console.status(f"writing {escape(target_file.name)}: {escape(', '.join(modules))}"),
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.simplefilter("always")
            lost = write_file(
                modules,
                target_file,
                source=source,
                target=target,
                overwrite=force,
                golden=recorded if recorded and recorded["layers"] else None,
                batch_size=batch_size,
                steps=steps,
            )
        _warn(console, [*(str(one.message) for one in caught), *([lost] if lost else [])])
    out = Console(highlight=False)
    listed = ", ".join(modules)
    out.print(
        f"[bold]{escape(target_file.name)}[/] written from {escape(source_file.name)} "
        f"({escape(source.said)}): {escape(listed)}"
    )
    if recorded is not None and recorded["layers"]:
        out.print(
            f"with results of Keras {recorded['keras']} for {len(recorded['layers'])} of "
            f"{len(modules)} layers; compare anywhere: kerasish-lstm verify "
            f"{escape(target_file.name)}"
        )
    _say_unasked(out, reasons, len(modules))
    for name, module in modules.items():
        if wrong := not_finite(module):
            out.print(
                f"[bold red]{escape(name)} has NaN or infinite weights:[/] "
                f"{escape(', '.join(wrong))}"
            )
    for one in (x for x in source.left_out if x.has_lstm):
        out.print(f"[yellow]left out {escape(one.name)}: {escape(one.reason or '')}[/]")


def _is_there(path: Path) -> bool:
    """Whether a file is at a path.

    Raises:
        OSError: nothing can be there: links that lead to each other, a file as a folder.
    """
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _at_a_layer(console: Console, what: str) -> Iterator[Callable[[str], None]]:
    """A spinner, on a terminal alone, that names the layer that it is told."""
    with console.status(what) as status:
        yield lambda name: status.update(f"{what} {escape(name)}")


def _warn(console: Console, said: list[str]) -> None:
    """Each warning once."""
    for text in dict.fromkeys(said):
        console.print(f"[yellow]warning:[/] {escape(text)}")


def _say_unasked(console: Console, reasons: Mapping[str, str], layers: int) -> None:
    if reasons:
        console.print(
            f"[yellow]Keras was asked for {layers - len(reasons)} of {layers} layers; not for:[/]"
        )
    for name, reason in reasons.items():
        console.print(f"  [yellow]{escape(name)}: {escape(reason)}[/]")


def _names(path: Path | None) -> Mapping[str, str] | None:
    if path is None:
        return None
    try:
        names = read_json(path)
    except FileFormatError as error:
        raise ConfigError(f"--map {path}: {error}") from error
    if not isinstance(names, dict) or not all(isinstance(v, str) for v in names.values()):
        raise ConfigError(f'{path.name} must hold {{"name in the file": "name here"}}.')
    return names


def _chosen(source: Source, layers: list[str] | None) -> dict[str, Module]:
    held = ", ".join(map(repr, source.modules)) or "none"
    if not source.modules:
        reasons = "\n".join(f"  {x.name}: {x.reason}" for x in source.left_out)
        raise ConfigError(
            f"{source.path.name} holds no LSTM that can be loaded.\n{reasons}".strip()
        )
    if layers is None:
        return dict(source.modules)
    for name in layers:
        if name not in source.modules:
            raise ConfigError(
                f"--layer {name}: {source.path.name} has no such LSTM; it has {held}."
            )
    return {name: source.modules[name] for name in layers}


def _renamed(modules: dict[str, Module], renames: list[str]) -> dict[str, Module]:
    new: dict[str, str] = {}
    for text in renames:
        old, sign, name = text.partition("=")
        if not sign or not name or old not in modules:
            held = ", ".join(map(repr, modules))
            raise ConfigError(f"--rename {text}: pass OLD=NEW; the layers are {held}.")
        if old in new:
            raise ConfigError(
                f"--rename {text}: {old!r} is called {new[old]!r} by another --rename. Pass one."
            )
        new[old] = name
    found = {new.get(name, name): module for name, module in modules.items()}
    if len(found) < len(modules):
        raise ConfigError(f"--rename {', '.join(renames)}: two layers would have the same name.")
    return found


def verify(
    a: Path,
    b: Path | None,
    *,
    config: Path | None,
    layer: list[str] | None,
    device: str,
    batch: int,
    steps: int,
    seed: int,
    keras: bool,
) -> None:
    """Compare two files, or a file and what Keras gave, and show the verdicts."""
    console = Console(highlight=False)
    with errors_end_it():
        where = _device(device)
        first, took = open_bare(a, config)
        second, also = (None, False) if b is None else open_bare(b, config)
        if config is not None and not (took or also):
            raise ConfigError(
                f"--config {config.name}: a config belongs to a Keras file of weights alone, which "
                f"{a.name}{'' if b is None else f' and {b.name}'} are not. Leave --config out."
            )
        sources = [first] if second is None else [first, second]
        left_out = {
            f"{one.name} of {source.path.name}": one.reason or ""
            for source in (sources if layer is None else ())
            for one in source.left_out
            if one.has_lstm
        }
        first = _only(first, layer)
        second = None if second is None else _only(second, layer)
        with _at_a_layer(Console(stderr=True), "comparing") as at:
            found = compared(
                first, second,
                device=where, batch=batch, steps=steps, seed=seed, keras=keras, at=at,
            )  # fmt: skip
        if not found.verdicts:
            raise ConfigError(_why_nothing(a, keras, found))
    _show(console, found)
    verdicts = found.verdicts
    equal = sum(one.equal for one in verdicts)
    console.print(f"{equal} of {len(verdicts)} equal, on {where}, torch {torch.__version__}")
    _say_unasked(console, found.unasked, len(first.modules))
    seen = {one.name for one in verdicts}
    missing = left_out | {n: found.unasked.get(n, "") for n in first.modules if n not in seen}
    for name, reason in missing.items():
        said = reason or "nothing is recorded for it"
        console.print(f"[bold yellow]not compared: {escape(name)}:[/] {escape(said)}")
    if equal < len(verdicts) or missing:
        raise typer.Exit(DIFFERS)


def _why_nothing(path: Path, keras: bool, found: Findings) -> str:
    if not keras:
        why = "--no-keras was given"
    elif not has_keras():
        why = "Keras with TensorFlow is not installed here"
    else:
        reasons = "".join(f"\n  {name}: {reason}" for name, reason in found.unasked.items())
        return (
            f"{path.name} can be compared with nothing: it holds no recorded results, and Keras "
            f"cannot be asked about{reasons}\nPass a second file."
        )
    return (
        f"{path.name} can be compared with nothing: {why}, and the file holds no recorded results. "
        "Pass a second file, or convert it to .safetensors where Keras is installed."
    )


def _show(console: Console, found: Findings) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("layer", "against", "input"):
        table.add_column(column, overflow="fold")
    table.add_column("error", justify="right")
    table.add_column("bound", justify="right")
    table.add_column("")
    for one in found.verdicts:
        error = escape(one.reason) if one.error is None else f"{one.error:.1e}"
        verdict = "[bold green]equal[/]" if one.equal else "[bold red]DIFFERS[/]"
        table.add_row(
            escape(one.name), escape(one.against), one.what, error, f"{one.bound:.1e}", verdict
        )
    console.print(table)


def _only(source: Source, layers: list[str] | None) -> Source:
    return dataclasses.replace(source, modules=_chosen(source, layers))


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise ConfigError(f"--device {name}: it holds no numbers. Pass cpu, cuda or mps.")
        torch.empty(1, device=device).sum()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"--device {name}: not available here: {first}") from error
    return device
