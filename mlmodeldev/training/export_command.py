"""``mlmodeldev trial export``: write a finished trial's model in another format.

Model and data are made from the trial's own settings, and one batch is validated to see what the
model's forward is called with. The folder of the weights is exchanged as a whole.

Example::

    mlmodeldev trial export ab12cd34 --onnx                      best/model.onnx
    mlmodeldev trial export ab12cd34 --onnx --checkpoint last    last/model.onnx
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.atomic import copy_file, replace_folder, write_json
from mlmodeldev.callbacks.onnx_packages import refuse_missing
from mlmodeldev.errors import UsageError
from mlmodeldev.lease import owned
from mlmodeldev.project import project_root
from mlmodeldev.trial.code import changed_files
from mlmodeldev.trial.named import RUNS_DIR_HELP, runs_folder, trial_folder
from mlmodeldev.trial.record import read_record

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule, LightningModule

    from mlmodeldev.callbacks.example_inputs import Call
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.training.ranks import World

EXPORT_HELP = "write its model in another format"
_STATE = "training_state.json"


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """Add the options; nothing heavy is imported."""
    add = parser.add_argument
    add("trial", metavar="TRIAL", help="its folder, its path under the runs folder, or its id")
    add("--onnx", action="store_true", required=True, help="write model.onnx, checked")
    add("--checkpoint", choices=("best", "last"), default="best", help="the weights (%(default)s)")
    add("--runs-dir", type=Path, metavar="DIR", help=RUNS_DIR_HELP)


def run_export(args: argparse.Namespace) -> int:
    """Write the file and print its path; return the exit status.

    Raises:
        UsageError: bad input, or the model can't be written so.
    """
    refuse_missing("--onnx")
    folder = trial_folder(args.trial, runs_folder(args.runs_dir))
    print(export_onnx(folder, args.checkpoint))
    return 0


def export_onnx(folder: Path, weights: str) -> Path:
    """Add ``model.onnx`` to an export, its model card and its ``training_state.json``.

    Args:
        folder: the trial's.
        weights: ``best`` or ``last``.

    Returns:
        the file.

    Raises:
        UsageError: the trial runs, has no such export, or its model can't be written as ONNX; the
            export is what it was then.
    """
    record, target = read_record(folder), folder / weights
    if owned(record):
        raise UsageError(f"{folder}: this trial is running; wait for its end")
    if not (target / _STATE).is_file():
        raise UsageError(f"{folder}: has no {weights}/ (a trial writes it when it is done)")
    if different := changed_files(record, project_root()):
        listed = ", ".join(different[:3])
        print(f"warning: {listed}: changed since this trial was trained", file=sys.stderr)

    from mlmodeldev.callbacks.export_files import CARD, is_ours, write_card
    from mlmodeldev.callbacks.onnx_check import CannotExport
    from mlmodeldev.callbacks.onnx_file import FILE, write_onnx
    from mlmodeldev.training.load import load, read_state
    from mlmodeldev.training.quiet import quiet

    quiet()
    module = load(target)
    call = _call(folder, module)
    state = read_state(target)
    with replace_folder(target) as new:
        shutil.copytree(target, new, dirs_exist_ok=True, copy_function=copy_file)
        try:
            state["onnx"] = write_onnx(module, call, new / FILE)
        except CannotExport as error:
            kind = type(module).__qualname__
            raise UsageError(f"{folder}: {kind} can't be written as ONNX: {error}") from error
        write_json(new / _STATE, state)
        if is_ours(new / CARD):
            (new / CARD).unlink()
        write_card(new, state, record)
    return target / FILE


def _call(folder: Path, module: LightningModule) -> Call | None:
    from mlmodeldev.training import build
    from mlmodeldev.training.evaluation import evaluation_settings
    from mlmodeldev.training.ranks import World
    from mlmodeldev.training.session import close

    settings, world = evaluation_settings(folder, {}), World()
    data = build.datamodule(settings, world)
    try:
        return _validated(settings, world, module, data)
    finally:
        close(data)


def _validated(
    settings: Settings, world: World, module: LightningModule, data: LightningDataModule
) -> Call | None:
    """Validate a batch; return how forward was called."""
    from mlmodeldev.callbacks.example_inputs import ExampleInputs
    from mlmodeldev.callbacks.seed_steps import SeedSteps
    from mlmodeldev.training.model_kind import can_validate
    from mlmodeldev.training.session import bring_together
    from mlmodeldev.training.trainer import make_trainer

    kept = ExampleInputs()
    training = settings.training.model_copy(update={"limit_val_batches": 1})
    short = settings.model_copy(update={"training": training})
    callbacks: list[Any] = [SeedSteps(training.seed), kept]
    with tempfile.TemporaryDirectory(prefix="export-") as temporary:
        trainer = make_trainer(short, world, [], callbacks, Path(temporary))
        bring_together(trainer, module, data, short, world)
        if can_validate(module, data):
            trainer.validate(module, datamodule=data, verbose=False)
    return kept.call_of(module, data)
