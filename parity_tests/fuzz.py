"""A random walk over configurations: each case beside the float64 equations and live Keras.

    python -m parity_tests --fuzz 10000 --seed 2026 --results fuzz.json
    python -m parity_tests --case "Walk(kind='LSTM', steps=3, mask='gaps')"

Case i of seed S depends on (S, i) alone. Every case runs in float64 and is judged by

    oracle    kerasish_lstm.parity.oracle: results of every call, gradients of the last one
    keras     live Keras 3 on TensorFlow, the same
    engines   the oracle again, with the other engine where there are two
    float32   the oracle, within what rounding explains (a case of dtype float32)
    weights   set_weights(get_weights()) changes no bit
    config    nor does from_config(get_config())
    raises    none of it raises

and a failure is shrunk to a case that is as simple as the fields allow, judged by the same.
"""

from __future__ import annotations

import argparse
import ast
import collections
import dataclasses
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kerasish_lstm import (
    ACTIVATIONS,
    LSTM,
    Bidirectional,
    DropoutMasks,
    LSTMCell,
    StackedLSTM,
    TimeDistributed,
)
from kerasish_lstm._dropout import DropoutPlan
from kerasish_lstm._recurrent import recurrent_parts
from kerasish_lstm.config import LSTMConfig
from kerasish_lstm.parity import oracle
from kerasish_lstm.parity.bounds import FLOAT64, error

from .cases import UNBOUNDED, mask_of
from .keras_live import KerasLive, missing

Arrays = dict[str, np.ndarray]
BATCH_OF_CASES = 64  # a request to the Keras process

# A kink in the derivative: two roundings of one number may lie on its two sides.
NONSMOOTH = {
    "hard_shrink", "hard_sigmoid", "hard_sigmoid_v2", "hard_silu", "hard_swish", "hard_tanh",
    "leaky_relu", "relu", "relu6", "selu", "soft_shrink", "sparse_sigmoid", "sparsemax",
}  # fmt: skip

VOID = 0.5  # a bound beyond which a verdict is none
DEAD_ZONE = {"hard_shrink", "soft_shrink"}  # small numbers give nothing but zeros

# What every field may be; the simplest first, to which a failure is shrunk.
VALUES: dict[str, tuple[Any, ...]] = {
    "kind": ("LSTM", "LSTMCell", "Bidirectional", "cell", "cells", "chain", "TimeDistributed"),
    # of a chain l LSTM, b Bidirectional (concat), s (sum); of cells as many l as cells
    "layers": ("l", "ll", "lll", "lb", "bl", "ls", "sl", "lbl", "sbl"),
    "batch": (1, 2, 3, 4, 5, 6, 7, 0),
    "steps": tuple(range(1, 24)),
    "features": tuple(range(1, 14)),
    "units": tuple(range(1, 14)),
    "other_units": tuple(range(14)),  # of the layers above, of the backward layer; 0: the same
    "slices": (1, 2, 3),  # the outer time of TimeDistributed
    "merge_mode": ("concat", "sum", "mul", "ave", None),
    "activation": ("tanh", *(a for a in sorted(ACTIVATIONS) if a != "tanh")),
    "recurrent_activation": ("sigmoid", *(a for a in sorted(ACTIVATIONS) if a != "sigmoid")),
    "use_bias": (True, False),
    "return_sequences": (False, True),
    "return_state": (False, True),
    "go_backwards": (False, True),
    "zero_output_for_mask": (False, True),
    "unroll": (False, True),
    "implementation": (2, 1),
    "use_cudnn": ("auto", False, True),
    # given to the first call, with stateful too
    "state": ("none", "given", "stateful", "stateful and given"),
    "calls": (1, 2, 3),  # of a stateful layer
    "mask": ("none", "full", "right", "left", "gaps", "empty", "random", "nothing"),
    "mask_dtype": ("bool", "uint8", "int32", "int64", "float32", "float64"),
    "dropout": ("none", "input", "recurrent", "both"),
    "dropout_style": ("keras", "keras_3.0", "keras_2", "tf_keras"),
    "scale": (1.0, 0.1, 0.25, 0.5, 2.0),  # the weights are uniform in ±scale / sqrt(U)
    "dtype": ("float64", "float32"),
}
LIKELY = {  # how often, where not all values alike
    "kind": (12, 2, 5, 1, 3, 3, 1),
    "batch": (4, 4, 4, 4, 4, 4, 4, 1),
    "use_bias": (4, 1),
    "unroll": (4, 1),
    "implementation": (3, 1),
    "use_cudnn": (3, 1, 1),
    "state": (3, 2, 2, 1),
    "calls": (2, 3, 1),
    "mask": (5, 1, 3, 2, 3, 2, 3, 1),
    "dropout": (7, 1, 1, 1),
    "dropout_style": (3, 1, 1, 1),
}

# Where Keras is not asked, or asked for something else: by the row's id in deviations.txt, or in
# brackets what is no deviation.
NOT_ASKED: dict[str, Callable[[Walk], bool]] = {
    "empty-batch": lambda w: w.batch == 0,
    "bidirectional-stateful-state": lambda w: w.stateful and w.return_state and w.has_bidirectional,
    # unrolled it raises without a mask too
    "one-cell-in-a-list": lambda w: (
        w.kind == "cells" and len(w.layers) == 1 and (w.mask != "none" or w.unroll)
    ),
    "(Keras 3 has no dropout mask of a step)": lambda w: "steps" in w.plan,
}
ASKED_OTHERWISE: dict[str, tuple[Callable[[Walk], bool], dict[str, Any]]] = {
    "unrolled-backwards-mask": (
        lambda w: w.unroll and w.mask != "none" and w.zeroes_backwards,
        {"unroll": False},
    ),
    "(cuDNN needs a GPU)": (lambda w: w.use_cudnn is True, {"use_cudnn": "auto"}),
    "implementation-1-dropout": (lambda w: w.needs_gate_masks, {"use_cudnn": False}),
}
# What no bound holds for, and is not compared.
NOT_COMPARED: dict[str, Callable[[Walk, str, str], bool]] = {
    # of the case, the quantity and the dtype
    "(float32 gradients across a kink are not compared)": lambda w, name, dtype: (
        dtype == "float32" and name.startswith("d_") and bool(w.activations & NONSMOOTH)
    ),
    # x + sqrt(x^2 + 4) cancels for x << 0, in Keras too; no nudge of the inputs shows it
    "(float32 of squareplus is not compared)": lambda w, _, dtype: (
        dtype == "float32" and "squareplus" in w.activations
    ),
    "(float32 across a jump is not compared)": lambda w, _, dtype: (
        dtype == "float32" and "hard_shrink" in w.activations
    ),
}


