"""One configuration: what its fields may be, its numbers, how it is drawn and written."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from kerasish_lstm import (
    ACTIVATIONS,
)
from kerasish_lstm._dropout import DropoutPlan
from kerasish_lstm.config import LSTMConfig

from ..cases import UNBOUNDED, mask_of

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
