"""What the stand-in for ClearML's server knows, and what it answers to each call.

The rules are those of the real server's source (github.com/clearml/clearml-server): an event takes
the place of an earlier one of the same metric, variant, iteration and key; a status follows only
from some others, unless it is forced; names have three letters; of a task it keeps the last step.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Content = dict[str, Any]


class Refusal(Exception):
    """Answered with HTTP status 400."""


_FOLLOW = {
    "created": {"queued", "in_progress"},
    "queued": {"created", "in_progress", "stopped"},
    "in_progress": {"stopped", "failed", "created", "completed"},
    "stopped": {"closed", "created", "failed", "queued", "in_progress", "published", "completed"},
    "closed": {"created", "failed", "published", "stopped"},
    "failed": {"created", "stopped", "published", "queued"},
    "completed": {"published", "in_progress", "created"},
    "published": set(),
}
_KINDS = {"training_stats_scalar", "training_debug_image", "plot", "log"}


@dataclass
class Store:
    """All that was sent.

    Attributes:
        calls: every call, in order: its name and content.
        unknown: calls that are not answered here; a test that has any fails.
        checked: number of calls that were compared with the schema of the API.
        events: of each task, by their identity.
        files: of the file store, by their keys.
    """

    calls: list[tuple[str, Content]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    checked: int = 0
    tasks: dict[str, Content] = field(default_factory=dict)
    models: dict[str, Content] = field(default_factory=dict)
    projects: dict[str, Content] = field(default_factory=dict)
    events: dict[str, dict[tuple[Any, ...], Content]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def answer(self, name: str, content: Content) -> Content:
        """Return what the server answers to a call.

        Raises:
            Refusal: it answers that the call is wrong.
        """
        self.calls.append((name, content))
        if name not in ANSWERS:
            self.unknown.append(f"{name} {sorted(content)}")
            raise Refusal(f"{name} is not known here")
        return ANSWERS[name](self, content)

    def task(self, content: Content) -> Content:
        """Return the task that a call is about."""
        if content["task"] not in self.tasks:
            raise Refusal(f"Invalid task id: {content['task']}")
        return self.tasks[content["task"]]

    def project(self, name: str) -> str:
        """Return the id of a project, which is made where it is not there."""
        for identity, project in self.projects.items():
            if project["name"] == name:
                return identity
        identity = uuid.uuid4().hex
        self.projects[identity] = {"id": identity, "name": name, "system_tags": []}
        return identity


Answer = Callable[[Store, Content], Content]


def _create_task(store: Store, content: Content) -> Content:
    _check_name(content["name"])
    if content["project"] not in store.projects:
        raise Refusal("Invalid project id")
    identity = uuid.uuid4().hex
    store.tasks[identity] = {
        **content,
        "id": identity,
        "status": "created",
        "last_iteration": 0,
        "models": {"input": [], "output": []},
        "execution": {"artifacts": []},
        "output": {},
        "hyperparams": content.get("hyperparams") or {},
    }
    store.events[identity] = {}
    return {"id": identity}


def _edit_task(store: Store, content: Content) -> Content:
    task = store.task(content)
    if not content.get("force") and task["status"] != "created":
        raise Refusal("Invalid task status")
    changes = {k: v for k, v in content.items() if k not in ("task", "force") and v is not None}
    if "name" in changes:
        _check_name(changes["name"])
    task.update(changes)
    return {"updated": 1, "fields": {}}


def _status(new: str) -> Answer:
    def answer(store: Store, content: Content) -> Content:
        task = store.task(content)
        allowed = new == task["status"] or new in _FOLLOW[task["status"]]
        if not (allowed or content.get("force")):
            raise Refusal(f"Invalid status change: {task['status']} {new}")
        reasons = {name: content.get(name, "") for name in ("status_reason", "status_message")}
        task.update(status=new, **reasons)
        return {"updated": 1, "fields": {"status": new}}

    return answer


def _edit_parameters(store: Store, content: Content) -> Content:
    task = store.task(content)
    if not content.get("force") and task["status"] != "created":
        raise Refusal("Invalid task status")
    if content.get("replace_hyperparams") == "section":
        for section in {each["section"] for each in content["hyperparams"]}:
            task["hyperparams"][section] = {}
    for each in content["hyperparams"]:
        task["hyperparams"].setdefault(each["section"], {})[each["name"]] = each
    return {"updated": 1}


def _find_tasks(store: Store, content: Content) -> Content:
    listed = [*store.tasks.values()]
    if pattern := content.get("_any_"):
        listed = [
            each
            for each in listed
            if any(re.search(pattern["pattern"], each.get(f) or "") for f in pattern["fields"])
        ]
    for name in ("id", "project"):
        if content.get(name):
            listed = [each for each in listed if each.get(name) in content[name]]
    return {"tasks": listed}


def _find_projects(store: Store, content: Content) -> Content:
    listed = [*store.projects.values()]
    if content.get("name"):
        listed = [each for each in listed if re.search(content["name"], each["name"])]
    if content.get("id"):
        listed = [each for each in listed if each["id"] in content["id"]]
    return {"projects": listed}


def _create_project(store: Store, content: Content) -> Content:
    _check_name(content["name"])
    if any(each["name"] == content["name"] for each in store.projects.values()):
        raise Refusal("Value combination already exists")
    return {"id": store.project(content["name"])}


def _create_model(store: Store, content: Content) -> Content:
    _check_name(content["name"])
    if content.get("task"):
        store.task(content)
    identity = uuid.uuid4().hex
    store.models[identity] = {"metadata": {}, "ready": False, **content, "id": identity}
    return {"id": identity, "created": True}


def _edit_model(store: Store, content: Content) -> Content:
    model = _model(store, content)
    model.update({k: v for k, v in content.items() if k != "model" and v is not None})
    return {"updated": 1, "fields": {}}


def _model(store: Store, content: Content) -> Content:
    if content["model"] not in store.models:
        raise Refusal("Invalid model id")
    return store.models[content["model"]]


def _find_models(store: Store, content: Content) -> Content:
    listed = [*store.models.values()]
    for name in ("id", "uri", "task"):
        if content.get(name):
            listed = [each for each in listed if each.get(name) in content[name]]
    return {"models": listed}


def _describe_model(store: Store, content: Content) -> Content:
    metadata = _model(store, content)["metadata"]
    metadata.update({each["key"]: each for each in content["metadata"]})
    return {"updated": 1}


def _add_model(store: Store, content: Content) -> Content:
    task, entry = store.task(content), {"name": content["name"], "model": content["model"]}
    _model(store, content)
    listed = task["models"][content["type"]]
    listed[:] = [each for each in listed if each["name"] != content["name"]] + [entry]
    task["last_iteration"] = max(task["last_iteration"], content.get("iteration") or 0)
    return {"updated": 1}


def _add_events(store: Store, content: Content) -> Content:
    for event in content["events"]:
        task = store.task(event)
        if task["status"] == "published" or event["type"] not in _KINDS:
            raise Refusal(f"Event is not taken: {event}")
        if event["type"] == "training_stats_scalar" and not isinstance(event["value"], int | float):
            raise Refusal(f"No number: {event}")
        identity = tuple(event.get(n) for n in ("type", "metric", "variant", "iter", "key"))
        number = len(store.events[task["id"]]) if event["type"] == "log" else None
        store.events[task["id"]][(*identity, number)] = event
        task["last_iteration"] = max(task["last_iteration"], event.get("iter") or 0)
    return {"added": len(content["events"]), "errors": 0, "errors_info": {}}


def _histogram(store: Store, content: Content) -> Content:
    """Answer with all values of a task, by metric and variant."""
    answer: Content = {}
    for event in store.events[store.task(content)["id"]].values():
        if event["type"] == "training_stats_scalar" and event["iter"] >= 0:
            variant = answer.setdefault(event["metric"], {}).setdefault(
                event["variant"], {"name": event["variant"], "x": [], "y": []}
            )
            variant["x"].append(event["iter"])
            variant["y"].append(event["value"])
    return answer


def _single_values(store: Store, content: Content) -> Content:
    """Answer with the values of tasks as a whole."""
    answer = []
    for task in content["tasks"]:
        values = [
            {"metric": e["metric"], "variant": e["variant"], "value": e["value"]}
            for e in store.events[task].values()
            if e["type"] == "training_stats_scalar" and e["iter"] < 0
        ]
        answer.append({"task": task, "task_name": "", "values": values})
    return {"tasks": answer}


def _debug_images(store: Store, content: Content) -> Content:
    """Answer with the pictures of a metric, all at once."""
    answer = []
    for wanted in content["metrics"]:
        events = [
            event
            for event in store.events[wanted["task"]].values()
            if event["type"] == "training_debug_image"
            and event["metric"] == wanted.get("metric", event["metric"])
            and event["variant"] in (wanted.get("variants") or [event["variant"]])
        ]
        steps = sorted({event["iter"] for event in events}, reverse=True)
        iterations = [
            {"iter": step, "events": [e for e in events if e["iter"] == step]} for step in steps
        ]
        done = content.get("scroll_id") is not None
        answer.append({"task": wanted["task"], "iterations": [] if done else iterations})
    return {"scroll_id": "1", "metrics": answer}


def _check_name(name: str) -> None:
    if len(name.strip()) < 3:
        raise Refusal("Field is too short: name")


ANSWERS: dict[str, Answer] = {
    "tasks.create": _create_task,
    "tasks.edit": _edit_task,
    "tasks.get_by_id": lambda store, content: {"task": store.task(content)},
    "tasks.get_all": _find_tasks,
    "tasks.started": _status("in_progress"),
    "tasks.stopped": _status("stopped"),
    "tasks.completed": _status("completed"),
    "tasks.failed": _status("failed"),
    "tasks.edit_hyper_params": _edit_parameters,
    "tasks.add_or_update_model": _add_model,
    "projects.get_all": _find_projects,
    "projects.create": _create_project,
    "projects.get_by_id": lambda store, content: {"project": store.projects[content["project"]]},
    "models.create": _create_model,
    "models.edit": _edit_model,
    "models.get_by_id": lambda store, content: {"model": _model(store, content)},
    "models.get_all": _find_models,
    "models.add_or_update_metadata": _describe_model,
    "events.add_batch": _add_events,
    "events.scalar_metrics_iter_histogram": _histogram,
    "events.get_task_single_value_metrics": _single_values,
    "events.debug_images": _debug_images,
}
