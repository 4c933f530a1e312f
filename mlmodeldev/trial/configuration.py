"""Which settings of a trial may be others when it goes on, and the first that must not.

Example::

    first_difference({"optimizer": {"lr": 0.1}}, {"optimizer": {"lr": 0.2}})
    # "optimizer.lr=0.1 (asked now: 0.2)"
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

# Settings that say where, how long and how fast, not what: they may differ when a trial goes on.
MAY_CHANGE = (
    "artefacts",
    "logger",
    *(f"callbacks.{name}" for name in ("cka", "export", "progress", "pruning")),
    *(f"callbacks.{name}" for name in ("samples", "throughput")),
    "cluster",
    "overrides",
    "processing.num_workers",
    "processing.pin_memory",
    "processing.prefetch_factor",
    "processing.stage",
    "training.accelerator",
    "training.checkpoint_every_n_steps",
    "training.check_val_every_n_epoch",
    "training.compile",
    "training.detect_anomaly",
    "training.devices",
    "training.init_strict",
    "training.limit_val_batches",
    "training.log_every_n_steps",
    "training.max_epochs",
    "training.max_steps",
    "training.nonfinite",
    "training.num_nodes",
    "training.patience",
    "training.profiler",
    "training.strategy",
    "training.test",
    "training.watchdog_seconds",
)

MAY_CHANGE_IN_SWEEPS = (*MAY_CHANGE, "training.mode", "training.monitor")
"""A sweep's metric judges its trials, also those that began under another monitor. Who names a
trial's monitor by hand is refused another: the best weights are of the former."""


def first_difference(
    old: Any, new: Any, key: str = "", ignored: Collection[str] = MAY_CHANGE
) -> str:
    """Return ``"optimizer.lr=0.1 (now 0.2)"`` for the first setting that must not change."""
    if key in ignored:
        return ""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(n for n in new if n not in old)]:
            inner = f"{key}.{name}" if key else str(name)
            difference = first_difference(old.get(name), new.get(name), inner, ignored)
            if difference:
                return difference
        return ""
    if old == new or (old is None and new == {}):  # a mapping that an earlier version lacked
        return ""
    return f"{key}={old} (asked now: {new})"
