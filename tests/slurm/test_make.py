"""``make slurm`` and ``make slurm-down``: a cluster that outlives its command, and its end.

It lies in a temporary folder of the test's own, so that ``slurm-down`` sees no other cluster; the
lock is the machine's, since ports and /etc/hosts are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm import machine
from tests.slurm.cluster import ROOT, Cluster, Slurm

pytestmark = pytest.mark.slow


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path that all users may enter: munge demands it."""
    folder = Path(tempfile.mkdtemp(prefix="make-slurm-"))
    folder.chmod(0o755)
    lock = f"{machine.PREFIX}lock"
    (folder / lock).symlink_to(Path(tempfile.gettempdir()).absolute() / lock)
    yield folder
    for cluster in folder.glob(f"{machine.PREFIX}*/"):
        machine.remove(cluster)
    shutil.rmtree(folder)


def make(target: str, place: Path) -> subprocess.CompletedProcess[str]:
    """Run a target with the environment that is there, whatever its lock says."""
    return subprocess.run(
        ["make", "--old-file=venv", target],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(place)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_a_cluster_is_up_between_the_two(own_slurm: Cluster, place: Path) -> None:
    up = make("slurm", place)
    assert up.returncode == 0, up.stdout + up.stderr
    (folder,) = place.glob(f"{machine.PREFIX}*/")
    assert f". {folder}/env.sh" in up.stdout
    theirs = Slurm()
    theirs.env["SLURM_CONF"] = str(folder / "etc" / "slurm.conf")
    nodes = theirs.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %t").splitlines()
    assert nodes == ["n1 idle", "n2 idle", "n3 idle", "n4 idle"]
    assert "there is one already" in make("slurm", place).stdout

    down = make("slurm-down", place)
    assert (down.returncode, down.stdout) == (0, f"{folder}: down\n"), down.stderr
    assert not folder.exists()
    assert machine.processes(folder) == []
    assert folder.name not in Path("/etc/hosts").read_text()
    assert len(own_slurm.run("sinfo", "-h", "-N", "-p", "main").splitlines()) == 10, "it stays up"
