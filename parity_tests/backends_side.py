"""Runs where live Keras 3 runs, on any of its backends: results and gradients of LSTM layers."""

from __future__ import annotations

from typing import Any

import numpy as np


def versions() -> dict[str, str]:
    """Of Keras and of its backend."""
    import importlib

    import keras

    name = keras.backend.backend()
    return {"keras": keras.__version__, name: importlib.import_module(name).__version__}


def run(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As ``keras_live.run``, without dropout, with gradients where the request asks for them."""
    return [_run_one(**request) for request in requests]


def _run_one(
    keywords: dict[str, Any], arrays: dict[str, Any], dtype: str, gradients: bool
) -> dict[str, Any]:
    import keras

    from .keras_live import _layer

    layer = _layer(keywords, arrays, dtype)
    mask = arrays.get("mask")
    mask = None if mask is None else keras.ops.convert_to_tensor(mask)
    tensors = {
        name: keras.ops.convert_to_tensor(array, dtype)
        for name, array in arrays.items()
        if name != "mask"
    }
    if "first_x" in arrays:
        layer(tensors["first_x"], mask=mask)
    watched = {name: tensors[name] for name in ("x", "h0", "c0") if name in tensors}
    if gradients:
        found, slopes = _GRADIENTS[keras.backend.backend()](layer, watched, mask, tensors)
    else:
        found, slopes = _results(_call(layer, watched, mask)), {}
    arrays = {**found, **{f"d_{name}": slope for name, slope in slopes.items()}}
    return {k: np.asarray(keras.ops.convert_to_numpy(v), np.float64) for k, v in arrays.items()}


def _call(layer: Any, watched: dict[str, Any], mask: Any) -> Any:
    state = [watched["h0"], watched["c0"]] if "h0" in watched else None
    return layer(watched["x"], initial_state=state, mask=mask)


def _results(result: Any) -> dict[str, Any]:
    result = result if isinstance(result, list | tuple) else (result,)
    return dict(zip(("output", "h", "c"), result, strict=False))


def _loss(found: dict[str, Any], tensors: dict[str, Any]) -> Any:
    return sum((value * tensors[f"d_{name}"]).sum() for name, value in found.items())


_WEIGHTS = ("kernel", "recurrent_kernel", "bias")


def _by_torch(layer: Any, watched: dict[str, Any], mask: Any, tensors: dict[str, Any]) -> Any:
    import torch

    watched = {name: tensor.requires_grad_() for name, tensor in watched.items()}
    found = _results(_call(layer, watched, mask))
    named = watched | {n: w.value for n, w in zip(_WEIGHTS, layer.weights, strict=False)}
    slopes = torch.autograd.grad(_loss(found, tensors), list(named.values()), allow_unused=True)
    # None: Keras finds no path to it, which is a gradient of zero
    pairs = zip(named.items(), slopes, strict=True)
    return found, {n: torch.zeros_like(t) if s is None else s for (n, t), s in pairs}


def _by_jax(layer: Any, watched: dict[str, Any], mask: Any, tensors: dict[str, Any]) -> Any:
    import jax

    weights = [w.value for w in layer.trainable_variables]
    others = [w.value for w in layer.non_trainable_variables]

    def loss(weights: Any, watched: dict[str, Any]) -> Any:
        state = [watched["h0"], watched["c0"]] if "h0" in watched else None
        result, _ = layer.stateless_call(
            weights, others, watched["x"], initial_state=state, mask=mask
        )
        found = _results(result)
        return _loss(found, tensors), found

    (of_weights, of_inputs), found = jax.grad(loss, argnums=(0, 1), has_aux=True)(weights, watched)
    return found, {**of_inputs, **dict(zip(_WEIGHTS, of_weights, strict=False))}


_GRADIENTS = {"torch": _by_torch, "jax": _by_jax}
