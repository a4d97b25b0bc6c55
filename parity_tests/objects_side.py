"""What the suite has real Keras do with initializers, regularizers and constraints.

A request names a class and its arguments; ``room`` is initializers, regularizers or constraints.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

Made = tuple[str, dict[str, Any]]  # a class and its arguments


def _make(library: str, room: str, made: Made) -> Any:
    name, arguments = made
    return getattr(importlib.import_module(f"{library}.{room}"), name)(**arguments)


def names(room: str) -> dict[str, str]:
    """The class of every name that Keras knows."""
    table = importlib.import_module(f"keras.src.{room}").ALL_OBJECTS_DICT
    return {name: kind.__name__ for name, kind in table.items()}


def serialized(library: str, room: str, objects: list[Made]) -> list[dict[str, Any]]:
    """What ``serialize`` gives for each, in tf_keras in its legacy form too."""
    serialize = importlib.import_module(f"{library}.{room}").serialize
    made = [_make(library, room, one) for one in objects]
    legacy = [serialize(o, use_legacy_format=True) for o in made if library == "tf_keras"]
    return [serialize(o) for o in made] + legacy


def read_back(room: str, dicts: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The class and config of what ``get`` makes of each dict."""
    get = importlib.import_module(f"keras.{room}").get
    return [(type(o).__name__, o.get_config()) for o in map(get, dicts)]


def seeded_generator(seed: int) -> dict[str, Any]:
    """A serialized Orthogonal whose seed is a SeedGenerator."""
    import keras

    generator = keras.random.SeedGenerator(seed)
    return keras.initializers.serialize(keras.initializers.Orthogonal(1.5, seed=generator))


def samples(made: Made, shape: tuple[int, ...], seeds: int) -> np.ndarray:
    """(seeds, *shape): the values under each seed."""
    name, arguments = made
    return np.stack(
        [
            np.asarray(_make("keras", "initializers", (name, {**arguments, "seed": s}))(shape))
            for s in range(seeds)
        ]
    )


def values(made: Made, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.asarray(_make("keras", "initializers", made)(shape, dtype)).astype(np.float64)


def values_of(given: dict[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """What the initializer of a serialized dict gives."""
    import keras

    return np.asarray(keras.initializers.get(given)(shape))


def build_error(keywords: dict[str, Any]) -> str:
    """The error of building an LSTM(3), or an empty string."""
    import keras

    try:
        keras.layers.LSTM(3, **keywords).build((2, 5, 4))
    except Exception as error:  # whatever it is: the question is whether it builds
        return type(error).__name__
    return ""


def wrong_shape() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The kernel's shape by name and in truth, of a callable initializer that ignores its shape."""
    import keras

    layer = keras.layers.LSTM(3, kernel_initializer=lambda shape, dtype: np.ones((4, 12)))
    layer.build((2, 5, 5))
    return tuple(layer.cell.kernel.shape), layer.get_weights()[0].shape


def lstm_bias(made: Made | None, units: int, unit_forget_bias: bool) -> np.ndarray:
    """The bias of a new float64 LSTM."""
    import keras

    layer = keras.layers.LSTM(
        units,
        dtype="float64",
        bias_initializer=None if made is None else _make("keras", "initializers", made),
        unit_forget_bias=unit_forget_bias,
    )
    layer.build((2, 5, 4))
    return layer.get_weights()[2]


def taken_alive(room: str, objects: list[Made]) -> list[str]:
    """What this package makes of live objects of both Kerases, as repr."""
    get = importlib.import_module(f"kerasish_lstm.{room}").get
    return [repr(get(_make(k, room, o))) for k in ("keras", "tf_keras") for o in objects]


def penalties(requests: list[tuple[Made, np.ndarray, str]]) -> list[Any]:
    """(penalty, gradient) of each tensor, or the name of the error."""
    import tensorflow as tf

    found: list[Any] = []
    for made, x, dtype in requests:
        tensor = tf.constant(x, dtype)
        try:
            with tf.GradientTape() as tape:
                tape.watch(tensor)
                penalty = _make("keras", "regularizers", made)(tensor)
            gradient = tape.gradient(penalty, tensor)
            gradient = tf.zeros_like(tensor) if gradient is None else gradient
            assert penalty.dtype == tensor.dtype
            found.append([np.asarray(tf.cast(v, "float64")) for v in (penalty, gradient)])
        except tf.errors.InvalidArgumentError as error:
            found.append(type(error).__name__)
    return found


def constrained(requests: list[tuple[Made, np.ndarray, str]]) -> list[np.ndarray]:
    import tensorflow as tf

    return [
        np.asarray(tf.cast(_make("keras", "constraints", made)(tf.constant(w, dtype)), "float64"))
        for made, w, dtype in requests
    ]
