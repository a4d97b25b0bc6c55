"""Keras's initializers: the first values of a weight, in Keras's axes.

    kernel (F, 4U)   recurrent_kernel (U, 4U)   bias (4U,), gates i f g o

``initializer(shape, dtype)`` is a tensor on the CPU. Distributions are those of Keras 3.15
(``keras/src/initializers/``); draws come from torch's generators, so they are equal in distribution
and not number by number. All draws are made in float64, one after the other from uniform ones, and
rounded to the dtype at the end: the same seed gives the same numbers in every dtype, and a longer
tensor begins with the numbers of a shorter one, as in Keras (see ``bias``).

A seed gives the same values at every call. Without one torch's global generator decides, so
``torch.manual_seed`` governs and each call gives new values (Keras's object draws a seed once, and
repeats itself).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ._objects import KerasObject, Room, serialize
from ._objects import get as _get
from .errors import ConfigError

__all__ = [
    "INITIALIZERS",
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "Values",
    "VarianceScaling",
    "Zeros",
    "bias",
    "get",
    "initial",
    "serialize",
]

Axes = Sequence[int] | None


@dataclasses.dataclass(frozen=True)
class Initializer(KerasObject):
    """The base of the initializers."""

    module = "keras.initializers"

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """The values.

        Args:
            shape: in Keras's axes.
            dtype: a floating-point one.

        Raises:
            ConfigError: a shape that this initializer cannot fill, in Keras neither.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Zeros(Initializer):
    """Zeros."""

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(tuple(shape), dtype=dtype, device="cpu")


@dataclasses.dataclass(frozen=True)
class Ones(Initializer):
    """Ones."""

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.ones(tuple(shape), dtype=dtype, device="cpu")


@dataclasses.dataclass(frozen=True)
class Constant(Initializer):
    """One number everywhere. TensorFlow rounds it to float32, for float64 weights too."""

    value: float = 0.0

    def __post_init__(self) -> None:
        self._check_numbers("value")

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.full(tuple(shape), self.value, dtype=torch.float32, device="cpu").to(dtype)


@dataclasses.dataclass(frozen=True)
class Identity(Initializer):
    """gain on the diagonal of a matrix, which need not be square, and 0 elsewhere.

    Keras 3 leaves the gain out of its configs, and so loses it; here it is written where it is not
    1, and Keras reads it.
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        self._check_numbers("gain")

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        if len(shape) != 2:
            raise _unfit(self, shape, "it fills matrices alone")
        return self.gain * torch.eye(*shape, dtype=dtype, device="cpu")

    def get_config(self) -> dict[str, Any]:
        return {} if self.gain == 1 else super().get_config()


class _Seeded(Initializer):
    """What the random ones share."""

    seed: int | None

    def __post_init__(self) -> None:
        seed: Any = self.seed
        if isinstance(seed, dict):  # a serialized SeedGenerator
            inner = seed.get("config")
            seed = inner.get("seed") if isinstance(inner, dict) else None
        if seed is not None and not isinstance(seed, int | np.integer):
            raise self._reject("seed", "an integer or None")
        self._set("seed", seed if seed is None else int(seed))

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed, **super().get_config()}  # Keras writes the seed first

    def seeded(self) -> Initializer:
        """The same with a seed that torch's global generator draws."""
        arguments = {**self.get_config(), "seed": int(torch.randint(2**62, (), device="cpu"))}
        return type(self)(**arguments)

    def _uniform(self, shape: Sequence[int]) -> Tensor:
        """U[0, 1) in float64."""
        generator = None
        if self.seed is not None:
            generator = torch.Generator("cpu").manual_seed(self.seed % 2**63)
        return torch.rand(tuple(shape), generator=generator, dtype=torch.float64, device="cpu")

    def _normal(self, shape: Sequence[int], truncation: float = math.inf) -> Tensor:
        """N(0, 1) in float64, or what of it lies within the truncation."""
        tail = math.erf(truncation / math.sqrt(2))
        centred = 2 * self._uniform(shape) - 1 + 2.0**-53  # in (-1, 1), symmetrically
        return math.sqrt(2) * torch.erfinv(tail * centred)


@dataclasses.dataclass(frozen=True)
class RandomNormal(_Seeded):
    """N(mean, stddev^2)."""

    mean: float = 0.0
    stddev: float = 0.05
    seed: int | None = None

    def __post_init__(self) -> None:
        self._check_numbers("mean", "stddev")
        super().__post_init__()

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        return (self.mean + self.stddev * self._normal(shape)).to(dtype)


