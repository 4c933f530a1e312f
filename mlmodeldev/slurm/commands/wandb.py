"""``SlurmTrain.py sync, bridge``: W&B for nodes without a network, from the login node.

`sync` uploads what trials have logged; `bridge` also takes a W&B sweep's runs and submits them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlmodeldev.errors import EXIT_INTERRUPTED, UsageError, nearest
from mlmodeldev.project import project_root
from mlmodeldev.slurm.plan import concurrent_jobs
from mlmodeldev.slurm.query import read_queue, slurm_is_here
from mlmodeldev.slurm.submission import submissions
from mlmodeldev.slurm.sweep_state import CLUSTER_VARIABLE, fixed_overrides
from mlmodeldev.trial import signals

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.slurm.bridge import BridgeSource
    from mlmodeldev.sweep.served import ServedSweep
    from mlmodeldev.tracking.upload import Status, Syncer
    from mlmodeldev.tracking.wandb_api import RemoteSweep


SYNC_HELP = (
    "upload what trials without a network logged for W&B, MLflow, ClearML; live or afterwards"
)

FOLLOW_SECONDS = 5.0
"""Between two looks at the trials."""


def add_sync_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="artefacts.runs_dir=DIR")
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


def run_sync(args: argparse.Namespace) -> int:
    """Upload; return 0 all is up, 1 something is not, 75 interrupted."""
    from mlmodeldev.secrets import warn_of_open_netrc
    from mlmodeldev.tracking.behind import is_used, send_all, trials_behind
    from mlmodeldev.tracking.bounded import Unreachable
    from mlmodeldev.tracking.clearml_sync import CLEARML
    from mlmodeldev.tracking.mlflow_sync import MLFLOW
    from mlmodeldev.tracking.upload import Syncer, trials_to_upload
    from mlmodeldev.tracking.wandb_api import Refused, query_server

    runs_dir = _sync_runs_dir(args.runs_dir, args.overrides)
    sweep = _sweep_name(args.sweep, runs_dir)
    used = [tracker for tracker in (MLFLOW, CLEARML) if is_used(tracker, runs_dir, sweep)]
    if used:
        sent = [send_all(each, trials_behind(each, runs_dir, sweep)) for each in used]
        whole = all(sent)
        if not args.follow and not any(trials_to_upload(runs_dir, sweep)):  # none is for W&B
            if args.json:
                _print_statuses([], args.json)
            return 0 if whole else 1
    warn_of_open_netrc()
    try:
        query_server("query Viewer { viewer { entity } }")
    except (Unreachable, Refused) as error:
        if not args.follow:
            print(f"{error}; nothing is uploaded, try again later", file=sys.stderr)
            return 1
    signals.listen()
    with Syncer(runs_dir, sweep, keep_open=args.follow) as syncer:
        statuses = (_upload_until_ended if args.follow else _upload_once)(syncer, args)
    _print_statuses(statuses, args.json)
    if signals.requested():
        return EXIT_INTERRUPTED
    return 0 if all(status.up or _left_to_another(status) for status in statuses) else 1


def _sync_runs_dir(option: str | None, overrides: Sequence[str]) -> Path:
    from mlmodeldev.settings.composition import compose_settings

    chosen = compose_settings(overrides, partial=True).artefacts.runs_dir
    path = Path(option or chosen).expanduser()
    if (option or overrides) and not path.is_dir():
        given = f"--runs-dir {option}" if option else f"artefacts.runs_dir={chosen}"
        raise UsageError(f"{given}: there is no such folder; artefacts.runs_dir names the trials'")
    return path


def _sweep_name(option: str | None, runs_dir: Path) -> str | None:
    """Return the name of the sweep's folder."""
    if option is None or (runs_dir / option).is_dir():
        return option
    from mlmodeldev.sweep import load

    name = load(option).folder if Path(option).is_file() else option
    if not (runs_dir / name).is_dir():
        allowed = [path.name for path in runs_dir.glob("[!.]*") if path.is_dir()]
        hint = nearest(name, allowed)
        there = (
            f"there are: {', '.join(sorted(allowed)[:8])}" if allowed else "submit begins trials"
        )
        raise UsageError(f"--sweep {option}: there is no folder {runs_dir / name}{hint} ({there})")
    return name


def _upload_once(syncer: Syncer, args: argparse.Namespace) -> list[Status]:
    statuses = syncer.visit()
    for status in statuses:
        _print_status(status, args.json)
    return statuses


def _upload_until_ended(syncer: Syncer, args: argparse.Namespace) -> list[Status]:
    """Upload until all trials have ended and are up, or a signal comes."""
    from mlmodeldev.tracking.upload import wait

    printed: dict[str, tuple[str, str]] = {}
    sent: dict[str, int] = {}
    quiet_since = time.monotonic()
    while True:
        statuses = syncer.visit()
        for status in statuses:
            sent[status.folder] = sent.get(status.folder, 0) + status.sent
            if status.sent or printed.get(status.folder) != (status.state, status.note):
                printed[status.folder] = (status.state, status.note)
                quiet_since = time.monotonic()
                _print_status(status, args.json)
        over = bool(statuses) and all(status.up and status.final for status in statuses)
        lingered = time.monotonic() - quiet_since >= args.linger * 60
        if over and lingered and _jobs_to_come(syncer):
            quiet_since, over = time.monotonic(), False
        if signals.requested() or (over and lingered):
            for status in statuses:
                status.sent = sent[status.folder]
            return statuses
        wait(FOLLOW_SECONDS, signals.requested)


