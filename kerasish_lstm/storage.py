"""Layers in one safetensors file: their weights, their configs, and what no Keras config holds.

The tensors are the ``state_dict``, under the keys of a plain ``nn.LSTM`` (``lstm.weight_ih_l0``,
...). The entry ``kerasish_lstm`` of the header's metadata is JSON::

    {"format": 1, "version": "0.1.0", "class": "Bidirectional", "config": {...},
     "input_size": 4, "training": false, "beside": {"forward_layer": {"dropout_style": "keras"}}}

Several layers have ``{"format": 1, "version": "0.1.0", "layers": {name: {"class": ...}, ...}}``,
and each tensor's key begins with its layer's name and a point. Where a file says where its weights
come from, that is the entry ``provenance``: ``{"keras_version": "2.2.4", "file": "model.h5"}``.

``config`` is that of ``get_config()``; ``beside`` has, for each part of the module by its name in
``named_modules()``, what that cannot say. The state of a stateful layer is not stored, as in Keras,
nor is the generator of a seeded one, which begins anew.

Nothing in a file is run: no pickle, and of classes only those named here. What a file claims is
compared with its header before anything of that size is allocated.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from ._version import __version__
from .config import mappings
from .errors import ConfigError, FileFormatError, WeightMismatch
from .files import must_be_a_file
from .files._open import parse_json
from .files._write import replacing
from .layers.bidirectional import Bidirectional
from .layers.cell import LSTMCell
from .layers.lstm import LSTM
from .layers.parameters import LSTMParameters, recurrent_parts
from .layers.stacked import MaskPropagation, StackedLSTM
from .layers.time_distributed import TimeDistributed
from .serialization.policies import Device
from .serialization.writer import Writer

Module = LSTM[Any] | LSTMCell | Bidirectional | StackedLSTM | TimeDistributed
MODULES = LSTM, LSTMCell, Bidirectional, StackedLSTM, TimeDistributed

_FORMAT = 1
_LONGEST_HEADER = 100_000_000  # of the safetensors library
_CLASSES: dict[str, type[Module]] = {kind.__name__: kind for kind in MODULES}
_BESIDE = (
    "dropout_style",
    "time_major",
    "use_cudnn",
    "implementation",
    "zero_output_for_mask",
    "autocast",
)
_DTYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


def save_safetensors(
    module: Module | Mapping[str, Module],
    path: str | os.PathLike[str],
    *,
    provenance: Mapping[str, Any] | None = None,
    golden: Mapping[str, Any] | None = None,
) -> None:
    """Write layers to a file, from which :func:`load_safetensors` makes equal ones.

    Args:
        module: an LSTM, LSTMCell, Bidirectional, StackedLSTM or TimeDistributed, or a dict of them
            by name, whose order is kept.
        path: replaced in one step where it exists: it is never half written.
        provenance: where the weights come from, as JSON has it; :func:`safetensors_metadata` gives
            it back.
        golden: recorded results, as JSON has them; likewise.

    Raises:
        ConfigError: a layer that has not learnt its input size; a class of your own; a callable in
            its config; a stack in which one layer stands twice (a file would make two of it); no
            layer; names that are no text or cannot be told apart; a ``provenance`` or ``golden``
            that is no dict, or that JSON cannot hold. Nothing has been written then.
    """
    head: dict[str, Any] = {"format": _FORMAT, "version": __version__}
    if isinstance(module, Mapping):
        if not module:
            raise ConfigError("save_safetensors: the dict holds no layer.")
        for name in module:
            _check_name(name)
        head["layers"] = {name: _head_of(layer, name) for name, layer in module.items()}
        tensors: dict[str, torch.Tensor] = {}
        for name, layer in module.items():
            found = {f"{name}.{k}": t for k, t in _tensors(layer).items()}
            if clash := found.keys() & tensors.keys():
                raise ConfigError(
                    f"save_safetensors: two tensors would be called {min(clash)!r}. Give the layer "
                    f"{name!r} another name."
                )
            tensors |= found
    else:
        head |= _head_of(module)
        tensors = _tensors(module)
    if provenance is not None:
        _as_json(provenance, "provenance")
        head["provenance"] = dict(provenance)
    metadata = {"format": "pt", "kerasish_lstm": _as_json(head, "the config", True)}
    if golden is not None:
        metadata["kerasish_lstm_golden"] = _as_json(golden, "golden")
    from safetensors.torch import save

    data = save(tensors, metadata)
    if (length := int.from_bytes(data[:8], "little")) > _LONGEST_HEADER:
        raise ConfigError(
            f"save_safetensors: what is to be kept beside the tensors takes {length} bytes; "
            f"safetensors reads {_LONGEST_HEADER} at most. Leave out some of golden or provenance."
        )
    write_atomically(Path(path), data)


def _check_name(name: Any) -> None:
    """Refuse what cannot be the name of a layer in the file."""
    if not isinstance(name, str):
        raise ConfigError(
            f"save_safetensors: {name!r} is no name of a layer; the keys of the dict are strings."
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"save_safetensors: the name {name!r} is no text that a file can hold: {error}. Give "
            "the layer another name."
        ) from error


def _as_json(value: Any, what: str, allow_nan: bool = False) -> str:
    """The JSON of a dict, from which the same comes back.

    Raises:
        ConfigError: no dict, or one with something in it that JSON lacks.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"save_safetensors: {what} is a {type(value).__name__}; pass a dict of what JSON holds."
        )
    keys = [key for entry in mappings(value) for key in entry]
    if other := [key for key in keys if not isinstance(key, str)]:
        raise ConfigError(
            f"save_safetensors: {what} has the key {other[0]!r}; in JSON every key is a string."
        )
    try:
        text = json.dumps(dict(value), allow_nan=allow_nan)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"save_safetensors: {what} cannot be JSON: {error}") from error
    try:
        parse_json(text, what)
    except FileFormatError as error:  # what no load would read
        raise ConfigError(f"save_safetensors: {error}") from error
    return text


