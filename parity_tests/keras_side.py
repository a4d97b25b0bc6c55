"""What the suite has real Keras do with files and live layers, in the process of keras_live."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np


def _weights(layer: Any, rng: np.random.RandomState) -> None:
    """Random weights everywhere; float32 values, so that every dtype rounds the same numbers."""
    layer.set_weights(
        [rng.uniform(-0.5, 0.5, w.shape).astype(np.float32) for w in layer.get_weights()]
    )


def _sequential(k: Any) -> Any:
    return k.Sequential(
        [
            k.layers.Input((7, 4)),
            k.layers.LSTM(3, return_sequences=True, dropout=0.2, name="zeta"),
            k.layers.LSTM(2, recurrent_activation="hard_sigmoid", go_backwards=True, name="alpha"),
            k.layers.Dense(1),
        ],
        name="model",
    )


def _many(k: Any) -> Any:
    """Twelve LSTMs: lstm_10 sorts before lstm_2. Of a tanh tf_keras would trace more: cuDNN's."""
    more = {"return_sequences": True, "activation": "softsign"}
    x = first = k.layers.Input((5, 3))
    for n in range(12):
        x = k.layers.LSTM(n + 2, use_bias=n != 7, **more)(x)
    return k.Model(first, x)


def _nested(k: Any) -> Any:
    """A nested model whose first LSTM is frozen: legacy files store the second one's weights first.

    Both have the same shapes, so that only the order tells them apart. ``shared`` is used twice.
    """
    inner = k.Sequential(
        [
            k.layers.Input((5, 3)),
            k.layers.LSTM(3, return_sequences=True, name="frozen"),
            k.layers.GRU(3, return_sequences=True),
            k.layers.LSTM(3, return_sequences=True, activation="relu", name="free"),
        ],
        name="inner",
    )
    inner.layers[0].trainable = False
    a, b = k.layers.Input((5, 3), name="a"), k.layers.Input((5, 3), name="b")
    shared = k.layers.LSTM(3, return_sequences=True, name="shared")
    end = k.layers.LSTM(2, name="end", return_state=True)
    out = end(k.layers.Add()([inner(shared(a)), shared(b)]))
    return k.Model([a, b], out)


def _thawed(k: Any) -> Any:
    """A frozen model with a layer thawed, in a model: Keras 3 and tf_keras order it differently."""
    names = ("A", "B", "C", "D")
    a, b, c, d = (k.layers.LSTM(4, return_sequences=True, name=n) for n in names)
    inner = k.Sequential([k.layers.Input((5, 4)), a, b], name="inner")
    mid = k.Sequential([k.layers.Input((5, 4)), inner, c], name="mid")
    x = k.layers.Input((5, 4))
    model = k.Model(x, d(mid(x)))
    inner.trainable = False
    b.trainable = True
    return model


def _cell(k: Any) -> Any:
    """A frozen cell, of which no config tells."""
    a, b = (k.layers.LSTM(4, return_sequences=True, name=n) for n in ("A", "B"))
    inner = k.Sequential([k.layers.Input((5, 4)), a, b], name="inner")
    a.cell.trainable = False
    return k.Sequential([k.layers.Input((5, 4)), inner])


def _stateful(k: Any) -> Any:
    size = {"batch_shape": (2, 5, 3)}
    lstm = k.layers.LSTM(4, stateful=True, unit_forget_bias=False, kernel_regularizer="l2")
    return k.Sequential([k.layers.Input(**size), lstm])


def _half(k: Any) -> Any:
    mixed = k.layers.LSTM(4, return_sequences=True, dtype="mixed_float16", name="mixed")
    # Keras's orthogonal has no 16-bit QR.
    half = k.layers.LSTM(3, dtype="float16", recurrent_initializer="zeros", name="half")
    return k.Sequential([k.layers.Input((5, 3)), mixed, half])


