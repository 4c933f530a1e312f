"""Input that nobody means: one clear line, in a moment, and nothing half-made."""

from __future__ import annotations

import io
import itertools
import json
import os
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.cli import slurm_train
from mlmodeldev.errors import UsageError
from mlmodeldev.fetch import unpack
from mlmodeldev.fetch.source import Source
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.settings.identity import resolve_ties
from mlmodeldev.settings.tracking_address import tracking_address
from mlmodeldev.slurm import snapshot
from mlmodeldev.slurm.submission import Submission
from mlmodeldev.sweep import load
from mlmodeldev.tracking.loggers import _what_is_missing
from mlmodeldev.tracking.registry_command import main as registry
from tests.slurm.stubs import Stubs

DIGITS = "9" * 5000


def written(folder: Path, parameters: dict[str, Any] | str, **more: Any) -> Path:
    """Write a sweep file; a text is its YAML from ``parameters:`` on."""
    file = folder / "sweep.yaml"
    if isinstance(parameters, str):
        file.write_text(f"name: odd\nprogram: trainer.py\nmethod: grid\nparameters:\n{parameters}")
        return file
    content = {"name": "odd", "program": "trainer.py", "method": "grid", "parameters": parameters}
    file.write_text(json.dumps({**content, **more}))
    return file


@pytest.mark.parametrize("number", [DIGITS, "0x" + "f" * 5000, "0o" + "7" * 9000])
def test_a_number_of_thousands_of_digits_in_a_sweep_file_is_refused(tmp_path: Path, number) -> None:
    text = f"  training.max_epochs: {{values: [{number.replace('0o', '0')}, 1]}}\n"
    with pytest.raises(UsageError, match=r"sweep.yaml:5: .*cannot be read as an integer"):
        list(load(written(tmp_path, text)).trials())


@pytest.mark.parametrize("key", ["optimizer.lr", "training.seed", "training.max_epochs"])
def test_a_number_of_thousands_of_digits_on_the_command_line_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match=f"^{key}: a number of more than 4,000 digits"):
        compose_settings([f"{key}={DIGITS}"])


@pytest.mark.parametrize("kind", ["value", "values"])
def test_ties_may_be_thousands_deep(tmp_path: Path, kind: str) -> None:
    ties = {f"model.p{i}": f"${{model.p{i + 1}}}" for i in range(5000)}
    parameters: dict[str, Any] = {
        name: {kind: [tie] if kind == "values" else tie} for name, tie in ties.items()
    }
    parameters["model.p5000"] = {"values": [1, 2]}
    trials = list(load(written(tmp_path, parameters)).trials())
    assert len({trial.id for trial in trials}) == 2
    assert set(resolve_ties({**ties, "model.p5000": 3}).values()) == {3}
    ties["model.p5000"] = "${model.p0}"
    with pytest.raises(UsageError, match=r"form a circle: model\.p0 -> model\.p1"):
        resolve_ties(ties)


@pytest.mark.parametrize("values", [[1], [1, 2, 3]])
def test_ten_thousand_swept_parameters_take_seconds(tmp_path: Path, values: list[int]) -> None:
    file = written(tmp_path, {f"model.p{i}": {"values": values} for i in range(10_000)})
    begun = time.process_time()
    trials = list(itertools.islice(load(file).trials(), 3))
    assert time.process_time() - begun < 10
    assert len({trial.id for trial in trials}) == len(trials) == min(3, 10_000 ** (len(values) - 1))
    assert trials[0].name.startswith("p0=1,p1=1,")
    assert len(trials[0].overrides) == 10_000


