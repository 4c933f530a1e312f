"""Targets that trials and launchers leave for one another: records, notes, tables, journals."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from tests.fuzz.mutation import ODD_VALUES, WORDS, spoiled_bytes, spoiled_json, spoiled_text
from tests.fuzz.target import Target, may_refuse

SWEEP = """\
name: odd
method: grid
metric: {name: val/accuracy, goal: maximize}
parameters:
  optimizer.lr: {values: [0.1, 0.2]}
"""
RECORD: dict[str, Any] = {
    "id": "x", "version": 2, "sweep": "odd", "created": 1.7e9, "reason": None, "attempts": 2,
    "token": "ab" * 16, "begun": 1.7e9, "state": "running", "updated": 1.7e9, "seconds": 12.5,
    "owner": {"host": "node1", "pid": 4242, "started": 99, "namespace": 1, "token": "ab" * 16},
    "lease": 4e9, "slurm": {"job_id": "1202", "array_job_id": "1201", "array_task_id": "1"},
    "uploaded": False, "epoch": 2, "epochs": 5, "overrides": {"optimizer.lr": 0.1},
    "metric": {"name": "val/accuracy", "mode": "max", "value": 0.9, "epoch": 2},
    "test": {"test/accuracy": 0.8}, "usage": {"seconds": 3.0, "gpu": [0.5]}, "wandb_id": "x-1a",
    "code": {"commit": "0" * 40, "digest": "1" * 64}, "wandb_place": ["team", "odd"],
}  # fmt: skip
LOG: list[dict[str, Any]] = [
    {"epoch": 1, "step": 10, "val/accuracy": 0.5, "train/loss": 1.0},
    {"epoch": 2, "step": 20, "val/accuracy": 0.9, "train/loss": 0.5},
]
TABLE = "epoch,step,time/logged,train/loss,val/accuracy\n0,0,1.5,2.25,\n0,10,2.5,1.0,0.5\n1,20,3.5,,0.9\n"
JOBS: dict[str, Any] = {
    "version": 1, "snapshot": "/tmp/runs/.code/ab", "created": 1.7e9, "gpus": 1, "count": None,
    "restarts_after_kill": 0, "overrides": ["cluster=generic"], "seed": 0, "intent": [["c"]],
    "arrays": [{"job": "1201", "tasks": [["a"], ["b"]]}, {"job": "1300", "tasks": [["d"]]}],
}  # fmt: skip


@cache
def _trials() -> tuple[Any, list[Any]]:
    from mlmodeldev.sweep import loads

    sweep = loads(SWEEP)
    return sweep, list(sweep.trials())


# --- a trial's folder


def make_folder(rng: Random) -> dict[str, bytes]:
    """Return a trial's files by name, one of them or all spoilt."""
    which = rng.randrange(8)
    table = TABLE.encode()
    if which in (5, 6, 7):
        table = spoiled_text(rng, TABLE, (*WORDS, "1e400", "nan", '"', ",,,")).encode(
            "utf-8", "surrogatepass"
        )
        table = spoiled_bytes(rng, table) if which == 7 else table
    record = spoiled_json(rng, RECORD) if which < 5 else json.dumps(RECORD).encode()
    log = spoiled_json(rng, LOG) if which in (4, 5) else json.dumps(LOG).encode()
    return {"trial.json": record, "log.json": log, "metrics.csv": table}


def check_folder(given: dict[str, bytes], folder: Path) -> None:
    """State, values and tables of a trial can be told whatever its folder holds."""
    from mlmodeldev.lease import owned
    from mlmodeldev.slurm.trial_entries import TrialEntry, begun_trial
    from mlmodeldev.slurm.waiting import waits_for
    from mlmodeldev.sweep.results import collect, write_rows
    from mlmodeldev.trial.folder import TrialFolder
    from mlmodeldev.trial.record import read_record

    sweep, trials = _trials()
    base = folder / "odd"
    place = base / trials[0].id
    place.mkdir(parents=True)
    for name, content in given.items():
        (place / name).write_bytes(content)
    record = read_record(place)
    wanted = _json(given["trial.json"])
    if isinstance(wanted, dict) and isinstance(wanted.get("state"), str) and wanted["state"].isalnum() and len(wanted["state"]) < 300:
        assert record["state"] == wanted["state"]
    with may_refuse():
        TrialFolder(place).read()
    owned(record)
    begun_trial(sweep, place, record)
    ranked = [TrialEntry(each, base, ranked_by=sweep.definition.metric) for each in trials]
    by_monitor = TrialEntry(trials[0], base)
    for entry in (*ranked, by_monitor):
        json.dumps(entry.as_dict())
        waits_for(entry.state, None, True)
        assert entry.value is None or math.isfinite(entry.value) or entry is by_monitor
    results = collect(ranked, "val/accuracy", "maximize")
    file = folder / "results.csv"
    with may_refuse():
        write_rows(results, file)
        with file.open(newline="", encoding="utf-8") as opened:
            assert {row["id"] for row in csv.DictReader(opened)} == {each.id for each in trials}


