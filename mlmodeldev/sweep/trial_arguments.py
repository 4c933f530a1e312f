"""The command line of a sweep's trial: its own values, where it lies, when it may be stopped.

Example::

    trial_arguments({"optimizer.lr": 0.003}, runs / "digits" / "ab12cd34", fixed=["logger=csv"])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.settings.overrides import to_overrides

if TYPE_CHECKING:
    from mlmodeldev.sweep.loading import Sweep


def trial_arguments(
    overrides: Mapping[str, Any], folder: Path, fixed: Sequence[str] = ()
) -> list[str]:
    """Return a trial's command line in Hydra's form.

    Args:
        overrides: the trial's own values, by dotted key.
        folder: ``<runs_dir>/<sweep>/<trial>``.
        fixed: what every trial is told besides.
    """
    where = {
        "artefacts.runs_dir": str(folder.parents[1].absolute()),
        "artefacts.sweep": folder.parent.name,
        "artefacts.trial": folder.name,
    }
    return [*fixed, *to_overrides(overrides), *to_overrides(where)]


def pruning(
    sweep: Sweep, journal: Path | None = None, study: str | None = None, number: int | None = None
) -> list[str]:
    """Return the settings by which a trial stops itself early; none without early_terminate.

    Args:
        sweep: the sweep.
        journal: of a search;
        study: its name in there, and
        number: the trial's number in it: what Optuna's own rules need.
    """
    rule, metric = sweep.definition.early_terminate, sweep.definition.metric
    if rule is None or metric is None:
        return []
    settings = {
        "enabled": True,
        "metric": metric.name,
        "goal": metric.goal,
        "min_iter": rule.min_iter,
        "max_iter": rule.max_iter,
        "s": rule.s,
        "eta": rule.eta,
        "strict": rule.strict,
    }
    if journal is not None:
        settings |= {"journal": str(journal), "study": study, "number": number}
    given = {f"callbacks.pruning.{key}": value for key, value in settings.items()}
    return to_overrides({key: value for key, value in given.items() if value is not None})
