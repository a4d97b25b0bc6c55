"""The random walk itself: that it is the same walk each time, and that it finds and shrinks."""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path
from typing import Any

import pytest

from . import fuzz
from .fuzz import VALUES, Walk, drawn, judges, parsed, settled, walked
from .keras_live import KerasLive
from .meta import test_mutants as mutants
from .sampling import amount

SEED = 2026


def test_a_case_depends_on_its_seed_and_number_alone() -> None:
    forwards = [drawn(SEED, n) for n in range(20)]
    assert [drawn(SEED, n) for n in reversed(range(20))] == forwards[::-1]
    assert len(set(forwards)) == 20
    assert not set(forwards) & {drawn(SEED + 1, n) for n in range(20)}


def test_a_line_is_the_case_and_a_case_has_no_contradiction() -> None:
    for number in range(300):
        walk = drawn(SEED, number)
        assert settled(walk) == walk
        assert parsed(repr(walk)) == walk


@functools.cache
def many() -> list[Walk]:
    return [drawn(SEED, n) for n in range(2000)]


def test_every_value_of_every_field_is_met() -> None:
    walks = many()
    for name, values in VALUES.items():
        missed = [v for v in values if not any(getattr(w, name) == v for w in walks)]
        assert not missed, f"{name} is never {missed}"


def test_every_exclusion_is_met_and_is_a_row_of_the_deviations() -> None:
    rows = (Path(__file__).parent / "deviations.txt").read_text().splitlines()
    known = {row.partition(" | ")[0] for row in rows}
    walks = many()
    applies = fuzz.NOT_ASKED | {n: rule for n, (rule, _) in fuzz.ASKED_OTHERWISE.items()}
    for name, rule in applies.items():
        assert name in known or name.startswith("("), name
        assert 0 < sum(map(rule, walks)) < 400, name


def test_sixty_cases_without_keras() -> None:
    report = walked(SEED, 60)
    assert not report.failures, "\n".join(map(str, report.failures))
    assert report.count == 60 and report.judges["oracle"] == 60
    assert {"float32", "engines", "weights", "config"} <= set(report.judges)


@pytest.mark.live
def test_cases_with_live_keras(keras: KerasLive) -> None:
    count = amount(20, 40)
    report = walked(SEED, count, keras)
    assert not report.failures, "\n".join(map(str, report.failures))
    assert report.judges["keras"] > 25 / 40 * count


@pytest.mark.parametrize(
    ("mutant", "expected"),
    [
        (mutants.gate_order("figo"), "Walk(kind='LSTM')"),
        (mutants.mask_shifted, "Walk(kind='LSTM', steps=2, mask='right')"),
        (mutants.zero_output_for_mask_ignored, None),
        (mutants.forget_gate_on_the_candidate, None),
    ],
)
def test_a_planted_defect_is_found_and_shrunk(
    mutant: mutants.Mutant, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        mutant(patch)
        report = walked(SEED, 200, stop_at=1)
        assert report.failed == 1, "it is not found"
        failure = report.failures[0]
        assert failure.command == f'python -m parity_tests --case "{failure.shrunk!r}"'
        again = parsed(repr(failure.shrunk))
        assert fuzz.judged(again).failures(), "the line does not reproduce it"
        judge = fuzz.Judge(None)
        for simpler in fuzz.simpler(again):
            assert judge.refusal(simpler, failure.verdict.judge) is None, simpler
    assert not fuzz.judged(again).failures(), "it fails without the defect"
    assert expected is None or repr(again) == expected


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    fuzz.add_arguments(parser)
    return parser


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rubbish", "'rubbish' is not a case: it is no call"),
        ("Walk(", "is not a case"),
        ("Walk(__import__('os').getcwd())", r"it is no Walk\(field=value, ...\)"),
        ("Walk(steps=__import__('os'))", "is not a case"),
        ("Walk(**{'steps': 3})", "'None' is no field of a case"),
        ("Case(steps=3)", r"it is no Walk\(field=value, ...\)"),
        ("Walk(stepz=3)", "'stepz' is no field of a case; known are activation, batch"),
        ("Walk(steps=99)", "steps=99 is not one of 1, 2, 3"),
        ("Walk(steps=True)", "steps=True is not one of"),
        ("Walk(data=-1)", "data=-1 must be an integer from 0"),
        ("Walk(activation='relu', use_cudnn=True, scale=0.1)", "contradicts itself; the nearest"),
    ],
)
def test_a_line_that_is_no_case_says_why(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=said):
        parsed(line)
    with pytest.raises(SystemExit) as ended:
        _parser().parse_args(["--case", line])
    assert ended.value.code == 2 and "argument --case" in capsys.readouterr().err


def test_the_command_writes_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "fuzz.json"
    given = ["--fuzz", "5", "--seed", "3", "--no-live", "--results", str(path)]
    assert fuzz.run(_parser().parse_args(given)) == 0
    assert capsys.readouterr().out.startswith("seed 3, 5 cases\n")
    found: dict[str, Any] = json.loads(path.read_text())
    assert (found["seed"], found["count"], found["failed"], found["failures"]) == (3, 5, 0, [])
    assert sum(found["cases_by_kind"].values()) == sum(found["cases_by_dtype"].values()) == 5
    assert found["cases_by_judge"]["oracle"] == 5
    assert {"torch", "numpy", "python", "machine"} <= set(found["versions"])
    assert 0 <= found["largest_error_per_bound"]["oracle"]["ratio"] <= 1
    assert list(path.parent.iterdir()) == [path]


def test_the_command_says_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutants.gate_order("figo")(monkeypatch)
    path = tmp_path / "fuzz.json"
    given = ["--fuzz", "3", "--seed", "3", "--no-live", "--results", str(path)]
    assert fuzz.run(_parser().parse_args(given)) == 1
    said = capsys.readouterr().out
    assert " of seed 3: oracle: " in said and "bound 1e-12" in said
    (line, *_) = [f["command"] for f in json.loads(path.read_text())["failures"]]
    assert line in said
    given = ["--no-live", "--case", line.partition('"')[2].rstrip('"')]
    assert fuzz.run(_parser().parse_args(given)) == 1
    assert "WRONG  oracle: " in capsys.readouterr().out


def test_what_raises_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(judges, "build", broken)
    (failure,) = fuzz.judged(Walk()).failures()
    assert failure.judge == "raises" and failure.what.startswith("RuntimeError: planted (")


def test_what_overflows_in_float32_alone_is_noted_and_not_judged() -> None:
    walk = parsed(
        "Walk(kind='cells', layers='ll', steps=2, units=8, activation='exponential', "
        "recurrent_activation='log_softmax', state='given', scale=0.1, dtype='float32')"
    )
    result = fuzz.judged(walk)
    assert not result.failures() and any(n.startswith("(no bound") for n in result.notes)
