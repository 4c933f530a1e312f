"""``mlmodeldev init``: what it writes and asks; the whole project, or nothing."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlmodeldev.errors import UsageError
from mlmodeldev.template import init, origin, swap
from mlmodeldev.template.record import read_record
from mlmodeldev.template.source import Answers, Template, load_template

EXAMPLES = {
    "examples/texts.py": b"from examples.words import words\n",
    "examples/words.py": b"",
    "examples/pictures.py": b"",
    "conf/model/texts.yaml": b"_target_: examples.texts.Model\n",
    "conf/data/texts.yaml": b"_target_: examples.texts.Data\n",
    "conf/data/pictures.yaml": b"_target_: examples.pictures.Data\n",
    "examples/tables.py": b"",
    "conf/model/tables.yaml": b"_target_: examples.tables.Model\n",
    "conf/experiment/both.yaml": b"defaults:\n  - override /model: texts\n"
    b"  - override /data: tables\n",
    "conf/data/tables.yaml": b"# as in examples.pictures\n_target_: examples.tables.Data\n",
}


@pytest.mark.parametrize("example", [None, *load_template().examples])
def test_no_file_of_settings_names_an_example_that_is_not_there(example: str | None) -> None:
    files = load_template().render(answers(example=example))
    named = {
        str(name)
        for place, text in files.items()
        if place.startswith("conf/")
        for name in re.findall(r"_target_: examples\.(\w+)", text.decode())
    }
    assert {name for name in files if name.startswith("examples/")} - {"examples/__init__.py"} >= {
        f"examples/{name}.py" for name in named
    }
    assert (example in named) or not example


@pytest.fixture
def template() -> Template:
    real = load_template()
    own = {name: content for name, content in real.files.items() if "examples" not in name}
    own = {name: content for name, content in own.items() if b"examples." not in content}
    return replace(real, files={**own, **EXAMPLES})


def answers(**given: Any) -> Answers:
    return Answers(**{"name": "mine", "requirement": "-e /somewhere", **given})


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that a refusal prints."""
    assert init.main(arguments) == 2
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 1
    return shown.err


def test_the_answers_stand_in_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "mine"
    given = [str(folder), "--name", "ours", "--cluster", "generic", "--tracker", "tensorboard"]
    assert init.main([*given, "--yes"]) == 0
    defaults = yaml.safe_load((folder / "conf" / "config.yaml").read_text())["defaults"]
    chosen = {
        key: value for entry in defaults if isinstance(entry, dict) for key, value in entry.items()
    }
    assert (chosen["cluster"], chosen["logger"]) == ("generic", "tensorboard")
    wandb = yaml.safe_load((folder / "conf" / "logger" / "wandb.yaml").read_text())
    assert wandb["wandb"]["project"] == "ours"
    assert yaml.safe_load((folder / "environment.yml").read_text())["name"] == "ours"
    assert f"-e {origin.CLONE}[tensorboard]\n" in (folder / "requirements.txt").read_text()
    assert (folder / "slurm" / "agent.sh").stat().st_mode & 0o111
    record = read_record(folder)
    assert record.answers.cluster == "generic"
    assert all((folder / name).read_bytes() == text for name, text in record.pristine.items())
    assert not [text for text in record.pristine.values() if b"{{" in text]


def test_a_project_is_no_copy_of_the_clone(tmp_path: Path) -> None:
    init.create(tmp_path / "mine", load_template(), answers())
    there = {path.name for path in (tmp_path / "mine").iterdir()}
    assert not there & {"mlmodeldev", "docs", "benchmarks", "tools", "Makefile", "pyproject.toml"}
    assert [path.name for path in (tmp_path / "mine" / "tests").iterdir()] == ["test_mine.py"]
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("example", "there"),
    [
        (None, set()),
        ("texts", set(EXAMPLES) - {"examples/pictures.py", "conf/data/pictures.yaml"}),
        ("tables", set(EXAMPLES) - {"examples/pictures.py", "conf/data/pictures.yaml"}),
        ("pictures", {"examples/pictures.py", "conf/data/pictures.yaml"}),
    ],
)
def test_an_example_comes_with_what_it_needs(
    template: Template, example: str | None, there: set[str]
) -> None:
    assert set(template.render(answers(example=example))) & set(EXAMPLES) == there


def test_it_asks_in_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replies = {"name": "", "cluster": "generic", "tracker": "csv", "example": ""}
    wanted: list[str] = []

    def reply(question: str) -> str:
        wanted.append(question)
        return replies[question.split(maxsplit=1)[0]]

    monkeypatch.setattr("builtins.input", reply)
    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True)
    assert init.main([str(tmp_path / "my project")]) == 0
    assert wanted[0] == "name [my-project]: "
    assert wanted[2] == "tracker (csv, wandb, mlflow, clearml, tensorboard) [wandb]: "
    record = read_record(tmp_path / "my project")
    assert (record.answers.name, record.answers.tracker) == ("my-project", "csv")
    wanted.clear()
    assert init.main([str(tmp_path / "other"), "--yes"]) == 0
    assert wanted == []


