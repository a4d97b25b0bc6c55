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

pytestmark = pytest.mark.smoke

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
    x = torch.tensor(X)
    for dtype in (None, "float32", torch.float64, "mixed_bfloat16"):
        stack = StackedLSTM([cell(autocast=False)], dtype=dtype)
        save_safetensors(stack, tmp_path / "m.safetensors")
        again = load_safetensors(tmp_path / "m.safetensors")
        assert again(x).dtype == stack(x).dtype and torch.equal(again(x), stack(x))


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


# Cells in a stack: what Keras's steps leave behind

SQUARE = [RNG.uniform(-0.5, 0.5, s) for s in ((F, 4 * F), (F, 4 * F), (4 * F,))]
MASK = np.array([[1, 1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0],
                 [1, 0, 1, 1, 0, 0, 1], [1, 1, 0, 0, 0, 0, 0]], bool)  # fmt: skip
STATES = [RNG.uniform(-1, 1, (B, F)) for _ in "hc"]
SPECS: list[dict[str, Any]] = [
    {"regularizers": ["l2"], "alone": True},
    {"regularizers": ["l2"], "alone": True, "mask": MASK, "states": STATES},
    {"regularizers": ["l2"], "alone": True, "mask": MASK, "keywords": {"go_backwards": True}},
    {"regularizers": ["l2"], "alone": True, "mask": MASK, "keywords": {"unroll": True}},
    {"regularizers": ["l2"]},
    {"regularizers": ["l2", None]},
    {"regularizers": ["l2", "l1"], "mask": MASK},
    {
        "regularizers": [None, "l2"],
        "mask": MASK,
        "keywords": {"go_backwards": True, "return_sequences": True, "activity_regularizer": "l1"},
    },
    {"regularizers": ["l2"], "order": [0, 0], "mask": MASK},
    {"regularizers": ["l2", "l1"], "order": [0, 1, 0]},
]
for one_spec in SPECS:
    one_spec["weights"] = SQUARE


def stack_of(spec: dict[str, Any]) -> StackedLSTM:
    cells = [LSTMCell(F, F, dtype="float64", activity_regularizer=r) for r in spec["regularizers"]]
    for one in cells:
        one.set_weights(SQUARE)
    cells = [cells[i] for i in spec.get("order", range(len(cells)))]
    return StackedLSTM(cells[0] if spec.get("alone") else cells, **spec.get("keywords", {}))


def gradients_of_losses(stack: StackedLSTM, x: torch.Tensor, spec: dict[str, Any]) -> list[Any]:
    """For x, and for the weights of each cell in Keras's layout."""
    weights = [
        weight
        for one in dict.fromkeys(cast(Any, stack.layers))
        for weight in (one.lstm.weight_ih_l0, one.lstm.weight_hh_l0, one.lstm.bias_ih_l0)
    ]
    total = torch.stack(stack.losses).sum()
    found = torch.autograd.grad(total, [x, *weights], allow_unused=True, materialize_grads=True)
    return [g.t() if g.ndim == 2 else g for g in found]


@pytest.mark.live
def test_the_losses_of_the_cells_of_a_stack_are_keras_s(keras: KerasLive) -> None:
    answers = keras.call("keywords_side.losses_of_stacks", X, SPECS)
    counts = [len(losses) for losses, _, _ in answers]
    calls = [3 * (T + 1)] * 3 + [3 * T] + [3 * (T + 2)] * 2 + [6 * (T + 2), 3 * (T + 2) + 1]
    assert counts == [*calls, 6 * (T + 2), 9 * (T + 2)]
    for spec, (losses, gradients, y) in zip(SPECS, answers, strict=True):
        stack, x = stack_of(spec), torch.tensor(X, requires_grad=True)
        mask = None if spec.get("mask") is None else torch.tensor(spec["mask"])
        states = spec.get("states") and [torch.tensor(s) for s in spec["states"]]
        output = stack(x, states, mask)
        assert_parity(output.detach(), y, bound=FLOAT64)
        ours = [float(loss.detach()) for loss in stack.losses]
        assert np.allclose(ours, losses, rtol=1e-12, atol=0), spec
        for mine, theirs in zip(gradients_of_losses(stack, x, spec), gradients, strict=True):
            assert_parity(mine, theirs, bound=1e-12)
        stack(x, states, mask)  # those of a call replace those of the last one
        assert len(stack.losses) == len(losses)


