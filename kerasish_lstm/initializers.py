"""Keras's default initialization of an LSTM, in place, on torch's layout.

Distributions are Keras 3.15's on Keras's axes; draws come from torch's generator, so they are
equal in distribution and not number by number.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _filled(weight: Tensor, fill: str) -> None:
    """Fill in float32 at least: QR has no kernel for 16-bit floats."""
    wide = torch.empty(
        weight.shape, device=weight.device, dtype=torch.promote_types(weight.dtype, torch.float32)
    )
    getattr(nn.init, fill)(wide)
    weight.copy_(wide)


@torch.no_grad()
def glorot_uniform(weight_ih: Tensor) -> None:
    """U(-L, L), L = sqrt(6 / (F + 4U)), of weight_ih (4U, F)."""
    _filled(weight_ih, "xavier_uniform_")


@torch.no_grad()
def orthogonal(weight_hh: Tensor) -> None:
    """weight_hh (4U, U) with orthonormal columns: Keras's (U, 4U) with orthonormal rows."""
    _filled(weight_hh, "orthogonal_")


@torch.no_grad()
def zeros_but_forget(bias: Tensor, unit_forget_bias: bool) -> None:
    """Zeros (4U,), with ones for the forget gate where ``unit_forget_bias``."""
    bias.zero_()
    if unit_forget_bias:
        units = bias.shape[0] // 4
        bias[units : 2 * units] = 1.0
