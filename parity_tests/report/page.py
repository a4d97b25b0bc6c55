"""The page: one HTML file that needs no network, rendered from the report's JSON alone.

Its libraries (plotly's for charts, DataTables out of itables for the table of cases) and the rows
lie in it compressed; what people must see first stands there as plain HTML.
"""

from __future__ import annotations

import base64
import functools
import gzip
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

NEEDS = ("jinja2", "plotly", "itables")
TITLES = {
    "equal": "Equal here",
    "not equal": "Not equal",
    "broken off": "Broken off",
    "nothing ran": "Nothing ran",
}
FAILED = ("failed", "error")
FATES = {"killed": "killed", "not killed": "not killed", "not tried": "not tried", None: "–"}
KINDS = {
    "layer": "The layer", "bidirectional": "Bidirectional", "stack": "Stacks and TimeDistributed",
    "training": "Training",
}  # fmt: skip


def missing() -> list[str]:
    """Which libraries of the page are not installed here."""
    return [name for name in NEEDS if importlib.util.find_spec(name) is None]


def in_words(counts: dict[str, int]) -> str:
    """Such as ``12 passed, 1 failed, 3 skipped``; what is zero is left out, but for passed."""
    failed = counts["failed"] + counts["error"]
    parts = [f"{counts['passed']:,} passed"]
    parts += [f"{failed:,} failed"] if failed else []
    parts += [f"{counts['skipped']:,} skipped"] if counts["skipped"] else []
    return ", ".join(parts)


def rendered(report: dict[str, Any]) -> str:
    """The page."""
    import jinja2

    from . import charts

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tests = report["tests"]
    drawn: dict[str, Any] = {}
    if report["curves"]:
        for against in ("steps", "scale"):
            drawn[against] = charts.curve(report["curves"], against)
    within = [
        (test["comparisons"]["worst"]["dtype"], share)
        for test in tests
        if (share := share_of(test)) is not None
    ]
    if within:
        drawn["shares"] = charts.shares(within)
    return environment.get_template("page.html.jinja").render(
        report=report,
        title=TITLES[report["verdict"]],
        words=in_words(report["counts"]),
        where=devices_of(report),
        judges=judges(report),
        legs=report["legs"],
        skips=skips(report),
        mutants=by_kind(report["mutants"]),
        failures=[test for test in tests if test["outcome"] in FAILED],
        nearest=nearest(tests),
        charts=list(drawn),
        packed={
            **libraries(),
            "figures": packed(json.dumps(drawn)),
            "rows": packed(json.dumps(rows(report), separators=(",", ":"))),
        },
    )


@functools.cache
def libraries() -> dict[str, str]:
    """The page's scripts that are not its own."""
    import itables.options
    import plotly.offline

    bundle = Path(itables.options.dt_bundle).read_text(encoding="utf-8")
    return {"plotly": packed(plotly.offline.get_plotlyjs()), "datatables": packed(bundle)}


def packed(text: str) -> str:
    """Compressed, and without a character that HTML could take for its own."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def number(value: Any) -> float:
    """A number of the report, in which a word stands for what JSON cannot say."""
    return math.inf if isinstance(value, str) else float(value)


def share_of(test: dict[str, Any]) -> float | None:
    """The worst error as a share of its bound; None where nothing was compared.

    None, too, where a test passed with an error beyond the bound: it is there to see that refused.
    """
    if not test["comparisons"]:
        return None
    worst = test["comparisons"]["worst"]
    error, bound = number(worst["error"]), number(worst["bound"])
    share = 0.0 if error == 0 else math.inf if bound == 0 or math.isinf(error) else error / bound
    return None if share > 1 and test["outcome"] not in FAILED else share


def nearest(tests: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The test whose worst comparison came nearest to its bound, or went furthest beyond it."""
    found = [(share, test) for test in tests if (share := share_of(test)) is not None]
    if not found:
        return None
    share, test = max(found, key=lambda one: one[0])
    return {"share": share, "test": test}


def rows(report: dict[str, Any]) -> dict[str, Any]:
    """What the table of cases shows, in the order of its columns, the gravest first."""
    places = {leg["name"]: place for place, leg in enumerate(report["legs"])}
    found = []
    for test in report["tests"]:
        worst = (test["comparisons"] or {}).get("worst") or {}
        share = share_of(test)
        found.append(
            [
                test["id"],
                places[test["leg"]],
                test["device"] or "",
                test["outcome"],
                worst.get("what"),
                "infinite" if share == math.inf else share,
                worst.get("error"),
                worst.get("bound"),
                worst.get("absolute"),
                worst.get("ulps"),
                round(test["seconds"], 4),
                worst.get("dtype"),
                test["reason"],
            ]
        )
    order = {"failed": 0, "error": 0, "passed": 1, "skipped": 2}
    found.sort(key=lambda row: (order[row[3]], 1 if row[5] is None else -number(row[5])))
    return {"legs": [leg["title"] for leg in report["legs"]], "rows": found}


def devices_of(report: dict[str, Any]) -> str:
    """On which devices tests ran: those that name no device ran on the CPU."""
    ran = {
        device
        for leg in report["legs"]
        for device, counts in leg["devices"].items()
        if counts["passed"] + counts["failed"] + counts["error"]
    }
    names = [report["environment"]["cpu"]["name"]] if "cpu" in ran else []
    if "cuda" in ran:
        names += dict.fromkeys(d["name"] for d in report["environment"]["cuda"]["devices"])
    return " and ".join(names)


def judges(report: dict[str, Any]) -> dict[str, list[str]]:
    """Held against whom, and against whom not, since nothing of that leg ran."""
    found: dict[str, list[str]] = {"held": [], "not held": []}
    for leg in report["legs"]:
        if leg["judge"]:
            passed = any(counts["passed"] for counts in leg["devices"].values())
            found["held" if passed else "not held"].append(leg["judge"])
    held = list(dict.fromkeys(found["held"]))
    return {
        "held": held,
        "not held": [j for j in dict.fromkeys(found["not held"]) if j not in held],
    }


def skips(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Each reason with its count and the legs that it skipped in."""
    return [
        {
            **skip,
            "legs": [
                leg["title"]
                for leg in report["legs"]
                if any(one["reason"] == skip["reason"] for one in leg["skips"])
            ],
        }
        for skip in report["skips"]
    ]


def by_kind(mutants: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mutants by kind; killed is one that a test noticed and none let live."""
    found = []
    for kind in dict.fromkeys(mutant["kind"] for mutant in mutants):
        own = [
            {**mutant, "fates": [FATES[mutant["suite"]], FATES[mutant["goldens"]]]}
            for mutant in mutants
            if mutant["kind"] == kind
        ]
        killed = [m for m in own if "killed" in m["fates"] and "not killed" not in m["fates"]]
        lives = [m for m in own if "not killed" in m["fates"]]
        found.append(
            {
                "title": KINDS.get(kind, kind),
                "mutants": own,
                "killed": len(killed),
                "lives": len(lives),
            }
        )
    return found
