"""Layers written to Keras's own files, without Keras.

    suffix              format       what it is
    .keras              "keras"      a whole model: config and weights
    .weights.h5         "weights"    weights alone
    .h5, .hdf5          "weights"    weights alone, in the layout before Keras 3
    .h5, .hdf5          "h5"         a whole model in one HDF5 file, where asked for

Of one layer the model is a Sequential; of several, or of one that returns several tensors, a
functional one with an input for each.

Sources: the files of Keras 3.15.1 and tf_keras 2.21.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from torch import nn

from .config import policy_name
from .errors import ConfigError
from .files._tree import numbered, snake_case
from .files._write import (
    Cell,
    Layer,
    check_free,
    replacing,
    write_archive,
    write_legacy,
    write_weights,
)
from .layers.bidirectional import Bidirectional
from .layers.cell import LSTMCell
from .layers.lstm import LSTM
from .layers.parameters import LSTMParameters, recurrent_parts
from .layers.stacked import StackedLSTM
from .layers.state import Stateful
from .layers.time_distributed import TimeDistributed
from .plain import from_torch
from .serialization.writer import Target, Writer
from .storage import MODULES

Format: TypeAlias = Literal["keras", "weights", "h5"]
KerasTarget: TypeAlias = Literal["keras3", "keras", "tf_keras"]
Module: TypeAlias = (
    LSTM[Any] | LSTMCell | Bidirectional | StackedLSTM | TimeDistributed | nn.LSTM | nn.LSTMCell
)
_Written: TypeAlias = LSTM[Any] | Bidirectional | StackedLSTM | TimeDistributed

_SUFFIXES: dict[str, tuple[Format, ...]] = {  # the first is meant where none is named
    ".keras": ("keras",),
    ".weights.h5": ("weights",),
    ".h5": ("weights", "h5"),
    ".hdf5": ("weights", "h5"),
}
_VERSIONS = {"keras": "3.15.1", "tf_keras": "2.21.0"}
_HEADERS = 2**16  # bytes of a file beside its arrays, about
_LONGEST_NAME = 255


def save_keras(
    modules: Mapping[str, Module] | Module,
    path: str | os.PathLike[str],
    *,
    format: Format | None = None,
    target: KerasTarget = "keras3",
    overwrite: bool = False,
    batch_size: int | None = None,
    steps: int | None = None,
) -> None:
    """Write layers to a file that Keras loads; :func:`load_keras` reads it too.

    Args:
        modules: an LSTM, LSTMCell, Bidirectional, StackedLSTM or TimeDistributed, or a dict of them
            by name, whose order is kept. A plain ``nn.LSTM`` or ``nn.LSTMCell`` is written as the
            layer that :func:`from_torch` makes of it.
        path: written in one step: it is never half written. The suffix says the format.
        format: ``"keras"``, ``"weights"`` or ``"h5"``; None takes what the suffix says, which of
            ``.h5`` and ``.hdf5`` is the weights alone.
        target: ``"keras3"`` (or ``"keras"``) or ``"tf_keras"``, which loads the model. Either loads
            the weights alone, but bfloat16 in ``.weights.h5``, which tf_keras loads if it is the
            target.
        overwrite: replace the file that is there.
        batch_size: of every input. A stateful layer needs one, and takes that of its stored state.
        steps: of every input. A layer with ``unroll=True`` needs it.

    In the model each layer has the name of its key, whatever its own is; the layers of a chain have
    their own names where no other layer has them, or else ``key_0``, ``key_1``, ... A layer that
    is passed without a key has its own name, or is called as Keras would: ``lstm``. A "/" in a key
    becomes "_". An LSTMCell is written as an RNN over it.

    Each Keras has one ``hard_sigmoid``. A whole model with that of the other generation loads after
    :func:`register_keras_objects` has been called in the process that loads it; a warning says so.

    In ``.h5`` the weights of what is frozen inside a layer come last, as Keras wants them: a model
    that loads them alone must have the same parts frozen. A bfloat16 layer is written with zeros in
    place of an orthogonal initializer, which stops Keras from loading it; its weights are its own.

    The state of a stateful layer is not stored, as in Keras. What Keras has no word for
    (``dropout_style``, ``mask_propagation``) is left out; :func:`save_safetensors` keeps it. So is
    ``use_cudnn=True``, with which Keras 3 would refuse to run on a CPU: it decides itself.

    Raises:
        ConfigError: what the file cannot hold: another class or a class of your own, a layer that
            has not learnt its input size, an unknown suffix, a name of more than 255 characters or
            one twice, an activation that the target lacks, what the target cannot load. Nothing has
            been written then.
        FileExistsError: there is a file, and ``overwrite`` is False.
    """
    path = Path(path)
    form, is_old = _form(path, format)
    if target not in get_args(KerasTarget):
        raise ConfigError(
            f"save_keras: target={target!r} is not possible; allowed are 'keras3' (or 'keras') and "
            "'tf_keras'."
        )
    for keyword, value in (("batch_size", batch_size), ("steps", steps)):
        if value is not None and (
            not isinstance(value, int) or isinstance(value, bool) or value < 1
        ):
            raise ConfigError(f"save_keras: {keyword}={value!r} is no number of 1 or more.")
    check_free(path, overwrite)
    model = _Model(_branches(modules), "tf_keras" if target == "tf_keras" else "keras")
    version, layers = _VERSIONS[model.target], model.layers()
    if form == "weights":
        config, weightless = None, list[str]()
    else:
        config, weightless = model.config(batch_size, steps), model.input_names
        _say_what_to_register(path, config, model.target)
    if is_old and target == "tf_keras":
        model.check_halves()
        config = _functions_by_name(config)
    opaque = target != "tf_keras"
    size = sum(w.numel() * max(4, w.element_size()) for w in model.weights())
    with replacing(path, overwrite) as temporary:
        _must_have_room(temporary, (size + _HEADERS) * (2 if form == "keras" else 1))
        if form == "keras":
            assert config is not None
            saved = {
                "keras_version": version,
                "date_saved": time.strftime("%Y-%m-%d@%H:%M:%S"),
            }
            write_archive(temporary, layers, model.name, config, saved, opaque)
        elif is_old:
            ending = "" if opaque and config is not None else ":0"
            write_legacy(temporary, layers, weightless, version, config, ending)
        else:
            write_weights(temporary, layers, model.name, opaque)


def _form(path: Path, format: Format | None) -> tuple[Format, bool]:
    """The format, and whether it is in the layout before Keras 3."""
    suffix = next((s for s in _SUFFIXES if path.name.lower().endswith(s)), None)
    known = ", ".join(_SUFFIXES)
    if suffix is None:
        raise ConfigError(f"save_keras: {path.name!r} ends in none of {known}.")
    if format is None:
        form = _SUFFIXES[suffix][0]
    elif format not in get_args(Format):
        raise ConfigError(
            f"save_keras: format={format!r} is not possible; allowed are 'keras', 'weights', 'h5' "
            "and None (what the suffix says)."
        )
    elif format not in _SUFFIXES[suffix]:
        fitting = ", ".join(s for s, forms in _SUFFIXES.items() if format in forms)
        raise ConfigError(
            f"save_keras: format={format!r} does not fit {path.name!r}, which Keras would read as "
            f"another. Use a suffix of {fitting}."
        )
    else:
        form = format
    return form, suffix in (".h5", ".hdf5")


@dataclasses.dataclass(frozen=True)
class _Branch:
    """The layers between one input and its outputs, by their names in the model."""

    layers: Mapping[str, _Written]

    @property
    def is_time_distributed(self) -> bool:
        return isinstance(next(iter(self.layers.values())), TimeDistributed)

    @property
    def outputs(self) -> list[tuple[str, int]]:
        """The model's outputs, each a layer's name and which of its results."""
        *_, last = self.layers
        both = getattr(self.layers[last], "merge_mode", "") is None
        found = [(last, 0), (last, 1)] if both else [(last, 0)]
        for name, layer in self.layers.items():
            first = 2 if both and name == last else 1
            found += [(name, first + i) for i in range(_states(layer))]
        return found


def _states(layer: _Written) -> int:
    """How many states it returns."""
    if isinstance(layer, TimeDistributed) or not layer.return_state:
        return 0
    return 2 * len(recurrent_parts(layer))


def _branches(modules: Mapping[str, Module] | Module) -> list[_Branch]:
    """Each module, checked, with its names.

    Raises:
        ConfigError: see :func:`save_keras`.
    """
    if not isinstance(modules, Mapping):
        named: list[tuple[str, _Written]] = [("", _checked(modules, None))]
    elif not modules:
        raise ConfigError("save_keras: the dict holds no layer.")
    elif len({id(m) for m in modules.values()}) < len(modules):
        raise ConfigError(
            "save_keras: one layer stands in the dict twice. Give each its own (copy.deepcopy)."
        )
    else:
        keys = [_name(key) for key in modules]
        named = [(k, _checked(m, k)) for k, m in zip(keys, modules.values(), strict=True)]
    counts, taken = dict[str, int](), set[str]()
    own = Counter(name for key, module in named for name in _own_names(key, module))
    return [_branch(key, module, own, counts, taken) for key, module in named]


def _own_names(key: str, module: _Written) -> list[str]:
    """The names that a module's layers come with."""
    chain = _chain(module)
    if chain is None:
        return [key or _name(module.name)] if key or module.name else []
    return [_name(layer.name) for layer in chain if layer.name]


