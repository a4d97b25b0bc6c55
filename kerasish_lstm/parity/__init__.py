"""What proves equality: the float64 truth, the comparator and its bounds."""

from . import bounds, oracle
from .compare import Comparison, assert_parity
from .live import assert_same_as_keras

__all__ = ["Comparison", "assert_parity", "assert_same_as_keras", "bounds", "oracle"]
