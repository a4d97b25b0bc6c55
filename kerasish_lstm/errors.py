"""Every exception that this package raises on purpose, and its warning.

    KerasishError
    ├── ConfigError      (ValueError)          a keyword or config entry that no LSTM has
    ├── NotBuiltError    (NotImplementedError) Keras has it, this package does not have it yet
    ├── InputError       (ValueError)          an input, a mask or a state of the wrong form
    ├── StateError       (RuntimeError)        a stored state that does not fit the call
    ├── EngineError      (RuntimeError)        use_cudnn=True where the fused engine cannot run
    ├── WeightMismatch   (ValueError)          arrays whose count, shape or dtype do not fit
    ├── FileFormatError  (ValueError)          a damaged or unsafe file, or not a Keras one
    └── ParityError      (AssertionError)      two results that were claimed equal are not

    NativeEngineWarning (UserWarning)          the native engine was not built

Each also derives from the built-in exception named beside it, so that code written against
Keras or torch (``except ValueError``) keeps working.
"""

from __future__ import annotations


class KerasishError(Exception):
    """The root: ``except KerasishError`` catches whatever this package raises on purpose."""


class ConfigError(KerasishError, ValueError):
    """A keyword or a config entry that no Keras LSTM has, or a value that it cannot take."""


class NotBuiltError(KerasishError, NotImplementedError):
    """Something that Keras has and that this version of the package does not have yet."""


class InputError(KerasishError, ValueError):
    """An input, a mask or an initial state whose type, rank or shape does not fit the layer."""


class StateError(KerasishError, RuntimeError):
    """The stored state of a stateful layer does not fit the call, or cannot be had."""


class EngineError(KerasishError, RuntimeError):
    """``use_cudnn=True`` was asked for, and the fused engine cannot compute this layer."""


class WeightMismatch(KerasishError, ValueError):
    """Arrays whose number, shapes or dtypes do not fit the layer or the layout."""


class FileFormatError(KerasishError, ValueError):
    """A file that is damaged, that is refused as unsafe, or that is not a Keras file."""


class ParityError(KerasishError, AssertionError):
    """Two results that should be equal within a bound are not."""


class NativeEngineWarning(UserWarning):
    """The native engine would have computed a call on this CPU, and was not built.

    Given once in a process. It says why the engine is missing and what to do;
    ``KERASISH_LSTM_NATIVE=0`` turns off the engine and the warning.
    """
