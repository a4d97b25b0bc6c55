"""From Keras to torch and back: live layers and files.

The only place that knows both torch modules and Keras. ``keras`` and ``tf_keras`` are imported by
:func:`to_keras` alone, when it is called; :func:`load_keras` needs neither.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from . import files
from ._engines import LSTMState
from .config import LSTMConfig
from .errors import ConfigError, FileFormatError, KerasishError, NotBuiltError
from .layers.bidirectional import Bidirectional
from .layers.cell import LSTMCell
from .layers.lstm import LSTM
from .layers.parameters import LSTMParameters, recurrent_parts
from .layers.stacked import StackedLSTM
from .layers.time_distributed import TimeDistributed
from .serialization.reader import from_file
from .serialization.writer import Target
from .storage import Module

# Each Keras has one hard_sigmoid. The other generation's goes there as a function of this name,
# which LSTMConfig.from_keras knows again.
_FOREIGN = {"keras": "hard_sigmoid_v2", "tf_keras": "hard_sigmoid_v3"}


def from_keras(layer: Any) -> Any:
    """The equal module of a live Keras layer, of Keras 3 or tf_keras.

        LSTM, LSTMCell, Bidirectional, TimeDistributed    the class of the same name
        RNN over LSTMCells, stacked or one                StackedLSTM
        Sequential of LSTM and Bidirectional layers       StackedLSTM

    Args:
        layer: a built layer. Nothing of it is changed, and no array is shared.

    Returns:
        A module with its config, weights, dtype and, where it is stateful, its state.

    Raises:
        ConfigError: another layer, one that is not built yet, an activation that only its author
            knows; in a wrapper, any other code of the author's.
        WeightMismatch: weights that do not fit (a layer that was changed by hand).

    Source: Keras 3.15.1 and tf_keras 2.21.
    """
    root = type(layer).__module__.partition(".")[0]
    kind = type(layer).__name__
    cells = _cells(layer) if root in ("keras", "tf_keras") and kind in _KINDS else None
    if not cells or any(type(cell).__name__ != "LSTMCell" for cell in cells):
        raise ConfigError(
            f"from_keras: {type(layer).__module__}.{kind} is not the LSTM of Keras or tf_keras, "
            f"nor one of {', '.join(k for k in _KINDS if k != 'LSTM')} over LSTMs. Pass one of "
            "keras.layers or tf_keras.layers."
        )
    if not all(hasattr(cell, "kernel") for cell in cells):
        raise ConfigError(
            f"from_keras: the layer {layer.name!r} is not built, so it has no weights. Call it "
            "once, or layer.build((None, None, features))."
        )
    for cell in cells:
        _check_activations(cell, layer.name, root)
    version = str(sys.modules[root].__version__)
    features = int(cells[0].kernel.shape[0])
    module: Any
    if kind == "LSTM":
        config = LSTMConfig.from_keras(_config_of(layer), version)
        module = LSTM.from_lstm_config(features, config, dtype=_dtype_of(layer))
    else:
        module = _KINDS[kind].from_config(layer.get_config(), features, version=version)
    parts = recurrent_parts(module)
    for part, cell in zip(parts, cells, strict=True):
        # get_config() leaves the flags of cells and of what Keras 3 calls implementation out
        part.config = part.config.replace(implementation=cell.implementation)
        part._load([np.asarray(a) for a in cell.get_weights()], source=repr(layer.name))
        if not (layer.trainable and cell.trainable):
            part.trainable = False
    _copy_states(layer, module)
    return module


_KINDS: dict[str, Any] = {
    "LSTM": LSTM,
    "LSTMCell": LSTMCell,
    "Bidirectional": Bidirectional,
    "RNN": StackedLSTM,
    "TimeDistributed": TimeDistributed,
    "Sequential": StackedLSTM,
}


def _cells(layer: Any) -> list[Any]:
    """The cells of a live Keras layer, in the order of this package's parts."""
    kind = type(layer).__name__
    if kind == "LSTMCell":
        return [layer]
    inside = _inside(layer)
    if inside:
        return [cell for one in inside for cell in _cells(one)]
    if kind in ("LSTM", "RNN"):
        return list(getattr(layer.cell, "cells", [layer.cell]))
    return [layer]  # another layer, which is refused


