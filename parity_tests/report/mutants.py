"""Which mutants the suite killed, told from the outcomes of the tests that try them."""

from __future__ import annotations

import re
from typing import Any

_ID = re.compile(
    r"parity_tests/meta/test_(?P<file>\w*?)_?mutants\.py::"
    r"test_the_(?P<by>suite|golden_leg)_kills\[(?P<name>.*)\]$",
    re.DOTALL,
)
# A test that tries a mutant fails where the mutant lives, or where its case fails without it.
_FATES = {"passed": "killed", "failed": "not killed", "error": "not tried", "skipped": "not tried"}


def tried(tests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each mutant, with its fate before its own test and before the goldens alone.

    A fate is ``killed``, ``not killed``, ``not tried``, or None where no test was asked for.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for test in tests:
        match = _ID.search(test["id"])
        if match is None:
            continue
        kind, name = match["file"] or "layer", match["name"]
        if match["by"] == "golden_leg":
            kind, _, name = name.partition(": ")
        mutant = found.setdefault(
            (kind, name),
            {"kind": kind, "name": name, "suite": None, "goldens": None, "reasons": []},
        )
        mutant["suite" if match["by"] == "suite" else "goldens"] = _FATES[test["outcome"]]
        if test["reason"]:
            mutant["reasons"].append(test["reason"].removeprefix(f"{kind}: {name}: "))
    return list(found.values())
