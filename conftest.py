"""The suite's option. Here, because pytest reads ``--device cuda`` before it looks for tests."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=("all", "cpu", "cuda"),
        default="all",
        help="run the cases of one device only; with cuda, a run in which none ran fails",
    )
