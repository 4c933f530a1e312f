"""The target that jobs and launchers set: variables of Slurm and of torch."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from unittest import mock

from tests.fuzz.target import Target, may_refuse

_NAMES = (
    *(
        "SLURM_JOB_ID",
        "SLURM_ARRAY_JOB_ID",
        "SLURM_ARRAY_TASK_ID",
        "SLURM_RESTART_COUNT",
        "SLURM_PROCID",
    ),
    *(
        "SLURM_LOCALID",
        "SLURM_NTASKS",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_STEP_TASKS_PER_NODE",
        "SLURM_STEP_ID",
    ),
    *(
        "SLURM_CPUS_PER_TASK",
        "SLURM_CPUS_ON_NODE",
        "SLURM_MEM_PER_NODE",
        "SLURM_JOB_NODELIST",
        "SLURMD_NODENAME",
    ),
    *(
        "SBATCH_ACCOUNT",
        "SBATCH_PARTITION",
        "SQUEUE_FORMAT",
        "SLURM_CONF",
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
    ),
    *(
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "TORCHELASTIC_USE_AGENT_STORE",
        "CUDA_VISIBLE_DEVICES",
    ),
    *("OMP_NUM_THREADS", "WANDB_FINISH_TIMEOUT", "WANDB_INIT_TIMEOUT"),
)
_TEXTS = (
    *(
        "",
        "0",
        "1",
        "2",
        "4",
        "-1",
        "+1",
        " 2 ",
        "1.5",
        "x",
        "²",
        "٣",
        "9" * 5000,
        "9999999999",
        "0x1",
        "1e3",
        "2(x3)",
    ),
    *(
        "2(x3),1",
        "2,2",
        "9999999(x9999999)",
        "0(x2)",
        "(x2)",
        "2(x0)",
        "0,1",
        "0,-1,1",
        "GPU-ab,MIG-cd",
        ",",
        "NoDevFiles",
    ),
    *(
        "localhost",
        "node1",
        "::1",
        "True",
        "None",
        "1201",
        "nan",
        "inf",
        "1201_3",
        "a b",
        "\n",
        "é",
    ),
)


def make_environment(rng: Random) -> dict[str, str]:
    """Return some variables of Slurm's and of launchers, right and wrong."""
    chosen = rng.sample(_NAMES, rng.randint(1, 12))
    if rng.random() < 0.3:
        chosen += ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]
    if rng.random() < 0.3:
        chosen += ["SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"]
    return {name: rng.choice(_TEXTS[:8] if rng.random() < 0.5 else _TEXTS) for name in chosen}


def check_environment(given: dict[str, str], folder: Path) -> None:
    """A process has a place that fits the others', all its cores are real; else it says why."""
    from mlmodeldev import lease, machine
    from mlmodeldev.settings.schema import Cluster
    from mlmodeldev.slurm import outer_job, query
    from mlmodeldev.tracking import wandb_init, wandb_logger
    from mlmodeldev.training import launched, srun
    from mlmodeldev.trial import usage

    rest = {name: value for name, value in os.environ.items() if name not in _NAMES}
    with mock.patch.dict(os.environ, {**rest, **given}, clear=True):
        with may_refuse():
            place = srun.srun_rank()
            assert place is None or 0 <= place.rank < place.size
            assert place is None or 0 <= place.local_rank < place.local_size
        variables = dict(os.environ)
        launched.forget_left_over(variables)
        with may_refuse():
            if launched.is_launched(variables):
                numbers = launched.Launched.of(variables)
                assert 0 <= numbers.rank < numbers.size
                assert numbers.rank == int(given["RANK"])
                assert 0 <= numbers.port < 2**16
        with may_refuse():
            assert 1 <= machine.cores() <= (os.cpu_count() or 1)
        with may_refuse():
            for own in machine.trial_resources(2):
                assert own["MASTER_PORT"].isdecimal()
        assert all(name not in ("", "-1") for name in machine.visible_gpus())
        usage._memory_given()
        for timeout in (usage._cores_given, wandb_init.init_seconds, wandb_logger._patience):
            with may_refuse():
                timeout()
        assert query.own_task_name() is not None
        assert lease.slurm_ids() is not None
        for ids in (
            {"job_id": given.get("SLURM_JOB_ID")},
            {"job_id": "1201", "restart_count": "x"},
            {},
        ):
            lease.owned(
                {"state": "running", "owner": {"host": "h", "pid": 1}, "slurm": ids, "lease": 1.0}
            )
        for clean in (outer_job.slurm_environment(), outer_job.sbatch_environment(Cluster())):
            assert not [
                name for name in clean if name.startswith("SLURM_") and name != "SLURM_CONF"
            ]


TARGETS = [
    Target(
        "environments",
        (
            "mlmodeldev.training.launched",
            "mlmodeldev.training.srun",
            "mlmodeldev.machine",
            "mlmodeldev.slurm.outer_job",
        ),
        make_environment,
        check_environment,
        fills=False,
    ),
]