def _chain(module: _Written) -> list[Any] | None:
    """The layers of a chain, which stand in the model one after the other; None of others."""
    if isinstance(module, StackedLSTM) and not module.of_cells:
        return list(module.layers)
    return None


def _checked(module: Module, name: str | None) -> _Written:
    """The module, if it can be written, as a layer."""
    label = type(module).__name__ + ("" if name is None else f" {name!r}")
    found: Any = module
    if isinstance(module, nn.LSTM | nn.LSTMCell):
        try:
            found = from_torch(module, name=name)
        except ConfigError as error:
            first = "Pass save_keras the result of from_torch(module, inference_only=True)"
            told = str(error).replace("Pass inference_only=True", first)
            raise ConfigError(f"save_keras: {told}") from error
    if type(found) not in MODULES and not isinstance(found, MODULES):
        raise ConfigError(
            f"save_keras: a {type(module).__module__}.{label} is not one of "
            f"{', '.join(kind.__name__ for kind in MODULES)} or a plain nn.LSTM."
        )
    if any(part.input_size == 0 for part in recurrent_parts(found)):
        raise ConfigError(
            f"save_keras: this {label} has not learnt its input size, so it has no weights. Call "
            "it once before."
        )
    if type(found) not in MODULES:
        raise ConfigError(
            f"save_keras: a {label} is a class of your own, which Keras does not know. Write a "
            "layer of its base class with its weights."
        )
    for part in found.modules():
        if isinstance(part, StackedLSTM) and len(set(part.layers)) < len(part.layers):
            raise ConfigError(
                f"save_keras: one layer stands twice in this {label}, which no config can say. "
                "Build the stack of copies (copy.deepcopy)."
            )
    if any(t.is_meta for t in found.state_dict().values()):
        raise ConfigError(f"save_keras: this {label} is on the meta device; it has no values.")
    if isinstance(found, LSTMCell):
        return StackedLSTM(found, name=found.name)
    return found  # type: ignore[no-any-return]


