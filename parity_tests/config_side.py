"""What the suite has real Keras do with configs, and layers described so that both can be built.

``library`` is ``"keras"`` or ``"tf_keras"``; :func:`build` makes a :class:`Made` there or here.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Made:
    """A layer: Keras's class, its keywords, and what it is built around.

    inside: the layer of a wrapper (and its backward layer), the cell of an RNN, or the cells of an
    RNN or the layers of a Sequential; ``listed`` says that one cell stands in a list.
    """

    kind: str
    keywords: dict[str, Any]
    inside: tuple[Made, ...] = ()
    listed: bool = False


def build(library: str, made: Made) -> Any:
    """The layer in Keras (``keras``, ``tf_keras``)."""
    k = importlib.import_module(library)
    inside = [build(library, one) for one in made.inside]
    if made.kind == "Sequential":
        return k.Sequential(inside, **made.keywords)
    kind = getattr(k.layers, made.kind)
    if made.kind == "RNN":
        return kind(inside if len(inside) > 1 or made.listed else inside[0], **made.keywords)
    if made.kind == "Bidirectional" and len(inside) > 1:
        return kind(inside[0], backward_layer=inside[1], **made.keywords)
    return kind(*inside, **made.keywords)


def ours(made: Made, size: int) -> Any:
    """The layer here, for so many features."""
    import kerasish_lstm as k

    if made.kind in ("LSTM", "LSTMCell"):
        return getattr(k, made.kind)(size, **made.keywords)
    inside: list[Any] = []
    for one in made.inside:
        inside.append(ours(one, size))
        if made.kind in ("RNN", "Sequential"):
            size = _output_size(inside[-1])
    if made.kind == "RNN":
        listed = len(inside) > 1 or made.listed
        return k.StackedLSTM(inside if listed else inside[0], **made.keywords)
    if made.kind == "Sequential":
        return k.StackedLSTM(inside, **made.keywords)
    if made.kind == "Bidirectional" and len(inside) > 1:
        return k.Bidirectional(inside[0], backward_layer=inside[1], **made.keywords)
    return getattr(k, made.kind)(*inside, **made.keywords)


def _output_size(module: Any) -> int:
    if hasattr(module, "forward_layer"):
        units: tuple[int, int] = (module.forward_layer.units, module.backward_layer.units)
        return sum(units) if module.merge_mode == "concat" else units[0]
    return int(module.units)


def plain(config: Any) -> Any:
    """The same config of dicts and lists alone, without the name that StackedRNNCells makes up."""
    if isinstance(config, list | tuple):
        return [plain(v) for v in config]
    if not hasattr(config, "items"):
        return config
    found = {k: plain(v) for k, v in config.items()}
    if "cells" in found:
        found.pop("name", None)
    return found


def configs(library: str, many: list[Made]) -> list[Any]:
    """What each layer's own ``get_config`` gives."""
    return [plain(build(library, made).get_config()) for made in many]


def read(library: str, many: list[tuple[str, Any]]) -> list[Any]:
    """What ``get_config`` gives of what Keras's ``from_config`` makes of each (class, config)."""
    from kerasish_lstm.convert import register_keras_objects

    register_keras_objects(library)  # type: ignore[arg-type]
    k = importlib.import_module(library)
    found = []
    for kind, config in many:
        owner = k.Sequential if kind == "Sequential" else getattr(k.layers, kind)
        found.append(plain(owner.from_config(copy.deepcopy(config)).get_config()))
    return found


def errors(library: str, many: list[tuple[str, Any]]) -> list[str]:
    """The error that Keras's ``from_config`` raises for each (class, config), or an empty text."""
    found = []
    for one in many:
        try:
            read(library, [one])
        except Exception as error:  # whatever it is: the question is whether it is read
            found.append(type(error).__name__)
        else:
            found.append("")
    return found


def attributes(config: dict[str, Any], names: list[str]) -> list[Any]:
    """Attributes of the Keras LSTM of a config, or else of its cell."""
    import keras

    layer = keras.layers.LSTM.from_config(config)
    return [getattr(layer, n, getattr(layer.cell, n, None)) for n in names]


def errors_of_round_trips(library: str, many: list[Made], size: int, masked: bool) -> list[float]:
    """How far Keras's layer of our config, and our layer of its config, are from ours, in float64.

    The weights are random and are carried over by ``get_weights`` and ``set_weights``. Values above
    1 (there are unbounded activations) are compared by their ratio.
    """
    return [_error_of_round_trip(library, made, size, masked) for made in many]


def _error_of_round_trip(library: str, made: Made, size: int, masked: bool) -> float:
    import tensorflow as tf
    import torch

    from kerasish_lstm.convert import register_keras_objects

    register_keras_objects(library)  # type: ignore[arg-type]
    k = importlib.import_module(library)
    rng = np.random.RandomState(7)
    module = ours(made, size).eval()
    module.set_weights([rng.uniform(-0.7, 0.7, w.shape) for w in module.get_weights()])
    shape = (3, 3, size)
    if made.kind == "TimeDistributed":
        shape = (3, 2, 3, size)
    if made.kind == "LSTMCell":
        shape = (3, size)
    x = rng.uniform(-2, 2, shape).astype(np.float32).astype(np.float64)  # as a tf_keras model casts
    mask = rng.uniform(size=shape[:-1]) < 0.6 if masked else None
    kind = module.keras_class
    owner = k.Sequential if kind == "Sequential" else getattr(k.layers, kind)
    layer = owner.from_config(module.get_config(library))
    if kind == "Sequential":
        layer.build(shape)
        mask = None  # a model takes none
    elif not layer.built:
        layer.build(shape)
    layer.set_weights(module.get_weights())
    back = type(module).from_config(plain(layer.get_config()), size).eval()
    back.set_weights(layer.get_weights())
    call: dict[str, Any] = {}
    if made.kind == "LSTMCell":
        call["states"] = [tf.constant(np.zeros((3, module.units)))] * 2
    if mask is not None and made.kind != "LSTMCell":
        call["mask"] = tf.constant(mask)
    theirs = _flat(layer(tf.constant(x), **call))
    tensor = torch.from_numpy(x)
    options = {} if mask is None or made.kind == "LSTMCell" else {"mask": torch.from_numpy(mask)}
    worst = 0.0
    for one in (module, back):
        mine = _flat(one(tensor, **options))
        assert len(mine) == len(theirs)
        for a, b in zip(mine, theirs, strict=True):
            worst = max(worst, float((np.abs(a - b) / np.maximum(1, np.abs(b))).max()))
    return worst


def _flat(result: Any) -> list[np.ndarray]:
    if isinstance(result, list | tuple):
        return [a for part in result for a in _flat(part)]
    return [np.asarray(result.detach() if hasattr(result, "detach") else result, np.float64)]


def run_time_major(
    config: dict[str, Any], weights: list[Any], x: np.ndarray, mask: np.ndarray, state: list[Any]
) -> list[np.ndarray]:
    """What the tf_keras LSTM of a config gives for x (T, B, F), a mask (T, B) and a state."""
    import tensorflow as tf
    import tf_keras

    layer = tf_keras.layers.LSTM.from_config(config)
    layer.build(x.shape)
    layer.set_weights(weights)
    given = {"mask": tf.constant(mask), "initial_state": [tf.constant(s) for s in state]}
    return _flat(layer(tf.constant(x), **given))


def inner_implementations(library: str, made: Made) -> list[int]:
    """Of the two cells of a Bidirectional."""
    layer = build(library, made)
    return [one.cell.implementation for one in (layer.forward_layer, layer.backward_layer)]
