"""What a layer and a cell share: the parameters of one LSTM, as Keras makes and treats them.

They are built, initialized, read and written in Keras's layout, regularized, constrained, and
dropped out here; the recurrence is in ``_engines``, the layer's call in ``lstm``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    _global_backward_hooks,
    _global_backward_pre_hooks,
    _global_forward_hooks,
    _global_forward_pre_hooks,
)
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

from .. import activations, constraints, initializers, regularizers
from .._dropout import NO_DROPOUT, NO_PLAN, DropoutMasks, DropoutPlan, on_input, prepared
from .._engines import (
    CastLSTM,
    LSTMState,
    TorchLSTM,
    fused,
    outside_graphs,
    scan,
    why_not_fused,
    why_not_native,
)
from .._native import DTYPES as NATIVE_DTYPES
from .._native import Pack, Recurrence, warn_if_not_built, why_not_call, why_not_library
from .._native_autograd import Call, native, weights_of
from ..config import LAYER_ONLY, LSTMConfig
from ..errors import ConfigError, InputError, WeightMismatch
from ..serialization.classes import CLASSES
from ..serialization.entry import Entry, at, only
from ..serialization.policies import MIXED, Device, DType, policy_of, stored_dtype
from ..serialization.reader import Reader
from ..serialization.writer import Writer
from ..weights import LSTMWeights, relayout
from .base import KerasLayer
from .inputs import as_arrays
from .losses import WithLosses

_ROLES = ("kernel", "recurrent", "bias")


class LSTMParameters(KerasLayer, WithLosses):
    """One ``nn.LSTM``'s parameters, in :attr:`lstm`, with the config that governs them.

    The second bias, ``bias_hh_l0``, is a buffer of zeros: Keras trains one bias.
    """

    lstm: TorchLSTM
    config: LSTMConfig
    _lazy: ClassVar[type[Any]]  # the class that learns its input size; lazy.py sets it

    # Building

    @classmethod
    def from_lstm_config(
        cls, input_size: int, config: LSTMConfig, *, device: Device = None, dtype: DType = None
    ) -> Self:
        """One for a config that a file or a live Keras layer gave, its weights all zero.

        Unlike the constructor it takes an initializer, a regularizer or a constraint that is code
        of the model's author: it stays in :attr:`config`, does not stop inference, and raises at a
        call in training mode.
        """
        self = cls.__new__(cls)
        self._build(input_size, config, device, dtype, from_file=True)
        with torch.no_grad():
            for tensor in self.lstm.state_dict().values():
                tensor.zero_()
        return self

    def _build(
        self,
        input_size: int,
        config: LSTMConfig,
        device: Device,
        dtype: DType,
        *,
        from_file: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(input_size, bool) or not isinstance(input_size, int | np.integer):
            raise ConfigError(
                f"{self.keras_class}: input_size={input_size!r} must be a positive integer."
            )
        if input_size < 1:
            raise ConfigError(
                f"{self.keras_class}: input_size={input_size} is not possible: torch.nn.LSTM takes "
                "one feature or more. For a layer without input give one feature that is always 0."
            )
        stored, policy = stored_dtype(dtype, config.dtype, self.keras_class)
        self.config = config.replace(
            activation=activations.canonical(config.activation, "activation"),
            recurrent_activation=activations.canonical(
                config.recurrent_activation, "recurrent_activation"
            ),
            dtype=policy,
        )
        self._take_objects(from_file)
        self.lstm = _only_one_bias(
            nn.LSTM(
                int(input_size),
                config.units,
                bias=config.use_bias,
                batch_first=True,
                device="meta",  # so that torch's own initialization costs nothing
                dtype=stored,
            )
        )
        self.lstm.to_empty(device=torch.get_default_device() if device is None else device)
        self._activation = activations.function(self.config.activation)
        self._recurrent_activation = activations.function(self.config.recurrent_activation)
        self._planned: tuple[LSTMConfig | None, DropoutPlan] = (None, NO_PLAN)
        self._generator: torch.Generator | None = None
        self._pack = Pack()
        self._learn_hook: RemovableHandle | None = None  # of a lazy one
        self.register_load_state_dict_pre_hook(_take_plain_keys)  # type: ignore[no-untyped-call]
        self.lstm.register_load_state_dict_pre_hook(_fold_biases)  # type: ignore[no-untyped-call]
        self.trainable = config.trainable

    def _take_objects(self, from_file: bool) -> None:
        """The config's initializers, regularizers and constraints as functions on tensors."""
        self._initializers: dict[str, Callable[..., Tensor] | None] = {}
        self._regularizers: dict[str, Callable[[Tensor], Tensor] | None] = {}
        self._constraints: dict[str, Callable[[Tensor], Tensor] | None] = {}
        self._authors: dict[str, ConfigError] = {}  # code of the model's author, by keyword
        self._regularize_activity(None)

        def take(keyword: str, get: Callable[[Any, str], Any]) -> Any:
            try:
                return get(getattr(self.config, keyword), keyword)
            except ConfigError as error:
                if not from_file:
                    raise
                self._authors[keyword] = error
                return None

        for role in _ROLES:
            for kind, get, table in (
                ("initializer", initializers.get, self._initializers),
                ("regularizer", regularizers.get, self._regularizers),
                ("constraint", constraints.get, self._constraints),
            ):
                table[role] = take(f"{role}_{kind}", get)
        activity = take("activity_regularizer", regularizers.get)
        self._regularize_activity(activity)

    def reset_parameters(self) -> None:
        """Initialize the weights as the config says, and the second bias as zero.

        A layer that comes from ``to_empty()`` is whole after this call. Draws come from torch's
        global generator, unless an initializer has a seed.

        Raises:
            ConfigError: an initializer of a file that is code of the model's author.
        """
        for role in _ROLES:
            if f"{role}_initializer" in self._authors:
                raise ConfigError(
                    f"{self._label} cannot be initialized: {self._authors[f'{role}_initializer']}"
                )
        if self.lstm.weight_hh_l0.is_meta:
            return
        if not is_lazy(self.lstm.weight_ih_l0):
            self._reset_kernel()
        self._reset("recurrent", self.lstm.weight_hh_l0)
        if self.config.use_bias:
            bias, unit_forget_bias = self.lstm.bias_ih_l0, self.config.unit_forget_bias
            initializer = self._initializers["bias"]
            with torch.no_grad():
                bias.copy_(initializers.bias(initializer, self.units, unit_forget_bias, bias.dtype))
                self.lstm.bias_hh_l0.zero_()

    def _reset_kernel(self) -> None:
        self._reset("kernel", self.lstm.weight_ih_l0)

    def _reset(self, role: str, weight: Tensor) -> None:
        shape = (weight.shape[1], weight.shape[0])  # Keras's axes
        initializer, keyword = self._initializers[role], f"{role}_initializer"
        with torch.no_grad():
            weight.copy_(initializers.initial(initializer, shape, weight.dtype, keyword).t())

    # What it is

    @property
    def input_size(self) -> int:
        """F, or 0 while a lazy one has not learnt it."""
        return 0 if is_lazy(self.lstm.weight_ih_l0) else int(self.lstm.weight_ih_l0.shape[1])

    @property
    def units(self) -> int:
        return self.config.units

    @property
    def name(self) -> str | None:
        return self.config.name

    def input_parts(self) -> list[Any]:
        """Itself."""
        return [self]

    @property
    def output_size(self) -> int:
        """U."""
        return self.units

    def count_params(self) -> int:
        """The number of weights as Keras's ``summary()`` counts them: 4U(F + U + 1)."""
        self._insist_on_a_size("count_params()")
        return sum(p.numel() for p in self.lstm.parameters())

    def _insist_on_a_size(self, what: str) -> None:
        if is_lazy(self.lstm.weight_ih_l0):
            raise ConfigError(
                f"{self._label} has not learnt its input size, so {what} cannot be had. Call it "
                "once before."
            )

    @property
    def _label(self) -> str:
        """What error messages call this one."""
        own = f"{self.keras_class}(input_size={self.input_size}, units={self.units})"
        return f"{own} {self.name!r}" if self.name else own

    def _describe(self) -> str:
        return self._label

    def extra_repr(self) -> str:
        default = LSTMConfig(self.units)
        parts = [str(self.input_size), str(self.units)]
        hidden = {"units", "dtype"}
        if not (self.config.dropout or self.config.recurrent_dropout):
            hidden.add("dropout_style")
        for field, value in vars(self.config).items():
            usual = getattr(default, field)
            same = type(value) is type(usual) and value == usual  # an array's == is no answer
            if field not in hidden and not same:
                parts.append(f"{field}={_shown(value)}")
        return ", ".join(parts)

    # Its config

    @property
    def _policy(self) -> str:
        """The name of Keras's dtype policy for the parameters and the arithmetic as they are."""
        return policy_of(self.lstm.weight_hh_l0.dtype, self.config.dtype)

    def _write(self, writer: Writer) -> dict[str, Any]:
        c, is_cell = self.config, self.keras_class == "LSTMCell"
        if c.time_major and writer.is_keras_3 and not writer.beside:
            raise ConfigError(
                f"{self._label}: time_major=True has no word in Keras 3. Write it for "
                "target='tf_keras', or build it with False and transpose the input and the output."
            )
        if not writer.beside and len({p.requires_grad for p in self.parameters()}) > 1:
            raise ConfigError(
                f"{self._label}: some of its weights are frozen and others are not, which Keras "
                "has no word for. Set its trainable flag, or keep it with save_safetensors."
            )
        found = writer.base(c.name, writer.trains(self), self._policy)
        found |= {} if is_cell else writer.flags(vars(c))
        found["units"] = c.units
        for keyword in ("activation", "recurrent_activation"):
            found[keyword] = writer.activation(getattr(c, keyword), keyword, self._label)
        found["use_bias"] = c.use_bias
        for kind, get, roles in (
            ("initializer", initializers.get, _ROLES),
            ("regularizer", regularizers.get, (*_ROLES, "activity")),
            ("constraint", constraints.get, _ROLES),
        ):
            for role in roles:
                keyword = f"{role}_{kind}"
                given = getattr(c, keyword)
                if not (is_cell and role == "activity" and given is None):
                    with at(self._label):
                        found[keyword] = writer.keras_object(get, given, keyword)
        found |= {
            "unit_forget_bias": c.unit_forget_bias,
            "dropout": c.dropout,
            "recurrent_dropout": c.recurrent_dropout,
        }
        if writer.is_keras_3:
            found["seed"] = c.seed
            if c.implementation != 2:
                found["implementation"] = c.implementation
            if c.use_cudnn != "auto" and not is_cell:
                found["use_cudnn"] = c.use_cudnn
        else:
            found["implementation"] = 1 if c.recurrent_dropout else c.implementation
            if c.seed is not None:
                found["seed"] = c.seed
        return found

    @classmethod
    def _read(cls, reader: Reader, entry: Entry, size: int | None) -> Any:
        is_cell = entry.kind == "LSTMCell"
        config = LSTMConfig.from_keras(
            entry.config, reader.version, kind="LSTMCell" if is_cell else "LSTM"
        )
        size = size or only(entry.sizes(2 if is_cell else 3))
        dtype = config.dtype if reader.dtype is None else reader.dtype
        if reader.from_file:
            size = cast(int, size)  # which the file's arrays say
            return cls.from_lstm_config(size, config, device=reader.device, dtype=dtype)
        left_out = ("units", "dtype", *(LAYER_ONLY if is_cell else ()))
        options = {k: v for k, v in vars(config).items() if k not in left_out}
        options |= {"device": reader.device, "dtype": dtype}
        plain: type[Any] = CLASSES[entry.kind]
        if size is not None:
            return (plain if cls is cls._lazy else cls)(size, config.units, **options)
        if cls not in (plain, cls._lazy):
            raise ConfigError(
                f"a {cls.__name__} cannot learn its input size at the first call; pass input_size."
            )
        return cls._lazy(config.units, **options)

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
        self._insist_on_a_size("its weights")
        tensors = [self.lstm.weight_ih_l0, self.lstm.weight_hh_l0]
        if self.config.use_bias:
            tensors += [self.lstm.bias_ih_l0, self.lstm.bias_hh_l0]
        arrays = []
        for tensor in tensors:
            t = tensor.detach().cpu().resolve_neg()
            arrays.append((t.float() if t.dtype == torch.bfloat16 else t).numpy())
        return list(relayout(arrays, "torch", "keras"))

    def set_weights(self, weights: Sequence[np.ndarray] | LSTMWeights) -> None:
        """Take [kernel, recurrent_kernel, bias] in Keras's layout and order.

        Args:
            weights: as :meth:`get_weights` gives them; leave the bias out where there is none.
                They are cast to the parameters' dtype, as in Keras.

        Raises:
            WeightMismatch: a wrong number, shape or dtype. Nothing has been written then.
        """
        self._load(weights, source="set_weights()")

    def _load(self, weights: Sequence[np.ndarray] | LSTMWeights, source: str) -> None:
        given = [w for w in as_arrays(weights, self._label) if w is not None]
        self._check_shapes([np.shape(w) for w in given], source)
        arrays = relayout(given, "keras", "torch")
        targets = [self.lstm.weight_ih_l0, self.lstm.weight_hh_l0]
        if self.config.use_bias:
            targets += [self.lstm.bias_ih_l0, self.lstm.bias_hh_l0]
        with torch.no_grad():
            for target, array in zip(targets, arrays, strict=True):
                bfloat16 = array.dtype.name == "bfloat16"  # which torch cannot take from NumPy
                native = np.float32 if bfloat16 else array.dtype.newbyteorder("=")
                target.copy_(torch.from_numpy(array.astype(native, copy=False)))

    def _check_shapes(self, found: list[tuple[int, ...]], source: str) -> None:
        names = ("kernel", "recurrent_kernel", "bias")
        want: list[tuple[int, ...]] = [
            (self.input_size, 4 * self.units),
            (self.units, 4 * self.units),
            (4 * self.units,),
        ][: 3 if self.config.use_bias else 2]
        if found == want:
            return
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
                f"The arrays take {found[0][0]} features: build {self.keras_class}({found[0][0]}, "
                f"{self.units})."
            )
        elif found[0][-1:] == (3 * self.units,):
            lines.append("Three gates a unit: these look like the weights of a GRU.")
        raise WeightMismatch("\n".join(lines))

    # Training

    def _weights_by_role(self) -> list[tuple[str, Tensor]]:
        """The parameters with Keras's axes: views of those of :attr:`lstm`."""
        kernel = self.lstm.weight_ih_l0
        roles: list[tuple[str, Tensor]] = [
            ("kernel", kernel if is_lazy(kernel) else kernel.t()),
            ("recurrent", self.lstm.weight_hh_l0.t()),
        ]
        return [*roles, ("bias", self.lstm.bias_ih_l0)] if self.config.use_bias else roles

    def _weight_losses(self) -> list[Tensor]:
        losses = []
        for role, weight in self._weights_by_role():
            regularizer = self._regularizers[role]
            if regularizer is not None and weight.requires_grad and not is_lazy(weight):
                loss = regularizer(weight)
                losses.append(_of_shape(loss, torch.Size(), role, regularizer, self))
        return losses

    @torch.no_grad()
    def apply_constraints(self, only: Callable[[nn.Parameter], bool] | None = None) -> None:
        """Overwrite each weight that has a constraint with its constrained value, in place.

        Args:
            only: which parameters of :attr:`lstm`; all where it is None.

        Keras's optimizers do this after each step; :func:`kerasish_lstm.constrain` makes a torch
        optimizer do it. Constraints see Keras's axes: axis 0 of the kernel is the features.
        """
        for (role, weight), parameter in zip(
            self._weights_by_role(), self.lstm.parameters(), strict=True
        ):
            constraint = self._constraints[role]
            if constraint is None or is_lazy(parameter):
                continue
            if only is None or only(parameter):
                weight.copy_(_of_shape(constraint(weight), weight.shape, role, constraint, self))

    def _dropout(
        self, x: Tensor, given: DropoutMasks | None, training: bool
    ) -> tuple[Tensor, DropoutMasks]:
        """x (B, T, F) under its dropout mask, and the masks that are left for the engine."""
        masks = self._masks_of_a_call(x, given, training)
        return (x, masks) if masks is NO_DROPOUT else on_input(x, masks, self._plan)

    def _masks_of_a_call(
        self, x: Tensor, given: DropoutMasks | None, training: bool
    ) -> DropoutMasks:
        """The dropout masks of a call on x (B, T, F), in x's dtype."""
        if not training:
            if given is not None:
                raise InputError(
                    f"{self._label}: dropout_masks were given to a call in inference mode, which "
                    "uses none. Call layer.train(), or pass training=True."
                )
            return NO_DROPOUT
        if self._authors:
            listed = "\n".join(f"  {keyword}: {e}" for keyword, e in self._authors.items())
            raise ConfigError(
                f"{self._label} was called in training mode, in which these matter:\n{listed}\n"
                "Call layer.eval(), or pass training=False, to use it for inference."
            )
        if given is None and self._plan == NO_PLAN:
            return NO_DROPOUT
        return prepared(
            given, self._plan, self.config, x, self._dropout_generator(x), self._describe
        )

    def _dropout_generator(self, x: Tensor) -> torch.Generator | None:
        """The generator of the dropout masks: the layer's own where it has a seed."""
        if self.config.seed is None or x.is_meta:
            return None
        if self._generator is None or self._generator.device != x.device:
            self._generator = torch.Generator(x.device).manual_seed(self.config.seed)
        return self._generator

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype of the arithmetic and of the results: the parameters', or 16 bits if mixed."""
        stored = self.lstm.weight_hh_l0.dtype
        mixed = None if self.config.dtype is None else MIXED.get(self.config.dtype)
        return stored if mixed is None or stored != torch.float32 else mixed

    def _for_engine(self, dtype: torch.dtype | None = None, *, rounded: bool = True) -> TorchLSTM:
        """The parameters in the dtype of the arithmetic, which is :attr:`compute_dtype`.

        ``rounded``: to the policy's dtype first, where another is asked for.
        """
        lstm = self.lstm
        own = self.compute_dtype if rounded else lstm.weight_hh_l0.dtype
        dtype = dtype or own
        if dtype == own == lstm.weight_hh_l0.dtype:
            return lstm
        return cast(TorchLSTM, CastLSTM(lstm, own, dtype))

    def why_not_fused(self, training: bool | None = None) -> str | None:
        """Why the fused engine cannot compute this layer, or None where it can."""
        training = self.training if training is None else training
        return why_not_fused(self.config, self._plan if training else NO_PLAN)

    def why_not_native(self) -> str | None:
        """Why the native engine cannot compute this layer, or None where it does, on a CPU.

        Of one call it may still be kept: on another device, in 16 bits, or within a transform,
        a mode or a compiler of torch; then the fused or the scan engine computes it.
        """
        hook = "a hook on its nn.LSTM must run before or after it" if is_hooked(self.lstm) else None
        return why_not_native(self.config) or why_not_library() or hook

    def _native_can(self, x: Tensor) -> bool:
        """Whether the native engine can; warns where it could, had it been built."""
        if self.why_not_native() is None:
            return True
        if why_not_native(self.config) is None and not is_hooked(self.lstm):
            warn_if_not_built(x)
        return False

    def _engine_now(self) -> str:
        on_cpu = self.lstm.weight_hh_l0.device.type == "cpu"
        if on_cpu and self.compute_dtype in NATIVE_DTYPES and self.why_not_native() is None:
            return "native"
        return "fused" if self.why_not_fused() is None else "scan"

    def _to_compute(
        self, mask: Tensor | None, dropout: DropoutMasks, *, reverse: bool, sequences: bool
    ) -> Recurrence:
        """What the native engine is to compute from an input and a state."""
        names = (self.config.activation, self.config.recurrent_activation)
        functions = (self._activation, self._recurrent_activation)
        return Recurrence(mask, reverse, sequences, cast(Any, names), functions, dropout)

    def _natively(
        self, x: Tensor, state: LSTMState | None, call: Recurrence, lstm: TorchLSTM | None = None
    ) -> tuple[Tensor | None, LSTMState] | None:
        """The recurrence by the native engine, or None where it cannot."""
        # An exported program has no engine; and a strict export follows each way, this one first.
        if torch.compiler.is_exporting() or not self._native_can(x):
            return None
        return self._run_natively(lstm, x, state, call)

    @outside_graphs
    def _run_natively(
        self, lstm: TorchLSTM | None, x: Tensor, state: LSTMState | None, call: Recurrence
    ) -> tuple[Tensor | None, LSTMState] | None:
        one = self._native_call(lstm, x, state, call)
        return None if one is None else native(one)[0]

    def _native_call(
        self, lstm: TorchLSTM | None, x: Tensor, state: LSTMState | None, call: Recurrence
    ) -> Call | None:
        """What the native engine is to compute, or None where it cannot."""
        if not self._native_can(x):
            return None
        weights = weights_of(self._for_engine() if lstm is None else lstm)
        if why_not_call(x, weights, *(state or ()), *call.dropout) is not None:
            return None
        if any(mask is not None and mask.requires_grad for mask in call.dropout):
            return None  # it gives them no gradient
        return Call(weights, self._pack, x, state, call)

    @property
    def _plan(self) -> DropoutPlan:
        """Which dropout masks it needs in training."""
        config, plan = self._planned
        if config is not self.config:
            plan = DropoutPlan.of(self.config, is_cell=self.keras_class == "LSTMCell")
            self._planned = self.config, plan
        return plan

    def _recur(
        self,
        x: Tensor,
        state: LSTMState,
        lengths: Tensor | None,
        final_state: bool,
        dropout: DropoutMasks,
        training: bool,
        lstm: TorchLSTM | None = None,
    ) -> tuple[Tensor, LSTMState]:
        """The recurrence over x (B, T, F), on the engine that can."""
        lstm = self._for_engine() if lstm is None else lstm
        mask = None
        if lengths is not None:
            mask = torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)
        call = self._to_compute(mask, dropout, reverse=False, sequences=True)
        found = self._natively(x, state, call, lstm)
        if found is not None:
            assert found[0] is not None
            return found[0], found[1]
        if self.why_not_fused(training) is None:
            return fused(lstm, x, state, lengths, final_state)
        functions = self._activation, self._recurrent_activation
        return scan(lstm, x, state, lengths, final_state, *functions, dropout)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if not is_lazy(self.lstm.weight_ih_l0):
            self.lstm.flatten_parameters()  # a copy's parameters lie apart, which costs cuDNN