def _branch(
    key: str, module: _Written, own: Counter[str], counts: dict[str, int], taken: set[str]
) -> _Branch:
    """A module's layers by name; a chain's one after the other.

    Args:
        own: how many layers of the model come with a name.
        counts: of the names that were made.
        taken: the names that were given.
    """
    name = key or (_name(module.name) if module.name else "")
    chain = _chain(module)
    found: dict[str, _Written] = {}
    for position, layer in enumerate([module] if chain is None else chain):
        called = name
        if chain is not None:
            called = _name(layer.name) if layer.name else ""
            if own[called] != 1:
                called = f"{name}_{position}" if name else ""
        while not called:
            made = numbered(snake_case(layer.keras_class), counts)
            called = "" if made in own else made
        called = _name(called)
        if called in taken:
            raise ConfigError(
                f"save_keras: two layers would be called {called!r}. Give one another name."
            )
        taken.add(called)
        found[called] = layer
    return _Branch(found)


def _name(given: Any) -> str:
    """A layer's name in the model.

    Raises:
        ConfigError: Keras or its files have no room for it.
    """
    name = given.replace("/", "_") if isinstance(given, str) else ""
    if (
        not name
        or "\0" in name
        or name in (".", "..", "top_level_model_weights")
        or name != name.encode(errors="replace").decode()
    ):
        raise ConfigError(
            f"save_keras: a layer cannot be called {given!r}: pass another string, not empty."
        )
    if len(name) > _LONGEST_NAME:
        raise ConfigError(
            f"save_keras: a layer's name may have {_LONGEST_NAME} characters, for the header of an "
            f"HDF5 file is small; {name[:20]!r}... has {len(name)}."
        )
    return name


