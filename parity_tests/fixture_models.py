"""The models of the fixtures: built, saved and run inside one version of Keras.

    python fixture_models.py LIBRARY FOLDER PLAN

``make_fixtures`` runs this file as a script in each version's environment. It imports nothing of
the repository and keeps to Python 3.7, so that Keras 1 can run it too. LIBRARY is ``keras``,
``tf_keras`` or ``tensorflow.keras``; PLAN is the JSON of ``{model: [formats]}``. FOLDER gets the
files, ``answers.json`` and ``answers.npz``.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import sys
import traceback
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH, STEPS, FEATURES, OUTER = 3, 5, 3, 2
FORMATS = {  # what follows the model's name
    "keras": ".keras",
    "weights.h5": ".weights.h5",
    "weights.json": ".weights.json",  # sharded
    "h5": ".h5",  # legacy, the whole model
    "h5 weights": "_weights.h5",  # legacy, the weights alone
}
WRAPPERS = ("LSTM", "CuDNNLSTM", "Bidirectional", "RNN", "TimeDistributed")
SHARD_GB = 7e-7  # 700 bytes: two LSTMs of 3 units


def uniform(seed: int, shape: Any) -> np.ndarray:
    """The generator of every input and weight; RandomState's stream is the same in all NumPys."""
    values: np.ndarray = np.random.RandomState(seed).uniform(-1, 1, shape).astype(np.float32)
    return values


class Kit:
    """One Keras, under the names that all versions share."""

    def __init__(self, library: str) -> None:
        self.k = importlib.import_module(library)
        self.layers = importlib.import_module(f"{library}.layers")
        self.models = importlib.import_module(f"{library}.models")
        version = getattr(self.k, "__version__", None)
        if version is None:  # Keras 3 on some versions has it in version()
            version = self.k.version()
        self.version = str(version).replace("-tf", "")
        self.major = int(self.version.split(".", maxsplit=1)[0])
        tf: Any = importlib.import_module("tensorflow")
        self.tf = tf
        self.eager = self.major == 3 or (hasattr(tf, "executing_eagerly") and tf.__version__ >= "2")

    def lstm(self, units: int, **more: Any) -> Any:
        if self.major == 1 and "recurrent_activation" in more:
            more["inner_activation"] = more.pop("recurrent_activation")
        return self.layers.LSTM(units, **more)

    def sequential(self, *layers: Any, **more: Any) -> Any:
        """A Sequential on (BATCH or None, STEPS, FEATURES)."""
        shape, batch = (STEPS, FEATURES), more.pop("batch", None)
        if self.major == 3:
            first = self.layers.Input(batch_shape=(batch, *shape))
        elif self.major == 1:
            kind = importlib.import_module("keras.engine").InputLayer
            first = kind(batch_input_shape=(batch, *shape))
        else:
            first = self.layers.InputLayer(input_shape=shape, batch_size=batch)
        return self.models.Sequential([first, *layers], **more)

    def model(self, inputs: Any, outputs: Any, **more: Any) -> Any:
        return self.models.Model(inputs, outputs, **more)

    def input(self, *shape: int) -> Any:
        return self.layers.Input(shape or (STEPS, FEATURES))

    def clear(self) -> None:
        """Default names start at the beginning again."""
        if self.major == 3:
            importlib.import_module("keras").utils.clear_session()
        else:
            self.k.backend.clear_session()


def _sequential(kit: Kit) -> Any:
    return kit.sequential(
        kit.lstm(5, return_sequences=True, recurrent_activation="hard_sigmoid", name="first"),
        kit.lstm(2, recurrent_activation="sigmoid", go_backwards=True, name="second"),
        kit.layers.Dense(1, name="head"),
    )


def _trained(kit: Kit) -> Any:
    """Trained for a step: whole files hold the optimizer's arrays, some of an LSTM's shapes."""
    model = _sequential(kit)
    model.compile("adam", "mse")
    return model


