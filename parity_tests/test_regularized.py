"""What Keras's ``fit`` adds to an LSTM: losses of the layers, constraints, dropout in training.

Each claim stands twice: beside live Keras, and beside float64 equations in NumPy, which need no
Keras and by which the meta tests kill mutants.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import itertools
import math
import pickle
import weakref
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from kerasish_lstm import (
    LSTM,
    Bidirectional,
    DropoutMasks,
    LazyLSTM,
    LSTMCell,
    StackedLSTM,
    TimeDistributed,
    accumulate_losses,
    constrain,
    keras_adam,
    regularization_loss,
)
from kerasish_lstm.errors import ConfigError
from kerasish_lstm.parity import assert_parity, oracle
from kerasish_lstm.parity.bounds import FLOAT64

from .cases import DROPOUTS, mask_of
from .keras_live import KerasLive
from .sampling import amount, fields, sampled

B, N, T, F = 5, 2, 7, 3  # N is TimeDistributed's outer time
Spec = dict[str, Any]
Arrays = dict[str, np.ndarray]
Made = dict[str, Any]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """These sizes are too small for a second thread, which waits where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Layers, as what both sides build them from


def _spec(kind: str, *layers: Spec, **keywords: Any) -> Spec:
    return {"kind": kind, "layers": list(layers), "keywords": keywords}


def lstm(units: int, **keywords: Any) -> Spec:
    return _spec("lstm", units=units, **keywords)


def cell(units: int, **keywords: Any) -> Spec:
    return _spec("cell", units=units, **keywords)


def made(name: str, **config: Any) -> Made:
    return {"class_name": name, "config": config}


def build(spec: Spec, features: int, dtype: Any = torch.float64) -> Any:
    """The layer of a spec; of a ``model`` a tree of modules, of ``twice`` its one layer."""
    kind, keywords, inner = spec["kind"], spec["keywords"], spec["layers"]
    if kind in ("lstm", "cell"):
        return {"lstm": LSTM, "cell": LSTMCell}[kind](features, dtype=dtype, **keywords)
    layers = []
    for s in inner:
        layers.append(build(s, features, dtype))
        features = width(s)
    if kind in ("both", "time"):
        return {"both": Bidirectional, "time": TimeDistributed}[kind](layers[0], **keywords)
    if kind in ("one", "cells", "chain"):
        return StackedLSTM(layers[0] if kind == "one" else layers, **keywords)
    return layers[0] if kind == "twice" else torch.nn.Sequential(*layers[:-1], Last(layers[-1]))


class Last(torch.nn.Module):
    """A module of the user's own around a layer."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.inside = torch.nn.ModuleDict({"layer": layer})

    def forward(self, x: Any) -> Any:
        return self.inside["layer"](x)


def width(spec: Spec) -> int:
    """The number of features of the output."""
    if spec["kind"] in ("lstm", "cell"):
        return int(spec["keywords"]["units"])
    twice = spec["kind"] == "both" and spec["keywords"].get("merge_mode", "concat") == "concat"
    return width(spec["layers"][-1]) * (2 if twice else 1)


def count(spec: Spec) -> int:
    """How many LSTMs are inside."""
    if spec["kind"] in ("lstm", "cell"):
        return 1
    return sum(map(count, spec["layers"])) * (2 if spec["kind"] == "both" else 1)


def lstms(module: torch.nn.Module) -> list[Any]:
    return [m for m in module.modules() if isinstance(m, LSTM | LSTMCell)]


def injected(spec: Spec, arrays: Arrays, real: torch.dtype, at: Iterator[int]) -> Any:
    """The dropout masks of the arrays, in the form in which the layer of a spec takes them."""
    if spec["kind"] in ("lstm", "cell"):
        i = next(at)
        found = []
        for name in ("dropout", "recurrent_dropout"):
            mask = arrays.get(f"{name}{i}")
            mask = mask if mask is None or len(mask) == 4 else mask[0]
            found.append(None if mask is None else torch.tensor(mask, dtype=real))
        return DropoutMasks(*found)
    inner = spec["layers"] * (2 if spec["kind"] == "both" else 1)
    parts = [injected(s, arrays, real, at) for s in inner]
    return parts[0] if spec["kind"] == "one" else parts


def draw_dropout(kind: str, sizes: list[tuple[int, int]], rng: np.random.RandomState) -> Arrays:
    """Masks (1 or 4, B, size) of a kind of cases.DROPOUTS for LSTMs of (input size, units)."""
    arrays = {}
    for i, size in enumerate(sizes):
        for name, n in zip(("dropout", "recurrent_dropout"), size, strict=True):
            rate = float(DROPOUTS[kind].get(name, 0.0))  # type: ignore[arg-type]
            if rate:
                kept = rng.uniform(size=(1 if kind == "input" else 4, B, n)) >= rate
                arrays[f"{name}{i}"] = np.where(kept, np.float32(1 / (1 - rate)), 0.0)
    return arrays


def weights_of(module: Any, rng: np.random.RandomState) -> Arrays:
    """Weights in Keras's order, uniform in 1 / sqrt(units)."""
    return {
        f"weight{i:02d}": rng.uniform(-1, 1, w.shape) * (w.shape[-1] / 4) ** -0.5
        for i, w in enumerate(module.get_weights())
    }


# The equations


def coefficient(value: float) -> float:
    return float(np.float32(value))  # as Keras holds factors, in float64 too


def penalty(regularizer: Made | None, w: np.ndarray) -> float:
    if regularizer is None:
        return 0.0
    config = regularizer["config"]
    if regularizer["class_name"] == "OrthogonalRegularizer":
        vectors = w if config["mode"] == "rows" else w.T
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines = np.abs(unit @ unit.T)[np.triu_indices(len(unit), 1)]
        return coefficient(config["factor"]) * float(cosines.mean())
    l1, l2 = (coefficient(config.get(name, 0.0)) for name in ("l1", "l2"))
    return float(l1 * np.abs(w).sum() + l2 * (w**2).sum())


def slope(regularizer: Made | None, w: np.ndarray) -> np.ndarray:
    """The gradient of an L1, L2 or L1L2."""
    config = {} if regularizer is None else regularizer["config"]
    l1, l2 = (coefficient(config.get(name, 0.0)) for name in ("l1", "l2"))
    return l1 * np.sign(w) + 2 * l2 * w


