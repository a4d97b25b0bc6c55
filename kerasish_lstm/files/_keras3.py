"""``.keras`` and ``.weights.h5``: groups by snake_case(class) and number, arrays as vars/0, 1, 2.

A layer's group is named after its class and its position among the layers of that class in its
model, never after the layer. HDF5 lists groups by the alphabet (lstm_10 before lstm_2), so the
order is the config's. Written by Keras 3 and, since 2.12, by tf.keras.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..errors import FileFormatError, KerasishError
from ._arrays import is_cudnn, lstm_units
from ._layers import bare, checked, whole
from ._open import Hdf5
from ._tree import FileLayer, Node, hidden, left_out, not_alone, numbered, snake_case


def read_layers(file: Hdf5, nodes: list[Node], version: str) -> list[FileLayer]:
    """The layers of a config, with the weights of those that this package builds."""
    layers = []
    nodes = _as_counted(file, nodes)
    owners = _Owners(file, nodes)
    for node in nodes:
        cells = node.cells
        if cells is None:
            layers.append(left_out(node))
            continue
        try:
            config = checked(node, cells, version)
        except KerasishError as error:  # of this layer; the others may be fine
            layers.append(left_out(node, error))
            continue
        group = _group_of(file, node)
        written = file.text(f"{group}/vars", "name")  # Keras 3.6 and later say it
        if written is not None and written != node.name:
            raise FileFormatError(
                f"{file.path.name}: the group {group!r} should hold the {node.kind} {node.path!r} "
                f"and says that it holds {written!r}. The config is not that of these weights."
            )
        found = [_variables(file, group, cell.group) for cell in cells]
        if not any(found) and (owner := owners.group_of(node)) is not None:
            found = [_variables(file, owner, cell.group) for cell in cells]
        layers.append(whole(file, node, config, cells, found))
    # A class of the model's author may hold LSTMs that no config tells of.
    told = {_group_of(file, n) for n in nodes if n.has_lstm}
    for _, name in _found(file):
        parts = name.split("/")
        if not any("/".join(parts[: end + 1]) in told for end in range(len(parts))):
            layers.append(hidden(name))
    return layers


def _as_counted(file: Hdf5, nodes: list[Node]) -> list[Node]:
    """The nodes with the groups that the file has, where tf_keras has left shared layers out.

    A layer that has been written with another model before has no group. Keras 3 counts it all the
    same; tf_keras does not. Which of the two a file does, the numbers of its groups say.
    """
    rooms: dict[tuple[str, str], list[int]] = {}  # by group of the model and class of the layer
    for index, node in enumerate(nodes):
        room = _group_of(file, node).rpartition("/")[0]
        rooms.setdefault((room, snake_case(node.kind)), []).append(index)
    counted, seen = list(nodes), set[str]()
    for (room, kind), members in rooms.items():
        written = _groups_of_class(file, room, kind)
        first = [i for i in members if _itself(nodes[i]) not in seen]
        seen.update(_itself(nodes[i]) for i in first)
        counts: dict[str, int] = {}
        mine = {i: numbered(kind, counts) for i in first}
        if written == set(mine.values()) != {nodes[i].group for i in first}:
            for index in (*first, *(i for i in members if i not in mine)):
                name = mine.get(index) or numbered(kind, counts)  # the latter has no group
                counted[index] = replace(nodes[index], group=name)
    return counted


def _groups_of_class(file: Hdf5, room: str, kind: str) -> set[str]:
    """The groups that a model has for layers of a class: ``lstm``, ``lstm_1``, ..."""
    own = re.compile(rf"{re.escape(kind)}(_\d+)?")
    return {group for group in file.children(room) if own.fullmatch(group)}


class _Owners:
    """Where the weights of a layer lie that shares another's: Keras stores them once.

    A layer that stands in two models has one name, one config and no arrays at its second place,
    and one ``shared_object_id`` or, at the first, none.
    """

    def __init__(self, file: Hdf5, nodes: list[Node]) -> None:
        self._file = file
        self._nodes = nodes
        self._found: dict[str, list[tuple[int | None, str]]] | None = None

    def group_of(self, node: Node) -> str | None:
        """The group of the one other layer that may own a layer's weights, and has some."""
        if self._found is None:
            self._found = {}
            for one in self._nodes:
                group = _group_of(self._file, one)
                if any(_variables(self._file, group, cell.group) for cell in one.cells or ()):
                    self._found.setdefault(_itself(one), []).append((one.shared, group))
        alike = self._found.get(_itself(node), [])
        groups = (
            g for shared, g in alike if None in (shared, node.shared) or shared == node.shared
        )
        first, second = next(groups, None), next(groups, None)
        return first if second is None else None


def _itself(node: Node) -> str:
    """What a layer is, wherever it stands."""
    return json.dumps([node.kind, node.name, _without_ids(node.config)], sort_keys=True)


