"""Upload trials that ran without a network, from their folders: live, again and again, once each.

What W&B has is asked of W&B: its next ``_step`` is the number of rows that are up. So nothing is
doubled, whoever was killed, and nothing need be remembered.

Example::

    python slurm/SlurmTrain.py sync              what there is now
    python slurm/SlurmTrain.py sync --follow     and what comes, until the trials have ended
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from mlmodeldev.errors import UsageError
from mlmodeldev.trial.record import TrialFolder, owned

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings

FOLLOW_SECONDS = 5.0
"""Between two looks at a trial that is still running."""

_ENDED = ("done", "pruned", "failed")


def wanting(runs_dir: Path, sweep: str | None = None) -> Iterator[Path]:
    """Yield the folders of trials of which W&B does not have everything."""
    for file in sorted(runs_dir.glob(f"{sweep or '*'}/*/trial.json")):
        if lacks(file.parent):
            yield file.parent


def lacks(folder: Path) -> bool:
    """Return whether a trial wants to be in W&B, and may not wholly be there."""
    try:
        record = json.loads((folder / "trial.json").read_text())
        chosen = _stored(folder)["logger"]["wandb"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if chosen is None or record.get("uploaded"):
        return False
    sends_itself = owned(record) and record.get("wandb_path") is not None
    return not sends_itself


def _stored(folder: Path) -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())
    return found


def upload(path: Path, follow: bool = False) -> bool:
    """Upload one trial; return whether W&B has all of it now.

    Another process that uploads the same trial is left to it.
    """
    from mlmodeldev.settings.schema import Settings

    try:
        with FileLock(path / ".sync.lock", timeout=0):
            folder = TrialFolder(path)
            settings = Settings.model_validate(_stored(path))
            while _state(folder) not in _ENDED:
                _send(folder, settings, follow)
                if not follow:
                    return False
            return _send(folder, settings, follow=False)
    except Timeout:
        return False


def report(settings: Settings, folder: TrialFolder) -> None:
    """Tell W&B of a trial that is done already: its run is another, or was never finished."""
    from mlmodeldev.tracking.opening import run_id, under_agent

    record = folder.read()
    if settings.logger.wandb is None or not under_agent():
        return
    if record.get("wandb_id") == run_id(record) and record.get("uploaded"):
        return
    folder.update(wandb_id=run_id(record), uploaded=False)
    _send(folder, settings, follow=False)


def _state(folder: TrialFolder) -> str:
    record = folder.read()
    state = str(record.get("state"))
    return "running" if owned(record) else state


def _send(folder: TrialFolder, settings: Settings, follow: bool) -> bool:
    from mlmodeldev.tracking.opening import open_run
    from mlmodeldev.tracking.tracker import Tracker

    training, state = settings.training, _state(folder)
    final = state in _ENDED
    # What this process uses of the machine says nothing of the trial.
    options = {"x_disable_stats": True, "disable_git": True, "x_update_finish_state": final}
    run = open_run(settings, folder, offline=False, **options)
    tracker = Tracker(run, folder.path / "metrics.csv", training.monitor, training.mode)
    tracker.pictures = folder.path / "cka"
    tracker.catch_up()
    while follow and not final and _state(folder) not in _ENDED:
        time.sleep(FOLLOW_SECONDS)
        tracker.catch_up()
    complete = bool(tracker.end(state if final else "done")) and final
    if final:
        folder.update(uploaded=complete)
    return complete


def sync(folders: Iterable[Path], follow: bool = False) -> int:
    """Upload trials, each in a process of its own; return how many are not wholly up."""
    import multiprocessing

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["wandb", "mlmodeldev.tracking.tracker", __name__])
    waiting, lacking = list(folders), 0
    running: list[tuple[Path, Any]] = []
    while waiting or running:
        while waiting and len(running) < (len(waiting) if follow else 4):
            folder = waiting.pop(0)
            process = context.Process(target=_in_process, args=(str(folder), follow))
            process.start()
            running.append((folder, process))
        for folder, process in list(running):
            process.join(0.1)
            if process.exitcode is not None:
                running.remove((folder, process))
                lacking += process.exitcode != 0
                print(
                    f"{folder}: {'all up' if process.exitcode == 0 else 'not all up'}", flush=True
                )
    return lacking


def _in_process(folder: str, follow: bool) -> None:
    os.environ.pop("WANDB_RUN_ID", None)
    os.environ.pop("WANDB_SWEEP_ID", None)
    try:
        complete = upload(Path(folder), follow)
    except UsageError as error:
        print(f"{folder}: {error}", flush=True)
        complete = False
    raise SystemExit(0 if complete else 1)
