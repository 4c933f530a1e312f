"""``mlmodeldev trial evaluate``: the numbers of training again, and the trial as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.cli import main
from mlmodeldev.errors import EXIT_BAD_INPUT


@pytest.fixture(scope="module")
def trained(shared_trials) -> Any:
    done = shared_trials.run(
        "logger=csv",
        "callbacks=none",
        "callbacks.export.enabled=true",
        "training.limit_train_batches=4",
        "training.monitor=val/loss",  # it rises: the best weights are not the last
        "training.mode=min",
        "training.max_epochs=2",
        "model.hidden_size=16",
        "model.num_layers=1",
        "optimizer.lr=0.01",
        name="measured",
    )
    assert done.code == 0, done.output
    return done


@pytest.fixture
def evaluate(trained, capsys):
    """Call the command; return its exit status and what it printed."""

    def call(*arguments: str, trial: str = "measured") -> tuple[int, str, str]:
        runs = str(trained.folder.parents[1])
        code = main(["trial", "evaluate", trial, "--runs-dir", runs, *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def files(folder: Path) -> dict[Path, bytes]:
    every = (file for file in folder.rglob("*") if file.is_file())
    return {file: file.read_bytes() for file in every if file.parent.name != "evaluations"}


def test_the_best_weights_give_the_numbers_of_training_again(trained, evaluate) -> None:
    before = files(trained.folder)
    code, out, err = evaluate("--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["test"] == trained.record["test"]
    best = trained.log[trained.record["metric"]["epoch"] - 1]
    assert result["validation"]
    assert result["validation"] == {n: v for n, v in best.items() if n in result["validation"]}
    assert (result["trial"], result["file"]) == ("single/measured", "checkpoints/best.ckpt")
    written = json.loads(Path(result.pop("written")).read_text())
    assert written == result
    assert files(trained.folder) == before


def test_the_last_ones_in_a_table(trained, evaluate) -> None:
    code, out, err = evaluate("--checkpoint", "last", "--stage", "validation")
    assert code == 0, err
    last = trained.log[-1]
    assert "step-0000000008.ckpt" in out
    assert f"{last['val/loss']:.6g}" in out
    assert "test/" not in out
    again = evaluate("--checkpoint", "last", "--stage", "validation")
    assert again[1] == out  # the same question has the same file
    assert len(list((trained.folder / "evaluations").glob("last-*.json"))) == 1


def test_other_data(trained, evaluate) -> None:
    code, out, err = evaluate("--json", "--data", "digits", "data.test_fraction=0.4")
    assert code == 0, err
    result = json.loads(out)
    assert result["overrides"] == {"data": "digits", "data.test_fraction": 0.4}
    assert result["test"] != trained.record["test"]
    assert result["test"].keys() == trained.record["test"].keys()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--checkpoint", "none.ckpt"], "--checkpoint none.ckpt: no such file (or best, or last)"),
        (["--data", "model.hidden_size=8"], "model.hidden_size: can't be another"),
        (["--data", "data.test_fractoin=1"], "did you mean 'test_fraction'?"),
        (["--stage", "train"], "(choose from"),
    ],
)
def test_bad_input_is_one_line(trained, evaluate, arguments, line) -> None:
    before = sorted(trained.folder.rglob("*"))
    code, out, err = evaluate(*arguments)
    assert (code, out) == (EXIT_BAD_INPUT, "")
    assert line in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(trained.folder.rglob("*")) == before


def test_no_such_trial(evaluate) -> None:
    code, _, err = evaluate(trial="measurd")
    assert code == EXIT_BAD_INPUT
    assert "did you mean 'measured'?" in err