def _json(data: bytes) -> Any:
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError):
        return None


# --- metrics.csv by itself


def make_table(rng: Random) -> bytes:
    """Return a table: a spoilt one, or one by rows of numbers, of which some are odd."""
    if rng.random() < 0.5:
        text = spoiled_text(rng, TABLE, (*WORDS, "1e400", "nan", '"', ",,,"))
        return spoiled_bytes(rng, text.encode("utf-8", "surrogatepass"))
    columns = rng.sample(["epoch", "step", "a", "b/c", "time/logged", "", "a"], rng.randint(1, 6))
    rows = [[rng.choice(("", "1", "0.25", "nan", "inf", "-1", "x", '"', "1e-400", "٣"))
             for _ in range(rng.choice((len(columns), len(columns), rng.randrange(8))))]
            for _ in range(rng.randrange(5))]  # fmt: skip
    out = io.StringIO()
    csv.writer(out, lineterminator=rng.choice(("\n", "\r\n"))).writerows([columns, *rows])
    return out.getvalue()[: rng.choice((None, None, -1, -3))].encode()


def check_table(given: bytes, folder: Path) -> None:
    """What is read of a healthy table is what the csv module reads; a logger goes on with any."""
    from mlmodeldev.tracking.metrics_csv import MetricsFile
    from mlmodeldev.trial.record import history, read_rows, read_text_rows

    file = folder / "metrics.csv"
    file.write_bytes(given)
    columns, rows = read_text_rows(file)
    numbers = read_rows(file)
    assert len(numbers) <= len(rows)
    assert all(isinstance(v, float) for row in numbers for v in row.values())
    values = history(folder, "a")
    assert all(map(math.isfinite, values))
    if _is_healthy(given):
        wanted = [row for row in csv.DictReader(io.StringIO(given.decode())) if row["step"]]
        assert [row["step"] for row in rows] == [row["step"] for row in wanted]
        assert columns == list(wanted[0]) if wanted else True
    logger = MetricsFile(file, clock=lambda: 5.0)
    logger.resume_from(step=15)
    logger.log_metrics({"new": 0.1 + 0.2}, step=15)
    logger.finalize("success")
    after = read_rows(file)
    assert after[-1]["new"] == 0.1 + 0.2
    assert after[-1]["step"] == 15
    assert all(row["step"] < 15 for row in after[:-1])


def _is_healthy(data: bytes) -> bool:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    lines = text.split("\n")
    columns = lines[0].split(",")
    plain = all(c.isascii() and (c.isprintable() or c == "\n") and c not in "\"'" for c in text)
    widths = all(line.count(",") == len(columns) - 1 for line in lines[:-1])
    steps = [line.split(",") for line in lines[1:-1]]
    return (plain and widths and lines[-1] == "" and len(set(columns)) == len(columns)
            and columns[:2] == ["epoch", "step"] and all(s[1].isdecimal() for s in steps)
            and "\n\n" not in text)  # fmt: skip


# --- submissions


def make_jobs(rng: Random) -> tuple[bytes, bytes | None, str]:
    """Return jobs.json, the number that a job noted beside it, and the queue's answer."""
    note = rng.choice((None, None, b"1400", b"", b"\xff", b"x" * 99))
    queue = rng.choice(("", "1201_0|RUNNING|None|1:00|n1\n", "1201_1|PENDING|Priority|5:00|\nbad"))
    return spoiled_json(rng, JOBS), note, queue


