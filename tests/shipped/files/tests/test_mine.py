"""The project trains, resumes bit for bit after an interruption, and exports: ``pytest tests``.

Yours to change: `SMALL` makes a trial of seconds, whatever model.py and datamodule.py hold.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "logger=csv",
    "training.accelerator=cpu",
    "training.max_epochs=2",
    "training.limit_train_batches=4",
    "training.limit_val_batches=2",
    "training.checkpoint_every_n_steps=2",
    "callbacks.cka.enabled=false",
)
INTERRUPTED = 75
# Runs trainer.py, and at the start of a batch sends it the signal that a cluster sends.
AT_BATCH = """
import os, runpy, signal, sys
from pytorch_lightning import Callback, Trainer

class Warn(Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

def fit(trainer, *args, _fit=Trainer.fit, **kwargs):
    trainer.callbacks.append(Warn())
    return _fit(trainer, *args, **kwargs)

Trainer.fit = fit
sys.path[0] = os.getcwd()
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start(runs: Path, name: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a small trial in a folder of its own; return how it ended."""
    given = [f"artefacts.runs_dir={runs}", f"artefacts.trial={name}", *SMALL]
    return subprocess.run(
        [sys.executable, *(command or ["trainer.py"]), *given],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def weights(trial: Path) -> dict[str, Any]:
    """Return what the newest checkpoint of a trial holds of the model."""
    newest = max((trial / "checkpoints").glob("step-*.ckpt"))
    state: dict[str, Any] = torch.load(newest, weights_only=False)["state_dict"]
    return state


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for trials, with one that nothing has disturbed."""
    runs = tmp_path_factory.mktemp("runs")
    done = start(runs, "whole")
    assert done.returncode == 0, done.stderr
    return runs


def test_it_trains(runs: Path) -> None:
    record = json.loads((runs / "single" / "whole" / "trial.json").read_text())
    assert record["state"] == "done"
    assert record["metric"]["value"] is not None


def test_it_resumes_with_the_same_weights(runs: Path) -> None:
    program = "import sys; sys.argv = ['trainer.py', *sys.argv[1:]]" + AT_BATCH
    broken = start(runs, "broken", "-c", program)
    assert broken.returncode == INTERRUPTED, broken.stderr
    again = start(runs, "broken")
    assert again.returncode == 0, again.stderr
    whole, resumed = weights(runs / "single" / "whole"), weights(runs / "single" / "broken")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_it_exports_what_can_be_loaded(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra.utils import get_class

    monkeypatch.syspath_prepend(str(ROOT))
    folder = runs / "single" / "whole" / "last"
    state = json.loads((folder / "training_state.json").read_text())
    kind: Any = get_class(state["settings"]["model"]["_target_"])
    loaded = kind.load(folder, state["model_arguments"]).state_dict()
    trained = weights(runs / "single" / "whole")
    assert loaded
    assert all(torch.equal(loaded[name].cpu(), trained[name].cpu()) for name in loaded)
