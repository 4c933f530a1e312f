"""Trials that a search did not begin itself: found in its own folder, or imported from another's.

Example::

    adopt(ledger, proposals, runs / "digits")           # a lost journal is made anew
    import_prior(ledger, proposals, runs / "earlier")   # learn from another sweep's results

The folders are the truth; the journal is what workers agree by.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.identity import identity
from mlmodeldev.sweep.sampler import Proposal, Proposals
from mlmodeldev.sweep.study import Ledger
from mlmodeldev.sweep.trial import Trial
from mlmodeldev.trial.folder import read_record
from mlmodeldev.trial.history import best, history


def adopt(ledger: Ledger, proposals: Proposals, base: Path) -> int:
    """Write rows for this sweep's trials that the journal does not know; return how many."""
    known = {row.user_attrs["id"] for row in ledger.rows()}
    adopted = 0
    for folder, overrides in _trials(base):
        if folder.name in known:
            continue
        point = {k: v for k, v in overrides.items() if k in proposals.space.keys}
        proposal = proposals.described(Trial(point, proposals.sweep.naming))
        if identity(point) == folder.name and _is_whole(proposal, proposals):
            ledger.begin(proposal, owner=None)
            adopted += 1
    return adopted


def import_prior(ledger: Ledger, proposals: Proposals, base: Path) -> int:
    """Write what another sweep's folder has found and this space can say; return how much.

    Raises:
        UsageError: there is no such folder, or the sweep has no metric to learn about.
    """
    if not base.is_dir():
        raise UsageError(f"{base}: no folder of trials to import")
    if ledger.metric is None:
        raise UsageError(f"{ledger.sweep.definition.file}: without a 'metric' nothing is imported")
    there = ledger.priors()
    added = 0
    for folder, overrides in _trials(base):
        value = best(history(folder, ledger.metric), ledger.goal)
        origin = str(folder.resolve())
        proposal = proposals.described(Trial(overrides, proposals.sweep.naming))
        if value is None or origin in there or not _is_whole(proposal, proposals):
            continue
        ledger.add_prior(proposal, value, origin)
        added += 1
    return added


def _trials(base: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for file in sorted(base.glob("*/trial.json")):
        overrides = read_record(file.parent).get("overrides")
        if isinstance(overrides, dict):
            yield file.parent, overrides


def _is_whole(proposal: Proposal, proposals: Proposals) -> bool:
    """Whether all of the searched parameters that the point sets have a place in the space."""
    conditional = proposals.sweep.definition.conditions
    wanted = {
        p.name
        for p in proposals.space.searched
        if p.name in proposal.trial.overrides or p.name not in conditional
    }
    return wanted == set(proposal.params)