def check_jobs(given: tuple[bytes, bytes | None, str], folder: Path) -> None:
    """Which job runs which trial can be told, of the submissions that can be read."""
    from mlmodeldev.slurm import submission

    jobs, note, queue = given
    place = folder / ".jobs" / "20260101-000000-x"
    whole = folder / ".jobs" / "20260102-000000-y"
    for each in (place, whole):
        each.mkdir(parents=True)
    (place / "jobs.json").write_bytes(jobs)
    (whole / "jobs.json").write_text(json.dumps({**JOBS, "intent": None, "created": 1.8e9}))
    if note is not None:
        (place / "tasks-2.job").write_bytes(note)
    with mock.patch("mlmodeldev.slurm.query.ask_slurm", return_value=queue):
        found = submission.submissions(folder)
        assert whole in [each.folder for each in found]
        assert submission.jobs_of(folder)["d"]
        submission.live_arrays(folder)
        submission.search_workers(folder)
        all_jobs = submission.trial_jobs(folder)
    assert {"a", "b", "d"} <= {*all_jobs}
    assert all(isinstance(job.job, str) for job in all_jobs.values())


# --- a search's journal


@cache
def _journal_text() -> tuple[bytes, ...]:
    import tempfile

    from mlmodeldev.sweep.journal import Journal
    from optuna.distributions import FloatDistribution
    from optuna.trial import TrialState, create_trial

    with tempfile.TemporaryDirectory() as name:
        journal = Journal(Path(name))
        with journal.lock:
            study = journal.study("odd", "maximize")
            for number in range(3):
                trial = create_trial(
                    state=TrialState.RUNNING, params={"x": 0.1 * number},
                    distributions={"x": FloatDistribution(0.0, 1.0)},
                    user_attrs={"id": f"t{number}", "owner": None},
                )  # fmt: skip
                made = journal.storage.create_new_trial(study, trial)
                journal.storage.set_trial_user_attr(made, "owner", "w")
                if number:
                    journal.storage.set_trial_intermediate_value(made, 1, 0.5)
                    journal.storage.set_trial_state_values(made, TrialState.COMPLETE, [0.5])
        return tuple(journal.path.read_bytes().splitlines(keepends=True))


def make_journal(rng: Random) -> bytes:
    """Return a journal with a line spoilt, torn, doubled, moved or foreign, anywhere but at first."""
    lines = [*_journal_text()]
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(1, len(lines) + 1)
        kind = rng.randrange(7)
        if kind < 4 and at < len(lines):
            try:
                tree = json.loads(lines[at])
            except (ValueError, RecursionError):
                continue
            lines[at] = spoiled_json(rng, tree).replace(b"\n", b" ") + b"\n"
        elif kind == 4 and at < len(lines):
            lines[at] = spoiled_bytes(rng, lines[at])
        elif kind == 5:
            lines.insert(at, rng.choice(lines))
        else:
            code = rng.choice((-1, 99, None, "x", 3, 4, 8, 1.5, True, [1]))
            lines.insert(at, json.dumps({"op_code": code, "worker_id": "w"}).encode() + b"\n")
        lines = [line for line in lines if line] or [b""]
    data = b"".join(lines)
    return data[: -rng.randrange(1, 60)] if rng.random() < 0.2 else data


def check_journal(given: bytes, folder: Path) -> None:
    """A worker reads on behind any line, and what it writes is read by the next."""
    from mlmodeldev.sweep.journal import Journal
    from optuna.trial import TrialState, create_trial

    (folder / "journal.log").write_bytes(given)
    journal = Journal(folder)
    with may_refuse(), journal.lock:
        study = journal.study("odd", "maximize")
        before = len(journal.storage.get_all_trials(study))
        state = create_trial(state=TrialState.RUNNING, user_attrs={"id": "new"})
        journal.storage.create_new_trial(study, state)
        other = Journal(folder)
        other.lock = journal.lock
        rows = other.storage.get_all_trials(other.study("odd", "maximize"))
        assert len(rows) == before + 1
        assert rows[-1].user_attrs["id"] == "new"


# --- runs of W&B, and which trial each belongs to

