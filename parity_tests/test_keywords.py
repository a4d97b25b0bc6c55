"""Keywords and forms of call that few use: each does what live Keras does with it."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pytest
import torch

from kerasish_lstm import (
    LSTM,
    Bidirectional,
    DropoutMasks,
    LazyLSTM,
    LazyLSTMCell,
    LSTMCell,
    StackedLSTM,
    TimeDistributed,
    load_safetensors,
    save_safetensors,
)
from kerasish_lstm.errors import ConfigError, InputError, StateError, WeightMismatch
from kerasish_lstm.parity import assert_parity
from kerasish_lstm.parity.bounds import FLOAT64

from .keras_live import KerasLive

B, T, F, U = 5, 7, 3, 11
RNG = np.random.RandomState(3)
X = RNG.uniform(-2, 2, (B, T, F))
WEIGHTS = [RNG.uniform(-0.5, 0.5, s) for s in ((F, 4 * U), (U, 4 * U), (4 * U,))]
H, C = (RNG.uniform(-1, 1, (B, U)) for _ in "hc")
Array = np.ndarray


def lstm(**keywords: Any) -> LSTM[Any]:
    layer: LSTM[Any] = LSTM(F, U, dtype="float64", **keywords)
    layer.set_weights(WEIGHTS)
    return layer


def cell(**keywords: Any) -> LSTMCell:
    made = LSTMCell(F, U, **keywords)
    made.set_weights(WEIGHTS)
    return made


MAKERS: dict[str, Any] = {
    "LSTM": lambda **k: LSTM(F, 2, **k),
    "LSTMCell": lambda **k: LSTMCell(F, 2, **k),
    "Bidirectional": lambda **k: Bidirectional(LSTM(F, 2), **k),
    "RNN": lambda **k: StackedLSTM(LSTMCell(F, 2), **k),
    "TimeDistributed": lambda **k: TimeDistributed(LSTM(F, 2), **k),
}
NAMES = ["input_shape", "input_dim", "autocast"]


@pytest.mark.live
def test_no_keyword_of_keras_s_layers_is_refused(keras: KerasLive) -> None:
    found = keras.call("keywords_side.keywords", NAMES)
    assert set(found.values()) == {"taken"}
    values = {"input_shape": (5, F), "input_dim": F, "autocast": False}
    for key in found:
        kind, name = key.split()
        MAKERS[kind](**{name: values[name]})


@pytest.mark.parametrize("kind", MAKERS)
def test_a_shape_that_contradicts_is_refused(kind: str) -> None:
    for keywords in ({"input_shape": (None, F)}, {"input_shape": (7, None)}, {"input_dim": F}):
        MAKERS[kind](**keywords)
    with pytest.raises(ConfigError, match="says 4 features and input_size=3"):
        MAKERS[kind](input_shape=(5, 4))
    with pytest.raises(ConfigError, match="input_dim=0 is not possible; pass the shape of one"):
        MAKERS[kind](input_dim=0)
    with pytest.raises(ConfigError, match="input_shape='ab' is not possible"):
        MAKERS[kind](input_shape="ab")


def test_a_shape_tells_a_lazy_layer_its_size() -> None:
    layer: Any = LazyLSTM(U, input_shape=(T, F))
    assert type(layer) is LSTM and layer.input_size == F
    assert type(LazyLSTMCell(U, input_dim=F)) is LSTMCell
    assert type(LazyLSTM(U, input_shape=(T, None))) is LazyLSTM
    both = Bidirectional(LazyLSTM(U), input_shape=(T, F))
    assert both.input_size == F and type(both.backward_layer) is LSTM
    assert StackedLSTM([LazyLSTMCell(U), LazyLSTMCell(2)], input_dim=F).input_size == F
    inner: Any = LazyLSTM(U)
    TimeDistributed(inner, input_shape=(2, T, F))
    assert inner.input_size == F
    assert layer(torch.rand(B, T, F)).shape == (B, U)


# autocast

POLICIES = ["float32", "float64", "mixed_bfloat16"]
DTYPES = ["float32", "float64"]


@pytest.mark.live
def test_a_cell_without_autocast_computes_as_keras_does(keras: KerasLive) -> None:
    requests = [
        {
            "policy": policy,
            "units": U,
            "weights": WEIGHTS,
            "arrays": [a.astype(dtype) for a in (X[:, 0], H, C)],
        }
        for policy in POLICIES
        for dtype in DTYPES
    ]
    answers = keras.call("keywords_side.steps_without_autocast", requests)
    assert sum(isinstance(a, str) for a in answers) == 1  # float32 states in a cell of float64
    for request, answer in zip(requests, answers, strict=True):
        arrays = [torch.tensor(a) for a in request["arrays"]]
        made = cell(dtype=request["policy"], autocast=False).eval()
        output, state = made(arrays[0], arrays[1:])
        if isinstance(answer, str):
            assert output.dtype == torch.float64
            continue
        assert str(output.dtype) == f"torch.{answer[0]}"
        for mine, theirs in zip((output, *state), answer[1:], strict=True):
            bound = FLOAT64 if answer[0] == "float64" else 4e-7
            assert_parity(mine.detach(), theirs, bound=bound)


@pytest.mark.live
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_wrappers_without_autocast_do_not_round_the_input(policy: str, keras: KerasLive) -> None:
    wide = {}
    for autocast in (False, True):
        found = keras.call("keywords_side.wrappers_without_autocast", X, WEIGHTS, policy, autocast)
        options = {"dtype": policy, "autocast": autocast}
        inner = LSTMCell(F, U, dtype="float64")
        ours: dict[str, Any] = {
            "LSTM": lstm(autocast=autocast),
            "Bidirectional": Bidirectional(lstm(), "sum", **options),
            "RNN": StackedLSTM(inner, **options),
            "TimeDistributed": TimeDistributed(lstm(), **options),
        }
        for name, layer in ours.items():
            layer.set_weights(WEIGHTS * (2 if name == "Bidirectional" else 1))
            x = torch.tensor(X)
            y = layer(x.unsqueeze(1) if name == "TimeDistributed" else x).double().detach()
            rounded = name in ("Bidirectional", "RNN")  # their results are, in the wrapper's dtype
            low = 8e-3 if policy != "float32" else 4e-7
            assert_parity(y, found[name], bound=low if rounded else FLOAT64, what=name)
            wide[name, autocast] = y
    # It matters: TimeDistributed's result is in float64, of an input that was rounded or not.
    gap = (wide["TimeDistributed", True] - wide["TimeDistributed", False]).abs().max()
    assert gap > 1e-9
    assert torch.equal(wide["LSTM", True], wide["LSTM", False])


def test_autocast_is_kept_in_safetensors(tmp_path: Any) -> None:
    for make in (
        lambda **k: LSTMCell(F, U, **k),
        lambda **k: Bidirectional(LSTM(F, U), dtype="float32", **k),
        lambda **k: StackedLSTM([LSTMCell(F, U)], **k),
        lambda **k: TimeDistributed(LSTM(F, U), **k),
    ):
        for autocast in (False, True):
            module = make(autocast=autocast)
            save_safetensors(module, tmp_path / "m.safetensors")
            again: Any = load_safetensors(tmp_path / "m.safetensors")
            held = again.config if isinstance(again, LSTMCell) else again
            assert held.autocast is autocast


# A cell's activity regularizer


@pytest.mark.live
def test_a_cell_s_activity_losses_are_keras_s(keras: KerasLive) -> None:
    theirs = keras.call("keywords_side.losses_of_a_cell", [X[:, 0], H, C], WEIGHTS)
    made = cell(dtype="float64", activity_regularizer="l2")
    x, h, c = (torch.tensor(a) for a in (X[:, 0], H, C))
    _, state = made(x, (h, c))
    made(x, state)
    assert len(theirs) == 3
    assert np.allclose([float(loss.detach()) for loss in made.losses], theirs, rtol=1e-13, atol=0)
    assert made.get_config()["activity_regularizer"]["class_name"] == "L2"
    again = LSTMCell.from_config(made.get_config(), F)
    assert again.config.activity_regularizer is not None
    assert "activity_regularizer" not in cell().get_config()
    with pytest.raises(ConfigError, match="cell 1 has an activity_regularizer"):
        StackedLSTM([LSTMCell(F, U), LSTMCell(U, 2, activity_regularizer="l2")])


# States


@pytest.mark.live
def test_c_is_broadcast_as_in_keras(keras: KerasLive) -> None:
    cs = [C[:, :1], C[:1], C[:1, :1], C[0], C[0, :1], np.array(0.3)]
    theirs = keras.call("keywords_side.broadcast_states", X, H, cs, WEIGHTS)
    for c, expected in zip(cs, theirs, strict=True):
        y = lstm()(torch.tensor(X), (torch.tensor(H), torch.tensor(c)))
        assert_parity(y.detach(), expected, bound=FLOAT64, what=str(c.shape))
    with pytest.raises(InputError, match=r"initial_state's h has shape \(5, 1\)"):
        lstm()(torch.tensor(X), (torch.tensor(H[:, :1]), torch.tensor(C)))
    with pytest.raises(InputError, match=r"initial_state's c has shape \(4, 11\)"):
        lstm()(torch.tensor(X), (torch.tensor(H), torch.tensor(C[:4])))


def test_states_of_a_bidirectional_are_read_and_set() -> None:
    both = Bidirectional(LSTM(F, U, stateful=True))
    assert both.states is None
    x = torch.tensor(X, dtype=torch.float32)
    first = both(x)
    held = both.states
    assert held is not None and [tuple(s.shape) for s in held] == [(B, U)] * 4
    assert torch.equal(held[0], first[:, :U]) and torch.equal(held[2], first[:, U:])
    second = both(x)
    both.states = held
    assert torch.equal(both(x), second)
    both.states = None
    assert both.states is None and torch.equal(both(x), first)
    with pytest.raises(InputError, match="states is a list with 2 entries; pass 4, h_f, c_f"):
        both.states = list(held[:2])  # type: ignore[assignment]
    with pytest.raises(StateError, match="keeps no state"):
        Bidirectional(LSTM(F, U)).states = held


def test_states_of_stacks_are_read_and_set() -> None:
    x = torch.tensor(X, dtype=torch.float32)
    chain = StackedLSTM(
        [
            LSTM(F, U, stateful=True, return_sequences=True),
            LSTM(U, 2, return_sequences=True),
            Bidirectional(LSTM(2, 3, stateful=True)),
        ]
    )
    cells = StackedLSTM([LSTMCell(F, U), LSTMCell(U, 2)], stateful=True)
    for stack, size in ((chain, 6), (cells, 2)):
        assert stack.states is None
        first = stack(x)
        held = stack.states
        assert len(held) == size
        second = stack(x)
        stack.states = held
        assert torch.equal(stack(x), second) and not torch.equal(first, second)
        stack.states = None
        assert torch.equal(stack(x), first)
        with pytest.raises(InputError, match=f"states is a tuple with 1 entries; pass {size}"):
            stack.states = held[:1]
        assert torch.equal(stack(x), second)  # nothing was forgotten
    with pytest.raises(StateError, match=r"cell 1: a state must be \(h, c\), both of shape \(B, 2"):
        cells.states = [cells.states[0], cells.states[0]]
    with pytest.raises(StateError, match="StackedLSTM of 1 cell keeps no state"):
        StackedLSTM([LSTMCell(F, U)]).states = None


@pytest.mark.live
def test_a_stack_keeps_its_states_in_the_dtype_in_which_keras_does(keras: KerasLive) -> None:
    found = keras.call("keywords_side.state_dtypes", X)
    for policy, dtypes in found.items():
        cells = [LSTMCell(F, 2, dtype="float64"), LSTMCell(2, 3, dtype="float64")]
        stack = StackedLSTM(cells, stateful=True, dtype=policy)
        stack(torch.tensor(X))
        ours = [str(t.dtype).removeprefix("torch.") for state in stack.states for t in state]
        assert ours == dtypes, policy
    own = StackedLSTM([LSTMCell(F, 2), LSTMCell(2, 3, dtype="float64")], stateful=True)
    own(torch.tensor(X))
    assert [s.h.dtype for s in own.states] == [torch.float32, torch.float64]


def test_states_that_overflow_above_a_row_without_steps_leave_the_gradients_finite() -> None:
    cells = [LSTMCell(F, 2, activation="relu"), LSTMCell(2, 3, activation="relu",
             recurrent_activation="relu")]  # fmt: skip
    stack = StackedLSTM(cells, return_sequences=True)
    cells[1].set_weights([np.full(s, 0.05) for s in ((2, 12), (3, 12), (12,))])
    x = torch.rand(2, T, F)
    mask = torch.ones(2, T, dtype=torch.bool)
    mask[1] = False
    huge = (torch.full((2, 2), 1e30), torch.zeros(2, 2))
    huge[0][0] = 0
    rest = (torch.zeros(2, 3), torch.zeros(2, 3))
    stack(x, [huge, rest], mask).sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in stack.parameters())  # type: ignore[arg-type]


def test_cells_and_masks_of_other_dtypes_are_cast() -> None:
    cells = [LSTMCell(F, 2, dropout=0.5), LSTMCell(2, 3, dtype="float64")]
    stack = StackedLSTM(cells, return_sequences=True)
    masks = [DropoutMasks(torch.full((B, F), 2.0, dtype=torch.float64)), None]
    y = stack(torch.tensor(X), dropout_masks=masks)
    assert y.dtype == torch.float64
    alone = StackedLSTM(cells[0], return_sequences=True)(torch.tensor(X), dropout_masks=[masks[0]])
    assert alone.dtype == torch.float32


# One cell twice


@pytest.mark.live
def test_a_cell_that_stands_twice_has_its_weights_once(keras: KerasLive) -> None:
    weights = [RNG.uniform(-0.5, 0.5, s) for s in ((F, 4 * F), (F, 4 * F), (4 * F,))]
    number, parameters, y = keras.call("keywords_side.a_cell_twice", X, weights)
    one = LSTMCell(F, F, dtype="float64")
    stack = StackedLSTM([one, one])
    stack.set_weights(weights)
    assert (len(stack.get_weights()), stack.count_params()) == (number, parameters)
    assert_parity(stack(torch.tensor(X)).detach(), y, bound=FLOAT64)


# dtype of wrappers


@pytest.mark.live
def test_wrappers_that_are_told_no_dtype_cast_nothing_and_keras_s_give_float32(
    keras: KerasLive,
) -> None:
    found = keras.call("keywords_side.default_dtype_of_wrappers", X)
    assert found == {"Bidirectional": "float32", "RNN": "float32"}
    x = torch.tensor(X)
    assert Bidirectional(lstm())(x).dtype == torch.float64
    assert StackedLSTM(cell(dtype="float64"))(x).dtype == torch.float64
    assert Bidirectional(lstm(), dtype="float32")(x).dtype == torch.float32


# Masks of a cell's step


def test_a_step_with_one_mask_given_keeps_the_other() -> None:
    made = LSTMCell(F, U, dropout=0.5, recurrent_dropout=0.5, seed=3)
    x, ones = torch.rand(B, F), torch.ones(4, B, F)
    made(x)
    kept = made._cached_masks
    first, _ = made(x, (torch.ones(B, U), torch.ones(B, U)), dropout_masks=DropoutMasks(input=ones))
    again, _ = made(x, (torch.ones(B, U), torch.ones(B, U)), dropout_masks=DropoutMasks(input=ones))
    assert torch.equal(first, again)
    assert made._cached_masks.input is kept.input
    assert made._cached_masks.recurrent is not None and kept.recurrent is not None
    assert torch.equal(made._cached_masks.recurrent, kept.recurrent)
    fresh = LSTMCell(F, U, dropout=0.5, recurrent_dropout=0.5, seed=3)
    fresh(x, dropout_masks=DropoutMasks(input=ones))
    assert fresh._cached_masks.input is None  # what was given is not kept
    assert fresh._cached_masks.recurrent is not None


# What does not fit


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: Bidirectional(LSTM(F, U), cast(Any, ["concat"])),
            r"merge_mode=\['concat'\] is not possible",
        ),
        (
            lambda: LSTM(F, U).set_weights(cast(Any, None)),
            "a NoneType was given; pass a list of arrays",
        ),
        (
            lambda: Bidirectional(LSTM(F, U)).set_weights(cast(Any, 3)),
            "a int was given; pass a list",
        ),
        (
            lambda: StackedLSTM([LSTMCell(F, U)]).set_weights(cast(Any, "ab")),
            "a str was given; pass a list",
        ),
        (
            lambda: StackedLSTM([LSTMCell(F, U), LSTMCell(U, 2)])(
                torch.zeros(B, T, F), dropout_masks=DropoutMasks(torch.zeros(B, F))
            ),
            "dropout_masks must be a list of 2 entries",
        ),
        (
            lambda: TimeDistributed(LSTM(F, U, dropout=0.5))(
                torch.zeros(B, 2, T, F), dropout_masks=DropoutMasks(torch.zeros(B, F))
            ),
            "dropout_masks must be a list of 2 entries, one an outer step",
        ),
        (lambda: StackedLSTM([LSTMCell(F, U)])(torch.zeros(B, F)), "StackedLSTM of 1 cell: the in"),
    ],
)
def test_what_does_not_fit_says_why(call: Any, said: str) -> None:
    with pytest.raises((ConfigError, InputError, WeightMismatch), match=said):
        call()


def test_parameters_of_both_directions_are_drawn_again() -> None:
    both = Bidirectional(LSTM(F, U, stateful=True))
    both(torch.rand(B, T, F))
    before = both.get_weights()
    both.reset_parameters()
    after = both.get_weights()
    drawn = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if (a != b).any()]
    assert drawn == [0, 1, 3, 4] and both.states is None
    assert all(abs(w).max() < math.sqrt(6 / (F + 4 * U)) for w in (after[0], after[3]))
    assert both.go_backwards is False
