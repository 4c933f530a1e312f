"""What a search has begun, who runs it and what came of it: rows in the journal.

Example, with the journal's lock held::

    ledger = Ledger(journal, sweep)
    row = ledger.begin(proposal, owner="node7-4242-993")
    ledger.free(row)                    # its worker is gone: the next takes it over
    ledger.finish(row, folder)          # what its folder says, told to Optuna

A row is a trial of Optuna's study; its params are what Optuna suggested (for some distributions a
quantile), its user attributes hold the trial's identity, name and overrides. A trial that dies is
not begun a second time: its row, and so its folder, passes to the next worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from mlmodeldev.settings.canonical import canonical_text
from mlmodeldev.settings.identity import digest
from mlmodeldev.sweep.journal import Journal
from mlmodeldev.sweep.loading import Sweep
from mlmodeldev.sweep.sampler import Proposal
from mlmodeldev.trial.history import best, history

FORM = 2
"""Of what stands in the journal (`mlmodeldev.sweep.optuna_space`): another one is another study."""
MAX_CURVE = 20
"""Values of a trial's curve that go into the journal, for `optuna-dashboard`."""


class Ledger:
    """The rows of one sweep. Every call needs the journal's lock."""

    def __init__(self, journal: Journal, sweep: Sweep) -> None:
        self.journal, self.sweep = journal, sweep
        metric = sweep.definition.metric
        self.goal = metric.goal if metric else "minimize"
        self.metric = metric.name if metric else None
        self.name = study_name(sweep)

    @property
    def _storage(self) -> optuna.storages.JournalStorage:
        return self.journal.storage

    @property
    def _id(self) -> int:
        return self.journal.study(self.name, self.goal)

    def study(self) -> optuna.Study:
        """Return the study, for a sampler."""
        self.journal.study(self.name, self.goal)
        return optuna.load_study(study_name=self.name, storage=self._storage)

    def rows(self) -> list[FrozenTrial]:
        """Return the rows in their order, those of an imported sweep left out."""
        found = self._storage.get_all_trials(self._id, deepcopy=False)
        return [row for row in found if "prior" not in row.user_attrs]

    def begin(self, proposal: Proposal, owner: str | None, **more: Any) -> FrozenTrial:
        """Write a new row that runs; in one record, so that it is there or not."""
        trial = proposal.trial
        attributes = {
            "id": trial.id,
            "name": trial.name,
            "group": trial.group,
            "overrides": trial.overrides,
            "owner": owner,
            **more,
        }
        return self._create(TrialState.RUNNING, proposal, attributes, None)

    def add_prior(self, proposal: Proposal, value: float, origin: str) -> None:
        """Write a finished row of an earlier sweep: the search learns of it, no cap counts it."""
        attributes = {"prior": origin, "name": proposal.trial.name}
        self._create(TrialState.COMPLETE, proposal, attributes, value)

    def priors(self) -> set[str]:
        """Return where the imported rows come from."""
        found = self._storage.get_all_trials(self._id, deepcopy=False)
        return {row.user_attrs["prior"] for row in found if "prior" in row.user_attrs}

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

    def note(self, row: FrozenTrial, **attributes: Any) -> None:
        """Write attributes of a row that runs, such as its owner."""
        storage = self._storage
        for name, value in attributes.items():
            storage.set_trial_user_attr(row._trial_id, name, value)

    def free(self, row: FrozenTrial) -> None:
        """Give a row up, for the next worker to go on with."""
        self.note(row, owner=None)

    def finish(self, row: FrozenTrial, folder: Path, pruned: bool = False) -> None:
        """Tell the best value that the trial's folder holds; without one the row failed."""
        values = history(folder, self.metric) if self.metric else []
        value = best(values, self.goal)
        if self.metric and value is None:
            self.fail(row, f"{self.metric} was never logged, or was never a finite number")
            return
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
        # Without a metric there is nothing to search by, and Optuna wants some number.
        told = [0.0 if value is None else value]
        storage, number = self._storage, row._trial_id
        with self.journal.batch():
            for step in _thinned(len(values)):
                storage.set_trial_intermediate_value(number, step, values[step - 1])
            storage.set_trial_state_values(number, state, told)

    def fail(self, row: FrozenTrial, reason: str | None) -> None:
        """Write that a row failed, and why."""
        storage = self._storage
        with self.journal.batch():
            self.note(row, reason=reason)
            storage.set_trial_state_values(row._trial_id, TrialState.FAIL)


def study_name(sweep: Sweep) -> str:
    """Return the study's name: for bayes another one when the space or the metric changes.

    What Optuna suggested in one space means something else in another. Trials of the former space
    that are points of the new one are found again by their folders (`mlmodeldev.sweep.warm_start`).
    """
    if sweep.method != "bayes":
        return sweep.folder
    metric = sweep.definition.metric
    space = [FORM, *([p.name, p.distribution, p.fields] for p in sweep.space.searched)]
    return (
        f"{sweep.folder}-{digest(canonical_text([space, metric and [metric.name, metric.goal]]))}"
    )


def _thinned(count: int) -> list[int]:
    """Return steps from 1 to count, at most `MAX_CURVE`, the last among them."""
    if count <= MAX_CURVE:
        return list(range(1, count + 1))
    return [round((i + 1) * count / MAX_CURVE) for i in range(MAX_CURVE)]