_IDS = (
    *("x7", "a-b_c", "..", ".", "../x", "/etc/x", "a/b", "a\\b", "x" * 128, "x" * 129, "", " ", "a b"),
    *("\0", "a\0b", "é" * 100, "a\nb", ".hidden", "%2e", "#", "con", "wandb:", "~", "*", "x?"),
)


def make_run(rng: Random) -> tuple[str, bytes | None]:
    """Return a run's id and the note beside the runs."""
    run = rng.choice(_IDS) if rng.random() < 0.6 else spoiled_text(rng, rng.choice(_IDS))
    note = rng.choice((None, b"odd/t", b"odd/other", b"gone/x", b"wandb:a/b", b"", b"\xff", b"../..",
                       b"/", b"odd/t\n", b"\0", b"x" * 5000))  # fmt: skip
    return run, note


def check_run(given: tuple[str, bytes | None], folder: Path) -> None:
    """A run is one trial's; another of the same id is refused; no note lies elsewhere."""
    from mlmodeldev.trial.agent_run import OWNERS, give_run, owner_of, take_run

    run, note = given
    runs = folder / "runs"
    for name in ("odd/t", "odd/other"):
        (runs / name).mkdir(parents=True)
    names = runs / OWNERS
    names.mkdir()
    if note is not None and run and not {*run} & {*"/\0"} and run not in (".", ".."):
        try:
            (names / run).write_bytes(note)
        except (OSError, UnicodeEncodeError):
            note = None
    before = {str(path) for path in folder.rglob("*")}
    with may_refuse():
        first = take_run(runs / "odd/t", run)
        second = take_run(runs / "odd/other", run)
        third = take_run(runs / "odd/t", run)
        owner = owner_of(runs, run)
        assert first == third
        if owner is not None:
            assert not (first and second), "a run is two trials'"
        give_run(runs, run, "a/b")
    new = {str(path) for path in folder.rglob("*")} - before
    assert all(Path(path).parent == names for path in new), new


def make_offline(rng: Random) -> tuple[bytes, dict[str, str]]:
    """Return a record that tells of a trial's run, and what an agent has set."""
    variables = {}
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_ENTITY", "WANDB_PROJECT"):
        if rng.random() < 0.5:
            variables[name] = rng.choice((*_IDS[:13], "é")).replace("\0", "")
    record = {**RECORD, "wandb_path": "team/odd/x-1a"}
    tree = {**record, rng.choice(("wandb_path", "wandb_place", "wandb_id", "wandb_sweep")):
            rng.choice(ODD_VALUES)}  # fmt: skip
    return spoiled_json(rng, tree), variables


def check_offline(given: tuple[bytes, dict[str, str]], folder: Path) -> None:
    """A trial without a network has a run of its own, the same one when it asks again."""
    from types import SimpleNamespace

    from mlmodeldev.tracking.wandb_run_id import choose_run
    from mlmodeldev.trial.folder import TrialFolder

    record, variables = given
    place = folder / "runs" / "odd" / "t"
    place.mkdir(parents=True)
    (place / "trial.json").write_bytes(record)
    logger = SimpleNamespace(wandb=SimpleNamespace(entity=None, project="odd"))
    settings: Any = SimpleNamespace(logger=logger)
    with mock.patch.dict(os.environ, variables), may_refuse():
        first = choose_run(settings, TrialFolder(place), online=False)
        again = choose_run(settings, TrialFolder(place), online=False)
        assert first.id == again.id
        assert isinstance(first.id, str)
        assert first.id


TARGETS = [
    Target("records", ("mlmodeldev.trial.record", "mlmodeldev.slurm.trial_entries",
           "mlmodeldev.sweep.results", "mlmodeldev.lease"), make_folder, check_folder),  # fmt: skip
    Target("metrics.csv", ("mlmodeldev.tracking.metrics_csv", "mlmodeldev.trial.record"),
           make_table, check_table),  # fmt: skip
    Target("jobs.json", ("mlmodeldev.slurm.submission",), make_jobs, check_jobs),
    Target("search journals", ("mlmodeldev.sweep.journal",), make_journal, check_journal),
    Target("runs' owners", ("mlmodeldev.trial.agent_run",), make_run, check_run),
    Target("offline runs' ids", ("mlmodeldev.tracking.wandb_run_id",), make_offline,
           check_offline),  # fmt: skip
]