def _head_of(module: Module, called: str | None = None) -> dict[str, Any]:
    """What the metadata says of one layer; ``called``, its name in a dict."""
    name = type(module).__name__
    if not isinstance(module, nn.Module):
        where = "" if called is None else f" under {called!r}"
        raise ConfigError(
            f"save_safetensors: a {name} was given{where}; pass a layer, or a dict of layers by "
            "name."
        )
    parts = recurrent_parts(module)
    if any(part.input_size == 0 for part in parts):
        raise ConfigError(
            f"save_safetensors: this {name} has not learnt its input size, so it has no weights. "
            "Call it once before."
        )
    if type(module) not in _CLASSES.values():
        raise ConfigError(
            f"save_safetensors: a {name} is not one of {', '.join(_CLASSES)}. Save its "
            "state_dict() with safetensors.torch.save_file."
        )
    if any(t.is_meta for t in module.state_dict().values()):
        raise ConfigError(f"save_safetensors: this {name} is on the meta device; it has no values.")
    return {
        "class": name,
        "config": Writer("keras", beside=True).config(module),
        "input_size": parts[0].input_size,
        "training": module.training,
        "beside": {n: b for n, m in module.named_modules() if (b := _beside(m))},
    }


def _tensors(module: Module) -> dict[str, torch.Tensor]:
    return {k: t.detach().to("cpu", copy=True).contiguous() for k, t in module.state_dict().items()}