@dataclasses.dataclass(frozen=True, repr=False)
class Walk:
    """One configuration; ``data`` is the seed of its numbers. See VALUES for what each may be."""

    kind: str = "LSTM"
    layers: str = "l"
    batch: int = 1
    steps: int = 1
    features: int = 1
    units: int = 1
    other_units: int = 0
    slices: int = 1
    merge_mode: str | None = "concat"
    activation: str = "tanh"
    recurrent_activation: str = "sigmoid"
    use_bias: bool = True
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    zero_output_for_mask: bool = False
    unroll: bool = False
    implementation: int = 2
    use_cudnn: str | bool = "auto"
    state: str = "none"
    calls: int = 1
    mask: str = "none"
    mask_dtype: str = "bool"
    dropout: str = "none"
    dropout_style: str = "keras"
    scale: float = 1.0
    dtype: str = "float64"
    data: int = 0

    def __repr__(self) -> str:
        """What is not the default, as ``parsed`` takes it."""
        given = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in dataclasses.fields(self)
            if f.name == "kind" or getattr(self, f.name) != f.default
        ]
        return f"Walk({', '.join(given)})"

    # What it is

    @property
    def stateful(self) -> bool:
        return self.state.startswith("stateful")

    @property
    def given(self) -> bool:
        return self.state.endswith("given")

    @property
    def activations(self) -> set[str]:
        return {self.activation, self.recurrent_activation}

    @property
    def unbounded(self) -> int:
        """In how many of its two roles an activation grows without limit."""
        return sum(a in UNBOUNDED for a in (self.activation, self.recurrent_activation))

    @property
    def grows(self) -> bool:
        """Whether small numbers alone keep it within bounds, and are no dead zone."""
        return bool(self.unbounded) and not self.activations & UNBOUNDED <= DEAD_ZONE

    @property
    def zeroes_backwards(self) -> bool:
        """Whether a part that runs backwards zeroes its masked outputs."""
        if self.of_cells:
            return self.go_backwards and self.zero_output_for_mask
        return any(s.zero_output_for_mask and any(s.backwards) for s in self.stages())

    @property
    def has_bidirectional(self) -> bool:
        return self.kind == "Bidirectional" or (
            self.kind == "chain" and self.layers.strip("l") != ""
        )

    @property
    def of_cells(self) -> bool:
        return self.kind in ("LSTMCell", "cell", "cells")

    @property
    def plan(self) -> DropoutPlan:
        """Which dropout masks it needs."""
        names = ("activation", "recurrent_activation", "use_bias", "unroll", "implementation")
        own = {n: getattr(self, n) for n in names} | self.dropout_keywords()
        return DropoutPlan.of(LSTMConfig(self.units, **own), is_cell=self.of_cells)

    @property
    def needs_gate_masks(self) -> bool:
        return "gates" in self.plan

    @property
    def why_not_fused(self) -> bool:
        default = (self.activation, self.recurrent_activation) == ("tanh", "sigmoid")
        return not default or self.plan.input == "gates" or self.plan.recurrent is not None

    def dropout_keywords(self) -> dict[str, Any]:
        rates = {"dropout": 0.4, "recurrent_dropout": 0.3}
        wanted = {"none": (), "input": ("dropout",), "recurrent": ("recurrent_dropout",)}
        kept = {k: rates[k] for k in wanted.get(self.dropout, rates)}
        return kept | ({"dropout_style": self.dropout_style} if kept else {})

    def stages(self) -> list[Stage]:
        """Its layers, from the lowest."""
        sequences, zero = self.return_sequences, self.zero_output_for_mask
        other, features = self.other_units or self.units, self.features
        if self.kind == "Bidirectional":
            both = ((features, self.units), (features, other))
            return [Stage(both, self.merge_mode, (False, True), sequences, sequences)]
        stages = []
        for i, letter in enumerate(self.layers):
            last, units = i == len(self.layers) - 1, other if i else self.units
            shown = sequences or not last
            if letter == "l":
                # A stack of cells is reversed once, before the lowest.
                backwards = self.go_backwards and not self.of_cells
                hidden = zero and (last or not self.of_cells)
                stages.append(Stage(((features, units),), "none", (backwards,), shown, hidden))
            else:
                merge = {"b": "concat", "s": "sum"}[letter]
                both = ((features, units),) * 2
                stages.append(Stage(both, merge, (False, True), shown, shown))
            features = units * (2 if letter == "b" else 1)
        return stages

    def parts(self) -> list[tuple[int, int]]:
        """(features, units) of each LSTM, in the order of their weights."""
        return [part for stage in self.stages() for part in stage.parts]

    def outputs(self) -> list[str]:
        outputs = ["output"]
        if self.kind == "Bidirectional" and self.merge_mode is None:
            outputs.append("output_backward")
        return outputs

    def names(self) -> list[str]:
        """Of what a call gives."""
        returned = range(len(self.parts())) if self.return_state else ()
        return self.outputs() + [f"{s}{i}" for i in returned for s in "hc"]

    # Its numbers

    def arrays(self) -> Arrays:
        """Weights, inputs, states, masks and cotangents; float64 arrays of float32 values."""

        def rng(name: str) -> np.random.RandomState:
            return np.random.RandomState([self.data, zlib.crc32(name.encode())])

        def draw(name: str, *shape: int, scale: float = 1.0) -> None:
            values = rng(name).uniform(-scale, scale, shape)
            found[name] = values.astype(np.float32).astype(np.float64)

        found: Arrays = {}
        b, t = self.batch, self.steps
        rows = (b, self.slices) if self.kind == "TimeDistributed" else (b,)
        size = 0.25 if self.grows else 1.0
        for call in range(self.calls):
            draw(f"x{call}", *rows, t, self.features, scale=2.0 * size)
            if self.mask != "none":
                mask = self._mask(int(np.prod(rows)), rng(f"mask{call}"))
                found[f"mask{call}"] = mask.reshape(*rows, t)
        shapes: list[tuple[int, ...]] = []
        for f, u in self.parts():
            shapes += [(f, 4 * u), (u, 4 * u), (4 * u,)][: 3 if self.use_bias else 2]
        for i, shape in enumerate(shapes):
            draw(f"weight{i:02d}", *shape, scale=self.scale * (shape[-1] / 4) ** -0.5)
        for i, (f, u) in enumerate(self.parts()):
            if self.given:
                draw(f"state{2 * i:02d}", b, u)
                draw(f"state{2 * i + 1:02d}", b, u)
            for role, width in (("input", f), ("recurrent", u)):
                kind = getattr(self.plan, role)
                if kind is not None:
                    rate = self.dropout_keywords()[
                        "dropout" if role == "input" else "recurrent_dropout"
                    ]
                    shape = {"shared": (1, b), "gates": (4, b), "steps": (1, b, t)}[kind]
                    kept = rng(f"{role}_mask{i}").uniform(size=(*shape, width)) >= rate
                    kept_at = float(np.float32(1 / (1 - rate)))
                    found[f"{role}_mask{i}"] = np.where(kept, kept_at, 0.0)
        last = self.stages()[-1]
        widths = [u for _, u in last.parts]
        shown = (*rows, t) if self.return_sequences else rows
        draw("d_output", *shown, sum(widths) if last.merge_mode == "concat" else widths[0])
        if "output_backward" in self.outputs():
            draw("d_output_backward", *shown, widths[1])
        for name in self.names()[len(self.outputs()) :]:
            draw(f"d_{name}", b, self.parts()[int(name[1:])][1])
        return found

    def _mask(self, rows: int, rng: np.random.RandomState) -> np.ndarray:
        if self.mask == "nothing" or not rows:
            return np.zeros((rows, self.steps), bool)
        if self.mask == "random":
            return rng.uniform(size=(rows, self.steps)) < rng.uniform()
        return mask_of(self.mask, rows, self.steps, rng)

    def keywords(self) -> dict[str, Any]:
        """Of each LSTM or cell in it."""
        own = {
            "activation": self.activation,
            "recurrent_activation": self.recurrent_activation,
            "use_bias": self.use_bias,
            "implementation": self.implementation,
            **self.dropout_keywords(),
        }
        return own if self.of_cells else own | {"use_cudnn": self.use_cudnn} | self.flags()

    def flags(self) -> dict[str, bool]:
        names = ("return_sequences", "return_state", "go_backwards", "unroll")
        own = {n: getattr(self, n) for n in (*names, "zero_output_for_mask")}
        return own | {"stateful": self.stateful}


