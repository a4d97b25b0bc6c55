"""Initializers: names, dicts both ways, distributions on Keras's axes, the bias, errors.

Where numbers are random, two samples are compared by Kolmogorov and Smirnov's distance, against
its asymptotic critical value at 1e-4. All seeds are fixed, so a run that passes always does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm import initializers
from kerasish_lstm.errors import ConfigError
from kerasish_lstm.initializers import INITIALIZERS, bias, get, initial, serialize

from .keras_live import KerasLive

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
SEEDS = 400
KERNEL = (3, 44)  # F = 3, U = 11

# What no LSTM can use.
REFUSED = {"Initializer", "initializer", "STFT", "stft", "STFTInitializer"}
PRESETS = (
    "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform",
)  # fmt: skip

OBJECTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in sorted({c.__name__ for c in INITIALIZERS.values()})),
    *((name, {"seed": 7, "input_axes": [0], "output_axes": [1]}) for name in PRESETS),
    ("Constant", {"value": 2}),
    ("Constant", {"value": -0.25}),
    ("Orthogonal", {"gain": 2.0, "seed": 3}),
    ("RandomNormal", {"mean": 1.0, "stddev": 0.5, "seed": 0}),
    ("TruncatedNormal", {"mean": 1, "stddev": 2, "seed": -3}),
    ("RandomUniform", {"minval": 0, "maxval": 0.5, "seed": 1}),
    ("VarianceScaling", {"scale": 2, "mode": "fan_out", "distribution": "NORMAL", "seed": 5}),
    ("VarianceScaling", {"distribution": "untruncated_normal", "output_axes": [0, 1]}),
]

RANDOM: dict[str, tuple[tuple[str, dict[str, Any]], tuple[int, ...]]] = {
    **{name: ((name, {}), KERNEL) for name in PRESETS},
    "uniform": (("RandomUniform", {"minval": -0.2, "maxval": 0.7}), KERNEL),
    "normal": (("RandomNormal", {"mean": 0.4, "stddev": 0.3}), KERNEL),
    "truncated": (("TruncatedNormal", {"mean": 0.4, "stddev": 0.3}), KERNEL),
    "out": (("VarianceScaling", {"scale": 3.0, "mode": "fan_out"}), KERNEL),
    "out_untruncated": (
        ("VarianceScaling", {"mode": "fan_out", "distribution": "untruncated_normal"}),
        KERNEL,
    ),
    "average_uniform": (
        ("VarianceScaling", {"mode": "fan_avg", "distribution": "uniform"}),
        KERNEL,
    ),
    "axes": (("LecunNormal", {"input_axes": [1], "output_axes": [0]}), KERNEL),
    "all_axes": (("HeUniform", {"input_axes": [0, -1], "output_axes": []}), KERNEL),
    "half_the_axes": (("LecunUniform", {"input_axes": [1]}), KERNEL),  # Keras ignores them
    "bias_glorot": (("GlorotUniform", {}), (132,)),
    "bias_he": (("HeNormal", {}), (132,)),
}


def make(made: tuple[str, dict[str, Any]], **more: Any) -> Any:
    name, arguments = made
    return INITIALIZERS[name](**{**arguments, **more})


def sample(made: tuple[str, dict[str, Any]], shape: tuple[int, ...]) -> np.ndarray:
    return np.stack([make(made, seed=s)(shape).numpy() for s in range(SEEDS)])


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Kolmogorov and Smirnov's, as a multiple of its critical value."""
    a, b = np.sort(a, axis=None), np.sort(b, axis=None)
    both = np.concatenate([a, b])
    far = np.searchsorted(a, both, "right") / a.size - np.searchsorted(b, both, "right") / b.size
    critical = math.sqrt(-math.log(1e-4 / 2) / 2 * (a.size + b.size) / (a.size * b.size))
    return float(np.abs(far).max()) / critical


# Names and dicts


@pytest.mark.live
def test_every_name_of_keras_is_its_class_here(keras: KerasLive) -> None:
    names = keras.call("objects_side.names", "initializers")
    assert {name for name in names if name not in INITIALIZERS} == REFUSED
    for name in set(names) - REFUSED:
        assert type(get(name)).__name__ == names[name]
        assert type(get({"class_name": name, "config": {}})).__name__ == names[name]