def _wrapped(k: Any) -> Any:
    layers = k.layers
    return k.Sequential(
        [
            layers.Input((5, 3)),
            layers.LSTM(3, return_sequences=True, name="plain"),
            layers.Bidirectional(layers.LSTM(2, return_sequences=True, name="two"), name="both"),
            layers.RNN([layers.LSTMCell(2), layers.LSTMCell(3)], return_sequences=True, name="rnn"),
            layers.TimeDistributed(layers.Dense(2), name="dense"),
            layers.LSTM(2, name="last"),
        ]
    )


MODELS = {
    "sequential": _sequential,
    "many": _many,
    "nested": _nested,
    "thawed": _thawed,
    "cell": _cell,
    "stateful": _stateful,
    "half": _half,
    "wrapped": _wrapped,
}
FORMATS = {"keras": "keras", "weights": "weights.h5", "h5": "h5"}


def _lstms(model: Any, prefix: str = "") -> dict[str, Any]:
    found = {}
    for layer in model.layers:
        if type(layer).__name__ in ("LSTM", "Bidirectional", "RNN"):
            found[prefix + layer.name] = layer
        elif hasattr(layer, "layers"):
            found |= _lstms(layer, f"{prefix}{layer.name}/")
    return found


def make_files(folder: str, library: str) -> dict[str, dict[str, Any]]:
    """Every model in every format (and its JSON) in a folder; what each LSTM does to an input.

    Returns:
        {model: {layer: (x, weights, [output, h, c] or [output])}}.
    """
    k = importlib.import_module(library)
    answers: dict[str, dict[str, Any]] = {}
    for seed, (name, build) in enumerate(MODELS.items()):
        rng = np.random.RandomState(seed)
        model = build(k)
        _weights(model, rng)
        answers[name] = {}
        base = Path(folder) / name
        for suffix in FORMATS.values():
            path = f"{base}.{suffix}"
            (model.save_weights if "weights" in suffix else model.save)(path)
        base.with_suffix(".json").write_text(model.to_json())
        model.save_weights(f"{base}_weights.h5") if library == "tf_keras" else None
        for path, layer in _lstms(model).items():
            weights = layer.get_weights()
            x = rng.uniform(-1, 1, (2, 5, weights[0].shape[0])).astype(np.float32)
            result = layer(x)
            result = result if isinstance(result, tuple | list) else [result]
            answers[name][path] = (x, weights, [np.asarray(r, np.float64) for r in result])
    return answers


def bfloat16_file(path: str) -> Any:
    """A .weights.h5 in bfloat16 (Keras 3 alone writes it), and the weights as float32."""
    import keras

    lstm = keras.layers.LSTM(3, dtype="bfloat16", recurrent_initializer="zeros")
    model = keras.Sequential([keras.layers.Input((5, 4)), lstm])
    _weights(lstm, np.random.RandomState(3))
    model.save_weights(path)
    return [np.asarray(w, np.float32) for w in lstm.get_weights()]


def round_trip(library: str, keywords: dict[str, Any], x: np.ndarray) -> dict[str, Any]:
    """A live layer to torch, then to both live Kerases, then to torch: what each gives for x."""
    import torch

    from kerasish_lstm import from_keras, to_keras

    def numbers(result: Any) -> list[np.ndarray]:
        result = result if isinstance(result, tuple | list) else [result]
        return [np.asarray(r.detach() if hasattr(r, "detach") else r, np.float64) for r in result]

    k = importlib.import_module(library)
    layer = k.layers.LSTM(**keywords)
    layer.build((x.shape[0], None, x.shape[2]))
    _weights(layer, np.random.RandomState(5))
    if keywords.get("stateful"):
        layer(x[:, ::-1])
    module = from_keras(layer).eval()
    answers: dict[str, Any] = {"repr": repr(module), "live": numbers(layer(x))}
    own = ("seed", "dtype", "dropout_style")  # of the Keras that the layer came from
    others = {name: to_keras(module, backend=name) for name in ("keras", "tf_keras")}
    back = {name: from_keras(other).eval() for name, other in others.items()}
    tensor = torch.from_numpy(x)
    answers["torch"] = numbers(module(tensor))
    for name, other in others.items():
        answers[f"to {name}"] = numbers(other(x))
        answers[f"back from {name}"] = numbers(back[name](tensor))
        answers[f"config from {name}"] = {
            k: str(v) for k, v in vars(back[name].config).items() if k not in own
        }
        answers[f"weights from {name}"] = back[name].get_weights()
        reread = type(other).from_config(other.get_config())  # saves and loads, functions too
        answers[f"reread {name}"] = json.dumps(str(reread.get_config()["recurrent_activation"]))
    answers["config"] = {k: str(v) for k, v in vars(module.config).items() if k not in own}
    answers["style"] = module.config.dropout_style
    answers["weights"] = layer.get_weights()
    return answers


