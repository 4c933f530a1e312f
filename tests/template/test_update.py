"""``mlmodeldev update``: a later version comes in, edits stay, all files change or none."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.template import init, swap, update
from mlmodeldev.template.record import read_record
from mlmodeldev.template.source import OWN_FILES, Answers, Template, load_template

LINES = "".join(f"line {number}\n" for number in range(12))
CONFIG = b"defaults:\n  - logger: wandb\n  - cluster: local\n"
WANDB = "conf/logger/wandb.yaml"


def small_template(version: str, **files: str) -> Template:
    """Return a template of few files; keyword ``a__b_yaml`` is a/b.yaml."""
    given = {
        name.replace("__", "/").replace("_yaml", ".yaml").replace("_py", ".py"): text.encode()
        for name, text in files.items()
    }
    own = dict.fromkeys(OWN_FILES.values(), b"{{name}} {{version}}\n")
    return Template(version, {**own, "conf/config.yaml": CONFIG, WANDB: b"project: x\n", **given})


def git(folder: Path, *arguments: str) -> str:
    own = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *own, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


Make = Callable[[Template], Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a project of a template, in a git repository, all committed."""

    def made(template: Template) -> Path:
        root = tmp_path / "mine"
        init.create(root, template, Answers("mine", requirement="-e /somewhere"))
        git(root, "init", "-q")
        commit(root)
        return root

    return made


def commit(root: Path) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-qm", "x")


OLD = small_template(
    "1.0", trainer_py=LINES, conf__training__a_yaml="x: 1\n", conf__gone_yaml="y: 1\n"
)


def state(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(root).parts
    }


def test_unedited_files_are_replaced_added_and_removed(make: Make) -> None:
    root = make(OLD)
    later = small_template("1.1", trainer_py=LINES + "end\n", conf__new_yaml="z: 1\n")
    assert update.update(root, later) == 0
    assert (root / "trainer.py").read_text().endswith("end\n")
    assert (root / "conf" / "new.yaml").read_text() == "z: 1\n"
    assert not (root / "conf" / "gone.yaml").exists()
    assert not (root / "conf" / "training").exists()
    # as if it had been made by the later version
    fresh = root.with_name("fresh")
    record = read_record(root)
    init.create(fresh, later, record.answers)
    assert state(root) == state(fresh)


