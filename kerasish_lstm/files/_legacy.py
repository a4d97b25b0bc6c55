"""Legacy HDF5 of Keras 2 and 3: attributes ``layer_names`` and ``weight_names`` say the order.

A top-level layer has a group of its name; the weights of everything inside it (a nested model, the
two halves of a Bidirectional) lie flat in ``weight_names``: first all trainable ones, then all
frozen ones. Full names differ between versions; only the last component (kernel,
recurrent_kernel, bias) and the position are sure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..config import LSTMConfig
from ..errors import FileFormatError, KerasishError
from ._arrays import is_cudnn, lstm_units, lstm_weights, stored_dtype
from ._open import Hdf5
from ._tree import LSTM_CLASSES, REASONS, FileLayer, Node, hidden, left_out


class Arrays(NamedTuple):
    """The datasets of one LSTM cell: kernel, recurrent_kernel and, unless it has none, bias."""

    names: tuple[str, ...]  # as weight_names has them
    paths: tuple[str, ...]
    alone: bool  # the group holds nothing else


def read_layers(file: Hdf5, root: str, nodes: list[Node], version: str) -> list[FileLayer]:
    """The layers of a config, with the weights of the plain LSTMs among them."""
    names = _layer_names(file, root)
    arrays: dict[int, Arrays] = {}  # by position in nodes
    tops: dict[str, list[int]] = {}
    for position, node in enumerate(nodes):
        tops.setdefault((node.parents or (node,))[0].name, []).append(position)
    for top, positions in tops.items():
        if not any(nodes[p].is_lstm for p in positions):
            continue
        wanting = [p for p in positions if nodes[p].has_lstm]
        if top not in names:
            raise FileFormatError(
                f"{file.path.name}: the config has a layer {top!r}; the file has "
                f"{', '.join(names) or 'none'}. The config is not that of these weights."
            )
        _refuse_keras_1(file, root, top)
        found = _cells(file, root, top)
        total = sum(_cell_count(nodes[p]) for p in wanting)
        if total != len(found):
            raise FileFormatError(
                f"{file.path.name}: by its config {top!r} holds {total} LSTM cells; the file "
                f"has arrays for {len(found)}."
            )
        arrays.update(_owned(file, top, nodes, wanting, found))
    layers = []
    for position, node in enumerate(nodes):
        if not node.is_lstm:
            layers.append(left_out(node))
            continue
        try:
            config = LSTMConfig.from_keras(node.config, version)
        except KerasishError as error:  # of this layer; the others may be fine
            layers.append(left_out(node, error))
            continue
        layers.append(_layer(file, node.path, arrays[position].paths, config))
    # A class of the model's author may hold LSTMs that no config tells of.
    for top in names:
        told = any(nodes[p].has_lstm for p in tops.get(top, ()))
        if not told and _cells(file, root, top):
            layers = [layer for layer in layers if layer.name != top]
            layers.append(hidden(top))
    return layers


def _owned(
    file: Hdf5, top: str, nodes: list[Node], wanting: list[int], found: list[Arrays]
) -> dict[int, Arrays]:
    """Which layer each cell is: by the layer's name in its weights' names, else by position."""
    parts = [set(cell.names[0].split("/")) for cell in found]
    for whole in (False, True):  # with the names of the models around it, where names repeat
        owners = {
            p: [
                cell
                for cell, words in zip(found, parts, strict=True)
                if {nodes[p].name, *(m.name for m in nodes[p].parents[1:] if whole)} <= words
            ]
            for p in wanting
        }
        if all(len(owners[p]) == _cell_count(nodes[p]) for p in wanting) and (
            len({cell.names for cells in owners.values() for cell in cells}) == len(found)
        ):
            return {p: cells[0] for p, cells in owners.items() if cells}
    # Keras 3 and tf_keras do not order the weights alike once some of them are frozen.
    if len({nodes[p].trainable for p in wanting}) > 1 and len(wanting) > 1:
        plain = all(nodes[p].parents == nodes[wanting[0]].parents for p in wanting)
        if not plain:
            raise FileFormatError(
                f"{file.path.name}: which arrays of {top!r} are whose cannot be told: some of its "
                "layers are frozen, and the names of the weights do not name the layers. Save the "
                "model as .keras or .weights.h5 with Keras."
            )
    order = sorted(wanting, key=lambda p: not nodes[p].trainable)
    owner_of = [p for p in order for _ in range(_cell_count(nodes[p]))]
    return dict(zip(reversed(owner_of), reversed(found), strict=True))  # the first cell of each


def _layer(file: Hdf5, name: str, paths: tuple[str, ...], config: LSTMConfig) -> FileLayer:
    weights = lstm_weights(file, name, paths, config)
    config = config.replace(dtype=stored_dtype(file, paths) or config.dtype)
    return FileLayer(name, "LSTM", config, weights, None, True)


def _cell_count(node: Node) -> int:
    """How many LSTM cells a layer has: two for a Bidirectional, n for n stacked cells."""

    def count(value: Any) -> int:
        if isinstance(value, Mapping):
            if value.get("class_name") in LSTM_CLASSES:
                return 1
            inner = sum(count(v) for v in value.values())
            if value.get("class_name") == "Bidirectional" and not (value.get("config") or {}).get(
                "backward_layer"
            ):
                return 2 * inner  # the second layer is a copy of the first
            return inner
        return sum(count(v) for v in value) if isinstance(value, list) else 0

    return count({"class_name": node.kind, "config": node.config})


def read_groups(file: Hdf5, root: str, version: str) -> list[FileLayer]:
    """The LSTMs of a file without a config, by name and shape of their arrays."""
    layers = []
    for top in _layer_names(file, root):
        _refuse_keras_1(file, root, top)
        cells = _cells(file, root, top)
        if len(cells) > 1 and all(re.search(r"forward|backward", c.paths[0]) for c in cells):
            layers.append(_left_out(top, "Bidirectional"))
            continue
        for cell in cells:
            shapes = [file.shape(p) for p in cell.paths]
            name = top if cell.alone else _path(cell, root)
            units = lstm_units(shapes)
            if units is None:
                layers.append(_left_out(name, "CuDNNLSTM"))
                continue
            values = {"units": units, "use_bias": len(cell.paths) == 3}
            config = LSTMConfig.from_keras(values, version)
            layers.append(_layer(file, name, cell.paths, config))
    return layers


def _left_out(name: str, kind: str) -> FileLayer:
    return FileLayer(name, kind, None, None, REASONS[kind], True)


def _path(cell: Arrays, root: str) -> str:
    """The group of an LSTM inside a nested model, without the cell's own."""
    parts = cell.paths[0].removeprefix(f"{root}/" if root else "").split("/")[:-1]
    if len(parts) > 1 and re.fullmatch(r"(lstm_)?cell(_\d+)?", parts[-1]):
        del parts[-1]
    return "/".join(parts)