@dataclasses.dataclass(frozen=True)
class Stage:
    """A layer of one part, or of a forward and a backward one, which are merged."""

    parts: tuple[tuple[int, int], ...]  # (features, units)
    merge_mode: str | None
    backwards: tuple[bool, ...]
    return_sequences: bool
    zero_output_for_mask: bool

    def merged(self, outputs: list[np.ndarray]) -> np.ndarray:
        if self.merge_mode == "none":
            return outputs[0]
        f, b = outputs[0], self.in_time(outputs[1])
        if self.merge_mode == "concat":
            return np.concatenate([f, b], -1)
        return {"sum": f + b, "mul": f * b, "ave": (f + b) / 2}[str(self.merge_mode)]

    def in_time(self, y: np.ndarray) -> np.ndarray:
        return y[:, ::-1] if self.return_sequences else y

    def cotangents(self, dy: np.ndarray, outputs: list[np.ndarray]) -> list[np.ndarray]:
        """Of each part's output, given the merged one's."""
        if self.merge_mode == "none":
            return [dy]
        f, b = outputs[0], self.in_time(outputs[1])
        u = self.parts[0][1]
        d_f, d_b = {
            "concat": lambda: (dy[..., :u], dy[..., u:]),
            "sum": lambda: (dy, dy),
            "mul": lambda: (dy * b, dy * f),
            "ave": lambda: (dy / 2, dy / 2),
        }[str(self.merge_mode)]()
        return [d_f, self.in_time(d_b)]


def settled(walk: Walk) -> Walk:
    """The same without contradictions: what means nothing to its kind is the default there."""
    w, own = walk, dict[str, Any]()
    if w.kind == "LSTMCell":
        meaningless = (
            "steps", "layers", "return_sequences", "go_backwards", "zero_output_for_mask",
            "mask", "calls",
        )  # fmt: skip
        own |= {n: VALUES[n][0] for n in meaningless} | {"return_state": True}
        own["state"] = "given" if w.given else "none"
    if w.kind in ("LSTM", "LSTMCell", "Bidirectional", "cell", "TimeDistributed"):
        own["layers"] = "l"
    if w.kind == "cells":
        own["layers"] = "l" * len(w.layers)
    if w.kind == "chain" and len(w.layers) == 1:
        own["layers"] = "ll"
    if w.kind not in ("Bidirectional", "cells", "chain"):
        own["other_units"] = 0
    if w.kind != "Bidirectional":
        own["merge_mode"] = "concat"
    elif w.merge_mode not in ("concat", None) or w.other_units == w.units:
        own["other_units"] = 0
    if w.kind == "Bidirectional":
        own["go_backwards"] = False
    if w.has_bidirectional and w.dropout != "none":
        own["implementation"] = 2  # Keras copies the layer by a config without it
    if w.kind == "TimeDistributed":
        own |= {"return_state": False, "state": "none", "dropout": "none"}
    else:
        own["slices"] = 1
    if w.kind in ("LSTMCell", "cell", "cells"):
        own["use_cudnn"] = "auto"
    w = dataclasses.replace(w, **own)
    own = {}
    if not w.stateful:
        own["calls"] = 1
    if w.mask == "none":
        own["mask_dtype"] = "bool"
    if w.dropout == "none":
        own["dropout_style"] = "keras"
    if w.kind == "LSTMCell":
        own["unroll"] = False
    if w.unbounded:
        # see cases.UNBOUNDED; two of them feed each other
        own |= {"steps": min(w.steps, 7 if w.unbounded == 1 else 3)}
        own["scale"] = min(w.scale, 0.25) if w.grows else min(max(w.scale, 0.5), 1.0)
    w = dataclasses.replace(w, **own)
    if w.use_cudnn is True and w.why_not_fused:
        w = dataclasses.replace(w, use_cudnn="auto")
    return w


