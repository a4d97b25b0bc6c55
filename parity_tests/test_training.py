"""Many steps from the same weights on the same batches end where Keras's end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from kerasish_lstm import LSTM, keras_adam
from kerasish_lstm.errors import ConfigError, InputError
from kerasish_lstm.parity import assert_parity, bounds

from .cases import mask_of
from .keras_live import KerasLive
from .sampling import amount

STEPS = amount(15, 50)
B, T, F, U = 5, 7, 3, 11
LR = {"sgd": 0.5, "adam": 1e-2}
BOUNDS = {"float64": 1e-12, "float32": 5e-6}


def problem() -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    rng = np.random.RandomState(17)

    def draw(*shape: int, scale: float = 1.0) -> np.ndarray:
        return rng.uniform(-scale, scale, shape).astype(np.float32).astype(np.float64)

    weights = {
        "kernel": draw(F, 4 * U, scale=U**-0.5),
        "recurrent_kernel": draw(U, 4 * U, scale=U**-0.5),
        "bias": draw(4 * U, scale=U**-0.5),
        "x": draw(B, T, F),
    }
    kinds = ("right", "left", "gaps", "empty", "full")
    batches = [
        {"x": draw(B, T, F), "mask": mask_of(kinds[n % 5], B, T, rng), "target": draw(B, U)}
        for n in range(STEPS)
    ]
    return weights, batches


def train(kind: str, dtype: str, engine: dict[str, Any]) -> tuple[list[np.ndarray], LSTM]:
    arrays, batches = problem()
    real = getattr(torch, dtype)
    layer: LSTM = LSTM(F, U, dtype=real, **engine)
    layer.set_weights([arrays[k] for k in ("kernel", "recurrent_kernel", "bias")])
    rule: torch.optim.Optimizer
    if kind == "sgd":
        # Keras holds learning rates in float32, in float64 models too: 0.5 is one.
        rule = torch.optim.SGD(layer.parameters(), lr=LR["sgd"])
    else:
        adam = torch.optim.Adam(layer.parameters(), lr=LR["adam"], eps=1e-7)
        rule = keras_adam(adam) if kind == "adam" else adam
    for batch in batches:
        rule.zero_grad()
        x = torch.tensor(batch["x"], dtype=real)
        x[~torch.tensor(batch["mask"])] = float("nan")
        output = layer(x, mask=torch.tensor(batch["mask"]))
        ((output - torch.tensor(batch["target"], dtype=real)) ** 2).mean().backward()
        rule.step()
    return layer.get_weights(), layer


@pytest.fixture(scope="module")
def keras_ends(keras: KerasLive) -> dict[tuple[str, str], list[np.ndarray]]:
    arrays, batches = problem()
    return {
        (kind, dtype): keras.call("train", kind, LR[kind], {}, arrays, batches, dtype)
        for kind in ("sgd", "adam")
        for dtype in BOUNDS
    }


@pytest.mark.live
@pytest.mark.parametrize(
    "engine", [{}, {"use_cudnn": True}, {"use_cudnn": False}], ids=["native", "fused", "scan"]
)
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_training_ends_where_keras_ends(
    kind: str, dtype: str, engine: dict[str, Any], keras_ends: Any
) -> None:
    start = list(problem()[0].values())[:3]
    ends, layer = train(kind, dtype, engine)
    for name, mine, theirs, before in zip(
        ("kernel", "recurrent_kernel", "bias"), ends, keras_ends[kind, dtype], start, strict=True
    ):
        assert np.abs(np.asarray(theirs, np.float64) - before).max() > 1e-2  # it did move
        assert_parity(mine, np.asarray(theirs), bound=BOUNDS[dtype], what=f"{kind} {name}")
    assert not layer.lstm.bias_hh_l0.any()


@pytest.mark.live
def test_torchs_own_adam_ends_elsewhere(keras_ends: Any) -> None:
    """The difference that keras_adam is for; were it gone, the function should go too."""
    ends, _ = train("torch adam", "float64", {})
    distance = max(
        bounds.error(mine, np.asarray(theirs))
        for mine, theirs in zip(ends, keras_ends["adam", "float64"], strict=True)
    )
    assert distance > 1e-4


def test_keras_adam_gives_lr_and_eps_back_and_follows_a_schedule() -> None:
    w = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    rule = keras_adam(torch.optim.Adam([w], lr=0.5, eps=1e-3))
    schedule = torch.optim.lr_scheduler.StepLR(rule, 1, gamma=0.5)
    m = v = np.zeros(3)
    value = np.ones(3)
    for t in range(1, 8):
        g = np.sin(np.arange(3.0) + t)
        w.grad = torch.tensor(g)
        lr = 0.5 * 0.5 ** (t - 1)
        rule.step()
        assert (rule.param_groups[0]["lr"], rule.param_groups[0]["eps"]) == (lr, 1e-3)
        schedule.step()
        m, v = m + (g - m) * 0.1, v + (g * g - v) * 0.001
        b1, b2 = (float(np.float32(b)) ** t for b in (0.9, 0.999))
        value = value - lr * np.sqrt(1 - b2) / (1 - b1) * m / (np.sqrt(v) + 1e-3)
        assert_parity(w, value, bound=1e-14)


def test_keras_adam_refuses_what_it_would_get_wrong() -> None:
    w = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    with pytest.raises(ConfigError, match="AdamW is not"):
        keras_adam(torch.optim.AdamW(w))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"weight_decay=0\.1"):
        keras_adam(torch.optim.Adam(w, weight_decay=0.1))
    rule = keras_adam(torch.optim.Adam(w))
    w[0].grad = torch.ones(2)
    rule.step()
    w[1].grad = torch.ones(2)
    with pytest.raises(InputError, match=r"\[0, 1\] steps"):
        rule.step()
