"""From a path to a :class:`KerasFile`: what the file is, and who reads it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ..config import detected_version
from ..errors import ConfigError, FileFormatError
from . import _keras3, _legacy
from ._open import (
    HDF5_MAGIC,
    MAX_ARRAY_BYTES,
    MAX_JSON_BYTES,
    ZIP_MAGIC,
    Budget,
    Hdf5,
    Shards,
    damaged_if_it_fails,
    must_be_a_file,
    parse_json,
    read_json,
    zip_members,
)
from ._tree import KerasFile, is_authors_own, nodes

_SHARD = re.compile(r"[^/\\\0]{1,200}_\d{5}\.weights\.h5")

_OTHERS = {
    # by suffix, for files that are neither a zip nor HDF5
    ".json": "a JSON file",
    ".index": "a TensorFlow checkpoint; load it with Keras and call model.save_weights('x.h5')",
    ".pb": "a TensorFlow graph; load the model with Keras and call model.save('x.keras')",
    ".npz": "a NumPy archive; pass its arrays to LSTM.set_weights()",
    ".npy": "a NumPy array; pass its arrays to LSTM.set_weights()",
    ".pt": "a torch file; use torch.load and load_state_dict",
    ".pth": "a torch file; use torch.load and load_state_dict",
    ".safetensors": "a safetensors file; use load_safetensors",
    ".onnx": "an ONNX model; its arrays can go through relayout(..., 'onnx', 'keras')",
    ".tflite": "a TFLite model, which is not read here",
}


def read(path: str | Path, config: Mapping[str, Any] | str | Path | None = None) -> KerasFile:
    """What is in a Keras file, without the arrays: see :func:`opened`."""
    with opened(path, config) as file:
        return file


@contextmanager
def opened(
    path: str | Path, config: Mapping[str, Any] | str | Path | None = None
) -> Iterator[KerasFile]:
    """What is in a Keras file, whose arrays can be read until the end of the span.

    Args:
        path: a ``.keras``, ``.weights.h5`` or legacy ``.h5`` / ``.hdf5`` file; what it is, its
            bytes say, not its name.
        config: for a file of weights alone, the model's config: a dict, or the path of its JSON.

    Raises:
        FileNotFoundError: there is no such file.
        FileFormatError: the file is damaged, unsafe, or of another format (which is named).
        ConfigError, NotBuiltError: an LSTM's config that cannot be an LSTM here.
    """
    path = Path(path)
    if path.is_dir():
        what = "SavedModel" if (path / "saved_model.pb").exists() else "folder"
        raise FileFormatError(
            f"{path} is a {what}, which is not read. Load the model with Keras and call "
            "model.save('x.keras') or model.save_weights('x.weights.h5')."
        )
    must_be_a_file(path)
    given = _given_config(config)
    with path.open("rb") as file:
        magic = file.read(8)
    if magic.startswith(ZIP_MAGIC):
        with _zip(path, given) as found:
            yield found
        return
    if path.suffix.lower() == ".json" and magic.lstrip().startswith(b"{"):
        with _sharded(path, given) as found:
            yield found
        return
    if magic != HDF5_MAGIC:
        what = _OTHERS.get(path.suffix.lower(), "neither a zip (.keras) nor HDF5 (.h5)")
        raise FileFormatError(f"{path.name} is {what}. Read are .keras, .weights.h5 and .h5 files.")
    with damaged_if_it_fails(path):
        hdf5 = Hdf5(path, path)
    with closing(hdf5):
        with damaged_if_it_fails(path):
            found = _read_hdf5(hdf5, given)
            _check_budget(found, hdf5)
        yield found


def _check_budget(found: KerasFile, file: Hdf5) -> None:
    """Before a byte of an array is read: whether all of them may be."""
    cells = [w for x in found.layers for w in (*x.cells, x.weights) if w is not None]
    file.must_afford(sum(weights.size for weights in cells))


def _given_config(config: Mapping[str, Any] | str | Path | None) -> Mapping[str, Any] | None:
    if config is None or isinstance(config, Mapping):
        return config
    if not isinstance(config, str | Path):
        raise ConfigError(
            f"config is a {type(config).__name__}; pass a model's config as a dict, or the path of "
            "its JSON."
        )
    if isinstance(config, str) and config.lstrip().startswith("{"):
        raise ConfigError("config is the text of a JSON; pass json.loads(it), or a file's path.")
    parsed = read_json(Path(config))
    if not isinstance(parsed, Mapping):
        raise FileFormatError(f"{Path(config).name} is not the JSON of a model's config.")
    return parsed


@contextmanager
def _zip(path: Path, given: Mapping[str, Any] | None) -> Iterator[KerasFile]:
    with damaged_if_it_fails(path):
        wanted = {
            "metadata.json": MAX_JSON_BYTES,
            "config.json": MAX_JSON_BYTES,
            "model.weights.h5": MAX_ARRAY_BYTES,
        }
        members = zip_members(path, wanted)
        metadata = parse_json(members["metadata.json"], f"{path.name}: metadata.json")
        config = parse_json(members["config.json"], f"{path.name}: config.json")
        version = metadata.get("keras_version") if isinstance(metadata, Mapping) else None
        if not isinstance(version, str):
            raise FileFormatError(f"{path.name}: metadata.json names no keras_version.")
        bare = is_authors_own(config)
        if given is not None and not bare:
            raise FileFormatError(
                f"{path.name} is a .keras file and holds its own config; pass no other."
            )
        told = given if bare else config
        by_groups = bare and given is None
        leaves = None if by_groups else nodes(told, f"{path.name}: config.json")
        hdf5 = Hdf5(members["model.weights.h5"], path)
    with closing(hdf5):
        with damaged_if_it_fails(path):
            if leaves is None:
                layers = _keras3.read_groups(hdf5, version)
            else:
                layers = _keras3.read_layers(hdf5, leaves, version)
            found = KerasFile(path, "keras", version, tuple(layers), leaves is None)
            _check_budget(found, hdf5)
        yield found


@contextmanager
def _sharded(path: Path, given: Mapping[str, Any] | None) -> Iterator[KerasFile]:
    """Weights in several files, ``name_00000.weights.h5`` ..., and the map of them."""
    listing = read_json(path)
    weight_map = listing.get("weight_map") if isinstance(listing, Mapping) else None
    if not isinstance(weight_map, Mapping):
        raise FileFormatError(
            f"{path.name} is a JSON file without a weight_map, so not the map of sharded weights."
        )
    names: dict[str, None] = {}
    for listed in weight_map.values():
        for name in listed if isinstance(listed, list) else [listed]:
            if not isinstance(name, str) or not _SHARD.fullmatch(name):
                raise FileFormatError(
                    f"{path.name} names the file {name!r}; a shard lies in the same folder and is "
                    "called like model_00000.weights.h5."
                )
            names[name] = None
    # Keras 3.10 names one file for each layer, also where its arrays lie in two.
    base = path.name.removesuffix(".json").removesuffix(".weights")
    beside = (f"{base}_{number:05d}.weights.h5" for number in itertools.count())
    names |= dict.fromkeys(itertools.takewhile(lambda n: path.with_name(n).exists(), beside))
    paths = [path.with_name(name) for name in names]
    for shard in paths:
        if shard.is_symlink() or not shard.is_file():
            what = "is a link, which is refused" if shard.is_symlink() else "is not there"
            raise FileFormatError(f"{path.name} names the file {shard.name!r}, which {what}.")
    if not paths:
        raise FileFormatError(f"{path.name} has an empty weight_map.")
    shards: list[Hdf5] = []
    with closing(Shards(path, shards)) as hdf5:
        with damaged_if_it_fails(path):
            budget = Budget(*paths)
            shards += (Hdf5(shard, path, budget) for shard in paths)
            found = _read_hdf5(hdf5, given)
            _check_budget(found, hdf5)
        yield found


def _read_hdf5(file: Hdf5, given: Mapping[str, Any] | None) -> KerasFile:
    legacy_root = None
    if file.texts("", "layer_names") is not None:
        legacy_root = ""
    elif file.texts("model_weights", "layer_names") is not None:
        legacy_root = "model_weights"
    version = file.text("", "keras_version") or file.text("model_weights", "keras_version")
    config: Any = given
    if config is None and (text := file.text("", "model_config")):
        config = parse_json(text, f"{file.path.name}: model_config")
    form = "weights.h5" if legacy_root is None else "h5"
    if version is None:
        # A legacy file without a version is Keras 1's or older than the attribute.
        version = detected_version(config) if form == "weights.h5" or config is not None else "1"
    if config is not None:
        leaves = nodes(config, f"the config of {file.path.name}")
        if legacy_root is None:
            layers = _keras3.read_layers(file, leaves, version)
        else:
            layers = _legacy.read_layers(file, legacy_root, leaves, version)
    elif legacy_root is None:
        layers = _keras3.read_groups(file, version)
        if not layers and not (file.is_group("layers") or file.is_group("vars")):
            held = ", ".join(file.children("")[:8]) or "nothing"
            raise FileFormatError(
                f"{file.path.name} is an HDF5 file but not one of Keras's; it holds {held}."
            )
    else:
        layers = _legacy.read_groups(file, legacy_root, version)
    return KerasFile(file.path, form, version, tuple(layers), config is None)
