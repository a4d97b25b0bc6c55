"""How far two results may lie apart, and why.

Errors are relative to max(1, largest |truth|). The bounds hold where sensitivity is bounded:
weights uniform in ±1/sqrt(U), T <= 100, saturating activations; unbounded or discontinuous
activations at T <= 7. In chaotic regimes (N(0, 1) recurrent weights at T = 100 amplify an ulp to
1e-3 in any two implementations) no bound exists, and none is asserted.
"""

from __future__ import annotations

import numpy as np
import torch

from ..errors import ConfigError

FLOAT64 = 1e-12  # observed: below 1e-15 for outputs
FLOAT32_ULPS = 4 * float(np.finfo(np.float32).eps)
# cuDNN's float32 with TF32 off: its kernels for few units have a tanh that is up to a relative
# 1.07e-5 off (cuDNN 9.19 on an H200, up to 192 units), and outputs were up to 6.5e-6 off.
CUDA_FLOAT32 = 5e-5
KERAS_FACTOR = 3.0  # times Keras's own largest error against float64, over a group of cases

OUTPUT_ULPS = 16  # of outputs and states, in the units of the result's dtype


def tolerance(dtype: torch.dtype | str, device: torch.device | str = "cpu") -> float:
    """The bound of outputs and states in a dtype on a device, relative to max(1, largest result).

    It holds in the regime above, against float64 truth: on a CPU the suite asserts it for every
    recorded case. For weights of your own :func:`assert_same_as_keras` measures one.

    Args:
        dtype: float64, float32, float16 or bfloat16.
        device: ``"cpu"`` or ``"cuda"``.

    Raises:
        ConfigError: another dtype or device.
    """
    name = str(dtype).removeprefix("torch.")
    kind = str(device).partition(":")[0]
    if name not in ("float64", "float32", "float16", "bfloat16") or kind not in ("cpu", "cuda"):
        raise ConfigError(
            f"tolerance: dtype={name!r}, device={kind!r}; allowed are float64, float32, float16 "
            "and bfloat16, on cpu and cuda."
        )
    if name == "float64":
        return FLOAT64
    ulps = OUTPUT_ULPS * float(torch.finfo(getattr(torch, name)).eps)
    return max(ulps, CUDA_FLOAT32) if kind == "cuda" else ulps


def error(actual: np.ndarray, truth: np.ndarray) -> float:
    """The largest absolute difference, relative to max(1, largest |truth|)."""
    if truth.size == 0:
        return 0.0
    a = np.asarray(actual, np.float64)
    finite = np.abs(truth[np.isfinite(truth)])
    scale = max(1.0, float(finite.max())) if finite.size else 1.0
    with np.errstate(invalid="ignore"):
        same = (a == truth) | (np.isnan(a) & np.isnan(truth))
        difference = np.where(same, 0.0, np.abs(a - truth))
    return float(np.nan_to_num(difference, nan=np.inf, posinf=np.inf).max()) / scale