def _inside(layer: Any) -> list[Any]:
    """The layers inside a wrapper or a chain, of Keras's or of this package's; of others none."""
    kind = type(layer).__name__
    if kind == "Bidirectional":
        return [layer.forward_layer, layer.backward_layer]
    if kind == "TimeDistributed":
        return [layer.layer]
    is_chain = isinstance(layer, StackedLSTM) and not layer.of_cells
    return list(layer.layers) if kind == "Sequential" or is_chain else []


def _config_of(layer: Any) -> dict[str, Any]:
    """The config of a live LSTM layer, with what Keras 3's own leaves out."""
    values = dict(layer.get_config())
    values["trainable"] = bool(layer.trainable and layer.cell.trainable)
    if hasattr(layer, "use_cudnn"):
        values |= {"use_cudnn": layer.use_cudnn, "implementation": layer.cell.implementation}
    return values


def _dtype_of(layer: Any) -> str:
    return str(getattr(layer, "dtype_policy", layer.dtype).name)


def _check_activations(cell: Any, name: str, root: str) -> None:
    for keyword in ("activation", "recurrent_activation"):
        function = getattr(cell, keyword)
        whose = str(getattr(function, "__module__", "")).partition(".")[0]
        if whose not in (root, "tensorflow", __name__.partition(".")[0]):
            raise ConfigError(
                f"from_keras: the {keyword} of {name!r} is {function!r}, which is not "
                f"{root}'s own, whatever its name. Build an LSTM with a callable on torch tensors "
                "for it, and give that layer.get_weights()."
            )


def _layers_with_state(layer: Any) -> list[Any]:
    """The stateful layers of a live Keras layer, or of a module, each with its own states."""
    inside = _inside(layer)
    if inside:
        return [found for one in inside for found in _layers_with_state(one)]
    return [layer] if getattr(layer, "stateful", False) else []


def _copy_states(layer: Any, module: Any) -> None:
    for theirs, mine in zip(_layers_with_state(layer), _layers_with_state(module), strict=True):
        states = list(_flat(theirs.states))
        if states and states[0] is not None:
            arrays = (np.asarray(s.numpy() if hasattr(s, "numpy") else s) for s in states)
            wide = [torch.from_numpy(np.array(a, np.float64)) for a in arrays]
            pairs = [LSTMState(h, c) for h, c in zip(wide[::2], wide[1::2], strict=True)]
            mine.states = pairs if isinstance(mine, StackedLSTM) else pairs[0]


def _flat(states: Any) -> Iterator[Any]:
    if isinstance(states, list | tuple):
        for one in states:
            yield from _flat(one)
    else:
        yield states


def _module(layer: files.FileLayer, version: str, source: str) -> Any:
    """The module of a file's layer, on torch's default device."""
    if layer.config is not None and layer.weights is not None:
        module: Any = _empty(layer.config, layer.weights, source)
        stored = [layer.weights]
    else:
        assert layer.entry is not None
        module = from_file(layer.entry, layer.cells[0].features, version, layer.stored)
        stored = list(layer.cells)
    parts = recurrent_parts(module)
    for part, weights in zip(parts, stored, strict=True):
        _fill(part, weights, source)
    return module.to(torch.get_default_device())


def _empty(config: LSTMConfig, weights: files.StoredWeights, source: str) -> LSTM[Any]:
    """A plain LSTM without values, on the meta device."""
    if not isinstance(config.activation, str) or not isinstance(config.recurrent_activation, str):
        raise ConfigError(f"the LSTM {source} has an activation that is no name.")
    dtype = config.dtype or weights.dtype
    try:
        return LSTM.from_lstm_config(weights.features, config, device="meta", dtype=dtype)
    except ConfigError as error:
        raise ConfigError(f"the LSTM {source}: {str(error).removeprefix('LSTM: ')}") from error


