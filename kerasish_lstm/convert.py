"""From Keras to torch and back: live layers and files.

The only place that knows both torch modules and Keras. ``keras`` and ``tf_keras`` are imported by
:func:`to_keras` alone, when it is called; :func:`load_keras` needs neither.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from . import files
from .config import LSTMConfig
from .errors import ConfigError, FileFormatError, KerasishError, NotBuiltError
from .lstm import LSTM
from .weights import LSTMWeights

Backend = Literal["keras", "tf_keras"]

_DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}

# Each Keras has one hard_sigmoid. The other generation's goes there as a function of this name,
# which LSTMConfig.from_keras knows again.
_FOREIGN = {"keras": "hard_sigmoid_v2", "tf_keras": "hard_sigmoid_v3"}


def from_keras(layer: Any) -> LSTM[Any]:
    """The equal :class:`LSTM` of a live ``keras.layers.LSTM`` or ``tf_keras.layers.LSTM``.

    Args:
        layer: a built layer. Nothing of it is changed, and no array is shared.

    Returns:
        A layer with its config, weights, dtype (mixed policies keep float32 parameters) and, where
        it is stateful, its state.

    Raises:
        ConfigError: not an LSTM layer, not built yet, or an activation that only its author knows.
        WeightMismatch: weights that do not fit (a layer that was changed by hand).

    Source: Keras 3.15.1 and tf_keras 2.21.
    """
    root = type(layer).__module__.partition(".")[0]
    if type(layer).__name__ != "LSTM" or root not in ("keras", "tf_keras"):
        raise ConfigError(
            f"from_keras: {type(layer).__module__}.{type(layer).__name__} is not the LSTM of Keras "
            "or tf_keras. Pass a keras.layers.LSTM or a tf_keras.layers.LSTM."
        )
    if not layer.built:
        raise ConfigError(
            f"from_keras: the layer {layer.name!r} is not built, so it has no weights. Call it "
            "once, or layer.build((None, None, features))."
        )
    values = dict(layer.get_config())
    values["trainable"] = bool(layer.trainable and layer.cell.trainable)
    for keyword in ("activation", "recurrent_activation"):
        function = getattr(layer.cell, keyword)
        whose = str(getattr(function, "__module__", "")).partition(".")[0]
        if whose not in (root, "tensorflow", __name__.partition(".")[0]):
            raise ConfigError(
                f"from_keras: the {keyword} of {layer.name!r} is {function!r}, which is not "
                f"{root}'s own, whatever its name. Build an LSTM with a callable on torch tensors "
                "for it, and give that layer.get_weights()."
            )
    version = "3" if root == "keras" else "2"
    if root == "keras":  # get_config() leaves these two out
        values |= {"use_cudnn": layer.use_cudnn, "implementation": layer.cell.implementation}
    config = LSTMConfig.from_keras(values, version)
    arrays = [np.asarray(a) for a in layer.get_weights()]
    result = _layer(config, LSTMWeights(*arrays, *[None] * (3 - len(arrays))), repr(layer.name))
    if config.stateful and layer.states and layer.states[0] is not None:
        h, c = (np.asarray(s.numpy() if hasattr(s, "numpy") else s) for s in layer.states)
        wide = [torch.from_numpy(np.array(s, np.float64)) for s in (h, c)]
        result.states = (wide[0], wide[1])
    return result


def _layer(config: LSTMConfig, weights: LSTMWeights, source: str) -> LSTM[Any]:
    kernel = np.asarray(weights.kernel)
    policy = config.dtype or kernel.dtype.name
    dtype = torch.float32 if policy.startswith("mixed_") else _DTYPES.get(policy)
    if dtype is None:
        raise ConfigError(
            f"the LSTM {source} has the dtype policy {policy!r}; allowed are "
            f"{', '.join(_DTYPES)}, mixed_float16 and mixed_bfloat16."
        )
    if not isinstance(config.activation, str) or not isinstance(config.recurrent_activation, str):
        raise ConfigError(f"the LSTM {source} has an activation that is no name.")
    layer: LSTM[Any] = LSTM.from_lstm_config(kernel.shape[0], config, dtype=dtype)
    layer._load(weights, source=source)
    return layer


def to_keras(module: LSTM[Any], *, backend: Backend = "keras") -> Any:
    """The equal live Keras layer of an :class:`LSTM`, built, with its weights.

    Args:
        module: the layer. A stateful one must hold a state, which tells Keras the batch size.
        backend: ``"keras"`` (Keras 3, whatever its own backend) or ``"tf_keras"`` (Keras 2).

    Returns:
        ``keras.layers.LSTM`` or ``tf_keras.layers.LSTM``. ``use_cudnn=True`` becomes ``"auto"``:
        Keras would refuse to run on a CPU.

    Raises:
        ConfigError: another backend; an activation that the backend lacks; a stateful layer without
            a state.
        ImportError: the backend is not installed.
        ValueError: Keras's own, for an initializer, regularizer or constraint unknown to it.
    """
    if not isinstance(module, LSTM):
        raise ConfigError(f"to_keras: a {type(module).__name__} is not a kerasish_lstm.LSTM.")
    if backend not in _FOREIGN:
        raise ConfigError(f"to_keras: backend={backend!r}; allowed are 'keras' and 'tf_keras'.")
    config = module.config
    if config.stateful and module.states is None:
        raise ConfigError(
            f"to_keras: {module._label} is stateful and holds no state, and Keras builds a "
            "stateful layer for one batch size. Call it once, or set module.states, before."
        )
    keras: Any = __import__(backend)
    values = config.to_keras("3" if backend == "keras" else "2")
    if values.get("use_cudnn") is True:  # which Keras refuses at the first call without a GPU
        values["use_cudnn"] = "auto"
    values["trainable"] = module.trainable
    values["dtype"] = str(module.lstm.weight_ih_l0.dtype).removeprefix("torch.")
    if str(config.dtype).startswith("mixed_") and values["dtype"] == "float32":
        values["dtype"] = config.dtype
    for keyword in ("activation", "recurrent_activation"):
        values[keyword] = _activation_to_keras(values[keyword], keyword, backend, keras)
    layer = keras.layers.LSTM(**values)
    batch = None if module.states is None else module.states.h.shape[0]
    shape = (batch, None, module.input_size)
    layer.build(shape)
    layer.set_weights(module.get_weights())
    if module.states is not None:
        for variable, state in zip(layer.states, module.states, strict=True):
            variable.assign(state.detach().cpu().to(torch.float64).numpy())
    return layer


def _activation_to_keras(activation: Any, keyword: str, backend: Backend, keras: Any) -> Any:
    """What stands for an activation of this package in a given Keras."""
    if not isinstance(activation, str):
        raise ConfigError(
            f"to_keras: {keyword}={activation!r} is a function on torch tensors, which Keras "
            "cannot run. Give the layer a name of kerasish_lstm.ACTIVATIONS."
        )
    foreign = "hard_sigmoid_v2" if backend == "keras" else "hard_sigmoid"
    if activation == foreign:
        return _registered(_FOREIGN[backend], keras)
    name = "hard_sigmoid" if activation == "hard_sigmoid_v2" else activation
    if not callable(getattr(keras.activations, name, None)) and name != "hard_swish":
        raise ConfigError(
            f"to_keras: {backend} {keras.__version__} has no activation {name!r}, which is the "
            f"{keyword} of this layer. Build it for the other backend."
        )
    return name


_registry: dict[str, Callable[..., Any]] = {}


def _registered(name: str, keras: Any) -> Callable[..., Any]:
    """The other generation's hard_sigmoid as a function that this Keras can save and load."""

    def hard_sigmoid_v2(x: Any) -> Any:
        return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)

    def hard_sigmoid_v3(x: Any) -> Any:
        return keras.activations.relu(x + 3.0, max_value=6.0) / 6.0

    if name not in _registry:
        function = {f.__name__: f for f in (hard_sigmoid_v2, hard_sigmoid_v3)}[name]
        _registry[name] = keras.saving.register_keras_serializable("kerasish_lstm")(function)
    return _registry[name]


