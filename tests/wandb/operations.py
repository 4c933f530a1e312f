"""GraphQL: what the client asks by name, and the answer to each.

The query's text is not read, only its name and variables: the client picks what it wants from a
full answer. `tests.wandb.public`, `tests.wandb.artifacts` and others add theirs to the same table.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

from tests.wandb.store import ENTITY, Agent, Run, Store, new_id
from tests.wandb.sweeps import Sweep

Answer = Callable[[Store, dict[str, Any]], dict[str, Any]]
ANSWERS: dict[str, Answer] = {}


class Refusal(Exception):
    """Answered with an error and a status."""

    status = 400


class NotFound(Refusal):
    """There is no such thing."""

    status = 404


LONGEST = {"displayName": 128, "groupName": 128, "jobType": 128, "project": 128, "name": 128}
"""Characters that the server takes."""


def answers(*names: str) -> Callable[[Answer], Answer]:
    """Enter a function in the table under these names."""

    def enter(function: Answer) -> Answer:
        ANSWERS.update(dict.fromkeys(names, function))
        return function

    return enter


def stamp(seconds: float) -> str:
    """Return a time as the server writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + "Z"


def opaque(kind: str, path: str) -> str:
    """Return an id as the server makes them: not to be read by clients."""
    return base64.urlsafe_b64encode(f"{kind}:{path}".encode()).decode()


def project_node(entity: str, project: str) -> dict[str, Any]:
    """Return what is told of a project."""
    path = f"{entity}/{project}"
    owner = {"id": opaque("Entity", entity), "name": entity}
    return {
        "id": opaque("Project", path), "name": project, "entity": owner, "entityName": entity,
        "internalId": opaque("ProjectInternalId", path), "readOnly": False,
    }  # fmt: skip


# --- account and server