@pytest.mark.live
def test_the_losses_of_cells_in_a_time_distributed_stack_are_keras_s(keras: KerasLive) -> None:
    spec = {"regularizers": ["l2", "l1"], "weights": SQUARE}
    x = RNG.uniform(-1, 1, (2, 3, 4, F))
    theirs = keras.call("keywords_side.losses_within_time_distributed", x, spec)
    module = TimeDistributed(stack_of(spec))
    module(torch.tensor(x))
    ours = [float(loss.detach()) for loss in module.losses]
    assert len(theirs) == 3 * 6 * 6 and np.allclose(ours, theirs, rtol=1e-12, atol=0)


def test_nan_at_masked_steps_reaches_no_loss_and_no_gradient() -> None:
    for spec in SPECS[1:3]:
        stack, given = stack_of(spec), torch.tensor(X)
        given[~torch.tensor(MASK)] = math.nan
        x = given.requires_grad_()
        stack(x, mask=torch.tensor(MASK))
        assert all(bool(torch.isfinite(g).all()) for g in gradients_of_losses(stack, x, spec))


@pytest.mark.live
def test_a_cell_without_autocast_computes_in_a_stack_as_keras_s_does(keras: KerasLive) -> None:
    cases = [
        (policy, autocast, policy, own)
        for policy, autocast in (("float32", True), ("float64", True), ("float64", False))
        for own in POLICIES
        if (policy, own) != ("float32", "float64")  # there Keras raises
    ]
    cases += [("mixed_bfloat16", True, "float32", own) for own in ("float32", "mixed_bfloat16")]
    found = keras.call("keywords_side.stacks_without_autocast", X, WEIGHTS, cases)
    results: dict[Any, torch.Tensor] = {}
    for case, (dtype, h) in zip(cases, found, strict=True):
        policy, autocast, _, own = case
        inner = cell(dtype=own, autocast=False)
        results[case] = StackedLSTM([inner], dtype=policy, autocast=autocast)(torch.tensor(X))
        bound = {"float64": FLOAT64, "float32": 4e-7}[dtype]
        # The stack gives it in its own dtype: 8 bits of it in a mixed one.
        bound = 8e-3 if policy == "mixed_bfloat16" else bound
        assert_parity(results[case].detach().double(), h, bound=bound, what=str(case))
    # The mixed cell's weights are rounded, but not in a mixed wrapper.
    exact = cell(dtype="mixed_bfloat16", autocast=False)
    kept = StackedLSTM([exact], dtype="mixed_bfloat16", return_sequences=True)
    plain = StackedLSTM([cell()], dtype="float32", return_sequences=True)
    x = torch.tensor(X).bfloat16()
    assert torch.equal(kept(x), plain(x).bfloat16())
    gap = results["float64", True, "float64", "mixed_bfloat16"] - results[cases[2]]
    assert results["float64", True, "float64", "mixed_bfloat16"].dtype == torch.float64
    assert gap.abs().max() > 1e-4
    # Keras cannot run it alone; here it computes in the widest dtype.
    wide = StackedLSTM(cell(autocast=False), dtype="float64")(torch.tensor(X))
    inside = [w.astype(np.float32).astype(np.float64) for w in WEIGHTS]
    other: LSTM[Any] = LSTM(F, U, dtype="float64")
    other.set_weights(inside)
    assert_parity(wide.detach(), other(torch.tensor(X)).detach(), bound=FLOAT64)


