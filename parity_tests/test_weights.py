"""Layouts of weights: every pair there and back bitwise, and each against who computes with it."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kerasish_lstm import LAYOUTS, LSTM, LSTMWeights, relayout
from kerasish_lstm.errors import ConfigError, KerasishError, WeightMismatch
from kerasish_lstm.parity import assert_parity, oracle
from kerasish_lstm.parity.bounds import FLOAT64

from .properties import given, settings, st

pytestmark = pytest.mark.smoke

F, U = 3, 5
PAIRS = list(itertools.permutations(LAYOUTS, 2))
THERE_AND_BACK = [
    pytest.param(*pair, use_bias, id="-".join(pair) + ("" if use_bias else "-no_bias"))
    for pair in PAIRS
    for use_bias in (True, False)
    if use_bias or "keras_cudnn" not in pair  # which always has a bias
]
DTYPES: list[Any] = [np.float16, np.float32, np.float64]
if importlib.util.find_spec("ml_dtypes"):  # NumPy's bfloat16, which comes with TensorFlow
    DTYPES.append(importlib.import_module("ml_dtypes").bfloat16)
SIZES = st.integers(1, 13)


def shapes(layout: str, features: int, units: int, use_bias: bool = True) -> list[tuple[int, ...]]:
    """The shapes of each layout, written down once more."""
    f, u = features, units
    every: dict[str, list[tuple[int, ...]]] = {
        "keras": [(f, 4 * u), (u, 4 * u), (4 * u,)],
        "torch": [(4 * u, f), (4 * u, u), (4 * u,), (4 * u,)],
        "keras_cudnn": [(f, 4 * u), (u, 4 * u), (8 * u,)],
        "onnx": [(1, 4 * u, f), (1, 4 * u, u), (1, 8 * u)],
    }
    return every[layout] if use_bias else every[layout][:2]


def bits(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def drawn(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Random bits: every value of the dtype, signed zeros, infinities and NaN payloads too."""
    size = int(np.prod(shape))
    array = np.frombuffer(rng.bytes(size * np.dtype(dtype).itemsize), dtype).copy()
    array[: size // 3] = rng.normal(size=size // 3).astype(dtype)
    array[size // 3] = -0.0
    return array.reshape(shape)


def weights(
    layout: str, features: int, units: int, dtype: Any, use_bias: bool, seed: int = 7
) -> list[np.ndarray]:
    """Weights that every layout can hold without arithmetic: one bias is live."""
    rng = np.random.default_rng(seed)
    arrays = [drawn(rng, s, dtype) for s in shapes(layout, features, units, use_bias)]
    if layout == "torch" and use_bias:
        arrays[3][:] = 0.0
    if layout in ("keras_cudnn", "onnx") and use_bias:
        arrays[2][..., 4 * units :] = 0.0
    return arrays


def assert_bitwise(actual: Any, expected: Any) -> None:
    assert [a.shape for a in actual] == [e.shape for e in expected]
    assert [a.dtype for a in actual] == [e.dtype for e in expected]
    assert [bits(a) for a in actual] == [bits(e) for e in expected]


# There and back


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize(("source", "target", "use_bias"), THERE_AND_BACK)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data())
def test_there_and_back_is_bitwise(
    source: str, target: str, use_bias: bool, dtype: Any, data: st.DataObject
) -> None:
    units = data.draw(SIZES, "units")
    features = data.draw(SIZES | st.just(4 * units), "features")  # F == 4U: square matrices
    arrays = weights(source, features, units, dtype, use_bias, data.draw(st.integers(0, 99)))
    before = [a.copy() for a in arrays]
    there = relayout(arrays, source, target)
    assert [a.shape for a in there] == shapes(target, features, units, use_bias)
    assert_bitwise(relayout(there, target, source), arrays)
    assert_bitwise(arrays, before)
    assert not any(np.shares_memory(a, b) for a in there for b in arrays)
    assert all(a.flags.c_contiguous and a.flags.writeable for a in there)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_every_number_is_moved_and_moved_to_a_place_of_its_own(source: str, target: str) -> None:
    """A number a weight: what comes out is a permutation, and for F == 4U not the identity."""
    sizes = [int(np.prod(s)) for s in shapes(source, 4 * U, U)]
    numbers = np.split(np.arange(1.0, sum(sizes) + 1), np.cumsum(sizes)[:-1])
    arrays = [n.reshape(s) for n, s in zip(numbers, shapes(source, 4 * U, U), strict=True)]
    moved = relayout(arrays[:2] + [np.zeros_like(b) for b in arrays[2:]], source, target)
    for i in range(2):
        assert sorted(moved[i].ravel()) == sorted(arrays[i].ravel())
        assert not np.array_equal(moved[i].ravel(), arrays[i].ravel())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_to_itself_is_a_copy(layout: str) -> None:
    arrays = weights(layout, F, U, np.float64, use_bias=True)
    copies = relayout(arrays, layout, layout)
    assert_bitwise(copies, arrays)
    assert not any(np.shares_memory(a, b) for a, b in zip(copies, arrays, strict=True))


@pytest.mark.parametrize("through", [t for t in LAYOUTS if t not in ("keras", "torch")])
def test_layouts_with_two_biases_keep_both(through: str) -> None:
    rng = np.random.default_rng(3)
    arrays = [drawn(rng, s, np.float64) for s in shapes("torch", F, U)]
    assert arrays[2].any() and arrays[3].any()
    assert_bitwise(relayout(relayout(arrays, "torch", through), through, "torch"), arrays)


@pytest.mark.parametrize("source", [s for s in LAYOUTS if s != "keras"])
@settings(max_examples=20, deadline=None, derandomize=True)
@given(units=SIZES, seed=st.integers(0, 99))
def test_two_live_biases_add(source: str, units: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=s) for s in shapes(source, F, units)]
    halves = [b.ravel() for b in arrays[2:]]
    first, second = halves if len(halves) == 2 else np.split(halves[0], 2)
    order = "iofg" if source == "onnx" else "ifgo"
    by_gate = dict(zip(order, np.split(first + second, 4), strict=True))
    expected = np.concatenate([by_gate[gate] for gate in "ifgo"])
    assert_bitwise(relayout(arrays, source, "keras")[2:], [expected])


