"""What settings may call: the class is looked at first, and nothing that runs programs is called.

Each case would leave a file behind if anything of it was called.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Callback, LightningDataModule, LightningModule
from pytorch_lightning.callbacks import Timer

from mlmodeldev.callbacks.stack import _added
from mlmodeldev.errors import UsageError
from mlmodeldev.settings.instantiation import instantiate, instantiated
from mlmodeldev.settings.targets import check_kind
from mlmodeldev.training import build
from mlmodeldev.training.load import find_class, load

HERE = __name__
WRITTEN: list[str] = []
"""What has been called of this file; nothing should."""


class Unlike:
    """Of no kind that a trial wants."""

    def __init__(self, *_: Any, **__: Any) -> None:
        WRITTEN.append("called")


class Mine(Callback):
    @classmethod
    def made(cls) -> Mine:
        return cls()


def returns_a_callback() -> Timer:
    return Timer()


def says_nothing():  # type: ignore[no-untyped-def]
    WRITTEN.append("called")


@pytest.fixture
def canary(tmp_path: Path) -> Callable[[], bool]:
    """Whether anything was called."""
    WRITTEN.clear()
    return lambda: bool(WRITTEN) or (tmp_path / "canary").exists()


def commands(folder: Path) -> dict[str, dict[str, Any]]:
    """Ways to leave a file in a folder, by ``_target_``."""
    file = str(folder / "canary")
    return {
        "a program": {"_target_": "subprocess.Popen", "args": ["touch", file]},
        "a shell": {"_target_": "os.system", "_args_": [f"touch {file}"]},
        "of C": {"_target_": "posix.system", "_args_": [f"touch {file}"]},
        "of another module": {"_target_": "torch.os.system", "_args_": [f"touch {file}"]},
        "deep in another": {"_target_": "torch.serialization.os.system", "_args_": [file]},
        "a call of pathlib": {"_target_": "shutil.copy", "_args_": ["/etc/hostname", file]},
        "open": {"_target_": "builtins.open", "_args_": [file, "w"]},
        "text as code": {"_target_": "builtins.eval", "_args_": [f"open({file!r}, 'w')"]},
        "exec": {"_target_": "builtins.exec", "_args_": [f"open({file!r}, 'w')"]},
        "a pickle": {"_target_": "pickle.loads", "_args_": ["x"]},
        "a checkpoint": {"_target_": "torch.load", "_args_": [file], "weights_only": False},
        "by its own name": {"_target_": "torch.serialization.load", "_args_": [file]},
        "an array": {"_target_": "numpy.load", "_args_": [file], "allow_pickle": True},
        "code of the web": {"_target_": "torch.hub.load", "_args_": ["a/b", "c"]},
        "an import": {"_target_": "importlib.import_module", "_args_": ["this"]},
        "threads": {"_target_": "threading.Thread", "target": None},
        "its own maker": {"_target_": "hydra._internal.instantiate._instantiate2.instantiate"},
        "looked up": {"_target_": "hydra.utils.get_method", "path": "os.system"},
        "looked up by place": {"_target_": "hydra.utils.get_object", "_args_": ["os.system"]},
    }


NAMES = commands(Path())


@pytest.mark.parametrize("name", NAMES)
def test_an_argument_that_runs_programs_or_code_is_not_called(tmp_path, canary, name):
    value = commands(tmp_path)[name]
    for inner, place in (
        (value, "model.part"),
        ([1, {"deep": value}], r"model.part\[1\].deep"),
        ({"_target_": f"{HERE}.Unlike", "arg": value}, "model.part.arg"),
        ({"_target_": "functools.partial", "_args_": [value]}, r"model.part._args_\[0\]"),
        ({**value, "_partial_": True}, "model.part"),
    ):
        with pytest.raises(UsageError, match=rf"^{place}\._target_=.*may run programs") as error:
            instantiated("model", {"part": inner})
        assert "\n" not in str(error.value)
    assert not canary()


def test_what_makes_values_is_called():
    values = {
        "layer": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3},
        "loss": {"_target_": "torch.nn.functional.relu", "_partial_": True},
        "counter": {"_target_": "collections.Counter", "_args_": ["aab"]},
        "path": {"_target_": "pathlib.Path", "_args_": ["/tmp"]},
        "names": {"_target_": "builtins.dict", "a": 1},
        "function": {"_target_": "hydra.utils.get_method", "path": "torch.nn.functional.gelu"},
        "type": {"_target_": "hydra.utils.get_object", "path": "torch.float16"},
        "mine": {"_target_": f"{HERE}.returns_a_callback"},
    }
    made = instantiate("model", values)
    assert made["counter"]["a"] == 2
    assert isinstance(made["loss"], functools.partial)
    assert str(made["type"]) == "torch.float16"


OTHERS = ["subprocess.Popen", "os.system", f"{HERE}.Unlike", f"{HERE}.says_nothing", "os.sep", "os"]


@pytest.mark.parametrize("target", OTHERS)
@pytest.mark.parametrize(
    ("group", "kind"), [("data", LightningDataModule), ("model", LightningModule)]
)
def test_the_class_of_data_and_model_is_looked_at_before_it_is_called(
    tmp_path, canary, target, group, kind
):
    chosen = {"_target_": target, "_args_": [["touch", str(tmp_path / "canary")]]}
    with pytest.raises(UsageError, match=rf"^{group}\._target_=\S+: must be a {kind.__name__}"):
        build._construct(group, chosen, {})
    assert not canary()


@pytest.mark.parametrize("target", OTHERS)
def test_the_class_of_a_callback_too(tmp_path, canary, target):
    chosen = {"_target_": target, "_args_": [["touch", str(tmp_path / "canary")]]}
    with pytest.raises(UsageError, match=r"^callbacks\.x\._target_=\S+: must be a Lightning"):
        _added("x", chosen)
    with pytest.raises(UsageError, match=r"^callbacks\.x\.size\._target_=subprocess.Popen: may"):
        _added("x", {"_target_": f"{HERE}.Mine", "size": {"_target_": "subprocess.Popen"}})
    assert not canary()


def test_a_function_that_says_that_it_returns_a_callback_is_one():
    assert isinstance(_added("x", {"_target_": f"{HERE}.returns_a_callback"}), Timer)
    assert isinstance(_added("x", {"_target_": f"{HERE}.Mine.made"}), Mine)
    with pytest.raises(UsageError, match="must say in its annotation that it returns one"):
        check_kind("callbacks.x", f"{HERE}.says_nothing", (Callback,), "a Lightning Callback")


@pytest.mark.parametrize("target", ["subprocess.Popen", f"{HERE}.Unlike"])
def test_an_export_of_somebody_else_names_no_other_class(tmp_path, canary, target):
    arguments = {"args": ["touch", str(tmp_path / "canary")]}
    state = {"settings": {"model": {"_target_": target}}, "model_arguments": arguments, "data": {}}
    (tmp_path / "training_state.json").write_text(json.dumps(state))
    for call in (lambda: load(tmp_path), lambda: find_class(tmp_path, target)):
        with pytest.raises(UsageError, match=r"which must be a LightningModule$"):
            call()
    assert not canary()
