"""Real Keras in a process of its own: requests of arrays in, arrays out.

    with KerasLive("tensorflow") as keras:
        results = keras.run(requests)

A process of its own, because Keras has one backend a process, TensorFlow and torch quarrel
over threads, and the suite's own process must show that it needs neither. The frames are pickles
between this suite and itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).resolve().parent.parent


def missing(backend: str = "tensorflow") -> str | None:
    """Why live Keras cannot run here, or None."""
    needed = ("tf_keras",) if backend == "tf_keras" else ("keras", backend)
    lacking = [name for name in needed if importlib.util.find_spec(name) is None]
    return f"{' and '.join(lacking)} not installed" if lacking else None


class KerasLive:
    """A child process that runs Keras: ``backend`` is a Keras 3 backend, or ``"tf_keras"``."""

    def __init__(self, backend: str = "tensorflow") -> None:
        environment = dict(os.environ)
        environment |= {
            "KERAS_BACKEND": "tensorflow" if backend == "tf_keras" else backend,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",  # the judge is Keras on the CPU
            "TF_ENABLE_ONEDNN_OPTS": "0",
            "JAX_ENABLE_X64": "1",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiling costs more than running
            "PYTHONPATH": str(ROOT),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "parity_tests.keras_live", backend],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=ROOT,
        )

    def __enter__(self) -> KerasLive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(30)

    def call(self, function: str, *arguments: Any) -> Any:
        """The result of one of this file's functions, run in the child; or of another file of the
        suite, as ``"keras_side.make_files"``."""
        assert self._process.stdin is not None and self._process.stdout is not None
        _write(self._process.stdin, (function, arguments))
        kind, value = _read(self._process.stdout)
        if kind == "error":
            raise RuntimeError(f"live Keras failed in {function}:\n{value}")
        return value

    def run(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self.call("run", requests)


def _write(pipe: BinaryIO, message: Any) -> None:
    data = pickle.dumps(message)
    pipe.write(struct.pack("<Q", len(data)) + data)
    pipe.flush()


def _read(pipe: BinaryIO) -> Any:
    head = pipe.read(8)
    if len(head) < 8:
        raise EOFError("the Keras process has ended")
    return pickle.loads(pipe.read(struct.unpack("<Q", head)[0]))


# What follows runs in the child.


def versions() -> dict[str, str]:
    import keras
    import numpy
    import tensorflow

    return {m.__name__: m.__version__ for m in (keras, tensorflow, numpy)}


def run(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Outputs, states and gradients of LSTM layers on TensorFlow.

    A request has ``keywords`` of the layer, ``arrays`` (see ``Case.inputs``) and ``dtype``; the
    loss is the sum of each result times its cotangent.
    """
    return [_run_one(**request) for request in requests]


def _layer(keywords: dict[str, Any], arrays: dict[str, Any], dtype: str) -> Any:
    import numpy as np
    from keras.layers import LSTM

    # Overwritten below; Keras's orthogonal has no 16-bit QR, and costs more than the rest.
    keywords = {**keywords, "recurrent_initializer": "zeros"}
    if keywords.get("implementation") == 1:  # on "auto" Keras stacks the four masks, and crashes
        keywords = {**keywords, "use_cudnn": False}
    if keywords.get("dropout_style") == "keras_3.0":  # one mask for all gates: four equal ones here
        keywords = {k: v for k, v in keywords.items() if k != "dropout_style"}
    layer = LSTM(arrays["recurrent_kernel"].shape[0], dtype=dtype, **keywords)
    layer.build(arrays["x"].shape)
    names = ("kernel", "recurrent_kernel", "bias")
    layer.set_weights([arrays[n].astype(np.float64) for n in names if n in arrays])
    return layer


def _run_one(keywords: dict[str, Any], arrays: dict[str, Any], dtype: str) -> dict[str, Any]:
    import numpy as np
    import tensorflow as tf

    layer = _layer(keywords, arrays, dtype)
    compute = layer.compute_dtype
    tensors = {k: tf.constant(v, compute) for k, v in arrays.items() if k != "mask"}
    mask = arrays.get("mask")
    mask = None if mask is None else tf.constant(mask)
    training = any(k.endswith("dropout_mask") for k in arrays)
    if "first_x" in arrays:
        _inject(layer.cell, tensors)
        layer(tensors["first_x"], mask=mask, training=training)
    watched = {"d_x": tensors["x"]}
    for name, weight in zip(("kernel", "recurrent_kernel", "bias"), layer.weights, strict=False):
        watched[f"d_{name}"] = weight.value
    initial_state = None
    if "h0" in arrays:
        watched |= {"d_h0": tensors["h0"], "d_c0": tensors["c0"]}
        initial_state = [tensors["h0"], tensors["c0"]]
    _inject(layer.cell, tensors)
    with tf.GradientTape() as tape:
        tape.watch(list(watched.values()))
        result = layer(tensors["x"], initial_state=initial_state, mask=mask, training=training)
        result = result if isinstance(result, tuple) else (result,)
        loss = tf.add_n(
            [
                tf.reduce_sum(r * tensors[d])
                for r, d in zip(result, ("d_output", "d_h", "d_c"), strict=False)
            ]
        )
    gradients = tape.gradient(loss, watched)
    found = dict(zip(("output", "h", "c"), result, strict=False))
    for name, gradient in gradients.items():
        # None: Keras finds no path to it, which is a gradient of zero.
        found[name] = tf.zeros_like(watched[name]) if gradient is None else gradient
    return {k: np.asarray(tf.cast(v, tf.float64)) for k, v in found.items()}


def _inject(cell: Any, tensors: dict[str, Any]) -> None:
    """Dropout masks (1 or 4, B, size) for the next call of Keras's layer."""
    for name in ("dropout_mask", "recurrent_dropout_mask"):
        if name in tensors:
            masks = list(tensors[name])
            four = cell.implementation == 1
            masks = masks * 4 if four and len(masks) == 1 else masks
            setattr(cell, f"_{name}", masks if four else masks[0])


def train(
    optimizer: str,
    learning_rate: float,
    keywords: dict[str, Any],
    arrays: dict[str, Any],
    batches: list[dict[str, Any]],
    dtype: str,
) -> list[Any]:
    """The weights after one step a batch; the loss is mean((output - target)^2)."""
    import keras
    import tensorflow as tf

    layer = _layer(keywords, arrays, dtype)
    variables = layer.trainable_variables
    kind = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}[optimizer]
    rule = kind(learning_rate=learning_rate)
    rule.build(variables)
    for batch in batches:
        with tf.GradientTape() as tape:
            output = layer(tf.constant(batch["x"], dtype), mask=tf.constant(batch["mask"]))
            loss = tf.reduce_mean(tf.square(output - tf.constant(batch["target"], dtype)))
        values = [v.value for v in variables]
        rule.apply(tape.gradient(loss, values), variables)
    return layer.get_weights()


def _serve(stdin: BinaryIO, stdout: BinaryIO) -> None:
    import traceback

    while True:
        try:
            function, arguments = _read(stdin)
        except EOFError:
            return
        try:
            module, _, name = function.rpartition(".")
            scope = (
                vars(importlib.import_module(f".{module}", __package__)) if module else globals()
            )
            answer = ("result", scope[name](*arguments))
        except Exception:  # every error belongs to the parent, which raises it
            answer = ("error", traceback.format_exc())
        _write(stdout, answer)


if __name__ == "__main__":
    # Frames go to the real stdout; whatever a library prints goes to stderr.
    frames = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(sys.stdin.buffer, frames)
