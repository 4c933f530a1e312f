"""``SlurmTrain.py sync``: upload trials that ran without a network; run it on the login node."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.errors import EXIT_INTERRUPTED, UsageError, nearest

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.slurm.bridge import BridgeSource
    from mlmodeldev.tracking.upload import Status, Syncer
    from mlmodeldev.tracking.wandb_api import RemoteSweep


SYNC_HELP = "upload to W&B what trials without a network have logged, live or afterwards"

FOLLOW_SECONDS = 5.0
"""Between two looks at the trials."""


def add_sync_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--runs-dir", metavar="DIR", help="default: artefacts.runs_dir")
    parser.add_argument("--sweep", metavar="NAME", help="only this one: its folder or file")
    parser.add_argument("--follow", action="store_true", help="go on until the trials have ended")
    parser.add_argument(
        "--linger",
        type=float,
        default=10,
        metavar="MINUTES",
        help="with --follow: end when all is up and nothing was new for so long (default 10)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")


def run_sync(asked: argparse.Namespace) -> int:
    """Upload; return 0 all is up, 1 something is not, 75 interrupted."""
    from mlmodeldev.secrets import warn_of_open_netrc
    from mlmodeldev.tracking.upload import Syncer
    from mlmodeldev.tracking.wandb_api import Refused, Unreachable, query_server
    from mlmodeldev.trial import signals

    runs_dir = _runs_dir(asked.runs_dir)
    sweep = _sweep(asked.sweep, runs_dir)
    warn_of_open_netrc()
    try:
        query_server("query Viewer { viewer { entity } }")
    except (Unreachable, Refused) as error:
        if not asked.follow:
            print(f"{error}; nothing is uploaded, try again later", file=sys.stderr)
            return 1
    signals.listen()
    with Syncer(runs_dir, sweep, keep_open=asked.follow) as syncer:
        known = _follow(syncer, asked) if asked.follow else _once(syncer, asked)
    _show(known, asked.json)
    if signals.requested():
        return EXIT_INTERRUPTED
    return 0 if all(status.up or _left_to_another(status) for status in known) else 1


def _runs_dir(given: str | None) -> Path:
    from mlmodeldev.settings.composition import compose_settings

    path = Path(given or compose_settings().artefacts.runs_dir).expanduser()
    if given and not path.is_dir():
        raise UsageError(f"--runs-dir {given}: there is no such folder")
    return path


def _sweep(given: str | None, runs_dir: Path) -> str | None:
    """Return the name of the sweep's folder."""
    if given is None or (runs_dir / given).is_dir():
        return given
    from mlmodeldev.slurm.sweep_state import folder_name
    from mlmodeldev.sweep import load

    name = folder_name(load(given)) if Path(given).is_file() else given
    if not (runs_dir / name).is_dir():
        allowed = [path.name for path in runs_dir.glob("[!.]*") if path.is_dir()]
        raise UsageError(
            f"--sweep {given}: there is no folder {runs_dir / name}{nearest(name, allowed)}"
        )
    return name


def _once(syncer: Syncer, asked: argparse.Namespace) -> list[Status]:
    known = syncer.visit()
    for status in known:
        _say(status, asked.json)
    return known


def _follow(syncer: Syncer, asked: argparse.Namespace) -> list[Status]:
    """Visit until all trials have ended and are up, or a signal comes."""
    from mlmodeldev.tracking.upload import wait
    from mlmodeldev.trial import signals

    said: dict[str, tuple[str, str]] = {}
    sent: dict[str, int] = {}
    quiet_since = time.monotonic()
    while True:
        known = syncer.visit()
        for status in known:
            sent[status.folder] = sent.get(status.folder, 0) + status.sent
            if status.sent or said.get(status.folder) != (status.state, status.note):
                said[status.folder] = (status.state, status.note)
                quiet_since = time.monotonic()
                _say(status, asked.json)
        over = bool(known) and all(status.up and status.final for status in known)
        lingered = time.monotonic() - quiet_since >= asked.linger * 60
        if over and lingered and _jobs_to_come(syncer):
            quiet_since, over = time.monotonic(), False
        if signals.requested() or (over and lingered):
            for status in known:
                status.sent = sent[status.folder]
            return known
        wait(FOLLOW_SECONDS, signals.requested)


