"""``.keras`` and ``.weights.h5``: groups by snake_case(class) and number, arrays as vars/0, 1, 2.

A layer's group is named after its class and its position among the layers of that class in its
model, never after the layer. HDF5 lists groups by the alphabet (lstm_10 before lstm_2), so the
order is the config's. Written by Keras 3 and, since 2.12, by tf.keras.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..config import LSTMConfig
from ..errors import FileFormatError, KerasishError
from ._arrays import is_cudnn, lstm_units, lstm_weights, stored_dtype
from ._open import Hdf5
from ._tree import REASONS, FileLayer, Node, hidden, left_out, snake_case


def read_layers(file: Hdf5, nodes: list[Node], version: str) -> list[FileLayer]:
    """The layers of a config, with the weights of the plain LSTMs among them."""
    layers = []
    for node in nodes:
        if not node.is_lstm:
            layers.append(left_out(node))
            continue
        try:
            config = LSTMConfig.from_keras(node.config, version)
        except KerasishError as error:  # of this layer; the others may be fine
            layers.append(left_out(node, error))
            continue
        group = "/".join(_group(n) for n in (*node.parents, node))
        written = file.text(f"{group}/vars", "name")  # Keras 3.6 and later say it
        if written is not None and written != node.name:
            raise FileFormatError(
                f"{file.path.name}: the group {group!r} should hold the LSTM {node.path!r} and "
                f"says that it holds {written!r}. The config is not that of these weights."
            )
        paths = _variables(file, f"{group}/cell/vars")
        weights = lstm_weights(file, node.path, paths, config)
        config = config.replace(dtype=stored_dtype(file, paths) or config.dtype)
        layers.append(FileLayer(node.path, "LSTM", config, weights, None, True))
    # A class of the model's author may hold LSTMs that no config tells of.
    told = ["/".join(map(_group, (*n.parents, n))) for n in nodes if n.has_lstm]
    for layer in read_groups(file, version):
        if not any(layer.name == group or layer.name.startswith(f"{group}/") for group in told):
            layers.append(hidden(layer.name))
    return layers


def _group(node: Node) -> str:
    """``layers/lstm_1``: the second of its class in its model."""
    name = snake_case(_class(node.kind))
    count = [snake_case(_class(s)) for s in node.siblings].count(name)
    return f"layers/{name}_{count}" if count else f"layers/{name}"


def _class(kind: str) -> str:
    return "Functional" if kind == "Model" else kind


def _variables(file: Hdf5, group: str) -> list[str]:
    return [f"{group}/{n}" for n in sorted(filter(str.isdecimal, file.children(group)), key=int)]


def read_groups(file: Hdf5, version: str) -> list[FileLayer]:
    """The LSTMs of a file without a config, by the shapes of their arrays, keyed by group path."""
    layers: dict[str, FileLayer] = {}
    for cell in sorted(_cells(file, "", 0), key=_by_number):
        paths = _variables(file, f"{cell}/vars")
        shapes = [file.shape(p) for p in paths]
        units = lstm_units(shapes)
        if units is None and not is_cudnn(shapes):
            continue
        group = cell.rpartition("/")[0]
        kind, name = _kind(group, units is None)
        if kind != "LSTM":
            layers[name] = FileLayer(name, kind, None, None, REASONS[kind], True)
            continue
        assert units is not None
        values = {"units": units, "use_bias": len(paths) == 3}
        config = LSTMConfig.from_keras(values, version)
        config = config.replace(dtype=stored_dtype(file, paths))
        weights = lstm_weights(file, name, paths, config)
        layers[name] = FileLayer(name, "LSTM", config, weights, None, True)
    return list(layers.values())


def _cells(file: Hdf5, group: str, depth: int) -> Iterator[str]:
    """Every group that has a group ``vars`` with arrays and is a cell, optimizers apart."""
    if depth > 64:
        raise FileFormatError(f"{file.path.name}: groups are nested more than 64 deep.")
    for name in file.children(group):
        inner = f"{group}/{name}" if group else name
        if name in ("optimizer", "metrics", "vars") and not group:
            continue
        if file.is_group(inner):
            if group and (name == "cell" or "/cell/cells" in f"/{group}"):
                yield inner
            yield from _cells(file, inner, depth + 1)


def _kind(group: str, cudnn: bool) -> tuple[str, str]:
    """(class, name) of the layer in a group, as far as the path tells them."""
    wrappers = {
        "Bidirectional": r"^(.*?)/(?:forward|backward)_layer(?:/|$)",
        "TimeDistributed": r"^(.*?time_distributed(?:_\d+)?)/layer(?:/|$)",
        "RNN": r"^(.*?)/cell/cells(?:/|$)",
    }
    for kind, pattern in wrappers.items():
        if match := re.search(pattern, group):
            return kind, match[1]
    if re.fullmatch(r"rnn(_\d+)?", group.rpartition("/")[2]):
        return "RNN", group
    return ("CuDNNLSTM" if cudnn else "LSTM"), group


def _by_number(path: str) -> list[tuple[str, int]]:
    """Sorts ``lstm``, ``lstm_2``, ``lstm_10`` in that order."""
    pairs = (re.fullmatch(r"(.*?)(?:_(\d+))?", part) for part in path.split("/"))
    return [(m[1], int(m[2] or -1)) for m in pairs if m is not None]
