"""A layer kept: in safetensors with its config, by pickle, deepcopy and torch.save."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kerasish_lstm import (
    LSTM,
    Bidirectional,
    LazyLSTM,
    LSTMCell,
    StackedLSTM,
    TimeDistributed,
    initializers,
)
from kerasish_lstm import storage as storage_module
from kerasish_lstm.errors import ConfigError, FileFormatError, KerasishError, WeightMismatch
from kerasish_lstm.layers.lazy import LazyLSTMCell
from kerasish_lstm.layers.parameters import LSTMParameters
from kerasish_lstm.serialization.writer import Writer
from kerasish_lstm.storage import load_safetensors, safetensors_metadata, save_safetensors

from . import sampling
from .properties import HealthCheck, given, settings, st

safe_open = pytest.importorskip("safetensors").safe_open
of_torch = pytest.importorskip("safetensors.torch")
load_file, save_file = of_torch.load_file, of_torch.save_file

B, T, F, U = 3, 5, 4, 3


def learnt(module: nn.Module, *shape: int) -> nn.Module:
    module(torch.zeros(*shape))
    return module


# Every class, with everything that no Keras config holds.
MODULES: dict[str, Callable[[], Any]] = {
    "LSTM": lambda: LSTM(F, U),
    "LSTM of no bias, named": lambda: LSTM(F, U, use_bias=False, name="a", return_state=True),
    "LSTM beside": lambda: LSTM(
        F, U, dropout=0.5, recurrent_dropout=0.25, dropout_style="keras_3.0", time_major=True,
        use_cudnn=False, implementation=1, recurrent_activation="hard_sigmoid_v2", seed=7,
        kernel_regularizer="l2", activity_regularizer="l1", recurrent_constraint="max_norm",
        bias_initializer=initializers.Constant(0.5),
    ),
    "LSTM in float64": lambda: LSTM(F, U, dtype="float64"),
    "LSTM in bfloat16": lambda: LSTM(F, U).bfloat16(),
    "LSTM, mixed": lambda: LSTM(F, U, dtype="mixed_bfloat16"),
    "LSTM, frozen": lambda: LSTM(F, U, trainable=False),
    "LSTM that was lazy": lambda: learnt(LazyLSTM(U), B, T, F),
    "LSTMCell": lambda: LSTMCell(F, U, dropout=0.5, dropout_style="tf_keras", name="c"),
    "Bidirectional": lambda: Bidirectional(LSTM(F, U, return_sequences=True, name="x")),
    "Bidirectional of two": lambda: Bidirectional(
        LSTM(F, U, dropout=0.5, dropout_style="keras_2"), None, LSTM(F, 2, go_backwards=True),
        name="both",
    ),
    "Bidirectional of Keras 2.2": lambda: Bidirectional.from_config(
        {"merge_mode": "sum", "layer": {
            "class_name": "LSTM", "config": {"units": U, "return_sequences": True}}},
        F, version="2.2.4",
    ),
    "one cell": lambda: StackedLSTM(LSTMCell(F, U), return_state=True),
    "cells": lambda: StackedLSTM([LSTMCell(F, U), LSTMCell(U, 2, use_bias=False)], unroll=True),
    "layers": lambda: StackedLSTM(
        [LSTM(F, U, return_sequences=True), Bidirectional(LSTM(U, 2))],
        mask_propagation="keras_3.16",
    ),
    "TimeDistributed": lambda: TimeDistributed(Bidirectional(LSTM(F, U)), name="outer"),
    "TimeDistributed chain": lambda: TimeDistributed(
        StackedLSTM([LSTM(F, U, return_sequences=True), LSTM(U, 2)])
    ),
}  # fmt: skip


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(4)
    built = MODULES[request.param]()
    for parameter in built.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return built


def inputs(module: Any) -> dict[str, torch.Tensor]:
    """A batch of a kind that the module takes, with a mask where it takes one."""
    dtype = next(module.parameters()).dtype
    generator = torch.Generator().manual_seed(1)
    if isinstance(module, LSTMCell):
        return {"x": torch.randn(B, F, generator=generator).to(dtype)}
    shape = (B, 2, T) if isinstance(module, TimeDistributed) else (B, T)
    x = torch.randn(*shape, F, generator=generator).to(dtype)
    return {"x": x, "mask": torch.rand(*shape, generator=generator) < 0.6}


def flat(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else [t for r in result for t in flat(r)]


def assert_equal(one: Any, other: Any) -> None:
    """Two modules of one class, config, weights, mode and result."""
    assert type(one) is type(other)
    assert Writer("keras", beside=True).config(one) == Writer("keras", beside=True).config(other)
    weights, others = one.state_dict(), other.state_dict()
    assert weights.keys() == others.keys()
    for key, tensor in weights.items():
        assert tensor.dtype == others[key].dtype
        assert torch.equal(tensor, others[key]), key
    assert [p.requires_grad for p in one.parameters()] == [
        p.requires_grad for p in other.parameters()
    ]
    assert [n for n, _ in one.named_buffers()] == [n for n, _ in other.named_buffers()]
    assert [m.training for m in one.modules()] == [m.training for m in other.modules()]
    for a, b in zip(parts(one), parts(other), strict=True):
        assert a.input_size == b.input_size
        for field in storage_module._BESIDE:
            assert getattr(a.config, field) == getattr(b.config, field), field
        assert a.compute_dtype == b.compute_dtype
    mode = one.training
    call = inputs(one)
    for a, b in zip(flat(one.eval()(**call)), flat(other.eval()(**call)), strict=True):
        assert torch.equal(a, b)
    one.train(mode), other.train(mode)


def parts(module: nn.Module) -> list[LSTMParameters]:
    return [m for m in module.modules() if isinstance(m, LSTMParameters)]


def same_masks(one: Any, other: Any) -> bool:
    """Whether two layers in training draw the same dropout masks now."""
    call = inputs(one)
    results = [flat(m(**call, training=True)) for m in (one, other)]
    return all(torch.equal(a, b) for a, b in zip(*results, strict=True))


# safetensors


def test_a_stored_layer_comes_back_equal(module: Any, tmp_path: Path) -> None:
    path = tmp_path / "layer.safetensors"
    for training in (True, False):
        save_safetensors(module.train(training), path)
        assert_equal(module, load_safetensors(path))
        assert os.listdir(tmp_path) == ["layer.safetensors"]


def test_loading_draws_no_random_number(module: Any, tmp_path: Path) -> None:
    save_safetensors(module, tmp_path / "x")
    before = torch.get_rng_state()
    load_safetensors(tmp_path / "x")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loaded_layer_trains(module: Any, tmp_path: Path) -> None:
    save_safetensors(module, tmp_path / "x")
    back = load_safetensors(tmp_path / "x")
    call = inputs(back)
    if any(p.requires_grad for p in back.parameters()):
        sum(t.float().sum() for t in flat(back(**call))).backward()  # type: ignore[union-attr]
        assert all(p.grad is not None and p.grad.isfinite().all() for p in back.parameters())
    assert not any(b.any() for b in back.buffers())


def test_the_tensors_are_those_of_a_plain_nn_lstm(tmp_path: Path) -> None:
    layer: LSTM[Any] = LSTM(F, U)
    save_safetensors(layer, tmp_path / "x.safetensors")
    tensors = load_file(tmp_path / "x.safetensors")
    plain = nn.LSTM(F, U)
    assert tensors.keys() == {f"lstm.{k}" for k in plain.state_dict()}
    plain.load_state_dict({k.removeprefix("lstm."): v for k, v in tensors.items()})
    assert torch.equal(plain.weight_ih_l0, layer.lstm.weight_ih_l0)


def test_the_metadata_says_what_it_is(tmp_path: Path) -> None:
    import kerasish_lstm

    layer: LSTM[Any] = LSTM(F, U, dropout_style="keras_2", name="a").eval()
    save_safetensors(layer, tmp_path / "x")
    with safe_open(tmp_path / "x", "pt") as file:
        head = json.loads(file.metadata()["kerasish_lstm"])
        assert file.metadata()["format"] == "pt"
    assert head == {
        "format": 1,
        "version": kerasish_lstm.__version__,
        "class": "LSTM",
        "config": layer.get_config(),
        "input_size": F,
        "training": False,
        "beside": {"": {
            "dropout_style": "keras_2", "time_major": False, "use_cudnn": "auto",
            "implementation": 2, "zero_output_for_mask": False, "autocast": True, "frozen": [],
        }},
    }  # fmt: skip


def test_a_device_can_be_asked_for(device: torch.device, tmp_path: Path) -> None:
    module = Bidirectional(LSTM(F, U)).to(device)
    save_safetensors(module, tmp_path / "x")
    back = load_safetensors(tmp_path / "x", device=device)
    assert {p.device.type for p in back.parameters()} == {device.type}
    assert torch.equal(back(torch.ones(B, T, F, device=device)),
                       module(torch.ones(B, T, F, device=device)))  # fmt: skip


@pytest.mark.parametrize(
    "build",
    [
        lambda: LazyLSTM(U),
        lambda: LazyLSTMCell(U),
        lambda: Bidirectional(LazyLSTM(U)),
        lambda: StackedLSTM([LazyLSTM(U, return_sequences=True), LSTM(U, U)]),
        lambda: TimeDistributed(LazyLSTM(U)),
    ],
)
def test_a_layer_that_has_not_learnt_is_to_be_called_first(build: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has not learnt its input size.*Call it once"):
        save_safetensors(build(), tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_stored_says_why(tmp_path: Path) -> None:
    class Mine(LSTM[Any]):
        pass

    for module, said in (
        (Mine(F, U), "a Mine is not one of LSTM, "),
        (LSTM(F, U, activation=torch.sin), "torch code of your own"),
        (LSTM(F, U, device="meta"), "on the meta device"),
    ):
        with pytest.raises(ConfigError, match=said):
            save_safetensors(module, tmp_path / "x")
    with pytest.raises(ConfigError, match="a Linear is not one of"):
        save_safetensors(nn.Linear(2, 2), tmp_path / "x")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    save_safetensors(LSTM(F, U), path)
    before = path.read_bytes()

    def fails(*_: Any) -> None:
        assert list(tmp_path.iterdir()) != [path], "the new file is not in the same folder"
        raise OSError("no room")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="no room"):
            patch.setattr(os, name, fails)
            save_safetensors(LSTM(F, U), path)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]


# Files that are not what they should be


def stored(tmp_path: Path, **changes: Any) -> Path:
    """An LSTM's file with entries of its head changed; a value of None takes one away."""
    path = tmp_path / "x.safetensors"
    save_safetensors(LSTM(F, U), path)
    return rewritten(path, lambda head: {**head, **changes})


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    with safe_open(path, "pt") as file:
        head = json.loads(file.metadata()["kerasish_lstm"])
    text = change(head)
    if isinstance(text, dict):
        text = json.dumps({k: v for k, v in text.items() if v is not None})
    save_file(load_file(path), path, {"kerasish_lstm": text})
    return path


