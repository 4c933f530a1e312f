"""A picture comes out the same, whatever a model makes it of."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mlmodeldev.tracking.loggers import SilentLogger
from mlmodeldev.tracking.metrics_csv import MetricsFile
from mlmodeldev.tracking.pictures import as_picture
from mlmodeldev.tracking.tensorboard import TensorBoardFiles

BYTES = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)


@pytest.mark.parametrize(
    "image",
    [
        BYTES,
        BYTES.transpose(2, 0, 1),
        BYTES.astype(np.int64),
        BYTES / 255,
        torch.from_numpy(BYTES),
        torch.from_numpy(BYTES).permute(2, 0, 1) / 255.0,
        Image.fromarray(BYTES),
    ],
    ids=["HWC", "CHW", "int64", "floats", "tensor", "float tensor", "pillow"],
)
def test_all_forms_are_one_picture(image: Any) -> None:
    assert np.abs(np.asarray(as_picture(image)).astype(int) - BYTES).max() <= 1


def test_a_file_a_figure_and_one_channel(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    Image.fromarray(BYTES).save(tmp_path / "a.png")
    assert (np.asarray(as_picture(tmp_path / "a.png")) == BYTES).all()
    assert as_picture(Figure(figsize=(1, 2), dpi=50)).size == (50, 100)
    assert as_picture(BYTES[..., :1]).size == as_picture(BYTES[..., 0]).size == (5, 4)


def test_it_is_as_it_was(tmp_path: Path) -> None:
    array = BYTES.copy()
    picture = as_picture(array)
    array[:] = 0
    assert (np.asarray(picture) == BYTES).all()


@pytest.mark.parametrize("image", [np.zeros((2, 3, 4, 5)), np.zeros(3), np.zeros((9, 9, 9))])
def test_what_is_no_picture_is_passed_over(image: Any, tmp_path: Path) -> None:
    logger = TensorBoardFiles(tmp_path)
    with pytest.warns(UserWarning, match="TensorBoard: mine is passed over: no picture"):
        logger.log_image("mine", [image])


def test_a_model_may_log_pictures_to_any_logger(tmp_path: Path) -> None:
    for logger in (MetricsFile(tmp_path / "metrics.csv"), SilentLogger("wandb")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            logger.log_image("mine", [BYTES], step=3)
