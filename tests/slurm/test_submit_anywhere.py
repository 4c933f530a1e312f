"""sbatch as sites have it, and called from anywhere: its environment, its answers, its refusals."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.schema import Cluster
from mlmodeldev.slurm import dispatcher, entrypoint, epilog, query
from mlmodeldev.slurm.commands import trials as trial_commands
from mlmodeldev.slurm.outer_job import left_out_choices, sbatch_environment, slurm_environment
from mlmodeldev.slurm.plan import state
from mlmodeldev.slurm.script import batch_script
from mlmodeldev.slurm.submission import Submission, jobs_of, live_arrays, trial_jobs
from mlmodeldev.slurm.submit import job_and_cluster, submit
from mlmodeldev.trial.task import TrialTask
from tests.conftest import in_fork
from tests.slurm.stubs import Stubs

CLUSTER = Cluster(launcher="slurm", cpus_per_task=1, gpus_per_task=0)
OUTER = {
    "SLURM_JOB_ID": "77",
    "SLURM_ARRAY_JOB_ID": "70",
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_MEM_PER_CPU": "256",
    "SLURM_CPU_BIND": "quiet,mask_cpu:0x1",
    "SLURM_RESTART_COUNT": "2",
    "SLURMD_NODENAME": "n9",
    "SRUN_DEBUG": "3",
    "SBATCH_CPU_BIND": "none",
    "SBATCH_ACCOUNT": "physics",
}


@pytest.fixture
def stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stubs:
    """A site whose sbatch and squeue the test writes."""
    for name in [n for n in os.environ if n.startswith(("SLURM", "SBATCH_"))]:
        monkeypatch.delenv(name)
    made = Stubs(tmp_path, monkeypatch)
    made.add("squeue", 'cat "$HERE/queue" 2>/dev/null; exit 0')
    return made


@pytest.fixture
def sweep_folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "small"


def submit_two(sweep_folder: Path, cluster: Cluster = CLUSTER) -> str:
    submission = Submission.new(sweep_folder, sweep_folder)
    return submit(submission, cluster, "small", [None, None], [["a"], ["b"]])  # type: ignore[list-item]


# --- the environment


def test_of_an_outer_job_sbatch_gets_nothing_but_the_configuration(
    stubs: Stubs, sweep_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubs.add("sbatch", 'env > "$HERE/environment"; echo 4242')
    for name, value in {**OUTER, "SLURM_CONF": "/etc/slurm.conf", "OTHER": "1"}.items():
        monkeypatch.setenv(name, value)
    assert submit_two(sweep_folder) == "4242"
    names = {line.partition("=")[0] for line in stubs.read("environment").splitlines()}
    assert {n for n in names if n.startswith(("SLURM", "SRUN_", "SBATCH_"))} == {"SLURM_CONF"}
    assert "OTHER" in names
    assert left_out_choices(CLUSTER) == ["SBATCH_ACCOUNT"], "which is told"


def test_outside_of_a_job_the_users_defaults_fill_what_the_settings_leave_open() -> None:
    mine = {"SBATCH_ACCOUNT": "physics", "SBATCH_PARTITION": "gpu", "SBATCH_TIMELIMIT": "5"}
    cluster = Cluster(partition="long")
    assert sbatch_environment(cluster, mine) == {"SBATCH_ACCOUNT": "physics"}, (
        "variables come before a script's lines: the time limit is the settings'"
    )
    assert left_out_choices(cluster, mine) == []


def test_questions_are_not_filtered_by_variables_of_ones_own() -> None:
    odd = {"SQUEUE_STATES": "RUNNING", "SQUEUE_FORMAT": "%i", "SLURM_CLUSTERS": "all", "HOME": "/"}
    assert slurm_environment({**odd, "SLURM_CONF": "x"}) == {"SLURM_CONF": "x", "HOME": "/"}


def test_a_plain_job_trusts_no_array_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an outer array's task: ours would take its fourth trial, and requeue its job."""
    import pickle

    submission = Submission.new(tmp_path / "small", tmp_path)
    submission.save()
    tasks = submission.folder / "tasks-0.pkl"
    tasks.write_bytes(pickle.dumps([print]))
    for name, value in OUTER.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLMODELDEV_PROJECT", raising=False)
    monkeypatch.delitem(sys.modules, "trainer", raising=False)  # whose folder would be the project
    monkeypatch.setattr("mlmodeldev.trial.signals.listen", lambda: None)
    entrypoint.main(tasks)
    assert (submission.folder / "tasks-0.job").read_text() == "77"
    os.environ.pop("MLMODELDEV_PROJECT")


# --- what runs in a job


