"""What W&B shows of a trial beside its rows: name, settings, origin, models.

It is the same whether the trial sends it itself or another process uploads it from its folder.

Example::

    wandb.init(**description(settings, record, sweep="ab12cd34"))
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.identity import identity, says_where

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings

CHANGES = "changes.diff"
"""File of a trial's folder: how the code differed from its commit; absent where it did not."""

LONGEST_NAME, LONGEST_TAG = 128, 64
"""Characters that W&B takes of a run's name, group, job type and project; of a tag."""
_ALIASES = ("best", "last")
BY_HAND = "single"
"""The sweep that trials belong to which were started by hand."""

JUDGES = ("training.monitor", "training.mode")
"""Settings that say how trials are judged, not what they are."""

_OF_PARENT = ("how", "sweep", "trial", "file", "sha256", "revision", "epoch", "step")
_SEED = "training.seed"
_KEPT_APART = {"overrides", "artefacts", "logger"}
_NOT_SHOWN = ("artefacts.", "cluster.", "hydra.", "logger.", "callbacks.", *JUDGES)


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
        "group": at_most(settings.artefacts.sweep, LONGEST_NAME),
        "job_type": "trial",
        "name": run_name(settings),
        "tags": _tags(settings),
        "config": _config(settings, record, sweep),
    }


def trial_metadata(settings: Settings, record: dict[str, Any]) -> dict[str, Any]:
    """Return where a trial comes from: code, data, the trial or weights that it began with.

    ``point`` is the same for all replicates, which differ by their seed alone: group by it.
    ``data`` is one digest of all that the data were made of; none before they are known.
    """
    return {
        "identity": record.get("id"),
        "point": _point(settings),
        "folder": settings.artefacts.trial,
        "sha": record.get("sha"),
        "dirty": record.get("dirty"),
        "source": record.get("source"),
        "data": _data_digest(record.get("data")),
        **({"parent": _parent(record["parent"])} if record.get("parent") else {}),
    }


def _parent(parent: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a trial began with: a trial or a file, and which content of it."""
    return {name: parent[name] for name in _OF_PARENT if parent.get(name) is not None}


def _point(settings: Settings) -> str | None:
    by_hand = settings.artefacts.sweep == BY_HAND
    apart = (_SEED,) if by_hand else (_SEED, *JUDGES)  # which a sweep gives its trials beside
    try:
        return identity({k: v for k, v in settings.overrides.items() if k not in apart})
    except UsageError:  # a value that is tied to the seed
        return None


def _tags(settings: Settings) -> list[str]:
    model = str(settings.model.get("_target_", "")).rpartition(".")[2]
    data = str(settings.data.get("_target_", "")).rpartition(".")[2]
    names = (model, data, settings.cluster.name)
    return [at_most(tag, LONGEST_TAG) for tag in names if tag]


def _config(settings: Settings, record: dict[str, Any], sweep: str | None) -> dict[str, Any]:
    overrides = settings.overrides if sweep else {}
    # under the names that the sweep gave them, by which the server's search finds them
    swept = {name: value for name, value in overrides.items() if not says_where(name)}
    return {
        **settings.model_dump(exclude=_KEPT_APART),
        **swept,
        "sweep": settings.artefacts.sweep,
        "trial": trial_metadata(settings, record),
        "slurm": record.get("slurm") or {},
    }


def _data_digest(data: dict[str, Any] | None) -> dict[str, Any] | None:
    inputs = dict((data or {}).get("inputs") or {})
    if not data or not inputs:
        return None
    digest = hashlib.sha256("\n".join(sorted(inputs.values())).encode()).hexdigest()[:16]
    versions = [f"{each['pointer']} {each['md5']}" for each in data.get("dvc") or ()]
    files = {Path(name).name: sha256[:16] for name, sha256 in inputs.items()}
    return {"digest": digest, "inputs": files, **({"dvc": versions} if versions else {})}


def run_name(settings: Settings) -> str:
    """Return a name made of the overrides, as long as W&B takes it; ``default`` without any."""
    return at_most(short_name(settings.overrides), LONGEST_NAME) or "default"


def short_name(overrides: Mapping[str, Any]) -> str:
    """Return ``lr=0.003 width=64``: the last part of each key, the whole key where ambiguous.

    Numbers have four digits; the trial's settings have them all.
    """
    shown = {
        name: value
        for name, value in overrides.items()
        if not name.startswith(_NOT_SHOWN) and name != "logger"
    }
    leaves = [name.rpartition(".")[2] for name in shown]
    return " ".join(
        f"{leaf if leaves.count(leaf) == 1 else name}={_short(value)}"
        for leaf, (name, value) in zip(leaves, shown.items(), strict=True)
    )


def _short(value: Any) -> Any:
    """Return a value with four digits, where it is no whole number."""
    if isinstance(value, list):
        return [_short(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def at_most(text: str, count: int) -> str:
    """Return the text, or its beginning and a digest of the whole, in so many characters."""
    if len(text) <= count:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{text[: count - 9].rstrip()}~{digest}"


def models_to_keep(
    settings: Settings, folder: Path, state: str, tracker: str = "wandb"
) -> list[Path]:
    """Return the exported folders that the settings want in a tracker.

    Args:
        settings: ``logger.<tracker>.models`` decides.
        folder: the trial's.
        state: how it ended; only a trial that came to its end has models worth keeping.
        tracker: ``wandb``, or ``mlflow`` or ``clearml``, which keep best/ alone.
    """
    chosen = getattr(settings.logger, tracker)
    if chosen is None or state != "done" or chosen.models == "none":
        return []
    aliases: tuple[str, ...] = _ALIASES if tracker == "wandb" else ("best",)
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
    if own is None:
        return False
    files = [file for file in folder.parent.glob("*/trial.json") if file.parent != folder]
    others = [each for each in map(_value, files) if each is not None]
    values = [value for name, value in others if name == own[0]]  # others may have other monitors
    better = max if mode == "max" else min
    return better([own[1], *values]) == own[1]


def _value(file: Path) -> tuple[str, float] | None:
    """Return the monitor of a trial that has ended, and its best value."""
    try:
        record = json.loads(file.read_text())
        name, value = str(record["metric"].get("name")), float(record["metric"]["value"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    ended = record.get("state") in ("done", "pruned")
    return (name, value) if ended and math.isfinite(value) else None


def stored_settings(folder: Path) -> Settings:
    """Return the settings of a trial's folder.

    Raises:
        UsageError: there are none, or of another version.
    """
    from pydantic import ValidationError

    from mlmodeldev.settings.schema import Settings

    try:
        return Settings.model_validate(read_yaml(folder / "config.yaml"))
    except (OSError, ValueError, ValidationError) as error:
        raise UsageError(f"{folder / 'config.yaml'}: {str(error).splitlines()[0]}") from None


def read_yaml(file: Path) -> Any:
    """Return what a YAML file holds.

    Raises:
        OSError: it can't be read.
        ValueError: it is no YAML.
    """
    import yaml

    try:
        return yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"is no YAML: {error}") from None
