"""``deviations.txt`` as a page: where Keras disagrees with itself, and how to see it.

    python -m parity_tests.deviations_page

writes ``DEVIATIONS.md``. A test holds the page against the table.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
PAGE = FOLDER / "DEVIATIONS.md"
HEAD = """\
# Where Keras disagrees with itself

Made from [deviations.txt](deviations.txt) by `python -m parity_tests.deviations_page`. Each row is
shown on live Keras by a test of [test_deviations.py](test_deviations.py), which fails where the row
no longer reproduces. Run one by its name:

```sh
python -m pytest parity_tests/test_deviations.py -k NAME
```
"""
BACKENDS = ("all", "tensorflow", "torch", "jax")
TITLES = {
    "all": "On every backend",
    "tensorflow": "On TensorFlow",
    "torch": "On torch",
    "jax": "On JAX",
}


def rows() -> list[list[str]]:
    """(id, Keras's version, backends, what Keras does, what this package does)."""
    lines = (FOLDER / "deviations.txt").read_text().splitlines()
    return [[f.strip() for f in s.split("|")] for s in lines if s and not s.startswith("#")]


def page() -> str:
    """The Markdown, by backend; a row of several backends stands under the first."""
    text = HEAD
    for backend in BACKENDS:
        found = [row for row in rows() if row[2].partition(",")[0] == backend]
        text += f"\n## {TITLES[backend]}\n\n| name | Keras | what Keras does | here |\n"
        text += "| --- | --- | --- | --- |\n"
        for name, version, backends, does, here in found:
            others = "" if backends == backend else f" ({backends})"
            test = name.replace("-", "_")
            text += f"| `{test}` | {version}{others} | {_code(does)} | {_code(here)} |\n"
    return text


def _code(text: str) -> str:
    """Markdown takes stars and underscores for emphasis, and nothing here is meant so."""
    return text.replace("_", r"\_").replace("*", r"\*")


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"{len(rows())} rows in {PAGE}")