def load_keras(
    path: str | Path,
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    names: Mapping[str, str] | None = None,
) -> dict[str, LSTM[Any]]:
    """The LSTM layers of a Keras file, ready to call, without Keras or TensorFlow.

    Args:
        path: a ``.keras``, ``.weights.h5`` or legacy ``.h5`` file (Keras 2, tf.keras, Keras 3).
        config: for a file of weights alone, the model's config: a dict, or the path of its JSON
            (what ``model.to_json()`` gives). Without it the layers get Keras's defaults, and one
            warning says so.
        names: new names for some of the file's layers: ``{name in the file: name here}``.

    Returns:
        The layers in the model's order, in eval mode, keyed by their names in the model (nested
        models joined by ``/``), or by the file's groups where only those are known.

    Raises:
        FileNotFoundError: there is no such file.
        FileFormatError: a damaged, unsafe or foreign file; one without an LSTM; a config that is
            not that of the weights.
        ConfigError: a layer that cannot be an LSTM; ``names`` that do not fit.
        NotBuiltError: the file has an LSTM inside a layer that is not built yet (Bidirectional,
            stacked cells, TimeDistributed, CuDNNLSTM), named in the message.
    """
    layers, left_out, file = read_layers(path, config=config, names=names)
    for layer in left_out:
        if layer.error is not None:
            raise type(layer.error)(f"{file.path.name}: {layer.error}") from layer.error
    lost = [layer for layer in left_out if layer.has_lstm]
    if lost:
        listed = "\n".join(f"  {layer.name}: {layer.reason}" for layer in lost)
        raise NotBuiltError(f"{file.path.name} has LSTMs that cannot be loaded yet:\n{listed}")
    if not layers:
        kinds = ", ".join(dict.fromkeys(layer.kind for layer in left_out)) or "no layer"
        raise FileFormatError(f"{file.path.name} holds no LSTM; it holds {kinds}.")
    if file.bare:
        keyed = "keyed by the file's groups" if names is None else "named as the file or names say"
        warnings.warn(
            f"{file.path.name} holds weights alone: its layers are {keyed} and built with the "
            "defaults of Keras (tanh, the last output alone, no state). Pass config= (the model's "
            "config, or its JSON) for what the model really had.",
            stacklevel=2,
        )
    return layers


