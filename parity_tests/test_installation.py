"""The first minute: what is imported, what is built, what is said where the engine is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import kerasish_lstm
from kerasish_lstm import LSTM, Bidirectional, LSTMCell, StackedLSTM, _native, native_status
from kerasish_lstm.errors import NativeEngineWarning
from kerasish_lstm.parity import assert_parity, oracle

ROOT = Path(__file__).resolve().parent.parent
B, T, F, U = 3, 7, 4, 5


def python(code: str, **options: Any) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Imports


def test_a_layer_is_imported_without_what_it_does_not_need() -> None:
    """torch._dynamo takes nearly as long as torch, and no layer needs it that is not compiled."""
    code = (
        "import sys, torch; before = set(sys.modules)\n"
        "from kerasish_lstm import LSTM, Bidirectional\n"
        "LSTM(3, 5)(torch.zeros(1, 2, 3)).sum().backward()\n"
        "Bidirectional(LSTM(3, 5, use_cudnn=True))(torch.zeros(1, 2, 3))\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    imported = python(code, cwd=ROOT).split()
    assert "kerasish_lstm.layers.lstm" in imported
    heavy = {"torch._dynamo", "torch._inductor", "h5py", "safetensors", "rich", "typer", "keras"}
    assert not heavy & set(imported)


def test_one_layer_knows_the_configs_of_all() -> None:
    code = (
        "from kerasish_lstm import LSTM\n"
        "try: LSTM.from_config({'class_name': 'TimeDistributed', 'config': {}})\n"
        "except Exception as error: print(error)\n"
        "from kerasish_lstm.serialization.classes import CLASSES\n"
        "print(*CLASSES)"
    )
    assert python(code, cwd=ROOT).splitlines() == [
        "LSTM.from_config: this is a config of the class TimeDistributed; call "
        "TimeDistributed.from_config(config).",
        "LSTM LSTMCell Bidirectional RNN Sequential TimeDistributed",
    ]


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["demo", "--help"], ["convert", "--help"], ["info", "--help"]],
    ids=" ".join,
)
def test_the_command_line_answers_without_torch(arguments: list[str]) -> None:
    pytest.importorskip("typer")
    code = (
        "import sys\nfrom kerasish_lstm.cli import main\n"
        "try: main()\n"
        "finally: print('loaded:', *({'torch', 'numpy', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *said, last = done.stdout.splitlines()
    assert last == "loaded:"
    wanted = kerasish_lstm.__version__ if arguments == ["--version"] else "Usage:"
    assert any(wanted in line for line in said)


def test_public_names_are_found_and_others_are_not() -> None:
    for name in kerasish_lstm.__all__:
        found = getattr(kerasish_lstm, name)
        if isinstance(found, type | types.FunctionType):
            assert found.__module__.startswith("kerasish_lstm.")
            assert found.__name__ == name
    assert set(kerasish_lstm.__all__) <= set(dir(kerasish_lstm))
    everything: dict[str, Any] = {}
    exec("from kerasish_lstm import *", everything)
    assert set(kerasish_lstm.__all__) <= everything.keys()
    with pytest.raises(AttributeError, match="no attribute 'GRU'"):
        _ = kerasish_lstm.GRU  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="GRU"):
        from kerasish_lstm import GRU  # type: ignore[attr-defined]  # noqa: F401


def test_modules_are_attributes_as_they_were() -> None:
    modules = ["config", "weights", "parity", "layers"]
    code = (
        "import sys\n"
        f"for module in {modules}:\n"
        "    for name in [n for n in sys.modules if n.startswith('kerasish_lstm')]:\n"
        "        del sys.modules[name]\n"
        "    import kerasish_lstm\n"
        "    print(getattr(kerasish_lstm, module).__name__)"
    )
    assert python(code, cwd=ROOT).split() == [f"kerasish_lstm.{module}" for module in modules]


# What is built


def tree(folder: Path) -> Path:
    """A copy of the sources, in which nothing is built."""
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    left_out = shutil.ignore_patterns("engine.so", "not_built.json", "__pycache__")
    shutil.copytree(ROOT / "kerasish_lstm", folder / "kerasish_lstm", ignore=left_out)
    return folder


def build(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("KERASISH_LSTM_BUILD", "CXX")}
    return subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", *options],
        cwd=folder, env=kept | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip


def compiler(folder: Path, script: str) -> str:
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


WRITES = 'while [ "$1" != -o ]; do shift; done; echo new > "$2"'
FAILS = "echo 'engine.cpp:7: error: no vector types here' >&2; exit 1"


@pytest.mark.parametrize("options", [("--inplace",), ("--build-lib", "lib")], ids=" ".join)
@pytest.mark.parametrize(
    ("variables", "script", "said"),
    [
        ({}, WRITES, None),
        ({"KERASISH_LSTM_BUILD": "0"}, WRITES, "KERASISH_LSTM_BUILD=0 left it out"),
        ({}, FAILS, "compiling it failed: engine.cpp:7: error: no vector types here"),
        ({"CXX": "/nowhere/g++"}, None, "no C++ compiler was found: /nowhere/g++ is not there"),
        ({"PATH": ""}, None, "no C++ compiler was found: neither g++ nor clang++"),
    ],
    ids=["built", "not wanted", "failed", "no such compiler", "no compiler"],
)
def test_what_is_built_is_in_this_folder_too_or_why_not(
    variables: dict[str, str],
    script: str | None,
    said: str | None,
    options: tuple[str, ...],
    tmp_path: Path,
) -> None:
    """Nor is an older library left, which would be taken for the one that was not built."""
    here = tree(tmp_path) / "kerasish_lstm" / "native"
    places = {here} | ({tmp_path / "lib/kerasish_lstm/native"} if "lib" in options else set())
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        (place / "engine.so").write_text("of yesterday\n")
        (place / "not_built.json").write_text("of yesterday\n")
    own = {} if script is None else {"CXX": compiler(tmp_path, script)}
    done = build(tmp_path, *options, **own | variables)
    assert done.returncode == 0, done.stderr
    for place in places:
        if said is None:
            assert (place / "engine.so").read_text() == "new\n"
            assert not (place / "not_built.json").exists()
            continue
        assert not (place / "engine.so").exists()
        told = json.loads((place / "not_built.json").read_text())
        assert said in told["why"] and told["on_purpose"] == ("KERASISH" in said)
        assert told["on_purpose"] or "the native engine was not built" in done.stderr


def test_a_failure_is_an_error_where_the_engine_was_asked_for(tmp_path: Path) -> None:
    here = tree(tmp_path) / "kerasish_lstm" / "native"
    done = build(
        tmp_path, "--build-lib", "lib", KERASISH_LSTM_BUILD="1", CXX=compiler(tmp_path, FAILS)
    )
    assert done.returncode != 0 and "no vector types here" in done.stderr
    assert not (here / "engine.so").exists()


def test_the_version_is_read_without_torch(tmp_path: Path) -> None:
    """A build of its own (PEP 517) has setuptools and nothing else."""
    code = (
        "import sys; sys.modules['torch'] = sys.modules['numpy'] = None\n"
        "from setuptools.config.setupcfg import read_configuration\n"
        "print(read_configuration('setup.cfg')['metadata']['version'])"
    )
    said = python(code, cwd=tree(tmp_path), env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert said.strip() == kerasish_lstm.__version__


# Where the engine is missing


@pytest.fixture
def absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """``absent(**files)``: the engine's folder is another one, with these files in it."""

    def place(**files: str) -> Path:
        folder = tmp_path / "tree" / "kerasish_lstm" / "native"
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text)
        monkeypatch.setattr(_native, "__file__", str(folder.parent / "_native.py"))
        monkeypatch.setattr(_native._process, "engine", None)
        monkeypatch.setattr(_native._process, "warned", False)
        monkeypatch.setattr(_native._process, "allowed", True)
        return folder

    return place


