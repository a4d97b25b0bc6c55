"""The cases of the parity suite: literal tables, readable ids, inputs from one seed each.

Sizes are odd primes and all different, so that no transpose and no wrong axis can hide, except in
the square case, F == 4U, where a missing transpose keeps every shape. All numbers are
float32 values, so that each precision computes on the same inputs.
"""

from __future__ import annotations

import dataclasses
import itertools
import zlib

import numpy as np

from kerasish_lstm import ACTIVATIONS

MASKS = ("none", "full", "right", "left", "gaps", "empty")
STATES = ("none", "given", "stateful")

# Keras's activations whose LSTM grows without limit or jumps: asserted at few steps and small
# inputs only, where Keras's own gradients are finite (it computes masked steps, and drops them).
UNBOUNDED = {
    "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_silu", "hard_swish", "leaky_relu",
    "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "silu", "soft_shrink",
    "softplus", "sparse_plus", "squareplus", "swish", "tanh_shrink",
}  # fmt: skip


# What the layer is told of dropout, by kind; the masks themselves are injected on both sides.
DROPOUTS: dict[str, dict[str, object]] = {
    "none": {},
    "input": {"dropout": 0.4},
    "gates": {"dropout": 0.4, "implementation": 1},
    "recurrent": {"recurrent_dropout": 0.3},
    "both": {"dropout": 0.4, "recurrent_dropout": 0.3},
    "keras_3.0": {"dropout": 0.4, "recurrent_dropout": 0.3, "dropout_style": "keras_3.0"},
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One configuration with its inputs. ``mask`` and ``state`` name a class each."""

    mask: str = "none"
    state: str = "none"
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    zero_output_for_mask: bool = False
    use_bias: bool = True
    activation: str = "tanh"
    recurrent_activation: str = "sigmoid"
    dropout: str = "none"
    batch: int = 5
    steps: int = 7
    features: int = 3
    units: int = 2

    @property
    def id(self) -> str:
        parts = [f"mask_{self.mask}", f"state_{self.state}"]
        parts += [
            flag
            for flag in ("return_sequences", "return_state", "go_backwards", "zero_output_for_mask")
            if getattr(self, flag)
        ]
        parts += [] if self.use_bias else ["no_bias"]
        if (self.activation, self.recurrent_activation) != ("tanh", "sigmoid"):
            parts.append(f"{self.activation}.{self.recurrent_activation}")
        parts += [] if self.dropout == "none" else [f"dropout_{self.dropout}"]
        if (self.batch, self.steps, self.features, self.units) != (5, 7, 3, 2):
            parts.append(f"B{self.batch}T{self.steps}F{self.features}U{self.units}")
        return "-".join(parts)

    def keywords(self) -> dict[str, object]:
        """The keywords of the layer, ours and Keras's."""
        return {
            "activation": self.activation,
            "recurrent_activation": self.recurrent_activation,
            "use_bias": self.use_bias,
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
            "stateful": self.state == "stateful",
            "zero_output_for_mask": self.zero_output_for_mask,
            **DROPOUTS[self.dropout],
        }

    def request(self, dtype: str) -> dict[str, object]:
        """What ``KerasLive.run`` takes."""
        return {"keywords": self.keywords(), "arrays": self.inputs(), "dtype": dtype}

    def inputs(self) -> dict[str, np.ndarray]:
        """Weights, inputs and cotangents as float64 arrays of float32 values; the mask as bool.

        ``first_x`` is the batch before, which gives a stateful layer its state. The stream of
        ``RandomState`` is frozen by NumPy's policy: goldens depend on it.
        """
        rng = np.random.RandomState(zlib.crc32(self.id.encode()))
        b, t, f, u = self.batch, self.steps, self.features, self.units

        def draw(*shape: int, scale: float = 1.0) -> np.ndarray:
            return rng.uniform(-scale, scale, shape).astype(np.float32).astype(np.float64)

        unbounded = {self.activation, self.recurrent_activation} & UNBOUNDED
        size = 0.25 if unbounded else 1.0
        scale = size / np.sqrt(u)
        arrays = {
            "kernel": draw(f, 4 * u, scale=scale),
            "recurrent_kernel": draw(u, 4 * u, scale=scale),
            "x": draw(b, t, f, scale=2.0 * size),
            "d_output": draw(*((b, t, u) if self.return_sequences else (b, u))),
        }
        if self.use_bias:
            arrays["bias"] = draw(4 * u, scale=scale)
        if self.return_state:
            arrays |= {"d_h": draw(b, u), "d_c": draw(b, u)}
        if self.state == "given":
            arrays |= {"h0": draw(b, u), "c0": draw(b, u)}
        if self.state == "stateful":
            arrays["first_x"] = draw(b, t, f, scale=2.0 * size)
        if self.mask != "none":
            arrays["mask"] = mask_of(self.mask, b, t, rng)
        for name, size in (("dropout", f), ("recurrent_dropout", u)):
            rate = float(DROPOUTS[self.dropout].get(name, 0.0))  # type: ignore[arg-type]
            if rate:
                gates = 1 if self.dropout in ("input", "keras_3.0") else 4
                kept = rng.uniform(size=(gates, b, size)) >= rate
                kept[:, 0, 0], kept[:, 1 % b, -1] = False, True  # some of each
                arrays[f"{name}_mask"] = np.where(kept, np.float32(1 / (1 - rate)), 0.0)
        return arrays


def mask_of(kind: str, batch: int, steps: int, rng: np.random.RandomState) -> np.ndarray:
    """A (B, T) mask of a class; every class but ``full`` has rows of different kinds."""
    lengths = rng.randint(1, steps + 1, (batch, 1))
    lengths[0] = max(1, steps // 2)  # at least one row is really masked
    time = np.arange(steps)
    if kind == "full":
        return np.ones((batch, steps), bool)
    if kind == "right":
        return time < lengths
    if kind == "left":
        return time >= steps - lengths
    mask = rng.uniform(size=(batch, steps)) < 0.6
    mask[0, : min(3, steps)] = [True, False, True][: min(3, steps)]
    mask[1 % batch, -1] = False
    if kind == "empty":
        mask[-1] = False
    return mask


DROPOUT_CASES = [
    Case(mask, state, sequences, return_state, backwards, zero, bias, dropout=dropout)
    for dropout in DROPOUTS
    if dropout != "none"
    for mask, (state, sequences, return_state, backwards, zero, bias) in zip(
        MASKS,
        (
            ("none", True, True, False, False, True),
            ("given", False, True, True, False, True),
            ("none", True, False, True, True, True),
            ("stateful", True, True, False, True, False),
            ("given", False, True, False, True, True),
            ("given", True, True, True, False, False),
        ),
        strict=True,
    )
] + [
    Case("gaps", "given", True, True, dropout="both", recurrent_activation="hard_sigmoid"),
    Case("gaps", "given", True, True, dropout="input", activation="softsign"),
    Case("left", "given", True, True, dropout="both", batch=3, steps=11, features=12, units=3),
]

PRODUCT = [
    Case(mask, state, *flags)
    for mask, state, *flags in itertools.product(MASKS, STATES, *[(False, True)] * 5)
]

SIZES = [
    Case("gaps", "given", True, True, batch=b, steps=t, features=f, units=u)
    for b, t, f, u in (
        (1, 1, 1, 1),
        (1, 5, 1, 3),
        (3, 1, 5, 7),
        (2, 3, 12, 3),  # F == 4U: a missing transpose keeps every shape
        (7, 11, 5, 13),
        (3, 97, 5, 11),
    )
]


def _pairwise(**role: str) -> list[Case]:
    """Six cases for an activation: every mask, state and flag value, varied together."""
    rows = (
        # state, return_sequences, return_state, go_backwards, zero_output, bias
        ("none", True, True, False, False, True),
        ("given", False, True, True, False, True),
        ("none", True, False, True, True, True),
        ("stateful", True, True, False, True, False),
        ("given", False, True, False, True, True),
        ("given", True, True, True, False, False),
    )
    return [Case(m, *row, **role) for m, row in zip(MASKS, rows, strict=True)]


ACTIVATION_CASES = [
    case
    for name in ACTIVATIONS
    if name != "hard_sigmoid_v2"  # Keras 3 has no name for it; test_activations has it
    for role, default in (("activation", "tanh"), ("recurrent_activation", "sigmoid"))
    if name != default
    for case in _pairwise(**{role: name})
]

GROUPS = {
    "product": PRODUCT,
    "sizes": SIZES,
    "activations": ACTIVATION_CASES,
    "dropout": DROPOUT_CASES,
}
# For 16 bits. A stride coprime to every factor of the product meets each value of each flag.
PRECISION = [*PRODUCT[::23], *SIZES]
QUANTITIES = ("output", "h", "c", "d_x", "d_kernel", "d_recurrent_kernel", "d_bias", "d_h0", "d_c0")

# What is recorded from live Keras for machines without it: strides that meet every value of every
# field, and each activation in each role.
GOLDEN = {
    "product": PRODUCT[::7],
    "sizes": SIZES,
    "activations": ACTIVATION_CASES[::5],
    "dropout": DROPOUT_CASES,
}