@dataclasses.dataclass(frozen=True)
class TruncatedNormal(RandomNormal):
    """N(mean, stddev^2) without what lies more than two stddev away, so its own stddev is 0.88 of
    the argument."""

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        return (self.mean + self.stddev * self._normal(shape, truncation=2)).to(dtype)


@dataclasses.dataclass(frozen=True)
class RandomUniform(_Seeded):
    """U(minval, maxval)."""

    minval: float = -0.05
    maxval: float = 0.05
    seed: int | None = None

    def __post_init__(self) -> None:
        self._check_numbers("minval", "maxval")
        super().__post_init__()

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        return (self.minval + (self.maxval - self.minval) * self._uniform(shape)).to(dtype)


# The stddev of N(0, 1) cut at two.
_TRUNCATED_STDDEV = 0.87962566103423978


class _ByFans(_Seeded):
    """Mean 0 and variance scale / fan."""

    input_axes: Axes
    output_axes: Axes

    def _recipe(self) -> tuple[float, str, str]:
        """Scale, mode and distribution."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        for field in ("input_axes", "output_axes"):
            if getattr(self, field) is not None:
                self._check_axes(field)
        super().__post_init__()

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        scale, mode, distribution = self._recipe()
        fan_in, fan_out = self._fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
        stddev = math.sqrt(scale / max(1.0, fan))
        if distribution == "uniform":
            limit = math.sqrt(3) * stddev
            values = 2 * limit * self._uniform(shape) - limit
        elif distribution == "truncated_normal":
            values = stddev / _TRUNCATED_STDDEV * self._normal(shape, truncation=2)
        else:
            values = stddev * self._normal(shape)
        return values.to(dtype)

    def _fans(self, shape: Sequence[int]) -> tuple[int, int]:
        if self.input_axes is not None and self.output_axes is not None:
            if not all(
                -len(shape) <= a < len(shape) for a in (*self.input_axes, *self.output_axes)
            ):
                raise _unfit(self, shape, "it has no such axes")
            fan_in = math.prod(shape[a] for a in self.input_axes)
            return fan_in, math.prod(shape[a] for a in self.output_axes)
        if len(shape) < 2:
            return (math.prod(shape),) * 2
        window = math.prod(shape[:-2])
        return shape[-2] * window, shape[-1] * window


@dataclasses.dataclass(frozen=True)
class VarianceScaling(_ByFans):
    """Mean 0 and variance scale / n, with n the fan in, the fan out or their mean.

    The fans of (m, n) are m and n, of (n,) both n, unless ``input_axes`` and ``output_axes`` are
    given, whose sizes are multiplied. ``"truncated_normal"`` (also called ``"normal"``) is cut at
    two stddev and widened so that the variance holds.
    """

    scale: float = 1.0
    mode: str = "fan_in"
    distribution: str = "truncated_normal"
    seed: int | None = None
    input_axes: Axes = None
    output_axes: Axes = None

    def __post_init__(self) -> None:
        self._check_numbers("scale")
        if not self.scale > 0:
            raise self._reject("scale", "a positive number")
        self._check_choice("mode", ("fan_in", "fan_out", "fan_avg"))
        name = str(self.distribution).lower()
        self._set("distribution", "truncated_normal" if name == "normal" else name)
        self._check_choice("distribution", ("uniform", "truncated_normal", "untruncated_normal"))
        super().__post_init__()

    def _recipe(self) -> tuple[float, str, str]:
        return self.scale, self.mode, self.distribution


@dataclasses.dataclass(frozen=True)
class _Settled(_ByFans):
    """A VarianceScaling whose first three arguments are settled."""

    seed: int | None = None
    input_axes: Axes = None
    output_axes: Axes = None

    settled: ClassVar[tuple[float, str, str]]

    def _recipe(self) -> tuple[float, str, str]:
        return self.settled


class GlorotUniform(_Settled):
    """U(-L, L), L = sqrt(6 / (fan in + fan out)) (Glorot and Bengio 2010)."""

    settled = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Settled):
    """Truncated normal of variance 2 / (fan in + fan out) (Glorot and Bengio 2010)."""

    settled = (1.0, "fan_avg", "truncated_normal")


class HeUniform(_Settled):
    """U(-L, L), L = sqrt(6 / fan in) (He et al. 2015)."""

    settled = (2.0, "fan_in", "uniform")


class HeNormal(_Settled):
    """Truncated normal of variance 2 / fan in (He et al. 2015)."""

    settled = (2.0, "fan_in", "truncated_normal")


class LecunUniform(_Settled):
    """U(-L, L), L = sqrt(3 / fan in) (LeCun et al. 1998)."""

    settled = (1.0, "fan_in", "uniform")


class LecunNormal(_Settled):
    """Truncated normal of variance 1 / fan in (LeCun et al. 1998)."""

    settled = (1.0, "fan_in", "truncated_normal")


@dataclasses.dataclass(frozen=True)
class Orthogonal(_Seeded):
    """gain times a random matrix with orthonormal rows, or columns where there are more rows.

    Q of the QR decomposition of a normal matrix, R's diagonal made positive (Saxe et al. 2014).
    A recurrent kernel (U, 4U) has orthonormal rows, and its four blocks are not orthogonal. Unlike
    Keras's, it fills 16-bit weights too.
    """

    gain: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        self._check_numbers("gain")
        super().__post_init__()

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        if len(shape) < 2:
            raise _unfit(self, shape, "it fills matrices alone")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        tall = self._normal((max(rows, columns), min(rows, columns)))
        q, r = torch.linalg.qr(tall.to(torch.promote_types(dtype, torch.float32)))
        q = self.gain * q * r.diagonal().sign()
        values: Tensor = (q.t() if rows < columns else q).reshape(tuple(shape)).to(dtype)
        return values


class Values:
    """Given values, as Keras takes a tensor or an array for an initializer. No config can hold it.

    Raises:
        ConfigError: an array that is not of numbers; at the call, another shape.
    """

    def __init__(self, values: Tensor | np.ndarray | np.generic) -> None:
        self.values = _tensor(values)

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        if self.values.shape != tuple(shape):
            raise _unfit(self, shape, "given values must have the shape of the weight")
        return self.values.to(dtype)

    def __repr__(self) -> str:
        return f"Values(shape={tuple(self.values.shape)})"


INITIALIZERS: dict[str, type[Initializer]] = {
    "Constant": Constant,
    "constant": Constant,
    "GlorotNormal": GlorotNormal,
    "glorot_normal": GlorotNormal,
    "GlorotUniform": GlorotUniform,
    "glorot_uniform": GlorotUniform,
    "HeNormal": HeNormal,
    "he_normal": HeNormal,
    "HeUniform": HeUniform,
    "he_uniform": HeUniform,
    "Identity": Identity,
    "identity": Identity,
    "LecunNormal": LecunNormal,
    "lecun_normal": LecunNormal,
    "LecunUniform": LecunUniform,
    "lecun_uniform": LecunUniform,
    "Ones": Ones,
    "ones": Ones,
    "Orthogonal": Orthogonal,
    "orthogonal": Orthogonal,
    "RandomNormal": RandomNormal,
    "random_normal": RandomNormal,
    "RandomUniform": RandomUniform,
    "random_uniform": RandomUniform,
    "TruncatedNormal": TruncatedNormal,
    "truncated_normal": TruncatedNormal,
    "VarianceScaling": VarianceScaling,
    "variance_scaling": VarianceScaling,
    "Zeros": Zeros,
    "zeros": Zeros,
    # Aliases of Keras 3, and of 1 and 2
    "IdentityInitializer": Identity,
    "OrthogonalInitializer": Orthogonal,
    "normal": RandomNormal,
    "one": Ones,
    "uniform": RandomUniform,
    "zero": Zeros,
    # tf.keras and Keras 2
    "ConstantV2": Constant,
    "GlorotNormalV2": GlorotNormal,
    "glorot_normalV2": GlorotNormal,
    "GlorotUniformV2": GlorotUniform,
    "glorot_uniformV2": GlorotUniform,
    "HeNormalV2": HeNormal,
    "he_normalV2": HeNormal,
    "HeUniformV2": HeUniform,
    "he_uniformV2": HeUniform,
    "IdentityV2": Identity,
    "LecunNormalV2": LecunNormal,
    "lecun_normalV2": LecunNormal,
    "LecunUniformV2": LecunUniform,
    "lecun_uniformV2": LecunUniform,
    "OnesV2": Ones,
    "OrthogonalV2": Orthogonal,
    "RandomNormalV2": RandomNormal,
    "RandomUniformV2": RandomUniform,
    "TruncatedNormalV2": TruncatedNormal,
    "VarianceScalingV2": VarianceScaling,
    "ZerosV2": Zeros,
}

_BASE = "it is Keras's base class, which has no values. Pass one of kerasish_lstm's initializers."
_STFT = "it fills kernels of three axes, and an LSTM's have two; Keras's fails there as well."
_ROOM = Room(
    what="an initializer",
    base=Initializer,
    table=INITIALIZERS,
    call="callable(shape in Keras's axes, dtype=dtype), for a tensor or an array",
    refused={
        "Initializer": _BASE,
        "initializer": _BASE,
        "STFT": _STFT,
        "stft": _STFT,
        "STFTInitializer": _STFT,
    },
)


def get(identifier: Any, keyword: str = "initializer") -> Callable[..., Any] | None:
    """The initializer of an identifier, as ``keras.initializers.get``; None for None.

    A tensor or an array becomes ``Values``; a callable is returned as it is, to be called as
    ``callable(shape, dtype=dtype)``.

    Raises:
        ConfigError: see ``_objects.get``; functions of ``torch.nn.init``, which are called in
            another way.
    """
    if isinstance(identifier, Tensor | np.ndarray | np.generic):
        return Values(identifier)
    if getattr(identifier, "__module__", None) == "torch.nn.init":
        name = identifier.__name__
        raise ConfigError(
            f"LSTM: {keyword}=torch.nn.init.{name} fills a tensor in place, in torch's axes. Pass "
            f"lambda shape, dtype: torch.nn.init.{name}(torch.empty(shape[::-1], dtype=dtype)).T"
        )
    initializer: Callable[..., Any] | None = _get(identifier, keyword, _ROOM)
    return initializer


@torch.no_grad()
def initial(
    initializer: Callable[..., Any] | None,
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    keyword: str = "initializer",
) -> Tensor:
    """The values that an initializer of ``get`` gives a weight, on the CPU.

    None is glorot_uniform, as in Keras's ``add_weight``.

    Raises:
        ConfigError: a shape that the initializer cannot fill, or a callable's result of another
            shape (which Keras takes in silence).
    """
    initializer = GlorotUniform() if initializer is None else initializer
    try:
        values = _tensor(initializer(tuple(shape), dtype=dtype))
    except ConfigError as error:
        raise ConfigError(f"LSTM: {keyword}: {error}") from error
    if values.shape != tuple(shape):
        raise ConfigError(
            f"LSTM: {keyword}={initializer!r} gave a tensor of shape {tuple(values.shape)} for "
            f"{tuple(shape)}. It is called with a shape in Keras's axes, (F, 4U), (U, 4U) or "
            "(4U,), and must return that shape."
        )
    return values.to(device="cpu", dtype=dtype)


def bias(
    initializer: Callable[..., Any] | None,
    units: int,
    unit_forget_bias: bool,
    dtype: torch.dtype = torch.float32,
    keyword: str = "bias_initializer",
) -> Tensor:
    """The bias (4U,) of an LSTM; with ``unit_forget_bias``, b(U), ones(U), b(2U), joined.

    b is the bias initializer, which Keras documents to be zeros here and which is not. A random one
    gives both pieces the same numbers to begin with, since Keras's repeats itself at every call,
    seeded or not: the gates i and g start alike, up to the scale that b takes from the length.

    Raises:
        ConfigError: as ``initial``; None with ``unit_forget_bias``, a TypeError in Keras.
    """
    if not unit_forget_bias:
        return initial(initializer, (4 * units,), dtype, keyword)
    if initializer is None:
        raise ConfigError(
            f"LSTM: {keyword}=None has no meaning with unit_forget_bias=True, in Keras neither. "
            "Pass 'zeros', or unit_forget_bias=False for Keras's default, glorot_uniform."
        )
    if isinstance(initializer, _Seeded) and initializer.seed is None:
        initializer = initializer.seeded()
    first = initial(initializer, (units,), dtype, keyword)
    ones = torch.ones(units, dtype=dtype, device="cpu")
    return torch.cat([first, ones, initial(initializer, (2 * units,), dtype, keyword)])


def _tensor(values: Any) -> Tensor:
    """A copy of an array or a tensor of real numbers."""
    if isinstance(values, Tensor):
        return values.detach().clone()
    array = np.array(values)
    if array.dtype.kind not in "biuf":
        raise ConfigError(
            f"values of dtype {array.dtype} are not numbers that a weight can have. Pass a tensor "
            "or an array of floats."
        )
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))


def _unfit(initializer: Any, shape: Sequence[int], why: str) -> ConfigError:
    return ConfigError(
        f"{initializer!r} cannot fill a weight of shape {tuple(shape)}, in Keras's axes: {why}."
    )
