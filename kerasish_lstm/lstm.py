"""The layer: ``keras.layers.LSTM`` around one ``torch.nn.LSTM``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, TypedDict, TypeVar, Unpack, cast, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter, is_lazy

from . import activations, initializers
from ._engines import LSTMState, TorchLSTM, fused, scan, why_not_fused
from ._masks import compact, last_output, spread
from .config import Activation, LSTMConfig
from .errors import ConfigError, EngineError, InputError, NotBuiltError, StateError, WeightMismatch
from .weights import LSTMWeights, relayout

Output = TypeVar("Output")
WithState = tuple[Tensor, Tensor, Tensor]
InitialState = LSTMState | Sequence[Tensor]
Mask = Tensor | Sequence[Tensor | None] | None


class LSTMOptions(TypedDict, total=False):
    """Every keyword of :class:`LSTM` but ``return_state``, for type checkers."""

    activation: Activation | None
    recurrent_activation: Activation | None
    use_bias: bool
    kernel_initializer: Any
    recurrent_initializer: Any
    bias_initializer: Any
    unit_forget_bias: bool
    kernel_regularizer: Any
    recurrent_regularizer: Any
    bias_regularizer: Any
    activity_regularizer: Any
    kernel_constraint: Any
    recurrent_constraint: Any
    bias_constraint: Any
    dropout: float
    recurrent_dropout: float
    seed: int | None
    return_sequences: bool
    go_backwards: bool
    stateful: bool
    unroll: bool
    use_cudnn: bool | Literal["auto"]
    implementation: int
    zero_output_for_mask: bool
    name: str | None
    trainable: bool
    device: torch.device | str | int | None
    dtype: torch.dtype | None


class LSTM(nn.Module, Generic[Output]):
    """Keras's LSTM on torch tensors.

        i, f, g, o = split(x_t K + h R + b, 4)
        c' = s(f) * c + s(i) * a(g)
        h' = s(o) * a(c')

    The parameters are those of the one ``torch.nn.LSTM`` in :attr:`lstm`, except that its second
    bias, ``bias_hh_l0``, is a buffer of zeros: Keras trains one bias. ``state_dict`` has the keys
    and shapes of ``nn.LSTM`` under ``lstm.``; the state dict of a plain ``nn.LSTM`` loads too, its
    two biases folded into one.

    Args:
        input_size: F, the number of input features. :class:`LazyLSTM` learns it at the first call.
        units: U, the size of h, of c and of the output.
        activation: a. A name of :data:`kerasish_lstm.ACTIVATIONS`, any callable on tensors of
            shape (B, U), or None for linear.
        recurrent_activation: s, likewise.
        use_bias, unit_forget_bias: whether there is a bias, whether its forget gate begins at 1.
        return_sequences: give every step's output, (B, T, U), instead of the last, (B, U).
        return_state: give (output, h, c) instead of the output.
        go_backwards: process x from its last step to its first. The sequence returned stays in
            the order of processing, as in Keras.
        stateful: begin each call with the state in which the last one ended.
        zero_output_for_mask: outputs at masked steps are 0 instead of the previous output.
        use_cudnn: ``"auto"`` picks the engine; True raises where the fused one cannot run
            (on a CPU too); False never runs ``nn.LSTM``.
        unroll, implementation: accepted, and without effect on any number.
        name, trainable: as in Keras; not trainable means ``requires_grad=False``.
        seed: kept for dropout.
        dropout, recurrent_dropout, initializers other than Keras's defaults, regularizers,
            constraints: not built yet.
        device, dtype: as in ``torch.nn.LSTM``.

    Shapes: x (B, T, F), mask (B, T), h and c (B, U).

    Raises:
        ConfigError: a value that Keras would refuse.
        NotBuiltError: a keyword that is not built yet.

    Source: Keras 3.15.1, TensorFlow backend on a CPU, ``unroll=False``.

    On purpose different from Keras: ``training=None`` means ``self.training``;
    ``reset_state()`` forgets the batch size too; float16 and bfloat16 layers can be initialized.
    """

    lstm: TorchLSTM
    config: LSTMConfig
    _state: LSTMState | None
    __call__: Callable[..., Output]

    @overload
    def __init__(
        self: LSTM[Tensor],
        input_size: int,
        units: int,
        *,
        return_state: Literal[False] = ...,
        **options: Unpack[LSTMOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: LSTM[WithState],
        input_size: int,
        units: int,
        *,
        return_state: Literal[True],
        **options: Unpack[LSTMOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: LSTM[Any],
        input_size: int,
        units: int,
        *,
        return_state: bool,
        **options: Unpack[LSTMOptions],
    ) -> None: ...

    def __init__(
        self,
        input_size: int,
        units: int,
        *,
        activation: Activation | None = "tanh",
        recurrent_activation: Activation | None = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        use_cudnn: bool | Literal["auto"] = "auto",
        implementation: int = 2,
        zero_output_for_mask: bool = False,
        name: str | None = None,
        trainable: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        config = LSTMConfig(
            units=units,
            activation=activations.canonical(activation, "activation"),
            recurrent_activation=activations.canonical(
                recurrent_activation, "recurrent_activation"
            ),
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            unit_forget_bias=unit_forget_bias,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            use_cudnn=use_cudnn,
            implementation=implementation,
            zero_output_for_mask=zero_output_for_mask,
            name=name,
            trainable=trainable,
        )
        unbuilt = {**config.unbuilt(), **config.unbuilt_initializers()}
        if unbuilt:
            raise NotBuiltError(
                f"LSTM({input_size}, {units}): not built yet: "
                + ", ".join(f"{k}={v!r}" for k, v in unbuilt.items())
                + ". Leave them at their defaults."
            )
        self._build(input_size, config, device, dtype)
        self.reset_parameters()

    @classmethod
    def from_lstm_config(
        cls,
        input_size: int,
        config: LSTMConfig,
        *,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> LSTM[Any]:
        """A layer for a config that a file or a live Keras layer gave, its weights all zero.

        Unlike the constructor it takes what matters in training alone and is not built yet
        (dropout rates, regularizers, constraints, initializers): that stays in
        :attr:`config`, does not stop inference, and raises at a call in training mode.
        """
        self: LSTM[Any] = cls.__new__(cls)
        config = config.replace(
            activation=activations.canonical(config.activation, "activation"),
            recurrent_activation=activations.canonical(
                config.recurrent_activation, "recurrent_activation"
            ),
        )
        self._build(input_size, config, device, dtype)
        with torch.no_grad():
            for tensor in self.lstm.state_dict().values():
                tensor.zero_()
        return self

    def _build(self, input_size: int, config: LSTMConfig, device: Any, dtype: Any) -> None:
        super().__init__()
        if isinstance(input_size, bool) or not isinstance(input_size, int | np.integer):
            raise ConfigError(f"LSTM: input_size={input_size!r} must be a positive integer.")
        if input_size < 1:
            raise ConfigError(
                f"LSTM: input_size={input_size} is not possible: torch.nn.LSTM takes one feature "
                "or more. For a layer without input give one feature that is always 0."
            )
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise ConfigError(
                f"LSTM: dtype={dtype!r} is not a floating-point torch.dtype, such as torch.float32."
            )
        self.config = config
        self.lstm = _only_one_bias(
            nn.LSTM(
                int(input_size),
                config.units,
                bias=config.use_bias,
                batch_first=True,
                device="meta",  # so that torch's own initialization costs nothing
                dtype=dtype,
            )
        )
        self.lstm.to_empty(device=torch.get_default_device() if device is None else device)
        self._activation = activations.function(config.activation)
        self._recurrent_activation = activations.function(config.recurrent_activation)
        self._state = None
        self.register_load_state_dict_pre_hook(_take_plain_keys)  # type: ignore[no-untyped-call]
        self.lstm.register_load_state_dict_pre_hook(_fold_biases)  # type: ignore[no-untyped-call]
        self.trainable = config.trainable

    def reset_parameters(self) -> None:
        """Keras's defaults: glorot uniform, orthogonal, zeros with a forget bias of one.

        Also makes the second bias zero and forgets the stored state, so that a layer which comes
        from ``to_empty()`` is whole after this call.

        Raises:
            NotBuiltError: the layer came with initializers that are not built yet.
        """
        unbuilt = self.config.unbuilt_initializers()
        if unbuilt:
            raise NotBuiltError(
                f"{self._label}: its initializers are not built yet: {unbuilt}. "
                "Load weights instead."
            )
        self._state = None
        if self.lstm.weight_ih_l0.is_meta or is_lazy(self.lstm.weight_ih_l0):
            return
        initializers.glorot_uniform(self.lstm.weight_ih_l0)
        initializers.orthogonal(self.lstm.weight_hh_l0)
        if self.config.use_bias:
            initializers.zeros_but_forget(self.lstm.bias_ih_l0, self.config.unit_forget_bias)
            self.lstm.bias_hh_l0.zero_()

    # What it is

    @property
    def input_size(self) -> int:
        return self.lstm.input_size

    @property
    def units(self) -> int:
        return self.config.units

    @property
    def name(self) -> str | None:
        return self.config.name

    @property
    def return_sequences(self) -> bool:
        return self.config.return_sequences

    @property
    def return_state(self) -> bool:
        return self.config.return_state

    @property
    def go_backwards(self) -> bool:
        return self.config.go_backwards

    @property
    def stateful(self) -> bool:
        return self.config.stateful

    @property
    def trainable(self) -> bool:
        """Whether any parameter takes a gradient; setting it sets all of them."""
        return any(p.requires_grad for p in self.lstm.parameters())

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self.lstm.requires_grad_(bool(value))

    def count_params(self) -> int:
        """The number of weights as Keras's ``summary()`` counts them: 4U(F + U + 1)."""
        return sum(p.numel() for p in self.lstm.parameters())

    def why_not_fused(self, training: bool | None = None) -> str | None:
        """Why the fused engine cannot compute this layer, or None where it can."""
        return why_not_fused(self.config, self.training if training is None else training)

    @property
    def engine(self) -> str:
        """The engine that would run now: ``"fused"`` or ``"scan"``."""
        return "fused" if self.why_not_fused() is None else "scan"

    @property
    def _label(self) -> str:
        """What error messages call this layer."""
        own = f"LSTM(input_size={self.input_size}, units={self.units})"
        return f"{own} {self.name!r}" if self.name else own

    def extra_repr(self) -> str:
        default = LSTMConfig(self.units)
        parts = [str(self.input_size), str(self.units)]
        for field, value in vars(self.config).items():
            if field not in ("units", "dtype") and value != getattr(default, field):
                shown = getattr(value, "__name__", repr(value)) if callable(value) else repr(value)
                parts.append(f"{field}={shown}")
        reason = self.why_not_fused()
        parts.append(f"engine={self.engine}" + (f" ({reason})" if reason else ""))
        return ", ".join(parts)

    # Weights in Keras's layout

    @property
    def kernel(self) -> Tensor:
        """K (F, 4U), gates i f g o: a view of ``lstm.weight_ih_l0``."""
        return self.lstm.weight_ih_l0.t()

    @property
    def recurrent_kernel(self) -> Tensor:
        """R (U, 4U), gates i f g o: a view of ``lstm.weight_hh_l0``."""
        return self.lstm.weight_hh_l0.t()

    @property
    def bias(self) -> Tensor | None:
        """b (4U,), gates i f g o: ``lstm.bias_ih_l0``, or None."""
        return self.lstm.bias_ih_l0.view(-1) if self.config.use_bias else None

    def get_weights(self) -> list[np.ndarray]:
        """[kernel (F, 4U), recurrent_kernel (U, 4U), bias (4U,)] as Keras gives them.

        Copies, in the parameters' dtype; bfloat16, which NumPy lacks, comes as float32 (exact).
        """
        tensors = [self.lstm.weight_ih_l0, self.lstm.weight_hh_l0]
        if self.config.use_bias:
            tensors += [self.lstm.bias_ih_l0, self.lstm.bias_hh_l0]
        arrays = []
        for tensor in tensors:
            t = tensor.detach().cpu()
            arrays.append((t.float() if t.dtype == torch.bfloat16 else t).numpy())
        return list(relayout(arrays, "torch", "keras"))

    def set_weights(self, weights: Sequence[np.ndarray] | LSTMWeights) -> None:
        """Take [kernel, recurrent_kernel, bias] in Keras's layout and order.

        Args:
            weights: as :meth:`get_weights` gives them; leave the bias out where the layer has
                none. They are cast to the parameters' dtype, as in Keras.

        Raises:
            WeightMismatch: a wrong number, shape or dtype. Nothing has been written then.
        """
        self._load(weights, source="set_weights()")

    def _load(self, weights: Sequence[np.ndarray] | LSTMWeights, source: str) -> None:
        given = [w for w in weights if w is not None]
        names = ("kernel", "recurrent_kernel", "bias")
        want = [
            (self.input_size, 4 * self.units),
            (self.units, 4 * self.units),
            (4 * self.units,),
        ][: 3 if self.config.use_bias else 2]
        found = [np.shape(w) for w in given]
        if found != want:
            lines = [f"cannot load {source} into {self._label}:"]
            for i in range(max(len(found), len(want))):
                left = str(found[i]) if i < len(found) else "-"
                right = str(want[i]) if i < len(want) else "-"
                mark = "" if left == right else "   <- differs"
                label = names[i] if i < 3 else f"array {i}"
                lines.append(f"  {label:<17} given {left:<14} layer {right}{mark}")
            if len(found) != len(want):
                lines.append(
                    f"{len(found)} arrays were given, the layer has {len(want)} "
                    f"(use_bias={self.config.use_bias})."
                )
            elif found[0][1:] == want[0][1:] and found[1:] == want[1:]:
                lines.append(
                    f"The arrays take {found[0][0]} features: build LSTM({found[0][0]}, "
                    f"{self.units})."
                )
            elif found[0][-1:] == (3 * self.units,):
                lines.append("Three gates a unit: these look like the weights of a GRU.")
            raise WeightMismatch("\n".join(lines))
        arrays = relayout(given, "keras", "torch")
        targets = [self.lstm.weight_ih_l0, self.lstm.weight_hh_l0]
        if self.config.use_bias:
            targets += [self.lstm.bias_ih_l0, self.lstm.bias_hh_l0]
        with torch.no_grad():
            for target, array in zip(targets, arrays, strict=True):
                bfloat16 = array.dtype.name == "bfloat16"  # which torch cannot take from NumPy
                native = np.float32 if bfloat16 else array.dtype.newbyteorder("=")
                target.copy_(torch.from_numpy(array.astype(native, copy=False)))

    # State

    @property
    def states(self) -> LSTMState | None:
        """The stored state of a stateful layer: (h, c), each (B, U), or None before a call."""
        return self._state

    @states.setter
    def states(self, value: InitialState | None) -> None:
        if not self.config.stateful:
            raise StateError(
                f"{self._label} keeps no state; build it with stateful=True, or pass initial_state."
            )
        if value is None:
            self._state = None
            return
        h, c = _pair(value, self)
        if h.ndim != 2 or h.shape[1] != self.units or h.shape != c.shape:
            raise StateError(
                f"{self._label}: a state must be (h, c), both of shape (B, {self.units}); "
                f"given {tuple(h.shape)} and {tuple(c.shape)}."
            )
        self._keep(LSTMState(h, c))

    def _keep(self, state: LSTMState) -> None:
        """Store a state: detached, in the parameters' dtype, usable outside inference_mode."""
        weight = self.lstm.weight_ih_l0
        with torch.inference_mode(False), torch.no_grad():
            self._state = LSTMState(
                *(s.detach().to(weight.device, weight.dtype, copy=True) for s in state)
            )

    def reset_state(self) -> None:
        """Begin the next call with zeros, with any batch size. Harmless if not stateful."""
        self._state = None

    def reset_states(self) -> None:
        """Keras's other name of :meth:`reset_state`."""
        self.reset_state()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LSTM[Output]:
        # The state is no buffer: DistributedDataParallel would overwrite it with rank 0's at
        # every forward. So it moves here.
        if self.lstm.weight_ih_l0.is_meta:
            self._state = None  # to_empty() would fill it with whatever lies in memory
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._state is not None:
            self._state = LSTMState(*(fn(s) for s in self._state))
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if not is_lazy(self.lstm.weight_ih_l0):
            self.lstm.flatten_parameters()  # a copy's parameters lie apart, which costs cuDNN

    # The call

    def forward(
        self,
        x: Tensor,
        initial_state: InitialState | None = None,
        mask: Mask = None,
        training: bool | None = None,
    ) -> Output:
        """Run the layer.

        Args:
            x: (B, T, F), any real dtype; it is cast to the parameters' dtype, as in Keras.
            initial_state: (h, c), each (B, U) (or (1, U) or (U,), the same for each row). In a
                stateful layer it overrides the stored state for this call.
            mask: (B, T), True (or nonzero) where a step counts. Whatever stands in a masked step
                reaches neither an output nor a gradient.
            training: None means ``self.training``.

        Returns:
            output (B, U), or (B, T, U) with ``return_sequences``; with ``return_state`` the tuple
            (output, h, c), h and c (B, U) the final state.

        Raises:
            InputError: a wrong rank, size or type of x, mask or initial_state.
            StateError: a stateful layer called with another batch size than its state's.
            EngineError: ``use_cudnn=True``, and the fused engine cannot compute the layer.
            NotBuiltError: called in training mode with dropout and the like, from a file.
        """
        config = self.config
        training = self.training if training is None else bool(training)
        if training and config.unbuilt():
            raise NotBuiltError(
                f"{self._label} was called in training mode, for which these are not built yet: "
                + ", ".join(f"{k}={v!r}" for k, v in config.unbuilt().items())
                + ". Call layer.eval(), or pass training=False, to use it for inference."
            )
        reason = self.why_not_fused(training)
        if config.use_cudnn is True and reason is not None:
            raise EngineError(
                f"use_cudnn=True, but the fused engine cannot compute this layer: {reason}. "
                "Pass use_cudnn='auto' to let the scan engine compute it."
            )
        x = self._as_input(x)
        if (
            isinstance(mask, list | tuple)
            and mask
            and (mask[0] is None or torch.is_tensor(mask[0]))
        ):
            mask = mask[0]  # Keras: of a list of masks, the first is the sequence's
        steps = None if mask is None else self._as_mask(mask, x)
        state = self._begin(x, initial_state)
        if config.go_backwards:
            x = x.flip(1)
            steps = None if steps is None else steps.flip(1)

        lengths = None
        if steps is not None:
            x, lengths = compact(x, steps)
        final_state = config.return_state or config.stateful
        if reason is None:
            y, end = fused(self.lstm, x, state, lengths, final_state)
        else:
            act, gate = self._activation, self._recurrent_activation
            y, end = scan(self.lstm, x, state, lengths, final_state, act, gate)

        if steps is None:
            output = y if config.return_sequences else y[:, -1]
        elif config.return_sequences:
            output = spread(y, steps, config.zero_output_for_mask)
        else:
            output = last_output(y, steps, config.zero_output_for_mask)
        if config.stateful:
            self._keep(end)
        return cast(Output, (output, end.h, end.c) if config.return_state else output)

    def _as_input(self, x: Any) -> Tensor:
        if not isinstance(x, Tensor):
            raise InputError(
                f"{self._label}: the input is a {type(x).__name__}; pass a torch.Tensor of shape "
                "(B, T, F) (torch.as_tensor makes one of an array or a list)."
            )
        if x.ndim != 3:
            raise InputError(
                f"{self._label}: the input has shape {tuple(x.shape)}; it must have 3 axes, "
                "(batch, time, features)."
                + (" Add the batch axis: x.unsqueeze(0)." if x.ndim == 2 else "")
            )
        if x.shape[2] != self.input_size:
            raise InputError(
                f"{self._label}: the input has shape {tuple(x.shape)}, so {x.shape[2]} features; "
                f"the layer takes {self.input_size}. Axes are (batch, time, features)."
            )
        if x.shape[1] == 0:
            raise InputError(f"{self._label}: the input has no time step: shape {tuple(x.shape)}.")
        weight = self.lstm.weight_ih_l0
        if x.is_complex():
            raise InputError(f"{self._label}: the input is complex ({x.dtype}); pass real numbers.")
        if x.device != weight.device:
            raise InputError(
                f"{self._label}: the input is on {x.device}, the layer on {weight.device}. "
                "Move one with .to()."
            )
        return x.to(weight.dtype)

    def _as_mask(self, mask: Any, x: Tensor) -> Tensor:
        if not isinstance(mask, Tensor):
            raise InputError(
                f"{self._label}: the mask is a {type(mask).__name__}; pass a torch.Tensor of shape "
                f"(B, T) = {tuple(x.shape[:2])}, True where a step counts."
            )
        shape = tuple(mask.shape)
        if mask.ndim == 3 and mask.shape[2] == 1:
            mask = mask.squeeze(2)
        if mask.ndim != 2 or mask.shape[1] != x.shape[1] or mask.shape[0] not in (1, x.shape[0]):
            raise InputError(
                f"{self._label}: the mask has shape {shape}; for an input of shape "
                f"{tuple(x.shape)} it must be (B, T) = {tuple(x.shape[:2])}."
            )
        if mask.device != x.device:
            raise InputError(
                f"{self._label}: the mask is on {mask.device}, the input on {x.device}. "
                "Move it with .to()."
            )
        steps: Tensor = mask.to(torch.bool).expand(x.shape[0], -1)
        return steps

    def _begin(self, x: Tensor, initial_state: InitialState | None) -> LSTMState:
        """The state before the first step."""
        batch = x.shape[0]
        stored = self._state if self.config.stateful else None
        if stored is not None and stored.h.shape[0] != batch:
            raise StateError(
                f"{self._label} is stateful and holds the state of a batch of {stored.h.shape[0]}; "
                f"this batch has {batch}. Call reset_state() before another batch size."
            )
        if initial_state is None:
            if stored is not None:
                return stored
            zeros = x.new_zeros(batch, self.units)
            return LSTMState(zeros, zeros)
        pair = []
        for letter, s in zip("hc", _pair(initial_state, self), strict=True):
            if s.shape not in ((batch, self.units), (1, self.units), (self.units,)):
                raise InputError(
                    f"{self._label}: initial_state's {letter} has shape {tuple(s.shape)}; "
                    f"it must be (B, units) = {(batch, self.units)}."
                )
            if s.device != x.device:
                raise InputError(
                    f"{self._label}: initial_state's {letter} is on {s.device}, "
                    f"the input on {x.device}. Move it with .to()."
                )
            pair.append(s.to(x.dtype).expand(batch, self.units))
        return LSTMState(*pair)