def run_job(folder: Path, **left: str) -> None:
    """Run a job of one trial, whose program prints what it finds of an agent."""
    (folder / "prints.py").write_text(
        "import os\ndef train(settings):\n"
        "    print([n for n in os.environ if n.startswith('WANDB_') and 'left' in os.environ[n]])\n"
    )
    sys.path.insert(0, str(folder))
    os.environ.update(left)
    (folder / "a").mkdir()
    entrypoint.Job([TrialTask("a", folder / "a", [], "prints")])()


def test_a_job_takes_no_run_that_the_submitting_shell_was_given(tmp_path: Path) -> None:
    names = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_PROJECT")
    left = functools.partial(run_job, **dict.fromkeys(names, "left"))
    assert in_fork(tmp_path / "printed", left, tmp_path) == 0
    assert (tmp_path / "a" / "log.txt").read_text() == "['WANDB_PROJECT']\n", "a place, no run"


def run_script(
    stubs: Stubs, folder: Path, cluster: Cluster, srun: str, **variables: str
) -> list[str]:
    """Run a plain job's script with an srun of the test's; return what it printed."""
    stubs.add("srun", srun)
    stubs.add("python", 'echo "python $*"')
    chosen = cluster.model_copy(update={"python": str(stubs.folder / "python")})
    script = batch_script(chosen, "small", folder, folder / "code", 1, 1)
    env = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "1", **variables}
    done = subprocess.run(
        ["bash"], input=script, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "line", ["true", "set -euo pipefail", "trap 'exit 9' ERR", "trap - USR1", "set -o errtrace"]
)
def test_whatever_the_setup_sets_the_epilog_is_reached(
    stubs: Stubs, tmp_path: Path, line: str
) -> None:
    cluster = CLUSTER.model_copy(update={"setup": [line]})
    srun = "kill -USR1 $PPID; exit 75"
    assert run_script(stubs, tmp_path, cluster, srun)[-1] == "python -m mlmodeldev.slurm.epilog 75"


def test_a_setup_line_that_fails_ends_a_job_that_wants_it_to(stubs: Stubs, tmp_path: Path) -> None:
    cluster = CLUSTER.model_copy(update={"setup": ["set -e", "false"]})
    assert run_script(stubs, tmp_path, cluster, "echo trained") == []


def test_the_step_gets_the_scripts_environment(stubs: Stubs, tmp_path: Path) -> None:
    """As real srun does it: an option on its command line comes before SLURM_EXPORT_ENV."""
    srun = (
        'for a in "$@"; do case $a in --export=*) export SLURM_EXPORT_ENV=${a#*=} ;; esac; done;'
        ' [ "$SLURM_EXPORT_ENV" = NONE ] || echo "$PYTHONPATH $MINE"'
    )
    setup = ["export MINE=1 PYTHONPATH=/opt/modules"]
    cluster = CLUSTER.model_copy(update={"setup": setup})
    printed = run_script(stubs, tmp_path, cluster, srun, SLURM_EXPORT_ENV="NONE")
    assert printed[0] == f"{tmp_path}/code:/opt/modules 1", "ours first, theirs kept"


