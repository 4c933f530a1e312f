"""``info`` of a DataModule: the facts of its data that others need, in one mapping.

Optional. The model's constructor gets the entries that it has arguments of the same name for;
``labels``, the names of the classes, stand in the samples' table; all of it lies beside an export
(``training_state.json``), where a model's ``predict`` finds it.

Example::

    class Birds(LightningDataModule):
        info = {"num_classes": 3, "labels": ["robin", "wren", "tit"]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlmodeldev.data.module import ExactDataModule


def data_info(data: object) -> dict[str, Any]:
    """Return the data's ``info``; empty where there is none.

    An `ExactDataModule` that was written for an earlier version has it in three parts:
    ``structure``, ``card()`` and ``label_names``.
    """
    info = getattr(data, "info", None)
    if isinstance(info, Mapping):
        return dict(info)
    if not isinstance(data, ExactDataModule):
        return {}
    card: Any = getattr(data, "card", dict)
    labels = {"labels": data.label_names} if hasattr(data, "label_names") else {}
    return {**labels, **getattr(data, "structure", {}), **card()}


def label_names(data: object) -> Sequence[str] | None:
    """Return the names of the classes by number; None where the data have none.

    An attribute ``label_names`` is for names that are too many for an export.
    """
    names = getattr(data, "label_names", None) or data_info(data).get("labels")
    return names or None
