"""Of several limits of accounting the one counts that Slurm takes; none is refused by another."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.schema import Cluster as Settings
from mlmodeldev.slurm import accounting
from mlmodeldev.slurm.accounting import Rules, read_rules
from mlmodeldev.slurm.limits import Limits, Partition, read_limits
from mlmodeldev.slurm.preflight import check_cluster
from tests.slurm.cluster import Cluster
from tests.slurm.stubs import Stubs

# as sacctmgr 22.05 prints them
QOS = """\
normal|||||||||
long||||50||||7-00:00:00|
big|||||||gres/gpu=8||
over|OverPartQOS|||9||||05:00:00|
free|PartitionTimeLimit||||||||
twice|||||||||2.000000
group|||20||6||||
small||3||||gres/gpu=4|gres/gpu=2|02:00:00|
"""
RESEARCH = "research|||normal,long||2|gres/gpu=4|1-00:00:00\n"
TEACH = "teach|||normal|10||gres/gpu=1|01:00:00\n"


class Accounting(Stubs):
    """sacctmgr as it answers of one user."""

    def answer(self, associations: str, default: str = "", qos: str = QOS) -> None:
        for name, text in (("assoc", associations), ("default", default), ("qos", qos)):
            (self.folder / name).write_text(text)
        self.add(
            "sacctmgr",
            'echo "$*" >> "$HERE/words"',
            'case "$*" in *onlydefaults*) cat "$HERE/default" ;; *assoc*) cat "$HERE/assoc" ;;',
            '*) cat "$HERE/qos" ;; esac',
        )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Accounting:
    return Accounting(tmp_path, monkeypatch)


def limits_of(rules: Rules) -> dict[str, int]:
    names = ("max_submit", "max_jobs", "gpus_at_once", "gpus_per_job", "minutes")
    return {name: getattr(rules, name) for name in names if getattr(rules, name) is not None}


@pytest.mark.parametrize(
    ("own", "qos", "limits"),
    [
        ("", None, {"max_jobs": 2, "gpus_per_job": 4, "minutes": 1440}),
        ("", "long", {"max_jobs": 50, "gpus_per_job": 4, "minutes": 7 * 1440}),
        ("", "Long", {"max_jobs": 50, "gpus_per_job": 4, "minutes": 7 * 1440}),
        ("", "big", {"max_jobs": 2, "gpus_per_job": 8, "minutes": 1440}),
        ("", "group", {"max_submit": 20, "max_jobs": 6, "gpus_per_job": 4, "minutes": 1440}),
        ("", "twice", {"max_jobs": 2, "minutes": 1440}),  # 4 GPUs, doubled
        (
            "small", "long",
            {"max_submit": 3, "max_jobs": 50, "gpus_at_once": 4, "gpus_per_job": 2, "minutes": 120},
        ),
        (
            "small", "over",
            {"max_submit": 3, "max_jobs": 9, "gpus_at_once": 4, "gpus_per_job": 2, "minutes": 300},
        ),
        ("", "secret", {}),
        ("secret", "long", {}),
    ],
)  # fmt: skip
def test_a_limit_counts_where_it_is_first_set(
    site: Accounting, own: str, qos: str | None, limits: dict[str, int]
) -> None:
    """Partition's QOS, job's QOS, association; of what is not shown nothing is concluded."""
    site.answer(RESEARCH)
    assert limits_of(read_rules({"gpu": own}, "", qos=qos)) == limits
    assert limits_of(read_rules({"gpu": own}, "", qos=qos, enforced=False)) == {}


@pytest.mark.parametrize(
    ("account", "default", "minutes"),
    [
        ("teach", "research\n", 60),
        ("TEACH", "research\n", 60),
        ("research", "teach\n", 1440),
        (None, "teach\n", 60),
        (None, "research\n", 1440),
        (None, "", 1440),  # it may be either: nothing right is refused
    ],
)
def test_the_account_that_is_charged_counts_alone(
    site: Accounting, account: str | None, default: str, minutes: int
) -> None:
    site.answer(TEACH + RESEARCH, default)
    rules = read_rules({"gpu": ""}, "", account=account)
    assert rules.minutes == minutes
    assert rules.accounts == frozenset({"teach", "research"})


def test_accounts_of_another_cluster_are_left_out(site: Accounting) -> None:
    site.answer(TEACH + RESEARCH, "teach\n")
    read_rules({"gpu": ""}, "mine")
    lines = [line for line in site.read("words").splitlines() if "assoc" in line]
    assert len(lines) == 2
    assert all("cluster=mine" in line.split() for line in lines)


@pytest.mark.parametrize(
    ("partitions", "minutes"),
    [
        ({"day": ""}, 180),
        ({"gpu": ""}, 1440),
        ({"gpu": "", "day": ""}, 1440),
        ({"gpu": "small", "day": ""}, 180),
    ],
)
def test_an_association_for_a_partition_counts_there(
    site: Accounting, partitions: dict[str, str], minutes: int
) -> None:
    site.answer("research|day||normal||||03:00:00\n" + RESEARCH)
    assert read_rules(partitions, "").minutes == minutes


def test_the_only_qos_of_an_account_is_its_default(site: Accounting) -> None:
    site.answer("research|||long||||1-00:00:00\n")
    assert read_rules({"gpu": ""}, "").minutes == 7 * 1440


def test_a_slurm_that_can_not_show_all_columns_shows_the_others(site: Accounting) -> None:
    site.answer(RESEARCH, qos="long||||50||||7-00:00:00\n")
    answer = (site.folder / "sacctmgr").read_text()
    refuses = 'case "$*" in *LimitFactor*) echo " Unknown field" >&2; exit 1 ;; esac'
    site.add("sacctmgr", refuses, answer)
    assert read_rules({"gpu": ""}, "", qos="long").minutes == 7 * 1440


@pytest.mark.parametrize(("over", "allowed"), [(True, True), (False, False)])
def test_the_partitions_own_limit_binds_unless_the_qos_is_above_it(
    over: bool, allowed: bool
) -> None:
    rules = Rules(minutes=7 * 1440, over_partition_time=over)
    limits = Limits(partitions={"day": Partition("day", True, minutes=1440)}, rules=rules)
    if allowed:
        check_cluster(Settings(minutes=1441), limits, Path.home())
        return
    with pytest.raises(UsageError, match="partition day allows 1440"):
        check_cluster(Settings(minutes=1441), limits, Path.home())


# --- and by a real Slurm


USER = "nobody"
SET_UP = """add cluster other
add qos long MaxWall=7-0
add qos small MaxWall=2:00:00
add qos over MaxWall=5:00:00 Flags=OverPartQOS
add qos free Flags=PartitionTimeLimit
add account teach cluster=test MaxWall=1:00:00 MaxTRES=gres/gpu=1
add account research cluster=test MaxWall=2-0
add account far cluster=other MaxWall=10:00
add user nobody account=teach cluster=test
add user nobody account=research cluster=test qos=normal,long,over,free
add user nobody account=research cluster=test partition=high MaxWall=3:00:00 qos=normal,long,over
add user nobody account=far cluster=other
modify user nobody where cluster=test set DefaultAccount=research
"""


@pytest.fixture(scope="module")
def limited() -> Iterator[Cluster]:
    """A Slurm that holds its users to limits."""
    with Cluster(nodes=1, extra="AccountingStorageEnforce=limits,qos") as cluster:
        for line in SET_UP.splitlines():
            cluster.run("sacctmgr", "-i", *line.split())
        cluster.scontrol("update", "PartitionName=nograce", "QOS=small")
        yield cluster


def is_limited(cluster: Cluster, settings: Settings) -> bool:
    """Submit as the user; return whether Slurm lets the job wait because of a limit."""
    words = ["setpriv", "--reuid", USER, "--regid", "65534", "--clear-groups", "sbatch"]
    words += ["--parsable", "-o", "/dev/null", "--wrap", "true", f"--time={settings.minutes}"]
    words += [f"--gpus-per-node={settings.gpus_per_task}"] if settings.gpus_per_task else []
    for name in ("account", "partition", "qos"):
        words += [f"--{name}={value}"] if (value := getattr(settings, name)) else []
    done = subprocess.run(
        words, env=cluster.env, cwd="/", capture_output=True, text=True, check=True
    )
    job = done.stdout.strip()
    cluster.wait_for(lambda: cluster.job(job).get("Reason") != "None" or cluster.over(job), 60)
    reason = cluster.job(job)["Reason"]
    cluster.run("scancel", job)
    return "PerJob" in reason or reason in {"PartitionTimeLimit", "PartitionConfig"}


HOUR = 60


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"minutes": 47 * HOUR}, False),
        ({"minutes": 49 * HOUR}, True),
        ({"minutes": 49 * HOUR, "qos": "long"}, False),
        ({"minutes": 2 * HOUR, "account": "teach"}, True),
        ({"minutes": 30, "account": "TEACH", "gpus_per_task": 1}, False),
        ({"minutes": 30, "account": "teach", "gpus_per_task": 2}, True),
        ({"minutes": 4 * HOUR, "partition": "high"}, True),
        ({"minutes": 4 * HOUR, "partition": "high", "qos": "long"}, False),
        ({"minutes": 4 * HOUR, "partition": "nograce"}, True),
        ({"minutes": 4 * HOUR, "partition": "nograce", "qos": "over"}, False),
        ({"minutes": 10, "partition": "short"}, True),
        ({"minutes": 10, "partition": "short", "qos": "long"}, True),
        ({"minutes": 10, "partition": "short", "qos": "free"}, False),
    ],
)
def test_what_is_refused_is_what_slurm_would_never_start(
    limited: Cluster, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], refused: bool
) -> None:
    monkeypatch.setenv("SLURM_CONF", limited.env["SLURM_CONF"])
    monkeypatch.setattr(accounting, "user_name", lambda: USER)
    cluster = Settings(**{"gpus_per_task": 0, **settings})  # type: ignore[arg-type]
    assert is_limited(limited, cluster) is refused
    if not refused:
        check_cluster(cluster, read_limits(cluster), Path.home())
        return
    with pytest.raises(UsageError, match=r"allows"):
        check_cluster(cluster, read_limits(cluster), Path.home())
