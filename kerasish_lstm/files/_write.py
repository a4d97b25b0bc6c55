"""Keras's files, written with h5py: the layout of Keras 3, the older one, and the zip around both.

    layers/lstm/cell/vars/{0,1,2}                            Keras 3: by class, counted
    lstm@weight_names, lstm/lstm/lstm_cell/kernel:0, ...     older: by name, in the model's order

A file is written beside its place and moved there once it is whole.

Sources: Keras 3.15.1 ``saving_lib.H5IOStore``, ``legacy_h5_format``; tf_keras 2.21 likewise.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import ConfigError
from ._tree import numbered

ROLES = ("kernel", "recurrent_kernel", "bias")
# Keras cuts longer lists of names: HDF5 has no room for them in an object's header.
HEADER_LIMIT = 64512


@dataclasses.dataclass(frozen=True)
class Cell:
    """The weights of one LSTM.

    Args:
        path: from its layer, in Keras 3's layout: ``"forward_layer/cell"``.
        old_path: likewise in the older one: ``"forward_lstm/lstm_cell"``.
        name: what Keras 3 notes beside the weights.
        trains: in the older layout weights that are not trained come last.
        is_bfloat16: whether the arrays, of float32, stand for that.
        arrays: kernel, recurrent_kernel and, where it has one, bias; made when they are written.
    """

    path: str
    old_path: str
    name: str
    trains: bool
    is_bfloat16: bool
    arrays: Callable[[], Sequence[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of a model: its name, its class as a path has it (``"time_distributed"``)."""

    name: str
    kind: str
    cells: Sequence[Cell]


@contextmanager
def replacing(path: Path, overwrite: bool) -> Iterator[Path]:
    """A path to write to. What lies there at the end is moved to ``path``, whole; on an error
    nothing is, and nothing is left behind.

    Raises:
        FileExistsError: there is a file, and ``overwrite`` is False.
        OSError: there is no such folder, or no leave to write there.
    """
    check_free(path, overwrite)
    given, path = path, path.resolve()  # a link stays a link, to the new file
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(given)) from error
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        check_free(path, overwrite)
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_free(path: Path, overwrite: bool) -> None:
    """Raises:
    ConfigError: the path is a folder's.
    FileExistsError: there is a file, and ``overwrite`` is False.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; pass the path of a file to write.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; pass overwrite=True to replace it.")


def write_archive(
    path: Path,
    layers: Sequence[Layer],
    model: str,
    config: Mapping[str, Any],
    metadata: Mapping[str, Any],
    opaque: bool,
) -> None:
    """A ``.keras`` file: the config and the weights in a zip, not compressed."""
    weights = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        write_weights(weights, layers, model, opaque)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", json.dumps(metadata))
            archive.writestr("config.json", json.dumps(config))
            archive.write(weights, "model.weights.h5")
    finally:
        weights.unlink(missing_ok=True)


def write_weights(path: Path, layers: Sequence[Layer], model: str, opaque: bool) -> None:
    """The layout of Keras 3, of a ``.weights.h5`` file.

    Args:
        model: the model's name.
        opaque: keep bfloat16 in two bytes that HDF5 has no type for, as Keras 3 does and tf_keras
            cannot read; otherwise in float32, exactly.
    """
    counts: dict[str, int] = {}
    with h5py.File(path, "w") as file:
        file.create_group("vars").attrs["name"] = model  # tf_keras insists on the group
        for layer in layers:
            where = f"layers/{numbered(layer.kind, counts)}"
            file.create_group(f"{where}/vars").attrs["name"] = layer.name
            for cell in layer.cells:
                group = file.create_group(f"{where}/{cell.path}/vars")
                group.attrs["name"] = cell.name
                for position, array in enumerate(cell.arrays()):
                    if opaque and cell.is_bfloat16:
                        bits = np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16
                        data = group.create_dataset(
                            str(position), data=bits.astype(np.uint16).view("V2")
                        )
                        data.attrs["dtype"] = "bfloat16"
                    else:
                        group.create_dataset(str(position), data=array)


def write_legacy(
    path: Path,
    layers: Sequence[Layer],
    weightless: Sequence[str],
    version: str,
    config: Mapping[str, Any] | None,
    ending: str,
) -> None:
    """The older layout, of the weights alone or, with a config, of a whole model.

    Args:
        weightless: names of the layers that come before and have no weights.
        ending: of every weight's name, ``":0"`` in tf_keras.
    """
    with h5py.File(path, "w") as file:
        group = file
        if config is not None:
            file.attrs["keras_version"], file.attrs["backend"] = version, "tensorflow"
            file.attrs["model_config"] = json.dumps(config)
            group = file.create_group("model_weights")
        group.attrs["keras_version"], group.attrs["backend"] = version, "tensorflow"
        _set_names(group, "layer_names", [*weightless, *(layer.name for layer in layers)])
        for name in (*weightless, "top_level_model_weights"):
            _set_names(group.create_group(name), "weight_names", [])
        for layer in layers:
            own, names = group.create_group(layer.name), list[str]()
            for cell in sorted(layer.cells, key=lambda cell: not cell.trains):
                where = f"{layer.name}/{cell.old_path}"
                for role, array in zip(ROLES, cell.arrays(), strict=False):
                    names.append(f"{where}/{role}{ending}")
                    own.create_dataset(names[-1], data=array)
            _set_names(own, "weight_names", names)


def _set_names(group: Any, attribute: str, names: Sequence[str]) -> None:
    """A list of names, each shorter than the limit, in pieces that HDF5 has room for."""
    encoded = np.asarray([name.encode() for name in names])
    pieces = 1
    while any(p.nbytes > HEADER_LIMIT for p in np.array_split(encoded, pieces)):
        pieces += 1
    if pieces == 1:
        group.attrs[attribute] = encoded
        return
    for number, piece in enumerate(np.array_split(encoded, pieces)):
        group.attrs[f"{attribute}{number}"] = piece
