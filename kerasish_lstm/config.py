"""What a Keras LSTM was asked to be: every keyword of ``keras.layers.LSTM``, frozen.

This file knows names and versions, and neither torch nor Keras. What changed between Keras's
versions is settled here, once:

* ``hard_sigmoid`` was ``clip(0.2 x + 0.5, 0, 1)`` up to Keras 2 and is ``relu6(x + 3) / 6`` since
  Keras 3. Here the first is called ``hard_sigmoid_v2``.
* the default ``recurrent_activation`` was ``hard_sigmoid`` before multi-backend Keras 2.3.
* the masks of dropout: ``dropout_style``.
* Keras 1 had other names (:data:`KERAS_1`).

A version is what ``keras.__version__`` says: ``"3.15.1"``, ``"2.2.4"`` (multi-backend),
``"2.2.4-tf"`` (tf.keras); from 2.4 on these two are one. ``"2"`` is tf.keras or tf_keras, ``"3"``
the newest Keras 3.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args

from .errors import ConfigError
from .keywords import as_flag, checked_name

Activation = str | Callable[..., Any]
DropoutStyle = Literal["keras", "keras_3.0", "tf_keras", "keras_2"]

# Entries of configs of other versions that change nothing here, each with the reason.
_IGNORED = {
    "batch_input_shape": "shapes are known at the call",
    "batch_shape": "shapes are known at the call",
    "input_shape": "shapes are known at the call",
    "input_dim": "the kernel's shape says it",
    "input_length": "shapes are known at the call",
    "input_dtype": "inputs are cast to the layer's dtype",
    "enable_caching_device": "a TensorFlow device hint",
    "return_runtime": "a TensorFlow debugging aid",
    "autocast": "torch.autocast decides",
    "quantization_config": "Keras cannot quantize an LSTM",
}

# Keras 1's names of the keywords, which Keras 2 takes too.
KERAS_1 = {
    "output_dim": "units",
    "init": "kernel_initializer",
    "inner_init": "recurrent_initializer",
    "forget_bias_init": "unit_forget_bias",
    "inner_activation": "recurrent_activation",
    "W_regularizer": "kernel_regularizer",
    "U_regularizer": "recurrent_regularizer",
    "b_regularizer": "bias_regularizer",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
    "consume_less": "implementation",
}
_CONSUME_LESS = {"cpu": 0, "mem": 1, "gpu": 2}

# What a layer has and a cell has not.
LAYER_ONLY = (
    "return_sequences",
    "return_state",
    "go_backwards",
    "stateful",
    "unroll",
    "use_cudnn",
    "zero_output_for_mask",
    "time_major",
)

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

# Each Keras has one hard_sigmoid. That of the other generation is a function of this package there,
# registered under these names, which stand in the configs.
_OWN_FUNCTIONS = {
    "kerasish_lstm>hard_sigmoid_v2": "hard_sigmoid_v2",
    "kerasish_lstm>hard_sigmoid_v3": "hard_sigmoid",
}

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
    "autocast",
    "time_major",
)


# Keras's layers that are activations, as what they are functions by name: with these arguments.
_ACTIVATION_LAYERS: dict[str, dict[str, dict[str, Any]]] = {
    "Activation": {},
    "ELU": {"elu": {"alpha": 1.0}},
    "LeakyReLU": {"leaky_relu": {"negative_slope": 0.2}},
    "PReLU": {},
    "ReLU": {
        "relu": {"max_value": None, "negative_slope": 0.0, "threshold": 0.0},
        "relu6": {"max_value": 6.0, "negative_slope": 0.0, "threshold": 0.0},
    },
    "Softmax": {"softmax": {"axis": -1}},
    "ThresholdedReLU": {},
}


def _is_an_activation_layer(value: Any) -> bool:
    known = isinstance(value, Mapping) and value.get("class_name") in _ACTIVATION_LAYERS
    return known and _is_keras_s(value)


def _is_keras_s(value: Mapping[str, Any]) -> bool:
    """Whether a config's class is Keras's, as far as it says whose it is."""
    root = str(value.get("module") or "keras").partition(".")[0]
    return root in ("keras", "tf_keras", "tensorflow") and ">" not in str(
        value.get("registered_name")
    )


def _of_an_activation_layer(value: Any) -> str | None:
    """The name of the function that an activation layer's config is equal to, or None."""
    if not isinstance(value, Mapping) or not isinstance(value.get("config"), Mapping):
        return None
    if not _is_keras_s(value):
        return None
    config = value["config"]
    if value.get("class_name") == "Activation":
        inside = config.get("activation")
        return inside if isinstance(inside, str) else None
    for name, arguments in _ACTIVATION_LAYERS.get(str(value.get("class_name")), {}).items():
        old = {"negative_slope": "alpha"}  # Keras 2's name
        given = {k: config.get(k, config.get(old.get(k, k))) for k in arguments}
        if given == arguments:
            return name
    return None


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
    autocast: bool = True
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
            fix(field, as_flag(getattr(self, field), field, "LSTM"))
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
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            raise ConfigError(f"LSTM: seed={self.seed!r} is too large; it must fit 64 bits.")
        fix("seed", None if self.seed is None else int(self.seed))
        checked_name(self.name, "LSTM")

    def replace(self, **changes: Any) -> LSTMConfig:
        """A copy with some keywords changed, checked as at construction."""
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_keras(
        cls, config: Mapping[str, Any], version: str, *, kind: Literal["LSTM", "LSTMCell"] = "LSTM"
    ) -> LSTMConfig:
        """The config of one layer or cell as Keras ``version`` wrote it.

        Args:
            config: the layer's config: what ``layer.get_config()`` gives, or the ``"config"``
                entry of a layer in a file's JSON.
            version: the Keras version that wrote it, ``"1.2.2"``, ``"2.2.4-tf"``, ``"3.15.1"``;
                see :func:`detected_version`.
            kind: whose config it is.

        Raises:
            ConfigError: an entry that this Keras does not have (the nearest known one is named), a
                missing ``units``, an activation that only the writer's own code knows.

        Keras 1's initializers are read by name, as Keras 2 reads them: each gate had a draw of its
        own there, and ``orthogonal`` a gain of 1.1.
        """
        if not isinstance(config, Mapping):
            raise ConfigError(f"an {kind}'s config must be a dict, not {config!r}.")
        name = config.get("name")
        label = kind if name is None else f"{kind} {name!r}"
        generation = keras_generation(version)
        known = {f.name for f in dataclasses.fields(cls)} - {"dropout_style"}
        if kind == "LSTMCell":
            known -= set(LAYER_ONLY)
        values: dict[str, Any] = {}
        for given, value in config.items():
            key = given
            if generation < 3 and given in KERAS_1:
                key, value = KERAS_1[given], _of_keras_1(given, value, label)  # noqa: PLW2901
            if key in known:
                if key in values:
                    raise ConfigError(
                        f"{label}: its config has {key!r} twice, once under its Keras 1 name."
                    )
                values[key] = value
            elif key == "num_constants":
                if value:
                    raise ConfigError(f"{label}: num_constants={value!r}: an LSTM takes none.")
            elif key not in _IGNORED:
                hint = f"the nearest known one is {nearest(key, known | set(_IGNORED))!r}"
                if key in KERAS_1:
                    hint = f"it is Keras 1's name of {KERAS_1[key]!r}, and this is Keras {version}"
                elif key in LAYER_ONLY:
                    hint = f"a cell has no such thing, an LSTM has; {hint}"
                raise ConfigError(f"{label}: its config has the unknown entry {key!r}; {hint}.")
        if "units" not in values:
            raise ConfigError(f"{label}: its config has no 'units'.")
        values.setdefault("recurrent_activation", default_recurrent_activation(version))
        for field in ("activation", "recurrent_activation"):
            value = values.get(field)
            own = value
            if isinstance(value, Mapping) and value.get("class_name") == "function":
                own = value.get("config")
            own = _OWN_FUNCTIONS.get(own) if isinstance(own, str) else None
            if own is not None:
                values[field] = own
                continue
            of_a_layer = _of_an_activation_layer(value)
            if of_a_layer is not None:
                values[field] = value = of_a_layer
            elif _is_an_activation_layer(value):
                raise ConfigError(
                    f"{label}: {field} is Keras's layer {value['class_name']} with "
                    f"{value.get('config')!r}, which is none of kerasish_lstm.ACTIVATIONS. Build "
                    "the LSTM with a callable on torch tensors that does the same, and give it the "
                    "arrays by set_weights()."
                )
            elif isinstance(value, Mapping):
                raise ConfigError(
                    f"{label}: {field}={dict(value)!r} is code of the model's "
                    "author, which no file holds. Put a name of kerasish_lstm.ACTIVATIONS, or a "
                    "callable on torch tensors, in its place in the config and pass that config."
                )
            if value == "hard_sigmoid" and generation < 3:
                values[field] = "hard_sigmoid_v2"
        for field, defaults in OBJECTS.items():
            if isinstance(values.get(field), Mapping):
                values[field] = _short(values[field], defaults)
        values["dtype"] = policy_name(values.get("dtype"))
        values["dropout_style"] = dropout_style_of(version)
        if generation == 2 and values.get("implementation") == 0 and _minor(version) != 0:
            values["implementation"] = 1  # Keras 2.1 and later read it so
        if isinstance(values.get("name"), str):  # Keras 2 allows what Keras 3 does not
            values["name"] = values["name"].replace("/", "_")
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{label}: {str(error).removeprefix('LSTM: ')}") from error


