"""Regularizers: names, dicts both ways, penalties and gradients of live Keras, errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm import regularizers
from kerasish_lstm.errors import ConfigError, InputError
from kerasish_lstm.parity import assert_parity
from kerasish_lstm.regularizers import L1, L1L2, L2, REGULARIZERS, OrthogonalRegularizer, get

from .keras_live import KerasLive

pytestmark = pytest.mark.smoke

Made = tuple[str, dict[str, Any]]
KERNEL = (3, 44)
DTYPES = ("float64", "float32")

OBJECTS: list[Made] = [
    ("L1", {}),
    ("L1", {"l1": 0.3}),
    ("L1", {"l1": None}),
    ("L2", {}),
    ("L2", {"l2": 0.3}),
    ("L2", {"l2": 0}),
    ("L1L2", {}),
    ("L1L2", {"l1": 0.1}),
    ("L1L2", {"l2": 0.2}),
    ("L1L2", {"l1": 0.1, "l2": 0.2}),
    ("OrthogonalRegularizer", {}),
    ("OrthogonalRegularizer", {"factor": 0.3, "mode": "columns"}),
]


def make(made: Made) -> Any:
    name, arguments = made
    return getattr(regularizers, name)(**arguments)


def weight(shape: tuple[int, ...] = KERNEL) -> np.ndarray:
    """Random, with exact zeros among the values; a row and a column of zeros in a matrix."""
    w = np.random.RandomState(7).uniform(-0.5, 0.5, shape)
    w[..., 1] = 0
    if len(shape) == 2:
        w[1] = 0
    return w


def penalty(made: Made, w: np.ndarray, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The penalty and its gradient."""
    x = torch.tensor(w, dtype=dtype, requires_grad=True)
    found = make(made)(x)
    assert found.shape == () and found.dtype == dtype
    if not found.requires_grad:  # no term at all
        return found, torch.zeros_like(x)
    return found, torch.autograd.grad(found, x)[0]


@pytest.mark.live
def test_every_name_of_keras_is_its_class_here(keras: KerasLive) -> None:
    names = keras.call("objects_side.names", "regularizers")
    refused = {"Regularizer", "regularizer"}
    assert {name for name in names if name not in REGULARIZERS} == refused
    for name in set(names) - refused:
        assert type(get(name)).__name__ == names[name]
        assert type(get({"class_name": name, "config": {}})).__name__ == names[name]
        assert get(name) == get(names[name])


@pytest.mark.live
def test_dicts_equal_keras_both_ways(keras: KerasLive) -> None:
    theirs = keras.call("objects_side.serialized", "keras", "regularizers", OBJECTS)
    ours = [regularizers.serialize(make(made)) for made in OBJECTS]
    assert ours == theirs
    assert [get(d) for d in theirs] == [make(made) for made in OBJECTS]
    back = keras.call("objects_side.read_back", "regularizers", ours)
    assert back == [(d["class_name"], d["config"]) for d in theirs]


@pytest.mark.live
def test_dicts_of_tf_keras_are_read(tf_keras: KerasLive) -> None:
    theirs = tf_keras.call("objects_side.serialized", "tf_keras", "regularizers", OBJECTS)
    found = [get(d) for d in theirs]
    for read, made in zip(found, OBJECTS * 2, strict=True):
        assert type(read).__name__ == made[0]
        for key, value in make(made).get_config().items():  # tf_keras rounds factors to float32
            exact = value if isinstance(value, str) else pytest.approx(value, rel=1e-7)
            assert read.get_config()[key] == exact


@pytest.mark.live
def test_live_objects_of_keras_are_taken(keras: KerasLive) -> None:
    found = keras.call("objects_side.taken_alive", "regularizers", [("L1L2", {"l1": 0.5})])
    assert found == ["L1L2(l1=0.5, l2=0.0)"] * 2


def test_l1_l2_is_what_keras_2_has_and_keras_3_documents() -> None:
    assert get("l1_l2") == L1L2(0.01, 0.01)
    assert get("l1l2") == get("L1L2") == L1L2(0.0, 0.0)
    assert get({"class_name": "L1L2", "config": {"l1": 0.5, "l2": None}}) == L1L2(0.5)


@pytest.mark.parametrize("name", ["WeightRegularizer", "L1L2Regularizer", "ActivityRegularizer"])
def test_dicts_of_keras_1_are_read(name: str) -> None:
    assert get({"name": name, "l1": 0.25, "l2": 0.5}) == L1L2(0.25, 0.5)


def test_none_and_callables_stay_what_they_are() -> None:
    assert get(None) is None
    assert get(torch.sum) is torch.sum
    with pytest.raises(ConfigError, match=r"bias_regularizer=.*torch code of your own"):
        regularizers.serialize(torch.sum, "bias_regularizer")


