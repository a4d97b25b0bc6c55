"""Keras's LSTM, exactly, as a torch.nn.Module, with a converter of weights both ways.

A public name is imported when it is first asked for, so that the command line starts without
torch, and a layer without the readers of files. ``__init__.pyi`` lists the names, for this file
and for type checkers.
"""

import ast
import importlib
import importlib.util
import pkgutil
from typing import Any

from ._version import __version__ as __version__


def _listed() -> dict[str, str | None]:
    """Each public name, and the module that it is from; None for a module itself."""
    stub = ast.parse(pkgutil.get_data(__name__, "__init__.pyi") or b"")
    imports = [statement for statement in stub.body if isinstance(statement, ast.ImportFrom)]
    return {alias.name: one.module for one in imports for alias in one.names}


_HOMES = _listed()
__all__ = [name for name in sorted(_HOMES) if not name.startswith("_")]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is not None:
        found = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    elif not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}"):
        found = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
