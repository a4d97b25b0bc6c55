"""The two or three arrays of one LSTM, checked before a byte of them is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import FileFormatError
from ..weights import LSTMWeights, relayout
from ._open import Hdf5, Matrix, damaged_if_it_fails

Shapes = Sequence[tuple[int, ...] | None]


def lstm_units(shapes: Shapes) -> int | None:
    """U where shapes are those of an LSTM: (F, 4U), (U, 4U) and, with a bias, (4U,)."""
    if len(shapes) not in (2, 3) or any(s is None for s in shapes):
        return None
    kernel, recurrent, *bias = shapes
    assert kernel is not None and recurrent is not None
    if len(kernel) != 2 or len(recurrent) != 2 or recurrent[1] != 4 * recurrent[0]:
        return None
    units = recurrent[0]
    fits = units > 0 and kernel[1] == 4 * units and all(b == (4 * units,) for b in bias)
    return units if fits else None


def is_cudnn(shapes: Shapes) -> bool:
    """Whether they are those of a CuDNNLSTM: the bias has 8U."""
    if len(shapes) != 3 or shapes[2] is None or lstm_units(shapes[:2]) is None:
        return False
    return shapes[2] == (8 * (lstm_units(shapes[:2]) or 0),)


@dataclass(frozen=True)
class StoredWeights:
    """An LSTM's arrays where they lie in a file, looked at and not read yet.

    Args:
        paths: of kernel, recurrent_kernel and bias; or Keras 1's twelve, W, U and b of each of the
            gates i, c, f and o.
        shapes: of kernel, recurrent_kernel and, where there is one, bias, in Keras's layout.
        cudnn: whether the layout is that of a CuDNNLSTM.

    The file must be open while they are read.
    """

    file: Hdf5
    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    cudnn: bool

    @property
    def features(self) -> int:
        return self.shapes[0][0]

    @property
    def size(self) -> int:
        """The bytes that the arrays claim, as the file has them."""
        sizes = {"float16": 2, "bfloat16": 2, "float64": 8}
        return sizes.get(self.dtype, 4) * sum(math.prod(shape) for shape in self.shapes)

    @property
    def is_plain(self) -> bool:
        """Whether each array is one dataset in Keras's layout."""
        return not self.cudnn and len(self.paths) == len(self.shapes)

    @property
    def dtype(self) -> str:
        """Of the kernel: ``"float32"``, ..., or ``"bfloat16"``."""
        return self.file.dtype(self.paths[0])

    def matrix(self, role: int) -> Matrix | None:
        """The kernel (0) or the recurrent kernel (1) where it lies in one piece."""
        with damaged_if_it_fails(self.file.path):
            return self.file.matrix(self.paths[role])

    def array(self, role: int) -> np.ndarray:
        """One array of plain weights, in Keras's layout."""
        with damaged_if_it_fails(self.file.path):
            return self.file.array(self.paths[role])

    def read(self) -> LSTMWeights:
        """All of them, in Keras's layout."""
        with damaged_if_it_fails(self.file.path):
            arrays = [self.file.array(p) for p in self.paths]
        if len(arrays) == 12:
            i, c, f, o = (arrays[at : at + 3] for at in range(0, 12, 3))
            arrays = [np.concatenate(role, -1) for role in zip(i, f, c, o, strict=True)]
        if self.cudnn:
            arrays = list(relayout(arrays, "keras_cudnn", "keras"))
        return LSTMWeights(arrays[0], arrays[1], arrays[2] if len(arrays) == 3 else None)


def stored_weights(
    file: Hdf5, name: str, paths: Sequence[str], units: int, use_bias: bool
) -> StoredWeights:
    """The weights at these datasets, which are not read.

    Raises:
        FileFormatError: their number or shapes do not fit the layer's config.
    """
    shapes = [file.shape(p) for p in paths]
    count = 3 if use_bias else 2
    if len(paths) == 12:
        shapes = gathered(shapes)
    cudnn = use_bias and is_cudnn(shapes)
    if len(shapes) != count or lstm_units(shapes[:2] if cudnn else shapes) != units:
        u = units
        want = [f"(F, {4 * u})", f"({u}, {4 * u})", f"({4 * u},)"][:count]
        # Keras stores a layer that two models share with the first of them.
        held = ", ".join(map(str, shapes)) or "none (does it share another layer's weights?)"
        raise FileFormatError(
            f"{file.path.name}: the LSTM {name!r} has units={u} and use_bias={use_bias}, so "
            f"arrays of the shapes {', '.join(want)}; the file has {held}."
        )
    kernel, recurrent = (s for s in shapes[:2] if s is not None)
    whole = (kernel, recurrent, (4 * units,))[:count]
    return StoredWeights(file, tuple(paths), whole, cudnn)


def gathered(shapes: Shapes) -> list[tuple[int, ...] | None]:
    """The shapes of kernel, recurrent kernel and bias that Keras 1's twelve arrays make."""
    if len(shapes) != 12 or any(s is None or not s for s in shapes):
        return []
    roles: list[tuple[int, ...] | None] = []
    for role in range(3):
        same = set(shapes[role::3])
        one = shapes[role]
        if len(same) != 1 or one is None:
            return []
        roles.append((*one[:-1], 4 * one[-1]))
    return roles


def stored_dtype(file: Hdf5, paths: Sequence[str]) -> str | None:
    """``"bfloat16"`` where the file holds it: the arrays come as float32."""
    return "bfloat16" if any(file.is_bfloat16(p) for p in paths) else None
