"""Records that a hand has spoiled, and names that collide: told of, and no command ends by them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.atomic import write_text
from mlmodeldev.cli import slurm_train
from mlmodeldev.errors import UsageError
from mlmodeldev.lease import owner_record
from mlmodeldev.report import curves
from mlmodeldev.sweep import results
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.record import history, read_record, read_text_rows
from mlmodeldev.trial.record_types import DAMAGED, faults
from tests.report.made_up import MadeUpSweep, content_of

ODD: list[Any] = [
    True, -1, 2.5, 10**400, float("nan"), "text", [], [1, None], {}, {"name": 5, "value": "x"},
    {"value": [1], "name": "val/accuracy", "mode": "max"}, {"test/accuracy": "high"},
    {"a": {"b": 1}},
]  # fmt: skip
FILES: list[bytes] = [
    b"", b"null", b"[1]", b"5", b'"done"', b"\xff\xfe\x00", b"{", b"[" * 200_000,
    b'{"epoch": ' + b"9" * 5000 + b"}", b'{"state": ["done"]}', b'{"state": "finished"}',
]  # fmt: skip


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> MadeUpSweep:
    """A sweep of which each trial's record has odd entries, or is none; but for the first's."""
    folder = tmp_path_factory.mktemp("spoiled")
    made = MadeUpSweep(folder, [10 ** -(i / 3) for i in range(1, 9)], [16, 32, 48, 64], [0, 1])
    made.write(matrices=0)
    names = json.loads((made.runs / made.trials[0].id / "trial.json").read_text())
    names = [*names, "owner", "lease", "slurm", "overrides", "parent"]
    files = [made.runs / trial.id / "trial.json" for trial in made.trials[1:]]
    for file, content in zip(files, FILES, strict=False):
        file.write_bytes(content)
    spoilt = list(itertools.product(range(4), ODD))  # every fourth entry has the odd value
    for file, (first, value) in zip(files[len(FILES) :], spoilt, strict=True):
        record = json.loads(file.read_text())
        file.write_text(json.dumps({**record, **dict.fromkeys(names[first::4], value)}))
    return made


def command(made: MadeUpSweep, *words: str) -> int:
    given = ["--sweep", str(made.file), f"artefacts.runs_dir={made.runs.parent}", "logger=csv"]
    return slurm_train([*words, *given])


def test_the_table_names_damaged_records_and_shows_the_rest(
    spoiled: MadeUpSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(spoiled, "status", "--json") == 0
    printed = capsys.readouterr()
    trials = {row["id"]: row for row in json.loads(printed.out)["trials"]}
    assert len(trials) == len(spoiled.trials)
    assert trials[spoiled.trials[0].id]["state"] == "done"
    for trial in spoiled.trials[1 : len(FILES) + 1]:
        assert trials[trial.id]["state"] == "failed"
    lines = printed.err.splitlines()
    assert sum("trial.json: damaged: " in line for line in lines) == 5
    assert lines[-1].endswith("more damaged records")
    assert command(spoiled, "status") == 0


def test_results_and_page_go_on_without_what_is_damaged(
    spoiled: MadeUpSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(spoiled, "collect", "--json") == 0
    printed = capsys.readouterr()
    rows = {row["id"]: row for row in json.loads(printed.out)["trials"]}
    whole = spoiled.trials[0]
    assert rows[whole.id]["val/accuracy"] == spoiled.value(whole.overrides)
    assert "trial.json is damaged" in rows[spoiled.trials[1].id]["reason"]
    assert "damaged" in printed.err
    content = content_of(spoiled.report())
    assert len(content["trials"]) == len(spoiled.trials)
    assert sum("damaged" in trial for trial in content["trials"]) > 50


def test_a_trial_does_not_begin_on_a_damaged_record(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "trial.json").write_text('{"state": "failed", "attempts": "two"}')
    before = (tmp_path / "trial.json").read_bytes()
    with pytest.raises(UsageError, match=r"trial.json: attempts is 'two', not a number; correct"):
        TrialFolder(tmp_path).claim()
    (tmp_path / "trial.json").write_text('{"epoch": ' + "9" * 5000 + "}")
    with pytest.raises(UsageError, match="is no record of a trial"):
        TrialFolder(tmp_path).claim()
    (tmp_path / "trial.json").write_bytes(before)
    assert read_record(tmp_path) == {
        "state": "failed",
        DAMAGED: ["attempts is 'two', not a number"],
    }


@pytest.mark.parametrize("name", results.FACTS)
def test_a_metric_may_be_called_as_a_column_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    made = MadeUpSweep(tmp_path, [0.01, 0.1], [16], [0])
    made.write(matrices=0)
    text = json.loads(made.file.read_text())
    made.file.write_text(json.dumps(text | {"metric": {"name": name, "goal": "maximize"}}))
    for number, trial in enumerate(made.trials):
        log = [{"epoch": 1, "step": 40, name: 1.0 + number}]
        (made.runs / trial.id / "log.json").write_text(json.dumps(log))
    assert command(made, "collect", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert {row["id"] for row in shown["trials"]} == {trial.id for trial in made.trials}
    assert shown["metric"] == name
    values = [row[results.column_of(name)] for row in shown["trials"]]
    assert values == sorted(values, reverse=True)
    assert len(content_of(made.report())["trials"]) == 2
    assert command(made, "status") == 0


def test_metrics_without_room_on_the_page_are_counted_there(tmp_path: Path) -> None:
    made = MadeUpSweep(tmp_path, [0.01], [16], [0])
    made.write(matrices=0)
    names = [f"val/class-{number}" for number in range(40)]
    row = ",".join("1" for _ in names)
    table = f"epoch,step,{','.join(names)}\n0,1,{row}\n"
    (made.runs / made.trials[0].id / "metrics.csv").write_text(table)
    page = made.report()
    content = content_of(page)
    assert len(content["metrics"]) == curves.MOST_METRICS
    assert content["metrics_left_out"] == 40 + 1 - curves.MOST_METRICS
    assert "for want of room" in page.read_text()


def test_results_are_shown_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = MadeUpSweep(tmp_path, [0.01], [16], [0])
    made.write(matrices=0)

    def refuse(path: Path, text: str) -> None:
        raise UsageError(f"{path}: the file system is read-only")

    monkeypatch.setattr(results, "write_text", refuse)
    assert command(made, "collect") == 0
    printed = capsys.readouterr()
    assert "val/accuracy" in printed.out
    assert "rows:" not in printed.out
    assert printed.err.count("\n") == 1
    assert "the rows were not written" in printed.err
    assert "read-only" in printed.err
    assert command(made, "collect", "--out", str(tmp_path / "a.csv")) == 2


def test_a_table_that_is_not_utf_8_hides_no_other_trial(tmp_path: Path) -> None:
    made = MadeUpSweep(tmp_path, [0.01, 0.1], [16], [0])
    made.write(matrices=0)
    folder = made.runs / made.trials[0].id
    (folder / "metrics.csv").write_bytes("epoch,step,größe\n0,1,2\n".encode("latin-1"))
    (folder / "log.json").unlink()
    assert history(folder, "val/accuracy") == []
    assert read_text_rows(folder / "metrics.csv")[1][0]["step"] == "1"
    assert command(made, "collect") == 0
    assert len(content_of(made.report())["trials"]) == 2


def test_numbers_of_thousands_of_digits_and_deep_brackets_are_no_metric(tmp_path: Path) -> None:
    for text in ('[{"epoch": 1, "loss": ' + "9" * 5000 + "}]", "[" * 100_000):
        write_text(tmp_path / "log.json", text)
        assert history(tmp_path, "loss") == []
    write_text(tmp_path / "log.json", json.dumps([{"epoch": 1, "loss": 10**4000}]))
    assert history(tmp_path, "loss") == []


def test_what_the_product_writes_is_never_taken_for_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job's list of a thousand nodes, a variable that is there and empty."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NODELIST", ",".join(f"node{n}" for n in range(0, 2000, 2)))
    monkeypatch.setenv("SLURM_JOB_ACCOUNT", "")
    assert faults({**owner_record(), "wandb_sweep": "", "token": "ab"}) == {}