def keras_generation(version: str) -> int:
    """1, 2 or 3, of a version string such as ``"2.2.4-tf"``. Raises ConfigError for others."""
    match = re.match(r"\s*(\d+)\.", str(version) + ".")
    if match is None or not 1 <= int(match[1]) <= 3:
        raise ConfigError(
            f"{version!r} is not a Keras version that is known here; known are 1.x, 2.x and 3.x."
        )
    return int(match[1])


def _minor(version: str) -> int | None:
    match = re.match(r"\s*\d+\.(\d+)", str(version))
    return int(match[1]) if match else None


def is_multi_backend(version: str) -> bool:
    """Whether it is a Keras before 2.4 that is not tf.keras."""
    generation, minor = keras_generation(version), _minor(version)
    if generation == 2:
        return minor is not None and minor < 4 and not str(version).endswith("-tf")
    return generation == 1


def default_recurrent_activation(version: str) -> str:
    """What ``LSTM(units)`` used for its gates in that version.

    Keras 1 and multi-backend Keras before 2.3 used ``hard_sigmoid``. ``tf.keras`` of TensorFlow 2
    (whose versions end in ``-tf``) and everything later uses ``sigmoid``.
    Source: Keras's git tags 1.2.2 to 2.3.0.
    """
    old = keras_generation(version) == 1 or (_minor(version) or 0) < 3
    return "hard_sigmoid_v2" if is_multi_backend(version) and old else "sigmoid"


