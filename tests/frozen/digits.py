"""One small trial of the digits: its rows, its weights, its files; and one that was interrupted."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from tests.frozen import trained
from tests.frozen.commands import FROZEN, Place

FILE = FROZEN / "digits.json"
COMMAND = (
    f"python trainer.py {trained.SMALL} model.width=16 model.dropout=0.1 optimizer.lr=0.01"
    " training.seed=3"
)
UNSETTLED = (".record.lock", "changes.diff")
"""Files that are there or not: a lock, and how the code differs from its commit."""


def train(place: Place, *more: str) -> Path:
    """Run the trial to its end; return the folder that is printed last."""
    done = place.run(" ".join([COMMAND, *more]))
    assert done.status == 0, done.err
    return Path(done.out.splitlines()[-1].replace("@HERE@", str(place.folder)))


def train_disturbed(place: Place) -> Path:
    """Run it under another name, interrupted after a checkpoint, and go on with it."""
    folder = place.folder / "runs/single/disturbed"
    process = place.start(f"{COMMAND} artefacts.trial=disturbed")
    trained.end_after_a_checkpoint(process, folder, signal.SIGTERM)
    assert process.returncode == trained.INTERRUPTED, process.communicate()
    assert trained.record(folder)["state"] == "interrupted"
    return train(place, "artefacts.trial=disturbed")


def facts(folder: Path) -> dict[str, Any]:
    """Return what is compared of a trial."""
    state = json.loads((folder / "last/training_state.json").read_text())
    config = json.loads((folder / "last/config.json").read_text())
    files = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
    return {
        "id": folder.name,
        "rows": trained.rows(folder),
        "log": trained.log(folder),
        "cka": trained.alignment(folder),
        "record": sorted(trained.record(folder)),
        "settings": sorted(state["settings"]),
        "training_state": sorted(state),
        "config": {k: v for k, v in config.items() if k != "transformers_version"},
        "files": sorted(name for name in files if name not in UNSETTLED),
        "weights": trained.weights(folder / "last"),
        "best_weights": trained.weights(folder / "best"),
    }


def record(folder: Path) -> None:
    """Write the file anew."""
    result = {"machine": trained.machine(), "command": COMMAND, **facts(train(Place(folder)))}
    FILE.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
