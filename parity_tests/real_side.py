"""What runs in the live tf_keras process for test_real."""

from __future__ import annotations

import numpy as np


def predictions(path: str, ids: np.ndarray) -> np.ndarray:
    """What a whole model of a file gives."""
    import tf_keras

    model = tf_keras.models.load_model(path, compile=False)
    found: np.ndarray = model.predict(ids, verbose=0)
    return found


def layers(path: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What tf_keras LSTMs give for x, with the weights that tf_keras itself takes from the file.

    It turns those of a CuDNNLSTM into an LSTM's.
    """
    import tf_keras

    found = {}
    for name, x in inputs.items():
        layer = tf_keras.layers.LSTM(128, return_sequences=True, name=name)
        model = tf_keras.Sequential([tf_keras.layers.Input((None, x.shape[2])), layer])
        before = layer.get_weights()
        model.load_weights(path, by_name=True)
        assert not np.array_equal(before[0], layer.get_weights()[0])
        found[name] = model(x).numpy()
    return found
