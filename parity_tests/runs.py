"""Running one case in this package, in the form in which Keras's answers come."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from kerasish_lstm import LSTM, DropoutMasks
from kerasish_lstm._native import native_status
from kerasish_lstm.parity import oracle

from .cases import Case

# What use_cudnn="auto" chooses on a CPU for the default activations.
CHOSEN = "native" if native_status().available else "fused"


def build(
    case: Case, arrays: dict[str, np.ndarray], dtype: torch.dtype | str, **keywords: object
) -> LSTM:
    """The layer of a case, with its weights."""
    layer: LSTM = LSTM(
        arrays["kernel"].shape[0],
        arrays["recurrent_kernel"].shape[0],
        dtype=dtype,
        **{**case.keywords(), **keywords},
    )
    layer.set_weights([arrays[k] for k in ("kernel", "recurrent_kernel", "bias") if k in arrays])
    return layer


def ours(
    case: Case, dtype: torch.dtype | str, device: torch.device | str = "cpu", **keywords: object
) -> dict[str, np.ndarray]:
    """Outputs, states and gradients of a case, as float64 arrays; dtype may be a mixed policy.

    Every masked step of x holds NaN or infinity: they must reach nothing.
    """
    arrays = case.inputs()
    layer = build(case, arrays, dtype, **keywords).to(device)
    dtype = layer.lstm.weight_ih_l0.dtype
    poisoned = dict(arrays)
    if "mask" in arrays:
        for name in {"x", "first_x"} & set(arrays):
            x = arrays[name].copy()
            x[~arrays["mask"]] = [np.nan, np.inf, -np.inf] * 4 if x.shape[2] == 12 else np.nan
            poisoned[name] = x
    tensors = {
        k: torch.tensor(v, dtype=torch.bool if k == "mask" else dtype, device=device)
        for k, v in poisoned.items()
    }
    mask = tensors.get("mask")
    options: dict[str, Any] = {"mask": mask}
    if case.dropout != "none":
        dropped = (tensors.get("dropout_mask"), tensors.get("recurrent_dropout_mask"))
        masks = (m if m is None or len(m) == 4 else m[0] for m in dropped)
        options |= {"training": True, "dropout_masks": DropoutMasks(*masks)}
    if "first_x" in tensors:
        layer(tensors["first_x"], **options)
    x = tensors["x"].requires_grad_()
    watched = {"d_x": x, "d_kernel": layer.lstm.weight_ih_l0}
    watched["d_recurrent_kernel"] = layer.lstm.weight_hh_l0
    if case.use_bias:
        watched["d_bias"] = layer.lstm.bias_ih_l0
    state = None
    if "h0" in tensors:
        state = (tensors["h0"].requires_grad_(), tensors["c0"].requires_grad_())
        watched |= {"d_h0": state[0], "d_c0": state[1]}
    result = layer(x, initial_state=state, **options)
    result = result if isinstance(result, tuple) else (result,)
    loss = sum(
        (r * tensors[d]).sum() for r, d in zip(result, ("d_output", "d_h", "d_c"), strict=False)
    )
    gradients = torch.autograd.grad(loss, list(watched.values()), allow_unused=True)
    found = dict(zip(("output", "h", "c"), result, strict=False))
    for (name, tensor), gradient in zip(watched.items(), gradients, strict=True):
        found[name] = torch.zeros_like(tensor) if gradient is None else gradient
    for name in ("d_kernel", "d_recurrent_kernel"):
        found[name] = found[name].t()
    return {k: v.detach().double().cpu().numpy() for k, v in found.items()}


def truth(case: Case) -> dict[str, np.ndarray]:
    """The same by the float64 oracle."""
    a = case.inputs()
    weights = [a["kernel"], a["recurrent_kernel"], a.get("bias")]
    options = {
        "mask": a.get("mask"),
        "go_backwards": case.go_backwards,
        "return_sequences": case.return_sequences,
        "zero_output_for_mask": case.zero_output_for_mask,
        "activation": case.activation,
        "recurrent_activation": case.recurrent_activation,
        "recurrent_dropout": a.get("recurrent_dropout_mask"),
    }
    if "dropout_mask" in a:
        options["input_dropout"] = a["dropout_mask"][:, :, None]
    state = {"h0": a.get("h0"), "c0": a.get("c0")}
    if "first_x" in a:
        first = oracle.forward(a["first_x"], *weights, **options)
        state = {"h0": first.h, "c0": first.c}
    result = oracle.forward(a["x"], *weights, **state, **options)
    cotangents = {k: a.get(k) for k in ("d_output", "d_h", "d_c")}
    gradients = oracle.gradients(a["x"], *weights, **state, **options, **cotangents)
    found = {"output": result.output}
    if case.return_state:
        found |= {"h": result.h, "c": result.c}
    for name, gradient in gradients._asdict().items():
        if gradient is not None and (name not in ("h0", "c0") or case.state == "given"):
            found[f"d_{name}"] = gradient
    return found
