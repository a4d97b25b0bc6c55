"""The two or three arrays of one LSTM, checked before a byte of them is read."""

from __future__ import annotations

from collections.abc import Sequence

from ..config import LSTMConfig
from ..errors import FileFormatError
from ..weights import LSTMWeights
from ._open import Hdf5

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


def lstm_weights(file: Hdf5, name: str, paths: Sequence[str], config: LSTMConfig) -> LSTMWeights:
    """The weights at these datasets.

    Raises:
        FileFormatError: their number or shapes do not fit the layer's config.
    """
    shapes = [file.shape(p) for p in paths]
    count = 3 if config.use_bias else 2
    if len(paths) != count or lstm_units(shapes) != config.units:
        u = config.units
        want = [f"(F, {4 * u})", f"({u}, {4 * u})", f"({4 * u},)"][:count]
        # Keras stores a layer that two models share with the first of them.
        held = ", ".join(map(str, shapes)) or "none (does it share another layer's weights?)"
        raise FileFormatError(
            f"{file.path.name}: the LSTM {name!r} has units={u} and use_bias={config.use_bias}, so "
            f"arrays of the shapes {', '.join(want)}; the file has {held}."
        )
    arrays = [file.array(p) for p in paths]
    return LSTMWeights(arrays[0], arrays[1], arrays[2] if count == 3 else None)


def stored_dtype(file: Hdf5, paths: Sequence[str]) -> str | None:
    """``"bfloat16"`` where the file holds it: the arrays come as float32."""
    return "bfloat16" if any(file.is_bfloat16(p) for p in paths) else None
