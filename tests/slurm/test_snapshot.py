"""What is copied for the jobs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mlmodeldev import __version__
from mlmodeldev.slurm.snapshot import code_files, take_snapshot
from mlmodeldev.trial.software import library_digest


def test_outside_of_git_code_is_all_but_data_results_and_hidden_files(tmp_path: Path) -> None:
    code = ["trainer.py", "conf/data/digits.yaml", "mlmodeldev/data/loader.py", "sweep/config.yaml"]
    other = ["data/cola/train.tsv", "runs/a/b/trial.json", "wandb/x", ".venv/bin/python"]
    other += ["mlmodeldev/__pycache__/x.pyc"]
    for name in code + other:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert code_files(tmp_path) == sorted(code)


def test_the_library_is_copied_for_a_project_that_does_not_hold_it(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "trainer.py").write_text("# mine")
    copy = take_snapshot(tmp_path / "project", tmp_path / "runs")
    assert (copy / "trainer.py").read_text() == "# mine"
    code = "import mlmodeldev.trial.software as s; print(s.LIBRARY, s.software())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd="/",
        env={"PYTHONPATH": str(copy), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"{copy}/mlmodeldev ")
    assert __version__ in done.stdout
    assert library_digest() in done.stdout
    assert take_snapshot(tmp_path / "project", tmp_path / "runs") == copy


def test_a_copy_that_is_not_what_its_name_says_is_made_anew(tmp_path: Path) -> None:
    """A job that finds an empty trainer.py trains nothing and ends well."""
    project = tmp_path / "project"
    (project / "mlmodeldev").mkdir(parents=True)
    (project / "mlmodeldev" / "__init__.py").touch()
    (project / "trainer.py").write_text("# mine")
    (project / "trainer.py").chmod(0o755)
    copy = take_snapshot(project, tmp_path / "runs")
    made = copy.stat().st_ino
    assert take_snapshot(project, tmp_path / "runs").stat().st_ino == made
    for damage in (
        lambda file: file.write_text(""),
        lambda file: file.write_text("# hers"),
        lambda file: file.chmod(0o644),
        Path.unlink,
    ):
        damage(copy / "trainer.py")
        assert take_snapshot(project, tmp_path / "runs") == copy
        assert (copy / "trainer.py").read_text() == "# mine"
        assert (copy / "trainer.py").stat().st_mode & 0o777 == 0o755
