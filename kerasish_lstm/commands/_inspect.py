"""What a file holds, as data that JSON can hold."""

from __future__ import annotations

from typing import Any

import torch

from ..layers.bidirectional import Bidirectional
from ..layers.parameters import recurrent_parts
from ..layers.stacked import StackedLSTM
from ..layers.time_distributed import TimeDistributed
from ..parity import certificate
from ..parity.trials import input_size
from ..storage import Module
from ._sources import Source

_FLAGS = (
    "return_sequences", "return_state", "go_backwards", "stateful", "zero_output_for_mask",
)  # fmt: skip


def described(name: str, module: Module) -> dict[str, Any]:
    """One layer: its class, sizes, parameters, activations, engine and unusual numbers."""
    parts = recurrent_parts(module)
    activations, reasons, units = [], [], []
    for part in parts:
        pair = [_shown(part.config.activation), _shown(part.config.recurrent_activation)]
        if pair not in activations:
            activations.append(pair)
        reason = part.why_not_fused(training=False)
        if reason is not None and reason not in reasons:
            reasons.append(reason)
        units.append(part.units)
    inner: Any = module.layer if isinstance(module, TimeDistributed) else module
    found: dict[str, Any] = {
        "name": name,
        "class": type(module).__name__,
        "input_size": input_size(module),
        "units": units,
        "parameters": module.count_params(),
        "dtype": str(parts[0].lstm.weight_hh_l0.dtype).removeprefix("torch."),
        "activations": activations,
        "engine": "scan" if reasons else "fused",
        "why_not_fused": reasons,
        "weights": [list(w.shape) for w in module.get_weights()],
        "not_finite": not_finite(module),
        "trainable": module.trainable,
    }
    flags = [f for f in _FLAGS if getattr(inner, f, getattr(parts[0].config, f))]
    found["flags"] = flags
    if isinstance(inner, Bidirectional):
        found["merge_mode"] = inner.merge_mode
    if isinstance(inner, StackedLSTM):
        found["stack"] = "cells" if inner.of_cells else "layers"
    return found


def not_finite(module: Module) -> list[str]:
    """The weights that hold a NaN or an infinity."""
    return [name for name, p in module.named_parameters() if not bool(torch.isfinite(p).all())]


def inspected(source: Source) -> dict[str, Any]:
    """The whole file."""
    return {
        "file": source.path.name,
        "format": source.format,
        "keras_version": source.version,
        "weights_alone": source.bare,
        "layers": [described(name, module) for name, module in source.modules.items()],
        "left_out": [
            {"name": x.name, "class": x.kind, "reason": x.reason, "has_lstm": x.has_lstm}
            for x in source.left_out
        ],
        "provenance": source.metadata.get("provenance"),
        "recorded": certificate.names(source.metadata.get("golden", {})),
    }


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else str(getattr(value, "__name__", repr(value)))
