"""Load a sweep file: its trials, its program, and how a trial of it is started.

Example::

    sweep = load("sweep/config.yaml")
    len(list(sweep.trials()))               # a grid: all of it
    list(sweep.trials(count=20, seed=1))    # the first twenty
    sweep.count()                           # without listing
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.project import project_root
from mlmodeldev.settings.overrides import to_overrides
from mlmodeldev.sweep.definition import Definition, parse
from mlmodeldev.sweep.document import Document
from mlmodeldev.sweep.invocation import Invocation, TrialCall
from mlmodeldev.sweep.naming import Naming, Trial
from mlmodeldev.sweep.space import Space
from mlmodeldev.sweep.stopping import bands
from mlmodeldev.sweep.yaml_reader import read_file, read_text


def load(path: str | Path, copy_of: str | Path | None = None) -> Sweep:
    """Read and validate a sweep file.

    Args:
        path: where it is.
        copy_of: the file that it is a copy of, which names the sweep where no ``name`` does.

    Raises:
        UsageError: the file cannot be read, or has a mistake; the first one is named, with its
            line. ``python -m mlmodeldev.sweep check`` lists all, and warnings besides.
    """
    document = Document(str(copy_of or path))
    read_file(path, document)
    return _sweep(document)


def loads(text: str, file: str = "<sweep>") -> Sweep:
    """Read and validate a sweep given as text, such as one that W&B's server holds.

    Args:
        text: the YAML.
        file: the name that messages give.

    Raises:
        UsageError: as `load`.
    """
    document = Document(file)
    read_text(text, document)
    return _sweep(document)


def _sweep(document: Document) -> Sweep:
    definition = parse(document)
    document.raise_errors()
    return Sweep(definition, document)


class Sweep:
    """A sweep: what its file declares.

    Args:
        definition: the file's meaning.
        document: the file as it was read, if it was.
    """

    def __init__(self, definition: Definition, document: Document | None = None) -> None:
        self.definition, self.document = definition, document

    @property
    def name(self) -> str:
        """The file's ``name``, or the file's own name without its ending."""
        return self.definition.texts.get("name") or Path(self.definition.file).stem

    @property
    def folder(self) -> str:
        """The name as a folder's name: trials lie in ``<runs_dir>/<folder>/<trial>``."""
        return re.sub(r"[^\w.-]+", "-", self.name).strip("-.") or "sweep"

    @property
    def method(self) -> str:
        """``grid``, ``random`` or ``bayes``."""
        return self.definition.method

    @cached_property
    def invocation(self) -> Invocation:
        """How its trials are started."""
        return self.invocation_in(project_root())

    def invocation_in(self, root: Path) -> Invocation:
        """Return how its trials are started where the project lies in another folder."""
        return Invocation.of(self.definition.command, self.definition.texts.get("program"), root)

    def call(self, settings: Mapping[str, Any]) -> TrialCall:
        """Return what the trial of these settings, by dotted key, is called with."""
        return TrialCall(self._nested(settings), settings)

    def _nested(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings as W&B hands them over: nested where the file nests them."""
        values: dict[str, Any] = {}
        for parameter, (*outer, last) in self._places:
            if parameter in settings:
                node = values
                for name in outer:
                    node = node.setdefault(name, {})
                node[last] = settings[parameter]
        return values

    @cached_property
    def _places(self) -> list[tuple[str, tuple[str, ...]]]:
        """The parameters that the file has, with their names from the outermost."""
        paths = ((each.name, each.path) for each in self.definition.parameters)
        return [(name, path) for name, path in paths if path]

    @cached_property
    def space(self) -> Space:
        """The points, for those who search them."""
        return Space(self.definition)

    @cached_property
    def naming(self) -> Naming:
        """How trials are named."""
        swept = [p.name for p in self.definition.parameters if not p.is_constant]
        repeated = self.definition.replicates
        return Naming.of(swept, {*repeated, *self.space.rules.followers(repeated)})

    def trials(self, count: int | None = None, seed: int = 0) -> Iterator[Trial]:
        """Return the trials one by one, at most `count` and at most the file's ``run_cap``.

        A grid gives all its points, coarse levels first (`mlmodeldev.sweep.grid`); ``random``
        gives draws that depend on the seed alone, without repetition; both end when the space
        is exhausted. Nothing is listed in advance.

        Raises:
            UsageError: method bayes, which is searched and not listed; random with neither
                count nor ``run_cap``; a count below 0; no point fits the constraints.
        """
        limit = self._limit(count)
        points = self.space.walk() if self.method == "grid" else self.space.draw(seed)
        trials = (Trial(point, self.naming) for point in points)
        return self._not_empty(itertools.islice(trials, limit), limit)

    def _limit(self, count: int | None) -> int | None:
        file, cap = self.definition.file, self.definition.run_cap
        if self.method == "bayes":
            raise UsageError(
                f"{file}: method bayes is searched, not listed: "
                f"run python slurm/SlurmTrain.py --sweep {file}"
            )
        if count is not None and (isinstance(count, bool) or count < 0):
            raise UsageError(f"count {count!r} must be an integer of at least 0")
        limits = [each for each in (count, cap) if each is not None]
        if self.method == "random" and not limits:
            raise UsageError(f"{file}: method random has no end: set 'run_cap', or give a count")
        return min(limits, default=None)

    def _not_empty(self, trials: Iterator[Trial], limit: int | None) -> Iterator[Trial]:
        first = next(trials, None)
        if first is None:
            if limit != 0:
                raise UsageError(f"{self.definition.file}: no point fits the constraints")
            return
        yield first
        yield from trials

    def count(self) -> int | None:
        """Return how many trials `trials` gives, without listing them; None if there is no end."""
        cap = self.definition.run_cap
        if self.method != "grid":
            return cap
        return min(size for size in (self.space.count(), cap) if size is not None)


MAX_LISTED = 2_000_000
"""So many trials are listed, and held against their folders, at once."""


def refuse_endless(sweep: Sweep, count: int | None) -> None:
    """Refuse a list that would take hours and all memory.

    Raises:
        UsageError: there are more trials than `MAX_LISTED`.
    """
    caps = [each for each in (count, sweep.definition.run_cap) if each is not None]
    size = min(caps, default=None)
    if sweep.method == "grid" and (size is None or size > MAX_LISTED):
        size = sweep.space.product()
        if size > MAX_LISTED and sweep.space.has_rules:
            size = sweep.space.count()
        size = min([size, *caps])
    if size is not None and size > MAX_LISTED:
        raise UsageError(
            f"{sweep.definition.file}: declares {size:,} trials, of which at most {MAX_LISTED:,}"
            " are listed at once: give --count, or run_cap in the file"
        )


def trial_arguments(
    overrides: Mapping[str, Any], folder: Path, fixed: Sequence[str] = ()
) -> list[str]:
    """Return a trial's command line in Hydra's form.

    Args:
        overrides: the trial's own values, by dotted key.
        folder: ``<runs_dir>/<sweep>/<trial>``.
        fixed: settings of every trial.
    """
    where = {
        "artefacts.runs_dir": str(folder.parents[1].absolute()),
        "artefacts.sweep": folder.parent.name,
        "artefacts.trial": folder.name,
    }
    return [*fixed, *to_overrides(overrides), *to_overrides(where)]


def pruning(
    sweep: Sweep, journal: str | None = None, study: str | None = None, number: int | None = None
) -> list[str]:
    """Return the settings by which a trial stops itself early; none without early_terminate.

    Args:
        sweep: the sweep.
        journal: of a search, its file or its database;
        study: its name in there, and
        number: the trial's number in it: what Optuna's own rules need.
    """
    rule, metric = sweep.definition.early_terminate, sweep.definition.metric
    if rule is None or metric is None or not bands(rule):
        return []
    settings = {"enabled": True, "metric": metric.name, "goal": metric.goal, **asdict(rule)}
    if journal is not None:
        settings |= {"journal": journal, "study": study, "number": number}
    return to_overrides(
        {f"callbacks.pruning.{key}": each for key, each in settings.items() if each is not None}
    )
