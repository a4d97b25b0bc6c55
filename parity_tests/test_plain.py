"""To and from ``nn.LSTM``: equal numbers, gradients and training, or the reason why not."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from kerasish_lstm import (
    LSTM,
    Bidirectional,
    DropoutMasks,
    LazyLSTM,
    LSTMCell,
    LSTMConfig,
    StackedLSTM,
    TimeDistributed,
)
from kerasish_lstm.errors import ConfigError
from kerasish_lstm.parity import assert_parity
from kerasish_lstm.parity.bounds import FLOAT64
from kerasish_lstm.plain import from_torch, to_torch, why_not_torch

pytestmark = pytest.mark.smoke

B, T, F, U, V = 5, 7, 3, 2, 11
FLOAT64_LIKE = {"dtype": torch.float64}


@dataclasses.dataclass(frozen=True)
class Form:
    """The form of an nn.LSTM."""

    num_layers: int
    bidirectional: bool
    bias: bool
    hidden_size: int = U

    @property
    def id(self) -> str:
        flags = [f for f in ("bidirectional", "bias") if getattr(self, f)]
        return "-".join([f"{self.num_layers}_layers", f"{self.hidden_size}_units", *flags])

    @property
    def states(self) -> int:
        return self.num_layers * (1 + self.bidirectional)


FORMS = [
    *(Form(*values) for values in itertools.product((1, 2, 3), (False, True), (True, False))),
    *(Form(layers, both, True, V) for layers, both in ((1, False), (1, True), (2, True))),
]
form_of = pytest.mark.parametrize("form", FORMS, ids=lambda f: f.id)


@pytest.fixture(autouse=True)
def _seed(request: pytest.FixtureRequest) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(request.node.name.encode()))
        yield


def plain_of(form: Form = Form(1, False, True), **keywords: Any) -> nn.LSTM:
    """An nn.LSTM with torch's own initialization, which leaves both biases live."""
    options = {"batch_first": True, "dtype": torch.float64, **vars(form), **keywords}
    plain = nn.LSTM(F, **options)
    assert not plain.bias or all(p.all() for n, p in plain.named_parameters() if "bias" in n)
    return plain


def randomized(module: Any) -> Any:
    """The module, its every weight, the biases too, random."""
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -0.7, 0.7)
    return module


def batch(*shape: int, **keywords: Any) -> Tensor:
    return torch.randn(*(shape or (B, T, F)), **{"dtype": torch.float64, **keywords})


def flat(h: Tensor, c: Tensor) -> list[Tensor]:
    """The recipe of the docstring."""
    return [s for pair in zip(h, c, strict=True) for s in pair]


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().view(torch.uint8).numpy().tobytes()


def same_bits(one: nn.Module, other: nn.Module) -> None:
    a, b = one.state_dict(), other.state_dict()
    assert a.keys() == b.keys()
    assert [k for k in a if bits(a[k]) != bits(b[k])] == []


def weights_of(plain: nn.Module) -> list[tuple[dict[str, Tensor], str]]:
    """By layer and direction, written out by hand: a check that reads no code of the package."""
    found = []
    parameters = dict(plain.named_parameters())
    for k in range(getattr(plain, "num_layers", 1)):
        for suffix in ("", "_reverse"):
            if f"weight_ih_l{k}{suffix}" in parameters:
                found.append((parameters, f"_l{k}{suffix}"))
    return found


def parts_of(layer: Any) -> list[Any]:
    if isinstance(layer, StackedLSTM):
        return [part for inner in layer.layers for part in parts_of(inner)]
    if isinstance(layer, Bidirectional):
        return [layer.forward_layer, layer.backward_layer]
    return [layer]


# From torch


@pytest.mark.parametrize("batch_first", [True, False], ids=["batch_first", "time_first"])
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "states"])
@form_of
def test_from_torch_gives_outputs_states_and_gradients_of_nn_lstm(
    form: Form, given: bool, batch_first: bool, device: torch.device
) -> None:
    plain = plain_of(form, batch_first=batch_first).to(device)
    layer = from_torch(plain)
    x = batch(device=device).requires_grad_()
    h0, c0 = (batch(form.states, B, form.hidden_size, device=device).requires_grad_() for _ in "hc")
    y, (h, c) = plain(x if batch_first else x.transpose(0, 1), (h0, c0) if given else None)
    y = y if batch_first else y.transpose(0, 1)
    output, *states = layer(x, flat(h0, c0) if given else None)
    assert_parity(output, y, bound=FLOAT64)
    assert_parity(torch.stack(states[0::2]), h, bound=FLOAT64, what="h")
    assert_parity(torch.stack(states[1::2]), c, bound=FLOAT64, what="c")

    dy, dh, dc = batch(*y.shape, device=device), batch(*h.shape, device=device), batch(*c.shape)
    dc = dc.to(device)
    ours = (output * dy).sum() + (torch.stack(states[0::2]) * dh).sum()
    ours = ours + (torch.stack(states[1::2]) * dc).sum()
    theirs = (y * dy).sum() + (h * dh).sum() + (c * dc).sum()
    inputs = [x, h0, c0] if given else [x]
    for name, a, e in zip(
        ("x", "h0", "c0"),
        torch.autograd.grad(ours, inputs, retain_graph=True),
        torch.autograd.grad(theirs, inputs, retain_graph=True),
        strict=False,
    ):
        assert_parity(a, e, bound=FLOAT64, what=f"the gradient of {name}")
    ours.backward()
    theirs.backward()
    for part, (parameters, suffix) in zip(parts_of(layer), weights_of(plain), strict=True):
        for kind in ("weight_ih", "weight_hh", *(["bias_ih"] if form.bias else [])):
            a, e = getattr(part.lstm, f"{kind}_l0").grad, parameters[kind + suffix].grad
            assert_parity(a, e, bound=FLOAT64, what=f"the gradient of {kind}{suffix}")