def drawn(seed: int, number: int) -> Walk:
    """Case ``number`` of a seed."""
    rng = np.random.default_rng([seed, number])
    values: dict[str, Any] = {"data": int(rng.integers(2**31))}
    for name, options in VALUES.items():
        odds = LIKELY.get(name)
        weights = None if odds is None else np.array(odds) / sum(odds)
        values[name] = options[int(rng.choice(len(options), p=weights))]
    # Most of the time goes into steps.
    values["steps"] = int(rng.integers(1, 24 if rng.uniform() < 0.15 else 8))
    defaults = rng.choice(4, p=(0.45, 0.15, 0.15, 0.25))  # both, one, the other, none
    if defaults in (0, 1):
        values["activation"] = "tanh"
    if defaults in (0, 2):
        values["recurrent_activation"] = "sigmoid"
    if rng.uniform() < 0.5:
        values["other_units"] = 0
    return settled(Walk(**values))


def parsed(text: str) -> Walk:
    """The case of its one line.

    Raises:
        argparse.ArgumentTypeError: it is none, or it contradicts itself.
    """
    fields = {f.name for f in dataclasses.fields(Walk)}
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            raise ValueError("it is no call")
        if call.func.id != "Walk" or call.args:
            raise ValueError("it is no Walk(field=value, ...)")
        values = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError) as problem:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a case: {problem}. A case is a line as \"Walk(kind='LSTM', steps=3)\""
        ) from problem
    for name, value in values.items():
        if name not in fields:
            raise argparse.ArgumentTypeError(
                f"{name!r} is no field of a case; known are {', '.join(sorted(fields))}"
            )
        if name == "data":
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
                raise argparse.ArgumentTypeError(f"data={value!r} must be an integer from 0")
        elif not any(type(v) is type(value) and v == value for v in VALUES[name]):
            allowed = ", ".join(map(repr, VALUES[name]))
            raise argparse.ArgumentTypeError(f"{name}={value!r} is not one of {allowed}")
    walk = Walk(**values)
    if settled(walk) != walk:
        raise argparse.ArgumentTypeError(
            f"{walk!r} contradicts itself; the nearest case is {settled(walk)!r}"
        )
    return walk


# The judges' results


def truth(walk: Walk, arrays: Arrays) -> Arrays:
    """Every call's results and the gradients of the last one's, by the float64 equations."""
    with np.errstate(all="ignore"):  # what grows without limit is looked at afterwards
        return _truth(walk, arrays)


def _truth(walk: Walk, a: Arrays) -> Arrays:
    stages, parts = walk.stages(), walk.parts()
    size = 3 if walk.use_bias else 2
    weights = [[a[f"weight{size * i + k:02d}"] for k in range(size)] for i in range(len(parts))]
    rows = a["x0"].shape[:-2]
    reverse = walk.of_cells and walk.go_backwards

    def flat(array: np.ndarray) -> np.ndarray:
        """(rows, T, ...) in the order in which the lowest layer takes it."""
        array = array.reshape(-1, *array.shape[len(rows) :])
        return array[:, ::-1] if reverse else array

    options: list[dict[str, Any]] = []
    for i, _ in enumerate(parts):
        own = {n: getattr(walk, n) for n in ("activation", "recurrent_activation")}
        if f"input_mask{i}" in a:
            mask = a[f"input_mask{i}"]
            own["input_dropout"] = mask if walk.plan.input == "steps" else mask[:, :, None]
        if f"recurrent_mask{i}" in a:
            own["recurrent_dropout"] = a[f"recurrent_mask{i}"]
        options.append(own)
    begin: list[dict[str, Any]] = [{} for _ in parts]
    if walk.given:
        begin = [
            {"h0": a[f"state{2 * i:02d}"], "c0": a[f"state{2 * i + 1:02d}"]}
            for i, _ in enumerate(parts)
        ]
    found: Arrays = {}
    for call in range(walk.calls):
        inputs, taken, results = [flat(a[f"x{call}"])], list[dict[str, Any]](), list[Any]()
        mask = flat(a[f"mask{call}"]) if f"mask{call}" in a else None
        for stage in stages:
            # Keras ignores the mask that comes with the input of a layer that gets a state.
            ignored = walk.kind == "chain" and bool(taken) and walk.given and call == 0
            outputs = []
            for backwards in stage.backwards:
                i = len(taken)
                taken.append(
                    options[i]
                    | begin[i]
                    | {
                        "mask": None if ignored else mask,
                        "go_backwards": backwards,
                        "return_sequences": stage.return_sequences,
                        "zero_output_for_mask": stage.zero_output_for_mask,
                    }
                )
                results.append(oracle.forward(inputs[-1], *weights[i], **taken[i]))
                outputs.append(results[-1].output)
            if stage.merge_mode is not None:
                inputs.append(stage.merged(outputs))
        if stages[-1].merge_mode is None:
            values = [outputs[0], stages[-1].in_time(outputs[1])]
        else:
            values = [inputs[-1]]
        values = [v.reshape(*rows, *v.shape[1:]) for v in values]
        values += [s for r in results for s in (r.h, r.c)] if walk.return_state else []
        prefix = "" if call == walk.calls - 1 else f"call{call}."
        found |= {f"{prefix}{n}": v for n, v in zip(walk.names(), values, strict=True)}
        if walk.stateful and call < walk.calls - 1:
            begin = [{"h0": r.h, "c0": r.c} for r in results]
    first = len(parts)
    dy = a["d_output"].reshape(inputs[0].shape[0], *a["d_output"].shape[len(rows) :])
    for number, stage in reversed(list(enumerate(stages))):
        first -= len(stage.parts)
        if stage.merge_mode is None:
            d = [dy, stage.in_time(a["d_output_backward"])]
        else:
            d = stage.cotangents(dy, [r.output for r in results[first : first + len(stage.parts)]])
        dy = np.zeros(inputs[number].shape)
        for i, d_output in enumerate(d, first):
            ends = {k: a.get(f"{k}{i}") for k in ("d_h", "d_c")}
            g = oracle.gradients(inputs[number], *weights[i], d_output=d_output, **ends, **taken[i])
            dy = dy + g.x
            for k, gradient in enumerate((g.kernel, g.recurrent_kernel, g.bias)[:size]):
                found[f"d_weight{size * i + k:02d}"] = gradient
            if walk.given and walk.calls == 1:
                found |= {f"d_state{2 * i:02d}": g.h0, f"d_state{2 * i + 1:02d}": g.c0}
    found["d_x"] = (dy[:, ::-1] if reverse else dy).reshape(a["x0"].shape)
    return found


