"""What GitHub reads: the workflow runs make targets that there are, and every file has its form.

The schemas lie in the package check-jsonschema; nothing is fetched.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from tests.test_packaging import project

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
FORMS = {
    ".github/workflows/ci.yml": "github-workflows",
    ".github/ISSUE_TEMPLATE/bug.yml": "github-issue-forms",
    ".github/ISSUE_TEMPLATE/feature.yml": "github-issue-forms",
    ".github/ISSUE_TEMPLATE/config.yml": "github-issue-config",
    "CITATION.cff": "citation-file-format",
}


def checked(file: Path, schema: str) -> subprocess.CompletedProcess[str]:
    wanted = ["--builtin-schema", f"vendor.{schema}", "--force-filetype", "yaml", str(file)]
    return subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *wanted],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def workflow() -> dict[str, Any]:
    return yaml.safe_load(WORKFLOW.read_text())


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job in workflow()["jobs"].items():
        for step in job["steps"]:
            yield name, step


def commands() -> list[tuple[str, list[str]]]:
    """Each command of each job, as words."""
    return [
        (job, shlex.split(line, comments=True))
        for job, step in steps()
        for line in step.get("run", "").splitlines()
    ]


@pytest.mark.parametrize(("name", "schema"), FORMS.items())
def test_the_file_has_its_form(name: str, schema: str) -> None:
    done = checked(ROOT / name, schema)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_that_has_a_form_is_left_out() -> None:
    there = {str(p.relative_to(ROOT)) for p in (ROOT / ".github").rglob("*.y*ml")}
    assert there == {name for name in FORMS if name.startswith(".github")}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("runs-on:", "run-on:"), ("timeout-minutes: 20", "timeout-minutes: soon"), ("jobs:", "job:")],
)
def test_a_mistake_in_the_workflow_is_seen(tmp_path: Path, right: str, wrong: str) -> None:
    spoiled = tmp_path / "ci.yml"
    spoiled.write_text(WORKFLOW.read_text().replace(right, wrong))
    done = checked(spoiled, "github-workflows")
    assert done.returncode == 1
    assert "Schema validation errors" in done.stdout


def test_tests_are_run_by_make_targets_that_there_are() -> None:
    made: set[str] = set()
    for job, words in commands():
        if words[0] == "make":
            done = subprocess.run(
                ["make", "--dry-run", *words[1:]],
                cwd=ROOT, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            made |= {word for word in words[1:] if "=" not in word}
        else:  # what a fresh image lacks; the audit, which asks a public database
            assert (job, words[0]) in {("slurm", "apt-get"), ("audit", "pipx")}
    wanted = {"lint", "shipped-check", "test", "venv", "coverage", "test-slurm", "conda", "docs"}
    assert made == wanted


def test_a_target_that_there_is_not_would_be_seen() -> None:
    done = subprocess.run(
        ["make", "--dry-run", "no-such"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "No rule to make target 'no-such'" in done.stderr


def test_the_pythons_are_those_that_the_project_allows() -> None:
    pythons = workflow()["jobs"]["tests"]["strategy"]["matrix"]["python"]
    allowed = SpecifierSet(project()["requires-python"])
    oldest = next(minor for minor in range(99) if f"3.{minor}" in allowed)
    assert pythons == [f"3.{oldest + more}" for more in range(len(pythons))]
    assert len(pythons) >= 3


def test_each_job_ends_by_itself_and_may_only_read() -> None:
    assert workflow()["permissions"] == {"contents": "read"}
    for name, job in workflow()["jobs"].items():
        assert 0 < job["timeout-minutes"] <= 90, name
        assert "permissions" not in job, name


def test_programs_of_others_are_of_one_version_and_get_no_key() -> None:
    """A tag can be moved to other code; a commit can't."""
    actions = [step for _, step in steps() if "uses" in step]
    assert len(actions) >= 10
    for step in actions:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"]), step
        if step["uses"].startswith("actions/checkout@"):
            assert step["with"] == {"persist-credentials": False}
    named = re.findall(r"uses: actions/[\w-]+@\S+(  # v\d+\.\d+\.\d+)?\n", WORKFLOW.read_text())
    assert len(named) == len(actions)
    assert all(named), "a commit without its version"
    assert "pull_request_target" not in WORKFLOW.read_text()
    assert "secrets." not in WORKFLOW.read_text()


def test_the_slurm_job_has_what_the_tests_ask_for() -> None:
    """A Debian, as root, that may give each node a host name; no Slurm is a failure there."""
    container = workflow()["jobs"]["slurm"]["container"]
    assert container["image"] == "debian:bookworm"
    assert "--privileged" in container["options"]
    shown = subprocess.run(
        ["make", "--dry-run", "test-slurm"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "SLURM_TESTS=require" in shown
    assert "bash tools/debian.sh slurm" in shown


def test_the_audit_reads_all_sets() -> None:
    audits = [words for job, words in commands() if job == "audit"]
    assert {words[-1] for words in audits} >= {
        *("requirements.lock", "tools/dvc.lock", "tools/extras.lock", "tools/docs.lock"),
    }
    for words in audits:  # not strict, it passes where the database knows nothing
        assert {"--strict", "--no-deps", "--disable-pip"} < set(words)


def test_the_citation_names_the_newest_version_of_the_changelog() -> None:
    newest = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == newest[1]
    assert citation["license"] == project()["license"]
    assert citation["url"] == project()["urls"]["Homepage"]
    assert citation["repository-code"] == project()["urls"]["Repository"]
