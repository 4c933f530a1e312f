"""pytest's view of the cluster: the fixture ``slurm``, one cluster for the whole session.

``--cluster-live`` runs the tests on the machine's own Slurm instead: those that neither kill
processes nor daemons, with jobs of their own only. The temporary folder must lie where the nodes
see it: ``--basetemp``. Where there can be no
cluster the tests are skipped, under ``SLURM_TESTS=require`` (as in CI) they fail.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from typing import NoReturn

import pytest

from tests.slurm.cluster import Cluster, Missing, Slurm


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cluster-live",
        action="store_true",
        help="run the Slurm tests on this machine's own Slurm (partition: SLURM_TEST_PARTITION)",
    )


def _no_cluster(reason: Missing) -> NoReturn:
    (pytest.fail if os.environ.get("SLURM_TESTS") == "require" else pytest.skip)(str(reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    """The same for fixtures that bring up a cluster of their own ..."""
    try:
        return (yield)
    except Missing as reason:
        _no_cluster(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """... and for tests that do."""
    try:
        return (yield)
    except Missing as reason:
        _no_cluster(reason)


@pytest.fixture(scope="session")
def slurm(request: pytest.FixtureRequest) -> Iterator[Slurm]:
    """A Slurm with ten nodes of 4 CPUs and 2 GPUs, or the machine's own."""
    if request.config.getoption("--cluster-live"):
        if not shutil.which("sbatch"):
            pytest.fail("--cluster-live: there is no sbatch here")
        live = Slurm()
        if partition := os.environ.get("SLURM_TEST_PARTITION"):
            live.env["SBATCH_PARTITION"] = partition
        yield live
        return
    cluster = Cluster(nodes=10, max_array=40)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def own_slurm(slurm: Slurm) -> Cluster:
    """The session's cluster, for tests that kill daemons and nodes (and `heal` them after)."""
    if not isinstance(slurm, Cluster):
        pytest.skip("kills daemons: not on a live cluster")
    return slurm
