"""The native engine: it is used, it never uses old weights, and it is right at every odd size."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import functools
import hashlib
import itertools
import os
import pickle
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor

from kerasish_lstm import LSTM, Bidirectional, DropoutMasks, native_engine, native_status
from kerasish_lstm import _native as engine
from kerasish_lstm import _native_autograd as autograd
from kerasish_lstm.errors import InputError
from kerasish_lstm.parity import assert_parity, oracle
from kerasish_lstm.parity.bounds import FLOAT64

from .cases import Case
from .properties import given, st
from .runs import ours
from .runs import truth as truth_of
from .sampling import amount, sampled
from .test_parity import EVERY

ROOT = Path(__file__).resolve().parent.parent
STATUS = native_status()
COMPILER = shutil.which("g++") or shutil.which("clang++")
needs_engine = pytest.mark.skipif(not STATUS.available, reason=f"native: {STATUS.reason}")
needs_flags = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64", "aarch64", "arm64"),
    reason="the engine does not know how this processor takes denormals as zero",
)
SETS = STATUS.instruction_sets
B, T, F, U = 5, 7, 3, 11


def test_where_a_compiler_is_it_is_built() -> None:
    if COMPILER is None or os.environ.get("KERASISH_LSTM_BUILD") == "0":
        pytest.skip("no C++ compiler here")
    assert STATUS.available, STATUS.reason
    assert STATUS.instruction_set == SETS[0] and SETS[-1] == "base"
    assert STATUS.path is not None and Path(STATUS.path).is_file()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the engine's calls into the library."""
    seen: list[str] = []
    functions = engine._loaded().functions

    class Counting:
        def __getattr__(self, name: str) -> Any:
            seen.append(name)
            return getattr(functions, name)

    monkeypatch.setattr(engine._process, "engine", engine._loaded()._replace(functions=Counting()))
    return seen


def truth(layer: LSTM[Any], x: Tensor, **options: Any) -> np.ndarray:
    weights = [w.astype(np.float64) for w in layer.get_weights()]
    return oracle.forward(x.detach().double().numpy(), *weights, **options).output


@needs_engine
def test_it_is_what_runs(counted: list[str]) -> None:
    layer, x = LSTM(F, U), torch.randn(B, T, F)
    layer(x).sum().backward()
    assert {"kl_run_forward", "kl_run_backward"} <= set(counted)
    with torch.no_grad():
        counted.clear()
        for _ in range(2):
            layer(x)
        assert counted == ["kl_run_forward"] * 2
        for other in (LSTM(F, U, use_cudnn=False), LSTM(F, U, use_cudnn=True)):
            counted.clear()
            other(x)
            assert not counted


@needs_engine
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "grad"])
def test_weights_are_packed_once_and_again_after_a_change(grad: bool, counted: list[str]) -> None:
    layer, x = LSTM(F, U), torch.randn(B, T, F)
    run, pack = ["kl_run_forward"], ["kl_pack_size", "kl_pack", "kl_run_forward"]
    with torch.set_grad_enabled(grad):
        for change, expected in ((False, pack), (False, run), (True, run + pack), (False, run)):
            counted.clear()
            if change:
                layer.lstm.weight_hh_l0.data.mul_(0.5)
            layer(x)
            assert counted == expected


HEADER = (Path(engine.__file__).parent / "native" / "lstm.h").read_text()


@pytest.mark.parametrize("name", ["weights", "forward", "backward"])
def test_the_structures_are_those_of_the_header(name: str) -> None:
    """Each field's name, place and kind; all have eight bytes."""
    body = HEADER[: HEADER.index(f"}} kl_{name};")].rpartition("typedef struct {")[2]
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.S)
    declared = []
    for statement in filter(str.strip, body.split(";")):
        _, _, names = statement.strip().removeprefix("const ").partition(" ")
        for each in names.split(","):
            pointer = each.strip().startswith("*")
            declared.append((each.strip(" *"), ctypes.c_void_p if pointer else ctypes.c_int64))
    structure = {"weights": "_Weights", "forward": "Forward", "backward": "Backward"}[name]
    assert getattr(engine, structure)._fields_ == declared


@needs_engine
def test_a_library_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"KL_INTERFACE = {engine.INTERFACE} " in HEADER
    path = engine._loaded().path
    monkeypatch.setattr(engine, "INTERFACE", engine.INTERFACE + 1)
    monkeypatch.setattr(engine._process, "engine", engine._load(path))
    assert "is of another version; install it again" in (native_status().reason or "")
    assert not native_status().available
    assert LSTM(F, U)(torch.randn(B, T, F)).shape == (B, U)


# Numbers smaller than the smallest normal one


def denormals_kept() -> Tensor:
    """For every thread of torch's: are they not zero as results (the first half), as operands?"""
    bits = torch.full((1 << 21,), 1 << 20, dtype=torch.int32)  # 1.5e-39
    numbers = bits.view(torch.float32)
    small, normal = numbers[: 1 << 20] * 1.0, numbers[1 << 20 :] * 2.0**40
    return torch.cat([small.view(torch.int32), normal.view(torch.int32)]) != 0


@pytest.fixture
def team(request: pytest.FixtureRequest) -> Iterator[int]:
    """Two threads of torch's, or as many as are asked for, which keep denormals."""
    before, count = torch.get_num_threads(), getattr(request, "param", 2)
    torch.set_flush_denormal(False)
    torch.set_num_threads(count)
    assert denormals_kept().all()  # threads that are made now have what this one has
    yield count
    torch.set_flush_denormal(False)
    torch.set_num_threads(before)


def vanishing(batch: int, steps: int) -> tuple[LSTM[Any], Tensor]:
    """A layer whose gradient halves from step to step, or nearly, and its input."""
    torch.manual_seed(21)
    layer: LSTM[Any] = LSTM(F, U)
    for parameter in layer.parameters():
        torch.nn.init.uniform_(parameter, -0.1, 0.1)
    return layer, torch.randn(batch, steps, F, requires_grad=True)


