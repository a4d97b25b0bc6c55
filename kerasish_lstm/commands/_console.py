"""What every command says and how it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import typer
from rich.console import Console
from rich.markup import escape as escape_markup

from ..errors import KerasishError

EQUAL, DIFFERS, UNUSABLE = 0, 1, 2  # exit statuses


def escape(text: str) -> str:
    """A file's text as text: no markup, and no control characters, which would move the cursor."""
    return escape_markup("".join(c if c.isprintable() or c == "\n" else "?" for c in text))


@contextlib.contextmanager
def errors_end_it() -> Iterator[None]:
    """An error of ours or of the system's becomes one line on stderr, and status 2."""
    try:
        yield
    except (KerasishError, OSError) as error:
        said = str(error)
        if isinstance(error, OSError) and error.strerror and error.filename is not None:
            said = f"{error.strerror}: {error.filename}"  # without the number
        message = f"[bold red]error:[/] {escape(said)}"
        Console(stderr=True, highlight=False, soft_wrap=True).print(message)
        raise typer.Exit(UNUSABLE) from error
