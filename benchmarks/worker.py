"""One library in a process of its own, driven by the parent: a line of JSON in, a line out.

    {"do": "prepare", "case": [...], "arrays": PATH}  run twice; write output() to PATH (.npz)
    {"do": "draw", "case": [...]}   from now on dropout masks of its own
    {"do": "time", "case": [...], "repeats": n, "warm_up": s}   s seconds untimed, then n calls
    {"do": "again", "case": [...], "arrays": PATH}   run once more; write output() to PATH
    {"do": "memory", "case": [...]}   one call; the peak of memory above what was held before it
    {"do": "forget"}   drop all that was prepared

It works when told to and sleeps in a read otherwise, so that libraries take turns.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.cases import DEVICE, PATIENCE, Case, data, result_names

PACKAGES = (
    "kerasish_lstm", "torch", "keras", "tensorflow", "jax", "jaxlib", "onnx", "onnxruntime",
    "openvino", "numpy",
)  # fmt: skip


def load(implementation: str):
    """A module of benchmarks.implementations by name, or any file by its path (``*.py``)."""
    if not implementation.endswith(".py"):
        return importlib.import_module(f"benchmarks.implementations.{implementation}")
    spec = importlib.util.spec_from_file_location(Path(implementation).stem, implementation)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def describe() -> dict:
    """The versions of what this process has loaded, its thread counts and its device."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        if name in sys.modules:
            versions[name] = getattr(sys.modules[name], "__version__", "?")
    threads = {}
    if hasattr(os, "sched_getaffinity"):
        threads["cores allowed"] = len(os.sched_getaffinity(0))
    device = platform.machine()
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        threads["torch.get_num_threads"] = torch.get_num_threads()
        if DEVICE == "cuda":
            device = torch.cuda.get_device_name()
            versions["cuda"], versions["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()
    if "tensorflow" in sys.modules:
        threads["TF_NUM_INTRAOP_THREADS"] = int(os.environ.get("TF_NUM_INTRAOP_THREADS", "0"))
    about = {"versions": versions, "threads": threads, "device": device}
    if hasattr(sys.modules.get("kerasish_lstm"), "native_status"):
        status = sys.modules["kerasish_lstm"].native_status()
        used = f"active, {status.instruction_set}"
        about["native"] = used if status.available else f"not active: {status.reason}"
    return about


def prepare_device():
    """Full float32 on a GPU, and the function that waits for it; on a CPU nothing to wait for."""
    if DEVICE != "cuda":
        return lambda: None
    import torch

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch.cuda.synchronize


class TooSlow(Exception):
    """A call that nobody would wait for again."""


def resident(key: str) -> int:
    """VmRSS or VmHWM (the highest so far), in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) << 10


def peak_memory(call, *arguments) -> int:
    """Bytes that a call needs above what the process holds before it, on the device."""
    gc.collect()
    if DEVICE == "cuda":
        cuda = sys.modules["torch"].cuda
        before = cuda.memory_allocated()
        cuda.reset_peak_memory_stats()
        call(*arguments)
        return cuda.max_memory_allocated() - before
    with contextlib.suppress(OSError, AttributeError):  # freed, but not yet the system's
        ctypes.CDLL(None).malloc_trim(0)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    call(*arguments)
    return resident("VmHWM") - before


def serve(requests, answers, implementation: str) -> None:
    def draw(case, state) -> None:
        """Let the library draw its own masks, twice: then what it compiles is compiled."""
        given = dict(zip(result_names(case), module.output(state), strict=False))
        module.draw_own_masks(state)
        for _ in range(2):
            seconds(state, change=False)
        drawn = dict(zip(given, module.output(state), strict=True))
        for name, array in drawn.items():
            assert array.shape == given[name].shape and array.dtype == given[name].dtype, name
            assert np.isfinite(array).all(), f"{name} is not finite with masks of its own"
        assert (drawn["output"] != given["output"]).any(), "it draws no masks of its own"

    def write(path, case, state) -> None:
        """The results of the last call."""
        np.savez(path, **dict(zip(result_names(case), module.output(state), strict=False)))

    def answer(**values) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    def seconds(state, change=True) -> float:
        """Of one call; before it, as between the steps of a training, other weights."""
        if change and hasattr(module, "between"):
            module.between(state)
            turned[id(state)] = not turned.get(id(state), False)
        synchronize()
        start = time.perf_counter()
        module.run(state)
        synchronize()
        return time.perf_counter() - start

    try:
        start = time.perf_counter()
        module = load(implementation)
        imported = time.perf_counter() - start
        synchronize = prepare_device()
        about = describe()
    except Exception as error:
        package = (getattr(error, "name", None) or "").partition(".")[0]
        absent = package and importlib.util.find_spec(package) is None
        if isinstance(error, ModuleNotFoundError) and absent:
            answer(status="missing", message=f"{package} is not installed")
        else:
            answer(status="error", message=f"{type(error).__name__}: {error}")
        return
    answer(status="ok", imported=imported, **about)
    gc.freeze()  # else each collection goes through all that the library has imported

    states, turned = {}, {}  # case -> state; id of a state -> whether its weights are the others
    for line in requests:
        request = json.loads(line)
        if request["do"] == "forget":
            states.clear()
            turned.clear()
            gc.collect()
            gc.freeze()  # some import more at a case
            answer(status="ok")
            continue
        case = Case(*request["case"])
        try:
            if request["do"] == "prepare":
                arrays = data(case)
                start = time.perf_counter()
                state = module.prepare(case, arrays)
                turned.pop(id(state), None)  # of a state that is gone
                prepared = time.perf_counter() - start
                first = seconds(state, change=False)
                if first > PATIENCE:
                    raise TooSlow(f"one call took {first:.0f} s: not gone on with")
                # The second call's numbers are the ones checked: a gradient that adds up from
                # call to call is right the first time.
                second = seconds(state, change=False)
                write(request["arrays"], case, state)
                states[case] = state
                way = module.way(state) if hasattr(module, "way") else None
                answer(status="ok", prepared=prepared, first=first, second=second, way=way)
            elif request["do"] == "draw":
                draw(case, states[case])
                answer(status="ok")
            elif request["do"] == "again":
                state = states[case]
                seconds(state)
                if hasattr(module, "between") and not turned[id(state)]:
                    seconds(state)
                write(request["arrays"], case, state)
                answer(status="ok", negated=turned.get(id(state), False))
            elif request["do"] == "memory":
                state = states[case]
                answer(status="ok", peak=peak_memory(seconds, state))
            else:
                state = states[case]
                # One at least: what the process has freed before its rest, a virtual machine may
                # have given back, and the first call pays for it.
                end = time.perf_counter() + request["warm_up"]
                seconds(state)
                while time.perf_counter() < end:
                    seconds(state)
                gc.collect()
                gc.disable()
                try:
                    times = [seconds(state) for _ in range(request["repeats"])]
                finally:
                    gc.enable()
                answer(status="ok", times=times)
        except TooSlow as error:
            answer(status="too slow", message=str(error))
        except NotImplementedError as error:
            answer(status="unsupported", message=str(error))
        except Exception as error:  # one library's failure is a row in the report, not its end
            message = " ".join(str(error).split())[:500]
            answer(status="error", message=f"{type(error).__name__}: {message}")


if __name__ == "__main__":
    protocol = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    count = int(os.environ["BENCHMARK_THREADS"])
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if count < len(cores):  # XLA takes a thread a core, and has no option for it
            os.sched_setaffinity(0, cores[:count])
    serve(sys.stdin, protocol, sys.argv[1])
