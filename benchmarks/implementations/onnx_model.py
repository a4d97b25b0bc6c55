"""The ONNX model of a case, as an export of a batch_first ``nn.LSTM`` has it.

x (B, T, F) is transposed to (T, B, F), goes through one LSTM node a layer, and Y_h is the output. A
right mask is the input ``lengths`` (B,), int32, handed ready-made.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ORDER = (0, 3, 1, 2)  # ONNX's gates i o f c, of Keras's i f c o


def by_gate(array):
    """(..., 4H) in Keras's order -> (4H, ...) in ONNX's."""
    gates = np.split(array, 4, -1)
    return np.concatenate([gates[at].T for at in ORDER])


def build(case, data):
    """The serialized model. Its inputs are x and, with a mask, lengths."""
    if case.mode == "training":
        raise NotImplementedError("it does not train")
    if case.mask not in ("none", "right"):
        raise NotImplementedError("ONNX's LSTM knows lengths, and no other mask")
    if case.dtype != "float32":
        raise NotImplementedError(f"its LSTM has no {case.dtype}")
    given = list(data["weights"].values())
    layers = [given[at : at + 3] for at in range(0, len(given), 3)]
    nodes = [helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [case.B, case.T, case.F])]
    if case.mask == "right":
        inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, [case.B]))
    constants = []

    def lstm(source, layers, name, sequence=""):
        directions = len(layers)
        for part, arrays in zip("WRB", zip(*layers, strict=True), strict=True):
            stacked = np.stack([by_gate(a) for a in arrays])  # (directions, 4H, ...)
            if part == "B":
                stacked = np.concatenate([stacked, np.zeros_like(stacked)], 1)
            constants.append(numpy_helper.from_array(stacked, f"{name}_{part}"))
        options = {}
        if directions == 2:
            options["direction"] = "bidirectional"
        if case.recurrent_activation == "hard_sigmoid":
            options["activations"] = ["HardSigmoid", "Tanh", "Tanh"] * directions
            options["activation_alpha"] = [1 / 6] * directions
            options["activation_beta"] = [0.5] * directions
        lengths = "lengths" if case.mask == "right" else ""
        parts = [f"{name}_W", f"{name}_R", f"{name}_B"]
        nodes.append(
            helper.make_node(
                "LSTM", [source, *parts, lengths], [sequence, f"{name}_Y_h"],
                hidden_size=case.H, **options,
            )
        )  # fmt: skip
        return f"{name}_Y_h"

    if case.structure == "stack":
        lstm("steps", layers[:1], "lower", "sequence")
        constants.append(numpy_helper.from_array(np.array([1]), "axes"))
        nodes.append(helper.make_node("Squeeze", ["sequence", "axes"], ["between"]))
        last = lstm("between", layers[1:], "upper")
    else:
        last = lstm("steps", layers, "lstm")
    width = case.H * (2 if case.structure == "bidirectional" else 1)
    constants.append(numpy_helper.from_array(np.array([case.B, width]), "shape"))
    nodes += [
        helper.make_node("Transpose", [last], ["rows"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["rows", "shape"], ["output"]),
    ]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [case.B, width])
    graph = helper.make_graph(nodes, "lstm", inputs, [output], constants)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="benchmarks"
    )
    onnx.checker.check_model(model)
    return model.SerializeToString()


def feed(case, data):
    """The model's inputs, by name."""
    lengths = {"lengths": data["lengths"].astype(np.int32)} if case.mask == "right" else {}
    return {"x": data["x"], **lengths}
