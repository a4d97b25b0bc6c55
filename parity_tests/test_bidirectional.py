"""Bidirectional beside live Keras and the float64 equations, with gradients."""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm import LSTM, MERGES, Bidirectional, LazyLSTM
from kerasish_lstm.errors import ConfigError, InputError, StateError, WeightMismatch
from kerasish_lstm.parity import assert_parity, oracle
from kerasish_lstm.parity.bounds import FLOAT32_ULPS, FLOAT64, KERAS_FACTOR, error

from .cases import MASKS, mask_of
from .keras_live import KerasLive
from .sampling import fields, sampled

B, T, F, U, V = 5, 7, 3, 2, 11
WEIGHTS = ("kernel", "recurrent_kernel", "bias")
STATES = ("h_f", "c_f", "h_b", "c_b")


@dataclasses.dataclass(frozen=True)
class Both:
    """One configuration. ``other`` is a backward layer of V units, not a copy."""

    merge_mode: str | None
    mask: str
    return_sequences: bool
    return_state: bool
    state: str  # none, given, stateful
    other: bool = False

    @property
    def id(self) -> str:
        flags = [f for f in ("return_sequences", "return_state", "other") if getattr(self, f)]
        return "-".join([str(self.merge_mode), f"mask_{self.mask}", f"state_{self.state}", *flags])

    def units(self) -> tuple[int, int]:
        return U, V if self.other else U

    def keywords(self) -> dict[str, Any]:
        """Of the wrapped layer. Bidirectional overrules zero_output_for_mask."""
        return {
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "stateful": self.state == "stateful",
            "zero_output_for_mask": not self.return_sequences,
        }

    def inputs(self) -> dict[str, np.ndarray]:
        rng = np.random.RandomState(zlib.crc32(self.id.encode()))

        def draw(*shape: int, scale: float = 1.0) -> np.ndarray:
            return rng.uniform(-scale, scale, shape).astype(np.float32).astype(np.float64)

        arrays = {"x": draw(B, T, F, scale=2.0)}
        for side, u in zip("fb", self.units(), strict=True):
            shapes = ((F, 4 * u), (u, 4 * u), (4 * u,))
            for name, shape in zip(WEIGHTS, shapes, strict=True):
                arrays[f"{name}_{side}"] = draw(*shape, scale=u**-0.5)
            time = (T,) if self.return_sequences else ()
            arrays[f"d_output_{side}"] = draw(B, *time, u)
            if self.return_state:
                arrays |= {f"d_h_{side}": draw(B, u), f"d_c_{side}": draw(B, u)}
            if self.state == "given":
                arrays |= {f"h_{side}": draw(B, u), f"c_{side}": draw(B, u)}
        if self.merge_mode == "concat":
            sides = [arrays.pop("d_output_f"), arrays.pop("d_output_b")]
            arrays["d_output"] = np.concatenate(sides, -1)
        elif self.merge_mode is not None:
            arrays["d_output"] = arrays.pop("d_output_f")
            del arrays["d_output_b"]
        if self.state == "stateful":
            arrays["first_x"] = draw(B, T, F, scale=2.0)
        if self.mask != "none":
            arrays["mask"] = mask_of(self.mask, B, T, rng)
        return arrays

    def results(self) -> list[str]:
        outputs = ["output_f", "output_b"] if self.merge_mode is None else ["output"]
        return outputs + (list(STATES) if self.return_state else [])


PRODUCT = [
    Both(merge, mask, sequences, state_out, state)
    for merge, mask, sequences, state_out, state in itertools.product(
        (*MERGES, None), MASKS, (False, True), (False, True), ("none", "given", "stateful")
    )
]
OTHER = [
    Both(merge, mask, sequences, True, "given", True)
    for merge, mask, sequences in itertools.product(("concat", None), MASKS, (False, True))
]
CASES = [*PRODUCT, *OTHER]
# Bidirectional(stateful, return_state) raises TypeError on every call of Keras. The stride is
# coprime to every factor of the product.
LIVE = [c for c in PRODUCT[::7] if not (c.state == "stateful" and c.return_state)] + OTHER[::2]
# All of these are recorded (test_goldens).
ASKED = sampled(LIVE, 1 / 3, fields)


