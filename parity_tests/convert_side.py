"""What runs in the live-Keras process for test_convert: wrappers and cells, both ways."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np

# float32 values: a Sequential of tf_keras casts its input to that.
X = np.random.RandomState(11).uniform(-1, 1, (2, 4, 3)).astype(np.float32).astype(np.float64)


def layers(k: Any) -> dict[str, tuple[Any, np.ndarray]]:
    """Layers of a Keras in float64, with an input for each."""
    lstm, cell, both, rnn, stacked, slices = (
        functools.partial(getattr(k.layers, name), dtype="float64")
        for name in ("LSTM", "LSTMCell", "Bidirectional", "RNN", "StackedRNNCells",
                     "TimeDistributed")
    )  # fmt: skip
    sequences = {"return_sequences": True}
    made = {
        "cell": cell(5, recurrent_activation="hard_sigmoid"),
        "bidirectional": both(lstm(5, **sequences, name="mine"), "mul"),
        "two units": both(
            lstm(5, return_state=True, dropout=0.2),
            backward_layer=lstm(2, return_state=True, go_backwards=True, activation="relu"),
        ),
        "stateful": both(lstm(5, stateful=True)),
        "rnn": rnn(stacked([cell(5), cell(2, use_bias=False)]), return_state=True, **sequences),
        "rnn of one cell": rnn(cell(5, kernel_regularizer="l2"), go_backwards=True),
        "time distributed": slices(lstm(5, **sequences)),
        "frozen": both(lstm(5)),
        "frozen whole": both(lstm(5), trainable=False),
        "chain": k.Sequential([lstm(5, **sequences), both(lstm(2))]),
        "stateful chain": k.Sequential(
            [
                k.layers.Input(batch_shape=(2, 4, 3), dtype="float64"),
                both(lstm(5, stateful=True, **sequences)),
                lstm(2, stateful=True),
            ]
        ),
        "time distributed chain": slices(k.Sequential([lstm(5, **sequences), lstm(2)])),
        "stateful rnn": rnn(stacked([cell(5), cell(2)]), stateful=True),
    }
    made["frozen"].forward_layer.trainable = False
    many = np.stack([X, -X], 1)
    inputs = {"cell": X[:, 0], "time distributed": many, "time distributed chain": many}
    return {name: (layer, inputs.get(name, X)) for name, layer in made.items()}


def _flat(result: Any) -> list[np.ndarray]:
    if isinstance(result, list | tuple):
        return [a for part in result for a in _flat(part)]
    result = result.detach() if hasattr(result, "detach") else result
    return [np.asarray(result, np.float64)]


def round_trips(library: str) -> dict[str, dict[str, Any]]:
    """Each layer to torch, to both live Kerases and back: results and weights on every stop."""
    import tensorflow as tf
    import torch

    from kerasish_lstm import from_keras, to_keras

    k = importlib.import_module(library)
    found: dict[str, dict[str, Any]] = {}
    for seed, (name, (layer, x)) in enumerate(layers(k).items()):

        def run(one: Any, x: np.ndarray, name: str = name) -> Any:
            if name != "cell":
                return one(x)
            state = [tf.constant(x[:, :1] * np.ones((1, 5)))] * 2
            return one(tf.constant(x), state)

        def ours(module: Any, x: np.ndarray, name: str = name) -> list[np.ndarray]:
            t = torch.from_numpy(x)
            if name != "cell":
                return _flat(module(t))
            return _flat(module(t, [t[:, :1] * torch.ones(1, 5, dtype=t.dtype)] * 2))

        run(layer, x)
        rng = np.random.RandomState(seed)
        layer.set_weights([rng.uniform(-0.7, 0.7, w.shape) for w in layer.get_weights()])
        if "stateful" in name:
            run(layer, -x)
        module = from_keras(layer).eval()
        before = [w.copy() for w in module.get_weights()]
        others = {to: to_keras(module, backend=to) for to in ("keras", "tf_keras")}
        back = {to: from_keras(other).eval() for to, other in others.items()}
        answers: dict[str, Any] = {
            "repr": repr(module),
            "trainable": [p.requires_grad for p in module.parameters()],
            "live": _flat(run(layer, x)),
            "torch": ours(module, x),
            "weights": before,
        }
        for to, other in others.items():
            answers[f"to {to}"] = _flat(run(other, x))
            answers[f"back from {to}"] = ours(back[to], x)
            answers[f"weights from {to}"] = back[to].get_weights()
            answers[f"trainable from {to}"] = [p.requires_grad for p in back[to].parameters()]
        found[name] = answers
    return found


def chain() -> dict[str, Any]:
    """A StackedLSTM of layers as a Sequential of each Keras."""
    import torch

    from kerasish_lstm import LSTM, Bidirectional, StackedLSTM, to_keras

    torch.manual_seed(3)
    stack = StackedLSTM(
        [Bidirectional(LSTM(3, 5, return_sequences=True, dtype="float64")),
         LSTM(10, 2, dtype="float64", recurrent_activation="hard_sigmoid_v2")]
    ).eval()  # fmt: skip
    found = {"torch": _flat(stack(torch.from_numpy(X)))}
    for to in ("keras", "tf_keras"):
        found[to] = _flat(to_keras(stack, backend=to)(X))
    return found


def dtypes() -> list[tuple[str, str, str, bool, list[np.ndarray], list[np.ndarray]]]:
    """Wrappers over layers: (name, inner and outer dtype, same dtypes out, theirs, ours)."""
    import keras
    import tensorflow as tf
    import torch

    from kerasish_lstm import from_keras

    k = keras.layers
    keras.utils.set_random_seed(3)  # of other weights now and then one rounds to 16 bits otherwise
    rng = np.random.RandomState(3)
    x, mask = rng.uniform(-1, 1, (2, 7, 3)), rng.uniform(size=(2, 7)) < 0.6
    states = [rng.uniform(-1, 1, (2, 5)) for _ in range(4)]
    found = []
    for inner in ("float32", "float64", "mixed_bfloat16"):
        for outer in ("float32", "float64", "float16", "mixed_bfloat16"):
            cells = k.StackedRNNCells([k.LSTMCell(5, dtype=inner) for _ in "12"], dtype=inner)
            made = {
                "rnn": k.RNN(cells, return_state=True, dtype=outer),
                "bidirectional": k.Bidirectional(
                    k.LSTM(5, return_state=True, dtype=inner), dtype=outer
                ),
                "time distributed": k.TimeDistributed(k.LSTM(5, dtype=inner), dtype=outer),
            }
            for name, layer in made.items():
                slices = name == "time distributed"
                given = np.stack([x, -x], 1) if slices else x
                theirs, ours = ([f(s) for s in states] for f in (tf.constant, torch.tensor))
                if name == "rnn":
                    theirs, ours = ([s[:2], s[2:]] for s in (theirs, ours))
                options = {} if slices else {"initial_state": theirs, "mask": tf.constant(mask)}
                expected = layer(given, **options)
                module = from_keras(layer)
                options = {} if slices else {"initial_state": ours, "mask": torch.tensor(mask)}
                actual = module(torch.tensor(given), **options)
                names = [str(t.dtype).removeprefix("torch.") for t in _leaves(actual)]
                same = names == [t.dtype.name for t in _leaves(expected)]
                wide = [t.detach().double() for t in _leaves(actual)]
                found.append((name, inner, outer, same, _flat(expected), _flat(wide)))
    return found


def _leaves(result: Any) -> list[Any]:
    if isinstance(result, list | tuple):
        return [t for part in result for t in _leaves(part)]
    return [result]
