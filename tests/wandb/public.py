"""What `wandb.Api` asks: runs, histories, sweeps, files."""

from __future__ import annotations

import json
from typing import Any

from tests.wandb.operations import answers, opaque, project_node, run_node
from tests.wandb.store import ENTITY, Run, Store

LAST = {"endCursor": None, "hasNextPage": False}
"""No further page."""


@answers("Run", "GetRun", "LightRun", "RunHistoryKeys")
def one_run(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    name = given.get("name") or given.get("run") or ""
    run = store.find(given.get("entity"), given.get("project"), name)
    return {"project": {"internalId": "1", "run": run_node(run) if run else None}}


@answers("Runs", "GetRuns", "LightRuns")
def many_runs(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    entity, project = given.get("entity") or ENTITY, given["project"]
    matches = [r for r in store.of_project(project) if _matches(r, given.get("filters"))]
    edges = [{"node": run_node(run), "cursor": run.name} for run in matches]
    runs = {"edges": edges, "pageInfo": LAST, "totalCount": len(edges)}
    return {"project": {**project_node(entity, project), "runCount": len(edges), "runs": runs}}


def _matches(run: Run, filters: str | None) -> bool:
    requested = json.loads(filters) if filters else {}
    return requested.get("sweep", run.sweep) == run.sweep


@answers("FullHistory", "RunFullHistory", "HistoryPage")
def history(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    run = store.find(given.get("entity"), given.get("project"), given.get("run") or given["name"])
    low, high = int(given.get("minStep") or 0), int(given.get("maxStep") or 10**12)
    rows = [json.dumps(row) for row in run.history if low <= row["_step"] < high] if run else []
    return {"project": {"run": {"history": rows}}}


@answers("RunSampledHistory", "SampledHistoryPage")
def sampled(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    run = store.find(given.get("entity"), given.get("project"), given.get("run") or given["name"])
    history = run.history if run else []
    specs = given.get("specs") or [given["spec"]]
    requested = [json.loads(spec).get("keys") or [] for spec in specs]
    rows = [[row for row in history if all(key in row for key in keys)] for keys in requested]
    return {"project": {"run": {"sampledHistory": rows}}}


@answers("RunFiles", "GetRunFiles")
def files(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    run = store.find(given.get("entity"), given.get("project"), given.get("run") or given["name"])
    place = f"{store.url}/storage/run/{run.path if run else ''}"
    edges = [
        {"node": {"id": opaque("File", name), "name": name, "sizeBytes": len(body), "md5": "",
                  "url": f"{place}/{name}", "directUrl": f"{place}/{name}"}}
        for name, body in (run.files if run else {}).items()
    ]  # fmt: skip
    matches = {"edges": edges, "pageInfo": LAST}
    return {"project": {"run": {"fileCount": len(edges), "files": matches, "id": "1"}}}


@answers("RunParquetHistory")
def parquet(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    """All of a run's rows are "live": not yet written into files."""
    run = store.find(given.get("entity"), given.get("project"), given["runName"])
    live = run.history if run else []
    return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": live}}}}
