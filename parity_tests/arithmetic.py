"""What an arithmetic may cost: float64 runs whose every operator errs as far as another's may.

``Arithmetic`` is Monte Carlo arithmetic (Parker 1997) with the largest error at each operator and a
random sign. With u the unit roundoff (half an ulp of 1), of a result r:

    a + b, a b                    u |r|
    tanh, sigmoid                 u |r|, and 4 ulps of float32: twice what CUDA's manual allows
    tanh of cuDNN in float32      u |r| + 2^-16 |r|: 1.4 times what was measured, 1.07e-5
    a sum of n products a b       u |r| + sqrt(n) s sum |a b| + 2 o sum |a b|

with s the unit roundoff of float32, in which sums are kept, in any order (Higham and Mary 2019; n
in place of sqrt(n) is for rounding errors that all have one sign), and o that of the factors, where
they are rounded first: TF32 keeps 10 bits of mantissa, so 2^-11 to nearest, and 2^-10 where lower
bits are cut off. In 16 bits, which do not hold the inputs, inputs and weights are rounded as well.

``limits`` is twice the largest error of three such runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kerasish_lstm.parity import assert_parity
from kerasish_lstm.parity.bounds import FLOAT64, error

aten = torch.ops.aten
PRODUCTS = {aten.mm.default, aten.addmm.default, aten.bmm.default}
SUMS = {aten.sum.default, aten.sum.dim_IntList, aten.scatter_add.default}
TANH = {aten.tanh.default, aten.tanh_.default}
SIGMOID = {aten.sigmoid.default, aten.sigmoid_.default}
ELEMENTWISE = {
    aten.add.Tensor, aten.add_.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor,
    aten.tanh_backward.default, aten.sigmoid_backward.default,
}  # fmt: skip
ROUNDED = PRODUCTS | SUMS | TANH | SIGMOID | ELEMENTWISE
INPUTS = {aten.lift_fresh.default, aten.copy_.default}
# They move, choose, clear or compare numbers, or make weights that are overwritten.
EXACT = {
    "alias", "any", "arange", "bitwise_and", "bitwise_not", "cat", "clamp", "clone", "cumsum",
    "detach", "diagonal", "empty", "empty_like", "erfinv", "expand", "fill_", "flip", "gather",
    "ge", "gt", "linalg_qr", "_local_scalar_dense", "lt", "masked_fill", "new_zeros", "ones",
    "ones_like", "promote_types", "rand", "scalar_tensor", "select", "select_backward", "sign",
    "slice", "slice_backward", "sort", "split", "squeeze", "stack", "t", "_to_copy", "transpose",
    "unbind", "uniform_", "unsafe_split", "_unsafe_view", "unsqueeze", "view", "where", "zero_",
    "zeros", "zeros_like",
}  # fmt: skip


SINGLE = 2.0**-24


class Rounding(NamedTuple):
    """An arithmetic by its unit roundoffs, of results, of factors, of inputs, and by its tanh."""

    results: float
    factors: float = 0.0
    inputs: float = 0.0
    tanh: float = 8 * SINGLE


FLOAT32 = Rounding(SINGLE)
# cuDNN 9.19's kernels for few units (on an H200 up to 192, not 256) have a tanh of their own: at
# the worst of 19,200 points it was a relative CUDNN_TANH off. It errs to either side.
CUDNN_TANH = 1.07e-5
CUDNN = Rounding(SINGLE, tanh=2.0**-16)
TF32 = Rounding(SINGLE, factors=2.0**-10)
FLOAT16 = Rounding(2.0**-11, inputs=2.0**-11)
BFLOAT16 = Rounding(2.0**-8, inputs=2.0**-8)
ROUNDINGS = {torch.float32: FLOAT32, torch.float16: FLOAT16, torch.bfloat16: BFLOAT16}


class Arithmetic(TorchDispatchMode):
    """Within, float64 operators err by what ``rounding`` allows, with random signs."""

    def __init__(self, rounding: Rounding, seed: int) -> None:
        super().__init__()
        self.rounding = rounding
        self.random = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not (isinstance(result, Tensor) and result.dtype == torch.float64):
            return result
        if func in INPUTS:
            size = self.rounding.inputs * result.abs()
        elif func in ROUNDED:
            size = self.rounding.results * result.abs()
        elif func._schema.name.removeprefix("aten::") in EXACT:
            return result
        else:
            raise NotImplementedError(f"how far may {func} err?")
        if func in PRODUCTS:
            *added, a, b = args
            products = a.abs() @ b.abs()
            size = size + 2 * self.rounding.factors * products
            terms = a.shape[-1] + len(added)
            size = size + terms**0.5 * SINGLE * sum((one.abs() for one in added), products)
        elif func in SUMS:
            absolute = [one.abs() if isinstance(one, Tensor) and one.dtype == torch.float64 else one
                        for one in args]  # fmt: skip
            scattered = func is aten.scatter_add.default
            terms = args[-1].shape[args[1]] if scattered else args[0].numel() / result.numel()
            size = size + terms**0.5 * SINGLE * func(*absolute, **(kwargs or {}))
        elif func in TANH:
            size = size + self.rounding.tanh * result.abs()
        elif func in SIGMOID:
            size = size + 8 * SINGLE * result.abs()
        sign = torch.rand(result.shape, generator=self.random, dtype=torch.float64) - 0.5
        return result.add_(size * sign.sign())


class Tf32(TorchDispatchMode):
    """TF32 on a CPU: within, the factors of float32 products keep 10 bits of mantissa."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in PRODUCTS and args[0].dtype == torch.float32:
            *added, a, b = args
            args = (*added, *((one.view(torch.int32) & ~0x1FFF).view(torch.float32)
                              for one in (a.contiguous(), b.contiguous())))  # fmt: skip
        return func(*args, **(kwargs or {}))


class CudnnTanh(TorchDispatchMode):
    """cuDNN's tanh at its worst, on a CPU: within, float32's is too small by CUDNN_TANH."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in TANH and result.dtype == torch.float32:
            result.mul_(1 - CUDNN_TANH)
        return result


def limits(
    cases: Iterable[Any],
    run: Callable[[Any], Mapping[str, np.ndarray]],
    truth: Callable[[Any], Mapping[str, np.ndarray]],
    rounding: Rounding,
) -> dict[str, float]:
    """By quantity, how far from the truth an arithmetic may lead the cases: see above.

    A run that is wrong without any error of arithmetic has no limits.
    """
    found: dict[str, float] = {}
    for case in cases:
        exact = truth(case)
        for name, value in run(case).items():
            assert_parity(value, exact[name], bound=FLOAT64, what=f"{case.id} {name}")
        for seed in range(3):
            with Arithmetic(rounding, seed):
                actual = run(case)
            for name, value in exact.items():
                found[name] = max(found.get(name, 0.0), 2 * error(actual[name], value))
    return found
