"""Writes kerasish_lstm/demo/: the notebook's five LSTMs in one .keras file, and what Keras gave.

    python -m parity_tests.make_demo

Needs Keras 3 on TensorFlow. The notebook is "LSTM Essential".
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent.parent / "kerasish_lstm" / "demo"

# name, input, keywords: the notebook's cells, in its order
CASES = (
    ("one_unit", "rows", {"units": 1}),
    ("ten_units", "rows", {"units": 10}),
    ("sequences", "random", {"units": 5, "return_sequences": True}),
    ("state", "random", {"units": 5, "return_state": True}),
    ("both", "random", {"units": 5, "return_sequences": True, "return_state": True}),
)


def main() -> None:
    import keras
    import tensorflow

    keras.utils.set_random_seed(2026)
    inputs = {
        "rows": np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]], np.float32).reshape(2, 3, 1),
        "random": np.random.RandomState(1).uniform(size=(2, 3, 4)).astype(np.float32),
    }
    tensors = {k: keras.Input(v.shape[1:], name=k) for k, v in inputs.items()}
    outputs: list[Any] = []
    layers = {}
    for name, source, keywords in CASES:
        layers[name] = keras.layers.LSTM(**keywords, name=name)
        result = layers[name](tensors[source])
        outputs += result if isinstance(result, tuple | list) else [result]
    model = keras.Model(list(tensors.values()), outputs, name="lstm_essential")
    path = FOLDER / "notebook.keras"
    model.save(path)

    recorded = {}
    for name, source, _ in CASES:
        result = layers[name](inputs[source])
        result = result if isinstance(result, tuple) else (result,)
        recorded[name] = {
            "input": source,
            "parameters": layers[name].count_params(),
            **{
                k: np.asarray(v).tolist()
                for k, v in zip(("output", "h", "c"), result, strict=False)
            },
        }
    document = {
        "made_by": "python -m parity_tests.make_demo",
        "versions": {m.__name__: m.__version__ for m in (keras, tensorflow, np)},
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "inputs": {k: v.tolist() for k, v in inputs.items()},
        "layers": recorded,
    }
    (FOLDER / "notebook.json").write_text(json.dumps(document, indent=1) + "\n")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