CONFIG = LSTM(F, U).get_config()


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"format": 2, "version": "9.1"}, FileFormatError,
         r"has format 2, of kerasish_lstm 9\.1; .* format 1\. Update"),
        ({"format": "1"}, FileFormatError, "damaged: its metadata lacks one of format, class"),
        ({"class": None}, FileFormatError, "lacks one of"),
        ({"class": "os.system"}, FileFormatError, "holds a 'os.system'; known are LSTM, LSTMCell"),
        ({"class": "Bidirectional"}, FileFormatError, "makes no Bidirectional.*class LSTM"),
        ({"config": {**CONFIG, "unts": 3}}, FileFormatError, "makes no LSTM: LSTM: .*'unts'"),
        ({"config": {**CONFIG, "units": 10**6}}, WeightMismatch, r"layer \(4000000, 4\)"),
        ({"config": {**CONFIG, "units": 10**10}}, FileFormatError, "makes no LSTM.*overflow"),
        ({"config": {**CONFIG, "units": 10**30}}, FileFormatError, "makes no LSTM"),
        ({"config": {**CONFIG, "units": 7}}, WeightMismatch,
         r"lstm.weight_hh_l0 +file \(12, 3\) float32 +layer \(28, 7\) float32"),
        ({"config": {**CONFIG, "dtype": "float64"}}, WeightMismatch, r"float32 .*float64"),
        ({"config": {**CONFIG, "use_bias": False}}, WeightMismatch,
         r"lstm.bias_ih_l0 +file \(12,\) float32 +layer -"),
        ({"config": {**CONFIG, "name": "a/b"}}, FileFormatError, None),
        ({"input_size": 5}, WeightMismatch, r"file \(12, 4\) float32 +layer \(12, 5\)"),
        ({"input_size": 10**12}, WeightMismatch, r"layer \(12, 1000000000000\)"),
        ({"input_size": 0}, FileFormatError, "input_size=0 is not possible"),
        ({"input_size": "4"}, FileFormatError, "in another type"),
        ({"beside": {"lstm": {"x": 1}}}, FileFormatError, "'beside' has 'lstm'"),
        ({"beside": {"": {"units": 3}}}, FileFormatError, "'beside' has ''"),
        ({"beside": {"": {"dropout_style": "mine", "time_major": False, "use_cudnn": "auto",
                          "implementation": 2, "zero_output_for_mask": False, "autocast": True,
                          "frozen": []}}},
         FileFormatError, "dropout_style='mine'"),
    ],
)  # fmt: skip
def test_a_head_that_lies_is_caught_before_anything_is_allocated(
    changes: dict[str, Any], error: Any, said: str | None, tmp_path: Path
) -> None:
    path = stored(tmp_path, **changes)
    if said is None:  # Keras 2 allows such names, and they are read
        assert load_safetensors(path).name == "a_b"
        return
    with pytest.raises(error, match=f"(?s)x.safetensors.*{said}"):
        load_safetensors(path)


