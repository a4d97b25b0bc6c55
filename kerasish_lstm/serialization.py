"""Keras's configs of the layers here, written and read.

    LSTM, LSTMCell, Bidirectional, TimeDistributed    Keras's layers of these names
    StackedLSTM of cells                              RNN, over StackedRNNCells or one LSTMCell
    StackedLSTM of layers                             Sequential

The configs are plain data. Reading one never imports or runs what it names: classes, objects and
activations are looked up in literal tables.

Sources: ``get_config`` and ``from_config`` of Keras 3.15.1 and tf_keras 2.21
(``src/layers/rnn/{lstm,rnn,stacked_rnn_cells,bidirectional,time_distributed}.py``,
``src/models/sequential.py``), and of Keras 1.2.2, 2.0.8, 2.2.4 and 2.3.1
(``keras/layers/{recurrent,wrappers}.py``, ``keras/legacy/interfaces.py``).
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import numpy as np
from torch import nn

from . import constraints, initializers, regularizers
from ._objects import serialize
from .config import (
    LAYER_ONLY,
    LSTMConfig,
    detected_version,
    is_multi_backend,
    keras_generation,
    nearest,
    policy_name,
)
from .errors import ConfigError
from .keywords import as_flag, check_features
from .layers.base import Device, DType, Target
from .layers.bidirectional import Bidirectional
from .layers.cell import LSTMCell
from .layers.lazy import LazyLSTM, LazyLSTMCell
from .layers.lstm import LSTM
from .layers.parameters import MIXED, Recurrent, recurrent_parts, result_dtype
from .layers.stacked import FLAGS, StackedLSTM
from .layers.time_distributed import TimeDistributed

# The name that a target gives an activation of kerasish_lstm.ACTIVATIONS, where it has one.
_KERAS = {"swish": "silu", "hard_swish": "hard_silu"}
_TF_KERAS = {
    name: name
    for name in (
        "elu", "exponential", "gelu", "leaky_relu", "linear", "log_softmax", "mish", "relu",
        "relu6", "selu", "sigmoid", "softmax", "softplus", "softsign", "swish", "tanh",
    )
} | {"silu": "swish", "hard_sigmoid_v2": "hard_sigmoid"}  # fmt: skip
_REGISTERED = {
    ("keras", "hard_sigmoid_v2"): "kerasish_lstm>hard_sigmoid_v2",
    ("tf_keras", "hard_sigmoid"): "kerasish_lstm>hard_sigmoid_v3",
}

# Writing


def get_config(module: nn.Module, target: Target = "keras") -> dict[str, Any]:
    """The config of a layer of this package: see :meth:`LSTM.get_config`."""
    if target not in get_args(Target):
        raise ConfigError(
            f"get_config: target={target!r} is not possible; allowed are 'keras' and 'tf_keras'."
        )
    return Writer(target).config(module)


def repeats_at_masked_steps(module: Bidirectional) -> bool:
    """Whether it does what Keras did before 2.4, where later ones give zeros."""
    return module.forward_layer.config.zero_output_for_mask != module.return_sequences


@dataclasses.dataclass(frozen=True)
class Writer:
    """Writes configs for one Keras.

    Args:
        target: which.
        beside: what no Keras has a word for is kept elsewhere, and is left out in silence.
        frozen: a layer around this one freezes it, so that its own flag of ``trainable`` is the one
            that it was built with.
        later: a Bidirectional of Keras before 2.4 is written as one of later ones, which differ at
            masked steps.
    """

    target: Target
    beside: bool = False
    frozen: bool = False
    later: bool = False

    def config(self, module: nn.Module) -> dict[str, Any]:
        """Of any layer of the package."""
        for kind, write in _WRITERS.items():
            if isinstance(module, kind):
                return write(self, module)
        raise ConfigError(f"get_config: a {type(module).__name__} is no layer of kerasish_lstm.")

    def wrapped(self, module: nn.Module) -> dict[str, Any]:
        """``{"class_name": ..., "config": ...}``, as it stands inside another layer's config."""
        name = keras_class(module)
        return self._wrapped(name, self.config(module))

    def _wrapped(self, name: str, config: dict[str, Any]) -> dict[str, Any]:
        is_model = name == "Sequential"
        found = {
            "module": "keras" if is_model else "keras.layers",
            "class_name": name,
            "config": config,
            "registered_name": None,
        }
        return {**found, "compile_config": {}} if is_model and self._is_keras_3 else found

    @property
    def _is_keras_3(self) -> bool:
        return self.target == "keras"

    def _trains(self, part: Recurrent) -> bool:
        return part.config.trainable if self.frozen else part.trainable

    def _inside(self, parts: Sequence[Recurrent]) -> tuple[bool, Writer]:
        """A wrapper's own flag of ``trainable``, and the writer for what is in it.

        Where nothing inside is trained, it is the wrapper that is frozen, unless the parts were
        built so.
        """
        if any(self._trains(p) for p in parts) or not any(p.config.trainable for p in parts):
            return True, self
        return False, dataclasses.replace(self, frozen=True)

    def _base(self, name: str | None, trainable: bool, policy: str) -> dict[str, Any]:
        """What every layer has."""
        dtype: Any = policy
        if self._is_keras_3 or policy in MIXED:
            module = "keras" if self._is_keras_3 else "keras.mixed_precision"
            dtype = {
                "module": module,
                "class_name": "DTypePolicy" if self._is_keras_3 else "Policy",
                "config": {"name": policy},
                "registered_name": None,
            }
        named = {} if name is None else {"name": name}
        return {**named, "trainable": trainable, "dtype": dtype}

    def _flags(self, values: Mapping[str, Any]) -> dict[str, Any]:
        found = {flag: values[flag] for flag in FLAGS}
        if not self._is_keras_3:
            if not found["zero_output_for_mask"]:
                del found["zero_output_for_mask"]
            found["time_major"] = values.get("time_major", False)
        return found

    def _activity(self, regularizer: Any) -> dict[str, Any]:
        """That of a wrapper. tf_keras takes it and does not write it."""
        found = self._object(regularizers.get, regularizer, "activity_regularizer")
        return {} if found is None else {"activity_regularizer": found}

    def _object(self, get: Callable[[Any, str], Any], given: Any, keyword: str) -> Any:
        found = serialize(get(given, keyword), keyword)
        return found if found is None or self._is_keras_3 else _for_tf_keras(found, keyword)

    def _activation(self, name: Any, keyword: str, label: str) -> Any:
        if not isinstance(name, str):
            raise ConfigError(
                f"{label}: {keyword}={name!r} is torch code of your own, which no Keras config can "
                "hold. Put a name of kerasish_lstm.ACTIVATIONS in its place."
            )
        if registered := _REGISTERED.get((self.target, name)):
            return {
                "module": "builtins",
                "class_name": "function",
                "config": registered,
                "registered_name": "function",
            }
        found = _KERAS.get(name, name) if self._is_keras_3 else _TF_KERAS.get(name)
        if found is None:
            raise ConfigError(
                f"{label}: {keyword}={name!r} is not an activation of {self.target}, which has "
                f"{', '.join(sorted(_TF_KERAS))}. Write it for target='keras'."
            )
        return found

    def recurrent(self, module: Recurrent) -> dict[str, Any]:
        """Of an LSTM or an LSTMCell."""
        c, is_cell = module.config, isinstance(module, LSTMCell)
        if c.time_major and self._is_keras_3 and not self.beside:
            raise ConfigError(
                f"{module._label}: time_major=True has no word in Keras 3. Write it for "
                "target='tf_keras', or build it with False and transpose the input and the output."
            )
        if not self.beside and len({p.requires_grad for p in module.parameters()}) > 1:
            raise ConfigError(
                f"{module._label}: some of its weights are frozen and others are not, which Keras "
                "has no word for. Set its trainable flag, or keep it with save_safetensors."
            )
        found = self._base(c.name, self._trains(module), policy_of(module))
        found |= {} if is_cell else self._flags(vars(c))
        found["units"] = c.units
        for keyword in ("activation", "recurrent_activation"):
            found[keyword] = self._activation(getattr(c, keyword), keyword, module._label)
        found["use_bias"] = c.use_bias
        for room, get, roles in (
            ("initializer", initializers.get, ("kernel", "recurrent", "bias")),
            ("regularizer", regularizers.get, ("kernel", "recurrent", "bias", "activity")),
            ("constraint", constraints.get, ("kernel", "recurrent", "bias")),
        ):
            for role in roles:
                keyword = f"{role}_{room}"
                if not (
                    is_cell and keyword == "activity_regularizer" and getattr(c, keyword) is None
                ):
                    with _at(module._label):
                        found[keyword] = self._object(get, getattr(c, keyword), keyword)
        found |= {
            "unit_forget_bias": c.unit_forget_bias,
            "dropout": c.dropout,
            "recurrent_dropout": c.recurrent_dropout,
        }
        if self._is_keras_3:
            found["seed"] = c.seed
            if c.implementation != 2:
                found["implementation"] = c.implementation
            if c.use_cudnn != "auto" and not is_cell:
                found["use_cudnn"] = c.use_cudnn
        else:
            found["implementation"] = 1 if c.recurrent_dropout else c.implementation
            if c.seed is not None:
                found["seed"] = c.seed
        return found

    def bidirectional(self, module: Bidirectional) -> dict[str, Any]:
        forward, backward = module.forward_layer, module.backward_layer
        if repeats_at_masked_steps(module) and not self.beside and not self.later:
            raise ConfigError(
                f"{_label('Bidirectional', module.name)}: it repeats outputs at masked steps, as "
                "Keras did before 2.4; later ones give zeros, whatever the config says. Build one "
                "by Bidirectional.from_config(config, version='2.4') to have zeros here too."
            )
        trainable, inside = self._inside([forward, backward])
        if not self._is_keras_3:
            trainable = trainable and any(self._trains(p) for p in (forward, backward))
        policy = _wrapper_policy(module, forward)
        found = self._base(module.name, trainable, policy)
        found |= self._activity(module.activity_regularizer)
        found["merge_mode"] = module.merge_mode
        layers = [inside.wrapped(forward), inside.wrapped(backward)]
        if self._is_keras_3:
            return {**found, "layer": layers[0], "backward_layer": layers[1]}
        # tf_keras names and flags the directions itself, and holds a backward layer only if it is
        # not what it would make of the forward one.
        for layer, prefix in zip(layers, ("forward_", "backward_"), strict=True):
            config = layer["config"]
            config.pop("zero_output_for_mask", None)
            if "name" in config:
                config["name"] = config["name"].removeprefix(prefix)
        found["layer"] = layers[0]
        if _without_direction(layers[0]) != _without_direction(layers[1]):
            found["backward_layer"] = layers[1]
        return found

    def stacked(self, module: StackedLSTM) -> dict[str, Any]:
        shares = len(set(module.layers)) < len(module.layers)
        if shares and (self.beside or not module.of_cells):
            raise ConfigError(
                f"{module._label}: one layer stands in it twice, which no config can say: it would "
                "come back as two. Build the stack of copies (copy.deepcopy)."
            )
        if not module.of_cells:
            return self._chain(module)
        cells: list[LSTMCell] = list(module.layers)  # type: ignore[arg-type]
        trainable, inside = self._inside(cells)
        policy = _wrapper_policy(module, cells[-1])
        found = self._base(module.name, trainable, policy)
        found |= self._activity(module.activity_regularizer)
        found |= self._flags(module._flags)
        if module.is_one_cell:
            return {**found, "cell": inside.wrapped(cells[0])}
        config = self._base(None, True, policy_of(cells[0]))
        config["cells"] = [inside.wrapped(cell) for cell in cells]
        return {**found, "cell": self._wrapped("StackedRNNCells", config)}

    def _chain(self, module: StackedLSTM) -> dict[str, Any]:
        """A Sequential. Keras forgets its flag of ``trainable``, so that its layers say it."""
        found: dict[str, Any] = {"name": module.name}  # Keras insists on the entry
        if self._is_keras_3:
            trainable, _ = self._inside(recurrent_parts(module))
            found |= self._base(module.name, trainable, policy_of(recurrent_parts(module)[0]))
        names = [layer.name for layer in module.layers if layer.name is not None]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(
                    f"{module._label}: it has two layers called {name!r}, which no Sequential can "
                    "have. Give each a name of its own, or none."
                )
        return {**found, "layers": [self.wrapped(layer) for layer in module.layers]}

    def time_distributed(self, module: TimeDistributed) -> dict[str, Any]:
        parts = recurrent_parts(module)
        trainable, inside = self._inside(parts)
        policy = _wrapper_policy(module, parts[-1])
        found = self._base(module.name, trainable, policy)
        found |= self._activity(module.activity_regularizer)
        return {**found, "layer": inside.wrapped(module.layer)}


