"""Sweeps as a server runs them: which configuration next, what an agent is told.

Grid and random follow the order of the file; bayes is a stand-in that draws near the best so far;
hyperband compares at ``min_iter * eta**k`` reports of the metric and keeps the best ``1/eta``.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from typing import Any

import yaml

from tests.wandb.store import Agent, Run, Store, new_id


class Sweep:
    """One sweep.

    Args:
        store: where its runs are.
        entity, project: whose it is.
        text: its configuration, YAML.
    """

    def __init__(self, store: Store, entity: str, project: str, text: str) -> None:
        self.store, self.entity, self.project = store, entity, project
        self.name, self.state = new_id(), "PENDING"
        self.runs: list[Run] = []
        self.given: dict[str, dict[str, Any]] = {}
        self.preempted: list[str] = []
        self.draw = random.Random(0)
        self.set_config(text)

    def set_config(self, text: str) -> None:
        """Take a configuration."""
        self.text, self.config = text, yaml.safe_load(text)
        self._grid = self._points() if self.config["method"] == "grid" else iter(())

    # --- what an agent is told

    def commands(self, agent: Agent, running: set[str]) -> list[dict[str, Any]]:
        """Answer a heartbeat."""
        if self.state == "CANCELED":
            return [{"type": "exit"}]
        if running:
            return [
                {"type": "stop", "run_id": run.name}
                for run in self.runs
                if run.name in running and self._stops(run)
            ]
        if self.state == "PAUSED":
            return []
        if self.state == "FINISHED":
            return [{"type": "exit"}]
        return [self._next() or {"type": "exit"}]

    def _next(self) -> dict[str, Any] | None:
        if self.preempted:
            name = self.preempted.pop(0)
            return self._command("resume", name)
        cap = self.config.get("run_cap")
        values = None if cap and len(self.runs) >= cap else self._suggest()
        if values is None:
            self.state = "FINISHED"
            return None
        self.state = "RUNNING"
        name = new_id()
        run = self.store.run(self.entity, self.project, name)
        run.sweep = self.name
        self.runs.append(run)
        self.given[name] = values
        return self._command("run", name)

    def _command(self, kind: str, name: str) -> dict[str, Any]:
        arguments = {key: {"value": value} for key, value in self.given[name].items()}
        if kind == "resume":  # with all that its client has said of itself
            run = self.store.run(self.entity, self.project, name)
            arguments |= {"_wandb": {"value": {"t": {"1": [1, 5]}}}, **run.config}
        program = self.config.get("program")
        return {"type": kind, "run_id": name, "args": arguments, "program": program}

    def give_back(self, run: Run) -> None:
        """Put a preempted run in the queue."""
        if run.name not in self.preempted:
            self.preempted.append(run.name)

    # --- search

    def _suggest(self) -> dict[str, Any] | None:
        if self.config["method"] == "grid":
            return next(self._grid, None)
        best = self._best() if self.config["method"] == "bayes" else None
        drawn = {
            key: self._draw(spec, best.get(key) if best else None)
            for key, spec in self.config["parameters"].items()
        }
        return json.loads(json.dumps(drawn))

    def _points(self) -> Any:
        specs = self.config["parameters"]
        lists = [spec["values"] if "values" in spec else [spec["value"]] for spec in specs.values()]
        for point in itertools.product(*lists):
            yield dict(zip(specs, point, strict=True))

    def _draw(self, spec: dict[str, Any], near: Any) -> Any:
        if "value" in spec:
            return spec["value"]
        if "values" in spec:
            return self.draw.choice(spec["values"])
        low, high = spec["min"], spec["max"]
        if "log" in spec.get("distribution", ""):
            value = math.exp(self.draw.uniform(math.log(low), math.log(high)))
        else:
            value = self.draw.uniform(low, high)
        value = value if near is None else (value + near) / 2
        if "q" in spec:
            value = round(value / spec["q"]) * spec["q"]
        return round(value) if spec.get("distribution") == "int_uniform" else value

    def _best(self) -> dict[str, Any] | None:
        metric = self.config["metric"]["name"]
        sign = 1 if self.config["metric"].get("goal") == "maximize" else -1
        scored = [r for r in self.runs if isinstance(r.summary.get(metric), int | float)]
        best = max(scored, key=lambda r: sign * r.summary[metric], default=None)
        return self.given[best.name] if best else None

    # --- early termination

    def _stops(self, run: Run) -> bool:
        rule = self.config.get("early_terminate")
        if run.stop or not rule:
            return run.stop
        metric = self.config["metric"]["name"]
        sign = 1 if self.config["metric"].get("goal") == "maximize" else -1
        eta, mine = int(rule.get("eta", 3)), run.values(metric)
        at = int(rule["min_iter"])
        while at <= len(mine):
            others = sorted((sign * r.values(metric)[at - 1] for r in self.runs
                             if len(r.values(metric)) >= at), reverse=True)  # fmt: skip
            kept = max(1, math.ceil(len(others) / eta))
            if len(others) > 1 and sign * mine[at - 1] < others[kept - 1]:
                run.stop = True
            at *= eta
        return run.stop