def build(case: Both, dtype: torch.dtype, device: torch.device | str = "cpu") -> Bidirectional:
    keywords = case.keywords()
    other = LSTM(F, V, go_backwards=True, dtype=dtype, **keywords) if case.other else None
    layer = Bidirectional(LSTM(F, U, dtype=dtype, **keywords), case.merge_mode, other)
    arrays = case.inputs()
    layer.set_weights([arrays[f"{n}_{side}"] for side in "fb" for n in WEIGHTS])
    return layer.to(device)


def ours(case: Both, dtype: torch.dtype, device: torch.device) -> dict[str, np.ndarray]:
    arrays = case.inputs()
    layer = build(case, dtype, device)
    for name in {"x", "first_x"} & set(arrays):
        if "mask" in arrays:
            arrays[name] = np.where(arrays["mask"][..., None], arrays[name], np.nan)
    t = {
        k: torch.tensor(v, dtype=torch.bool if k == "mask" else dtype, device=device)
        for k, v in arrays.items()
    }
    if "first_x" in t:
        layer(t["first_x"], mask=t.get("mask"))
    watched = {"d_x": t["x"].requires_grad_()}
    for side, one in zip("fb", (layer.forward_layer, layer.backward_layer), strict=True):
        for name, p in zip(WEIGHTS, one.lstm.parameters(), strict=True):
            watched[f"d_{name}_{side}"] = p
    state = None
    if case.state == "given":
        state = [t[s].requires_grad_() for s in STATES]
        watched |= {f"d_{s}0": v for s, v in zip(STATES, state, strict=True)}
    result = layer(t["x"], state, t.get("mask"))
    found = dict(
        zip(case.results(), result if isinstance(result, tuple) else [result], strict=True)
    )
    loss = sum((v * t[f"d_{name}"]).sum() for name, v in found.items())
    gradients = torch.autograd.grad(loss, list(watched.values()), allow_unused=True)
    for (name, p), gradient in zip(watched.items(), gradients, strict=True):
        gradient = torch.zeros_like(p) if gradient is None else gradient  # noqa: PLW2901
        found[name] = gradient.t() if "kernel" in name else gradient
    return {k: v.detach().double().cpu().numpy() for k, v in found.items()}


def truth(case: Both) -> dict[str, np.ndarray]:
    """Two runs of the float64 equations, and the merge by hand."""
    a = case.inputs()
    sides = {}
    for side in "fb":
        weights = [a[f"{n}_{side}"] for n in WEIGHTS]
        options = {
            "mask": a.get("mask"),
            "go_backwards": side == "b",
            "return_sequences": case.return_sequences,
            "zero_output_for_mask": case.return_sequences,
        }
        state = {"h0": a.get(f"h_{side}"), "c0": a.get(f"c_{side}")}
        if "first_x" in a:
            first = oracle.forward(a["first_x"], *weights, **options)
            state = {"h0": first.h, "c0": first.c}
        sides[side] = (
            weights,
            {**options, **state},
            oracle.forward(a["x"], *weights, **options, **state),
        )

    def in_time(y: np.ndarray) -> np.ndarray:
        return y[:, ::-1] if case.return_sequences else y

    f, b = sides["f"][2].output, in_time(sides["b"][2].output)
    if case.merge_mode is None:
        found = {"output_f": f, "output_b": b}
        d = {"f": a["d_output_f"], "b": a["d_output_b"]}
    else:
        dy = a["d_output"]
        merged = {
            "concat": lambda: (np.concatenate([f, b], -1), dy[..., :U], dy[..., U:]),
            "sum": lambda: (f + b, dy, dy),
            "mul": lambda: (f * b, dy * b, dy * f),
            "ave": lambda: ((f + b) / 2, dy / 2, dy / 2),
        }[case.merge_mode]()
        found, d = {"output": merged[0]}, {"f": merged[1], "b": merged[2]}
    if case.return_state:
        for side in "fb":
            found |= {f"h_{side}": sides[side][2].h, f"c_{side}": sides[side][2].c}
    d["b"] = in_time(d["b"])
    found["d_x"] = np.zeros((B, T, F))
    for side, (weights, options, _) in sides.items():
        ends = {k: a.get(f"{k}_{side}") for k in ("d_h", "d_c")}
        g = oracle.gradients(a["x"], *weights, d_output=d[side], **ends, **options)
        found["d_x"] = found["d_x"] + g.x
        for name in WEIGHTS:
            found[f"d_{name}_{side}"] = getattr(g, name)
        if case.state == "given":
            found |= {f"d_h_{side}0": g.h0, f"d_c_{side}0": g.c0}
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_float64_equals_the_equations(case: Both, device: torch.device) -> None:
    actual, expected = ours(case, torch.float64, device), truth(case)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert_parity(actual[name], value, bound=FLOAT64, what=name)


