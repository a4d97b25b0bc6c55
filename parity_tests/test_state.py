"""stateful=True: the state carried between calls, and what may and may not happen to it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kerasish_lstm import LSTM, LSTMState
from kerasish_lstm.errors import InputError, StateError
from kerasish_lstm.parity import assert_parity, oracle
from kerasish_lstm.parity.bounds import FLOAT64

pytestmark = pytest.mark.smoke

ENGINES = pytest.mark.parametrize(
    "use_cudnn", ["auto", True, False], ids=["native", "fused", "scan"]
)
B, T, F, U = 5, 13, 3, 7


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(21)
        yield


def layer_of(device: torch.device | str = "cpu", **keywords: Any) -> LSTM[Any]:
    """A stateful float64 layer with random weights."""
    options = {"stateful": True, "return_state": True, **keywords}
    layer: LSTM[Any] = LSTM(F, U, dtype=torch.float64, device=device, **options)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return layer


def batch(device: torch.device | str = "cpu", size: int = B) -> Tensor:
    return torch.randn(size, T, F, dtype=torch.float64).to(device)


def pair(device: torch.device | str = "cpu", size: int = B) -> tuple[Tensor, Tensor]:
    h, c = torch.randn(2, size, U, dtype=torch.float64).to(device)
    return h, c


def stored(layer: LSTM[Any]) -> LSTMState:
    assert layer.states is not None
    return layer.states


def truth(layer: LSTM[Any], x: Tensor, **options: Any) -> oracle.Result:
    arrays = {k: v.cpu().numpy() if isinstance(v, Tensor) else v for k, v in options.items()}
    return oracle.forward(x.cpu().numpy(), *layer.get_weights(), **arrays)


def assert_state(state: Any, expected: Any) -> None:
    assert_parity(state.h, expected.h, bound=FLOAT64, what="h")
    assert_parity(state.c, expected.c, bound=FLOAT64, what="c")


# Carrying


@ENGINES
@pytest.mark.parametrize("cut", [1, 5, 12])
def test_two_parts_of_a_sequence_equal_the_whole(
    cut: int, use_cudnn: Any, device: torch.device
) -> None:
    layer, x = layer_of(device, use_cudnn=use_cudnn, return_sequences=True), batch(device)
    whole = truth(layer, x, return_sequences=True)
    parts = torch.cat([layer(x[:, :cut])[0], layer(x[:, cut:])[0]], 1)
    assert_parity(parts, whole.output, bound=FLOAT64)
    assert_state(stored(layer), whole)


@ENGINES
def test_two_parts_equal_the_whole_under_masks_that_empty_rows(
    use_cudnn: Any, device: torch.device
) -> None:
    layer, x = layer_of(device, use_cudnn=use_cudnn), batch(device)
    mask = torch.rand(B, T) < 0.5
    mask[0] = False  # never a step
    mask[1, :6] = False  # none in the first part
    mask[2, 6:] = False  # none in the second: the state must pass through
    mask[3:, ::5] = True
    mask = mask.to(device)
    whole = truth(layer, x, mask=mask)
    layer(x[:, :6], mask=mask[:, :6])
    between = stored(layer)
    layer(x[:, 6:], mask=mask[:, 6:])
    assert_state(stored(layer), whole)
    assert not any(s[0].any() for s in stored(layer))
    assert all(torch.equal(a[2], b[2]) for a, b in zip(stored(layer), between, strict=True))


@pytest.mark.parametrize("return_state", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_the_final_state_is_stored_whether_returned_or_not(
    return_state: bool, masked: bool, device: torch.device
) -> None:
    layer, x = layer_of(device, return_state=return_state), batch(device)
    mask = (torch.rand(B, T) < 0.6).to(device) if masked else None
    result = layer(x, mask=mask)
    expected = truth(layer, x, mask=mask)
    assert_state(stored(layer), expected)
    if return_state:
        assert_state(LSTMState(*result[1:]), expected)


def test_a_layer_that_is_not_stateful_begins_anew() -> None:
    layer, x = layer_of(stateful=False), batch()
    first = layer(x)[0]
    assert torch.equal(layer(x)[0], first)
    assert layer.states is None


# Resetting, giving, setting


@pytest.mark.parametrize("reset", ["reset_state", "reset_states", "states", "reset_parameters"])
def test_a_reset_begins_with_zeros_and_with_any_batch_size(reset: str) -> None:
    layer, x = layer_of(), batch(size=3)
    layer(batch())
    if reset == "states":
        layer.states = None
    else:
        getattr(layer, reset)()
    assert layer.states is None
    assert_parity(layer(x)[0], truth(layer, x).output, bound=FLOAT64)


def test_a_reset_is_harmless_where_there_is_no_state() -> None:
    for layer in (layer_of(), layer_of(stateful=False)):
        layer.reset_state()
        assert layer.states is None


@ENGINES
def test_a_given_state_overrides_the_stored_one_for_this_call(
    use_cudnn: Any, device: torch.device
) -> None:
    layer, x, (h0, c0) = layer_of(device, use_cudnn=use_cudnn), batch(device), pair(device)
    layer(batch(device))
    result = layer(x, initial_state=(h0, c0))
    expected = truth(layer, x, h0=h0, c0=c0)
    assert_parity(result[0], expected.output, bound=FLOAT64)
    assert_state(stored(layer), expected)
    following = truth(layer, x, h0=expected.h, c0=expected.c)
    assert_parity(layer(x)[0], following.output, bound=FLOAT64, what="the next call")


@pytest.mark.parametrize("form", [tuple, list, lambda s: LSTMState(*s)])
def test_a_state_can_be_set(form: Callable[[Any], Any]) -> None:
    layer, x, (h, c) = layer_of(), batch(), pair()
    layer.states = form((h, c))
    expected = truth(layer, x, h0=h, c0=c)
    h.zero_()  # the layer has its own copy
    assert_parity(layer(x)[0], expected.output, bound=FLOAT64)


def test_a_set_state_takes_the_layer_s_dtype_and_leaves_the_graph() -> None:
    layer = layer_of().float()
    h, c = pair()
    layer.states = (h.requires_grad_(), c.requires_grad_())
    assert {(s.dtype, s.requires_grad) for s in stored(layer)} == {(torch.float32, False)}


@pytest.mark.parametrize(
    "shapes", [((B, U + 1), (B, U + 1)), ((B, U), (B + 1, U)), ((U,), (U,)), ((B, U), (U, B))]
)
def test_a_state_of_a_wrong_shape_is_refused(shapes: Any) -> None:
    layer = layer_of()
    kept = pair()
    layer.states = kept
    with pytest.raises(StateError) as caught:
        layer.states = tuple(torch.zeros(s) for s in shapes)
    for part in ("LSTM(input_size=3, units=7)", "(B, 7)", str(shapes[0]), str(shapes[1])):
        assert part in str(caught.value)
    assert torch.equal(stored(layer).h, kept[0])


@pytest.mark.parametrize("state", [torch.zeros(2, B, U), "hc", (torch.zeros(B, U),), ([], [])])
def test_what_is_no_pair_of_tensors_is_no_state(state: Any) -> None:
    layer = layer_of()
    with pytest.raises(InputError, match="LSTM"):
        layer.states = state
    assert layer.states is None


def test_a_layer_that_is_not_stateful_refuses_a_state() -> None:
    layer = layer_of(stateful=False)
    with pytest.raises(StateError, match=r"keeps no state.*stateful=True.*initial_state"):
        layer.states = pair()


@pytest.mark.parametrize("size", [1, B - 1, B + 1])
def test_another_batch_size_is_refused_until_a_reset(size: int) -> None:
    layer = layer_of()
    layer(batch())
    before = stored(layer)
    with pytest.raises(StateError) as caught:
        layer(batch(size=size))
    for part in (f"a batch of {B};", f"has {size}.", "reset_state()", "LSTM(input_size=3"):
        assert part in str(caught.value)
    assert stored(layer) is before
    layer.reset_state()
    layer(batch(size=size))
    assert stored(layer).h.shape == (size, U)


def test_a_call_that_fails_leaves_the_state_alone() -> None:
    layer = layer_of()
    layer(batch())
    before = [s.clone() for s in stored(layer)]
    with pytest.raises(InputError):
        layer(batch()[:, :, 1:])
    with pytest.raises(InputError):
        layer(batch(), mask=torch.ones(B, T + 1))
    assert all(torch.equal(a, b) for a, b in zip(stored(layer), before, strict=True))


# What the state is not: part of a state dict, of a graph, of a mode


def test_the_state_is_in_no_state_dict_and_survives_loading_one() -> None:
    layer = layer_of()
    keys = list(layer.state_dict())
    layer(batch())
    assert list(layer.state_dict()) == keys
    assert len(list(layer.buffers())) == 1
    before = stored(layer)
    layer.load_state_dict(layer_of().state_dict())
    assert stored(layer) is before


@ENGINES
@pytest.mark.parametrize("masked", [True, False])
def test_training_goes_on_over_several_batches(
    use_cudnn: Any, masked: bool, device: torch.device
) -> None:
    """With a state still in the graph, the second backward would run through freed buffers."""
    layer = layer_of(device, use_cudnn=use_cudnn)
    rule = torch.optim.SGD(layer.parameters(), lr=0.1)
    mask = (torch.rand(B, T) < 0.6).to(device) if masked else None
    state: dict[str, Tensor] = {}
    for _ in range(3):
        x = batch(device)
        expected = oracle.gradients(
            x.cpu().numpy(),
            *layer.get_weights(),
            mask=None if mask is None else mask.cpu().numpy(),
            d_output=np.ones((B, U)),
            **{k: v.cpu().numpy() for k, v in state.items()},
        )
        rule.zero_grad()
        layer(x, mask=mask)[0].sum().backward()
        for p, name in zip(layer.parameters(), ("kernel", "recurrent_kernel"), strict=False):
            assert p.grad is not None
            assert_parity(p.grad.t(), getattr(expected, name), bound=FLOAT64, what=name)
        rule.step()
        assert not any(s.requires_grad for s in stored(layer))
        state = dict(zip(("h0", "c0"), stored(layer), strict=True))


def test_the_stored_state_is_not_the_returned_tensor() -> None:
    layer = layer_of()
    _, h, c = layer(batch())
    before = [s.clone() for s in stored(layer)]
    with torch.no_grad():
        h.zero_()
        c.zero_()
    assert all(torch.equal(a, b) for a, b in zip(stored(layer), before, strict=True))


@ENGINES
def test_a_state_from_inference_mode_can_be_trained_on(
    use_cudnn: Any, device: torch.device
) -> None:
    layer, x = layer_of(device, use_cudnn=use_cudnn), batch(device)
    with torch.inference_mode():
        layer(x)
        given = pair(device)
    assert not any(s.is_inference() for s in stored(layer))
    layer(x)[0].sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    with torch.inference_mode():
        layer.states = given
    layer(x)[0].sum().backward()


def test_autocast_keeps_the_state_in_the_parameters_dtype() -> None:
    layer = layer_of().float()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(batch().float())[1].dtype == torch.bfloat16
    assert {s.dtype for s in stored(layer)} == {torch.float32}


# Copies and moves


@pytest.mark.parametrize(
    ("move", "dtype"),
    [
        (lambda m: m.half(), torch.float16),
        (lambda m: m.bfloat16(), torch.bfloat16),
        (lambda m: m.to(torch.float32), torch.float32),
        (lambda m: nn.Sequential(m).float()[0], torch.float32),
    ],
    ids=["half", "bfloat16", "to", "in a parent"],
)
def test_the_state_follows_the_dtype(move: Callable[[Any], Any], dtype: torch.dtype) -> None:
    layer = layer_of()
    layer(batch())
    before = stored(layer)
    moved = move(layer)
    assert all(torch.equal(s, b.to(dtype)) for s, b in zip(stored(moved), before, strict=True))
    moved(batch())
    assert {s.dtype for s in stored(moved)} == {dtype}


def test_the_state_follows_the_device(device: torch.device) -> None:
    layer = layer_of()
    layer(batch())
    layer.to(device)
    assert {s.device.type for s in stored(layer)} == {device.type}
    layer(batch(device))


@pytest.mark.parametrize(
    "through", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
def test_a_copy_goes_on_from_the_same_state_on_its_own(through: Callable[[Any], Any]) -> None:
    layer, x = layer_of(), batch()
    layer(batch())
    state = stored(layer)
    expected = truth(layer, x, h0=state.h, c0=state.c)
    twin = through(layer)
    assert_parity(twin(x)[0], expected.output, bound=FLOAT64)
    assert stored(layer) is state
    assert_parity(layer(x)[0], expected.output, bound=FLOAT64)