@pytest.mark.parametrize("live", [0, 1])
def test_a_bias_beside_zeros_keeps_its_signed_zeros(live: int) -> None:
    arrays = weights("torch", F, U, np.float32, use_bias=True)
    arrays[2 + live] = np.array([-0.0, 1.5] * 2 * U, np.float32)
    arrays[3 - live] = np.zeros(4 * U, np.float32)
    assert_bitwise(relayout(arrays, "torch", "keras")[2:], [arrays[2 + live]])


# Each layout against who computes with it


def random_weights(seed: int = 5, dtype: Any = np.float64) -> LSTMWeights:
    rng = np.random.default_rng(seed)
    drawn = (rng.uniform(-0.7, 0.7, s).astype(dtype) for s in shapes("keras", F, U))
    return LSTMWeights(*drawn)


@pytest.mark.parametrize("use_bias", [True, False])
def test_torch_s_layout_is_that_of_nn_lstm(use_bias: bool) -> None:
    plain = nn.LSTM(F, U, batch_first=True, bias=use_bias, dtype=torch.float64)
    arrays = [p.detach().numpy() for p in plain.parameters()]
    assert [a.shape for a in arrays] == shapes("torch", F, U, use_bias)
    x = np.random.default_rng(1).normal(size=(7, 11, F))
    truth = oracle.forward(x, *relayout(arrays, "torch", "keras"), return_sequences=True)
    actual, (h, c) = plain(torch.from_numpy(x))
    assert_parity(actual, truth.output, bound=FLOAT64)
    assert_parity(h[0], truth.h, bound=FLOAT64, what="h")
    assert_parity(c[0], truth.c, bound=FLOAT64, what="c")


