"""What the random walk has live Keras do, in the process of keras_live; see fuzz.Walk."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

ZEROS = {
    f"{role}_initializer": "zeros" for role in ("kernel", "recurrent", "bias")
}  # orthogonal's QR costs more than the call


def begin() -> None:
    """What makes small cases faster; before TensorFlow's first tensor."""
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.config.disable_traceback_filtering()
    tf.debugging.disable_traceback_filtering()


def run(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results and gradients by name; where Keras raises, what it says, as ``error``."""
    answers = []
    for request in requests:
        try:
            answers.append(_run(**request))
        except Exception as error:  # every error belongs to the parent, which reports it
            lines = [line for line in str(error).splitlines() if line.strip()] or [""]
            answers.append({"error": f"{type(error).__name__}: {lines[0]}"})
    return answers


@functools.cache
def _hard_sigmoid_v2() -> Any:
    """Keras 2's, for which Keras 3 has no name; registered, for Bidirectional copies by config."""
    import keras

    def hard_sigmoid_v2(x: Any) -> Any:
        return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)

    return keras.saving.register_keras_serializable("parity_tests")(hard_sigmoid_v2)


def _activation(name: str) -> Any:
    return _hard_sigmoid_v2() if name == "hard_sigmoid_v2" else name


def _layer(kind: str, merge_mode: Any, units: list[int], keywords: dict[str, Any]) -> Any:
    """A layer over parts of so many units: two of a Bidirectional, one a cell, else one."""
    import keras

    lay = keras.layers
    keywords = {
        k: _activation(v) if k.endswith("activation") else v for k, v in keywords.items()
    } | ZEROS
    common = {"dtype": "float64"}
    if kind in ("LSTM", "TimeDistributed"):
        layer = lay.LSTM(units[0], **keywords, **common)
        return layer if kind == "LSTM" else lay.TimeDistributed(layer, **common)
    if kind == "Bidirectional":
        own = {k: v for k, v in keywords.items() if k != "go_backwards"}
        forward = lay.LSTM(units[0], **own, **common)
        backward = None
        if units[1] != units[0]:
            backward = lay.LSTM(units[1], go_backwards=True, **own, **common)
        return lay.Bidirectional(forward, merge_mode, backward_layer=backward, **common)
    flags = (
        "return_sequences", "return_state", "go_backwards", "stateful", "unroll",
        "zero_output_for_mask",
    )  # fmt: skip
    of_cell = {k: v for k, v in keywords.items() if k not in (*flags, "use_cudnn")}
    cells = [lay.LSTMCell(u, **of_cell, **common) for u in units]
    if kind == "LSTMCell":
        return cells[0]
    # RNN would wrap a list in StackedRNNCells of float32, and cast the states to that.
    inner = cells[0] if kind == "cell" else lay.StackedRNNCells(cells, **common)
    return lay.RNN(inner, **{k: keywords[k] for k in flags if k in keywords}, **common)


def _flat(result: Any) -> list[Any]:
    if isinstance(result, list | tuple):
        return [t for part in result for t in _flat(part)]
    return [result]


def _cells(layer: Any) -> list[Any]:
    if hasattr(layer, "forward_layer"):
        return [layer.forward_layer.cell, layer.backward_layer.cell]
    if hasattr(layer, "layer"):
        return _cells(layer.layer)
    cell = getattr(layer, "cell", layer)
    return list(getattr(cell, "cells", [cell]))


def _inject(cells: list[Any], tensors: dict[str, Any]) -> None:
    """Dropout masks (1 or 4, B, size) for the next call."""
    for i, cell in enumerate(cells):
        for name, attribute in (("input", "dropout"), ("recurrent", "recurrent_dropout")):
            if f"{name}_mask{i}" in tensors:
                masks = list(tensors[f"{name}_mask{i}"])
                four = cell.implementation == 1
                masks = masks * 4 if four and len(masks) == 1 else masks
                setattr(cell, f"_{attribute}_mask", masks if four else masks[0])


def _run(
    layers: list[dict[str, Any]],
    arrays: dict[str, np.ndarray],
    names: list[str],
    calls: int,
    given_at: int,
    training: bool,
) -> dict[str, Any]:
    import tensorflow as tf

    made = [_layer(**spec) for spec in layers]
    tensors = {k: tf.constant(v) for k, v in arrays.items()}
    states = [tensors[n] for n in sorted(arrays) if n.startswith("state")]
    weights = [arrays[n] for n in sorted(arrays) if n.startswith("weight")]
    watched: dict[str, Any] = {}
    shape = arrays[f"x{calls - 1}"].shape
    for layer in made:
        layer.build(shape)
        size = len(layer.weights)
        layer.set_weights(weights[:size])
        weights = weights[size:]
        units = sum(cell.units for cell in _cells(layer)) if _merges(layer) else 0
        shape = (*shape[:2], units or _cells(layer)[-1].units)
    variables = [w for layer in made for w in layer.weights]
    watched |= {f"d_weight{i:02d}": w.value for i, w in enumerate(variables)}
    watched["d_x"] = tensors[f"x{calls - 1}"]
    found: dict[str, Any] = {}
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        for call in range(calls):
            begin = states if call == given_at else []
            if call == calls - 1:
                if begin:
                    watched |= {f"d_state{i:02d}": s for i, s in enumerate(states)}
                tape.watch(list(watched.values()))
            mask = tensors.get(f"mask{call}")
            _inject([cell for layer in made for cell in _cells(layer)], tensors)
            results = _call(made, tensors[f"x{call}"], begin, mask, training)
            prefix = "" if call == calls - 1 else f"call{call}."
            found |= {f"{prefix}{n}": r for n, r in zip(names, results, strict=True)}
        loss = tf.add_n([tf.reduce_sum(found[n] * tensors[f"d_{n}"]) for n in names])
    for name, gradient in tape.gradient(loss, watched).items():
        # None: Keras finds no path to it, which is a gradient of zero.
        found[name] = tf.zeros_like(watched[name]) if gradient is None else gradient
    return {k: np.asarray(v) for k, v in found.items()}


def _merges(layer: Any) -> bool:
    return getattr(layer, "merge_mode", "") == "concat"


def _call(made: list[Any], x: Any, begin: list[Any], mask: Any, training: bool) -> list[Any]:
    import keras

    states: list[Any] = []
    if isinstance(made[0], keras.layers.LSTMCell):
        given = begin or made[0].get_initial_state(batch_size=len(x))
        return _flat(made[0](x, given, training=training))
    if isinstance(made[0], keras.layers.TimeDistributed):
        return _flat(made[0](x, mask=mask, training=training))
    begin = list(begin)
    for layer in made:
        count = 2 * len(_cells(layer))
        own: Any = [begin.pop(0) for _ in range(count)] if begin else None
        if own and isinstance(getattr(layer, "cell", None), keras.layers.StackedRNNCells):
            own = [own[i : i + 2] for i in range(0, count, 2)]
        # Keras hands the mask on by itself, hung on its tensors.
        given = {} if mask is None else {"mask": mask}
        mask = None
        outputs = 2 if getattr(layer, "merge_mode", "") is None else 1
        result = _flat(layer(x, initial_state=own, training=training, **given))
        x, last, states = result[0], result[:outputs], states + result[outputs:]
    return last + states
