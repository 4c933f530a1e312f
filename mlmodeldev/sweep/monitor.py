"""The metric of a sweep as the monitor of its trials: one best everywhere.

Best weights, the table, the results and W&B's summary follow ``training.monitor``. A sweep that
looks for another metric sets it for its trials, as it sets their pruning: outside of what
identities are made of.

Example::

    choice = choose_monitor(Metric("val/loss"), {}, {"optimizer.lr": None}, settings)
    choice.overrides                # ["training.monitor=val/loss", "training.mode=min"]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlmodeldev.settings.overrides import parse_overrides, to_overrides
from mlmodeldev.sweep.definition import Metric

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.sweep.loading import Sweep

MODES = {"maximize": "max", "minimize": "min"}
"""``training.mode`` for each goal of a sweep."""

NEVER_MONITORS = ("cka/", "time/", "test/", "test_")
"""How metrics begin that not each validation logs: the monitor stays what the settings say.

CKA against the previous epoch is not there in the first, and need not be measured in each.
"""

_SET_OTHERS = ("debug", "experiment", "training")
"""Groups whose files may set a monitor."""


@dataclass(frozen=True)
class MonitorChoice:
    """What a sweep sets for its trials.

    Attributes:
        overrides: of every trial; none where the settings say the same.
        warning: where file or command line set another monitor, which is kept; else empty.
    """

    overrides: list[str] = field(default_factory=list)
    warning: str = ""


def sweep_monitor(sweep: Sweep, overrides: Sequence[str], base: Settings) -> MonitorChoice:
    """Return what a sweep file sets for its trials.

    Args:
        sweep: of trainer.py.
        overrides: of every trial, from the command line.
        base: the settings under them.
    """
    parameters = sweep.definition.parameters
    values = {p.name: p.fields.get("value") for p in parameters}
    return choose_monitor(sweep.definition.metric, parse_overrides(overrides), values, base)


def remote_monitor(
    config: Mapping[str, Any], overrides: Sequence[str], base: Settings
) -> MonitorChoice:
    """Return what a sweep on W&B's server sets for its trials.

    Args:
        config: the sweep's configuration, as the server has it.
        overrides: of every trial, from the command line.
        base: the settings under them.
    """
    metric = config.get("metric") or {}
    if not isinstance(metric, Mapping) or not metric.get("name"):
        return MonitorChoice()
    goal = metric.get("goal") if metric.get("goal") in MODES else "minimize"
    parameters = config.get("parameters") or {}
    values = {n: p.get("value") for n, p in parameters.items() if isinstance(p, Mapping)}
    wanted = Metric(str(metric["name"]), str(goal))
    return choose_monitor(wanted, parse_overrides(overrides), values, base)


def choose_monitor(
    metric: Metric | None,
    fixed: Mapping[str, Any],
    swept: Mapping[str, Any],
    base: Settings,
) -> MonitorChoice:
    """Return what a sweep sets for its trials; what the user has set stays.

    Args:
        metric: the sweep's.
        fixed: of the command line, by dotted key.
        swept: the sweep's parameters with their values; None where there are several.
        base: the settings under the command line.
    """
    if metric is None or metric.name.startswith(NEVER_MONITORS):
        return MonitorChoice()
    given = {
        name: value
        for source in (fixed, swept)
        for name in ("monitor", "mode")
        if (value := source.get(f"training.{name}", _ABSENT)) is not _ABSENT
    }
    wanted = {"monitor": metric.name, "mode": MODES[metric.goal]}
    other = {name: value for name, value in given.items() if value != wanted[name]}
    if other:
        name, value = next(iter(other.items()))
        return MonitorChoice(
            [],
            f"training.{name}={value}: best/ of each trial follows it, while the sweep's metric is"
            f" {metric.name} ({metric.goal}); leave training.{name} out for one best everywhere",
        )
    same = (base.training.monitor, base.training.mode) == (wanted["monitor"], wanted["mode"])
    if same and not any(group in swept for group in _SET_OTHERS):
        return MonitorChoice()
    return MonitorChoice(
        to_overrides({f"training.{n}": v for n, v in wanted.items() if n not in given})
    )


_ABSENT = object()