@pytest.mark.live
def test_a_shared_cell_has_one_dropout_mask_a_call(keras: KerasLive) -> None:
    masks, y = keras.call("keywords_side.dropout_of_a_shared_cell", X, SQUARE)
    assert len(masks) == 1
    one = LSTMCell(F, F, dtype="float64", dropout=0.5)
    one.set_weights(SQUARE)
    stack = StackedLSTM([one, one])
    given = [DropoutMasks(torch.tensor(masks[0])), None]
    assert_parity(stack(torch.tensor(X), training=True, dropout_masks=given).detach(), y,
                  bound=FLOAT64)  # fmt: skip


def test_a_cell_draws_once_a_call_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    from kerasish_lstm import _dropout

    drawn: list[Any] = []
    draw = _dropout.draw
    monkeypatch.setattr(_dropout, "draw", lambda *a: drawn.append(a[0]) or draw(*a))
    one, other = (LSTMCell(F, F, dropout=0.5, recurrent_dropout=0.5) for _ in range(2))
    stack = StackedLSTM([one, other, one])
    x = torch.rand(B, T, F)
    stack(x, training=True)
    assert len(drawn) == 4  # two of each cell
    stack(x, training=True)
    assert len(drawn) == 8
    stack(x, training=False)
    assert len(drawn) == 8
    ones = DropoutMasks(torch.ones(4, B, F), torch.ones(4, B, F))
    free = stack(x, training=True, dropout_masks=[ones, ones, None])
    assert torch.allclose(free, stack(x, training=False), atol=1e-6)


@pytest.mark.live
def test_a_cell_s_mask_of_one_row_serves_any_batch_as_in_keras(keras: KerasLive) -> None:
    answers = keras.call("keywords_side.steps_of_other_batches", X[:, 0], WEIGHTS)
    x = torch.tensor(X[:, 0])
    for (first, second), (mask, *outputs) in zip(((x[:1], x), (x, x[:1])), answers, strict=True):
        made = cell(dtype="float64", dropout=0.5)
        made._cached_masks = DropoutMasks(torch.tensor(mask))
        for given, theirs in zip((first, second), outputs, strict=True):
            assert_parity(made(given, training=True)[0].detach(), theirs, bound=FLOAT64)
        assert made._cached_masks.input is not None
        assert made._cached_masks.input.shape == mask.shape
    drawn = cell(dtype="float64", dropout=0.5, recurrent_dropout=0.5)
    assert len(drawn(x[:1])[0]) == 1 and len(drawn(x)[0]) == B and len(drawn(x[:2])[0]) == 2
    full = cell(dtype="float64", dropout=0.5)
    full(x)
    with pytest.raises(InputError, match="keeps dropout masks for a batch of 5; this batch has 2"):
        full(x[:2])


# A shared cell's config


@pytest.mark.live
def test_the_config_of_a_shared_cell_is_keras_s(keras: KerasLive) -> None:
    theirs, weights = keras.call("keywords_side.config_of_a_shared_cell", F)
    one = LSTMCell(F, F, name="shared")
    stack = StackedLSTM([one, one], name="over")
    ours = stack.get_config()
    del theirs["cell"]["config"]["name"]  # a StackedLSTM has one name
    for config in (*theirs["cell"]["config"]["cells"], theirs["cell"]):
        config.pop("build_config", None)
        config.pop("shared_object_id", None)
    theirs["dtype"] = ours["dtype"]
    assert ours["cell"]["config"]["cells"] == theirs["cell"]["config"]["cells"]
    assert len(ours["cell"]["config"]["cells"]) == 2
    assert keras.call("keywords_side.is_a_config", ours, F) == weights == 6
    assert len(StackedLSTM.from_config(ours, F).get_weights()) == 6


# States that do not fit


