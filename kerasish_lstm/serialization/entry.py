"""A layer's entry in a config of Keras: its class, its config, and what stands around them."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import nn

from ..config import nearest
from ..errors import ConfigError
from ..keywords import as_flag, check_features
from .classes import CLASSES

Module = TypeVar("Module", bound=nn.Module)

# The flags of Keras's RNN, and of LSTM.
RNN_FLAGS = (
    "return_sequences", "return_state", "go_backwards", "stateful", "unroll",
    "zero_output_for_mask",
)  # fmt: skip
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
        if self.kind in (*CLASSES, "StackedRNNCells"):
            raise ConfigError(f"a {self.kind} cannot stand here; possible: {known}.")
        raise ConfigError(f"{self.kind!r} is no class that can stand here; possible: {known}.")

    @property
    def name(self) -> str | None:
        found = self.config.get("name") if isinstance(self.config, Mapping) else None
        return found.replace("/", "_") if isinstance(found, str) else None

    @property
    def label(self) -> str:
        return label(self.kind, self.name)

    @property
    def autocast(self) -> bool:
        """Keras writes no such entry; it takes it, as any keyword."""
        return as_flag(self.config.get("autocast", True), "autocast", self.kind)

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
            *last_of([config.get("input_dim")], 1),
            *last_of(config.get("batch_input_shape"), rank),
            *last_of(config.get("batch_shape"), rank),
            *last_of(config.get("input_shape"), rank - 1),
            *last_of(built.get("input_shape") if isinstance(built, Mapping) else None, rank),
        ]

    def check_size(self, input_size: int) -> None:
        """Refuse another size than the config's own keywords say, as the constructors do.

        Old Keras's first layers have the shape of their batches beside these; it was never
        compared.
        """
        config = self.config if isinstance(self.config, Mapping) else {}
        if any(config.get(key) for key in ("batch_input_shape", "batch_shape")):
            return
        shape = config.get("input_shape")
        said = last_of([config.get("input_dim")], 1)
        said += last_of(shape, len(shape)) if isinstance(shape, list | tuple) else []
        for size in said:
            check_features(input_size, None, size, self.kind)

    def freeze(self, module: Module) -> Module:
        """The module, frozen if the config says so. Lazy parameters are no tensors yet."""
        trainable = self.config.get("trainable", True) if isinstance(self.config, Mapping) else True
        if trainable not in (True, False):
            raise ConfigError(f"trainable={trainable!r} is a flag; it is True or False.")
        if not trainable:
            for parameter in module.parameters():
                parameter.requires_grad = False
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


def sizes_of(given: Any, rank: int) -> list[int]:
    """The numbers of features that a config says, if it is one."""
    if not isinstance(given, Mapping):
        return []
    around = given if "class_name" in given else {}
    return Entry("", given.get("config") if around else given, around).sizes(rank)


def last_of(shape: Any, rank: int) -> list[int]:
    """The last number of a shape of this rank, if it is one."""
    if not isinstance(shape, list | tuple) or len(shape) != rank:
        return []
    last = shape[-1]
    is_size = isinstance(last, numbers.Integral) and not isinstance(last, bool)
    return [int(last)] if is_size and last > 0 else []


def only(sizes: list[int]) -> int | None:
    """The size, where all that is said is the same."""
    return sizes[0] if len(set(sizes)) == 1 else None


def label(kind: str, name: str | None) -> str:
    return kind if name is None else f"{kind} {name!r}"


@contextmanager
def at(where: str) -> Iterator[None]:
    """Say where in a config an error is."""
    try:
        yield
    except ConfigError as error:
        said = str(error).removeprefix("LSTM: ")
        if said.startswith(f"{where}:"):
            raise
        raise ConfigError(f"{where}: {said}") from error
