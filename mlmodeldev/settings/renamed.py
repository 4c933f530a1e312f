"""What was called otherwise before: arguments of models, and classes that have moved.

Old names go on working, with a line that says the new one; identities are computed from the old
names, so that what is done stays done; records of earlier trials are read as if written today.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlmodeldev.settings.conf_files import conf_folders

MODEL_ARGUMENTS = {
    "width": "hidden_size",
    "depth": "num_layers",
    "heads": "num_heads",
    "vocabulary": "vocab_size",
    "classes": "num_classes",
}
"""Arguments of the shipped models: the name before version 0.2, and today's."""

CLASSES = {
    "model.TextClassifier": "examples.text_classifier.TextClassifier",
    "datamodule.Cola": "examples.cola.Cola",
    "datamodule.Sst2": "examples.cola.Sst2",
    "datamodule.CocoCaptions": "examples.coco.CocoCaptions",
}
"""Classes that a ``_target_`` of an earlier version names, and where they are today."""

NAMED_BY = ("model", "experiment")
"""Choices on which `names_of_identity` depends."""
_SHIPPED_MODELS = ("dual_encoder", "text_classifier")
_SHIPPED_EXPERIMENTS = ("cola", None)
_OLD_NAMES = {f"model.{new}": f"model.{old}" for old, new in MODEL_ARGUMENTS.items()}
_ARGUMENT = re.compile(rf"(\+{{0,2}}model\.)({'|'.join(MODEL_ARGUMENTS)})(=.*)", re.DOTALL)


def current_overrides(overrides: Sequence[str]) -> list[str]:
    """Return overrides of a command line with today's names; each old one is told of once.

    A project whose own models have an argument of the old name keeps it.
    """
    current = []
    for item in overrides:
        match = _ARGUMENT.fullmatch(item)
        if match is None or _is_of_the_project(match[2]):
            current.append(item)
            continue
        new = MODEL_ARGUMENTS[match[2]]
        warn_once(f"model.{match[2]} is called model.{new} now")
        current.append(f"{match[1]}{new}{match[3]}")
    return current


def _is_of_the_project(name: str) -> bool:
    """Whether a file of ``conf/model/`` still has an argument of this name."""
    pattern = re.compile(rf"(?m)^{name}\s*:")
    files = (conf_folders()[0] / "model").glob("*.yaml")
    return any(pattern.search(file.read_text(encoding="utf-8")) for file in files)


_warned: set[str] = set()


def warn_once(text: str) -> None:
    """Print a warning, once a process."""
    if text not in _warned:
        _warned.add(text)
        print(f"warning: {text}", file=sys.stderr)


def names_of_identity(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return flat overrides by the names that identities are made of: those before version 0.2.

    Only what the shipped models are told has other names; a choice of any other model, or of an
    experiment that is not ours, leaves all as it is.
    """
    shipped = (
        overrides.get("model", _SHIPPED_MODELS[0]) in _SHIPPED_MODELS
        and overrides.get("experiment") in _SHIPPED_EXPERIMENTS
    )
    if not shipped:
        return dict(overrides)
    renamed = {key: _OLD_NAMES.get(key, key) for key in overrides}
    if len(set(renamed.values())) < len(renamed):  # both names, for whatever reason
        return dict(overrides)
    return {renamed[key]: value for key, value in overrides.items()}


def current_configuration(old: Mapping[str, Any], model: Collection[str]) -> dict[str, Any]:
    """Return the settings in an earlier trial's record by today's names.

    Args:
        old: nested, as ``config.yaml`` holds them.
        model: arguments of the model as it is today.
    """
    current = dict(old)
    for group in ("model", "data"):
        values = current.get(group)
        if isinstance(values, dict) and values.get("_target_") in CLASSES:
            current[group] = {**values, "_target_": CLASSES[values["_target_"]]}
    if isinstance(current.get("model"), dict):
        current["model"] = current_arguments(current["model"], model)
    return current


def current_arguments(arguments: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return a model's arguments by today's names, where ``names`` has those and not the old."""
    return {
        MODEL_ARGUMENTS[key]
        if key not in names and MODEL_ARGUMENTS.get(key) in names
        else key: value
        for key, value in arguments.items()
    }


def with_old_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what data tell a model's class, by today's names and by the old ones as well."""
    old = {name: values[new] for name, new in MODEL_ARGUMENTS.items() if new in values}
    new = {new: values[name] for name, new in MODEL_ARGUMENTS.items() if name in values}
    return {**old, **new, **values}


def current_target(target: Any, root: Path) -> Any:
    """Return where the class of a ``_target_`` is today, if the project's file lacks it.

    Args:
        target: such as ``model.TextClassifier``.
        root: the project's folder.
    """
    if not isinstance(target, str) or target not in CLASSES:
        return target
    module, _, name = target.rpartition(".")
    file = root / f"{module}.py"
    there = file.is_file() and re.search(rf"(?m)^class {name}\b", file.read_text(encoding="utf-8"))
    return target if there else CLASSES[target]
