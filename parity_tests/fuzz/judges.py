"""What a configuration gives here, by the equations and in Keras, and the verdicts."""

from __future__ import annotations

import dataclasses
import itertools
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from kerasish_lstm import (
    LSTM,
    Bidirectional,
    DropoutMasks,
    LSTMCell,
    StackedLSTM,
    TimeDistributed,
)
from kerasish_lstm.layers.parameters import recurrent_parts
from kerasish_lstm.parity import oracle
from kerasish_lstm.parity.bounds import FLOAT64, error

from .walk import ASKED_OTHERWISE, NOT_ASKED, NOT_COMPARED, VOID, Arrays, Walk


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
