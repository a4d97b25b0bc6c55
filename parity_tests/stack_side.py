"""What runs in the live-Keras process for test_stacked, test_cell and test_time_distributed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def run(requests: list[dict[str, Any]]) -> list[dict[str, np.ndarray]]:
    """Results and gradients of stacks; see test_stacked.Stack."""
    return [_run(**request) for request in requests]


def _flat(result: Any) -> list[Any]:
    if isinstance(result, list | tuple):
        return [t for part in result for t in _flat(part)]
    return [result]


def _layer(keras: Any, form: str, layers: list[dict[str, Any]], keywords: dict[str, Any]) -> Any:
    cells = [keras.layers.LSTMCell(dtype="float64", **k) for k in layers]
    # RNN would wrap a list in StackedRNNCells of float32, and cast the states to that.
    stacked = keras.layers.StackedRNNCells(cells, dtype="float64")
    return keras.layers.RNN(cells[0] if form == "cell" else stacked, dtype="float64", **keywords)


def _chain(keras: Any, layers: list[dict[str, Any]], keywords: dict[str, Any]) -> list[Any]:
    made = []
    for spec in layers:
        merge = spec.get("merge_mode", "none")
        own = {k: v for k, v in spec.items() if k != "merge_mode"}
        layer = keras.layers.LSTM(dtype="float64", **own, **keywords)
        if merge != "none":
            layer = keras.layers.Bidirectional(layer, merge, dtype="float64")
        made.append(layer)
    return made


def _run(
    form: str,
    layers: list[dict[str, Any]],
    keywords: dict[str, Any],
    arrays: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    import keras
    import tensorflow as tf

    x = tf.constant(arrays["x"], "float64")
    mask = tf.constant(arrays["mask"]) if "mask" in arrays else None
    states = [tf.constant(arrays[n]) for n in sorted(arrays) if n.startswith("state")]
    if form == "chain":
        chain = _chain(keras, layers, keywords)

        def call(x: Any, states: list[Any]) -> list[Any]:
            given, found, m = list(states), [], mask
            for layer in chain:
                size = 4 if isinstance(layer, keras.layers.Bidirectional) else 2
                begin = [given.pop(0) for _ in range(size)] if states else None
                # Keras hands the mask on by itself, hung on its tensors.
                result = layer(x, initial_state=begin, **({} if m is None else {"mask": m}))
                x, *rest = _flat(result)
                m, found = None, found + rest
            return [x, *found]

        owners = chain
    else:
        layer = _layer(keras, form, layers, keywords)
        owners = [layer]

        def call(x: Any, states: list[Any]) -> list[Any]:
            begin: Any = states or None
            if states and form == "cells":
                begin = [states[i : i + 2] for i in range(0, len(states), 2)]
            return _flat(layer(x, initial_state=begin, mask=mask))

    return _results(tf, call, owners, x, states, arrays)


def _results(
    tf: Any,
    call: Callable[[Any, list[Any]], list[Any]],
    owners: list[Any],
    x: Any,
    states: list[Any],
    arrays: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    weights = [arrays[n] for n in sorted(arrays) if n.startswith("weight")]
    call(x, states)  # builds
    for owner in owners:
        size = len(owner.get_weights())
        owner.set_weights(weights[:size])
        weights = weights[size:]
    if any(owner.stateful for owner in owners):
        for owner in owners:
            for variable in _flat(_states(owner)):
                variable.assign(tf.zeros_like(variable))
        call(tf.constant(arrays["first_x"]), states)
    watched = {"d_x": x}
    variables = [w for owner in owners for w in owner.weights]
    watched |= {f"d_weight{i:02d}": w.value for i, w in enumerate(variables)}
    watched |= {f"d_state{i:02d}": s for i, s in enumerate(states)}
    with tf.GradientTape() as tape:
        tape.watch(list(watched.values()))
        result = call(x, states)
        loss = tf.add_n([tf.reduce_sum(r * arrays[f"d_{i}"]) for i, r in enumerate(result)])
    found = {f"result{i}": r for i, r in enumerate(result)}
    for name, gradient in tape.gradient(loss, watched).items():
        found[name] = tf.zeros_like(watched[name]) if gradient is None else gradient
    return {k: np.asarray(v) for k, v in found.items()}


def _states(owner: Any) -> Any:
    if hasattr(owner, "forward_layer"):
        return [list(owner.forward_layer.states), list(owner.backward_layer.states)]
    return [list(s) if isinstance(s, list | tuple) else s for s in owner.states]


def one_cell_in_a_list(x: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """What RNN([LSTMCell]) does: its structure without a mask, its error with one; and a reset."""
    import keras

    layer = keras.layers.RNN([keras.layers.LSTMCell(3)], return_state=True)
    _, *states = layer(x)
    found: dict[str, Any] = {"states": [len(s) for s in states]}
    for name, call in {
        "masked": lambda: layer(x, mask=mask),
        "reset": lambda: _reset_stack(keras, x),
    }.items():
        try:
            call()
        except Exception as error:  # whatever it is: the question is whether it runs
            found[name] = type(error).__name__
    return found


def _reset_stack(keras: Any, x: np.ndarray) -> None:
    cells = [keras.layers.LSTMCell(3), keras.layers.LSTMCell(2)]
    layer = keras.layers.RNN(cells, stateful=True)
    layer(x)
    layer.reset_state()


def steps(requests: list[dict[str, Any]]) -> list[dict[str, np.ndarray]]:
    """Steps of an LSTMCell in training, one after the other, with the masks given."""
    import keras
    import tensorflow as tf

    answers = []
    for request in requests:
        arrays = request["arrays"]
        cell = keras.layers.LSTMCell(dtype="float64", **request["keywords"])
        cell.build(arrays["x"].shape[1:])
        cell.set_weights([arrays[f"weight{i:02d}"] for i in range(len(cell.weights))])
        state = [tf.constant(arrays["state00"]), tf.constant(arrays["state01"])]
        for name in ("dropout_mask", "recurrent_dropout_mask"):
            if name in arrays:
                masks = [tf.constant(m) for m in arrays[name]]
                setattr(cell, f"_{name}", masks if len(masks) == 4 else masks[0])
        watched = {"d_x": tf.constant(arrays["x"])}
        watched |= {"d_state00": state[0], "d_state01": state[1]}
        watched |= {f"d_weight{i:02d}": w.value for i, w in enumerate(cell.weights)}
        outputs = []
        with tf.GradientTape() as tape:
            tape.watch(list(watched.values()))
            for x in tf.unstack(watched["d_x"]):
                output, state = cell(x, state, training=True)
                outputs.append(output)
            results = [tf.stack(outputs), *state]
            loss = tf.add_n([tf.reduce_sum(r * arrays[f"d_{i}"]) for i, r in enumerate(results)])
        found = {f"result{i}": r for i, r in enumerate(results)} | tape.gradient(loss, watched)
        answers.append({k: np.asarray(v) for k, v in found.items()})
    return answers


def time_distributed(requests: list[dict[str, Any]]) -> list[dict[str, np.ndarray]]:
    """Results and gradients of TimeDistributed; see test_time_distributed."""
    import keras
    import tensorflow as tf

    answers = []
    for request in requests:
        arrays, merge = request["arrays"], request["merge_mode"]
        inner = keras.layers.LSTM(dtype="float64", **request["keywords"])
        if merge != "none":
            inner = keras.layers.Bidirectional(inner, merge, dtype="float64")
        layer = keras.layers.TimeDistributed(inner, dtype="float64")
        mask = tf.constant(arrays["mask"]) if "mask" in arrays else None
        inner.stateful = request["keywords"].get("stateful", False)
        answers.append(
            _results(
                tf, lambda x, _, layer=layer, mask=mask: [layer(x, mask=mask)],
                [_Owner(layer, inner)], tf.constant(arrays["x"]), [], arrays,
            )
        )  # fmt: skip
    return answers


class _Owner:
    """TimeDistributed with the attributes of the layer inside that ``_results`` asks for."""

    def __init__(self, layer: Any, inner: Any) -> None:
        self.get_weights, self.set_weights = layer.get_weights, layer.set_weights
        self._layer, self._inner = layer, inner

    @property
    def weights(self) -> Any:
        return self._layer.weights

    @property
    def stateful(self) -> bool:
        return bool(self._inner.stateful)

    @property
    def states(self) -> Any:
        return self._inner.states


def time_distributed_dropout(
    inside: str, units: int, arrays: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Results and gradients of TimeDistributed in training, with the masks of each slice given."""
    import keras
    import tensorflow as tf

    lay = keras.layers
    rates: dict[str, Any] = {"dropout": 0.4, "recurrent_dropout": 0.4, "dtype": "float64"}
    inner: Any = lay.LSTM(units, **rates)
    if inside == "concat":
        inner = lay.Bidirectional(inner, dtype="float64")
    elif inside == "cells":
        cells = [lay.LSTMCell(units, **rates), lay.LSTMCell(5, **rates)]
        inner = lay.RNN(lay.StackedRNNCells(cells, dtype="float64"), dtype="float64")
    layer = lay.TimeDistributed(inner, dtype="float64")
    x, mask = tf.constant(arrays["x"]), tf.constant(arrays["mask"])
    layer(x)
    layer.set_weights([arrays[n] for n in sorted(arrays) if n.startswith("weight")])
    if inside == "concat":
        cells = [inner.forward_layer.cell, inner.backward_layer.cell]
    elif inside == "none":
        cells = [inner.cell]
    now = {"slice": -1}
    call = inner.call

    def one_slice(*args: Any, **kwargs: Any) -> Any:
        now["slice"] += 1
        return call(*args, **kwargs)

    inner.call = one_slice

    def masks(name: str) -> Any:
        return lambda _: [tf.constant(m) for m in arrays[name][now["slice"]]]

    for i, cell in enumerate(cells):
        cell.get_dropout_mask = masks(f"input{i}")
        cell.get_recurrent_dropout_mask = masks(f"recurrent{i}")
    watched = {"d_x": x} | {f"d_weight{i:02d}": w.value for i, w in enumerate(layer.weights)}
    with tf.GradientTape() as tape:
        tape.watch(list(watched.values()))
        y = layer(x, mask=mask, training=True)
        loss = tf.reduce_sum(y * arrays["d_0"])
    assert now["slice"] == arrays["x"].shape[1] - 1
    found = {"result0": y} | tape.gradient(loss, watched)
    return {k: np.asarray(v) for k, v in found.items()}


def time_distributed_sequences_and_states(x: np.ndarray) -> str:
    """The error of TimeDistributed over a layer that returns sequences and states."""
    import keras

    inner = keras.layers.LSTM(3, return_sequences=True, return_state=True)
    try:
        keras.layers.TimeDistributed(inner)(x)
    except Exception as error:  # whatever it is: the question is whether it runs
        return type(error).__name__
    return "runs"
