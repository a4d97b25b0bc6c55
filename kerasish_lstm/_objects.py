"""What initializers, regularizers and constraints share: Keras's identifiers to objects and back.

An identifier is None, a name, a serialized dict of any Keras, an object of the room, a live object
of Keras's, or any callable. A file's dict never runs code: names are looked up in literal tables.
Source: Keras 3.15.1, ``keras/src/saving/serialization_lib.py`` and each room's ``get``.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
from collections.abc import Mapping
from typing import Any, ClassVar

from .errors import ConfigError


@dataclasses.dataclass(frozen=True)
class KerasObject:
    """A frozen dataclass whose fields are the arguments of Keras's class of the same name."""

    module: ClassVar[str]  # Keras's public module

    def get_config(self) -> dict[str, Any]:
        """Keras's config: the arguments, as JSON has them."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def _set(self, field: str, value: Any) -> None:
        object.__setattr__(self, field, value)

    def _reject(self, field: str, needed: str) -> ConfigError:
        value = getattr(self, field)
        return ConfigError(f"{type(self).__name__}: {field}={value!r} is not {needed}.")

    def _check_numbers(self, *fields: str) -> None:
        """Plain numbers in these fields, or ConfigError. NumPy's scalars become Python's."""
        for field in fields:
            value = getattr(self, field)
            if getattr(value, "ndim", None) == 0:  # of NumPy or torch
                value = value.item()
            if not isinstance(value, numbers.Real):
                raise self._reject(field, "a number")
            number: Any = value  # infinities and NaN are for the callers to judge
            if _LARGEST < abs(number) < math.inf:
                raise self._reject(field, f"a number of at most {_LARGEST:.1e}")
            self._set(field, value)

    def _check_factor(self, field: str) -> None:
        """A finite float that is not negative, or ConfigError."""
        self._check_numbers(field)
        value = float(getattr(self, field))
        if not (math.isfinite(value) and value >= 0):
            raise self._reject(field, "a finite number of at least 0")
        self._set(field, value)

    def _check_choice(self, field: str, choices: tuple[str, ...]) -> None:
        if getattr(self, field) not in choices:
            raise self._reject(field, f"one of {', '.join(map(repr, choices))}")

    def _check_axes(self, field: str) -> None:
        """A tuple of integers from a list or tuple of them, or ConfigError."""
        axes = getattr(self, field)
        if not isinstance(axes, list | tuple) or not all(map(_is_integer, axes)):
            raise self._reject(field, "a list of integers")
        self._set(field, tuple(int(a) for a in axes))


@dataclasses.dataclass(frozen=True)
class Room:
    """One of the three: what ``get`` needs to know of it.

    Args:
        what: as errors call it, "an initializer".
        base: the class of its objects.
        table: its classes by every name that some Keras gave them.
        call: how a user's callable is called.
        refused: names of Keras's that no LSTM can use, with the reason.
        renamed: entries of Keras 1's configs that have another name since.
        none_is_meant: entries whose None is a value; other Nones stand for the default.
    """

    what: str
    base: type[KerasObject]
    table: Mapping[str, type[KerasObject]]
    call: str
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    none_is_meant: tuple[str, ...] = ()

    @property
    def advice(self) -> str:
        known = sorted({c.__name__ for c in self.table.values()})
        return f"Known are {', '.join(known)}; a callable works too, called as {self.call}."


def get(identifier: Any, keyword: str, room: Room) -> Any:
    """The object or callable of an identifier; None for None.

    Raises:
        ConfigError: a name or an entry that is not known (the nearest is named), a value that
            Keras refuses, code of the model's author, an object of another room.
    """
    if isinstance(identifier, type):
        identifier = identifier()
    if identifier is None:
        return None
    if isinstance(identifier, str):
        return _build(identifier, {}, keyword, room)
    if isinstance(identifier, Mapping):
        name, entries = _parts(identifier, keyword, room)
        return _build(name, entries, keyword, room)
    kind = type(identifier)
    if kind.__module__.split(".")[0] in _KERASES and hasattr(identifier, "get_config"):
        return _build(kind.__name__, identifier.get_config(), keyword, room)
    if isinstance(identifier, KerasObject) and not isinstance(identifier, room.base):
        raise ConfigError(f"LSTM: {keyword}={identifier!r} is not {room.what}. {room.advice}")
    if not callable(identifier):
        raise ConfigError(
            f"LSTM: {keyword}={identifier!r} is not {room.what}: neither a name, a dict of "
            f"Keras's, an object nor a callable. {room.advice}"
        )
    return identifier


def serialize(thing: Any, keyword: str = "object") -> dict[str, Any] | None:
    """The dict that Keras 3.15's ``serialize`` gives for the same object; None for None.

    Raises:
        ConfigError: a callable of the user's, which Keras could not run.
    """
    if thing is None:
        return None
    kind = type(thing)
    ours = kind.__module__.rpartition(".")[0] == __name__.rpartition(".")[0]
    if not (ours and isinstance(thing, KerasObject)):
        raise ConfigError(
            f"LSTM: {keyword}={thing!r} is torch code of your own, which no Keras config can hold. "
            "Put an object or a name of Keras's in its place, or None where the weights are final."
        )
    return {
        "module": thing.module,
        "class_name": kind.__name__,
        "config": thing.get_config(),
        "registered_name": None,
    }


_LARGEST = 3.4e38  # as float32 has it, in which Keras holds most of these
_KERASES = ("keras", "tf_keras")


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _parts(given: Mapping[str, Any], keyword: str, room: Room) -> tuple[str, Mapping[str, Any]]:
    """Name and entries of a serialized dict: Keras 3's, Keras 2's or Keras 1's form."""
    name, entries = given.get("class_name"), given.get("config")
    if "class_name" not in given and "name" in given:  # Keras 1: {"name": ..., "l1": ...}
        name = given["name"]
        entries = {room.renamed.get(k, k): v for k, v in given.items() if k != "name"}
    if not isinstance(name, str):
        raise ConfigError(
            f"LSTM: {keyword}={dict(given)!r} has no 'class_name', so it is not {room.what} of "
            f"Keras's. {room.advice}"
        )
    # Keras writes module None for a class of the model's script.
    module, registered = given.get("module", "keras"), given.get("registered_name")
    foreign = str(module).split(".")[0] not in (*_KERASES, "builtins")
    if foreign or registered not in (None, "", name) or name in ("function", "__lambda__"):
        raise ConfigError(
            f"LSTM: {keyword}={dict(given)!r} is code of the model's author, which no file holds. "
            f"Put {room.what} in its place in the config and pass that config. {room.advice}"
        )
    entries = {} if entries is None else entries
    if not isinstance(entries, Mapping):
        raise ConfigError(
            f"LSTM: {keyword}={dict(given)!r}: its 'config' is not a dict of {name}'s arguments."
        )
    return name, entries


def _build(name: str, entries: Mapping[str, Any], keyword: str, room: Room) -> KerasObject:
    """The object, of a name and Keras's config for it."""
    if name in room.refused:
        raise ConfigError(
            f"LSTM: {keyword}={name!r} cannot be used in an LSTM: {room.refused[name]}"
        )
    if name not in room.table:
        raise ConfigError(
            f"LSTM: {keyword}={name!r} is not {room.what}{_nearest(name, room.table)}. "
            f"{room.advice}"
        )
    kind = room.table[name]
    known = [f.name for f in dataclasses.fields(kind)]
    arguments = {}
    for key, value in entries.items():
        if key == "dtype":  # tf.keras 1 wrote it; the layer's dtype decides
            continue
        if key not in known:
            raise ConfigError(
                f"LSTM: {keyword}: {name} has no entry {key!r}{_nearest(key, known)}. "
                f"Known are {', '.join(known) or 'none'}."
            )
        if value is not None or key in room.none_is_meant:
            arguments[key] = value
    try:
        return kind(**arguments)
    except ConfigError as error:
        raise ConfigError(f"LSTM: {keyword}: {error}") from error


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""
