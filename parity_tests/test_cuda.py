"""CUDA: each precision and engine within what its arithmetic may cost; waits, graphs, determinism.

Every test runs on the device that it is given. On a CPU, tests of CUDA's own branches run on the
stand-in of ``as_cuda``, and TF32 and cuDNN's tanh are emulated: what is left for a GPU are its
kernels.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kerasish_lstm import LSTM, Bidirectional
from kerasish_lstm.parity import assert_parity
from kerasish_lstm.parity.bounds import CUDA_FLOAT32, FLOAT64, KERAS_FACTOR, error

from . import arithmetic, as_cuda, runs, test_bidirectional
from .as_cuda import AsCuda
from .cases import MASKS, PRECISION, STATES, mask_of
from .make_goldens import FOLDER
from .sampling import sampled

# cuBLAS is deterministic with this alone, and reads it once, before its first product.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

Results = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Subject:
    """Cases, how they run, and their float64 truth. ``kind`` shares limits between engines."""

    kind: str
    cases: tuple[Any, ...]
    run: Callable[[Any, torch.dtype, torch.device | str], Results]
    truth: Callable[[Any], Results]


def fused(case: Any, dtype: torch.dtype, device: torch.device | str) -> Results:
    return runs.ours(case, dtype, device, use_cudnn=True)


def scan(case: Any, dtype: torch.dtype, device: torch.device | str) -> Results:
    return runs.ours(case, dtype, device, use_cudnn=False)


def usual(cases: Sequence[Any]) -> tuple[Any, ...]:
    """All of them where there is CUDA; a sample where the CPU alone is tested, by default."""
    if torch.cuda.is_available():
        return tuple(cases)
    fields = [f.name for f in dataclasses.fields(cases[0])]
    return tuple(
        sampled(cases, 0.4, lambda case: "-".join(f"{f}={getattr(case, f)}" for f in fields))
    )


WHOLE = {"lstm": PRECISION, "bidirectional": test_bidirectional.LIVE[::3]}
ONE, BOTH = map(usual, WHOLE.values())
truth = functools.cache(runs.truth)
SUBJECTS = {
    "fused": Subject("lstm", ONE, fused, truth),
    "scan": Subject("lstm", ONE, scan, truth),
    "bidirectional": Subject(
        "bidirectional", BOTH, test_bidirectional.ours, functools.cache(test_bidirectional.truth)
    ),
}
PRECISIONS = {
    "float64": torch.float64,
    "float32-tf32_off": torch.float32,
    "float32-tf32_on": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
# And that of float32 on cuDNN.
DTYPES = PRECISIONS | {"float32-cudnn": torch.float32}
EMULATED = {"float32-tf32_on": arithmetic.Tf32, "float32-cudnn": arithmetic.CudnnTanh}
ROUNDINGS = {
    "float32-tf32_off": arithmetic.FLOAT32,
    "float32-cudnn": arithmetic.CUDNN,
    "float32-tf32_on": arithmetic.TF32,
    "float16": arithmetic.FLOAT16,
    "bfloat16": arithmetic.BFLOAT16,
}
every_subject = pytest.mark.parametrize("subject", SUBJECTS)
every_precision = pytest.mark.parametrize("precision", PRECISIONS)

KINDS = {"lstm": SUBJECTS["scan"], "bidirectional": SUBJECTS["bidirectional"]}
every_kind = pytest.mark.parametrize("kind", KINDS)


@functools.cache
def worst(kind: str, precision: str, whole: bool = False) -> dict[str, float]:
    """By quantity, the largest error over the cases, on a CPU: what it lacks is emulated."""
    found: dict[str, float] = {}
    for case in WHOLE[kind] if whole else KINDS[kind].cases:
        with emulated(precision):
            actual = KINDS[kind].run(case, DTYPES[precision], "cpu")
        for name, value in KINDS[kind].truth(case).items():
            found[name] = max(found.get(name, 0.0), error(actual[name], value))
    return found


@functools.cache
def limits(kind: str, precision: str) -> dict[str, float]:
    """By quantity; for the plain layer in 16 bits no more than 3 times what Keras errs."""
    subject = KINDS[kind]

    def run(case: Any) -> Results:
        return subject.run(case, torch.float64, "cpu")

    found = arithmetic.limits(subject.cases, run, subject.truth, ROUNDINGS[precision])
    recorded = json.loads((FOLDER / "manifest.json").read_text())["low_precision_errors"]
    if kind == "lstm" and precision in recorded:
        keras = recorded[precision]
        found = {name: min(limit, KERAS_FACTOR * keras[name]) for name, limit in found.items()}
    return found


@contextlib.contextmanager
def tf32(device: torch.device) -> Iterator[None]:
    """TF32 on; ``parity_device`` has turned it off, and restores it. Emulated on a CPU."""
    if device.type == "cpu":
        with emulated("float32-tf32_on"):
            yield
        return
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def errors_of_tanh(
    batch: int, steps: int, units: int, device: torch.device
) -> list[tuple[float, float]]:
    """Relative errors of c and h, by ranges, where weights are zero, i and o are 1, and f is 0.

    c is then the tanh of its gate's bias, and h that of c.
    """
    found = []
    for low, high in ((1e-4, 1e-2), (0.01, 0.3), (0.3, 1.0), (1.0, 3.0), (3.0, 9.0)):
        z = np.linspace(low, high, units, dtype=np.float32) * (-1) ** np.arange(units)
        layer: LSTM = LSTM(1, units, return_state=True, use_cudnn=True, device=device)
        gates = [np.full(units, 80.0), np.full(units, -80.0), z, np.full(units, 80.0)]
        layer.set_weights(
            [np.zeros((1, 4 * units)), np.zeros((units, 4 * units)), np.concatenate(gates)]
        )
        with torch.no_grad():
            _, h, c = layer(torch.zeros(batch, steps, 1, device=device))
        h, c = (state.cpu().double().numpy() for state in (h, c))
        pairs = ((c, z.astype(np.float64)), (h, c))
        found.append(tuple(float(np.abs(a / np.tanh(b) - 1).max()) for a, b in pairs))
    return found


@contextlib.contextmanager
def emulated(precision: str) -> Iterator[None]:
    """On a CPU: the arithmetic of a precision that it lacks, which oneDNN's LSTM would hide."""
    if precision not in EMULATED:
        yield
        return
    was_enabled, *_ = torch.backends.mkldnn.set_flags(False)
    try:
        with EMULATED[precision]():
            yield
    finally:
        torch.backends.mkldnn.set_flags(was_enabled)


