"""A sweep of a program that is not ours, enumerated: run as its command says, with our folders."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlmodeldev.slurm import local
from mlmodeldev.slurm.command_line import main
from mlmodeldev.slurm.trial_entries import reconcile
from mlmodeldev.sweep import load
from mlmodeldev.sweep.__main__ import main as check
from mlmodeldev.sweep.__main__ import trainer_refusal
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.process import start_trial
from mlmodeldev.trial.task import TrialResult

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, sys
given = json.load(open(sys.argv[1]))
print("rate", given["rate"], given["deep"], sys.argv[2])
sys.exit(given["rate"] > 1)
"""
SWEEP = """\
# Command: none. Expected best value: none. Cost: none
program: {program}
name: other
method: {method}
run_cap: 3
metric: {{name: f1, goal: maximize}}
parameters:
  rate: {{values: [0.5, 2.0]}}
  deep: {{value: true}}
command: ["${{interpreter}}", "${{program}}", "${{args_json_file}}", "${{args_no_hyphens}}"]
"""


HOLD = """
import sys
from pathlib import Path
from mlmodeldev.trial.folder import TrialFolder
TrialFolder(Path(sys.argv[1])).claim()
print("claimed", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    (tmp_path / "other.py").write_text(PROGRAM)
    file = tmp_path / "other.yaml"
    file.write_text(SWEEP.format(program=tmp_path / "other.py", method="grid"))
    return file


def words(sweep: Path, *more: str) -> list[str]:
    runs = f"artefacts.runs_dir={sweep.parent}/runs"
    return ["--sweep", str(sweep), runs, "cluster=local", *more]


def test_its_parameters_are_its_own(sweep, capsys):
    assert check(["check", str(sweep)], settings=trainer_refusal) == 0
    assert "ok, grid, 2 trials" in capsys.readouterr().out
    assert main(["plan", "--json", *words(sweep)]) == 0
    plan = json.loads(capsys.readouterr().out)
    lines = [shlex.split(line) for line in plan["script"].splitlines()]
    first = sweep.parent / "runs" / "other" / next(load(sweep).trials()).id
    assert lines[0] == [
        *(sys.executable, f"{sweep.parent}/other.py", f"{first}/wandb-parameters.json"),
        *("rate=0.5", "deep=True"),
    ]
    assert len(lines) == 2
    assert not first.parent.exists()


def test_its_trials_run_once_and_failures_are_reported(sweep):
    script = [sys.executable, str(ROOT / "slurm" / "SlurmTrain.py")]
    done = subprocess.run(
        [*script, "submit", "--jobs", "2", *words(sweep), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    states = {t["overrides"]["rate"]: t["state"] for t in json.loads(done.stdout)["trials"]}
    assert states == {0.5: "done", 2.0: "failed"}
    good, bad = (sweep.parent / "runs" / "other" / t.id for t in load(sweep).trials())
    assert (good / "log.txt").read_text() == "rate 0.5 True rate=0.5\n"
    assert json.loads((bad / "trial.json").read_text())["reason"] == "exit status 1"
    again = subprocess.run([*script, "retry", *words(sweep)], capture_output=True, check=False)
    assert again.returncode == 1
    assert json.loads((good / "trial.json").read_text())["attempts"] == 1
    assert json.loads((bad / "trial.json").read_text())["attempts"] == 2


def test_it_imports_what_lies_beside_it_in_a_job_as_well(sweep, monkeypatch):
    """A job keeps the working directory out of ``sys.path``, for what ``-m`` starts."""
    folder = sweep.parent / "scripts"
    folder.mkdir()
    (folder / "beside.py").write_text("VALUE = 'from beside'\n")
    (folder / "other.py").write_text("from beside import VALUE\nprint(VALUE)\n")
    sweep.write_text(SWEEP.format(program=folder / "other.py", method="grid"))
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    script = [sys.executable, str(ROOT / "slurm" / "SlurmTrain.py")]
    done = subprocess.run(
        [*script, "submit", *words(sweep)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for trial in load(sweep).trials():
        log = sweep.parent / "runs" / "other" / trial.id / "log.txt"
        assert log.read_text() == "from beside\n"


def test_of_two_commands_at_once_each_leaves_the_others_trials_alone(sweep, capsys):
    """Both have read the records at their start; one of them runs a trial, and is at another."""
    first, second = (
        local.TrialEntrySource(list(reconcile(load(sweep), sweep.parent / "runs")), "other", [])
        for _ in range(2)
    )
    done, running = first.take(), first.take()
    TrialFolder(done.folder).claim()
    TrialFolder(done.folder).finish("done", None)
    late = second.take()
    assert late.folder == running.folder, "the first is passed over"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(running.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout.readline()
        refused = start_trial(replace(late, command=["false"], foreign=True), 0, {})
        assert "running already" in refused.reason
        assert second.report(late, refused) == "running", "no failure of this command"
        owner.communicate()
    assert capsys.readouterr().out.count("running elsewhere; left to it") == 1


def test_a_command_that_can_not_be_started_has_failed_and_is_run_again(sweep):
    lines = sweep.read_text().splitlines()
    command = 'command: ["/nonexistent/python", "${program}", "${args}"]'
    sweep.write_text("\n".join([*lines[:-1], command]))
    script = [sys.executable, str(ROOT / "slurm" / "SlurmTrain.py")]
    for attempt, action in enumerate(("submit", "retry"), 1):
        done = subprocess.run(
            [*script, action, *words(sweep)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stdout.count("/nonexistent/python: can't be started: No such file") == 2
        for trial in load(sweep).trials():
            folder = sweep.parent / "runs" / "other" / trial.id
            record = json.loads((folder / "trial.json").read_text())
            assert (record["state"], record["attempts"]) == ("failed", attempt)
            assert "can't be started" in record["reason"]
            assert (folder / "log.txt").exists() == ("see log.txt" in done.stdout)


def test_a_log_is_named_only_where_there_is_one(tmp_path):
    """A trial whose process was never there has printed nothing."""
    entry = SimpleNamespace(folder=tmp_path, metric=None, value=None)
    ended = TrialResult(2, "failed", "no room for a socket", 0.0)
    assert local._outcome(entry, ended) == "failed (no room for a socket)"
    (tmp_path / "log.txt").touch()
    assert local._outcome(entry, ended) == "failed (no room for a socket; see log.txt)"


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        (("grid", "bayes"), [], "other.py has it on W&B's server only"),
        (("other.py", "none.py"), [], "none.py: no such file"),
        (("args_json_file", "args_json_fil"), [], "did you mean 'args_json_file'"),
        (("", ""), ["training.max_epochs=2"], "are for trainer.py, not"),
    ],
)
def test_what_it_cannot_do_is_one_error(change, more, message, sweep, capsys):
    sweep.write_text(sweep.read_text().replace(*change))
    assert main(["submit", *words(sweep, *more)]) == 2
    output = capsys.readouterr().err
    assert message in output
    assert "Traceback" not in output
