"""What the command line sets, beside the files of ``conf/`` that only the sweep chooses.

Example, of a sweep with ``model: {value: text_classifier}``::

    base, beside = compose_beside(["model.dropout=0.2"], load(file))
    beside                                   # ["model=text_classifier"]
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.settings.overrides import to_overrides
from mlmodeldev.sweep.lint_settings import CHOICE, MAX_POINTS, points

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.sweep.definition import Definition
    from mlmodeldev.sweep.loading import Sweep


def compose_beside(
    overrides: Sequence[str], load: Callable[[], Sweep]
) -> tuple[Settings, list[str]]:
    """Return the settings that these overrides give, and the sweep's choices that they need.

    Where they are settings without the sweep, it is not looked at.

    Args:
        overrides: of every trial.
        load: returns the sweep.

    Raises:
        UsageError: they are no settings of some trial.
    """
    try:
        return compose_settings(overrides, partial=True), []
    except UsageError as error:
        mistake = error
    try:
        choices = file_choices(load().definition)
    except UsageError:
        raise mistake from None
    given = {item.lstrip("~+").partition("=")[0] for item in overrides}
    made, refused = [], []
    for chosen in choices:
        beside = [item for item in chosen if item.partition("=")[0] not in given]
        try:
            made.append((compose_settings([*beside, *overrides], partial=True), beside))
        except UsageError as error:
            refused.append((str(error), beside))
    if not made:
        raise mistake
    if refused:
        message, beside = refused[0]
        raise UsageError(f"{message} [with {' '.join(beside)}]")
    return made[0]


def file_choices(definition: Definition) -> list[list[str]]:
    """Return the different choices of files and classes that a sweep's trials make."""
    groups = [p.name for p in definition.parameters if CHOICE.fullmatch(p.name)]
    choices: dict[tuple[str, ...], None] = {}
    for point in itertools.islice(points(definition), MAX_POINTS) if groups else ():
        choices[tuple(to_overrides({name: point[name] for name in groups if name in point}))] = None
    return [list(each) for each in choices]


def without(beside: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return the choices for which there is none among other overrides or keys."""
    names = {item.partition("=")[0] for item in others}
    return [item for item in beside if item.partition("=")[0] not in names]
