"""Registered models in a plain folder, and which registry a name stands for."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.tracking import registry_folder
from mlmodeldev.tracking.registered_trial import register_trial, source_trial
from mlmodeldev.tracking.registry import (
    Aliases,
    Version,
    check_name,
    find_version,
    former_champions,
    model_folder,
    promote,
    rollback,
)
from mlmodeldev.tracking.registry_command import main
from mlmodeldev.tracking.registry_folder import FolderRegistry
from mlmodeldev.tracking.registry_place import registry_at
from mlmodeldev.tracking.registry_remote import RemoteRegistry
from mlmodeldev.trial.named import named_folder
from tests.conftest import TrialResult

_fork = multiprocessing.get_context("fork")


def export(folder: Path, text: str) -> Path:
    """Write what stands for an export."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(text)
    (folder / "training_state.json").write_text("{}")
    return folder


@pytest.fixture
def registry(tmp_path: Path) -> FolderRegistry:
    """A registry with three versions of ``digits``."""
    made = FolderRegistry(tmp_path / "registry")
    for number in (1, 2, 3):
        version = made.add("digits", export(tmp_path / str(number), f"weights {number}"), {}, None)
        assert version.number == number
    return made


def test_promote_and_rollback_move_the_champion(registry: FolderRegistry) -> None:
    assert registry.aliases("digits").challenger == 3
    assert promote(registry, "digits", 1).former == ()
    aliases = promote(registry, "digits")
    assert (aliases.champion, aliases.challenger, aliases.former) == (3, None, (1,))
    assert promote(registry, "digits", 2).former == (1, 3)
    assert promote(registry, "digits", 2).former == (1, 3)  # it is champion already
    assert [rollback(registry, "digits").champion for _ in range(2)] == [3, 1]
    with pytest.raises(UsageError, match="no champion before"):
        rollback(registry, "digits")


def test_a_version_has_many_names(registry: FolderRegistry, tmp_path: Path) -> None:
    promote(registry, "digits", 2)
    names = {
        "@champion": 2,
        "/Production": 2,
        "@challenger": 3,
        "/staging": 3,
        "/1": 1,
        "/latest": 3,
    }
    for name, number in names.items():
        folder = model_folder(f"models:/digits{name}", tmp_path, registry)
        assert (folder / "model.safetensors").read_text() == f"weights {number}"


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("models:/digit/1", "registry; did you mean 'digits'?"),
        ("models:/digits", "models:/NAME@champion or models:/NAME/3 would"),
        ("models:/digits/7", "digits: has no version 7 (there are 1, 2, 3, latest, challenger)"),
        ("models:/digits@champoin", "did you mean 'champion'?"),
        ("models:/digits@champion", "digits: has no champion (mlmodeldev registry promote"),
        ("models:/../1", "'..': a model's name has letters"),
    ],
)
def test_what_names_no_version(
    registry: FolderRegistry, tmp_path: Path, uri: str, line: str
) -> None:
    with pytest.raises(UsageError) as caught:
        model_folder(uri, tmp_path, registry)
    assert line in str(caught.value)


def test_the_same_model_is_one_version(registry: FolderRegistry, tmp_path: Path) -> None:
    assert registry.add("digits", tmp_path / "2", {}, None).number == 2
    assert len(registry.versions("digits")) == 3
    assert registry.aliases("digits").challenger == 2


def _add(root: Path, number: int, barrier: Any) -> None:
    model = export(root / "models" / str(number), f"weights {number}")
    barrier.wait(60)
    FolderRegistry(root / "registry").add("digits", model, {"by": number}, None)


