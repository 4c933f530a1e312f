"""What a search has begun, who runs it and what came of it: rows in the journal.

Example, with the journal's lock taken::

    study = SearchStudy(journal, sweep)
    row = study.begin(proposal, owner="node7-4242-993")
    study.release(row)                  # its worker is gone: the next takes it over
    study.finish(row, folder)           # the folder's best value becomes the row's

A row is a trial of Optuna's study; its params are what Optuna suggested (for some distributions a
quantile), its user attributes hold the trial's identity, name and overrides. A trial that dies is
not begun a second time: its row, and so its folder, passes to the next worker.

Rows that the journal lacks are made from folders: of this sweep's own trials, where the journal
was lost or the space has changed (`add_folder_trials`), and of an earlier sweep, to learn from
(`import_trials`).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.identity import canonical_text, digest, identity
from mlmodeldev.sweep.database import Database
from mlmodeldev.sweep.journal import Journal
from mlmodeldev.sweep.loading import Sweep
from mlmodeldev.sweep.sampler import Proposal, Sampler
from mlmodeldev.trial.record import best, history, read_record, validations

FORM = 2
"""Of what stands in the journal (`mlmodeldev.sweep.sampler`): another one is another study."""
IMPORTED = "prior"
"""Attribute of the rows that come from an earlier sweep: the folder of the trial."""


class SearchStudy:
    """The rows of one sweep. Every call needs the journal's lock."""

    def __init__(self, journal: Journal | Database, sweep: Sweep) -> None:
        self.journal, self.sweep = journal, sweep
        metric = sweep.definition.metric
        self.goal = metric.goal if metric else "minimize"
        self.metric = metric.name if metric else None
        self.name = journal.full_name(study_name(sweep))

    @property
    def _storage(self) -> optuna.storages.BaseStorage:
        return self.journal.storage

    @property
    def _id(self) -> int:
        return self.journal.study(self.name, self.goal)

    def load(self) -> optuna.Study:
        """Return Optuna's study, for a sampler."""
        self.journal.study(self.name, self.goal)
        return optuna.load_study(study_name=self.name, storage=self._storage)

    def rows(self) -> list[FrozenTrial]:
        """Return the rows in their order, those of an imported sweep left out."""
        return [row for row in self._all_rows() if IMPORTED not in row.user_attrs]

    def imported(self) -> set[str]:
        """Return the folders that the imported rows come from."""
        attributes = (row.user_attrs for row in self._all_rows())
        return {each[IMPORTED] for each in attributes if IMPORTED in each}

    def _all_rows(self) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._id, deepcopy=False)

    def begin(self, proposal: Proposal, owner: str | None, **more: Any) -> FrozenTrial:
        """Write a new row that runs; in one record, so that it is there or not."""
        trial = proposal.trial
        attributes = {
            "version": 1,  # of what a row holds
            "id": trial.id,
            "name": trial.name,
            "group": trial.group,
            "overrides": trial.overrides,
            "owner": owner,
            **more,
        }
        return self._create(TrialState.RUNNING, proposal, attributes, None)

    def add_imported(self, proposal: Proposal, value: float, origin: str) -> None:
        """Write a finished row of an earlier sweep: the search learns of it, no cap counts it."""
        attributes = {IMPORTED: origin, "name": proposal.trial.name}
        self._create(TrialState.COMPLETE, proposal, attributes, value)

    def _create(
        self,
        state: TrialState,
        proposal: Proposal,
        attributes: Mapping[str, Any],
        value: float | None,
    ) -> FrozenTrial:
        template = create_trial(
            state=state,
            value=value,
            params=proposal.params,
            distributions=proposal.distributions,
            user_attrs=dict(attributes),
        )
        number = self._storage.create_new_trial(self._id, template_trial=template)
        return self._storage.get_trial(number)

    def set_attributes(self, row: FrozenTrial, **attributes: Any) -> None:
        """Write attributes of a row that runs, such as its owner."""
        storage = self._storage
        for name, value in attributes.items():
            storage.set_trial_user_attr(row._trial_id, name, value)

    def release(self, row: FrozenTrial) -> None:
        """Give a row up, for the next worker to go on with."""
        self.set_attributes(row, owner=None)

    def finish(self, row: FrozenTrial, folder: Path, pruned: bool = False) -> None:
        """Write the best value that the trial's folder holds; without one the row failed."""
        values = history(folder, self.metric) if self.metric else []
        value = best(values, self.goal)
        if self.metric and value is None:
            self.fail(row, f"{self.metric} was never logged, or was never a finite number")
            return
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
        storage, number = self._storage, row._trial_id
        # Optuna's rules compare by the number of the validation
        curve = validations(folder, self.metric) if self.metric else []
        with self.journal.batch():
            for step in _thinned(len(curve), self.journal.curve_values):
                storage.set_trial_intermediate_value(number, step, curve[step - 1])
            # Without a metric there is nothing to search by, and Optuna wants some number.
            storage.set_trial_state_values(number, state, [0.0 if value is None else value])

    def fail(self, row: FrozenTrial, reason: str | None) -> None:
        """Write that a row failed, and why."""
        storage = self._storage
        with self.journal.batch():
            self.set_attributes(row, reason=reason)
            storage.set_trial_state_values(row._trial_id, TrialState.FAIL)


