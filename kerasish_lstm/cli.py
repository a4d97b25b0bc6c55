"""``kerasish-lstm``: the command line.

    kerasish-lstm demo          Keras's own file of five LSTMs, in PyTorch, beside Keras's numbers
    kerasish-lstm demo FILE     the LSTMs of your Keras file, beside the float64 equations
    kerasish-lstm inspect FILE  what is in a file
    kerasish-lstm convert IN OUT
    kerasish-lstm verify A [B]  two files, or a file and Keras, on the same random inputs
    kerasish-lstm info          the versions, devices and engines of this machine

Exit status: 0 done, or equal; 1 not equal within the bound, or not everything was compared; 2 a
file or an argument that cannot be used.

This file holds what each command takes and says of itself; what it does is in ``commands``, which
it imports when it runs, so that ``--help`` and ``--version`` start without torch.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ._version import __version__

main = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="rich")

ConfigOption = Annotated[
    Path | None,
    typer.Option(help="For a file of weights alone: the JSON of the model (model.to_json())."),
]


class Target(StrEnum):
    """The Keras that is to load a Keras file."""

    keras3 = "keras3"
    tf_keras = "tf_keras"


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@main.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Keras's LSTM, exactly, in PyTorch."""


@main.command()
def inspect(
    file: Annotated[
        Path, typer.Argument(help="A .keras, .weights.h5, .h5, .safetensors or .pt file.")
    ],
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Say what is in a file: its Keras, its LSTMs, what is left out and why.

    The column [bold]engine[/] is "fused" where torch's own kernels can run the layer, and "scan"
    where a loop over time must; the reason stands below the table. On a CPU the native engine runs
    most layers of either kind, faster: see [bold]kerasish-lstm info[/].

    Exit status: 0, or 2 for a file that cannot be used.
    """
    from .commands._entry import inspect as run

    run(file, config=config, as_json=as_json)


@main.command()
def convert(
    source_file: Annotated[Path, typer.Argument(metavar="IN", help="The file to read.")],
    target_file: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="The file to write. Its suffix is its format: .keras, .weights.h5 and .h5 (weights"
            " alone, for load_weights), .safetensors (with the config), .pt (a state dict).",
        ),
    ],
    layer: Annotated[
        list[str] | None, typer.Option(help="Only this layer; may be given several times.")
    ] = None,
    rename: Annotated[
        list[str] | None, typer.Option(metavar="OLD=NEW", help="A new name for a layer.")
    ] = None,
    config: ConfigOption = None,
    map_file: Annotated[
        Path | None,
        typer.Option(
            "--map",
            help='A JSON {"name in the file": "name here"}, for a file of weights alone.',
        ),
    ] = None,
    target: Annotated[
        Target, typer.Option(help="Which Keras is to load a Keras file.")
    ] = Target.keras3,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Of the inputs of a .keras file; a stateful layer needs it."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Of the inputs of a .keras file; unroll=True needs it."),
    ] = None,
    golden: Annotated[
        bool,
        typer.Option(
            help="Where Keras is installed, record its results in a .safetensors file, so that "
            "verify can compare with them anywhere."
        ),
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
) -> None:
    """Convert the LSTMs of a file, both ways between Keras and torch.

    [bold]kerasish-lstm convert model.h5 model.safetensors[/]   Keras to torch, with the config
    [bold]kerasish-lstm convert model.pt model.keras[/]         torch to a model for Keras

    Exit status: 0, or 2 for a file or an argument that cannot be used; OUT is then as it was.
    """
    from .commands._entry import convert as run

    run(
        source_file,
        target_file,
        layer=layer,
        rename=rename,
        config=config,
        map_file=map_file,
        target=target.value,
        batch_size=batch_size,
        steps=steps,
        golden=golden,
        force=force,
    )


@main.command()
def verify(
    a: Annotated[Path, typer.Argument(metavar="A", help="A file of LSTMs, of any format.")],
    b: Annotated[
        Path | None,
        typer.Argument(
            metavar="[B]",
            help="Another one. Without it, A is compared with what Keras gave: live where it is "
            "installed, and as recorded in A by convert.",
        ),
    ] = None,
    config: ConfigOption = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="Only this layer; may be given several times.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1, mps.")] = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Sequences of the random inputs.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the random inputs.")] = 11,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random inputs.")] = 0,
    keras: Annotated[bool, typer.Option(help="Ask live Keras, where it is installed.")] = True,
) -> None:
    """Run the LSTMs of two files on the same random inputs and masks, and compare.

    Each error is the largest difference relative to the largest result; each bound is ten times
    what rounding the weights and inputs can move it. Rows that end early and gaps are tried too.

    --config serves each of the two files that holds weights alone.

    Exit status: 0 all equal; 1 something differs, or an LSTM was not compared: one that is left
    out of a file (unless --layer chose others), or about which Keras cannot be asked; 2 a file or
    an argument that cannot be used.
    """
    from .commands._entry import verify as run

    run(
        a,
        b,
        config=config,
        layer=layer,
        device=device,
        batch=batch,
        steps=steps,
        seed=seed,
        keras=keras,
    )


@main.command()
def info(
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Say which versions, devices and engines there are: what a bug report needs.

    Exit status: 0.
    """
    from .commands._info import info as run

    run(as_json)


@main.command()
def demo(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="A .keras, .weights.h5 or .h5 file. Without one: the five LSTMs of the notebook "
            "'LSTM Essential', in a .keras file that Keras wrote, beside the numbers Keras gave."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Sequences of the random input.")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the random input.")] = 7,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random input.")] = 0,
) -> None:
    """Run the LSTMs of a Keras file in PyTorch and show that they are equal."""
    from .commands._demo import demo as run

    run(file, batch, steps, seed)
