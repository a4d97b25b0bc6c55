"""What runs in the live-Keras process for test_load: models of wrappers, saved in every format."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

STEPS, FEATURES = 7, 3
WRAPPERS = ("LSTM", "LSTMCell", "Bidirectional", "RNN", "TimeDistributed")
FORMATS = {  # what follows the model's name
    "keras": ".keras",
    "weights": ".weights.h5",
    "h5": ".h5",
    "h5 weights": "_weights.h5",
    "sharded": ".weights.json",
}

Answers = dict[str, dict[str, Any]]


def _sequential(k: Any, *layers: Any, shape: tuple[int, ...] = (STEPS, FEATURES)) -> Any:
    return k.Sequential([k.layers.Input(shape), *layers])


def _kinds(k: Any) -> Any:
    """Every class once, with odd sizes and flags."""
    ls = k.layers
    return _sequential(
        k,
        ls.LSTM(5, return_sequences=True, recurrent_activation="hard_sigmoid", name="plain"),
        ls.Bidirectional(ls.LSTM(2, return_sequences=True, name="zz"), "sum", name="both"),
        ls.RNN([ls.LSTMCell(5), ls.LSTMCell(3, activation="softsign")], return_sequences=True,
               name="stack"),
        ls.RNN(ls.LSTMCell(2, use_bias=False), return_sequences=True, name="one"),
        ls.Bidirectional(
            ls.LSTM(3, activation="relu"), backward_layer=ls.LSTM(2, go_backwards=True),
            name="own.backward",
        ) if k.__name__ == "keras" else ls.Bidirectional(ls.LSTM(3), name="own.backward"),
    )  # fmt: skip


def _time_distributed(k: Any) -> Any:
    ls = k.layers
    rnn = ls.RNN([ls.LSTMCell(3), ls.LSTMCell(2)])
    chain = _sequential(k, ls.LSTM(5, return_sequences=True), ls.Bidirectional(ls.LSTM(3)))
    x = ls.Input((2, STEPS, FEATURES))
    parts = [
        ls.TimeDistributed(ls.LSTM(5, name="x"), name="lstm-each")(x),
        ls.TimeDistributed(ls.Bidirectional(ls.LSTM(3, name="y")), name="both-each")(x),
        ls.TimeDistributed(rnn, name="stack-each")(x),
        ls.TimeDistributed(chain, name="chain-each")(x),
    ]
    return k.Model(x, ls.Concatenate()(parts))


def _steps_of_a_model(k: Any) -> Any:
    """A whole model at each step, as a document is read sentence by sentence."""
    ls = k.layers
    sentence = k.Sequential(
        [ls.Input((STEPS, FEATURES)), ls.Dense(5), ls.Bidirectional(ls.LSTM(2), name="words")],
        name="sentence",
    )
    x = ls.Input((2, STEPS, FEATURES))
    y = ls.TimeDistributed(sentence, name="each")(x)
    return k.Model(x, ls.LSTM(3, name="text")(y))


def _nested(k: Any) -> Any:
    ls = k.layers
    deep = _sequential(k, ls.LSTM(3, return_sequences=True, name="deep"), shape=(STEPS, 5))
    deep = k.Sequential(deep.layers, name="inmost")
    x = ls.Input((STEPS, FEATURES))
    y = ls.LSTM(5, return_sequences=True, name="first")(x)
    y = ls.Bidirectional(ls.LSTM(3, return_sequences=True), name="both")(deep(y))
    inner = k.Model(x, y, name="inner")
    z = ls.Input((STEPS, FEATURES))
    y = ls.LSTM(5, name="a.b-c")(inner(z))
    other = _sequential(k, ls.LSTM(2, name="first"))
    return k.Model(z, ls.Concatenate()([y, k.Sequential(other.layers, name="other")(z)]))


def _frozen(k: Any) -> Any:
    ls = k.layers
    inner = k.Sequential(
        [
            ls.Input((STEPS, FEATURES)),
            ls.LSTM(5, return_sequences=True, name="cold"),
            ls.Bidirectional(ls.LSTM(5, return_sequences=True), name="half"),
            ls.Bidirectional(ls.LSTM(5, return_sequences=True), trainable=False, name="whole"),
            ls.RNN([ls.LSTMCell(5), ls.LSTMCell(5)], return_sequences=True, name="stack"),
            ls.LSTM(5, name="warm"),
        ],
        name="inner",
    )
    by_name = {layer.name: layer for layer in inner.layers}
    by_name["cold"].trainable = False
    by_name["half"].forward_layer.trainable = False
    return _sequential(k, inner)


def _many(k: Any) -> Any:
    """More than ten, whose groups HDF5 lists by the alphabet. Of tanh tf_keras traces more."""
    ls = k.layers
    more = {"return_sequences": True, "activation": "softsign"}
    lstms = [ls.LSTM(3, **more, name=f"n{12 - n}") for n in range(12)]
    both = [ls.Bidirectional(ls.LSTM(2, **more), "mul", name=f"m{12 - n}") for n in range(12)]
    stack = ls.RNN([ls.LSTMCell(2) for _ in range(12)], name="high")
    return _sequential(k, *(one for pair in zip(lstms, both, strict=True) for one in pair), stack)


MODELS = {
    "kinds": _kinds,
    "time distributed": _time_distributed,
    "steps of a model": _steps_of_a_model,
    "nested": _nested,
    "frozen": _frozen,
    "many": _many,
}


def found_in(model: Any, prefix: str = "") -> dict[str, Any]:
    """The layers that must be loaded, by the names that they get here."""
    found: dict[str, Any] = {}
    for layer in model.layers:
        name = prefix + layer.name
        inner: Any = getattr(layer, "layer", None)
        if type(layer).__name__ == "TimeDistributed" and hasattr(inner, "layers"):
            if all(type(one).__name__ != "Dense" for one in inner.layers):
                found[name] = layer
            else:
                found |= found_in(inner, f"{name}/{inner.name}/")
        elif type(layer).__name__ in WRAPPERS:
            found[name] = layer
        elif hasattr(layer, "layers"):
            found |= found_in(layer, f"{name}/")
    return found


def randomize(model: Any, seed: int) -> None:
    rng = np.random.RandomState(seed)
    model.set_weights([rng.uniform(-0.6, 0.6, w.shape) for w in model.get_weights()])


def answers_of(layers: dict[str, Any], seed: int) -> Answers:
    """What each layer gives for an input, with its weights."""
    rng = np.random.RandomState(seed)
    answers = {}
    for name, layer in layers.items():
        weights = layer.get_weights()
        if type(layer).__name__ == "Bidirectional":  # tf_keras gives those of a frozen one last
            weights = layer.forward_layer.get_weights() + layer.backward_layer.get_weights()
        outer = (2,) if type(layer).__name__ == "TimeDistributed" else ()
        x = rng.uniform(-1, 1, (2, *outer, STEPS, weights[0].shape[0])).astype(np.float32)
        answers[name] = {
            "class": type(layer).__name__,
            "x": x,
            "weights": weights,
            "output": np.asarray(layer(x)),
        }
    return answers


def save(model: Any, base: str, library: str, form: str) -> None:
    path = base + FORMATS[form]
    if form == "sharded":
        model.save_weights(path, max_shard_size=1e-6)  # in GB: a few arrays a file
    else:
        (model.save_weights if "weights" in form else model.save)(path)


def forms_of(library: str) -> tuple[str, ...]:
    """Keras 3 writes no legacy weights alone, tf_keras no shards."""
    lacking = {"keras": "h5 weights", "tf_keras": "sharded"}[library]
    return tuple(form for form in FORMATS if form != lacking)


def make(folder: str, library: str) -> dict[str, Answers]:
    """Every model in every format, and its JSON; what its layers give."""
    k = importlib.import_module(library)
    answers = {}
    for seed, (name, build) in enumerate(MODELS.items()):
        model = build(k)
        randomize(model, seed)
        base = str(Path(folder) / name)
        for form in forms_of(library):
            save(model, base, library, form)
        Path(f"{base}.json").write_text(model.to_json())
        answers[name] = answers_of(found_in(model), seed)
    return answers


def shared(folder: str, library: str) -> Answers:
    """Two LSTMs and a Bidirectional, each in two models of one, which Keras stores once.

    Of both the last two layers are their own. Keras 3 counts those before; tf_keras does not.
    """
    k = importlib.import_module(library)
    ls = k.layers
    lstm, again = (ls.LSTM(3, return_sequences=True, name=name) for name in ("one", "two"))
    both = ls.Bidirectional(ls.LSTM(2, return_sequences=True))
    parts = [
        k.Sequential(
            [
                *(ls.Input((STEPS, FEATURES)), *more, lstm, both, again),
                ls.LSTM(3, return_sequences=True, name=f"{name}_three"),
                ls.LSTM(3, name=f"{name}_four"),
            ],
            name=name,
        )
        for name, more in (("left", [ls.Dense(FEATURES)]), ("right", []))
    ]
    x = ls.Input((STEPS, FEATURES))
    model = k.Model(x, ls.Concatenate()([part(x) for part in parts]))
    randomize(model, 3)
    base = str(Path(folder) / "shared")
    for form in ("keras", "weights", "h5"):
        save(model, base, library, form)
    Path(f"{base}.json").write_text(model.to_json())
    return answers_of(found_in(model), 3)


def subclassed(folder: str, library: str) -> Answers:
    """A model that is a class of its author's, with its layers by attribute."""
    k: Any = importlib.import_module(library)
    ls = k.layers

    class Mine(k.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="mine")
            self.encoder = ls.LSTM(5, return_sequences=True)
            self.both = ls.Bidirectional(ls.LSTM(3, return_sequences=True))
            self.stack = ls.RNN([ls.LSTMCell(2), ls.LSTMCell(3)], return_sequences=True)
            self.blocks = [ls.LSTM(3, return_sequences=True) for _ in range(11)]
            self.head = ls.Dense(1)

        def call(self, x: Any) -> Any:
            x = self.stack(self.both(self.encoder(x)))
            for block in self.blocks:
                x = block(x)
            return self.head(x)

        def get_config(self) -> Any:
            return {}

    model = Mine()
    model(np.zeros((1, STEPS, FEATURES), np.float32))
    randomize(model, 5)
    base = str(Path(folder) / "subclassed")
    for form in ("keras", "weights") + (("h5 weights",) if library == "tf_keras" else ()):
        save(model, base, library, form)
    layers = {"encoder": model.encoder, "both": model.both, "stack": model.stack}
    layers |= {f"blocks/lstm{f'_{n}' if n else ''}": b for n, b in enumerate(model.blocks)}
    return answers_of(layers, 5)


