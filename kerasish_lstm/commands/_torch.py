"""Torch state dicts to modules by name, and back.

    nn.LSTM's keys         weight_ih_l0, weight_hh_l0_reverse, bias_ih_l1, ...
    nn.LSTMCell's          weight_ih, weight_hh, bias_ih, bias_hh
    this package's own     forward_layer.lstm.weight_ih_l0, ...    Bidirectional
                           layers.0.lstm.weight_ih_l0, ...         StackedLSTM of layers

A state dict holds weights alone. What governs them is taken as nn.LSTM has it: every layer gives
its sequence and its states.
"""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import LSTMConfig
from ..errors import ConfigError, FileFormatError
from ..files import must_be_a_file
from ..files._open import Budget
from ..layers.bidirectional import Bidirectional
from ..layers.cell import LSTMCell
from ..layers.lstm import LSTM
from ..layers.parameters import LSTMParameters
from ..layers.stacked import StackedLSTM
from ..layers.time_distributed import TimeDistributed
from ..plain import from_torch, to_torch, why_not_torch
from ..serialization.policies import DTYPES
from ..storage import Module
from . import _pickles

_LAYERED = re.compile(r"(?:weight|bias)_(?:ih|hh|hr)_l\d+(?:_reverse)?\Z")
_OF_A_CELL = re.compile(r"(?:\A|(?<=\.))(?:weight|bias)_(?:ih|hh)\Z")
_IN_A_STACK = re.compile(r"(?P<stack>(?:.*\.)?)layers\.(?P<number>\d{1,4})\.", re.DOTALL)
_KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

# Reading


def read_state_dict(path: Path) -> dict[str, Module]:
    """Every LSTM of a torch file, by its prefix; nothing in the file is run.

    Raises:
        FileNotFoundError: there is no such file.
        FileFormatError: no state dict, one that claims more than it stores, or one with no LSTM.
    """
    return modules_of(_loaded(path), path, Budget(path))


