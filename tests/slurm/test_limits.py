"""What Slurm says that it has and allows, in the words of many sites; and a job's share of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.settings.schema import Cluster
from mlmodeldev.slurm.accounting import Rules
from mlmodeldev.slurm.limits import Limits, Node, Partition, read_gres, read_limits
from mlmodeldev.slurm.preflight import check_cluster
from mlmodeldev.slurm.script import parameters
from mlmodeldev.slurm.share import with_share
from tests.slurm.stubs import Stubs

SCONTROL = """\
case "$*" in
  *config*) printf 'MaxArraySize = 1001\\nAccountingStorageEnforce = %s\\n%s\\n' \
"${ENFORCE:-none}" "SchedulerParameters = bf_interval=2,max_array_tasks=25,other" ;;
  *partition*) echo "PartitionName=gpu Default=YES MaxTime=1:00:00 State=UP"
               case "$*" in *-a*) echo "PartitionName=hidden Default=NO MaxTime=2:00:00 State=UP" ;;
               esac ;;
  *node*) echo "NodeName=n1 CPUTot=64 CPUEfctv=60 RealMemory=129000 MemSpecLimit=1000 \
Gres=gpu:3090:4(S:0-1),gpu:3g.20gb:2(S:0,1) Partitions=gpu,hidden ActiveFeatures=a,b" ;;
esac
"""


@pytest.fixture
def stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stubs:
    made = Stubs(tmp_path, monkeypatch)
    made.add("scontrol", SCONTROL)
    made.add("sacctmgr", "exit 1")
    return made


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("gpu:4", {"": 4}),
        ("gpu:3090:4", {"3090": 4}),
        ("gpu:2080ti:2(S:0),gpu:3090:4(S:0,2-3)", {"2080ti": 2, "3090": 4}),
        ("gpu:3g.20gb:6", {"3g.20gb": 6}),
        ("gpu:a100:2(IDX:0-1),shard:16,gpu:a100:1", {"a100": 3}),
        ("gpu", {"": 1}),
        ("(null)", {}),
        ("", {}),
        ("license:gpu:3", {}),
    ],
)
def test_gpu_types_may_begin_with_a_digit(text: str, gpus: dict[str, int]) -> None:
    assert read_gres(text) == gpus


def test_what_the_commands_say_is_read(stubs: Stubs) -> None:
    limits = read_limits(Cluster(partition="gpu,hidden"))
    assert limits.max_array == 25, "sbatch refuses more tasks than max_array_tasks"
    assert list(limits.partitions) == ["gpu", "hidden"]
    (node,) = limits.nodes
    assert (node.cpus, node.memory, node.gpus) == (60, 128000, 6)
    assert node.gpus_of_type == {"3090": 4, "3g.20gb": 2}
    check_cluster(Cluster(partition="gpu, hidden", gpu_type="3g.20gb"), limits, Path.home())


def test_a_time_limit_of_qos_or_account_is_reported(stubs: Stubs, tmp_path: Path) -> None:
    stubs.add(
        "sacctmgr",
        'case "$*" in *assoc*) echo "physics|||normal|||gres/gpu=9|1-00:00:00" ;;',
        '*) echo "normal||||||||00:30:00|"; echo "other||||||||00:05:00|" ;; esac',
    )
    stubs.add("scontrol", "ENFORCE=limits,qos", SCONTROL)
    limits = read_limits(Cluster())
    assert limits.rules.minutes == 30
    with pytest.raises(UsageError, match=r"cluster.minutes=31: its QOS or account allows a job 30"):
        check_cluster(Cluster(minutes=31), limits, Path.home())


LIMITS = Limits(
    partitions={
        "short": Partition("short", default=True, minutes=60),
        "long": Partition("long", minutes=600),
        "down": Partition("down", up=False),
    },
    nodes=(Node("n1", "n1", frozenset({"short", "long"}), 16, 64000, 4, frozenset()),),
    rules=Rules(),
)


@pytest.mark.parametrize("names", ["short,long", "long, short", "short,down"])
def test_several_partitions_are_taken_as_sbatch_takes_them(names: str) -> None:
    """A job runs where it can: the longest time limit counts, and one that is down does no harm."""
    minutes = 600 if "long" in names else 90
    check_cluster(Cluster(partition=names, minutes=minutes), LIMITS, Path.home())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"partition": "short,lnog"}, r"cluster.partition=lnog: .* did you mean 'long'"),
        ({"partition": "short,long", "minutes": 601}, "partition short,long allows 600"),
        ({"partition": "down"}, "is down"),
        ({"python": "apptainer-of-nobody exec i.sif python"}, "of-nobody: no such command"),
    ],
)
def test_what_is_wrong_is_reported(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_cluster(Cluster(**settings), LIMITS, Path.home())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["account", "partition", "qos", "constraint", "gpu_type"])
def test_a_number_is_a_name_too(name: str) -> None:
    cluster = compose_settings([f"cluster.{name}=3090"]).cluster
    assert getattr(cluster, name) == "3090"


# --- the node's share


def nodes(*each: tuple[int, int, int, str]) -> Limits:
    """Return a cluster of nodes: CPUs, MiB, GPUs and their type."""
    p = frozenset({"p"})
    made = [
        Node(f"n{i}", f"n{i}", p, cpus, memory, gpus, frozenset({kind}), {kind: gpus})
        for i, (cpus, memory, gpus, kind) in enumerate(each)
    ]
    return Limits(partitions={"p": Partition("p", default=True)}, nodes=tuple(made))


BIG, SMALL, BARE = (32, 128000, 4, "a100"), (16, 40000, 2, "v100"), (64, 500000, 0, "")


@pytest.mark.parametrize(
    ("settings", "there", "cpus", "mib"),
    [
        ({}, [BIG], 8, 32000),
        ({"gpus_per_task": 2}, [BIG], 16, 64000),
        ({"tasks_per_node": 2}, [BIG], 8, 64000),
        ({}, [BIG, SMALL, BARE], 8, 20000),  # the smallest share, so that each can take it
        ({"gpu_type": "a100"}, [BIG, SMALL], 8, 32000),
        ({"gpus_per_task": 4}, [BIG, SMALL], 32, 128000),  # only the big one can
        ({"gpus_per_task": 0}, [BIG], 4, None),
        ({"gpus_per_task": 0}, [(2, 4000, 0, "")], 2, None),
        ({"cpus_per_task": 3}, [BIG], 3, 32000),
        ({"mem_gb": None}, [BIG], 8, None),
        ({"mem_gb": 5}, [BIG], 8, 5120),
        ({}, [(8, 1, 2, "a100")], 4, None),  # a site that tells no memory
    ],
)
def test_cpus_and_memory_are_the_nodes_share_of_the_gpus(
    settings: dict[str, object], there: list[tuple[int, int, int, str]], cpus: int, mib: int | None
) -> None:
    cluster = with_share(Cluster(**settings), nodes(*there))  # type: ignore[arg-type]
    values = parameters(cluster, "x", Path("f"), Path("s"), 1, 1)
    assert values["cpus_per_task"] == cpus
    assert values.get("mem") == (f"{mib}M" if mib else None)


def test_a_partitions_own_rule_for_memory_comes_first() -> None:
    limits = nodes(BIG)
    for partition, gib in (
        (Partition("p", default=True, has_memory_rule=True), None),
        (Partition("p", default=True, node_memory=16384), 16),
        (Partition("p", default=True, cpu_memory=1024), 8),
    ):
        chosen = Limits(partitions={"p": partition}, nodes=limits.nodes)
        assert with_share(Cluster(), chosen).mem_gb == gib


def test_without_slurm_there_is_no_share() -> None:
    cluster = with_share(Cluster(), None)
    assert (cluster.cpus_per_task, cluster.mem_gb) == (4, None)
