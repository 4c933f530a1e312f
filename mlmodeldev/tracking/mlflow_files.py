"""What else than rows goes to a trial's run in MLflow: files, pictures, tables.

Each function returns a call that sends, to be made by the tracker's thread, again if need be.

Example::

    keep_file(folder / "cka" / "towers" / "epoch-0003.png", "cka/towers")(run)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlmodeldev.tracking.mlflow_run import TrialRun
from mlmodeldev.tracking.pictures import as_picture

Sending = Callable[[TrialRun], None]


def keep_file(file: Path, place: str | None) -> Sending:
    """Return what keeps a file, if it is there, in a folder of the run's artifacts."""

    def send(run: TrialRun) -> None:
        if file.is_file():
            run.keep_file(file, place)

    return send


def keep_drawing(image: Any, name: str) -> Sending:
    """Return what keeps an array, a Pillow picture or a figure of matplotlib as a PNG file.

    It is as it is now, whatever becomes of it before the thread sends it.

    Raises:
        ValueError: it is no picture.
    """
    picture = as_picture(image)
    return lambda run: run.client.log_image(run.id, picture, artifact_file=name)


def keep_tables(tables: Mapping[str, tuple[list[str], list[list[Any]]]]) -> Sending:
    """Return what keeps tables, each with its columns and rows, under their names."""

    def send(run: TrialRun) -> None:
        for key, (columns, data) in tables.items():
            run.keep_table(key, columns, data)
        if tables:
            run.announce_tables(tables)

    return send


def keep_missing_pictures(folder: Path) -> Sending:
    """Return what sends the heat maps of earlier attempts that MLflow lacks."""
    files = sorted(folder.glob("cka/*/epoch-*.png"))

    def send(run: TrialRun) -> None:
        for name in sorted({file.parent.name for file in files}):
            there = run.files_in(f"cka/{name}")
            for file in files:
                if file.parent.name == name and file.name not in there:
                    run.keep_file(file, f"cka/{name}")

    return send