def build(walk: Walk, arrays: Arrays, dtype: torch.dtype) -> Any:
    """The module of a case, with its weights."""
    options: dict[str, Any] = {**walk.keywords(), "dtype": dtype}
    parts = walk.parts()
    module: Any
    if walk.kind == "LSTMCell":
        module = LSTMCell(*parts[0], **options)
    elif walk.kind in ("cell", "cells"):
        cells = [LSTMCell(*part, **options) for part in parts]
        module = StackedLSTM(cells[0] if walk.kind == "cell" else cells, **walk.flags())
    elif walk.kind == "TimeDistributed":
        module = TimeDistributed(LSTM(*parts[0], **options))
    else:
        layers = []
        for stage in walk.stages():
            own = options | {"return_sequences": stage.return_sequences}
            if stage.merge_mode == "none":
                layers.append(LSTM(*stage.parts[0], **own))
                continue
            one, other = stage.parts
            own["go_backwards"] = False
            backward = LSTM(*other, **own | {"go_backwards": True}) if one != other else None
            layers.append(Bidirectional(LSTM(*one, **own), stage.merge_mode, backward))
        module = StackedLSTM(layers) if walk.kind == "chain" else layers[0]
    module.set_weights([arrays[n] for n in sorted(arrays) if n.startswith("weight")])
    return module


def ours(
    walk: Walk,
    module: Any,
    arrays: Arrays,
    dtype: torch.dtype,
    *,
    gradients: bool = True,
    training: bool = True,
) -> Arrays:
    """The same as ``truth`` by this package. Masked steps of x hold NaN: they reach nothing."""
    t = {}
    for name, value in arrays.items():
        if name.startswith("mask"):
            t[name] = torch.tensor(value.astype(walk.mask_dtype))
            continue
        if name.startswith("x") and f"mask{name[1:]}" in arrays:
            t[name] = torch.tensor(
                np.where(arrays[f"mask{name[1:]}"][..., None], value, np.nan), dtype=dtype
            )
            continue
        t[name] = torch.tensor(value, dtype=dtype)
    if walk.kind != "LSTMCell":
        module.reset_state()
    states = [t[n] for n in sorted(t) if n.startswith("state")]
    dropped: Any = None
    if walk.dropout != "none" and training:
        dropped = _dropout_masks(walk, t)
    module.train(training)
    found: dict[str, torch.Tensor] = {}
    last = walk.calls - 1
    x = t[f"x{last}"].requires_grad_(gradients)
    watched = {"d_x": x}
    parameters = [p for part in recurrent_parts(module) for p in part.lstm.parameters()]
    watched |= {f"d_weight{i:02d}": p for i, p in enumerate(parameters)}
    with nullcontext() if gradients else torch.no_grad():
        for call in range(walk.calls):
            begin = states if walk.given and call == 0 else []
            if call == last and begin:
                watched |= {
                    f"d_state{i:02d}": s.requires_grad_(gradients) for i, s in enumerate(begin)
                }
            results = _call(walk, module, t[f"x{call}"], begin, t.get(f"mask{call}"), dropped)
            prefix = "" if call == last else f"call{call}."
            found |= {f"{prefix}{n}": r for n, r in zip(walk.names(), results, strict=True)}
    if gradients:
        loss = sum((found[n] * t[f"d_{n}"]).sum() for n in walk.names())
        slopes = torch.autograd.grad(
            loss, list(watched.values()), allow_unused=True, materialize_grads=True
        )
        for name, slope in zip(watched, slopes, strict=True):
            found[name] = slope.t() if "weight" in name and slope.ndim == 2 else slope
    return {k: v.detach().double().numpy() for k, v in found.items()}


def _dropout_masks(walk: Walk, t: dict[str, torch.Tensor]) -> Any:
    """As the module takes them."""
    masks = []
    for i, _ in enumerate(walk.parts()):
        pair = []
        for role in ("input", "recurrent"):
            mask = t.get(f"{role}_mask{i}")
            pair.append(mask if mask is None or getattr(walk.plan, role) == "gates" else mask[0])
        masks.append(DropoutMasks(*pair))
    if walk.kind in ("LSTM", "LSTMCell"):
        return masks[0]
    if walk.kind == "Bidirectional":
        return masks
    nested, left = [], iter(masks)
    for stage in walk.stages():
        own = list(itertools.islice(left, len(stage.parts)))
        nested.append(own if len(own) == 2 else own[0])
    return nested


def _call(
    walk: Walk, module: Any, x: torch.Tensor, begin: list[Any], mask: Any, dropped: Any
) -> list[torch.Tensor]:
    given: dict[str, Any] = {}
    if dropped is not None:
        given["dropout_masks"] = dropped
    if walk.kind == "LSTMCell":
        return _flat(module(x[:, 0], begin or None, **given))
    if mask is not None:
        given["mask"] = mask
    if begin:
        pairs = [begin[i : i + 2] for i in range(0, len(begin), 2)]
        given["initial_state"] = pairs if walk.kind == "cells" else begin
    return _flat(module(x, **given))


def _flat(result: Any) -> list[torch.Tensor]:
    if isinstance(result, list | tuple):
        return [t for part in result for t in _flat(part)]
    return [result]


def exclusions(walk: Walk) -> list[str]:
    """What is between this case and Keras's plain answer, of the tables above."""
    out = [name for name, applies in NOT_ASKED.items() if applies(walk)]
    otherwise = [name for name, (applies, _) in ASKED_OTHERWISE.items() if applies(walk)]
    return [f"{n}: Keras not asked" for n in out] or [f"{n}: asked otherwise" for n in otherwise]


def request(walk: Walk, arrays: Arrays) -> dict[str, Any] | None:
    """What fuzz_side.run takes, or None where Keras is not asked."""
    if any(applies(walk) for applies in NOT_ASKED.values()):
        return None
    keywords = walk.keywords() | (walk.flags() if walk.of_cells else {})
    keywords.pop("dropout_style", None)
    # Keras's cell has no style: its implementation says how many masks it takes.
    if walk.dropout != "none":
        keywords["implementation"] = 1 if walk.needs_gate_masks else 2
    for applies, instead in ASKED_OTHERWISE.values():
        if applies(walk):
            keywords |= {k: v for k, v in instead.items() if k in keywords}
    layers = []
    if walk.kind == "chain":
        for stage in walk.stages():
            both = stage.merge_mode != "none"
            own = keywords | {"return_sequences": stage.return_sequences}
            kind = "Bidirectional" if both else "LSTM"
            units = [u for _, u in stage.parts]
            layers.append(
                {"kind": kind, "merge_mode": stage.merge_mode, "units": units, "keywords": own}
            )
    else:
        units = [u for _, u in walk.parts()]
        layers.append(
            {"kind": walk.kind, "merge_mode": walk.merge_mode, "units": units, "keywords": keywords}
        )
    sent = dict(arrays)
    if walk.kind == "LSTMCell":
        sent["x0"] = sent["x0"][:, 0]
    for name in [n for n in sent if n.startswith("mask")]:
        sent[name] = sent[name].astype(walk.mask_dtype)
    return {
        "layers": layers, "arrays": sent, "names": walk.names(), "calls": walk.calls,
        "given_at": 0 if walk.given else -1, "training": walk.dropout != "none",
    }  # fmt: skip


