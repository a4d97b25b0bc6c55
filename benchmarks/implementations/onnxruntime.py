"""ONNX Runtime on a CPU. Inference in float32."""

from __future__ import annotations

from types import SimpleNamespace

import onnxruntime

from benchmarks.implementations.onnx_model import build, feed


def prepare(case, data):
    model = build(case, data)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return SimpleNamespace(session=session, inputs=feed(case, data), y=None)


def run(state):
    (state.y,) = state.session.run(None, state.inputs)


def output(state):
    return [state.y]