def _bidirectional(kit: Kit) -> Any:
    both = kit.layers.Bidirectional
    x = kit.input()
    y = both(kit.lstm(3, return_sequences=True), merge_mode="concat", name="concat")(x)
    y = both(kit.lstm(2, return_sequences=True), merge_mode="sum", name="sum")(y)
    return kit.model(x, y)


def _stacked(kit: Kit) -> Any:
    cells = [kit.layers.LSTMCell(3), kit.layers.LSTMCell(5)]
    return kit.sequential(kit.layers.RNN(cells, return_sequences=True, name="stack"))


def _time_distributed(kit: Kit) -> Any:
    x = kit.input(OUTER, STEPS, FEATURES)
    each = kit.layers.TimeDistributed(kit.lstm(3, name="inside"), name="each")
    return kit.model(x, each(x))


def _nested(kit: Kit) -> Any:
    """All LSTMs have one shape and their default names, so that the order alone tells them."""
    x, a = kit.input(), kit.input()
    inner = kit.model(a, kit.lstm(3, return_sequences=True)(kit.lstm(3, return_sequences=True)(a)))
    return kit.model(x, inner(kit.lstm(3, return_sequences=True)(x)))


def _many(kit: Kit) -> Any:
    """Eleven: lstm_10 sorts before lstm_2."""
    x = y = kit.input()
    for n in range(11):
        y = kit.lstm(3, return_sequences=n < 10)(y)
    return kit.model(x, y)


def _frozen(kit: Kit) -> Any:
    """Legacy files store the frozen layer's weights after the others' of its model."""
    names = ("a", "b", "c")
    inside = [kit.lstm(3, return_sequences=True, name=name) for name in names]
    inside[1].trainable = False
    inner = kit.sequential(*inside, name="inner")
    x = kit.input()
    return kit.model(x, kit.lstm(3, name="back")(inner(x)))


def _subclassed(kit: Kit) -> Any:
    """Layers with Keras's defaults, which is what a file without a config gives."""

    class Mine(kit.models.Model):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.alpha = kit.lstm(3, name="alpha")
            self.beta = kit.lstm(5, name="beta")
            self.head = kit.layers.Dense(1, name="head")

        def call(self, x: Any) -> Any:
            return self.head(self.alpha(x)) + self.head.bias + self.beta(x)[:, :1]

    model = Mine()
    model(kit.tf.constant(uniform(0, (BATCH, STEPS, FEATURES))))
    return model


def _encoder_decoder(kit: Kit) -> Any:
    x, target = kit.input(), kit.input(STEPS, 2)
    _, h, c = kit.lstm(3, return_state=True, name="encoder")(x)
    decoder = kit.lstm(3, return_sequences=True, return_state=True, name="decoder")
    return kit.model([x, target], decoder(target, initial_state=[h, c])[0])


def _low_precision(kit: Kit) -> Any:
    """Keras 2 on the CPU has no LSTM in bfloat16; Keras's orthogonal has no 16-bit QR."""
    half = "bfloat16" if kit.major == 3 else "float16"
    return kit.sequential(
        kit.lstm(3, dtype="mixed_float16", name="mixed", return_sequences=True),
        kit.lstm(2, dtype=half, name="half", recurrent_initializer="zeros"),
    )


def _stateful(kit: Kit) -> Any:
    return kit.sequential(
        kit.layers.Masking(0.0, name="mask"),
        kit.lstm(3, stateful=True, return_sequences=True, name="state"),
        batch=BATCH,
    )


def _cudnn(kit: Kit) -> Any:
    """Its kernel takes a GPU. Weights and files need none: here it computes nothing."""
    layer = kit.layers.CuDNNLSTM(3, return_sequences=True, name="fast")
    layer._process_batch = lambda x, state: (x * kit.tf.zeros(3), state)
    return kit.sequential(layer)