@form_of
def test_the_forms_become_lstm_bidirectional_and_chains_of_them(form: Form) -> None:
    layer = from_torch(plain_of(form))
    inner = list(layer.layers) if isinstance(layer, StackedLSTM) else [layer]
    assert isinstance(layer, StackedLSTM) is (form.num_layers > 1)
    assert len(inner) == form.num_layers
    assert {type(one) for one in inner} == {Bidirectional if form.bidirectional else LSTM}
    assert {part.config.use_bias for part in parts_of(layer)} == {form.bias}


@form_of
def test_outputs_and_states_are_returned_as_asked(form: Form) -> None:
    plain, x = plain_of(form), batch()
    y, (h, c) = plain(x)
    last = torch.cat([h[-2], h[-1]], -1) if form.bidirectional else h[-1]
    assert_parity(from_torch(plain, return_state=False)(x), y, bound=FLOAT64)
    assert_parity(
        from_torch(plain, return_sequences=False, return_state=False)(x), last, bound=FLOAT64
    )
    output, *states = from_torch(plain, return_sequences=False)(x)
    assert_parity(output, last, bound=FLOAT64)
    for a, e in zip(states, flat(h, c), strict=True):
        assert_parity(a, e, bound=FLOAT64, what="states")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("form", FORMS[2::3], ids=lambda f: f.id)
def test_the_dtype_is_kept(form: Form, dtype: torch.dtype) -> None:
    plain = plain_of(form, dtype=dtype)
    layer, x = from_torch(plain), batch(dtype=dtype)
    assert {t.dtype for t in layer.state_dict().values()} == {dtype}
    y, _ = plain(x)
    output = layer(x)[0]
    assert output.dtype == dtype
    # The folded bias is rounded once more, half an ulp a step and layer, h below 1.
    assert_parity(output, y, bound=4 * T * form.num_layers * torch.finfo(dtype).eps)
    back = to_torch(layer)
    assert {t.dtype for t in back.state_dict().values()} == {dtype}


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_mode_is_kept(training: bool, bidirectional: bool) -> None:
    plain = plain_of(Form(2, bidirectional, True)).train(training)
    layer = from_torch(plain)
    assert {m.training for m in layer.modules()} == {training}
    assert {m.training for m in to_torch(layer).modules()} == {training}
    for shown in (from_torch(plain, inference_only=True), to_torch(layer, inference_only=True)):
        assert not any(m.training for m in shown.modules())


NAMES = [n for n, _ in plain_of(Form(2, True, True)).named_parameters()]


@pytest.mark.parametrize("frozen", [*NAMES, "all but one", "all"])
def test_each_parameter_is_as_trainable_as_it_was(frozen: str) -> None:
    plain = plain_of(Form(2, True, True))
    for name, parameter in plain.named_parameters():
        both = frozen == "all" or (frozen == "all but one" and name != "weight_hh_l1")
        parameter.requires_grad_(name != frozen and not both)
    layer = from_torch(plain)
    for part, (theirs, suffix) in zip(parts_of(layer), weights_of(plain), strict=True):
        live = {kind: theirs[kind + suffix].requires_grad for kind in ("weight_ih", "weight_hh")}
        live["bias_ih"] = any(theirs[k + suffix].requires_grad for k in ("bias_ih", "bias_hh"))
        found = {n.removesuffix("_l0"): p.requires_grad for n, p in part.lstm.named_parameters()}
        assert found == live
    back = to_torch(layer)
    for name, parameter in back.named_parameters():
        twin = name.replace("bias_ih", "bias_hh")
        expected = "bias_hh" not in name and any(
            dict(plain.named_parameters())[n].requires_grad for n in (name, twin)
        )
        assert parameter.requires_grad is expected, name


@form_of
def test_the_bias_is_the_sum_of_two(form: Form) -> None:
    plain = plain_of(form)
    for part, (theirs, suffix) in zip(parts_of(from_torch(plain)), weights_of(plain), strict=True):
        if form.bias:
            total = theirs["bias_ih" + suffix] + theirs["bias_hh" + suffix]
            assert torch.equal(part.lstm.bias_ih_l0, total)
            assert not part.lstm.bias_hh_l0.any()
        assert part.count_params() == sum(w.size for w in part.get_weights())


@pytest.mark.parametrize("zeros", ["bias_ih_l1", "bias_hh_l1"])
def test_a_bias_of_zeros_is_dropped_and_not_added(zeros: str) -> None:
    plain = plain_of(Form(2, False, True))
    other = {"bias_ih_l1": "bias_hh_l1", "bias_hh_l1": "bias_ih_l1"}[zeros]
    with torch.no_grad():
        getattr(plain, zeros).zero_()
        getattr(plain, other)[::2] = -0.0  # -0.0 + 0.0 is +0.0
    layer = from_torch(plain)
    assert bits(parts_of(layer)[1].lstm.bias_ih_l0) == bits(getattr(plain, other))


@form_of
def test_nothing_is_shared_changed_or_drawn(form: Form) -> None:
    plain = plain_of(form)
    before, drawn = copy.deepcopy(plain.state_dict()), torch.get_rng_state()
    layer = from_torch(plain)
    back = to_torch(layer)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(v, before[k]) for k, v in plain.state_dict().items())
    held = [t.data_ptr() for m in (plain, layer, back) for t in m.state_dict().values()]
    assert len(set(held)) == len(held)