def load_safetensors(path: str | os.PathLike[str], *, device: Device = None) -> Any:
    """The layers of a file of :func:`save_safetensors`: class, config, weights and mode of each.

    Args:
        path: the file.
        device: where the layer is made; None is torch's default.

    Returns:
        The layer, or the dict of layers, that was saved.

    Raises:
        FileNotFoundError: there is no such file.
        FileFormatError: a file that is damaged, of another program or of a later version of this
            one, or whose config makes no layer.
        WeightMismatch: tensors that are not those of the config.
    """
    path = Path(path)
    with _opened(path) as file:
        head = _head(file, path)
        heads = {f"{n}.": h for n, h in head["layers"].items()} if "layers" in head else {"": head}
        _count(file, heads, path)
        modules = {prefix: _empty(one, path) for prefix, one in heads.items()}
        _compare(file, modules, path)
        for prefix, module in modules.items():
            module.to_empty(device=torch.get_default_device() if device is None else device)
            keys = [f"{prefix}{key}" for key in module.state_dict()]
            state = {key.removeprefix(prefix): file.get_tensor(key) for key in keys}
            module.load_state_dict(state)
    if "layers" not in head:
        return modules[""]
    return {prefix.removesuffix("."): module for prefix, module in modules.items()}


def safetensors_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a file of :func:`save_safetensors` says of itself: version, layers, provenance, golden.

    Raises:
        FileNotFoundError, FileFormatError: as :func:`load_safetensors`.
    """
    path = Path(path)
    with _opened(path) as file:
        head = _head(file, path)
        text = file.metadata().get("kerasish_lstm_golden")
    if text is not None:
        head["golden"] = _json(text, path)
        if not isinstance(head["golden"], dict):
            raise FileFormatError(
                f"{path} is damaged: its golden is a {type(head['golden']).__name__}, no dict."
            )
    return head


def _beside(module: nn.Module) -> dict[str, Any]:
    if isinstance(module, LSTMParameters):
        frozen = [name for name, p in module.lstm.named_parameters() if not p.requires_grad]
        return {field: getattr(module.config, field) for field in _BESIDE} | {"frozen": frozen}
    if isinstance(module, StackedLSTM) and not module.of_cells:
        return {"mask_propagation": module.mask_propagation}
    if isinstance(module, StackedLSTM | Bidirectional | TimeDistributed):
        found: dict[str, Any] = {"autocast": module.autocast}
        if isinstance(module, StackedLSTM) and not all(
            cell.config.autocast for cell in module._members
        ):  # then None is another dtype than that of the cells, which the config has for both
            found["dtype"] = module.dtype and str(module.dtype).removeprefix("torch.")
        return found
    return {}


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file, or make one, in one step."""
    if path.is_dir():
        raise FileFormatError(f"{path} is a folder; pass the path of a file to write.")
    with replacing(path, overwrite=True) as temporary:
        temporary.write_bytes(data)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    must_be_a_file(path)
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise FileFormatError(f"{path} is damaged or no safetensors file: {error}") from error


def _head(file: Any, path: Path) -> dict[str, Any]:
    """The metadata, each entry of its type."""
    text = (file.metadata() or {}).get("kerasish_lstm")
    if text is None:
        raise FileFormatError(
            f"{path} is not a file of save_safetensors. To take its tensors, build the layer and "
            "call layer.load_state_dict(safetensors.torch.load_file(path))."
        )
    head = _json(text, path)
    written = head.get("format") if isinstance(head, dict) else None
    if isinstance(written, int) and written > _FORMAT:
        raise FileFormatError(
            f"{path} has format {written}, of kerasish_lstm {head.get('version')}; this version "
            f"reads format {_FORMAT}. Update kerasish_lstm."
        )
    layers = head.get("layers", {"": head}) if isinstance(head, dict) else None
    kinds = {"class": str, "config": dict, "input_size": int, "training": bool, "beside": dict}
    if (
        written != _FORMAT
        or type(written) is not int
        or not isinstance(layers, dict)
        or not layers
        or any(not isinstance(one, dict) for one in layers.values())
        or any(type(one.get(k)) is not t for one in layers.values() for k, t in kinds.items())
    ):
        raise FileFormatError(
            f"{path} is damaged: its metadata lacks one of format, {', '.join(kinds)}, or has it "
            "in another type."
        )
    if not isinstance(provenance := head.get("provenance", {}), dict):
        raise FileFormatError(
            f"{path} is damaged: its provenance is a {type(provenance).__name__}, no dict."
        )
    for one in layers.values():
        if one["class"] not in _CLASSES:
            raise FileFormatError(
                f"{path} holds a {one['class']!r}; known are {', '.join(_CLASSES)}."
            )
    found: dict[str, Any] = head
    return found


