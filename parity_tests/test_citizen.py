"""The layer as a torch module among others: saved, moved, copied, compiled, trained, counted."""

from __future__ import annotations

import ast
import contextlib
import copy
import datetime
import io
import itertools
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import kerasish_lstm
from kerasish_lstm import LSTM, LSTMConfig
from kerasish_lstm.parity import assert_parity, oracle
from kerasish_lstm.parity.bounds import FLOAT64

PACKAGE = Path(kerasish_lstm.__file__).parent
ENGINES = pytest.mark.parametrize(
    "use_cudnn", ["auto", True, False], ids=["native", "fused", "scan"]
)
B, T, F, U = 7, 11, 3, 5


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20)
        yield


def layer_of(device: torch.device | str = "cpu", **keywords: Any) -> LSTM[Any]:
    """A float64 layer whose every weight, the bias too, is random."""
    layer: LSTM[Any] = LSTM(F, U, dtype=torch.float64, device=device, **keywords)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return layer


def plain_of(**keywords: Any) -> nn.LSTM:
    """An nn.LSTM, whose default initialization leaves both biases live."""
    plain = nn.LSTM(F, U, batch_first=True, dtype=torch.float64, **keywords)
    assert not plain.bias or plain.bias_hh_l0.all()
    return plain


def batch(**keywords: Any) -> Tensor:
    return torch.randn(B, T, F, **{"dtype": torch.float64, **keywords})


def truth(layer: LSTM[Any], x: Tensor) -> np.ndarray:
    return oracle.forward(x.detach().cpu().numpy(), *layer.get_weights()).output


def same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, b) and torch.equal(torch.signbit(a), torch.signbit(b))


# state_dict


@pytest.mark.parametrize("use_bias", [True, False])
def test_the_state_dict_is_that_of_nn_lstm_under_a_prefix(use_bias: bool) -> None:
    plain = plain_of(bias=use_bias).state_dict()
    expected = {f"lstm.{k}": (v.shape, v.dtype) for k, v in plain.items()}
    ours = layer_of(use_bias=use_bias).state_dict()
    assert {k: (v.shape, v.dtype) for k, v in ours.items()} == expected


