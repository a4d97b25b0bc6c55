"""A plain ``jax.lax.scan`` LSTM under ``jax.jit``, without Keras.

The input's matrix product is taken for all steps at once, before the scan: what one writes by hand
for speed, and a harder opponent than Keras's JAX backend, which does it step by step.
"""

from __future__ import annotations

import os
from functools import partial
from types import SimpleNamespace

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_ENABLE_X64"] = "1"  # without it there is no float64; float32 stays float32

import jax
import jax.numpy as jnp
import numpy as np


def lstm(case, weights, x, mask, dropout):
    """The outputs of all steps, (T, B, H). dropout: (4, B, H), by gate."""
    kernel, recurrent_kernel, bias = weights
    steps = jnp.swapaxes(x @ kernel + bias, 0, 1)  # (T, B, 4H)
    zeros = jnp.zeros((x.shape[0], case.H), x.dtype)
    masks = None if mask is None else jnp.swapaxes(mask, 0, 1)[:, :, None]  # (T, B, 1)
    gate = jax.nn.sigmoid if case.recurrent_activation == "sigmoid" else jax.nn.hard_sigmoid
    by_gate = recurrent_kernel.reshape(case.H, 4, case.H)

    def step(carry, now):
        h, c = carry
        projected, keep = now
        if dropout is None:
            products = h @ recurrent_kernel
        else:
            products = jnp.einsum("gbh,hgk->bgk", h * dropout, by_gate).reshape(projected.shape)
        i, f, g, o = jnp.split(projected + products, 4, axis=-1)
        new_c = gate(f) * c + gate(i) * jnp.tanh(g)
        new_h = gate(o) * jnp.tanh(new_c)
        if keep is not None:
            new_h, new_c = jnp.where(keep, new_h, h), jnp.where(keep, new_c, c)
        # Only a stack needs all outputs.
        return (new_h, new_c), new_h if case.structure == "stack" else None

    return jax.lax.scan(step, (zeros, zeros), (steps, masks))


def last_output(case, weights, x, mask, dropout):
    (h, _), outputs = lstm(case, weights[:3], x, mask, dropout)
    if case.structure == "stack":
        (h, _), _ = lstm(case, weights[3:], jnp.swapaxes(outputs, 0, 1), mask, None)
    elif case.structure == "bidirectional":
        flipped = None if mask is None else mask[:, ::-1]
        (backward, _), _ = lstm(case, weights[3:], x[:, ::-1], flipped, None)
        h = jnp.concatenate([h, backward], -1)
    return h


def drawn(case, key, dtype):
    kept = 1 - case.recurrent_dropout
    return (jax.random.bernoulli(key, kept, (4, case.B, case.H)) / kept).astype(dtype)


def prepare(case, data):
    weights = tuple(jnp.asarray(w, case.dtype) for w in data["weights"].values())
    x = jnp.asarray(data["x"], case.dtype)
    mask, dropout = (
        None if data[name] is None else jnp.asarray(data[name]) for name in ("mask", "dropout")
    )

    def result(weights, x, mask, dropout, key=None):
        if key is not None:
            dropout = drawn(case, key, x.dtype)
        y = last_output(case, weights, x, mask, dropout)
        return y if case.mode == "inference" else (y.sum(), y)

    step = jax.jit(result if case.mode == "inference" else jax.grad(result, has_aux=True))
    inputs = (weights, x, mask, dropout)
    return SimpleNamespace(case=case, step=step, inputs=inputs, result=None)


def draw_own_masks(state):
    state.inputs = (*state.inputs[:3], None)
    state.step = partial(state.step, key=jax.random.key(0))


def run(state):
    state.result = jax.block_until_ready(state.step(*state.inputs))


def output(state):
    if state.case.mode == "inference":
        found = [state.result]
    else:
        gradients, y = state.result
        found = [y, *gradients]
    return [np.asarray(a if a.dtype == jnp.float64 else a.astype(jnp.float32)) for a in found]
