"""Used against asked for: medians, maxima, and what to ask for next, worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.slurm.next_request import Most, next_request, rounded_minutes
from mlmodeldev.slurm.usage_table import UsageTable, usage_table
from tests.slurm.stubs import Stubs

IN_JOBS = "cluster.launcher=slurm"


class Sweep:
    """Trials without a network or a training, with records as they would be."""

    def __init__(self, folder: Path, count: int) -> None:
        from mlmodeldev.sweep import load

        self.file, self.runs = folder / "sweep.yaml", folder / "runs"
        text = {
            "name": "used",
            "program": "trainer.py",
            "method": "grid",
            "metric": {"name": "val/accuracy", "goal": "maximize"},
            "parameters": {"training.seed": {"values": list(range(count))}},
        }
        self.file.write_text(json.dumps(text))
        self.trials = list(load(self.file).trials())

    def write(self, number: int, state: str = "done", **record: Any) -> None:
        folder = self.runs / "used" / self.trials[number].id
        folder.mkdir(parents=True)
        whole = {"id": folder.name, "state": state, "attempts": 1, **record}
        (folder / "trial.json").write_text(json.dumps(whole))

    def words(self, *overrides: str) -> list[str]:
        return ["--sweep", str(self.file), f"artefacts.runs_dir={self.runs}", *overrides]

    def table(self, *overrides: str) -> UsageTable | None:
        import argparse

        from mlmodeldev.slurm.sweep_state import add_sweep_options, read_sweep_state

        parser = argparse.ArgumentParser()
        add_sweep_options(parser)
        args = parser.parse_args(self.words("logger=csv", *overrides))
        return usage_table(read_sweep_state(args, lint=False))


def usage(used_cores: float, memory: float, **more: Any) -> dict[str, Any]:
    return {"seconds": 1000.0, "cpu_seconds": 1000.0 * used_cores, "memory_gib": memory, **more}


GPU = {"gpu_memory_gib": 10.0, "gpu_gib": 80.0, "gpu_samples": 90}
REQUESTED = (IN_JOBS, "cluster.cpus_per_task=8", "cluster.mem_gb=64", "cluster.minutes=240")


@pytest.fixture
def used(tmp_path: Path) -> Sweep:
    sweep = Sweep(tmp_path, 4)
    sweep.write(0, seconds=600.0, usage=usage(0.5, 2.0, gpu_use=0.20, **GPU))
    sweep.write(1, seconds=1500.0, usage=usage(1.4, 4.0, gpu_use=0.25, **GPU))
    sweep.write(2, "pruned", seconds=300.0, usage=usage(0.9, 3.0, gpu_use=0.30, **GPU))
    sweep.write(3, "failed", seconds=9999.0, usage=usage(7.0, 60.0))
    return sweep


def test_what_to_ask_for_next_has_margins(used: Sweep) -> None:
    """Three trials fit by use (0.9 / 0.30), six by memory (80 / 13): three at once on a GPU.

    25 min x 1.25 + 2 + 2 -> 40; 1.4 cores x 3 x 1.25 = 5.25 -> 6; 4 GiB x 3 x 1.25 + 0.5 -> 16.
    """
    table = used.table(*REQUESTED)
    assert table is not None
    assert table.trials == 3
    assert table.settings == [
        "cluster.minutes=40",
        "cluster.cpus_per_task=6",
        "cluster.mem_gb=16",
        "cluster.trials_per_gpu=3",
    ]
    assert table.figures["minutes"] == {"n": 3, "median": 10, "maximum": 25, "requested": 240}
    assert table.figures["memory_gib"] == {"n": 3, "median": 3, "maximum": 4, "requested": 64}
    assert table.figures["cores"] == {"n": 3, "median": 0.9, "maximum": 1.4, "requested": 8}
    assert table.figures["gpu_use"]["maximum"] == 0.3
    assert ["cores", "0.90", "1.40", "8.00", "6 a process"] in table.rows
    assert ["GPU use", "25%", "30%", "", "3 trials a GPU"] in table.rows
    assert table.notes[0].startswith("From 3 finished trials: ask next for: cluster.minutes=40 ")


def test_only_what_differs_is_named(used: Sweep) -> None:
    fitting = ("cluster.minutes=40", "cluster.mem_gb=16", "cluster.gpus_per_task=0")
    table = used.table(*REQUESTED, *fitting, "cluster.cpus_per_task=2")
    assert table is not None
    assert table.settings == ["cluster.mem_gb=6"]  # without a GPU nothing shares one
    table = used.table(*REQUESTED, *fitting, "cluster.cpus_per_task=2", "cluster.mem_gb=6")
    assert table is not None
    assert table.settings == []
    assert table.notes == ["From 3 finished trials: what was asked for fits."]


def test_what_auto_came_to_is_what_the_job_had(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 2)
    for number in range(2):
        sweep.write(number, seconds=60.0, usage=usage(3.1, 2.0, cores=4, memory_given_gib=3.0))
    table = sweep.table(IN_JOBS, "cluster.minutes=10")
    assert table is not None
    assert table.figures["cores"]["requested"] == 4
    assert table.figures["memory_gib"]["requested"] == 3
    assert table.settings == []  # 3.1 x 1.25 -> 4 and 2 x 1.25 + 0.5 -> 3: as auto had it


def test_on_this_machine_nothing_was_requested(used: Sweep) -> None:
    table = used.table("cluster.launcher=local")
    assert table is not None
    assert table.figures["minutes"]["requested"] is None
    assert "cluster.minutes=40" in table.settings


def test_one_trial_or_nothing_measured_is_no_table(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, 3)
    sweep.write(0, seconds=60.0, usage=usage(1.0, 1.0))
    assert sweep.table() is None
    (tmp_path / "other").mkdir()
    other = Sweep(tmp_path / "other", 2)
    for number in range(2):
        other.write(number, seconds=60.0)  # as versions before this wrote them
    assert other.table() is None


def test_accounting_tells_what_records_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = Sweep(tmp_path, 2)
    for number in range(2):
        slurm = {"job_id": f"{70 + number}", "array_job_id": "70", "array_task_id": str(number)}
        sweep.write(number, seconds=60.0, slurm=slurm)
    stubs = Stubs(tmp_path, monkeypatch)
    for name in ("sbatch", "scontrol"):
        stubs.add(name, "exit 0")
    stubs.add(
        "sacct",
        "echo '70_0|COMPLETED|0:0|8G|'; echo '70_0.batch|COMPLETED|0:0||2097152K'",
        "echo '70_1|COMPLETED|0:0|8G|'; echo '70_1.batch|COMPLETED|0:0||1048576K'",
    )
    table = sweep.table(IN_JOBS, "cluster.minutes=10")
    assert table is not None
    memory = table.figures["memory_gib"]
    assert memory == {"n": 2, "median": 1.5, "maximum": 2, "requested": 8}
    assert table.settings == ["cluster.mem_gb=3"]
    assert any("from Slurm's accounting" in note for note in table.notes)
    packed = sweep.table(IN_JOBS, "cluster.trials_per_gpu=2")
    assert packed is None  # a job's memory is not one trial's


def test_collect_prints_it_and_has_it_as_json(used: Sweep, capsys) -> None:
    from mlmodeldev.cli import slurm_train

    words = used.words("logger=csv")
    assert slurm_train(["collect", *words]) == 0
    printed = capsys.readouterr().out
    assert "used and asked for" in printed
    assert "From 3 finished trials: ask next for: cluster.minutes=40 cluster.cpus_" in printed
    assert slurm_train(["collect", "--json", *words]) == 0
    resources = json.loads(capsys.readouterr().out)["resources"]
    assert resources["trials"] == 3
    assert resources["memory_gib"]["maximum"] == 4
    assert "cluster.trials_per_gpu=3" in resources["settings"]


@pytest.mark.parametrize(
    ("most", "together"),
    [
        ({"gpu_use": 0.95}, 1),  # one keeps it busy
        ({"gpu_use": 0.01}, 6),  # 80 / (1.25 * 10 + 0.5) by memory
        ({"gpu_use": 0.01, "gpu_memory_gib": 0.1}, 8),  # and never more
        ({"gpu_use": 0.01, "gpu_memory_gib": 79.0}, 1),
        ({}, None),
    ],
)
def test_trials_share_a_gpu_by_its_memory_and_its_time(
    most: dict[str, float], together: int | None
) -> None:
    from mlmodeldev.settings.schema import Cluster

    figures = {"gpu_memory_gib": 10.0, "gpu_gib": 80.0, **most}
    assert next_request(Cluster(), Most(**figures)).trials_per_gpu == together
    two = Cluster(trials_per_gpu=2)  # the use is of both
    if most == {"gpu_use": 0.95}:
        assert next_request(two, Most(**figures)).trials_per_gpu == 1
        figures["gpu_use"] = 0.45
        assert next_request(two, Most(**figures)).trials_per_gpu == 4
    several = Cluster(gpus_per_task=2)
    assert next_request(several, Most(**figures)).trials_per_gpu is None


def test_a_job_of_several_trials_needs_the_time_of_its_rounds() -> None:
    from mlmodeldev.settings.schema import Cluster

    cluster = Cluster(trials_per_job=10, trials_per_gpu=2, tasks_per_node=1)
    # five rounds of 10 min x 1.25, and 2 + 2 min
    assert next_request(cluster, Most(minutes=10.0)).minutes == 75
    assert next_request(cluster, Most(minutes=10.0), searches=True).minutes is None


def test_limits_are_rounded_up_to_what_one_would_type() -> None:
    limits = [rounded_minutes(m) for m in (0.1, 5, 5.1, 60, 61, 240, 250, 1440, 1441)]
    assert limits == [5, 5, 10, 60, 75, 240, 270, 1440, 1500]
