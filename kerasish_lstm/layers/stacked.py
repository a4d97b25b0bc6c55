"""Several LSTMs on top of each other: ``keras.layers.RNN`` over cells, and chains of layers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .._dropout import DropoutMasks, on_input
from .._engines import LSTMState
from .._masks import cleared, compact, last_output, mask_after_rnn, spread
from ..config import policy_name
from ..errors import ConfigError, InputError, StateError, WeightMismatch
from ..keywords import as_flag, checked_name
from ..serialization.entry import RNN_FLAGS, Entry, at, last_of, only, sizes_of
from ..serialization.policies import MIXED, DType, plain_dtype, result_dtype, stored_dtype
from ..serialization.reader import Reader
from ..serialization.writer import Writer
from .base import KerasLayer
from .bidirectional import Bidirectional
from .cell import LSTMCell
from .inputs import Mask, as_arrays, as_dtype, as_mask, as_sequence, as_state, as_stored
from .lazy import learn, take_features
from .losses import WithLosses
from .lstm import LSTM
from .parameters import recurrent_parts
from .stack_losses import Run, record_losses, run_of
from .state import Stateful, check_states, of_one_batch

Layer: TypeAlias = LSTM[Any] | Bidirectional
MaskPropagation = Literal["keras_3.15", "keras_3.16", "explicit"]


class StackedLSTM(KerasLayer, Stateful, WithLosses, keras_classes=("RNN", "Sequential")):
    """LSTMs, each over the outputs of the one below.

    ``StackedLSTM([LSTMCell(4, 3), LSTMCell(3, 2)])`` is Keras's
    ``RNN([LSTMCell(3), LSTMCell(2)])``: one mask and one direction for all, and a state for each
    cell. ``StackedLSTM(LSTMCell(4, 3))`` is ``RNN(LSTMCell(3))``. Each cell runs over the whole
    sequence before the next one, on the engine of an :class:`LSTM`; the numbers are those of
    Keras's step by step.

    ``StackedLSTM([LSTM(4, 3, return_sequences=True), Bidirectional(LSTM(3, 2))])`` is a chain of
    whole layers, as a Keras model has it; the mask goes from layer to layer as in Keras.

    Args:
        layers: cells, or one cell, or a list of :class:`LSTM` and :class:`Bidirectional` layers.
            The first may be lazy; so may all others, which learn their input size from the one
            below.
        return_sequences, return_state, go_backwards, stateful, unroll, zero_output_for_mask,
            activity_regularizer: of a stack of cells, as in :class:`LSTM`. Layers have their own.
        mask_propagation: in a chain of layers, how the mask goes up. ``"keras_3.15"`` and
            ``"keras_3.16"`` as in a model of that Keras (see :func:`kerasish_lstm.compute_mask`);
            ``"explicit"`` as if it were passed to each layer by hand. They differ where
            ``initial_state`` is given: a Keras layer that gets one ignores the mask that comes
            with its input, so that the lowest layer alone is masked.
        name, trainable: as in Keras.
        dtype: of a stack of cells, the dtype or policy to which x and the states are cast before
            the call, and its results after it, as in Keras; None casts nothing, where Keras takes
            its default of float32. autocast=False does not cast x and the states.
        input_shape, input_dim: accepted where they agree with ``input_size``; a lazy first layer
            takes its size from their last entry.

    Shapes: x (B, T, F); the output is that of the last cell or layer.

    A cell that stands in it twice has one set of weights, counted once, and one set of dropout
    masks a call, as in Keras. Hooks on the cells do not fire: the stack runs them over whole
    sequences. A cell's activity regularizer adds the losses of every step, masked ones too, and
    those of the calls that Keras makes before the first step; it makes a call slower.

    Raises:
        ConfigError: no layer, cells among layers, sizes that do not fit, a layer below the last
            without ``return_sequences``, keywords of cells given to a chain of layers.

    Source: Keras 3.15.1 ``RNN``, ``StackedRNNCells``. On purpose different: a stateful stack can be
    reset, one cell in a list takes a mask.
    """

    def __init__(
        self,
        layers: LSTMCell | Sequence[LSTMCell] | Sequence[Layer],
        *,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        activity_regularizer: Any = None,
        mask_propagation: MaskPropagation = "keras_3.15",
        name: str | None = None,
        trainable: bool = True,
        autocast: bool = True,
        input_shape: Any = None,
        input_dim: int | None = None,
        dtype: DType = None,
    ) -> None:
        super().__init__()
        self.is_one_cell = isinstance(layers, LSTMCell)
        members: Sequence[Any] = [layers] if isinstance(layers, LSTMCell) else layers
        self.of_cells = are_cells(members)
        self._reversed = self.of_cells  # Keras's cells are one floor down, in StackedRNNCells
        self.layers = nn.ModuleList(members)
        values = (
            return_sequences, return_state, go_backwards, stateful, unroll, zero_output_for_mask,
        )  # fmt: skip
        self._flags = {
            flag: as_flag(value, flag, "StackedLSTM")
            for flag, value in zip(RNN_FLAGS, values, strict=True)
        }
        self.autocast = as_flag(autocast, "autocast", "StackedLSTM")
        self._take_dtype(dtype)
        name = checked_name(name, "StackedLSTM")
        given = self._flags | {"dtype": self.dtype, "activity_regularizer": activity_regularizer}
        own = {k: v for k, v in given.items() if v} | ({} if self.autocast else {"autocast": False})
        if not self.of_cells and own:
            raise ConfigError(
                f"StackedLSTM: {', '.join(f'{k}={v!r}' for k, v in own.items())} belongs to a "
                "stack of cells. A chain of layers has the flags of its layers: set it there."
            )
        self._regularize_activity(activity_regularizer)
        self.activity_regularizer = activity_regularizer
        if mask_propagation not in get_args(MaskPropagation):
            raise ConfigError(
                f"StackedLSTM: mask_propagation={mask_propagation!r} is not possible; allowed are "
                f"{', '.join(map(repr, get_args(MaskPropagation)))}."
            )
        self.mask_propagation = mask_propagation
        self.name = name
        self._state = None
        take_features(self.input_parts(), input_shape, input_dim)
        self._fit_sizes()
        if not trainable:
            self.trainable = False

    def _take_dtype(self, dtype: DType) -> None:
        self.dtype = plain_dtype(dtype)
        self._result_dtype = result_dtype(dtype, "StackedLSTM")
        self._stored_dtype = stored_dtype(dtype, None, "StackedLSTM")[0]

    def _fit_sizes(self) -> None:
        """Tell lazy layers the size of the one below; refuse sizes that do not fit."""
        for position, (below, layer) in enumerate(itertools.pairwise(self._members)):
            size = below.output_size
            for part in layer.input_parts():
                if is_lazy(part.lstm.weight_ih_l0):
                    learn(part, size)
                if part.input_size != size:
                    raise ConfigError(
                        f"StackedLSTM: layer {position + 1} takes {part.input_size} features, and "
                        f"layer {position} gives {size}. Build it with input_size={size}."
                    )

    # What it is

    @property
    def _members(self) -> list[Any]:
        return list(self.layers)

    @property
    def _distinct(self) -> list[Any]:
        """Those that hold weights: one that stands in the stack twice, once."""
        return list(dict.fromkeys(self.layers))

    @property
    def return_sequences(self) -> bool:
        return self._flag("return_sequences")

    @property
    def return_state(self) -> bool:
        """Whether any state is returned."""
        if self.of_cells:
            return self._flags["return_state"]
        return any(layer.return_state for layer in self._members)

    @property
    def go_backwards(self) -> bool:
        return self._flags["go_backwards"]

    @property
    def stateful(self) -> bool:
        if self.of_cells:
            return self._flags["stateful"]
        return any(layer.stateful for layer in self._members)

    def _flag(self, name: str) -> bool:
        return self._flags[name] if self.of_cells else bool(getattr(self.layers[-1], name))

    def input_parts(self) -> list[Any]:
        """Those of the lowest cell or layer."""
        return self._members[0].input_parts()  # type: ignore[no-any-return]

    @property
    def output_size(self) -> int:
        """That of the last cell or layer."""
        return int(self._members[-1].output_size)

    @property
    def output_count(self) -> int:
        """That of the last cell or layer."""
        return int(self._members[-1].output_count)

    @property
    def state_count(self) -> int:
        """Those of all its cells or layers."""
        return sum(layer.state_count for layer in self._members)

    def output_mask(self, mask: Tensor | None) -> Any:
        """See :func:`kerasish_lstm.compute_mask`: of cells as Keras's RNN has it."""
        if self.of_cells:
            return mask_after_rnn(self, mask, 2 if self.is_one_cell else len(self.layers))
        for layer in self._members:
            leaving = layer.output_mask(mask)
            mask = _first(leaving)
        return leaving

    @property
    def input_size(self) -> int:
        """F, or 0 while a lazy one has not learnt it."""
        return int(self.input_parts()[0].input_size)

    @property
    def _label(self) -> str:
        what = "cell" if self.of_cells else "layer"
        what += "s" if len(self.layers) > 1 else ""
        return f"StackedLSTM of {len(self.layers)} {what}" + (
            f" {self.name!r}" if self.name else ""
        )

    def _describe(self) -> str:
        return self._label

    def _describe_cell(self, position: int) -> str:
        return f"{self._label}, cell {position}"

    def extra_repr(self) -> str:
        parts = [f"{k}=True" for k, v in self._flags.items() if v]
        return ", ".join(parts + ([f"name={self.name!r}"] if self.name else []))

    # Its config

    @property
    def keras_class(self) -> str:
        """Keras's name of its class."""
        return "RNN" if self.of_cells else "Sequential"

    def _write(self, writer: Writer) -> dict[str, Any]:
        shares = len(self._distinct) < len(self.layers)
        if shares and (writer.beside or not self.of_cells):
            raise ConfigError(
                f"{self._label}: one layer stands in it twice, which no config can say: it would "
                "come back as two. Build the stack of copies (copy.deepcopy)."
            )
        if not self.of_cells:
            return self._write_chain(writer)
        cells = self._members
        trainable, inside = writer.inside(cells)
        found = writer.wrapper(self, trainable, cells[-1]) | writer.flags(self._flags)
        if self.is_one_cell:
            return {**found, "cell": inside.wrapped(cells[0])}
        config = writer.base(None, True, cells[0]._policy)
        config["cells"] = [inside.wrapped(cell) for cell in cells]
        return {**found, "cell": writer.with_class("StackedRNNCells", config)}

    def _write_chain(self, writer: Writer) -> dict[str, Any]:
        """A Sequential. Keras forgets its flag of ``trainable``, so that its layers say it."""
        found: dict[str, Any] = {"name": self.name}  # Keras insists on the entry
        if writer.is_keras_3:
            parts = recurrent_parts(self)
            found |= writer.base(self.name, writer.inside(parts)[0], parts[0]._policy)
        names = [layer.name for layer in self._members if layer.name is not None]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(
                    f"{self._label}: it has two layers called {name!r}, which no Sequential can "
                    "have. Give each a name of its own, or none."
                )
        return {**found, "layers": [writer.wrapped(layer) for layer in self.layers]}

    @classmethod
    def _read(cls, reader: Reader, entry: Entry, size: int | None) -> StackedLSTM:
        if entry.kind == "Sequential":
            return cls._read_chain(reader, entry, size)
        flags = (*RNN_FLAGS, "time_major", "num_constants")
        config = entry.entries("cell", "activity_regularizer", *flags)
        for unknown in ("time_major", "num_constants"):
            if config.get(unknown):
                raise ConfigError(
                    f"{unknown}={config[unknown]!r} is not possible in a StackedLSTM. It takes one "
                    "input, (B, T, F); transpose the input and the output."
                )
        cells = _read_cells(reader, config.get("cell"), size or only(entry.sizes(3)))
        listed = cells if isinstance(cells, list) else [cells]
        dtype = reader.wrapper_dtype(entry, listed[-1])
        if reader.dtype is None and not all(cell.config.autocast for cell in listed):
            dtype = policy_name(entry.config.get("dtype"))  # no cast but the wrapper's is sure
        module = cls(
            cells,
            **{flag: config[flag] for flag in RNN_FLAGS if flag in config},
            activity_regularizer=config.get("activity_regularizer"),
            name=entry.name,
            autocast=entry.autocast,
            dtype=dtype,
        )
        return entry.freeze(module)

    @classmethod
    def _read_chain(cls, reader: Reader, entry: Entry, size: int | None) -> StackedLSTM:
        listed: Any = entry.config
        config: Mapping[str, Any] = {}
        if isinstance(listed, Mapping):
            config = entry.entries("layers", "build_input_shape")
            listed = config.get("layers")
        if not isinstance(listed, list | tuple):
            raise ConfigError(f"layers={listed!r} is no list of layers.")
        sizes = last_of(config.get("build_input_shape"), 3)
        first = int(
            bool(listed)
            and isinstance(listed[0], Mapping)
            and listed[0].get("class_name") == "InputLayer"
        )
        for one in listed[: first + 1]:
            sizes += sizes_of(one, 3)
        size, layers = size or only(sizes), list[Any]()
        for position, one in enumerate(listed[first:], first):
            kinds = ("LSTM", "Bidirectional")
            layers.append(reader.inner(one, f"layers[{position}]", kinds, size))
            size = layers[-1].output_size
        return entry.freeze(cls(layers, name=entry.name))

    # Weights

    def count_params(self) -> int:
        """The number of weights as Keras's ``summary()`` counts them."""
        return sum(layer.count_params() for layer in self._distinct)

    def get_weights(self) -> list[np.ndarray]:
        """[kernel, recurrent_kernel, bias] of each cell or layer, from the lowest."""
        return [w for layer in self._distinct for w in layer.get_weights()]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Take weights in the order of :meth:`get_weights`.

        Raises:
            WeightMismatch: a wrong number, shape or dtype. Nothing has been written then.
        """
        weights, before = as_arrays(weights, "StackedLSTM"), self.get_weights()
        if len(weights) != len(before):
            raise WeightMismatch(
                f"StackedLSTM.set_weights(): {len(weights)} arrays were given, the stack has "
                f"{len(before)}: kernel, recurrent_kernel and bias of each layer, from the lowest."
            )
        try:
            self._load(weights)
        except WeightMismatch:
            self._load(before)
            raise

    def _load(self, weights: Sequence[np.ndarray]) -> None:
        at = 0
        for layer in self._distinct:
            size = len(layer.get_weights())
            layer.set_weights(weights[at : at + size])
            at += size

    # State

    @property
    def states(self) -> Any:
        """The stored states of a stateful stack, or None before a call.

        Of cells as a call takes them: a pair (h, c) for each, or (h, c) of one cell that was given
        without a list. Of a chain those of its stateful layers alone, in one flat tuple.
        """
        if self.of_cells:
            return self._state[0] if self._state and self.is_one_cell else self._state
        held = [layer.states for layer in self._members if layer.stateful]
        return None if any(s is None for s in held) else tuple(t for s in held for t in s)

    @states.setter
    def states(self, value: Sequence[Any] | None) -> None:
        if not self.stateful:
            raise StateError(
                f"{self._label} keeps no state; build it with stateful=True, or pass initial_state."
            )
        if self.of_cells:
            self._set_states_of_cells(value)
            return
        keeping = [layer for layer in self._members if layer.stateful]
        sizes = [layer.state_count for layer in keeping]
        what = "h and c of each stateful LSTM, h_f, c_f, h_b, c_b of each Bidirectional"
        given = check_states(value, sum(sizes), self._label, what)
        parts = []
        for size in sizes:
            parts.append(given and given[:size])
            given = given and given[size:]
        checked = [  # all of them before one is written
            layer._checked_states(part) for layer, part in zip(keeping, parts, strict=True)
        ]
        pairs = [[s] if isinstance(s, LSTMState) else s or [] for s in checked]
        of_one_batch([state for listed in pairs for state in listed], self._label)
        for layer, part in zip(keeping, parts, strict=True):
            layer.states = part

    def _set_states_of_cells(self, value: Any) -> None:
        if self.is_one_cell and isinstance(value, list | tuple) and len(value) == 2:
            value = [value]
        what = "(h, c)" if self.is_one_cell else "a pair (h, c) for each cell"
        given = check_states(value, len(self.layers), self._label, what)
        if given is None:
            self._state = None
            return
        pairs = [
            as_stored(pair, cell.units, partial(self._describe_cell, i))
            for i, (pair, cell) in enumerate(zip(given, self._members, strict=True))
        ]
        of_one_batch(pairs, self._label)
        self._keep(pairs, [cell.lstm.weight_hh_l0 for cell in self._members], self._stored_dtype)

    def reset_state(self) -> None:
        """Begin the next call with zeros, with any batch size. Harmless if not stateful."""
        super().reset_state()
        if not self.of_cells:
            for layer in self._members:
                layer.reset_state()

    # The call

    def forward(
        self,
        x: Tensor,
        initial_state: Sequence[Any] | None = None,
        mask: Mask = None,
        training: bool | None = None,
        *,
        dropout_masks: Sequence[Any] | None = None,
    ) -> Any:
        """Run the stack.

        Args:
            x, mask, training: as in :meth:`LSTM.forward`.
            initial_state: of cells [(h, c), ...], one pair a cell from the lowest (of one cell that
                was given without a list: (h, c)); of layers one flat list, h and c of each LSTM and
                h_f, c_f, h_b, c_b of each Bidirectional.
            dropout_masks: one entry a cell or layer: what it takes, or None.

        Returns:
            The output of the last cell or layer; with states a tuple that goes on with an
            LSTMState for each cell (of one cell without a list: h, c), or with each returned state
            of the layers, flat.

        Raises:
            InputError, StateError, EngineError: as in :meth:`LSTM.forward`.
        """
        if dropout_masks is not None and (
            not isinstance(dropout_masks, list | tuple)
            or isinstance(dropout_masks, DropoutMasks)
            or len(dropout_masks) != len(self.layers)
        ):
            raise InputError(
                f"{self._label}: dropout_masks must be a list of {len(self.layers)} entries, one a "
                "layer; an entry may be None."
            )
        masks = list(dropout_masks or [None] * len(self.layers))
        if not self.of_cells:
            return self._run_layers(x, initial_state, mask, training, masks)
        result = self._run_cells(x, initial_state, mask, training, masks)
        self._record_activity(result)
        return result

    def _run_cells(
        self,
        x: Tensor,
        initial_state: Sequence[Any] | None,
        mask: Mask,
        training: bool | None,
        masks: list[DropoutMasks | None],
    ) -> Any:
        training = self.training if training is None else bool(training)
        cells = [cast(LSTMCell, cell) for cell in self.layers]
        if is_lazy(cells[0].lstm.weight_ih_l0) and isinstance(x, Tensor) and x.ndim == 3:
            learn(cells[0], x.shape[2])
        x = as_sequence(x, self.input_size, cells[0].lstm.weight_ih_l0, self._describe)
        steps = as_mask(mask, x, self._describe)
        if self.autocast:
            x, initial_state = (as_dtype(v, self._result_dtype) for v in (x, initial_state))
        if not x.is_floating_point():
            x = x.to(cells[0].compute_dtype)
        states = self._begin(x, initial_state)
        if self.go_backwards:
            x = x.flip(1)
            steps = None if steps is None else steps.flip(1)
        whole, lengths = x, None
        if steps is not None:
            x, lengths = compact(x, steps)
        final_state = self.return_state or self.stateful
        ends, runs = [], list[Run]()
        mixed = str(self.dtype) in MIXED
        for cell, state, given in zip(cells, states, masks, strict=True):
            if lengths is not None and cell is not cells[0]:
                x = cleared(x, lengths)
            run = run_of(cell, x, state, given, runs, training, mixed=mixed)
            x, dropout = on_input(x.to(run.dtype), run.masks, cell._plan)
            begin = LSTMState(*(s.to(x.dtype) for s in state))
            x, end = cell._recur(x, begin, lengths, final_state, dropout, training, run.lstm)
            ends.append(end)
            runs.append(run)
        if any(cell._activity_regularizer is not None for cell in cells):
            flags = {flag: self._flags[flag] for flag in ("go_backwards", "unroll")}
            record_losses(runs, whole, steps, states, **flags, in_a_list=not self.is_one_cell)

        if steps is None:
            output = x if self.return_sequences else x[:, -1]
        else:
            zero = self._flags["zero_output_for_mask"]
            output = (spread if self.return_sequences else last_output)(x, steps, zero)
        output = output.to(self._result_dtype)
        ends = [LSTMState(*(s.to(self._result_dtype) for s in end)) for end in ends]
        if self.stateful:
            weights = [cell.lstm.weight_hh_l0 for cell in cells]
            self._keep(ends, weights, self._stored_dtype)
        if not self.return_state:
            return output
        return (output, *ends[0]) if self.is_one_cell else (output, *ends)

    def _begin(self, x: Tensor, initial_state: Sequence[Any] | None) -> list[LSTMState]:
        stored = self._stored(len(x), self._describe) if self.stateful else None
        cells = [cast(LSTMCell, cell) for cell in self.layers]
        if initial_state is None:
            return list(stored) if stored else [cell.get_initial_state(len(x)) for cell in cells]
        if self.is_one_cell:
            initial_state = [initial_state]
        if not isinstance(initial_state, list | tuple) or len(initial_state) != len(cells):
            held = len(initial_state) if isinstance(initial_state, list | tuple) else "no"
            raise InputError(
                f"{self._label}: initial_state is a {type(initial_state).__name__} with {held} "
                f"entries; pass [(h, c), ...], one pair for each of the {len(cells)} cells."
            )
        return [
            as_state(s, cell.units, x, partial(self._describe_cell, i))
            for i, (s, cell) in enumerate(zip(initial_state, cells, strict=True))
        ]

    def _run_layers(
        self,
        x: Tensor,
        initial_state: Sequence[Tensor] | None,
        mask: Any,
        training: bool | None,
        masks: list[Any],
    ) -> Any:
        sizes = [layer.state_count for layer in self._members]
        if initial_state is not None and (
            not isinstance(initial_state, list | tuple) or len(initial_state) != sum(sizes)
        ):
            held = len(initial_state) if isinstance(initial_state, list | tuple) else "no"
            raise InputError(
                f"{self._label}: initial_state is a {type(initial_state).__name__} with {held} "
                f"entries; pass one flat list of {sum(sizes)} tensors: h and c of each LSTM, and "
                "h_f, c_f, h_b, c_b of each Bidirectional."
            )
        at, states = 0, list[Tensor]()
        for layer, size, given in zip(self._members, sizes, masks, strict=True):
            begin = None if initial_state is None else initial_state[at : at + size]
            at += size
            ignored = at > size and begin is not None and self.mask_propagation != "explicit"
            seen = None if ignored else mask
            result = layer(x, begin, seen, training, dropout_masks=given)
            result = result if isinstance(result, tuple) else (result,)
            x = result[0]
            states.extend(result[layer.output_count :])
            mask = None if self.mask_propagation == "keras_3.16" else mask
            mask = _first(layer.output_mask(mask))
        last = result[: self.output_count]
        return (*last, *states) if states or len(last) > 1 else last[0]


def are_cells(layers: Any) -> bool:
    """Whether these are cells, or layers that can form a chain.

    Raises:
        ConfigError: a mixture, or neither; layers of which one cannot stand on the other.
    """
    if not isinstance(layers, list | tuple | nn.ModuleList) or len(layers) == 0:
        raise ConfigError(
            f"StackedLSTM: layers is {layers!r}; pass a list of LSTMCell, or of LSTM and "
            "Bidirectional layers."
        )
    if all(isinstance(layer, LSTMCell) for layer in layers):
        return True
    for position, layer in enumerate(layers):
        if not isinstance(layer, LSTM | Bidirectional):
            raise ConfigError(
                f"StackedLSTM: layer {position} is a {type(layer).__name__}; pass a list of LSTM "
                "and Bidirectional layers, or of LSTMCell alone."
            )
    for position, layer in enumerate(layers[:-1]):
        if not layer.return_sequences:
            raise ConfigError(
                f"StackedLSTM: layer {position} gives its last output alone, and another layer "
                "stands above it. Build it with return_sequences=True."
            )
        if isinstance(layer, Bidirectional) and layer.merge_mode is None:
            raise ConfigError(
                f"StackedLSTM: layer {position} gives two outputs (merge_mode=None), and another "
                "layer stands above it. Choose a merge mode."
            )
    return False


def _read_cells(reader: Reader, given: Any, size: int | None) -> Any:
    """The cell, or the list of cells, of an RNN's config."""
    with at("cell"):
        entry = Entry.of(given, ("LSTMCell",))
        entry.must_be(("LSTMCell", "StackedRNNCells"))
    if entry.kind == "LSTMCell":
        return reader.inner(given, "cell", ("LSTMCell",), size)
    with at(f"cell: {entry.label}"):
        listed = entry.entries("cells").get("cells")
        if not isinstance(listed, list | tuple) or not listed:
            raise ConfigError(f"cells={listed!r} is no list of cells.")
        size, cells = size or only(entry.sizes(2)), list[LSTMCell]()
        for position, one in enumerate(listed):
            cells.append(reader.inner(one, f"cells[{position}]", ("LSTMCell",), size))
            size = cells[-1].units
        return [entry.freeze(cell) for cell in cells]


def _first(mask: Any) -> Any:
    """The mask of a layer's first output."""
    return mask[0] if isinstance(mask, list | tuple) else mask
