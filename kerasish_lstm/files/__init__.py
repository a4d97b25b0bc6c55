"""Keras's files, read with h5py, NumPy and the standard library: no Keras, TensorFlow or torch.

Every format becomes the same :class:`KerasFile`: the layers in the model's own order, each with its
config and the places of its LSTMs' arrays, which are read when a module takes them.

    opened(path) -> _open (the one place that opens anything) -> _keras3 or _legacy -> KerasFile
"""

from ._arrays import StoredWeights
from ._open import Matrix, must_be_a_file
from ._read import opened, read
from ._tree import FileLayer, KerasFile

__all__ = ["FileLayer", "KerasFile", "Matrix", "StoredWeights", "must_be_a_file", "opened", "read"]
