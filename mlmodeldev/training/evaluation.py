"""``mlmodeldev trial evaluate``: measure a trial's weights again, on the same data or on others.

Model and data are made as in training, from the trial's own settings; the random numbers of a
step are a function of the seed, so that the same data give the same numbers. Nothing of the trial
is changed: the result is a file of its own in ``evaluations/``.

Example::

    evaluate(Path("runs/single/ab12cd34"), "best", ["data.val_fraction=0.5"])["test"]
    # {"test/accuracy": 0.97, ...}
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlmodeldev.atomic import write_json, writing_to
from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.project import project_root
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.settings.identity import canonical_text, digest
from mlmodeldev.settings.overrides import parse_overrides
from mlmodeldev.settings.validation import validate
from mlmodeldev.training.parent import file_digest, stored_settings
from mlmodeldev.trial.checkpoint import newest_whole
from mlmodeldev.trial.code import changed_files
from mlmodeldev.trial.record import read_record

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule, LightningModule, Trainer

    from mlmodeldev.settings.schema import Settings

FOLDER = "evaluations"
Stage = Literal["validation", "test"]
STAGES: tuple[Stage, ...] = ("validation", "test")

MAY_DIFFER = (
    *("data", "processing", "artefacts.data_dir", "training.accelerator", "training.precision"),
    *("training.limit_val_batches", "training.deterministic"),
)
"""Settings of an evaluation that may be others than in training: what is measured on, and where."""

_ONE_PROCESS = {"devices": 1, "num_nodes": 1, "strategy": "auto", "profiler": None}
_STATE = "training_state.json"


def evaluate(
    folder: Path, weights: str, overrides: Sequence[str] = (), stages: Sequence[Stage] = STAGES
) -> dict[str, Any]:
    """Measure a trial's weights; return the metrics, and what they are of.

    Args:
        folder: the trial's.
        weights: ``best``, ``last``, or a checkpoint's file.
        overrides: of `MAY_DIFFER`, as on the command line of trainer.py.
        stages: what to measure; a stage that model or data have no part for is left out.

    Raises:
        UsageError: there are no such weights, they don't fit, an override is none of `MAY_DIFFER`,
            or there is nothing to measure.
    """
    changed = _read_overrides(overrides)
    settings = evaluation_settings(folder, changed)
    file = find_weights(folder, weights)
    if different := changed_files(read_record(folder), project_root()):
        listed = ", ".join(different[:3])
        print(f"warning: {listed}: changed since this trial was trained", file=sys.stderr)
    measured, inputs = _measure(settings, file, stages)
    if not measured:
        raise UsageError(f"{folder}: its model and data have no {' and no '.join(stages)}")
    return {
        "trial": f"{folder.parent.name}/{folder.name}",
        "weights": weights,
        "file": str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file),
        "sha256": file_digest(file),
        "overrides": changed,
        "inputs": inputs,
        **{str(stage): values for stage, values in measured.items()},
    }


def keep(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write a result into the trial's ``evaluations/``, whole; the same question has one file.

    Raises:
        UsageError: the folder can't be written.
    """
    question = {name: result[name] for name in ("sha256", "overrides")}
    measured = [stage for stage in STAGES if stage in result]
    name = digest(canonical_text({**question, "stages": measured}))
    path = folder / FOLDER / f"{Path(result['weights']).stem}-{name}.json"
    with writing_to(path):
        path.parent.mkdir(exist_ok=True)
    write_json(path, dict(result))
    return path


# --- settings


def _read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the overrides by their keys; refuse what would make it another model."""
    changed = parse_overrides(overrides)
    for key in changed:
        if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in MAY_DIFFER):
            raise UsageError(
                f"{key}: can't be another in an evaluation{nearest(key, MAY_DIFFER)} (allowed:"
                f" {', '.join(MAY_DIFFER)})"
            )
    return changed


def evaluation_settings(folder: Path, changed: Mapping[str, Any]) -> Settings:
    """Return the settings that a trial was trained with, but for those that are changed.

    Raises:
        UsageError: there are none, or one is not allowed.
    """
    container = stored_settings(folder)
    if "data" in changed:
        container["data"] = compose_settings([f"data={changed['data']}"], partial=True).data
    for key, value in changed.items():
        *path, leaf = key.split(".")
        if not path:
            continue
        group = container
        for part in path:
            group = group.setdefault(part, {})
        group[leaf] = value
    container["training"] = {**container["training"], **_ONE_PROCESS}
    container["training"]["trainer"] = {}
    container["logger"] = {}
    container["artefacts"].pop("fresh", None)
    return validate(container, project_root())


# --- weights


def find_weights(folder: Path, weights: str) -> Path:
    """Return the file of ``best`` or ``last``, an export's where there is no checkpoint, or a file.

    Raises:
        UsageError: there is none.
    """
    checkpoints = folder / "checkpoints"
    if weights not in ("best", "last"):
        for place in (Path(weights).expanduser(), checkpoints / weights):
            if place.is_file():
                return place.absolute()
        raise UsageError(f"--checkpoint {weights}: no such file (or best, or last)")
    best = checkpoints / "best.ckpt"
    file = newest_whole(checkpoints) if weights == "last" else best if best.is_file() else None
    if file is not None:
        return file
    if (folder / weights / _STATE).is_file():
        return folder / weights / _STATE
    other = "last" if weights == "best" else "best"
    raise UsageError(f"{folder}: has no {weights} weights (--checkpoint {other}?)")


def _load(model: LightningModule, file: Path) -> None:
    from pytorch_lightning.utilities.model_helpers import is_overridden

    from mlmodeldev.training.load import load
    from mlmodeldev.trial.checkpoint_values import read_weights

    if is_overridden("configure_model", model):
        model.configure_model()
    state = load(file.parent).state_dict() if file.name == _STATE else read_weights(file)
    try:
        model.load_state_dict(dict(state), strict=model.strict_loading)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UsageError(
            f"{file}: does not fit {type(model).__name__} as these data and this code make it:"
            f" {reason}"
        ) from None


# --- measuring


def _measure(
    settings: Settings, file: Path, stages: Sequence[Stage]
) -> tuple[dict[Stage, dict[str, float]], dict[str, str]]:
    from mlmodeldev.callbacks.seed_steps import SeedSteps
    from mlmodeldev.training import build
    from mlmodeldev.training.quiet import quiet
    from mlmodeldev.training.ranks import World
    from mlmodeldev.training.session import bring_together, close
    from mlmodeldev.training.trainer import make_trainer

    quiet()
    world = World()
    data = build.datamodule(settings, world)
    try:
        model = build.model(settings, data)
        _load(model, file)
        with tempfile.TemporaryDirectory(prefix="evaluation-") as temporary:
            callbacks = [SeedSteps(settings.training.seed)]
            trainer = make_trainer(settings, world, [], callbacks, Path(temporary))
            bring_together(trainer, model, data, settings, world)
            measured = {
                stage: values
                for stage in stages
                if (values := _run(stage, trainer, model, data)) is not None
            }
    finally:
        close(data)
    return measured, dict(getattr(data, "inputs", {}))


def _run(
    stage: Stage, trainer: Trainer, model: LightningModule, data: LightningDataModule
) -> dict[str, float] | None:
    """Return a stage's metrics, of all its loaders; None where there is no such stage."""
    from mlmodeldev.training.model_kind import can_test, can_validate

    possible, run = {
        "validation": (can_validate, trainer.validate),
        "test": (can_test, trainer.test),
    }[stage]
    if not possible(model, data):
        return None
    results = run(model, datamodule=data, verbose=False)
    return {name: float(value) for part in results for name, value in part.items()}
