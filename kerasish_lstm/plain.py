"""To and from plain torch: ``nn.LSTM`` and ``nn.LSTMCell``.

    torch                            here
    nn.LSTM                          LSTM
    nn.LSTM, bidirectional           Bidirectional, merge_mode="concat"
    nn.LSTM, num_layers > 1          StackedLSTM, a chain of those (or of cells, on the way back)
    nn.LSTMCell                      LSTMCell

The states of an ``nn.LSTM``, h and c, each (layers * directions, B, U), are here one flat list::

    states = [s for pair in zip(h, c) for s in pair]               # for initial_state
    h, c = torch.stack(states[0::2]), torch.stack(states[1::2])    # and back

(of a StackedLSTM of cells, ``list(zip(h, c))``). A packed sequence is here a mask: where sequences
are returned, :func:`from_torch` sets ``zero_output_for_mask``, so that padding gives the zeros of
``pad_packed_sequence``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias, overload

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from .config import LSTMConfig
from .errors import ConfigError
from .layers.bidirectional import Bidirectional
from .layers.cell import LSTMCell
from .layers.losses import WithLosses
from .layers.lstm import LSTM
from .layers.parameters import LSTMParameters
from .layers.stacked import StackedLSTM

Plain: TypeAlias = nn.LSTM | nn.LSTMCell

_LEAVE_IT = "Pass inference_only=True to leave it out."


@overload
def from_torch(
    module: nn.LSTMCell,
    *,
    return_sequences: bool = ...,
    return_state: bool = ...,
    inference_only: bool = ...,
    name: str | None = ...,
) -> LSTMCell: ...


@overload
def from_torch(
    module: nn.LSTM,
    *,
    return_sequences: bool = ...,
    return_state: bool = ...,
    inference_only: bool = ...,
    name: str | None = ...,
) -> LSTM[Any] | Bidirectional | StackedLSTM: ...


def from_torch(
    module: Plain,
    *,
    return_sequences: bool = True,
    return_state: bool = True,
    inference_only: bool = False,
    name: str | None = None,
) -> LSTM[Any] | Bidirectional | StackedLSTM | LSTMCell:
    """The equal layer of a plain torch module.

    Args:
        module: an ``nn.LSTM`` or ``nn.LSTMCell``. Nothing of it is changed or shared.
        return_sequences, return_state: of the layer; an ``nn.LSTM`` always returns both. Of a chain
            the last layer's sequence, and the states of every layer.
        inference_only: leave out dropout, and give the layer in eval mode.
        name: of the layer; layers inside are named after it.

    Returns:
        An LSTM, a Bidirectional, a StackedLSTM of those, or an LSTMCell, on the module's device, in
        its dtype and mode, as trainable parameter by parameter.

    The layer is always batch first, whatever the module's ``batch_first``::

        module = nn.LSTM(3, 2)                        # takes (T, B, F)
        layer = from_torch(module)                    # takes (B, T, F)
        y, (h, c) = module(x)
        y.transpose(0, 1), h[0], c[0]                 # = layer(x.transpose(0, 1))

    The two biases become one, their sum. It is trainable where either was. Where both were, torch
    gives each the same gradient, so a step moves their sum twice as far as it moves the layer's.

    Dropout between the layers of an ``nn.LSTM`` becomes input dropout of the style ``tf_keras``, a
    mask a step, on every layer but the first: equal in distribution. Hooks stay behind.

    Raises:
        ConfigError: another module, or one without an equal: with ``proj_size``, with weights that
            are shared or computed from others, with dropout of rate 1, between bidirectional layers
            or between layers without a bias.

    Source: torch 2.13 ``nn.LSTM``, ``nn.LSTMCell``.
    """
    if not isinstance(module, nn.LSTM | nn.LSTMCell):
        raise ConfigError(
            f"from_torch: a {type(module).__module__}.{type(module).__name__} is neither a "
            "torch.nn.LSTM nor a torch.nn.LSTMCell. Pass one of those."
        )
    if isinstance(module, nn.LSTMCell) and not (return_sequences and return_state):
        raise ConfigError(
            f"from_torch: return_sequences={return_sequences} and return_state={return_state} were "
            "given for an nn.LSTMCell, which is one step. Leave them out."
        )
    reason = _why_not_from(module, inference_only)
    if reason is not None:
        shown = f"nn.{type(module).__name__}({module.extra_repr()})"
        raise ConfigError(f"from_torch: {shown} has no equal here: {reason}")

    weight = getattr(module, next(_names(module))["weight_hh_l0"])
    if isinstance(module, nn.LSTMCell):
        config = LSTMConfig(module.hidden_size, use_bias=module.bias, name=name)
        ours: Any = LSTMCell.from_lstm_config(
            module.input_size, config, device="meta", dtype=weight.dtype
        )
    else:
        dropout = 0.0 if inference_only else float(module.dropout)
        layers = []
        for k in range(module.num_layers):
            many = module.num_layers > 1
            sequences = return_sequences or k < module.num_layers - 1
            config = LSTMConfig(
                module.hidden_size,
                use_bias=module.bias,
                return_sequences=sequences,
                return_state=return_state,
                zero_output_for_mask=sequences,
                dropout=dropout if k else 0.0,
                dropout_style="tf_keras" if k and dropout else "keras",
                name=f"{name}_{k}" if many and name is not None else name,
            )
            features = (1 + module.bidirectional) * module.hidden_size if k else module.input_size
            # On "meta", so that no number is drawn to initialize what is overwritten.
            layer: LSTM[Any] = LSTM.from_lstm_config(
                features, config, device="meta", dtype=weight.dtype
            )
            both = module.bidirectional
            layers.append(Bidirectional(layer, name=config.name) if both else layer)
        ours = layers[0] if len(layers) == 1 else StackedLSTM(layers, name=name)
    ours.to_empty(device=weight.device)
    for part, names in zip(_parts(ours), _names(module), strict=True):
        given = {key: getattr(module, its) for key, its in names.items()}
        part.lstm.load_state_dict({key: tensor.detach() for key, tensor in given.items()})
        for key, parameter in part.lstm.named_parameters():
            keys = ("bias_ih_l0", "bias_hh_l0") if key == "bias_ih_l0" else (key,)
            parameter.requires_grad_(any(given[k].requires_grad for k in keys))
    ours.train(module.training and not inference_only)
    return ours  # type: ignore[no-any-return]


@overload
def to_torch(module: LSTMCell, *, inference_only: bool = ...) -> nn.LSTMCell: ...


@overload
def to_torch(
    module: LSTM[Any] | Bidirectional | StackedLSTM, *, inference_only: bool = ...
) -> nn.LSTM: ...


def to_torch(
    module: LSTM[Any] | Bidirectional | StackedLSTM | LSTMCell, *, inference_only: bool = False
) -> Plain:
    """The equal plain torch module, where there is one.

    Args:
        module: an :class:`LSTM`, :class:`Bidirectional`, :class:`StackedLSTM` or :class:`LSTMCell`.
        inference_only: leave out what matters in training alone (dropout, regularizers,
            constraints, shared weights), and give the module in eval mode.

    Returns:
        An ``nn.LSTM``, batch first (unless the layer is ``time_major``), or an ``nn.LSTMCell``, on
        the layer's device, in its dtype and mode, as trainable parameter by parameter. No tensor is
        shared.

    An ``nn.LSTM`` always gives the whole sequence, and (h, c). The last output of a layer without
    ``return_sequences`` is ``h[-1]``, and of a Bidirectional ``torch.cat([h[-2], h[-1]], -1)``.

    torch has a second bias, ``bias_hh``. It is zeros and frozen, so that the module trains as the
    layer does. ``module.requires_grad_()`` thaws it: a step then moves the sum of the two twice as
    far.

    An ``nn.LSTM`` takes no mask (pack the rows instead; the padding gives zeros), so options that
    speak of masks, ``zero_output_for_mask`` and ``mask_propagation``, do not matter. Those that
    change no number (``use_cudnn``, ``unroll``), initializers, names and seeds are left behind.

    Raises:
        ConfigError: there is none; :func:`why_not_torch` has the reason.
    """
    reason = why_not_torch(module, inference_only=inference_only)
    if reason is not None:
        shown = getattr(module, "_label", type(module).__name__)
        raise ConfigError(f"to_torch: {shown} has no equal in plain torch: {reason}")
    first = _parts(module)[0]
    like: dict[str, Any] = {"dtype": first.lstm.weight_hh_l0.dtype, "device": "meta"}
    like["bias"] = first.config.use_bias
    if isinstance(module, LSTMCell):
        plain: Plain = nn.LSTMCell(first.input_size, first.units, **like)
    else:
        layers = _layers(module)
        plain = nn.LSTM(
            first.input_size,
            first.units,
            len(layers),
            batch_first=not first.config.time_major,
            dropout=0.0 if inference_only else _rate(_parts(module)[-1]),
            bidirectional=isinstance(layers[0], Bidirectional),
            **like,
        )
    plain.to_empty(device=first.lstm.weight_hh_l0.device)
    for part, names in zip(_parts(module), _names(plain), strict=True):
        for key, its in names.items():
            source, target = getattr(part.lstm, key), getattr(plain, its)
            with torch.no_grad():
                target.copy_(source)
            target.requires_grad_(source.requires_grad)
    return plain.train(module.training and not inference_only)


def why_not_torch(module: nn.Module, *, inference_only: bool = False) -> str | None:
    """Why no plain torch module equals this one, and what to do; None where one does.

    This one function is the choice and the text of the error that :func:`to_torch` raises.

    Args:
        module: as in :func:`to_torch`.
        inference_only: do not ask for what matters in training alone.
    """
    return next(_why_not_to(module, inference_only), None)


def _why_not_to(module: Any, inference_only: bool) -> Iterator[str]:
    if not isinstance(module, LSTM | Bidirectional | StackedLSTM | LSTMCell):
        yield (
            f"a {type(module).__name__} is none of LSTM, Bidirectional, StackedLSTM and LSTMCell. "
            "Pass one of these: a wrapper's own layer, say."
        )
        return
    layers, places = _layers(module), _places(module)
    for where, part in places:
        begin = f"{where}: " if where else ""
        yield from (begin + reason for reason in _why_not_part(part))
    if len({isinstance(layer, Bidirectional) for layer in layers}) > 1:
        yield (
            "some of its layers are Bidirectional, and nn.LSTM is in one direction or in both "
            "throughout. Convert its layers one by one."
        )
    for layer in layers:
        if isinstance(layer, Bidirectional):
            yield from _why_not_directions(layer)
    if any(getattr(m, "go_backwards", False) for m in (module, *layers)):
        yield (
            "go_backwards=True, and nn.LSTM runs forwards. Build it with go_backwards=False, and "
            "give it x.flip(1)."
        )
    if isinstance(module, StackedLSTM) and module.stateful:
        yield _STATEFUL
    weights = [part.lstm.weight_hh_l0 for _, part in places]
    for keyword, torchs, values in (
        ("units", "hidden_size", [part.units for _, part in places]),
        ("use_bias", "bias", [part.config.use_bias for _, part in places]),
        ("time_major", "batch_first", [part.config.time_major for _, part in places]),
        ("dtype", "dtype", [w.dtype for w in weights]),
        ("device", "device", [w.device for w in weights]),
    ):
        if len(set(values)) > 1:
            listed = " and ".join(map(str, dict.fromkeys(values)))
            yield (
                f"{keyword} is {listed} inside it, and nn.LSTM has one {torchs}. Build all layers "
                "and directions alike, or convert layers one by one."
            )
    for m in (module, *layers):
        cast = getattr(m, "_result_dtype", None)
        if cast not in (None, weights[0].dtype):
            yield (
                f"its dtype casts the output to {cast}, and nn.LSTM's has that of its weights. "
                "Build it without dtype, and cast the output yourself."
            )
    if not inference_only:
        yield from _why_not_train(module)


_STATEFUL = (
    "stateful=True, and nn.LSTM keeps no state. Build it with stateful=False, and hand the (h, c) "
    "of a call to the next one."
)


def _why_not_part(part: LSTMParameters) -> Iterator[str]:
    """The reasons that one LSTM gives, wherever it stands."""
    config = part.config
    if is_lazy(part.lstm.weight_ih_l0):
        yield "its input size is not learnt yet. Run a batch through it first."
    for keyword, needed in (("activation", "tanh"), ("recurrent_activation", "sigmoid")):
        value = getattr(config, keyword)
        if value != needed:
            shown = value if isinstance(value, str) else getattr(value, "__name__", repr(value))
            yield f"{keyword} is {shown}, and nn.LSTM has {needed} alone. Keep this module."
    if config.stateful:
        yield _STATEFUL
    if computed := _computed(part.lstm):
        yield computed
    stored, used = part.lstm.weight_hh_l0.dtype, part.compute_dtype
    if used != stored:
        yield (
            f"dtype={config.dtype!r} keeps {stored} weights and computes in {used}, and nn.LSTM "
            f"has one dtype. Convert a copy for inference: copy.deepcopy(layer).to({used})."
        )


def _why_not_directions(layer: Bidirectional) -> Iterator[str]:
    if layer.merge_mode != "concat":
        yield (
            f"merge_mode={layer.merge_mode!r}, and nn.LSTM has 'concat' alone. Build it with "
            "merge_mode='concat', and merge y[..., :units] with y[..., units:] yourself."
        )
    if layer.forward_layer.go_backwards:
        yield (
            "its forward layer has go_backwards=True, and nn.LSTM's first direction runs forwards. "
            "Build it with the two exchanged, and exchange the halves of y.flip(1)."
        )


def _why_not_train(module: Any) -> Iterator[str]:
    """The reasons that matter in training alone."""
    lost = []
    for m in module.modules():
        if isinstance(m, LSTMParameters):
            for kind, table in (("regularizer", m._regularizers), ("constraint", m._constraints)):
                lost += [f"{role}_{kind}" for role, f in table.items() if f is not None]
            lost += [f"{keyword} (code of the model's author)" for keyword in m._authors]
        if isinstance(m, WithLosses) and m._activity_regularizer is not None:
            lost.append("activity_regularizer")
    if lost:
        yield (
            f"{', '.join(dict.fromkeys(lost))} would be lost: nn.LSTM has no place for it. "
            f"{_LEAVE_IT}"
        )
    parts = _parts(module)
    if len({id(part) for part in parts}) < len(parts):
        yield (
            "a layer stands in it twice, so that its weights are shared, and every layer of an "
            "nn.LSTM has its own. Pass inference_only=True for copies."
        )
    directed = isinstance(_layers(module)[0], Bidirectional)
    for number, (where, part) in enumerate(_places(module)):
        begin = f"{where}: " if where else ""
        for reason in _why_not_dropout(part, number, directed):
            yield f"{begin}{reason} {_LEAVE_IT}"
    rates = {_rate(part) for part in parts[1:]}
    if len(rates) > 1:
        yield (
            f"dropout is {' and '.join(map(str, sorted(rates)))} in the layers above the first, "
            f"and nn.LSTM has one rate. Build them with one. {_LEAVE_IT}"
        )


def _why_not_dropout(part: LSTMParameters, number: int, directed: bool) -> Iterator[str]:
    config, plan = part.config, part._plan
    if plan.recurrent is not None:
        yield (
            f"recurrent_dropout={config.recurrent_dropout} drops h between the steps, and nn.LSTM "
            "cannot."
        )
    if plan.input is None:
        return
    rate = f"dropout={config.dropout}"
    if plan.input != "steps":
        yield (
            f"{rate} of the style {config.dropout_style!r} keeps its masks through all steps, and "
            "nn.LSTM's dropout draws one for each step."
        )
    elif directed:
        yield f"{rate} draws a mask for each direction, and both directions of an nn.LSTM see one."
    elif number == 0:
        yield (
            f"{rate} drops the input of the first layer, and nn.LSTM drops between its layers "
            f"alone. Build it without, and put torch.nn.Dropout({config.dropout}) in front."
        )


def _why_not_from(module: Plain, inference_only: bool) -> str | None:
    """Why no layer here equals a plain module, and what to do; None where one does."""
    kind = nn.LSTM if isinstance(module, nn.LSTM) else nn.LSTMCell
    if type(module).forward is not kind.forward:
        return (
            f"its class has a forward of its own, and what that computes is not known here. If it "
            f"equals nn.{kind.__name__}'s, load its state dict into one of those."
        )
    if getattr(module, "proj_size", 0):
        return (
            f"proj_size={module.proj_size} makes h smaller than c, and no LSTM of Keras's has such "
            "a projection. Keep it, or train one with proj_size=0."
        )
    if computed := _computed(module):
        return computed
    tensors = [getattr(module, its) for names in _names(module) for its in names.values()]
    if len({id(t) for t in tensors}) < len(tensors) and not inference_only:
        return (
            "two of its weights are one parameter, and every layer here has its own. Pass "
            "inference_only=True for copies."
        )
    if isinstance(module, nn.LSTMCell) or module.num_layers == 1 or inference_only:
        return None
    if not module.dropout:
        return None
    if module.bidirectional:
        return (
            f"dropout={module.dropout} gives both directions of a layer one mask in training, and "
            f"each direction in Keras draws its own. {_LEAVE_IT}"
        )
    if module.dropout == 1:
        return (
            f"dropout={module.dropout} drops everything between its layers in training, and in "
            f"Keras a rate of 1 drops nothing. {_LEAVE_IT}"
        )
    if not module.bias:
        return (
            f"dropout={module.dropout} draws a mask for each step in training, and no Keras does "
            f"so without a bias. Build it with biases of zeros, frozen. {_LEAVE_IT}"
        )
    return None


def _computed(plain: Plain) -> str | None:
    stored = plain._parameters.keys() | plain._buffers.keys()
    computed = [its for names in _names(plain) for its in names.values() if its not in stored]
    if not computed:
        return None
    return (
        f"{', '.join(computed)} is no parameter but computed from others (weight_norm, pruning, a "
        "parametrization). Make it one first: see torch.nn.utils.parametrize."
        "remove_parametrizations, torch.nn.utils.remove_weight_norm, torch.nn.utils.prune.remove."
    )


def _names(plain: Plain) -> Iterator[dict[str, str]]:
    """Of each layer and direction, in the order of the states: our tensors' names to torch's."""
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if plain.bias else 2]
    if isinstance(plain, nn.LSTMCell):
        yield {f"{kind}_l0": kind for kind in kinds}
        return
    for k in range(plain.num_layers):
        for suffix in ("", "_reverse")[: 1 + plain.bidirectional]:
            yield {f"{kind}_l0": f"{kind}_l{k}{suffix}" for kind in kinds}


def _layers(module: Any) -> list[Any]:
    return list(module.layers) if isinstance(module, StackedLSTM) else [module]


def _places(module: Any) -> list[tuple[str, LSTMParameters]]:
    """Every LSTM inside, in the order of :func:`_names`, with words for where it stands."""
    if isinstance(module, StackedLSTM):
        what = "cell" if module.of_cells else "layer"
        return [
            (f"{what} {k}" + (f", {where}" if where else ""), part)
            for k, layer in enumerate(module.layers)
            for where, part in _places(layer)
        ]
    if isinstance(module, Bidirectional):
        sides = module.forward_layer, module.backward_layer
        return list(zip(("forward direction", "backward direction"), sides, strict=True))
    return [("", module)]


def _parts(module: Any) -> list[LSTMParameters]:
    return [part for _, part in _places(module)]


def _rate(part: LSTMParameters) -> float:
    return part.config.dropout if part._plan.input else 0.0
