"""``SlurmTrain.py bridge``: a W&B sweep for nodes without a network; run it on the login node."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.slurm.bridge import BridgeSource
    from mlmodeldev.tracking.wandb_sweep import RemoteSweep

HELP = "run a W&B sweep on nodes without a network: take its runs, submit them, upload their rows"

LAST_SECONDS = 120.0
"""How long the end waits for the server to take the last rows."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    from mlmodeldev.slurm.sweep_state import CLUSTER_VARIABLE

    parser.add_argument("sweep", metavar="ENTITY/PROJECT/ID", help="as 'wandb sweep' prints it")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="setting of every trial")
    parser.add_argument("--cluster", metavar="NAME", help=f"profile (default: {CLUSTER_VARIABLE})")
    parser.add_argument("--count", type=int, metavar="N", help="runs at most that are taken")
    parser.add_argument(
        "--slots", type=int, metavar="N",
        help="trials at once (default: cluster.max_jobs and max_gpus; on this machine 1)",
    )  # fmt: skip
    parser.add_argument(
        "--patience", type=int, default=5, metavar="N",
        help="end after so many failed trials in a row (default 5)",
    )  # fmt: skip


def run(asked: argparse.Namespace) -> int:
    """Bridge until the sweep is over; return 0 well, 1 some failed, 75 interrupted."""
    from filelock import FileLock, Timeout

    from mlmodeldev.secrets import warn_of_open_netrc
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.slurm.sweep_state import fixed_overrides
    from mlmodeldev.sweep.starter import runs_trainer
    from mlmodeldev.tracking.wandb_api import Unreachable
    from mlmodeldev.tracking.wandb_sweep import RemoteSweep

    _check(asked)
    overrides = fixed_overrides(asked)
    settings = compose_settings(overrides)
    warn_of_open_netrc()
    try:
        sweep = RemoteSweep.find(asked.sweep)
    except Unreachable as error:
        print(f"{error}; try again later", file=sys.stderr)
        return 1
    if not runs_trainer(sweep.config):
        raise UsageError(
            f"{asked.sweep}: its program or command is not that of sweep/config.yaml; the bridge"
            " runs trainer.py with the sweep's values only"
        )
    runs_dir = _runs_dir(sweep, settings)
    folder = runs_dir / sweep.id
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".bridge.lock", timeout=0):
            return _bridge(asked, sweep, settings, overrides, runs_dir)
    except Timeout:
        raise UsageError(f"{asked.sweep}: another bridge is at it") from None


def _check(asked: argparse.Namespace) -> None:
    for name in ("count", "slots", "patience"):
        value = getattr(asked, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} {value}: must be at least 1")


def _runs_dir(sweep: RemoteSweep, settings: Settings) -> Path:
    spec = (sweep.config.get("parameters") or {}).get("artefacts.runs_dir") or {}
    return Path(spec.get("value") or settings.artefacts.runs_dir).expanduser().absolute()


def _bridge(
    asked: argparse.Namespace,
    sweep: RemoteSweep,
    settings: Settings,
    overrides: list[str],
    runs_dir: Path,
) -> int:
    from mlmodeldev.slurm.bridge import BridgeSource
    from mlmodeldev.tracking.upload import Syncer

    on_cluster = settings.cluster.launcher == "slurm"
    with Syncer(runs_dir, sweep.id, keep_open=True) as syncer:
        source = BridgeSource(
            sweep, runs_dir, syncer, adopt=on_cluster, fixed=overrides,
            count=asked.count, patience=asked.patience, say=_say,
        )  # fmt: skip
        status = (_on_cluster if on_cluster else _here)(source, settings, asked.slots)
        up = _last_rows(source)
    _say(f"{source.why or 'interrupted'}; {source.done} ended well, {source.failed} failed")
    if not up:
        print("not all is uploaded: python slurm/SlurmTrain.py sync", file=sys.stderr)
    return status if status else int(not up or source.lost or source.failed > 0)


def _modules(settings: Settings) -> list[str]:
    groups = (settings.model, settings.data)
    return ["trainer", *(str(group["_target_"]).rpartition(".")[0] for group in groups)]


def _on_cluster(source: BridgeSource, settings: Settings, slots: int | None) -> int:
    from mlmodeldev.settings.command_line import config_root
    from mlmodeldev.slurm.dispatcher import Feeder
    from mlmodeldev.slurm.resources import concurrent_jobs
    from mlmodeldev.trial import signals

    signals.listen()
    cluster = settings.cluster
    at_once = slots or max(1, concurrent_jobs(cluster))
    return Feeder(source, cluster, source.folder, config_root(), _modules(settings), at_once).run()


def _here(source: BridgeSource, settings: Settings, slots: int | None) -> int:
    from mlmodeldev.trial.pool import run_pool

    return run_pool(source, slots or 1, _modules(settings))


def _last_rows(source: BridgeSource) -> bool:
    """Upload the rest; return whether all of it is up."""
    deadline = time.monotonic() + LAST_SECONDS
    while not (up := source.upload()) and time.monotonic() < deadline:
        time.sleep(2)
    return up


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)
