"""A trial's task in ClearML: the same for good, with each metric once a step, whoever was killed.

The server keeps one event for each metric and step, a later one in the place of a former, and
says of a task the last step that it has. What a trial that comes back has of steps before that one
is not sent again. A row goes in one request, and rows go in the order of their steps.

Example::

    task = TrialTask.open(settings, folder)
    task.send([TimedRow({"train/loss": 0.3}, step=130, milliseconds=1_760_000_000_000)])
    task.end("done")
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.atomic import write_json
from mlmodeldev.secrets import masked
from mlmodeldev.tracking.clearml_content import (
    Event,
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
from mlmodeldev.tracking.clearml_model import keep_output, tell_input
from mlmodeldev.tracking.clearml_server import MOST_EVENTS, Server, ServerError
from mlmodeldev.tracking.metadata import BY_HAND
from mlmodeldev.tracking.timed_rows import TimedRow, last_step

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.trial.folder import TrialFolder

TASK_ENTRY, KEY_ENTRY, UPLOADED_ENTRY = "clearml_task", "clearml_key", "clearml_uploaded"
"""Names in ``trial.json``: the task's id, its key, and whether ClearML has everything."""
SENT_NOTE = ".clearml-sent.json"
"""In the trial's folder: the files that the task has."""

_GIVEN = "CLEARML_TASK_ID"
_ENDS = {"done": "completed", "pruned": "completed", "interrupted": "stopped"}
_WRITABLE = ("created", "queued", "in_progress", "stopped", "closed", "failed", "completed")


class TrialTask:
    """An open task; all calls raise what the client raises, and may be made again.

    Args:
        server: where it lies.
        settings: the trial's.
        folder: the trial's.
        task_id: the task's.
        last: step before which no row is sent, since the server has them all.

    Attributes:
        id: the task's.
    """

    def __init__(
        self, server: Server, settings: Settings, folder: TrialFolder, task_id: str, last: int
    ) -> None:
        self.server, self.id = server, task_id
        self._settings, self._folder, self._last = settings, folder, last
        self.content = task_content(settings, folder)
        self._sent = _read_sent(folder.path / SENT_NOTE, task_id)

    @classmethod
    def open(cls, settings: Settings, folder: TrialFolder) -> TrialTask:
        """Return the trial's task, which is in ``trial.json`` from then on, and runs."""
        record = folder.read()
        key = record.get(KEY_ENTRY)
        if not key:
            key = secrets.token_hex(16)
            folder.update(**{KEY_ENTRY: key})  # before there is a task that it has to find
        server = Server()
        former = _former_task(server, settings, record, key)
        content = task_content(settings, folder)
        task_id = str(former["id"] if former else _create(server, settings, content, key))
        folder.update(**{TASK_ENTRY: task_id, UPLOADED_ENTRY: False})
        opened = cls(server, settings, folder, task_id, _last_sent(former, folder))
        if not opened._is_of_agent:
            server.call("tasks", "started", task=task_id, force=True, status_reason="trial runs")
        if former is not None:
            opened._renew(content)
        return opened

    @property
    def _is_of_agent(self) -> bool:
        """Whether an agent of ClearML's runs the task: it ends a process that changes the status.

        It sets it itself, by the process's exit status.
        """
        return self.id == os.environ.get(_GIVEN)

    def _renew(self, content: Mapping[str, Any]) -> None:
        """Show the settings with which the trial goes on; the command stays as it was made."""
        names = ("configuration",) if self._is_of_agent else ("name", "tags", "configuration")
        shown = {name: content[name] for name in names}
        self.server.call("tasks", "edit", task=self.id, force=True, **shown)
        self._send_parameters(content["hyperparams"])

    # --- values

    def send(self, rows: Sequence[TimedRow]) -> None:
        """Send what ClearML lacks of rows, which are in the order of their steps."""
        waiting: list[Event] = []
        for row in rows:
            if row.step < self._last:
                continue
            events = [*scalar_events(self.id, row)]
            if waiting and len(waiting) + len(events) > MOST_EVENTS:
                self.server.send_events(waiting)
                waiting = []
            waiting += events
        if waiting:
            self.server.send_events(waiting)

    def send_single(self, name: str, value: float) -> None:
        """Send a value of the trial as a whole."""
        self.server.send_events([single_value(self.id, name, value)])

    def send_plot(self, name: str, step: int, plot: str) -> None:
        """Send a drawing of Plotly's."""
        self.server.send_events([plot_event(self.id, name, step, plot)])

    def show(self, section: str, values: Mapping[str, Any]) -> None:
        """Show values as hyper-parameters of a section."""
        self._send_parameters(parameters(values, section))

    def _send_parameters(self, sections: Mapping[str, Mapping[str, Any]]) -> None:
        listed = [entry for section in sections.values() for entry in section.values()]
        if listed:
            self.server.call(
                "tasks",
                "edit_hyper_params",
                task=self.id,
                hyperparams=listed,
                replace_hyperparams="section",
                force=True,
            )

    # --- files

    def keep_picture(self, file: Path, name: str, step: int) -> None:
        """Keep a picture, unless it was kept before."""
        mark = f"{name}/{file.name}"
        if mark in self._sent or not file.is_file():
            return
        key = self.key("metrics", *name.split("/"), file.name)
        url = self.server.upload(file, key)
        self.server.send_events([image_event(self.id, name, step, key, url)])
        self.note_sent(mark)

    def keep_model(self, best: Path, step: int) -> None:
        """Keep an exported folder as the task's output model."""
        keep_output(self, best, self._folder, step)

    def tell_input(self, parent: Mapping[str, Any]) -> None:
        """Tell what the trial began with."""
        tell_input(self, parent)

    def has(self, mark: str) -> bool:
        """Return whether something was sent by an earlier attempt."""
        return mark in self._sent

    def note_sent(self, mark: str) -> None:
        """Note that the task has something."""
        self._sent.add(mark)
        content = {"task": self.id, "sent": sorted(self._sent)}
        write_json(self._folder.path / SENT_NOTE, content)

    def key(self, *parts: str) -> str:
        """Return where a file of the task lies in the store."""
        project = project_name(self._settings)
        return file_key(project, self.content["name"], self.id, parts)

    # --- the end

    def end(self, state: str) -> None:
        """Tell how the trial ended; one that is interrupted goes on in the same task."""
        if self._is_of_agent:
            return
        tags = task_tags(self._settings, state)
        if tags != task_tags(self._settings):
            self.server.call("tasks", "edit", task=self.id, force=True, tags=tags)
        reason = masked(str(self._folder.read().get("reason") or state), 500)
        action = _ENDS.get(state, "failed")
        call = self.server.call
        call("tasks", action, task=self.id, force=True, status_reason=reason, status_message=state)


