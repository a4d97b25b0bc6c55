"""Keras's dtype policies: what a caller gives, the parameters' dtype, that of the arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import numpy as np
import torch

from ..config import policy_name
from ..errors import ConfigError


class Policy(Protocol):
    """Keras's ``DTypePolicy``, as far as it matters here."""

    @property
    def name(self) -> str: ...


Device = torch.device | str | int | None
DType = torch.dtype | str | np.dtype[Any] | type[np.generic] | Policy | Mapping[str, Any] | None

DTYPES: dict[str, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
# The dtype in which Keras's mixed policies compute; their parameters are float32.
MIXED: dict[str, torch.dtype] = {
    "mixed_float16": torch.float16,
    "mixed_bfloat16": torch.bfloat16,
}


def plain_dtype(dtype: DType) -> torch.dtype | str | None:
    """A dtype or policy of any form (NumPy's, a Keras policy or its config) as torch's, or a name.

    Raises:
        ConfigError: a dict that is no policy's config.
    """
    if dtype is None or isinstance(dtype, torch.dtype | str):
        return dtype
    if isinstance(dtype, Mapping):
        return policy_name(dtype)
    if isinstance(dtype, type) and issubclass(dtype, np.generic):
        return np.dtype(dtype).name
    name = getattr(dtype, "name", None)
    return name if isinstance(name, str) else cast(str, dtype)  # which stored_dtype refuses


def stored_dtype(
    dtype: DType, policy: str | None, kind: str
) -> tuple[torch.dtype | None, str | None]:
    """The parameters' dtype, and the policy to remember, of what the caller and the config say."""
    dtype = plain_dtype(dtype)
    if isinstance(dtype, str):
        dtype, policy = None, dtype
    if dtype is not None:
        if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise ConfigError(
                f"{kind}: dtype={dtype!r} is not a floating-point torch.dtype, such as "
                f"torch.float32, or one of Keras's policies: {', '.join((*DTYPES, *MIXED))}."
            )
        return dtype, policy
    if policy is None:
        return None, None
    if policy not in DTYPES and policy not in MIXED:
        raise ConfigError(
            f"{kind}: dtype={policy!r} is not a policy that is known here; allowed are "
            f"{', '.join((*DTYPES, *MIXED))}, and any floating-point torch.dtype."
        )
    return DTYPES.get(policy, torch.float32), policy


def result_dtype(dtype: DType, kind: str) -> torch.dtype | None:
    """The dtype in which a wrapper with this dtype or policy gives its results."""
    stored, policy = stored_dtype(dtype, None, kind)
    return MIXED.get(policy or "", stored)


def policy_of(stored: torch.dtype, policy: str | None) -> str:
    """The name of the policy of parameters of this dtype that were built with this policy."""
    name = str(stored).removeprefix("torch.")
    return policy if policy in MIXED and name == "float32" else name
