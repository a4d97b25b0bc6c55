"""A model's config as a flat list of layers in the model's order, whatever version wrote it."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config import LSTMConfig
from ..errors import FileFormatError, KerasishError
from ._arrays import StoredWeights

MODELS = ("Sequential", "Functional", "Model")
LSTM_CLASSES = ("LSTM", "CuDNNLSTM", "LSTMCell")
LAYERS = (*LSTM_CLASSES, "Bidirectional", "RNN", "TimeDistributed")
_CHAINED = ("InputLayer", "LSTM", "CuDNNLSTM", "Bidirectional")


@dataclass(frozen=True)
class FileLayer:
    """One layer of a file.

    name: its name in the model, the names of nested models before it, joined by ``/``.
    kind: its class.
    config, weights: of a plain LSTM; None for all others.
    entry, cells: of a layer around LSTMs, and of a cell: ``{"class_name": ..., "config": ...}``,
        and the weights of each cell in Keras's order; None and nothing for all others.
    stored: the dtype in which the file holds them, where NumPy lacks it.
    reason: why a layer has no weights here; None for one that has.
    has_lstm: whether an LSTM is in it, so that leaving it out would leave an LSTM out.
    error: what a plain LSTM's config raised, where it is none that can be built.
    """

    name: str
    kind: str
    config: LSTMConfig | None
    weights: StoredWeights | None
    reason: str | None
    has_lstm: bool
    error: KerasishError | None = None
    entry: Mapping[str, Any] | None = None
    cells: tuple[StoredWeights, ...] = ()
    stored: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether a module can be made of it."""
        return self.weights is not None or bool(self.cells)


@dataclass(frozen=True)
class KerasFile:
    """What a file holds. version is the Keras version that wrote it, as far as the file says.

    bare: the file held weights alone, and no config was given: names are the file's groups, and
        everything but the shapes is Keras's default.
    """

    path: Path
    format: str
    version: str
    layers: tuple[FileLayer, ...]
    bare: bool


@dataclass(frozen=True)
class Node:
    """One layer of a config. parents are the models around it, outermost first."""

    name: str
    kind: str
    config: Mapping[str, Any]
    parents: tuple[Node, ...]
    group: str  # its class and number in its own model, as Keras 3 names groups: ``lstm_1``
    trainable: bool  # its own flag and those of all parents
    foreign: bool  # a class of the model's author, whatever its name
    shared: int | None = None  # Keras 3's number of a layer that stands in several places

    @property
    def is_lstm(self) -> bool:
        """Whether it is Keras's own LSTM. (Legacy files do not say whose class it is.)"""
        return self.kind in ("LSTM", "CuDNNLSTM") and not self.foreign

    @property
    def entry(self) -> dict[str, Any]:
        """It as it stands in a config, CuDNNLSTMs as the LSTMs that they are."""
        found: dict[str, Any] = as_lstms({"class_name": self.kind, "config": self.config})
        return found

    @property
    def cells(self) -> list[Cell] | None:
        """The LSTM cells of a layer that this package builds, in Keras's order; None of others."""
        if self.foreign:
            return None
        found = cells_of({"class_name": self.kind, "config": self.config})
        return found or None

    @property
    def path(self) -> str:
        return "/".join([*(p.name for p in self.parents), self.name])

    @property
    def has_lstm(self) -> bool:
        """Whether an LSTM is in it; an unknown class that calls itself one is taken at its word."""
        named = "lstm" in self.kind.lower() and not self.kind.startswith("ConvLSTM")
        return named or any(c in LSTM_CLASSES for c in _classes(self.config))


