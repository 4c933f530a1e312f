"""What a checkpoint may hold: values that are read back without running code from the file.

torch's ``weights_only`` reads tensors and plain containers. Beside these some harmless classes are
let through (numpy's arrays and numbers, paths, dates). Hyper-parameters of any other type (a
module, a class, a function) are left out of the checkpoint, since nothing that resumes needs them.

Example::

    torch.save(without_code(checkpoint), file)
    read_checkpoint(file)
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime
import functools
import pathlib
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlmodeldev.errors import UsageError

HYPER_PARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters")
"""Where Lightning puts what ``save_hyperparameters`` has taken."""

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device)
_CONTAINERS = (list, tuple, set, frozenset, dict, collections.OrderedDict, collections.deque)


@contextlib.contextmanager
def harmless_classes() -> Iterator[None]:
    """Let ``torch.load(weights_only=True)`` make values of classes that run no code of the file."""
    with torch.serialization.safe_globals(list(_harmless())):
        yield


def read_checkpoint(
    path: str | Path, map_location: Any = "cpu", mapped: bool = False
) -> dict[str, Any]:
    """Read a file that torch has written, without running code from it.

    Args:
        path: the file.
        map_location: as of ``torch.load``.
        mapped: leave its tensors on the disk, mapped into memory.

    Raises:
        pickle.UnpicklingError: it holds values of other classes.
        Exception: it is damaged; torch has many kinds.
    """
    with harmless_classes():
        loaded: dict[str, Any] = torch.load(
            path, map_location=map_location, weights_only=True, mmap=mapped
        )
    return loaded


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """Return the weights in a file (.safetensors, or what torch has written) by their names.

    Raises `UsageError` if it cannot be read.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        with _refusing(path):
            return load_file(path)
    return _weights(path, mapped=False)


def check_weights(path: Path) -> None:
    """Refuse what `read_weights` would refuse; the weights themselves stay on the disk.

    Raises:
        UsageError: the file can't be read.
    """
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with _refusing(path), safe_open(path, framework="pt") as opened:
            opened.keys()
    else:
        with _refusing(path):
            mapped = zipfile.is_zipfile(path)  # older files of torch's are no archives
        _weights(path, mapped)


def _weights(path: Path, mapped: bool) -> Mapping[str, Tensor]:
    with _refusing(path):
        saved = read_checkpoint(path, mapped=mapped)
    if not isinstance(saved, Mapping):
        kind = type(saved).__name__
        raise UsageError(f"the weights in {path} cannot be read: it holds a {kind}, not weights")
    weights: Mapping[str, Tensor] = saved.get("state_dict", saved)
    return weights


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # torch's readers raise errors of many kinds
        raise UsageError(f"the weights in {path} cannot be read: {_reason(error, path)}") from error


def _reason(error: Exception, path: Path) -> str:
    """Return why a file can't be read, where torch's own words would mislead or say nothing."""
    if path.is_file() and not path.stat().st_size:
        return "it is empty"
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than weights, or is no file of torch's; nothing of it was run"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@functools.cache
def _harmless() -> tuple[Any, ...]:
    import numpy as np
    from numpy._core import multiarray
    from pytorch_lightning.utilities.parsing import AttributeDict

    kinds = {type(np.dtype(name)) for name in (*"?bhilqBHILQefdFD", "U1", "S1", "M8[s]", "m8[s]")}
    return (
        *(multiarray._reconstruct, multiarray.scalar, np.ndarray, np.dtype, *kinds),
        *(pathlib.PosixPath, pathlib.PurePosixPath, pathlib.Path),
        *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone),
        *(collections.deque, collections.Counter, collections.defaultdict),
        *(frozenset, slice, range, complex, argparse.Namespace, AttributeDict, list, dict, int),
        *(float, set, bytearray),
    )


def without_code(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checkpoint with values that can be read back; others are left out by their key.

    A hyper-parameter stands for its whole value: ``layers=[Linear(...), 3]`` goes as one. What a
    model's ``on_save_checkpoint`` has added goes by its top key, which is noted under `LEFT_OUT`.
    Lightning's own entries stay as they are.
    """
    kept = dict(checkpoint)
    for name in HYPER_PARAMETERS:
        values = kept.get(name)
        if isinstance(values, Mapping):
            kept[name] = {k: v for k, v in values.items() if unreadable(v) is None}
    left_out = [k for k, v in kept.items() if k not in _LIGHTNINGS and unreadable(v) is not None]
    for name in left_out:
        del kept[name]
    return {**kept, LEFT_OUT: left_out} if left_out else kept


LEFT_OUT = "left_out"
"""Key of a checkpoint: the names of entries that could not be written."""

_LIGHTNINGS = (
    *("epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "callbacks"),
    *("optimizer_states", "lr_schedulers", "native_amp_scaling_state", *HYPER_PARAMETERS),
)


def unreadable(value: Any, path: str = "") -> str | None:
    """Return where in a value, and what, can't be read back; None if all can.

    >>> unreadable({"state": [1, print]})
    "state.1 (builtin_function_or_method)"
    """
    if isinstance(value, Tensor) or type(value) in _PLAIN or type(value) in _harmless_instances():
        return None
    if type(value) in _CONTAINERS or (isinstance(value, dict) and type(value) in _harmless()):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, inner in items:
            problem = unreadable(inner, f"{path}.{name}" if path else str(name))
            if problem:
                return problem
        return None
    return f"{path or 'value'} ({type(value).__name__})"


@functools.cache
def _harmless_instances() -> frozenset[Any]:
    import numpy as np

    numbers: set[Any] = {np.dtype(name).type for name in "?bhilqBHILQefdFD"}
    return frozenset(
        {np.ndarray, *numbers, pathlib.PosixPath, datetime.datetime, datetime.date}
        | {datetime.time, datetime.timedelta, slice, range, bytearray, collections.Counter}
    )