class _Model:
    """The Keras model that layers are written as."""

    def __init__(self, branches: Sequence[_Branch], target: Target) -> None:
        self.branches = branches
        self.target = target
        taken = {name for branch in branches for name in branch.layers}
        found, counts = list[str](), dict[str, int]()
        while len(found) < len(branches):
            name = numbered("input_layer", counts)
            if name not in taken:
                found.append(name)
        self.input_names = found
        self.is_sequential = len(branches) == 1 and len(branches[0].outputs) == 1
        functional = "functional" if target == "keras" else "model"
        self.name = "sequential" if self.is_sequential else functional

    def layers(self) -> list[Layer]:
        """In Keras's order."""
        return [
            Layer(name, snake_case(layer.keras_class), list(_cells(layer, "", "")))
            for name, layer in self._ordered.items()
        ]

    def weights(self) -> Iterator[Any]:
        """Every parameter of its layers."""
        for layer in self._ordered.values():
            yield from layer.parameters()

    @property
    def _ordered(self) -> dict[str, _Written]:
        """Keras's order: by the distance from the outputs, and then as they were given."""
        found = [
            (position - len(branch.layers), name, layer)
            for branch in self.branches
            for position, (name, layer) in enumerate(branch.layers.items())
        ]
        return {name: layer for _, name, layer in sorted(found, key=lambda one: one[0])}

    def config(self, batch_size: int | None, steps: int | None) -> dict[str, Any]:
        """That of the whole model.

        Raises:
            ConfigError: something that the target has no word for.
        """
        inputs = [self._input(*one, batch_size, steps) for one in self._with_inputs()]
        writer = Writer(self.target, later=True)
        written = dict[str, dict[str, Any]]()
        for name, layer in self._ordered.items():
            self._check(name, layer)
            _say_what_differs(name, layer)
            try:
                one = writer.wrapped(layer)
            except ConfigError as error:
                raise ConfigError(f"save_keras: the layer {name!r}: {error}") from error
            written[name] = _loadable({**one, "config": {**one["config"], "name": name}})
        config = self._sequential if self.is_sequential else self._functional
        return config(inputs, written)

    def _with_inputs(self) -> Iterator[tuple[str, _Branch]]:
        return zip(self.input_names, self.branches, strict=True)

    def _check(self, name: str, layer: _Written) -> None:
        """Raises:
        ConfigError: the target cannot load this.
        """
        both = [m for m in layer.modules() if isinstance(m, Bidirectional)]
        if self.target == "keras" and any(m.stateful and m.return_state for m in both):
            raise ConfigError(
                f"save_keras: the layer {name!r} is a Bidirectional with stateful and "
                "return_state, on which Keras 3 raises TypeError. Write it for "
                "target='tf_keras', or build it without one of them."
            )
        if isinstance(layer, TimeDistributed) and any(map(_has_several_results, layer.modules())):
            raise ConfigError(
                f"save_keras: the layer {name!r} is a TimeDistributed over a layer with several "
                "results (return_state, or merge_mode=None), which no Keras can load. Build it "
                "with one, or write its weights alone."
            )
        carries = isinstance(layer, TimeDistributed) and layer.layer.stateful
        if self.target == "tf_keras" and carries:
            raise ConfigError(
                f"save_keras: the layer {name!r} is a TimeDistributed over a stateful layer, "
                "whose state tf_keras does not carry on. Write it for target='keras3'."
            )
        if not re.fullmatch(r"[A-Za-z0-9.][A-Za-z0-9_.>-]*", name):
            said = (
                f"save_keras: TensorFlow takes no layer called {name!r}. Use letters, digits, '_', "
                "'.' and '-', and begin with a letter or a digit"
            )
            if self.target == "tf_keras":
                raise ConfigError(f"{said}.")
            warnings.warn(f"{said}, unless Keras runs on another backend.", stacklevel=4)

    def check_halves(self) -> None:
        """Raises:
        ConfigError: one direction alone has a bias: in the older layout tf_keras cuts a
            Bidirectional's arrays in the middle.
        """
        for name, layer in self._ordered.items():
            for part in layer.modules():
                if isinstance(part, Bidirectional) and (
                    part.forward_layer.config.use_bias != part.backward_layer.config.use_bias
                ):
                    raise ConfigError(
                        f"save_keras: of the layer {name!r} one direction alone has a bias, which "
                        "tf_keras cannot load from such a file. Use .keras or .weights.h5."
                    )

    def _input(
        self, name: str, branch: _Branch, batch_size: int | None, steps: int | None
    ) -> dict[str, Any]:
        """The InputLayer of a branch."""
        label = next(iter(branch.layers))
        parts = [p for layer in branch.layers.values() for p in layer.modules()]
        recurrent = [p for p in parts if isinstance(p, LSTMParameters)]
        batch = batch_size
        if batch is None and any(getattr(p, "stateful", False) for p in parts):
            held = [p._state[0].h.shape[0] for p in parts if isinstance(p, Stateful) and p._state]
            if not held:
                raise ConfigError(
                    f"save_keras: the layer {label!r} is stateful, so Keras needs to know the "
                    "batch size, and it holds no state. Pass batch_size, or call it once before."
                )
            batch = held[0]
        if steps is None and any(_unrolls(p) for p in parts):
            raise ConfigError(
                f"save_keras: the layer {label!r} has unroll=True, so Keras needs to know the "
                "number of steps. Pass steps."
            )
        shape = [batch, steps, recurrent[0].input_size]
        if recurrent[0].config.time_major:
            shape[:2] = steps, batch
        if branch.is_time_distributed:
            shape.insert(1, None)
        wide = any(p._policy == "float64" for p in recurrent)
        return {
            "module": "keras.layers",
            "class_name": "InputLayer",
            "config": {
                "batch_shape" if self.target == "keras" else "batch_input_shape": shape,
                "dtype": "float64" if wide else "float32",
                "sparse": False,
                "ragged": False,
                "name": name,
            },
            "registered_name": None,
        }

    def _sequential(
        self, inputs: Sequence[dict[str, Any]], written: Mapping[str, dict[str, Any]]
    ) -> dict[str, Any]:
        config: dict[str, Any] = {"name": self.name, "layers": [*inputs, *written.values()]}
        if self.target == "keras":
            config["trainable"] = True
            config["build_input_shape"] = inputs[0]["config"]["batch_shape"]
        return {
            "module": "keras",
            "class_name": "Sequential",
            "config": config,
            "registered_name": None,
        }

    def _functional(
        self, inputs: Sequence[dict[str, Any]], written: Mapping[str, dict[str, Any]]
    ) -> dict[str, Any]:
        nodes: dict[str, Any] = {}
        outputs = list[list[Any]]()
        for one, (source, branch) in zip(inputs, self._with_inputs(), strict=True):
            below = source
            (shape,) = (v for k, v in one["config"].items() if k.startswith("batch"))
            dtype = one["config"]["dtype"]
            for name, layer in branch.layers.items():
                node: Any = [[below, 0, 0, {}]]
                if self.target == "keras":
                    tensor = {"shape": shape, "dtype": dtype, "keras_history": [below, 0, 0]}
                    argument = {"class_name": "__keras_tensor__", "config": tensor}
                    node = {"args": [argument], "kwargs": {}}
                nodes[name] = node
                if name != branch.outputs[0][0]:  # the last
                    below, shape = name, [*shape[:-1], layer.output_size]
            outputs += [[name, 0, which] for name, which in branch.outputs]
        layers = [{**one, "name": one["config"]["name"], "inbound_nodes": []} for one in inputs]
        for name, one in written.items():
            layers.append({**one, "name": name, "inbound_nodes": [nodes[name]]})
        module = "keras.src.models" if self.target == "keras" else "tf_keras.src.engine"
        return {
            "module": f"{module}.functional",
            "class_name": "Functional",
            "config": {
                "name": self.name,
                "trainable": True,
                "layers": layers,
                "input_layers": [[name, 0, 0] for name in self.input_names],
                "output_layers": outputs,
            },
            "registered_name": "Functional",
        }


