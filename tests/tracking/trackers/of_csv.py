"""``metrics.csv`` and the folder of a trial: what every trial has, whichever tracker is chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import yaml

from tests.tracking.trackers.shown import Shown, Tracker, csv_series, flat, weights


class Csv(Tracker):
    """The trial's own folder."""

    name = "csv"
    models = ("best", "last")
    statuses: ClassVar = {name: name for name in ("done", "pruned", "failed", "interrupted")}

    def read(self, trial: Path) -> Shown:
        heat_maps = [file.parent.name for file in trial.glob("cka/*/epoch-*.png")]
        return Shown(
            settings=flat(yaml.safe_load((trial / "config.yaml").read_text())),
            metrics=csv_series(trial / "metrics.csv"),
            pictures={f"cka/{name}/heatmap": heat_maps.count(name) for name in heat_maps},
            models=weights(trial),
            status=json.loads((trial / "trial.json").read_text())["state"],
        )