@pytest.mark.live
def test_dicts_equal_keras_both_ways(keras: KerasLive) -> None:
    theirs = keras.call("objects_side.serialized", "keras", "initializers", OBJECTS)
    ours = [serialize(make(made)) for made in OBJECTS]
    assert [list(d["config"].items()) for d in ours] == [list(d["config"].items()) for d in theirs]
    assert ours == theirs
    assert [get(d) for d in theirs] == [make(made) for made in OBJECTS]
    back = keras.call("objects_side.read_back", "initializers", ours)
    assert back == [(d["class_name"], d["config"]) for d in theirs]


@pytest.mark.live
def test_the_gain_of_identity_is_kept_where_keras_loses_it(keras: KerasLive) -> None:
    made = ("Identity", {"gain": 0.5})
    (theirs,) = keras.call("objects_side.serialized", "keras", "initializers", [made])
    assert theirs["config"] == {}
    ours = serialize(make(made))
    assert ours is not None and ours["config"] == {"gain": 0.5} and get(ours) == make(made)
    assert keras.call("objects_side.values_of", ours, (2, 3)).tolist() == [[0.5, 0, 0], [0, 0.5, 0]]


@pytest.mark.live
def test_dicts_of_tf_keras_are_read(tf_keras: KerasLive) -> None:
    objects = [o for o in OBJECTS if "input_axes" not in o[1] and "output_axes" not in o[1]]
    objects += [("Identity", {"gain": 0.5})]
    theirs = tf_keras.call("objects_side.serialized", "tf_keras", "initializers", objects)
    assert [get(d) for d in theirs] == [make(made) for made in objects] * 2


@pytest.mark.live
def test_live_objects_of_keras_are_taken(keras: KerasLive) -> None:
    objects = [("Orthogonal", {"gain": 2.0, "seed": 3}), ("Zeros", {})]
    found = keras.call("objects_side.taken_alive", "initializers", objects)
    assert found == ["Orthogonal(gain=2.0, seed=3)", "Zeros()"] * 2


@pytest.mark.live
def test_a_seed_generator_gives_its_seed(keras: KerasLive) -> None:
    given = keras.call("objects_side.seeded_generator", 9)
    assert given["config"]["seed"]["class_name"] == "SeedGenerator"
    assert get(given) == initializers.Orthogonal(1.5, seed=9)


@pytest.mark.parametrize(
    "identifier",
    [
        "glorot_uniform",
        "GlorotUniformV2",
        {"class_name": "GlorotUniform", "config": {"seed": None, "dtype": "float32"}},
        {"class_name": "glorot_uniform"},
        {"class_name": "GlorotUniform", "config": None, "registered_name": "GlorotUniform"},
        {"module": "builtins", "class_name": "GlorotUniform", "config": {}},
        {"module": "tf_keras.initializers", "class_name": "GlorotUniform", "config": {}},
        initializers.GlorotUniform,
        initializers.GlorotUniform(),
    ],
)
def test_the_forms_of_an_identifier(identifier: Any) -> None:
    assert get(identifier) == initializers.GlorotUniform()


def test_none_and_callables_stay_what_they_are() -> None:
    assert get(None) is None and serialize(None) is None
    assert get(torch.zeros) is torch.zeros
    with pytest.raises(ConfigError, match=r"kernel_initializer=.*torch code of your own"):
        serialize(torch.zeros, "kernel_initializer")
    with pytest.raises(ConfigError, match="torch code of your own"):
        serialize(get(np.zeros(3)))


# Values


@pytest.mark.live
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "made",
    [
        ("Zeros", {}),
        ("Ones", {}),
        ("Constant", {}),
        ("Constant", {"value": 0.1}),
        ("Constant", {"value": -3}),
        ("Identity", {}),
        ("Identity", {"gain": 0.1}),
    ],
    ids=str,
)
def test_what_is_not_random_is_bitwise_keras(
    made: tuple[str, dict[str, Any]], dtype: torch.dtype, keras: KerasLive
) -> None:
    for shape in ((3, 44), (44, 3), (7,)):
        if made[0] == "Identity" and len(shape) == 1:
            continue
        theirs = keras.call("objects_side.values", made, shape, str(dtype).removeprefix("torch."))
        ours = make(made)(shape, dtype)
        assert ours.dtype == dtype
        assert np.array_equal(ours.double().numpy(), theirs)


