"""From a layer's config and the places of its arrays to a :class:`FileLayer`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..config import LSTMConfig
from ..errors import ConfigError, FileFormatError
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
    file: Hdf5, name: str, kind: str, paths: Sequence[Sequence[str]], version: str
) -> FileLayer:
    """A layer of a file without a config: its class, and the sizes that its arrays tell.

    Raises:
        FileFormatError: arrays that make no such layer.
    """
    configs: list[dict[str, Any]] = []
    cudnn = False
    for its in paths:
        shapes: Any = [file.shape(p) for p in its]
        shapes = gathered(shapes) if len(shapes) == 12 else shapes
        units = lstm_units(shapes)
        if units is None and is_cudnn(shapes):
            units, cudnn = lstm_units(shapes[:2]), True
        if units is None:
            raise FileFormatError(f"{file.path.name}: {name!r} has arrays of no LSTM: {shapes}.")
        configs.append({"units": units, "use_bias": len(shapes) == 3})
    if cudnn:
        for config in configs:
            config["recurrent_activation"] = "sigmoid"
    entry = _entry(kind, configs)
    if entry is None:
        raise FileFormatError(
            f"{file.path.name}: {name!r} has the arrays of {len(paths)} LSTM cells, which make no "
            f"{kind}. Pass config=, the model's config."
        )
    node = Node(name, kind, entry["config"], (), "", True, False)
    cells = node.cells
    assert cells is not None
    return whole(file, node, checked(node, cells, version), cells, paths)


def _entry(kind: str, configs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """A config of a class over cells of these sizes; None where their number does not fit."""

    def of(name: str, config: dict[str, Any]) -> dict[str, Any]:
        return {"class_name": name, "config": config}

    if kind == "RNN":
        cells = [of("LSTMCell", c) for c in configs]
        many = len(cells) > 1
        return of("RNN", {"cell": of("StackedRNNCells", {"cells": cells}) if many else cells[0]})
    if kind == "Bidirectional" and len(configs) == 2:
        layers = [of("LSTM", c) for c in configs]
        backward = of("LSTM", {**configs[1], "go_backwards": True})
        return of(kind, {"layer": layers[0], "backward_layer": backward})
    if kind == "TimeDistributed" and len(configs) == 1:
        return of(kind, {"layer": of("LSTM", configs[0])})
    if kind == "TimeDistributed" and len(configs) == 2:
        return of(kind, {"layer": _entry("Bidirectional", configs)})
    return of(kind, configs[0]) if kind in ("LSTM", "LSTMCell") and len(configs) == 1 else None