_WRITERS: dict[type[nn.Module], Callable[[Writer, Any], dict[str, Any]]] = {
    Recurrent: Writer.recurrent,
    Bidirectional: Writer.bidirectional,
    StackedLSTM: Writer.stacked,
    TimeDistributed: Writer.time_distributed,
}


def keras_class(module: nn.Module) -> str:
    """Keras's name of a module's class."""
    if isinstance(module, StackedLSTM):
        return "RNN" if module.of_cells else "Sequential"
    kinds = (LSTM, LSTMCell, Bidirectional, TimeDistributed)
    return next(kind.__name__ for kind in kinds if isinstance(module, kind))


def policy_of(part: Recurrent) -> str:
    """The name of Keras's dtype policy for the parameters and the arithmetic as they are now."""
    stored = str(part.lstm.weight_hh_l0.dtype).removeprefix("torch.")
    policy = part.config.dtype
    return policy if policy in MIXED and stored == "float32" else stored


def _wrapper_policy(module: Any, part: Recurrent) -> str:
    """The policy of a wrapper: what it was given, or else that of the layer inside."""
    if module.dtype is None:
        return policy_of(part)
    return str(module.dtype).removeprefix("torch.")


def _without_direction(layer: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in layer["config"].items() if k not in ("name", "go_backwards")}