def cudnn(folder: str) -> Answers:
    """CuDNNLSTMs of tf_keras, in all its formats; the answers are those of the equal LSTMs."""
    import tf_keras as k
    from tf_keras.src.layers.rnn.cudnn_lstm import CuDNNLSTM

    ls = k.layers
    model = _sequential(
        k,
        CuDNNLSTM(5, return_sequences=True, name="fast"),
        ls.Bidirectional(CuDNNLSTM(3, return_sequences=True), name="both"),
    )
    equal = _sequential(
        k,
        ls.LSTM(5, return_sequences=True, name="fast"),
        ls.Bidirectional(ls.LSTM(3, return_sequences=True), name="both"),
    )
    randomize(model, 7)
    base = str(Path(folder) / "cudnn")
    for form in forms_of("tf_keras"):
        save(model, base, "tf_keras", form)
    Path(f"{base}.json").write_text(model.to_json())
    equal.load_weights(f"{base}_weights.h5")  # Keras 2 converts them
    return answers_of({layer.name: layer for layer in equal.layers}, 7)


def authors_code(folder: str) -> Answers:
    """Initializers and regularizers of the author's own, in an LSTM and inside of wrappers."""
    import keras as k

    ls = k.layers

    @k.saving.register_keras_serializable("author")
    class Small(k.initializers.Initializer):  # type: ignore[misc]
        def __call__(self, shape: Any, dtype: Any = None) -> Any:
            return k.ops.full(shape, 0.1, dtype)

    @k.saving.register_keras_serializable("author")
    class Weird(k.regularizers.Regularizer):  # type: ignore[misc]
        def __call__(self, x: Any) -> Any:
            return k.ops.sum(x)

        def get_config(self) -> Any:
            return {}

    own: Any = {"kernel_initializer": Small(), "recurrent_regularizer": Weird()}
    model = _sequential(
        k,
        ls.LSTM(5, **own, return_sequences=True, name="plain"),
        ls.Bidirectional(ls.LSTM(3, **own, return_sequences=True), name="both"),
        ls.RNN([ls.LSTMCell(2, **own), ls.LSTMCell(3)], name="stack"),
    )
    randomize(model, 9)
    model.save(f"{folder}/own.keras")
    return answers_of({layer.name: layer for layer in model.layers}, 9)
