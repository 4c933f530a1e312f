"""Write `corpus/points.json`: the points that W&B's published engine gives for each shape.

Run it in an environment of its own, for `sweeps` would bring numpy below 2::

    python -m venv /tmp/sweeps-engine && /tmp/sweeps-engine/bin/pip install sweeps==0.3.0
    /tmp/sweeps-engine/bin/python tests/sweep/make_corpus_points.py
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy
import sweeps
import yaml

CORPUS = Path(__file__).parent / "corpus"


def plain(value: Any) -> Any:
    """Return numpy values as Python's, nested parameters as mappings of their values."""
    if isinstance(value, dict):
        if set(value) == {"value"}:
            return plain(value["value"])
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value.item() if hasattr(value, "item") else value


def points(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the engine hands out until it or ``run_cap`` ends."""
    engine = {key: config[key] for key in ("method", "parameters", "metric") if key in config}
    cap, runs = config.get("run_cap", 1000), []
    while len(runs) < cap:
        run = sweeps.next_run(engine, runs)
        if run is None:
            break
        run.state = sweeps.RunState.finished
        if "metric" in config:
            run.summary_metrics = {config["metric"]["name"]: 1.0}
        runs.append(run)
    return [{key: plain(spec["value"]) for key, spec in run.config.items()} for run in runs]


def main() -> None:
    """Write the file."""
    numpy.random.seed(0)
    random.seed(0)
    answers = {}
    for config in yaml.safe_load_all((CORPUS / "sweeps.yaml").read_text()):
        refused = sweeps.schema_violations_from_proposed_config(config)
        assert not refused, (config["name"], refused)
        answers[config["name"]] = points(config)
    text = json.dumps({"engine": f"sweeps {sweeps.__version__}", "points": answers}, indent=1)
    (CORPUS / "points.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
