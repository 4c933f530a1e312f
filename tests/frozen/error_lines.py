"""Bad input to every command: what is said on standard error, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.frozen.commands import FROZEN, Done, Place, without_usage

FILE = FROZEN / "error_lines.json"

_TRAINER = (
    *("optimizer.lrr=1", "optimzer.lr=1", "+optimizer.lrr=1", "optimizer.lr=-1"),
    *("optimizer.lr=fast", "'optimizer.betas=[0.9]'", "optimizer=adamx", "optimizer=5"),
    *("optimizer.name=adamx", "optimizer.schedule=cosine optimizer.warmup_fraction=1.0"),
    *("optimizer.lr", "'optimizer.lr=[1'", "optimizer.lr=1,2", "training.seed=true"),
    *("training.precision=half", "training.max_epochs=0", "training.limit_train_batches=0"),
    *("training=null", "processing.batch_size=1.5", "'processing.batch_size=${optimizer.lr}'"),
    *("'processing.batch_size=${training.nope}'", "debug=fats", "data=digit"),
    *("data.val_fraction=0", "data._target_=Digits", "callbacks.cka.estimator=exact"),
    *("artefacts.trial=a/b", "logger.wandb.projct=x", "cluster=hecc", "+overrides.x=1"),
    *("debug=fast training.limit_val_batches=1.5", "model.dropout=1"),
    "training.precision=16-mixed training.accelerator=cpu",
)
_TRAIN = (
    *("plan --sweep nowhere.yaml", "plan --count 0", "plan optimizer.lrr=1", "plan cluster=hecc"),
    *("plan --cluster nowhere", "plan --frobnicate", "nonsense", "submit --jobs 0"),
    *("plan cluster=hec cluster.minutes=1", "submit cluster=hec --yes", "retry optimizer.lr=-1"),
    "plan cluster=hec cluster.max_gpus=1 cluster.gpus_per_task=2",
    "plan cluster=hec cluster.nodes=2 cluster.trials_per_job=2",
    *("logs nosuch --sweep @SWEEPS@/grid.yaml", "logs x --sweep @SWEEPS@/grid.yaml"),
    *("logs y2obpvxq --sweep @SWEEPS@/grid.yaml", "cancel --trial no --sweep @SWEEPS@/grid.yaml"),
    *("status --sweep @BAD@/endless_draws.yaml", "collect --sweep @BAD@/program.yaml"),
    *("plan --sweep @BAD@/metric.yaml", "plan --sweep @BAD@/settings.yaml"),
    *("plan --sweep @BAD@/foreign_search.yaml", "clean cluster.minutes=0"),
    "plan cluster=hec --sweep @BAD@/endless_search.yaml",
    *("plan --wandb a/b/c --sweep @SWEEPS@/grid.yaml", "prefetch data=nowhere"),
    *("plan --wandb --sweep @SWEEPS@/bayes.yaml", "doctor cluster.gpus_per_task=-1"),
    *("bridge --count 0 a/b/c", "bridge a/b/c optimizer.lr=x", "sync --runs-dir nowhere"),
    "sync --runs-dir tests/frozen --sweep swep",
)
_ON_A_CLUSTER = (
    *("plan cluster=hec cluster.partition=gpu-shrt", "plan cluster=hec cluster.minutes=1000"),
    *("plan cluster=debug cluster.partition=old", "plan cluster=generic cluster.gpus_per_task=8"),
    *("plan cluster=generic cluster.gpu_type=h100", "plan cluster=debug cluster.nodes=3"),
    *("plan cluster=debug cluster.python=/nowhere/python", "submit cluster=hec"),
)
_SWEEP = (
    *(f"check @BAD@/{name}.yaml" for name in (
        *("unknown_key", "method", "number_as_text", "twice", "no_yaml", "no_sweep", "empty"),
        *("circle", "rules", "nothing_fits", "continuous", "search", "macros", "settings"),
        *("metric", "nowhere"),
    )),
    *("check model=text_classifier", "check --json @BAD@/method.yaml", "check"),
    *("list @SWEEPS@/bayes.yaml", "list @BAD@/endless_draws.yaml", "list @BAD@/nothing_fits.yaml"),
    *("list @SWEEPS@/grid.yaml --count -1", "list @BAD@/circle.yaml"),
)  # fmt: skip
_INFERENCE = (
    *("nothing text --runs-dir @HERE@", "conf text", "conf --file nowhere.txt"),
    "tests/frozen/bad/export text",
)
_AGENT = ("a/b", "a/b/c optimizer.lr=1", "a/b/c --count 0")

CASES = [
    *(f"python trainer.py artefacts.runs_dir=@HERE@/runs {more}" for more in _TRAINER),
    *(f"python slurm/SlurmTrain.py {more}" for more in _TRAIN),
    *(f"python -m mlmodeldev.sweep {more}" for more in _SWEEP),
    *(f"python inference.py {more}".strip() for more in _INFERENCE),
    *(f"bash slurm/agent.sh {more}".strip() for more in _AGENT),
]
CASES = [
    line.replace("@SWEEPS@", "tests/frozen/sweeps").replace("@BAD@", "tests/frozen/bad")
    for line in CASES
]
ON_A_CLUSTER = [
    f"python slurm/SlurmTrain.py {more} --sweep tests/frozen/sweeps/grid.yaml"
    " artefacts.runs_dir=@HERE@/runs"
    for more in _ON_A_CLUSTER
]
"""To the pretended Slurm; the others find none."""

MAY_CHANGE = {
    "model.dropout": "names an argument of the bundled model",
    "optimzer": "lists all groups of settings",
}
"""Cases, by a part of their command, whose words may change without a fault."""


def answers(folder: Path) -> list[dict[str, Any]]:
    """Run all cases; return how each was refused."""
    alone, cluster = Place(folder / "alone"), Place(folder / "cluster", slurm=True)
    done = [*alone.run_all(CASES), *cluster.run_all(ON_A_CLUSTER)]
    lines = [*CASES, *ON_A_CLUSTER]
    return [_answer(line, each) for line, each in zip(lines, done, strict=True)]


def _answer(line: str, done: Done) -> dict[str, Any]:
    """Return status and words; `sweep check` tells its mistakes on standard output."""
    message = {"out": done.out} if "mlmodeldev.sweep" in line else {}
    note = next((why for part, why in MAY_CHANGE.items() if part in line), None)
    noted = {"note": note} if note else {}
    return {
        "command": line,
        "status": done.status,
        "err": without_usage(done.err),
        **message,
        **noted,
    }


def record(folder: Path) -> None:
    """Write the file anew."""
    text = json.dumps(answers(folder), indent=1, ensure_ascii=False)
    FILE.write_text(f"{text}\n", encoding="utf-8")
