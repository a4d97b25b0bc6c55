"""What stands in a stack: cells alone, or whole layers alone."""

from __future__ import annotations

from typing import Any, TypeAlias

from torch import nn

from ._recurrent import Recurrent
from .bidirectional import Bidirectional
from .cell import LSTMCell
from .errors import ConfigError
from .lstm import LSTM

Layer: TypeAlias = LSTM[Any] | Bidirectional


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


def lowest_parts(layer: Any) -> list[Recurrent]:
    """The LSTMs or cells that see a member's input."""
    if isinstance(layer, Bidirectional):
        return [layer.forward_layer, layer.backward_layer]
    return [layer]


def output_size(layer: Any) -> int:
    """The features of a member's output."""
    if isinstance(layer, Bidirectional):
        forward, backward = (part.units for part in lowest_parts(layer))
        return forward + backward if layer.merge_mode == "concat" else max(forward, backward)
    return int(layer.units)
