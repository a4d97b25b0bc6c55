"""Mistakes in the native engine's C++, made on purpose: the suite's own test must fail for each.

Each is one replacement in the source. All of them are in one library, built for one set of
instructions without optimization, and one at a time is made: WRONG is true where its turn is.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from kerasish_lstm import _native as engine
from kerasish_lstm.errors import ParityError

from ..cases import Case
from ..test_parity import test_float64_equals_the_oracle as the_suites_test

SOURCES = Path(engine.__file__).parent / "native"
COMPILER = shutil.which("g++") or shutil.which("clang++")
SETS = ["-DKL_SET=kl_base", "-DKL_BYTES=16", "-DKL_ROWS=3", "-DKL_ALWAYS_SPLIT"]
FLAGS = ["-std=c++17", "-O0", "-fPIC", "-shared", "-Wno-psabi", *SETS]

PLAIN = Case("none", "given", True, True)
MASKED = Case("gaps", "given", True, True)
BACKWARDS = Case("gaps", "none", True, True, go_backwards=True)
MANY = Case("gaps", "none", True, True, go_backwards=True, batch=9)
LAST = Case("right", "none", units=11)
HARD = Case("none", "none", True, recurrent_activation="hard_sigmoid")
OLD = Case("none", "none", True, recurrent_activation="hard_sigmoid_v2")
SOFT = Case("none", "none", True, activation="softsign")
RELU = Case("none", "none", True, activation="relu")
EVEN = Case("none", "given", True, True, batch=1, features=3, units=8)
DROPPED = Case("gaps", "given", True, True, dropout="both")
WIDE_DROPPED = Case("gaps", "given", True, True, units=5, dropout="both")
FEW_DROPPED = Case("none", "given", True, True, batch=1, units=8, dropout="both")
SHARED = {"h of another step received", "received h not dropped out"}  # units, by two threads

# name: (file, what stands there, what is built in its place, the cases that must see it)
MUTANTS: dict[str, tuple[str, str, str, tuple[Case, ...]]] = {
    "gates swapped": (
        "step.h",
        "activated<S>(recurrent, z[r][0])",
        "activated<S>(recurrent, z[r][WRONG ? 1 : 0])",
        (PLAIN,),
    ),
    "old h read": (
        "step.h",
        "keep_h(f, 1 - s.parity[i], row",
        "keep_h(f, WRONG ? s.parity[i] : 1 - s.parity[i], row",
        (PLAIN,),
    ),
    "h of another step received": (
        "exchange.h",
        "S *h = f.h + (s.parity[i] * f.a->B + row) * f.width + first * L;",
        "S *h = f.h + ((WRONG != s.parity[i]) * f.a->B + row) * f.width + first * L;",
        (EVEN,),
    ),
    "received h not dropped out": (
        "exchange.h",
        "f.dropped && block < last;",
        "!WRONG && f.dropped && block < last;",
        (DROPPED, FEW_DROPPED),
    ),
    "a step too early": (
        "forward.h",
        "s.at = a.reverse ? a.T - 1 - t : t;",
        "s.at = a.reverse && !WRONG ? a.T - 1 - t : t;",
        (MANY,),
    ),
    "projected backwards": (
        "forward.h",
        "at = a.reverse ? a.T - 1 - t - ahead",
        "at = a.reverse && !WRONG ? a.T - 1 - t - ahead",
        (BACKWARDS,),
    ),
    "the mask ignored": (
        "forward.h",
        "if (counts(a, row, t, a.T)) {\n        if (a.x_drop)",
        "if (WRONG || counts(a, row, t, a.T)) {\n        if (a.x_drop)",
        (MASKED, LAST),
    ),
    "the last k left out": (
        "products.h",
        "for (; k + 2 <= K;",
        "for (; k + 2 + WRONG <= K;",
        (EVEN,),
    ),
    "a bias left out": (
        "packs.h",
        "if (unit < a.H && b_ih) sum",
        "if (unit < a.H && b_ih && !WRONG) sum",
        (PLAIN,),
    ),
    "the last rows not written": (
        "vectors.h",
        "memcpy(to, &v, n * sizeof(S));",
        "if (!WRONG) memcpy(to, &v, n * sizeof(S));",
        (LAST,),
    ),
    "c0 left out": (
        "forward.h",
        "a.c0 ? load(",
        "a.c0 && !WRONG ? load(",
        (PLAIN, MASKED),
    ),
    "h through a masked step": (
        "forward.h",
        "if (a.hs)\n        memcpy(",
        "if (a.hs && !WRONG)\n        memcpy(",
        (MASKED,),
    ),
    "c through a masked step": (
        "forward.h",
        "if (a.cs)\n        memcpy(",
        "if (a.cs && !WRONG)\n        memcpy(",
        (MASKED,),
    ),
    "dy at a masked step lost": (
        "backward.h",
        "dh[u] += dy[u];",
        "dh[u] += WRONG ? 0 : dy[u];",
        (MASKED,),
    ),
    "dh not added": (
        "backward.h",
        "if (dy) d += load(dy + at, n);",
        "if (dy) d = (WRONG ? V<S>{} : d) + load(dy + at, n);",
        (PLAIN,),
    ),
    "dc not carried": (
        "backward.h",
        "store(dc + at, dcell * forget, n);",
        "if (!WRONG) store(dc + at, dcell * forget, n);",
        (PLAIN,),
    ),
    "tanh without its sign": (
        "vectors.h",
        "large = x < 0.0 ? -large : large;",
        "if (!WRONG) large = x < 0.0 ? -large : large;",
        (PLAIN,),
    ),
    "the slope of tanh": (
        "vectors.h",
        "return S(1) - y * y;",
        "return S(1) - (WRONG ? y : y * y);",
        (PLAIN,),
    ),
    "the slope of sigmoid": (
        "vectors.h",
        "return y * (S(1) - y);",
        "return y * (WRONG ? y : S(1) - y);",
        (PLAIN,),
    ),
    "the slope of hard_sigmoid": (
        "vectors.h",
        "all(activation == KL_HARD_SIGMOID ?",
        "all((activation == KL_HARD_SIGMOID) != WRONG ?",
        (HARD, OLD),
    ),
    "hard_sigmoid of the other Keras": (
        "vectors.h",
        "return clipped<S>(x + S(3), S(0), S(6)) / S(6);",
        "if (!WRONG) return clipped<S>(x + S(3), S(0), S(6)) / S(6);",
        (HARD,),
    ),
    "the slope of softsign": (
        "vectors.h",
        "return rest * rest;",
        "return WRONG ? rest : rest * rest;",
        (SOFT,),
    ),
    "relu leaks": (
        "vectors.h",
        "return at_least(x, S(0));",
        "return WRONG && x < S(0) ? S(0.01) * x : at_least(x, S(0));",
        (RELU,),
    ),
    "one mask for all gates": (
        "step.h",
        "static_cast<const S *>(a.h_drop) + (g * a.B + row) * a.H + at;",
        "static_cast<const S *>(a.h_drop) + ((WRONG ? 0 : g) * a.B + row) * a.H + at;",
        (DROPPED,),
    ),
    "the mask left out of the backward": (
        "backward.h",
        "sum[n][r][g] * drop_of<S>(a, g, rows[r], at);",
        "WRONG ? sum[n][r][g] : sum[n][r][g] * drop_of<S>(a, g, rows[r], at);",
        (DROPPED,),
    ),
    "inputs of another gate": (
        "products.h",
        "from[r] = a[r] + g * apart;",
        "from[r] = a[r] + (WRONG ? 0 : g * apart);",
        (DROPPED,),
    ),
    "inputs of another gate, of one row": (
        "products.h",
        "all(from[k + g * apart])",
        "all(from[k + (WRONG ? 0 : g * apart)])",
        (FEW_DROPPED,),
    ),
    "the second block with the first one's weights": (
        "products.h",
        "second = N == 2 ? load(v + panel)",
        "second = N == 2 && !WRONG ? load(v + panel)",
        (WIDE_DROPPED,),
    ),
    "the second block with the first one's weights, of one row": (
        "products.h",
        "value * load(w + n * panel + g * L)",
        "value * load(w + (WRONG ? 0 : n * panel) + g * L)",
        (FEW_DROPPED,),
    ),
    "the second block's cells are the first one's": (
        "step.h",
        "static_cast<int>(rows), block + n, z[n]);",
        "static_cast<int>(rows), WRONG ? block : block + n, z[n]);",
        (WIDE_DROPPED,),
    ),
    "x of one gate for all": (
        "step.h",
        "x_apart = s.x_dropped ? s.n",
        "x_apart = s.x_dropped && !WRONG ? s.n",
        (DROPPED,),
    ),
    "h of one gate for all": (
        "step.h",
        "h_apart = a.h_drop_gates == 4 ? a.B",
        "h_apart = a.h_drop_gates == 4 && !WRONG ? a.B",
        (DROPPED,),
    ),
    "half of a sum by gate left out": (
        "products.h",
        "chain[0][r][n] += chain[c][r][n];",
        "if (!WRONG) chain[0][r][n] += chain[c][r][n];",
        (DROPPED,),
    ),
    "the last of an odd sum by gate left out": (
        "products.h",
        "chain[0][r][n] += all(from[r][k]) * load(v + n * panel);",
        "if (!WRONG) chain[0][r][n] += all(from[r][k]) * load(v + n * panel);",
        (DROPPED,),
    ),
    "the bias's gradient of one step": (
        "backward.h",
        "if (d_bias) add(d_bias, S(1), dz, 4 * H);",
        "if (d_bias && !(WRONG && t == 0)) add(d_bias, S(1), dz, 4 * H);",
        (PLAIN,),
    ),
    "the kernel's gradient of another step": (
        "backward.h",
        "row * a.x_row + at * a.x_step;\n      const S *h = t",
        "row * a.x_row + (WRONG ? t : at) * a.x_step;\n      const S *h = t",
        (MANY,),
    ),
    "h after the step in its gradient": (
        "backward.h",
        "hs + ((t - 1) * a.B + row) * H",
        "hs + ((t - !WRONG) * a.B + row) * H",
        (PLAIN,),
    ),
    "h0 left out of the gradient": (
        "backward.h",
        ": a.h0 ? static_cast<const S *>(a.h0) + row * H : nullptr;",
        ": a.h0 && !WRONG ? static_cast<const S *>(a.h0) + row * H : nullptr;",
        (PLAIN,),
    ),
    "gradients of masked steps": (
        "backward.h",
        "if (!counts(a, row, t, a.T)) continue;\n      const S *dz",
        "if (!WRONG && !counts(a, row, t, a.T)) continue;\n      const S *dz",
        (MASKED,),
    ),
    "the input's gradient of one gate": (
        "backward.h",
        "if (d_x) add(d_x, dz[j], w_ih + j * F, F);",
        "if (d_x) add(d_x, dz[j], w_ih + (WRONG ? j % H : j) * F, F);",
        (PLAIN,),
    ),
}

pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here"),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("poison"),  # what a mutant does not write may be there of the last one
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> engine._Engine:
    """The engine with all mistakes; ``kl_mistake`` is the number of the one that it makes."""
    folder = tmp_path_factory.mktemp("mutants")
    texts = {f.name: f.read_text() for f in SOURCES.iterdir() if f.suffix in (".h", ".cpp")}
    for number, (name, (file, here, then, _)) in enumerate(MUTANTS.items(), 1):
        found = texts[file].count(here)
        assert found == 1, f"{name}: {here!r} stands {found} times in {file}"
        texts[file] = texts[file].replace(here, then.replace("WRONG", f"(kl_mistake == {number})"))
    texts["lstm.h"] = 'extern "C" int kl_mistake;\n' + texts["lstm.h"]
    texts["dispatch.cpp"] += "int kl_mistake = 0;\n"
    for file, text in texts.items():
        (folder / file).write_text(text)
    assert COMPILER is not None
    files = [str(folder / "dispatch.cpp"), str(folder / "engine.cpp")]
    subprocess.run([COMPILER, *FLAGS, *files, "-o", str(folder / "engine.so")], check=True)
    return engine._load(folder / "engine.so")


def survives(case: Case) -> bool:
    try:
        the_suites_test("meta", case, torch.device("cpu"))
    except ParityError:
        return False
    return True


def cases_of(name: str) -> tuple[Case, ...]:
    return MUTANTS[name][3]


@pytest.fixture
def used(
    library: engine._Engine, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake = ctypes.c_int.in_dll(library.functions, "kl_mistake")
    monkeypatch.setattr(mistake, "value", ["", *MUTANTS].index(request.param))
    monkeypatch.setattr(engine._process, "engine", library)
    if request.param in SHARED:
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


@pytest.mark.parametrize("used", MUTANTS, indirect=True)
def test_the_suite_fails_for(used: None, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["used"]
    assert not all(survives(case) for case in cases_of(name)), name


@pytest.mark.parametrize("used", [""], indirect=True, ids=["the engine as it is"])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_suite_passes_for(used: None, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for case in {case for name in MUTANTS for case in cases_of(name)}:
        assert survives(case), case.id