def _jobs_to_come(syncer: Syncer) -> bool:
    """Return whether jobs of these sweeps are in the queue; yes, where Slurm does not say."""
    folders = syncer.runs_dir.glob(syncer.sweep or "[!.]*")
    made = [submission for folder in folders for submission in submissions(folder)]
    jobs = {job for submission in made for job, _ in submission.arrays}
    if not jobs or not slurm_is_here():
        return False
    try:
        return bool(read_queue(jobs))
    except UsageError:
        return True


def _left_to_another(status: Status) -> bool:
    return status.note == "another sync has it in hand"


def _print_status(status: Status, as_json: bool) -> None:
    stream = sys.stderr if as_json else sys.stdout
    what = status.note or f"{status.rows} rows up, {status.sent} new"
    print(f"{status.folder}  {status.state}  {what}", file=stream, flush=True)


def _print_statuses(statuses: list[Status], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"trials": [status.as_dict() for status in statuses]}, indent=1))
        return
    up = sum(status.up for status in statuses)
    sent = sum(status.sent for status in statuses)
    print(f"{len(statuses)} trials, {up} up to date, {sent} rows sent")


BRIDGE_HELP = (
    "run a W&B sweep on nodes without a network: take its runs, submit them, upload their rows"
)

LAST_SECONDS = 120.0
"""How long the end waits for the server to take the last rows."""


def add_bridge_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
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


def run_bridge(args: argparse.Namespace) -> int:
    """Bridge until the sweep is over; return 0 well, 1 some failed, 75 interrupted."""
    from filelock import Timeout

    from mlmodeldev.lease import ProcessLock
    from mlmodeldev.secrets import warn_of_open_netrc
    from mlmodeldev.settings.composition import compose_settings
    from mlmodeldev.sweep.monitor import remote_monitor
    from mlmodeldev.sweep.served import ServedSweep
    from mlmodeldev.tracking.bounded import Unreachable
    from mlmodeldev.tracking.wandb_api import RemoteSweep

    _check_numbers(args)
    overrides = fixed_overrides(args)
    settings = compose_settings(overrides)
    warn_of_open_netrc()
    try:
        sweep = RemoteSweep.find(args.sweep)
    except Unreachable as error:
        print(f"{error}; try again later", file=sys.stderr)
        return 1
    served = ServedSweep(sweep.config, args.sweep)
    if served.invocation.is_foreign:
        raise UsageError(
            f"{args.sweep}: the bridge uploads what trainer.py logs, and runs it alone, not"
            f" {served.invocation.name}"
        )
    monitor = remote_monitor(sweep.config, overrides, settings)
    if monitor.warning:
        print(f"warning: {monitor.warning}", file=sys.stderr)
    overrides = [*monitor.overrides, *overrides]
    runs_dir = _bridge_runs_dir(sweep, settings)
    folder = runs_dir / sweep.id
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with ProcessLock(folder / ".bridge.lock", timeout=0):
            return _bridge(args, sweep, served, settings, overrides, runs_dir)
    except Timeout:
        raise UsageError(f"{args.sweep}: another bridge is at it; sync uploads meanwhile") from None


def _check_numbers(args: argparse.Namespace) -> None:
    for name in ("count", "slots", "patience"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} {value}: must be at least 1")


def _bridge_runs_dir(sweep: RemoteSweep, settings: Settings) -> Path:
    spec = (sweep.config.get("parameters") or {}).get("artefacts.runs_dir") or {}
    return Path(spec.get("value") or settings.artefacts.runs_dir).expanduser().absolute()


def _bridge(
    args: argparse.Namespace,
    sweep: RemoteSweep,
    served: ServedSweep,
    settings: Settings,
    overrides: list[str],
    runs_dir: Path,
) -> int:
    from mlmodeldev.slurm.bridge import BridgeSource
    from mlmodeldev.sweep.starter import starter
    from mlmodeldev.tracking.upload import Syncer

    on_cluster = settings.cluster.launcher == "slurm"
    with Syncer(runs_dir, sweep.id, keep_open=True) as syncer:
        source = BridgeSource(
            sweep, runs_dir, syncer, reattach=on_cluster, fixed=overrides,
            count=args.count, patience=args.patience, print_line=_print_now,
            start=starter(served.invocation, served.call), served=served,
        )  # fmt: skip
        status = (_run_on_cluster if on_cluster else _run_here)(source, settings, args.slots)
        up = _upload_last_rows(source)
    _print_now(f"{source.why or 'interrupted'}; {source.done} ended well, {source.failed} failed")
    if not up:
        print("not all is uploaded: python slurm/SlurmTrain.py sync", file=sys.stderr)
    return status if status else int(not up or source.lost or source.failed > 0)


def _modules(settings: Settings) -> list[str]:
    groups = (settings.model, settings.data)
    return ["trainer", *(str(group["_target_"]).rpartition(".")[0] for group in groups)]


def _run_on_cluster(source: BridgeSource, settings: Settings, slots: int | None) -> int:
    from mlmodeldev.slurm.dispatcher import Dispatcher

    signals.listen()
    cluster = settings.cluster
    slots = slots or max(1, concurrent_jobs(cluster))
    root, modules = project_root(), _modules(settings)
    return Dispatcher(source, cluster, source.folder, root, modules, slots).run()


def _run_here(source: BridgeSource, settings: Settings, slots: int | None) -> int:
    from mlmodeldev.trial.pool import run_pool

    return run_pool(source, slots or 1, _modules(settings))


def _upload_last_rows(source: BridgeSource) -> bool:
    """Upload the rest; return whether all of it is up."""
    deadline = time.monotonic() + LAST_SECONDS
    while not (up := source.upload()) and time.monotonic() < deadline:
        time.sleep(2)
    return up


def _print_now(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)