class LazyLSTM(LSTM[Output]):
    """An :class:`LSTM` that learns ``input_size`` at its first call, and is an LSTM from then on.

    As torch's lazy modules: run one batch through it before you hand its parameters to
    anything that counts or copies them; ``state_dict`` can be saved and loaded before.

    Args:
        units and the keywords: as in :class:`LSTM`.
    """

    @overload
    def __init__(
        self: LazyLSTM[Tensor],
        units: int,
        *,
        return_state: Literal[False] = ...,
        **options: Unpack[LSTMOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: LazyLSTM[WithState],
        units: int,
        *,
        return_state: Literal[True],
        **options: Unpack[LSTMOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: LazyLSTM[Any], units: int, *, return_state: bool, **options: Unpack[LSTMOptions]
    ) -> None: ...

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(1, units, **options)
        weight = self.lstm.weight_ih_l0
        self.lstm.__class__ = _LazyParameters
        like: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        like["requires_grad"] = weight.requires_grad
        self.lstm.weight_ih_l0 = UninitializedParameter(**like)
        self._learn_hook = self.register_forward_pre_hook(_learn_input_size, with_kwargs=True)

    @property
    def input_size(self) -> int:
        """F, or 0 while it is not known."""
        return 0 if is_lazy(self.lstm.weight_ih_l0) else int(self.lstm.weight_ih_l0.shape[1])

    def _become_lstm(self, features: int) -> None:
        weight = self.lstm.weight_ih_l0
        if is_lazy(weight):
            with torch.inference_mode(False):  # a parameter made inside could never be trained
                like = self.lstm.weight_hh_l0  # a lazy one forgets dtype and device when pickled
                shape = (4 * self.units, features)
                cast(UninitializedParameter, weight).materialize(shape, like.device, like.dtype)
                initializers.glorot_uniform(weight)
        self.lstm.input_size = self.input_size
        self.lstm.__class__ = nn.LSTM  # type: ignore[assignment]
        self.lstm.flatten_parameters()
        self._learn_hook.remove()
        del self._learn_hook
        self.__class__ = LSTM  # type: ignore[assignment]


class _LazyParameters(LazyModuleMixin, TorchLSTM):
    """An ``nn.LSTM`` whose ``weight_ih_l0`` has no shape yet, saved and loaded as torch's are."""

    def flatten_parameters(self) -> None:
        if not is_lazy(self.weight_ih_l0):
            super().flatten_parameters()

    def _load_from_state_dict(self, *args: Any) -> None:
        LazyModuleMixin._lazy_load_hook(self, *args)
        super()._load_from_state_dict(*args)


def _learn_input_size(layer: LazyLSTM[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    x = args[0] if args else kwargs.get("x")
    if not isinstance(x, Tensor) or x.ndim != 3 or x.shape[2] == 0:
        shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(
            f"LazyLSTM({layer.units}): the first input must be a torch.Tensor of shape "
            f"(batch, time, features), from which it learns the features; given {shape}."
        )
    layer._become_lstm(x.shape[2])


def _pair(state: Any, layer: LSTM[Any]) -> tuple[Tensor, Tensor]:
    """(h, c) of what the caller gave as a state."""
    if not isinstance(state, list | tuple):
        raise InputError(
            f"{layer._label}: initial_state is a {type(state).__name__}; pass a pair (h, c), a "
            f"list, a tuple or an LSTMState, each of shape (B, {layer.units})."
        )
    if len(state) != 2:
        raise InputError(
            f"{layer._label}: initial_state has {len(state)} entries; it must have 2, (h, c)."
        )
    for letter, s in zip("hc", state, strict=True):
        if not isinstance(s, Tensor) or s.is_complex():
            raise InputError(
                f"{layer._label}: initial_state's {letter} is a "
                f"{s.dtype if isinstance(s, Tensor) else type(s).__name__}; pass a real "
                f"torch.Tensor of shape (B, {layer.units})."
            )
    return state[0], state[1]


def _only_one_bias(lstm: nn.LSTM) -> TorchLSTM:
    """Turn the second bias into a buffer of zeros.

    torch gives both biases the same gradient; with both free, a step moves their sum twice as far
    as Keras's one bias. A buffer, and persistent, so that every state dict of an ``nn.LSTM`` fits.
    """
    if lstm.bias:
        zeros = torch.zeros_like(cast(Tensor, lstm.bias_hh_l0), requires_grad=False)
        del lstm._parameters["bias_hh_l0"]
        lstm.register_buffer("bias_hh_l0", zeros)
        lstm.bias_hh_l0 = zeros  # nn.LSTM keeps a list of its weights, which it updates here
    return cast(TorchLSTM, lstm)


def _take_plain_keys(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let the keys of a plain ``nn.LSTM`` in this layer's place load: ``weight_ih_l0`` ..."""
    for key in [k for k in state_dict if k.startswith(prefix) and "." not in k[len(prefix) :]]:
        if key[len(prefix) :].startswith(("weight_ih_l", "weight_hh_l", "bias_ih_l", "bias_hh_l")):
            state_dict.setdefault(f"{prefix}lstm.{key[len(prefix) :]}", state_dict.pop(key))


def _fold_biases(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Two live biases of a state dict become one; zeros are dropped, not added."""
    first, second = (state_dict.get(f"{prefix}bias_{kind}_l0") for kind in ("ih", "hh"))
    own = module._parameters.get("bias_ih_l0")
    if first is None and isinstance(second, Tensor) and own is not None:
        first = own.detach().to(second)  # the second alone was given
    if not (isinstance(first, Tensor) and isinstance(second, Tensor)):
        return
    state_dict[f"{prefix}bias_hh_l0"] = second.detach()  # assign=True must not make it trainable
    if second.is_meta or first.shape != second.shape or not second.any():
        return
    state_dict[f"{prefix}bias_ih_l0"] = first + second if first.any() else second
    state_dict[f"{prefix}bias_hh_l0"] = torch.zeros_like(second)