def test_a_containers_shell_requeues_for_it(stubs: Stubs, tmp_path: Path) -> None:
    """No scontrol in the image: the batch shell asks, and does what the epilog's status says."""
    stubs.add("scontrol", 'echo "$*" >> "$HERE/words"; echo "JobId=1 JobState=RUNNING"')
    stubs.add("sleep", "true")
    stubs.add("srun", "exit 75")
    stubs.add("container", 'shift; echo "$* in=$MLMODELDEV_JOB"', "exit 85")
    cluster = CLUSTER.model_copy(update={"python": "container IMAGE python"})
    script = batch_script(cluster, "small", tmp_path, tmp_path, 1, 1)
    env = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "1"}
    done = subprocess.run(
        ["bash"], input=script, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    words = "python -m mlmodeldev.slurm.epilog 75 in=JobId=1 JobState=RUNNING"
    assert done.stdout.splitlines()[0] == words
    assert stubs.read("words").splitlines() == ["-o show job 1", "requeue 1"]


# --- its answers


@pytest.mark.parametrize(
    ("output", "number"),
    [
        ("15786755", "15786755"),
        ("123;cluster", "123"),
        ("Submitted batch job 12", "12"),
        ("Welcome: job 12 of yours waits.\n 4711 \nHave a nice day", "4711"),
        ("See job 12\nSubmitted batch job 99 on cluster main", "99"),
        ("Your job 12 is in maintenance", ""),
        ("", ""),
    ],
)
def test_a_jobs_number_is_not_any_number(output: str, number: str) -> None:
    assert job_and_cluster(output)[0] == number


def test_jobs_whose_number_is_not_printed_are_never_submitted_twice(
    stubs: Stubs, sweep_folder: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    stubs.add("sbatch", 'echo "$2" >> "$HERE/submitted"; echo "thank you, job 12"')
    with pytest.raises(UsageError, match="says no number: 'thank you, job 12'"):
        submit_two(sweep_folder)
    waiting: Any = SimpleNamespace(state="missing", record={}, runs_in_wandb=False)
    assert {state(waiting, job) for job in trial_jobs(sweep_folder).values()} == {"queued"}
    assert live_arrays(sweep_folder) == [], "12 is somebody's, and is not cancelled"

    (script,) = stubs.read("submitted").splitlines()
    (stubs.folder / "queue").write_text(f"--- maintenance on Friday ---\n4711|{script}\n")
    assert jobs_of(sweep_folder) == {}
    trial_jobs(sweep_folder)
    assert jobs_of(sweep_folder) == {"a": "4711_0", "b": "4711_1"}, "the queue tells it"


def test_cancel_gives_up_jobs_that_the_queue_never_shows(
    stubs: Stubs, sweep_folder: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    stubs.add("sbatch", "true")
    with pytest.raises(UsageError, match="says no number"):
        submit_two(sweep_folder)
    sweep: Any = SimpleNamespace(folder=sweep_folder, entries=[])
    monkeypatch.setattr(trial_commands, "read_sweep_state", lambda *_, **__: sweep)
    trial_commands.run_cancel(SimpleNamespace(trial=None, json=False))  # type: ignore[arg-type]
    assert "sbatch had said no number" in capsys.readouterr().err
    assert trial_jobs(sweep_folder) == {}


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["echo 'sbatch: error: no such account' >&2", "exit 1"], "no such account"),
        (["echo 'error: the site wants --account'", "exit 1"], "the site wants --account"),
        (["echo 'Please ask for less.'", "exit 1"], "Please ask for less."),
        (["exit 1"], "it says no reason"),
    ],
)
def test_its_reason_is_named_wherever_it_is_printed(
    stubs: Stubs, sweep_folder: Path, lines: list[str], reason: str
) -> None:
    stubs.add("sbatch", *lines)
    with pytest.raises(UsageError, match=f"^sbatch refuses: {reason}; doctor looks for the cause$"):
        submit_two(sweep_folder)
    (file,) = sweep_folder.glob(".jobs/*/jobs.json")
    assert json.loads(file.read_text())["intent"] is None


def test_an_answer_that_was_lost_is_no_refusal(stubs: Stubs, sweep_folder: Path) -> None:
    lines = "echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1"
    stubs.add("sbatch", f'echo "17|$2" > "$HERE/queue"; {lines}')
    with pytest.raises(UsageError, match="Socket timed out"):
        submit_two(sweep_folder)
    trial_jobs(sweep_folder)
    assert jobs_of(sweep_folder)["b"] == "17_1"


def test_the_bridge_submits_no_trial_twice_either(
    stubs: Stubs, sweep_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "take_snapshot", lambda *_: sweep_folder)
    monkeypatch.setattr(dispatcher, "RETRY_SECONDS", 0.0)
    stubs.add("sbatch", 'echo "$2" >> "$HERE/submitted"; echo thanks')
    source: Any = SimpleNamespace()
    made = dispatcher.Dispatcher(source, CLUSTER, sweep_folder, sweep_folder, [], 1)
    made._accept(TrialTask("a", sweep_folder / "a", []))
    for _ in range(3):
        made._submit_due()
    (script,) = stubs.read("submitted").splitlines()
    row = "4711|PENDING|None|1:00|"
    stubs.add("squeue", f'case "$*" in *%o*) echo "4711|{script}" ;; *) echo "{row}" ;; esac')
    made._submit_due()
    assert made._dispatched[0].job == "4711"


# --- the queue


def test_the_controller_is_queried_for_our_own_jobs_only(stubs: Stubs) -> None:
    stubs.add("squeue", 'echo "$@" > "$HERE/words"; echo "12_0|RUNNING|None|1:00|n1"')
    assert query.read_queue({"12"})["12_0"].node == "n1"
    words = stubs.read("words").split()
    assert words[words.index("-u") + 1] == query.user_name()
    assert "-a" in words, "partitions may be hidden"


def test_a_user_without_a_name_is_picked_by_number(
    stubs: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    rows = ["12|PENDING|None|1:00||54321", "13|PENDING|None|1:00||0"]
    stubs.add("squeue", 'case "$*" in *-u*) exit 1 ;; esac', *(f"echo '{row}'" for row in rows))
    assert list(query.read_queue()) == ["12"]


def test_a_killed_job_tells_what_memory_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "2048")
    assert epilog._memory_hint(137) == (
        " (killed; for lack of memory? it had 2048 MiB on each node: cluster.mem_gb)"
    )
    assert epilog._memory_hint(1) == ""