@needs_engine
@needs_flags
@pytest.mark.usefixtures("instructions", "team")
@pytest.mark.parametrize("batch", [1, 67])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_denormals_count_as_zero(dtype: torch.dtype, batch: int) -> None:
    """As in the threads of TensorFlow and XLA, in each of the team; a normal number stays."""
    options: dict[str, Any] = {"return_state": True, "dtype": dtype, "activation": "linear"}
    layer, torchs = LSTM(F, 61, **options), LSTM(F, 61, use_cudnn=False, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    smallest = torch.finfo(dtype).tiny
    c = torch.full((batch, 61), smallest / 8, dtype=dtype)  # as operands and as results
    c[:, ::7] = 8 * smallest
    x, h = torch.zeros(batch, 2, F, dtype=dtype), torch.zeros_like(c)
    _, _, end = layer(x, initial_state=(h, c))
    assert torch.equal(end, torch.where(c < smallest, 0, c / 4))
    c.fill_(smallest)  # as results alone
    assert not layer(x[:, :1], initial_state=(h, c))[2].view(torch.int32).any()
    with torch.no_grad():  # as operands alone: the products are normal
        layer.lstm.weight_ih_l0[2 * 61 : 3 * 61] = smallest / 8
    x, c = torch.full_like(x, 1 / smallest), torch.zeros_like(c)
    assert not layer(x, initial_state=(h, c))[2].view(torch.int32).any()
    torchs.load_state_dict(layer.state_dict())
    assert torchs(x, initial_state=(h, c))[2].all()


@functools.cache
def vanished(masked: bool, batch: int) -> tuple[Tensor | None, Any]:
    """A mask, and the gradients of that layer: the same for each set of instructions."""
    layer, x = vanishing(batch, 251)
    mask = torch.rand(batch, 251) > 0.1 if masked else None
    weights = [w.astype(np.float64) for w in layer.get_weights()]
    options: dict[str, Any] = {} if mask is None else {"mask": mask.numpy()}
    arrays = (x.detach().double().numpy(), *weights)
    return mask, oracle.gradients(*arrays, d_output=np.ones((batch, U)), **options)


@needs_engine
@needs_flags
@pytest.mark.usefixtures("instructions", "team")
@pytest.mark.parametrize("batch", [3, 131], ids=["summed by the engine", "by products"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_gradient_that_vanishes_becomes_zero(masked: bool, batch: int) -> None:
    """None of its numbers is denormal, which would take most of the time; the others are right."""
    layer, x = vanishing(batch, 251)
    mask, true = vanished(masked, batch)
    layer(x, mask=mask).sum().backward()
    assert x.grad is not None
    sizes = x.grad.abs()
    assert not sizes[:, :40].any() and sizes[:, -9:].any()
    bits = x.grad.contiguous().view(torch.int32)
    assert not ((bits & 0x7F800000 == 0) & (bits & 0x7FFFFFFF != 0)).any()
    grad = layer.lstm.weight_hh_l0.grad
    assert grad is not None
    for name, actual, expected in (("x", x.grad, true.x), ("R", grad.T, true.recurrent_kernel)):
        largest = float(np.abs(expected).max())
        assert_parity(actual, expected, bound=1e-5, what=name, scale=largest)


@needs_engine
@needs_flags
@pytest.mark.parametrize(
    ("team", "flushed"),
    [(2, False), (2, True), (3, False)],
    ids=["kept", "the caller's are zero", "a new thread"],
    indirect=["team"],
)
@pytest.mark.parametrize("fails", [False, True], ids=["ends", "fails"])
def test_denormals_are_afterwards_what_they_were(
    team: int, flushed: bool, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For threads, too, that the pool has lost and made again meanwhile."""
    layer, x = vanishing(131, 251)
    product = autograd._add_by_gate
    within: list[bool] = []

    def looking(*arguments: Any) -> None:
        if team == 3 and within == []:
            torch.set_num_threads(2)
            denormals_kept()
            torch.set_num_threads(3)
        within.append(bool(denormals_kept().any()))
        if fails:
            raise MemoryError
        product(*arguments)

    monkeypatch.setattr(autograd, "_add_by_gate", looking)
    torch.set_flush_denormal(flushed)
    before = denormals_kept()
    assert before.any() and before.all() != flushed
    for _ in range(3):
        output = layer(x)
        assert torch.equal(denormals_kept(), before)
        with pytest.raises(MemoryError) if fails else contextlib.nullcontext():
            output.sum().backward()
        assert torch.equal(denormals_kept(), before)
    assert within and not any(within)


@needs_engine
@needs_flags
@pytest.mark.usefixtures("team")
def test_only_where_one_was_met_do_torchs_products_take_them_as_zero(counted: list[str]) -> None:
    """It takes a turn of all threads. The engine restores its own, in small calls too."""
    for batch, steps, expected in ((131, 251, True), (131, 7, False), (3, 251, False)):
        layer, x = vanishing(batch, steps)
        counted.clear()
        layer(x).sum().backward()
        assert ("kl_denormals_are_zero" in counted) == expected
        assert denormals_kept().all()


# Every size, on every set of instructions


@pytest.fixture(params=SETS)
def instructions(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each set of instructions in turn."""
    functions = engine._loaded().functions
    before = functions.kl_chosen()
    assert functions.kl_choose(request.param.encode())
    yield request.param
    assert functions.kl_choose(before)


SIZES = [
    (1, 1, 1, 1),
    (0, 3, 2, 5),
    (2, 3, 4, 5),
    (3, 2, 1, 16),
    (6, 5, 17, 17),
    (7, 11, 5, 33),
    (13, 3, 2, 64),
    (37, 4, 19, 67),
]


@needs_engine
@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_outputs_and_gradients_at_odd_sizes(
    size: tuple[int, ...], dtype: torch.dtype, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, steps, features, units = size
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    rng = np.random.default_rng([1, *size])
    names = ["tanh", "softsign", "relu", "linear"]
    gates = ["sigmoid", "hard_sigmoid", "hard_sigmoid_v2", "tanh"]
    which = units % 4
    layer: LSTM[Any] = LSTM(
        features, units, activation=names[which], recurrent_activation=gates[which],
        return_sequences=True, return_state=True, go_backwards=bool(steps % 2), dtype=dtype,
    )  # fmt: skip
    limit = units**-0.5
    layer.set_weights([rng.uniform(-limit, limit, w.shape) for w in layer.get_weights()])
    mask = rng.random((batch, steps)) < 0.6
    arrays = [rng.normal(size=s) for s in ((batch, steps, features), *2 * ((batch, units),))]
    x, h0, c0 = (torch.tensor(a, dtype=dtype, requires_grad=True) for a in arrays)
    output, h, c = layer(x, initial_state=(h0, c0), mask=torch.tensor(mask))
    cotangents = [rng.normal(size=tuple(t.shape)) for t in (output, h, c)]
    loss = sum(
        (t * torch.tensor(d, dtype=dtype)).sum()
        for t, d in zip((output, h, c), cotangents, strict=True)
    )
    watched = [x, layer.lstm.weight_ih_l0, layer.lstm.weight_hh_l0, layer.lstm.bias_ih_l0, h0, c0]
    found = []
    for few in (0, 2**62):  # the gradients of weights by torch's products, and by the engine
        monkeypatch.setattr(autograd, "_FEW_SUMS", few)
        found.append(torch.autograd.grad(loss, watched, retain_graph=True))
    single = [t.detach().double().numpy() for t in (x, h0, c0)]
    weights = [w.astype(np.float64) for w in layer.get_weights()]
    options = {
        "mask": mask, "h0": single[1], "c0": single[2], "go_backwards": bool(steps % 2),
        "activation": names[which], "recurrent_activation": gates[which],
        "return_sequences": True,
    }  # fmt: skip
    expected = oracle.forward(single[0], *weights, **options)
    true = oracle.gradients(
        single[0], *weights, **options, d_output=cotangents[0], d_h=cotangents[1], d_c=cotangents[2]
    )
    bound = FLOAT64 if dtype == torch.float64 else 2e-6
    for mine, theirs in zip((output, h, c), expected, strict=True):
        assert_parity(mine.detach(), theirs, bound=bound)
    order = (true.x, true.kernel.T, true.recurrent_kernel.T, true.bias, true.h0, true.c0)
    for gradients in found:
        for mine, theirs in zip(gradients, order, strict=True):
            scale = max(1.0, float(np.abs(theirs).max(initial=0)))
            assert_parity(mine / scale, theirs / scale, bound=4 * bound)


@needs_engine
@pytest.mark.parametrize(
    ("group", "case"),
    sampled(EVERY, 0.2, lambda pair: f"{pair[0]}-{pair[1].id}"),
    ids=lambda v: getattr(v, "id", v),
)
def test_gradients_by_products_of_torch_equal_the_oracle(
    group: str, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in calls of a usual size; those of test_parity are so small that the engine adds up."""
    monkeypatch.setattr(autograd, "_FEW_SUMS", 0)
    expected, actual = truth_of(case), ours(case, torch.float64)
    for name, value in expected.items():
        assert_parity(actual[name], value, bound=FLOAT64, what=name)


@needs_engine
def test_small_calls_sum_in_the_engine_and_large_ones_by_products(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rule, and that only what is wanted is computed."""
    sums: list[int] = []
    functions = engine._loaded().functions

    class Noting:
        def __getattr__(self, name: str) -> Any:
            return self.note if name == "kl_run_backward" else getattr(functions, name)

        def note(self, wide: int, calls: Any, count: int) -> int:
            sums.append(calls[0].sums)
            return int(functions.kl_run_backward(wide, calls, count))

    monkeypatch.setattr(engine._process, "engine", engine._loaded()._replace(functions=Noting()))
    for size, expected in (((B, T, F, U), 1), ((64, 50, 32, 32), 0), ((64, 50, 1, 1), 0)):
        layer, x = LSTM(size[2], size[3]), torch.randn(*size[:3], requires_grad=True)
        layer(x).sum().backward()
        assert sums.pop() == expected
    layer, x = LSTM(F, U).requires_grad_(False), torch.randn(B, T, F, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None and all(w.grad is None for w in layer.parameters())
    layer.lstm.bias_ih_l0.requires_grad_(True)
    layer(x.detach()).sum().backward()
    gradients = {name for name, w in layer.named_parameters() if w.grad is not None}
    assert gradients == {"lstm.bias_ih_l0"}
    assert sums == [1, 1]


@needs_engine
@pytest.mark.usefixtures("instructions")
def test_threads_that_share_the_units_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small batch of a large layer is split by units, with a barrier after each step."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    torch.manual_seed(3)
    layer: LSTM[Any] = LSTM(19, 259, return_sequences=True, dtype=torch.float64)
    x = torch.randn(2, 31, 19, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    assert_parity(y, truth(layer, x, return_sequences=True), bound=FLOAT64)
    found = torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])
    with native_engine(False):
        expected = torch.autograd.grad(layer(x).square().sum(), [x, *layer.parameters()])
    for mine, theirs in zip(found, expected, strict=True):
        assert_parity(mine / theirs.abs().max(), theirs / theirs.abs().max(), bound=FLOAT64)


@needs_engine
@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize(
    ("numbers", "name", "bound"),
    [(np.linspace(-30, 30, 20010), name, 2.5e-7) for name in ("tanh", "sigmoid")]
    + [(np.geomspace(1e-30, 1, 20011), "tanh", 2.5e-7)]
    + [(np.linspace(0.17, 0.36, 60013), "tanh", 2.5e-7)],  # where e^2x is first taken apart
)
def test_activations_to_a_few_ulps(numbers: np.ndarray, name: str, bound: float) -> None:
    """With z in the candidate alone and open gates, c is the activation of z."""
    for dtype, limit in ((torch.float32, bound), (torch.float64, 6e-16)):
        layer: LSTM[Any] = LSTM(
            1, 1, activation=name, recurrent_activation="linear", return_state=True, dtype=dtype
        )
        layer.set_weights([np.array(w, float) for w in ([[0, 0, 1, 0]], [[0] * 4], [1, 0, 0, 1])])
        x = torch.tensor(numbers, dtype=dtype).reshape(-1, 1, 1)
        with torch.no_grad():
            _, _, c = layer(x)
        exact = getattr(torch, name)(x.double().flatten())
        error = ((c.double().flatten() - exact) / exact).abs().max()
        if name == "tanh":
            assert error < limit
        else:
            assert (c.double().flatten() - exact).abs().max() < limit


@needs_engine
def test_nan_and_infinity_go_where_they_go_in_torch() -> None:
    x = torch.tensor([0.3, float("nan"), float("inf"), -float("inf"), 1e30, -1e30])
    for name in ("tanh", "sigmoid", "relu", "softsign", "hard_sigmoid", "hard_sigmoid_v2"):
        layer: LSTM[Any] = LSTM(1, 2, activation=name, return_sequences=True)
        with torch.no_grad():
            mine = layer(x.reshape(-1, 1, 1))
            with native_engine(False):
                theirs = layer(x.reshape(-1, 1, 1))
        assert torch.equal(mine.isnan(), theirs.isnan()), name
        assert torch.allclose(mine, theirs, rtol=1e-5, atol=1e-6, equal_nan=True), name


@needs_engine
@given(
    st.integers(0, 9), st.integers(1, 9), st.integers(1, 40), st.booleans(), st.booleans(),
    st.sampled_from(["both", "input", "recurrent"]), st.integers(0, 2**16),
)  # fmt: skip
def test_any_dropout_masks(
    batch: int, steps: int, units: int, by_gate: bool, sequences: bool, where: str, seed: int
) -> None:
    """Against the scan engine, which is held against Keras elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    style = "keras" if by_gate else "keras_3.0"
    there = [where != "recurrent", where != "input"]
    layer: LSTM[Any] = LSTM(
        3, units, return_sequences=sequences, dtype=torch.float64, dropout_style=style,
        dropout=0.3 * there[0], recurrent_dropout=0.4 * there[1],
        implementation=1 if by_gate else 2,
    )  # fmt: skip
    shape = (4, batch) if by_gate else (batch,)
    drawn = [
        torch.bernoulli(torch.full((*shape, n), 0.6, dtype=torch.float64), generator=generator)
        for n in (3, units)
    ]
    masks = DropoutMasks(*(m if here else None for m, here in zip(drawn, there, strict=True)))
    x = torch.randn(batch, steps, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    mask = torch.rand(batch, steps, generator=generator) < 0.7

    def run() -> list[Tensor]:
        y = layer(x, mask=mask, training=True, dropout_masks=masks)
        return [y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])]

    mine = run()
    with native_engine(False):
        theirs = run()
    for a, b in zip(mine, theirs, strict=True):
        assert_parity(a, b, bound=FLOAT64)


def test_dropout_masks_get_their_gradients() -> None:
    layer: LSTM[Any] = LSTM(F, U, recurrent_dropout=0.5, dropout=0.5, dtype=torch.float64)
    masks = [torch.rand(4, B, n, dtype=torch.float64, requires_grad=True) for n in (F, U)]
    x = torch.randn(B, T, F, dtype=torch.float64)

    def run(*given: Tensor) -> Tensor:
        return layer(x, training=True, dropout_masks=DropoutMasks(*given))

    assert torch.autograd.gradcheck(run, masks)


# Old weights are never used


def _in_place(layer: LSTM[Any]) -> None:
    with torch.no_grad():
        layer.lstm.weight_hh_l0.mul_(1.5)


def _data(layer: LSTM[Any]) -> None:
    layer.lstm.weight_hh_l0.data[3, 2] += 1  # raises no version


def _storage(layer: LSTM[Any]) -> None:
    layer.lstm.weight_ih_l0.detach().numpy()[4, 1] -= 1


def _bias(layer: LSTM[Any]) -> None:
    layer.lstm.bias_ih_l0.data[7] = 2


def _second_bias(layer: LSTM[Any]) -> None:
    layer.lstm.bias_hh_l0[2] = 1


def _inference(layer: LSTM[Any]) -> None:
    with torch.inference_mode():
        layer.lstm.weight_ih_l0.add_(0.25)


def _new_parameter(layer: LSTM[Any]) -> None:
    layer.lstm.weight_ih_l0 = torch.nn.Parameter(torch.randn(4 * U, F))


def _state_dict(layer: LSTM[Any]) -> None:
    layer.load_state_dict(LSTM(F, U).state_dict())


def _assigned(layer: LSTM[Any]) -> None:
    layer.load_state_dict(LSTM(F, U).state_dict(), assign=True)


def _to_and_fro(layer: LSTM[Any]) -> None:
    layer.double()
    layer.lstm.weight_hh_l0.data.mul_(0.5)
    layer.float()


def _optimizer(layer: LSTM[Any]) -> None:
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    layer(torch.randn(B, T, F)).sum().backward()
    optimizer.step()


def _set_weights(layer: LSTM[Any]) -> None:
    layer.set_weights([w + 0.1 for w in layer.get_weights()])


def _reset(layer: LSTM[Any]) -> None:
    layer.reset_parameters()


CHANGES: list[Callable[[LSTM[Any]], None]] = [
    _in_place, _data, _storage, _bias, _second_bias, _inference, _new_parameter, _state_dict,
    _assigned, _to_and_fro, _optimizer, _set_weights, _reset,
]  # fmt: skip


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "grad"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__.strip("_"))
def test_changed_weights_are_used_at_once(change: Callable[[Any], None], grad: bool) -> None:
    torch.manual_seed(0)
    layer, x = LSTM(F, U), torch.randn(B, T, F)
    with torch.set_grad_enabled(grad):
        layer(x)
        before = layer(x)
    change(layer)
    with torch.set_grad_enabled(grad):
        after = layer(x)
    assert (after - before).abs().max() > 1e-4
    second = layer.lstm.bias_hh_l0.numpy()
    kernel, recurrent, bias = (w.astype(np.float64) for w in layer.get_weights())
    gates = second.astype(np.float64)  # added where it is not zero
    total = bias if not gates.any() else layer.lstm.bias_ih_l0.detach().double().numpy() + gates
    expected = oracle.forward(x.double().numpy(), kernel, recurrent, total).output
    assert_parity(after.detach(), expected, bound=1e-6)


@needs_engine
def test_a_pack_that_another_thread_replaces_is_kept_while_it_is_read() -> None:
    made: list[Tensor] = []

    class Replaced(engine.Pack):  # by another one whenever it is looked at
        @property
        def memory(self) -> Tensor:  # type: ignore[override]
            made.append(torch.zeros(64, dtype=torch.uint8))
            return made[-1]

        @memory.setter
        def memory(self, value: Any) -> None:
            pass

    layer: LSTM[Any] = LSTM(F, U)
    call = layer._to_compute(None, DropoutMasks(), reverse=False, sequences=False)
    one = engine.Prepared(
        torch.randn(B, T, F), None, None, [*layer.lstm.state_dict().values()], Replaced(), call
    )
    kept = [t.data_ptr() for t in one._kept if t is not None]
    assert one.arguments.pack in kept


@needs_engine
def test_functional_call_and_what_stands_around_it() -> None:
    layer, other = LSTM(F, U, dtype=torch.float64), LSTM(F, U, dtype=torch.float64)
    x = torch.randn(B, T, F, dtype=torch.float64)
    own, theirs = layer(x), other(x)
    given_parameters = {k: v.detach() for k, v in other.named_parameters()}
    for _ in range(2):
        result = torch.func.functional_call(layer, given_parameters, (x,))
        assert_parity(result, theirs, bound=FLOAT64)
        assert_parity(layer(x), own, bound=FLOAT64)


def test_a_copy_and_a_pickle_have_weights_of_their_own() -> None:
    layer, x = LSTM(F, U), torch.randn(B, T, F)
    with torch.no_grad():
        expected = layer(x)
        for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(again(x), expected)
            again.lstm.weight_hh_l0.mul_(2)
            assert not torch.equal(again(x), expected)
            assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("sequences", [False, True])
def test_an_output_that_was_written_to_is_not_used_in_the_backward(sequences: bool) -> None:
    layer: LSTM[Any] = LSTM(F, U, return_sequences=sequences, return_state=True)
    y, h, _ = layer(torch.randn(B, T, F))
    kept = h.detach().clone()
    y.mul_(2)
    assert torch.equal(h, kept)
    if sequences and STATUS.available:
        with pytest.raises(RuntimeError, match="inplace operation"):
            y.sum().backward()


def test_weights_that_change_before_the_backward_are_an_error() -> None:
    layer: LSTM[Any] = LSTM(F, U)
    loss = layer(torch.randn(B, T, F)).sum()
    _in_place(layer)
    with pytest.raises(RuntimeError, match="inplace operation"):
        loss.backward()


# What torch does around it


@pytest.mark.parametrize(
    ("masked", "reverse"),
    amount([(False, False), (True, True)], [*itertools.product((False, True), repeat=2)]),
)
def test_second_derivatives(masked: bool, reverse: bool) -> None:
    torch.manual_seed(2)
    layer: LSTM[Any] = LSTM(
        2, 3, dtype=torch.float64, go_backwards=reverse, return_sequences=True, return_state=True
    )
    x = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    state = tuple(torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    mask = torch.tensor([[1, 0, 1, 1], [0, 1, 1, 0]]) if masked else None

    def run(*tensors: Tensor) -> Any:
        names = ("lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.bias_ih_l0")
        x, h, c, *weights = tensors
        parameters = dict(zip(names, weights, strict=True))
        options = {"mask": mask, "initial_state": (h, c)}
        return torch.func.functional_call(layer, parameters, (x,), options)

    given_tensors = (x, *state, *layer.parameters())
    assert torch.autograd.gradcheck(run, given_tensors)
    assert torch.autograd.gradgradcheck(run, given_tensors)


def test_a_graph_that_is_kept_gives_the_same_gradients_again() -> None:
    layer = LSTM(F, U, dtype=torch.float64)
    loss = layer(torch.randn(B, T, F, dtype=torch.float64)).square().sum()
    first = torch.autograd.grad(loss, list(layer.parameters()), retain_graph=True)
    again = torch.autograd.grad(loss, list(layer.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize(
    "within",
    [
        lambda: torch.autocast("cpu", torch.bfloat16),
        torch.overrides.BaseTorchFunctionMode,
        torch.autograd.forward_ad.dual_level,
    ],
    ids=["autocast", "mode", "dual"],
)
def test_what_must_see_operators_sees_them(within: Any, counted: list[str]) -> None:
    layer, x = LSTM(F, U), torch.randn(B, T, F)
    with torch.no_grad():
        layer(x)
        counted.clear()
        with within():
            layer(x)
            layer(x, mask=torch.ones(B, T))
    assert not counted


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
def test_a_trace_and_a_class_of_tensors_see_operators(counted: list[str]) -> None:
    class Mine(torch.Tensor):
        pass

    layer, x = LSTM(F, U), torch.randn(B, T, F)
    with torch.no_grad():
        expected = layer(x)
        counted.clear()
        assert_parity(torch.Tensor(layer(x.as_subclass(Mine))), expected, bound=1e-6)
        traced = torch.jit.trace(layer, (x,), check_trace=False)
        assert not counted
        other = torch.randn(B, T, F)
        assert_parity(traced(other), layer(other), bound=1e-6)


def test_what_the_library_answers_is_said() -> None:
    engine.check(0)
    with pytest.raises(MemoryError, match="no memory"):
        engine.check(2)
    with pytest.raises(RuntimeError, match="unknown status 1"):
        engine.check(1)


@needs_engine
def test_a_default_device_does_not_keep_it_away(counted: list[str]) -> None:
    layer, x = LSTM(F, U), torch.randn(B, T, F)
    with torch.device("meta"):
        layer(x, mask=torch.ones(B, T, device="cpu")).sum().backward()
    assert {"kl_run_forward", "kl_run_backward"} <= set(counted)
    assert layer.lstm.weight_hh_l0.grad is not None and not layer.lstm.weight_hh_l0.grad.is_meta


def test_several_python_threads_at_once() -> None:
    layer, x = LSTM(17, 67, return_sequences=True), torch.randn(9, 23, 17)
    layers = [layer, LSTM(17, 67, return_sequences=True)]
    with torch.no_grad():
        expected = [one(x) for one in layers]
    wrong: list[int] = []

    def work(number: int) -> None:
        one = layers[number % 2]
        with torch.no_grad():
            for _ in range(50):
                if not torch.equal(one(x), expected[number % 2]):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and not any(thread.is_alive() for thread in threads)


FORKING = """
import os, torch
from kerasish_lstm import LSTM
torch.set_num_threads(2)
layer, x = LSTM(64, 128), torch.randn(32, 50, 64)
torch.mm(torch.randn(999, 999), torch.randn(999, 999))  # torch's threads are running
loss = layer(x).sum(); loss.backward()
expected = layer(x).detach()
before = [w.grad for w in layer.parameters()]
layer.zero_grad()
child = os.fork()
if child == 0:
    again = layer(x)
    again.backward(torch.ones_like(again))
    torch.set_num_threads(1)  # for what compares
    fine = torch.allclose(again.detach(), expected, atol=1e-6)
    for one, w in zip(before, layer.parameters()):
        fine = fine and torch.allclose(one, w.grad, atol=1e-3)
    os._exit(0 if fine else 7)
_, status = os.waitpid(child, 0)
raise SystemExit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_it_works_after_a_fork() -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKING]
    assert subprocess.run(command, cwd=ROOT, timeout=120, check=False).returncode == 0


def test_it_can_be_turned_off(counted: list[str]) -> None:
    layer, x = LSTM(F, U), torch.randn(B, T, F)
    layer(x)
    counted.clear()
    with native_engine(False):
        layer(x)
        with torch.no_grad():
            layer(x)
        assert layer.engine == "fused" and not native_status().available
        assert "turned off" in str(layer.why_not_native())
    assert not {"kl_run_forward", "kl_run_backward"} & set(counted)
    code = "import kerasish_lstm as k; print(k.LSTM(2, 3).engine, k.native_status().available)"
    environment = {**os.environ, "KERASISH_LSTM_NATIVE": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["fused", "False"], done.stderr


@pytest.mark.parametrize(
    ("keywords", "reason"),
    [
        ({"activation": "gelu"}, "activation is gelu, the native engine has linear, tanh"),
        ({"recurrent_activation": torch.sin}, "recurrent_activation is sin"),
        ({"use_cudnn": True}, "use_cudnn=True"),
        ({"use_cudnn": False}, "use_cudnn=False"),
    ],
    ids=["gelu", "callable", "fused", "scan"],
)
def test_the_reason_is_said(keywords: dict[str, Any], reason: str) -> None:
    layer: LSTM[Any] = LSTM(F, U, **keywords)
    assert str(layer.why_not_native()).startswith(reason)
    assert layer.engine != "native"


@needs_engine
@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize("batch", [1, 9, 33])
def test_both_directions_of_a_bidirectional_run_at_once(
    batch: int, threads: int, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    layer: LSTM[Any] = LSTM(F, 67, return_sequences=True, dtype=torch.float64)
    both = Bidirectional(layer)
    x = torch.randn(batch, 17, F, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(batch, 17) < 0.6

    def run() -> list[Tensor]:
        y = both(x, mask=mask)
        with torch.no_grad():
            again = both(x)
        return [y, again, *torch.autograd.grad(y.square().sum(), [x, *both.parameters()])]

    counted.clear()
    mine = run()
    assert counted.count("kl_run_forward") == 2  # of both directions together, twice
    assert counted.count("kl_run_backward") == 1
    with native_engine(False):
        theirs = run()
    for a, b in zip(mine, theirs, strict=True):
        scale = max(1.0, float(b.detach().abs().max()))
        assert_parity(a / scale, b.detach() / scale, bound=FLOAT64)


@needs_engine
@pytest.mark.parametrize("rule", ["both", "forward", "backward", "state"])
@pytest.mark.parametrize("gates", [(4, 4), (1, None), (4, 1), (None, 4)], ids=str)
@pytest.mark.parametrize("few", [0, 2**62], ids=["products", "sums"])
def test_the_backward_of_both_directions(
    rule: str, gates: tuple[int | None, int | None], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of unlike dropout masks, of one direction alone, in several chunks of steps."""
    monkeypatch.setattr(autograd, "_FEW_SUMS", few)
    monkeypatch.setattr(autograd, "_CHUNK", 8 * 2 * B * 4 * U * 3)  # three steps
    torch.manual_seed(5)
    layers: list[LSTM[Any]] = [
        LSTM(
            F, U, return_sequences=True, return_state=True, dtype=torch.float64,
            go_backwards=backwards, recurrent_dropout=0.5 if gate else 0.0,
            dropout_style="keras_3.0" if gate == 1 else "keras",
        )
        for backwards, gate in zip((False, True), gates, strict=True)
    ]  # fmt: skip
    both = Bidirectional(layers[0], merge_mode=None, backward_layer=layers[1]).train()
    x = torch.randn(B, T, F, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(B, T) < 0.7
    shapes = {None: None, 1: (B, U), 4: (4, B, U)}
    masks = [
        DropoutMasks(recurrent=None if shapes[g] is None else torch.rand(shapes[g]).double())
        for g in gates
    ]
    states = [torch.randn(B, U, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    watched = [x, *states, *both.parameters()]

    def run() -> list[Tensor | None]:
        forward, backward, h, c, _, other_c = both(
            x, initial_state=states, mask=mask, dropout_masks=masks
        )
        losses = {
            "both": forward.square().sum() + (backward * 3).square().sum(),
            "forward": forward.square().sum(),
            "backward": backward.square().sum(),
            "state": h.square().sum() + other_c.square().sum() + c.sum(),
        }
        return list(torch.autograd.grad(losses[rule], watched, allow_unused=True))

    mine = run()
    with native_engine(False):
        theirs = run()
    assert any(g is not None for g in mine)
    for name, a, b in zip([*"xhchc", *6 * "w"], mine, theirs, strict=True):
        if a is None or b is None:
            assert a is None and (b is None or not b.any()), name
            continue
        scale = max(1.0, float(b.abs().max()))
        assert_parity(a / scale, b / scale, bound=FLOAT64, what=name)


@pytest.mark.parametrize("direction", ["forward_layer", "backward_layer"])
def test_hooks_of_a_direction_fire(direction: str) -> None:
    both, x, seen = Bidirectional(LSTM(F, U)), torch.randn(B, T, F), list[str]()
    expected = both(x)
    getattr(both, direction).register_forward_hook(lambda *_: seen.append("after"))
    getattr(both, direction).register_forward_pre_hook(lambda *_: seen.append("before"))
    assert torch.allclose(both(x), expected, atol=1e-6)
    assert seen == ["before", "after"]


# What a reviewer found


def _gradients_of(layer: LSTM[Any], loss: Callable[[], Tensor]) -> list[Tensor]:
    layer.zero_grad()
    loss().backward()
    return [w.grad.clone() for w in layer.parameters() if w.grad is not None]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiled_autograd_gives_the_gradients() -> None:
    from torch._dynamo import compiled_autograd

    layer, x = LSTM(F, U, return_sequences=True), torch.randn(B, T, F)
    expected = _gradients_of(layer, lambda: layer(x).sum())
    layer.zero_grad()
    loss = layer(x).sum()
    with compiled_autograd._enable(lambda graph: torch.compile(graph, backend="eager")):
        loss.backward()
    for w, e in zip(layer.parameters(), expected, strict=True):
        assert w.grad is not None
        assert_parity(w.grad, e, bound=1e-6)


@needs_engine
def test_weights_written_while_they_are_packed_are_found_later() -> None:
    """The pack is made of the copy that is compared: of nothing that has no copy."""
    torch.manual_seed(0)
    for pause in range(8):
        layer, x = LSTM(512, 512).requires_grad_(False), torch.randn(1, 2, 512)
        thread = threading.Thread(target=layer, args=(x,))
        thread.start()
        time.sleep(0.001 * pause)
        layer.lstm.weight_hh_l0.mul_(0.5)
        layer.lstm.weight_ih_l0.mul_(0.5)
        thread.join()
        for _ in range(2):
            assert_parity(layer(x), truth(layer, x), bound=2e-6)


@needs_engine
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "grad"])
def test_weights_written_between_packing_and_the_call(
    grad: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pack that was made for the call is used, and found to be old at the next."""
    layer, x = LSTM(F, U), torch.randn(B, T, F)
    before = truth(layer, x)
    functions, packs = engine._loaded().functions, []

    class Writing:
        def __getattr__(self, name: str) -> Any:
            return self.pack if name == "kl_pack" else getattr(functions, name)

        def pack(self, *arguments: Any) -> int:
            result = functions.kl_pack(*arguments)
            if not packs:
                layer.lstm.weight_hh_l0.data.mul_(0.5)
            packs.append(result)
            return int(result)

    monkeypatch.setattr(engine._process, "engine", engine._loaded()._replace(functions=Writing()))
    with torch.set_grad_enabled(grad):
        assert_parity(layer(x).detach(), before, bound=1e-6)
        assert_parity(layer(x).detach(), truth(layer, x), bound=1e-6)
    assert len(packs) == 2


@needs_engine
def test_weights_that_another_thread_goes_on_writing_are_no_error() -> None:
    layer, x = LSTM(256, 256).requires_grad_(False), torch.randn(4, 8, 256)
    running = True

    def write() -> None:
        while running:
            layer.lstm.weight_hh_l0.mul_(1.0000001)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(30):
            layer(x)
    finally:
        running = False
        thread.join()
    assert_parity(layer(x), truth(layer, x), bound=2e-6)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_hooks_of_its_torch_lstm_run() -> None:
    """weight_norm and pruning compute the weight in one; no engine that leaves it out is used."""
    layer, x = LSTM(F, U), torch.randn(B, T, F)
    torch.nn.utils.weight_norm(layer.lstm, "weight_hh_l0")
    assert "a hook on its nn.LSTM" in str(layer.why_not_native())
    with torch.no_grad():
        layer(x)
        before = layer(x)
        layer.lstm.weight_hh_l0_g.mul_(3)
        assert (layer(x) - before).abs().max() > 1e-3
    for _ in range(2):
        layer(x).sum().backward()
    layer, seen = LSTM(F, U), list[str]()
    layer.lstm.register_forward_hook(lambda *_: seen.append("after"))
    with torch.no_grad():
        for _ in range(2):
            layer(x)
    assert seen == ["after"] * 2


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_every_kind_of_hook_and_a_forward_of_ones_own_run() -> None:
    mask, x = torch.ones(B, T, dtype=torch.bool), torch.randn(B, T, F)
    every = torch.nn.modules.module

    def run(hook: Callable[[LSTM[Any], Callable[..., None]], Any]) -> None:
        for options in ({}, {"mask": mask}):
            layer, see = LSTM(F, U), Mock(return_value=None)
            handle = hook(layer, see)
            for _ in range(2):
                layer(x, **options).sum().backward()
            if handle is not None:
                handle.remove()
            assert see.call_count >= 2, options

    def of_inner(m: Any, seen: list[Any], *_: Any) -> None:
        if type(m) is torch.nn.LSTM:
            seen()  # type: ignore[operator]

    run(lambda layer, see: layer.lstm.register_forward_pre_hook(see))
    run(lambda layer, see: layer.lstm.register_full_backward_hook(see))
    run(lambda layer, see: layer.lstm.register_full_backward_pre_hook(see))
    run(lambda _, see: every.register_module_forward_hook(lambda m, *_: of_inner(m, see)))
    run(lambda _, see: every.register_module_forward_pre_hook(lambda m, *_: of_inner(m, see)))
    run(lambda _, see: every.register_module_full_backward_hook(lambda m, *_: of_inner(m, see)))

    def put_on(layer: LSTM[Any], see: Callable[..., None]) -> None:
        def forward(*given: Any) -> Any:
            see()
            return torch.nn.LSTM.forward(layer.lstm, *given)

        layer.lstm.forward = forward  # type: ignore[method-assign]

    run(put_on)


@needs_engine
@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=4)))
def test_a_masked_call_is_as_quick_as_a_plain_one(
    flags: tuple[bool, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("return_sequences", "return_state", "go_backwards", "zero_output_for_mask")
    layer, x = LSTM(F, U, **dict(zip(names, flags, strict=True))), torch.randn(B, T, F)
    mask = torch.rand(B, T) < 0.5
    mask[0], mask[1], mask[2, 0], mask[2, -1] = False, True, False, False
    x[~mask] = torch.nan

    def results(mask: Tensor) -> list[Tensor]:
        layer.zero_grad()
        given = x.clone().requires_grad_()
        found = layer(given, mask=mask)
        outputs = list(found) if isinstance(found, tuple) else [found]
        sum((n + 1) * y.square().sum() for n, y in enumerate(outputs)).backward()
        gradients = [given.grad, *(p.grad for p in layer.parameters())]
        with torch.no_grad():
            again = layer(x, mask=mask)
        return [*outputs, *gradients, *(again if isinstance(again, tuple) else [again])]

    expected = results(mask.to(torch.uint8))  # checked and cast at length
    monkeypatch.setattr(LSTM, "_given", None)
    wide = torch.ones(B, 2 * T, dtype=torch.bool)
    wide[:, ::2] = mask
    for quick in (mask, wide[:, ::2]):
        for found, one in zip(results(quick), expected, strict=True):
            assert torch.equal(found, one)


@needs_engine
@pytest.mark.parametrize("quick", [False, True])
def test_masks_that_are_written_to_before_the_backward(quick: bool) -> None:
    layer, x = (
        LSTM(F, U, return_sequences=True, recurrent_dropout=0.0 if quick else 0.5).train(),
        torch.randn(B, T, F),
    )
    given = None if quick else DropoutMasks(recurrent=torch.ones(4, B, U))
    mask = torch.ones(B, T, dtype=torch.bool)
    mask[:, 4:] = False

    def loss(changed: bool) -> Tensor:
        mine = mask.clone()
        y = layer(x, mask=mine, dropout_masks=given)
        if changed:
            mine.fill_(True)
        return y.sum()

    for found, expected in zip(
        *(_gradients_of(layer, lambda c=c: loss(c)) for c in (True, False)), strict=True
    ):
        assert torch.equal(found, expected)
    if given is None:
        return
    y = layer(x, mask=mask, dropout_masks=given)
    assert given.recurrent is not None
    given.recurrent.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@needs_engine
@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_a_nan_of_any_bits_stays_one(dtype: torch.dtype, activation: str) -> None:
    bits = {
        torch.float32: (torch.int32, 0x7FC00001),
        torch.float64: (torch.int64, 0x7FF80000000007A2),
    }
    kind, value = bits[dtype]
    missing = torch.tensor([value], dtype=kind).view(dtype)  # the second is R's NA
    layer: LSTM[Any] = LSTM(
        F,
        U,
        activation=activation,
        recurrent_activation="sigmoid",
        return_sequences=True,
        dtype=dtype,
    )
    x = torch.zeros(1, T, F, dtype=dtype)
    x[0, 0, 0] = missing[0]
    with torch.no_grad():
        assert layer(x).isnan().all()
        layer.lstm.bias_ih_l0[3 * U :] = missing
        assert layer(torch.zeros_like(x)).isnan().all()


def test_second_derivatives_do_not_compute_masked_steps_from_the_state() -> None:
    layer: LSTM[Any] = LSTM(2, 2, activation="relu", return_sequences=True)
    with torch.no_grad():
        layer.lstm.weight_hh_l0.fill_(10.0)
        layer.lstm.weight_ih_l0.fill_(1.0)
    x = torch.ones(1, 4, 2, requires_grad=True)
    state = (torch.zeros(1, 2), torch.full((1, 2), 1e38))
    y = layer(x, initial_state=state, mask=torch.tensor([[True, False, False, False]]))
    for again in (True, False):
        found = torch.autograd.grad(
            y.sum() * 1e-30, [x, *layer.parameters()], create_graph=again, retain_graph=True
        )
        assert all(t.isfinite().all() for t in found)


@needs_engine
def test_the_second_bias() -> None:
    """It gets a gradient of its own where it wants one, and quick calls see that."""
    layer, x = LSTM(F, U), torch.randn(B, T, F)
    layer.lstm.bias_hh_l0.requires_grad_(True)
    first, second = torch.autograd.grad(
        layer(x).sum(), [layer.lstm.bias_ih_l0, layer.lstm.bias_hh_l0]
    )
    assert torch.equal(first, second) and first.data_ptr() != second.data_ptr()
    layer.lstm.bias_hh_l0.requires_grad_(False)
    layer.requires_grad_(False)
    layer.lstm.bias_hh_l0.requires_grad_(True)
    assert all(layer(x).requires_grad for _ in range(3))


class Tripled(torch.nn.Module):
    def forward(self, bias: Tensor) -> Tensor:
        return 3 * bias


def _another(layer: LSTM[Any]) -> None:
    layer.lstm = torch.nn.LSTM(F, U, batch_first=True)  # type: ignore[assignment]


def _a_parameter(layer: LSTM[Any]) -> None:
    del layer.lstm._buffers["bias_hh_l0"]
    layer.lstm.bias_hh_l0 = torch.nn.Parameter(torch.randn(4 * U))


def _a_plain_tensor(layer: LSTM[Any]) -> None:
    del layer.lstm._buffers["bias_hh_l0"]
    layer.lstm.__dict__["bias_hh_l0"] = torch.randn(4 * U)


def _parametrized(layer: LSTM[Any]) -> None:
    layer.lstm.bias_hh_l0.normal_()
    torch.nn.utils.parametrize.register_parametrization(layer.lstm, "bias_hh_l0", Tripled())


@pytest.mark.parametrize("put", [_another, _a_parameter, _a_plain_tensor, _parametrized])
def test_a_second_bias_of_any_kind_counts(put: Callable[[LSTM[Any]], None]) -> None:
    layer, x = LSTM(F, U), torch.randn(B, T, F)
    with torch.no_grad():
        layer.lstm.bias_ih_l0.normal_()
        layer(x)
        put(layer)
        lstm = layer.lstm
        weights = [lstm.weight_ih_l0.t(), lstm.weight_hh_l0.t(), lstm.bias_ih_l0 + lstm.bias_hh_l0]
    arrays = [w.detach().double().numpy() for w in weights]
    expected = oracle.forward(x.double().numpy(), *arrays).output
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            for _ in range(2):
                assert_parity(layer(x).detach(), expected, bound=2e-6)


class Growing(torch.nn.Module):
    """Another weight at each reading, as under DropConnect."""

    count = 0

    def forward(self, weight: Tensor) -> Tensor:
        self.count += 1
        return weight * self.count


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0"])
def test_a_weight_that_is_computed_at_each_reading_is_read_once(name: str) -> None:
    layer, x = LSTM(F, U, dtype=torch.float64), torch.randn(B, T, F, dtype=torch.float64)
    plain = copy.deepcopy(layer)
    growing = Growing()
    torch.nn.utils.parametrize.register_parametrization(layer.lstm, name, growing)
    original = layer.lstm.parametrizations[name].original  # type: ignore[index, union-attr]
    begin = growing.count
    y = layer(x)
    (found,) = torch.autograd.grad(y.sum(), [original])
    matches = 0
    for count in range(begin, growing.count + 1):  # of which reading is the result?
        with torch.no_grad():
            getattr(plain.lstm, name).copy_(original * count)
        expected = plain(x)
        if torch.allclose(expected, y, atol=1e-12):
            (gradient,) = torch.autograd.grad(expected.sum(), [getattr(plain.lstm, name)])
            assert torch.allclose(found, gradient * count, atol=1e-12)
            matches += 1
    assert matches == 1


@needs_engine
@pytest.mark.parametrize("masked", [False, True])
def test_hooks_of_saved_tensors_may_change_their_strides_and_nothing_else(masked: bool) -> None:
    layer, x = LSTM(F, U, return_sequences=True), torch.randn(B, T, F)
    mask = torch.rand(B, T) < 0.7 if masked else None
    expected = _gradients_of(layer, lambda: layer(x, mask=mask).sum())

    def hooked(
        pack: Callable[[Tensor], Tensor], unpack: Callable[[Tensor], Tensor]
    ) -> list[Tensor]:
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            loss = layer(x, mask=mask).sum()
        return _gradients_of(layer, lambda: loss)

    turned = hooked(lambda t: t.transpose(0, -1).contiguous(), lambda t: t.transpose(0, -1))
    for one, other in zip(turned, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    seen: list[Tensor] = []
    hooked(lambda t: seen.append(t) or t, lambda t: t)  # type: ignore[func-returns-value]
    sizes = {tuple(t.shape) for t in seen}
    assert {(T, B, U), (T, B, 4 * U), (T + 1, B, U)} <= sizes and ((B, T) in sizes) == masked
    layer.zero_grad()
    big = (T, B, 4 * U)
    with pytest.raises(RuntimeError, match=r"unpack_hook .* must undo its pack_hook"):
        hooked(lambda t: t.bfloat16() if t.shape == big else t, lambda t: t)


@needs_engine
@pytest.mark.parametrize("which", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "x"])
@pytest.mark.parametrize("called", [False, True])
def test_memory_that_has_been_freed_is_said(which: str, called: bool) -> None:
    """As FSDP does with weights between the calls."""
    state = torch.zeros(B, U), torch.zeros(B, U)
    for options in ({}, {"mask": torch.ones(B, T, dtype=torch.bool)}, {"initial_state": state}):
        layer, x = LSTM(F, U), torch.randn(2 * B, T, F)[B:]  # not at the storage's begin
        if called:
            layer(x, **options)
        tensor = x if which == "x" else getattr(layer.lstm, which)
        tensor.untyped_storage().resize_(0)
        for grad in (True, False):
            with torch.set_grad_enabled(grad), pytest.raises(RuntimeError, match="has been freed"):
                layer(x, **options)


def test_what_torch_knows_to_be_zero_is_read_by_torch(counted: list[str]) -> None:
    layer, zeros = LSTM(F, U, activation="relu"), torch.zeros(B, T, F)
    expected = layer(zeros)
    counted.clear()
    assert torch.allclose(layer(torch._efficientzerotensor(B, T, F)), expected, atol=1e-6)
    assert "kl_run_forward" not in counted


@needs_engine
def test_contexts_of_two_threads_that_overlap() -> None:
    first, second = native_engine(False), native_engine(False)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not native_status().available
    with native_engine(True):
        assert native_status().available
    second.__exit__(None, None, None)
    assert native_status().available


@needs_engine
def test_a_weight_on_another_device_is_refused_by_torch() -> None:
    layer, x = LSTM(F, U), torch.randn(B, T, F)
    with torch.no_grad():
        layer(x)
        layer(x)
        layer.lstm.weight_hh_l0 = torch.nn.Parameter(layer.lstm.weight_hh_l0.to("meta"))
        with pytest.raises(RuntimeError):
            layer(x)


@needs_engine
def test_negated_views_in_the_backward() -> None:
    layer, x = LSTM(F, U, recurrent_dropout=0.5, implementation=1).train(), torch.randn(B, T, F)
    x.requires_grad_(True)
    mask = torch.rand(4, B, U)

    def found(recurrent: Tensor) -> list[Tensor]:
        y = layer(x, dropout_masks=DropoutMasks(recurrent=recurrent))
        return list(torch.autograd.grad(y.sum(), [x, *layer.parameters()]))

    expected = found(mask)
    for a, b in zip(found(torch._neg_view(-mask)), expected, strict=True):
        assert torch.equal(a, b)
    weight = layer.lstm.weight_hh_l0.detach()
    layer.lstm.weight_hh_l0 = torch.nn.Parameter(torch._neg_view(-weight))
    with torch.no_grad():
        for _ in range(2):  # the second is a quick one
            assert_parity(layer.eval()(x), truth(layer, x), bound=2e-6)
    layer.train()
    for a, b in zip(found(mask)[:1], expected[:1], strict=True):
        assert_parity(a, b, bound=1e-6)


@needs_engine
@pytest.mark.parametrize("masked", [False, True])
def test_batched_gradients(masked: bool) -> None:
    layer: LSTM[Any] = LSTM(F, U, return_sequences=True, dtype=torch.float64)
    x = torch.randn(B, T, F, dtype=torch.float64, requires_grad=True)
    y = layer(x, mask=torch.rand(B, T) < 0.7 if masked else None)
    given = torch.randn(3, *y.shape, dtype=torch.float64)
    watched = [x, *layer.parameters()]
    (*found,) = torch.autograd.grad(y, watched, given, is_grads_batched=True, retain_graph=True)
    for n in range(3):
        one = torch.autograd.grad(y, watched, given[n], retain_graph=True)
        for a, b in zip(found, one, strict=True):
            assert_parity(a[n], b, bound=FLOAT64)


@needs_engine
@pytest.mark.parametrize("masked", [False, True])
def test_autocast_around_the_backward_alone_changes_nothing(masked: bool) -> None:
    layer, x = LSTM(F, U, return_sequences=True), torch.randn(B, T, F, requires_grad=True)
    y = layer(x, mask=torch.rand(B, T) < 0.7 if masked else None)
    (expected,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    loss = y.sum()
    with torch.autocast("cpu"):
        (found,) = torch.autograd.grad(loss, x)
    assert torch.equal(found, expected)


def test_directions_of_two_dtypes() -> None:
    both = Bidirectional(
        LSTM(F, U), backward_layer=LSTM(F, U, go_backwards=True, dtype=torch.float64)
    )
    x = torch.randn(B, T, F)
    with native_engine(False):
        expected = both(x)
    assert_parity(both(x), expected.detach(), bound=2e-6)


@pytest.mark.filterwarnings("ignore:The tensor attributes self.lstm._flat_weights")  # torch's own
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("options", [{"use_cudnn": False}, {}, {"activation": "relu"}])
def test_an_export_is_of_an_engine_of_torch(
    options: dict[str, Any], strict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine._process, "engine", None)  # as in a process that has just begun
    layer, x = LSTM(F, U, **options).eval(), torch.randn(B, T, F)
    exported = torch.export.export(layer, (x,), strict=strict)
    assert_parity(exported.module()(x), layer(x).detach(), bound=1e-6)


@needs_engine
def test_rows_are_dealt_out_in_linear_time() -> None:
    """Lengths that ascend were the worst of an insertion."""
    layer, times = LSTM(1, 1).requires_grad_(False), []
    for batch in (20_000, 80_000):
        mask = torch.arange(30) < torch.arange(batch).mul(30).div(batch).unsqueeze(1)
        x = torch.randn(batch, 30, 1)
        layer(x, mask=mask)
        begun = time.process_time()
        layer(x, mask=mask)
        times.append(time.process_time() - begun)
    assert times[1] < 8 * times[0] + 0.05  # quadratic would be 16


# Whatever a user hands over, C reads no memory that is not there


def test_what_torch_would_refuse_is_not_handed_to_c(counted: list[str]) -> None:
    x = torch.randn(B, T, F)
    for name, value in (
        ("weight_ih_l0", torch.randn(4 * U, F + 1)),
        ("weight_hh_l0", torch.randn(4 * U, U - 1)),
        ("bias_ih_l0", torch.randn(3)),
        ("weight_hh_l0", torch.randn(4 * U, U, dtype=torch.float64)),
        ("bias_ih_l0", torch.randn(4 * U, dtype=torch.float64)),
    ):
        layer: LSTM[Any] = LSTM(F, U)
        with torch.no_grad():
            layer(x)  # it has a pack
            setattr(layer.lstm, name, torch.nn.Parameter(value))
            counted.clear()
            with contextlib.suppress(RuntimeError, ValueError):  # torch's own answer
                layer(x)
        with contextlib.suppress(RuntimeError, ValueError):
            layer(x)
        assert not counted, name


def test_a_mask_that_is_wrong_is_not_handed_to_c(counted: list[str]) -> None:
    layer, x = LSTM(F, U), torch.randn(B, T, F)
    layer(x)  # it has a pack
    counted.clear()
    for mask in (
        torch.ones(B, T + 1, dtype=torch.bool),
        torch.ones(B + 1, T, dtype=torch.bool),
        torch.ones(T, dtype=torch.bool),
        torch.ones(B, T, dtype=torch.bool, device="meta"),
        [[True] * T] * B,
    ):
        with pytest.raises(InputError, match="mask"):
            layer(x, mask=mask)  # type: ignore[arg-type]
    assert not counted


def test_a_negated_view_and_strange_strides() -> None:
    layer: LSTM[Any] = LSTM(F, U)
    z = torch.randn(T, B, F, 2, dtype=torch.float64).float()
    views = [
        torch.view_as_complex(z).conj().imag.transpose(0, 1),  # its sign is a flag
        z[..., 0].transpose(0, 1),
        torch.randn(B, F, T).transpose(1, 2),
        torch.randn(1, 1, F).expand(B, T, F),
        torch.randn(B, T, 2 * F)[:, ::2, ::2],
    ]
    for x in views:
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                result = layer(x)
            assert_parity(result.detach(), truth(layer, x.resolve_neg()), bound=2e-6)


@needs_engine
def test_a_mask_that_is_written_meanwhile_lets_no_thread_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two threads that share the units must agree on which steps count, whatever is there later."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    layer: LSTM[Any] = LSTM(64, 64)
    x, mask = torch.randn(1, 300, 64), torch.ones(1, 300, dtype=torch.bool)
    done = threading.Event()

    def calls() -> None:
        with torch.no_grad():
            for _ in range(300):
                layer(x, mask=mask)
        done.set()

    thread = threading.Thread(target=calls, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not done.is_set() and time.monotonic() < end:
        mask.logical_not_()
    assert done.is_set(), "a call has not ended"


# The C++ alone, under the sanitizers


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")
@pytest.mark.parametrize("rows", [3, 6])
def test_the_sanitizers_find_nothing(rows: int, pytestconfig: pytest.Config) -> None:
    """Addresses and undefined behaviour, over odd sizes, masks, dropout, and both directions."""
    assert COMPILER is not None
    sources = ROOT / "kerasish_lstm" / "native"
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    flags = ["-std=c++17", amount("-O0", "-O1"), "-g", *sanitizers, "-Wno-psabi", "-pthread"]
    flags += ["-DKL_SET=kl_base", "-DKL_BYTES=16", "-DKL_ALWAYS_SPLIT", f"-I{sources}"]

    def compiled(name: str, *files: Path, more: tuple[str, ...] = ()) -> Path:
        """What the compiler makes of the files, or has made of the same ones in an earlier run."""
        command = [COMPILER, *flags, *more, *map(str, files)]
        version = subprocess.run([COMPILER, "--version"], capture_output=True, check=True).stdout
        key = hashlib.sha256(repr(command).encode() + version)
        for file in (*sorted(sources.glob("*.h")), *files):
            key.update(file.read_bytes())
        folder = pytestconfig.cache.mkdir("sanitized")
        made, new = folder / f"{name}-{key.hexdigest()}", folder / f".{name}.{os.getpid()}"
        if not made.exists():
            done = subprocess.run(
                [*command, "-o", str(new)], capture_output=True, text=True, check=False
            )
            if "cannot find -lasan" in done.stderr or "libclang_rt" in done.stderr:
                pytest.skip("the compiler has no sanitizers here")
            assert done.returncode == 0, done.stderr
            for old in folder.glob(f"{name}-*"):
                old.unlink(missing_ok=True)
            new.replace(made)  # at once: another worker may look for it
        return made

    check = Path(__file__).with_name("native.cpp")
    parts = [
        compiled("dispatch", sources / "dispatch.cpp", more=("-c",)),
        compiled("check", check, more=("-c",)),
        compiled(f"rows{rows}", sources / "engine.cpp", more=("-c", f"-DKL_ROWS={rows}")),
    ]
    command = [str(compiled(f"program{rows}", *parts)), amount("5", "1")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cases" in done.stdout
