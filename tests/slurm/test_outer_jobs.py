"""``submit`` from inside of jobs of a real Slurm: ours come back, the outer one is untouched."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import ROOT, Cluster
from tests.slurm.sweeps import SmallSweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STAND_IN = f"""\
#!/bin/bash
# The trial's place: is warned in its first start, and ends well in its second. The epilog is real.
case "$*" in *slurm.epilog*) exec {sys.executable} "$@" ;; esac
env | grep -E '^(SLURM_|CUDA_)' > "${{MLMODELDEV_SUBMISSION%/*}}/environment"
echo "start ${{SLURM_RESTART_COUNT:-0}}"
[ -n "$SLURM_RESTART_COUNT" ] || exit 75
"""
LIVES = 'while [ ! -e "$END" ]; do sleep 0.2; done'
"""The outer job stays until the test has seen ours end."""


class Outer:
    """Jobs from inside of which a sweep each is submitted."""

    def __init__(self, slurm: Cluster, folder: Path, data: Path) -> None:
        self.slurm, self.folder = slurm, folder
        self.python, self.end = folder / "python", folder / "end"
        self.python.write_text(STAND_IN)
        self.python.chmod(0o755)
        # Slurm takes %j for the job's number
        places = {"array": "array", "memory": "100%j of it", "shell": "shell"}
        self.sweeps = {name: self._sweep(name, place, data) for name, place in places.items()}
        self.jobs: dict[str, str] = {}

    def _sweep(self, name: str, place: str, data: Path) -> SmallSweep:
        folder = self.folder / place
        folder.mkdir()
        return SmallSweep(self.slurm, folder, data, 1, name)

    def begin(self) -> None:
        gpus = ("--gres=gpu:1", "--mem-per-cpu=300")
        self.jobs["array"] = self._sbatch("array", "--array=0-1", "--mem-per-cpu=300")
        self.jobs["memory"] = self._sbatch("memory", *gpus, "--ntasks=1")
        threading.Thread(target=self._shell, daemon=True).start()

    def _command(self, name: str) -> str:
        sweep = self.sweeps[name]
        words = [sys.executable, str(ROOT / "slurm" / "SlurmTrain.py"), "submit", "--yes"]
        words += ["--sweep", str(sweep.file), *sweep.fixed, "cluster=generic"]
        words += [f"cluster.python={self.python}", "cluster.cpus_per_task=1", "cluster.mem_gb=0.5"]
        return f"{shlex.join(words)} > {shlex.quote(str(self._printed_to(name)))} 2>&1"

    def _printed_to(self, name: str) -> Path:
        return self.folder / f"{name}.out"

    def _sbatch(self, name: str, *options: str) -> str:
        first = '[ "${SLURM_ARRAY_TASK_ID:-1}" = 1 ] && ' + self._command(name)
        script = self.folder / f"{name}.sh"
        script.write_text(f"#!/bin/bash\nexport END={self.end}\n{first}\n{LIVES}\n")
        return self.slurm.sbatch("-o", "/dev/null", "--time=9", *options, script)

    def _shell(self) -> None:
        """Submit from ``srun -n2 --pty bash``, in a terminal of its own."""
        inside = f"echo $SLURM_JOB_ID > {self.folder}/shell.job; {self._command('shell')}"
        words = ["srun", "-n2", "--mem-per-cpu=200", "--pty", "bash", "-c"]
        before = dict(os.environ)
        child, terminal = pty.fork()
        if child == 0:
            os.environ.clear()
            os.environ.update({**before, **self.slurm.env})
            os.execvp("srun", [*words, f"{inside}; END={self.end}; {LIVES}"])
        with contextlib.suppress(OSError):  # so a terminal ends
            while os.read(terminal, 1024):
                pass
        os.waitpid(child, 0)

    def outer_job(self, name: str) -> str:
        """Return the number of the job that was submitted from."""
        if name != "shell":
            return self.jobs[name]
        return (self.folder / "shell.job").read_text().strip()

    def printed(self, name: str) -> str:
        return self._printed_to(name).read_text() if self._printed_to(name).exists() else ""


@pytest.fixture(scope="module")
def outer(
    own_slurm: Cluster, tmp_path_factory: pytest.TempPathFactory, data_dir: Path
) -> Iterator[Outer]:
    made = Outer(own_slurm, tmp_path_factory.mktemp("outer"), data_dir)
    made.begin()
    yield made
    made.end.touch()
    own_slurm.heal()


@pytest.mark.parametrize("name", ["array", "memory", "shell"])
def test_ours_comes_back_and_the_outer_job_is_untouched(outer: Outer, name: str) -> None:
    slurm, sweep = outer.slurm, outer.sweeps[name]
    slurm.wait_for(lambda: "next:" in outer.printed(name), 120, f"{name}: {outer.printed(name)}")
    job = sweep.job(sweep.trials[0])
    slurm.wait_for(lambda: slurm.over(job), 120, f"the end of {job}")
    fields = slurm.job(job)
    (folder,) = sweep.folder.glob(".jobs/*/")
    log = (folder / f"{job}_0_log.out").read_text()
    assert (fields["JobState"], fields["Restarts"]) == ("COMPLETED", "1"), log
    assert "start 0" in log
    assert "start 1" in log
    environment = dict(
        line.split("=", 1) for line in (folder / "environment").read_text().splitlines()
    )
    assert environment["SLURM_JOB_ID"] == job
    assert environment["SLURM_MEM_PER_NODE"] == "512"
    for variable in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_MEM_PER_CPU"):
        assert variable not in environment
    theirs = slurm.job(outer.outer_job(name))
    assert theirs["JobState"] == "RUNNING"
    assert theirs["Restarts"] == "0"


def test_status_knows_the_jobs(outer: Outer) -> None:
    rows = json.loads(outer.sweeps["memory"].train("status", "--json").stdout)["trials"]
    assert rows[0]["job"] == outer.sweeps["memory"].job(outer.sweeps["memory"].trials[0])


def test_steps_of_a_clean_environment_get_ours(own_slurm: Cluster, tmp_path: Path) -> None:
    """Real srun, where the batch script was submitted with ``--export=NONE``."""
    script = tmp_path / "script.sh"
    line = "srun {} /bin/bash -c 'echo MINE=$MINE'"
    lines = ["#!/bin/bash", "export MINE=1", line.format(""), line.format("--export=ALL")]
    script.write_text("\n".join([*lines, ""]))
    output = tmp_path / "output"
    job = own_slurm.sbatch("--export=NONE", "-o", output, script)
    own_slurm.wait_for(lambda: own_slurm.over(job), 60, "the job's end")
    lines = output.read_text().splitlines()
    # srun itself may say that the step before is not quite over
    assert [line for line in lines if not line.startswith("srun:")] == ["MINE=", "MINE=1"]


def test_a_user_without_a_name_may_ask(own_slurm: Cluster) -> None:
    """squeue refuses such a number, as containers have it; so all are asked for."""
    code = "from mlmodeldev.slurm.query import read_queue; print(read_queue(), read_queue({'0'}))"
    as_user = ["setpriv", "--reuid=54321", "--clear-groups"]
    command = [*as_user, sys.executable, "-c", code]
    env = {**own_slurm.env, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd="/")
    reading = [*as_user, "test", "-r", str(ROOT / "mlmodeldev" / "__init__.py")]
    closed = subprocess.run(reading, check=False).returncode != 0
    if closed or "Permission denied" in done.stderr:
        pytest.skip("Python or the project can't be read by other users here")
    assert (done.returncode, done.stdout) == (0, "{} {}\n"), done.stderr