def test_a_module_without_memory_gives_a_layer_without() -> None:
    plain = nn.LSTM(F, U, 2, bidirectional=True, device="meta")
    layer = from_torch(plain)
    assert all(t.is_meta for t in layer.state_dict().values())
    assert all(t.is_meta for t in to_torch(layer).state_dict().values())


def test_layers_inside_are_named_after_the_name() -> None:
    assert from_torch(plain_of(), name="encoder").name == "encoder"
    both = from_torch(plain_of(Form(1, True, True)), name="encoder")
    assert [both.name, *(p.name for p in parts_of(both))] == [
        "encoder",
        "forward_encoder",
        "backward_encoder",
    ]
    chain = from_torch(plain_of(Form(2, False, True)), name="encoder")
    assert [chain.name, *(p.name for p in parts_of(chain))] == ["encoder", "encoder_0", "encoder_1"]
    assert from_torch(nn.LSTMCell(F, U), name="step").name == "step"
    assert from_torch(plain_of()).name is None


def test_the_nn_lstm_inside_a_layer_is_one_too() -> None:
    layer = randomized(LSTM(F, U, return_sequences=True, return_state=True, **FLOAT64_LIKE))
    again = from_torch(layer.lstm)
    same_bits(layer, again)
    assert count_trained(again) == count_trained(layer)


def count_trained(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


# Packed sequences and masks


def lengths_and_mask() -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([T, 1, 3, T, 5])
    return lengths, torch.arange(T) < lengths.unsqueeze(1)


@form_of
def test_a_packed_sequence_is_a_mask(form: Form) -> None:
    plain, x = plain_of(form), batch().requires_grad_()
    lengths, mask = lengths_and_mask()
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
    result, (h, c) = plain(packed)
    y, _ = nn.utils.rnn.pad_packed_sequence(result, batch_first=True)
    poisoned = torch.where(mask.unsqueeze(-1), x, np.nan)
    output, *states = from_torch(plain)(poisoned, mask=mask)
    assert_parity(output, y, bound=FLOAT64)
    assert not output[~mask].any()
    for a, e in zip(states, flat(h, c), strict=True):
        assert_parity(a, e, bound=FLOAT64, what="states")
    dy, dh = batch(*y.shape), batch(*h.shape)
    (e,) = torch.autograd.grad((y * dy).sum() + (h * dh).sum() + c.sum(), x, retain_graph=True)
    ours = (output * dy).sum() + (torch.stack(states[0::2]) * dh).sum() + sum(states[1::2]).sum()
    assert_parity(torch.autograd.grad(ours, x)[0], e, bound=FLOAT64, what="the gradient of x")
    last = from_torch(plain, return_sequences=False, return_state=False)(poisoned, mask=mask)
    expected = torch.cat([h[-2], h[-1]], -1) if form.bidirectional else h[-1]
    assert_parity(last, expected, bound=FLOAT64, what="the last output")


# Dropout between the layers


RATE = 0.4


def dropping(**keywords: Any) -> nn.LSTM:
    return plain_of(Form(3, False, True), dropout=RATE, **keywords)


def test_dropout_drops_the_output_of_every_layer_but_the_last() -> None:
    plain, x = dropping(), batch()
    layer = from_torch(plain)
    masks = [torch.empty(B, T, U).bernoulli_(1 - RATE).double() / (1 - RATE) for _ in range(2)]
    output, *states = layer(x, dropout_masks=[None, *(DropoutMasks(input=m) for m in masks)])
    y, expected = x, []
    for k in range(3):
        one = plain_of(Form(1, False, True))
        if k:
            one = nn.LSTM(U, U, batch_first=True, **FLOAT64_LIKE)
            y = y * masks[k - 1]
        one.load_state_dict(
            {n.replace(f"_l{k}", "_l0"): v for n, v in plain.state_dict().items() if f"_l{k}" in n}
        )
        y, (h, c) = one(y)
        expected += [h[0], c[0]]
    assert_parity(output, y, bound=FLOAT64)
    for a, e in zip(states, expected, strict=True):
        assert_parity(a, e, bound=FLOAT64, what="states")


def far(one: Tensor, other: Tensor) -> float:
    """How many standard errors two samples of a vector lie apart, in means and second moments."""

    def moments(y: Tensor) -> Tensor:
        z = y.flatten(1)
        return torch.cat([z, (z.unsqueeze(1) * z.unsqueeze(2)).flatten(1)], 1)

    a, b = moments(one), moments(other)
    error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
    return float(((a.mean(0) - b.mean(0)).abs() / error).max())


def test_dropout_is_equal_in_distribution() -> None:
    rows, steps, limit = 10000, 4, 5.0
    plain = plain_of(Form(2, False, True, 5), dropout=RATE)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.mul_(2)  # so that what is dropped shows
        x = batch(1, steps, F).expand(rows, -1, -1)
        layer = from_torch(plain, return_state=False)
        expected = plain(x)[0]
        assert far(layer(x), expected) < limit
        assert far(plain(x)[0], expected) < limit
        upper = layer.layers[1]
        for other in ({"dropout_style": "keras"}, {"dropout": RATE + 0.1}):
            upper.config, before = upper.config.replace(**other), upper.config
            assert far(layer(x), expected) > 2 * limit, f"it sees no difference at {other}"
            upper.config = before


def test_dropout_is_for_training_alone() -> None:
    plain, x = dropping().eval(), batch()
    layer = from_torch(plain)
    assert_parity(layer(x)[0], plain(x)[0], bound=FLOAT64)
    assert not torch.equal(layer(x, training=True)[0], layer(x, training=True)[0])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_inference_only_leaves_dropout_out(bidirectional: bool, bias: bool) -> None:
    plain, x = plain_of(Form(3, bidirectional, bias), dropout=RATE), batch()
    layer = from_torch(plain, inference_only=True)
    expected = plain.eval()(x)[0]
    assert_parity(layer(x)[0], expected, bound=FLOAT64)
    assert_parity(layer.train()(x)[0], expected, bound=FLOAT64)
    assert to_torch(layer).dropout == 0.0


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.filterwarnings("ignore:dropout option adds dropout")
def test_dropout_of_one_layer_does_nothing(bidirectional: bool) -> None:
    plain, x = plain_of(Form(1, bidirectional, False), dropout=RATE), batch()
    assert_parity(from_torch(plain)(x)[0], plain(x)[0], bound=FLOAT64)


def test_dropout_goes_round() -> None:
    back = to_torch(from_torch(dropping()))
    assert (back.dropout, back.training) == (RATE, True)
    assert to_torch(from_torch(dropping()), inference_only=True).dropout == 0.0


def test_without_a_bias_frozen_zeros_are_the_way() -> None:
    without, x = plain_of(Form(2, False, False), dropout=RATE), batch()
    advised = plain_of(Form(2, False, True), dropout=RATE)
    for name, parameter in advised.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter).requires_grad_(False)
    advised.load_state_dict(without.state_dict(), strict=False)
    layer = from_torch(advised)
    assert count_trained(layer) == count_trained(without)
    assert_parity(layer.eval()(x)[0], without.eval()(x)[0], bound=FLOAT64)


