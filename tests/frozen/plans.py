"""What would be submitted: ``plan --json`` of sweep files and clusters, with the batch scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.frozen.commands import FROZEN, Done, Place

FILE = FROZEN / "plans.json"
_PLAN = "python slurm/SlurmTrain.py plan --json artefacts.runs_dir=@HERE@/runs"
_SWEEPS = "--sweep tests/frozen/sweeps"
CASES = [
    *(f"{_PLAN} {_SWEEPS}/grid.yaml {more}".rstrip() for more in (
        "",
        "cluster=hec",
        "cluster=bede cluster.account=bdtest01",
        "cluster=mila",
        "cluster=debug",
        "--cluster generic",
        "cluster=hec cluster.minutes=90 cluster.qos=q cluster.constraint=a100 cluster.mem_gb=1.5",
        "cluster=hec cluster.nodes=2 cluster.tasks_per_node=2 cluster.max_gpus=8",
        "cluster=hec cluster.gpu_type=v100 cluster.gpus_per_task=2",
        "cluster=mila cluster.trials_per_gpu=2 cluster.trials_per_job=5",
        "cluster=debug cluster.python=/shared/python +cluster.sbatch.reservation=course",
        "cluster=debug 'cluster.setup=[\"module load cuda/12.4\",\"export A=b\"]' --count 3",
        "--count 2 logger=csv optimizer.weight_decay=0.1 training.gradient_clip_val=null",
    )),
    f"MLMODELDEV_CLUSTER=hec {_PLAN} {_SWEEPS}/rules.yaml",
    f"MLMODELDEV_CLUSTER=mila {_PLAN} {_SWEEPS}/groups.yaml cluster=debug",
    f"{_PLAN} {_SWEEPS}/model.yaml cluster=bede",
    f"{_PLAN} {_SWEEPS}/ties.yaml",
    f"{_PLAN} {_SWEEPS}/groups.yaml",
    f"{_PLAN} {_SWEEPS}/lists.yaml cluster=local",
    f"{_PLAN} {_SWEEPS}/where.yaml cluster=generic",
    f"{_PLAN} {_SWEEPS}/random.yaml cluster=generic --count 5 --seed 3",
    f"{_PLAN} {_SWEEPS}/bayes.yaml cluster=hec",
    f"{_PLAN} {_SWEEPS}/bayes.yaml cluster=debug cluster.trials_per_gpu=3 --count 7",
    f"{_PLAN} {_SWEEPS}/values.yaml --count 20",
    f"{_PLAN} {_SWEEPS}/nested.yaml cluster=debug",
]  # fmt: skip


def plan(done: Done) -> dict[str, Any]:
    """Return what a plan comes to, and what was said beside it."""
    assert done.status == 0, done.err
    return {"plan": json.loads(done.out), "said": done.err}


def record(folder: Path) -> None:
    """Write the file anew."""
    result = zip(CASES, Place(folder).run_all(CASES), strict=True)
    plans = [{"command": line, **plan(done)} for line, done in result]
    FILE.write_text(json.dumps(plans, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
