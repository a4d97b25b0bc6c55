"""Keras's layers of a case. The importer has chosen the backend before."""

from __future__ import annotations

import keras


def build(case, data):
    """A layer or a Sequential with the case's weights, called as ``layer(x, mask=, training=)``."""

    def lstm(**options):
        return keras.layers.LSTM(
            case.H,
            recurrent_activation=case.recurrent_activation,
            recurrent_dropout=case.recurrent_dropout,
            recurrent_initializer="zeros",  # set below; the default has no bfloat16
            dtype=case.dtype,
            **options,
        )

    if case.structure == "bidirectional":
        layer = keras.layers.Bidirectional(lstm(), dtype=case.dtype)
    elif case.structure == "stack":
        layer = keras.Sequential([lstm(return_sequences=True), lstm()])
    else:
        layer = lstm()
    layer.build((case.B, case.T, case.F))
    layer.set_weights(list(data["weights"].values()))
    return layer