def hidden_lstms(folder: str, library: str) -> None:
    """Models in which LSTMs hide: in a class of the author's, and in one that is called LSTM."""
    k = importlib.import_module(library)

    class Encoder(k.layers.Layer):  # type: ignore[misc]
        def __init__(self, **keywords: Any) -> None:
            super().__init__(**keywords)
            self.rnn = k.layers.LSTM(4, return_sequences=True)

        def build(self, shape: Any) -> None:
            self.rnn.build(shape)
            self.built = True

        def call(self, x: Any) -> Any:
            return self.rnn(x)

        def compute_output_shape(self, shape: Any) -> Any:
            return (*shape[:-1], 4)

    class LSTM(k.layers.LSTM):  # type: ignore[misc]
        def call(
            self, sequences: Any, initial_state: Any = None, mask: Any = None, training: Any = False
        ) -> Any:
            options = {"initial_state": initial_state, "mask": mask, "training": training}
            return 2 * super().call(sequences, **options)

    layers = k.layers
    encoder = k.Sequential([layers.Input((5, 3)), Encoder(name="enc"), layers.LSTM(4, name="own")])
    for suffix in ("keras", "h5"):
        encoder.save(f"{folder}/encoder.{suffix}")
    k.Sequential([layers.Input((5, 3)), LSTM(4, name="twice")]).save(f"{folder}/foreign.keras")


def refused(library: str) -> dict[str, str]:
    """The errors of the converter on live layers that it cannot take, by what they are."""
    import torch

    import kerasish_lstm as ours

    k = importlib.import_module(library)

    def relu(x: Any) -> Any:
        return x * 0

    own = k.layers.LSTM(3, activation=relu)
    own.build((2, 5, 3))
    bad: dict[str, Any] = {
        "own activation": lambda: ours.from_keras(own),
        "not built": lambda: ours.from_keras(k.layers.LSTM(3, name="raw")),
        "another layer": lambda: ours.from_keras(k.layers.GRU(3)),
        "no layer": lambda: ours.from_keras(3),
        "backend": lambda: ours.to_keras(ours.LSTM(2, 3), backend="theano"),  # type: ignore[arg-type]
        "no module": lambda: ours.to_keras(torch.nn.LSTM(2, 3)),  # type: ignore[arg-type]
        "callable": lambda: ours.to_keras(ours.LSTM(2, 3, activation=torch.sin)),
        "stateful": lambda: ours.to_keras(ours.LSTM(2, 3, stateful=True)),
        "unknown there": lambda: ours.to_keras(
            ours.LSTM(2, 3, activation="sparse_plus"), backend="tf_keras"
        ),
    }
    found = {}
    for name, call in bad.items():
        try:
            call()
        except ours.errors.ConfigError as error:
            found[name] = str(error)
    return found