def test_many_at_once_get_versions_of_their_own(tmp_path: Path) -> None:
    barrier = _fork.Barrier(6)
    processes = [_fork.Process(target=_add, args=(tmp_path, n, barrier)) for n in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    versions = FolderRegistry(tmp_path / "registry").versions("digits")
    assert [version.number for version in versions] == [1, 2, 3, 4, 5, 6]
    assert {version.tags["by"] for version in versions} == set(range(6))


def test_a_full_disk_is_one_line_and_no_version(registry: FolderRegistry, tmp_path: Path) -> None:
    model = export(tmp_path / "large", "x" * 100_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(
            UsageError, match=r"model\.safetensors: the file-size limit is reached$"
        ):
            registry.add("digits", model, {}, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [version.number for version in registry.versions("digits")] == [1, 2, 3]
    assert {path.name for path in (registry.folder / "digits").iterdir()} == {
        *("1", "2", "3", "aliases.json", ".lock")
    }


def _add_and_die(root: Path, name: str, model: Path) -> None:
    """Die where a file of this name is about to be written."""
    real = registry_folder.write_json

    def dying(path: Path, value: Any) -> None:
        if path.name == name:
            os.kill(os.getpid(), signal.SIGKILL)
        real(path, value)

    registry_folder.write_json = dying
    FolderRegistry(root).add("digits", model, {}, None)


@pytest.mark.parametrize(("name", "count"), [("version.json", 3), ("aliases.json", 4)])
def test_a_kill_leaves_whole_versions_only(
    registry: FolderRegistry, tmp_path: Path, name: str, count: int
) -> None:
    model = export(tmp_path / "4", "weights 4")
    process = _fork.Process(target=_add_and_die, args=(registry.folder, name, model))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert len(registry.versions("digits")) == count
    assert registry.aliases("digits").challenger == 3
    assert registry.add("digits", model, {}, None).number == 4
    assert registry.aliases("digits").challenger == 4


# --- trials


@pytest.fixture
def runs(tmp_path: Path, digits_trial: TrialResult) -> Path:
    """A sweep of two trials that have ended, and one that runs no more but has not."""
    folder = tmp_path / "runs"
    for name, value, state in (("a", 0.5, "done"), ("b", 0.9, "done"), ("c", 0.99, "interrupted")):
        trial = folder / "digits" / name
        shutil.copytree(digits_trial.folder, trial)
        (trial / "best" / "note.txt").write_text(name)
        record = digits_trial.record
        record |= {"state": state, "metric": {**record["metric"], "value": value}}
        (trial / "trial.json").write_text(json.dumps(record))
    (folder / "digits" / "b" / "cka").mkdir()
    (folder / "digits" / "b" / "cka" / "towers.png").write_bytes(b"picture")
    return folder


def test_the_best_trial_of_a_sweep_is_registered_with_where_it_comes_from(
    runs: Path, digits_trial: TrialResult
) -> None:
    registry = FolderRegistry(runs / ".registry")
    folder = source_trial("digits", runs)
    assert folder == runs / "digits" / "b"
    version, is_new = register_trial(registry, "digits", folder)
    assert is_new
    tags = find_version(registry, "digits", "1").tags
    assert (tags["trial"], tags["commit"]) == ("digits/b", digits_trial.record["sha"])
    assert tags["metric"]["value"] == 0.9
    assert len(tags["data"]) == 16
    assert Path(tags["cka"]).read_bytes() == b"picture"
    copy = registry.model("digits", 1)
    assert (copy / "note.txt").read_text() == "b"
    record = json.loads((folder / "trial.json").read_text())
    (entry,) = record["registered"]
    assert (entry["name"], entry["version"]) == ("digits", 1)
    assert entry["registry"] == str(runs / ".registry")
    assert register_trial(registry, "digits", folder) == (version, False)
    from inference import find_export

    with pytest.raises(UsageError, match="no such trial"):
        find_export("digits", runs, "best")  # the registry's folder of that name is no trial
    shutil.rmtree(folder)
    assert (copy / "model.safetensors").is_file()


def test_a_trial_that_is_not_done_is_refused(runs: Path) -> None:
    registry = FolderRegistry(runs / ".registry")
    with pytest.raises(UsageError, match="is interrupted; only a trial that is done"):
        register_trial(registry, "digits", source_trial("digits/c", runs))
    assert registry.names() == []


def test_a_bare_name_of_a_sweep_and_a_trial_is_refused(tmp_path: Path) -> None:
    for place in ("first/first", "single/first"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "trial.json").write_text("{}")
    with pytest.raises(UsageError, match="a sweep and a trial have this name"):
        named_folder("first", tmp_path)
    assert named_folder("single/first", tmp_path) == tmp_path / "single/first"
    assert named_folder(str(tmp_path / "first"), tmp_path) == tmp_path / "first"


@pytest.mark.parametrize("name", ["latest", "Champion"])
def test_an_alias_is_no_models_name(name: str) -> None:
    with pytest.raises(UsageError, match="is the name of an alias"):
        check_name(name)


# --- which registry is meant


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("mlflwo", "no such folder; did you mean 'mlflow'? (a new folder: ./mlflwo)"),
        ("sqlite:///runs/mlflow.db", "write mlflow: before it"),
        ("wandbb:team/digits", "did you mean 'wandb'?"),
        ("wandb:", "nothing follows the colon"),
        ("wandb:vision", "did you mean 'wandb-registry-vision'?"),
    ],
)
def test_what_is_no_registry(tmp_path: Path, place: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        registry_at(place, tmp_path)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("place", "environment", "line"),
    [
        ("mlflow", {}, "registry mlflow: the package mlflow is not installed; pip install 'mlf"),
        ("wandb", {"WANDB_MODE": "offline"}, "can't be had with WANDB_MODE=offline; unset it"),
        ("wandb", {"WANDB_BASE_URL": "http://127.0.0.1:9"}, "http://127.0.0.1:9: ConnectionError"),
    ],
)
def test_a_registry_that_is_away_is_one_line(
    tmp_path: Path,
    place: str,
    environment: dict[str, str],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key = "a1b2" * 10
    given = {"WANDB_API_KEY": key, "WANDB_MODE": "online", **environment}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main(["list", "--registry", place, "--runs-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert line in error
    assert key not in error
    assert list(tmp_path.iterdir()) == []


class OneOfTwo(RemoteRegistry):
    """On a server where another makes version 2 champion right after each of our changes."""

    now = Aliases(champion=1, challenger=3)

    def aliases(self, name: str) -> Aliases:
        return self.now

    def versions(self, name: str) -> list[Version]:
        return [Version(number, 0.0, "", {}) for number in (1, 2, 3)]

    def _write(self, name: str, before: Aliases, after: Aliases) -> None:
        self.now = Aliases(champion=2, former=(1,))

    names = _store = _fetch = None  # type: ignore[assignment]
    _asking = contextlib.nullcontext  # type: ignore[assignment]


def test_who_is_overtaken_on_a_server_gets_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another has made version 2 the champion at the same"):
        promote(OneOfTwo("server", tmp_path), "digits")


@pytest.mark.parametrize(
    ("champions", "champion", "former"),
    [
        ([], None, ()),
        ([1, 3, 1], 1, (1, 3)),
        ([1, 3, 1], 3, (1,)),  # a rollback was cut off before the list was shortened
        ([1, 3], 1, ()),  # a promotion was cut off before it had its champion
        ([1, 3], 2, (1, 3)),  # another was made champion past us
    ],
)
def test_former_champions_of_a_list_that_is_a_change_ahead(
    champions: list[int], champion: int | None, former: tuple[int, ...]
) -> None:
    assert former_champions(champions, champion) == former
