"""Two files' modules on the same inputs and masks, and how far they may lie apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch

from ..errors import ConfigError
from ..parity import bounds
from ..parity.certificate import recorded
from ..parity.trials import bound_of, has_keras, input_size, run, run_keras, trials
from ..storage import Module
from ._sources import Source


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One comparison.

    Args:
        name: the layer. against: with what. what: the input.
        error: the largest difference, relative to max(1, largest result); None where the results
            cannot be compared.
        bound: the largest error that rounding explains.
        reason: why there is no error.
    """

    name: str
    against: str
    what: str
    error: float | None
    bound: float
    reason: str = ""

    @property
    def equal(self) -> bool:
        return self.error is not None and self.error <= self.bound


def pairs(a: Source, b: Source) -> list[tuple[str, Module, Module]]:
    """The layers of two files, by name; the one of each where each has one.

    Raises:
        ConfigError: their names differ.
    """
    if len(a.modules) == len(b.modules) == 1:
        (name, one), (_, other) = *a.modules.items(), *b.modules.items()
        return [(name, one, other)]
    if a.modules.keys() != b.modules.keys():
        only_a = [n for n in a.modules if n not in b.modules]
        only_b = [n for n in b.modules if n not in a.modules]
        raise ConfigError(
            f"{a.path.name} and {b.path.name} have layers of different names: only the first has "
            f"{', '.join(map(repr, only_a)) or 'none'}, only the second "
            f"{', '.join(map(repr, only_b)) or 'none'}. Compare them layer by layer with --layer, "
            "or rename them with convert --rename."
        )
    return [(name, module, b.modules[name]) for name, module in a.modules.items()]


def verdicts(
    a: Source,
    b: Source | None,
    *,
    device: torch.device,
    batch: int,
    steps: int,
    seed: int,
    keras: bool,
) -> Iterator[Verdict]:
    """Every comparison: with the other file, with what the files recorded, with live Keras.

    Args:
        batch, steps, seed: of the random inputs.
        keras: whether to ask live Keras, where it is installed.
    """
    sources = [a] if b is None else [a, b]
    compared = [(n, m, None) for n, m in a.modules.items()] if b is None else pairs(a, b)
    for name, module, other in compared:
        for what, x, mask in trials(module, batch=batch, steps=steps, seed=seed):
            mine = run(module, x, mask, device)
            bound = bound_of(module, x, mask, device)
            if other is not None:
                assert b is not None
                if input_size(other) != x.shape[-1]:
                    reason = f"it takes {input_size(other)} features, not {x.shape[-1]}"
                    yield Verdict(name, b.path.name, what, None, bound, reason)
                    continue
                wide = max(bound, bound_of(other, x, mask, device))
                yield _verdict(name, b.path.name, what, mine, run(other, x, mask, device), wide)
            if keras and has_keras():
                yield _verdict(name, "live Keras", what, mine, run_keras(module, x, mask), bound)
    for source in sources:
        golden = source.metadata.get("golden")
        for name, module in source.modules.items() if golden is not None else ():
            for what, x, mask, results in recorded(golden, name):
                version = golden.get("keras") if isinstance(golden, dict) else None
                against = f"Keras {version}, recorded in {source.path.name}"
                mine = run(module, x, mask, device)
                bound = bound_of(module, x, mask, device)
                yield _verdict(name, against, what, mine, results, bound)


def _verdict(
    name: str,
    against: str,
    what: str,
    mine: list[np.ndarray],
    theirs: list[np.ndarray],
    bound: float,
) -> Verdict:
    shapes, others = [r.shape for r in mine], [r.shape for r in theirs]
    if shapes != others:
        return Verdict(name, against, what, None, bound, f"results {shapes}, there {others}")
    errors = [bounds.error(m, t) for m, t in zip(mine, theirs, strict=True)]
    return Verdict(name, against, what, max(errors, default=0.0), bound)
