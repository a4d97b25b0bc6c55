"""Any file of LSTMs as modules by name, and back: the formats by suffix."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..convert import read_layers
from ..errors import ConfigError, FileFormatError
from ..files import FileLayer, must_be_a_file
from ..lstm import LSTM
from ..plain import from_torch
from ..saving import KerasTarget, save_keras
from ..storage import (
    Module,
    load_safetensors,
    safetensors_metadata,
    save_safetensors,
    write_atomically,
)

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
        return Source(path, "torch", None, dict(_of_state_dict(path)))
    if suffix in SAFETENSORS:
        metadata = safetensors_metadata(path)
        loaded = load_safetensors(path)
        modules = loaded if isinstance(loaded, dict) else {_own_name(loaded): loaded}
        version = (metadata.get("provenance") or {}).get("keras_version")
        modules = {name: module.eval() for name, module in modules.items()}
        return Source(path, "safetensors", version, modules, metadata=metadata)
    layers, left_out, file = read_layers(path, config=config, names=names)
    modules = dict(layers)
    return Source(path, file.format, file.version, modules, tuple(left_out), file.bare)


def _own_name(module: Any) -> str:
    name = getattr(module, "name", None)
    return name if isinstance(name, str) else "lstm"


def write_file(
    modules: Mapping[str, Module],
    path: Path,
    *,
    source: Source | None = None,
    target: KerasTarget = "keras3",
    overwrite: bool = False,
    golden: Mapping[str, Any] | None = None,
) -> None:
    """Write modules in the format of the suffix, in one step.

    Args:
        source: where they come from, for the metadata of a safetensors file.
        target: which Keras is to load a Keras file.

    Raises:
        FileExistsError: the file exists, and overwrite is False.
        KerasishError: a suffix that is not written, or modules that cannot be held.
    """
    suffix = path.suffix.lower()
    if suffix not in WRITTEN:
        raise ConfigError(f"{path.name}: the suffix must be one of {', '.join(WRITTEN)}.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists")
    if suffix in KERAS:
        save_keras(dict(modules), path, target=target, overwrite=True)
        return
    single = next(iter(modules.values())) if len(modules) == 1 else None
    if suffix in SAFETENSORS:
        provenance = None if source is None else provenance_of(source)
        save_safetensors(dict(modules), path, provenance=provenance, golden=golden)
        return
    state: dict[str, Tensor] = {}
    for name, module in modules.items():
        before = "" if single is not None else f"{name}."
        own = "lstm." if isinstance(module, LSTM) else ""  # a plain nn.LSTM has its keys without
        for key, tensor in module.state_dict().items():
            state[before + key.removeprefix(own)] = tensor.detach().cpu()
    write_atomically(path, _torch_bytes(state))


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


def _torch_bytes(state: dict[str, Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


# Torch state dicts

_FIRST = re.compile(r"(?P<prefix>.*?)weight_ih_l0")


def _of_state_dict(path: Path) -> Iterator[tuple[str, Module]]:
    """Every LSTM of a state dict, by its prefix; nothing in the file is run."""
    state = _loaded(path)
    found = False
    for key in list(state):
        match = _FIRST.fullmatch(key)
        if match is None:
            continue
        prefix = match["prefix"]
        plain = _plain(state, prefix, path)
        if plain is None:
            continue
        found = True
        name = prefix.rstrip(".") or "lstm"
        yield name, from_torch(plain, inference_only=True, name=name.replace("/", "."))
    if not found:
        raise FileFormatError(
            f"{path.name} holds no LSTM: no entry is called weight_ih_l0, with 4 gates. It holds "
            f"{', '.join(list(state)[:5]) or 'nothing'}."
        )


def _loaded(path: Path) -> dict[str, Tensor]:
    must_be_a_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler raises whatever a damaged pickle leads to
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FileFormatError(
            f"{path.name} is no state dict that can be read without running code from it: {said} "
            "Save module.state_dict() with torch.save."
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise FileFormatError(
            f"{path.name} holds a {type(state).__name__}; a state dict was expected: save "
            "module.state_dict()."
        )
    return {k: t for k, t in state.items() if isinstance(k, str) and isinstance(t, Tensor)}


def _plain(state: Mapping[str, Tensor], prefix: str, path: Path) -> nn.LSTM | None:
    """The ``nn.LSTM`` whose entries begin with a prefix; None where they are those of another."""
    own = {
        key.removeprefix(prefix): tensor
        for key, tensor in state.items()
        if key.startswith(prefix) and re.match(r"(weight|bias)_(ih|hh|hr)_l\d", key[len(prefix) :])
    }
    first, second = own["weight_ih_l0"], own.get("weight_hh_l0")
    if second is None or first.ndim != 2 or second.ndim != 2:
        return None
    if first.shape[0] != 4 * second.shape[1]:  # a GRU has 3 gates, an RNN one
        if "weight_hr_l0" in own:
            raise FileFormatError(
                f"{path.name}: the LSTM {prefix!r} has a projection (proj_size), which no Keras "
                "LSTM has."
            )
        return None
    layers = 1 + max(int(match[1]) for k in own if (match := re.search(r"_l(\d+)", k)))
    plain = nn.LSTM(
        first.shape[1],
        second.shape[1],
        layers,
        bias="bias_ih_l0" in own,
        bidirectional="weight_ih_l0_reverse" in own,
        batch_first=True,
        device="meta",
        dtype=first.dtype if first.dtype.is_floating_point else None,
    )
    expected = plain.state_dict()
    wrong = [
        f"  {k}: {tuple(own[k].shape) if k in own else 'missing'}, expected "
        f"{tuple(expected[k].shape) if k in expected else 'no such entry'}"
        for k in sorted(own.keys() | expected.keys())
        if k not in own or k not in expected or own[k].shape != expected[k].shape
    ]
    if wrong:
        listed = "\n".join(wrong[:8])
        raise FileFormatError(f"{path.name}: {prefix or 'it'!r} is no whole nn.LSTM:\n{listed}")
    plain = plain.to_empty(device="cpu")
    plain.load_state_dict(own)
    return plain.eval()
