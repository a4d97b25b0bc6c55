"""What the tests of saving run inside the Keras process."""

from __future__ import annotations

import json
import zipfile
from typing import Any


def _keras(library: str) -> Any:
    import importlib

    return importlib.import_module(library)


def loaded(library: str, path: str, inputs: list[Any], weights: list[str]) -> dict[str, Any]:
    """What a whole model answers to inputs, its layers, its weights, whether they are trained;
    then the same of the model with other weights, once ``weights`` have been loaded into it."""
    keras = _keras(library)
    model = keras.models.load_model(path)
    found = {
        "results": _results(model, inputs),
        "layers": {layer.name: _arrays(layer) for layer in model.layers if layer.weights},
        "frozen": [y.name for y in model.layers if y.weights and not y.trainable_weights],
        "model": type(model).__name__,
    }
    found["again"] = _with_each(model, weights)
    return found


def _with_each(model: Any, weights: list[str]) -> list[dict[str, Any]]:
    """The layers' weights, zeroed before each file is loaded."""
    found = []
    for path in weights:
        for variable in model.weights:
            variable.assign(variable * 0)
        model.load_weights(path)
        found.append({layer.name: _arrays(layer) for layer in model.layers if layer.weights})
    return found


def registered(library: Any) -> None:
    """The other generation's hard_sigmoid is known from now on."""
    from kerasish_lstm import register_keras_objects

    register_keras_objects(library)


def built(library: str, model: str, weights: list[str]) -> list[dict[str, Any]]:
    """The layers' weights of a new model of a ``.keras`` file's config, after each file."""
    keras = _keras(library)
    with zipfile.ZipFile(model) as archive:
        config = json.loads(archive.read("config.json"))["config"]
    kind = keras.Sequential if "input_layers" not in config else keras.Model
    return _with_each(kind.from_config(config), weights)


def _arrays(layer: Any) -> list[Any]:
    """In float32 where it is bfloat16, which pickles need a library for."""
    import numpy as np

    arrays = [np.asarray(array) for part in _cells(layer) for array in part.get_weights()]
    return [a.astype("float32") if a.dtype.name == "bfloat16" else a for a in arrays]


def _cells(layer: Any) -> list[Any]:
    """The cells in the package's order, whatever is frozen."""
    if hasattr(layer, "forward_layer"):
        return [*_cells(layer.forward_layer), *_cells(layer.backward_layer)]
    if hasattr(layer, "layer"):
        return _cells(layer.layer)
    if hasattr(layer, "layers"):
        return [cell for one in layer.layers for cell in _cells(one)]
    if hasattr(layer, "cell"):
        return list(getattr(layer.cell, "cells", [layer.cell]))
    return []


def _results(model: Any, inputs: list[Any]) -> list[Any]:
    import numpy as np
    import tensorflow as tf

    results = model(inputs[0] if len(inputs) == 1 else inputs, training=False)
    return [np.asarray(tf.cast(t, tf.float64)) for t in tf.nest.flatten(results)]