def _loadable(config: Any) -> Any:
    """A config without what stops Keras: bfloat16 layers that draw orthogonal matrices, which
    neither Keras can, not even to load others in their place; cuDNN on a CPU."""
    if isinstance(config, list):
        return [_loadable(one) for one in config]
    if not isinstance(config, Mapping):
        return config
    found = {key: _loadable(value) for key, value in config.items()}
    if found.get("use_cudnn") is True:
        del found["use_cudnn"]
    if policy_name(config.get("dtype")) == "bfloat16":
        for key in ("kernel_initializer", "recurrent_initializer"):
            if str((found.get(key) or {}).get("class_name")).startswith("Orthogonal"):
                found[key] = {**found[key], "class_name": "Zeros", "config": {}}
    return found


def _functions_by_name(config: Any) -> Any:
    """A config in which registered functions are names: tf_keras finds no others in HDF5."""
    if isinstance(config, list):
        return [_functions_by_name(one) for one in config]
    if not isinstance(config, Mapping):
        return config
    if config.get("registered_name") == "function":
        return config["config"]
    return {key: _functions_by_name(value) for key, value in config.items()}


def _say_what_to_register(path: Path, config: Any, target: str) -> None:
    """A warning of a model that names a function of this package's, which its Keras lacks."""
    if '"kerasish_lstm>' not in json.dumps(config):
        return
    backend = "" if target == "keras" else f'"{target}"'
    warnings.warn(
        f"save_keras: {path.name} has the hard_sigmoid of the other Keras. Before load_model run\n"
        "    from kerasish_lstm import register_keras_objects\n"
        f"    register_keras_objects({backend})",
        stacklevel=3,
    )