@pytest.mark.live
@pytest.mark.parametrize("made", OBJECTS, ids=str)
def test_penalties_and_gradients_are_keras(made: Made, keras: KerasLive) -> None:
    shapes = [KERNEL, (44, 3)] + ([] if "Orth" in made[0] else [(12,), (2, 3, 5)])
    cases = [
        (weight(shape) * size, dtype) for shape in shapes for size in (1, 1e-9) for dtype in DTYPES
    ]
    answers = keras.call("objects_side.penalties", [(made, w, d) for w, d in cases])
    for (w, dtype), answer in zip(cases, answers, strict=True):
        found, slope = penalty(made, w, getattr(torch, dtype))
        if dtype == "float64" and made[0] == "OrthogonalRegularizer":
            assert answer == "InvalidArgumentError"  # Keras multiplies it by a float32 tensor
            continue
        expected, gradient = answer
        bound = 1e-14 if dtype == "float64" else 16 * float(np.finfo(np.float32).eps)
        for mine, theirs in ((found, expected), (slope, gradient)):
            scale = float(np.abs(theirs).max()) or 1.0
            assert_parity(mine, theirs, bound=bound, scale=scale, what=f"{w.shape} {dtype}")


@pytest.mark.parametrize("mode", ["rows", "columns"])
def test_orthogonal_is_the_mean_cosine_in_float64(mode: str) -> None:
    w = np.random.RandomState(3).uniform(-1, 1, (5, 7))
    vectors = w if mode == "rows" else w.T
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = np.abs(unit @ unit.T)[np.triu_indices(len(unit), 1)]
    found, _ = penalty(("OrthogonalRegularizer", {"factor": 0.25, "mode": mode}), w, torch.float64)
    assert float(found.detach()) == pytest.approx(0.25 * cosines.mean(), rel=1e-14)


def test_orthogonal_leaves_a_zero_vector_alone() -> None:
    _, slope = penalty(("OrthogonalRegularizer", {}), weight(), torch.float64)
    assert torch.isfinite(slope).all() and not slope[1].any() and slope[0].any()
    alone, _ = penalty(("OrthogonalRegularizer", {}), weight()[:1], torch.float32)
    assert math.isnan(float(alone.detach()))  # no pair: 0 / 0, as in Keras


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("made", OBJECTS, ids=str)
def test_16_bit_weights_have_penalties_of_their_dtype(made: Made, dtype: torch.dtype) -> None:
    w = weight().astype(np.float16).astype(np.float64)
    found, slope = penalty(made, w, dtype)
    expected, gradient = penalty(made, torch.tensor(w, dtype=dtype).double().numpy(), torch.float64)
    bound = 4 * torch.finfo(dtype).eps
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=bound, abs=1e-6)
    assert_parity(slope, gradient, bound=bound)


def test_autocast_changes_no_penalty() -> None:
    x = torch.tensor(weight(), dtype=torch.float32)
    for made in OBJECTS:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = make(made)(x)
        assert torch.equal(found, make(made)(x))


ERRORS: dict[str, tuple[Callable[[], Any], str]] = {
    "misspelt": (lambda: get("l1_l3", "k"), r"k='l1_l3' is not a regularizer \(did you mean 'l"),
    "unknown": (lambda: get("xyz"), r"Known are L1, L1L2, L2, Orth.*callable\(tensor\)"),
    "base": (lambda: get("regularizer"), "base class, which has no penalty"),
    "entry": (
        lambda: get({"class_name": "L2", "config": {"l_2": 1}}),
        r"'l_2' \(did you mean 'l2'",
    ),
    "negative": (lambda: L1(-1), "L1: l1=-1 is not a finite number of at least 0"),
    "infinite": (lambda: L2(math.inf), "l2=inf is not a finite number"),
    "text": (lambda: L1L2("1"), "l1='1' is not a number"),  # type: ignore[arg-type]
    "factor": (lambda: OrthogonalRegularizer(None), "factor=None is not a number"),  # type: ignore[arg-type]
    "mode": (lambda: OrthogonalRegularizer(mode="ROWS"), "mode='ROWS' is not one of 'rows'"),
    "author": (lambda: get({"module": "own", "class_name": "L2", "config": {}}), "model's author"),
    "other_room": (
        lambda: get(__import__("kerasish_lstm.constraints").constraints.NonNeg()),
        r"NonNeg\(\) is not a regularizer",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_says_so(case: str) -> None:
    call, said = ERRORS[case]
    with pytest.raises(ConfigError, match=said):
        call()


def test_orthogonal_takes_matrices_alone() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 3, 4\) has no rows"):
        OrthogonalRegularizer()(torch.ones(2, 3, 4))
