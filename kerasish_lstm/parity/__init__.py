"""What proves equality: the float64 truth, the comparator and its bounds."""

from . import bounds, oracle
from .compare import assert_parity

__all__ = ["assert_parity", "bounds", "oracle"]