@pytest.mark.parametrize("use_bias", [True, False])
def test_onnx_s_layout_is_that_of_onnxruntime(use_bias: bool) -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    batch, steps = 7, 11
    given = random_weights(dtype=np.float32)[: 3 if use_bias else 2]
    arrays = dict(zip(("W", "R", "B"), relayout(given, "keras", "onnx"), strict=False))
    make, number = onnx.helper, onnx.TensorProto.FLOAT
    node = make.make_node("LSTM", ["X", *arrays], ["Y", "Y_h", "Y_c"], hidden_size=U)
    results = {"Y": [steps, 1, batch, U], "Y_h": [1, batch, U], "Y_c": [1, batch, U]}
    graph = make.make_graph(
        [node],
        "one_lstm",
        [make.make_tensor_value_info("X", number, [steps, batch, F])],
        [make.make_tensor_value_info(name, number, shape) for name, shape in results.items()],
        [onnx.numpy_helper.from_array(a, name) for name, a in arrays.items()],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(model)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(1).normal(size=(batch, steps, F)).astype(np.float32)
    y, h, c = session.run(list(results), {"X": np.ascontiguousarray(x.transpose(1, 0, 2))})
    truth = oracle.forward(
        x.astype(np.float64), *(w.astype(np.float64) for w in given), return_sequences=True
    )
    assert_parity(y[:, 0].transpose(1, 0, 2), truth.output, bound=1e-6)
    assert_parity(h[0], truth.h, bound=1e-6, what="h")
    assert_parity(c[0], truth.c, bound=1e-6, what="c")


@pytest.mark.parametrize(("features", "units"), [(3, 5), (5, 3), (20, 5), (1, 1), (7, 7)])
def test_keras_cudnn_s_layout_is_its_formula(features: int, units: int) -> None:
    """Keras 2.15 ``_convert_rnn_weights``, gate by gate: the kernels' memory is transposed."""
    rng = np.random.default_rng(2)
    given = [rng.normal(size=s) for s in shapes("keras_cudnn", features, units)]
    gates = [slice(g * units, (g + 1) * units) for g in range(4)]
    kernel = [given[0][:, g].reshape(units, features).T for g in gates]
    recurrent = [given[1][:, g].T for g in gates]
    bias = given[2][: 4 * units] + given[2][4 * units :]
    expected = [np.concatenate(kernel, 1), np.concatenate(recurrent, 1), bias]
    assert_bitwise(relayout(given, "keras_cudnn", "keras"), expected)


# What is refused

K, R, B = (np.zeros(s) for s in shapes("keras", F, U))
W_IH, W_HH, B_IH, B_HH = (np.zeros(s) for s in shapes("torch", F, U))

BAD: dict[str, tuple[list[Any], str, tuple[str, ...]]] = {
    "no arrays": ([], "keras", ("3 or 2 arrays", "0 were given", "kernel, recurrent_kernel, bias")),
    "one array": ([K], "keras", ("3 or 2 arrays", "1 were given")),
    "one bias of torch's two": ([W_IH, W_HH, B_IH], "torch", ("4 or 2 arrays", "3 were given")),
    "two biases of keras": ([K, R, B, B], "keras", ("3 or 2 arrays", "4 were given")),
    "no bias for cudnn": ([K, R], "keras_cudnn", ("has 3 arrays", "2 were given")),
    "a GRU": (
        [np.zeros((F, 3 * U)), np.zeros((U, 3 * U)), np.zeros(3 * U)],
        "keras",
        ("'keras'", "recurrent_kernel", "(5, 15)", "differs", "Three gates", "GRU"),
    ),
    "a GRU of torch": (
        [np.zeros((3 * U, F)), np.zeros((3 * U, U)), np.zeros(3 * U), np.zeros(3 * U)],
        "torch",
        ("'torch'", "weight_hh", "(15, 5)", "GRU"),
    ),
    "a SimpleRNN": (
        [np.zeros((F, U)), np.zeros((U, U)), np.zeros(U)],
        "keras",
        ("(3, 5)", "(5, 5)", "SimpleRNN"),
    ),
    "torch's in keras's place": (
        [W_IH, W_HH, B_IH],
        "keras",
        ("(20, 3)", "(20, 5)", "look transposed", "'torch'"),
    ),
    "keras's in torch's place": (
        [K, R, B, B],
        "torch",
        ("(3, 20)", "(5, 20)", "look transposed", "'keras'"),
    ),
    "cudnn's bias": ([K, R, np.zeros(8 * U)], "keras", ("(40,)", "CuDNNLSTM", "'keras_cudnn'")),
    "the kernel alone transposed": ([K.T, R, B], "keras", ("kernel", "(20, 3)", "differs")),
    "a kernel of other units": ([np.zeros((F, 4)), R, B], "keras", ("(3, 4)", "(3, 20)")),
    "a bias of rank 2": ([K, R, B[None]], "keras", ("bias", "(1, 20)", "(4U,)")),
    "onnx without its directions": ([W_IH, W_HH], "onnx", ("(20, 3)", "(1, 4U, F)")),
    "onnx in two directions": (
        [np.zeros((2, 20, F)), np.zeros((2, 20, U))],
        "onnx",
        ("W", "(2, 20, 3)", "(1, 20, 3)", "differs"),
    ),
    "no units": ([np.zeros((F, 0)), np.zeros((0, 0))], "keras", ("(3, 0)", "(0, 0)")),
    "integers": ([K, R, B.astype(int)], "keras", ("array 2", "int64", "float32")),
    "complex": ([K, R.astype(complex), B], "keras", ("array 1", "complex128", "float32")),
    "text": (["kernel", R, B], "keras", ("array 0", "dtype", "float32")),
}


@pytest.mark.parametrize("what", BAD)
def test_arrays_that_do_not_fit_are_refused(what: str) -> None:
    arrays, layout, parts = BAD[what]
    for target in LAYOUTS:
        with pytest.raises(WeightMismatch) as caught:
            relayout(arrays, layout, target)
        missing = [p for p in (f"'{layout}'", *parts) if p not in str(caught.value)]
        assert not missing, f"{missing} not in: {caught.value}"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    layout=st.sampled_from(sorted(LAYOUTS)),
    given_shapes=st.lists(st.lists(st.integers(0, 8), max_size=3), max_size=4),
)
def test_any_shapes_either_fit_or_are_refused(layout: str, given_shapes: list[list[int]]) -> None:
    """No NumPy error comes through, and what passes is a layout of some F and U."""
    arrays = [np.zeros(s) for s in given_shapes]
    try:
        kernel, recurrent, *_ = relayout(arrays, layout, "keras")
    except KerasishError:
        return
    expected = shapes(layout, kernel.shape[0], recurrent.shape[0])
    assert [a.shape for a in arrays] == expected[: len(arrays)]


