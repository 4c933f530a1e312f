"""Open a trial's run in W&B: under its own id for good, with all that a user looks for there.

Example::

    run = open_run(settings, folder, offline=False)     # begun, or gone on with
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.machine import home, seconds_in
from mlmodeldev.secrets import key_in_changes
from mlmodeldev.tracking.metadata import description
from mlmodeldev.tracking.wandb_api import host
from mlmodeldev.tracking.wandb_run_id import choose_run
from mlmodeldev.trial.agent_run import given_run

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.trial.folder import TrialFolder

FINISH_SECONDS = "60"
"""How long the end of a trial waits for a server that does not answer; the client's default is
for ever. What is not up by then, `sync` uploads."""

_INIT_SECONDS = 60.0


def open_run(settings: Settings, folder: TrialFolder, offline: bool, **options: Any) -> Any:
    """Return the run, and write its id into ``trial.json``.

    Under a W&B agent the run, its sweep and its project are the agent's.
    """
    prepare_environment()
    import wandb

    chosen = choose_run(settings, folder, online=not offline)
    if chosen.sweep:
        os.environ["WANDB_SWEEP_ID"], os.environ["WANDB_RUN_ID"] = chosen.sweep, chosen.id
    record = folder.read()
    where = {} if given_run() else {"id": chosen.id, **chosen.place}
    run = wandb.init(
        **where,
        **description(settings, record, chosen.sweep),
        resume="allow",
        mode="offline" if offline else "online",
        dir=str(folder.path),
        settings=_client_settings(**git_metadata(record), **options),
    )
    folder.update(
        wandb_path=None if offline else getattr(run, "path", None),
        wandb_entity=getattr(run, "entity", None)
        or None,  # for `sync`, which may have to find the place again
        wandb_project=getattr(run, "project", None),
    )
    return run


def prepare_environment() -> None:
    """Set what the client must not guess; what the user has set stays."""
    os.environ.setdefault("WANDB_BASE_URL", host())
    os.environ.setdefault("WANDB_FINISH_TIMEOUT", FINISH_SECONDS)
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_CONSOLE", "off")  # the launcher keeps the log
    if home() is None:  # the client fails where there is no home
        os.environ.setdefault("HOME", "/")


def init_seconds() -> float:
    """Return how long opening a run waits for the server: as the user has set it, else a minute.

    The client's own default is a minute and a half.
    """
    return seconds_in("WANDB_INIT_TIMEOUT", _INIT_SECONDS)


def git_metadata(record: dict[str, Any]) -> dict[str, Any]:
    """Return what the client is to say of the code, so that it does not look for itself.

    It would show a token that stands as user name in the address of the repository.
    """
    if not record.get("sha"):
        return {"disable_git": True}
    return {"git_commit": record["sha"], "git_remote_url": record.get("remote")}


def _client_settings(**options: Any) -> Any:
    import wandb

    from mlmodeldev.trial import signals

    # An account may be set to keep the code and its changes; a key in them must not leave.
    key = key_in_changes(Path.cwd(), Path(sys.argv[0]))
    if key:
        print(f"Weights & Biases: gets no code: {key}", file=sys.stderr)
        options |= {"save_code": False, "disable_code": True}
    # The client takes the process that imported it for the trial's, and that is the fork server.
    options.setdefault("x_stats_pid", os.getpid())
    options.setdefault("init_timeout", init_seconds())
    # Otherwise the client sends SIGINT for "stop", which also means "save and come back".
    return wandb.Settings(stop_fn=lambda: signals.ask_to_stop("W&B"), **options)