def _layer_names(file: Hdf5, root: str) -> list[str]:
    names = file.texts(root, "layer_names")
    if names is None:
        raise FileFormatError(f"{file.path.name}: the attribute 'layer_names' is missing.")
    return names


def _weight_names(file: Hdf5, root: str, top: str) -> list[str]:
    return file.texts(f"{root}/{top}" if root else top, "weight_names") or []


def _role(weight_name: str) -> str:
    """kernel of ``lstm_1/lstm_cell_3/kernel:0``."""
    return re.sub(r"(_\d+)?(:\d+)?$", "", weight_name.rpartition("/")[2])


def _cells(file: Hdf5, root: str, top: str) -> list[Arrays]:
    """The cells in a top-level layer, by position in its ``weight_names``."""
    names = _weight_names(file, root, top)
    prefix = f"{root}/{top}" if root else top
    return list(_runs(file, names, prefix))


def _runs(file: Hdf5, names: list[str], prefix: str) -> Iterator[Arrays]:
    at = 0
    while at < len(names):
        roles = [_role(n) for n in names[at : at + 3]]
        size = 3 if roles == ["kernel", "recurrent_kernel", "bias"] else 2
        paths = tuple(f"{prefix}/{n}" for n in names[at : at + size])
        if roles[:2] == ["kernel", "recurrent_kernel"]:
            shapes = [file.shape(p) for p in paths]
            if lstm_units(shapes) is not None or is_cudnn(shapes):
                yield Arrays(tuple(names[at : at + size]), paths, size == len(names))
                at += size
                continue
        at += 1


def _refuse_keras_1(file: Hdf5, root: str, top: str) -> None:
    ends = [re.search(r"_([WUb])(_[icfo])?(:\d+)?$", n) for n in _weight_names(file, root, top)]
    if {m[1] for m in ends if m} == {"W", "U", "b"}:
        raise FileFormatError(
            f"{file.path.name}: the arrays of {top!r} are named as Keras 1 named an LSTM's, which "
            "is not read yet. Load the file with Keras 2 and save it again."
        )
