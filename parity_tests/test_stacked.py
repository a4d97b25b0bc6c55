"""StackedLSTM beside live Keras and the float64 equations, with gradients."""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm import LSTM, Bidirectional, LazyLSTM, LazyLSTMCell, LSTMCell, StackedLSTM
from kerasish_lstm.errors import ConfigError, InputError, StateError, WeightMismatch
from kerasish_lstm.parity import assert_parity, oracle
from kerasish_lstm.parity.bounds import FLOAT64

from .cases import MASKS, mask_of
from .keras_live import KerasLive
from .sampling import fields, sampled

B, T, F = 5, 7, 3
UNITS = (2, 11, 5)


@dataclasses.dataclass(frozen=True)
class Stack:
    """One configuration. form: cells in a list, one cell, or a chain of layers.

    A chain is written as one letter a layer: l for LSTM, b for Bidirectional (concat), s (sum).
    """

    form: str
    layers: str
    mask: str
    state: str  # none, given, stateful
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    zero_output_for_mask: bool = False

    @property
    def id(self) -> str:
        flags = [f.name for f in dataclasses.fields(self)[4:] if getattr(self, f.name)]
        return "-".join([self.form, self.layers, self.mask, self.state, *flags])

    def keywords(self) -> dict[str, Any]:
        """Of the stack of cells, or of each layer of a chain."""
        if self.form == "chain":
            return {"stateful": self.state == "stateful"}
        return {
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
            "zero_output_for_mask": self.zero_output_for_mask,
            "stateful": self.state == "stateful",
        }

    def specs(self) -> list[dict[str, Any]]:
        """What stack_side takes for each cell or layer."""
        if self.form != "chain":
            return [{"units": u} for _, u in zip(self.layers, UNITS, strict=False)]
        specs = []
        for i, (letter, units) in enumerate(zip(self.layers, UNITS, strict=False)):
            last = i == len(self.layers) - 1
            own = {"units": units, "return_sequences": self.return_sequences or not last}
            own |= {"return_state": self.return_state}
            own |= {"l": {}, "b": {"merge_mode": "concat"}, "s": {"merge_mode": "sum"}}[letter]
            if letter == "l":
                own |= {"go_backwards": self.go_backwards}
            specs.append(own)
        return specs

    def sizes(self) -> list[tuple[int, int]]:
        """(input size, units) of each LSTM, two for a Bidirectional."""
        sizes, features = [], F
        for letter, units in zip(self.layers, UNITS, strict=False):
            sizes += [(features, units)] * (1 if letter == "l" else 2)
            features = 2 * units if letter == "b" else units
        return sizes

    def inputs(self) -> dict[str, np.ndarray]:
        rng = np.random.RandomState(zlib.crc32(self.id.encode()))

        def draw(*shape: int, scale: float = 1.0) -> np.ndarray:
            return rng.uniform(-scale, scale, shape)

        arrays = {"x": draw(B, T, F, scale=2.0)}
        shapes = [shape for f, u in self.sizes() for shape in ((f, 4 * u), (u, 4 * u), (4 * u,))]
        for i, shape in enumerate(shapes):
            arrays[f"weight{i:02d}"] = draw(*shape, scale=(shape[-1] / 4) ** -0.5)
        states = [(B, u) for _, u in self.sizes() for _ in "hc"]
        if self.state == "given":
            arrays |= {f"state{i:02d}": draw(*s) for i, s in enumerate(states)}
        if self.state == "stateful":
            arrays["first_x"] = draw(B, T, F, scale=2.0)
        if self.mask != "none":
            arrays["mask"] = mask_of(self.mask, B, T, rng)
        u = self.sizes()[-1][1] * (2 if self.layers[-1] == "b" else 1)
        results = [(B, T, u) if self.return_sequences else (B, u)]
        results += states if self.return_state else []
        return arrays | {f"d_{i}": draw(*s) for i, s in enumerate(results)}


