"""What the workflows promise: pinned actions, few rights, and a GPU leg that cannot pass unseen.

The workflows are read line by line: the suite needs no YAML library. Where there is one, their
structure is checked too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.smoke

FOLDER = Path(__file__).resolve().parent.parent / ".github" / "workflows"
WORKFLOWS = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.y*ml"))}
every_workflow = pytest.mark.parametrize("name", WORKFLOWS)
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def uses(text: str) -> list[str]:
    """What stands behind each ``uses:``, with its comment."""
    return [m[1] for m in re.finditer(r"^\s*(?:- )?uses:\s*(.*?)\s*$", text, re.MULTILINE)]


def steps(text: str) -> list[str]:
    """The steps of a job's lines."""
    return re.split(r"^      - ", text, flags=re.MULTILINE)[1:]


def job(text: str, name: str) -> str:
    """A job's lines."""
    found = re.search(rf"^  {name}:\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    assert found is not None, f"no job {name}"
    return found[1]


def only(found: list[str]) -> str:
    assert len(found) == 1, found
    return found[0]


def test_the_workflows_are_there() -> None:
    assert set(WORKFLOWS) == {"cpu.yml", "gpu.yml", "nightly.yml"}


@every_workflow
def test_every_action_is_pinned_to_a_commit_and_names_its_version(name: str) -> None:
    found = uses(WORKFLOWS[name])
    assert found
    assert [use for use in found if not PINNED.fullmatch(use)] == []


def test_an_action_is_pinned_to_one_commit_everywhere() -> None:
    pins: dict[str, set[str]] = {}
    for text in WORKFLOWS.values():
        for use in uses(text):
            pins.setdefault(use.partition("@")[0], set()).add(use)
    assert {action: len(found) for action, found in pins.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    "use",
    [
        "actions/checkout@v4",
        "actions/checkout@11bd719 # v4.2.2",
        "actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683",
        "actions/checkout@main # v4.2.2",
        "actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683 # v4",
    ],
)
def test_what_is_not_pinned_is_noticed(use: str) -> None:
    assert uses(f"    steps:\n      - uses: {use}\n") == [use]
    assert not PINNED.fullmatch(use)


@every_workflow
def test_rights_are_to_read_alone(name: str) -> None:
    text = WORKFLOWS[name]
    assert re.search(r"^permissions:\n  contents: read\n(?! )", text, re.MULTILINE)
    assert text.count("permissions:") == 1, "a job that asks for more"
    assert ": write" not in text
    assert "pull_request_target" not in text
    assert "secrets." not in text


@every_workflow
def test_no_text_of_a_stranger_becomes_a_command(name: str) -> None:
    """An expression of the event in a command would run what a pull request's title says."""
    assert "${{ github.event" not in WORKFLOWS[name]


def test_a_gpu_runs_what_a_maintainer_asked_for_alone() -> None:
    text = WORKFLOWS["gpu.yml"]
    triggers = re.search(r"^on:\n((?: .*\n)+)", text, re.MULTILINE)
    assert triggers is not None
    assert triggers[1] == "  workflow_dispatch:\n  pull_request:\n    types: [labeled]\n"
    gate = "if: github.event_name == 'workflow_dispatch' || github.event.label.name == 'gpu'"
    for name in re.findall(r"^  ([\w-]+):$", text.partition("\njobs:\n")[2], re.MULTILINE):
        lines = job(text, name).splitlines()
        if any("self-hosted" in line for line in lines):
            assert f"    {gate}" in lines, f"{name} has no gate"
    assert "runs-on: [self-hosted, linux, gpu]" in job(text, "cuda")


def test_a_gpu_is_asserted_before_the_leg_runs() -> None:
    found = steps(job(WORKFLOWS["gpu.yml"], "cuda"))
    asked = [i for i, s in enumerate(found) if "assert torch.cuda.is_available()" in s]
    ran = [i for i, s in enumerate(found) if "-m parity_tests " in s]
    assert len(asked) == len(ran) == 1 and asked < ran
    assert "--device cuda" in found[ran[0]]
    assert "CUBLAS_WORKSPACE_CONFIG" in job(WORKFLOWS["gpu.yml"], "cuda")


def test_the_leg_needs_torch_numpy_h5py_and_pytest_alone() -> None:
    """Until it has run: what else is installed is for the step that needs it."""
    for workflow, name in (("gpu.yml", "cuda"), ("cpu.yml", "cuda-leg-without-a-gpu")):
        before = "".join(job(WORKFLOWS[workflow], name).partition("-m parity_tests ")[:1])
        installed = only(re.findall(r"pip install -c constraints.txt (.*)", before))
        assert installed.split() == ["torch", "numpy", "h5py", "pytest"]


def test_the_report_is_uploaded_whatever_happened() -> None:
    text = WORKFLOWS["gpu.yml"]
    upload = only([s for s in steps(job(text, "cuda")) if "actions/upload-artifact@" in s])
    assert "if: always()" in upload
    assert "path: report\n" in upload
    assert "--report report " in job(text, "cuda")
    assert "continue-on-error" not in text
    assert "--render report/parity.json" in job(text, "page")


def test_everything_runs_every_night() -> None:
    text = WORKFLOWS["nightly.yml"]
    assert re.search(r"^on:\n  schedule:\n    - cron: ", text, re.MULTILINE)
    ran = only([s for s in steps(job(text, "everything")) if "-m parity_tests " in s])
    assert "--full" in ran and "continue-on-error" not in text


@every_workflow
def test_the_structure_is_that_of_a_workflow(name: str) -> None:
    yaml = pytest.importorskip("yaml")
    found: dict[Any, Any] = yaml.safe_load(WORKFLOWS[name])
    assert found["permissions"] == {"contents": "read"}
    for one in found["jobs"].values():
        assert one["runs-on"] and one["timeout-minutes"] <= 60
        assert all(("uses" in step) != ("run" in step) for step in one["steps"])
    pinned = [s["uses"] for one in found["jobs"].values() for s in one["steps"] if "uses" in s]
    assert pinned == [use.partition(" #")[0] for use in uses(WORKFLOWS[name])]