# Cells


@pytest.mark.parametrize("units", [U, V])
@pytest.mark.parametrize("bias", [True, False])
def test_a_cell_goes_both_ways(bias: bool, units: int, device: torch.device) -> None:
    plain = nn.LSTMCell(F, units, bias, device=device, **FLOAT64_LIKE)
    plain.weight_hh.requires_grad_(False)
    cell = from_torch(plain.eval())
    assert type(cell) is LSTMCell and not cell.training
    assert not cell.lstm.weight_hh_l0.requires_grad and cell.lstm.weight_ih_l0.requires_grad
    back = to_torch(cell)
    assert type(back) is nn.LSTMCell and not back.training
    assert [p.requires_grad for p in back.parameters()] == [True, False, True, False][
        : 4 if bias else 2
    ]
    x, h0, c0 = (batch(B, n, device=device) for n in (F, units, units))
    for state in (None, (h0, c0)):
        h, c = plain(x, state)
        output, end = cell(x, state)
        for a, e in zip((output, *end, *back(x, state)), (h, h, c, h, c), strict=True):
            assert_parity(a, e, bound=FLOAT64)
    same_bits(to_torch(from_torch(back)), back)
    same_bits(from_torch(back), cell)


# To torch


def chain(*layers: Any, **keywords: Any) -> StackedLSTM:
    return StackedLSTM(list(layers), **keywords)


LIKE: dict[str, Any] = {"dtype": torch.float64, "return_sequences": True, "return_state": True}
CELL: dict[str, Any] = {"dtype": torch.float64}

HAVE: dict[str, Callable[[], Any]] = {
    "LSTM": lambda: LSTM(F, U, **LIKE),
    "LSTM of more units": lambda: LSTM(F, V, **LIKE),
    "LSTM without a bias": lambda: LSTM(F, U, use_bias=False, **LIKE),
    "LSTM on its own engine": lambda: LSTM(F, U, use_cudnn=False, unroll=True, **LIKE),
    "LSTM by gates": lambda: LSTM(F, U, implementation=1, seed=3, **LIKE),
    "LSTM that zeroes": lambda: LSTM(F, U, zero_output_for_mask=True, **LIKE),
    "a rate of one, which drops nothing": lambda: chain(
        LSTM(F, U, dropout=1.0, recurrent_dropout=1.0, **LIKE), LSTM(U, U, dropout=1.0, **LIKE)
    ),
    "Bidirectional": lambda: Bidirectional(LSTM(F, U, **LIKE)),
    "Bidirectional without a bias": lambda: Bidirectional(LSTM(F, V, use_bias=False, **LIKE)),
    "Bidirectional, a backward layer given": lambda: Bidirectional(
        LSTM(F, U, **LIKE), backward_layer=LSTM(F, U, go_backwards=True, **LIKE)
    ),
    "a chain of one": lambda: chain(LSTM(F, U, **LIKE)),
    "a chain of LSTMs": lambda: chain(*(LSTM(n, V, **LIKE) for n in (F, V, V))),
    "a chain of Bidirectionals": lambda: chain(
        *(Bidirectional(LSTM(n, U, **LIKE)) for n in (F, 2 * U, 2 * U))
    ),
    "a chain at F = U": lambda: chain(*(LSTM(F, F, **LIKE) for _ in range(3))),
    "a chain without biases": lambda: chain(*(LSTM(n, U, use_bias=False, **LIKE) for n in (F, U))),
    "cells": lambda: chain(
        *(LSTMCell(n, U, **CELL) for n in (F, U, U)), return_sequences=True, return_state=True
    ),
    "a cell in a list": lambda: chain(
        LSTMCell(F, U, **CELL), return_sequences=True, return_state=True
    ),
    "one cell": lambda: StackedLSTM(
        LSTMCell(F, U, **CELL), return_sequences=True, return_state=True
    ),
}


def flattened(states: Any) -> list[Tensor]:
    return [t for s in states for t in (flattened(s) if isinstance(s, tuple) else [s])]