def run_file(path: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """What the layers of a model file give for inputs, called one by one."""
    import keras

    model = keras.models.load_model(path)
    answers = {}
    for name, x in inputs.items():
        result = model.get_layer(name)(x)
        result = result if isinstance(result, tuple) else (result,)
        answers[name] = [np.asarray(r, np.float64) for r in result]
    return answers


def activation_names() -> tuple[list[str], list[str]]:
    """The names that Keras knows as activations, and those that its LSTM fails on."""
    import keras
    from keras.src.activations import ALL_OBJECTS_DICT

    failing = []
    for name in ALL_OBJECTS_DICT:
        try:
            keras.layers.LSTM(4, activation=name)(np.zeros((1, 2, 3), np.float32))
        except Exception:  # whatever it is: the question is whether it runs
            failing.append(name)
    return list(ALL_OBJECTS_DICT), failing


def run_tf_keras(keywords: dict[str, Any], arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs of a tf_keras LSTM in float64."""
    import tensorflow as tf
    import tf_keras

    units = arrays["recurrent_kernel"].shape[0]
    layer = tf_keras.layers.LSTM(units, dtype="float64", **keywords)
    layer.build(arrays["x"].shape)
    layer.set_weights([arrays[k] for k in ("kernel", "recurrent_kernel", "bias")])
    state = [tf.constant(arrays["h0"]), tf.constant(arrays["c0"])]
    result = layer(tf.constant(arrays["x"]), mask=arrays["mask"], initial_state=state)
    return [np.asarray(r) for r in result]


def run_glu(x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """A partial of glu in a Keras LSTM(2): the one unit that it leaves is broadcast to two."""
    import functools

    import keras

    glu = functools.partial(keras.activations.glu, axis=-1)
    layer = keras.layers.LSTM(2, activation=glu, dtype="float64")
    layer.build(x.shape)
    layer.set_weights(weights)
    return np.asarray(layer(x))


def run_bidirectional(requests: list[dict[str, Any]]) -> list[dict[str, np.ndarray]]:
    """Results and gradients of Bidirectional layers; see test_bidirectional.Both."""
    return [_run_both(**request) for request in requests]


def _run_both(
    keywords: dict[str, Any],
    merge_mode: str | None,
    units: tuple[int, int],
    arrays: dict[str, np.ndarray],
    results: list[str],
    dtype: str,
) -> dict[str, np.ndarray]:
    import keras
    import tensorflow as tf

    pattern, other = (
        keras.layers.LSTM(u, dtype=dtype, go_backwards=backwards, **keywords)
        for u, backwards in zip(units, (False, True), strict=True)
    )
    backward = None if units[0] == units[1] else other
    layer = keras.layers.Bidirectional(pattern, merge_mode, backward_layer=backward, dtype=dtype)
    layer.build(arrays["x"].shape)
    names = [f"{n}_{s}" for s in "fb" for n in ("kernel", "recurrent_kernel", "bias")]
    layer.set_weights([arrays[n] for n in names])
    t = {k: tf.constant(v, dtype) for k, v in arrays.items() if k != "mask"}
    mask = tf.constant(arrays["mask"]) if "mask" in arrays else None
    if "first_x" in t:
        layer(t["first_x"], mask=mask)
    watched = {"d_x": t["x"]}
    watched |= {f"d_{n}": w.value for n, w in zip(names, layer.weights, strict=True)}
    state = None
    if "h_f" in t:
        state = [t[s] for s in ("h_f", "c_f", "h_b", "c_b")]
        watched |= {f"d_{s}0": t[s] for s in ("h_f", "c_f", "h_b", "c_b")}
    with tf.GradientTape() as tape:
        tape.watch(list(watched.values()))
        result = layer(t["x"], initial_state=state, mask=mask)
        result = result if isinstance(result, tuple) else (result,)
        found = dict(zip(results, result, strict=True))
        loss = tf.add_n([tf.reduce_sum(v * t[f"d_{n}"]) for n, v in found.items()])
    for name, gradient in tape.gradient(loss, watched).items():
        found[name] = tf.zeros_like(watched[name]) if gradient is None else gradient
    return {k: np.asarray(tf.cast(v, tf.float64)) for k, v in found.items()}


def changed_since() -> tuple[str, bool, str, str]:
    """What to_keras makes of layers that were changed after from_keras."""
    import keras

    from kerasish_lstm import from_keras, to_keras

    def made(dtype: str) -> Any:
        layer = keras.layers.LSTM(3, dtype=dtype)
        layer.build((2, 5, 3))
        return from_keras(layer)

    wide = made("float32").double()
    wide.trainable = False
    back, mixed = to_keras(wide), to_keras(made("mixed_float16"))
    return back.dtype_policy.name, back.trainable, mixed.dtype_policy.name, mixed.variable_dtype