# The judges


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One judge's on one quantity of a case."""

    judge: str
    what: str
    error: float
    bound: float

    @property
    def ratio(self) -> float:
        """At most 1 where it holds."""
        if self.bound == 0.0:
            return 0.0 if self.error == 0.0 else np.inf
        return self.error / self.bound

    @property
    def holds(self) -> bool:
        return self.error <= self.bound

    def __str__(self) -> str:
        if self.judge in ("raises", "keras raises"):
            return f"{self.judge}: {self.what}"
        return f"{self.judge}: {self.what}: error {self.error:.3g}, bound {self.bound:.3g}"


@dataclasses.dataclass
class Judged:
    """All verdicts on a case, and what there is to note."""

    verdicts: list[Verdict]
    notes: set[str]

    def failures(self) -> list[Verdict]:
        return [v for v in self.verdicts if not v.holds]


class Bounds:
    """How far rounding may move each quantity of a case: as ``trials.bound_of``, measured."""

    def __init__(self, walk: Walk, arrays: Arrays, exact: Arrays) -> None:
        self._walk, self._arrays, self._exact = walk, arrays, exact  # its finite quantities
        self._moved: dict[str, dict[str, float]] = {}
        self._largest = 0.0  # result of an activation

    def of(self, name: str, dtype: str) -> float:
        """Ten times what half an ulp moves the quantities of its kind, and four ulps.

        Half an ulp of weights, inputs and states, and of what each activation gives: a constant of
        an unbounded one is rounded at every step, and no nudge of the weights shows it.
        """
        half_ulp = float(np.finfo(dtype).eps) / 2
        if dtype not in self._moved:
            self._moved[dtype] = self._measured(half_ulp)
        if self._largest > float(np.finfo(dtype).max) ** 0.5:
            return np.inf  # a product of two of them overflows
        kind = name.startswith("d_")
        moved = [far for n, far in self._moved[dtype].items() if n.startswith("d_") == kind]
        return 10 * max(moved) + 8 * half_ulp

    def _measured(self, half_ulp: float) -> dict[str, float]:
        rng = np.random.default_rng(0)

        def rounded(a: np.ndarray) -> np.ndarray:
            self._largest = max(self._largest, float(np.abs(a).max(initial=0.0)))
            return nudged(a)

        def nudged(a: np.ndarray) -> np.ndarray:
            return a * (1 + half_ulp * (2 * rng.integers(0, 2, a.shape) - 1))

        found = dict.fromkeys(self._exact, 0.0)
        for _ in range(3):
            near = {
                n: nudged(a) if n.startswith(("x", "weight", "state")) else a
                for n, a in self._arrays.items()
            }
            with _results_of_activations(self._walk.activations, rounded):
                moved = truth(self._walk, near)
            for name, value in self._exact.items():
                found[name] = max(found[name], error(moved[name], value))
        return found


@contextmanager
def _results_of_activations(
    names: set[str], change: Callable[[np.ndarray], np.ndarray]
) -> Iterator[None]:
    """The oracle with every result and slope of these activations changed."""
    kept = {name: oracle.ACTIVATIONS[name] for name in names}
    for name, (forward, backward) in kept.items():
        oracle.ACTIVATIONS[name] = (
            lambda x, forward=forward: change(forward(x)),
            lambda x, dy, backward=backward: change(backward(x, dy)),
        )
    try:
        yield
    finally:
        oracle.ACTIVATIONS.update(kept)


class _Comparison:
    """The verdicts on one case, as they come."""

    def __init__(self, walk: Walk, arrays: Arrays, exact: Arrays, result: Judged) -> None:
        self._walk, self._result = walk, result
        # Where the truth overflows, no two implementations agree on which infinity or NaN.
        self._finite = {n: v for n, v in exact.items() if np.isfinite(v).all()}
        self._bounds = Bounds(walk, arrays, self._finite)
        if len(self._finite) < len(exact):
            result.notes.add("(grew beyond float64: compared where it is finite)")

    def of(self, judge: str, found: Arrays, expected: Arrays, dtype: str = "float64") -> None:
        if found.keys() != expected.keys():
            odd = ", ".join(sorted(found.keys() ^ expected.keys()))
            self._say(judge, f"another set of results: {odd}", np.inf, 0.0)
            return
        for name in self._finite:
            a, e = found[name], expected[name]
            if a.shape != e.shape:
                self._say(judge, f"{name}: shape {a.shape}, expected {e.shape}", np.inf, 0.0)
                continue
            out = [why for why, applies in NOT_COMPARED.items() if applies(self._walk, name, dtype)]
            if out:
                self._result.notes.update(out)
                continue
            far = error(a, e)
            bound = self._bound(name, far, dtype)
            if bound > VOID:
                self._result.notes.add("(no bound: an ulp moves it by its size, or it overflows)")
            self._say(judge, name, far, bound)

    def _bound(self, name: str, far: float, dtype: str) -> float:
        if dtype != "float64":
            return self._bounds.of(name, dtype)
        # Beyond the regime of parity.bounds large weights and growth amplify an ulp.
        if far <= FLOAT64 or not (self._walk.scale > 1 or self._walk.unbounded):
            return FLOAT64
        self._result.notes.add("(float64 bound measured: beyond the regime of 1e-12)")
        return max(FLOAT64, self._bounds.of(name, dtype))

    def _say(self, judge: str, what: str, far: float, bound: float) -> None:
        self._result.verdicts.append(Verdict(judge, what, far, bound))


