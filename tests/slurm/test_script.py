"""What of submitit's inside we rely on; here it is missed first, with or without a Slurm."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mlmodeldev.settings.schema import Cluster
from mlmodeldev.slurm.script import batch_script, python_words
from tests.slurm.scripts import check_golden


def test_the_script_is_written_where_there_is_no_slurm(tmp_path: Path) -> None:
    """The same script as a cluster's plan shows, from submitit's ``_make_sbatch_string``."""
    runs = tmp_path / "runs"
    submission, snapshot = runs / "digits/.jobs/SUBMISSION", runs / ".snapshots/CODE"
    cluster = Cluster(
        launcher="slurm", name="generic", nodes=2, gpus_per_task=1, mem_gb=2, max_gpus=4
    )
    script = batch_script(cluster, "digits", submission, snapshot, count=4, throttle=2)
    check_golden(script, "array", tmp_path)


@pytest.mark.parametrize("count", [1, 3])
def test_one_task_is_a_plain_job_and_several_are_an_array(tmp_path: Path, count: int) -> None:
    script = batch_script(Cluster(launcher="slurm"), "digits", tmp_path, tmp_path, count, 2)
    assert ("#SBATCH --array=0-2%2" in script) is (count > 1)
    # what is left of another job's numbers is dropped before anything reads it
    assert ("unset SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID" in script) is (count == 1)


@pytest.mark.parametrize("count", [1, 3])
def test_letters_that_slurm_would_replace_are_doubled(tmp_path: Path, count: int) -> None:
    """Of a folder's name; those of the log's own are meant."""
    folder = tmp_path / "100%j of %A"
    script = batch_script(Cluster(launcher="slurm"), "digits", folder, tmp_path, count, 1)
    lines = [
        line for line in script.splitlines() if line.startswith(("#SBATCH --out", "#SBATCH --err"))
    ]
    assert lines
    name = "%A_%a" if count > 1 else "%j"
    assert all(f"/100%%j of %%A/{name}_0_log.out" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "there", "missing"),
    [
        ({}, ["--requeue"], ["wckey"]),
        ({"requeue": False}, [], ["requeue"]),
        ({"no-requeue": True}, ["--no-requeue"], ["--requeue"]),
        ({"no_requeue": True}, ["--no-requeue"], ["--requeue"]),
        ({"wckey": "maths"}, ["--wckey=maths"], ["submitit"]),
        ({"cpus-per-task": 3, "exclusive": True}, ["--cpus-per-task=3", "--exclusive"], ["=4\n"]),
        ({"mem-per-gpu": "8G", "cpus-per-gpu": 2}, ["--mem-per-gpu=8G"], ["--mem=", "-per-task"]),
        ({"mem-per-cpu": "2G"}, ["--mem-per-cpu=2G", "--cpus-per-task=4"], ["--mem="]),
        ({"container-image": "nvcr.io#a/b:1"}, ["--container-image='nvcr.io#a/b:1'"], []),
    ],
)
def test_options_of_sbatch_are_written_as_they_are_given(
    tmp_path: Path, options: dict[str, str | int | bool], there: list[str], missing: list[str]
) -> None:
    cluster = Cluster(launcher="slurm", sbatch=options, mem_gb=1)
    script = batch_script(cluster, "digits", tmp_path, tmp_path, 1, 1)
    options_given = "".join(line for line in script.splitlines(True) if line.startswith("#SBATCH"))
    assert [line for line in there if f"#SBATCH {line}\n" not in options_given] == []
    assert [text for text in missing if text in options_given] == []


@pytest.mark.parametrize(
    ("python", "words"),
    [
        (None, [sys.executable]),
        ("/opt/my python", ["/opt/my", "python"]),
        ("apptainer exec --nv i.sif python", ["apptainer", "exec", "--nv", "i.sif", "python"]),
        ("uv run python", ["uv", "run", "python"]),
        ("~/env/bin/python", [f"{Path.home()}/env/bin/python"]),
    ],
)  # fmt: skip
def test_python_may_be_a_command(python: str | None, words: list[str]) -> None:
    assert python_words(Cluster(python=python)) == words


def test_a_file_with_spaces_in_its_name_is_one_word(tmp_path: Path) -> None:
    file = tmp_path / "my python"
    file.touch()
    assert python_words(Cluster(python=str(file))) == [str(file)]
