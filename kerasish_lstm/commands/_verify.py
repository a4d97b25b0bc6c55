"""Two files' modules on the same inputs and masks, and how far they may lie apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch

from ..errors import ConfigError, KerasishError
from ..parity import bounds, certificate
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


@dataclasses.dataclass
class Findings:
    """What came of a comparison.

    Args:
        verdicts: one for each layer, input and source.
        unasked: the layers about which live Keras cannot be asked, with the reason.
    """

    verdicts: list[Verdict] = dataclasses.field(default_factory=list)
    unasked: dict[str, str] = dataclasses.field(default_factory=dict)


def compared(
    a: Source,
    b: Source | None,
    *,
    device: torch.device,
    batch: int,
    steps: int,
    seed: int,
    keras: bool,
    at: Callable[[str], None] = lambda name: None,
) -> Findings:
    """Every comparison: with the other file, with what the files recorded, with live Keras.

    Args:
        batch, steps, seed: of the random inputs.
        keras: whether to ask live Keras, where it is installed.
        at: called with the name of each layer before it is run.

    Raises:
        ConfigError: layers of different names.
        FileFormatError: recorded results that are damaged; nothing has been run then.
    """
    found = Findings()
    sources = [a] if b is None else [a, b]
    for source in sources:
        if "golden" in source.metadata:
            certificate.check(source.metadata["golden"], source.modules)
    both = [(n, m, None) for n, m in a.modules.items()] if b is None else pairs(a, b)
    ask = keras and has_keras()
    for name, module, other in both:
        at(name)
        for what, x, mask in trials(module, batch=batch, steps=steps, seed=seed):
            mine = run(module, x, mask, device)
            bound = bound_of(module, x, mask, device)
            if other is not None:
                assert b is not None
                if input_size(other) != x.shape[-1]:
                    reason = f"it takes {input_size(other)} features, not {x.shape[-1]}"
                    found.verdicts.append(Verdict(name, b.path.name, what, None, bound, reason))
                    continue
                wide = max(bound, bound_of(other, x, mask, device))
                theirs = run(other, x, mask, device)
                found.verdicts.append(_verdict(name, b.path.name, what, mine, theirs, wide))
            if ask and name not in found.unasked:
                try:
                    theirs = run_keras(module, x, mask)
                except KerasishError as error:
                    found.unasked[name] = str(error)
                else:
                    found.verdicts.append(_verdict(name, "live Keras", what, mine, theirs, bound))
    for source in sources:
        found.verdicts += _with_recorded(source, device, at)
    return found


def _with_recorded(
    source: Source, device: torch.device, at: Callable[[str], None]
) -> list[Verdict]:
    """A file's layers beside what Keras gave when the file was written."""
    found = list[Verdict]()
    golden = source.metadata.get("golden")
    if golden is None:
        return found
    for name, module in source.modules.items():
        at(name)
        for what, x, mask, results in certificate.recorded(golden, name, module):
            against = f"Keras {golden['keras']}, recorded in {source.path.name}"
            mine = run(module, x, mask, device)
            bound = bound_of(module, x, mask, device)
            found.append(_verdict(name, against, what, mine, results, bound))
    return found


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