def test_edits_in_other_places_of_a_file_are_kept(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make(OLD)
    (root / "trainer.py").write_text(LINES.replace("line 9", "mine"))
    (root / "conf" / "training" / "own.yaml").write_text("own: 1\n")
    commit(root)
    later = small_template("1.1", trainer_py=LINES.replace("line 1\n", "theirs\n"))
    assert update.update(root, later) == 0
    text = (root / "trainer.py").read_text()
    assert "mine\n" in text
    assert "theirs\n" in text
    assert (root / "conf" / "training" / "own.yaml").read_text() == "own: 1\n"
    assert "merged    trainer.py: your edits are kept" in capsys.readouterr().out


def conflicting(make: Make) -> tuple[Path, Template]:
    root = make(OLD)
    (root / "trainer.py").write_text(LINES.replace("line 4\n", "mine\n"))
    commit(root)
    return root, small_template("1.1", trainer_py=LINES.replace("line 4\n", "theirs\n"))


def test_a_conflict_is_named_and_nothing_is_written(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    root, later = conflicting(make)
    before = state(root)
    with pytest.raises(UsageError, match="nothing was written"):
        update.update(root, later)
    assert state(root) == before
    shown = capsys.readouterr().err
    assert shown == "conflict  trainer.py: you and 1.1 changed the same lines, from line 5\n"


def test_conflicts_are_written_when_requested(make: Make) -> None:
    root, later = conflicting(make)
    assert update.update(root, later, conflicts=True) == 1
    text = (root / "trainer.py").read_text()
    assert "<<<<<<< yours\nmine\n=======\ntheirs\n>>>>>>> 1.1\n" in text
    with pytest.raises(UsageError, match="changes that are not committed"):
        update.update(root, later)
    (root / "trainer.py").write_text(LINES.replace("line 4\n", "both\n"))
    commit(root)
    assert update.update(root, later) == 0
    assert "both\n" in (root / "trainer.py").read_text()


@pytest.mark.parametrize("name", ["model.py", "README.md"])
def test_a_file_that_is_there_to_be_replaced_is_yours_once_edited(
    make: Make, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old = replace(OLD, files={**OLD.files, name: b"theirs 1\n"})
    root = make(old)
    (root / name).write_text("mine\n")
    commit(root)
    later = replace(old, version="1.1", files={**old.files, name: b"theirs 2\n"})
    assert update.update(root, later) == 0
    assert (root / name).read_text() == "mine\n"
    assert (
        f"kept      {name}: yours; .mlmodeldev/pristine/{name} is 1.1's" in capsys.readouterr().out
    )


def test_what_the_user_removed_does_not_come_back_and_what_they_edited_does_not_go(
    make: Make,
) -> None:
    root = make(OLD)
    (root / "trainer.py").unlink()
    (root / "conf" / "gone.yaml").write_text("y: 2\n")
    commit(root)
    later = small_template("1.1", trainer_py="other\n", conf__training__a_yaml="x: 1\n")
    assert update.update(root, later) == 0
    assert not (root / "trainer.py").exists()
    assert (root / "conf" / "gone.yaml").read_text() == "y: 2\n"


def test_renamed_settings_reach_the_users_files_before_the_merge(make: Make) -> None:
    old = small_template("1.0", conf__training__a_yaml="x: 1\n" + LINES + "y: 2\n")
    root = make(old)
    (root / "conf" / "training" / "a.yaml").write_text("x: 5  # mine\n" + LINES + "y: 2\n")
    (root / "sweep").mkdir()
    (root / "sweep" / "own.yaml").write_text("parameters:\n  training.x: {value: 1}\n")
    commit(root)
    later = small_template("1.1", conf__training__a_yaml="z: 1\n" + LINES + "y: 3\n")
    assert update.update(root, replace(later, renamed={"training.x": "training.z"})) == 0
    assert (
        root / "conf" / "training" / "a.yaml"
    ).read_text() == "z: 5  # mine\n" + LINES + "y: 3\n"
    assert (root / "sweep" / "own.yaml").read_text() == "parameters:\n  training.z: {value: 1}\n"


def test_a_file_that_both_have_added_is_a_conflict_unless_it_is_the_same(make: Make) -> None:
    root = make(OLD)
    (root / "conf" / "new.yaml").write_text("mine: 1\n")
    commit(root)
    kept = {
        name.replace("/", "__").replace(".", "_"): text.decode()
        for name, text in OLD.files.items()
        if name.startswith(("trainer", "conf/training", "conf/gone"))
    }
    with pytest.raises(UsageError, match="nothing was written, for conf/new"):
        update.update(root, small_template("1.1", **kept, conf__new_yaml="theirs: 1\n"))
    assert update.update(root, small_template("1.1", **kept, conf__new_yaml="mine: 1\n")) == 0


def refusal(root: Path, template: Template) -> str:
    before = state(root)
    with pytest.raises(UsageError) as raised:
        update.update(root, template)
    assert state(root) == before
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_is_not_committed_is_refused(make: Make) -> None:
    root = make(OLD)
    later = small_template("1.1", trainer_py="other\n", conf__new_yaml="z: 1\n")
    (root / "notes.txt").write_text("of no concern")
    (root / "conf" / "new.yaml").write_text("would be lost")
    assert "conf/new.yaml has changes that are not committed" in refusal(root, later)
    (root / "conf" / "new.yaml").unlink()
    (root / "trainer.py").write_text("mine\n")
    assert "trainer.py has changes that are not committed" in refusal(root, later)
    git(root, "checkout", "-q", "trainer.py")
    assert update.update(root, later) == 0


def test_other_versions_and_other_folders_are_refused(make: Make, tmp_path: Path) -> None:
    root = make(small_template("1.10"))
    assert "is a project of mlmodeldev 1.10, but 1.9 is installed" in refusal(
        root, small_template("1.9")
    )
    record = root / ".mlmodeldev" / "project.json"
    record.write_text(record.read_text().replace('"format": 1', '"format": 2'))
    assert "is a project of mlmodeldev 1.10" in refusal(root, small_template("2.0"))
    record.write_text("{")
    assert "is damaged" in refusal(root, small_template("2.0"))
    assert "no project that mlmodeldev init wrote" in refusal(tmp_path, OLD)


def test_without_git_there_is_no_way_back(tmp_path: Path) -> None:
    init.create(tmp_path / "mine", OLD, Answers("mine"))
    assert "no git repository" in refusal(tmp_path / "mine", small_template("1.1"))


def test_a_project_below_its_repositorys_top_is_updated(make: Make, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    init.create(tmp_path / "below", OLD, Answers("mine"))
    commit(tmp_path)
    (tmp_path / "elsewhere.txt").write_text("not the project's")
    assert update.update(tmp_path / "below", small_template("1.1", trainer_py="new\n")) == 0
    assert (tmp_path / "below" / "trainer.py").read_text() == "new\n"


def test_the_command_line_answers_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert update.main([str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    root = tmp_path / "mine"
    init.create(root, load_template(), Answers("mine"))
    git(root, "init", "-q")
    commit(root)
    assert update.main([str(root)]) == 0


BEFORE = {"a": b"old", "b/c": b"old", "gone": b"old", "same": b"same"}
AFTER: dict[str, bytes | None] = {**BEFORE, "a": b"new", "b/c": b"", "gone": None, "d/e": b"new"}


def _killed_at(call: int, root: Path) -> bool:
    """Write in a process that dies at its nth change of the disk; return whether it died."""
    child = os.fork()
    if not child:
        calls = 0

        def dying(function: Callable[..., object]) -> Callable[..., object]:
            def wrapped(*arguments: object, **options: object) -> object:
                nonlocal calls
                calls += 1
                if calls == call:
                    os._exit(9)
                return function(*arguments, **options)

            return wrapped

        try:
            for name in ("replace", "rename", "unlink", "rmdir", "mkdir", "open"):
                setattr(Path, name, dying(getattr(Path, name)))
            swap.shutil.rmtree = dying(swap.shutil.rmtree)  # type: ignore[attr-defined]
            swap.write_all(root, AFTER)
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


def test_a_kill_anywhere_leaves_all_or_nothing(tmp_path: Path) -> None:
    wanted = {name: content for name, content in AFTER.items() if content is not None}
    outcomes = []
    for call in range(1, 200):
        root = tmp_path / str(call)
        for name, content in BEFORE.items():
            swap.write_file(root / name, content)
        died = _killed_at(call, root)
        swap.finish(root)
        left = {
            name: content for name, content in state(root).items() if not name.startswith(".mlm")
        }
        assert left in (BEFORE, wanted), call
        outcomes.append(left == wanted)
        swap.write_all(root, AFTER)  # and it can be done again
        assert [path.name for path in (root / ".mlmodeldev").iterdir()] == []
        if not died:
            break
    else:
        raise AssertionError("it never ran to its end")
    assert outcomes == sorted(outcomes)
    assert 5 < outcomes.index(True) < len(outcomes) - 5


def test_an_edit_after_a_kill_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    real, swap.finish = swap.finish, lambda root: True
    try:
        swap.write_all(tmp_path, {"a": b"new", "b": b"new"})
    finally:
        swap.finish = real
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(UsageError, match="a: was edited after"):
        swap.finish(tmp_path)
    assert not (tmp_path / "b").exists()
    (tmp_path / "a").write_bytes(b"old")
    assert swap.finish(tmp_path)
    assert (tmp_path / "b").read_bytes() == b"new"