def study_name(sweep: Sweep) -> str:
    """Return the study's name: for bayes another one when the space or the metric changes.

    What Optuna suggested in one space means something else in another. Trials of the former space
    that are points of the new one are found again by their folders (`add_folder_trials`).
    """
    if sweep.method != "bayes":
        return sweep.folder
    metric = sweep.definition.metric
    space = [FORM, *([p.name, p.distribution, p.fields] for p in sweep.space.searched)]
    return (
        f"{sweep.folder}-{digest(canonical_text([space, metric and [metric.name, metric.goal]]))}"
    )


def _thinned(count: int, most: int) -> list[int]:
    """Return steps from 1 to count, at most so many, the last among them."""
    if count <= most:
        return list(range(1, count + 1))
    return [round((i + 1) * count / most) for i in range(most)]


def add_folder_trials(study: SearchStudy, sampler: Sampler, base: Path) -> int:
    """Write rows for this sweep's trials that the journal lacks; return how many."""
    listed = {row.user_attrs["id"] for row in study.rows()}
    added = 0
    for folder, overrides in _trials(base, listed):
        point = {k: v for k, v in overrides.items() if k in sampler.space.keys}
        proposal = sampler.described(sampler.trial(point))
        if identity(point) == folder.name and _is_complete(proposal, sampler):
            study.begin(proposal, owner=None)
            added += 1
    return added


def import_trials(study: SearchStudy, sampler: Sampler, base: Path) -> int:
    """Write the results of another sweep's folder that this space can say; return how many.

    Raises:
        UsageError: there is no such folder, or the sweep has no metric to learn about.
    """
    if not base.is_dir():
        raise UsageError(f"{base}: no folder of trials to import")
    if study.metric is None:
        raise UsageError(f"{study.sweep.definition.file}: without a 'metric' nothing is imported")
    imported = study.imported()
    added = 0
    for folder, overrides in _trials(base):
        value = best(history(folder, study.metric), study.goal)
        origin = str(folder.resolve())
        proposal = sampler.described(sampler.trial(overrides))
        if value is None or origin in imported or not _is_complete(proposal, sampler):
            continue
        study.add_imported(proposal, value, origin)
        added += 1
    return added


def _trials(base: Path, besides: Collection[str] = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield a sweep's trials; of those that a worker knows already no file is looked at."""
    try:
        with os.scandir(base) as items:
            names = sorted(item.name for item in items if not item.name.startswith("."))
    except OSError:
        return
    for name in names:
        if name not in besides:
            overrides = read_record(base / name).get("overrides")
            if isinstance(overrides, dict):
                yield base / name, overrides


def _is_complete(proposal: Proposal, sampler: Sampler) -> bool:
    """Whether all of the searched parameters that the point sets have a place in the space."""
    conditional = sampler.sweep.definition.conditions
    wanted = {
        p.name
        for p in sampler.space.searched
        if p.name in proposal.trial.overrides or p.name not in conditional
    }
    return wanted == set(proposal.params)