def judged(walk: Walk, answer: Arrays | dict[str, str] | None = None) -> Judged:
    """Every judge's verdicts; ``answer`` is live Keras's, None where it was not asked."""
    result = Judged([], set())
    try:
        _judge(walk, walk.arrays(), answer, result)
    except Exception as problem:  # whatever it is, it is a finding, with its text
        place = traceback.extract_tb(problem.__traceback__)[-1]
        what = f"{type(problem).__name__}: {problem} ({place.filename}:{place.lineno})"
        result.verdicts.append(Verdict("raises", what, np.inf, 0.0))
    return result


def _judge(walk: Walk, arrays: Arrays, answer: Any, result: Judged) -> None:
    exact = truth(walk, arrays)
    comparison = _Comparison(walk, arrays, exact, result)
    module = build(walk, arrays, torch.float64)
    mine = ours(walk, module, arrays, torch.float64)
    comparison.of("oracle", mine, exact)
    if answer is not None and "error" in answer:
        result.verdicts.append(Verdict("keras raises", str(answer["error"]), np.inf, 0.0))
    elif answer is not None:
        comparison.of("keras", mine, answer)
    if walk.dtype == "float32":
        single = build(walk, arrays, torch.float32)
        comparison.of("float32", ours(walk, single, arrays, torch.float32), exact, "float32")
    _metamorphic(walk, arrays, module, result)
    if not walk.why_not_fused:
        for part in recurrent_parts(module):
            other = "auto" if walk.use_cudnn is False else False
            part.config = part.config.replace(use_cudnn=other)
        comparison.of("engines", ours(walk, module, arrays, torch.float64), exact)


def _metamorphic(walk: Walk, arrays: Arrays, module: Any, result: Judged) -> None:
    """That neither its own weights nor its own config change a bit of the results."""
    options: dict[str, Any] = {"gradients": False, "training": False}
    before = ours(walk, module, arrays, torch.float64, **options)
    module.set_weights(module.get_weights())
    _same_bits("weights", before, ours(walk, module, arrays, torch.float64, **options), result)
    copy = type(module).from_config(module.get_config(), walk.features, dtype=torch.float64)
    copy.set_weights(module.get_weights())
    _same_bits("config", before, ours(walk, copy, arrays, torch.float64, **options), result)


def _same_bits(judge: str, before: Arrays, after: Arrays, result: Judged) -> None:
    for name, value in before.items():
        same = np.array_equal(value, after[name], equal_nan=True)
        far = 0.0 if same else error(after[name], value) or np.inf
        result.verdicts.append(Verdict(judge, name, far, 0.0))


# Shrinking


def cost(walk: Walk) -> int:
    """How far it is from the simplest case."""
    places = [VALUES[n].index(getattr(walk, n)) for n in VALUES]
    return sum(places) + (walk.data != 0)


def simpler(walk: Walk) -> Iterator[Walk]:
    """Cases with one field nearer to its simplest value, the boldest steps first."""
    here, seen = cost(walk), {walk}
    steps: list[tuple[int, str, Any]] = [(-1, "data", 0)]
    for name, values in VALUES.items():
        at = values.index(getattr(walk, name))
        # The simplest, half of the way, one step; of names each.
        places = range(at) if isinstance(values[0], str) and at < 8 else (0, at // 2, at - 1)
        steps += [(place, name, values[place]) for place in places if 0 <= place < at]
    for _, name, value in sorted(steps, key=lambda s: s[0]):
        candidate = settled(dataclasses.replace(walk, **{name: value}))
        if candidate not in seen and cost(candidate) < here:
            seen.add(candidate)
            yield candidate


def shrunk(walk: Walk, fails: Callable[[Walk], bool]) -> Walk:
    """The simplest case on a greedy way down on which ``fails`` holds."""
    while True:
        for candidate in simpler(walk):
            if fails(candidate):
                walk = candidate
                break
        else:
            return walk


# The walk


@dataclasses.dataclass(frozen=True)
class Failure:
    """A case that a judge refuses, and the simplest like it."""

    number: int
    seed: int
    walk: Walk
    shrunk: Walk
    verdict: Verdict  # on the shrunk one

    @property
    def command(self) -> str:
        return f'python -m parity_tests --case "{self.shrunk!r}"'

    def __str__(self) -> str:
        return f"case {self.number} of seed {self.seed}: {self.verdict}\n    {self.command}"


@dataclasses.dataclass
class Report:
    """What a walk has met."""

    seed: int
    count: int = 0
    seconds: float = 0.0
    failed: int = 0
    failures: list[Failure] = dataclasses.field(default_factory=list)
    kinds: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    dtypes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    judges: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    notes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    largest: dict[str, tuple[Verdict, Walk]] = dataclasses.field(default_factory=dict)

    def take(self, walk: Walk, result: Judged) -> None:
        self.count += 1
        self.kinds[walk.kind] += 1
        self.dtypes[walk.dtype] += 1
        self.notes.update(result.notes)
        self.judges.update({v.judge for v in result.verdicts})
        for verdict in result.verdicts:
            if verdict.holds and 0 < verdict.bound < VOID:
                held = self.largest.get(verdict.judge)
                if held is None or verdict.ratio > held[0].ratio:
                    self.largest[verdict.judge] = verdict, walk

    def as_json(self, versions: dict[str, str]) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "count": self.count,
            "failed": self.failed,
            "seconds": round(self.seconds, 1),
            "versions": versions,
            "cases_by_kind": dict(self.kinds.most_common()),
            "cases_by_dtype": dict(self.dtypes.most_common()),
            "cases_by_judge": dict(self.judges.most_common()),
            "notes": dict(self.notes.most_common()),
            "largest_error_per_bound": {
                judge: {
                    "ratio": float(f"{v.ratio:.3g}"), "error": float(f"{v.error:.3g}"),
                    "bound": float(f"{v.bound:.3g}"), "what": v.what, "case": repr(walk),
                }
                for judge, (v, walk) in sorted(self.largest.items())
            },
            "failures": [
                {
                    "number": f.number, "case": repr(f.walk), "shrunk": repr(f.shrunk),
                    "verdict": str(f.verdict), "command": f.command,
                }
                for f in self.failures
            ],
        }  # fmt: skip


