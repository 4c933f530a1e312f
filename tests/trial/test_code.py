"""The files that a trial's code is made of: what is followed, what is not, what has changed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.trial.code import changed_files, code_digests

Write = Callable[..., None]
SETTINGS = {"model": {"_target_": "nets.mine.Net"}, "data": {"_target_": "datamodule.Mine"}}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write files of a project."""

    def files(**texts: str) -> None:
        for name, text in texts.items():
            file = tmp_path / f"{name if '/' in name else name.replace('__', '/')}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    files(trainer="", datamodule="", nets__mine="")
    return files


def names(root: Path, settings: Any = SETTINGS) -> list[str]:
    return list(code_digests(settings, root))


def test_the_classes_files_and_the_program(write: Write, tmp_path: Path) -> None:
    write(model="unused", trainer="a = 1")
    result = code_digests(SETTINGS, tmp_path)
    assert list(result) == ["datamodule.py", "nets/mine.py", "trainer.py"]
    assert result["trainer.py"] == hashlib.sha256(b"a = 1").hexdigest()[:16]


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("import helper", ["helper.py"]),
        ("import nets.blocks as b", ["nets/blocks.py"]),
        ("from nets import blocks", ["nets/blocks.py"]),
        ("from nets.blocks import Block", ["nets/blocks.py"]),
        ("from . import blocks", ["nets/blocks.py"]),
        ("from .blocks import Block", ["nets/blocks.py"]),
        ("from ..helper import f", ["helper.py"]),
        ("def f():\n    from helper import (\n        a,\n        b,\n    )", ["helper.py"]),
        ("import lib.deep.x", ["lib/__init__.py", "lib/deep/x.py"]),
        ("from lib import f", ["lib/__init__.py"]),
        ("import chain", ["chain.py", "helper.py"]),
        ("import circle", ["circle.py"]),
        ("import torch, os, mlmodeldev.errors", []),
        ("import gone", []),
        ("this is no python", []),
    ],
)
def test_imports_are_followed(write: Write, tmp_path: Path, text: str, more: list[str]) -> None:
    write(helper="", nets__blocks="", chain="import helper", mlmodeldev__errors="")
    write(circle="import nets.mine", lib__deep__x="", unused="")
    write(**{"lib/__init__": ""})
    write(nets__mine=text)
    assert sorted(names(tmp_path)) == sorted(["datamodule.py", "nets/mine.py", "trainer.py", *more])


def test_nested_targets_and_callbacks(write: Write, tmp_path: Path) -> None:
    write(backbones="", mine="", src__package__aug="from .draw import x", src__package__draw="")
    settings = {
        "model": {"_target_": "nets.mine.Net", "parts": [{"_target_": "backbones.Outer.Inner"}]},
        "data": {"_target_": "datamodule.Mine", "augment": {"_target_": "package.aug.flip"}},
        "callbacks": {"ema": {"_target_": "mine.EMA"}, "cka": {"enabled": True}},
        "logger": {"_target_": "unused.X"},
    }
    assert {"backbones.py", "mine.py", "src/package/aug.py", "src/package/draw.py"} <= set(
        names(tmp_path, settings)
    )


def test_what_is_not_of_the_project(write: Write, tmp_path: Path) -> None:
    write(mlmodeldev__x="", **{"site-packages__y": ""})
    settings = {"model": {"_target_": "mlmodeldev.x.Net"}, "data": {"_target_": "json.Mine"}}
    assert names(tmp_path, settings) == ["trainer.py"]


def test_what_has_changed(write: Write, tmp_path: Path) -> None:
    write(nets__mine="import helper", helper="")
    record = {"code": code_digests(SETTINGS, tmp_path)}
    assert changed_files(record, tmp_path) == []
    write(helper="x = 1", other="")
    assert changed_files(record, tmp_path) == ["helper.py"]
    (tmp_path / "datamodule.py").unlink()
    assert changed_files(record, tmp_path) == ["datamodule.py", "helper.py"]
    assert changed_files({"source": "of an earlier version"}, tmp_path) == []


def test_what_runs_already_is_not_what_is_edited_later(write: Write, tmp_path: Path) -> None:
    """A fork server's trials run what it has imported."""
    write(datamodule="old = 1")
    code = (
        "import sys, pathlib, datamodule\n"
        "from mlmodeldev.trial.code import changed_files, code_digests, note_loaded\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "note_loaded(root)\n"
        "settings = {'data': {'_target_': 'datamodule.Mine'}}\n"
        "before = code_digests(settings, root)\n"
        "(root / 'datamodule.py').write_text('new = 1')\n"
        "assert code_digests(settings, root) == before\n"
        "assert changed_files({'code': before}, root) == []\n"
    )
    library = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = {"PYTHONPATH": f"{tmp_path}:{library}"}
    subprocess.run(command, env=environment, cwd=tmp_path, check=True)
    assert (
        code_digests(SETTINGS, tmp_path)["datamodule.py"]
        == (hashlib.sha256(b"new = 1").hexdigest()[:16])
    )
