"""Keras's files, read with h5py, NumPy and the standard library: no Keras, TensorFlow or torch.

Every format becomes the same :class:`KerasFile`: the layers in the model's own order, each LSTM
with its config and its three arrays in Keras's layout.

    read(path) -> _open (the one place that opens anything) -> _keras3 or _legacy -> KerasFile
"""

from ._read import read
from ._tree import FileLayer, KerasFile

__all__ = ["FileLayer", "KerasFile", "read"]