def _say_what_differs(name: str, layer: _Written) -> None:
    """A warning of a layer that no Keras of today has a config for."""
    both = [m for m in layer.modules() if isinstance(m, Bidirectional)]
    if any(one._repeats_at_masked_steps() for one in both):
        warnings.warn(
            f"save_keras: the layer {name!r} repeats outputs at masked steps, as a Bidirectional "
            "did before Keras 2.4; the one that is written gives zeros there. Without a mask they "
            "are equal.",
            stacklevel=4,
        )


def _must_have_room(path: Path, size: int) -> None:
    """Ask for the room before HDF5 does, which crashes where there is none.

    Raises:
        OSError: the disk is full, or a limit is in the way.
    """
    if hasattr(os, "posix_fallocate") and size:
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, size)
            file.truncate(0)


def _has_several_results(part: nn.Module) -> bool:
    return bool(getattr(part, "return_state", False)) or getattr(part, "merge_mode", "") is None


def _unrolls(part: nn.Module) -> bool:
    if isinstance(part, StackedLSTM):
        return part.of_cells and part._flags["unroll"]
    return isinstance(part, LSTMParameters) and part.config.unroll


def _cells(module: Any, path: str, old_path: str) -> Iterator[Cell]:
    """The cells of a layer, in Keras's order, with their places in it."""
    counts = dict[str, int]()
    if isinstance(module, LSTM | LSTMCell):
        is_layer = isinstance(module, LSTM)
        yield Cell(
            path + ("cell" if is_layer else ""),
            old_path + ("lstm_cell" if is_layer else ""),
            (None if is_layer else module.name) or "lstm_cell",
            module.trainable,
            module._policy == "bfloat16",
            module.get_weights,
        )
    elif isinstance(module, Bidirectional):
        for side in ("forward", "backward"):
            layer = getattr(module, f"{side}_layer")
            yield from _cells(layer, f"{path}{side}_layer/", f"{old_path}{side}_lstm/")
    elif isinstance(module, TimeDistributed):
        yield from _cells(module.layer, f"{path}layer/", old_path)
    elif module.of_cells:
        for cell in module.layers:
            name = numbered("lstm_cell", counts)
            among = "" if module.is_one_cell else f"/cells/{name}"
            yield from _cells(cell, f"{path}cell{among}", f"{old_path}{name}")
    else:
        for layer in module.layers:
            name = numbered(snake_case(layer.keras_class), counts)
            yield from _cells(layer, f"{path}layers/{name}/", f"{old_path}{name}/")