def dropout_style_of(version: str) -> DropoutStyle:
    """Whose dropout masks that version draws: see kerasish_lstm.DropoutMasks."""
    if is_multi_backend(version):
        return "keras_2"
    minor = _minor(version)
    if keras_generation(version) == 2:
        return "tf_keras"
    return "keras" if minor is None or minor >= 8 else "keras_3.0"


def detected_version(config: Any) -> str:
    """The Keras version of a config that does not say so itself, as far as its entries tell.

    Args:
        config: of a layer or a model, in any form.

    Returns:
        What ``"keras_version"`` says, where it stands in the config, else

        "1"      a name of Keras 1's, such as ``output_dim``
        "3"      a ``DTypePolicy``, ``use_cudnn``, or ``seed``
        "2"      ``time_major``, a ``Policy``: tf.keras and tf_keras
        "2.3.1"  ``implementation`` without these: multi-backend Keras 2
        "3"      none of these

    Only the configs of this package have ``implementation`` beside Keras 3's entries. A config of
    ``LSTMCell`` alone has no ``time_major``; multi-backend Keras's is known by its initializers.
    """
    entries = list(mappings(config))
    for entry in entries:
        if isinstance(entry.get("keras_version"), str):
            return str(entry["keras_version"])
    keys = {str(k) for e in entries if "units" in e or KERAS_1.keys() & e.keys() for k in e}
    if keys & KERAS_1.keys():
        return "1"
    classes = {str(e["class_name"]) for e in entries if "class_name" in e}
    is_cell = "return_sequences" not in keys
    if any(c.endswith(("DTypePolicy", "DTypePolicyMap")) for c in classes) or "use_cudnn" in keys:
        return "3"
    if "Policy" in classes or any("time_major" in e for e in entries):
        return "2"
    if "implementation" not in keys or ("seed" in keys and not is_cell):
        return "3"
    if not is_cell or any("cell" in e for e in entries):
        return "2.3.1"
    return "2.3.1" if "VarianceScaling" in classes and "module" not in str(config) else "2"