@pytest.mark.live
@pytest.mark.parametrize("case", RANDOM)
def test_random_values_are_distributed_as_keras(case: str, keras: KerasLive) -> None:
    made, shape = RANDOM[case]
    theirs, ours = keras.call("objects_side.samples", made, shape, SEEDS), sample(made, shape)
    assert ours.shape == theirs.shape
    assert distance(ours, theirs) < 1
    error = 5 * theirs.std() / math.sqrt(theirs.size)
    assert abs(ours.mean() - theirs.mean()) < math.sqrt(2) * error
    assert ours.var() == pytest.approx(theirs.var(), rel=0.04)
    if "ormal" not in case and "untruncated" not in case:  # the ends of a uniform distribution
        assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=1e-3)


@pytest.mark.parametrize("case", ["GlorotNormal", "HeNormal", "LecunNormal", "truncated", "out"])
def test_nothing_lies_beyond_two_standard_deviations(case: str) -> None:
    (name, arguments), shape = RANDOM[case]
    values = sample((name, arguments), shape)
    fan = {"GlorotNormal": 47 / 2, "out": 44}.get(case, 3)
    scale = {"HeNormal": 2.0, "out": 3.0}.get(case, 1.0)
    end = 2 * math.sqrt(scale / fan) / 0.87962566103423978
    if case == "truncated":
        values, end = values - 0.4, 0.6
    assert 0.999 * end < np.abs(values).max() < end * (1 + 1e-6)


def test_the_distance_tells_wrong_ones_apart() -> None:
    fan_in = sample(("LecunNormal", {}), KERNEL)
    assert distance(fan_in, sample(("LecunNormal", {}), KERNEL[::-1])) > 10
    narrow = fan_in * 0.87962566103423978  # without the correction for the truncation
    assert distance(fan_in, narrow) > 2
    same_variance = sample(("VarianceScaling", {"distribution": "untruncated_normal"}), KERNEL)
    assert same_variance.var() == pytest.approx(fan_in.var(), rel=0.03)
    assert distance(fan_in, same_variance) > 1


@pytest.mark.live
def test_orthogonal_entries_are_distributed_as_keras(keras: KerasLive) -> None:
    made, shape = ("Orthogonal", {"gain": 1.5}), (3, 12)
    theirs, ours = keras.call("objects_side.samples", made, shape, SEEDS), sample(made, shape)
    assert distance(ours, theirs) < 1
    for entry in ((0, 0), (1, 1), (2, 2), (2, 11)):  # a sign that is not random shows in one entry
        assert distance(ours[:, *entry], theirs[:, *entry]) < 1


@pytest.mark.live
@pytest.mark.parametrize("shape", [(11, 44), (44, 11), (7, 7)])
def test_orthogonal_is_orthogonal_on_keras_axes(shape: tuple[int, int], keras: KerasLive) -> None:
    made = ("Orthogonal", {"gain": 1.7, "seed": 3})
    for values in (
        make(made)(shape, torch.float64).numpy(),
        keras.call("objects_side.values", made, shape, "float64"),
    ):
        thin = values if shape[0] <= shape[1] else values.T
        assert np.abs(thin @ thin.T - 1.7**2 * np.eye(len(thin))).max() < 1e-14
        if shape[0] == 11:
            block = values[:, :11]
            assert np.abs(block @ block.T - 1.7**2 * np.eye(11)).max() > 0.1


@pytest.mark.parametrize("made", [(name, {}) for name in PRESETS] + [("Orthogonal", {})], ids=str)
def test_a_seed_gives_the_same_numbers_in_every_dtype(made: tuple[str, dict[str, Any]]) -> None:
    wide = make(made, seed=4)(KERNEL, torch.float64)
    for dtype in DTYPES:
        values = make(made, seed=4)(KERNEL, dtype)
        assert values.dtype == dtype and values.device.type == "cpu"
        assert torch.allclose(values.double(), wide, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
    assert not torch.equal(make(made, seed=5)(KERNEL, torch.float64), wide)


def test_a_seed_repeats_and_leaves_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    seeded = initializers.RandomNormal(seed=-3)
    assert torch.equal(seeded(KERNEL), seeded(KERNEL))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_seed_torchs_generator_governs() -> None:
    initializer = initializers.GlorotUniform()
    torch.manual_seed(3)
    first, second = initializer(KERNEL), initializer(KERNEL)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(initializer(KERNEL), first)


@pytest.mark.parametrize("kind", [initializers.RandomUniform, initializers.Orthogonal])
def test_values_are_on_the_cpu_whatever_the_default_device(kind: Any) -> None:
    with torch.device("meta"):
        values = initial(kind(seed=1), KERNEL)
        joined = bias(initializers.RandomUniform(), 11, True)
    assert values.device.type == joined.device.type == "cpu"


# The bias


@pytest.mark.live
@pytest.mark.parametrize("seed", [5, None])
@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("RandomUniform", 1.0),
        ("RandomNormal", 1.0),
        ("TruncatedNormal", 1.0),
        ("GlorotUniform", math.sqrt(2)),
        ("HeNormal", math.sqrt(2)),
    ],
)
def test_both_pieces_of_the_bias_begin_alike_as_in_keras(
    name: str, scale: float, seed: int | None, keras: KerasLive
) -> None:
    made = (name, {"seed": seed})
    for units in (3, 7, 33):
        theirs = keras.call("objects_side.lstm_bias", made, units, True)
        ours = bias(make(made), units, True, torch.float64).numpy()
        for values in (theirs, ours):
            i, f, g, o = values.reshape(4, units)
            assert np.array_equal(f, np.ones(units))
            assert i == pytest.approx(scale * g, rel=1e-6)
            assert len(np.unique(values)) == (2 if scale == 1 else 3) * units + 1
            assert not np.isin(o, i).any()