@pytest.mark.parametrize("what", HAVE)
def test_to_torch_gives_outputs_states_and_gradients_of_the_layer(
    what: str, device: torch.device
) -> None:
    layer = randomized(HAVE[what]()).to(device)
    assert why_not_torch(layer) is None
    plain = to_torch(layer)
    assert type(plain) is nn.LSTM and plain.batch_first and plain.dropout == 0.0
    x = batch(device=device).requires_grad_()
    parts = parts_of(layer)
    h0, c0 = (batch(len(parts), B, plain.hidden_size, device=device) for _ in "hc")
    begin: Any = flat(h0, c0)
    if isinstance(parts[0], LSTMCell) and what != "one cell":
        begin = list(zip(h0, c0, strict=True))
    output, *states = layer(x, begin)
    y, (h, c) = plain(x, (h0, c0))
    assert_parity(y, output, bound=FLOAT64)
    for a, e in zip(flat(h, c), flattened(states), strict=True):
        assert_parity(a, e, bound=FLOAT64, what="states")
    d = batch(*y.shape, device=device)
    e, a = (torch.autograd.grad((v * d).sum(), x)[0] for v in (output, y))
    assert_parity(a, e, bound=FLOAT64, what="the gradient of x")


@pytest.mark.parametrize("what", [w for w in HAVE if "cell" not in w and w != "a chain of one"])
def test_from_torch_of_to_torch_is_bitwise(what: str) -> None:
    layer = randomized(HAVE[what]())
    same_bits(from_torch(to_torch(layer)), layer)


@form_of
def test_to_torch_of_from_torch_is_equal_and_then_bitwise(form: Form) -> None:
    plain, x = plain_of(form), batch()
    once = to_torch(from_torch(plain))
    assert (once.num_layers, once.bidirectional, once.bias) == (
        form.num_layers, form.bidirectional, form.bias,
    )  # fmt: skip
    y, (h, c) = plain(x)
    found, (h1, c1) = once(x)
    for name, a, e in (("output", found, y), ("h", h1, h), ("c", c1, c)):
        assert_parity(a, e, bound=FLOAT64, what=name)
    same_bits(to_torch(from_torch(once)), once)


@pytest.mark.parametrize("what", HAVE)
def test_the_plain_module_trains_as_the_layer_does(what: str) -> None:
    layer, x = randomized(HAVE[what]()), batch()
    plain = to_torch(layer)
    assert count_trained(plain) == count_trained(layer)
    thawed = copy.deepcopy(plain).requires_grad_()
    start = copy.deepcopy(plain.state_dict())
    for module in (layer, plain, thawed):
        rule = torch.optim.SGD(module.parameters(), lr=0.1)
        for _ in range(1 if module is thawed else 3):
            rule.zero_grad()
            module(x)[0].square().sum().backward()
            rule.step()
        if module is layer:
            expected = to_torch(layer).state_dict()
    for name, value in plain.state_dict().items():
        assert_parity(value, expected[name], bound=FLOAT64, what=name)
        assert not torch.equal(value, start[name]) or "bias_hh" in name
    if plain.bias:  # torch's own habit: each takes the step
        moved = thawed.bias_ih_l0 - start["bias_ih_l0"]
        assert_parity(thawed.bias_hh_l0, moved, bound=FLOAT64)
        assert moved.any()


def test_a_last_output_is_in_h() -> None:
    x, options = batch(), CELL
    layer = randomized(LSTM(F, U, **options))
    assert_parity(to_torch(layer)(x)[1][0][-1], layer(x), bound=FLOAT64)
    both = randomized(Bidirectional(LSTM(F, U, **options)))
    _, (h, _) = to_torch(both)(x)
    assert_parity(torch.cat([h[-2], h[-1]], -1), both(x), bound=FLOAT64)


def test_time_major_is_batch_first_false() -> None:
    x = batch(T, B, F)
    for layer in (
        LSTM(F, U, time_major=True, **LIKE),
        chain(*(LSTM(n, U, time_major=True, **LIKE) for n in (F, U))),
    ):
        plain = to_torch(randomized(layer))
        assert not plain.batch_first
        assert_parity(plain(x)[0], layer(x)[0], bound=FLOAT64)
        assert_parity(
            from_torch(plain)(x.transpose(0, 1))[0].transpose(0, 1), layer(x)[0], bound=FLOAT64
        )


def test_a_layer_that_has_learnt_its_size_converts() -> None:
    layer = LazyLSTM(U, **LIKE)
    reason = why_not_torch(layer)
    assert reason == "its input size is not learnt yet. Run a batch through it first."
    x = batch()
    output = layer(x)[0]
    assert_parity(to_torch(layer)(x)[0], output, bound=FLOAT64)


# No equal in torch


def regularized(**keywords: Any) -> LSTM[Any]:
    return LSTM(F, U, **keywords)


def of_an_author() -> LSTM[Any]:
    foreign = {"class_name": "Mine", "config": {}, "module": None, "registered_name": "my>Mine"}
    return LSTM.from_lstm_config(F, LSTMConfig(U, kernel_regularizer=foreign))


def pair(
    second: dict[str, Any], first: dict[str, Any] | None = None, units: int = U
) -> StackedLSTM:
    return chain(LSTM(F, U, return_sequences=True, **(first or {})), LSTM(U, units, **second))


def shared() -> StackedLSTM:
    layer = LSTM(U, U, return_sequences=True)
    return chain(layer, layer)


def normed() -> LSTM[Any]:
    layer = LSTM(F, U)
    nn.utils.parametrizations.weight_norm(layer.lstm, "weight_hh_l0")
    return layer


TF = {"dropout": RATE, "dropout_style": "tf_keras"}
LEAVE = "Pass inference_only=True"

