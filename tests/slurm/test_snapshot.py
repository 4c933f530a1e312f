"""What is copied for the jobs."""

from __future__ import annotations

from pathlib import Path

from mlmodeldev.slurm.snapshot import code_files


def test_outside_of_git_code_is_all_but_data_results_and_hidden_files(tmp_path: Path) -> None:
    code = ["trainer.py", "conf/data/digits.yaml", "mlmodeldev/data/loader.py", "sweep/config.yaml"]
    other = ["data/cola/train.tsv", "runs/a/b/trial.json", "wandb/x", ".venv/bin/python"]
    other += ["mlmodeldev/__pycache__/x.pyc"]
    for name in code + other:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert code_files(tmp_path) == sorted(code)