def is_hooked(module: nn.Module) -> bool:
    """Whether a call of the module is more than its class's ``forward``: it has hooks, of its own
    (a weight_norm, say) or of all modules, or a ``forward`` that somebody has put on it."""
    own = module.__dict__  # looked into at each call, so not by way of attributes
    return bool(
        own["_forward_pre_hooks"]
        or own["_forward_hooks"]
        or own["_backward_pre_hooks"]
        or own["_backward_hooks"]
        or _global_forward_pre_hooks
        or _global_forward_hooks
        or _global_backward_pre_hooks
        or _global_backward_hooks
        or "forward" in own
    )


def recurrent_parts(module: nn.Module) -> list[LSTMParameters]:
    """The LSTMs and cells in a module, in the order of its weights; one itself is its only part."""
    return [m for m in module.modules() if isinstance(m, LSTMParameters)]


def _shown(value: Any) -> str:
    """A keyword's value in ``repr``."""
    if isinstance(value, Tensor | np.ndarray):
        return f"<{type(value).__name__} {tuple(value.shape)}>"
    return str(getattr(value, "__name__", repr(value))) if callable(value) else repr(value)


def _of_shape(
    result: Any, shape: torch.Size, role: str, function: Any, owner: LSTMParameters
) -> Tensor:
    """What a regularizer or a constraint gave, if it can be one's result."""
    if not isinstance(result, Tensor) or result.shape != shape:
        found = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        what = "constraint" if len(shape) else "regularizer"
        raise ConfigError(
            f"{owner._label}: the {role}_{what} {function!r} gave {found}; it must give a tensor "
            f"of shape {tuple(shape)}."
        )
    return result


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
    """Let the keys of a plain ``nn.LSTM`` in this one's place load: ``weight_ih_l0`` ..."""
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
