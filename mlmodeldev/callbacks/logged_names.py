"""The names that a model logs, and what to say of a setting that names none of them.

Example::

    not_logged("val/los", ["val/loss", "train/loss"])
    # "training.monitor=val/los: the model logs no such metric in validation; did you mean ..."
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection

_OF_ONE_LOADER = re.compile(r"/dataloader_idx_\d+$")
"""What Lightning adds to a name where there are several validation loaders."""


def own_names(metrics: Collection[str]) -> list[str]:
    """Return the names among these that the model itself has logged."""
    return sorted(name for name in metrics if not name.startswith(("time/", "cka/")))


def not_logged(monitor: str, metrics: Collection[str], setting: str = "training.monitor") -> str:
    """Return what to say of a metric that a setting names and nothing logs."""
    logged = own_names(metrics)
    return (
        f"{setting}={monitor}: the model logs no such metric in validation"
        f"{nearest_metric(monitor, logged)} (logged: {', '.join(logged) or 'none'})"
    )


def nearest_metric(name: str, logged: Collection[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest name, or ``""``.

    Of several loaders each has its number in the name; the first is offered.

    >>> nearest_metric("val/loss", ["val/loss/dataloader_idx_0", "val/loss/dataloader_idx_1"])
    "; did you mean 'val/loss/dataloader_idx_0'?"
    """
    names = {_OF_ONE_LOADER.sub("", each).lower(): each for each in sorted(logged, reverse=True)}
    names |= {each.lower(): each for each in logged}
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return f"; did you mean {names[close[0]]!r}?" if close else ""