def test_a_mask_propagation_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save_safetensors(StackedLSTM([LSTM(F, U)]), path)
    rewritten(path, lambda h: {
        **h, "beside": {**h["beside"], "": {"mask_propagation": "mine"}}
    })  # fmt: skip
    with pytest.raises(FileFormatError, match="mask_propagation='mine'"):
        load_safetensors(path)


def header(text: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "damaged or no safetensors file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "damaged or no safetensors file"),
        (header(b"{}"), "not a file of save_safetensors.*load_state_dict"),
        (header(b'{"__metadata__": {"kerasish_lstm": "{"}}'), "its metadata is no JSON"),
        (header(b'{"__metadata__": {"kerasish_lstm": "[]"}}'), "damaged"),
        (header(b'{"__metadata__": {"kerasish_lstm": "%s"}}' % (b"[" * 10**5)), "no JSON"),
        (header(b'{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}'), "damaged"),
        (struct.pack("<Q", 2**40) + b"{}", "damaged"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_file_of_ours_say_so(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=f"x.safetensors.*{said}"):
        load_safetensors(path)


def test_a_file_cut_short_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_safetensors(LSTM(F, U), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FileFormatError, match="damaged"):
        load_safetensors(path)
    with pytest.raises(FileFormatError, match="is a folder"):
        load_safetensors(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_safetensors(tmp_path / "none")


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "boom"),))

    path = tmp_path / "x.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(FileFormatError):
        load_safetensors(path)
    assert not (tmp_path / "boom").exists()