def assert_within(
    subject: Subject,
    precision: str,
    device: torch.device | str,
    rounding: str,
    around: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> None:
    """Outputs, states and gradients of each case lie within the limits of an arithmetic."""
    dtype = PRECISIONS[precision]
    for case in subject.cases:
        expected = subject.truth(case)
        with around():
            actual = subject.run(case, dtype, device)
        assert actual.keys() == expected.keys()
        for name, value in expected.items():
            bound = FLOAT64
            if rounding in ROUNDINGS:
                bound = limits(subject.kind, rounding)[name]
            what = f"{case.id} {name} in {precision}"
            assert_parity(actual[name], value, bound=bound, what=what, dtype=dtype)


# In bfloat16 nn.LSTM's own flatten_parameters passes it over, and cuDNN warns at each call.
apart = pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous")


@apart
@every_subject
@every_precision
def test_errs_no_more_than_its_arithmetic_may(
    precision: str, subject: str, parity_device: torch.device
) -> None:
    """Against float64 on a CPU: every mask, state and flag, and each gradient."""
    on = functools.partial(tf32, parity_device)
    around = on if precision.endswith("tf32_on") else contextlib.nullcontext
    assert_within(SUBJECTS[subject], precision, parity_device, precision, around)


@apart
@pytest.mark.parametrize("subject", ["fused", "bidirectional"])
def test_cudnn_errs_no_more_than_its_tanh_may(subject: str, parity_device: torch.device) -> None:
    """Where float32's own limits fail on cuDNN, its tanh is why, and nothing else."""
    coarse = functools.partial(emulated, "float32-cudnn")
    around = coarse if parity_device.type == "cpu" else contextlib.nullcontext
    assert_within(SUBJECTS[subject], "float32-tf32_off", parity_device, "float32-cudnn", around)


@every_subject
@every_precision
def test_cuda_s_branches_lead_to_the_same_numbers(precision: str, subject: str) -> None:
    """On the stand-in, with the packed path that CUDA alone takes."""

    @contextlib.contextmanager
    def stand_in() -> Iterator[None]:
        with AsCuda(), emulated(precision):
            yield

    assert_within(SUBJECTS[subject], precision, "cuda", precision, stand_in)


def test_the_cases_meet_every_mask_and_state() -> None:
    for subject in SUBJECTS.values():
        assert {case.mask for case in subject.cases} == set(MASKS)
        assert {case.state for case in subject.cases} == set(STATES)
        for flag in ("return_sequences", "return_state"):
            assert {getattr(case, flag) for case in subject.cases} == {False, True}
    assert {case.merge_mode for case in BOTH} == {*test_bidirectional.MERGES, None}


# The limits


every_float32 = pytest.mark.parametrize("rounding", ["float32-tf32_off", "float32-cudnn"])


@every_float32
@every_kind
def test_float32_s_limits_are_tighter_than_the_bound_for_cuda(kind: str, rounding: str) -> None:
    """Of outputs and states; of gradients too, except with cuDNN's tanh."""
    found = limits(kind, rounding)
    if rounding == "float32-cudnn":
        found = {name: limit for name, limit in found.items() if not name.startswith("d_")}
    assert max(found.values()) < CUDA_FLOAT32
    assert min(found.values()) > 2.0**-24


@every_float32
@every_kind
def test_tf32_left_on_would_be_noticed(kind: str, rounding: str) -> None:
    """Its errors lie beyond float32's limits, in each quantity, and within its own."""
    kept, allowed = limits(kind, rounding), limits(kind, "float32-tf32_on")
    found = worst(kind, "float32-tf32_on")
    assert all(kept[name] < one < allowed[name] for name, one in found.items()), found


@every_kind
@pytest.mark.parametrize("precision", ROUNDINGS)
def test_a_limit_is_no_more_than_a_hundred_times_what_a_cpu_errs(precision: str, kind: str) -> None:
    """A bound that nothing can reach asserts nothing."""
    found = worst(kind, precision, whole=True)  # a sample may lack where it errs most
    for name, limit in limits(kind, precision).items():
        assert limit < 100 * found[name], f"{name}: limit {limit:.2g}, observed {found[name]:.2g}"


@every_kind
def test_cudnn_s_tanh_lies_beyond_float32_s_own_limits_and_within_its_own(kind: str) -> None:
    own, coarse = limits(kind, "float32-tf32_off"), limits(kind, "float32-cudnn")
    found = worst(kind, "float32-cudnn")
    assert found["output"] > own["output"]
    assert all(own[name] < coarse[name] > one for name, one in found.items()), found


def test_an_operator_of_unknown_error_is_refused() -> None:
    x = torch.ones(2, dtype=torch.float64)
    with arithmetic.Arithmetic(arithmetic.FLOAT32, 0), pytest.raises(NotImplementedError):
        x.cosh()


# cuDNN's own tanh


@pytest.mark.parametrize(
    "batch, steps, units", [(5, 7, 37), (1, 1, 64), (32, 11, 128), (3, 2, 263)]
)
def test_cudnn_s_tanh_errs_no_more_than_is_allowed_for(
    batch: int, steps: int, units: int, parity_device: torch.device
) -> None:
    """Only the kernels for fewer than 256 units have the coarse one, on an H200."""
    is_few = parity_device.type == "cuda" and units < 256
    allowed = (arithmetic.CUDNN if is_few else arithmetic.FLOAT32).tanh
    errors = np.array(errors_of_tanh(batch, steps, units, parity_device))
    assert (errors < allowed).all() and errors.max() > 0, errors


# Deterministic mode


@pytest.fixture
def deterministic() -> Iterator[None]:
    """torch's deterministic mode: an operator that has no deterministic form raises."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@apart
@every_subject
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.usefixtures("deterministic")
def test_two_runs_agree_to_the_bit_in_deterministic_mode(
    dtype: torch.dtype, subject: str, parity_device: torch.device
) -> None:
    chosen = SUBJECTS[subject]
    for case in chosen.cases:
        first, second = (chosen.run(case, dtype, parity_device) for _ in range(2))
        for name, value in first.items():
            assert np.array_equal(value, second[name]), f"{case.id} {name}"


# What cuDNN, waits and graphs ask for

B, T, F, U = 5, 7, 3, 2


@dataclasses.dataclass(frozen=True)
class Cuda:
    """CUDA, or a CPU standing in for it."""

    device: torch.device
    stand_in: AsCuda | None

    def waits(self, call: Callable[[], Any]) -> list[str]:
        """What the host waits for in a call; a GPU names the first alone."""
        if self.stand_in is not None:
            before = len(self.stand_in.waits)
            call()
            return self.stand_in.waits[before:]
        mode = torch.cuda.get_sync_debug_mode()
        try:
            with (
                warnings.catch_warnings()
            ):  # "a prototype"; as an error it would leave the mode set
                warnings.simplefilter("ignore")
                torch.cuda.set_sync_debug_mode("error")
            call()
        except RuntimeError as found:
            if "synchronizing" not in str(found):
                raise
            return [str(found)]
        finally:
            torch.cuda.set_sync_debug_mode(mode)
        return []

    def captured(self, call: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """A call's graph, to replay, and the results that it writes to."""
        if self.stand_in is not None:
            with as_cuda.Graph() as recorded:
                result = call()
            return recorded.replay, result
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # what is set up once must not be part of the graph
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = call()
        return graph.replay, result


@pytest.fixture
def cuda(parity_device: torch.device) -> Iterator[Cuda]:
    if parity_device.type == "cuda":
        yield Cuda(parity_device, None)
        return
    with AsCuda() as stand_in:
        yield Cuda(torch.device("cuda"), stand_in)


def lstm(**keywords: Any) -> nn.Module:
    return LSTM(F, U, **keywords)


def both(merge_mode: Any = "concat", **keywords: Any) -> nn.Module:
    return Bidirectional(LSTM(F, U, **keywords), merge_mode)


# Without returned state
MODULES: dict[str, Callable[..., nn.Module]] = {
    "last": lstm,
    "sequences": functools.partial(lstm, return_sequences=True),
    "zeros": functools.partial(lstm, return_sequences=True, zero_output_for_mask=True),
    "last-zeros": functools.partial(lstm, zero_output_for_mask=True),
    "backwards": functools.partial(lstm, return_sequences=True, go_backwards=True),
    "no_bias": functools.partial(lstm, use_bias=False),
    "mixed_float16": functools.partial(lstm, dtype="mixed_float16"),
    "bidirectional-last": both,
    "bidirectional-sequences": functools.partial(both, return_sequences=True),
    "bidirectional-two_outputs": functools.partial(both, None, return_sequences=True),
}
# Weights that are cast for each call lie apart, and cuDNN warns that it copies them together.
every_module = pytest.mark.parametrize(
    "module", [pytest.param(name, marks=apart if "mixed" in name else ()) for name in MODULES]
)
every_engine = pytest.mark.parametrize("use_cudnn", [True, False], ids=["fused", "scan"])


def drawn(kind: str, seed: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """x, and a mask of a class."""
    rng = np.random.RandomState(seed)
    x = torch.tensor(rng.uniform(-2, 2, (B, T, F)), dtype=torch.float32, device=device)
    return x, torch.tensor(mask_of(kind, B, T, rng), device=device)


def listed(result: Any) -> list[Tensor]:
    return list(result) if isinstance(result, tuple) else [result]


@every_module
@every_engine
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_without_returned_state_the_host_never_waits(
    training: bool, use_cudnn: Any, module: str, cuda: Cuda
) -> None:
    layer = MODULES[module](use_cudnn=use_cudnn).to(cuda.device).train(training)
    for kind in ("right", "gaps", "empty"):
        x, mask = drawn(kind, 0, cuda.device)
        x.requires_grad_(training)

        def call(x: Tensor = x, mask: Tensor = mask) -> None:
            with torch.set_grad_enabled(training):
                loss = sum(y.float().sum() for y in listed(layer(x, mask=mask)))
                if training:
                    torch.autograd.grad(loss, [x, *layer.parameters()])

        call()  # the first call sets up cuDNN
        assert cuda.waits(call) == []


@every_engine
@pytest.mark.parametrize("given", ["state", "integer mask", "one row for all", "no mask"])
def test_nor_for_what_else_it_is_given(given: str, use_cudnn: Any, cuda: Cuda) -> None:
    layer = lstm(use_cudnn=use_cudnn, return_state=given == "no mask").to(cuda.device)
    x, mask = drawn("gaps", 0, cuda.device)
    options: dict[str, Any] = {
        "state": {"mask": mask, "initial_state": (x.new_ones(B, U), x.new_ones(B, U))},
        "integer mask": {"mask": mask.int()},
        "one row for all": {"mask": mask[:1]},
        "no mask": {},
    }[given]
    layer(x, **options)
    assert cuda.waits(lambda: layer(x, **options)) == []


@pytest.mark.parametrize("build", [lstm, both], ids=["lstm", "bidirectional"])
@pytest.mark.parametrize("keyword", ["return_state", "stateful"])
def test_the_wait_for_a_state_is_seen(keyword: str, build: Any, cuda: Cuda) -> None:
    """That of ``pack_padded_sequence``, for lengths on the host: so the test above can fail."""
    layer = build(use_cudnn=True, **{keyword: True}).to(cuda.device)
    x, mask = drawn("gaps", 0, cuda.device)
    layer(x, mask=mask)
    found = cuda.waits(lambda: layer(x, mask=mask))
    assert found
    if cuda.stand_in is not None:
        assert all("_engines.py" in wait and "_fused_packed" in wait for wait in found), found
        assert any("Tensor.cpu" in wait for wait in found)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("return_state", [False, True])
def test_eval_mode_has_the_gradients_of_training(
    return_state: bool, masked: bool, cuda: Cuda
) -> None:
    layer = lstm(use_cudnn=True, return_state=return_state).to(cuda.device)
    x, mask = drawn("empty", 0, cuda.device)
    found = []
    for training in (True, False):
        layer.train(training)
        loss = sum(y.sum() for y in listed(layer(x, mask=mask if masked else None)))
        found.append(torch.autograd.grad(loss, list(layer.parameters())))
    for one, other in zip(*found, strict=True):
        assert_parity(other, one, bound=4 * torch.finfo(torch.float32).eps)


def test_cudnn_s_rule_is_kept_by_the_stand_in(cuda: Cuda) -> None:
    x, _ = drawn("full", 0, cuda.device)
    plain = nn.LSTM(F, U, batch_first=True).to(cuda.device).eval()
    with pytest.raises(RuntimeError, match="training mode"):
        plain(x)[0].sum().backward()


WAITS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "item": lambda x, mask: x.sum().item(),
    "tolist": lambda x, mask: mask.sum(1).tolist(),
    "bool": lambda x, mask: bool(mask.all()),
    "if": lambda x, mask: 1 if mask.any() else 0,
    "int": lambda x, mask: int(mask.sum()),
    "float": lambda x, mask: float(x.sum()),
    "index": lambda x, mask: list(range(mask.sum(1).max())),  # type: ignore[call-overload]
    "in": lambda x, mask: 3 in mask.sum(1),
    "nonzero": lambda x, mask: mask.nonzero(),
    "where": lambda x, mask: torch.where(mask),
    "a mask as index": lambda x, mask: x[mask],
    "masked_select": lambda x, mask: x.masked_select(mask.unsqueeze(-1)),
    "equal": lambda x, mask: torch.equal(x, x + 1),
    "unique": lambda x, mask: mask.sum(1).unique(),
    "repeat_interleave": lambda x, mask: torch.repeat_interleave(x[:, 0], mask.sum(1), dim=0),
    "cpu": lambda x, mask: mask.cpu(),
    "to": lambda x, mask: mask.to("cpu", torch.int64),
    "a list": lambda x, mask: torch.tensor([1, 2], device=x.device),
    "from the host": lambda x, mask: torch.ones(3).to(x.device),
    "copy_ from the host": lambda x, mask: torch.empty_like(x).copy_(torch.ones(x.shape)),
    "copy_ to the host": lambda x, mask: torch.ones(x.shape).copy_(x),
}


@pytest.mark.parametrize("wait", WAITS)
def test_a_wait_is_seen(wait: str, cuda: Cuda) -> None:
    x, mask = drawn("gaps", 0, cuda.device)
    assert cuda.waits(lambda: WAITS[wait](x, mask))
    assert cuda.waits(lambda: x.masked_fill(mask.unsqueeze(-1), 0) + x[:, :1]) == []


def test_tensors_of_both_devices_do_not_mix(cuda: Cuda) -> None:
    x, _ = drawn("gaps", 0, cuda.device)
    with pytest.raises(RuntimeError, match="cpu"):
        x + torch.ones(F)
    with pytest.raises(TypeError):
        x.numpy()


@every_module
@every_engine
def test_a_graph_serves_other_inputs_and_masks(use_cudnn: Any, module: str, cuda: Cuda) -> None:
    """Captured once, replayed over what the static tensors hold by then, compared with eager."""
    layer = MODULES[module](use_cudnn=use_cudnn).to(cuda.device)
    x, mask = drawn("right", 0, cuda.device)
    # Captured and eager run one kernel, on the stand-in perhaps another of float32, or of float16.
    bound = 4 * torch.finfo(torch.float16 if "float16" in module else torch.float32).eps
    with torch.no_grad():
        replay, results = cuda.captured(lambda: layer(x, mask=mask))
        for seed, kind in enumerate(("gaps", "left", "empty", "full", "right"), 1):
            other_x, other_mask = drawn(kind, seed, cuda.device)
            x.copy_(other_x)
            mask.copy_(other_mask)
            replay()
            expected = layer(other_x, mask=other_mask)
            for actual, value in zip(listed(results), listed(expected), strict=True):
                assert_parity(actual, value, bound=bound, what=f"{module}, {kind}")


def test_a_graph_that_the_host_decided_on_is_noticed() -> None:
    """On a CPU the package asks for the lengths: a replay over other masks must differ."""
    layer = lstm(return_sequences=True, use_cudnn=True)
    x, mask = drawn("full", 0, "cpu")
    with torch.no_grad():
        with as_cuda.Graph() as recorded:
            result = layer(x, mask=mask)
        mask.copy_(drawn("gaps", 1, "cpu")[1])
        recorded.replay()
        assert not torch.allclose(result, layer(x, mask=mask))
