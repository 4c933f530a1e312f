"""What sbatch follows where the settings leave it open is what limits and shares are read for."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from mlmodeldev.doctor.checks.cluster import mend_of
from mlmodeldev.errors import UsageError
from mlmodeldev.settings.schema import Cluster
from mlmodeldev.slurm.accounting import Rules
from mlmodeldev.slurm.limits import Limits, Node, Partition, read_limits
from mlmodeldev.slurm.outer_job import left_out_choices, sbatch_environment
from mlmodeldev.slurm.preflight import check_cluster
from mlmodeldev.slurm.script import batch_script
from mlmodeldev.slurm.share import with_share
from tests.slurm.stubs import Stubs

HERE = frozenset({"here"})
GPU = Partition("gpu", minutes=2880, accounts=frozenset({"physics"}))
LIMITS = Limits(
    partitions={"short": Partition("short", default=True, minutes=60), "gpu": GPU},
    nodes=(
        Node("c1", "c1", frozenset({"short"}), 16, 64000, 0, frozenset()),
        Node("g1", "g1", frozenset({"gpu"}), 64, 512000, 4, HERE, {"a": 4}, frozenset({"new"})),
        Node("g2", "g2", frozenset({"gpu"}), 16, 128000, 4, HERE, {"a": 4}, frozenset({"old"})),
    ),
)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)


def check(cluster: Cluster, limits: Limits = LIMITS) -> None:
    check_cluster(cluster, limits, Path.home())


CHOSEN = [({"SBATCH_PARTITION": "gpu"}, {}), ({}, {"partition": "gpu"})]


@pytest.mark.parametrize(("variables", "options"), CHOSEN)
def test_the_partition_that_sbatch_goes_to_is_the_one_that_is_checked(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], options: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    cluster = Cluster(minutes=240, gpus_per_task=1, sbatch=dict(options))
    check(cluster)
    check(cluster, Limits(partitions={"gpu": GPU}, nodes=LIMITS.nodes))  # no default there
    request = with_share(cluster, LIMITS)
    assert (request.cpus_per_task, request.mem_gb) == (4, 31.25)
    script = batch_script(request, "x", Path("f"), Path("s"), 1, 1)
    assert "#SBATCH --partition=gpu\n" in script, "plan shows what sbatch does"
    assert "SBATCH_PARTITION" not in sbatch_environment(request)
    with pytest.raises(UsageError, match="partition gpu allows 2880"):
        check(cluster.model_copy(update={"minutes": 2881}))


def test_a_setting_comes_before_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "gpu")
    with pytest.raises(UsageError, match="partition short allows 60"):
        check(Cluster(partition="short", minutes=240, gpus_per_task=0))


def test_an_option_comes_before_a_variable() -> None:
    """sbatch itself would take the variable: it is kept from it."""
    cluster = Cluster(sbatch={"partition": "short", "account": False})
    mine = {"SBATCH_PARTITION": "gpu", "SBATCH_ACCOUNT": "physics", "SBATCH_QOS": ""}
    assert sbatch_environment(cluster, mine) == {}
    assert left_out_choices(cluster, {**mine, "SLURM_JOB_ID": "7"}) == ["SBATCH_QOS"]


def test_the_constraint_narrows_the_nodes_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "gpu")
    monkeypatch.setenv("SBATCH_CONSTRAINT", "new")
    assert with_share(Cluster(), LIMITS).cpus_per_task == 16


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SBATCH_PARTITION": "gup"}, "SBATCH_PARTITION=gup: there is none; did you mean 'gpu'?"),
        (
            {"SBATCH_PARTITION": "gpu", "SBATCH_ACCOUNT": "physiks"},
            "SBATCH_ACCOUNT=physiks: there is none; did you mean 'physics'?",
        ),
    ],
)
def test_a_wrong_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as refused:
        check(Cluster())
    assert str(refused.value).startswith(message)
    name = list(variables)[-1].removeprefix("SBATCH_").lower()
    assert f"doctor cluster.{name}={message.split(chr(39))[1]}" in mend_of(str(refused.value))


@pytest.mark.parametrize("name", ["account", "qos"])
def test_a_variable_that_slurm_takes_is_not_refused(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Where names are not enforced a job may be charged to any; a setting is still a typo."""
    monkeypatch.setenv(f"SBATCH_{name.upper()}", "other")
    monkeypatch.setenv("SBATCH_PARTITION", "any")
    rules = Rules(accounts=frozenset({"physics"}), qos=frozenset({"normal"}))
    limits = Limits(partitions={"any": Partition("any")}, rules=rules)
    check(Cluster(), limits)
    with pytest.raises(UsageError, match=f"^cluster.{name}=other: there is none"):
        check(Cluster.model_validate({name: "other"}), limits)
    enforced = dataclasses.replace(limits, enforced=frozenset({"associations", "limits", "qos"}))
    with pytest.raises(UsageError, match=f"^SBATCH_{name.upper()}=other: there is none"):
        check(Cluster(), enforced)


def test_a_jobs_variables_choose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "gpu")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    with pytest.raises(UsageError, match="partition short allows 60"):
        check(Cluster(minutes=240, gpus_per_task=0))
    assert with_share(Cluster(), LIMITS).partition is None


def test_rules_are_those_of_the_account_and_qos_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubs = Stubs(tmp_path, monkeypatch)
    stubs.add(
        "scontrol",
        'case "$*" in *config*) echo "AccountingStorageEnforce = limits" ;;',
        '*partition*) echo "PartitionName=short Default=YES MaxTime=1:00:00 QoS=N/A"',
        'echo "PartitionName=gpu MaxTime=2-00:00:00 QoS=own" ;; esac',
    )
    stubs.add(
        "sacctmgr",
        'case "$*" in *assoc*) echo "a|||normal|||gres/gpu=1|"; echo "b|||normal|||gres/gpu=2|" ;;',
        '*) echo "normal|||||||||"; echo "long||||||||7-00:00:00|"; echo "own||4|||||||" ;; esac',
    )
    for name, value in {"ACCOUNT": "b", "QOS": "long", "PARTITION": "gpu"}.items():
        monkeypatch.setenv(f"SBATCH_{name}", value)
    rules = read_limits(Cluster()).rules
    assert (rules.gpus_per_job, rules.minutes, rules.max_submit) == (2, 7 * 1440, 4)
