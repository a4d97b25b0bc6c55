"""What a type checker says about code that uses the layer."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from . import sampling

ROOT = Path(__file__).resolve().parent.parent

SNIPPET = """\
from typing import Any, assert_type

import torch
from torch import Tensor

from kerasish_lstm import LSTM, Bidirectional, LSTMCell, LSTMState, LazyLSTM
from kerasish_lstm import StackedLSTM, TimeDistributed, load_keras

State = tuple[Tensor, Tensor, Tensor]
x = torch.zeros(5, 7, 3)
flag = bool(x.sum() > 0)

assert_type(LSTM(3, 5)(x), Tensor)
assert_type(LSTM(3, 5, return_state=False)(x), Tensor)
assert_type(LSTM(3, 5, return_state=True)(x), State)
assert_type(LSTM(3, 5, return_state=flag)(x), Any)
assert_type(LSTM(3, 5, activation="relu", return_sequences=True, dtype=torch.float64)(x), Tensor)
assert_type(LSTM(3, 5, activation=torch.sin, return_state=True, device="cpu")(x), State)
assert_type(LazyLSTM(5)(x), Tensor)
assert_type(LazyLSTM(5, return_state=True, go_backwards=True)(x), State)
assert_type(LazyLSTM(5, return_state=flag)(x), Any)

layer: LSTM[Tensor] = LSTM(3, 5)
assert_type(layer(x, mask=x[:, :, 0] > 0, training=False), Tensor)
assert_type(layer(x, initial_state=LSTMState(x, x)), Tensor)
assert_type(layer.states, LSTMState | None)
assert_type(layer.bias, Tensor | None)
assert_type(layer.kernel, Tensor)
assert_type(layer.units, int)
assert_type(layer.reset_state(), None)
assert_type(layer.to(torch.float64)(x), Tensor)

loaded = load_keras("m.keras")["lstm"]
assert_type(loaded, LSTM[Any] | Bidirectional | StackedLSTM | LSTMCell | TimeDistributed)
assert isinstance(loaded, LSTM)
assert_type(loaded(x), Any)

LSTM(3, 5, use_cuddn=True)  # wrong: call-overload
LSTM(3, 5, return_state=True, units_=5)  # wrong: call-overload
LSTM(3, "5")  # wrong: call-overload
LSTM(3)  # wrong: call-overload
LSTM(3, 5, use_bias="yes")  # wrong: call-overload
LSTM(3, 5, use_cudnn="yes")  # wrong: call-overload
LSTM(3, 5, "tanh")  # wrong: call-overload
LazyLSTM(5, use_cuddn=True)  # wrong: call-overload
LazyLSTM(3, 5)  # wrong: call-overload
layer.units = 7  # wrong: misc
state: LSTM[State] = LSTM(3, 5)  # wrong: assignment
"""
# Of torch's thousand modules, those that have a say in this package's types. --full reads all.
CONFIG = """\
[mypy]
follow_imports = skip
[mypy-kerasish_lstm.*,torch,torch._tensor,torch.nn,torch.nn.modules,torch.nn.modules.module]
follow_imports = silent
"""
WHOLE_CONFIG = """\
[mypy]
follow_imports = silent
"""


@pytest.mark.slow
def test_results_have_the_right_types_and_mistakes_are_found(tmp_path: Path) -> None:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy not installed")
    file = tmp_path / "snippet.py"
    file.write_text(SNIPPET)
    config = tmp_path / "mypy.ini"
    config.write_text(sampling.amount(CONFIG, WHOLE_CONFIG))
    # Where the package is installed, from a clone with -e too, mypy must find it by itself.
    finding = "import importlib.util as i, sys; sys.exit(i.find_spec('kerasish_lstm') is None)"
    lacking = subprocess.run([sys.executable, "-c", finding], cwd=tmp_path, check=False).returncode
    path = {"MYPYPATH": str(ROOT)} if lacking else {}
    child = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, "--strict",
         "--cache-dir", ROOT / ".mypy_cache" / "snippet", file],
        env={**os.environ, **path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    found = re.findall(r"snippet\.py:(\d+): error: (.*)  \[(.*)\]", child.stdout)
    expected = {
        (number, line.partition("# wrong: ")[2])
        for number, line in enumerate(SNIPPET.splitlines(), 1)
        if "# wrong: " in line
    }
    assert {(int(number), code) for number, _, code in found} == expected, (
        child.stdout + child.stderr
    )