class Parent(nn.Module):
    """A model with a recurrent layer deep inside."""

    def __init__(self, recurrent: nn.Module) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)
        self.body = nn.ModuleList([nn.Identity(), recurrent])


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("where", ["in lstm.", "at top level", "in a parent"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_a_plain_nn_lstm_state_dict_loads(use_bias: bool, where: str, assign: bool) -> None:
    plain, layer = plain_of(bias=use_bias), layer_of(use_bias=use_bias, return_sequences=True)
    source, target = {
        "in lstm.": (plain, layer.lstm),
        "at top level": (plain, layer),
        "in a parent": (Parent(plain), Parent(layer)),
    }[where]
    given = source.state_dict()
    before = {k: v.clone() for k, v in given.items()}
    target.load_state_dict(given, strict=True, assign=assign)
    x = batch()
    assert_parity(layer(x), plain(x)[0], bound=FLOAT64)
    assert given.keys() == before.keys()
    assert all(torch.equal(given[k], before[k]) for k in before), "the caller's dict was changed"
    if use_bias:
        assert torch.equal(layer.lstm.bias_ih_l0, plain.bias_ih_l0 + plain.bias_hh_l0)
        assert not layer.lstm.bias_hh_l0.any()
        assert [n for n, _ in layer.named_buffers()] == ["lstm.bias_hh_l0"]


def test_a_bias_beside_zeros_loads_bitwise() -> None:
    plain, layer = plain_of(), layer_of()
    with torch.no_grad():
        plain.bias_ih_l0[::2] = -0.0  # -0.0 + 0.0 is +0.0
        plain.bias_hh_l0.zero_()
    layer.load_state_dict(plain.state_dict())
    assert torch.signbit(layer.lstm.bias_ih_l0[::2]).all()
    assert same_bits(layer.lstm.bias_ih_l0, plain.bias_ih_l0)


def test_a_second_bias_beside_zeros_loads_bitwise() -> None:
    plain, layer = plain_of(), layer_of()
    with torch.no_grad():
        plain.bias_ih_l0.zero_()
        plain.bias_hh_l0[::2] = -0.0
    layer.load_state_dict(plain.state_dict())
    assert same_bits(layer.lstm.bias_ih_l0, plain.bias_hh_l0)
    assert not layer.lstm.bias_hh_l0.any()


@pytest.mark.parametrize("live", [True, False])
def test_assigning_live_parameters_makes_no_second_bias_to_train(live: bool) -> None:
    plain, layer, x = plain_of(), layer_of(), batch()
    if not live:
        nn.init.zeros_(plain.bias_hh_l0)
    layer.load_state_dict(plain.state_dict(keep_vars=True), assign=True)
    assert layer.count_params() == 4 * U * (F + U + 1)
    assert [n for n, _ in layer.named_buffers()] == ["lstm.bias_hh_l0"]
    assert_parity(layer(x), plain(x)[0][:, -1], bound=FLOAT64)


def test_a_strict_load_still_names_what_does_not_belong() -> None:
    state = plain_of(num_layers=2).state_dict()
    with pytest.raises(RuntimeError, match=r"lstm\.weight_ih_l1"):
        layer_of().load_state_dict(state)


# Parameters and training


def test_lstm_4_5_counts_200_parameters() -> None:
    assert LSTM(4, 5).count_params() == 200


@pytest.mark.parametrize(("features", "units"), [(1, 1), (3, 5), (20, 5), (11, 7)])
def test_the_parameters_are_exactly_keras_s(features: int, units: int) -> None:
    layer = LSTM(features, units)
    assert layer.count_params() == 4 * units * (features + units + 1)
    assert [n for n, p in layer.named_parameters() if p.requires_grad] == [
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
        "lstm.bias_ih_l0",
    ]
    assert [n for n, _ in layer.named_buffers()] == ["lstm.bias_hh_l0"]
    without = LSTM(features, units, use_bias=False)
    assert without.count_params() == 4 * units * (features + units)
    assert not list(without.buffers())
    assert sum(w.size for w in without.get_weights()) == without.count_params()


def test_trainable_freezes_and_thaws_every_parameter() -> None:
    layer = LSTM(F, U, trainable=False)
    assert not layer.trainable
    assert not any(p.requires_grad for p in layer.parameters())
    layer.trainable = True
    assert all(p.requires_grad for p in layer.parameters())
    assert not layer.lstm.bias_hh_l0.requires_grad


@ENGINES
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_the_second_bias_stays_zero_through_training(
    optimizer: type[torch.optim.Optimizer], use_cudnn: Any, device: torch.device
) -> None:
    layer = layer_of(device, use_cudnn=use_cudnn)
    start = [p.detach().clone() for p in layer.parameters()]
    rule = optimizer(layer.parameters(), lr=0.1, weight_decay=0.1)  # type: ignore[call-arg]
    for _ in range(3):
        rule.zero_grad()
        layer(batch(device=device)).square().sum().backward()
        rule.step()
    assert not any(torch.equal(p, s) for p, s in zip(layer.parameters(), start, strict=True))
    assert same_bits(layer.lstm.bias_hh_l0, torch.zeros_like(layer.lstm.bias_hh_l0))


@ENGINES
def test_one_sgd_step_moves_the_bias_once(use_cudnn: Any, device: torch.device) -> None:
    """With both of torch's biases free it would move twice as far as Keras's one."""
    layer, x, rate, h = layer_of(device, use_cudnn=use_cudnn), batch(), 0.1, 1e-5
    kernel, recurrent, bias = layer.get_weights()
    layer(x.to(device)).sum().backward()
    torch.optim.SGD(layer.parameters(), lr=rate).step()
    gradient = []
    for i in range(4 * U):
        step = h * np.eye(4 * U)[i]
        up, down = (
            oracle.forward(x.numpy(), kernel, recurrent, bias + s).output.sum()
            for s in (step, -step)
        )
        gradient.append((up - down) / (2 * h))
    # The bound is that of central differences: h^2 of truncation, eps / h of rounding.
    assert_parity(layer.get_weights()[2], bias - rate * np.array(gradient), bound=1e-8)


# Copies, files, dtypes


def test_a_deepcopy_is_equal_and_independent() -> None:
    layer, x = layer_of(), batch()
    twin = copy.deepcopy(layer)
    before = layer(x).detach()
    assert torch.equal(twin(x), before)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(2)
    assert torch.equal(layer(x), before)
    assert_parity(twin(x), truth(twin, x), bound=FLOAT64)  # and it reads its own weights


def through_pickle(layer: LSTM[Any]) -> LSTM[Any]:
    return pickle.loads(pickle.dumps(layer))  # type: ignore[no-any-return]


def through_torch_save(layer: LSTM[Any]) -> LSTM[Any]:
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)  # type: ignore[no-any-return]


@pytest.mark.parametrize("through", [copy.deepcopy, through_pickle, through_torch_save])
def test_a_copy_keeps_config_weights_and_what_is_trained(
    through: Callable[[LSTM[Any]], LSTM[Any]],
) -> None:
    layer = layer_of(name="encoder", go_backwards=True, return_state=True)
    twin, x = through(layer), batch()
    assert type(twin) is LSTM
    assert twin.config == layer.config
    assert [n for n, _ in twin.named_parameters()] == [n for n, _ in layer.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(twin(x), layer(x), strict=True))
    twin.load_state_dict(plain_of().state_dict())  # the hooks came along
    assert not twin.lstm.bias_hh_l0.any()


def test_a_state_dict_passes_torch_load_with_weights_only() -> None:
    layer, other, file = layer_of(), layer_of(), io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert all(
        same_bits(a, b)
        for a, b in zip(layer.state_dict().values(), other.state_dict().values(), strict=True)
    )


# In bfloat16 flatten_parameters passes nn.LSTM over, and cuDNN runs it all the same.
@pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous chunk")
@ENGINES
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_it_runs_and_trains_in_each_dtype(
    dtype: torch.dtype, use_cudnn: Any, device: torch.device
) -> None:
    layer = layer_of(use_cudnn=use_cudnn).to(device, dtype)
    assert {t.dtype for t in layer.state_dict().values()} == {dtype}
    x = batch().to(dtype)
    expected = oracle.forward(
        x.double().numpy(), *(w.astype(np.float64) for w in layer.get_weights())
    )
    output = layer(x.to(device))
    assert output.dtype == dtype
    # T steps, each rounding the cell's few operations: T * 8 half ulps, h and c below 1.
    assert_parity(output, expected.output, bound=max(FLOAT64, 4 * T * torch.finfo(dtype).eps))
    output.sum().backward()
    assert {p.grad.dtype for p in layer.parameters() if p.grad is not None} == {dtype}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double", "float"])
def test_module_casts_reach_every_tensor(cast: str) -> None:
    layer = getattr(LSTM(F, U), cast)()
    assert len({t.dtype for t in layer.state_dict().values()}) == 1
    assert layer(batch()).dtype == layer.lstm.weight_ih_l0.dtype


# Meta device and uninitialized memory


def meta_layer() -> LSTM[Any]:
    layer: LSTM[Any] = LSTM(F, U, device="meta", dtype=torch.float64)
    assert all(t.is_meta for t in layer.state_dict().values())
    layer.to_empty(device="cpu")
    assert layer.lstm.bias_hh_l0.isnan().all(), "the memory is not poisoned"
    return layer


@pytest.mark.usefixtures("poison")
def test_a_meta_layer_becomes_whole_by_reset_parameters() -> None:
    layer, x = meta_layer(), batch()
    layer.reset_parameters()
    assert all(t.isfinite().all() for t in layer.state_dict().values())
    assert not layer.lstm.bias_hh_l0.any()
    assert_parity(layer(x), truth(layer, x), bound=FLOAT64)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("source", [layer_of, plain_of])
def test_a_meta_layer_becomes_whole_by_load_state_dict(
    source: Callable[[], nn.Module], assign: bool
) -> None:
    given, layer, x = source(), meta_layer(), batch()
    layer.load_state_dict(given.state_dict(), assign=assign)
    assert not layer.lstm.bias_hh_l0.any()
    assert layer.count_params() == 4 * U * (F + U + 1)
    expected = given(x)
    expected = expected[0][:, -1] if isinstance(expected, tuple) else expected
    assert_parity(layer(x), expected, bound=FLOAT64)


@pytest.mark.usefixtures("poison")
def test_a_meta_layer_becomes_whole_by_set_weights() -> None:
    given, layer, x = layer_of(), meta_layer(), batch()
    layer.set_weights(given.get_weights())
    assert not layer.lstm.bias_hh_l0.any()
    assert torch.equal(layer(x), given(x))


def test_a_second_bias_alone_is_folded_too() -> None:
    layer = LSTM(F, U)
    first = layer.lstm.bias_ih_l0.detach().clone()
    layer.load_state_dict({"lstm.bias_hh_l0": torch.ones(4 * U)}, strict=False)
    assert torch.equal(layer.lstm.bias_ih_l0, first + 1)
    assert not layer.lstm.bias_hh_l0.any()


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("use_bias", [True, False])
def test_no_constructor_leaves_memory_unwritten(use_bias: bool) -> None:
    built: LSTM[Any] = LSTM(F, U, use_bias=use_bias)
    assert all(t.isfinite().all() for t in built.state_dict().values())
    zero = LSTM.from_lstm_config(F, LSTMConfig(U, use_bias=use_bias))
    assert not any(t.any() for t in zero.state_dict().values())


@pytest.mark.usefixtures("poison")
def test_the_default_device_context_works() -> None:
    with torch.device("meta"):
        layer = LSTM(F, U)
    assert all(t.is_meta for t in layer.state_dict().values())
    assert all(t.device.type == "cpu" for t in LSTM(F, U).state_dict().values())


# torch's transforms and modes


# Parameters that are handed in lie apart, which costs cuDNN a copy.
@pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous chunk")
@ENGINES
def test_functional_call_uses_the_given_parameters(use_cudnn: Any, device: torch.device) -> None:
    layer, other = (layer_of(device, use_cudnn=use_cudnn) for _ in range(2))
    x, own = batch(device=device), [p.detach().clone() for p in layer.parameters()]
    given = dict(other.named_parameters())
    output = torch.func.functional_call(layer, given, (x,))
    assert torch.equal(output, other(x))
    gradients = torch.autograd.grad(output.sum(), list(given.values()))
    expected = torch.autograd.grad(other(x).sum(), list(other.parameters()))
    for name, a, e in zip(given, gradients, expected, strict=True):
        assert_parity(a, e, bound=FLOAT64, what=name)
    assert all(torch.equal(a, b) for a, b in zip(layer.parameters(), own, strict=True))
    assert_parity(layer(x), truth(layer, x), bound=FLOAT64, what="its own weights, afterwards")


@ENGINES
def test_torch_func_differentiates_it(use_cudnn: Any) -> None:
    layer, x = layer_of(use_cudnn=use_cudnn), batch()
    given = {k: v.detach() for k, v in layer.named_parameters()}

    def run(parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(layer, parameters, (x,))

    jacobians = torch.func.jacrev(run)(given)
    gradients = torch.func.grad(lambda p: run(p).sum())(given)
    expected = torch.autograd.grad(layer(x).sum(), list(layer.parameters()))
    for (name, gradient), e in zip(gradients.items(), expected, strict=True):
        assert_parity(gradient, e, bound=FLOAT64, what=name)
        assert jacobians[name].shape == (B, U, *e.shape)
        assert_parity(jacobians[name].sum((0, 1)), e, bound=FLOAT64, what=f"jacobian {name}")


def test_vmap_over_weights_works_with_the_scan_engine() -> None:
    """torch has no batching rule for its own LSTM, so the fused engine has none."""
    layers, x = [layer_of(use_cudnn=False) for _ in range(3)], batch()
    stacked = {
        name: torch.stack([dict(layer.named_parameters())[name].detach() for layer in layers])
        for name, _ in layers[0].named_parameters()
    }
    outputs = torch.func.vmap(lambda p: torch.func.functional_call(layers[0], p, (x,)))(stacked)
    for output, layer in zip(outputs, layers, strict=True):
        assert_parity(output, layer(x), bound=FLOAT64)


@ENGINES
@pytest.mark.parametrize("masked", [False, True])
def test_autocast_computes_in_bfloat16(use_cudnn: Any, masked: bool) -> None:
    layer = layer_of(use_cudnn=use_cudnn, return_state=True).float()
    x, mask = batch(dtype=torch.float32), torch.rand(B, T) < 0.6 if masked else None
    exact = layer.double()(x, mask=mask)
    layer.float()
    with torch.autocast("cpu", torch.bfloat16):
        results = layer(x, mask=mask)
    for name, result, e in zip(("output", "h", "c"), results, exact, strict=True):
        assert result.dtype == torch.bfloat16
        bound = 4 * T * torch.finfo(torch.bfloat16).eps
        error = assert_parity(result, e, bound=bound, what=name)
        assert error > torch.finfo(torch.float32).eps, "this was not computed in bfloat16"
    sum(r.float().sum() for r in results).backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())


# dynamo looks at .grad of whatever enters a graph; every nn.LSTM breaks its graphs in torch 2.13.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@ENGINES
@pytest.mark.parametrize("masked", [False, True])
def test_torch_compile_gives_equal_results(use_cudnn: Any, masked: bool) -> None:
    torch.compiler.reset()
    layer = layer_of(use_cudnn=use_cudnn, return_sequences=True, return_state=True)
    x, mask = batch(), torch.rand(B, T) < 0.6 if masked else None
    expected = layer(x, mask=mask)
    gradients = torch.autograd.grad(expected[0].sum(), list(layer.parameters()))
    actual = torch.compile(layer, backend="eager")(x, mask=mask)
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))
    compiled = torch.autograd.grad(actual[0].sum(), list(layer.parameters()))
    assert all(torch.equal(a, e) for a, e in zip(compiled, gradients, strict=True))
    torch.compiler.reset()