@pytest.mark.parametrize("source_is_wrong", [True, False])
def test_an_unknown_layout_is_refused(source_is_wrong: bool) -> None:
    layouts = ("pytorch", "keras") if source_is_wrong else ("keras", "pytorch")
    with pytest.raises(ConfigError) as caught:
        relayout([K, R, B], *layouts)
    assert all(part in str(caught.value) for part in ("'pytorch'", *LAYOUTS))


def test_cudnn_without_a_bias_is_refused_with_what_to_do() -> None:
    with pytest.raises(WeightMismatch) as caught:
        relayout([K, R], "keras", "keras_cudnn")
    assert all(p in str(caught.value) for p in ("'keras_cudnn'", "'keras'", "zeros", "(4U,)"))


# get_weights, set_weights and the views


def layer_of(features: int = F, units: int = U, **keywords: Any) -> LSTM[Any]:
    return LSTM(features, units, **{"dtype": torch.float64, **keywords})


@settings(max_examples=20, deadline=None, derandomize=True)
@given(units=SIZES, features=SIZES, use_bias=st.booleans(), square=st.booleans())
def test_set_weights_and_get_weights_are_inverse(
    units: int, features: int, use_bias: bool, square: bool
) -> None:
    features = 4 * units if square else features
    given = weights("keras", features, units, np.float64, use_bias)
    layer = layer_of(features, units, use_bias=use_bias)
    layer.set_weights(given)
    assert_bitwise(layer.get_weights(), given)
    other = layer_of(features, units, use_bias=use_bias)
    other.set_weights(layer.get_weights())
    for a, b in zip(other.state_dict().values(), layer.state_dict().values(), strict=True):
        assert bits(a.numpy()) == bits(b.numpy())