@answers("Viewer", "GetViewer", "GetDefaultEntity")
def viewer(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    return {
        "viewer": {
            "id": opaque("User", ENTITY), "entity": ENTITY, "username": ENTITY, "name": ENTITY,
            "email": "user@example.org", "admin": False, "flags": "{}", "deletedAt": None,
            "apiKeys": {"edges": []}, "teams": {"edges": [{"node": {"name": ENTITY}}]},
        }
    }  # fmt: skip


@answers("ServerFeaturesQuery", "ServerFeatures")
def features(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    return {"serverInfo": {"features": []}}


@answers("ServerInfo", "ServerInfoQuery")
def server_info(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    versions = {"max_cli_version": "99.0.0"}
    return {"serverInfo": {"cliVersionInfo": versions, "latestLocalVersionInfo": None}}


@answers("OrgFeatureFlags", "OrganizationCoreWeaveOrganizationID", "FetchOrgEntityFromEntity")
def organization(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    return {"organization": None, "entity": {"organization": None}}


# --- runs


@answers("UpsertBucket")
def upsert_run(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    entity, project = given.get("entity") or ENTITY, given.get("project") or "uncategorized"
    for key, most in LONGEST.items():
        if len(given.get(key) or "") > most:
            raise Refusal(f"invalid {key}: must be at most {most} characters")
    run = store.run(entity, project, given.get("name") or new_id())
    store.give_up_preempted()
    if run.given_up and store.refuses_given_up:
        raise Refusal(f"run {run.name} was given up; use another id")
    inserted = run.starts == 0
    if given.get("config") is not None:
        run.config = json.loads(given["config"])
    if given.get("summaryMetrics") is not None:
        run.summary = json.loads(given["summaryMetrics"])
    run.sweep = given.get("sweep") or run.sweep
    run.fields |= {k: v for k, v in given.items() if v is not None and k not in ("config",)}
    run.seen = time.time()
    if inserted or run.path in store.resuming:  # otherwise it is an update
        store.resuming.discard(run.path)
        run.state, run.preempting = given.get("state") or "running", False
        run.starts += 1
        run.times.append(("begin", run.seen))
    sweep = store.sweeps.get(run.sweep or "")
    if sweep and run.name in sweep.preempted:
        sweep.preempted.remove(run.name)
    return {"upsertBucket": {"bucket": run_node(run), "inserted": inserted}}


def run_node(run: Run) -> dict[str, Any]:
    """Return what is told of a run."""
    entity, project, name = run.path.split("/")
    fields, last = run.fields, max(run.steps, default=-1)
    return {
        "id": opaque("Run", run.path), "name": name, "projectId": "1", "internalId": name,
        "displayName": fields.get("displayName") or name, "description": fields.get("notes"),
        "notes": fields.get("notes"), "tags": fields.get("tags") or [], "state": run.state,
        "config": json.dumps(run.config), "summaryMetrics": json.dumps(run.summary),
        "systemMetrics": "{}", "sweepName": run.sweep, "group": fields.get("groupName"),
        "jobType": fields.get("jobType"), "commit": fields.get("commit"), "readOnly": False,
        "createdAt": stamp(run.created), "heartbeatAt": stamp(run.seen),
        "historyLineCount": len(run.history), "eventsLineCount": 0, "fileCount": len(run.files),
        "logLineCount": len(run.lines("output.log")), "project": project_node(entity, project),
        "user": {"name": ENTITY, "username": ENTITY}, "historyKeys": {"lastStep": last, "keys": {}},
        "shouldStop": run.stop, "stopped": run.stop, "failed": run.state == "failed",
        "running": run.state == "running", "exitcode": run.ends[-1][1] if run.ends else None,
        "historyTail": json.dumps(run.lines("wandb-history.jsonl")[-1:]), "eventsTail": "[]",
        "wandbConfig": json.dumps({"t": 1}), "sampledHistory": [run.history],
        "host": fields.get("host"), "program": fields.get("program"),
    }  # fmt: skip


@answers("RunResumeStatus")
def resume_status(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    entity, project = given.get("entity") or ENTITY, given.get("project") or "uncategorized"
    store.give_up_preempted()
    run = store.find(entity, project, given["name"])
    store.resuming |= {run.path} if run else set()
    return {"model": {**project_node(entity, project), "bucket": run_node(run) if run else None}}


@answers("RunLastRow")
def last_row(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    run = store.find(given["entity"], given["project"], given["run"])
    return {"model": {"bucket": run_node(run) if run else None}}


@answers("RunState", "RunStatus", "QueryRunInfo", "GetRunState", "RunStopped", "RunSettings")
def run_state(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    run = store.find(given.get("entity"), given.get("project"), given["run"])
    return {"project": {"run": run_node(run) if run else None}}


@answers("StopRun")
def stop_run(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    for run in store.runs.values():
        if opaque("Run", run.path) == given["id"]:
            run.stop = True
    return {"stopRun": {"success": True, "clientMutationId": None}}


@answers("CreateRunFiles")
def create_files(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    path = f"{given['entity']}/{given['project']}/{given['run']}"
    files = [
        {"name": name, "uploadUrl": f"{store.url}/storage/run/{path}/{name}"}
        for name in given["files"]
    ]
    made = {"runID": opaque("Run", path), "uploadHeaders": [], "files": files}
    return {"createRunFiles": made}


@answers("MarkRunFilesUploaded")
def files_uploaded(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    return {"markRunFilesUploaded": {"success": True}}


# --- sweeps and agents


@answers("UpsertSweep", "UpsertSweepState")
def upsert_sweep(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    sweep = next(
        (s for s in store.sweeps.values() if given.get("id") == opaque("Sweep", s.name)), None
    )
    if sweep is None:
        entity, project = given.get("entityName") or ENTITY, given.get("projectName") or "sweeps"
        sweep = Sweep(store, entity, project, given["config"])
        store.sweeps[sweep.name] = sweep
    elif given.get("config"):
        sweep.set_config(given["config"])
    if given.get("state"):
        sweep.state = given["state"]
    return {"upsertSweep": {"sweep": sweep_node(sweep), "configValidationWarnings": []}}


def sweep_node(sweep: Sweep) -> dict[str, Any]:
    """Return what is told of a sweep."""
    runs = [run for run in sweep.runs if run.starts]
    return {
        "id": opaque("Sweep", sweep.name), "name": sweep.name, "state": sweep.state,
        "method": sweep.config["method"], "config": sweep.text, "description": None,
        "displayName": sweep.config.get("name"), "controller": None, "scheduler": None,
        "createdAt": stamp(0), "heartbeatAt": stamp(0), "updatedAt": stamp(0), "bestLoss": None,
        "earlyStopJobRunning": False, "runCount": len(runs), "runCountExpected": None,
        "controllerRunName": None, "project": project_node(sweep.entity, sweep.project),
        "runs": {"edges": [{"node": run_node(run), "cursor": run.name} for run in runs]},
        "priorRuns": {"edges": []},
    }  # fmt: skip


@answers("SweepWithRuns", "GetSweepState", "SweepConfig", "Sweep", "GetSweep", "GetSweepLegacy")
def get_sweep(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    name = given.get("sweep") or given.get("name")
    sweep = store.sweeps.get(name or "")
    return {"project": {"sweep": sweep_node(sweep) if sweep else None}}


@answers("CreateAgent")
def create_agent(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    if given["sweep"] not in store.sweeps:
        raise NotFound(f"sweep {given['sweep']} not found")
    agent = Agent(new_id(), given["sweep"], given.get("host") or "")
    store.agents[agent.id] = agent
    return {"createAgent": {"agent": {"id": agent.id}}}


@answers("Heartbeat")
def heartbeat(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    agent = store.agents.get(given["id"])
    sweep = store.sweeps.get(agent.sweep) if agent else None
    if agent is None or sweep is None:
        raise NotFound("agent or sweep not found")
    agent.beats += 1
    store.give_up_preempted()
    running = {name for name, runs in json.loads(given.get("runState") or "{}").items() if runs}
    agent.running = running
    commands = sweep.commands(agent, running)
    return {"agentHeartbeat": {"agent": {"id": agent.id}, "commands": json.dumps(commands)}}