def test_states_of_several_batches_are_refused_where_they_are_set() -> None:
    h4, h2 = torch.zeros(4, F), torch.zeros(2, F)
    cells = StackedLSTM([LSTMCell(F, F), LSTMCell(F, F)], stateful=True)
    both = Bidirectional(LSTM(F, F, stateful=True))
    chain = StackedLSTM(
        [LSTM(F, F, stateful=True, return_sequences=True), Bidirectional(LSTM(F, F, stateful=True))]
    )
    values: list[tuple[Any, Any]] = [
        (cells, [(h4, h4), (h2, h2)]),
        (both, [h4, h4, h2, h2]),
        (chain, [h4, h4, h2, h2, h2, h2]),
        (chain, [h4, h4, h4, h4, h2, h2]),
    ]
    for module, value in values:
        with pytest.raises(StateError, match=r"the states are of the batch sizes 4, .*2"):
            module.states = value
        assert module.states is None


def test_states_are_all_checked_before_one_is_written() -> None:
    ones, bad = torch.ones(B, F), torch.ones(B, 2)
    both = Bidirectional(LSTM(F, F, stateful=True))
    chain = StackedLSTM(
        [LSTM(F, F, stateful=True, return_sequences=True), LSTM(F, F, stateful=True)]
    )
    cells = StackedLSTM([LSTMCell(F, F), LSTMCell(F, F)], stateful=True)
    modules: list[Any] = [both, chain, cells]
    for module in modules:
        module(torch.rand(B, T, F))
        held = module.states
        value = [ones, ones, bad, ones] if module is not cells else [(ones, ones), (bad, ones)]
        with pytest.raises(StateError, match=r"both of shape \(B, 3\)"):
            module.states = value
        value = [ones, ones, ones, 3] if module is not cells else [(ones, ones), (ones, 3)]
        with pytest.raises(InputError, match="states's c is a int"):
            module.states = value
        flat = [t for s in module.states for t in (s if isinstance(s, tuple) else (s,))]
        before = [t for s in held for t in (s if isinstance(s, tuple) else (s,))]
        assert all(map(torch.equal, flat, before))


def test_a_parameter_is_no_states() -> None:
    modules: list[Any] = [
        LSTM(F, U, stateful=True),
        Bidirectional(LSTM(F, U, stateful=True)),
        StackedLSTM([LSTMCell(F, U)], stateful=True),
    ]
    for module in modules:
        with pytest.raises(InputError, match="states is a Parameter"):
            module.states = torch.nn.Parameter(torch.zeros(B, U))
        assert module.states is None and "states" not in dict(module.named_parameters())
    with pytest.raises(InputError, match="states's h is a int"):
        modules[0].states = (3, torch.zeros(B, U))


def test_one_cell_without_a_list_has_one_pair_of_states() -> None:
    x = torch.rand(B, T, F)
    stack = StackedLSTM(LSTMCell(F, U), stateful=True)
    first = stack(x)
    h, c = stack.states
    assert torch.equal(h, first) and c.shape == (B, U)
    second = stack(x)
    assert torch.equal(stack(x, initial_state=(h, c)), second)
    for value in ((h, c), [h, c], [(h, c)]):
        stack.states = value
        assert torch.equal(stack(x), second)
    with pytest.raises(InputError, match=r"states is a list with 3 entries; pass 1, \(h, c\)"):
        stack.states = [h, c, h]
    chain = StackedLSTM([LSTM(F, U, stateful=True, return_sequences=True), LSTM(U, 2)])
    chain(x)
    assert len(chain.states) == 2  # of the stateful layer alone
    chain.states = chain.states


# Forms of keywords


def test_from_config_honours_the_autocast_of_wrappers() -> None:
    makers: list[Any] = [
        Bidirectional(LSTM(F, U)),
        StackedLSTM([LSTMCell(F, U)]),
        StackedLSTM(LSTMCell(F, U)),
        TimeDistributed(LSTM(F, U)),
    ]
    for module in makers:
        config = module.get_config()
        for autocast in (True, False):
            again = type(module).from_config({**config, "autocast": autocast}, F)
            assert again.autocast is autocast
        assert type(module).from_config(config, F).autocast is True
        with pytest.raises(ConfigError, match="autocast='no' is a flag"):
            type(module).from_config({**config, "autocast": "no"}, F)
    config = StackedLSTM([LSTMCell(F, U)]).get_config()
    config["cell"]["config"]["cells"][0]["config"]["autocast"] = False
    stack = StackedLSTM.from_config(config, F)  # the wrapper's cast is the only one
    assert stack(torch.tensor(X)).dtype == torch.float32 and stack.dtype == "float32"