def _former_task(
    server: Server, settings: Settings, record: Mapping[str, Any], key: str
) -> dict[str, Any] | None:
    """Return the task that the trial has; None: none, or it is gone, or is published.

    An agent of ClearML's names the task that it runs: a trial by hand is that one.
    """
    given = os.environ.get(_GIVEN) if settings.artefacts.sweep == BY_HAND else None
    for task_id in filter(None, (record.get(TASK_ENTRY), given)):
        try:
            task = server.call("tasks", "get_by_id", task=task_id)["task"]
        except ServerError as error:
            if error.code != 400:  # which it answers of a task that is not there
                raise
        else:
            return dict(task) if task.get("status") in _WRITABLE else None
    fields = ["id", "status", "last_iteration"]
    by_key = {"pattern": re.escape(key), "fields": ["comment"]}
    answer = server.call("tasks", "get_all", _any_=by_key, only_fields=fields)
    tasks = [task for task in answer.get("tasks") or () if task.get("status") in _WRITABLE]
    return dict(tasks[0]) if tasks else None


def _last_sent(former: Mapping[str, Any] | None, folder: TrialFolder) -> int:
    """Return the last step that the server has of the rows; 0 where it does not tell.

    It counts what is not of rows, too: a model, and what the user's code reports. A step beyond
    all rows says nothing of them; those that are sent once more take the place of themselves.
    """
    there = int((former or {}).get("last_iteration") or 0)
    return there if there <= last_step(folder.path / "metrics.csv") else 0


def _create(server: Server, settings: Settings, content: Mapping[str, Any], key: str) -> str:
    project = _project(server, project_name(settings))
    comment = f"Trial of mlmodeldev, key {key}"
    created = server.call("tasks", "create", **content, project=project, comment=comment)
    return str(created["id"])


def _project(server: Server, name: str) -> str:
    """Return a project's id; of trials that begin at once, one makes it."""

    def find() -> str | None:
        pattern = f"^{re.escape(name)}$"
        answer = server.call("projects", "get_all", name=pattern, only_fields=["id", "name"])
        same = [each["id"] for each in answer.get("projects") or () if each.get("name") == name]
        return str(same[0]) if same else None

    there = find()
    if there is None:
        try:
            return str(server.call("projects", "create", name=name, description="")["id"])
        except ServerError:
            there = find()
            if there is None:
                raise
    return there


def _read_sent(file: Path, task_id: str) -> set[str]:
    try:
        content = json.loads(file.read_text())
        return {*map(str, content["sent"])} if content["task"] == task_id else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()
