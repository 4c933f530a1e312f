"""The stream of a run: history, summary, events, console, heartbeats, its end."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.wandb.store import Run, Store


def receive(store: Store, run: Run, body: dict[str, Any]) -> dict[str, Any]:
    """Take what a client streams; answer whether the run is asked to stop."""
    with store.lock:
        run.seen = time.time()
        if run.state in ("pending", "crashed"):
            run.state = "running"
        for name, part in (body.get("files") or {}).items():
            _take(run, name, part)
        if body.get("preempting"):
            run.preempting = True
        if body.get("complete") is not None or body.get("exitcode") is not None:
            end(store, run, int(body.get("exitcode") or 0))
        return {"exitcode": None, "limits": {}, **({"stopped": True} if run.stop else {})}


def _take(run: Run, name: str, part: dict[str, Any]) -> None:
    lines, offset = part.get("content") or [], int(part.get("offset") or 0)
    if name == "wandb-summary.json":
        for line in lines:
            run.summary = json.loads(line)
        return
    stream = run.streams.setdefault(name, {})
    for number, line in enumerate(lines, offset):
        if number in stream and stream[number] != line:
            run.rewritten.append((name, number))
        stream[number] = line


def end(store: Store, run: Run, code: int) -> None:
    """Note how a run ended."""
    if code == 0:
        run.state = "finished"
    else:
        run.state = "preempted" if run.preempting else "failed"
    run.ends.append((run.state, code))
    run.times.append(("end", run.seen))
    sweep = store.sweeps.get(run.sweep or "")
    if sweep and run.state == "preempted":
        sweep.give_back(run)
    run.preempting = False
