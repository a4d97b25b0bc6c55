"""Runs where live Keras runs: ``assert_same_as_keras`` on equal layers, and on unequal ones."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np


def layers(library: str) -> dict[str, Any]:
    """A live layer of every class, built, with weights of its own."""
    k: Any = importlib.import_module(library)
    ls = k.layers
    made = {
        "plain": ls.LSTM(5),
        "all": ls.LSTM(5, return_sequences=True, return_state=True, go_backwards=True),
        "stateful": ls.LSTM(5, stateful=True, return_sequences=True),
        "other gates": ls.LSTM(5, activation="softsign", recurrent_activation="hard_sigmoid"),
        "float64": ls.LSTM(5, dtype="float64"),
        "both": ls.Bidirectional(ls.LSTM(5, return_sequences=True, return_state=True)),
        "stack": ls.RNN([ls.LSTMCell(5), ls.LSTMCell(2)], return_state=True),
        "slices": ls.TimeDistributed(ls.LSTM(5)),
        "cell": ls.LSTMCell(5),
    }
    random = np.random.RandomState(3)
    for name, layer in made.items():
        shape = {"slices": (3, 3, 7, 3), "cell": (3, 3)}.get(name, (3, 7, 3))
        layer.build(shape)
        layer.set_weights([random.uniform(-0.5, 0.5, w.shape) for w in layer.get_weights()])
    return made


def compared(library: str) -> dict[str, tuple[float, str]]:
    """By layer: the largest error, and what is said when one weight is moved by a thousandth."""
    from kerasish_lstm import from_keras
    from kerasish_lstm.errors import ParityError
    from kerasish_lstm.layers.parameters import recurrent_parts
    from kerasish_lstm.parity import assert_same_as_keras

    found = {}
    for name, layer in layers(library).items():
        module = from_keras(layer)
        error = assert_same_as_keras(module, layer)
        part = recurrent_parts(module)[-1]
        kernel, *others = part.get_weights()
        kernel[0, 0] += 1e-3
        part.set_weights([kernel, *others])
        try:
            assert_same_as_keras(module, layer)
            said = "nothing"
        except ParityError as raised:
            said = str(raised)
        found[name] = (error, said)
    return found


def refused() -> list[str]:
    """What is said of things that cannot be compared."""
    import keras
    import torch

    from kerasish_lstm import LSTM
    from kerasish_lstm.errors import KerasishError
    from kerasish_lstm.parity import assert_same_as_keras

    layer = keras.layers.LSTM(5)
    layer.build((3, 7, 3))
    said = []
    for module in (torch.nn.LSTM(3, 5), LSTM(3, 5, return_state=True), LSTM(3, 7)):
        try:
            assert_same_as_keras(module, layer)
            said.append("nothing")
        except KerasishError as raised:
            said.append(f"{type(raised).__name__}: {raised}")
    return said
