"""Constraints: names, dicts both ways, projections of live Keras on Keras's axes, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm import constraints
from kerasish_lstm.constraints import CONSTRAINTS, MaxNorm, MinMaxNorm, NonNeg, UnitNorm, get
from kerasish_lstm.errors import ConfigError
from kerasish_lstm.parity import assert_parity

from .keras_live import KerasLive

pytestmark = pytest.mark.smoke

Made = tuple[str, dict[str, Any]]
KERNEL = (3, 44)
AXES = (0, 1, -1, [0, 1], None, [])

OBJECTS: list[Made] = [
    ("Constraint", {}),
    ("NonNeg", {}),
    ("MaxNorm", {}),
    ("MinMaxNorm", {}),
    ("UnitNorm", {}),
    *(("MaxNorm", {"max_value": 0.7, "axis": axis}) for axis in AXES),
    *(("UnitNorm", {"axis": axis}) for axis in AXES),
    *(
        ("MinMaxNorm", {"min_value": 0.3, "max_value": 0.9, "rate": rate, "axis": axis})
        for rate in (1, 0.3)
        for axis in AXES
    ),
    ("MaxNorm", {"max_value": -1}),
    ("MinMaxNorm", {"min_value": 2.0, "max_value": 0.5}),  # TensorFlow's clip: the minimum wins
]


def make(made: Made) -> Any:
    name, arguments = made
    return getattr(constraints, name)(**arguments)


def weight(shape: tuple[int, ...] = KERNEL) -> np.ndarray:
    """Random, of very different norms; a row and a column of zeros in a matrix."""
    rng = np.random.RandomState(7)
    w = rng.uniform(-1, 1, shape) * 10.0 ** rng.uniform(-8, 1, shape[-1])
    w[..., 1] = 0
    if len(shape) == 2:
        w[1] = 0
    return w


@pytest.mark.live
def test_every_name_of_keras_is_its_class_here(keras: KerasLive) -> None:
    names = keras.call("objects_side.names", "constraints")
    for name in names:
        assert type(get(name)).__name__ == names[name]
        assert type(get({"class_name": name, "config": {}})).__name__ == names[name]
    assert set(CONSTRAINTS) - set(names) == {"maxnorm", "nonneg", "unitnorm"}


@pytest.mark.live
def test_dicts_equal_keras_both_ways(keras: KerasLive) -> None:
    theirs = keras.call("objects_side.serialized", "keras", "constraints", OBJECTS)
    ours = [constraints.serialize(make(made)) for made in OBJECTS]
    assert ours == theirs
    assert [get(d) for d in theirs] == [make(made) for made in OBJECTS]
    back = keras.call("objects_side.read_back", "constraints", ours)
    assert back == [(d["class_name"], d["config"]) for d in theirs]


@pytest.mark.live
def test_dicts_of_tf_keras_are_read(tf_keras: KerasLive) -> None:
    objects = [o for o in OBJECTS if o[0] != "Constraint"]
    theirs = tf_keras.call("objects_side.serialized", "tf_keras", "constraints", objects)
    assert [get(d) for d in theirs] == [make(made) for made in objects] * 2


@pytest.mark.live
def test_live_objects_of_keras_are_taken(keras: KerasLive) -> None:
    found = keras.call("objects_side.taken_alive", "constraints", [("MaxNorm", {"axis": [0, 1]})])
    assert found == ["MaxNorm(max_value=2, axis=(0, 1))"] * 2


def test_names_and_dicts_of_older_keras_are_read() -> None:
    assert [get(n) for n in ("maxnorm", "nonneg", "unitnorm")] == [MaxNorm(), NonNeg(), UnitNorm()]
    assert get({"name": "MaxNorm", "m": 3, "axis": 1}) == MaxNorm(3, 1)
    assert get({"name": "MinMaxNorm", "low": 0.5, "high": 2.0, "rate": 0.5, "axis": 0}) == (
        MinMaxNorm(0.5, 2.0, 0.5)
    )
    assert get({"class_name": "MaxNorm", "config": {"max_value": None}}) == MaxNorm()
    assert get({"class_name": "MaxNorm", "config": {"axis": None}}) == MaxNorm(axis=None)


def test_none_and_callables_stay_what_they_are() -> None:
    assert get(None) is None
    assert get(torch.relu) is torch.relu
    with pytest.raises(ConfigError, match=r"kernel_constraint=.*torch code of your own"):
        constraints.serialize(torch.relu, "kernel_constraint")


@pytest.mark.live
@pytest.mark.parametrize("made", OBJECTS, ids=str)
def test_projections_are_keras(made: Made, keras: KerasLive) -> None:
    shapes = [KERNEL, (5, 3)]
    if made[1].get("axis", 0) in (0, -1, None):
        shapes.append((12,))  # a bias
    cases = [(weight(shape), dtype) for shape in shapes for dtype in ("float64", "float32")]
    answers = keras.call("objects_side.constrained", [(made, w, d) for w, d in cases])
    for (w, dtype), expected in zip(cases, answers, strict=True):
        tensor = torch.tensor(w, dtype=getattr(torch, dtype))
        found = make(made)(tensor)
        assert found.dtype == tensor.dtype
        bound = 1e-15 if dtype == "float64" else 4e-7
        # Columns differ by nine orders of magnitude: each is compared on its own scale.
        ratio = np.divide(found.double(), expected, out=np.ones_like(expected), where=expected != 0)
        assert np.array_equal(found == 0, expected == 0)
        assert_parity(ratio, np.ones_like(ratio), bound=bound, what=f"{w.shape} {dtype}")


def test_axes_are_keras_axes_of_a_kernel() -> None:
    w = torch.tensor(np.random.RandomState(3).uniform(1, 2, KERNEL))
    assert (MaxNorm(0.5)(w).norm(dim=0) - 0.5).abs().max() < 1e-6
    assert (UnitNorm(axis=1)(w).norm(dim=1) - 1).abs().max() < 1e-6
    assert UnitNorm(axis=[0, 1])(w).norm() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("made", OBJECTS, ids=str)
def test_16_bit_weights_stay_16_bit(made: Made, dtype: torch.dtype) -> None:
    w = torch.tensor(np.random.RandomState(3).uniform(-1, 1, KERNEL)).to(dtype)
    w[:, 1] = w[1] = 0
    found = make(made)(w)
    assert found.dtype == dtype
    assert_parity(found, make(made)(w.double()), bound=torch.finfo(dtype).eps)


@pytest.mark.live
def test_a_zero_vector_in_float16_stays_finite_where_keras_gives_nan(keras: KerasLive) -> None:
    made, w = ("MinMaxNorm", {"min_value": 0.3}), np.array([[0.0, 3.0], [0.0, 4.0]])
    (theirs,) = keras.call("objects_side.constrained", [(made, w, "float16")])
    assert np.isnan(theirs[:, 0]).all()
    ours = make(made)(torch.tensor(w, dtype=torch.float16))
    assert ours[:, 0].tolist() == [0, 0]
    assert ours[:, 1].tolist() == pytest.approx(theirs[:, 1], rel=1e-3)


ERRORS: dict[str, tuple[Callable[[], Any], str]] = {
    "misspelt": (
        lambda: get("max_nrom", "k"),
        r"k='max_nrom' is not a constraint \(did you mean 'm",
    ),
    "unknown": (lambda: get("xyz"), "Known are Constraint, MaxNorm, MinMaxNorm, NonNeg, UnitNorm"),
    "entry": (
        lambda: get({"class_name": "NonNeg", "config": {"axis": 0}}),
        "no entry 'axis'.*none",
    ),
    "value": (lambda: MaxNorm("a"), "MaxNorm: max_value='a' is not a number"),  # type: ignore[arg-type]
    "axis": (lambda: MaxNorm(axis=1.0), "axis=1.0 is not an integer, a list"),  # type: ignore[arg-type]
    "axes": (lambda: UnitNorm(axis=[0, "1"]), "is not a list of integers"),  # type: ignore[list-item]
    "beyond": (lambda: UnitNorm(axis=1)(torch.ones(12)), r"axis=1 does not fit.*\(12,\).*axis 0"),
    "twice": (lambda: UnitNorm(axis=[0, -2])(torch.ones(2, 3)), r"axis=\(0, -2\) does not fit"),
    "author": (
        lambda: get({"class_name": "Even", "config": {}, "registered_name": "mine>Even"}),
        "code of the model's author",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_says_so(case: str) -> None:
    call, said = ERRORS[case]
    with pytest.raises(ConfigError, match=said):
        call()
