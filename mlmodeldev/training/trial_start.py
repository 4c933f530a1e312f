"""What a start does with the trial's folder: begins, goes on, begins anew, or finds all done.

Example::

    path, start = open_trial(settings)
    start["done"], start["checkpoint"]      # nothing left to do; where to go on from
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.atomic import remove_at_once, write_text, writing_to
from mlmodeldev.callbacks.onnx_packages import check_packages
from mlmodeldev.errors import UsageError
from mlmodeldev.project import project_root
from mlmodeldev.tracking.clearml_sync import report_to_clearml
from mlmodeldev.tracking.metadata import BY_HAND, CHANGES
from mlmodeldev.tracking.mlflow_sync import report_to_mlflow
from mlmodeldev.tracking.packages import refuse_missing
from mlmodeldev.tracking.upload import report
from mlmodeldev.tracking.wandb_stop import STOP_NOTE
from mlmodeldev.training.initial_weights import check_source
from mlmodeldev.training.parent import Parent, find_parent, hand_down, has_changed
from mlmodeldev.trial.checkpoint import newest_whole, recovery_checkpoints
from mlmodeldev.trial.code import changed_files, code_digests
from mlmodeldev.trial.collected import NOTE, refuse_without_checkpoints
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.place import folder_of
from mlmodeldev.trial.provenance import changes, provenance
from mlmodeldev.trial.record import read_record
from mlmodeldev.trial.software import software, torch_difference
from mlmodeldev.trial.source import keep_source

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings

_ENDED = ("done", "pruned")
_OF_ITS_CODE = ("sha", "dirty", "source", "code")


def open_trial(settings: Settings) -> tuple[Path, dict[str, Any]]:
    """Claim the folder, unless all is done; return it and what all processes need of it.

    Raises:
        UsageError: the folder can't be used, its trial began with other code, there is nothing
            to begin from as ``training.continue_from`` and ``init_from`` name it, or a package is
            missing that a tracker, or the end, needs.
    """
    check_packages(settings)
    refuse_missing(settings)
    _forget_settings_of_no_step(settings)
    parent = _parent(settings)
    folder = TrialFolder.open(settings)
    record = folder.read()
    changed = changed_files(record, project_root())
    ended = _ended(record, settings)
    if changed and _begins_anew(ended, folder.path, settings):
        aside = folder.begin_anew(settings)
        record, ended = {}, False
        print(f"{_listed(changed)}: new code, so this trial begins anew; the former is {aside}")
    elif ended and not _lacks_exports(folder.path, settings):
        return folder.path, _done_already(folder, record, settings, changed)
    goes_on = _has_checkpoint(folder.path)
    if changed and goes_on:
        _check_policy(folder.path, changed, settings)
    if record.get("state") in (*_ENDED, "failed"):
        (folder.path / STOP_NOTE).unlink(missing_ok=True)  # it was for the attempt before
    if not goes_on:
        refuse_without_checkpoints(folder.path, record)
    _claim(folder, record)
    _record_code(folder, record, settings, bool(changed and goes_on))
    start = {"attempt": folder.attempt, "token": folder.token, "best": best_value(record)}
    return folder.path, {**start, **_start_from(folder, record, settings, parent)}


def _parent(settings: Settings) -> Parent | None:
    """Return the trial to begin from, None where this one has a checkpoint of its own or no parent.

    It is looked for before there is a folder: what is refused leaves none.
    """
    if settings.training.continue_from is None and settings.training.init_from is None:
        return None
    own = folder_of(settings)
    with writing_to(own):
        goes_on = _has_checkpoint(own) or read_record(own).get("state") in _ENDED
    if goes_on and not settings.artefacts.fresh:
        return None
    check_source(settings)
    return find_parent(settings) if settings.training.continue_from else None


def _claim(folder: TrialFolder, record: Mapping[str, Any]) -> None:
    """Claim the folder; give it back if its checkpoints were dropped since its record was read."""
    claimed = folder.claim()
    if claimed.get(NOTE) != record.get(NOTE):
        try:
            refuse_without_checkpoints(folder.path, claimed)
        except UsageError:
            folder.finish(record.get("state", "done"), record.get("reason"))
            raise


def _forget_settings_of_no_step(settings: Settings) -> None:
    """Let a named trial that failed before its first step begin with other settings.

    Such as one that the rehearsal has refused: the next command corrects what it has named.
    """
    artefacts = settings.artefacts
    if artefacts.trial is None:
        return
    path = Path(artefacts.runs_dir).expanduser().absolute() / artefacts.sweep / artefacts.trial
    kept = any(path.glob("checkpoints/*.ckpt")) or (path / "metrics.csv").exists()
    if not kept and read_record(path).get("state") == "failed":
        (path / "config.yaml").unlink(missing_ok=True)


def forget(folder: TrialFolder, settings: Settings) -> None:
    """Remove the folder of a first attempt by hand that was refused; a sweep keeps its failures."""
    kept = any(folder.path.glob("checkpoints/*")) or (folder.path / "metrics.csv").exists()
    if folder.attempt == 1 and not kept and settings.artefacts.sweep == BY_HAND:
        with contextlib.suppress(OSError):
            remove_at_once(folder.path)


def best_value(record: Mapping[str, Any]) -> float | None:
    """Return a trial's best value of the monitored metric so far."""
    value = (record.get("metric") or {}).get("value")
    return None if value is None else float(value)


