"""A trial's session for ClearML without a server: a ZIP file that ClearML's own client imports.

It is made of what the trial's folder holds when the trial ends, so it has each row once. Pictures
and drawings are put aside when they come.

Example::

    session = OfflineTask.open(settings, folder)
    session.keep_picture(folder.path / "cka/towers/epoch-0003.png", "cka/towers/heatmap", 90)
    session.end("done")         # clearml-offline.zip

    clearml.Task.import_offline_session(".../clearml-offline.zip")      # where there is a server
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.atomic import atomic_path, write_json, write_text
from mlmodeldev.tracking.clearml_content import (
    Event,
    event_identity,
    file_key,
    image_event,
    parameters,
    plot_event,
    project_name,
    scalar_events,
    single_value,
    task_content,
    task_tags,
)
from mlmodeldev.tracking.clearml_model import FRAMEWORK, labels
from mlmodeldev.tracking.clearml_server import MOST_EVENTS
from mlmodeldev.tracking.timed_rows import TimedRow, rows_of

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.trial.folder import TrialFolder

SESSION = "clearml-offline.zip"
"""In the trial's folder, when the trial has ended or was interrupted."""
OFFLINE_ENTRY = "clearml_offline"
"""Name in ``trial.json``: the session's id."""

_FOLDER = ".clearml-offline"  # of the session while the trial runs
_ASIDE = "events.jsonl"
_ROWS, _TASK = "metrics.jsonl", "task.json"  # as ClearML's client names them


class OfflineTask:
    """Stands for a task that is begun when the session is imported.

    Args:
        settings: the trial's.
        folder: the trial's.
        task_id: ``offline-...``.

    Attributes:
        id: the session's.
    """

    def __init__(self, settings: Settings, folder: TrialFolder, task_id: str) -> None:
        self.id = task_id
        self._settings, self._folder = settings, folder
        self._place = folder.path / _FOLDER
        self.content = task_content(settings, folder)
        self._events = {event_identity(event): event for event in _lines(self._place / _ASIDE)}
        self._models: list[dict[str, Any]] = []

    @classmethod
    def open(cls, settings: Settings, folder: TrialFolder) -> OfflineTask:
        """Return the trial's session, unpacked where an earlier attempt has left one."""
        task_id = str(folder.read().get(OFFLINE_ENTRY) or f"offline-{secrets.token_hex(16)}")
        folder.update(**{OFFLINE_ENTRY: task_id})
        packed, place = folder.path / SESSION, folder.path / _FOLDER
        place.mkdir(exist_ok=True)
        if packed.is_file() and not (place / _ASIDE).is_file():
            with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(packed) as former:
                former.extractall(place)
        return cls(settings, folder, task_id)

    def send(self, rows: Sequence[TimedRow]) -> None:
        """Nothing: ``metrics.csv`` has the rows."""

    def send_single(self, name: str, value: float) -> None:
        """Put aside a value of the trial as a whole."""
        self._put_aside(single_value(self.id, name, value))

    def send_plot(self, name: str, step: int, plot: str) -> None:
        """Put aside a drawing of Plotly's."""
        self._put_aside(plot_event(self.id, name, step, plot))

    def show(self, section: str, values: Mapping[str, Any]) -> None:
        """Show values as hyper-parameters of a section."""
        self.content["hyperparams"].update(parameters(values, section))

    def keep_picture(self, file: Path, name: str, step: int) -> None:
        """Put aside a picture."""
        if not file.is_file():
            return
        parts = ("metrics", *name.split("/"), file.name)
        key = file_key(project_name(self._settings), self.content["name"], self.id, parts)
        target = self._place / "data" / key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(file, target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(file, target)
        event = image_event(self.id, name, step, key, target.as_uri())
        self._put_aside({**event, "key": key})  # by which the import finds the file

    def keep_model(self, best: Path, step: int) -> None:
        """Name an exported folder as the task's output model; it stays where it is."""
        made = {
            "config_text": None,
            "config_dict": None,
            "label_enumeration": labels(best) or None,
            "name": f"{self.content['name']} - {best.name}",
            "tags": None,
            "comment": None,
            "framework": FRAMEWORK,
        }
        weights = {
            "weights_filename": None,
            "upload_uri": None,
            "target_filename": None,
            "register_uri": best.absolute().as_uri(),
            "iteration": step,
            "update_comment": False,
            "is_package": False,
        }
        identity = f"offline-{secrets.token_hex(16)}"
        entry = {"init": made, "weights": weights, "output_uri": None, "id": identity}
        self._models.append(entry)

    def tell_input(self, parent: Mapping[str, Any]) -> None:
        """Nothing more than the hyper-parameters of the section ``trial`` tell."""

    def end(self, state: str) -> None:
        """Pack the session."""
        rows = rows_of(self._folder.path / "metrics.csv", math.inf)
        events = [event for row in rows for event in scalar_events(self.id, row)]
        events += self._events.values()
        parts = [events[n : n + MOST_EVENTS] for n in range(0, len(events), MOST_EVENTS)]
        write_text(self._place / _ROWS, "".join(f"{json.dumps(part)}\n" for part in parts))
        content = {
            **self.content,
            "id": self.id,
            "comment": f"Trial of mlmodeldev, {state}",
            "tags": task_tags(self._settings, state),
            "project_name": project_name(self._settings),
            "offline_folder": str(self._place),
            "offline_output_models": self._models,
        }
        write_json(self._place / _TASK, content)
        with (
            atomic_path(self._folder.path / SESSION) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed,
        ):
            for each in sorted(self._place.rglob("*")):
                if each.is_file():
                    packed.write(each, each.relative_to(self._place).as_posix())
        shutil.rmtree(self._place, ignore_errors=True)

    def _put_aside(self, event: Event) -> None:
        self._events[event_identity(event)] = event
        with (self._place / _ASIDE).open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(event)}\n")


def forget_session(folder: Path) -> None:
    """Remove the session of a trial that ClearML has as a whole: imported, it were a second one."""
    (folder / SESSION).unlink(missing_ok=True)
    shutil.rmtree(folder / _FOLDER, ignore_errors=True)


def _lines(file: Path) -> Iterator[Event]:
    """Yield the events of a file; its last line may be torn."""
    try:
        text = file.read_text()
    except OSError:
        return
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)