def test_unseeded_biases_are_new_each_time() -> None:
    initializer = initializers.RandomNormal()
    torch.manual_seed(1)
    first, second = bias(initializer, 5, True), bias(initializer, 5, True)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(bias(initializer, 5, True), first)


@pytest.mark.live
@pytest.mark.parametrize("made", [("Zeros", {}), ("Constant", {"value": 0.3}), ("Ones", {})])
def test_unit_forget_bias_forces_nothing_else(
    made: tuple[str, dict[str, Any]], keras: KerasLive
) -> None:
    for unit_forget_bias in (True, False):
        theirs = keras.call("objects_side.lstm_bias", made, 5, unit_forget_bias)
        ours = bias(make(made), 5, unit_forget_bias, torch.float64)
        assert np.array_equal(ours.numpy(), theirs)


@pytest.mark.live
def test_a_bias_initializer_of_none(keras: KerasLive) -> None:
    assert keras.call("objects_side.build_error", {"bias_initializer": None}) == "TypeError"
    with pytest.raises(ConfigError, match="no meaning with unit_forget_bias=True"):
        bias(None, 5, True)
    theirs = np.stack([keras.call("objects_side.lstm_bias", None, 33, False) for _ in range(20)])
    ours = np.stack([bias(None, 33, False).numpy() for _ in range(20)])
    limit = math.sqrt(6 / (2 * 132))  # glorot_uniform: both fans are 4U
    for values in (theirs, ours):
        assert 0.98 * limit < np.abs(values).max() <= limit


# What the user gives