def test_a_live_second_bias_is_folded(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save_safetensors(LSTM(F, U), path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["lstm.bias_hh_l0"] = torch.ones(4 * U)
    save_file(tensors, path, metadata)
    back = load_safetensors(path)
    assert isinstance(back, LSTM)
    assert torch.equal(back.lstm.bias_ih_l0, tensors["lstm.bias_ih_l0"] + 1)
    assert not back.lstm.bias_hh_l0.any()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**70) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["config", "class_name", "units", ""]), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=sampling.amount(60, 200), deadline=None, suppress_health_check=[
    HealthCheck.function_scoped_fixture])  # fmt: skip
@given(name=st.sampled_from(["LSTM", "Bidirectional", "cells", "layers"]),
       path=st.lists(st.integers(0, 40), min_size=1, max_size=5), value=JSON)  # fmt: skip
def test_whatever_stands_in_a_head_is_loaded_or_refused(
    name: str, path: list[int], value: Any, tmp_path: Path
) -> None:
    file = tmp_path / "x"
    save_safetensors(MODULES[name](), file)

    def change(head: dict[str, Any]) -> str:
        at: Any = head
        for step in path:
            keys: list[Any] = list(at) if isinstance(at, dict) else list(range(len(at)))
            place, key = at, keys[step % len(keys)]
            at = place[key]
            if not at or not isinstance(at, dict | list):
                break
        place[key] = value
        return json.dumps(head)

    rewritten(file, change)
    try:
        load_safetensors(file)
    except KerasishError as error:
        assert isinstance(error, FileFormatError | WeightMismatch)


