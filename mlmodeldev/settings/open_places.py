"""Places of the settings that take names which no file lists: no ``+`` is needed there.

Example::

    open_overrides(["callbacks.ema={_target_: mine.EMA}", "training.trainer.min_epochs=2"])
    # ["++callbacks.ema={_target_: mine.EMA}", "++training.trainer.min_epochs=2"]
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlmodeldev.errors import UsageError

_MAPPINGS = ("training.trainer", "cluster.sbatch")
"""Settings that are mappings with any names."""

_CALLBACK = re.compile(r"callbacks\.([A-Za-z_]\w*)(\.[\w.]+)?", re.ASCII)


_TOO_LONG = re.compile(r"[0-9][0-9_]{4000}")


def open_overrides(overrides: Sequence[str]) -> list[str]:
    """Return overrides of a command line, with Hydra's ``++`` where names are free.

    Raises:
        UsageError: one holds a number that is longer than Python reads.
    """
    for item in overrides:
        if _TOO_LONG.search(item):
            key = item.partition("=")[0][:40]
            raise UsageError(f"{key}: a number of more than 4,000 digits")
    return [f"++{item}" if _is_open(item) else item for item in overrides]


def _is_open(item: str) -> bool:
    key, given, value = item.partition("=")
    if not given:
        return False
    if any(key == name or key.startswith(f"{name}.") for name in _MAPPINGS):
        return True
    match = _CALLBACK.fullmatch(key)
    if match is None:
        return False
    from mlmodeldev.settings.callback_schema import Callbacks

    # A plain value for a name that is not there stays an error of Hydra's.
    adds = bool(match[2]) or value.lstrip().startswith("{")
    return adds and match[1] not in Callbacks.model_fields