def test_a_callable_fills_the_weight() -> None:
    asked = []

    def ramp(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        asked.append((shape, dtype))
        return torch.arange(math.prod(shape), dtype=torch.float64).reshape(shape)

    assert torch.equal(initial(get(ramp), (2, 3), torch.float16), ramp((2, 3), None).half())
    joined = bias(get(ramp), 2, True)
    assert joined.tolist() == [0, 1, 1, 1, 0, 1, 2, 3]
    assert asked[0] == ((2, 3), torch.float16) and [s for s, _ in asked[2:]] == [(2,), (4,)]


def array(shape: tuple[int, ...], dtype: Any = None) -> Any:
    return np.arange(6.0).reshape(3, 2).T


@pytest.mark.parametrize("given", [array(()), torch.from_numpy(array(())).clone(), array])
def test_arrays_and_tensors_are_taken_as_they_are(given: Any) -> None:
    initializer = get(given)
    for dtype in (torch.bfloat16, torch.float64):
        values = initial(initializer, (2, 3), dtype)
        assert values.dtype == dtype
        assert values.tolist() == [[0, 2, 4], [1, 3, 5]]
        values[0, 0] = 9  # a copy
    assert initial(initializer, (2, 3))[0, 0] == 0
    if not callable(given):
        given[0, 0] = 9
        assert initial(initializer, (2, 3))[0, 0] == 0


@pytest.mark.live
def test_a_wrong_shape_is_an_error_where_keras_takes_it(keras: KerasLive) -> None:
    named, found = keras.call("objects_side.wrong_shape")
    assert (named, found) == ((5, 12), (4, 12))
    with pytest.raises(ConfigError, match=r"shape \(4, 12\) for \(5, 12\).*must return that shape"):
        initial(lambda shape, dtype: np.ones((4, 12)), (5, 12))


def lazy(shape: Any, dtype: Any) -> Any:
    return "zeros"


ERRORS: dict[str, tuple[Callable[[], Any], str]] = {
    "misspelt": (lambda: get("glorot_unifrom", "k"), r"k='glorot_unifrom'.*'glorot_uniform'"),
    "unknown": (lambda: get("xyz"), "Known are Constant, GlorotNormal.*a callable works too"),
    "number": (lambda: get(3, "k"), "k=3 is not an initializer: neither a name"),
    "entry": (
        lambda: get({"class_name": "RandomNormal", "config": {"stdev": 1}}),
        r"RandomNormal has no entry 'stdev' \(did you mean 'stddev'\?\). Known are mean, stddev",
    ),
    "no_entry": (lambda: get({"class_name": "Zeros", "config": {"x": 1}}), "Known are none"),
    "config": (lambda: get({"class_name": "Zeros", "config": 3}), "'config' is not a dict"),
    "no_class": (lambda: get({"config": {}}), "has no 'class_name'"),
    "module": (
        lambda: get({"module": "my.code", "class_name": "Zeros", "config": {}}, "k"),
        "k=.*code of the model's author.*pass that config",
    ),
    "script": (lambda: get({"module": None, "class_name": "Zeros"}), "code of the model's author"),
    "registered": (
        lambda: get({"class_name": "Zeros", "config": {}, "registered_name": "mine>Zeros"}),
        "code of the model's author",
    ),
    "function": (
        lambda: get({"module": "builtins", "class_name": "function", "config": "zeros"}),
        "code of the model's author",
    ),
    "base": (lambda: get("Initializer"), "base class, which has no values"),
    "stft": (lambda: get("stft", "kernel_initializer"), "kernel_initializer='stft'.*three axes"),
    "torch": (lambda: get(torch.nn.init.xavier_uniform_), r"xavier_uniform_ fills.*shape\[::-1\]"),
    "other_room": (
        lambda: get(__import__("kerasish_lstm.regularizers").regularizers.L2()),
        "is not an initializer",
    ),
    "seed": (lambda: initializers.RandomNormal(seed=1.5), "RandomNormal: seed=1.5 is not an integ"),
    "seed_of_a_dict": (
        lambda: get({"class_name": "HeNormal", "config": {"seed": "x"}}, "k"),
        "LSTM: k: HeNormal: seed='x' is not",
    ),
    "scale": (lambda: initializers.VarianceScaling(0), "scale=0 is not a positive number"),
    "mode": (
        lambda: initializers.VarianceScaling(mode="Fan_in"),
        "'Fan_in' is not one of 'fan_in'",
    ),
    "distribution": (lambda: initializers.VarianceScaling(distribution="x"), "distribution='x'"),
    "axes": (lambda: initializers.HeNormal(input_axes=0), "input_axes=0 is not a list of integers"),
    "mean": (lambda: initializers.RandomNormal(mean="0"), "mean='0' is not a number"),
    "value": (lambda: initializers.Constant([1, 2]), r"value=\[1, 2\] is not a number"),
    "beyond": (
        lambda: initial(initializers.HeNormal(None, [0], [2]), KERNEL, keyword="k"),
        r"LSTM: k: HeNormal\(.*\) cannot fill.*\(3, 44\)",
    ),
    "identity": (lambda: bias(get("identity"), 3, False), "bias_initializer: Identity.*matrices"),
    "orthogonal": (lambda: bias(get("orthogonal"), 3, True), "bias_initializer: Orthogonal"),
    "values": (lambda: initial(get(np.ones((44, 3))), KERNEL), r"Values\(shape=\(44, 3\)\) cannot"),
    "no_numbers": (lambda: initial(lazy, KERNEL), "are not numbers that a weight can have"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_says_so(case: str) -> None:
    call, said = ERRORS[case]
    with pytest.raises(ConfigError, match=said):
        call()


@pytest.mark.live
@pytest.mark.parametrize("name", ["initializer", "stft"])
@pytest.mark.parametrize("role", ["kernel", "recurrent", "bias"])
def test_keras_builds_no_lstm_with_what_is_refused(name: str, role: str, keras: KerasLive) -> None:
    made: Any = {"class_name": "STFT", "config": {"window": None}} if name == "stft" else name
    error = keras.call("objects_side.build_error", {f"{role}_initializer": made})
    assert error == {"stft": "ValueError", "initializer": "NotImplementedError"}[name]