@pytest.fixture(scope="module")
def live(keras: KerasLive) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for dtype in ("float64", "float32"):
        requests = [
            {
                "keywords": c.keywords(), "merge_mode": c.merge_mode, "units": c.units(),
                "arrays": c.inputs(), "results": c.results(), "dtype": dtype,
            }
            for c in ASKED
        ]  # fmt: skip
        answers = keras.call("keras_side.run_bidirectional", requests)
        found[dtype] = {c.id: a for c, a in zip(ASKED, answers, strict=True)}
    return found


@pytest.mark.live
@pytest.mark.parametrize("case", ASKED, ids=lambda c: c.id)
def test_float64_equals_live_keras(case: Both, live: Any) -> None:
    actual, expected = ours(case, torch.float64, torch.device("cpu")), live["float64"][case.id]
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert_parity(actual[name], value, bound=FLOAT64, what=name)


@pytest.mark.live
def test_float32_errs_no_more_than_live_keras(live: Any) -> None:
    limits: dict[str, float] = {}
    for case, values in live["float64"].items():
        for name, value in values.items():
            far = error(live["float32"][case][name], value)
            limits[name] = max(limits.get(name, 0.0), far)
    for case in ASKED:
        actual = ours(case, torch.float32, torch.device("cpu"))
        for name, value in live["float64"][case.id].items():
            bound = KERAS_FACTOR * limits[name] + FLOAT32_ULPS
            what = f"{case.id} {name}"
            assert_parity(actual[name], value, bound=bound, what=what, dtype="float32")


def test_the_live_cases_meet_every_value() -> None:
    for field in dataclasses.fields(Both):
        values = {getattr(c, field.name) for c in CASES}
        assert {getattr(c, field.name) for c in ASKED} == values, field.name


# The layer itself


def test_both_directions_are_fresh_and_named_as_in_keras() -> None:
    pattern: LSTM = LSTM(F, U, name="encoder", dtype=torch.float64)
    layer = Bidirectional(pattern)
    names = [layer.forward_layer.name, layer.backward_layer.name]
    assert names == ["forward_encoder", "backward_encoder"]
    weights = [m.lstm.weight_ih_l0 for m in (pattern, layer.forward_layer, layer.backward_layer)]
    assert len({w.data_ptr() for w in weights}) == 3
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
    assert {w.dtype for w in weights} == {torch.float64}
    assert layer.count_params() == 2 * pattern.count_params()


def test_a_backward_layer_is_used_as_it_is() -> None:
    own: LSTM = LSTM(F, V, go_backwards=True, name="mine")
    layer = Bidirectional(LSTM(F, U), backward_layer=own)
    assert layer.backward_layer is own and own.name == "mine"
    assert layer(torch.zeros(B, T, F)).shape == (B, U + V)


def test_a_lazy_layer_learns_in_both_directions() -> None:
    layer = Bidirectional(LazyLSTM(U, return_sequences=True))
    assert layer(torch.zeros(B, T, F)).shape == (B, T, 2 * U)
    assert [m.input_size for m in (layer.forward_layer, layer.backward_layer)] == [F, F]


def test_zero_output_for_mask_follows_return_sequences() -> None:
    for sequences in (False, True):
        pattern = LSTM(F, U, return_sequences=sequences, zero_output_for_mask=not sequences)
        layer = Bidirectional(pattern)
        for direction in (layer.forward_layer, layer.backward_layer):
            assert direction.config.zero_output_for_mask is sequences