# Texts that the reason has, in order. Of the second table, reasons that inference_only takes away.
ALWAYS: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "a wrapper": (
        lambda: TimeDistributed(LSTM(F, U)),
        ("a TimeDistributed is none of LSTM, Bidirectional", "a wrapper's own layer"),
    ),
    "another module": (lambda: nn.GRU(F, U), ("a GRU is none of",)),
    "a lazy layer": (lambda: LazyLSTM(U), ("not learnt yet", "Run a batch")),
    "activation": (
        lambda: LSTM(F, U, activation="relu"),
        ("activation is relu, and nn.LSTM has tanh alone", "Keep this module"),
    ),
    "a callable activation": (lambda: LSTM(F, U, activation=torch.sin), ("activation is sin",)),
    "no activation": (lambda: LSTM(F, U, activation=None), ("activation is linear",)),
    "recurrent_activation": (
        lambda: LSTM(F, U, recurrent_activation="hard_sigmoid"),
        ("recurrent_activation is hard_sigmoid, and nn.LSTM has sigmoid alone",),
    ),
    "activation of a cell": (lambda: LSTMCell(F, U, activation="relu"), ("activation is relu",)),
    "activation above": (
        lambda: pair({"activation": "relu"}),
        ("layer 1: activation is relu",),
    ),
    "activation of a direction": (
        lambda: chain(
            Bidirectional(
                LSTM(F, U, return_sequences=True),
                backward_layer=LSTM(
                    F, U, return_sequences=True, go_backwards=True, activation="relu"
                ),
            )
        ),
        ("layer 0, backward direction: activation is relu",),
    ),
    "activation of a stacked cell": (
        lambda: chain(LSTMCell(F, U), LSTMCell(U, U, activation="elu")),
        ("cell 1: activation is elu",),
    ),
    "go_backwards": (
        lambda: LSTM(F, U, go_backwards=True),
        ("go_backwards=True, and nn.LSTM runs forwards", "give it x.flip(1)"),
    ),
    "go_backwards of cells": (
        lambda: chain(LSTMCell(F, U), go_backwards=True),
        ("go_backwards=True, and nn.LSTM runs forwards",),
    ),
    "go_backwards in a chain": (lambda: pair({"go_backwards": True}), ("go_backwards=True",)),
    "directions exchanged": (
        lambda: Bidirectional(LSTM(F, U, go_backwards=True), backward_layer=LSTM(F, U)),
        ("its forward layer has go_backwards=True", "with the two exchanged"),
    ),
    **{
        f"merge_mode {mode}": (
            lambda mode=mode: Bidirectional(LSTM(F, U), mode),  # type: ignore[misc]
            (f"merge_mode={mode!r}, and nn.LSTM has 'concat' alone", "merge y[..., :units]"),
        )
        for mode in ("sum", "mul", "ave", None)
    },
    "merge_mode in a chain": (
        lambda: chain(Bidirectional(LSTM(F, U, return_sequences=True), "sum"), LSTM(U, U)),
        ("some of its layers are Bidirectional",),
    ),
    "a mixed chain": (
        lambda: chain(LSTM(F, U, return_sequences=True), Bidirectional(LSTM(U, U))),
        ("some of its layers are Bidirectional", "Convert its layers one by one"),
    ),
    "units of directions": (
        lambda: Bidirectional(LSTM(F, U), backward_layer=LSTM(F, V, go_backwards=True)),
        ("units is 2 and 11 inside it, and nn.LSTM has one hidden_size", "alike"),
    ),
    "units of a chain": (lambda: pair({}, units=V), ("units is 2 and 11", "one by one")),
    "units of cells": (lambda: chain(LSTMCell(F, U), LSTMCell(U, V)), ("units is 2 and 11",)),
    "use_bias": (
        lambda: pair({"use_bias": False}),
        ("use_bias is True and False inside it, and nn.LSTM has one bias",),
    ),
    "time_major": (
        lambda: pair({"time_major": True}),
        ("time_major is False and True inside it, and nn.LSTM has one batch_first",),
    ),
    "dtypes": (
        lambda: pair({"dtype": torch.float64}),
        ("dtype is torch.float32 and torch.float64 inside it",),
    ),
    "devices": (
        lambda: pair({"device": "meta"}),
        ("device is cpu and meta inside it, and nn.LSTM has one device",),
    ),
    "stateful": (
        lambda: LSTM(F, U, stateful=True),
        ("stateful=True, and nn.LSTM keeps no state", "hand the (h, c)"),
    ),
    "stateful directions": (
        lambda: Bidirectional(LSTM(F, U, stateful=True)),
        ("forward direction: stateful=True",),
    ),
    "stateful cells": (lambda: chain(LSTMCell(F, U), stateful=True), ("stateful=True",)),
    "a mixed policy": (
        lambda: LSTM(F, U, dtype="mixed_bfloat16"),
        (
            "dtype='mixed_bfloat16' keeps torch.float32 weights and computes in torch.bfloat16",
            "copy.deepcopy(layer).to(torch.bfloat16)",
        ),
    ),
    "a dtype of the directions": (
        lambda: Bidirectional(LSTM(F, U), dtype="mixed_float16"),
        ("its dtype casts the output to torch.float16", "Build it without dtype"),
    ),
    "a dtype of cells": (
        lambda: chain(LSTMCell(F, U), dtype=torch.float64),
        ("its dtype casts the output to torch.float64",),
    ),
    "a dtype in a chain": (
        lambda: chain(Bidirectional(LSTM(F, U), dtype=torch.float64)),
        ("its dtype casts the output to torch.float64",),
    ),
    "a computed weight": (
        normed,
        ("weight_hh_l0 is no parameter but computed", "remove_parametrizations"),
    ),
}

