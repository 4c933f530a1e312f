"""Export ``best/`` and ``last/`` as folders that ``from_pretrained`` loads.

A model that has ``export(folder)`` writes its own files (config.json, model.safetensors); of any
other its weights are written as ``model.safetensors``. The tokenizer and ``training_state.json``
(all settings, epoch, best value) lie beside.

Example::

    AutoModel.from_pretrained("runs/single/ab12cd34/best")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from mlmodeldev.atomic import replace_folder, write_json
from mlmodeldev.callbacks.resume import ResumeCheckpoint


class Export(Callback):
    """Write both folders when training ends, each whole or not at all.

    Args:
        folder: the trial's folder.
        recovery: knows where the best weights are.
        state: what ``training_state.json`` tells beside epoch, step and metric.
    """

    def __init__(self, folder: Path, recovery: ResumeCheckpoint, state: dict[str, Any]) -> None:
        self.folder, self.recovery, self.state = folder, recovery, state

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        done = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        self._write("last", trainer, pl_module, done)
        if Path(self.recovery.best_path).is_file():
            best = {"epoch": self.recovery.best_epoch + 1, "step": self.recovery.best_step}
            kept = {name: value.clone() for name, value in pl_module.state_dict().items()}
            load_weights(pl_module, self.recovery.best_path)
            self._write("best", trainer, pl_module, best)
            pl_module.load_state_dict(kept)

    def _write(
        self, name: str, trainer: Trainer, module: LightningModule, done: dict[str, Any]
    ) -> None:
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        with replace_folder(self.folder / name) as target:
            export: Any = getattr(module, "export", None)
            if export is not None:
                export(target)
            else:
                _save_weights(module, target)
            tokenizer = getattr(datamodule, "tokenizer", None)
            if tokenizer is not None:
                tokenizer.save_pretrained(target)
            metric = {"name": self.recovery.monitor, "value": self.recovery.best_value}
            write_json(
                target / "training_state.json",
                {
                    **self.state,
                    **done,
                    "metric": {**metric, "epoch": self.recovery.best_epoch + 1},
                    "data": getattr(datamodule, "card", dict)(),
                },
            )


def load_weights(module: LightningModule, path: str | Path) -> None:
    """Load a checkpoint's weights into a model, without running code from the file."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(checkpoint["state_dict"])


def _save_weights(module: LightningModule, target: Path) -> None:
    from safetensors.torch import save_model

    save_model(module, str(target / "model.safetensors"))