FLAGS = list(itertools.product((False, True), repeat=4))
CELLS = [
    Stack("cells", layers, mask, state, *flags)
    for layers in ("ll", "lll", "l")
    for mask, state, flags in itertools.product(MASKS, ("none", "given", "stateful"), FLAGS)
]
ONE = [
    Stack("cell", "l", mask, state, *flags)
    for mask, state, flags in itertools.product(MASKS, ("none", "given", "stateful"), FLAGS)
]
CHAIN = [
    Stack("chain", layers, mask, state, sequences, state_out, backwards)
    for layers in ("ll", "lll", "lb", "bl", "sb", "bll")
    for mask, state, sequences, state_out, backwards in itertools.product(
        MASKS, ("none", "given", "stateful"), (False, True), (False, True), (False, True)
    )
    # Bidirectional(stateful, return_state) raises TypeError on every call of Keras.
    if not (state == "stateful" and state_out and set(layers) & {"b", "s"})
]
# One cell in a list crashes on a mask in Keras.
CASES = [c for c in CELLS[::7] if c.layers != "l" or c.mask == "none"] + ONE[::11] + CHAIN[::11]
# All of these are recorded (test_goldens).
ASKED = [
    case
    for form in ("cells", "cell", "chain")
    for case in sampled([c for c in CASES if c.form == form], 1 / 5, fields)
]


def build(case: Stack, device: torch.device) -> StackedLSTM:
    options: dict[str, Any] = {"dtype": torch.float64}
    sizes = case.sizes()
    if case.form != "chain":
        cells = [LSTMCell(f, u, **options) for f, u in sizes]
        stack = StackedLSTM(cells[0] if case.form == "cell" else cells, **case.keywords())
    else:
        layers: list[Any] = []
        features = F
        for spec, letter in zip(case.specs(), case.layers, strict=True):
            own = {k: v for k, v in spec.items() if k not in ("merge_mode", "units")}
            layer: Any = LSTM(features, spec["units"], **own, **case.keywords(), **options)
            if letter != "l":
                layer = Bidirectional(layer, spec["merge_mode"])
            layers.append(layer)
            features = 2 * spec["units"] if letter == "b" else spec["units"]
        stack = StackedLSTM(layers)
    arrays = case.inputs()
    stack.set_weights([arrays[n] for n in sorted(arrays) if n.startswith("weight")])
    return stack.to(device)


