"""The short form of ``make chaos``; that its monkey replays, and its checks see what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.checks import Findings, _check_spans, _compare
from tests.chaos.monkey import FAULTS, deck
from tests.chaos.outcome import Outcome, outcome
from tests.chaos.run import run
from tests.chaos.table import row_of, with_row

SEED = 20
ROWS = ["epoch,step,train_loss,time/logged", "0,0,1.5,10", "0,1,1.25,11"]


@pytest.mark.slow
@pytest.mark.project
@pytest.mark.timeout(3000)  # three minutes on two quiet cores; a busy machine is no defect
def test_nothing_is_lost_doubled_or_left_behind() -> None:
    report = run(SEED, "3")
    assert report.is_good, report.text()
    assert report.counts.total() >= 10, report.text()


def test_a_seed_deals_the_same_faults_and_each_kind_before_any_again() -> None:
    assert deck(7, 3 * len(FAULTS)) == deck(7, 3 * len(FAULTS))
    assert deck(7, len(FAULTS)) != deck(8, len(FAULTS))
    assert sorted(deck(7, len(FAULTS))) == sorted(FAULTS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("best", "last"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "metrics.csv").write_text("\n".join([*ROWS, ""]))
    return tmp_path


def differences(folder: Path, wanted: Outcome) -> list[str]:
    findings = Findings()
    _compare(findings, "trial", outcome(folder), wanted)
    return [line.partition(":")[0] for line in findings.lines]


def test_the_checks_see_what_is_not_as_undisturbed(folder: Path) -> None:
    wanted = outcome(folder)
    table = folder / "metrics.csv"
    assert differences(folder, wanted) == []
    table.write_text("\n".join([*ROWS[:2], "0,1,1.25,99", ""]))
    assert differences(folder, wanted) == [], "another time is no difference"
    table.write_text("\n".join([*ROWS, ROWS[-1], ""]))
    assert differences(folder, wanted) == ["doubled"]
    table.write_text("\n".join([*ROWS[:2], ""]))
    assert differences(folder, wanted) == ["lost"]
    table.write_text("\n".join([*ROWS, ""]))
    (folder / "last" / "model.safetensors").write_bytes(b"others")
    assert differences(folder, wanted) == ["lost"]
    (folder / "last" / "model.safetensors").write_bytes(b"weights")
    (folder / ".trial.json.0a1b.tmp").touch()
    assert differences(folder, wanted) == ["left behind"]


def test_the_checks_see_two_at_once_and_let_one_after_the_other_be(tmp_path: Path) -> None:
    file = tmp_path / "spans.txt"
    lines = ["a\tbegin\t1\t1.0", "a\tbegin\t2\t3.0", "a\tend\t2\t4.0", "b\tbegin\t3\t1.0"]
    file.write_text("\n".join(lines))
    findings = Findings()
    _check_spans(findings, file)
    assert findings.lines == [], "the first was killed"
    file.write_text("\n".join([*lines, "a\tend\t1\t5.0"]))
    _check_spans(findings, file)
    assert len(findings.doubled) == 1


def test_a_run_replaces_its_own_row_in_the_page() -> None:
    from tests.chaos.run import Report

    page = "before\n<!-- chaos: begin -->\n<!-- chaos: end -->\nafter\n"
    first, second = Report(1, "3", 19), Report(2, "3", 19)
    once = with_row(with_row(page, first), second)
    again = with_row(once, Report(1, "3", 20))
    assert row_of(first) in once
    assert row_of(first) not in again
    assert row_of(second) in again
    assert again.startswith("before\n")
    assert again.endswith("\nafter\n")
    assert with_row(again, second) == again