TRAINING: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "recurrent_dropout": (
        lambda: LSTM(F, U, recurrent_dropout=0.2),
        ("recurrent_dropout=0.2 drops h between the steps", LEAVE),
    ),
    "recurrent_dropout above": (
        lambda: pair({"recurrent_dropout": 0.2}),
        ("layer 1: recurrent_dropout=0.2",),
    ),
    "dropout": (
        lambda: LSTM(F, U, dropout=RATE),
        (
            "dropout=0.4 of the style 'keras' keeps its masks through all steps",
            "for each step",
            LEAVE,
        ),
    ),
    "dropout of a cell": (lambda: LSTMCell(F, U, **TF), ("dropout=0.4 of the style 'tf_keras'",)),
    "dropout of cells": (
        lambda: chain(LSTMCell(F, U), LSTMCell(U, U, **TF)),
        ("cell 1: dropout=0.4 of the style 'tf_keras' keeps its masks",),
    ),
    "dropout above": (
        lambda: pair({"dropout": RATE}),
        ("layer 1: dropout=0.4 of the style 'keras'",),
    ),
    "dropout a step, without a bias": (
        lambda: pair({**TF, "use_bias": False}, {"use_bias": False}),
        ("layer 1: dropout=0.4 of the style 'tf_keras' keeps",),
    ),
    "dropout in front": (
        lambda: LSTM(F, U, **TF),
        ("dropout=0.4 drops the input of the first layer", "torch.nn.Dropout(0.4) in front", LEAVE),
    ),
    "dropout in front of a chain": (
        lambda: pair(TF, TF),
        ("layer 0: dropout=0.4 drops the input of the first layer",),
    ),
    "dropout of directions": (
        lambda: chain(
            *(Bidirectional(LSTM(n, U, return_sequences=True, **TF)) for n in (F, 2 * U))
        ),
        ("layer 0, forward direction: dropout=0.4 draws a mask for each direction", LEAVE),
    ),
    "two rates": (
        lambda: chain(
            LSTM(F, U, return_sequences=True),
            LSTM(U, U, return_sequences=True, **TF),
            LSTM(U, U, **(TF | {"dropout": 0.2})),
        ),
        ("dropout is 0.2 and 0.4 in the layers above the first", "one rate", LEAVE),
    ),
    "dropout of one layer of three": (
        lambda: chain(
            LSTM(F, U, return_sequences=True),
            LSTM(U, U, return_sequences=True),
            LSTM(U, U, **TF),
        ),
        ("dropout is 0.0 and 0.4",),
    ),
    **{
        f"{role}_{kind}": (
            lambda role=role, kind=kind, value=value: LSTM(F, U, **{f"{role}_{kind}": value}),  # type: ignore[misc]
            (f"{role}_{kind} would be lost", LEAVE),
        )
        for role in ("kernel", "recurrent", "bias")
        for kind, value in (("regularizer", "l2"), ("constraint", "non_neg"))
    },
    "activity_regularizer": (
        lambda: LSTM(F, U, activity_regularizer="l1"),
        ("activity_regularizer would be lost",),
    ),
    "activity_regularizer of directions": (
        lambda: Bidirectional(LSTM(F, U), activity_regularizer="l1"),
        ("activity_regularizer would be lost",),
    ),
    "activity_regularizer of cells": (
        lambda: chain(LSTMCell(F, U), activity_regularizer="l1"),
        ("activity_regularizer would be lost",),
    ),
    "two of them": (
        lambda: pair({"kernel_regularizer": "l2"}, {"bias_constraint": "non_neg"}),
        ("bias_constraint, kernel_regularizer would be lost",),
    ),
    "code of an author": (of_an_author, ("kernel_regularizer (code of the model's author)", LEAVE)),
    "shared weights": (shared, ("a layer stands in it twice", "inference_only=True for copies")),
}


@pytest.mark.parametrize("what", [*ALWAYS, *TRAINING])
def test_where_torch_has_no_equal_the_reason_is_named(what: str) -> None:
    build, parts = (ALWAYS | TRAINING)[what]
    module = build()
    reason = why_not_torch(module)
    assert reason is not None
    at = [reason.find(part) for part in parts]
    assert -1 not in at and at == sorted(at), f"{parts} not in: {reason}"
    with pytest.raises(ConfigError) as caught:
        to_torch(module)
    label = getattr(module, "_label", type(module).__name__)
    assert str(caught.value) == f"to_torch: {label} has no equal in plain torch: {reason}"
    assert "  " not in reason and reason.endswith(".")


@pytest.mark.parametrize("what", ALWAYS)
def test_inference_only_is_no_way_round_what_changes_inference(what: str) -> None:
    module = ALWAYS[what][0]()
    assert why_not_torch(module, inference_only=True) == why_not_torch(module)


@pytest.mark.parametrize("what", TRAINING)
def test_inference_only_leaves_out_what_matters_in_training_alone(what: str) -> None:
    module = TRAINING[what][0]()
    assert why_not_torch(module, inference_only=True) is None
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -0.7, 0.7)
    plain = to_torch(module, inference_only=True)
    module.eval()
    features = plain.input_size
    if isinstance(plain, nn.LSTMCell):
        x = torch.randn(B, features)
        assert_parity(plain(x)[0], module(x)[0], bound=1e-6)
        return
    x = torch.randn(B, T, features)
    y, (h, _) = plain(x)
    output = module(x)
    expected = torch.cat([h[-2], h[-1]], -1) if plain.bidirectional else h[-1]
    assert_parity(output, y if output.ndim == 3 else expected, bound=1e-6)
    assert not plain.training


# What the reasons advise is true


def test_backwards_is_forwards_over_a_flipped_input() -> None:
    x = batch()
    layer = randomized(LSTM(F, U, go_backwards=True, **LIKE))
    twin = LSTM(F, U, **LIKE)
    twin.set_weights(layer.get_weights())
    assert_parity(to_torch(twin)(x.flip(1))[0], layer(x)[0], bound=FLOAT64)


