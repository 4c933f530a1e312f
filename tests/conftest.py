"""Fixtures that several rooms share: trials run in processes that are born in a moment.

A server process imports torch and Lightning once; each trial is a fork of it (0.1 s instead of
6 s), so tests can kill trials for real, again and again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

os.environ["WANDB_MODE"] = "offline"
for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
    os.environ.pop(name, None)

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch", "pytorch_lightning", "trainer", "model", "datamodule"])


@dataclass
class Ended:
    """How a trial's process ended."""

    code: int
    folder: Path

    @property
    def record(self) -> dict[str, Any]:
        return json.loads((self.folder / "trial.json").read_text())

    @property
    def log(self) -> list[dict[str, Any]]:
        return json.loads((self.folder / "log.json").read_text())

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows of metrics.csv without the columns that tell of time."""
        import csv

        with (self.folder / "metrics.csv").open() as file:
            rows = [
                {k: v for k, v in row.items() if v and not k.startswith("time/")}
                for row in csv.DictReader(file)
            ]
        return [row for row in rows if set(row) - {"epoch", "step"}]

    @property
    def checkpoint(self) -> Path:
        """The newest recovery checkpoint."""
        return max((self.folder / "checkpoints").glob("step-*.ckpt"))


class Trials:
    """Runs trials of the bundled data in a folder of the test's own."""

    def __init__(self, runs: Path, data: Path) -> None:
        self.runs, self.data = runs, data

    def run(
        self,
        *overrides: str,
        kill_at: int | None = None,
        signal_at: tuple[int, int] | None = None,
        during: str = "training_step",
        name: str = "trial",
    ) -> Ended:
        """Run a trial to its end.

        Args:
            overrides: as on the command line of trainer.py.
            kill_at: number of the call of ``during`` in which the process dies by SIGKILL.
            signal_at: a signal, and the number of the call in which it arrives.
            during: a method of the model.
            name: of the trial's folder.
        """
        asked = [
            f"artefacts.runs_dir={self.runs}",
            f"artefacts.data_dir={self.data}",
            f"artefacts.trial={name}",
            *overrides,
        ]
        number, call = signal_at or (signal.SIGKILL, kill_at)
        process = _context.Process(target=_run_trial, args=(asked, int(number), call, during))
        process.start()
        process.join(240)
        if process.is_alive():
            process.kill()
            raise AssertionError("the trial hangs")
        assert process.exitcode is not None
        return Ended(process.exitcode, self.runs / "single" / name)


def _run_trial(overrides: list[str], number: int, call: int | None, method: str) -> None:
    import torch
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    import model
    import trainer
    from mlmodeldev.settings import validate
    from mlmodeldev.settings.cli import TrialInterrupted

    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        container = OmegaConf.to_container(compose("config", overrides=overrides), resolve=True)
    settings = validate(container, ROOT)  # type: ignore[arg-type]
    for kind in (model.DualEncoder, model.TextClassifier):
        if call is not None:
            setattr(kind, method, _dying(getattr(kind, method), number, call))
    try:
        trainer.train(settings)
    except TrialInterrupted:
        os._exit(75)


def _dying(function: Any, number: int, call: int) -> Any:
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), number)
        return function(*args, **kwargs)

    return wrapped


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def trials(tmp_path: Path, data_dir: Path) -> Trials:
    return Trials(tmp_path / "runs", data_dir)