def _for_tf_keras(found: dict[str, Any], keyword: str) -> dict[str, Any]:
    """An object of Keras 3's form in that of tf_keras, which holds penalties in float32."""
    config = dict(found["config"])
    for axes in ("input_axes", "output_axes"):
        if config.pop(axes, None) is not None:
            raise ConfigError(
                f"{keyword}: tf_keras's {found['class_name']} has no {axes}. Write it for "
                "target='keras', or leave them out."
            )
    for penalty in ("l1", "l2"):
        if penalty in config:
            config[penalty] = float(np.float32(config[penalty]))
    return {**found, "config": config}


# Reading


@dataclasses.dataclass(frozen=True)
class Reader:
    """Builds layers from the configs of one Keras."""

    version: str
    device: Device
    dtype: DType
    of_a_file: bool = False  # code of the model's author does not stop inference

    @property
    def is_keras_3(self) -> bool:
        return keras_generation(self.version) == 3

    def build(self, entry: Entry, size: int | None, cls: type[Any] | None = None) -> Any:
        """The layer of an entry; ``cls`` where the caller asked for a class of their own."""
        with _at(entry.label):
            return _BUILDERS[entry.kind](self, entry, size, cls)

    def inner(self, config: Any, role: str, kinds: Sequence[str], size: int | None) -> Any:
        """The layer that stands in another's config."""
        with _at(role):
            entry = Entry.of(config, kinds)
            entry.must_be(kinds)
            return self.build(entry, size)

    def lstm(self, entry: Entry, size: int | None, cls: type[Any] | None) -> Any:
        config = LSTMConfig.from_keras(entry.config, self.version)
        options = {k: v for k, v in vars(config).items() if k not in ("units", "dtype")}
        size = size or _only(entry.sizes(3))
        return self._recurrent(config, options, size, cls or LSTM, (LSTM, LazyLSTM))

    def cell(self, entry: Entry, size: int | None, cls: type[Any] | None) -> Any:
        config = LSTMConfig.from_keras(entry.config, self.version, kind="LSTMCell")
        left_out = ("units", "dtype", *LAYER_ONLY)
        options = {k: v for k, v in vars(config).items() if k not in left_out}
        size = size or _only(entry.sizes(2))
        return self._recurrent(config, options, size, cls or LSTMCell, (LSTMCell, LazyLSTMCell))

    def _recurrent(
        self,
        config: LSTMConfig,
        options: dict[str, Any],
        size: int | None,
        cls: Any,
        own: tuple[Any, Any],
    ) -> Any:
        plain, lazy = own
        if self.of_a_file:
            dtype = config.dtype if self.dtype is None else self.dtype
            return plain.from_lstm_config(size, config, device=self.device, dtype=dtype)
        options["device"] = self.device
        options["dtype"] = config.dtype if self.dtype is None else self.dtype
        if size is not None:
            return (plain if cls is lazy else cls)(size, config.units, **options)
        if cls not in own:
            raise ConfigError(
                f"a {cls.__name__} cannot learn its input size at the first call; pass input_size."
            )
        return lazy(config.units, **options)

    def bidirectional(self, entry: Entry, size: int | None, cls: type[Any] | None) -> Any:
        config = entry.entries("layer", "backward_layer", "merge_mode", "activity_regularizer")
        if not isinstance(config.get("merge_mode"), str | None):
            raise ConfigError(f"merge_mode={config['merge_mode']!r} is no text.")
        size = size or _only(entry.sizes(3) + _sizes(config.get("layer"), 3))
        layer = self.inner(config.get("layer"), "layer", ("LSTM",), size)
        backward, given = None, config.get("backward_layer")
        if given is None and layer.go_backwards and not self.is_keras_3:
            # Keras 2 turns the direction round; Keras 3 sets it.
            pattern = dict(Entry.of(config["layer"]).config, go_backwards=False)
            given = {"class_name": "LSTM", "config": pattern}
        if given is not None:
            backward = self.inner(given, "backward_layer", ("LSTM",), size)
            if not self.is_keras_3 and backward.name is not None:
                backward.config = backward.config.replace(name=f"backward_{backward.name}")
        module = (cls or Bidirectional)(
            layer,
            config.get("merge_mode", "concat"),
            backward,
            activity_regularizer=config.get("activity_regularizer"),
            name=entry.name,
            autocast=_autocast(config, "Bidirectional"),
            dtype=self._result_dtype(entry, layer),
        )
        if is_multi_backend(self.version):  # it knew no zero_output_for_mask
            for direction in (module.forward_layer, module.backward_layer):
                direction.config = direction.config.replace(zero_output_for_mask=False)
        return _frozen_as(module, config)

    def rnn(self, entry: Entry, size: int | None, cls: type[Any] | None) -> Any:
        flags = (*FLAGS, "time_major", "num_constants")
        config = entry.entries("cell", "activity_regularizer", *flags)
        for unknown in ("time_major", "num_constants"):
            if config.get(unknown):
                raise ConfigError(
                    f"{unknown}={config[unknown]!r} is not possible in a StackedLSTM. It takes one "
                    "input, (B, T, F); transpose the input and the output."
                )
        cells = self._cells(config.get("cell"), size or _only(entry.sizes(3)))
        listed = cells if isinstance(cells, list) else [cells]
        dtype = self._result_dtype(entry, listed[-1])
        if self.dtype is None and not all(cell.config.autocast for cell in listed):
            dtype = policy_name(entry.config.get("dtype"))  # no cast but the wrapper's is sure
        module = (cls or StackedLSTM)(
            cells,
            **{flag: config[flag] for flag in FLAGS if flag in config},
            activity_regularizer=config.get("activity_regularizer"),
            name=entry.name,
            autocast=_autocast(config, "RNN"),
            dtype=dtype,
        )
        return _frozen_as(module, config)

    def _cells(self, given: Any, size: int | None) -> Any:
        with _at("cell"):
            entry = Entry.of(given, ("LSTMCell",))
            entry.must_be(("LSTMCell", "StackedRNNCells"))
        if entry.kind == "LSTMCell":
            return self.inner(given, "cell", ("LSTMCell",), size)
        with _at(f"cell: {entry.label}"):
            config = entry.entries("cells")
            listed = config.get("cells")
            if not isinstance(listed, list | tuple) or not listed:
                raise ConfigError(f"cells={listed!r} is no list of cells.")
            size, cells = size or _only(entry.sizes(2)), list[LSTMCell]()
            for position, one in enumerate(listed):
                cells.append(self.inner(one, f"cells[{position}]", ("LSTMCell",), size))
                size = cells[-1].units
            for cell in cells:
                _frozen_as(cell, config)
        return cells

    def sequential(self, entry: Entry, size: int | None, cls: type[Any] | None) -> Any:
        listed: Any = entry.config
        config: Mapping[str, Any] = {}
        if isinstance(listed, Mapping):
            config = entry.entries("layers", "build_input_shape")
            listed = config.get("layers")
        if not isinstance(listed, list | tuple):
            raise ConfigError(f"layers={listed!r} is no list of layers.")
        sizes = _last_of(config.get("build_input_shape"), 3)
        first = int(
            bool(listed)
            and isinstance(listed[0], Mapping)
            and listed[0].get("class_name") == "InputLayer"
        )
        for one in listed[: first + 1]:
            sizes += _sizes(one, 3)
        size, layers = size or _only(sizes), list[Any]()
        for position, one in enumerate(listed[first:], first):
            kinds = ("LSTM", "Bidirectional")
            layers.append(self.inner(one, f"layers[{position}]", kinds, size))
            size = layers[-1].output_size
        return _frozen_as((cls or StackedLSTM)(layers, name=entry.name), config)

    def time_distributed(self, entry: Entry, size: int | None, cls: type[Any] | None) -> Any:
        config = entry.entries("layer", "activity_regularizer")
        kinds = ("LSTM", "Bidirectional", "RNN", "Sequential")
        size = size or _only(entry.sizes(4))
        layer = self.inner(config.get("layer"), "layer", kinds, size)
        last = recurrent_parts(layer)[-1]
        module = (cls or TimeDistributed)(
            layer,
            activity_regularizer=config.get("activity_regularizer"),
            name=entry.name,
            autocast=_autocast(config, "TimeDistributed"),
            dtype=self._result_dtype(entry, last),
        )
        return _frozen_as(module, config)

    def _result_dtype(self, entry: Entry, part: Recurrent) -> str | None:
        """The policy of a wrapper, if its results need a cast."""
        policy = policy_name(entry.config.get("dtype"))
        if self.dtype is not None or result_dtype(policy, entry.kind) == part.compute_dtype:
            return None
        return policy


