"""hypothesis where it is installed; where it is not, every property is skipped and says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

try:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hnp

    settings.register_profile("suite", deadline=None, derandomize=True, max_examples=150)
    settings.load_profile("suite")
except ModuleNotFoundError as error:
    if error.name != "hypothesis":
        raise

    class _Absent:
        """Whatever a property says of its examples before it is skipped."""

        def __getattr__(self, name: str) -> Any:
            return self

        def __or__(self, other: Any) -> Any:
            return self

        def __call__(self, *_: Any, **__: Any) -> Any:
            return self

    HealthCheck = st = hnp = _Absent()

    def given(*_: Any, **__: Any) -> Any:
        return pytest.mark.skip(reason="hypothesis not installed")

    def settings(*_: Any, **__: Any) -> Callable[[Any], Any]:
        return lambda test: test


__all__ = ["HealthCheck", "given", "hnp", "settings", "st"]
