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

from ..errors import FileFormatError, KerasishError
from ._arrays import gathered, is_cudnn, lstm_units
from ._layers import bare, checked, whole
from ._open import Hdf5
from ._tree import LSTM_CLASSES, FileLayer, Node, hidden, left_out


class Arrays(NamedTuple):
    """The datasets of one LSTM cell: kernel, recurrent_kernel and, unless it has none, bias."""

    names: tuple[str, ...]  # as weight_names has them
    paths: tuple[str, ...]


def read_layers(file: Hdf5, root: str, nodes: list[Node], version: str) -> list[FileLayer]:
    """The layers of a config, with the weights of those that this package builds."""
    names = _layer_names(file, root)
    arrays: dict[int, list[Arrays]] = {}  # by position in nodes
    tops: dict[str, list[int]] = {}
    for position, node in enumerate(nodes):
        tops.setdefault((node.parents or (node,))[0].name, []).append(position)
    for top, positions in tops.items():
        if all(nodes[p].cells is None for p in positions):
            continue
        wanting = [p for p in positions if nodes[p].has_lstm]
        if top not in names:
            raise FileFormatError(
                f"{file.path.name}: the config has a layer {top!r}; the file has "
                f"{', '.join(names) or 'none'}. The config is not that of these weights."
            )
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
        cells = node.cells
        if cells is None:
            layers.append(left_out(node))
            continue
        try:
            config = checked(node, cells, version)
        except KerasishError as error:  # of this layer; the others may be fine
            layers.append(left_out(node, error))
            continue
        layers.append(whole(file, node, config, cells, [a.paths for a in arrays[position]]))
    # A class of the model's author may hold LSTMs that no config tells of.
    for top in names:
        told = any(nodes[p].has_lstm for p in tops.get(top, ()))
        if not told and _cells(file, root, top):
            layers = [layer for layer in layers if layer.name != top]
            layers.append(hidden(top))
    return layers


def _owned(
    file: Hdf5, top: str, nodes: list[Node], wanting: list[int], found: list[Arrays]
) -> dict[int, list[Arrays]]:
    """Which layer's each cell is: by the layer's name in its weights' names, else by position."""
    for whole_path in (False, True):  # with the models around it, where names repeat
        owners = _named(nodes, wanting, found, whole_path)
        if owners and len({c.names for its in owners.values() for c in its}) == len(found):
            return {p: _in_order(nodes[p], cells) for p, cells in owners.items()}
    # Keras 3 and tf_keras do not order the weights alike once some of them are frozen.
    if len({t for p in wanting for t in _trainable(nodes[p])}) > 1 and len(wanting) > 1:
        plain = all(nodes[p].parents == nodes[wanting[0]].parents for p in wanting)
        if not plain:
            raise FileFormatError(
                f"{file.path.name}: which arrays of {top!r} are whose cannot be told: some of its "
                "layers are frozen, and the names of the weights do not name the layers. Save the "
                "model as .keras or .weights.h5 with Keras."
            )
    places = [(p, i, t) for p in wanting for i, t in enumerate(_trainable(nodes[p]))]
    places.sort(key=lambda place: not place[2])
    where = {(p, i): cell for (p, i, _), cell in zip(places, found, strict=True)}
    return {p: _by_direction([where[p, i] for i in range(_cell_count(nodes[p]))]) for p in wanting}


def _named(
    nodes: list[Node], wanting: list[int], found: list[Arrays], whole_path: bool
) -> dict[int, list[Arrays]]:
    """The cells by the layer that their names name; nothing where a layer has not its number."""
    by_word: dict[str, list[int]] = {}
    for number, cell in enumerate(found):
        for word in set(cell.names[0].split("/")):
            by_word.setdefault(word, []).append(number)
    owners = {}
    for p in wanting:
        words = [nodes[p].name, *(m.name for m in nodes[p].parents[1:] if whole_path)]
        lists = sorted((by_word.get(word, []) for word in words), key=len)
        its = set(lists[0]).intersection(*lists[1:])
        if len(its) != _cell_count(nodes[p]):
            return {}
        owners[p] = [found[number] for number in sorted(its)]
    return owners


def _trainable(node: Node) -> list[bool]:
    """The flag of each cell of a layer."""
    cells = node.cells
    if cells is None:
        return [node.trainable] * _cell_count(node)
    return [node.trainable and cell.trainable for cell in cells]


