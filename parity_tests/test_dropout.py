"""Dropout: which masks each Keras draws, how they are drawn here, and that given ones are used.

That outputs and gradients equal Keras's under the same masks is in test_parity, group ``dropout``;
what is tf_keras's alone is here.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm import LSTM, Bidirectional, DropoutMasks, LSTMCell, LSTMConfig, StackedLSTM
from kerasish_lstm._dropout import DropoutPlan, draw
from kerasish_lstm.errors import ConfigError, EngineError, InputError
from kerasish_lstm.parity import assert_parity, bounds

from .cases import mask_of
from .keras_live import KerasLive

B, T, F, U = 5, 7, 3, 2

# Which masks

KEYWORDS: dict[str, dict[str, Any]] = {
    "input": {"dropout": 0.4},
    "recurrent": {"recurrent_dropout": 0.3},
    "both": {"dropout": 0.4, "recurrent_dropout": 0.3},
    "hard_sigmoid": {"dropout": 0.4, "recurrent_activation": "hard_sigmoid"},
    "no bias": {"dropout": 0.4, "use_bias": False},
    "unrolled": {"dropout": 0.4, "unroll": True},
    "implementation 1": {"dropout": 0.4, "implementation": 1, "recurrent_activation": "relu"},
    "none": {},
}


def seen_here(keywords: dict[str, Any], style: Any) -> tuple[Any, Any]:
    """(number, shape of one) of each mask of a call, as dropout_side.drawn has it."""
    layer: LSTM = LSTM(F, U, dropout_style=style, **keywords)
    found = []
    masks = layer._masks_of_a_call(torch.zeros(B, T, F), None, True)
    for kind, mask in zip(layer._plan, masks, strict=True):
        if kind is None or mask is None:
            found.append(None)
        else:
            shape = tuple(mask.shape)
            found.append((4, shape[1:]) if kind == "gates" else (1, shape))
    return found[0], found[1]


@pytest.mark.live
def test_the_plan_is_keras_s(keras: KerasLive) -> None:
    requests = [{"keywords": k, "shape": (B, T, F)} for k in KEYWORDS.values()]
    requests[-2]["keywords"] = {**KEYWORDS["implementation 1"], "use_cudnn": False}
    answers = keras.call("dropout_side.drawn", "keras", requests)
    for (name, keywords), answer in zip(KEYWORDS.items(), answers, strict=True):
        assert seen_here(keywords, "keras") == tuple(answer), name


@pytest.mark.live
def test_the_plan_is_tf_keras_s(tf_keras: KerasLive) -> None:
    requests = [{"keywords": k, "shape": (B, T, F)} for k in KEYWORDS.values()]
    answers = tf_keras.call("dropout_side.drawn", "tf_keras", requests)
    for (name, keywords), (theirs, recurrent) in zip(KEYWORDS.items(), answers, strict=True):
        mine = seen_here(keywords, "tf_keras")
        # tf_keras draws four always, and uses the first where they are not for gates.
        used = {"implementation 1": 4, "both": 4}.get(name, 1)
        assert mine[0] == (None if theirs is None else (used, theirs[1])), name
        assert mine[1] == (None if recurrent is None else tuple(recurrent)), name


@pytest.mark.parametrize(
    ("style", "keywords", "plan"),
    [
        ("keras", {"dropout": 0.5}, ("shared", None)),
        ("keras", {"dropout": 0.5, "implementation": 1}, ("gates", None)),
        ("keras", {"dropout": 0.5, "recurrent_dropout": 1.0}, ("gates", None)),
        ("keras", {"recurrent_dropout": 0.5}, (None, "gates")),
        ("keras", {"dropout": 1.0, "recurrent_dropout": 1.0}, (None, None)),
        ("keras", {"dropout": -1, "recurrent_dropout": 0}, (None, None)),
        ("keras_3.0", {"dropout": 0.5, "recurrent_dropout": 0.5}, ("shared", "shared")),
        ("keras_3.0", {"dropout": 0.5, "implementation": 1}, ("shared", None)),
        ("tf_keras", {"dropout": 0.5}, ("steps", None)),
        ("tf_keras", {"dropout": 0.5, "implementation": 1}, ("steps", None)),
        ("tf_keras", {"dropout": 1.0}, (None, None)),
        ("tf_keras", {"dropout": 0.5, "unroll": True}, ("shared", None)),
        ("tf_keras", {"dropout": 0.5, "recurrent_dropout": 0.5}, ("gates", "gates")),
        ("keras_2", {"dropout": 0.5, "recurrent_dropout": 0.5}, ("shared", "shared")),
        (
            "keras_2",
            {"dropout": 0.5, "recurrent_dropout": 0.5, "implementation": 1},
            ("gates",) * 2,
        ),
        ("keras_2", {"dropout": 0.5, "implementation": 0}, ("gates", None)),
    ],
)
def test_the_plan_of_each_style(style: Any, keywords: dict[str, Any], plan: Any) -> None:
    assert DropoutPlan.of(LSTMConfig(U, dropout_style=style, **keywords)) == plan


def test_a_cell_of_tf_keras_draws_no_mask_a_step() -> None:
    config = LSTMConfig(U, dropout=0.5, dropout_style="tf_keras")
    assert DropoutPlan.of(config, is_cell=True) == ("shared", None)


# tf_keras's masks, a step each

PER_STEP: list[dict[str, Any]] = [
    {"return_sequences": True},
    {"return_sequences": True, "go_backwards": True},
    {"return_sequences": True, "unroll": True},
    {"return_sequences": True, "recurrent_dropout": 0.3},
    {"return_sequences": True, "use_bias": False},
    {"return_sequences": True, "implementation": 1, "activation": "softsign"},
]


def per_step_case(keywords: dict[str, Any], number: int) -> dict[str, np.ndarray]:
    rng = np.random.RandomState(number)

    def draw(*shape: int, scale: float = 1.0) -> np.ndarray:
        return rng.uniform(-scale, scale, shape)

    layer: LSTM = LSTM(F, U, dropout=0.4, dropout_style="tf_keras", **keywords)
    shapes = {"shared": (1, B, F), "gates": (4, B, F), "steps": (1, B, T, F)}
    input_kind, recurrent_kind = layer._plan
    arrays = {
        "kernel": draw(F, 4 * U), "recurrent_kernel": draw(U, 4 * U), "bias": draw(4 * U),
        "x": draw(B, T, F, scale=2.0), "d_output": draw(B, T, U),
        "mask": mask_of("gaps", B, T, rng),
        "dropout_mask": (rng.uniform(size=shapes[str(input_kind)]) > 0.4) / 0.6,
    }  # fmt: skip
    if recurrent_kind:
        arrays["recurrent_dropout_mask"] = (rng.uniform(size=(4, B, U)) > 0.3) / 0.7
    if not layer.config.use_bias:
        del arrays["bias"]
    return arrays


@pytest.mark.live
def test_outputs_and_gradients_equal_tf_keras_s_under_its_masks(tf_keras: KerasLive) -> None:
    cases = [per_step_case(keywords, n) for n, keywords in enumerate(PER_STEP)]
    requests = [
        {"keywords": {"dropout": 0.4, **k}, "arrays": a}
        for k, a in zip(PER_STEP, cases, strict=True)
    ]
    answers = tf_keras.call("dropout_side.run_tf_keras", requests)
    for keywords, arrays, expected in zip(PER_STEP, cases, answers, strict=True):
        layer: LSTM = LSTM(
            F, U, dropout=0.4, dropout_style="tf_keras", dtype=torch.float64, **keywords
        )
        names = [n for n in ("kernel", "recurrent_kernel", "bias") if n in arrays]
        layer.set_weights([arrays[n] for n in names])
        t = {k: torch.tensor(v) for k, v in arrays.items()}
        masks = DropoutMasks(
            *(
                None if m is None else m if len(m) == 4 else m[0]
                for m in (t.get("dropout_mask"), t.get("recurrent_dropout_mask"))
            )
        )
        x = t["x"].requires_grad_()
        y = layer(x, mask=t["mask"], dropout_masks=masks)
        (y * t["d_output"]).sum().backward()
        found = {"output": y, "d_x": x.grad}
        for name, p in zip(names, layer.lstm.parameters(), strict=True):
            found[f"d_{name}"] = p.grad.t() if p.ndim == 2 else p.grad
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_parity(
                found[name].detach(), value, bound=bounds.FLOAT64, what=f"{keywords} {name}"
            )


# Drawing

RATES = (0.1, 0.25, 0.5, 0.9)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_mask_holds_two_values_in_the_right_proportion(
    rate: float, dtype: torch.dtype, device: torch.device
) -> None:
    like = torch.zeros((), dtype=dtype, device=device)
    generator = torch.Generator(device).manual_seed(5)
    mask = draw((4, 100, 101), rate, like, generator)
    assert mask.dtype == dtype and mask.device == like.device
    kept = torch.tensor(1 / (1 - rate), dtype=dtype)
    assert set(mask.cpu().unique().tolist()) == {0.0, kept.item()}
    n = mask.numel()
    share = (mask == 0).double().mean().item()
    assert abs(share - rate) < 5 * (rate * (1 - rate) / n) ** 0.5


def test_entries_are_independent_over_rows_features_and_gates() -> None:
    layer: LSTM = LSTM(101, 103, dropout=0.5, recurrent_dropout=0.25, seed=3)
    masks = layer._masks_of_a_call(torch.zeros(107, 2, 101), None, True)
    for mask, rate in zip(masks, (0.5, 0.25), strict=True):
        z = (mask.double() - 1) / (rate / (1 - rate)) ** 0.5  # mean 0, variance 1
        n = z[0].numel()
        for i in range(4):
            for j in range(i):
                assert abs((z[i] * z[j]).mean()) < 5 / n**0.5, "gates are correlated"
        assert abs((z[:, 1:] * z[:, :-1]).mean()) < 5 / z.numel() ** 0.5
        assert abs((z[:, :, 1:] * z[:, :, :-1]).mean()) < 5 / z.numel() ** 0.5
        # sums over rows and over features vary as those of independent entries
        assert (z.sum(1) ** 2).mean() / z.shape[1] == pytest.approx(1, abs=0.25)
        assert (z.sum(2) ** 2).mean() / z.shape[2] == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("use_cudnn", ["auto", True, False], ids=["native", "fused", "scan"])
def test_a_drawn_mask_is_shared_by_all_steps(use_cudnn: Any) -> None:
    """With K one-hot and R zero each step shows whether its feature was dropped."""
    layer: LSTM = LSTM(
        U, U, dropout=0.5, return_sequences=True, use_cudnn=use_cudnn, seed=11, use_bias=False
    )
    layer.set_weights([np.tile(np.eye(U, dtype=np.float32), 4), np.zeros((U, 4 * U), np.float32)])
    y = layer(torch.ones(101, T, U))
    dropped = y == 0
    assert 0.3 < dropped.float().mean() < 0.7
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    steps: LSTM = LSTM(U, U, dropout=0.5, return_sequences=True, dropout_style="tf_keras", seed=11)
    steps.set_weights([*layer.get_weights(), np.zeros(4 * U, np.float32)])
    kept = steps._masks_of_a_call(torch.ones(101, T, U), None, True).input
    assert not torch.equal(kept, kept[:, :1].expand_as(kept))


def test_plain_input_dropout_stays_on_the_fused_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the scan ran")

    monkeypatch.setattr("kerasish_lstm.layers.parameters.scan", refuse)
    layer: LSTM = LSTM(F, U, dropout=0.5, use_cudnn=True)
    assert layer.engine == "fused"
    layer(torch.zeros(B, T, F)).sum().backward()
    for keywords, said in (
        ({"recurrent_dropout": 0.5}, "recurrent_dropout > 0"),
        ({"dropout": 0.5, "implementation": 1}, "implementation=1 in training"),
    ):
        layer = LSTM(F, U, use_cudnn=True, **keywords)  # type: ignore[arg-type]
        with pytest.raises(EngineError, match=said):
            layer(torch.zeros(B, T, F))
        layer.eval()(torch.zeros(B, T, F))


def test_a_seed_makes_the_layer_s_own_stream() -> None:
    x = torch.rand(B, T, F)
    one, two = (LSTM(F, U, dropout=0.5, recurrent_dropout=0.5, seed=7) for _ in range(2))
    two.load_state_dict(one.state_dict())
    torch.manual_seed(1)
    first = [one(x) for _ in range(3)]
    torch.manual_seed(2)
    assert all(torch.equal(a, two(x)) for a in first)
    assert not torch.equal(first[0], first[1])
    before = torch.get_rng_state()
    one(x)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_seed_torch_s_generator_draws() -> None:
    layer: LSTM = LSTM(F, U, dropout=0.5)
    x = torch.rand(B, T, F)
    torch.manual_seed(1)
    first, second = layer(x), layer(x)
    torch.manual_seed(1)
    assert torch.equal(layer(x), first) and not torch.equal(first, second)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_goes_on_where_the_stream_stands(again: Any) -> None:
    layer: LSTM = LSTM(F, U, dropout=0.5, seed=7)
    x = torch.rand(B, T, F)
    layer(x)
    copied = again(layer)
    assert torch.equal(copied(x), layer(x))


def test_inference_draws_nothing() -> None:
    layer = LSTM(F, U, dropout=0.5, recurrent_dropout=0.5).eval()
    plain = LSTM(F, U).eval()
    plain.load_state_dict(layer.state_dict())
    x = torch.rand(B, T, F)
    before = torch.get_rng_state()
    assert torch.equal(layer(x), plain(x))
    assert torch.equal(layer.train()(x, training=False), plain(x))
    assert torch.equal(torch.get_rng_state(), before)


def test_both_directions_of_a_seeded_bidirectional_draw_the_same_masks() -> None:
    both = Bidirectional(LSTM(F, U, dropout=0.5, seed=7))
    x = torch.rand(B, T, F)
    one, two = (
        layer._masks_of_a_call(x, None, True) for layer in (both.forward_layer, both.backward_layer)
    )
    assert torch.equal(one.input, two.input)


# Giving masks


def test_given_masks_are_used_and_the_others_drawn() -> None:
    layer: LSTM = LSTM(F, U, dropout=0.5, recurrent_dropout=0.5, seed=1)
    x, kept = torch.rand(B, T, F), torch.ones(4, B, F)
    masks = layer._masks_of_a_call(x, DropoutMasks(input=kept), True)
    assert torch.equal(masks.input, kept) and masks.recurrent.shape == (4, B, U)
    ones = DropoutMasks(kept, torch.ones(4, B, U))
    assert torch.allclose(layer(x, dropout_masks=ones), layer.eval()(x), atol=1e-6)


@pytest.mark.parametrize(
    ("keywords", "masks", "said"),
    [
        ({"dropout": 0.5}, DropoutMasks(torch.ones(B, T, F)), r"\(5, 3\), \(B, size\)"),
        ({"dropout": 0.5}, DropoutMasks(torch.ones(4, B, F)), r"is \(4, 5, 3\); it must be"),
        ({"dropout": 0.5}, DropoutMasks(None, torch.ones(B, U)), r"no dropout there \(recurrent_"),
        ({"recurrent_dropout": 0.5}, DropoutMasks(None, torch.ones(B, U)), r"\(4, 5, 2\), \(4, B"),
        ({"dropout": 0.5}, DropoutMasks(np.ones((B, F))), "is ndarray; it must"),
        ({}, DropoutMasks(torch.ones(B, F)), "dropout=0.0"),
    ],
)  # fmt: skip
def test_masks_that_do_not_fit_say_why(keywords: Any, masks: Any, said: str) -> None:
    layer: LSTM = LSTM(F, U, **keywords)
    with pytest.raises(InputError, match=said):
        layer(torch.zeros(B, T, F), dropout_masks=masks)


def test_masks_for_inference_are_refused() -> None:
    layer = LSTM(F, U, dropout=0.5).eval()
    masks = DropoutMasks(torch.ones(B, F))
    with pytest.raises(InputError, match="uses none"):
        layer(torch.zeros(B, T, F), dropout_masks=masks)
    layer(torch.zeros(B, T, F), dropout_masks=masks, training=True)


def test_wrappers_take_one_entry_a_layer() -> None:
    x, kept = torch.rand(B, T, F), DropoutMasks(torch.ones(B, F))
    both = Bidirectional(LSTM(F, U, dropout=0.5))
    assert torch.allclose(both(x, dropout_masks=[kept, kept]), both.eval()(x), atol=1e-6)
    for wrong in (kept, [kept], kept.input):
        with pytest.raises(InputError, match="must be a pair"):
            both.train()(x, dropout_masks=wrong)
    stack = StackedLSTM([LSTMCell(F, U, dropout=0.5), LSTMCell(U, U)])
    assert torch.allclose(stack(x, dropout_masks=[kept, None]), stack.eval()(x), atol=1e-6)
    with pytest.raises(InputError, match="a list of 2 entries"):
        stack.train()(x, dropout_masks=[kept])


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'keras', 'keras_3\.0', 'tf_keras', 'keras_2'"):
        LSTM(F, U, dropout_style="keras_4")  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [(torch.ones(B, F),), torch.ones(B, F)])
def test_masks_in_another_form_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"pass a kerasish_lstm\.DropoutMasks"):
        LSTM(F, U, dropout=0.5)(torch.zeros(B, T, F), dropout_masks=wrong)