def _json(text: str, path: Path) -> Any:
    try:
        return parse_json(text, "its metadata")
    except FileFormatError as error:
        raise FileFormatError(f"{path} is damaged: {error}") from error


def _count(file: Any, heads: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """As many LSTMs in the configs as in the file, before one of them is built."""
    said = sum("units" in entry for h in heads.values() for entry in mappings(h["config"]))
    held = sum(key.endswith("weight_hh_l0") for key in file.keys())  # noqa: SIM118
    if said != held:
        raise WeightMismatch(
            f"{path} holds the weights of {held} LSTMs, and its config has {said} of them."
        )


def _empty(head: Mapping[str, Any], path: Path) -> Module:
    """The layer on the meta device, where a size costs nothing."""
    kind, size = _CLASSES[head["class"]], head["input_size"]
    try:
        if size < 1:
            raise ConfigError(f"input_size={size} is not possible.")
        module = kind.from_config(head["config"], size, version="3", device="meta")
        assert isinstance(module, kind)
        _apply_beside(module, head["beside"])
    except (ConfigError, RuntimeError, TypeError) as error:  # sizes that torch cannot count
        raise FileFormatError(
            f"{path} is damaged: its config makes no {head['class']}: {error}"
        ) from error
    return module.train(head["training"])


def _apply_beside(module: Module, beside: Mapping[str, Any]) -> None:
    parts = {name: part for name, part in module.named_modules() if _beside(part)}
    for name, values in beside.items():
        part = parts.get(name)
        if (
            part is None
            or not isinstance(values, dict)
            or (values.keys() ^ _beside(part).keys()) - {"dtype"}
        ):
            raise ConfigError(f"'beside' has {name!r}: {values!r}, which fits no part of it.")
        if isinstance(part, LSTMParameters):
            frozen = values["frozen"]
            part.config = part.config.replace(**{k: values[k] for k in _BESIDE})
            for key, parameter in part.lstm.named_parameters():
                parameter.requires_grad = not (isinstance(frozen, list) and key in frozen)
        elif "autocast" in values:
            part.autocast = values["autocast"] is not False
            if "dtype" in values and isinstance(part, StackedLSTM):
                part._take_dtype(values["dtype"])
        elif values["mask_propagation"] in get_args(MaskPropagation):
            part.mask_propagation = values["mask_propagation"]
        else:
            raise ConfigError(f"'beside' has mask_propagation={values['mask_propagation']!r}.")


def _compare(file: Any, modules: Mapping[str, Module], path: Path) -> None:
    """Each tensor's shape and dtype in the header with those of the config."""
    found, lines = set(file.keys()), []
    expected = {f"{p}{k}": t for p, m in modules.items() for k, t in m.state_dict().items()}
    for key in sorted(found | expected.keys()):
        given, wanted = "-", "-"
        if key in found:
            part = file.get_slice(key)
            dtype = _DTYPES.get(part.get_dtype(), part.get_dtype())
            given = f"{tuple(part.get_shape())} {str(dtype).removeprefix('torch.')}"
        if key in expected:
            tensor = expected[key]
            wanted = f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
        if given != wanted:
            lines.append(f"  {key:<32} file {given:<24} layer {wanted}")
    if lines:
        raise WeightMismatch(
            "\n".join([f"{path} holds other tensors than its config says:", *lines])
        )
