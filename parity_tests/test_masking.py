"""Masks that layers make and hand on, beside live Keras, which does it by itself."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import pickle
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kerasish_lstm import LSTM, MERGES, Bidirectional, LSTMCell, StackedLSTM
from kerasish_lstm._masks import mask_after_rnn
from kerasish_lstm.errors import ConfigError, InputError
from kerasish_lstm.layers.masking import Masking, compute_mask, embedding_mask
from kerasish_lstm.parity import assert_parity
from kerasish_lstm.parity.bounds import FLOAT64

from .cases import MASKS, mask_of
from .keras_live import KerasLive
from .sampling import fields, sampled

B, T, F, WORDS = 5, 7, 3, 11
GIVEN = [m for m in MASKS if m != "none"]
FLOATS = ("float64", "float32", "float16", "bfloat16")
INTEGERS = ("int64", "int32", "int8", "uint8", "bool")


def seeded(name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(name.encode()))


# Masking


@dataclasses.dataclass(frozen=True)
class Value:
    """A Masking layer and an input whose masked steps hold its mask_value."""

    id: str
    mask_value: Any
    dtype: str
    layer_dtype: str | None = None

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        rng = seeded(self.id)
        d_y = rng.uniform(-1, 1, (B, T, F)).astype(np.float32).astype(np.float64)
        if self.dtype in FLOATS:
            x = rng.uniform(-2, 2, (B, T, F)).astype(np.float32).astype(np.float64)
        else:
            x = rng.randint(0, 2 if self.dtype == "bool" else 9, (B, T, F))
        value = np.asarray(self.mask_value).astype(x.dtype)
        x = np.where(mask_of("gaps", B, T, rng)[..., None], x, value)
        x[4] = value  # a row without any step
        x[0, 1, 2] = np.broadcast_to(value, (T, F))[1, 2]  # one feature alone
        if self.dtype in FLOATS:
            x[1, 2], x[1, 3, 0], x[2, 1, 0], x[3, 4] = np.nan, np.nan, np.inf, -0.0
        return x, d_y

    def request(self) -> dict[str, Any]:
        own = self.dtype if self.dtype in FLOATS else "float32"
        x, d_y = self.arrays()
        given = {"mask_value": self.mask_value, "dtype": self.dtype, "x": x, "d_y": d_y}
        return {**given, "layer_dtype": self.layer_dtype or own}


NUMBERS = {
    "zero": 0.0, "minus_one": -1.0, "tenth": 0.1, "tenth64": np.float64(0.1), "inf": np.inf,
    "nan": np.nan, "three": 3, "true": True, "too_large": 100000, "half16": np.float16(0.1),
    "list": [0.5, -1.0, 0.1], "integers": (1, 2, 3), "array": np.array([0.5, -1.0, 0.1]),
    "matrix": np.arange(T * F, dtype=np.float32).reshape(T, F),
}  # fmt: skip
WHOLE = {"zero": 0.0, "three": 3, "true": True, "tenth": 0.1, "minus": -1, "integers": [1, 2, 3]}
VALUES = [
    *(Value(f"{n}-{d}", v, d) for (n, v), d in itertools.product(NUMBERS.items(), FLOATS)),
    *(Value(f"{n}-{d}", v, d) for (n, v), d in itertools.product(WHOLE.items(), INTEGERS)),
    *(
        Value(f"tenth-{given}-as-{own}", 0.1, given, own)
        for given, own in itertools.permutations(FLOATS, 2)
    ),
    Value("three-int32-as-float16", 3, "int32", "float16"),
]


@pytest.fixture(scope="module")
def masked(keras: KerasLive) -> dict[str, dict[str, Any]]:
    answers = keras.call("masking_side.run_masking", [v.request() for v in VALUES])
    return {v.id: a for v, a in zip(VALUES, answers, strict=True)}


@pytest.mark.live
@pytest.mark.parametrize("case", VALUES, ids=lambda v: v.id)
def test_masking_equals_live_keras(case: Value, masked: Any) -> None:
    expected = masked[case.id]
    array, d_y = case.arrays()
    x = torch.tensor(array).to(getattr(torch, case.dtype))
    x.requires_grad_(case.dtype in FLOATS)
    own = None if case.layer_dtype is None else getattr(torch, case.layer_dtype)
    y, mask = Masking(case.mask_value, dtype=own)(x)
    assert str(y.dtype) == f"torch.{expected['dtype']}"
    assert mask.dtype == torch.bool
    assert np.array_equal(mask.numpy(), expected["mask"])
    assert np.array_equal(mask.numpy(), expected["compute_mask"])
    assert_parity(y.double(), expected["y"], bound=0.0)
    if "d_x" in expected:
        (slope,) = torch.autograd.grad((y.double() * torch.tensor(d_y)).sum(), x)
        assert_parity(slope.double(), expected["d_x"], bound=0.0)
        assert not slope[~mask].any()


@pytest.mark.live
def test_a_value_with_a_fraction_masks_nothing_of_another_width(masked: Any) -> None:
    """Keras makes a float32 of it and compares in the wider dtype."""
    some = {i: not a["mask"][4].any() for i, a in masked.items()}
    assert [some[f"tenth-{d}"] for d in FLOATS] == [False, True, False, False]
    assert [some[f"tenth64-{d}"] for d in FLOATS] == [True, False, False, False]
    assert [some[f"minus_one-{d}"] for d in FLOATS] == [True] * 4
    assert some["tenth-float64-as-float32"] and not some["tenth-float64-as-float16"]


@pytest.mark.live
@pytest.mark.parametrize(
    ("value", "dtype"), [(0.1, "float64"), (0.1, "float16"), (np.inf, "float32")]
)
def test_keras_2_compared_in_the_dtype_of_x_and_multiplied(
    value: float, dtype: str, tf_keras: KerasLive
) -> None:
    mask, step = tf_keras.call("masking_side.changed_since_keras_2", value, dtype)
    assert mask == [False]
    assert np.isnan(step).all() == np.isinf(value)
    here, counts = Masking(value)(torch.full((1, 1, 3), value, dtype=getattr(torch, dtype)))
    assert bool(counts) == (value == 0.1) and here.isfinite().all()


@pytest.mark.live
def test_integers_meet_a_float_in_float32(keras: KerasLive) -> None:
    x = np.array([[[2**24 + 1], [2**24], [2**24 - 1]]])
    for value in (2.0**24, 2**24):
        request = {"mask_value": value, "x": x, "dtype": "int64", "d_y": np.zeros(x.shape)}
        (found,) = keras.call("masking_side.run_masking", [{**request, "layer_dtype": "float32"}])
        _, mask = Masking(value)(torch.tensor(x))
        assert np.array_equal(mask.numpy(), found["mask"])
        assert mask.tolist() == [[isinstance(value, int), False, True]]


@pytest.mark.live
def test_configs_go_to_keras_and_back(keras: KerasLive) -> None:
    values = [0.0, -1.5, 3, True, [0.5, -1.0, 2.0], np.array([0.5, -1.0, 2.0]), np.float32(0.5)]
    x = np.array([[[0.0] * 3, [-1.5] * 3, [3.0] * 3, [1.0] * 3, [0.5, -1.0, 2.0], [0.5] * 3]])
    expected = [Masking(v)(torch.tensor(x))[1].numpy() for v in values]
    assert all((~m).sum() == 1 for m in expected)
    theirs = keras.call("masking_side.masking_configs", values)
    ours = []
    for config, mask in zip(theirs, expected, strict=True):
        for way in (config["live"], config["file"], json.loads(json.dumps(config["file"]))):
            layer = Masking.from_config(way)
            assert (layer.name, layer.dtype) == ("skip", torch.float64)
            assert np.array_equal(layer(torch.tensor(x))[1].numpy(), mask)
        ours.append(layer.get_config())
        again = Masking.from_config(layer.get_config())
        assert np.array_equal(again(torch.tensor(x))[1].numpy(), mask)
    back = keras.call("masking_side.masks_of_configs", ours, x)
    assert all(np.array_equal(a, b) for a, b in zip(back, expected, strict=True))


def test_configs_of_other_keras_are_read() -> None:
    layer = Masking.from_config(
        {"name": "masking", "trainable": True, "dtype": "mixed_bfloat16", "mask_value": -1.0,
         "batch_input_shape": [None, 7, 3]}
    )  # fmt: skip
    assert (layer.mask_value, layer.dtype, layer.name) == (-1.0, torch.bfloat16, "masking")
    assert layer.get_config() == {"name": "masking", "dtype": "bfloat16", "mask_value": -1.0}
    assert Masking.from_config({}).get_config() == {"mask_value": 0.0}
    assert repr(layer) == "Masking(mask_value=-1.0, dtype=torch.bfloat16, name='masking')"


def test_a_tensor_is_a_value_too_and_stays_as_it_was() -> None:
    value = nn.Parameter(torch.tensor([0.5, -1.0, 0.1], dtype=torch.bfloat16))
    layer = Masking(value)
    x = value.detach().expand(1, 2, 3).clone()
    value.detach().zero_()
    assert not layer(x)[1].any() and not list(layer.parameters())
    assert Masking.from_config(layer.get_config())(x)[1].tolist() == [[False, False]]


def test_masking_has_no_weights_and_no_dtype_of_its_own() -> None:
    before = Masking([0.1, 0.2])
    x = torch.tensor([[[0.1, 0.2], [0.1, 0.1]]])
    torch.set_default_dtype(torch.float64)
    try:
        under_float64 = Masking([0.1, 0.2])
    finally:
        torch.set_default_dtype(torch.float32)
    copies = [copy.deepcopy(before), pickle.loads(pickle.dumps(before)), Masking([0.1, 0.2]).half()]
    compiled = torch.compile(Masking([0.1, 0.2]), backend="eager", fullgraph=True)
    exported = torch.export.export(before, (x,)).module()
    for layer in (before, under_float64, *copies, compiled, exported):
        assert layer(x)[1].tolist() == [[False, True]]
    assert not before.state_dict() and not list(before.parameters())
    assert Masking()(x.to("meta"))[1].shape == (1, 2)


def test_masking_runs_on_every_device(device: torch.device) -> None:
    x, _ = Value("list-device", [0.5, -1.0, 0.1], "float32").arrays()
    tensor = torch.tensor(x, dtype=torch.float32)
    for value in (0.0, [0.5, -1.0, 0.1]):
        here, there = Masking(value)(tensor), Masking(value)(tensor.to(device))
        for a, b in zip(here, there, strict=True):
            assert b.device.type == device.type
            assert torch.equal(a.nan_to_num(7.0), b.cpu().nan_to_num(7.0))


def test_masking_keeps_more_axes_and_empty_ones() -> None:
    y, mask = Masking()(torch.ones(2, 3, 5, 7))
    assert y.shape == (2, 3, 5, 7) and mask.shape == (2, 3, 5) and mask.all()
    for shape in ((0, 3, 2), (2, 0, 2), (2, 3, 0)):
        y, mask = Masking()(torch.ones(shape))
        assert y.shape == shape and mask.shape == shape[:2] and not mask.any()


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: Masking(None), ConfigError, "mask_value=None is not possible; pass a real number"),
        (lambda: Masking("0"), ConfigError, "mask_value='0' is not possible"),
        (lambda: Masking(1j), ConfigError, "mask_value=1j is not possible"),
        (lambda: Masking(2**70), ConfigError, "is not possible"),
        (lambda: Masking([[1], [2, 3]]), ConfigError, "is not possible"),
        (lambda: Masking(torch.ones(3) * 1j), ConfigError, "complex64; pass real numbers"),
        (lambda: Masking({"value": 3}), ConfigError, "'value': 3} is not possible"),
        (lambda: Masking({"config": {"value": 3, "dtype": "nn"}}), ConfigError, "is not possible"),
        (lambda: Masking({"config": {"value": "x", "dtype": "int8"}}), ConfigError, "is not pos"),
        (lambda: Masking(dtype=torch.int32), ConfigError, "torch.int32 is not a floating-point"),
        (lambda: Masking(name="a/b"), ConfigError, "without '/'"),
        (lambda: Masking.from_config({"value": 3}), ConfigError, "unknown entry 'value'; known"),
        (lambda: Masking.from_config({"dtype": "float99"}), ConfigError, "'float99' is not a"),
        (lambda: Masking()([1]), InputError, "the input is a list; pass a real torch.Tensor"),
        (lambda: Masking()(torch.ones(2, 3, 4) * 1j), InputError, "is a torch.complex64"),
        (lambda: Masking()(torch.ones(2, 3)), InputError, r"shape \(2, 3\).*embedding_mask"),
        (lambda: Masking([1, 2])(torch.ones(2, 3, 4)), InputError, "each of the 4 features"),
        (lambda: Masking([1, 2])(torch.ones(2, 3, 1)), InputError, "each of the 1 features"),
        (lambda: Masking(np.ones((3, 1, 4)))(torch.ones(2, 3, 4)), InputError, r"\(3, 1, 4\)"),
        (lambda: embedding_mask([1]), InputError, "the ids are a list"),
        (lambda: compute_mask(LSTM(F, 2), None, propagation="x"), ConfigError,
         "'x' is not possible; allowed are 'keras_3.15', 'keras_3.16'"),
        (lambda: compute_mask(nn.Linear(2, 3), None), ConfigError, "a Linear has no rule.*itself"),
        (lambda: compute_mask(LSTM(F, 2), [[True]]), InputError, "the mask is a list"),
        (lambda: compute_mask(LSTM(F, 2), np.ones((2, 3))), InputError, "the mask is a ndarray"),
    ],
)  # fmt: skip
def test_what_is_refused_says_why(call: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        call()


# Embedding


@pytest.mark.live
def test_keras_trains_row_0_and_padding_idx_does_not(keras: KerasLive) -> None:
    table = seeded("table").uniform(-1, 1, (WORDS, F))
    ids = np.array([[3, 0, 5], [0, 0, 7]])
    found = keras.call("masking_side.train_embedding", table, ids, 0.25)
    assert found["fresh"][0].any()
    trained = {}
    for padding in (None, 0):
        layer = nn.Embedding(WORDS, F, padding_idx=padding, dtype=torch.float64)
        assert bool(layer.weight[0].any()) == (padding is None)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(table))
        y = layer(torch.tensor(ids))
        assert_parity(y, found["y"], bound=0.0)
        rule = torch.optim.SGD(layer.parameters(), lr=0.25)
        y.sum().backward()
        rule.step()
        trained[padding] = layer.weight.detach()
    assert np.array_equal(embedding_mask(torch.tensor(ids)).numpy(), found["mask"])
    assert_parity(trained[None], found["trained"], bound=FLOAT64)
    assert_parity(trained[0][1:], found["trained"][1:], bound=FLOAT64)
    assert np.allclose(found["trained"][0], table[0] - 0.25 * 3)
    assert np.array_equal(trained[0][0], table[0])


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.float32])
def test_every_id_but_0_counts(dtype: torch.dtype) -> None:
    ids = torch.tensor([[3, 0, 5], [0, 0, 7]], dtype=dtype)
    assert embedding_mask(ids).tolist() == [[True, False, True], [False, False, True]]


# Stacks: what Keras does by itself, step by step

Stack = list[tuple[str, dict[str, Any]]]
RECURRENT: Stack = [
    ("LSTM", {"units": 5, "return_sequences": True}),
    ("Bidirectional", {"units": 2, "return_sequences": True}),
    ("LSTM", {"units": 7}),
]
BACKWARDS: Stack = [
    ("LSTM", {"units": 5, "return_sequences": True, "go_backwards": True}),
    ("LSTM", {"units": 7}),
]
SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "embedding": ("Embedding", {"input_dim": WORDS, "output_dim": F, "mask_zero": True}),
    "masking": ("Masking", {"mask_value": -1.0}),
}


def weights_of(stack: Stack, rng: np.random.RandomState) -> list[list[np.ndarray]]:
    found, features = [], F
    for kind, keywords in stack:
        if kind == "Embedding":
            found.append([rng.uniform(-2, 2, (WORDS, F))])
        elif kind != "Masking":
            u, sides = keywords["units"], 2 if kind == "Bidirectional" else 1
            shapes = ((features, 4 * u), (u, 4 * u), (4 * u,)) * sides
            found.append([rng.uniform(-1, 1, shape) / np.sqrt(u) for shape in shapes])
            features = sides * u
    return found


def module_of(kind: str, keywords: dict[str, Any], features: int) -> Any:
    options: dict[str, Any] = {**keywords, "dtype": torch.float64}
    if kind == "Embedding":
        return nn.Embedding(WORDS, F, dtype=torch.float64)
    if kind == "Masking":
        return Masking(**keywords)
    if kind == "LSTM":
        return LSTM(features, options.pop("units"), **options)
    merge = options.pop("merge_mode", "concat")
    return Bidirectional(LSTM(features, options.pop("units"), **options), merge)


@dataclasses.dataclass(frozen=True)
class Chain:
    """A source of masks and the recurrent layers behind it."""

    source: str
    mask: str
    stack: str = "recurrent"

    @property
    def id(self) -> str:
        return f"{self.source}-{self.mask}-{self.stack}"

    def layers(self) -> Stack:
        behind = RECURRENT if self.stack == "recurrent" else BACKWARDS
        return [SOURCES[self.source], *behind]

    def arrays(self) -> tuple[np.ndarray, list[list[np.ndarray]], np.ndarray]:
        rng = seeded(self.id)
        mask = mask_of(self.mask, B, T, rng)
        if self.source == "embedding":
            x = np.where(mask, rng.randint(1, WORDS, (B, T)), 0)
        else:
            x = np.where(mask[..., None], rng.uniform(-1, 1, (B, T, F)), -1.0)
        return x, weights_of(self.layers(), rng), rng.uniform(-1, 1, (B, 7))

    def request(self, *, stopped: bool) -> list[Any]:
        layers = self.layers()
        if stopped:
            layers.insert(2, ("Stop", {}))
        x, weights, d_output = self.arrays()
        return [layers, weights, x, d_output]


CHAINS = [Chain(s, m) for s in SOURCES for m in GIVEN]
TURNED = [Chain("masking", m, "backwards") for m in GIVEN]


def run_chain(
    chain: Chain, propagation: Any = "keras_3.15", *, flip: bool = False
) -> dict[str, Any]:
    """The stack by hand; ``flip`` turns each mask that is handed on."""
    array, weights, d_output = chain.arrays()
    x = torch.tensor(array)
    first, *behind = chain.layers()
    source = module_of(*first, F)
    parameters: list[list[Tensor]] = []
    if isinstance(source, Masking):
        y, mask = source(x.requires_grad_())
    else:
        (table,) = weights.pop(0)
        with torch.no_grad():
            source.weight.copy_(torch.tensor(table))
        y, mask = source(x), embedding_mask(x)
        parameters.append([source.weight])
    masks: list[Tensor | None] = [mask]
    for (kind, keywords), arrays in zip(behind, weights, strict=True):
        layer = module_of(kind, keywords, y.shape[-1])
        layer.set_weights(arrays)
        y = layer(y, mask=masks[-1])
        mask = compute_mask(layer, masks[-1], propagation=propagation)
        masks.append(mask.flip(1) if flip and mask is not None else mask)
        parameters.append(list(layer.parameters()))
    flat = [p for row in parameters for p in row] + ([x] if x.requires_grad else [])
    gradients = iter(torch.autograd.grad((y * torch.tensor(d_output)).sum(), flat))
    found: dict[str, Any] = {"output": y.detach().numpy(), "masks": masks}
    found["d_weights"] = [[next(gradients).numpy() for _ in row] for row in parameters]
    for row in found["d_weights"]:
        if len(row) > 1:  # a layer's kernels, which torch has transposed
            row[:] = [g.T for g in row]
    if x.requires_grad:
        found["d_x"] = next(gradients).numpy()
    return found


@pytest.fixture(scope="module")
def stacked(keras: KerasLive) -> dict[tuple[str, bool], dict[str, Any]]:
    wanted = [(c, s) for c in CHAINS for s in (False, True)] + [(c, False) for c in TURNED]
    return {
        (c.id, s): keras.call("masking_side.run_stack", *c.request(stopped=s)) for c, s in wanted
    }


def assert_same(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    assert_parity(actual["output"], expected["output"], bound=FLOAT64)
    assert ("d_x" in actual) == ("d_x" in expected)
    if "d_x" in expected:
        assert_parity(actual["d_x"], expected["d_x"], bound=FLOAT64, what="d_x")
    for n, rows in enumerate(zip(actual["d_weights"], expected["d_weights"], strict=True)):
        for m, (mine, theirs) in enumerate(zip(*rows, strict=True)):
            assert theirs.any()
            assert_parity(mine, theirs, bound=FLOAT64, what=f"gradient {m} of layer {n}")


@pytest.mark.live
@pytest.mark.parametrize("chain", [*CHAINS, *TURNED], ids=lambda c: c.id)
def test_masks_handed_on_by_hand_are_those_of_keras(chain: Chain, stacked: Any) -> None:
    actual, expected = run_chain(chain), stacked[chain.id, False]
    assert_same(actual, expected)
    for mine, theirs in zip(actual["masks"], expected["masks"], strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or np.array_equal(mine.numpy(), theirs)
    if chain.source == "embedding":
        assert not actual["d_weights"][0][0][0].any()  # row 0, which no layer takes in


@pytest.mark.live
@pytest.mark.parametrize("chain", CHAINS, ids=lambda c: c.id)
def test_masks_that_end_at_the_first_layer_are_those_of_later_keras(
    chain: Chain, stacked: Any
) -> None:
    actual, expected = run_chain(chain, "keras_3.16"), stacked[chain.id, True]
    assert_same(actual, expected)
    assert actual["masks"][1:] == [None] * 3 and expected["masks"][2:] == [None] * 3
    far = np.abs(expected["output"] - stacked[chain.id, False]["output"]).max()
    assert far > 1e-4 if chain.mask != "full" else far == 0.0


@pytest.mark.live
@pytest.mark.parametrize("chain", TURNED, ids=lambda c: c.id)
def test_the_mask_of_a_backward_layer_is_not_turned(chain: Chain, stacked: Any) -> None:
    far = np.abs(run_chain(chain, flip=True)["output"] - stacked[chain.id, False]["output"]).max()
    assert far > 1e-4 if chain.mask != "full" else far < FLOAT64


def test_a_turned_mask_fits_the_sequence_of_a_backward_layer() -> None:
    """What the docstring advises: as if the steps themselves had been turned around."""
    chain = Chain("masking", "gaps", "backwards")
    turned = run_chain(chain, flip=True)["output"]
    (x, weights, _), (_, *behind) = chain.arrays(), chain.layers()
    y, mask = Masking(-1.0)(torch.tensor(x).flip(1))
    for (kind, keywords), arrays in zip(behind, weights, strict=True):
        layer = module_of(kind, {**keywords, "go_backwards": False}, y.shape[-1])
        layer.set_weights(arrays)
        y = layer(y, mask=mask)
    assert_parity(y, turned, bound=FLOAT64)


# compute_mask

GAPS = torch.tensor(mask_of("gaps", B, T, seeded("gaps")))


@dataclasses.dataclass(frozen=True)
class Leaving:
    """A layer of one set of flags, and the mask that it is called with."""

    kind: str
    return_sequences: bool
    return_state: bool
    stateful: bool = False
    go_backwards: bool = False
    merge_mode: str | None = "concat"
    masked: bool = True
    cells: int | tuple[int, ...] = 2

    @property
    def id(self) -> str:
        flags = [f.name for f in dataclasses.fields(self) if getattr(self, f.name) is True]
        return "-".join([self.kind, str(self.merge_mode), str(self.cells), *flags])

    def keywords(self) -> dict[str, Any]:
        fields = ["return_sequences", "return_state"]
        fields += ["merge_mode"] if self.kind == "Bidirectional" else ["go_backwards"]
        fields += ["stateful"] if self.kind != "StackedLSTM" else []
        units = self.cells if self.kind == "StackedLSTM" else 2
        return {"units": units, **{f: getattr(self, f) for f in fields}}

    @property
    def crashes(self) -> bool:
        """On every call of Keras."""
        return self.kind == "Bidirectional" and self.stateful and self.return_state

    def request(self) -> dict[str, Any]:
        mask = GAPS.numpy() if self.masked else None
        given = {"kind": self.kind, "keywords": self.keywords()}
        return {**given, "shape": (B, T, F), "mask": mask}

    def found(self, mask: Tensor | None, propagation: Any = "keras_3.15") -> Any:
        if self.kind == "StackedLSTM":
            return mask_after_rnn(self, mask, 2 if isinstance(self.cells, int) else len(self.cells))
        layer = module_of(self.kind, self.keywords(), F)
        return compute_mask(layer, mask, propagation=propagation)


FLAGS = list(itertools.product((False, True), repeat=2))
LEAVING = [
    *(
        Leaving("LSTM", *flags, stateful, backwards, masked=masked)
        for flags in FLAGS
        for stateful, backwards, masked in itertools.product((False, True), repeat=3)
    ),
    *(
        Leaving("Bidirectional", *flags, stateful, merge_mode=merge, masked=masked)
        for flags in FLAGS
        for stateful, masked in itertools.product((False, True), repeat=2)
        for merge in (*MERGES, None)
    ),
    *(
        Leaving("StackedLSTM", *flags, masked=masked, cells=cells)
        for flags in FLAGS
        for masked in (False, True)
        for cells in (2, (2, 3), (2, 3, 5))
    ),
]


def kinds(case: Leaving) -> str:
    """Each value of each field with each kind of layer."""
    return "-".join(f"{case.kind}.{part}" for part in fields(case).split("-"))


ASKED = sampled(LEAVING, 1 / 3, kinds)


@pytest.fixture(scope="module")
def leaving(keras: KerasLive) -> dict[str, Any]:
    cases = [*ASKED, *(dataclasses.replace(c, stateful=False) for c in ASKED if c.crashes)]
    answers = keras.call("masking_side.run_masks", [c.request() for c in cases])
    return {c.id: a for c, a in zip(cases, answers, strict=True)}


def as_arrays(masks: Any) -> Any:
    if isinstance(masks, list | tuple):
        return type(masks)(as_arrays(m) for m in masks)
    return None if masks is None else masks.numpy()


def same(a: Any, b: Any) -> bool:
    """Whether two answers are one: forms, Nones and arrays."""
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a is None or np.array_equal(a, b))


@pytest.mark.live
@pytest.mark.parametrize("case", ASKED, ids=lambda c: c.id)
def test_compute_mask_equals_that_of_the_live_layer(case: Leaving, leaving: Any) -> None:
    found = as_arrays(case.found(GAPS if case.masked else None))
    expected = leaving[case.id]
    if case.crashes:
        assert expected == {"error": "TypeError"}
        expected = leaving[dataclasses.replace(case, stateful=False).id]
    assert same(found, expected["compute_mask"])
    hanging = list(found) if isinstance(found, list | tuple) else [found]
    hanging += [None] * (len(expected["hanging"]) - len(hanging))
    assert same(hanging, expected["hanging"])


def test_the_live_cases_meet_every_value_with_every_kind_of_layer() -> None:
    for kind in {c.kind for c in LEAVING}:
        every, asked = ([c for c in cases if c.kind == kind] for cases in (LEAVING, ASKED))
        for field in dataclasses.fields(Leaving):
            values = {getattr(c, field.name) for c in every}
            assert {getattr(c, field.name) for c in asked} == values, (kind, field.name)
    assert any(c.crashes for c in ASKED)


@pytest.mark.parametrize(
    "case", [c for c in LEAVING if c.masked and c.kind != "StackedLSTM"], ids=lambda c: c.id
)
def test_later_keras_hands_nothing_on_in_the_same_form(case: Leaving) -> None:
    assert same(case.found(GAPS, "keras_3.16"), case.found(None))


def test_a_new_layer_brings_its_rule() -> None:
    class Plain(nn.Module):
        """A layer that is no other."""

    class Turned(Plain):
        def output_mask(self, mask: Tensor | None) -> Tensor | None:
            return mask

    with pytest.raises(ConfigError, match="a Plain has no rule; LSTM, Bidirectional, StackedLSTM"):
        compute_mask(Plain(), GAPS)
    assert compute_mask(Turned(), GAPS) is GAPS
    assert compute_mask(Turned(), GAPS, propagation="keras_3.16") is None


def test_compute_mask_can_be_compiled() -> None:
    layer = LSTM(F, 2, return_sequences=True)
    compiled = torch.compile(lambda m: compute_mask(layer, m), backend="eager", fullgraph=True)
    assert torch.equal(compiled(GAPS), GAPS)


def test_the_mask_handed_on_is_the_mask_itself() -> None:
    layer = LSTM(F, 2, return_sequences=True)
    assert compute_mask(layer, GAPS) is GAPS
    assert compute_mask(layer, [GAPS, None]) is GAPS and compute_mask(layer, [None]) is None
    both = compute_mask(Bidirectional(layer, None), GAPS)
    assert both[0] is GAPS and both[1] is GAPS


@pytest.mark.live
def test_keras_hands_the_mask_of_time_distributed_on_as_it_is(keras: KerasLive) -> None:
    """Even where the layer inside has removed the axis that the mask tells of."""
    flat, deep = mask_of("gaps", B, T, seeded("flat")), seeded("deep").uniform(size=(B, T, 2)) < 0.5
    wanted = [
        ("Dense", (B, T, F), flat, {}), ("LSTM", (B, T, 2, F), deep, {"return_sequences": True}),
        ("LSTM", (B, T, 2, F), deep, {}), ("LSTM", (B, T, 2, F), flat, {}),
    ]  # fmt: skip
    requests = [
        {"kind": f"TimeDistributed {k}", "keywords": {"units": 2, **o}, "shape": s, "mask": m}
        for k, s, m, o in wanted
    ]
    *kept, refused = keras.call("masking_side.run_masks", requests)
    for (_, _, mask, _), answer in zip(wanted, kept, strict=False):
        assert same(answer["compute_mask"], mask) and same(answer["hanging"], [mask])
    assert refused == {"error": "IndexError"}


def test_the_mask_that_leaves_a_stack() -> None:
    """Of layers that of the last, of cells as of Keras's RNN: with each state None beside it."""
    mask = torch.tensor([[True, False, True]])
    chain = StackedLSTM([LSTM(3, 2, return_sequences=True), LSTM(2, 4, return_sequences=True)])
    assert torch.equal(compute_mask(chain, mask), mask)
    last = StackedLSTM([LSTM(3, 2, return_sequences=True), LSTM(2, 4)])
    assert compute_mask(last, mask) is None
    states = StackedLSTM([LSTM(3, 2, return_sequences=True), LSTM(2, 4, return_state=True)])
    assert compute_mask(states, mask) == [None] * 3
    options = {"return_sequences": True, "return_state": True}
    cells = StackedLSTM([LSTMCell(3, 2), LSTMCell(2, 4)], **options)
    leaving = compute_mask(cells, mask)
    assert torch.equal(leaving[0], mask) and leaving[1:] == [None] * 2
    one = compute_mask(StackedLSTM(LSTMCell(3, 2), **options), mask)
    assert torch.equal(one[0], mask) and one[1:] == [None] * 2
