"""Writes the configs of layers for one Keras."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from .. import regularizers
from .._objects import serialize
from ..errors import ConfigError
from .entry import RNN_FLAGS
from .policies import MIXED

Target = Literal["keras", "tf_keras"]

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

    def __post_init__(self) -> None:
        if self.target not in get_args(Target):
            raise ConfigError(
                f"get_config: target={self.target!r} is not possible; allowed are 'keras' and "
                "'tf_keras'."
            )

    def config(self, layer: Any) -> dict[str, Any]:
        """Of any layer of the package."""
        found: dict[str, Any] = layer._write(self)
        return found

    def wrapped(self, layer: Any) -> dict[str, Any]:
        """A layer's config as it stands inside another layer's."""
        return self.with_class(layer.keras_class, self.config(layer))

    def with_class(self, name: str, config: dict[str, Any]) -> dict[str, Any]:
        """``{"class_name": ..., "config": ...}``."""
        is_model = name == "Sequential"
        found = {
            "module": "keras" if is_model else "keras.layers",
            "class_name": name,
            "config": config,
            "registered_name": None,
        }
        return {**found, "compile_config": {}} if is_model and self.is_keras_3 else found

    @property
    def is_keras_3(self) -> bool:
        return self.target == "keras"

    def trains(self, part: Any) -> bool:
        """The flag of ``trainable`` of an LSTM or a cell."""
        return bool(part.config.trainable if self.frozen else part.trainable)

    def inside(self, parts: Sequence[Any]) -> tuple[bool, Writer]:
        """A wrapper's own flag of ``trainable``, and the writer for what is in it.

        Where nothing inside is trained, it is the wrapper that is frozen, unless the parts were
        built so.
        """
        if any(self.trains(p) for p in parts) or not any(p.config.trainable for p in parts):
            return True, self
        return False, dataclasses.replace(self, frozen=True)

    def base(self, name: str | None, trainable: bool, policy: str) -> dict[str, Any]:
        """What every layer has."""
        dtype: Any = policy
        if self.is_keras_3 or policy in MIXED:
            module = "keras" if self.is_keras_3 else "keras.mixed_precision"
            dtype = {
                "module": module,
                "class_name": "DTypePolicy" if self.is_keras_3 else "Policy",
                "config": {"name": policy},
                "registered_name": None,
            }
        named = {} if name is None else {"name": name}
        return {**named, "trainable": trainable, "dtype": dtype}

    def wrapper(self, layer: Any, trainable: bool, part: Any) -> dict[str, Any]:
        """What every wrapper has; its policy is what it was given, or else that of the part."""
        given = part._policy if layer.dtype is None else str(layer.dtype).removeprefix("torch.")
        found = self.base(layer.name, trainable, given)
        regularizer = layer.activity_regularizer
        activity = self.keras_object(regularizers.get, regularizer, "activity_regularizer")
        return found if activity is None else {**found, "activity_regularizer": activity}

    def flags(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those of Keras's RNN."""
        found = {flag: values[flag] for flag in RNN_FLAGS}
        if not self.is_keras_3:
            if not found["zero_output_for_mask"]:
                del found["zero_output_for_mask"]
            found["time_major"] = values.get("time_major", False)
        return found

    def keras_object(self, get: Callable[[Any, str], Any], given: Any, keyword: str) -> Any:
        """An initializer, a regularizer or a constraint, of any form that ``get`` takes."""
        found = serialize(get(given, keyword), keyword)
        return found if found is None or self.is_keras_3 else _for_tf_keras(found, keyword)

    def activation(self, name: Any, keyword: str, label: str) -> Any:
        """An activation of this name, or what the target calls it."""
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
        found = _KERAS.get(name, name) if self.is_keras_3 else _TF_KERAS.get(name)
        if found is None:
            raise ConfigError(
                f"{label}: {keyword}={name!r} is not an activation of {self.target}, which has "
                f"{', '.join(sorted(_TF_KERAS))}. Write it for target='keras'."
            )
        return found


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
