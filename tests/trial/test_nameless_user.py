"""A container's user: a number without a name, with no home. Its trials run all the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlmodeldev.data.cache import cached_arrays
from mlmodeldev.machine import user_cache
from mlmodeldev.slurm.query import user_name
from mlmodeldev.tracking import wandb_api
from tests.conftest import Trials

VARIABLES = ("HOME", "USER", "LOGNAME", "USERNAME", "XDG_CACHE_HOME", "WANDB_CONFIG_DIR")


def nameless() -> None:
    """Make this process that user's."""
    for name in VARIABLES:
        os.environ.pop(name, None)
    os.getuid = lambda: 54321


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be that user, once pytest has made its folder, which it names after the one who runs it."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)


@pytest.mark.parametrize(
    "tracker",
    ["logger=csv", pytest.param("logger.wandb.mode=offline", marks=pytest.mark.slow)],
)
def test_a_trial_runs(trials: Trials, tracker: str) -> None:
    trials.data = trials.runs / "data"  # nothing is prepared
    small = ("training.max_epochs=1", "training.limit_train_batches=2", "model.hidden_size=16",
             "model.num_layers=1", "callbacks.cka.enabled=false")  # fmt: skip
    ended = trials.run(tracker, *small, patch=nameless)
    assert ended.code == 0, ended.output
    assert ended.record["state"] == "done"


def test_without_a_home_there_is_no_cache_of_the_users(container: None, tmp_path: Path) -> None:
    assert user_cache() is None
    made = cached_arrays(tmp_path / "shared", "a", {}, lambda folder: {"made": folder.name})
    assert made.folder.parent == tmp_path / "shared"
    assert not (Path.cwd() / "~").exists()


def test_the_server_is_the_default(container: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    assert wandb_api.host() == wandb_api.DEFAULT_HOST
    assert wandb_api.key_for(wandb_api.host()) is None
    assert user_name() is None
