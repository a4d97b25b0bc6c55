"""This machine's peaks, and from them the least time that a case can take.

python -m benchmarks.floors     one line of JSON: the peaks with BENCHMARK_THREADS threads
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, data, result_names

ITEMSIZE = {"float32": 4, "float64": 8, "bfloat16": 2}
CACHE = Path("/sys/devices/system/cpu/cpu0/cache")
# Bytes a thread reads beside three quarters of its L2: what lies in the L3 or in memory.
LARGER = (4 << 20, 8 << 20, 16 << 20, 64 << 20)

Peaks = dict[str, Any]


def cache_size(level: int, default: int) -> int:
    """Bytes of the data cache of a level that core 0 has, or ``default`` where nothing says."""
    for index in sorted(CACHE.glob("index*")):
        try:
            words = [(index / name).read_text().strip() for name in ("level", "type", "size")]
            if words[0] == str(level) and words[1] in ("Data", "Unified"):
                return int(words[2].removesuffix("K")) << 10
        except (OSError, ValueError):
            continue
    return default


def measure(threads: int, quick: bool = False) -> Peaks:
    """Operations and bytes a second, the best of several calls.

    gemm: by dtype, of ``torch.mm`` of large squares, or of oneDNN with one of them packed. copy: of
    a copy that no cache holds, bytes read and written. read: [bytes that all threads read together,
    rate] of a sum: within the threads' own L2, of one thread, times the threads; beyond, of all at
    once, since they share what lies there. What an empty call takes is subtracted. l1, l2: bytes of
    all threads' caches. step: seconds of a training step of torch that computes nothing.
    """
    import torch

    def best(call: Callable[[], Any], seconds: float) -> float:
        times: list[float] = []
        end = time.perf_counter() + (0.005 if quick else seconds)
        while len(times) < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return min(times)

    torch.set_num_threads(threads)
    gemm = {}
    for dtype in ITEMSIZE:
        rates = []
        for n in (64,) if quick else (1024, 2048):
            a, b = (torch.randn(n, n).to(getattr(torch, dtype)) for _ in range(2))
            rates += [2 * n**3 / best(call, 0.5) for call in products(a, b)]
        gemm[dtype] = max(rates)
    source = torch.randn((1 << 20 if quick else 256 << 20) // 4)
    target = torch.empty_like(source)
    copy = 2 * source.nbytes / best(lambda: target.copy_(source), 1.0)

    read = {}
    few = torch.randn(16)
    calls = (lambda v: v.sum(), lambda v: torch.dot(v[: len(v) // 2], v[len(v) // 2 :]))
    for size in (cache_size(2, 1 << 20) * 3 // 4, *LARGER[: 0 if quick else None]):
        own = size not in LARGER
        torch.set_num_threads(1 if own else threads)
        times = threads if own else 1
        values = torch.randn(size * threads // times // 8 * 2)
        least = min(
            best(lambda c=call, v=values: c(v), 0.5) - best(lambda c=call: c(few), 0.1)
            for call in calls
        )
        read[size * threads] = size * threads / max(least, 1e-9)
    torch.set_num_threads(threads)
    return {
        "threads": threads,
        "gemm": gemm,
        "copy": copy,
        "read": [[size, rate] for size, rate in sorted(read.items())],
        "l1": cache_size(1, 32 << 10) * threads,
        "l2": cache_size(2, 1 << 20) * threads,
        "step": best(empty_step(), 0.3),
    }


def empty_step() -> Callable[[], Any]:
    """An ``autograd.Function`` that computes nothing, the sum of its output, and the backward."""
    import torch

    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any) -> Any:
            ctx.save_for_backward(x, weight)
            return x.new_empty(2)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            return None, ctx.saved_tensors[1]

    x, weight = torch.zeros(2), torch.nn.Parameter(torch.zeros(2))

    def step() -> None:
        weight.grad = None
        Nothing.apply(x, weight).sum().backward()

    return step


def products(a: Any, b: Any) -> list[Callable[[], Any]]:
    """Ways to compute the product of two matrices."""
    import torch

    calls = [lambda: torch.mm(a, b)]
    operators = torch.ops.mkldnn
    if a.dtype != torch.float64 and torch.backends.mkldnn.is_available():
        with torch.inference_mode():
            packed = operators._reorder_linear_weight(b, len(a))

        def by_onednn() -> Any:
            with torch.inference_mode():
                return operators._linear_pointwise(a, packed, None, "none", [], "")

        calls.append(by_onednn)
    return calls


def better(one: Peaks, other: Peaks) -> Peaks:
    """The higher of each rate of two measurements."""
    reads = zip(one["read"], other["read"], strict=True)
    return one | {
        "gemm": {dtype: max(rate, other["gemm"][dtype]) for dtype, rate in one["gemm"].items()},
        "copy": max(one["copy"], other["copy"]),
        "step": min(one["step"], other["step"]),
        "read": [[size, max(rate, second)] for (size, rate), (_, second) in reads],
    }


def work(case: Case) -> dict[str, int]:
    """What no way to compute a case avoids.

    flops: of the matrix products, 2 a multiplication and addition, of unmasked steps alone. A
    training step adds the gradients of both kernels and of h, and in a stack those of the upper
    layer's input. bytes: x, weights and results, each once. recurrent: bytes of the recurrent
    kernels. steps: how often they are read, which is at each step of the longest row.
    """
    B, T, F, H = case.shape
    arrays = data(case)
    steps, longest = B * T, T
    if arrays["lengths"] is not None:
        steps, longest = int(arrays["lengths"].sum()), int(arrays["lengths"].max())
    product = 2 * steps * 4 * H  # flops of a product with one row of a kernel
    inputs = {"one": [F], "bidirectional": [F, F], "stack": [F, H]}[case.structure]
    flops = sum(product * (features + H) for features in inputs)
    if case.mode == "training":
        flops += flops + sum(product * H for _ in inputs)
        flops += product * H if case.structure == "stack" else 0
    weights = sum(4 * H * (features + H + 1) for features in inputs)
    results = B * H * (2 if case.structure == "bidirectional" else 1)
    results += weights if len(result_names(case)) > 1 else 0
    size = ITEMSIZE[case.dtype]
    passes = 2 if case.mode == "training" else 1
    return {
        "flops": flops,
        "bytes": size * (steps * F + weights + results),
        "recurrent": size * 4 * H * H,
        "steps": longest * len(inputs) * passes,
    }


def read_rate(size: int, peaks: Peaks) -> float:
    """Bytes a second of the largest size measured not above ``size``, or of a larger one."""
    first = max((n for n, (at, _) in enumerate(peaks["read"]) if at <= size), default=0)
    return float(max(rate for _, rate in peaks["read"][first:]))


def floor(case: Case, peaks: Peaks) -> dict[str, Any]:
    """The seconds of each limit, the largest of them, and which it is."""
    needs = work(case)
    limits = {
        "products": needs["flops"] / peaks["gemm"][case.dtype],
        "memory": needs["bytes"] / peaks["copy"],
    }
    if needs["recurrent"] > peaks["l1"]:
        # What a cache can hold may be there from the step before; the rest comes from behind it,
        # and what comes from one can come while another gives.
        size = needs["recurrent"]
        near = (size - peaks["l1"]) / read_rate(min(size, peaks["l2"]), peaks)
        far = max(0, size - peaks["l2"]) / read_rate(size, peaks)
        limits["weights"] = needs["steps"] * max(near, far)
    by = max(limits, key=lambda name: limits[name])
    return {"seconds": limits[by], "by": by, "limits": limits}


if __name__ == "__main__":
    threads = int(os.environ["BENCHMARK_THREADS"])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    print(json.dumps(measure(threads, quick="BENCHMARK_QUICK" in os.environ)))