def test_an_archive_of_thousands_of_folders_in_each_other_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "deep.tar", "w") as archive:
        member = tarfile.TarInfo("/".join(["d"] * 2000) + "/file")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(UsageError, match=r"deep.tar: 2001 folders deep"):
        unpack(tmp_path / "deep.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("url", ["http://[::1", "http://host:port/file", "https://host:99999999/a"])
def test_an_address_that_is_none_is_refused_in_a_line(url: str, monkeypatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(UsageError, match=r"Source\.urls: .* is no address"):
        Source(url)
    with pytest.raises(UsageError, match=r"WANDB_BASE_URL: .* is no address"):
        _what_is_missing(url)


def test_an_address_of_mlflow_that_is_none_is_refused_in_a_line() -> None:
    with pytest.raises(ValueError, match="is no address: Invalid IPv6 URL"):
        tracking_address("http://[::1")


@pytest.mark.parametrize("action", [["list"], ["show", "digits"], ["promote", "digits"]])
def test_a_registry_that_is_not_there_is_an_error(tmp_path: Path, capsys, action) -> None:
    (tmp_path / "models").mkdir()
    given = tmp_path / "modles"
    assert registry([*action, "--registry", str(given)]) == 2
    printed = capsys.readouterr()
    assert printed.err == (
        f"mlmodeldev registry: --registry {given}: there is no such folder; did you mean"
        " 'models'?\n"
    )
    assert printed.out == ""


def test_sync_takes_settings_as_the_other_commands_do(tmp_path: Path, capsys) -> None:
    assert slurm_train(["sync", f"artefacts.runs_dir={tmp_path}/nowhere"]) == 2
    printed = capsys.readouterr()
    assert f"artefacts.runs_dir={tmp_path}/nowhere: there is no such folder" in printed.err
    assert "usage:" not in printed.err


# --- copies of the code


def project(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "trainer.py").write_text("# mine\n")
    return folder


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_link_to_a_place_of_keys_is_not_copied_for_jobs(tmp_path: Path, as_folder: bool) -> None:
    """No pattern tells such a key, for its file is binary or of an unheard-of kind."""
    root, home = project(tmp_path / "project"), tmp_path / "home"
    hidden = home / ".aws" / "credentials"
    hidden.parent.mkdir(parents=True)
    hidden.write_bytes(b"\0secret")
    link = root / "settings" if as_folder else root / "credentials.txt"
    link.symlink_to(hidden.parent if as_folder else hidden)
    if as_folder:  # as git lists what lies behind a link that was a folder before
        files = {"settings/credentials": link / "credentials"}
    else:
        files = snapshot.snapshot_files(root)
    with pytest.raises(UsageError, match=r"is a link to .*/\.aws/credentials, a hidden place"):
        snapshot.check_files(files)
    if not as_folder:
        with pytest.raises(UsageError):
            snapshot.take_snapshot(root, tmp_path / "runs")
        assert not list((tmp_path / "runs").rglob("*.txt"))


def test_a_link_to_shared_code_is_copied(tmp_path: Path) -> None:
    root = project(tmp_path / "project")
    (tmp_path / "shared.py").write_text("VALUE = 1\n")
    (root / "shared.py").symlink_to(tmp_path / "shared.py")
    copy = snapshot.take_snapshot(root, tmp_path / "runs")
    assert (copy / "shared.py").read_text() == "VALUE = 1\n"


def test_clean_keeps_code_of_jobs_that_slurm_has_not_answered_for_yet(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    Stubs(tmp_path, monkeypatch).add("squeue", ":")
    runs = tmp_path / "runs"
    copies = {name: runs / snapshot.FOLDER / name for name in ("open", "young", "old")}
    for copy in copies.values():
        copy.mkdir(parents=True)
        (copy / "trainer.py").touch()
    submission = Submission.new(runs / "odd", copies["open"])
    submission.intend([["ab12cd34"]])
    for name in ("open", "old"):
        os.utime(copies[name], (0, 0))
    file = written(tmp_path, {"optimizer.lr": {"values": [0.1, 0.2]}})
    words = ["--sweep", str(file), f"artefacts.runs_dir={runs}", "logger=csv", "--json"]
    assert slurm_train(["clean", *words]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": ["old"]}
    assert {each.name for each in (runs / snapshot.FOLDER).iterdir()} == {"open", "young"}


# --- what the command line sets


def test_a_setting_of_a_file_that_only_the_sweep_chooses(tmp_path: Path, capsys) -> None:
    chosen = {"model": {"value": "text_classifier"}, "optimizer.lr": {"values": [0.1, 0.2]}}
    words = [f"artefacts.runs_dir={tmp_path}/runs", "logger=csv", "data.max_length=33"]
    file = written(tmp_path, {**chosen, "data": {"values": ["cola", "sst2"]}})
    assert slurm_train(["plan", "--sweep", str(file), "--json", *words]) == 0
    assert len(json.loads(capsys.readouterr().out)["trials"]) == 4
    file = written(
        tmp_path, {"optimizer.lr": {"value": 0.1}, "data": {"values": ["cola", "digits"]}}
    )
    assert slurm_train(["plan", "--sweep", str(file), *words]) == 2
    line = capsys.readouterr().err
    assert "data.max_length: no such setting" in line
    assert "[with data=digits]" in line
    assert slurm_train(["plan", "--sweep", str(file), "optimizer.lrr=1"]) == 2
    assert "did you mean 'lr'?" in capsys.readouterr().err


def test_a_trial_that_logs_offline_is_not_uploaded() -> None:
    """What is not uploaded waits for sync, and is not removed before."""
    from mlmodeldev.tracking.wandb_logger import WandbTrialLogger

    class Rows:
        def finish(self, *_: Any) -> bool:
            return True

    for offline in (True, False):
        logger = WandbTrialLogger.__new__(WandbTrialLogger)
        logger.__dict__.update(_stand_in(offline), _rows=Rows())
        assert logger.end("done") is not offline


def _stand_in(offline: bool) -> dict[str, Any]:
    from types import SimpleNamespace

    background = SimpleNamespace(drain=lambda seconds: True)
    run = SimpleNamespace(offline=offline, summary={})
    return {"_background": background, "run": run, "_extra": {}, "_media": {}, "_lost": False}