# pickle, deepcopy, torch.save


def by_pickle(module: Any) -> Any:
    return pickle.loads(pickle.dumps(module))


def by_torch_save(module: Any) -> Any:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = pytest.mark.parametrize("through", [copy.deepcopy, by_pickle, by_torch_save])


@COPIES
def test_a_copy_is_equal_and_apart(module: Any, through: Callable[[Any], Any]) -> None:
    for training in (True, False):
        twin = through(module.train(training))
        assert_equal(module, twin)
        assert [p.config for p in parts(twin)] == [p.config for p in parts(module)]
        assert (
            twin.get_config("tf_keras") == module.get_config("tf_keras")
            if (not needs_keras_3(module))
            else True
        )
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert not any(
        torch.equal(a, b) for a, b in zip(twin.parameters(), module.parameters(), strict=True)
    )


def needs_keras_3(module: Any) -> bool:
    """The one that repeats outputs at masked steps has no config at all."""
    return isinstance(module, Bidirectional) and (
        module.forward_layer.config.zero_output_for_mask != module.return_sequences
    )


@COPIES
def test_a_copy_goes_on_with_the_same_dropout_masks(through: Callable[[Any], Any]) -> None:
    for build in (
        lambda: LSTM(F, U, dropout=0.5, seed=3),
        lambda: Bidirectional(LSTM(F, U, dropout=0.5, recurrent_dropout=0.5, seed=3)),
        lambda: StackedLSTM([LSTMCell(F, U, dropout=0.5, seed=3), LSTMCell(U, U)]),
        lambda: TimeDistributed(LSTM(F, U, dropout=0.5, seed=3)),
    ):
        module: Any = build()
        assert same_masks(module, through(module))
        module(**inputs(module), training=True)  # now its generator has been used
        twin, fresh = through(module), through(module)
        assert same_masks(module, twin)
        assert not same_masks(module, fresh), "the generator does not go on"


@COPIES
def test_a_copy_keeps_the_state(through: Callable[[Any], Any]) -> None:
    module: LSTM[Any] = LSTM(F, U, stateful=True)
    module(torch.ones(B, T, F))
    twin = through(module)
    assert torch.equal(module(torch.ones(B, T, F)), twin(torch.ones(B, T, F)))


