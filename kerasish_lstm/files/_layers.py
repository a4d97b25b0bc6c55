"""From a layer's config and the places of its arrays to a :class:`FileLayer`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..config import LSTMConfig
from ..errors import ConfigError
from ._arrays import gathered, is_cudnn, lstm_units, stored_dtype, stored_weights
from ._open import Hdf5
from ._tree import Cell, FileLayer, Node


def checked(node: Node, cells: Sequence[Cell], version: str) -> LSTMConfig | None:
    """The config of a plain LSTM, and None of another layer, whose sizes are looked at.

    Raises:
        ConfigError: no LSTM can have it.
    """
    if node.is_lstm:
        return LSTMConfig.from_keras(node.entry["config"], version)
    for cell in cells:
        try:
            LSTMConfig(cell.units)
        except ConfigError as error:
            said = str(error).removeprefix("LSTM: ")
            raise ConfigError(f"the {node.kind} {node.path!r}: {said}") from error
    return None


def whole(
    file: Hdf5,
    node: Node,
    config: LSTMConfig | None,
    cells: Sequence[Cell],
    paths: Sequence[Sequence[str]],
) -> FileLayer:
    """A layer with its weights.

    Args:
        config: of a plain LSTM, as :func:`checked` gives it.
        paths: the datasets of each of its cells.

    Raises:
        FileFormatError: arrays that do not fit the config.
    """
    weights = []
    for number, (cell, its) in enumerate(zip(cells, paths, strict=True)):
        name = node.path if len(cells) == 1 else f"{node.path}, cell {number}"
        weights.append(stored_weights(file, name, its, int(cell.units), cell.use_bias))
    stored = stored_dtype(file, [path for its in paths for path in its])
    if config is not None:
        config = config.replace(dtype=stored or config.dtype)
        return FileLayer(node.path, "LSTM", config, weights[0], None, True)
    return FileLayer(
        node.path, node.kind, None, None, None, True,
        entry=node.entry, cells=tuple(weights), stored=stored,
    )  # fmt: skip


def bare(
    file: Hdf5, name: str, kinds: Sequence[str], paths: Sequence[Sequence[str]], version: str
) -> FileLayer:
    """A layer of a file without a config: its classes, and the sizes that its arrays tell.

    Args:
        kinds: its class, and those of the layers in it: ``("Bidirectional", "LSTM")``.
        paths: the datasets of each of its cells; arrays of an LSTM by their shapes.
    """
    configs: list[dict[str, Any]] = []
    sizes = []
    for its in paths:
        shapes: Any = [file.shape(p) for p in its]
        shapes = gathered(shapes) if len(shapes) == 12 else shapes
        cudnn = is_cudnn(shapes)
        config = {"units": lstm_units(shapes[:2]), "use_bias": len(shapes) == 3}
        configs.append(config | ({"recurrent_activation": "sigmoid"} if cudnn else {}))
        sizes.append(int(shapes[0][0]))
    entry = _entry(kinds, configs, sizes)
    if entry is None:
        reason = f"{len(paths)} LSTM cells that make no {' of '.join(kinds)} which is built here; "
        reason += "pass config=, the model's config"
        return FileLayer(name, kinds[0], None, None, reason, True)
    node = Node(name, kinds[0], entry["config"], (), "", True, False)
    cells = node.cells
    assert cells is not None
    return whole(file, node, checked(node, cells, version), cells, paths)


def _entry(
    kinds: Sequence[str], configs: list[dict[str, Any]], sizes: list[int]
) -> dict[str, Any] | None:
    """A config of these classes over cells of these sizes; None where they do not fit."""

    def of(name: str, config: dict[str, Any]) -> dict[str, Any]:
        return {"class_name": name, "config": config}

    kind, *inner = kinds
    if kind == "TimeDistributed":
        layer = _entry(inner, configs, sizes)
        return None if layer is None else of(kind, {"layer": layer})
    if kind == "RNN":
        below = [config["units"] for config in configs]
        if sizes[1:] != below[:-1]:
            return None
        cells = [of("LSTMCell", c) for c in configs]
        many = len(cells) > 1
        return of(kind, {"cell": of("StackedRNNCells", {"cells": cells}) if many else cells[0]})
    if kind == "Bidirectional":
        if inner != ["LSTM"] or len(configs) != 2 or sizes[0] != sizes[1]:
            return None
        backward = of("LSTM", {**configs[1], "go_backwards": True})
        return of(kind, {"layer": of("LSTM", configs[0]), "backward_layer": backward})
    return of(kind, configs[0]) if len(configs) == 1 else None
