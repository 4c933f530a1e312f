"""A refusal ends with what to do next: a sub-command to type, a setting, or the right spellings."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlmodeldev.cli import slurm_train
from mlmodeldev.slurm.command_line import COMMANDS
from mlmodeldev.sweep import load

ROOT = Path(__file__).resolve().parents[2]
GRID = ROOT / "tests" / "frozen" / "sweeps" / "grid.yaml"
BAYES = ROOT / "tests" / "frozen" / "sweeps" / "bayes.yaml"
RUNS = "artefacts.runs_dir={folder}/runs"

REFUSALS = [
    (f"status --sweep {GRID.parent}/gird.yaml", "did you mean 'grid'? (sweeps/ has: "),
    ("status --sweep {folder}/none.yaml", "; --sweep FILE names one"),
    (f"status --watch 0 --sweep {GRID} {RUNS}", "must be a number, at least 1"),
    (f"logs {{trial}} --sweep {GRID} {RUNS}", "(missing); submit runs it"),
    (f"logs nosuch --sweep {GRID} {RUNS}", "; status lists its trials"),
    (f"cancel --trial nosuch --sweep {GRID} {RUNS}", "; status lists its trials"),
    (f"retry --count 0 --sweep {GRID} {RUNS}", "must be at least 1"),
    (f"report --sweep {GRID} {RUNS}", "; see submit"),
    (f"collect --out {{folder}}/x.txt --sweep {GRID} {RUNS}", "(allowed: .csv, .parquet)"),
    (f"submit --sweep {BAYES} --wandb {RUNS}", "; leave it out"),
    ("plan cluster=hec cluster.max_gpus=1 cluster.gpus_per_task=2", "; try cluster.max_gpus=2"),
    ("plan cluster=hec cluster.nodes=2 cluster.trials_per_job=2", "; try 1 of each"),
    ("sync --runs-dir {folder}/none", "; artefacts.runs_dir names the trials'"),
    ("sync --runs-dir {folder}/made --sweep digts", "did you mean 'digits'? (there are: digits)"),
    ("sync --runs-dir {folder} --sweep none", "(submit begins trials)"),
    ("prefetch data=nowhere", "digits"),
    ("bridge --count 0 a/b/c", "must be at least 1"),
]


@pytest.mark.parametrize(("words", "end"), REFUSALS, ids=[words[:40] for words, _ in REFUSALS])
def test_what_to_do_next(words, end, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    if "/made" in words:
        (tmp_path / "made" / "digits").mkdir(parents=True)
    trial = next(iter(load(GRID).trials())).id
    given = words.format(folder=tmp_path, trial=trial)
    assert slurm_train(given.split()) == 2
    *warnings, line = capsys.readouterr().err.splitlines()
    assert all(each.startswith("warning: ") for each in warnings)
    assert end in line


def test_each_command_with_refusals_of_its_own_is_among_them() -> None:
    assert set(COMMANDS) - {"clean"} <= {words.split()[0] for words, _ in REFUSALS}