@COPIES
def test_a_copy_of_a_lazy_layer_still_learns(through: Callable[[Any], Any]) -> None:
    for build, shape in (
        (lambda: LazyLSTM(U, name="a"), (B, T, F)),
        (lambda: LazyLSTMCell(U), (B, F)),
        (lambda: Bidirectional(LazyLSTM(U)), (B, T, F)),
        (lambda: StackedLSTM([LazyLSTM(U, return_sequences=True), LSTM(U, U)]), (B, T, F)),
        (lambda: TimeDistributed(LazyLSTM(U)), (B, 2, T, F)),
    ):
        module: Any = build()
        twin = through(module)
        assert twin.get_config() == module.get_config()
        twin(torch.zeros(*shape))
        assert parts(twin)[0].input_size == F and parts(module)[0].input_size == 0


def test_a_state_dict_passes_torch_save_with_weights_only(module: Any) -> None:
    other, file = copy.deepcopy(module), io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert_equal(module, other)


def test_weights_that_are_frozen_alone_stay_so(tmp_path: Path) -> None:
    layer: LSTM[Any] = LSTM(3, 2)
    layer.lstm.weight_hh_l0.requires_grad_(False)
    save_safetensors(layer, tmp_path / "x.safetensors")
    again = load_safetensors(tmp_path / "x.safetensors")
    assert [p.requires_grad for p in again.parameters()] == [True, False, True]
    with pytest.raises(ConfigError, match="some of its weights are frozen and others are not"):
        layer.get_config()