def test_from_config_refuses_the_shape_that_the_constructor_refuses() -> None:
    config = LSTM(F, U).get_config()
    for said in ({"input_shape": (5, 4)}, {"input_dim": 4}):
        for module in (LSTM(F, U), LSTMCell(F, U), TimeDistributed(LSTM(F, U))):
            given = {**module.get_config(), **said}
            with pytest.raises(ConfigError, match="says 4 features and input_size=3"):
                type(module).from_config(given, 3)
    assert LSTM.from_config({**config, "input_shape": (5, 3)}, 3).input_size == 3
    assert LSTM.from_config({**config, "input_shape": (5, 4)}).input_size == 4
    old = {**config, "batch_input_shape": (None, 5, 4), "input_dim": 4}
    assert LSTM.from_config(old, 3).input_size == 3


def test_numpy_s_integers_and_dtypes_and_keras_s_policies_are_taken() -> None:
    three: Any = np.int64(3)
    for kind, make in MAKERS.items():
        make(input_dim=three)
        make(input_shape=(None, three))
        with pytest.raises(ConfigError, match="says 4 features"):
            make(input_dim=np.int32(4))
        assert kind
    lazy: Any = LazyLSTM(U, input_dim=three)
    assert lazy.input_size == 3
    assert LSTM.from_config({**LSTM(F, U).get_config(), "input_shape": (7, three)}).input_size == 3

    class DTypePolicy:
        name = "float64"

    config = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float64"},
              "registered_name": None}  # fmt: skip
    for dtype in (np.dtype("float64"), np.float64, DTypePolicy(), config, "float64", torch.float64):
        given: Any = dtype
        assert LSTM(F, U, dtype=given).lstm.weight_hh_l0.dtype == torch.float64
        assert LSTMCell(F, U, dtype=given).compute_dtype == torch.float64
        assert LazyLSTM(U, dtype=given)(torch.rand(B, T, F)).dtype == torch.float64
        assert Bidirectional(LSTM(F, U), dtype=given)(torch.rand(B, T, F)).dtype == torch.float64
        stack = StackedLSTM(LSTMCell(F, U), dtype=given)
        assert stack(torch.rand(B, T, F)).dtype == torch.float64
        assert stack.get_config()["dtype"]["config"]["name"] == "float64"
        wrapped = TimeDistributed(LSTM(F, U), dtype=given)
        assert wrapped.get_config()["dtype"]["config"]["name"] == "float64"
        again = LSTM.from_config(LSTM(F, U).get_config(), F, dtype=given)
        assert again.compute_dtype == torch.float64
    mixed: Any = {"class_name": "DTypePolicy", "config": {"name": "mixed_bfloat16"}}
    assert LSTM(F, U, dtype=mixed).compute_dtype == torch.bfloat16
    for bad in (np.int64, np.dtype("int32"), 3, {"a": 3}, float):
        wrong: Any = bad
        for make in MAKERS.values():
            with pytest.raises(ConfigError, match="dtype="):
                make(dtype=wrong)


@pytest.mark.parametrize("kind", MAKERS)
def test_autocast_is_a_flag(kind: str) -> None:
    label = {"RNN": "StackedLSTM"}.get(kind, kind)
    for value in (None, "no", np.array([1, 2]), torch.ones(2), [], 2):
        with pytest.raises(ConfigError, match=f"^{label}: autocast=.* is a flag; pass True"):
            MAKERS[kind](autocast=value)
    for value in (True, False, 1, 0, np.True_, np.False_):
        module = MAKERS[kind](autocast=value)
        assert getattr(module, "config", module).autocast is bool(value)