MODELS: dict[str, Callable[[Kit], Any]] = {
    "sequential": _sequential,
    "trained": _trained,
    "bidirectional": _bidirectional,
    "stacked": _stacked,
    "time_distributed": _time_distributed,
    "nested": _nested,
    "many": _many,
    "frozen": _frozen,
    "subclassed": _subclassed,
    "encoder_decoder": _encoder_decoder,
    "low_precision": _low_precision,
    "stateful": _stateful,
    "cudnn": _cudnn,
}


def save(kit: Kit, model: Any, path: str, form: str) -> None:
    if form == "weights.json":
        model.save_weights(path, max_shard_size=SHARD_GB)
    elif "weights" in form:
        model.save_weights(path)
    else:
        model.save(path)


def lstm_layers(model: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """(name, layer) of every layer with an LSTM, nested models' names joined by ``/``."""
    found = []
    for layer in model.layers:
        kind = type(layer).__name__
        if kind in WRAPPERS:
            found.append((prefix + layer.name, layer))
        elif hasattr(layer, "layers") and not hasattr(layer, "cell"):
            found += lstm_layers(layer, f"{prefix}{layer.name}/")
    return found


def keras_2_weights(kit: Kit, layer: Any) -> list[np.ndarray]:
    """What get_weights gives; Keras 1's twelve arrays an LSTM as Keras 2 converts them."""
    weights = list(layer.get_weights())
    if kit.major > 1:
        return weights
    found = []
    for at in range(0, len(weights), 12):
        one = weights[at : at + 12]  # W, U, b of i, then of c, f, o
        gates = [one[n : n + 3] for n in (0, 6, 3, 9)]
        found += [np.concatenate([gate[n] for gate in gates], axis=-1) for n in range(3)]
    return found


def checksum(weights: Any) -> str:
    """sha256 of the arrays' bytes in float32, one after the other."""
    sha = hashlib.sha256()
    for array in weights:
        sha.update(np.ascontiguousarray(np.asarray(array).astype(np.float32)).tobytes())
    return sha.hexdigest()


def some_mask(seed: int) -> np.ndarray:
    """A row of ragged length, a row with a hole, a full row."""
    mask: np.ndarray = np.ones((BATCH, STEPS), bool)
    mask[0, 2 + seed % 3 :] = False
    mask[1, seed % STEPS] = False
    return mask


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def run(
    kit: Kit,
    layer: Any,
    x: np.ndarray,
    mask: np.ndarray | None,
    state: Any,
    whole: Any,
) -> list[list[np.ndarray]]:
    """What a layer gives in one call; in two, where it is the one of a stateful ``whole`` model."""
    calls = 2 if whole is not None else 1
    if kit.eager:
        tf = kit.tf
        more: dict[str, Any] = {}
        if mask is not None:
            more["mask"] = tf.constant(mask)
        if state:
            more["initial_state"] = [tf.constant(s) for s in state]
        found = [_tuple(layer(tf.constant(x), **more)) for _ in range(calls)]
        return [[np.asarray(tf.cast(r, tf.float32)) for r in result] for result in found]
    if whole is not None:  # a graph updates its states in its own model alone
        return [[whole.predict(x, batch_size=BATCH)] for _ in range(calls)]
    inputs = [kit.layers.Input(a.shape[1:]) for a in (x, *state)]
    given = inputs[0]
    more = {"initial_state": inputs[1:]} if state else {}
    outputs = list(_tuple(layer(given, **more)))
    model = kit.model(inputs, outputs if len(outputs) > 1 else outputs[0])
    arrays: Any = [x, *state] if state else x
    every = [_tuple(model.predict(arrays, batch_size=BATCH)) for _ in range(calls)]
    return [[np.asarray(r, np.float32) for r in result] for result in every]


def answers(
    kit: Kit, name: str, model: Any, arrays: dict[str, np.ndarray], prefix: str
) -> list[dict[str, Any]]:
    """What the layers of a model give to inputs of their own, and their weights' checksums."""
    entries = []
    for position, (path, layer) in enumerate(lstm_layers(model)):
        kind = type(layer).__name__
        seed = zlib.crc32(f"{name}/{position}".encode()) % 1_000_000
        weights = keras_2_weights(kit, layer)
        shape = [BATCH, STEPS, int(weights[0].shape[0])]
        if kind == "TimeDistributed":
            shape.insert(1, OUTER)
        entry: dict[str, Any] = {
            "name": path,
            "class": kind,
            "weights": checksum(weights),
            "compute_dtype": str(getattr(layer, "compute_dtype", None) or "float32"),
            "input": {"seed": seed, "shape": shape},
        }
        x = uniform(seed, shape)
        mask = some_mask(seed) if name == "stateful" else None
        if mask is not None:
            entry["mask"] = mask.tolist()
            x[~mask] = 0
        state: list[np.ndarray] = []
        if path == "decoder":
            units = int(weights[1].shape[0])
            entry["initial_state"] = {"seeds": [seed + 1, seed + 2], "shape": [BATCH, units]}
            state = [uniform(seed + n, (BATCH, units)) for n in (1, 2)]
        if name == "stateful":
            (layer.reset_state if hasattr(layer, "reset_state") else layer.reset_states)()
        entry["outputs"] = []
        whole = model if name == "stateful" else None
        for call, result in enumerate(run(kit, layer, x, mask, state, whole)):
            keys = [f"{prefix}/{path}/{call}/{n}" for n in range(len(result))]
            arrays.update({key: result[n] for n, key in enumerate(keys)})
            entry["outputs"].append(keys)
        entries.append(entry)
    return entries


def prepare(kit: Kit, name: str) -> Any:
    """A model with random weights."""
    kit.clear()
    model = MODELS[name](kit)
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    values = [rng.uniform(-0.6, 0.6, w.shape).astype(np.float32) for w in model.get_weights()]
    model.set_weights(values)
    if name == "trained":
        x, y = uniform(1, (BATCH, STEPS, FEATURES)), uniform(2, (BATCH, 1))
        model.train_on_batch(x, y)
    return model


def main(library: str, folder: str, plan: dict[str, list[str]]) -> None:
    kit = Kit(library)
    arrays: dict[str, np.ndarray] = {}
    files, models, failed = [], {}, {}
    label = os.path.basename(folder)
    for name, forms in plan.items():
        try:
            model = prepare(kit, name)
            for form in forms:
                path = os.path.join(folder, name + FORMATS[form])
                entry = {"file": f"{label}/{name}{FORMATS[form]}", "format": form, "model": name}
                try:
                    save(kit, model, path, form)
                    if "weights" in form and name != "subclassed":
                        entry["config"] = f"{label}/{name}.json"
                        with open(os.path.join(folder, name + ".json"), "w") as file:
                            file.write(
                                json.dumps(json.loads(model.to_json()), separators=(",", ":"))
                            )
                except Exception as error:  # of this format; the others may be fine
                    failed[f"{name} {form}"] = f"{type(error).__name__}: {error}"[:300]
                    traceback.print_exc()
                    continue
                files.append(entry)
            if name == "cudnn":  # Keras itself makes a plain LSTM of its weights
                plain = kit.lstm(
                    3, return_sequences=True, recurrent_activation="sigmoid", name="fast"
                )
                model = kit.sequential(plain)
                model.load_weights(path)
            models[name] = answers(kit, name, model, arrays, f"{label}/{name}")
            for layer in models[name]:
                layer["class"] = "CuDNNLSTM" if name == "cudnn" else layer["class"]
        except Exception as error:  # of this model; the others may be fine
            failed[name] = f"{type(error).__name__}: {error}"[:300]
            traceback.print_exc()
    backend = kit.k.backend.backend() if hasattr(kit.k, "backend") else "tensorflow"
    about = {
        "keras": kit.version,
        "library": library,
        "backend": str(backend),
        "tensorflow": kit.tf.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "failed": failed,
    }
    found = {"about": about, "files": files, "models": models}
    with open(os.path.join(folder, "answers.json"), "w") as file:
        json.dump(found, file)
    named: Any = arrays  # mypy takes the names for keywords
    np.savez(os.path.join(folder, "answers.npz"), **named)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