def _done_already(
    folder: TrialFolder, record: dict[str, Any], settings: Settings, changed: Sequence[str]
) -> dict[str, Any]:
    """Say that there is nothing to do, and hand the result to the trackers that lack it."""
    note = f"; {_listed(changed)} has changed since" if changed else ""
    if "code" not in record and record.get("source") != provenance()["source"]:
        note = "; model.py, datamodule.py or trainer.py has changed since"
    if record.get("parent") and has_changed(record["parent"]):
        note += "; what it began with has changed since"
    state = record["state"]
    print(f"this trial is {state} already{note} (artefacts.fresh=true trains it again)")
    report(settings, folder)
    report_to_mlflow(settings, folder)
    report_to_clearml(settings, folder)
    start = {"attempt": 0, "token": "", "best": best_value(record)}
    return {**start, "done": True, "state": state}


def _start_from(
    folder: TrialFolder, record: Mapping[str, Any], settings: Settings, parent: Parent | None
) -> dict[str, Any]:
    """Return the checkpoint to go on from, the steps in it, and whether they are a parent's."""
    checkpoints = folder.path / "checkpoints"
    checkpoint, inherits = newest_whole(checkpoints), False
    if checkpoint is None and settings.training.continue_from:
        parent = parent or find_parent(settings)
        print(f"continuing {parent.folder}; epochs done: {parent.epoch}")
        hand_down(parent, folder, settings)
        checkpoint, inherits = newest_whole(checkpoints), True
    step = 0
    if checkpoint:
        step = int(checkpoint.stem.partition("-")[2])
        print(f"going on from step {step} (attempt {folder.attempt})")
        if difference := torch_difference(parent.record if inherits and parent else record):
            print(f"warning: {difference}", file=sys.stderr)
    return {"checkpoint": checkpoint, "step": step, "inherits": inherits}


# --- what is left to do


def _ended(record: Mapping[str, Any], settings: Settings) -> bool:
    """Whether the trial has ended and gone as far as is asked for now."""
    if record.get("state") not in _ENDED:
        return False
    if record.get("stopped") or record.get("state") == "pruned":
        return True
    steps = settings.training.max_steps
    far_enough = int(record.get("epoch", 0)) >= settings.training.max_epochs
    return far_enough or (0 <= steps <= int(record.get("step", 0)))


def _lacks_exports(folder: Path, settings: Settings) -> bool:
    """Whether best/ or last/ is wanted, is not there, and can still be written."""
    if not settings.callbacks.export.enabled or not _has_checkpoint(folder):
        return False
    names = ["last", *(["best"] if (folder / "checkpoints" / "best.ckpt").is_file() else [])]
    return not all((folder / name / "training_state.json").is_file() for name in names)


def _has_checkpoint(folder: Path) -> bool:
    return bool(recovery_checkpoints(folder / "checkpoints"))


# --- changed code


def _begins_anew(ended: bool, folder: Path, settings: Settings) -> bool:
    """Whether a trial of other code gives way to one of the present code.

    Who edits and starts again by hand wants to see what comes of the edit. A sweep's result is
    compared with others of the same code, and no edit makes it go away.
    """
    policy = settings.artefacts.changed_code
    if ended:
        return settings.artefacts.sweep == BY_HAND and policy != "continue"
    return policy == "fresh" and _has_checkpoint(folder)


def _check_policy(folder: Path, changed: Sequence[str], settings: Settings) -> None:
    """Say that a trial goes on with other code, or refuse to.

    Raises:
        UsageError: ``artefacts.changed_code=refuse``.
    """
    text = f"{folder}: {_listed(changed)} has changed since this trial began"
    if settings.artefacts.changed_code != "continue":
        raise UsageError(
            f"{text}; go on with the new code by artefacts.changed_code=continue, or begin anew by"
            " artefacts.changed_code=fresh"
        )
    print(f"warning: {text}; going on, as artefacts.changed_code=continue", file=sys.stderr)


def _record_code(
    folder: TrialFolder, before: Mapping[str, Any], settings: Settings, keep_former: bool
) -> None:
    """Write this attempt's code into the record, and how it differs from its commit beside it."""
    root = project_root()
    code = code_digests(settings.model_dump(), root)
    former = {"attempt": before.get("attempts"), **{k: before.get(k) for k in _OF_ITS_CODE}}
    earlier = {"earlier_code": [*before.get("earlier_code", ()), former]} if keep_former else {}
    folder.update(
        **provenance(root, code),
        **earlier,
        code=code,
        software=software(),
        overrides=settings.overrides,
    )
    _keep_changes(folder.path, changes(code=code), before.get("attempts"))
    keep_source(folder.path, root, code, settings.model_dump(), before.get("attempts"))


def _keep_changes(folder: Path, text: str, former: int | None) -> None:
    """Write how the code differs from its commit; what a former attempt wrote keeps its number."""
    file = folder / CHANGES
    if former and file.is_file() and file.read_bytes() != text.encode():
        file.replace(file.with_name(f"{file.stem}-{former}{file.suffix}"))
    if text:
        write_text(file, text)
    else:
        file.unlink(missing_ok=True)


def _listed(names: Sequence[str]) -> str:
    few = ", ".join(names[:3])
    return few if len(names) <= 3 else f"{few} and {len(names) - 3} more"