def _jobs_to_come(syncer: Syncer) -> bool:
    """Whether jobs of these sweeps are still in the queue; yes, where Slurm does not say."""
    from mlmodeldev.slurm.query import queue, slurm_is_here
    from mlmodeldev.slurm.submission import submissions

    folders = syncer.runs_dir.glob(syncer.sweep or "[!.]*")
    arrays = [each.arrays for folder in folders for each in submissions(folder)]
    jobs = {job for known in arrays for job, _ in known}
    if not jobs or not slurm_is_here():
        return False
    try:
        return bool(queue(jobs))
    except UsageError:
        return True


def _left_to_another(status: Status) -> bool:
    return status.note == "another sync has it in hand"


def _say(status: Status, as_json: bool) -> None:
    stream = sys.stderr if as_json else sys.stdout
    what = status.note or f"{status.rows} rows up, {status.sent} new"
    print(f"{status.folder}  {status.state}  {what}", file=stream, flush=True)


def _show(known: list[Status], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"trials": [status.as_dict() for status in known]}, indent=1))
        return
    up = sum(status.up for status in known)
    sent = sum(status.sent for status in known)
    print(f"{len(known)} trials, {up} up to date, {sent} rows sent")


BRIDGE_HELP = (
    "run a W&B sweep on nodes without a network: take its runs, submit them, upload their rows"
)

LAST_SECONDS = 120.0
"""How long the end waits for the server to take the last rows."""


def add_bridge_options(parser: argparse.ArgumentParser) -> None:
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


def run_bridge(asked: argparse.Namespace) -> int:
    """Bridge until the sweep is over; return 0 well, 1 some failed, 75 interrupted."""
    from filelock import Timeout

    from mlmodeldev.lease import ProcessLock
    from mlmodeldev.secrets import warn_of_open_netrc
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.slurm.sweep_state import fixed_overrides
    from mlmodeldev.sweep.starter import runs_trainer
    from mlmodeldev.tracking.wandb_api import RemoteSweep, Unreachable

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
    runs_dir = _bridge_runs_dir(sweep, settings)
    folder = runs_dir / sweep.id
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with ProcessLock(folder / ".bridge.lock", timeout=0):
            return _bridge(asked, sweep, settings, overrides, runs_dir)
    except Timeout:
        raise UsageError(f"{asked.sweep}: another bridge is at it") from None


def _check(asked: argparse.Namespace) -> None:
    for name in ("count", "slots", "patience"):
        value = getattr(asked, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} {value}: must be at least 1")


def _bridge_runs_dir(sweep: RemoteSweep, settings: Settings) -> Path:
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
            sweep, runs_dir, syncer, reattach=on_cluster, fixed=overrides,
            count=asked.count, patience=asked.patience, say=_print_now,
        )  # fmt: skip
        status = (_on_cluster if on_cluster else _here)(source, settings, asked.slots)
        up = _last_rows(source)
    _print_now(f"{source.why or 'interrupted'}; {source.done} ended well, {source.failed} failed")
    if not up:
        print("not all is uploaded: python slurm/SlurmTrain.py sync", file=sys.stderr)
    return status if status else int(not up or source.lost or source.failed > 0)


def _modules(settings: Settings) -> list[str]:
    groups = (settings.model, settings.data)
    return ["trainer", *(str(group["_target_"]).rpartition(".")[0] for group in groups)]


def _on_cluster(source: BridgeSource, settings: Settings, slots: int | None) -> int:
    from mlmodeldev.project import project_root
    from mlmodeldev.slurm.dispatcher import Dispatcher
    from mlmodeldev.slurm.plan import concurrent_jobs
    from mlmodeldev.trial import signals

    signals.listen()
    cluster = settings.cluster
    at_once = slots or max(1, concurrent_jobs(cluster))
    return Dispatcher(
        source, cluster, source.folder, project_root(), _modules(settings), at_once
    ).run()


def _here(source: BridgeSource, settings: Settings, slots: int | None) -> int:
    from mlmodeldev.trial.pool import run_pool

    return run_pool(source, slots or 1, _modules(settings))


def _last_rows(source: BridgeSource) -> bool:
    """Upload the rest; return whether all of it is up."""
    deadline = time.monotonic() + LAST_SECONDS
    while not (up := source.upload()) and time.monotonic() < deadline:
        time.sleep(2)
    return up


def _print_now(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)
