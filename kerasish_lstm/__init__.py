"""Keras's LSTM, exactly, as a torch.nn.Module, with a converter of weights both ways."""

from . import activations, constraints, errors, initializers, regularizers
from ._dropout import DropoutMasks
from ._engines import LSTMState
from .activations import ACTIVATIONS
from .bidirectional import MERGES, Bidirectional
from .cell import LSTMCell
from .config import LSTMConfig
from .convert import from_keras, load_keras, to_keras
from .lazy import LazyLSTM, LazyLSTMCell
from .lstm import LSTM
from .masking import Masking, compute_mask, embedding_mask
from .optimizers import keras_adam
from .stacked import StackedLSTM
from .time_distributed import TimeDistributed
from .training import accumulate_losses, constrain, regularization_loss
from .weights import LAYOUTS, LSTMWeights, relayout

__version__ = "0.1.0"

__all__ = [
    "ACTIVATIONS",
    "LAYOUTS",
    "LSTM",
    "MERGES",
    "Bidirectional",
    "DropoutMasks",
    "LSTMCell",
    "LSTMConfig",
    "LSTMState",
    "LSTMWeights",
    "LazyLSTM",
    "LazyLSTMCell",
    "Masking",
    "StackedLSTM",
    "TimeDistributed",
    "accumulate_losses",
    "activations",
    "compute_mask",
    "constrain",
    "constraints",
    "embedding_mask",
    "errors",
    "from_keras",
    "initializers",
    "keras_adam",
    "load_keras",
    "regularization_loss",
    "regularizers",
    "relayout",
    "to_keras",
]