def _in_order(node: Node, cells: list[Arrays]) -> list[Arrays]:
    """A layer's cells in its own order: in the file the frozen ones stand behind the others."""
    places = sorted(enumerate(_trainable(node)), key=lambda place: not place[1])
    where = {i: cell for (i, _), cell in zip(places, cells, strict=True)}
    return _by_direction([where[i] for i in range(len(cells))])


def _by_direction(cells: list[Arrays]) -> list[Arrays]:
    """Of a Bidirectional, forward first: tf_keras does not say which of the two is frozen."""
    if sorted(_place(cell)[2] for cell in cells) == ["backward", "forward"]:
        return sorted(cells, key=lambda cell: _place(cell)[2] == "backward")
    return cells


def _cell_count(node: Node) -> int:
    """How many LSTM cells a layer has: two for a Bidirectional, n for n stacked cells."""
    if node.cells is not None:
        return len(node.cells)

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
        cells = _cells(file, root, top)
        found: dict[tuple[tuple[str, ...], str], list[Arrays]] = {}
        for cell in cells:
            kinds, name, _ = _place(cell)
            found.setdefault((kinds, name), []).append(cell)
        found = _with_its_backward_layer(found)
        count = len(_weight_names(file, root, top))
        for (kinds, name), its in found.items():
            alone = sum(len(cell.names) for cell in its) == count
            path = top if alone else "/".join(filter(None, (top, name)))
            its.sort(key=lambda cell: _place(cell)[2] == "backward")
            around = _around(kinds, name.rpartition("/")[2] or top, len(its))
            layers.append(bare(file, path, around, [cell.paths for cell in its], version))
    return layers


def _with_its_backward_layer(
    found: dict[tuple[tuple[str, ...], str], list[Arrays]],
) -> dict[tuple[tuple[str, ...], str], list[Arrays]]:
    """A Bidirectional's own ``backward_layer`` has a name of its own, without ``backward_``."""
    if [len(cells) for cells in found.values()] != [1, 1]:
        return found
    (key, (one,)), (_, (other,)) = found.items()
    if _place(one)[2] == "forward" and _place(other)[2] == "":
        return {key: [one, other]}
    return found


def _around(kinds: tuple[str, ...], name: str, cells: int) -> tuple[str, ...]:
    """The classes of a layer of this name and of so many cells."""
    # Several cells under one name: multi-backend Keras 2 numbers the arrays of an RNN.
    if kinds[-1] == "LSTM" and cells > (2 if "Bidirectional" in kinds else 1):
        kinds = (*kinds[:-1], "RNN")
    steps = re.fullmatch(r"time_distributed(_\d+)?", name)
    return ("TimeDistributed", *kinds) if steps else kinds


def _place(cell: Arrays) -> tuple[tuple[str, ...], str, str]:
    """(classes, name, direction) of a cell's layer, as far as the names of its arrays tell them.

    The name is that of the layer, after those of the models around it, or empty.
    """
    *parts, last = cell.names[0].split("/")
    kinds: tuple[str, ...] = ("LSTM",)
    if len(parts) > 1 and re.fullmatch(r"(lstm_)?cell(_\d+)?", parts[-1]):
        del parts[-1]
    if len(parts) > 1 and re.fullmatch(r"stacked_rnn_cells(_\d+)?", parts[-1]):
        del parts[-1]
        kinds = ("RNN",)
    match = re.match(r"(forward|backward)_", parts[-1] if parts else last)
    if match is None:
        return kinds, "/".join(parts), ""
    return ("Bidirectional", *kinds), "/".join(parts[:-1]), match[1]


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
        size = _length(names[at : at + 12])
        its = tuple(names[at : at + size])
        paths = tuple(f"{prefix}/{n}" for n in its)
        if size:
            shapes: Any = [file.shape(p) for p in paths]
            shapes = gathered(shapes) if size == 12 else shapes
            if lstm_units(shapes) is not None or is_cudnn(shapes):
                yield Arrays(its, paths)
                at += size
                continue
        at += 1


_KERAS_1 = [f"{role}_{gate}" for gate in "icfo" for role in "WUb"]


def _length(names: list[str]) -> int:
    """How many of these names, from the first, may be one LSTM's arrays; 0 where none."""
    roles = [_role(n) for n in names[:3]]
    if roles == ["kernel", "recurrent_kernel", "bias"]:
        return 3
    if roles[:2] == ["kernel", "recurrent_kernel"]:
        return 2
    ends = [re.search(r"_([WUb](?:_[icfo])?)(?::\d+)?$", n) for n in names]
    roles = [m[1] if m else "" for m in ends]
    if roles == _KERAS_1:
        return 12
    return 3 if roles[:3] == ["W", "U", "b"] else 0  # consume_less="gpu"
