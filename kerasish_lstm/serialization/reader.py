"""Builds layers from the configs of one Keras."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ..config import detected_version, keras_generation, policy_name
from ..errors import ConfigError
from .classes import CLASSES
from .entry import Entry, at
from .policies import Device, DType, result_dtype


@dataclasses.dataclass(frozen=True)
class Reader:
    """Builds layers from the configs of one Keras."""

    version: str
    device: Device
    dtype: DType
    from_file: bool = False  # code of the model's author does not stop inference

    @property
    def is_keras_3(self) -> bool:
        return keras_generation(self.version) == 3

    def build(self, entry: Entry, size: int | None, cls: type[Any] | None = None) -> Any:
        """The layer of an entry; ``cls`` where the caller asked for a class of their own."""
        with at(entry.label):
            return (cls or CLASSES[entry.kind])._read(self, entry, size)

    def inner(self, config: Any, role: str, kinds: Sequence[str], size: int | None) -> Any:
        """The layer that stands in another's config."""
        with at(role):
            entry = Entry.of(config, kinds)
            entry.must_be(kinds)
            return self.build(entry, size)

    def wrapper_dtype(self, entry: Entry, part: Any) -> str | None:
        """The policy of a wrapper around an LSTM or a cell, if its results need a cast."""
        policy = policy_name(entry.config.get("dtype"))
        if self.dtype is not None or result_dtype(policy, entry.kind) == part.compute_dtype:
            return None
        return policy


def from_config(
    cls: type[Any],
    config: Mapping[str, Any] | Sequence[Any],
    input_size: int | None = None,
    *,
    version: str | None = None,
    device: Device = None,
    dtype: DType = None,
) -> Any:
    """A new layer of the class, of a config of any Keras: see :meth:`LSTM.from_config`."""
    kinds = cls._keras_classes
    with at(f"{cls.__name__}.from_config"):
        if input_size is not None and input_size < 1:
            raise ConfigError(
                f"input_size={input_size!r} is not possible; pass 1 or more, or None."
            )
        entry = Entry.of(config, kinds)
        if input_size is not None:
            entry.check_size(input_size)
        if entry.kind not in kinds:
            advice = f"this package has {', '.join(CLASSES)} and what they hold."
            if entry.kind in CLASSES:
                advice = f"call {CLASSES[entry.kind].__name__}.from_config(config)."
            raise ConfigError(f"this is a config of the class {entry.kind}; {advice}")
        version = detected_version(config) if version is None else version
        reader = Reader(version, device, dtype)
        keras_generation(version)
    return reader.build(entry, input_size, cls)


def from_file(entry: Mapping[str, Any], input_size: int, version: str, dtype: DType) -> Any:
    """The layer of a config in a file, on the meta device: it has no weights yet.

    Args:
        entry: ``{"class_name": ..., "config": ...}``. Code of the author in it (an initializer, a
            regularizer) raises in training alone.

    Raises:
        ConfigError: a config that makes no layer here.
    """
    found = Entry.of(entry, tuple(CLASSES))
    found.must_be(tuple(CLASSES))
    reader = Reader(version, "meta", dtype, from_file=True)  # "meta" draws no initial weights
    return reader.build(found, input_size)