def read_layers(
    path: str | Path,
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    names: Mapping[str, str] | None = None,
) -> tuple[dict[str, LSTM[Any]], list[files.FileLayer], files.KerasFile]:
    """The plain LSTM layers of a file, the layers that were left out, and the file itself."""
    file = files.read(path, config)
    renamed = dict(names or {})
    for new in renamed.values():
        if not isinstance(new, str):
            raise ConfigError(f"load_keras: names has the value {new!r}; the new names are texts.")
    layers: dict[str, LSTM[Any]] = {}
    left_out = []
    for layer in file.layers:
        if layer.config is None or layer.weights is None:
            left_out.append(layer)
            continue
        name = renamed.pop(layer.name, layer.name)
        if name in layers:
            raise ConfigError(f"load_keras: two layers of {file.path.name} are called {name!r}.")
        source = f"{layer.name!r} from {file.path.name}"
        try:
            layers[name] = _layer(layer.config, layer.weights, source).eval()
        except KerasishError as error:  # of this layer; the others may be fine
            left_out.append(dataclasses.replace(layer, reason=str(error), error=error))
    if renamed:
        held = ", ".join(repr(layer.name) for layer in file.layers if layer.weights is not None)
        raise ConfigError(
            f"load_keras: names has {', '.join(map(repr, renamed))}, and {file.path.name} has no "
            f"such LSTM; it has {held or 'none'}."
        )
    return layers, left_out, file
