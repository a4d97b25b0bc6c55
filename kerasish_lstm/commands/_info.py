"""``kerasish-lstm info``: what this machine has."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from typing import Any

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from .._native import native_status
from .._version import __version__
from ._console import escape

PACKAGES = ("torch", "numpy", "h5py", "safetensors", "keras", "tf_keras", "tensorflow", "jax")


def info(as_json: bool) -> None:
    """Show what :func:`collected` finds."""
    found = collected()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    console = Console(highlight=False)
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, version in found["versions"].items():
        table.add_row(name, escape(version))
    table.add_row("threads", str(found["threads"]))
    table.add_row("GPU", escape(", ".join(found["gpus"]) or "none"))
    engine = found["native"]
    if engine["available"]:
        sets = f"{engine['instruction_set']} (of {', '.join(engine['instruction_sets'])})"
        threads = "torch's threads" if engine["parallel"] else "one thread"
        table.add_row("native engine", f"active: {sets}, {threads}")
    else:
        table.add_row("native engine", f"[yellow]not active: {escape(engine['reason'])}[/]")
    console.print(table)


def collected() -> dict[str, Any]:
    """What :func:`info` shows."""
    versions = {"kerasish_lstm": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "versions": versions,
        "machine": platform.platform(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "native": native_status()._asdict(),
    }