def test_weights_go_round_and_a_wrong_one_changes_nothing() -> None:
    layer = Bidirectional(LSTM(F, U))
    before = layer.get_weights()
    other = [w + 1 for w in before]
    layer.set_weights(other)
    assert all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), other, strict=True))
    with pytest.raises(WeightMismatch, match="the backward part"):
        layer.set_weights([*before[:3], *(w[..., :-1] for w in before[3:])])
    with pytest.raises(WeightMismatch, match="5 arrays were given, the layer has 6"):
        layer.set_weights(before[:5])
    assert all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), other, strict=True))


def test_state_is_kept_and_reset_in_both_directions() -> None:
    layer = Bidirectional(LSTM(F, U, stateful=True, return_state=True))
    x = torch.randn(B, T, F)
    _, *first = layer(x)
    _, *second = layer(x, first)
    layer.reset_state()
    layer(x)
    assert all(torch.equal(a, b) for a, b in zip(layer(x)[1:], second, strict=True))
    with pytest.raises(StateError, match="reset_state"):
        layer(x[:2])
    layer.reset_states()
    layer(x[:2])


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Bidirectional(torch.nn.LSTM(F, U)), "layer is a LSTM; pass a kerasish_lstm.LSTM"),
        (lambda: Bidirectional(LSTM(F, U), "avg"), "'avg'.*'concat', 'sum', 'mul', 'ave' and None"),
        (lambda: Bidirectional(LSTM(F, U, go_backwards=True)), "both directions have go_backwards"),
        (lambda: Bidirectional(LSTM(F, U), "sum", LSTM(F, U)), "go_backwards=False"),
        (
            lambda: Bidirectional(LSTM(F, U), "sum", LSTM(F, U, go_backwards=True, stateful=True)),
            "stateful is False in the forward layer and True in the backward",
        ),
        (lambda: Bidirectional(LSTM(F, U), name="a/b"), "without '/'"),
    ],
)
def test_what_cannot_be_built_says_why(build: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build()


def test_what_cannot_be_called_says_why() -> None:
    layer = Bidirectional(LSTM(F, U), "sum", LSTM(F, V, go_backwards=True))
    x, s = torch.zeros(B, T, F), torch.zeros(B, U)
    with pytest.raises(InputError, match=r"they have 2 and 11"):
        layer(x)
    with pytest.raises(InputError, match="with 3 entries; pass 4 tensors"):
        layer(x, [s, s, s])
    with pytest.raises(InputError, match="is a Tensor with no entries"):
        layer(x, torch.zeros(4, B, U))


def test_the_directions_are_as_the_pattern_is_now() -> None:
    pattern: LSTM = LSTM(F, U, dropout=0.5, implementation=1)
    pattern.trainable = False
    both = Bidirectional(pattern.eval())
    assert not any(p.requires_grad for p in both.parameters())
    for direction in (both.forward_layer, both.backward_layer):
        # Keras 3 copies a layer by its config, which leaves implementation out
        assert direction.config.implementation == 2 and not direction.training
    lazy = Bidirectional(LazyLSTM(U, dtype="float32").double().eval())
    assert not lazy.forward_layer.training
    assert lazy(torch.zeros(B, T, F, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("merge_mode", ["sum", "mul", "ave"])
def test_one_unit_is_broadcast_as_in_keras(merge_mode: Any) -> None:
    both = Bidirectional(LSTM(F, 1), merge_mode, LSTM(F, V, go_backwards=True))
    x = torch.rand(B, T, F)
    expected = MERGES[merge_mode](both.forward_layer(x), both.backward_layer(x))
    assert both(x).shape == (B, V) and torch.equal(both(x), expected)


def test_use_cudnn_of_the_layer_is_that_of_both_directions() -> None:
    other: LSTM = LSTM(F, U, go_backwards=True)
    for both in (
        Bidirectional(LSTM(F, U, use_cudnn=False)),
        Bidirectional(LSTM(F, U, use_cudnn=False), backward_layer=other),
    ):
        assert [d.engine for d in (both.forward_layer, both.backward_layer)] == ["scan", "scan"]