def _fill(part: LSTMParameters, weights: files.StoredWeights, source: str) -> None:
    """Give an LSTM on the meta device its values, block by block, without another copy of them."""
    part._check_shapes(list(weights.shapes), source)
    lstm = part.lstm
    if not weights.is_plain or lstm.weight_hh_l0.dtype == torch.bfloat16:  # which NumPy lacks
        lstm.to_empty(device="cpu")
        part._load(weights.read(), source)
        return
    for role, name in enumerate(("weight_ih_l0", "weight_hh_l0")):
        like = getattr(lstm, name)
        turned = _aligned(tuple(like.shape), like.dtype)
        matrix = weights.matrix(role)
        if matrix is None:
            turned[...] = weights.array(role).T
        else:
            _transpose(matrix, turned)
        setattr(lstm, name, nn.Parameter(torch.from_numpy(turned), like.requires_grad))
    if part.config.use_bias:
        like = lstm.bias_ih_l0
        bias = torch.from_numpy(weights.array(2)).to(like.dtype)
        lstm.bias_ih_l0 = nn.Parameter(bias, like.requires_grad)
        lstm.bias_hh_l0 = torch.zeros_like(bias)


BLOCKS_BYTES = 64 * 2**20  # of all readers together
BLOCK_ROWS = 512
MAX_READERS = 4


