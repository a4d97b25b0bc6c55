"""Any file of LSTMs as modules by name, and back: the formats by suffix."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..convert import read_layers
from ..errors import ConfigError, FileFormatError, KerasishError
from ..files import FileLayer
from ..saving import KerasTarget, save_keras
from ..storage import (
    Module,
    load_safetensors,
    safetensors_metadata,
    save_safetensors,
    write_atomically,
)
from ._torch import read_state_dict, write_state_dict

TORCH = (".pt", ".pth")
SAFETENSORS = (".safetensors",)
KERAS = (".keras", ".h5", ".hdf5")
WRITTEN = (*KERAS, *SAFETENSORS, *TORCH)


@dataclasses.dataclass(frozen=True)
class Source:
    """The LSTMs of a file.

    Args:
        format: ``"keras"``, ``"weights.h5"``, ``"h5"``, ``"safetensors"`` or ``"torch"``.
        version: the Keras that wrote it, as far as the file says.
        modules: ready to call, in eval mode.
        left_out: the layers that are no LSTM, or cannot be loaded.
        bare: it held weights alone, so that the layers are built with defaults.
        metadata: of a safetensors file, what it says of itself.
    """

    path: Path
    format: str
    version: str | None
    modules: dict[str, Module]
    left_out: tuple[FileLayer, ...] = ()
    bare: bool = False
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def said(self) -> str:
        """One line about the file."""
        if self.format == "torch":
            return "a torch state dict"
        if self.format == "safetensors":
            said = f"safetensors of kerasish_lstm {self.metadata.get('version')}"
            return said + (f", from Keras {self.version}" if self.version else "")
        said = f"Keras {self.version}, {self.format} format"
        return said + (", weights alone: built with Keras's defaults" if self.bare else "")


def open_file(
    path: Path,
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    names: Mapping[str, str] | None = None,
) -> Source:
    """The LSTMs of a Keras, safetensors or torch file.

    Raises:
        FileNotFoundError: there is no such file.
        KerasishError: the file cannot be used.
    """
    suffix = path.suffix.lower()
    if suffix in (*TORCH, *SAFETENSORS) and (config is not None or names):
        raise ConfigError(f"{path.name}: a config or a map belongs to a Keras file of weights.")
    if suffix in TORCH:
        return Source(path, "torch", None, read_state_dict(path))
    if suffix in SAFETENSORS:
        metadata = safetensors_metadata(path)
        loaded = load_safetensors(path)
        modules = loaded if isinstance(loaded, dict) else {_own_name(loaded): loaded}
        version = metadata.get("provenance", {}).get("keras_version")
        if not isinstance(version, str | None):
            raise FileFormatError(
                f"{path.name} is damaged: its provenance has keras_version={version!r}, no text."
            )
        modules = {name: module.eval() for name, module in modules.items()}
        return Source(path, "safetensors", version, modules, metadata=metadata)
    layers, left_out, file = read_layers(path, config=config, names=names)
    modules = dict(layers)
    return Source(path, file.format, file.version, modules, tuple(left_out), file.bare)


def _own_name(module: Any) -> str:
    name = getattr(module, "name", None)
    return name if isinstance(name, str) else "lstm"


def open_bare(path: Path, config: Path | None) -> tuple[Source, bool]:
    """A file, with a config if it holds weights alone, and whether it took it.

    Raises:
        FileNotFoundError, KerasishError: as :func:`open_file`.
    """
    if config is None:
        return open_file(path), False
    try:
        source = open_file(path)
    except KerasishError:
        if path.suffix.lower() in (*TORCH, *SAFETENSORS):
            raise
        return open_file(path, config=config), True  # the config may say what the weights cannot
    if not source.bare:
        return source, False
    return open_file(path, config=config), True


def write_file(
    modules: Mapping[str, Module],
    path: Path,
    *,
    source: Source | None = None,
    target: KerasTarget = "keras3",
    overwrite: bool = False,
    golden: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    steps: int | None = None,
) -> str | None:
    """Write modules in the format of the suffix, in one step.

    Args:
        source: where they come from, for the metadata of a safetensors file.
        target: which Keras is to load a Keras file.
        batch_size, steps: of every input of a Keras model.

    Returns:
        What the file cannot hold of the modules; None where it holds all.

    Raises:
        FileExistsError: the file exists, and overwrite is False.
        KerasishError: a suffix that is not written, or modules that cannot be held.
    """
    suffix = path.suffix.lower()
    if suffix not in WRITTEN:
        raise ConfigError(f"{path.name}: the suffix must be one of {', '.join(WRITTEN)}.")
    for option, value in (("--batch-size", batch_size), ("--steps", steps)):
        if value is not None and suffix != ".keras":
            raise ConfigError(
                f"{option} {value}: {path.name} is no .keras file, and weights alone have no "
                f"inputs. Leave {option} out."
            )
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists")
    if suffix in KERAS:
        save_keras(
            dict(modules), path,
            target=target, overwrite=overwrite, batch_size=batch_size, steps=steps,
        )  # fmt: skip
        return None
    if suffix in SAFETENSORS:
        provenance = None if source is None else provenance_of(source)
        save_safetensors(dict(modules), path, provenance=provenance, golden=golden)
        return None
    data, lost = write_state_dict(modules, path)
    write_atomically(path, data)
    return lost


def provenance_of(source: Source) -> dict[str, Any]:
    """Where the weights come from: the file, its checksum, and the Keras that wrote it."""
    with source.path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    found: dict[str, Any] = {
        "file": source.path.name,
        "format": source.format,
        "sha256": checksum,
    }
    return found | ({"keras_version": source.version} if source.version else {})