def test_halves_can_be_merged_afterwards() -> None:
    x = batch()
    layer = randomized(Bidirectional(LSTM(F, U, **LIKE), "mul"))
    twin = Bidirectional(LSTM(F, U, **LIKE))
    twin.set_weights(layer.get_weights())
    y, _ = to_torch(twin)(x)
    assert_parity(y[..., :U] * y[..., U:], layer(x)[0], bound=FLOAT64)


def test_exchanged_directions_give_exchanged_halves_backwards() -> None:
    x = batch()
    layer = randomized(
        Bidirectional(LSTM(F, U, go_backwards=True, **LIKE), backward_layer=LSTM(F, U, **LIKE))
    )
    twin = Bidirectional(LSTM(F, U, **LIKE))
    weights = layer.get_weights()
    twin.set_weights([*weights[3:], *weights[:3]])
    y = to_torch(twin)(x)[0].flip(1)
    assert_parity(torch.cat([y[..., U:], y[..., :U]], -1), layer(x)[0], bound=FLOAT64)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_copy_in_16_bits_infers_as_the_mixed_layer_does(policy: str) -> None:
    layer = randomized(LSTM(F, U, dtype=policy, return_sequences=True))
    dtype = getattr(torch, policy.removeprefix("mixed_"))
    plain, x = to_torch(copy.deepcopy(layer).to(dtype)), batch(dtype=dtype)
    assert plain.weight_ih_l0.dtype == dtype
    assert_parity(plain(x)[0], layer(x), bound=torch.finfo(dtype).eps)


# No equal of torch's


class Mine(nn.LSTM):
    def forward(self, *args: Any) -> Any:
        return super().forward(*args)


def tied() -> nn.LSTM:
    plain = plain_of(Form(3, False, True))
    plain.weight_ih_l2 = plain.weight_ih_l1
    return plain


def pruned() -> nn.LSTM:
    return prune.random_unstructured(plain_of(), "weight_ih_l0", 0.5)  # type: ignore[no-any-return]


def renormed() -> nn.LSTM:
    plain = plain_of()
    nn.utils.parametrizations.weight_norm(plain, "weight_hh_l0")
    return plain


REFUSED: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "a GRU": (lambda: nn.GRU(F, U), ("a torch.nn.modules.rnn.GRU is neither", "Pass one of those")),
    "no module": (lambda: "lstm", ("a builtins.str is neither a torch.nn.LSTM",)),
    "an LSTM of this package": (
        lambda: LSTM(F, U),
        ("a kerasish_lstm.layers.lstm.LSTM is neither",),
    ),
    "a subclass": (lambda: Mine(F, U), ("nn.Mine(3, 2)", "forward of its own", "its state dict")),
    "a projection": (
        lambda: nn.LSTM(F, V, proj_size=U),
        ("nn.LSTM(3, 11, proj_size=2)", "proj_size=2 makes h smaller", "proj_size=0"),
    ),
    "a weight norm": (
        renormed,
        ("nn.ParametrizedLSTM(3, 2, ", "weight_hh_l0 is no parameter", "remove_parametrizations"),
    ),
    "pruning": (pruned, ("weight_ih_l0 is no parameter", "prune.remove")),
}
REFUSED_IN_TRAINING: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "dropout between directions": (
        lambda: plain_of(Form(2, True, True), dropout=RATE),
        ("dropout=0.4, bidirectional=True)", "both directions of a layer one mask", LEAVE),
    ),
    "the same in eval mode": (
        lambda: plain_of(Form(2, True, True), dropout=RATE).eval(),
        ("both directions of a layer one mask",),
    ),
    "dropout without a bias": (
        lambda: plain_of(Form(2, False, False), dropout=RATE),
        ("no Keras does so without a bias", "biases of zeros, frozen", LEAVE),
    ),
    "a rate of one": (
        lambda: plain_of(Form(2, False, True), dropout=1.0),
        ("dropout=1.0 drops everything between its layers", "a rate of 1 drops nothing", LEAVE),
    ),
    "tied weights": (tied, ("two of its weights are one parameter", "inference_only=True")),
}


@pytest.mark.parametrize("what", [*REFUSED, *REFUSED_IN_TRAINING])
def test_what_has_no_equal_here_is_refused_with_the_reason(what: str) -> None:
    build, parts = (REFUSED | REFUSED_IN_TRAINING)[what]
    with pytest.raises(ConfigError) as caught:
        from_torch(build())
    said = str(caught.value)
    at = [said.find(part) for part in ("from_torch: ", *parts)]
    assert -1 not in at and at == sorted(at), f"{parts} not in: {said}"


@pytest.mark.parametrize("what", REFUSED)
def test_inference_only_is_no_way_round_these(what: str) -> None:
    with pytest.raises(ConfigError):
        from_torch(REFUSED[what][0](), inference_only=True)


@pytest.mark.parametrize("what", REFUSED_IN_TRAINING)
def test_inference_only_is_the_way_round_those(what: str) -> None:
    plain, x = REFUSED_IN_TRAINING[what][0](), batch()
    layer = from_torch(plain, inference_only=True)
    assert_parity(layer(x)[0], plain.eval()(x)[0], bound=FLOAT64)


@pytest.mark.parametrize("flag", ["return_sequences", "return_state"])
def test_a_cell_takes_no_flag_of_a_layer(flag: str) -> None:
    with pytest.raises(ConfigError, match=f"{flag}=False.* nn.LSTMCell, which is one step"):
        from_torch(nn.LSTMCell(F, U), **{flag: False})  # type: ignore[call-overload]


def test_a_bad_name_is_refused() -> None:
    for module in (plain_of(), plain_of(Form(1, True, True)), plain_of(Form(2, False, True))):
        with pytest.raises(ConfigError, match="without '/'"):
            from_torch(module, name="a/b")
