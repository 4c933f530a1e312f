"""``training.continue_from``: a trial that begins with the whole state that another ended in.

The parent's last checkpoint, its best weights and its ``log.json`` are put into the new trial's
folder, the checkpoint last. From then on the new trial is as one that resumes: after a kill it goes
on from a checkpoint of its own, and the parent may be gone.

Example::

    parent = find_parent(settings)                 # refuses what makes no sense
    hand_down(parent, folder, settings)
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.atomic import atomic_path
from mlmodeldev.errors import UsageError
from mlmodeldev.lease import owned
from mlmodeldev.settings.renamed import current_configuration
from mlmodeldev.trial.checkpoint import newest_whole
from mlmodeldev.trial.configuration import first_difference
from mlmodeldev.trial.named import trial_folder
from mlmodeldev.trial.place import folder_of
from mlmodeldev.trial.record import VALIDATIONS, read_record

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.trial.folder import TrialFolder

ENDED = ("done", "pruned")

_SCHEDULE = tuple(f"optimizer.{n}" for n in ("schedule", "warmup_fraction", "min_lr_fraction"))
"""Settings of the optimizer that no checkpoint holds: what is asked for now counts."""


@dataclass(frozen=True)
class Parent:
    """A trial that has ended.

    Attributes:
        folder: the trial's.
        record: its ``trial.json``.
        settings: its ``config.yaml``, in today's words.
        checkpoint: its last one.
    """

    folder: Path
    record: dict[str, Any]
    settings: dict[str, Any]
    checkpoint: Path

    @property
    def step(self) -> int:
        """Optimizer steps that it has done."""
        return int(self.checkpoint.stem.partition("-")[2])

    @property
    def epoch(self) -> int:
        """Epochs that it has done."""
        return int(self.record.get("epoch", 0))

    def lineage(self) -> dict[str, Any]:
        """Return what a child's record says of it."""
        return {
            "how": "continue_from",
            "sweep": self.folder.parent.name,
            "trial": self.folder.name,
            "folder": str(self.folder),
            "file": self.checkpoint.name,
            "sha256": file_digest(self.checkpoint),
            "epoch": self.epoch,
            "step": self.step,
            "metric": self.record.get("metric"),
            "sha": self.record.get("sha"),
        }


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def has_changed(lineage: Mapping[str, Any]) -> bool:
    """Return whether what a record names as its parent holds something else by now.

    What is gone, or is no single file, has not changed as far as can be seen.
    """
    file = Path(lineage["file"])
    if lineage["how"] == "continue_from":
        file = Path(lineage["folder"]) / "checkpoints" / file
    return file.is_file() and file_digest(file) != lineage.get("sha256")


def find_parent(settings: Settings) -> Parent:
    """Return the trial that ``training.continue_from`` names.

    Raises:
        UsageError: there is none, it has not ended, it has gone as far as is asked for, or its
            model or optimizer are others.
    """
    name = settings.training.continue_from
    assert name is not None
    given = f"training.continue_from={name}"
    try:
        folder = trial_folder(name, Path(settings.artefacts.runs_dir).expanduser())
    except UsageError as error:
        raise UsageError(f"training.continue_from={error}") from None
    if folder.resolve() == folder_of(settings).resolve():
        raise UsageError(f"{given}: is this trial itself; give the new one artefacts.trial=NAME")
    record = read_record(folder)
    _check_state(given, record)
    stored = stored_settings(folder, settings.model)
    _check_kind(given, stored, settings.model_dump())
    checkpoint = newest_whole(folder / "checkpoints")
    if checkpoint is None:
        raise UsageError(
            f"{given}: that trial has no checkpoint any more; training.init_from={name} takes its"
            " weights"
        )
    parent = Parent(folder, record, stored, checkpoint)
    _check_room(parent, settings)
    return parent


def _check_state(given: str, record: Mapping[str, Any]) -> None:
    state = record.get("state", "pending")
    if state in ENDED:
        return
    if owned(record):
        raise UsageError(f"{given}: that trial is running; wait for its end")
    state = "interrupted" if state == "running" else state
    raise UsageError(
        f"{given}: that trial is {state}; only one that has ended can be continued (started again"
        " it goes on by itself)"
    )


def stored_settings(folder: Path, model: Collection[str] = ()) -> dict[str, Any]:
    """Return the settings that a trial was trained with, by today's names.

    Args:
        folder: the trial's.
        model: arguments of the model as it is today.

    Raises:
        UsageError: its ``config.yaml`` can't be read.
    """
    import yaml

    file = folder / "config.yaml"
    try:
        stored = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{file}: can't be read ({str(error).splitlines()[0]})") from None
    if not isinstance(stored, dict):
        raise UsageError(f"{file}: is no configuration")
    return current_configuration(stored, model)


def _check_kind(given: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse another model or optimizer: the state is of their making."""
    was, now = ({n: s.get(n) for n in ("model", "optimizer")} for s in (stored, wanted))
    difference = first_difference(was, now, ignored=_SCHEDULE)
    if difference:
        raise UsageError(
            f"{given}: that trial has {difference}; a trial that goes on keeps model and optimizer"
            " (training.init_from takes the weights alone)"
        )


def _check_room(parent: Parent, settings: Settings) -> None:
    """Refuse a trial with nothing left to train."""
    done = {"max_epochs": parent.epoch, "max_steps": parent.step}
    for name, count in done.items():
        limit = getattr(settings.training, name)
        if 0 <= limit <= count:
            raise UsageError(
                f"training.{name}={limit}: must be more than the {count} that {parent.folder} has"
                " done: training.continue_from goes on from there"
            )


def hand_down(parent: Parent, folder: TrialFolder, settings: Settings) -> None:
    """Put what the parent ended with into the new trial's folder, and note it in its record.

    The best weights so far, and the log that says how good they were, come along where both trials
    have the same data; with others the judging begins anew.

    Raises:
        UsageError: the disk is full, or a file can't be read.
    """
    same_data = not first_difference(parent.settings.get("data"), settings.data)
    history = ("checkpoints/best.ckpt", "log.json", VALIDATIONS) if same_data else ()
    for name in (*history, "cka/start.safetensors"):
        if (parent.folder / name).is_file():
            _copy(parent.folder / name, folder.path / name)
    data = {"data": parent.record["data"]} if same_data and "data" in parent.record else {}
    folder.update(parent=parent.lineage(), **data)
    _copy_state(parent, folder.path / "checkpoints" / parent.checkpoint.name, same_data)


def _copy(file: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(file, temporary)


def _copy_state(parent: Parent, target: Path, same_data: bool) -> None:
    """Write the parent's checkpoint without what ended its training."""
    from mlmodeldev.training.checkpoint_io import AtomicCheckpointIO

    saved = AtomicCheckpointIO().load_checkpoint(parent.checkpoint)
    states: dict[str, Any] = saved.get("callbacks") or {}
    recovery = states.get("Recovery", {})
    stopped, recovery["stopping"] = recovery.get("stopping"), False
    pruning: dict[str, Any] = states.get("Pruning", {})
    pruning |= {"reason": None} if pruning else {}
    patience = [key for key in states if key.startswith("EarlyStopping")]
    if stopped:  # its patience has ended; the best value stays what is to be beaten
        for key in patience:
            states[key] |= {"wait_count": 0, "stopped_epoch": 0}
    if not same_data:
        recovery |= {"best_value": None, "best_epoch": 0, "best_step": 0}
        pruning |= {"values": []} if pruning else {}
        for key in patience:
            del states[key]
    AtomicCheckpointIO().save_checkpoint(saved, target)
