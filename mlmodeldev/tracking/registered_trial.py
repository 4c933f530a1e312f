"""From a trial, or a sweep's best, to a version of a registered model, with where it comes from.

Example::

    folder = source_trial("digits", Path("runs"))          # the best of the sweep
    register_trial(registry, "digits", folder)
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.lease import owned
from mlmodeldev.tracking.metadata import stored_settings, trial_metadata
from mlmodeldev.tracking.registry import Registry, Version, check_name
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.named import named_folder
from mlmodeldev.trial.record import read_record

log = logging.getLogger(__name__)

ENDED = ("done", "pruned")
REGISTERED = "registered"
"""The record's entry: the versions that a trial has become; nothing of such a trial is removed."""


def source_trial(name: str, runs_dir: Path) -> Path:
    """Return the trial that a name stands for; of a sweep, or its file, the best one.

    Raises:
        UsageError: there is none, or the trials were judged by several metrics.
    """
    from mlmodeldev.sweep import load
    from mlmodeldev.sweep.results import best_logged

    runs_dir = runs_dir.expanduser().absolute()
    if Path(name).suffix in (".yaml", ".yml") and Path(name).is_file():
        sweep = load(name)
        folder, metric = named_folder(sweep.folder, runs_dir), sweep.definition.metric
        if metric is not None:
            ended = _ended(folder)
            return _best((f, best_logged(r, f, metric.name, metric.goal)) for f, r in ended)
    else:
        folder = named_folder(name, runs_dir)
    if (folder / "trial.json").is_file():
        return folder
    ended = _ended(folder)
    names = {metric["name"] for _, record in ended if (metric := record.get("metric"))}
    if len(names) > 1:
        raise UsageError(
            f"{name}: its trials were judged by {' and '.join(sorted(names))}; name a trial, or the"
            " sweep file, which says what counts"
        )
    return _best((trial, record.get("metric")) for trial, record in ended)


def _ended(sweep_folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return a sweep's trials that came to an end and have best weights, with their records.

    Raises:
        UsageError: there are none.
    """
    files = sorted(sweep_folder.glob("[!.]*/trial.json"))
    trials = [(file.parent, read_record(file.parent)) for file in files]
    ended = [
        (folder, record)
        for folder, record in trials
        if record.get("state") in ENDED and (folder / "best" / "training_state.json").is_file()
    ]
    if not ended:
        raise UsageError(f"{sweep_folder}: no trial of this sweep has ended with best weights")
    return ended


def _best(trials: Iterable[tuple[Path, dict[str, Any] | None]]) -> Path:
    values = []
    for folder, metric in trials:
        value = (metric or {}).get("value")
        if metric is not None and value is not None and math.isfinite(value):
            values.append((-value if metric.get("mode") == "max" else value, folder))
    if not values:
        raise UsageError("no trial of this sweep has a value of its metric; name a trial")
    return min(values)[1]


def register_trial(
    registry: Registry, name: str, folder: Path, weights: str = "best"
) -> tuple[Version, bool]:
    """Make a trial's export a version of a model; return it, and whether it is new.

    Args:
        registry: keeps it.
        name: of the model.
        folder: the trial's.
        weights: ``best`` or ``last``.

    Raises:
        UsageError: the trial has not ended, or has no such export.
    """
    check_name(name)
    record = read_record(folder)
    if owned(record) or record.get("state") not in ENDED:
        state = record.get("state", "no trial")
        raise UsageError(f"{folder}: is {state}; only a trial that is done is registered")
    export = folder / weights
    if not (export / "training_state.json").is_file():
        raise UsageError(f"{export}: no export here (a trial writes it when it is done)")
    before = {version.number for version in registry.versions(name)}
    version = registry.add(name, export, lineage(folder, record, weights), cka_picture(folder))
    entry = {"name": name, "version": version.number, "registry": registry.place}
    entries = [each for each in record.get(REGISTERED) or [] if each != entry]
    try:
        TrialFolder(folder).update(**{REGISTERED: [*entries, entry]})
    except UsageError as error:  # of another user, perhaps; the version is whole all the same
        log.warning("the trial's record does not say that it is registered: %s", error)
    return version, version.number not in before


def lineage(folder: Path, record: dict[str, Any], weights: str) -> dict[str, Any]:
    """Return where a trial's model comes from: trial, code, data, and what it was worth."""
    origin = trial_metadata(stored_settings(folder), record)
    data = origin["data"] or {}
    return {
        "trial": f"{folder.parent.name}/{folder.name}",
        "folder": str(folder),
        "weights": weights,
        "identity": origin["identity"],
        "commit": origin["sha"],
        "dirty": origin["dirty"],
        "source": origin["source"],
        "data": data.get("digest"),
        "data_versions": data.get("dvc"),
        "epoch": record.get("epoch"),
        "metric": record.get("metric"),
        "test": record.get("test"),
        "mlflow_run": record.get("mlflow_run"),
        "wandb_run": record.get("wandb_path"),
    }


def cka_picture(folder: Path) -> Path | None:
    """Return the newest heat map between a trial's layers; None: it measured none."""
    pictures = [path for path in folder.glob("cka/*.png") if path.name != "drift.png"]
    return max(pictures, key=lambda path: path.stat().st_mtime, default=None)
