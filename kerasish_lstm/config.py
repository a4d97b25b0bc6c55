"""What a Keras LSTM was asked to be: every keyword of ``keras.layers.LSTM``, frozen.

This file knows names and versions, and neither torch nor Keras. Two things changed between
Keras's versions in a way that changes numbers, and both are settled here, once:

* ``hard_sigmoid`` was ``clip(0.2 x + 0.5, 0, 1)`` up to Keras 2 and is ``relu6(x + 3) / 6`` since
  Keras 3. Here the first is called ``hard_sigmoid_v2``.
* the default ``recurrent_activation`` was ``hard_sigmoid`` before multi-backend Keras 2.3.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from .errors import ConfigError, NotBuiltError

Activation = str | Callable[..., Any]
DropoutStyle = Literal["keras", "keras_3.0", "tf_keras", "keras_2"]

# Entries of configs of other versions that change nothing here, each with the reason.
_IGNORED = {
    "time_major": "False is the only layout here; True is refused",
    "batch_input_shape": "shapes are known at the call",
    "batch_shape": "shapes are known at the call",
    "input_shape": "shapes are known at the call",
    "input_dim": "the kernel's shape says it",
    "input_length": "shapes are known at the call",
    "enable_caching_device": "a TensorFlow device hint",
    "return_runtime": "a TensorFlow debugging aid",
    "autocast": "torch.autocast decides",
    "quantization_config": "Keras cannot quantize an LSTM",
}

# The keywords that hold an object of Keras's, and the names of their defaults in any version.
OBJECTS: dict[str, tuple[str, ...]] = {
    "kernel_initializer": ("glorot_uniform", "GlorotUniform"),
    "recurrent_initializer": ("orthogonal", "Orthogonal"),
    "bias_initializer": ("zeros", "Zeros"),
    "kernel_regularizer": (),
    "recurrent_regularizer": (),
    "bias_regularizer": (),
    "activity_regularizer": (),
    "kernel_constraint": (),
    "recurrent_constraint": (),
    "bias_constraint": (),
}

# What convert.to_keras calls the hard_sigmoid of the other generation, in that Keras's configs.
_OWN_FUNCTIONS = {"hard_sigmoid_v2": "hard_sigmoid_v2", "hard_sigmoid_v3": "hard_sigmoid"}

_FLAGS = (
    "use_bias",
    "unit_forget_bias",
    "return_sequences",
    "return_state",
    "go_backwards",
    "stateful",
    "unroll",
    "zero_output_for_mask",
    "trainable",
    "time_major",
)


@dataclasses.dataclass(frozen=True)
class LSTMConfig:
    """The keywords of Keras 3.15's ``LSTM``, with their defaults.

    Args:
        units: U, the size of h and of c.
        activation, recurrent_activation: a name, or any callable on tensors of shape (B, U).
        dtype: the name of Keras's dtype policy where a file or a live layer gave one, else None.
        The others: as in ``keras.layers.LSTM``. Rates outside [0, 1] are clamped, as there.

    Raises:
        ConfigError: a value that Keras would refuse, here or later.

    Source: Keras 3.15.1, ``keras/src/layers/rnn/lstm.py``. Unlike there, values are checked
    when they are given and not at the first use; flags must be booleans (or 0 and 1).
    """

    units: int
    activation: Activation = "tanh"
    recurrent_activation: Activation = "sigmoid"
    use_bias: bool = True
    kernel_initializer: Any = "glorot_uniform"
    recurrent_initializer: Any = "orthogonal"
    bias_initializer: Any = "zeros"
    unit_forget_bias: bool = True
    kernel_regularizer: Any = None
    recurrent_regularizer: Any = None
    bias_regularizer: Any = None
    activity_regularizer: Any = None
    kernel_constraint: Any = None
    recurrent_constraint: Any = None
    bias_constraint: Any = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    seed: int | None = None
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False
    unroll: bool = False
    use_cudnn: bool | Literal["auto"] = "auto"
    implementation: int = 2
    zero_output_for_mask: bool = False
    name: str | None = None
    trainable: bool = True
    dtype: str | None = None
    time_major: bool = False
    dropout_style: DropoutStyle = "keras"

    def __post_init__(self) -> None:
        def fix(field: str, value: Any) -> None:
            object.__setattr__(self, field, value)

        units: Any = self.units
        if isinstance(units, bool) or not isinstance(units, numbers.Integral) or units <= 0:
            raise ConfigError(
                f"LSTM: units={units!r} is not possible; it must be a positive integer, "
                "the size of the hidden state."
            )
        fix("units", int(units))
        for field in ("activation", "recurrent_activation"):
            value = getattr(self, field)
            if value is None:  # Keras: None is linear
                fix(field, "linear")
            elif not isinstance(value, str) and not callable(value):
                raise ConfigError(
                    f"LSTM: {field}={value!r} is neither a name, a callable nor None. Pass one of "
                    "kerasish_lstm.ACTIVATIONS, or a callable on tensors of shape (B, units)."
                )
        for field in _FLAGS:
            value = getattr(self, field)
            if value not in (True, False):
                raise ConfigError(f"LSTM: {field}={value!r} is a flag; pass True or False.")
            fix(field, bool(value))
        for field in ("dropout", "recurrent_dropout"):
            rate: Any = getattr(self, field)
            if isinstance(rate, bool) or not isinstance(rate, numbers.Real) or math.isnan(rate):
                raise ConfigError(
                    f"LSTM: {field}={rate!r} is not a rate; pass a number between 0 and 1, "
                    "the fraction to drop."
                )
            fix(field, min(1.0, max(0.0, float(rate))))
        use_cudnn: Any = self.use_cudnn
        if use_cudnn not in ("auto", True, False):
            raise ConfigError(
                f"LSTM: use_cudnn={use_cudnn!r} is not possible; pass 'auto' (pick the engine), "
                "True (insist on the fused engine) or False (never use it)."
            )
        fix("use_cudnn", use_cudnn if isinstance(use_cudnn, str) else bool(use_cudnn))
        if self.implementation not in (0, 1, 2):
            raise ConfigError(
                f"LSTM: implementation={self.implementation!r} is not possible; pass 1 or 2."
            )
        if self.dropout_style not in get_args(DropoutStyle):
            raise ConfigError(
                f"LSTM: dropout_style={self.dropout_style!r} is not possible; allowed are "
                f"{', '.join(map(repr, get_args(DropoutStyle)))}: see kerasish_lstm.DropoutMasks."
            )
        if self.seed is not None and (
            isinstance(self.seed, bool) or not isinstance(self.seed, numbers.Integral)
        ):
            raise ConfigError(f"LSTM: seed={self.seed!r} is not an integer or None.")
        if self.name is not None and (not isinstance(self.name, str) or "/" in self.name):
            raise ConfigError(
                f"LSTM: name={self.name!r} is not possible; pass a string without '/'."
            )

    def replace(self, **changes: Any) -> LSTMConfig:
        """A copy with some keywords changed, checked as at construction."""
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_keras(cls, config: Mapping[str, Any], version: str) -> LSTMConfig:
        """The config of one LSTM layer as Keras ``version`` wrote it.

        Args:
            config: the layer's config: what ``layer.get_config()`` gives, or the ``"config"``
                entry of a layer in a file's JSON.
            version: the Keras version that wrote it, ``"2.5.0"``, ``"2.2.4-tf"``, ``"3.15.1"``.

        Raises:
            ConfigError: an entry that no version has (the nearest known one is named), a missing
                ``units``, an activation that only the writer's own code knows.
            NotBuiltError: Keras 1's config, ``time_major=True``.
        """
        if keras_generation(version) < 2:
            raise NotBuiltError(
                f"a layer config of Keras {version}: Keras 1 files are not read yet. Load it with "
                "Keras 2 and save it again, or pass the arrays to LSTM.set_weights()."
            )
        if not isinstance(config, Mapping):
            raise ConfigError(f"an LSTM's config must be a dict, not {config!r}.")
        if config.get("time_major"):
            raise NotBuiltError(
                f"LSTM {config.get('name')!r} has time_major=True, input as (T, B, F): not built. "
                "Set it to False in the config and give the input as (B, T, F)."
            )
        known = {f.name for f in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for key, value in config.items():
            if key in known:
                values[key] = value
            elif key not in _IGNORED:
                near = difflib.get_close_matches(key, sorted(known | set(_IGNORED)), 1)
                hint = f"; the nearest known one is {near[0]!r}" if near else ""
                raise ConfigError(
                    f"LSTM {config.get('name')!r}: its config has the unknown entry {key!r}{hint}."
                )
        if "units" not in values:
            raise ConfigError(f"LSTM {config.get('name')!r}: its config has no 'units'.")
        values.setdefault("recurrent_activation", default_recurrent_activation(version))
        for field in ("activation", "recurrent_activation"):
            value = values.get(field)
            own = value
            if isinstance(value, Mapping) and value.get("class_name") == "function":
                own = value.get("config")
            own = _OWN_FUNCTIONS.get(own.rpartition(">")[2]) if isinstance(own, str) else None
            if own is not None:
                values[field] = own
            elif isinstance(value, Mapping):
                raise ConfigError(
                    f"LSTM {config.get('name')!r}: {field}={dict(value)!r} is code of the model's "
                    "author, which no file holds. Put a name of kerasish_lstm.ACTIVATIONS, or a "
                    "callable on torch tensors, in its place in the config and pass that config."
                )
            elif value == "hard_sigmoid" and keras_generation(version) < 3:
                values[field] = "hard_sigmoid_v2"
        for field, defaults in OBJECTS.items():
            if isinstance(values.get(field), Mapping):
                values[field] = _short(values[field], defaults)
        values["dtype"] = _policy_name(values.get("dtype"))
        if isinstance(values.get("name"), str):  # Keras 2 allows what Keras 3 does not
            values["name"] = values["name"].replace("/", "_")
        try:
            return cls(**values)
        except ConfigError as error:
            said = str(error).removeprefix("LSTM: ")
            raise ConfigError(f"LSTM {config.get('name')!r}: {said}") from error

    def to_keras(self, version: str) -> dict[str, Any]:
        """The keywords that make the same layer in Keras ``version``: 2 (tf_keras) or 3.

        ``hard_sigmoid`` and callables are left as they are: what stands for them in a given Keras
        is for ``convert.to_keras`` to say. Entries that are None where Keras's default is None,
        ``dtype`` among them, are left out.
        """
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if keras_generation(version) < 3:
            for field in ("seed", "use_cudnn"):
                del values[field]
        elif self.time_major:
            raise ConfigError(
                f"LSTM {self.name!r}: Keras 3 has no time_major=True. Build it with False, and "
                "transpose the input and the output."
            )
        else:
            del values["time_major"]
        del values["dropout_style"]  # each Keras has its own
        return {k: v for k, v in values.items() if v is not None or k.endswith("_initializer")}


def keras_generation(version: str) -> int:
    """1, 2 or 3, of a version string such as ``"2.2.4-tf"``. Raises ConfigError for others."""
    match = re.match(r"\s*(\d+)\.", str(version) + ".")
    if match is None or not 1 <= int(match[1]) <= 3:
        raise ConfigError(
            f"{version!r} is not a Keras version that is known here; known are 1.x, 2.x and 3.x."
        )
    return int(match[1])


def default_recurrent_activation(version: str) -> str:
    """What ``LSTM(units)`` used for its gates in that version.

    Multi-backend Keras before 2.3 used ``hard_sigmoid``. ``tf.keras`` of TensorFlow 2 (whose
    versions end in ``-tf``) and everything later uses ``sigmoid``.
    Source: Keras's git tags 2.0.0 to 2.3.0.
    """
    match = re.match(r"2\.(\d+)", str(version))
    if match and int(match[1]) < 3 and not str(version).endswith("-tf"):
        return "hard_sigmoid_v2"
    return "sigmoid"


def _short(value: Mapping[str, Any], defaults: tuple[str | None, ...]) -> Any:
    """The serialized form of an object that every Keras reads: Keras 3 adds entries of its own.

    A default comes as its name. Objects of the model's author are left as they are.
    """
    if not str(value.get("module") or "keras").startswith(("keras", "tf_keras")):
        return dict(value)
    name = value.get("class_name")
    arguments = {k: v for k, v in (value.get("config") or {}).items() if v is not None}
    if name in defaults and arguments in ({}, {"gain": 1.0}):
        return defaults[0]
    return {"class_name": name, "config": arguments}


def _policy_name(dtype: Any) -> str | None:
    """The name in any of the forms in which Keras's configs give a dtype policy."""
    if dtype is None or isinstance(dtype, str):
        return dtype
    if isinstance(dtype, Mapping):
        name = (dtype.get("config") or {}).get("name", dtype.get("name"))
        if isinstance(name, str):
            return name
    raise ConfigError(f"LSTM: dtype={dtype!r} is not a dtype policy that is known here.")
