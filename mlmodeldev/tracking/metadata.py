"""What W&B shows of a trial beside its rows: the same, whoever uploads it.

Example::

    wandb.init(**description(settings, record, sweep="ab12cd34"))
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.canonical import says_where
from mlmodeldev.settings.identity import identity
from mlmodeldev.tracking.names import run_name

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings

CHANGES = "changes.diff"
"""File of a trial's folder: how the code differed from its commit; absent where it did not."""

SEED = "training.seed"

_KEPT_APART = {"overrides", "artefacts", "logger"}


def description(
    settings: Settings, record: dict[str, Any], sweep: str | None = None
) -> dict[str, Any]:
    """Return group, job type, name, tags and config of a trial's run.

    Args:
        settings: of the trial.
        record: its ``trial.json``.
        sweep: id of the W&B sweep that it belongs to.
    """
    return {
        "group": settings.artefacts.sweep,
        "job_type": "trial",
        "name": run_name(settings),
        "tags": _tags(settings),
        "config": _config(settings, record, sweep),
    }


def trial_facts(settings: Settings, record: dict[str, Any]) -> dict[str, Any]:
    """Return where a trial comes from: code, data, Slurm's job.

    ``point`` is the same for all replicates, which differ by their seed alone: group by it.
    ``data`` is one digest of all that the data were made of; none before they are known.
    """
    return {
        "identity": record.get("id"),
        "point": _point(settings.overrides),
        "folder": settings.artefacts.trial,
        "sha": record.get("sha"),
        "dirty": record.get("dirty"),
        "source": record.get("source"),
        "data": _data_digest(record.get("data")),
    }


def _point(overrides: dict[str, Any]) -> str | None:
    try:
        return identity({name: value for name, value in overrides.items() if name != SEED})
    except UsageError:  # a value that is tied to the seed
        return None


def _tags(settings: Settings) -> list[str]:
    model = str(settings.model.get("_target_", "")).rpartition(".")[2]
    data = str(settings.data.get("_target_", "")).rpartition(".")[2]
    return [tag for tag in (model, data, settings.cluster.name) if tag]


def _config(settings: Settings, record: dict[str, Any], sweep: str | None) -> dict[str, Any]:
    asked = settings.overrides if sweep else {}
    # under the names that the sweep gave them, by which the server's search finds them
    swept = {name: value for name, value in asked.items() if not says_where(name)}
    return {
        **settings.model_dump(exclude=_KEPT_APART),
        **swept,
        "sweep": settings.artefacts.sweep,
        "trial": trial_facts(settings, record),
        "slurm": record.get("slurm") or {},
    }


def _data_digest(data: dict[str, Any] | None) -> dict[str, Any] | None:
    inputs = dict((data or {}).get("inputs") or {})
    if not data or not inputs:
        return None
    whole = hashlib.sha256("\n".join(sorted(inputs.values())).encode()).hexdigest()[:16]
    versions = [f"{each['pointer']} {each['md5']}" for each in data.get("dvc") or ()]
    files = {Path(name).name: digest[:16] for name, digest in inputs.items()}
    return {"digest": whole, "inputs": files, **({"dvc": versions} if versions else {})}
