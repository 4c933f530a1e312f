"""What MLflow takes of names and values, which is less than metrics and settings may hold.

Example::

    metric_name("cka/encoder~head")                 # 'cka/encoder:head'
    parameters(settings)["optimizer.lr"]            # '0.002'
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlmodeldev.tracking.flat_values import flat, settings_to_show, shown
from mlmodeldev.tracking.metadata import at_most

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings

LONGEST_KEY, LONGEST_PARAMETER, LONGEST_TAG = 250, 6000, 5000
"""Characters that MLflow takes: of a name, of a parameter's value, of a tag's on any server."""

_NOT_TAKEN = re.compile(r"[^\w/. :-]")


def metric_name(name: str) -> str:
    """Return the name under which MLflow has a metric: its own, where MLflow takes it."""
    text = _NOT_TAKEN.sub("_", name.replace("~", ":"))
    path = posixpath.normpath(text).lstrip("/.") or "_"
    return at_most(path, LONGEST_KEY).replace("~", ":")


def parameters(settings: Settings) -> dict[str, str]:
    """Return the settings by their dotted names, as text, keys masked."""
    pairs = flat(settings_to_show(settings))
    return {metric_name(name): shown(name, value, LONGEST_PARAMETER) for name, value in pairs}


def tags(values: Mapping[str, Any], front: str) -> dict[str, str]:
    """Return values as tags below ``front``; those that are None are left out."""
    pairs = ((name, value) for name, value in flat(values, front) if value is not None)
    return {metric_name(name): shown(name, value, LONGEST_TAG) for name, value in pairs}