def test_a_layer_that_stands_twice_is_refused(tmp_path: Path) -> None:
    layer: LSTM[Any] = LSTM(2, 2, return_sequences=True)
    with pytest.raises(ConfigError, match="one layer stands in it twice"):
        save_safetensors(StackedLSTM([layer, layer]), tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_link_and_its_mode_stay_as_they_are(tmp_path: Path) -> None:
    real, link = tmp_path / "real.safetensors", tmp_path / f"{'l' * 240}.safetensors"[-250:]
    real.write_bytes(b"before")
    real.chmod(0o600)
    link.symlink_to(real)
    save_safetensors(LSTM(3, 2), link)
    assert link.is_symlink() and real.stat().st_mode & 0o777 == 0o600
    assert load_safetensors(real).units == 2
    with pytest.raises(FileFormatError, match="is a folder"):
        save_safetensors(LSTM(3, 2), tmp_path)


def test_many_layers_in_a_head_are_refused_before_one_is_built(tmp_path: Path) -> None:
    chain = StackedLSTM([LSTM(3, 2, return_sequences=True), LSTM(2, 2)])
    save_safetensors(chain, tmp_path / "x.safetensors")
    tensors = load_file(tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        head = json.loads(file.metadata()["kerasish_lstm"])
    head["config"]["layers"] = [head["config"]["layers"][0]] * 10_000
    save_file(tensors, tmp_path / "y.safetensors", {"kerasish_lstm": json.dumps(head)})
    begin = time.perf_counter()
    with pytest.raises(WeightMismatch, match="of 2 LSTMs, and its config has 10000"):
        load_safetensors(tmp_path / "y.safetensors")
    assert time.perf_counter() - begin < 5


def test_several_layers_in_one_file(tmp_path: Path) -> None:
    modules = {
        "z/first": LSTM(3, 5, return_sequences=True),
        "a": Bidirectional(LSTM(3, 2)),
        "a.b": StackedLSTM([LSTMCell(3, 2), LSTMCell(2, 5)]),
    }
    path = tmp_path / "many.safetensors"
    save_safetensors(modules, path, provenance={"file": "model.h5"}, golden={"x": [1.5]})
    again = load_safetensors(path)
    assert list(again) == list(modules)
    x = torch.rand(2, 7, 3)
    for name, module in modules.items():
        assert type(again[name]) is type(module)
        assert torch.equal(again[name](x), module(x))
    head = safetensors_metadata(path)
    assert head["provenance"] == {"file": "model.h5"} and head["golden"] == {"x": [1.5]}
    assert list(head["layers"]) == list(modules)
    save_safetensors(modules["a"], path)
    assert "provenance" not in safetensors_metadata(path)


def test_several_layers_that_cannot_be_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "many.safetensors"
    with pytest.raises(ConfigError, match="holds no layer"):
        save_safetensors({}, path)
    both = {"a": Bidirectional(LSTM(3, 2)), "a.forward_layer": LSTM(3, 2)}
    with pytest.raises(ConfigError, match=r"two tensors would be called 'a.forward_layer.lstm.b"):
        save_safetensors(both, path)
    assert not path.exists()


def test_what_could_not_be_loaded_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    layer: Any = LSTM(3, 2)
    loop: dict[str, Any] = {}
    loop["a"] = loop
    said: list[tuple[Any, dict[str, Any], str]] = [
        ({3: layer}, {}, "3 is no name of a layer; the keys of the dict are strings"),
        ({None: layer}, {}, "None is no name of a layer"),
        ({"\ud800": layer}, {}, "is no text that a file can hold"),
        ({"a": 3}, {}, "a int was given under 'a'; pass a layer"),
        ({"a": {"b": layer}}, {}, "a dict was given under 'a'"),
        ([layer], {}, "a list was given; pass a layer, or a dict"),
        (3, {}, "a int was given; pass a layer"),
        (layer, {"provenance": {"a": object()}}, "provenance cannot be JSON"),
        (layer, {"provenance": [1]}, "provenance is a list; pass a dict"),
        (layer, {"provenance": "ab"}, "provenance is a str; pass a dict"),
        (layer, {"provenance": {3: "a"}}, "provenance has the key 3; in JSON every key"),
        (layer, {"golden": {"a": [{"b": {1: 2}}]}}, "golden has the key 1"),
        (layer, {"golden": {"x": torch.ones(2)}}, "golden cannot be JSON"),
        (layer, {"golden": 3}, "golden is a int; pass a dict"),
        (layer, {"golden": {"x": float("nan")}}, "golden cannot be JSON"),
        (layer, {"golden": loop}, "golden cannot be JSON"),
    ]
    for module, options, text in said:
        with pytest.raises(ConfigError, match=text):
            save_safetensors(module, path, **options)
        assert not path.exists()


def test_a_header_that_safetensors_cannot_read_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kerasish_lstm import storage

    monkeypatch.setattr(storage, "_LONGEST_HEADER", 5000)
    with pytest.raises(ConfigError, match="safetensors reads 5000 at most"):
        save_safetensors(LSTM(3, 2), tmp_path / "x.safetensors", golden={"x": "a" * 5000})
    assert not list(tmp_path.iterdir())


def test_a_cell_that_stands_twice_is_refused(tmp_path: Path) -> None:
    one = LSTMCell(3, 3)
    stack = StackedLSTM([one, one])
    for module in (stack, TimeDistributed(stack)):
        with pytest.raises(ConfigError, match="stands in it twice, which no config can say: it w"):
            save_safetensors(module, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_names_that_are_strange_but_text_come_back(tmp_path: Path) -> None:
    modules: dict[str, Any] = {
        "": LSTM(3, 2),
        "a.": LSTM(3, 2),
        "lstm": LSTM(3, 2),
        "\n": LSTM(3, 2),
    }
    save_safetensors(modules, tmp_path / "x.safetensors")
    again = load_safetensors(tmp_path / "x.safetensors")
    x = torch.rand(2, 4, 3)
    assert list(again) == list(modules)
    assert all(torch.equal(again[k](x), modules[k](x)) for k in modules)
