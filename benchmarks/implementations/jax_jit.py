"""A plain ``jax.lax.scan`` LSTM under ``jax.jit``, without Keras.

The input's matrix product is taken for all steps at once, before the scan: what one writes by hand
for speed, and a harder opponent than Keras's JAX backend, which does it step by step.
"""

from __future__ import annotations

import os
from types import SimpleNamespace

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np


def last_output(weights, x, mask):
    kernel, recurrent_kernel, bias = weights
    steps = jnp.swapaxes(x @ kernel + bias, 0, 1)  # (T, B, 4H)
    zeros = jnp.zeros((x.shape[0], recurrent_kernel.shape[0]), x.dtype)
    masks = None if mask is None else jnp.swapaxes(mask, 0, 1)[:, :, None]  # (T, B, 1)

    def step(carry, now):
        h, c = carry
        projected, keep = now
        i, f, g, o = jnp.split(projected + h @ recurrent_kernel, 4, axis=-1)
        new_c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        new_h = jax.nn.sigmoid(o) * jnp.tanh(new_c)
        if keep is not None:
            new_h, new_c = jnp.where(keep, new_h, h), jnp.where(keep, new_c, c)
        return (new_h, new_c), None

    return jax.lax.scan(step, (zeros, zeros), (steps, masks))[0][0]


def loss(weights, x, mask):
    y = last_output(weights, x, mask)
    return y.sum(), y


def prepare(case, data):
    weights = tuple(jnp.asarray(data[k]) for k in ("kernel", "recurrent_kernel", "bias"))
    x = jnp.asarray(data["x"])
    mask = None if data["mask"] is None else jnp.asarray(data["mask"])
    step = last_output if case.mode == "inference" else jax.grad(loss, has_aux=True)
    return SimpleNamespace(case=case, step=jax.jit(step), inputs=(weights, x, mask), result=None)


def run(state):
    state.result = jax.block_until_ready(state.step(*state.inputs))


def output(state):
    if state.case.mode == "inference":
        return {"output": np.asarray(state.result)}
    gradients, y = state.result
    names = ("kernel_gradient", "recurrent_kernel_gradient", "bias_gradient")
    return {"output": np.asarray(y), **dict(zip(names, map(np.asarray, gradients), strict=True))}