def modules_of(state: Mapping[str, Tensor], path: Path, budget: Budget) -> dict[str, Module]:
    """The LSTMs of a state dict.

    Args:
        path: for messages.
        budget: of the bytes of all arrays together.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        match = _LAYERED.search(key) or _OF_A_CELL.search(key)
        if match is not None:
            groups.setdefault(key[: match.start()], {})[match[0]] = tensor
    plains = {p: one for p, own in groups.items() if (one := _plain(own, p, path, budget))}
    if not plains:
        held = ", ".join(key[:60] for key in list(state)[:5]) or "nothing"
        raise FileFormatError(
            f"{path.name} holds no LSTM: no entry is called weight_ih_l0, with 4 gates. It holds "
            f"{held}."
        )
    found: dict[str, Module] = {}
    places: dict[str, str] = {}
    for prefix, module in _stacks(_directions(plains)):
        name = _name(prefix)
        if name in found:
            raise FileFormatError(
                f"{path.name}: two LSTMs would be called {name!r}, those whose entries begin with "
                f"{places[name]!r} and with {prefix!r}. Rename the entries of one of them."
            )
        found[name], places[name] = module, prefix
    return found


def _name(prefix: str) -> str:
    return prefix.rstrip(".") or "lstm"


def _loaded(path: Path) -> dict[str, Tensor]:
    must_be_a_file(path)
    _pickles.check(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler raises whatever a damaged pickle leads to
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise FileFormatError(
            f"{path.name} is no state dict that can be read without running code from it: {said} "
            "Save module.state_dict() with torch.save."
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise FileFormatError(
            f"{path.name} holds a {type(state).__name__}; a state dict was expected: save "
            "module.state_dict()."
        )
    return {k: t for k, t in state.items() if isinstance(k, str) and isinstance(t, Tensor)}


def _plain(
    own: Mapping[str, Tensor], prefix: str, path: Path, budget: Budget
) -> nn.LSTM | nn.LSTMCell | None:
    """The plain module whose entries begin with a prefix; None where they are those of another."""
    layered = any(_LAYERED.fullmatch(key) for key in own)
    end = "_l0" if layered else ""
    first, second = own.get(f"weight_ih{end}"), own.get(f"weight_hh{end}")
    if first is None or second is None:
        missing = f"weight_ih{end}" if first is None else f"weight_hh{end}"
        if not layered:
            return None  # any module may have such a name
        raise FileFormatError(
            f"{path.name}: {prefix or 'it'!r} is no whole nn.LSTM: it has "
            f"{', '.join(k[:40] for k in list(own)[:4])}, and no {missing}."
        )
    if first.ndim != 2 or second.ndim != 2:
        return None
    if first.shape[0] != 4 * second.shape[1]:  # a GRU has 3 gates, an RNN one
        if "weight_hr_l0" in own:
            raise FileFormatError(
                f"{path.name}: the LSTM {prefix!r} has a projection (proj_size), which no Keras "
                "LSTM has."
            )
        return None
    if not first.numel() or not second.numel():
        raise FileFormatError(
            f"{path.name}: the LSTM {prefix!r} has weights of the shapes {tuple(first.shape)} and "
            f"{tuple(second.shape)}; it takes one feature or more and has one unit or more."
        )
    for key, tensor in own.items():
        _check_tensor(f"{prefix}{key}", tensor, path, budget)
    plain = _empty(own, first, second, layered)
    expected = plain.state_dict()
    wrong = [
        f"  {k[:60]}: {tuple(own[k].shape) if k in own else 'missing'}, expected "
        f"{tuple(expected[k].shape) if k in expected else 'no such entry'}"
        for k in sorted(own.keys() | expected.keys())
        if k not in own or k not in expected or own[k].shape != expected[k].shape
    ]
    if wrong:
        listed = "\n".join(wrong[:8])
        kind = type(plain).__name__
        raise FileFormatError(f"{path.name}: {prefix or 'it'!r} is no whole nn.{kind}:\n{listed}")
    if len({tensor.dtype for tensor in own.values()}) > 1:
        listed = ", ".join(f"{k} {_dtype(t)}" for k, t in list(own.items())[:4])
        raise FileFormatError(
            f"{path.name}: the LSTM {prefix!r} has weights of several dtypes ({listed}); an "
            "nn.LSTM has one. Convert them before saving: module.to(torch.float32)."
        )
    plain.load_state_dict(own, assign=True)
    return plain.eval()


def _empty(
    own: Mapping[str, Tensor], first: Tensor, second: Tensor, layered: bool
) -> nn.LSTM | nn.LSTMCell:
    """On the meta device, with as many layers as there are one after the other."""
    like: dict[str, Any] = {"device": "meta", "dtype": first.dtype}
    if not layered:
        like["bias"] = "bias_ih" in own
        return nn.LSTMCell(first.shape[1], second.shape[1], **like)
    layers = 1
    while f"weight_ih_l{layers}" in own:
        layers += 1
    return nn.LSTM(
        first.shape[1],
        second.shape[1],
        layers,
        bias="bias_ih_l0" in own,
        bidirectional="weight_ih_l0_reverse" in own,
        batch_first=True,
        **like,
    )


def _check_tensor(key: str, tensor: Tensor, path: Path, budget: Budget) -> None:
    """Refuse what is no array of floats that lies in the file as it is."""
    if tensor.is_meta or tensor.is_quantized or tensor.layout != torch.strided:
        what = "on the meta device, without values" if tensor.is_meta else "quantized"
        if tensor.layout != torch.strided:
            what = f"stored as {tensor.layout}"
        raise FileFormatError(
            f"{path.name}: {key[:60]!r} is {what}; weights are dense tensors. Convert it before "
            "saving (dequantize(), to_dense())."
        )
    if tensor.dtype not in DTYPES.values():
        raise FileFormatError(
            f"{path.name}: {key[:60]!r} holds {_dtype(tensor)}; weights are of {', '.join(DTYPES)}."
            " Convert it before saving: tensor.to(torch.float32)."
        )
    size = tensor.numel() * tensor.element_size()
    if tensor.untyped_storage().nbytes() < size:
        raise FileFormatError(
            f"{path.name}: {key[:60]!r} claims the shape {tuple(tensor.shape)}, {size} bytes, and "
            f"stores {tensor.untyped_storage().nbytes()}. Refused as a decompression bomb; save "
            "tensor.contiguous()."
        )
    if not budget.spend(size):
        raise FileFormatError(
            f"{path.name}: its LSTMs claim more than {budget.limit} bytes of weights, in "
            f"{budget.on_disk} bytes on disk. Refused as a decompression bomb."
        )


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


# This package's own keys

_Pair = tuple[nn.LSTM, nn.LSTM]  # the directions of a Bidirectional


def _directions(
    plains: Mapping[str, nn.LSTM | nn.LSTMCell],
) -> dict[str, nn.LSTM | nn.LSTMCell | _Pair]:
    """With the two layers of each Bidirectional in one, under its own prefix."""
    found: dict[str, nn.LSTM | nn.LSTMCell | _Pair] = {}
    for prefix, plain in plains.items():
        root = prefix.removesuffix("forward_layer.lstm.").removesuffix("backward_layer.lstm.")
        pair = [plains.get(f"{root}{side}_layer.lstm.") for side in ("forward", "backward")]
        forward, backward = pair
        if (
            root != prefix
            and root not in plains
            and isinstance(forward, nn.LSTM)
            and isinstance(backward, nn.LSTM)
            and _is_ours(forward)
            and _is_ours(backward)
            and forward.input_size == backward.input_size
        ):
            found[root] = forward, backward
        else:
            found[prefix] = plain
    return found


def _is_ours(plain: nn.LSTM | nn.LSTMCell) -> bool:
    """Whether it can be one LSTM of this package, whose second bias is zeros."""
    if not isinstance(plain, nn.LSTM) or plain.num_layers > 1 or plain.bidirectional:
        return False
    return not plain.bias or not bool(plain.state_dict()["bias_hh_l0"].any())


def _stacks(
    plains: Mapping[str, nn.LSTM | nn.LSTMCell | _Pair],
) -> Iterator[tuple[str, Module]]:
    """(prefix, module), the layers of each stack in one module."""
    stacks: dict[str, list[tuple[int, str]]] = {}
    for prefix, plain in plains.items():
        within = prefix if isinstance(plain, tuple) else prefix.removesuffix("lstm.")
        match = _IN_A_STACK.fullmatch(within)
        ours = isinstance(plain, tuple) or (within != prefix and _is_ours(plain) and plain.bias)
        if match is not None and ours:
            stacks.setdefault(match["stack"], []).append((int(match["number"]), prefix))
    taken: dict[str, str] = {}
    for stack, members in stacks.items():
        layers = [plains[prefix] for _, prefix in members]
        if [number for number, _ in members] == list(range(len(members))) and _fit(layers):
            taken |= {prefix: stack for _, prefix in members}
    for prefix, plain in plains.items():
        if prefix not in taken:
            yield prefix, _module(plain, prefix)
        elif stacks[stack := taken[prefix]][0][1] == prefix:
            parts = [_module(plains[p], f"{_name(stack)}_{n}") for n, p in stacks[stack]]
            yield stack, StackedLSTM(parts, name=_layer_name(stack))


def _fit(layers: list[Any]) -> bool:
    """Whether each takes what the one below gives."""
    sizes = [
        (one[0].input_size, one[0].hidden_size + one[1].hidden_size)
        if isinstance(one, tuple)
        else (one.input_size, one.hidden_size)
        for one in layers
    ]
    return all(below[1] == above[0] for below, above in itertools.pairwise(sizes))


def _layer_name(prefix: str) -> str:
    return _name(prefix).replace("/", ".")


def _module(plain: nn.LSTM | nn.LSTMCell | _Pair, prefix: str) -> Any:
    name = _layer_name(prefix)
    if not isinstance(plain, tuple):
        return from_torch(plain, inference_only=True, name=name)
    sides = []
    for number, side in enumerate(plain):
        config = LSTMConfig(
            side.hidden_size, use_bias=side.bias, return_sequences=True, return_state=True,
            go_backwards=bool(number), name=name,
        )  # fmt: skip
        state = side.state_dict()
        dtype = state["weight_hh_l0"].dtype
        layer: LSTM[Any] = LSTM.from_lstm_config(side.input_size, config, dtype=dtype)
        layer.lstm.load_state_dict(state)
        sides.append(layer)
    both = Bidirectional(sides[0], "concat", sides[1], name=name)  # its forward layer is fresh
    both.forward_layer.load_state_dict(sides[0].state_dict())
    return both.eval()


# Writing


def write_state_dict(modules: Mapping[str, Module], path: Path) -> tuple[bytes, str | None]:
    """A torch file's bytes, and what of the modules it cannot hold.

    The keys are those of ``nn.LSTM`` or ``nn.LSTMCell`` where a plain module is equal, without a
    prefix where there is one module.

    Raises:
        ConfigError: two entries would have the same key, or names that no load tells apart.
    """
    state: dict[str, Tensor] = {}
    for name, module in modules.items():
        before = "" if len(modules) == 1 else f"{name}."
        for key, tensor in _entries(module).items():
            if before + key in state:
                raise ConfigError(
                    f"{path.name}: two weights would be called {before + key!r}. Give the layer "
                    f"{name!r} another name with --rename."
                )
            state[before + key] = tensor.detach().cpu()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue(), _lost(modules, state, path)


def _entries(module: Any) -> dict[str, Tensor]:
    if isinstance(module, TimeDistributed):
        return _entries(module.layer)
    own = module.state_dict()
    if isinstance(module, LSTMCell):
        return {k.removeprefix("lstm.").removesuffix("_l0"): t for k, t in own.items()}
    if isinstance(module, LSTM):
        return {k.removeprefix("lstm."): t for k, t in own.items()}
    if why_not_torch(module, inference_only=True) is None:
        return dict(to_torch(module, inference_only=True).state_dict())
    return dict(own)


_KEYWORDS = (
    "activation", "recurrent_activation", "return_sequences", "return_state", "go_backwards",
    "stateful", "zero_output_for_mask", "dropout", "recurrent_dropout", "kernel_regularizer",
    "recurrent_regularizer", "bias_regularizer", "activity_regularizer", "kernel_constraint",
    "recurrent_constraint", "bias_constraint", "trainable", "time_major",
)  # fmt: skip
_OF_A_LAYER_ALONE = (
    "return_sequences", "return_state", "go_backwards", "stateful", "zero_output_for_mask",
    "time_major",
)  # fmt: skip


def _lost(modules: Mapping[str, Module], state: Mapping[str, Tensor], path: Path) -> str | None:
    """What differs between the modules and those that the state dict will be read as."""
    budget = Budget()
    budget.limit = budget.left = sum(t.numel() * t.element_size() for t in state.values())
    advice = "Give the layers other names with --rename."
    try:
        read = modules_of(state, path, budget)
    except FileFormatError as error:
        raise ConfigError(f"{error} {advice}") from error
    if len(modules) > 1 and list(read) != list(modules):
        raise ConfigError(
            f"{path.name}: the names {', '.join(map(repr, modules))} would be read as "
            f"{', '.join(map(repr, read))}. {advice}"
        )
    lines = []
    for (name, module), again in zip(modules.items(), read.values(), strict=False):
        kept = _governing(again)
        lost = [
            word if value is True and word[0].isupper() else f"{word}={_shown(value)}"
            for word, value in _governing(module).items()
            if value != kept.get(word, getattr(again, word, False))
        ]
        if lost:
            lines.append(f"{name}: {', '.join(lost)}")
    if not lines:
        return None
    return (
        f"{path.name} holds weights alone, and lost are, of "
        + "; of ".join(lines)
        + ". A .safetensors file keeps them."
    )


def _governing(module: Any) -> dict[str, Any]:
    """What stands beside the weights of a module, by words for it."""
    if isinstance(module, TimeDistributed):
        return {"TimeDistributed": True} | _governing(module.layer)
    if isinstance(module, Bidirectional):
        forward, backward = _governing(module.forward_layer), _governing(module.backward_layer)
        del backward["go_backwards"]  # the opposite
        other = {f"{w} (backward)": v for w, v in backward.items() if v != forward[w]}
        return {"merge_mode": module.merge_mode} | forward | other
    if isinstance(module, StackedLSTM):
        found: dict[str, Any] = {}
        if module.of_cells:
            found = {"StackedLSTM of cells": True, **module._flags}
        found.pop("unroll", None)
        for number, layer in enumerate(module.layers):
            found |= {f"{w} (layer {number})": v for w, v in _governing(layer).items()}
        return found
    assert isinstance(module, LSTMParameters)
    names = [k for k in _KEYWORDS if isinstance(module, LSTM) or k not in _OF_A_LAYER_ALONE]
    found = {keyword: getattr(module.config, keyword) for keyword in names}
    if module.compute_dtype != module.lstm.weight_hh_l0.dtype:
        found["dtype"] = module.config.dtype
    return found


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else str(getattr(value, "__name__", repr(value)))
