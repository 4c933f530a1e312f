"""Runs of W&B: the real client, and what it sent to the loopback server."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any, ClassVar

from tests.tracking.trackers.in_trial import children, until
from tests.tracking.trackers.shown import Entrance, Shown, Tracker, digest, flat
from tests.wandb.conftest import nothing_unknown, steps_are_whole
from tests.wandb.server import Server
from tests.wandb.store import Run


class Wandb(Tracker):
    """Runs of ``logger=wandb`` in a server of its own."""

    name = "wandb"
    models = ("best", "last")
    statuses: ClassVar = {
        "done": "finished",
        "pruned": "finished",
        "failed": "failed",
        "interrupted": "preempted",
    }
    away = "Weights & Biases: gone"
    catches_up = True

    def __init__(self) -> None:
        self.server = Server()

    def environment(self) -> dict[str, str]:
        """Return what leads a client to the server."""
        return {
            **self.server.environment(),
            "WANDB_MODE": "online",
            "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1",
            "WANDB__DISABLE_STATS": "true",
        }

    def entrance(self) -> Entrance:
        return enter, (self.environment(),)

    def breakage(self, trial: Path) -> Entrance:
        """Its client's service is killed, and the server's right to the run is gone."""
        return lose_client, ()

    def run(self, trial: Path) -> Run:
        """Return the one run of a trial."""
        record = json.loads((trial / "trial.json").read_text())
        runs = [run for run in self.server.store.runs.values() if run.name == record["wandb_id"]]
        (run,) = runs
        return run

    def read(self, trial: Path) -> Shown:
        run = self.run(trial)
        steps_are_whole(run)
        metrics: dict[str, list[tuple[int, float]]] = defaultdict(list)
        pictures: dict[str, int] = defaultdict(int)
        for row in run.history:
            for name, value in row.items():
                if isinstance(value, dict):
                    pictures[name] += _pictures(run, value)
                elif not name.startswith(("_", "time/", "trainer/")):
                    metrics[name].append((int(row["trainer/global_step"]), float(value)))
        return Shown(
            flat(run.settings), dict(metrics), dict(pictures), self._models(run), run.state
        )

    def _models(self, run: Run) -> dict[str, str]:
        store = self.server.store
        kept = [a for a in store.artifacts.values() if (a.run, a.kind) == (run.name, "model")]
        content = {a.id: store.blobs[f"artifact/{a.id}/model.safetensors"] for a in kept}
        names = ((alias, a.id) for a in kept for alias in a.aliases if alias != "latest")
        return {alias: digest(content[artifact]) for alias, artifact in names}

    def check_more(self, trial: Path) -> None:
        """The run was never another, and has the best value; the server had all answers."""
        run, record = self.run(trial), json.loads((trial / "trial.json").read_text())
        assert run.ends == [("preempted", 75), ("finished", 0)]
        assert run.summary["val/accuracy"] == record["metric"]["value"]
        assert record["uploaded"] is True

    def close(self) -> None:
        self.server.close()
        nothing_unknown(self.server, 0)


def _pictures(run: Run, value: dict[str, Any]) -> int:
    """Return how many pictures of a value the server has."""
    return sum(name in run.files for name in value.get("filenames", ()))


def enter(environment: dict[str, str]) -> None:
    """In a trial's process: the client is led to the server, and a kill waits for its rows."""
    from tests.tracking.trackers import in_trial

    os.environ.update(environment)
    in_trial.before_kill.append(wait_for_rows)


def wait_for_rows(trainer: Any) -> None:
    """Wait until the server has rows of steps that will be trained again."""
    logger = next(logger for logger in trainer.loggers if logger.name == "wandb")

    def sent() -> bool:
        with urllib.request.urlopen(os.environ["WANDB_BASE_URL"], timeout=20) as answer:
            runs = json.loads(answer.read())["runs"]
        summary = next(run[2] for path, run in runs.items() if path.endswith(logger.version))
        return int(summary.get("_step", -1)) >= logger._rows._next - 1

    until(sent)


def lose_client() -> None:
    """In a trial's process: the client's service is killed after the first step."""
    import model

    step = model.DualEncoder.training_step

    def kill_and_step(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == 3:
            for child in children("wandb-core"):
                os.kill(child, signal.SIGKILL)
        return step(self, batch, batch_idx)

    model.DualEncoder.training_step = kill_and_step  # type: ignore[method-assign]