@ENGINES
def test_inference_mode_gives_equal_results(use_cudnn: Any, device: torch.device) -> None:
    layer, x = layer_of(device, use_cudnn=use_cudnn), batch(device=device)
    with torch.inference_mode():
        inferred = layer(x)
    assert inferred.is_inference()
    assert_parity(inferred, layer(x), bound=FLOAT64)


@ENGINES
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_an_empty_batch_gives_empty_results(
    use_cudnn: Any, masked: bool, return_sequences: bool, device: torch.device
) -> None:
    layer = layer_of(
        device, use_cudnn=use_cudnn, return_sequences=return_sequences, return_state=True
    )
    mask = torch.ones(0, T, dtype=torch.bool, device=device) if masked else None
    output, h, c = layer(batch(device=device)[:0], mask=mask)
    assert output.shape == ((0, T, U) if return_sequences else (0, U))
    assert h.shape == c.shape == (0, U)
    output.sum().backward()
    assert not any(p.grad is not None and p.grad.any() for p in layer.parameters())


# Global state


def flags() -> dict[str, Any]:
    cudnn = torch.backends.cudnn
    return {
        "cudnn": (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
        # Not get_float32_matmul_precision: torch refuses it once cuDNN's flags were set anew.
        "matmul": (
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cuda.matmul.fp32_precision,
        ),
        "precision": (cudnn.fp32_precision, cudnn.rnn.fp32_precision, cudnn.conv.fp32_precision),
        "oneDNN": torch.backends.mkldnn.enabled,
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "numpy": (np.geterr(), np.random.get_state()[1].tolist()),  # type: ignore[index,union-attr]
    }


@pytest.fixture(params=[False, True], ids=["flags off", "flags on"])
def _flags(request: pytest.FixtureRequest) -> Iterator[None]:
    """Either value of each flag, so that setting it to any value shows."""
    value, precision = request.param, torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if value else "highest")
    with torch.backends.cudnn.flags(True, benchmark=value, deterministic=value, allow_tf32=value):
        yield
    torch.set_float32_matmul_precision(precision)


