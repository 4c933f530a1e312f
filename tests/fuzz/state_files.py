"""Targets that trials and launchers leave for one another: records, tables, submissions."""

from __future__ import annotations

import csv
import io
import json
import math
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from tests.fuzz.mutation import (
    WORDS,
    spoiled_bytes,
    spoiled_json,
    spoiled_text,
)
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
    from mlmodeldev.trial.record_types import STATES

    sweep, trials = _trials()
    base = folder / "odd"
    place = base / trials[0].id
    place.mkdir(parents=True)
    for name, content in given.items():
        (place / name).write_bytes(content)
    record = read_record(place)
    wanted = _json(given["trial.json"])
    if isinstance(wanted, dict) and wanted.get("state") is not None:
        is_state = str(wanted["state"]) in STATES
        assert record["state"] == (wanted["state"] if is_state else "failed")
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
        listed = submission.submissions(folder)
        assert whole in [each.folder for each in listed]
        assert submission.jobs_of(folder)["d"]
        submission.live_arrays(folder)
        submission.search_workers(folder)
        all_jobs = submission.trial_jobs(folder)
    assert {"a", "b", "d"} <= {*all_jobs}
    assert all(isinstance(job.job, str) for job in all_jobs.values())


TARGETS = [
    Target(
        "records",
        (
            "mlmodeldev.trial.record",
            "mlmodeldev.slurm.trial_entries",
            "mlmodeldev.sweep.results",
            "mlmodeldev.lease",
        ),
        make_folder,
        check_folder,
    ),
    Target(
        "metrics.csv",
        ("mlmodeldev.tracking.metrics_csv", "mlmodeldev.trial.record"),
        make_table,
        check_table,
    ),
    Target("jobs.json", ("mlmodeldev.slurm.submission",), make_jobs, check_jobs),
]
