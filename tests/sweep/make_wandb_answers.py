"""Write `wandb_answers.json` and `wandb_stops.json`: what W&B's published engine says.

Run it in an environment of its own, for `sweeps` would bring numpy below 2::

    python -m venv /tmp/sweeps-engine && /tmp/sweeps-engine/bin/pip install sweeps==0.3.0
    /tmp/sweeps-engine/bin/python tests/sweep/make_wandb_answers.py
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import sweeps
from sweeps.grid_search import grid_search_next_runs
from sweeps.hyperband_stopping import hyperband_stop_runs
from sweeps.params import HyperParameter
from sweeps.run import RunState, SweepRun

HERE = Path(__file__).parent
QUANTILES = [0.001, 0.0371, 0.2123, 0.4567, 0.5001, 0.7123, 0.9009, 0.9991]

DISTRIBUTIONS = [
    {"value": 3},
    {"values": ["a", "b", "c"]},
    {"values": ["a", "b", "c"], "probabilities": [0.1, 0.7, 0.2]},
    {"min": 3, "max": 17},
    {"min": -1.5, "max": 2.5},
    {"distribution": "uniform", "min": 0, "max": 10},
    {"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.25},
    {"distribution": "q_uniform", "min": 16, "max": 256, "q": 16},
    {"distribution": "q_uniform", "min": 0.2, "max": 5.3},
    {"distribution": "log_uniform", "min": -9.0, "max": -2.0},
    {"distribution": "log_uniform_values", "min": 1e-5, "max": 0.1},
    {"distribution": "q_log_uniform", "min": 0.0, "max": 6.0, "q": 2},
    {"distribution": "q_log_uniform_values", "min": 1, "max": 1000, "q": 8},
    {"distribution": "inv_log_uniform", "min": 2.0, "max": 9.0},
    {"distribution": "inv_log_uniform_values", "min": 1e-4, "max": 0.5},
    {"distribution": "normal", "mu": 2.0, "sigma": 0.5},
    {"distribution": "normal"},
    {"distribution": "q_normal", "mu": 10, "sigma": 4, "q": 2},
    {"distribution": "log_normal", "mu": -3.0, "sigma": 1.0},
    {"distribution": "q_log_normal", "mu": 3.0, "sigma": 0.7, "q": 0.5},
    {"distribution": "beta", "a": 2.0, "b": 5.0},
    {"distribution": "beta"},
    {"distribution": "q_beta", "a": 0.8, "b": 1.9, "q": 0.05},
]

GRIDS = [
    {"a": {"values": [1, 2, 3]}, "b": {"values": ["x", "y"]}, "c": {"value": 7}},
    {"a": {"min": 1, "max": 4}, "b": {"values": [0.1, None, True]}},
    {"a": {"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.1}},
    {"a": {"distribution": "q_uniform", "min": 0.2, "max": 5.3, "q": 0.7}},
    {"a": {"distribution": "q_uniform", "min": 16, "max": 160, "q": 16}, "b": {"min": 0, "max": 1}},
    {"a": {"values": [1, 1.0, 2]}, "b": {"values": [[1, 2], {"x": 1}]}},
]

SCHEMA = {
    "a top-level key of ours": {"method": "grid", "constraints": ["a < 1"]},
    "a field of ours": {"method": "grid", "parameters": {"a": {"values": [1], "when": "b"}}},
    "under controller": {
        "method": "grid",
        "controller": {
            "type": "cloud",
            "constraints": ["a < 1"],
            "conditions": {"b": "a == 1"},
            "replicates": "a",
        },
    },
    "a tie": {"method": "grid", "parameters": {"a": {"values": [1]}, "b": {"value": "${a}"}}},
}


RULES = [
    {"min_iter": 1, "eta": 2},
    {"min_iter": 2},
    {"min_iter": 3, "eta": 1.5, "strict": False},
    {"min_iter": 2, "eta": 2.7, "strict": True},
    {"max_iter": 27, "s": 2, "eta": 3},
    {"max_iter": 10, "s": 4, "eta": 2, "strict": False},
    {"max_iter": 5, "s": 2, "eta": 2, "strict": True},
]


def stops(rule: dict, goal: str, seed: int) -> dict:
    """Return made-up histories, and which of them the engine stops."""
    draw = random.Random(seed)
    histories = []
    for _ in range(draw.randint(1, 9)):
        level = draw.random()
        length = draw.randint(0, 14)
        histories.append(
            [round(level + draw.gauss(0, 0.3), draw.randint(0, 4)) for _ in range(length)]
        )
    config = {
        "method": "random",
        "metric": {"name": "m", "goal": goal},
        "early_terminate": {"type": "hyperband", **rule},
        "parameters": {"a": {"values": [1, 2]}},
    }
    runs = [
        SweepRun(name=str(i), state=RunState.running, history=[{"m": v} for v in history])
        for i, history in enumerate(histories)
    ]
    stopped = sorted(int(run.name) for run in hyperband_stop_runs(runs, config))
    info = runs[0].early_terminate_info
    return {
        "rule": rule,
        "goal": goal,
        "histories": histories,
        "bands": info["bands"][:6],
        "stopped": stopped,
    }


def plain(value: object) -> object:
    """Return numpy values as Python's."""
    return value.item() if hasattr(value, "item") else value


def grid_points(parameters: dict) -> list[dict]:
    """Return all points of a grid, as the engine hands them out."""
    config, runs = {"method": "grid", "parameters": parameters}, []
    while (run := grid_search_next_runs(runs, config, n=1)[0]) is not None:
        runs.append(run)
    return [{key: plain(spec["value"]) for key, spec in run.config.items()} for run in runs]


def violations(config: dict) -> list[str]:
    """Return what W&B's schema has against a sweep."""
    config = {"parameters": {"a": {"values": [1, 2]}}, **config}
    return sweeps.schema_violations_from_proposed_config(config)


def main() -> None:
    """Write both files of answers beside this one."""
    drawn = []
    for spec in DISTRIBUTIONS:
        parameter = HyperParameter("p", spec)
        drawn.append({"spec": spec, "values": [plain(parameter.ppf(u)) for u in QUANTILES]})
    answers = {
        "engine": f"sweeps {sweeps.__version__}",
        "quantiles": QUANTILES,
        "distributions": drawn,
        "grids": [{"parameters": grid, "points": grid_points(grid)} for grid in GRIDS],
        "schema": {name: violations(config) for name, config in SCHEMA.items()},
    }
    (HERE / "wandb_answers.json").write_text(json.dumps(answers, indent=1) + "\n")
    cases = [
        json.dumps(stops(rule, goal, 100 * i + j))
        for i, rule in enumerate(RULES)
        for goal in ("minimize", "maximize")
        for j in range(12)
    ]
    (HERE / "wandb_stops.json").write_text("[\n" + ",\n".join(cases) + "\n]\n")


if __name__ == "__main__":
    main()
