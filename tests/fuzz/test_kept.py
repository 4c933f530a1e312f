"""Inputs that once ended in a traceback, or in a wrong answer: each is answered now."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.settings.overrides import parse_overrides
from mlmodeldev.slurm.submission import jobs_of
from mlmodeldev.sweep import check, loads
from mlmodeldev.sweep.results import collect, write_rows
from mlmodeldev.trial.record import best_entry, read_record, read_rows
from tests.fuzz.state_files import JOBS, LOG, RECORD, SWEEP

pytestmark = pytest.mark.project

LONG = "9" * 5000


def refusal(function, *args) -> str:
    with pytest.raises(UsageError) as caught:
        function(*args)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert line.strip()
    return line


@pytest.mark.parametrize(
    "words",
    [
        [f"optimizer.lr={LONG}"],
        [f"training.max_epochs={LONG}"],
        ["model._target_=[1,2]"],
        ["model=1.5"],
        ["data=b\na"],
        [f"model={'x' * 300}"],
        ["logger@x=1e-3", f"{'x' * 300}=1"],
        ["debug=0", "logger=csv"],
    ],
)
def test_overrides_are_refused_in_a_line(words: list[str]) -> None:
    refusal(compose_settings, words)


@pytest.mark.parametrize("target", ["/.x", "../x.y", f"{'x' * 300}.y", ".", "a..b"])
def test_a_class_of_no_module_is_looked_for_nowhere(target: str) -> None:
    from mlmodeldev.project import project_root
    from mlmodeldev.settings.source import read_class

    assert read_class(project_root(), target.rpartition(".")[0], "X") is None


def test_a_number_too_long_to_read_is_no_override() -> None:
    refusal(parse_overrides, [f"a={LONG}"])


def test_a_problem_of_a_sweep_file_is_one_line_whatever_its_keys_hold(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text('"\\r\\n\\u2028": 1\n' + SWEEP)
    assert all(len(str(problem).splitlines()) == 1 for problem in check(file))
    refusal(loads, file.read_text())


def test_options_of_hydra_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    from tests.fuzz.commands import check_trainer

    check_trainer(["--resolve"], tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("metric", "x"), ("metric", {"name": 3}), ("metric", {"name": "val/accuracy", "value": "x"})),
        *(("test", [1]), ("test", {"a": "x"}), ("attempts", "x"), ("state", [1]), ("overrides", "x")),
        *(("slurm", "x"), ("slurm", {"array_job_id": "1"}), ("owner", [1]), ("lease", "x"), ("seconds", [])),
        *(("created", 1e308), ("wandb_path", "x"), ("wandb_place", "x"), ("reason", "\ud800"), ("epoch", LONG)),
    ],
)  # fmt: skip
def test_a_record_with_a_value_of_another_type_is_still_shown(tmp_path: Path, name, value) -> None:
    from mlmodeldev.slurm.trial_entries import TrialEntry

    sweep = loads(SWEEP)
    trial = next(iter(sweep.trials()))
    folder = tmp_path / trial.id
    folder.mkdir()
    (folder / "trial.json").write_text(json.dumps({**RECORD, "mine": 1, name: value}))
    (folder / "log.json").write_text(json.dumps(LOG))
    assert read_record(folder)["mine"] == 1, "what is not ours is left alone"
    entry = TrialEntry(trial, tmp_path, ranked_by=sweep.definition.metric)
    assert entry.value == 0.9
    json.dumps(entry.as_dict())
    write_rows(collect([entry], "val/accuracy", "maximize"), tmp_path / "results.csv")


@pytest.mark.parametrize("text", ["[" * 100_000, LONG, "null", "\xff"])
def test_a_record_that_is_none_is_shown_as_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / "trial.json").write_bytes(text.encode("latin-1"))
    record = read_record(tmp_path)
    assert record.keys() == {"state", "reason", "damaged"}
    assert record["state"] == "failed"


def test_an_epoch_that_is_no_number_is_passed_over(tmp_path: Path) -> None:
    entries = [{"epoch": "x", "a": 1.0}, {"epoch": [2], "a": 2.0}, {"epoch": 3, "a": 0.5}]
    (tmp_path / "log.json").write_text(json.dumps(entries))
    assert best_entry(tmp_path, "a", "maximize") == (0.5, 3)


def test_cells_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text(f"epoch,step,a\n0,1,x\n0,2,0.5,more,cells\n0,{LONG},1\n0,²,1\n")
    assert read_rows(file) == [{"epoch": 0, "step": 1}, {"epoch": 0, "step": 2, "a": 0.5}]


@pytest.mark.parametrize(
    "change",
    [
        *({"arrays": [{"job": ["1"], "tasks": [["a"]]}]}, {"arrays": [{"job": "1"}]}, {"arrays": "x"}),
        *({"arrays": [{"job": "1", "tasks": [[["a"]]]}]}, {"created": "x"}, {"created": float("nan")}),
        *({"intent": "ab"}, {"intent": [[1]]}, {"snapshot": None}, {"overrides": 3}),
    ],
)  # fmt: skip
def test_a_damaged_submission_does_not_hide_another(tmp_path: Path, change) -> None:
    for name, content in (("1", {**JOBS, **change}), ("2", {**JOBS, "intent": None})):
        folder = tmp_path / ".jobs" / name
        folder.mkdir(parents=True)
        (folder / "jobs.json").write_text(json.dumps(content))
    assert jobs_of(tmp_path) == {"a": "1201_0", "b": "1201_1", "d": "1300"}


@pytest.mark.parametrize(
    "line",
    [
        {"op_code": 99, "worker_id": "w"},
        {"op_code": 10, "worker_id": "w"},
        {"op_code": True, "worker_id": "w"},
        {"op_code": 4, "worker_id": "w", "study_id": 0},
        {"op_code": 4, "worker_id": "w", "study_id": [0], "datetime_start": None},
        {"op_code": 4, "worker_id": "w", "study_id": 0, "datetime_start": "yesterday"},
        {"op_code": 6, "worker_id": "w", "trial_id": 0, "state": 9, "values": None},
        {"op_code": 8, "worker_id": "w", "trial_id": 0, "user_attr": []},
    ],
)
def test_a_line_that_optuna_can_not_read_ends_no_worker(tmp_path: Path, line) -> None:
    from mlmodeldev.sweep.journal import Journal

    first = Journal(tmp_path)
    with first.lock:
        first.study("s", "maximize")
    with first.path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    second = Journal(tmp_path)
    with second.lock:
        assert second.study("s", "maximize") == 0
        assert second.study("t", "maximize") == 1


@pytest.mark.parametrize("run", ["x" * 300, "\ud800", "a\0b", "é" * 128, "..", "../x"])
def test_a_run_whose_id_names_no_file_is_nobodys(tmp_path: Path, run: str) -> None:
    from mlmodeldev.trial.agent_run import owner_of

    (tmp_path / ".wandb-runs").mkdir()
    assert owner_of(tmp_path, run) is None


@pytest.mark.parametrize("note", ["../..", "/", "odd/..", "a/b/c"])
def test_a_note_that_names_no_trial_gives_a_run_to_nobody(tmp_path: Path, note: str) -> None:
    from mlmodeldev.trial.agent_run import owner_of

    (tmp_path / ".wandb-runs").mkdir()
    (tmp_path / ".wandb-runs" / "x7").write_text(note)
    assert owner_of(tmp_path, "x7") is None


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_STEP_NUM_TASKS": "x", "SLURM_PROCID": "0"},
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "x"},
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "5", "SLURM_LOCALID": "0"},
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "-1", "SLURM_LOCALID": "0"},
    ],
)
def test_a_place_in_a_step_that_can_not_be_is_refused(variables) -> None:
    from mlmodeldev.training.srun import srun_rank

    refusal(srun_rank, variables)


@pytest.mark.parametrize("number", ["²", LONG, "1.5", "-1", "x"])
def test_numbers_of_launchers_are_whole(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    from mlmodeldev.machine import cores
    from mlmodeldev.training.launched import Launched

    refusal(Launched.of, {"RANK": number, "WORLD_SIZE": "2"})
    monkeypatch.setitem(os.environ, "SLURM_CPUS_PER_TASK", number)
    refusal(cores)


def test_lines_of_a_site_are_no_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlmodeldev.settings.schema import Cluster
    from mlmodeldev.slurm import accounting, limits, submit

    odd = (
        "NOTE=maintenance on Monday\nNodeName=n1 CPUTot=x RealMemory=²\nPartitionName=p MaxTime=²:1"
    )
    monkeypatch.setattr(limits, "ask_slurm", lambda *command: odd)
    monkeypatch.setattr(accounting, "_table", lambda *words: [])
    read = limits.read_limits(Cluster())
    assert [(node.name, node.cpus, node.memory) for node in read.nodes] == [("n1", 0, 0)]
    assert read.partitions["p"].minutes is None
    assert submit.job_and_cluster("١٢\n") == ("", "")


def test_rows_of_accounting_without_a_state_or_with_odd_sizes_are_read() -> None:
    from mlmodeldev.slurm.job_ends import read_accounting

    ends = read_accounting(f"1| |0:0|1..5G|x\n2|FAILED|1:0|{'9' * 400}P|\n", ["1", "2"])
    assert (ends["1"].state, ends["1"].requested, ends["2"].requested) == ("", 0.0, 0.0)
    assert ends["2"].sentence("2")


@pytest.mark.parametrize("rule", [f"max_iter: {'9' * 400}, s: 2", "min_iter: 3, eta: 1.0e+10"])
def test_bands_of_early_stopping_that_no_trial_reaches_are_none(rule: str) -> None:
    from mlmodeldev.sweep.stopping import bands

    text = SWEEP + f"early_terminate: {{type: hyperband, {rule}}}\n"
    early = loads(text).definition.early_terminate
    assert early is not None
    assert max(bands(early)) <= 10**15


def test_a_carriage_return_in_a_table_is_read_back() -> None:
    import csv

    from mlmodeldev.trial.record import csv_rows

    rows = [{"a\rb": "1\r2", "c": 'x,"\n'}, {"a\rb": "", "c": "y"}]
    header = {name: name for name in rows[0]}
    text = csv_rows([header, *rows], list(header))
    assert text.count("\r\n") == 0
    assert list(csv.DictReader(io.StringIO(text, newline=""))) == rows
