"""CKA matrices for the page: packed, and as many as fit.

Example::

    read_matrices([folder_of_best, folder_of_next])
    # {"ab12cd34": {"towers": {"rows": […], "frames": [{"epoch": 1, "values": "…"}], …}}}

Values are 16-bit integers of 1/10,000, in base64, row after row; `UNDEFINED` stands for NaN. Cells
that are not above chance are bits, as the heat maps' hatching.
"""

from __future__ import annotations

import base64
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

ALL_CELLS = 300_000
"""Of the whole page: about 0.9 MB."""
CELLS_OF_TRIAL = 60_000
"""Of one trial's comparison: the layers of 16 epochs of 60 x 60, say."""
UNDEFINED = -32768
_SCALE = 10_000


def read_matrices(folders: Iterable[Path]) -> tuple[dict[str, Any], int]:
    """Return the matrices of these trials by their folder's name, until the page has enough.

    And the number of trials that have matrices which are not among them.

    Args:
        folders: of trials, the most wanted first.
    """
    left, without = ALL_CELLS, 0
    result: dict[str, dict[str, Any]] = {}
    for folder in folders:
        comparisons = _comparisons(folder)
        for name, files in comparisons.items() if left > 0 else ():
            one = _comparison(files)
            cells = one.pop("cells")
            if one["frames"] and cells <= left:
                left -= cells
                result.setdefault(folder.name, {})[name] = one
        without += not comparisons.keys() <= result.get(folder.name, {}).keys()
    return result, without


def _comparisons(folder: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    place = folder / "cka"
    if not place.is_dir():  # of most trials: one question instead of four
        return files
    for file in sorted(place.glob("*/epoch-*.npz")):
        files.setdefault(file.parent.name, []).append(file)
    return files


def _comparison(files: list[Path]) -> dict[str, Any]:
    """Return one comparison of a trial through its epochs; of many epochs some, evenly."""
    last = _load(files[-1])
    if last is None:
        return {"frames": [], "cells": 0}
    size = max(int(last["matrix"].size), 1)
    most = max(2 if size <= CELLS_OF_TRIAL else 1, CELLS_OF_TRIAL // size)
    frames = []
    for file in _evenly(files, most):
        arrays = last if file == files[-1] else _load(file)
        if arrays is not None and arrays["matrix"].shape == last["matrix"].shape:
            frames.append(_frame(arrays))
    return {
        "rows": [str(name) for name in last["rows"]],
        "columns": [str(name) for name in last["columns"]],
        "against": str(last.get("against", "")),
        "samples": int(last.get("samples", 0)),
        "estimator": str(last.get("estimator", "")),
        "kernel": str(last.get("kernel", "")),
        "epochs": len(files),
        "frames": frames,
        "cells": size * len(frames),
    }


def _evenly(files: list[Path], most: int) -> list[Path]:
    if len(files) <= most:
        return files
    if most == 1:
        return files[-1:]
    places = np.linspace(0, len(files) - 1, most).round().astype(int)
    return [files[place] for place in dict.fromkeys(places.tolist())]


def _load(file: Path) -> Mapping[str, Any] | None:
    """Return a file's arrays; None where it can't be read, for one matrix is not worth the page."""
    try:
        with np.load(file) as opened:
            arrays = {name: opened[name] for name in opened.files}
        matrix, size = arrays["matrix"], (len(arrays["rows"]), len(arrays["columns"]))
        numbers = matrix.dtype.kind in "fiu" and matrix.shape == size
        whole = numbers and arrays.get("significant", matrix).shape == size
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile):
        return None
    return arrays if whole else None


def _frame(arrays: Mapping[str, Any]) -> dict[str, Any]:
    matrix = np.asarray(arrays["matrix"], dtype=np.float64)
    defined = np.isfinite(matrix)
    scaled = np.clip(np.where(defined, matrix, 0.0), -3, 3) * _SCALE
    whole = np.where(defined, scaled.round(), UNDEFINED).astype("<i2")
    frame = {"epoch": int(arrays.get("epoch", 0)), "values": _text(whole.tobytes())}
    if "significant" in arrays:
        chance = defined & ~np.asarray(arrays["significant"], dtype=bool)
        if _same_layers(arrays):
            np.fill_diagonal(chance, val=False)  # a layer with itself is 1 and is not tested
        frame["chance"] = _text(np.packbits(chance, bitorder="little").tobytes())
    return frame


def _same_layers(arrays: Mapping[str, Any]) -> bool:
    return str(arrays.get("against")) == "self" and list(arrays["rows"]) == list(arrays["columns"])


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
