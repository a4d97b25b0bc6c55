"""One library in a process of its own, driven by the parent: a line of JSON in, a line out.

    {"do": "prepare", "case": [...], "arrays": PATH}  run once; write output() to PATH (.npz)
    {"do": "time", "case": [...], "repeats": n, "warm_up": m}   m untimed calls, then n timed ones
    {"do": "stop"}

It works when told to and sleeps in a read otherwise, so that libraries take turns.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import time
from pathlib import Path

PACKAGES = ("torch", "keras", "tensorflow", "jax", "jaxlib", "numpy")


def load(implementation: str):
    """A module of benchmarks.implementations by name, or any file by its path (``*.py``)."""
    if not implementation.endswith(".py"):
        return importlib.import_module(f"benchmarks.implementations.{implementation}")
    spec = importlib.util.spec_from_file_location(Path(implementation).stem, implementation)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def describe() -> dict:
    """The versions of what this process has loaded, and its thread count."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        if name in sys.modules:
            found[name] = importlib.metadata.version(name)
    if "kerasish_lstm" in sys.modules:
        found["kerasish_lstm"] = getattr(sys.modules["kerasish_lstm"], "__version__", "?")
    threads = {}
    if "torch" in sys.modules:
        threads["torch.get_num_threads"] = sys.modules["torch"].get_num_threads()
    if "tensorflow" in sys.modules:
        tf = sys.modules["tensorflow"]
        threads["TF_NUM_INTRAOP_THREADS"] = int(os.environ.get("TF_NUM_INTRAOP_THREADS", "0"))
        threads["tf.intra_op"] = tf.config.threading.get_intra_op_parallelism_threads()
    if "jax" in sys.modules:
        threads["cores allowed"] = len(os.sched_getaffinity(0))
    return {"versions": found, "threads": threads}


def seconds(run, state) -> float:
    start = time.perf_counter()
    run(state)
    return time.perf_counter() - start


def serve(requests, answers, implementation: str) -> None:
    def answer(**values) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        module = load(implementation)
    except ModuleNotFoundError as error:
        answer(status="missing", message=f"{error.name} is not installed")
        return
    from benchmarks.cases import Case, data

    answer(status="ok", **describe())
    states = {}
    for line in requests:
        request = json.loads(line)
        if request["do"] == "stop":
            return
        case = Case(*request["case"])
        try:
            if request["do"] == "prepare":
                states = {c: s for c, s in states.items() if c[:5] == case[:5]}
                state = module.prepare(case, data(case))
                first = seconds(module.run, state)
                import numpy as np

                np.savez(request["arrays"], **module.output(state))
                states[case] = state
                answer(status="ok", first=first)
            else:
                state = states[case]
                for _ in range(request["warm_up"]):
                    module.run(state)
                gc.disable()
                times = [seconds(module.run, state) for _ in range(request["repeats"])]
                gc.enable()
                answer(status="ok", times=times)
        except NotImplementedError as error:
            answer(status="unsupported", message=str(error))
        except Exception as error:  # one library's failure is a row in the report, not its end
            answer(status="error", message=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    protocol = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    count = int(os.environ["BENCHMARK_THREADS"])
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if count < len(cores):  # XLA takes a thread a core, and has no option for it
            os.sched_setaffinity(0, cores[:count])
    serve(sys.stdin, protocol, sys.argv[1])
