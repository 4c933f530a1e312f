"""Models of a trial in ClearML: ``best/`` as its output, and what it began with as its input.

Example::

    keep_output(task, folder / "best", folder, step=900)
    tell_input(task, record["parent"])
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.tracking.clearml_server import ServerError
from mlmodeldev.tracking.flat_values import flat, shown
from mlmodeldev.tracking.registered_trial import lineage
from mlmodeldev.tracking.registry_folder import folder_digest
from mlmodeldev.trial.record import read_record

if TYPE_CHECKING:
    from mlmodeldev.tracking.clearml_task import TrialTask
    from mlmodeldev.trial.folder import TrialFolder

MODEL_ENTRY = "clearml_model"
"""Name in ``trial.json``: the id of the model that the trial has made."""
FRAMEWORK = "PyTorch"
LONGEST_VALUE = 2000
_PACKAGE = "package"  # by which ClearML's client knows what to unpack


def keep_output(task: TrialTask, best: Path, folder: TrialFolder, step: int) -> None:
    """Keep a folder, packed, as the task's output model, unless ClearML has it as it is.

    Args:
        task: the trial's.
        best: its folder ``best``, whose name is the model's in the task.
        folder: the trial's.
        step: optimizer step that the trial ended with.
    """
    digest = folder_digest(best)
    mark = f"{best.name} {digest}"
    if task.has(mark):
        return
    with tempfile.TemporaryDirectory(dir=folder.path, prefix=".clearml-") as scratch:
        packed = Path(scratch) / f"{best.name}.zip"
        pack(best, packed)
        uri = task.server.upload(packed, task.key("models", packed.name))
    record = folder.read()
    fields = {"uri": uri, "labels": labels(best), "framework": FRAMEWORK, "comment": ""}
    fields["system_tags"] = [_PACKAGE]
    name = f"{task.content['name']} - {best.name}"
    there = _output_of(task, name)
    if there is None:
        there = task.server.call("models", "create", name=name, task=task.id, **fields)["id"]
    else:
        task.server.call("models", "edit", model=there, **fields)
    facts = {"digest": digest, **lineage(folder.path, record, best.name)}
    _describe(task, there, facts)
    _add(task, best.name, there, "output", iteration=step)
    folder.update(**{MODEL_ENTRY: there})
    task.note_sent(mark)


def pack(folder: Path, file: Path) -> None:
    """Pack a folder's files into a ZIP file, as they are: weights do not get smaller."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as packed:
        for each in sorted(folder.rglob("*")):
            if each.is_file():
                packed.write(each, each.relative_to(folder).as_posix())


def labels(folder: Path) -> dict[str, int]:
    """Return the classes of an exported model by name; none where its settings name none."""
    try:
        named = json.loads((folder / "config.json").read_text())["label2id"]
        return {str(name): int(number) for name, number in named.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def tell_input(task: TrialTask, parent: Mapping[str, Any]) -> None:
    """Tell what the trial began with; of another trial that is the model that it has made there.

    Args:
        task: the trial's.
        parent: the entry of ``trial.json``.
    """
    origin = _folder_of(parent)
    model = read_record(origin).get(MODEL_ENTRY) if origin is not None else None
    if model is not None and not _is_there(task, str(model)):
        model = None
    if model is None:
        uri = _address(parent)
        answer = task.server.call("models", "get_all", uri=[uri], only_fields=["id"])
        models = answer.get("models") or ()
        if models:
            model = models[0]["id"]
        else:
            name = f"{origin.parent.name}/{origin.name}" if origin else str(parent.get("file"))
            content = {"name": name.ljust(3), "uri": uri, "framework": FRAMEWORK, "labels": {}}
            model = task.server.call("models", "create", **content)["id"]
            _describe(task, model, {k: v for k, v in parent.items() if k != "weights"})
    _add(task, str(parent.get("how", "input")), str(model), "input")


def _add(task: TrialTask, name: str, model: str, kind: str, **more: Any) -> None:
    content = {"task": task.id, "name": name, "model": model, "type": kind, **more}
    task.server.call("tasks", "add_or_update_model", **content)


def _output_of(task: TrialTask, name: str) -> str | None:
    """Return the model that an earlier attempt has made."""
    answer = task.server.call("models", "get_all", task=[task.id], only_fields=["id", "name"])
    same = [each["id"] for each in answer.get("models") or () if each.get("name") == name]
    return str(same[0]) if same else None


def _is_there(task: TrialTask, model: str) -> bool:
    try:
        task.server.call("models", "get_by_id", model=model)
    except ServerError as error:
        if error.code != 400:
            raise
        return False
    return True


def _describe(task: TrialTask, model: str, facts: Mapping[str, Any]) -> None:
    """Show facts as the model's metadata."""
    items = [
        {"key": name, "type": type(value).__name__, "value": shown(name, value, LONGEST_VALUE)}
        for name, value in flat(facts)
        if value is not None
    ]
    task.server.call("models", "add_or_update_metadata", model=model, metadata=items)


def _folder_of(parent: Mapping[str, Any]) -> Path | None:
    """Return the folder of the trial that a trial began with; None: it was no trial."""
    if parent.get("folder"):
        return Path(parent["folder"])
    near = Path(str(parent.get("file"))).parent
    return near if (near / "trial.json").is_file() else None


def _address(parent: Mapping[str, Any]) -> str:
    """Return where the weights lie: a file, or a model of the Hub."""
    file = Path(str(parent.get("file")))
    if parent.get("how") == "continue_from":
        file = Path(str(parent.get("folder"))) / "checkpoints" / file
    if file.is_absolute():
        return file.as_uri()
    version = f"/tree/{parent['revision']}" if parent.get("revision") else ""
    return f"https://huggingface.co/{file.as_posix()}{version}"
