"""Optuna's own rules for stopping a trial early, as an option beside W&B's.

Example::

    python -m mlmodeldev.sweep.search worker --sweep sweep/bayes.yaml callbacks.pruning.rule=median

They need the trial's number in the journal, so only a search has them. Each asks for a write to
the journal at each validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.trial import TrialState

from mlmodeldev.errors import UsageError
from mlmodeldev.sweep.database import Database
from mlmodeldev.sweep.journal import Journal

if TYPE_CHECKING:
    from mlmodeldev.settings.callback_schema import Pruning


def judge(settings: Pruning, values: Sequence[float]) -> str | None:
    """Write the newest value to the journal; return why the trial should stop, or None.

    Args:
        settings: the rule, and the trial's number in the journal.
        values: what the trial has logged so far.

    Raises:
        UsageError: the trial belongs to no search.
    """
    if settings.journal is None or settings.number is None:
        raise UsageError(
            f"callbacks.pruning.rule={settings.rule}: needs a search (python -m"
            " mlmodeldev.sweep.search worker); hyperband works everywhere"
        )
    if not values:
        return None
    journal = _journal(settings.journal, settings.study or "")
    with journal.lock:
        name, trial_id = _find(journal, settings)
        row = journal.storage.get_trial(trial_id)
        if row.state is not TrialState.RUNNING:
            return None
        journal.storage.set_trial_intermediate_value(trial_id, len(values), values[-1])
        pruner = _pruner(settings)
        study = optuna.load_study(study_name=name, storage=journal.storage, pruner=pruner)
        if not pruner.prune(study, journal.storage.get_trial(trial_id)):
            return None
    return f"{settings.rule}: {values[-1]:.6g} after {len(values)} values is behind the others"


def _journal(address: str, study: str) -> Journal | Database:
    if "://" in address:
        return Database(address, study.rpartition("-")[2])
    return Journal(Path(address).parent)


def _find(journal: Journal | Database, settings: Pruning) -> tuple[str, int]:
    """Return the name of the study in the journal, and the id of the trial's row."""
    name, number = settings.study, settings.number
    names = {study.study_name: study._study_id for study in journal.storage.get_all_studies()}
    if name not in names or name is None or number is None:
        raise UsageError(f"{journal.address}: holds no search {name!r}")
    row = journal.storage.get_trial_id_from_study_id_trial_number(names[name], number)
    return name, row


def _pruner(settings: Pruning) -> optuna.pruners.BasePruner:
    first, factor = settings.min_iter or 1, max(2, round(settings.eta))
    if settings.rule == "median":
        return optuna.pruners.MedianPruner(n_warmup_steps=first - 1)
    if settings.rule == "successive_halving":
        return optuna.pruners.SuccessiveHalvingPruner(first, factor)
    return optuna.pruners.HyperbandPruner(first, settings.max_iter or "auto", factor)
