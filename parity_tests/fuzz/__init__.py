"""A random walk over configurations: each case beside the float64 equations and live Keras.

    python -m parity_tests --fuzz 10000 --seed 2026 --results fuzz.json
    python -m parity_tests --case "Walk(kind='LSTM', steps=3, mask='gaps')"

Case i of seed S depends on (S, i) alone. Every case runs in float64 and is judged by

    oracle    kerasish_lstm.parity.oracle: results of every call, gradients of the last one
    keras     live Keras 3 on TensorFlow, the same
    engines   the oracle again, with the other engine where there are two
    float32   the oracle, within what rounding explains (a case of dtype float32)
    weights   set_weights(get_weights()) changes no bit
    config    nor does from_config(get_config())
    raises    none of it raises

and a failure is shrunk to a case that is as simple as the fields allow, judged by the same.
"""

from .command import Judge, add_arguments, run, walked
from .judges import judged
from .shrinking import simpler
from .walk import ASKED_OTHERWISE, NOT_ASKED, VALUES, Walk, drawn, parsed, settled

__all__ = [
    "ASKED_OTHERWISE", "NOT_ASKED", "VALUES", "Judge", "Walk", "add_arguments", "drawn", "judged",
    "parsed", "run", "settled", "simpler", "walked",
]  # fmt: skip