@ENGINES
@pytest.mark.usefixtures("_flags")
def test_no_call_changes_a_global_flag(use_cudnn: Any, device: torch.device) -> None:
    before = flags()
    layer = layer_of(device, use_cudnn=use_cudnn, stateful=True, return_state=True)
    mask = torch.rand(B, T, device=device) < 0.6
    for keywords in ({}, {"mask": mask}):
        layer(batch(device=device), **keywords)[0].sum().backward()
    with torch.no_grad():
        layer.eval()(batch(device=device))
    layer.set_weights(layer.get_weights())
    layer.reset_state()
    with contextlib.suppress(ValueError):
        layer(torch.zeros(2))
    assert flags() == before


def test_only_initialization_draws_random_numbers() -> None:
    layer, x, mask = layer_of(stateful=True), batch(), torch.rand(B, T) < 0.6
    before = torch.get_rng_state()
    layer(x, mask=mask).sum().backward()
    layer.set_weights(layer.get_weights())
    LSTM.from_lstm_config(F, layer.config)
    copy.deepcopy(layer).load_state_dict(layer.state_dict())
    assert torch.equal(torch.get_rng_state(), before)
    LSTM(F, U)
    assert not torch.equal(torch.get_rng_state(), before)


def test_manual_seed_decides_the_initial_weights() -> None:
    built = []
    for seed in (2, 2, 3):
        torch.manual_seed(seed)
        built.append(LSTM(F, U).get_weights())
    assert all(np.array_equal(a, b) for a, b in zip(built[0], built[1], strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(built[0][:2], built[2][:2], strict=True))


IMPORT = """
import importlib, pkgutil, sys
import kerasish_lstm
for module in pkgutil.walk_packages(kerasish_lstm.__path__, "kerasish_lstm."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
heavy = {"keras", "tensorflow", "tf_keras", "jax"} & set(sys.modules)
assert not heavy, f"importing kerasish_lstm has imported {heavy}"
"""

# `flags` is this file's own function, so that the child needs nothing but torch and NumPy.
IMPORT_AND_FLAGS = """
import numpy as np
import torch
{flags}
np.random.seed(0)
before = flags(), torch.get_rng_state().tolist()
{imports}
after = flags(), torch.get_rng_state().tolist()
assert after == before, (before[0], after[0])
"""


def test_importing_every_module_is_light_and_changes_no_flag() -> None:
    tree = ast.parse(Path(__file__).read_text())
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "flags")
    function.returns = None
    code = IMPORT_AND_FLAGS.format(flags=ast.unparse(function), imports=IMPORT)
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    child = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr


