"""Jobs whose Python is in a container: a stand-in for apptainer, with a root of its own.

It has no command of Slurm's, as an image has none: the batch shell asks scontrol, and requeues.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.sweeps import SmallSweep

pytestmark = [
    pytest.mark.project,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="changes root"),
]

APPTAINER = """\
#!/bin/bash
# apptainer exec --nv IMAGE COMMAND ...
[ "$1 $2" = "exec --nv" ] || exit 64
export ROOT=$3 WHERE=$PWD; shift 3
exec unshare --mount bash -c '
  mount --make-rprivate / && mount --rbind / "$ROOT" || exit 65
  for name in scontrol squeue sbatch srun scancel sacct; do
    mount --bind /dev/null "$ROOT/usr/bin/$name"
  done
  exec chroot "$ROOT" bash -c '\\''cd "$WHERE" && touch "$SEEN" && exec "$@"'\\'' bash "$@"
' bash "$@"
"""


@pytest.fixture
def sweep(own_slurm: Cluster, tmp_path: Path, data_dir: Path) -> Iterator[SmallSweep]:
    yield SmallSweep(own_slurm, tmp_path, data_dir, 1, "contained", step_seconds=0.3)
    own_slurm.heal()


def test_a_trial_in_a_container_is_warned_and_comes_back(sweep: SmallSweep, tmp_path: Path) -> None:
    command, image, seen = tmp_path / "apptainer", tmp_path / "image", tmp_path / "seen"
    command.write_text(APPTAINER.replace("$SEEN", str(seen)))
    command.chmod(0o755)
    image.mkdir()
    python = f"cluster.python='{command} exec --nv {image} {sys.executable}'"
    sweep.train("submit", "cluster.cpus_per_task=1", "training.max_epochs=1", python)
    (trial,), slurm = sweep.trials, sweep.slurm
    sweep.wait_for_step(trial, 5)
    assert seen.exists(), "it runs in there"
    slurm.run("scancel", "--signal=USR2", sweep.job(trial))
    sweep.wait_for_attempt(trial, 2)
    sweep.release()
    sweep.wait_until(trial, "done")
    job = sweep.job(trial)
    slurm.wait_for(lambda: slurm.over(job), 60, "the job's end")
    assert slurm.state(job) == "COMPLETED"
    assert slurm.job(job)["Restarts"] == "1"
    (log,) = sweep.folder.glob(".jobs/*/*_log.out")
    assert "trials ended with 75; the job is RUNNING" in log.read_text()