def _without_ids(value: Any, depth: int = 0) -> Any:
    """A config without Keras 3's numbers of what stands in it a second time."""
    if depth > 64:
        return value
    if isinstance(value, Mapping):
        kept = {k: v for k, v in value.items() if k != "shared_object_id"}
        return {k: _without_ids(v, depth + 1) for k, v in kept.items()}
    return [_without_ids(v, depth + 1) for v in value] if isinstance(value, list) else value


def _group_of(file: Hdf5, node: Node) -> str:
    """``layers/functional/layers/lstm_1``: of each class the second of its model, and so on."""
    group = ""
    for around, one in zip((None, *node.parents), (*node.parents, node), strict=True):
        if around is not None and around.kind == "TimeDistributed":
            group += "/layer"
            continue
        rooms = [f"{group}/{room}" if group else room for room in _ROOMS]
        room = next((r for r in rooms if file.is_group(r)), rooms[0])
        group = f"{room}/{one.group}"
    return group


_ROOMS = ("layers", "_layer_checkpoint_dependencies")  # the second in tf.keras 2.12


def _variables(file: Hdf5, group: str, cell: str) -> list[str]:
    """The paths of a cell's arrays; of a CuDNNLSTM, which has no cell, those of the layer."""
    inside = f"{group}/{cell}" if cell else group
    for where in dict.fromkeys((inside, inside.removesuffix("/cell"))):
        numbers = sorted(filter(str.isdecimal, file.children(f"{where}/vars")), key=int)
        if numbers:
            return [f"{where}/vars/{n}" for n in numbers]
    return []


def read_groups(file: Hdf5, version: str) -> list[FileLayer]:
    """The layers of a file without a config, by the shapes of their arrays, keyed by group path."""
    layers = []
    for (kinds, name), cells in _found(file).items():
        around = cells[0][0].rpartition("/vars/")[0].rpartition("/")[0]
        if kinds[-1] == "RNN" and around.endswith("/cells"):
            others = len(file.children(around)) - len(cells)
            if others:
                layers.append(not_alone(name, "RNN", f"{others} of its cells are no LSTMCells"))
                continue
        if name.endswith("/layer"):
            layers.append(not_alone(name, "layer", "it stands in a wrapper that is not built here"))
            continue
        layers.append(bare(file, name, kinds, cells, version))
    return layers


def _found(file: Hdf5) -> dict[tuple[tuple[str, ...], str], list[list[str]]]:
    """The arrays of each LSTM cell in the file, by the (classes, group) of its layer."""
    found: dict[tuple[tuple[str, ...], str], list[list[str]]] = {}
    for cell in sorted(_groups(file, "", 0), key=_by_number):
        paths = _variables(file, cell, "")
        shapes = [file.shape(p) for p in paths]
        above, _, name = cell.rpartition("/")
        named = name == "cell" or above.endswith("cell/cells") or "lstm" in name
        if is_cudnn(shapes) or (named and lstm_units(shapes) is not None):
            found.setdefault(_kinds(cell), []).append(paths)
    for cells in found.values():  # HDF5 has backward_layer first
        cells.sort(key=lambda its: "/backward_layer/" in its[0])
    return found


def _groups(file: Hdf5, group: str, depth: int) -> Iterator[str]:
    """Every group that has a group ``vars``, which may be a cell's, optimizers apart."""
    if depth > 64:
        raise FileFormatError(f"{file.path.name}: groups are nested more than 64 deep.")
    for name in file.children(group):
        inner = f"{group}/{name}" if group else name
        if name in ("optimizer", "metrics", "vars") and not group:
            continue
        if file.is_group(inner):
            if file.is_group(f"{inner}/vars"):
                yield inner
            yield from _groups(file, inner, depth + 1)


def _kinds(cell: str) -> tuple[tuple[str, ...], str]:
    """The classes of the layer that has a cell, the outermost first, and its group.

    The path tells them: of a model that is code of its author it holds the names of attributes.
    """
    above, _, last = cell.rpartition("/")
    kinds: tuple[str, ...]
    if match := re.fullmatch(r"(.+)/cell/cells/[^/]+", cell):
        kinds, group = ("RNN",), match[1]
    elif last == "cell" and above:
        kinds, group = ("RNN",) if re.search(r"(^|/)rnn(_\d+)?$", above) else ("LSTM",), above
    else:  # a CuDNNLSTM has no cell
        kinds, group = ("LSTMCell",) if re.search(r"cell(_\d+)?$", last) else ("LSTM",), cell
    if match := re.fullmatch(r"(.+)/(?:forward|backward)_layer", group):
        kinds, group = ("Bidirectional", *kinds), match[1]
    if match := re.fullmatch(r"((?:.*/)?time_distributed(?:_\d+)?)/layer", group):
        kinds, group = ("TimeDistributed", *kinds), match[1]
    return kinds, group


def _by_number(path: str) -> list[tuple[str, int]]:
    """Sorts ``lstm``, ``lstm_2``, ``lstm_10`` in that order."""
    pairs = (re.fullmatch(r"(.*?)(?:_(\d+))?", part) for part in path.split("/"))
    return [(m[1], int(m[2] or -1)) for m in pairs if m is not None]
