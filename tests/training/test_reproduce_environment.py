"""``trial reproduce --environment``: the recorded packages, installed beside the run."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from mlmodeldev.slurm.trial_command import main
from mlmodeldev.trial.environment import environment_of, origins
from mlmodeldev.trial.virtual_environment import MARK
from tests.training.pretended_project import Project, change_json

ROOT = Path(__file__).resolve().parents[2]


def wheel(folder: Path, name: str, version: str, *files: Path, text: str = "") -> Path:
    """Write a wheel of one module, or of files of an installed package."""
    file = folder / f"{name}-{version}-py3-none-any.whl"
    place = f"{name}-{version}.dist-info"
    contents = {f"{name}/__init__.py": text.encode()}
    if files:
        contents = {f"{each.parent.name}/{each.name}": each.read_bytes() for each in files}
    contents[f"{place}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    )
    contents[f"{place}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{path},,\n" for path in [*contents, f"{place}/RECORD"])
    contents[f"{place}/RECORD"] = record.encode()
    with zipfile.ZipFile(file, "w") as opened:
        for path, content in contents.items():
            opened.writestr(path, content)
    return file


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that pip can have: a folder."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_USER", "1")  # as clusters set it, where it would be refused
    wheel(folder, "torch", "2.0+cpu")
    wheel(folder, "tiny", "1.0", text="VALUE = 7\n")
    wheel(folder, "tiny", "2.0", text="VALUE = 8\n")
    wheel(folder, "pyyaml", yaml.__version__, *Path(yaml.__file__).parent.glob("*.py"))
    return folder


@pytest.fixture
def trial(tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trial whose number depends on a package that is not in this environment."""
    project = Project(tmp_path / "project")
    project.edit("model.py", "SCALE = 2", "import tiny\n\nSCALE = tiny.VALUE")
    beside = tmp_path / "beside"
    with zipfile.ZipFile(wheels / "tiny-1.0-py3-none-any.whl") as opened:
        opened.extractall(beside)
    monkeypatch.chdir(project.root)
    monkeypatch.delenv("MLMODELDEV_PROJECT", raising=False)
    monkeypatch.delitem(sys.modules, "trainer", raising=False)  # whose folder would be the project
    folder = project.train("a", beside=beside)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    recorded = json.loads((folder / "environment.json").read_text())["packages"]
    assert recorded["tiny"] == "1.0"
    packages = {"tiny": "1.0", "pyyaml": yaml.__version__}
    change_json(folder / "environment.json", "packages", value=packages)
    return folder


def line(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Reproduce, which is refused; return the last line, behind those of progress."""
    capsys.readouterr()
    assert main(["reproduce", "a", *options]) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_the_recorded_packages_are_built_and_gone_on_with(
    trial: Path, wheels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, version in {"absent": "3.0", "torch": "2.0+cpu"}.items():
        change_json(trial / "environment.json", "packages", name, value=version)
    refused = line(capsys, "--environment")
    assert "no index has absent==3.0; install them by hand" in refused
    place = trial.parents[1] / ".reproduced" / "single" / "a"
    environment = place / "environment"
    assert not (environment / MARK).exists()
    assert not (place / "runs").exists()
    wheel(wheels, "absent", "3.0")
    # as a kill in the middle of pip leaves it
    (environment / "installing.json").write_text('["tiny"]')
    (module,) = environment.glob("lib/python*/site-packages/tiny/__init__.py")
    module.unlink()
    capsys.readouterr()
    assert main(["reproduce", "a", "--environment", "--json"]) == 0
    printed = capsys.readouterr()
    assert "environment: 2 of 4 packages; installing absent ..." in printed.err
    report = json.loads(printed.out)
    assert (report["verdict"], report["differences"]) == ("reproduced", [])
    assert Path(report["folder"]) == place
    assert module.read_text() == "VALUE = 7\n"
    wanted = json.loads((trial / "environment.json").read_text())["packages"]
    again = json.loads((place / "runs/single/a/environment.json").read_text())
    assert again["packages"] == wanted
    assert json.loads((environment / MARK).read_text()) == wanted


def test_another_version_of_one_package_is_named(
    trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The environment of a former run, in which one package was exchanged since."""
    change_json(trial / "environment.json", "packages", "tiny", value="2.0")
    assert main(["reproduce", "a", "--environment", "--to", str(tmp_path / "b")]) == 1
    printed = capsys.readouterr().out
    assert "metric: train/loss at step 0" in printed  # nothing of the environment differs
    change_json(trial / "environment.json", "packages", "tiny", value="1.0")
    python = str(tmp_path / "b" / "environment" / "bin" / "python")
    status = main(["reproduce", "a", "--python", python, "--to", str(tmp_path / "c")])
    printed = capsys.readouterr().out
    assert status == 1
    assert printed.splitlines()[-1].endswith("compared): environment: tiny: 1.0 | 2.0")


def test_what_can_not_be_built_is_one_line(
    trial: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "drop one" in line(capsys, "--environment", "--dry-run")
    file, place = trial / "environment.json", "runs/.reproduced/single/a"
    change_json(trial / "trial.json", "software", "library_digest", value="0" * 16)
    assert "no index has mlmodeldev==" in line(capsys, "--environment", "--to", place + "-1")
    assert "--python /no/python" in line(
        capsys, "--environment", "--python", "/no/python", "--to", place + "-4"
    )
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    change_json(file, "packages", "absent", value="3.0")
    refused = line(capsys, "--environment")
    assert refused.startswith("mlmodeldev trial: environment: pip could not install")
    assert refused.endswith("the same command goes on")
    change_json(file, "python", value="3.1.4")
    assert "there is no python3.1 on the PATH" in line(
        capsys, "--environment", "--to", place + "-2"
    )
    change_json(file, "packages", value={})
    assert "keeps no environment.json" in line(capsys, "--environment", "--to", place + "-3")


def test_packages_that_no_index_gave_are_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789" * 4
    for name, content in {
        "edited": {"url": "file:///data/me/my%20nets", "dir_info": {"editable": True}},
        "built": {"url": "file:///build/place", "dir_info": {}},
        "cloned": {
            "url": "https://host/x.git",
            "vcs_info": {"vcs": "git", "commit_id": commit},
            "subdirectory": "py",
        },
        "torn": "",
    }.items():
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "direct_url.json").write_text(json.dumps(content))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert origins() == {
        "cloned": f"git+https://host/x.git@{commit}#subdirectory=py",
        "edited": "/data/me/my nets",
    }


def test_packages_of_pythonpath_do_not_count_where_only_the_environment_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stray-1.0.dist-info").mkdir()
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert environment_of(str(python))["packages"]["stray"] == "1.0"
    assert "stray" not in environment_of(str(python), isolated=True)["packages"]