def note(why: str, on_purpose: bool = False) -> dict[str, str]:
    return {"not_built__json": json.dumps({"why": why, "on_purpose": on_purpose})}


MISSING: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "a source tree": ({"engine__cpp": ""}, ("source tree", "was not built", "pip install -e")),
    "no compiler": (
        note("no C++ compiler was found: neither g++ nor clang++ is on the path"),
        ("no C++ compiler was found", "with a C++ compiler", "KERASISH_LSTM_BUILD=1 pip install"),
    ),
    "a failed build, in a source tree": (
        note("compiling it failed: error: no vector types") | {"engine__cpp": ""},
        ("compiling it failed: error: no vector types", "KERASISH_LSTM_BUILD=1 pip install"),
    ),
    "gone": ({}, ("is gone", "install it again")),
    "damaged": ({"engine__so": "no library"}, ("cannot be loaded",)),
}
LAYERS: dict[str, Callable[..., Any]] = {
    "LSTM": lambda: LSTM(F, U),
    "LSTM, stateful": lambda: LSTM(F, U, stateful=True),
    "Bidirectional": lambda: Bidirectional(LSTM(F, U)),
    "StackedLSTM": lambda: StackedLSTM([LSTMCell(F, U), LSTMCell(U, U)]),
}


@pytest.mark.parametrize("name", MISSING)
def test_the_reason_is_the_true_one(name: str, absent: Callable[..., Path]) -> None:
    files, parts = MISSING[name]
    folder = absent(**files)
    status = native_status()
    assert not status.available and status.reason is not None
    assert all(part in status.reason for part in parts), status.reason
    if name == "a source tree":
        assert str(folder.parents[1]) in status.reason
    with pytest.warns(NativeEngineWarning) as caught:
        LSTM(F, U)(torch.zeros(B, T, F))
    assert status.reason in str(caught[0].message)


