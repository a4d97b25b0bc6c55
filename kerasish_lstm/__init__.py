"""Keras's LSTM, exactly, as a torch.nn.Module, with a converter of weights both ways."""

from . import activations, errors
from ._engines import LSTMState
from .activations import ACTIVATIONS
from .bidirectional import MERGES, Bidirectional
from .config import LSTMConfig
from .convert import from_keras, load_keras, to_keras
from .lstm import LSTM, LazyLSTM
from .optimizers import keras_adam
from .weights import LAYOUTS, LSTMWeights, relayout

__version__ = "0.1.0"

__all__ = [
    "ACTIVATIONS",
    "LAYOUTS",
    "LSTM",
    "MERGES",
    "Bidirectional",
    "LSTMConfig",
    "LSTMState",
    "LSTMWeights",
    "LazyLSTM",
    "activations",
    "errors",
    "from_keras",
    "keras_adam",
    "load_keras",
    "relayout",
    "to_keras",
]