def _transpose(matrix: files.Matrix, into: np.ndarray) -> None:
    """The columns of a file's matrix as rows, by threads that each read and turn blocks of rows.

    The sizes are measured: at (4000, 16000) of float32, on 2 cores.
    """
    rows, columns = matrix.shape
    readers = min(torch.get_num_threads(), MAX_READERS)
    fit = BLOCKS_BYTES // readers // (columns * matrix.dtype.itemsize)
    size = max(1, min(-(-rows // readers), BLOCK_ROWS, fit))
    starts = range(0, rows, size)

    def turn(reader: int) -> None:
        block = np.empty((size, columns), matrix.dtype)
        with matrix.open() as file:
            for start in starts[reader::readers]:
                part = matrix.rows(file, start, block)
                into[:, start : start + len(part)] = part.T

    with ThreadPoolExecutor(readers) as pool:
        for one in [pool.submit(turn, reader) for reader in range(readers)]:
            one.result()


def _aligned(shape: tuple[int, ...], dtype: torch.dtype) -> np.ndarray:
    """An array on a boundary of 64 bytes, as torch's; NumPy asks for huge pages, torch does not."""
    of = np.dtype(str(dtype).removeprefix("torch."))
    size = math.prod(shape) * of.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(of).reshape(shape)


def to_keras(module: Any, *, backend: Target = "keras") -> Any:
    """The equal live Keras layer of a module of this package, built, with its weights.

    Args:
        module: an LSTM, LSTMCell, Bidirectional, StackedLSTM (of layers: a Sequential model) or
            TimeDistributed. A stateful one must hold a state, which tells Keras the batch size.
        backend: ``"keras"`` (Keras 3, whatever its own backend) or ``"tf_keras"`` (Keras 2).

    Returns:
        The layer of ``keras.layers`` or ``tf_keras.layers``. ``use_cudnn=True`` becomes ``"auto"``:
        Keras would refuse to run on a CPU.

    Raises:
        ConfigError: another module or backend; what the backend has no word for (see
            :meth:`LSTM.get_config`); a lazy module before its first call; a stateful one without a
            state.
        ImportError: the backend is not installed.
    """
    if not any(isinstance(module, kind) for kind in _KINDS.values()):
        raise ConfigError(f"to_keras: a {type(module).__name__} is not a kerasish_lstm.LSTM.")
    if backend not in _FOREIGN:
        raise ConfigError(f"to_keras: backend={backend!r}; allowed are 'keras' and 'tf_keras'.")
    parts = recurrent_parts(module)
    if any(part.input_size == 0 for part in parts):
        raise ConfigError(
            f"to_keras: {type(module).__name__} has not learnt its input size. Call it once before."
        )
    stateful = _layers_with_state(module)
    if any(one._state is None for one in stateful):
        raise ConfigError(
            f"to_keras: {stateful[0]._label} is stateful and holds no state, and Keras builds a "
            "stateful layer for one batch size. Call it once, or set module.states, before."
        )
    try:
        config = module.get_config(target=backend)
    except ConfigError as error:
        raise ConfigError(f"to_keras: {error}") from error
    _allow_a_cpu(config)
    keras: Any = __import__(backend)
    register_keras_objects(backend)
    kind = module.keras_class
    home = keras if kind == "Sequential" else keras.layers
    layer = getattr(home, kind).from_config(config)
    batch = stateful[0]._state[0].h.shape[0] if stateful else None
    shape = {"LSTMCell": (batch,), "TimeDistributed": (batch, None, None)}.get(kind, (batch, None))
    layer.build((*shape, parts[0].input_size))
    for part, cell in zip(parts, _cells(layer), strict=True):
        cell.set_weights(part.get_weights())
    for mine, other in zip(stateful, _layers_with_state(layer), strict=True):
        flat = [s for pair in mine._state for s in pair]
        for variable, state in zip(_flat(other.states), flat, strict=True):
            variable.assign(state.detach().cpu().to(torch.float64).numpy())
    return layer


def _allow_a_cpu(config: Any) -> None:
    """use_cudnn=True, which Keras refuses at the first call without a GPU, becomes "auto"."""
    if isinstance(config, dict):
        if config.get("use_cudnn") is True:
            config["use_cudnn"] = "auto"
        for value in config.values():
            _allow_a_cpu(value)
    elif isinstance(config, list):
        for value in config:
            _allow_a_cpu(value)


_registry: dict[str, Callable[..., Any]] = {}


def _registered(name: str, keras: Any) -> Callable[..., Any]:
    """The other generation's hard_sigmoid as a function that this Keras can save and load."""

    def hard_sigmoid_v2(x: Any) -> Any:
        return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)

    def hard_sigmoid_v3(x: Any) -> Any:
        return keras.activations.relu(x + 3.0, max_value=6.0) / 6.0

    if name not in _registry:
        function = {f.__name__: f for f in (hard_sigmoid_v2, hard_sigmoid_v3)}[name]
        _registry[name] = keras.saving.register_keras_serializable("kerasish_lstm")(function)
    return _registry[name]


def register_keras_objects(backend: Target = "keras") -> None:
    """Make the other generation's ``hard_sigmoid`` known to a Keras in this process.

    A config of :meth:`LSTM.get_config` that has it, and a file that :func:`to_keras` led to, can be
    read there afterwards: ``keras.layers.LSTM.from_config(config)``. :func:`to_keras` does the same
    where it needs it.

    Args:
        backend: ``"keras"``, which gets Keras 2's, or ``"tf_keras"``, which gets Keras 3's.

    Raises:
        ConfigError: another backend.
        ImportError: the backend is not installed.
    """
    if backend not in _FOREIGN:
        raise ConfigError(
            f"register_keras_objects: backend={backend!r}; allowed are 'keras' and 'tf_keras'."
        )
    _registered(_FOREIGN[backend], __import__(backend))


def load_keras(
    path: str | Path,
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    names: Mapping[str, str] | None = None,
) -> dict[str, Module]:
    """The LSTM layers of a Keras file, ready to call, without Keras or TensorFlow.

    Args:
        path: a ``.keras``, ``.weights.h5``, ``.weights.json`` (sharded) or legacy ``.h5`` file, of
            Keras 1, 2, 3, tf.keras or tf_keras.
        config: for a file of weights alone, and for a ``.keras`` file whose model is a class of its
            author's, the model's config: a dict, or the path of its JSON (what ``model.to_json()``
            gives). Without it the layers get Keras's defaults, and one warning says so.
        names: new names for some of the file's layers: ``{name in the file: name here}``.

    Returns:
        :class:`LSTM` (of a CuDNNLSTM too), :class:`Bidirectional`, :class:`StackedLSTM` (of an RNN
        over LSTMCells), :class:`LSTMCell` and :class:`TimeDistributed`, in the model's order, in
        eval mode, keyed by their names in the model (nested models joined by ``/``), or by the
        file's groups where only those are known.

    Raises:
        FileNotFoundError: there is no such file.
        FileFormatError: a damaged, unsafe or foreign file; one without an LSTM; a config that is
            not that of the weights.
        ConfigError: a layer that cannot be an LSTM; ``names`` that do not fit.
        NotBuiltError: the file has an LSTM inside a layer that is not built here, which is named.
    """
    layers, left_out, file = read_layers(path, config=config, names=names)
    for layer in left_out:
        if layer.error is not None:
            raise type(layer.error)(f"{file.path.name}: {layer.error}") from layer.error
    lost = [layer for layer in left_out if layer.has_lstm]
    if lost:
        listed = "\n".join(f"  {layer.name}: {layer.reason}" for layer in lost)
        raise NotBuiltError(f"{file.path.name} has LSTMs that cannot be loaded yet:\n{listed}")
    if not layers:
        kinds = ", ".join(dict.fromkeys(layer.kind for layer in left_out)) or "no layer"
        raise FileFormatError(f"{file.path.name} holds no LSTM; it holds {kinds}.")
    if file.bare:
        keyed = "keyed by the file's groups" if names is None else "named as the file or names say"
        why = "holds weights alone"
        if file.format == "keras":
            why = "lists no layers, since its model is a class of its author's"
        warnings.warn(
            f"{file.path.name} {why}: its layers are {keyed} and built with the "
            "defaults of Keras (tanh, the last output alone, no state). Pass config= (a Sequential "
            "or Functional model's config, or its JSON) for what the model really had.",
            stacklevel=2,
        )
    for name, module in layers.items():
        if broken := _not_finite(module):
            warnings.warn(
                f"{file.path.name}: {name!r} has NaN or infinite weights in {', '.join(broken)}; "
                "they are kept.",
                stacklevel=2,
            )
    return layers


def _not_finite(module: Any) -> list[str]:
    """Which arrays of a module hold a NaN or an infinity, in Keras's names."""
    parts = recurrent_parts(module)
    found = []
    for number, part in enumerate(parts):
        names = {"kernel": "weight_ih_l0", "recurrent_kernel": "weight_hh_l0"}
        names |= {"bias": "bias_ih_l0"} if part.config.use_bias else {}
        for keras_name, name in names.items():
            # min and max take no other array of the weights' size; both are NaN where one is.
            ends = torch.stack(torch.aminmax(getattr(part.lstm, name).detach()))
            if not torch.isfinite(ends).all():
                found.append(keras_name + (f" of cell {number}" if len(parts) > 1 else ""))
    return found


def read_layers(
    path: str | Path,
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    names: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], list[files.FileLayer], files.KerasFile]:
    """The layers of a file that are built here, those that were left out, and the file itself."""
    with files.opened(path, config) as file:
        return *_modules(file, names), file


def _modules(
    file: files.KerasFile, names: Mapping[str, str] | None
) -> tuple[dict[str, Any], list[files.FileLayer]]:
    renamed = dict(names or {})
    for new in renamed.values():
        if not isinstance(new, str):
            raise ConfigError(f"load_keras: names has the value {new!r}; the new names are texts.")
    layers: dict[str, Any] = {}
    left_out = []
    for layer in file.layers:
        if not layer.is_whole:
            left_out.append(layer)
            continue
        name = renamed.pop(layer.name, layer.name)
        if name in layers:
            raise ConfigError(f"load_keras: two layers of {file.path.name} are called {name!r}.")
        source = f"{layer.name!r} from {file.path.name}"
        try:
            layers[name] = _module(layer, file.version, source).eval()
        except FileFormatError:
            raise
        except KerasishError as error:  # of this layer; the others may be fine
            left_out.append(dataclasses.replace(layer, reason=str(error), error=error))
    if renamed:
        held = ", ".join(repr(layer.name) for layer in file.layers if layer.is_whole)
        raise ConfigError(
            f"load_keras: names has {', '.join(map(repr, renamed))}, and {file.path.name} has no "
            f"such LSTM; it has {held or 'none'}."
        )
    return layers, left_out
