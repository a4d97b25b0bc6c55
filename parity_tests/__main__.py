"""The parity suite from the command line: a report of a run, its page, a random walk.

python -m parity_tests --report DIR [--full] [--device all|cpu|cuda] [-k EXPRESSION] [paths...]
python -m parity_tests --render DIR/parity.json [--out FILE.html]
python -m parity_tests --fuzz N
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from . import fuzz


def parser() -> argparse.ArgumentParser:
    """Every option; those of the walk come from ``fuzz``."""
    found = argparse.ArgumentParser(
        prog="python -m parity_tests",
        description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = found.add_argument_group("a report of a run")
    group.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="run the suite; write parity.json, parity.xml (JUnit) and parity.html there",
    )
    group.add_argument(
        "--device", choices=("all", "cpu", "cuda"), default="all", help="run one device's tests"
    )
    group.add_argument("--full", action="store_true", help="sweeps whole, not sampled")
    group.add_argument("-k", dest="expression", metavar="EXPRESSION", help="as pytest's")
    group.add_argument("--no-curves", action="store_true", help="leave out the error curves")
    group.add_argument("paths", nargs="*", help="as pytest's; without any, the whole suite")
    group.add_argument(
        "--render", type=Path, metavar="JSON", help="make the page of a report written elsewhere"
    )
    group.add_argument("--out", type=Path, metavar="FILE", help="the page's place (beside JSON)")
    fuzz.add_arguments(found)
    return found


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    all_options = parser()
    arguments = all_options.parse_intermixed_args(argv)
    if arguments.fuzz is not None or arguments.case is not None:
        raise SystemExit(fuzz.run(arguments))
    from .report import run

    if arguments.report is not None:
        status = run.report(
            arguments.report,
            device=arguments.device,
            expression=arguments.expression,
            paths=arguments.paths,
            full=arguments.full,
            with_curves=not arguments.no_curves,
            command=shlex.join(["python", "-m", "parity_tests", *argv]),
        )
        raise SystemExit(status)
    if arguments.render is not None:
        print(run.render(arguments.render, arguments.out))
        return
    all_options.error("one of --report, --render, --fuzz and --case is needed")


if __name__ == "__main__":
    main()