def flat(result: Any) -> list[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return [result]
    return [t for part in result for t in flat(part)]


def ours(case: Stack, device: torch.device) -> dict[str, np.ndarray]:
    arrays = case.inputs()
    stack = build(case, device)
    for name in {"x", "first_x"} & set(arrays):
        if "mask" in arrays:
            arrays[name] = np.where(arrays["mask"][..., None], arrays[name], np.nan)
    t = {k: torch.tensor(v, device=device) for k, v in arrays.items()}
    states: Any = [t[n].requires_grad_() for n in sorted(t) if n.startswith("state")]
    begin = states or None
    if states and case.form == "cells":
        begin = [states[i : i + 2] for i in range(0, len(states), 2)]
    if "first_x" in t:
        stack(t["first_x"], begin, t.get("mask"))
    x = t["x"].requires_grad_()
    result = flat(stack(x, begin, t.get("mask")))
    loss = sum((r * t[f"d_{i}"]).sum() for i, r in enumerate(result))
    parameters = list(stack.parameters())
    watched = {"d_x": x} | {f"d_weight{i:02d}": p for i, p in enumerate(parameters)}
    watched |= {f"d_state{i:02d}": s for i, s in enumerate(states)}
    gradients = torch.autograd.grad(loss, list(watched.values()), allow_unused=True)
    found = {f"result{i}": r for i, r in enumerate(result)}
    for (name, p), g in zip(watched.items(), gradients, strict=True):
        gradient = torch.zeros_like(p) if g is None else g
        found[name] = gradient.t() if "weight" in name and p.ndim == 2 else gradient
    return {k: v.detach().cpu().numpy() for k, v in found.items()}


def truth(case: Stack) -> dict[str, np.ndarray]:
    """A stack of cells by the float64 equations, one layer after the other, and their gradients."""
    a = case.inputs()
    flip = slice(None, None, -1 if case.go_backwards else 1)
    mask = a["mask"][:, flip] if "mask" in a else None
    count = len(case.layers)
    weights = [[a[f"weight{3 * i + k:02d}"] for k in range(3)] for i in range(count)]
    begin: list[dict[str, Any]] = [
        {"h0": a.get(f"state{2 * i:02d}"), "c0": a.get(f"state{2 * i + 1:02d}")}
        for i in range(count)
    ]

    def run(x: np.ndarray) -> tuple[list[np.ndarray], list[oracle.Result]]:
        inputs, results = [x[:, flip]], []
        for w, s in zip(weights, begin, strict=True):
            results.append(oracle.forward(inputs[-1], *w, mask=mask, return_sequences=True, **s))
            inputs.append(results[-1].output)
        return inputs, results

    if "first_x" in a:
        begin = [{"h0": r.h, "c0": r.c} for r in run(a["first_x"])[1]]
    inputs, results = run(a["x"])
    top = {
        "return_sequences": case.return_sequences,
        "zero_output_for_mask": case.zero_output_for_mask,
    }
    last = oracle.forward(inputs[-2], *weights[-1], mask=mask, **begin[-1], **top)
    found = {"result0": last.output}
    if case.return_state:
        states = [s for r in results for s in (r.h, r.c)]
        found |= {f"result{i + 1}": s for i, s in enumerate(states)}
    d: np.ndarray = a["d_0"]
    for i in reversed(range(count)):
        ends = {}
        if case.return_state:
            ends = {"d_h": a[f"d_{2 * i + 1}"], "d_c": a[f"d_{2 * i + 2}"]}
        options = top if i == count - 1 else {"return_sequences": True}
        g = oracle.gradients(
            inputs[i], *weights[i], d_output=d, mask=mask, **begin[i], **ends, **options
        )
        for k, value in enumerate((g.kernel, g.recurrent_kernel, g.bias)):
            found[f"d_weight{3 * i + k:02d}"] = value
        if case.state == "given":
            found |= {f"d_state{2 * i:02d}": g.h0, f"d_state{2 * i + 1:02d}": g.c0}
        d = g.x
    return found | {"d_x": d[:, flip]}


@pytest.mark.parametrize("case", CELLS[::5] + ONE[::5], ids=lambda c: c.id)
def test_cells_equal_the_equations(case: Stack, device: torch.device) -> None:
    actual, expected = ours(case, device), truth(case)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert_parity(actual[name], value, bound=FLOAT64, what=name)


@pytest.fixture(scope="module")
def live(keras: KerasLive) -> dict[str, dict[str, np.ndarray]]:
    requests = [
        {"form": c.form, "layers": c.specs(), "keywords": c.keywords(), "arrays": c.inputs()}
        for c in ASKED
    ]
    answers = keras.call("stack_side.run", requests)
    return {c.id: a for c, a in zip(ASKED, answers, strict=True)}


@pytest.mark.live
@pytest.mark.parametrize("case", ASKED, ids=lambda c: c.id)
def test_equals_live_keras(case: Stack, live: Any) -> None:
    actual, expected = ours(case, torch.device("cpu")), live[case.id]
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert_parity(actual[name], value, bound=FLOAT64, what=name)


def test_the_live_cases_meet_every_value() -> None:
    for cases in (CELLS, ONE, CHAIN):
        form = cases[0].form
        for field in dataclasses.fields(Stack):
            every = {getattr(c, field.name) for c in cases}
            met = {getattr(c, field.name) for c in ASKED if c.form == form}
            assert met == every, (form, field.name)


@pytest.mark.live
def test_what_keras_cannot_do_with_cells_works_here(keras: KerasLive) -> None:
    x = np.random.RandomState(3).uniform(-1, 1, (B, T, F)).astype(np.float32)
    mask = mask_of("gaps", B, T, np.random.RandomState(4))
    found = keras.call("stack_side.one_cell_in_a_list", x, mask)
    assert found["states"] == [2] and set(found) == {"states", "masked", "reset"}
    stack = StackedLSTM([LSTMCell(F, 3)], return_state=True)
    plain: LSTM = LSTM(F, 3, return_state=True)
    plain.load_state_dict(stack.layers[0].state_dict())
    output, state = stack(torch.tensor(x), mask=torch.tensor(mask))
    for a, b in zip((output, *state), plain(torch.tensor(x), mask=torch.tensor(mask)), strict=True):
        assert torch.equal(a, b)


def test_an_explicit_mask_reaches_every_layer_of_a_chain() -> None:
    """In Keras a layer with an initial state ignores the mask that comes with its input."""
    case = Stack("chain", "ll", "gaps", "given", True, True)
    arrays = {k: torch.tensor(v) for k, v in case.inputs().items()}
    states = [arrays[f"state{i:02d}"] for i in range(4)]
    chain = build(case, torch.device("cpu"))
    first, second = chain.layers
    y, *_ = first(arrays["x"], states[:2], arrays["mask"])
    for propagation, mask in (("keras_3.15", None), ("explicit", arrays["mask"])):
        chain.mask_propagation = propagation
        expected = second(y, states[2:], mask)[0]
        assert torch.equal(chain(arrays["x"], states, arrays["mask"])[0], expected)


# The class itself


def test_dropout_of_each_cell_is_drawn_once_a_call() -> None:
    keywords: dict[str, Any] = {"dropout": 0.4, "recurrent_dropout": 0.3, "dtype": torch.float64}
    cells = [LSTMCell(F, 2, seed=1, **keywords), LSTMCell(2, 11, seed=2, **keywords)]
    stack = StackedLSTM(cells)
    again = [LSTMCell(F, 2, seed=1, **keywords), LSTMCell(2, 11, seed=2, **keywords)]
    for a, b in zip(again, cells, strict=True):
        a.load_state_dict(b.state_dict())
    x = torch.rand(B, T, F, dtype=torch.float64)
    states: list[Any] = [None, None]
    for x_t in x.unbind(1):
        h = x_t
        for i, cell in enumerate(again):
            h, states[i] = cell(h, states[i])
    assert_parity(stack(x).detach(), h.detach().numpy(), bound=FLOAT64)


def test_results_have_the_wrapper_s_dtype() -> None:
    cells = [LSTMCell(F, 2, dtype=torch.float64), LSTMCell(2, 5, dtype=torch.float64)]
    stack = StackedLSTM(cells, return_state=True, dtype="mixed_bfloat16")
    assert {t.dtype for t in flat(stack(torch.rand(B, T, F)))} == {torch.bfloat16}


def test_lazy_members_learn_from_below() -> None:
    stack = StackedLSTM([LazyLSTMCell(2), LazyLSTMCell(5), LSTMCell(5, 11)])
    assert stack.input_size == 0 and stack.layers[1].input_size == 2
    assert stack(torch.rand(B, T, F)).shape == (B, 11)
    assert [c.input_size for c in stack.layers] == [F, 2, 5]
    assert {type(c) for c in stack.layers} == {LSTMCell}
    chain = StackedLSTM(
        [Bidirectional(LazyLSTM(2, return_sequences=True)), LazyLSTM(5, return_sequences=True),
         Bidirectional(LazyLSTM(7), "sum")]
    )  # fmt: skip
    assert chain(torch.rand(B, T, F)).shape == (B, 7)
    assert chain.layers[1].input_size == 4 and chain.layers[2].forward_layer.input_size == 5


def test_weights_go_round_and_a_wrong_one_changes_nothing() -> None:
    stack = StackedLSTM([LSTMCell(F, 2), LSTMCell(2, 5)])
    before = stack.get_weights()
    assert [w.shape for w in before] == [(3, 8), (2, 8), (8,), (2, 20), (5, 20), (20,)]
    assert stack.count_params() == sum(w.size for w in before)
    other = [w + 1 for w in before]
    stack.set_weights(other)
    with pytest.raises(WeightMismatch):
        stack.set_weights([*before[:5], before[5][:-1]])
    with pytest.raises(WeightMismatch, match="5 arrays were given, the stack has 6"):
        stack.set_weights(before[:5])
    assert all(np.array_equal(a, b) for a, b in zip(stack.get_weights(), other, strict=True))


def test_state_is_kept_moved_and_reset() -> None:
    stack = StackedLSTM([LSTMCell(F, 2), LSTMCell(2, 5)], stateful=True, return_state=True)
    x = torch.randn(B, T, F)
    _, *first = stack(x)
    assert all(torch.equal(a, b) for a, b in zip(flat(stack.states), flat(first), strict=True))
    _, *second = stack(x)
    assert not torch.equal(first[1].h, second[1].h)
    stack.double()
    assert flat(stack.states)[0].dtype == torch.float64
    with pytest.raises(StateError, match="reset_state"):
        stack(x[:2])
    stack.float().reset_state()
    assert torch.equal(stack(x)[1].h, first[0].h)
    chain = StackedLSTM([LSTM(F, 2, return_sequences=True, stateful=True), LSTM(2, 5)])
    one = chain(x)
    assert not torch.equal(chain(x), one)
    chain.reset_states()
    assert torch.equal(chain(x), one)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: StackedLSTM([]), "pass a list of LSTMCell"),
        (lambda: StackedLSTM([LSTMCell(F, 2), LSTM(2, 2)]), "layer 0 is a LSTMCell"),
        (lambda: StackedLSTM([torch.nn.LSTM(F, 2)]), "layer 0 is a LSTM; pass"),
        (lambda: StackedLSTM([LSTMCell(F, 2), LSTMCell(3, 2)]), "layer 1 takes 3 features"),
        (lambda: StackedLSTM([LSTM(F, 2), LSTM(2, 2)]), "return_sequences=True"),
        (
            lambda: StackedLSTM(
                [Bidirectional(LSTM(F, 2, return_sequences=True), None), LSTM(2, 2)]
            ),
            "Choose a merge mode",
        ),
        (lambda: StackedLSTM([LSTM(F, 2)], return_state=True), "return_state=True belongs to"),
        (lambda: StackedLSTM([LSTM(F, 2)], activity_regularizer="l2"), "belongs to a stack of"),
        (lambda: StackedLSTM([LSTMCell(F, 2)], stateful="yes"), "stateful='yes' is a flag"),
        (lambda: StackedLSTM([LSTMCell(F, 2)], name="a/b"), "without '/'"),
        (lambda: StackedLSTM([LSTM(F, 2)], mask_propagation="later"), "'keras_3.16'"),
    ],
)
def test_what_cannot_be_built_says_why(build: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build()


def test_what_cannot_be_called_says_why() -> None:
    x, s = torch.zeros(B, T, F), torch.zeros(B, 2)
    cells = StackedLSTM([LSTMCell(F, 2), LSTMCell(2, 2)])
    with pytest.raises(InputError, match=r"with 4 entries; pass .* 2 cells"):
        cells(x, [s, s, s, s])
    with pytest.raises(InputError, match="cell 1: initial_state's c"):
        cells(x, [(s, s), (s, s[:2])])
    chain = StackedLSTM([LSTM(F, 2, return_sequences=True), Bidirectional(LSTM(2, 2))])
    with pytest.raises(InputError, match="one flat list of 6 tensors"):
        chain(x, [s, s])
    with pytest.raises(InputError, match="so 2 features"):
        cells(x[..., :2])


def test_a_given_state_goes_before_the_stored_one() -> None:
    stack = StackedLSTM([LSTMCell(F, 2), LSTMCell(2, 5)], stateful=True)
    x = torch.randn(B, T, F)
    zeros = [cell.get_initial_state(B) for cell in stack.layers]  # type: ignore[operator,union-attr]
    first = stack(x)
    assert not torch.equal(stack(x), first)
    assert torch.equal(stack(x, zeros), first)