@pytest.mark.parametrize("use_cudnn", ["auto", True, False], ids=["native", "fused", "scan"])
def test_the_order_is_kernel_recurrent_kernel_bias(use_cudnn: Any) -> None:
    """At F == U two arrays share a shape, so that their order is decided by numbers alone."""
    rng = np.random.default_rng(9)
    given = LSTMWeights(*(rng.uniform(-0.7, 0.7, s) for s in shapes("keras", U, U)))
    layer, x = layer_of(U, use_cudnn=use_cudnn), rng.normal(size=(7, 11, U))
    layer.set_weights(given)
    assert_parity(layer(torch.from_numpy(x)), oracle.forward(x, *given).output, bound=FLOAT64)


@pytest.mark.parametrize("form", [list, tuple, LSTMWeights._make])
def test_set_weights_takes_any_sequence(form: Any) -> None:
    layer, given = layer_of(), random_weights()
    layer.set_weights(form(given))
    assert_bitwise(layer.get_weights(), given)


def test_a_named_tuple_without_a_bias_fits_a_layer_without_one() -> None:
    layer, given = layer_of(use_bias=False), random_weights()
    layer.set_weights(given._replace(bias=None))
    assert_bitwise(layer.get_weights(), given[:2])


@pytest.mark.parametrize("given_dtype", [*DTYPES, ">f4"], ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
def test_weights_are_cast_to_the_layer_s_dtype(dtype: torch.dtype, given_dtype: Any) -> None:
    layer = layer_of(dtype=dtype)
    given = [w.astype(given_dtype) for w in random_weights()]
    layer.set_weights(given)
    found = layer.get_weights()
    own = {torch.float16: np.float16, torch.float64: np.float64}.get(dtype, np.float32)
    assert {w.dtype for w in found} == {np.dtype(own)}
    for a, g in zip(found, given, strict=True):
        cast = torch.from_numpy(g.astype(np.float64)).to(dtype).double().numpy()
        assert np.array_equal(a.astype(np.float64), cast)


def test_set_weights_clears_a_second_bias() -> None:
    layer, given = layer_of(), random_weights()
    layer.lstm.bias_hh_l0.fill_(7.0)
    layer.set_weights(given)
    assert not layer.lstm.bias_hh_l0.any()
    assert_bitwise(layer.get_weights(), given)


def test_get_weights_gives_copies() -> None:
    layer = layer_of()
    before = layer.get_weights()
    for array in layer.get_weights():
        np.add(array, 1.0, out=array)
    assert_bitwise(layer.get_weights(), before)


def test_set_weights_copies() -> None:
    layer, given = layer_of(), random_weights()
    kept = [w.copy() for w in given]
    layer.set_weights(given)
    for array in given:
        array[:] = 7.0  # type: ignore[index]
    assert_bitwise(layer.get_weights(), kept)


@pytest.mark.parametrize("name", ["kernel", "recurrent_kernel", "bias"])
def test_kernel_recurrent_kernel_and_bias_are_views(name: str) -> None:
    layer = layer_of()
    names = ["kernel", "recurrent_kernel", "bias"]
    view, parameter = getattr(layer, name), list(layer.parameters())[names.index(name)]
    assert view.data_ptr() == parameter.data_ptr()
    position = names.index(name)
    assert np.array_equal(view.detach().numpy(), layer.get_weights()[position])
    with torch.no_grad():
        view[..., 1] = 0.75
    assert (layer.get_weights()[position][..., 1] == 0.75).all()
    (gradient,) = torch.autograd.grad(view.square().sum(), parameter)
    assert torch.equal(gradient, 2 * parameter)


def test_a_layer_without_a_bias_has_none() -> None:
    layer = layer_of(use_bias=False)
    assert layer.bias is None
    assert [w.shape for w in layer.get_weights()] == shapes("keras", F, U, use_bias=False)


def test_a_plain_nn_lstm_s_live_biases_come_as_their_sum() -> None:
    plain, layer = nn.LSTM(F, U, dtype=torch.float64), layer_of()
    layer.lstm.bias_hh_l0.copy_(plain.bias_hh_l0.detach())
    total = (layer.lstm.bias_ih_l0 + plain.bias_hh_l0).detach().numpy()
    assert np.array_equal(layer.get_weights()[2], total)
