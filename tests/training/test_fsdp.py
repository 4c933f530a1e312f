"""``training.strategy=fsdp``: what can't train is refused before a process or a folder is begun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.training.ranks import join

ROOT = Path(__file__).resolve().parents[2]


def test_without_a_gpu_it_is_one_line_and_nothing_is_claimed(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "trainer.py"), "training.strategy=fsdp"]
    command += ["training.devices=2", "logger=csv", f"artefacts.runs_dir={tmp_path}/runs"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr == "trainer.py: training.strategy=fsdp: needs GPUs; ddp runs everywhere\n"
    assert done.stdout == ""
    assert not (tmp_path / "runs").exists()


def test_clipping_that_lightning_would_refuse_at_the_first_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pytorch_lightning.plugins.precision import FSDPPrecision
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    with pytest.raises(MisconfigurationException):  # once Lightning clips, so may we
        FSDPPrecision("32-true").clip_grad_by_norm()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    settings = compose_settings(["training.strategy=fsdp", "training.gradient_clip_val=0.5"])
    with pytest.raises(UsageError, match=r"training.gradient_clip_val=0.5: can't be with .*fsdp"):
        join(settings)
    clips_nothing = ["training.strategy=fsdp", "training.gradient_clip_val=null"]
    assert join(compose_settings(clips_nothing)).size == 1