def constrained(constraint: Made | None, w: np.ndarray) -> np.ndarray:
    if constraint is None:
        return w
    name, config = constraint["class_name"], constraint["config"]
    if name == "NonNeg":
        return np.maximum(w, 0.0)
    axis = config.get("axis", 0)
    n = np.sqrt((w**2).sum(tuple(axis) if isinstance(axis, list) else axis, keepdims=True))
    high = config.get("max_value", 1.0)
    clipped = np.clip(n, config.get("min_value", 0.0), high)
    rate = config.get("rate", 1.0)
    wanted = {"UnitNorm": 1.0, "MaxNorm": clipped}.get(name, rate * clipped + (1 - rate) * n)
    return w * wanted / (n + 1e-7)


class Tree(NamedTuple):
    """The activity losses of a layer, and those of the layers inside it."""

    own: list[float]
    inside: list[Tree]

    def in_order(self, top: bool = True) -> list[float]:
        """Keras's ``_flatten_layers``: the children of a layer that is not the top in reverse."""
        inside = self.inside if top else self.inside[::-1]
        return self.own + [loss for tree in inside for loss in tree.in_order(False)]


class Ran(NamedTuple):
    results: list[np.ndarray]
    states: list[np.ndarray]  # of an LSTM: h, c
    activity: Tree
    penalties: list[float]


class Part(NamedTuple):
    """What belongs to one LSTM."""

    weights: list[np.ndarray]
    masks: dict[str, np.ndarray]


