"""Targets that torch and numpy write: checkpoints, and examples for a model."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.fuzz import guard
from tests.fuzz.mutation import (
    spoiled_bytes,
)
from tests.fuzz.target import Target, may_refuse


class _Runs:
    """Unpickled, it calls a function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@cache
def _checkpoints() -> tuple[bytes, ...]:
    import torch

    tree = {"state_dict": {"w": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}, "epoch": 1,
            "global_step": 2, "loops": {}, "hyper_parameters": {"lr": 0.1}}  # fmt: skip
    made = []
    for way in (True, False):
        file = io.BytesIO()
        torch.save(tree, file, _use_new_zipfile_serialization=way)
        made.append(file.getvalue())
    return tuple(made)


@cache
def _malicious() -> tuple[bytes, ...]:
    import builtins

    import torch

    ways = (
        _Runs(guard.trip, "reduced"),
        _Runs(os.system, "touch /tmp/run-by-a-checkpoint"),
        _Runs(builtins.eval, "__import__('tests.fuzz.guard').fuzz.guard.trip('eval')"),
        _Runs(builtins.exec, "import tests.fuzz.guard as g; g.trip('exec')"),
    )
    made = []
    for each in ways:
        for tree in (each, {"state_dict": {"w": each}}, {"hyper_parameters": {"a": each}}):
            file = io.BytesIO()
            torch.save(tree, file)
            made += [file.getvalue(), pickle.dumps(tree)]
    return tuple(made)


def make_checkpoint(rng: Random) -> tuple[str, bytes]:
    """Return a checkpoint and its ending: spoilt, with odd members, or with code in it."""
    kind = rng.randrange(10)
    suffix = rng.choice((".ckpt", ".ckpt", ".pt", ".safetensors"))
    if kind < 5:
        data = spoiled_bytes(rng, rng.choice(_checkpoints()), _malicious())
    elif kind < 7:
        data = spoiled_bytes(rng, rng.choice(_malicious()), _checkpoints())
    elif kind == 7:
        data = rng.choice(_malicious())
    elif kind == 8:
        data = _odd_members(rng, rng.choice((_checkpoints()[0], _malicious()[0])))
    else:
        head = json.dumps({"w": {"dtype": rng.choice(("F32", "X")), "shape": [rng.choice((2, -1, 2**62))],
                                 "data_offsets": [0, rng.choice((8, 4, 2**63, -1))]}})  # fmt: skip
        data = len(head).to_bytes(8, "little") + head.encode() + bytes(8)
        data = spoiled_bytes(rng, data) if rng.random() < 0.7 else data
    return suffix, data


def _odd_members(rng: Random, data: bytes) -> bytes:
    """Return the zip with members renamed, gone, doubled, packed or marked in other ways."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as given, zipfile.ZipFile(out, "w") as made:
        for member in given.infolist():
            content = given.read(member)
            if rng.random() < 0.2:
                continue
            if rng.random() < 0.3:
                content = spoiled_bytes(rng, content)
            name = member.filename
            if rng.random() < 0.2:
                name = rng.choice(
                    ("archive/../../x", "/tmp/x", "archive/data.pkl", "a" * 300, "archive/data/0")
                )
            info = zipfile.ZipInfo(name)
            info.external_attr = rng.choice((0, 0x10, 0o120777 << 16))
            info.compress_type = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            made.writestr(info, content)
    return out.getvalue()


def check_checkpoint(given: tuple[str, bytes], folder: Path) -> None:
    """Nothing of a checkpoint is run; it is read, refused, or passed over for the one before."""
    from mlmodeldev.trial.checkpoint import newest_whole
    from mlmodeldev.trial.checkpoint_values import check_weights, read_weights

    suffix, data = given
    file = folder / f"x{suffix}"
    file.write_bytes(data)
    with may_refuse():
        check_weights(file)
    with may_refuse():
        weights = read_weights(file)
        repr(list(weights))
    newest, before = folder / "step-0000000004.ckpt", folder / "step-0000000002.ckpt"
    newest.write_bytes(data)
    before.write_bytes(_checkpoints()[0])
    assert newest_whole(folder) in (newest, before)


def make_example(rng: Random) -> tuple[str, bytes]:
    """Return a file that `inference.py` may be given: numbers, spoilt, or with code in it."""
    suffix = rng.choice((".pt", ".npy", ".json"))
    if suffix == ".pt":
        return suffix, make_checkpoint(rng)[1]
    if suffix == ".json":
        value = rng.choice(([1, 2], [[1.5]], {"a": [1]}, [[1], [2, 3]], "x", None, {"a": None}, [True],
                            10**30, [1e999], {}, [], [[[]]], ["a"], {"a": {"b": 1}}))  # fmt: skip
        text = json.dumps(value).encode()
        return suffix, spoiled_bytes(rng, text) if rng.random() < 0.5 else text
    file = io.BytesIO()
    array = rng.choice(
        (np.arange(6.0), np.ones((2, 2), "i4"), np.array(["a"]), np.zeros(0), np.float16(1))
    )
    np.save(file, array)
    data = file.getvalue()
    if rng.random() < 0.2:
        file = io.BytesIO()
        np.save(file, np.array([_Runs(guard.trip, "npy")], dtype=object), allow_pickle=True)
        data = file.getvalue()
    return suffix, spoiled_bytes(rng, data) if rng.random() < 0.8 else data


def check_example(given: tuple[str, bytes], folder: Path) -> None:
    """An example becomes tensors, or is refused."""
    from mlmodeldev.training.predict_example import read_example

    suffix, data = given
    file = folder / f"x{suffix}"
    file.write_bytes(data)
    with may_refuse():
        read_example(str(file))


TARGETS = [
    Target(
        "checkpoints",
        ("mlmodeldev.trial.checkpoint", "mlmodeldev.trial.checkpoint_values"),
        make_checkpoint,
        check_checkpoint,
    ),
    Target("examples", ("mlmodeldev.training.predict_example",), make_example, check_example),
]