# DistributedDataParallel


def rank_batches(rank: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(100 + rank)
    return [torch.randn(B, T, F, dtype=torch.float64, generator=generator) for _ in range(2)]


def run_batches(model: nn.Module, layer: LSTM[Any], batches: list[Tensor]) -> list[Any]:
    """Per batch: the stored state after it and the gradients of its loss."""
    found = []
    for x in batches:
        model.zero_grad()
        model(x).square().sum().backward()
        assert layer.states is not None
        gradients = [p.grad.clone() for p in layer.parameters() if p.grad is not None]
        found.append({"state": list(layer.states), "gradients": gradients})
    return found


def ddp_rank(rank: int, folder: str) -> None:
    """What each process runs; it begins with its own weights and must end up with rank 0's."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=60),
    )
    torch.manual_seed(rank)
    layer = layer_of(stateful=True)
    model = nn.parallel.DistributedDataParallel(layer)
    found = run_batches(model, layer, rank_batches(rank))
    torch.save({"weights": layer.state_dict(), "found": found}, f"{folder}/rank{rank}.pt")
    # Not the usual way out: in torch 2.13 the reducer's destructor, which holds the GIL, joins a
    # thread of gloo that may be waiting for the GIL.
    os._exit(0)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_data_parallel_averages_gradients_and_keeps_each_rank_s_state(tmp_path: Path) -> None:
    processes = torch.multiprocessing.spawn(ddp_rank, (str(tmp_path),), nprocs=2, join=False)
    if not any(processes.join(timeout=1) for _ in range(60)):
        for process in processes.processes:
            process.kill()
        pytest.fail("the two processes have not finished within a minute")
    ranks = [torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in range(2)]
    alone = []
    for rank in range(2):
        layer = layer_of(stateful=True)
        layer.load_state_dict(ranks[0]["weights"])
        alone.append(run_batches(layer, layer, rank_batches(rank)))
    for step in range(2):
        for rank in range(2):
            found, expected = ranks[rank]["found"][step], alone[rank][step]
            for a, e in zip(found["state"], expected["state"], strict=True):
                assert_parity(a, e, bound=FLOAT64, what=f"state of rank {rank} after step {step}")
            pairs = zip(alone[0][step]["gradients"], alone[1][step]["gradients"], strict=True)
            means = [(a + b) / 2 for a, b in pairs]
            for a, e in zip(found["gradients"], means, strict=True):
                assert_parity(a, e, bound=FLOAT64, what=f"gradient in rank {rank}, step {step}")


# Keras's default initialization


def test_the_kernel_is_glorot_uniform_on_keras_s_axes() -> None:
    features, units = 53, 47
    kernel = LSTM(features, units, dtype=torch.float64).get_weights()[0]
    limit = np.sqrt(6 / (features + 4 * units))
    assert limit * 0.999 < np.abs(kernel).max() <= limit
    # Five standard errors of U(-L, L)'s mean and second moment, for this many draws.
    assert abs(kernel.mean()) < 5 * limit / np.sqrt(3 * kernel.size)
    spread = 5 * limit**2 * np.sqrt(4 / 45 / kernel.size)
    assert abs((kernel**2).mean() - limit**2 / 3) < spread


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str
)
def test_the_rows_of_the_recurrent_kernel_are_orthonormal(dtype: torch.dtype) -> None:
    first, second = (LSTM(F, 13, dtype=dtype).get_weights()[1].astype(np.float64) for _ in "ab")
    assert first.shape == (13, 52)
    assert_parity(first @ first.T, np.eye(13), bound=8 * torch.finfo(dtype).eps)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("unit_forget_bias", [True, False])
def test_the_bias_is_zero_but_for_the_forget_gate(unit_forget_bias: bool) -> None:
    bias = LSTM(F, U, unit_forget_bias=unit_forget_bias).get_weights()[2]
    forget = [float(unit_forget_bias)] * U
    assert bias.tolist() == [0.0] * U + forget + [0.0] * 2 * U


# Floors: nothing imports a higher floor, and no files import each other in a circle

FLOORS = (  # a folder is one room; "" is kerasish_lstm/__init__.py
    ("errors", "keywords", "config", "weights", "_version"),
    (
        "activations", "_objects", "initializers", "regularizers", "constraints", "optimizers",
        "_masks", "_dropout", "_engines", "_native", "_native_autograd", "files",
    ),
    ("serialization",),
    ("layers",),
    ("training", "plain"),
    ("storage", "convert", "saving"),
    ("parity",),
    ("", "commands"),
    ("cli", "__main__"),
)  # fmt: skip
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

FILES = sorted(p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py"))


def module_name(file: Path) -> str:
    """``kerasish_lstm/parity/oracle.py`` is "parity.oracle"."""
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in FILES}


def floor(module: str) -> int:
    return FLOOR[module.partition(".")[0]]


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """What is in a tree, but for what type checkers alone read."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from nodes(node)


def imports(file: Path) -> tuple[dict[str, int], set[str]]:
    """The package's own modules that a file imports, in functions too, each with a line; and the
    top-level names of the others."""
    folder = list(file.parent.parts)
    own, others = dict[str, int](), set[str]()
    for node in nodes(ast.parse((PACKAGE / file).read_text())):
        found: list[list[str]] = []
        if isinstance(node, ast.Import):
            found = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = node.module.split(".") if node.module else []
            if node.level:
                start = ["kerasish_lstm", *folder[: len(folder) - node.level + 1], *start]
            found = [[*start, alias.name] for alias in node.names]
        for name in found:
            if name[0] != "kerasish_lstm":
                others.add(name[0])
                continue
            inside = name[1:]  # a module, or something in one
            module = ".".join(inside if ".".join(inside) in MODULES else inside[:-1])
            own[module] = node.lineno  # type: ignore[attr-defined]
    return own, others


def circle(graph: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The imports of a circle, one a line; none where there is no circle.

    Args:
        graph: what each module imports, and in which line.
    """
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [
            f"{MODULES[importer]}:{graph[importer][imported]} imports {imported}"
            for imported, importer in itertools.pairwise(error.args[1])
        ]
    return []


def test_every_file_has_a_floor() -> None:
    assert {name.partition(".")[0] for name in MODULES} == set(FLOOR)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_no_file_imports_a_higher_floor(file: Path) -> None:
    here = floor(module_name(file))
    higher = [f"{file}:{line} {m}" for m, line in imports(file)[0].items() if floor(m) > here]
    assert not higher, f"{file}, on floor {here}, imports {higher}"


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {name: imports(file)[0] for name, file in MODULES.items()}
    assert not circle(graph), "\n".join(circle(graph))
    graph["config"] = graph["config"] | {"layers.lstm": 7}
    assert "config.py:7 imports layers.lstm" in circle(graph)


@pytest.mark.parametrize("file", ["weights.py", "parity/oracle.py"])
def test_the_arithmetic_of_truth_imports_numpy_alone(file: str) -> None:
    own, others = imports(Path(file))
    assert others - set(sys.stdlib_module_names) == {"numpy"}
    assert set(own) <= {"errors"}


@pytest.mark.parametrize(
    "file",
    [f for f in FILES if f.parts[0] == "files" or FLOOR.get(f.stem) == 0],
    ids=str,
)
def test_configs_and_files_are_read_without_torch(file: Path) -> None:
    own, others = imports(file)
    assert not others & {"torch", "keras", "tensorflow", "tf_keras", "jax"}
    assert not any(floor(m) > 0 and not m.startswith("files") for m in own)
