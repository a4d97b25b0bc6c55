"""OpenVINO on a CPU, of the same ONNX model as ONNX Runtime. Inference in float32."""

from __future__ import annotations

from types import SimpleNamespace

import openvino

from benchmarks.implementations.onnx_model import build, feed

core = openvino.Core()


def prepare(case, data):
    if case.recurrent_activation != "sigmoid":
        raise NotImplementedError(f"its LSTM knows no {case.recurrent_activation}")
    options = {
        "INFERENCE_NUM_THREADS": case.threads,
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16, where the CPU has it
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(build(case, data)), "CPU", options)
    return SimpleNamespace(request=compiled.create_infer_request(), inputs=feed(case, data), y=None)


def run(state):
    # Without copies of what goes in and comes out, as ONNX Runtime takes and gives its arrays.
    state.y = state.request.infer(state.inputs, share_inputs=True, share_outputs=True)[0]


def output(state):
    return [state.y]
