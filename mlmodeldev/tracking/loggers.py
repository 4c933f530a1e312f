"""Loggers from the `logger` group; each is imported only when it is chosen.

Example::

    make_loggers(settings, folder)      # metrics.csv first, then the trackers asked for
"""

from __future__ import annotations

import netrc
import os
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlmodeldev.errors import UsageError
from mlmodeldev.key_guard import warn_of_open_netrc
from mlmodeldev.tracking.metrics import MetricsFile
from mlmodeldev.tracking.names import run_name

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

    from mlmodeldev.settings.schema import Settings, WandbLogger
    from mlmodeldev.trial.record import TrialFolder

DEFAULT_HOST = "https://api.wandb.ai"
"""Said explicitly, for the client's own default has changed between versions."""


def make_loggers(settings: Settings, folder: TrialFolder, first: bool = True) -> list[Logger]:
    """Return the trial's loggers; the first writes ``metrics.csv``.

    Raises:
        UsageError: online tracking is demanded where there is no key or no network.
    """
    loggers: list[Any] = [MetricsFile(folder.path / "metrics.csv")]
    chosen = settings.logger
    if chosen.tensorboard is not None:
        loggers.append(_tensorboard(folder))
    if chosen.wandb is not None and first:
        loggers.append(_wandb(chosen.wandb, settings, folder))
    return loggers


def _tensorboard(folder: TrialFolder) -> Logger:
    try:
        from pytorch_lightning.loggers import TensorBoardLogger

        return TensorBoardLogger(str(folder.path), name="", version="tensorboard")
    except ModuleNotFoundError:
        raise UsageError(
            "logger=tensorboard: the package is not installed; pip install tensorboard"
        ) from None


def _wandb(chosen: WandbLogger, settings: Settings, folder: TrialFolder) -> Logger:
    warn_of_open_netrc()
    mode = wandb_mode(chosen.mode)
    os.environ.setdefault("WANDB_BASE_URL", DEFAULT_HOST)
    os.environ.setdefault("WANDB_FINISH_TIMEOUT", "120")  # a lost server must not hold the node
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_CONSOLE", "off")  # the launcher keeps the log
    import wandb
    from pytorch_lightning.loggers import WandbLogger as LightningWandb

    identifier = folder.read().get("wandb_id") or os.environ.get("WANDB_RUN_ID")
    identifier = identifier or _new_run_id(folder)
    folder.update(wandb_id=identifier)
    run = wandb.init(
        id=identifier,
        resume="allow",
        mode="offline" if mode == "offline" else "online",
        dir=str(folder.path),
        project=chosen.project,
        entity=chosen.entity,
        group=settings.artefacts.sweep,
        name=run_name(settings),
        config=_config(settings),
    )
    return LightningWandb(experiment=run)


def _new_run_id(folder: TrialFolder) -> str:
    """Return a run id that no other folder of this identity takes (a fresh start is a new run)."""
    import secrets

    return f"{folder.id}-{secrets.token_hex(3)}"


def _config(settings: Settings) -> dict[str, Any]:
    values = settings.model_dump(exclude={"overrides", "artefacts", "logger"})
    return {**values, "trial": settings.artefacts.trial, "sweep": settings.artefacts.sweep}


def wandb_mode(asked: str) -> str:
    """Decide between online and offline, saying why it is offline.

    ``WANDB_MODE`` in the environment decides when the setting is ``auto``.

    Raises:
        UsageError: ``online`` is demanded, and there is no key or no network.
    """
    if asked == "offline":
        return asked
    inherited = os.environ.get("WANDB_MODE")
    if asked == "auto" and inherited in ("offline", "dryrun", "disabled"):
        return "offline"
    host = os.environ.get("WANDB_BASE_URL", DEFAULT_HOST)
    lacking = _lacking(host)
    if not lacking:
        return "online"
    if asked == "online":
        raise UsageError(
            f"logger.wandb.mode=online: {lacking}; run 'wandb login', or choose"
            " logger.wandb.mode=offline (upload later by 'wandb sync')"
        )
    print(f"Weights & Biases: offline, because {lacking}; 'wandb sync' uploads later")
    return "offline"


def _lacking(host: str) -> str:
    if not _has_key(host):
        return "there is no key (WANDB_API_KEY or .netrc)"
    address = urlsplit(host)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=3).close()
    except OSError:
        return f"{address.hostname} can't be reached"
    return ""


def _has_key(host: str) -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(host).hostname or "")
    except (OSError, netrc.NetrcParseError):
        return False
    return bool(found and found[2])