def test_a_folder_that_holds_something_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").touch()
    assert "is not empty (it has notes.txt)" in printed([str(tmp_path), "--yes"], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert "is a file" in printed([str(tmp_path / "notes.txt"), "--yes"], capsys)


def test_an_empty_folder_and_a_new_repository_will_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert init.main([str(tmp_path / "empty"), "--yes"]) == 0
    subprocess.run(["git", "init", "-q", tmp_path / "cloned"], check=True)
    assert init.main([str(tmp_path / "cloned"), "--yes"]) == 0
    assert (tmp_path / "cloned" / "trainer.py").is_file()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--cluster", "generi"], "--cluster generi: not there; did you mean 'generic'?"),
        (["--tracker", "wandbb"], "--tracker wandbb: not there; did you mean 'wandb'?"),
        (["--example", "nothing"], "--example nothing: not there"),
        (["--name", "a b"], "--name a b: letters, digits"),
        (["--source", "mlmodeldev"], "--source mlmodeldev: must be"),
        (["--source", "git+https://example.org/x.git@main"], "must be"),
        (["--source", "git+https://me:pass@example.org/x.git@0123abc"], "password"),
        (["--yess"], "unrecognized arguments: --yess"),
    ],
)
def test_bad_answers_are_one_line_and_nothing_is_written(
    given: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = printed([str(tmp_path / "mine"), "--yes", *given], capsys)
    assert line.startswith("mlmodeldev init: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0

    def full(path: Path, content: bytes) -> None:
        nonlocal written
        written += 1
        if written == 5:
            raise OSError(28, "No space left on device")
        swap.write_file(path, content)

    monkeypatch.setattr(init, "write_file", full)
    with pytest.raises(UsageError, match="no space left"):
        init.create(tmp_path / "mine", load_template(), answers())
    assert list(tmp_path.iterdir()) == []


def test_a_killed_init_in_an_empty_folder_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(root: Path) -> bool:
        raise RuntimeError("killed")

    monkeypatch.setattr(swap, "finish", killed)
    with pytest.raises(RuntimeError):
        init.create(tmp_path, load_template(), answers())
    monkeypatch.undo()
    assert not (tmp_path / "trainer.py").exists()
    assert init.main([str(tmp_path), "--yes"]) == 0
    assert (tmp_path / "trainer.py").is_file()
    assert read_record(tmp_path).answers.requirement == "-e /somewhere"


HASH = "ab" * 32


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (
            {"url": "file:///wheels/m-1.whl", "archive_info": {"hashes": {"sha256": HASH}}},
            f"mlmodeldev @ file:///wheels/m-1.whl#sha256={HASH}",
        ),
        (
            {
                "url": "https://example.org/m.git",
                "vcs_info": {"vcs": "git", "commit_id": "0123abc"},
                "subdirectory": "lib",
            },
            "mlmodeldev @ git+https://example.org/m.git@0123abc#subdirectory=lib",
        ),
        ({"url": "file:///a%20b", "dir_info": {"editable": True}}, '-e "/a b"'),
        ({"url": "file:///clone", "dir_info": {}}, "mlmodeldev @ file:///clone"),
    ],
)
def test_the_dependency_is_written_as_where_it_came_from(
    record: dict[str, Any], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Recorded:
        def read_text(self, name: str) -> str:
            assert name == "direct_url.json"
            return json.dumps(record)

    monkeypatch.setattr(origin, "CLONE", Path("/nowhere"))
    monkeypatch.setattr(origin, "is_clone", lambda folder=None: False)
    monkeypatch.setattr(origin, "distribution", lambda name: Recorded())
    assert origin.requirement() == line


def test_a_bare_name_is_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "is_clone", lambda folder=None: False)
    monkeypatch.setattr(origin, "_direct_url", lambda: None)
    with pytest.raises(UsageError, match="name it by --source"):
        origin.requirement()


def test_a_source_may_be_named(tmp_path: Path) -> None:
    wheel = tmp_path / "m-1.whl"
    wheel.touch()
    assert origin.requirement(given=str(wheel)) == f"mlmodeldev @ {wheel.as_uri()}"
    assert origin.requirement(["x"], str(origin.CLONE)) == f"-e {origin.CLONE}[x]"
    address = "git+https://example.org/m.git@0123abc"
    assert origin.requirement(["x"], address) == f"mlmodeldev[x] @ {address}"