@pytest.mark.parametrize("name", LAYERS)
def test_the_first_call_that_would_have_used_it_warns_once(
    name: str, absent: Callable[..., Path]
) -> None:
    absent(engine__cpp="")
    layer, x = LAYERS[name](), torch.randn(B, T, F)
    with pytest.warns(NativeEngineWarning, match="KERASISH_LSTM_NATIVE=0.*pip install -e"):
        layer(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(x)
        LSTM(F, U)(x)


@pytest.mark.parametrize(
    "keywords",
    [{"use_cudnn": False}, {"activation": "gelu"}, {"dtype": torch.bfloat16}, {"device": "meta"}],
    ids=str,
)
def test_a_call_that_another_engine_computes_anyway_does_not_warn(
    keywords: dict[str, Any], absent: Callable[..., Path]
) -> None:
    absent(engine__cpp="")
    LSTM(F, U, **keywords)(torch.zeros(B, T, F, device=keywords.get("device")))
    assert not _native._process.warned


def test_who_turned_it_off_is_not_warned(
    absent: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent(**note("KERASISH_LSTM_BUILD=0 left it out", on_purpose=True))
    LSTM(F, U)(torch.zeros(B, T, F))
    assert "KERASISH_LSTM_BUILD=0 left it out" in str(native_status().reason)
    _native._process.engine = None
    (Path(_native.__file__).parent / "native" / "not_built.json").unlink()
    with _native.native_engine(False):
        LSTM(F, U)(torch.zeros(B, T, F))
    monkeypatch.setattr(_native._process, "allowed", False)  # KERASISH_LSTM_NATIVE=0
    LSTM(F, U)(torch.zeros(B, T, F))
    assert not _native._process.warned


def test_without_it_the_numbers_are_the_same(absent: Callable[..., Path]) -> None:
    absent()
    layer, x = LSTM(F, U), torch.randn(B, T, F)
    assert layer.engine == "fused" and "not built" in str(layer.why_not_native())
    truth = oracle.forward(x.numpy(), *layer.get_weights()).output
    assert_parity(layer(x), truth, bound=2e-6)
