"""Exported models as W&B artifacts: ``best`` and ``last`` of a trial by hand, the best of a sweep.

A run's models are the versions of one artifact, ``model-<run>``, of type ``model``; the aliases
``best`` and ``last`` move to the newest when a trial is trained further.

Example::

    for folder in models_to_keep(settings, folder, state="done"):
        log_model(run, folder)          # .../best, then .../last
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings

ALIASES = ("best", "last")
BY_HAND = "single"
"""The sweep that trials belong to which were started by hand."""


def models_to_keep(settings: Settings, folder: Path, state: str) -> list[Path]:
    """Return the exported folders that the settings want in W&B.

    Args:
        settings: ``logger.wandb.models`` decides.
        folder: the trial's.
        state: how it ended; only a trial that came to its end has models worth keeping.
    """
    chosen = settings.logger.wandb
    if chosen is None or state != "done" or chosen.models == "none":
        return []
    aliases: tuple[str, ...] = ALIASES
    if chosen.models == "auto" and settings.artefacts.sweep != BY_HAND:
        aliases = ("best",) if _best_so_far(folder, settings.training.mode) else ()
    return [folder / alias for alias in aliases if (folder / alias).is_dir()]


def log_model(run: Any, folder: Path) -> None:
    """Keep a folder as the newest version of the run's model, under the folder's name.

    Nothing is copied into the client's cache in the home folder, which on clusters is small.
    """
    import wandb

    artifact = wandb.Artifact(f"model-{run.id}", type="model")
    artifact.add_dir(str(folder), policy="immutable", skip_cache=True)
    run.log_artifact(artifact, aliases=[folder.name])


def _best_so_far(folder: Path, mode: str) -> bool:
    """Whether no other trial of the sweep that has ended came to a better value."""
    own = _value(folder / "trial.json")
    others = [_value(file) for file in folder.parent.glob("*/trial.json") if file.parent != folder]
    known = [value for value in others if value is not None]
    better = max if mode == "max" else min
    return own is not None and better([own, *known]) == own


def _value(file: Path) -> float | None:
    try:
        record = json.loads(file.read_text())
        value = float(record["metric"]["value"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    ended = record.get("state") in ("done", "pruned")
    return value if ended and math.isfinite(value) else None
