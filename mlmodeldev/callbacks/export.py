"""Export ``best/`` and ``last/`` as folders that load back.

A model that has ``export(folder)`` writes its own files (config.json and model.safetensors of
transformers, say); of any other its weights, class and arguments are written, from which
`mlmodeldev.load` makes it again. The tokenizer, ``training_state.json`` (all settings, epoch, best
value) and a model card lie beside.

Example::

    mlmodeldev.load("runs/single/ab12cd34/best")
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from mlmodeldev.atomic import replace_folder, write_json
from mlmodeldev.callbacks.example_inputs import ExampleInputs, has_own
from mlmodeldev.callbacks.export_files import write_card, write_config, write_weights
from mlmodeldev.callbacks.onnx_check import CannotExport
from mlmodeldev.callbacks.onnx_file import FILE as ONNX
from mlmodeldev.callbacks.onnx_file import write_onnx
from mlmodeldev.callbacks.resume import ResumeCheckpoint
from mlmodeldev.callbacks.soundness import refuse_unsound
from mlmodeldev.data.info import data_info
from mlmodeldev.data.randomness import global_states, restore_globals
from mlmodeldev.trial.checkpoint_values import read_checkpoint
from mlmodeldev.trial.record import read_record

log = logging.getLogger(__name__)


class Export(Callback):
    """Writes both folders when training has ended, each whole or not at all.

    The session calls `write` after the fit, and no hook does: of a trial that has nothing left to
    train, Lightning calls none.

    Args:
        folder: the trial's folder.
        recovery: knows where the best weights are.
        state: what ``training_state.json`` tells beside epoch, step and metric.
        inputs: what forward is called with, for ``model.onnx``; None: no such file is wanted.
    """

    def __init__(
        self,
        folder: Path,
        recovery: ResumeCheckpoint,
        state: dict[str, Any],
        inputs: ExampleInputs | None = None,
    ) -> None:
        self.folder, self.recovery, self.state, self.inputs = folder, recovery, state, inputs
        self._onnx: dict[str, str] = {}

    def write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write last/, and best/ where there are best weights; on the first process alone.

        Raises:
            NonFiniteWeights: weights are not finite.
        """
        if not trainer.is_global_zero:
            return
        self.recovery.folder.check_owner()
        usual = self.recovery.numbers.usual
        refuse_unsound(pl_module, usual)
        done = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        self._write("last", trainer, pl_module, done)
        if Path(self.recovery.best_path).is_file():
            best = {"epoch": self.recovery.best_epoch + 1, "step": self.recovery.best_step}
            kept = {name: _copied(value) for name, value in pl_module.state_dict().items()}
            load_weights(pl_module, self.recovery.best_path)
            refuse_unsound(pl_module, usual)
            self._write("best", trainer, pl_module, best)
            pl_module.load_state_dict(kept, strict=pl_module.strict_loading)
        if self._onnx:
            self.recovery.folder.update(onnx=self._onnx)

    def _write(
        self, name: str, trainer: Trainer, module: LightningModule, done: dict[str, Any]
    ) -> None:
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        state = self._facts(module, datamodule, done)
        with replace_folder(self.folder / name) as target:
            self._fill(target, module, datamodule, state)
            onnx = state.get("onnx", {})
            if onnx:
                self._onnx[name] = onnx.get("failed", "written")

    def _facts(
        self, module: LightningModule, datamodule: Any, done: dict[str, Any]
    ) -> dict[str, Any]:
        metric = {"name": self.recovery.monitor, "value": self.recovery.best_value}
        return {
            **self.state,
            **done,
            "metric": {**metric, "epoch": self.recovery.best_epoch + 1},
            "data": data_info(datamodule),
            "inference": inference_of(module),
        }

    def try_out(self, module: LightningModule, datamodule: Any, folder: Path) -> None:
        """Write an export of a model that has not been trained, to see that it can be."""
        folder.mkdir()
        state = self._facts(module, datamodule, {"epoch": 0, "step": 0})
        self._fill(folder, module, datamodule, state)

    def _fill(
        self, target: Path, module: LightningModule, datamodule: Any, state: dict[str, Any]
    ) -> None:
        export: Any = getattr(module, "export", None)
        if export is not None:
            export(target)
        else:
            write_weights(module, target)
            model = self.state["settings"]["model"]
            write_config(model["_target_"], self.state["model_arguments"], target)
        tokenizer: Any = getattr(datamodule, "tokenizer", None)
        if hasattr(tokenizer, "save_pretrained"):
            tokenizer.save_pretrained(target)
        if self.inputs is not None:
            state["onnx"] = self._write_onnx(target, module, datamodule)
        write_json(target / "training_state.json", state)
        write_card(target, state, read_record(self.folder))

    def _write_onnx(self, target: Path, module: LightningModule, datamodule: Any) -> dict[str, Any]:
        """Write model.onnx, or say why not: the trial is as good without it."""
        assert self.inputs is not None
        states = global_states()
        try:
            return write_onnx(module, self.inputs.call_of(module, datamodule), target / ONNX)
        except CannotExport as error:
            if str(error) not in self._onnx.values():
                log.warning(
                    "callbacks.export.onnx: %s can't be written as ONNX: %s; the trial has no %s",
                    type(module).__qualname__,
                    error,
                    ONNX,
                )
            return {"failed": str(error)}
        finally:
            restore_globals(states)


def inference_of(module: LightningModule) -> str | None:
    """Return what inference.py can call, None for nothing: a method of the model."""
    for name in ("predict", "continue_texts"):
        if hasattr(module, "load") and hasattr(module, name):
            return name
    for name in ("predict_step", "forward"):
        if has_own(module, name):
            return name
    return None


def load_weights(module: LightningModule, path: str | Path) -> None:
    """Load a checkpoint's weights into a model, without running code from the file.

    A model with ``strict_loading = False`` keeps what the checkpoint lacks, as Lightning has it.
    """
    state = read_checkpoint(path)["state_dict"]
    module.load_state_dict(state, strict=module.strict_loading)


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value