def parts_of(arrays: Arrays) -> list[Part]:
    weights = [arrays[n] for n in sorted(arrays) if n.startswith("weight")]
    parts = []
    for i in range(len(weights) // 3):
        masks = {}
        if f"dropout{i}" in arrays:
            masks["input_dropout"] = arrays[f"dropout{i}"][:, :, None]
        if f"recurrent_dropout{i}" in arrays:
            masks["recurrent_dropout"] = arrays[f"recurrent_dropout{i}"]
        parts.append(Part(weights[3 * i : 3 * i + 3], masks))
    return parts


FLAGS = ("return_sequences", "go_backwards", "zero_output_for_mask")


def equations(
    spec: Spec,
    x: np.ndarray,
    mask: np.ndarray | None,
    parts: list[Part],
    state: list[np.ndarray] | None = None,
) -> Ran:
    """Results and losses of a layer, the LSTMs by the oracle."""
    kind, keywords, inner = spec["kind"], spec["keywords"], spec["layers"]
    if kind in ("lstm", "cell"):
        h0, c0 = state or (None, None)
        ran = oracle.forward(
            x, *parts[0].weights, h0=h0, c0=c0, mask=mask, **parts[0].masks,
            **{f: keywords.get(f, False) for f in FLAGS},
        )  # fmt: skip
        states = [ran.h, ran.c]
        results = [ran.output, *(states if keywords.get("return_state") else [])]
        penalties = [
            penalty(keywords[f"{role}_regularizer"], w)
            for role, w in zip(ROLES, parts[0].weights, strict=True)
            if keywords.get(f"{role}_regularizer") and keywords.get("trainable", True)
        ]
        below: list[Ran] = []
    elif kind == "both":
        zero = {"zero_output_for_mask": inner[0]["keywords"].get("return_sequences", False)}
        below = [
            equations(
                _spec("lstm", **{**inner[0]["keywords"], **zero, "go_backwards": bool(i)}),
                x, mask, [parts[i]],
            )
            for i in range(2)
        ]  # fmt: skip
        f, b = (r.results[0] for r in below)
        b = b[:, ::-1] if zero["zero_output_for_mask"] else b
        merge = keywords.get("merge_mode", "concat")
        outputs = {"concat": [np.concatenate([f, b], -1)], "sum": [f + b], None: [f, b]}[merge]
        results = [*outputs, *(s for r in below for s in r.results[1:])]
    elif kind in ("one", "cells"):
        flip = slice(None, None, -1 if keywords.get("go_backwards") else 1)
        y, m, below = x[:, flip], None if mask is None else mask[:, flip], []
        for i, s in enumerate(inner):
            flags = {"return_sequences": True}
            if i == len(inner) - 1:
                flags = {f: keywords.get(f, False) for f in FLAGS if f != "go_backwards"}
            below.append(equations(_spec("lstm", **s["keywords"], **flags), y, m, [parts[i]]))
            y = below[-1].results[0]
        states = [s for r in below for s in r.states]
        results = [y, *(states if keywords.get("return_state") else [])]
    elif kind == "time":
        slices: list[Ran] = []
        for i in range(x.shape[1]):
            before = slices[-1].states if slices and inner[0]["keywords"].get("stateful") else None
            m = None if mask is None else mask[:, i]
            slices.append(equations(inner[0], x[:, i], m, parts, before))
        several = len(slices[0].results) > 1
        shown = [np.stack(r.results) if several else r.results[0] for r in slices]
        results = [np.stack(shown).swapaxes(0, 1)]
        # Keras calls the layer's ``call``: its own losses are dropped, those inside it are not.
        below = [slices[0]._replace(activity=_dropped([r.activity for r in slices]))]
    else:
        y, below, at = x, [], 0
        for s in inner * 2 if kind == "twice" else inner:
            at = 0 if kind == "twice" else at
            below.append(equations(s, y, mask, parts[at : at + count(s)]))
            at += count(s)
            y = below[-1].results[0]
            mask = None if s["kind"] == "time" else mask
        results = below[-1].results
        if kind == "twice":
            below = [below[0]._replace(activity=_added([r.activity for r in below]))]
    if below:
        penalties = [p for r in below for p in r.penalties] * keywords.get("trainable", True)
        states = []
    regularizer = keywords.get("activity_regularizer")
    own = [penalty(regularizer, y) / len(y) for y in results if regularizer]
    return Ran(results, states, Tree(own, [r.activity for r in below]), penalties)


def _added(trees: list[Tree]) -> Tree:
    """The losses of several calls of one layer."""
    inside = zip(*(t.inside for t in trees), strict=True)
    return Tree([x for t in trees for x in t.own], [_added(list(ts)) for ts in inside])


def _dropped(trees: list[Tree]) -> Tree:
    return _added(trees)._replace(own=[])


ROLES = ("kernel", "recurrent", "bias")

# Losses

PENALTIES = {
    "kernel_regularizer": made("L2", l2=0.02),
    "recurrent_regularizer": made("L1L2", l1=0.01, l2=0.03),
    "bias_regularizer": made("L1", l1=0.015),
}
OTHERS = {
    "kernel_regularizer": made("L1", l1=0.04),
    "bias_regularizer": made("L1L2", l1=0.0, l2=0.05),
}
L1, L2, BOTH = made("L1", l1=0.1), made("L2", l2=0.3), made("L1L2", l1=0.2, l2=0.1)
SEQUENCES: dict[str, Any] = {"return_sequences": True}
CELLS = (cell(2, **PENALTIES), cell(5, **OTHERS))

LAYERS: dict[str, Spec] = {
    "lstm": lstm(2, **PENALTIES, activity_regularizer=L2),
    "lstm without activity": lstm(2, **PENALTIES),
    "lstm sequences": lstm(2, **OTHERS, **SEQUENCES, activity_regularizer=L1),
    "lstm states": lstm(2, **PENALTIES, return_state=True, activity_regularizer=BOTH),
    "lstm sequences states": lstm(
        2, **SEQUENCES, return_state=True, go_backwards=True, zero_output_for_mask=True,
        activity_regularizer=L2, bias_regularizer=L1,
    ),
    "lstm frozen": lstm(2, **PENALTIES, activity_regularizer=L2, trainable=False),
    "one cell": _spec("one", CELLS[0], return_state=True, activity_regularizer=L1),
    "cells": _spec("cells", *CELLS, activity_regularizer=L2),
    "cells states": _spec(
        "cells", *CELLS, **SEQUENCES, return_state=True, go_backwards=True,
        activity_regularizer=BOTH,
    ),
    "cells alike": _spec("cells", cell(F, **PENALTIES), cell(F, **OTHERS), return_state=True),
    "cells frozen": _spec("cells", *CELLS, trainable=False, activity_regularizer=L2),
    "both": _spec(
        "both", lstm(2, **PENALTIES, **SEQUENCES, activity_regularizer=L2), activity_regularizer=L1
    ),
    "both states": _spec(
        "both", lstm(2, **OTHERS, return_state=True, activity_regularizer=BOTH),
        merge_mode=None, activity_regularizer=L2,
    ),
    "both frozen": _spec("both", lstm(2, **PENALTIES), trainable=False, activity_regularizer=L1),
    "chain": _spec(
        "chain",
        lstm(2, **PENALTIES, **SEQUENCES, activity_regularizer=L1),
        _spec("both", lstm(5, **OTHERS, **SEQUENCES, activity_regularizer=L2),
              activity_regularizer=BOTH),
        lstm(11, **PENALTIES, activity_regularizer=L2),
    ),
    "time": _spec("time", lstm(2, **PENALTIES, activity_regularizer=L2), activity_regularizer=L1),
    "time stateful": _spec(
        "time", lstm(2, **OTHERS, stateful=True, activity_regularizer=L2), activity_regularizer=L1
    ),
    "time cells": _spec("time", _spec("cells", *CELLS, activity_regularizer=L2)),
    "time both": _spec(
        "time",
        _spec("both", lstm(2, **PENALTIES, **SEQUENCES, activity_regularizer=L2),
              activity_regularizer=BOTH),
        activity_regularizer=L1,
    ),
    "time chain": _spec(
        "time",
        _spec("chain", lstm(2, **SEQUENCES, activity_regularizer=L1), lstm(5, **OTHERS,
              activity_regularizer=L2)),
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer: whose losses it is about."""

    layer: str
    mask: str = "none"
    dropout: str = "none"

    @property
    def id(self) -> str:
        return f"{self.layer}-{self.mask}-{self.dropout}"

    @property
    def spec(self) -> Spec:
        return with_dropout(LAYERS[self.layer], self.dropout)

    def arrays(self) -> Arrays:
        rng = np.random.RandomState(zlib.crc32(self.id.encode()))
        outer = (N,) if self.layer.startswith("time") else ()
        arrays = {"x": rng.uniform(-2, 2, (B, *outer, T, F))}
        layer = build(self.spec, F)
        arrays |= weights_of(layer, rng)
        if self.mask != "none":
            masks = [mask_of(self.mask, B, T, rng) for _ in range(N)]
            arrays["mask"] = np.stack(masks, 1) if outer else masks[0]
        return arrays | draw_dropout(
            self.dropout, [(m.input_size, m.units) for m in lstms(layer)], rng
        )


def with_dropout(spec: Spec, kind: str) -> Spec:
    """The same layer, every LSTM inside it with dropout of a kind."""
    own = DROPOUTS[kind] if spec["kind"] in ("lstm", "cell") else {}
    inner = [with_dropout(s, kind) for s in spec["layers"]]
    return {**spec, "layers": inner, "keywords": {**spec["keywords"], **own}}


CALLS = [Call(name, mask) for name in LAYERS for mask in ("none", "gaps", "empty")]
CALLS += [
    Call(name, mask, dropout)
    for name in ("lstm states", "cells states", "both states", "chain")
    for mask, dropout in (("none", "input"), ("gaps", "both"))
]

# All of these are recorded (test_goldens).
ASKED = sampled(CALLS, 1 / 4, fields)


def ours(case: Call) -> Arrays:
    """As regularized_side.losses; besides, the results."""
    arrays = case.arrays()
    spec = case.spec
    layer = build(spec, F)
    layer.set_weights([arrays[n] for n in sorted(arrays) if n.startswith("weight")])
    t = {k: torch.tensor(arrays[k]) for k in ("x", "mask") if k in arrays}
    layer(t["x"].flip(-1), training=False)  # of whose losses nothing stays
    if hasattr(layer, "reset_state"):
        layer.reset_state()
    x = t["x"].requires_grad_()
    options: dict[str, Any] = {"mask": t.get("mask")}
    if case.dropout != "none":
        masks = injected(spec, arrays, torch.float64, itertools.count())
        options |= {"training": True, "dropout_masks": masks}
    result = layer(x, **options)
    losses = layer.losses
    watched = {"d_x": x}
    watched |= {f"d_weight{i:02d}": p for i, p in enumerate(layer.parameters()) if p.requires_grad}
    total = regularization_loss(layer)
    assert_parity(total, np.array(sum(float(loss.detach()) for loss in losses)), bound=1e-15)
    gradients = torch.autograd.grad(total, list(watched.values()), allow_unused=True)
    found = {f"result{i}": r for i, r in enumerate(flat(result))}
    found["losses"] = torch.stack(losses)
    for (name, p), g in zip(watched.items(), gradients, strict=True):
        gradient = torch.zeros_like(p) if g is None else g
        found[name] = gradient.t() if "weight" in name and p.ndim == 2 else gradient
    return {k: v.detach().cpu().numpy() for k, v in found.items()}


def flat(result: Any) -> list[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return [result]
    return [t for part in result for t in flat(part)]


@pytest.mark.parametrize("case", CALLS, ids=lambda c: c.id)
def test_losses_and_results_equal_the_equations(case: Call) -> None:
    arrays = case.arrays()
    ran = equations(case.spec, arrays["x"], arrays.get("mask"), parts_of(arrays))
    actual = ours(case)
    expected = {f"result{i}": r for i, r in enumerate(ran.results)}
    expected["losses"] = np.array(ran.activity.in_order() + ran.penalties)
    for name, value in expected.items():
        assert_parity(actual[name], value, bound=FLOAT64, what=name)


@pytest.fixture(scope="module")
def live(keras: KerasLive) -> dict[str, Arrays]:
    answers = keras.call(
        "regularized_side.losses", [{"spec": c.spec, "arrays": c.arrays()} for c in ASKED]
    )
    return {c.id: a for c, a in zip(ASKED, answers, strict=True)}


@pytest.mark.live
@pytest.mark.parametrize("case", ASKED, ids=lambda c: c.id)
def test_losses_and_their_gradients_equal_live_keras(case: Call, live: Any) -> None:
    actual, expected = ours(case), live[case.id]
    assert {k for k in actual if not k.startswith("result")} == set(expected)
    for name, value in expected.items():
        assert_parity(actual[name], value, bound=FLOAT64, what=name)


# Losses of one layer called twice, of a tree of modules, and what else becomes of them

TWICE = {
    "lstm": lstm(F, **PENALTIES, **SEQUENCES, activity_regularizer=L1),
    "both": _spec(
        "both", lstm(F, **OTHERS, **SEQUENCES, activity_regularizer=L2),
        merge_mode="sum", activity_regularizer=BOTH,
    ),
    "cells": _spec("cells", cell(2, **PENALTIES), cell(F), **SEQUENCES, activity_regularizer=L2),
}  # fmt: skip
TREE = _spec(
    "model",
    _spec("time", lstm(2, **PENALTIES, activity_regularizer=L2), activity_regularizer=L1),
    _spec("both", lstm(5, **OTHERS, **SEQUENCES, activity_regularizer=L2),
          merge_mode="sum", activity_regularizer=BOTH),
    _spec("cells", cell(3, **PENALTIES), cell(2), **SEQUENCES, activity_regularizer=L2),
    lstm(11, **PENALTIES, activity_regularizer=L2),
)  # fmt: skip


def inputs(spec: Spec, *outer: int) -> tuple[Any, Arrays]:
    """A layer or model with weights, and arrays."""
    rng = np.random.RandomState(29)
    module = build(spec, F)
    arrays = {"x": rng.uniform(-1, 1, (B, *outer, T, F))}
    for layer in lstms(module):
        fresh = list(weights_of(layer, rng).values())
        layer.set_weights(fresh)
        arrays |= {f"weight{len(arrays) - 1 + i:02d}": w for i, w in enumerate(fresh)}
    return module, arrays


@pytest.mark.live
@pytest.mark.parametrize("name", TWICE)
def test_a_layer_called_twice_has_keras_s_losses_of_both_calls(name: str, keras: KerasLive) -> None:
    spec = _spec("twice", TWICE[name])
    layer, arrays = inputs(spec)
    arrays["mask"] = mask_of("gaps", B, T, np.random.RandomState(3))
    (expected,) = keras.call("regularized_side.losses", [{"spec": spec, "arrays": arrays}])
    x, mask = torch.tensor(arrays["x"], requires_grad=True), torch.tensor(arrays["mask"])
    for _ in range(2):  # a span begins anew
        with accumulate_losses():
            y = layer(layer(x, mask=mask), mask=mask)
    # There the model is on top, and its layers are one floor further down.
    model = torch.nn.Sequential(layer)
    total = regularization_loss(model)
    assert_parity(total, np.array(expected["losses"].sum()), bound=FLOAT64)
    found = sorted(float(loss.detach()) for loss in layer.losses)
    assert_parity(np.array(found), np.sort(expected["losses"]), bound=FLOAT64)
    (d_x,) = torch.autograd.grad(total, x, retain_graph=True)
    assert_parity(d_x, expected["d_x"], bound=FLOAT64)
    d_weights = torch.autograd.grad(total, list(layer.parameters()))
    for i, d in enumerate(d_weights):
        gradient = d.t() if d.ndim == 2 else d
        assert_parity(gradient, expected[f"d_weight{i:02d}"], bound=FLOAT64)
    layer(y.detach(), mask=mask)
    assert len(layer.losses) < len(found)  # outside, a call replaces the last


def test_losses_of_both_calls_equal_the_equations() -> None:
    for each in TWICE.values():
        layer, arrays = inputs(_spec("twice", each))
        ran = equations(_spec("twice", each), arrays["x"], None, parts_of(arrays))
        with accumulate_losses():
            layer(layer(torch.tensor(arrays["x"])))
        found = torch.stack(layer.losses)
        (tree,) = ran.activity.inside
        assert_parity(found, np.array(tree.in_order() + ran.penalties), bound=FLOAT64)


@pytest.mark.live
def test_a_tree_of_modules_has_the_sum_of_a_keras_model_s_losses(keras: KerasLive) -> None:
    model, arrays = inputs(TREE, N)
    (expected,) = keras.call("regularized_side.losses", [{"spec": TREE, "arrays": arrays}])
    x = torch.tensor(arrays["x"], requires_grad=True)
    model(x)
    total = regularization_loss(model)
    assert_parity(total, np.array(expected["losses"].sum()), bound=FLOAT64)
    gradients = torch.autograd.grad(total, [x, *model.parameters()])
    for gradient, name in zip(gradients, [k for k in expected if k != "losses"], strict=True):
        turned = gradient.t() if gradient.ndim == 2 else gradient
        assert_parity(turned, expected[name], bound=FLOAT64, what=name)


def test_a_tree_of_modules_has_the_sum_of_the_equations() -> None:
    model, arrays = inputs(TREE, N)
    model(torch.tensor(arrays["x"]))
    ran = equations(TREE, arrays["x"], None, parts_of(arrays))
    expected = sum(ran.activity.in_order() + ran.penalties)
    assert_parity(regularization_loss(model), np.array(expected), bound=FLOAT64)


ORTHOGONAL = lstm(
    2,
    kernel_regularizer=made("OrthogonalRegularizer", factor=0.3, mode="rows"),
    recurrent_regularizer=made("OrthogonalRegularizer", factor=0.2, mode="columns"),
)


def test_a_regularizer_that_sees_axes_sees_keras_s() -> None:
    layer, arrays = inputs(ORTHOGONAL)
    expected = equations(ORTHOGONAL, arrays["x"], None, parts_of(arrays)).penalties
    assert_parity(torch.stack(layer.losses), np.array(expected), bound=FLOAT64)


@pytest.mark.live
def test_a_regularizer_that_sees_axes_gives_keras_s_loss(keras: KerasLive) -> None:
    """In float32, the one dtype for which Keras has it. The bound is test_regularizers's."""
    layer, arrays = inputs(ORTHOGONAL)
    request = {"spec": ORTHOGONAL, "arrays": arrays, "dtype": "float32"}
    (expected,) = keras.call("regularized_side.losses", [request])
    found = torch.stack(layer.float().losses)
    assert_parity(found, expected["losses"], bound=16 * float(np.finfo(np.float32).eps))


@pytest.mark.live
def test_an_empty_batch_has_no_activity_loss(keras: KerasLive) -> None:
    assert keras.call("regularized_side.empty_batch") == [0.0]
    for use_cudnn in ("auto", True, False):
        layer: LSTM = LSTM(
            F, 2, activity_regularizer=lambda y: y.mean(), return_state=True, use_cudnn=use_cudnn
        )
        layer(torch.zeros(0, T, F))
        assert [float(loss.detach()) for loss in layer.losses] == [0.0] * 3
        regularization_loss(layer).backward()
        assert not layer.lstm.weight_ih_l0.grad.any()


@pytest.mark.live
def test_time_major_divides_by_the_first_axis_as_tf_keras_does(tf_keras: KerasLive) -> None:
    spec = lstm(11, **SEQUENCES, return_state=True, activity_regularizer=BOTH, time_major=True)
    layer, arrays = inputs(spec)
    expected = tf_keras.call("regularized_side.time_major", arrays, BOTH)
    layer(torch.tensor(arrays["x"]))
    assert_parity(torch.stack(layer.losses), np.array(expected), bound=FLOAT64)


def test_frozen_weights_have_no_losses_wherever_they_were_frozen() -> None:
    layer = LSTM(F, 2, **PENALTIES, activity_regularizer=L2)
    layer(torch.ones(B, T, F))
    assert len(layer.losses) == 4
    layer.lstm.weight_hh_l0.requires_grad_(False)
    assert len(layer.losses) == 3
    layer.trainable = False
    assert len(layer.losses) == 1
    layer.trainable = True
    with torch.no_grad():  # an evaluation has them too, as Keras's has
        layer(torch.ones(B, T, F))
        assert len(layer.losses) == 4
    with torch.inference_mode():
        layer(torch.ones(B, T, F))
        assert len(layer.losses) == 4


def test_losses_in_16_bits_are_added_up_in_float32() -> None:
    layer = LSTM(F, 101, dtype="mixed_bfloat16", **PENALTIES, activity_regularizer=L2)
    layer(torch.ones(B, T, F))
    assert [loss.dtype for loss in layer.losses] == [torch.bfloat16] + [torch.float32] * 3
    total = regularization_loss(layer)
    assert total.dtype == torch.float32
    exact = sum(float(loss.detach()) for loss in layer.losses)
    assert float(total.detach()) == pytest.approx(exact, rel=1e-6)
    mixed = torch.nn.ModuleList([layer, LSTM(F, 2, dtype=torch.float64, **PENALTIES)])
    assert regularization_loss(mixed).dtype == torch.float64


def test_nothing_regularized_is_a_zero_of_the_module_s_dtype() -> None:
    assert regularization_loss(LSTM(F, 2, dtype=torch.float64)).dtype == torch.float64
    assert regularization_loss(torch.nn.Identity()).item() == 0
    assert LSTM(F, 2).losses == []


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
@pytest.mark.parametrize("name", ["lstm states", "both", "cells states", "chain", "time"])
def test_copies_take_no_graph_along(name: str, again: Callable[[Any], Any]) -> None:
    case = Call(name)
    layer, arrays = build(case.spec, F), case.arrays()
    layer.set_weights([arrays[n] for n in sorted(arrays) if n.startswith("weight")])
    x = torch.tensor(arrays["x"])
    layer(x)
    copied = again(layer)
    held = [len(m._activity_losses) for m in copied.modules() if hasattr(m, "_activity_losses")]
    shallow = again is copy.copy  # which shares the layers inside
    assert held[0] == 0 if shallow else not any(held)
    regularization_loss(layer).backward()
    copied(x)
    regularization_loss(copied).backward()
    layer(x)
    assert_parity(torch.stack(copied.losses), torch.stack(layer.losses).detach(), bound=1e-15)


def test_losses_that_nobody_reads_do_not_pile_up() -> None:
    spec = LAYERS["both states"]
    layer = build(spec, F)
    x = torch.ones(B, T, F, dtype=torch.float64)
    held = [m for m in layer.modules() if hasattr(m, "_activity_losses")]
    layer(x)
    first = [weakref.ref(loss) for m in held for loss in m._activity_losses]
    assert len(first) == 12
    for _ in range(3):
        layer(x)
    gc.collect()
    assert not any(loss() is not None for loss in first)
    assert [len(m._activity_losses) for m in held] == [6, 3, 3]


# Training

ROUNDS = 20
LIVE_ROUNDS = amount(8, ROUNDS)  # live Keras takes a tenth of a second each
LR = {"sgd": 0.5, "adam": 1e-2}
# As in test_training; the worst observed here are 3e-16 and 3e-7.
BOUNDS = {"float64": 1e-12, "float32": 5e-6}
CONSTRAINTS: dict[str, dict[str, Made]] = {
    "none": {},
    "max": {
        "kernel_constraint": made("MaxNorm", max_value=0.35, axis=0),
        "recurrent_constraint": made("MaxNorm", max_value=0.9, axis=1),
        "bias_constraint": made("NonNeg"),
    },
    "unit": {
        "kernel_constraint": made("UnitNorm", axis=1),
        "recurrent_constraint": made(
            "MinMaxNorm", min_value=0.3, max_value=0.5, rate=0.3, axis=0
        ),
        "bias_constraint": made("MaxNorm", max_value=0.5, axis=0),
    },
}  # fmt: skip
OPPOSITE = {"none": "none", "max": "unit", "unit": "max"}


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: a layer, an optimizer, and what there is besides the loss."""

    layer: str
    optimizer: str
    regularized: bool
    constraints: str  # of the first LSTM; a second one has the others
    dropout: str = "none"

    @property
    def id(self) -> str:
        kind = "regularized" if self.regularized else "plain"
        return "-".join([self.layer, self.optimizer, kind, self.constraints, self.dropout])

    def spec(self, without: str | None = None) -> Spec:
        """The layer; ``without`` the constraints of a role."""
        activity = {"activity_regularizer": made("L2", l2=0.05)} if self.regularized else {}

        def weights(constraints: str) -> dict[str, Any]:
            own = {
                k: v for k, v in CONSTRAINTS[constraints].items() if k != f"{without}_constraint"
            }
            return {**DROPOUTS[self.dropout], **(PENALTIES if self.regularized else {}), **own}

        one, other = weights(self.constraints), weights(OPPOSITE[self.constraints])
        if self.layer == "lstm":
            return lstm(11, return_state=True, **one, **activity)
        if self.layer == "both":
            return _spec("both", lstm(5, **one, **activity), **activity)
        if self.layer == "cells":
            return _spec("cells", cell(5, **one), cell(7, **other), **activity)
        return _spec("chain", lstm(5, **SEQUENCES, **one, **activity), lstm(7, **other, **activity))

    def problem(self) -> tuple[Arrays, list[Arrays]]:
        """Weights and batches, of float32 values."""
        rng = np.random.RandomState(zlib.crc32(self.id.encode()))
        layer, outputs = build(self.spec(), F), width(self.spec())
        sizes = [(m.input_size, m.units) for m in lstms(layer)]
        kinds = ("right", "left", "gaps", "empty", "full")
        batches = [
            {
                "x": rng.uniform(-1, 1, (B, T, F)),
                "mask": mask_of(kinds[n % 5], B, T, rng),
                "target": rng.uniform(-1, 1, (B, outputs)),
                **draw_dropout(self.dropout, sizes, rng),
            }
            for n in range(ROUNDS)
        ]
        return single(weights_of(layer, rng)), [single(b) for b in batches]


def single(arrays: Arrays) -> Arrays:
    return {
        k: v if v.dtype == bool else v.astype(np.float32).astype(float) for k, v in arrays.items()
    }


RUNS = [
    Run("lstm", "sgd", True, "none"),
    Run("lstm", "adam", True, "none", "input"),
    Run("lstm", "adam", False, "max"),
    Run("lstm", "sgd", False, "unit"),
    Run("lstm", "sgd", True, "unit", "input"),
    Run("lstm", "adam", True, "max", "both"),
    Run("both", "adam", True, "max"),
    Run("both", "sgd", True, "unit", "both"),
    Run("cells", "sgd", True, "max", "input"),
    Run("cells", "adam", True, "unit"),
    Run("chain", "adam", True, "unit", "both"),
    Run("chain", "sgd", True, "max", "input"),
]
PLAIN_LSTM = [r for r in RUNS if r.layer == "lstm"]
# What live Keras trains; in float64 all are recorded (test_goldens).
ENDS = sampled(
    [(run, dtype) for run in RUNS for dtype in BOUNDS],
    1 / 3,
    lambda end: f"{end[0].layer}.{end[1]}-{fields(end[0])}",
)
CONSTRAINED = [r for r in RUNS if r.constraints != "none"]


def trained(
    run: Run,
    dtype: str = "float64",
    *,
    without: str | None = None,
    rounds: int = ROUNDS,
    **keywords: Any,
) -> list[np.ndarray]:
    """The weights after a step a batch, in Keras's order."""
    weights, batches = run.problem()
    spec = run.spec(without)
    real = getattr(torch, dtype)
    layer = build({**spec, "keywords": {**spec["keywords"], **keywords}}, F, real)
    layer.set_weights(list(weights.values()))
    rule: torch.optim.Optimizer
    if run.optimizer == "sgd":
        rule = torch.optim.SGD(layer.parameters(), lr=LR["sgd"])
    else:
        rule = keras_adam(torch.optim.Adam(layer.parameters(), lr=LR["adam"], eps=1e-7))
    if run.constraints != "none":
        constrain(rule, layer)
    for batch in batches[:rounds]:
        rule.zero_grad()
        x, mask = torch.tensor(batch["x"], dtype=real), torch.tensor(batch["mask"])
        x[~mask] = float("nan")
        options: dict[str, Any] = {"mask": mask}
        if run.dropout != "none":
            options["dropout_masks"] = injected(spec, batch, real, itertools.count())
        output = flat(layer(x, **options))[0]
        loss = ((output - torch.tensor(batch["target"], dtype=real)) ** 2).mean()
        (loss + regularization_loss(layer)).backward()
        rule.step()
    return list(layer.get_weights())


def trained_by_equations(run: Run) -> list[np.ndarray]:
    """The same of an LSTM, in NumPy: gradients of the oracle, and Keras's optimizers."""
    start, batches = run.problem()
    keywords = run.spec()["keywords"]
    activity = keywords.get("activity_regularizer")
    weights = list(start.values())
    moments = [[np.zeros_like(w)] * 2 for w in weights]
    for step, batch in enumerate(batches, 1):
        (part,) = parts_of({**{f"weight0{i}": w for i, w in enumerate(weights)}, **batch})
        options: dict[str, Any] = {"mask": batch["mask"], **part.masks}
        ran = oracle.forward(batch["x"], *weights, **options)
        d_output, d_h, d_c = (slope(activity, y) / B for y in (ran.output, ran.h, ran.c))
        d_output = d_output + 2 * (ran.output - batch["target"]) / ran.output.size
        cotangents = {"d_output": d_output, "d_h": d_h, "d_c": d_c}
        g = oracle.gradients(batch["x"], *weights, **cotangents, **options)
        for i, (role, d) in enumerate(
            zip(ROLES, (g.kernel, g.recurrent_kernel, g.bias), strict=True)
        ):
            gradient = d + slope(keywords.get(f"{role}_regularizer"), weights[i])
            if run.optimizer == "sgd":
                moved = weights[i] - coefficient(LR["sgd"]) * gradient
            else:
                m, v = moments[i]
                m, v = m + (gradient - m) * 0.1, v + (gradient**2 - v) * 0.001
                moments[i] = [m, v]
                b1, b2 = (coefficient(b) ** step for b in (0.9, 0.999))
                rate = coefficient(LR["adam"]) * math.sqrt(1 - b2) / (1 - b1)
                moved = weights[i] - rate * m / (np.sqrt(v) + 1e-7)
            weights[i] = constrained(keywords.get(f"{role}_constraint"), moved)
    return weights


ENGINES = {"native": {}, "fused": {"use_cudnn": True}, "scan": {"use_cudnn": False}}


def engines(run: Run) -> dict[str, dict[str, Any]]:
    return ENGINES if run.layer == "lstm" and run.dropout != "both" else {"": {}}


@pytest.mark.parametrize("run", PLAIN_LSTM, ids=lambda r: r.id)
def test_training_equals_the_equations(run: Run) -> None:
    expected = trained_by_equations(run)
    for engine, keywords in engines(run).items():
        for role, mine, theirs in zip(ROLES, trained(run, **keywords), expected, strict=True):
            assert_parity(mine, theirs, bound=BOUNDS["float64"], what=f"{engine} {role}")


@pytest.fixture(scope="module")
def ends(keras: KerasLive) -> dict[tuple[str, str], list[np.ndarray]]:
    requests = []
    for run, dtype in ENDS:
        weights, batches = run.problem()
        requests.append(
            {"spec": run.spec(), "arrays": weights, "dtype": dtype}
            | {"batches": batches[:LIVE_ROUNDS]}
            | {"optimizer": run.optimizer, "rate": LR[run.optimizer]}
        )
    answers = keras.call("regularized_side.train", requests)
    return {(run.id, dtype): a for (run, dtype), a in zip(ENDS, answers, strict=True)}


@pytest.mark.live
@pytest.mark.parametrize(("run", "dtype"), ENDS, ids=lambda v: getattr(v, "id", v))
def test_training_ends_where_keras_ends(run: Run, dtype: str, ends: Any) -> None:
    start, expected = run.problem()[0], ends[run.id, dtype]
    for engine, keywords in engines(run).items():
        found = trained(run, dtype, rounds=LIVE_ROUNDS, **keywords)
        for name, mine, theirs in zip(start, found, expected, strict=True):
            assert np.abs(theirs - start[name]).max() > 1e-2  # it did move
            assert_parity(mine, theirs, bound=BOUNDS[dtype], what=f"{engine} {name}")


@pytest.mark.parametrize("run", CONSTRAINED, ids=lambda r: r.id)
def test_each_constraint_is_active_in_these_runs(run: Run) -> None:
    with_all = trained(run)
    for i, role in enumerate(ROLES):
        free = trained(run, without=role)
        for mine, other in list(zip(with_all, free, strict=True))[i::3]:
            assert np.abs(mine - other).max() > 1e-3, role


def test_the_runs_meet_every_value() -> None:
    assert {(r.layer, dtype) for r, dtype in ENDS} == {(r.layer, d) for r in RUNS for d in BOUNDS}
    for field in dataclasses.fields(Run):
        every = {getattr(r, field.name) for r in RUNS}
        assert {getattr(r, field.name) for r, _ in ENDS} == every, field.name
    for layer in ("lstm", "both", "cells", "chain"):
        runs = [r for r in RUNS if r.layer == layer]
        assert {r.optimizer for r in runs} == {"sgd", "adam"}
        assert {r.constraints for r in runs} >= {"max", "unit"}
        assert len({r.dropout for r in runs}) > 1
    assert {r.dropout for r in RUNS} == {"none", "input", "both"}
    kinds = {c["class_name"] for each in CONSTRAINTS.values() for c in each.values()}
    assert kinds == {"MaxNorm", "UnitNorm", "MinMaxNorm", "NonNeg"}


# The hook

EVERY = {**CONSTRAINTS["max"], **{k: v for k, v in PENALTIES.items() if k.startswith("bias")}}


def stepped(
    make: Callable[[Any], torch.optim.Optimizer], hooks: Callable[[Any, Any], Any] = constrain
) -> Any:
    """A layer after five steps of an optimizer."""
    layer, arrays = inputs(lstm(11, **EVERY))
    rule = make(layer)
    hooks(rule, layer)
    for _ in range(5):
        rule.zero_grad()
        (layer(torch.tensor(arrays["x"])).square().mean() + regularization_loss(layer)).backward()
        rule.step()
    return layer


def equal(a: Any, b: Any, bound: float = 0.0) -> None:
    for mine, theirs in zip(a.get_weights(), b.get_weights(), strict=True):
        assert_parity(mine, theirs, bound=bound)


def adam(layer: Any, **options: Any) -> torch.optim.Adam:
    return torch.optim.Adam(layer.parameters(), lr=1e-2, eps=1e-7, **options)


def test_the_hook_and_keras_adam_s_hooks_go_in_any_order() -> None:
    def first(rule: Any, layer: Any) -> None:
        constrain(keras_adam(rule), layer)

    def second(rule: Any, layer: Any) -> None:
        constrain(rule, layer)
        keras_adam(rule)

    equal(stepped(adam, first), stepped(adam, second))


def groups(layer: Any) -> torch.optim.Optimizer:
    kernel, *others = layer.parameters()
    return torch.optim.SGD([{"params": [kernel]}, {"params": others}], lr=0.5)


@pytest.mark.parametrize("options", [{"foreach": True}, {"fused": True}], ids=str)
def test_every_way_to_run_an_optimizer_is_constrained_alike(options: dict[str, bool]) -> None:
    def sgd(layer: Any, **options: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(layer.parameters(), lr=0.5, **options)

    equal(stepped(lambda m: sgd(m, **options)), stepped(sgd), bound=1e-15)
    equal(stepped(lambda m: adam(m, **options)), stepped(adam), bound=1e-15)
    equal(stepped(groups), stepped(sgd))


def test_the_hook_ends_when_it_is_removed() -> None:
    def at_once(rule: Any, layer: Any) -> None:
        constrain(rule, layer).remove()

    free = stepped(adam, at_once)
    equal(free, stepped(adam, lambda rule, layer: None))
    assert free.bias.min() < 0 <= stepped(adam).bias.min()


def test_the_hook_writes_into_the_same_parameters() -> None:
    layer, arrays = inputs(lstm(11, **EVERY))
    before = [(p, p.data_ptr()) for p in layer.parameters()]
    rule = torch.optim.SGD(layer.parameters(), lr=0.0)
    constrain(rule, layer)
    layer(torch.tensor(arrays["x"])).sum().backward()
    rule.step()
    after = [(p, p.data_ptr()) for p in layer.parameters()]
    assert [(id(p), at) for p, at in after] == [(id(p), at) for p, at in before]
    assert all(p.is_leaf and p.requires_grad for p, _ in after)
    for p, (role, made_), w in zip(
        layer.get_weights(), CONSTRAINTS["max"].items(), list(arrays.values())[1:], strict=True
    ):
        assert_parity(p, constrained(made_, w), bound=FLOAT64, what=role)


def test_the_hook_leaves_alone_what_is_not_stepped() -> None:
    """Another's parameters, and those without a gradient."""
    layer, _ = inputs(lstm(11, **EVERY))
    kernel, recurrent, bias = layer.parameters()
    before = [p.detach().clone() for p in layer.parameters()]
    rule = torch.optim.SGD([kernel, recurrent], lr=0.0)
    constrain(rule, layer)
    kernel.grad = torch.zeros_like(kernel)
    bias.grad = torch.zeros_like(bias)  # but it is not the optimizer's
    rule.step()
    assert not torch.equal(kernel, before[0])
    assert torch.equal(recurrent, before[1]) and torch.equal(bias, before[2])
    assert (before[1].norm(dim=0) > 0.9).any() and before[2].min() < 0  # both break theirs


@pytest.mark.live
def test_what_has_no_gradient_is_not_constrained_in_keras_either(keras: KerasLive) -> None:
    spec = lstm(11, **EVERY)
    layer, arrays = inputs(spec)
    expected = keras.call("regularized_side.one_gradient", spec, arrays, 0.25)
    rule = torch.optim.SGD(layer.parameters(), lr=0.25)
    constrain(rule, layer)
    layer.lstm.weight_ih_l0.grad = torch.ones_like(layer.lstm.weight_ih_l0)
    rule.step()
    for mine, theirs in zip(layer.get_weights(), expected, strict=True):
        assert_parity(mine, theirs, bound=FLOAT64)
    changed = [
        not np.array_equal(w, arrays[f"weight0{i}"]) for i, w in enumerate(layer.get_weights())
    ]
    assert changed == [True, False, False]


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_scaler_skips_constrains_nothing(fused: bool) -> None:
    """A fused optimizer skips it by itself, and its hooks run all the same."""
    layer, arrays = inputs(lstm(11, **CONSTRAINTS["unit"]))
    layer.float()
    x = torch.tensor(arrays["x"], dtype=torch.float32)
    rule = torch.optim.SGD(layer.parameters(), lr=0.5, fused=fused)
    constrain(rule, layer)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = [p.detach().clone() for p in layer.parameters()]
    scaler.scale(layer(x).sum() * math.inf).backward()
    scaler.step(rule)
    scaler.update()
    assert all(torch.equal(p, b) for p, b in zip(layer.parameters(), before, strict=True))
    rule.zero_grad()
    scaler.scale(layer(x).sum()).backward()
    scaler.step(rule)
    assert (layer.kernel.norm(dim=1) - 1).abs().max() < 1e-6


def test_a_closure_is_evaluated_before_the_constraints() -> None:
    """LBFGS moves the weights several times in a step; the constraints come once, at its end."""
    free, arrays = inputs(lstm(11))
    layer, _ = inputs(lstm(11, **EVERY))
    x = torch.tensor(arrays["x"])
    for module in (free, layer):
        rule = torch.optim.LBFGS(module.parameters(), max_iter=3)
        if module is layer:
            constrain(rule, layer)

        def closure(module: Any = module, rule: Any = rule) -> torch.Tensor:
            rule.zero_grad()
            loss = module(x).square().mean()
            loss.backward()
            return loss

        rule.step(closure)
    moved = free.get_weights()
    for mine, constraint, w in zip(
        layer.get_weights(), CONSTRAINTS["max"].values(), moved, strict=True
    ):
        assert_parity(mine, constrained(constraint, w), bound=FLOAT64)


def test_nothing_to_constrain_is_an_error() -> None:
    layer = LSTM(F, 2)
    rule = torch.optim.SGD(layer.parameters(), lr=0.5)
    with pytest.raises(ConfigError, match="no layer in Sequential has a constraint"):
        constrain(rule, torch.nn.Sequential(layer))


# Dropout masks of one step each, which are in the order of x


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("mask", ["none", "gaps"])
def test_masks_of_each_step_equal_the_equations(mask: str, backwards: bool) -> None:
    options: dict[str, Any] = {**SEQUENCES, "go_backwards": backwards}
    layer, arrays = inputs(lstm(11, **options, dropout=0.4, dropout_style="tf_keras"))
    rng = np.random.RandomState(31)
    dropped = (rng.uniform(size=(B, T, F)) > 0.4) / 0.6
    m = None if mask == "none" else mask_of(mask, B, T, rng)
    steps = None if m is None else torch.tensor(m)
    (part,) = parts_of(arrays)
    found = layer(
        torch.tensor(arrays["x"]), mask=steps, dropout_masks=DropoutMasks(torch.tensor(dropped))
    )
    expected = oracle.forward(
        arrays["x"], *part.weights, mask=m, input_dropout=dropped[None], **options
    )
    assert_parity(found.detach(), expected.output, bound=FLOAT64)


@pytest.mark.parametrize(
    ("keywords", "use", "said"),
    [
        ({"kernel_constraint": lambda w: w.sum(0)}, "apply", r"kernel_constraint .* gave \(8,\)"),
        ({"bias_constraint": lambda w: None}, "apply", "bias_constraint .* gave NoneType"),
        (
            {"recurrent_regularizer": lambda w: w.sum(0)},
            "losses",
            r"recurrent_regularizer .*\(8,\)",
        ),
    ],
)
def test_a_result_of_another_shape_is_refused(keywords: Any, use: str, said: str) -> None:
    layer: LSTM = LSTM(3, 2, **keywords)
    before = layer.get_weights()
    with pytest.raises(ConfigError, match=said):
        layer.apply_constraints() if use == "apply" else layer.losses
    assert all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), before, strict=True))


def test_constrain_refuses_what_it_would_do_in_vain_or_twice() -> None:
    layer: LSTM = LSTM(3, 2, kernel_constraint="max_norm")
    other = torch.optim.SGD(LSTM(3, 2).parameters())
    with pytest.raises(ConfigError, match="no weight of LSTM"):
        constrain(other, layer)
    rule = torch.optim.SGD(layer.parameters())
    handle = constrain(rule, layer)
    with pytest.raises(ConfigError, match=r"already\. Call constrain once"):
        constrain(rule, layer)
    handle.remove()
    constrain(rule, layer)
    with pytest.raises(ConfigError, match="a str and a LSTM were given"):
        constrain("sgd", layer)


def test_a_span_over_a_model_forgets_the_losses_of_the_last_call() -> None:
    model = torch.nn.ModuleList(LSTM(3, 3, activity_regularizer="l2") for _ in range(2))
    x = torch.rand(5, 7, 3)
    (model[0](x) + model[1](x)).sum().backward()
    with accumulate_losses(model):
        model[0](x)
    assert [len(layer.losses) for layer in model] == [1, 0]
    regularization_loss(model).backward()


def test_a_lazy_layer_has_no_kernel_to_regularize_or_to_constrain_yet() -> None:
    layer = LazyLSTM(2, kernel_regularizer="l2", bias_regularizer="l1", kernel_constraint="non_neg")
    assert len(layer.losses) == 1
    layer.apply_constraints()
    layer(torch.rand(5, 7, 3))
    assert len(layer.losses) == 2
