"""The float64 truth of each case, and the comparison that a library must pass to be timed."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from benchmarks.cases import WEIGHTS, Case, as_bfloat16, data, result_names
from kerasish_lstm.parity import oracle

Arrays = dict[str, np.ndarray]


def truth(case: Case, *, negated: bool = False) -> Arrays:
    """The output (B, H) or (B, 2H) and, in training, the gradients of its sum, Keras's layout.

    negated: with the signs of all weights turned.
    """
    return _truth(case._replace(threads=0), negated)


@cache
def _truth(case: Case, negated: bool) -> Arrays:
    arrays = data(case)
    weights = [-w if negated else w for w in arrays["weights"].values()]
    layers = [weights[at : at + 3] for at in range(0, len(weights), 3)]
    options: dict[str, Any] = {
        "mask": arrays["mask"],
        "recurrent_activation": case.recurrent_activation,
        "recurrent_dropout": arrays["dropout"],
    }
    training = case.mode == "training"
    x = arrays["x"]
    if case.structure == "stack":
        lower, upper = layers
        sequence = oracle.forward(x, *lower, return_sequences=True, **options).output
        output = oracle.forward(sequence, *upper, **options).output
        gradients = []
        if training:
            above = oracle.gradients(sequence, *upper, d_output=np.ones_like(output), **options)
            below = oracle.gradients(
                x, *lower, d_output=above.x, return_sequences=True, **options
            )  # fmt: skip
            gradients = [below, above]
    else:
        directions = [(layer, bool(i)) for i, layer in enumerate(layers)]
        outputs = [oracle.forward(x, *w, go_backwards=b, **options).output for w, b in directions]
        output = np.concatenate(outputs, -1)
        gradients = [
            oracle.gradients(x, *w, d_output=np.ones_like(y), go_backwards=b, **options)
            for (w, b), y in zip(directions, outputs, strict=True)
            if training
        ]
    found = [output, *(getattr(each, name) for each in gradients for name in WEIGHTS)]
    return dict(zip(result_names(case), found, strict=True))


def compare(case: Case, found: Arrays, true: Arrays) -> tuple[dict[str, Any], list[str]]:
    """The error of each array beside its bound, and what is wrong, in words.

    NumPy has no bfloat16: results of such a case are float32 arrays of bfloat16's values.
    """
    errors: dict[str, Any] = {}
    wrong = []
    dtype = np.dtype(np.float64 if case.dtype == "float64" else np.float32)
    for name, expected in true.items():
        bound = case.bound(name)
        errors[name] = {"error": None, "bound": bound}
        actual = found.get(name)
        if actual is None:
            wrong.append(f"{name} is not there")
        elif actual.shape != expected.shape:
            wrong.append(f"{name} has shape {actual.shape}, not {expected.shape}")
        elif actual.dtype != dtype:
            wrong.append(f"{name} is {actual.dtype}, not {dtype}")
        elif not np.isfinite(actual).all():
            wrong.append(f"{name} is not finite")
        elif case.dtype == "bfloat16" and (actual != as_bfloat16(actual)).any():
            wrong.append(f"{name} is more precise than bfloat16")
        else:
            scale = 1.0 if name == "output" else float(np.abs(expected).max())
            error = float(np.abs(actual - expected).max()) / scale
            errors[name]["error"] = error
            if not error <= bound:
                wrong.append(f"{name} is {error:.1e} off, more than {bound:.0e}")
    return errors, wrong
