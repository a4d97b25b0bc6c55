"""Keras's LSTM, exactly, as a torch.nn.Module, with a converter of weights both ways."""

from . import activations, constraints, errors, initializers, regularizers
from ._dropout import DropoutMasks
from ._engines import LSTMState
from ._native import native_engine, native_status
from .activations import ACTIVATIONS
from .bidirectional import MERGES, Bidirectional
from .cell import LSTMCell
from .config import LSTMConfig
from .convert import from_keras, load_keras, register_keras_objects, to_keras
from .lazy import LazyLSTM, LazyLSTMCell
from .lstm import LSTM
from .masking import Masking, compute_mask, embedding_mask
from .optimizers import keras_adam
from .plain import from_torch, to_torch, why_not_torch
from .saving import save_keras
from .stacked import StackedLSTM
from .storage import load_safetensors, safetensors_metadata, save_safetensors
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
    "from_torch",
    "initializers",
    "keras_adam",
    "load_keras",
    "load_safetensors",
    "native_engine",
    "native_status",
    "register_keras_objects",
    "regularization_loss",
    "regularizers",
    "relayout",
    "safetensors_metadata",
    "save_keras",
    "save_safetensors",
    "to_keras",
    "to_torch",
    "why_not_torch",
]