_BUILDERS: dict[str, Callable[[Reader, Entry, int | None, type[Any] | None], Any]] = {
    "LSTM": Reader.lstm,
    "LSTMCell": Reader.cell,
    "Bidirectional": Reader.bidirectional,
    "RNN": Reader.rnn,
    "Sequential": Reader.sequential,
    "TimeDistributed": Reader.time_distributed,
}
_OURS: dict[str, type[nn.Module]] = {
    "LSTM": LSTM,
    "LSTMCell": LSTMCell,
    "Bidirectional": Bidirectional,
    "RNN": StackedLSTM,
    "Sequential": StackedLSTM,
    "TimeDistributed": TimeDistributed,
}

# What may stand around a config, and what in the config of every wrapper, without effect here.
_AROUND = (
    "class_name", "config", "module", "registered_name", "build_config", "compile_config", "name",
    "inbound_nodes", "shared_object_id", "keras_version", "backend", "date_saved",
)  # fmt: skip
_COMMON = (
    "name", "trainable", "dtype", "autocast", "quantization_config", "batch_input_shape",
    "batch_shape", "input_shape", "input_dim", "input_length", "input_dtype",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Entry:
    """A config with its class and what stood around it."""

    kind: str
    config: Any
    around: Mapping[str, Any]

    @classmethod
    def of(cls, given: Any, asked: Sequence[str] = ()) -> Entry:
        """Of a config in Keras's wrapper, or alone, for a reader of the classes ``asked``.

        Raises:
            ConfigError: neither, or a class of the author's own.
        """
        if isinstance(given, Mapping) and "class_name" in given:
            for key in given:
                if key not in _AROUND:
                    raise ConfigError(
                        f"unknown entry {key!r} beside 'config'; the nearest known one is "
                        f"{nearest(key, _AROUND)!r}."
                    )
            kind, module = given["class_name"], given.get("module", "keras")
            foreign = str(module).split(".")[0] not in ("keras", "tf_keras", "tensorflow")
            if foreign or given.get("registered_name") not in (None, "", kind):
                raise ConfigError(
                    f"{kind!r} is code of the model's author ({module}), which no config holds. "
                    "Build the layer, and give it the weights with set_weights()."
                )
            return cls(str(kind), given.get("config"), given)
        if isinstance(given, list | tuple):
            return cls("Sequential", given, {})
        if not isinstance(given, Mapping):
            raise ConfigError(f"a config must be a dict, not {given!r}.")
        return cls(_kind_of(given, asked), given, {})

    def must_be(self, kinds: Sequence[str]) -> None:
        if self.kind in kinds:
            return
        known = ", ".join(kinds)
        if self.kind in (*_OURS, "StackedRNNCells"):
            raise ConfigError(f"a {self.kind} cannot stand here; possible: {known}.")
        raise ConfigError(f"{self.kind!r} is no class that can stand here; possible: {known}.")

    @property
    def name(self) -> str | None:
        found = self.config.get("name") if isinstance(self.config, Mapping) else None
        return found.replace("/", "_") if isinstance(found, str) else None

    @property
    def label(self) -> str:
        return _label(self.kind, self.name)

    def entries(self, *known: str) -> Mapping[str, Any]:
        """The config, once all of its keys are known ones."""
        if not isinstance(self.config, Mapping):
            raise ConfigError(f"its config must be a dict, not {self.config!r}.")
        known = (*known, *_COMMON)
        for key in self.config:
            if key not in known:
                raise ConfigError(
                    f"its config has the unknown entry {key!r}; the nearest known one is "
                    f"{nearest(key, known)!r}."
                )
        return self.config

    def sizes(self, rank: int) -> list[int]:
        """The numbers of features that the config, and what is around it, say."""
        config = self.config if isinstance(self.config, Mapping) else {}
        built = self.around.get("build_config")
        return [
            *_last_of([config.get("input_dim")], 1),
            *_last_of(config.get("batch_input_shape"), rank),
            *_last_of(config.get("batch_shape"), rank),
            *_last_of(config.get("input_shape"), rank - 1),
            *_last_of(built.get("input_shape") if isinstance(built, Mapping) else None, rank),
        ]


def from_config(
    cls: type[nn.Module],
    config: Mapping[str, Any] | Sequence[Any],
    input_size: int | None = None,
    *,
    version: str | None = None,
    device: Device = None,
    dtype: DType = None,
) -> nn.Module:
    """A new layer of the class, of a config of any Keras: see :meth:`LSTM.from_config`."""
    own = next(kind for kind in dict.fromkeys(_OURS.values()) if issubclass(cls, kind))
    with _at(f"{cls.__name__}.from_config"):
        if input_size is not None and input_size < 1:
            raise ConfigError(
                f"input_size={input_size!r} is not possible; pass 1 or more, or None."
            )
        entry = Entry.of(config, [name for name, kind in _OURS.items() if kind is own])
        if input_size is not None and isinstance(entry.config, Mapping):
            _check_size(entry, input_size)
        if _OURS.get(entry.kind) is not own:
            known = f"{', '.join(_OURS)} and what they hold"
            advice = f"this package has {known}."
            if entry.kind in _OURS:
                name = _OURS[entry.kind].__name__
                advice = f"call {name}.from_config(config)."
            raise ConfigError(f"this is a config of the class {entry.kind}; {advice}")
        version = detected_version(config) if version is None else version
        reader = Reader(version, device, dtype)
        keras_generation(version)
    return reader.build(entry, input_size, cls)  # type: ignore[no-any-return]


def _check_size(entry: Entry, input_size: int) -> None:
    """Refuse another size than the config's own keywords say, as the constructors do.

    Old Keras's first layers have the shape of their batches beside these; it was never compared.
    """
    config = entry.config
    if any(config.get(key) for key in ("batch_input_shape", "batch_shape")):
        return
    shape = config.get("input_shape")
    said = _last_of([config.get("input_dim")], 1)
    said += _last_of(shape, len(shape)) if isinstance(shape, list | tuple) else []
    for size in said:
        check_features(input_size, None, size, entry.kind)


def of_a_file(entry: Mapping[str, Any], input_size: int, version: str, dtype: DType) -> nn.Module:
    """The layer of a config in a file, on the meta device: it has no weights yet.

    Args:
        entry: ``{"class_name": ..., "config": ...}``. Code of the author in it (an initializer, a
            regularizer) raises in training alone.

    Raises:
        ConfigError: a config that makes no layer here.
    """
    found = Entry.of(entry, tuple(_OURS))
    found.must_be(tuple(_OURS))
    reader = Reader(version, "meta", dtype, of_a_file=True)  # "meta" draws no initial weights
    module: nn.Module = reader.build(found, input_size)
    return module


def _kind_of(config: Mapping[str, Any], asked: Sequence[str]) -> str:
    """The class of a config that stands alone.

    What a wrapper holds gives it away. Every Bidirectional's ``get_config`` has ``merge_mode``, and
    every LSTM's ``return_sequences``, so that a whole config without is TimeDistributed's or a
    cell's; a few entries written by hand are what was asked for.
    """
    for key, kind in (("layers", "Sequential"), ("cell", "RNN"), ("cells", "StackedRNNCells")):
        if key in config:
            return kind
    whole = {"trainable", "dtype"} <= config.keys()
    if "layer" in config or "merge_mode" in config:
        told = "merge_mode" in config or "backward_layer" in config
        other = whole or "TimeDistributed" in asked
        return "TimeDistributed" if other and not told else "Bidirectional"
    other = (whole and "kernel_initializer" in config) or "LSTMCell" in asked
    return "LSTMCell" if other and "return_sequences" not in config else "LSTM"


def _sizes(given: Any, rank: int) -> list[int]:
    """The numbers of features that a config says, if it is one."""
    if not isinstance(given, Mapping):
        return []
    around = given if "class_name" in given else {}
    return Entry("", given.get("config") if around else given, around).sizes(rank)


def _last_of(shape: Any, rank: int) -> list[int]:
    """The last number of a shape of this rank, if it is one."""
    if not isinstance(shape, list | tuple) or len(shape) != rank:
        return []
    last = shape[-1]
    is_size = isinstance(last, numbers.Integral) and not isinstance(last, bool)
    return [int(last)] if is_size and last > 0 else []


def _only(sizes: list[int]) -> int | None:
    """The size, where all that is said is the same."""
    return sizes[0] if len(set(sizes)) == 1 else None


def _frozen_as(module: nn.Module, config: Mapping[str, Any]) -> nn.Module:
    """The module, frozen if a wrapper's config says so. Lazy parameters are no tensors yet."""
    trainable = config.get("trainable", True)
    if trainable not in (True, False):
        raise ConfigError(f"trainable={trainable!r} is a flag; it is True or False.")
    if not trainable:
        for parameter in module.parameters():
            parameter.requires_grad = False
    return module


def _autocast(config: Mapping[str, Any], kind: str) -> bool:
    """Keras writes no such entry; it takes it, as any keyword."""
    return as_flag(config.get("autocast", True), "autocast", kind)


def _label(kind: str, name: str | None) -> str:
    return kind if name is None else f"{kind} {name!r}"


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Say where in a config an error is."""
    try:
        yield
    except ConfigError as error:
        said = str(error).removeprefix("LSTM: ")
        if said.startswith(f"{where}:"):
            raise
        raise ConfigError(f"{where}: {said}") from error