class Judge:
    """Judges cases one by one, with live Keras where there is one."""

    def __init__(self, keras: KerasLive | None) -> None:
        self._keras = keras

    def answers(self, walks: list[Walk]) -> list[Any]:
        """Live Keras's, None where it is not asked."""
        asked = [None if self._keras is None else request(w, w.arrays()) for w in walks]
        sent = [r for r in asked if r is not None]
        got = iter(self._keras.call("fuzz_side.run", sent) if self._keras and sent else ())
        found: list[Any] = [None if r is None else next(got) for r in asked]
        for walk, answer in zip(walks, found, strict=True):
            if walk.kind == "LSTMCell" and answer is not None and "d_x" in answer:
                answer["d_x"] = answer["d_x"][:, None]  # it has no axis of time
        return found

    def __call__(self, walk: Walk) -> Judged:
        return judged(walk, self.answers([walk])[0])

    def refusal(self, walk: Walk, judge: str) -> Verdict | None:
        """The worst verdict of a judge on a case, where it does not hold."""
        keras = judge.startswith("keras")
        result = self(walk) if keras else judged(walk)
        wrong = [v for v in result.failures() if v.judge == judge]
        return max(wrong, key=lambda v: v.ratio, default=None)


SHRUNK_FAILURES = 3  # of each judge; the others are counted


def walked(
    seed: int,
    count: int,
    keras: KerasLive | None = None,
    *,
    stop_at: int | None = None,
    tell: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Judge so many cases of a seed.

    Args:
        keras: live Keras, or None.
        stop_at: so many failures.
        tell: called after each case.
    """
    judge, report = Judge(keras), Report(seed)
    begun = time.perf_counter()
    numbers = [range(i, min(i + BATCH_OF_CASES, count)) for i in range(0, count, BATCH_OF_CASES)]
    batches = [[drawn(seed, n) for n in batch] for batch in numbers]
    with ThreadPoolExecutor(1) as other:  # Keras answers the next batch in the meantime
        asked = [other.submit(judge.answers, batches[0])]
        for i, (batch, walks) in enumerate(zip(numbers, batches, strict=True)):
            answers = asked[i].result()
            if i + 1 < len(batches):
                asked.append(other.submit(judge.answers, batches[i + 1]))
            for number, walk, answer in zip(batch, walks, answers, strict=True):
                result = judged(walk, answer)
                report.take(walk, result)
                if keras is not None:
                    report.notes.update(exclusions(walk))
                if result.failures():
                    asked[-1].result()  # one call at a time
                    report.failed += 1
                    _take_failures(judge, report, number, walk, result)
                report.seconds = time.perf_counter() - begun
                tell(report)
                if stop_at is not None and report.failed >= stop_at:
                    return report
            asked[i] = asked[-1]  # its arrays are no longer needed
    return report


def _take_failures(judge: Judge, report: Report, number: int, walk: Walk, result: Judged) -> None:
    for name in dict.fromkeys(v.judge for v in result.failures()):
        least, verdict = (
            walk,
            max((v for v in result.failures() if v.judge == name), key=lambda v: v.ratio),
        )
        known = [f for f in report.failures if f.verdict.judge == name]
        if len(known) < SHRUNK_FAILURES:
            least = shrunk(walk, lambda w, name=name: judge.refusal(w, name) is not None)
            verdict = judge.refusal(least, name) or verdict
        report.failures.append(Failure(number, report.seed, walk, least, verdict))


# The command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The walk's options."""
    group = parser.add_argument_group("a random walk over configurations")
    group.add_argument("--fuzz", type=_count, metavar="N", help="judge N cases")
    group.add_argument("--seed", type=_seed, default=0, metavar="S", help="of the cases (0)")
    group.add_argument("--case", type=parsed, metavar="LINE", help='judge one: "Walk(steps=3)"')
    group.add_argument(
        "--live",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="ask live Keras (where it is installed)",
    )
    group.add_argument("--results", type=Path, metavar="FILE", help="write a JSON file")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of cases, 1 or more")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no seed, an integer from 0")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """The exit status: 1 where a case fails."""
    lacking = missing()
    if arguments.live and lacking:
        print(f"--live: {lacking}", file=sys.stderr)
        return 1
    live = not lacking if arguments.live is None else bool(arguments.live)
    torch.set_num_threads(1)
    keras: AbstractContextManager[KerasLive | None] = KerasLive() if live else nullcontext()
    with keras as process:
        if process is not None:
            process.call("fuzz_side.begin")
        if arguments.case is not None:
            return _run_one(arguments.case, process)
        return _run_many(arguments, process)


def _run_one(walk: Walk, keras: KerasLive | None) -> int:
    result = Judge(keras)(walk)
    print(repr(walk))
    for verdict in result.verdicts:
        print("ok    " if verdict.holds else "WRONG ", verdict)
    for note in sorted(result.notes) + (exclusions(walk) if keras else []):
        print("note  ", note)
    return int(bool(result.failures()))


def _run_many(arguments: argparse.Namespace, keras: KerasLive | None) -> int:
    print(f"seed {arguments.seed}, {arguments.fuzz} cases", flush=True)
    with _progress(arguments.fuzz) as tell:
        report = walked(arguments.seed, arguments.fuzz, keras, tell=tell)
    for failure in report.failures:
        print(failure)
    if arguments.results is not None:
        _write(arguments.results, report.as_json(versions(keras)))
    judges = ", ".join(f"{n} {j}" for j, n in report.judges.most_common())
    print(f"{report.count} cases in {report.seconds:.0f} s, {report.failed} failed ({judges})")
    return int(report.failed > 0)


def versions(keras: KerasLive | None) -> dict[str, str]:
    """Of what has judged, and where."""
    own = {n: importlib.metadata.version(n) for n in ("torch", "numpy")}
    theirs = {} if keras is None else keras.call("versions")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"
    return theirs | own | {"python": platform.python_version(), "machine": machine}


def _write(path: Path, value: dict[str, Any]) -> None:
    """All of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(beside, path)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[Report], None]]:
    """rich's bar on a terminal, else a line each 1000 cases."""
    if sys.stderr.isatty() and importlib.util.find_spec("rich") is not None:
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task("cases", total=total)

            def move(report: Report) -> None:
                text = f"cases, {report.failed} failed"
                bar.update(task, completed=report.count, description=text)

            yield move
        return

    def line(report: Report) -> None:
        if report.count % 1000 == 0:
            done = f"{report.count} cases, {report.failed} failed, {report.seconds:.0f} s"
            print(done, file=sys.stderr, flush=True)

    yield line


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m parity_tests.fuzz", description=__doc__)
    add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.fuzz is None and arguments.case is None:
        parser.error("give --fuzz N or --case LINE")
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