def is_authors_own(config: Any) -> bool:
    """Whether it is the config of a model that is code of its author's, and lists no layers.

    What stands in Python's own library is no model, whatever a file says.
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("class_name"), str):
        return False
    known = config["class_name"] in (*MODELS, *LAYERS)
    is_pythons = str(config.get("module")).partition(".")[0] in sys.stdlib_module_names
    return not known and not is_pythons and not _is_functional(config.get("config"))


def nodes(config: Any, what: str) -> list[Node]:
    """The leaf layers of a model config in the model's order; nested models are opened.

    Args:
        config: ``{"class_name": ..., "config": ...}`` as ``model.to_json()`` and the files have it,
            or what ``model.get_config()`` gives (of old Sequential models, a list).
        what: what error messages call it.
    """
    if isinstance(config, Mapping) and "class_name" in config:
        kind, inner = str(config["class_name"]), config.get("config")
        if kind in LAYERS:  # the config of one layer, as layers.serialize gives it
            return list(_walk([config], (), True, what))
        if kind not in MODELS and not _is_functional(inner):
            raise FileFormatError(
                f"{what} is of the class {kind!r}, which is code of the model's author: a config "
                "lists the layers of Sequential and Functional models only. Load it without a "
                "config, or with that of a Sequential or Functional model of the same weights."
            )
    else:
        inner = config
    layers = inner if isinstance(inner, list) else None
    trainable = True
    if isinstance(inner, Mapping):
        layers = inner.get("layers")
        trainable = inner.get("trainable") is not False
    if not isinstance(layers, list):
        raise FileFormatError(
            f"{what} is not the config of a Sequential or Functional model: it has no list of "
            "layers. Pass what model.to_json() or model.get_config() gives."
        )
    return list(_walk(layers, (), trainable, what))


def _walk(
    layers: list[Any], parents: tuple[Node, ...], trainable: bool, what: str
) -> Iterator[Node]:
    kinds, groups, names = dict[str, int](), dict[str, int](), set[str]()
    if len(parents) > 64:
        raise FileFormatError(f"{what} nests models more than 64 deep.")
    for position, layer in enumerate(layers):
        if not isinstance(layer, Mapping) or not isinstance(layer.get("class_name"), str):
            raise FileFormatError(f"{what}: layer {position} is no layer config: {str(layer)[:80]}")
        kind = layer["class_name"]
        name = numbered(kind.lower(), kinds)
        # Model and Functional share one group.
        group = numbered(snake_case("Functional" if kind == "Model" else kind), groups)
        node = _node(layer, parents, name, group, trainable)
        if node.name in names:
            raise FileFormatError(f"{what} has two layers called {node.name!r} in one model.")
        names.add(node.name)
        yield from _opened(node, layer, what)


def _node(
    layer: Mapping[str, Any], parents: tuple[Node, ...], name: str, group: str, trainable: bool
) -> Node:
    """The node of a layer; ``name`` is for one whose config has none."""
    config, shared = layer.get("config"), layer.get("shared_object_id")
    config = config if isinstance(config, Mapping) else {}
    given = config.get("name", layer.get("name"))
    return Node(
        given if isinstance(given, str) else name,
        layer["class_name"],
        config,
        parents,
        group,
        trainable and config.get("trainable") is not False,
        _is_foreign(layer),
        shared if isinstance(shared, int) else None,
    )


def _opened(node: Node, layer: Mapping[str, Any], what: str) -> Iterator[Node]:
    """A layer, or those in it: of a model, and of a model that a TimeDistributed runs."""
    around = (*node.parents, node)
    config = layer.get("config")
    inner = node.config.get("layer") if node.kind == "TimeDistributed" else None
    if isinstance(inner, Mapping) and not node.foreign and _is_model_of_many(inner):
        yield from _opened(
            _node(inner, around, str(inner["class_name"]).lower(), "", node.trainable), inner, what
        )
        return
    inside = config.get("layers") if isinstance(config, Mapping) else config
    if isinstance(inside, list) and (node.kind in MODELS or _is_functional(config)):
        yield from _walk(inside, around, node.trainable, what)
    else:
        yield node


def _is_functional(config: Any) -> bool:
    """Whether it is the config of a class derived from a Functional or Sequential model."""
    if not isinstance(config, Mapping) or not _layers_in(config):
        return False
    first = _layers_in(config)[0]["class_name"]
    is_sequential = "build_input_shape" in config or first == "InputLayer"
    return is_sequential or all(ends in config for ends in ("input_layers", "output_layers"))


def _layers_in(config: Any) -> list[Any]:
    """The layers that the config of a model, or of a class derived from one, lists."""
    found = config.get("layers") if isinstance(config, Mapping) else config
    if not isinstance(found, list):
        return []
    told = all(isinstance(one, Mapping) and isinstance(one.get("class_name"), str) for one in found)
    return found if told else []


def _is_model_of_many(layer: Mapping[str, Any]) -> bool:
    """Whether it is a model, but no Sequential of LSTM and Bidirectional layers alone."""
    layers, kind = _layers_in(layer.get("config")), layer.get("class_name")
    if not layers or not isinstance(kind, str) or kind in LAYERS:
        return False
    own = all(one["class_name"] in _CHAINED and not _is_foreign(one) for one in layers)
    return kind != "Sequential" or not own


@dataclass(frozen=True)
class Cell:
    """One LSTM cell that a layer's config tells of.

    group: where Keras 3's files have it, below the layer's own group.
    units, use_bias: as the config has them, whatever they are.
    trainable: its own flag and those of what is around it, within the layer.
    """

    group: str
    units: Any
    use_bias: bool
    trainable: bool


def cells_of(entry: Any, depth: int = 0) -> list[Cell] | None:
    """The cells of a layer's config in Keras's order; None where it is not built here."""
    if not isinstance(entry, Mapping) or _is_foreign(entry) or depth > 8:
        return None
    kind, config = entry.get("class_name"), entry.get("config")
    found = _cells_of(kind, config, depth)
    frozen = isinstance(config, Mapping) and config.get("trainable") is False
    return [replace(c, trainable=False) for c in found] if found and frozen else found


def _cells_of(kind: Any, config: Any, depth: int) -> list[Cell] | None:
    if kind == "Sequential" and depth:
        layers = config.get("layers") if isinstance(config, Mapping) else config
        return _numbered(layers, "layers", depth)
    if not isinstance(config, Mapping):
        return None
    units = config.get("units", config.get("output_dim"))
    own = Cell("cell", units, config.get("use_bias") is not False, True)
    if kind in ("LSTM", "CuDNNLSTM"):
        return [own]
    if kind == "LSTMCell":
        return [replace(own, group="")]
    if kind == "Bidirectional":
        forward = cells_of(config.get("layer"), depth + 1)
        given = config.get("backward_layer")
        backward = forward if given is None else cells_of(given, depth + 1)
        return _below("forward_layer", forward, _below("backward_layer", backward, []))
    if kind == "TimeDistributed":
        return _below("layer", cells_of(config.get("layer"), depth + 1), [])
    if kind == "RNN":
        cell = config.get("cell")
        if not isinstance(cell, Mapping):
            return None
        stack = cell.get("config")
        if cell.get("class_name") == "LSTMCell":
            return _below("cell", cells_of(cell, depth + 1), [])
        if cell.get("class_name") == "StackedRNNCells" and isinstance(stack, Mapping):
            return _numbered(stack.get("cells"), "cell/cells", depth)
    return None


def _below(group: str, cells: list[Cell] | None, rest: list[Cell] | None) -> list[Cell] | None:
    """Cells with a group around them, and then others; None where either is."""
    if cells is None or rest is None:
        return None
    around = [replace(c, group=f"{group}/{c.group}".rstrip("/")) for c in cells]
    return [*around, *rest]


def _numbered(layers: Any, group: str, depth: int) -> list[Cell] | None:
    """Of a list of layers, each in a group of its class and number."""
    if not isinstance(layers, list):
        return None
    found: list[Cell] = []
    counts: dict[str, int] = {}
    for layer in layers:
        kind = layer.get("class_name") if isinstance(layer, Mapping) else None
        if not isinstance(kind, str):
            return None
        name = numbered(snake_case(kind), counts)
        if kind == "InputLayer":
            continue
        inside = _below(f"{group}/{name}", cells_of(layer, depth + 1), [])
        if inside is None:
            return None
        found += inside
    return found


def as_lstms(entry: Any, depth: int = 0) -> Any:
    """A config in which each CuDNNLSTM is an LSTM with its activations, tanh and sigmoid."""
    if depth > 64:
        return entry
    if isinstance(entry, Mapping):
        found = {key: as_lstms(value, depth + 1) for key, value in entry.items()}
        if found.get("class_name") == "CuDNNLSTM" and isinstance(found.get("config"), Mapping):
            gates = {"activation": "tanh", "recurrent_activation": "sigmoid"}
            found |= {"class_name": "LSTM", "config": {**found["config"], **gates}}
        return found
    return [as_lstms(value, depth + 1) for value in entry] if isinstance(entry, list) else entry


def _is_foreign(layer: Mapping[str, Any]) -> bool:
    module, registered = layer.get("module"), layer.get("registered_name")
    if isinstance(module, str) and module.split(".")[0] not in ("keras", "tf_keras", "tensorflow"):
        return True
    return isinstance(registered, str) and ">" in registered


def _classes(value: Any, depth: int = 0) -> Iterator[str]:
    """Every ``class_name`` inside a config."""
    if depth > 64:
        return
    if isinstance(value, Mapping):
        if isinstance(value.get("class_name"), str):
            yield value["class_name"]
        for v in value.values():
            yield from _classes(v, depth + 1)
    elif isinstance(value, list):
        for v in value:
            yield from _classes(v, depth + 1)


@functools.lru_cache(maxsize=1024)
def snake_case(name: str) -> str:
    """Keras's ``to_snake_case``, by which its weight files name groups."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def numbered(name: str, counts: dict[str, int]) -> str:
    """Keras's name of the next of a name: ``lstm``, ``lstm_1``, ...; counts holds how many were."""
    count = counts.get(name, 0)
    counts[name] = count + 1
    return f"{name}_{count}" if count else name


def hidden(name: str) -> FileLayer:
    """Arrays of an LSTM that stand in a file and that its config does not tell of."""
    reason = "the file has an LSTM's arrays there, and the config does not say what they are"
    return FileLayer(name, "LSTM", None, None, reason, True)


def not_alone(name: str, kind: str, why: str) -> FileLayer:
    """An LSTM of a file without a config in something that this package does not build."""
    return FileLayer(name, kind, None, None, f"{why}; pass its arrays to LSTM.set_weights()", True)


def left_out(node: Node, error: KerasishError | None = None) -> FileLayer:
    """A layer that this package does not build, with the reason."""
    if error is not None:
        return FileLayer(node.path, node.kind, None, None, str(error), True, error)
    if not node.has_lstm:
        reason = f"{node.kind} is not an LSTM"
    else:
        reason = f"a {node.kind} around an LSTM is not built here; pass the LSTM's arrays to "
        reason += "LSTM.set_weights()"
        if node.foreign or not any(c in LSTM_CLASSES for c in _classes(node.config)):
            reason = f"{node.kind} is code of the model's author; if it is an LSTM, pass its "
            reason += "arrays to LSTM.set_weights()"
    return FileLayer(node.path, node.kind, None, None, reason, node.has_lstm)