def mappings(value: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Every dict in a config."""
    if depth > 64:
        return
    if isinstance(value, Mapping):
        yield value
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from mappings(part, depth + 1)


def nearest(key: Any, known: Any) -> str:
    """The known name that is most like another."""
    name: str = difflib.get_close_matches(str(key), sorted(known), 1, cutoff=0)[0]
    return name


def _of_keras_1(key: str, value: Any, label: str) -> Any:
    """The value of one of Keras 1's entries for today's keyword."""
    if key == "consume_less":
        if not isinstance(value, str) or value not in _CONSUME_LESS:
            raise ConfigError(
                f"{label}: consume_less={value!r} is not possible; it is 'cpu', 'mem' or 'gpu'."
            )
        return _CONSUME_LESS[value]
    if key == "forget_bias_init":
        if not isinstance(value, str) or value not in ("one", "zero"):
            warnings.warn(
                f"{label}: forget_bias_init={value!r} has no equal since Keras 2; a new layer's "
                "forget gate begins with a bias of 1.",
                stacklevel=4,
            )
        return value != "zero"
    return value


def _short(value: Mapping[str, Any], defaults: tuple[str | None, ...]) -> Any:
    """The serialized form of an object that every Keras reads: Keras 3 adds entries of its own.

    A default comes as its name. Objects of the model's author, and Keras 1's form, are left as they
    are.
    """
    name, registered = value.get("class_name"), value.get("registered_name")
    # Keras writes module None for a class of the model's script.
    foreign = str(value.get("module", "keras")).split(".")[0] not in ("keras", "tf_keras")
    foreign = foreign or registered not in (None, "", name)
    if foreign or not isinstance(value.get("config"), Mapping):
        return dict(value)
    # Of all of Keras's Nones only that of a constraint's axis is not the default.
    arguments = {k: v for k, v in value["config"].items() if v is not None or k == "axis"}
    if name in defaults and arguments in ({}, {"gain": 1.0}):
        return defaults[0]
    return {"class_name": name, "config": arguments}


def policy_name(dtype: Any) -> str | None:
    """The name in any of the forms in which Keras's configs give a dtype policy."""
    if dtype is None or isinstance(dtype, str):
        return dtype
    if isinstance(dtype, Mapping):
        inner = dtype.get("config")
        name = inner.get("name") if isinstance(inner, Mapping) else dtype.get("name")
        if isinstance(name, str):
            return name
    raise ConfigError(f"LSTM: dtype={dtype!r} is not a dtype policy that is known here.")
