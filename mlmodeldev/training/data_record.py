"""What data a trial uses, in its record: another's are seen when it goes on.

Example::

    record_data(folder, data, Path("data"), policy="refuse", goes_on=True)
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.data.versions import versions
from mlmodeldev.errors import UsageError
from mlmodeldev.trial.folder import TrialFolder

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule


def record_data(
    folder: TrialFolder, data: LightningDataModule, root: Path, policy: str, goes_on: bool
) -> None:
    """Write what data the trial uses into its record.

    Args:
        root: the data folder.
        policy: ``refuse`` or ``warn``, when a trial that goes on began with other data.
        goes_on: whether there is a checkpoint of the earlier data.

    Raises:
        UsageError: the data differ and ``policy`` is ``refuse``.
    """
    inputs: dict[str, str] = getattr(data, "inputs", {})
    used: dict[str, Any] = {"inputs": dict(inputs), "dvc": versions(root / n for n in inputs)}
    before: dict[str, Any] = folder.read().get("data") or {}
    difference = _difference(before, used) if goes_on and before else ""
    if difference and policy == "refuse":
        raise UsageError(
            f"{folder.path}: {difference}; restore the data (docs/data-versioning.md), go on with"
            " the new ones by artefacts.changed_data=warn, or begin anew by artefacts.fresh=true"
        )
    if difference:
        print(f"warning: {difference}; going on, as artefacts.changed_data=warn", file=sys.stderr)
    for version in used["dvc"]:
        if version["matches"] is False:
            print(f"warning: the data are not those of {version['pointer']}", file=sys.stderr)
    folder.update(data=used)


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Name the first input that differs, with the versions where there are some."""
    old, new = before.get("inputs", {}), now["inputs"]
    if sorted(old.values()) == sorted(new.values()):
        return ""  # the same data, perhaps at another place
    name = next((n for n in new if old.get(n) != new[n]), None) or next(iter(old))
    text = f"{name}: the data have changed since this trial began"
    was, now_is = (_version(record) for record in (before, now))
    return f"{text} (version {was}, now {now_is})" if was != now_is else text


def _version(record: Mapping[str, Any]) -> str:
    names = ", ".join(f"{entry['pointer']} {entry['md5'][:8]}" for entry in record.get("dvc", ()))
    return names or "not kept by DVC"
