"""``model.onnx`` in best/ and last/: torch's own outputs, whole or not at all, or one reason."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.callbacks import onnx_models
from tests.conftest import TrialResult, Trials, in_fork

pytestmark = [
    pytest.mark.project,
    pytest.mark.skipif(not onnx_models.PACKAGES.is_dir(), reason="no ONNX; make .venv-extras"),
]

SMALL = (
    "logger=csv",
    "callbacks=none",
    "callbacks.export.enabled=true",
    "callbacks.export.onnx=true",
    "model._target_=tests.callbacks.onnx_models.FromDict",
    "training.max_epochs=2",
    "training.limit_train_batches=3",
    "training.limit_val_batches=2",
    "training.test=false",
    "processing.batch_size=16",
)


# --- any model


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("onnx")
    assert in_fork(place / "printed", onnx_models.write_all, str(place)) == 0
    return place


@pytest.fixture
def results(written: Path) -> dict[str, Any]:
    return json.loads((written / "results.json").read_text())


SHAPES = {
    "dict": (
        {"image": ["batch", 1, 8, 8]},
        {"logits": ["batch", 10], "hidden": ["batch", 4]},
    ),
    "tuples": (
        {"pair.0": ["batch", 3, 4], "pair.1": ["batch"]},
        {"output_0": ["batch", 3, 8], "output_1.0": ["batch", 8], "output_1.1": ["batch"]},
    ),
    "tokens": (
        {"ids": ["batch", "length"], "mask": ["batch", "length"]},
        {"output": ["batch", "length", 8]},
    ),
    "half": ({"x": ["batch", 3, 4]}, {"output": ["batch", 3, 2]}),
}


@pytest.mark.parametrize("name", SHAPES)
def test_inputs_and_outputs_have_names_and_open_sizes(results, written, name) -> None:
    facts = results[name]
    inputs, outputs = SHAPES[name]
    assert {key: each["shape"] for key, each in facts["inputs"].items()} == inputs
    assert {key: each["shape"] for key, each in facts["outputs"].items()} == outputs
    assert facts["largest_difference"] < 1e-5
    assert (written / f"{name}.onnx").is_file()


def test_other_numbers_of_examples_and_tokens(results) -> None:
    assert max(results["tokens"]["differences"]) < 1e-5


REASONS = {
    "operator": "ONNX has no operator for aten._linalg_eigh",
    "branches": "forward branches on the values of its inputs (onnx_models.py:",
    "of three": "forward branches on the number of examples",
    "draws": "forward draws random numbers, also in eval mode",
    "nothing": "Nothing has no forward",
}


@pytest.mark.parametrize("name", REASONS)
def test_what_onnx_cannot_express_has_one_reason_and_no_file(results, written, name) -> None:
    assert results[name]["failed"].startswith(REASONS[name])
    assert "\n" not in results[name]["failed"]
    assert not (written / f"{name}.onnx").exists()


def test_the_model_is_left_alone_and_nothing_is_printed(results, written) -> None:
    assert all(each["unchanged"] and each["training"] for each in results.values())
    assert (written / "printed").read_text() == ""


def test_the_same_model_is_the_same_file_without_anything_of_this_machine(written) -> None:
    content = (written / "dict.onnx").read_bytes()
    assert content == (written / "again.onnx").read_bytes()
    assert b"onnx_models" not in content
    assert str(onnx_models.ROOT).encode() not in content


# --- a trial


@pytest.fixture(scope="module")
def killed_and_ended(shared_trials: Trials) -> tuple[TrialResult, dict[str, bytes], TrialResult]:
    """A trial that was killed in the middle of best/model.onnx, and what it had then."""
    killed = shared_trials.run(*SMALL, name="onnx", patch=onnx_models.dying_in_the_second_file)
    there = {
        str(file.relative_to(killed.folder)): file.read_bytes()
        for name in ("best", "last")
        for file in (killed.folder / name).rglob("*")
    }
    return killed, there, shared_trials.run(*SMALL, name="onnx", patch=onnx_models.use_onnx)


def test_a_kill_in_the_middle_leaves_no_half_file(killed_and_ended) -> None:
    killed, there, ended = killed_and_ended
    assert killed.code == -signal.SIGKILL
    assert "last/model.onnx" in there
    assert not [name for name in there if name.startswith("best/")]
    assert ended.code == 0, ended.output
    assert (ended.folder / "last" / "model.onnx").read_bytes() == there["last/model.onnx"]
    assert ended.record["onnx"] == {"last": "written", "best": "written"}


def test_a_trials_file_gives_what_its_model_gives(killed_and_ended, tmp_path) -> None:
    _, _, ended = killed_and_ended
    answer = tmp_path / "answer.json"
    printed = tmp_path / "printed"
    code = in_fork(printed, onnx_models.compare_trial, str(ended.folder), str(answer))
    assert code == 0, printed.read_text()
    answers = json.loads(answer.read_text())
    assert set(answers) == {"best 2", "best 11", "last 2", "last 11"}
    assert all(each["inputs"] == ["image"] for each in answers.values())
    assert max(max(each["differences"]) for each in answers.values()) < 1e-5


def test_the_cards_lines_run(killed_and_ended, tmp_path) -> None:
    _, _, ended = killed_and_ended
    best = str(ended.folder / "best")
    assert in_fork(tmp_path / "printed", onnx_models.run_card, best) == 0
    assert (tmp_path / "printed").read_text().strip() == "[(1, 10), (1, 4)]"


def test_a_model_that_onnx_cannot_express_trains_all_the_same(trials: Trials) -> None:
    target = "model._target_=tests.callbacks.onnx_models.Eigenvalues"
    early = "artefacts.rehearsal=true"
    bar = "callbacks.progress.enabled=true"
    ended = trials.run(*SMALL, target, early, bar, patch=onnx_models.use_onnx)
    assert ended.code == 0, ended.output
    reason = REASONS["operator"]
    line = f"callbacks.export.onnx: Eigenvalues can't be written as ONNX: {reason}"
    # in the rehearsal, before the first epoch, and once at the end
    lines = [row for row in ended.output.splitlines() if "onnx" in row.lower()]
    assert lines == [f"{line}; the trial has no model.onnx"] * 2
    assert ended.output.index(line) < ended.output.index("epoch 1/2")
    assert ended.record["state"] == "done"
    assert ended.record["onnx"] == {"last": reason, "best": reason}
    state = json.loads((ended.folder / "best" / "training_state.json").read_text())
    assert state["onnx"] == {"failed": reason}
    assert not list(ended.folder.rglob("*.onnx"))
    assert "ONNX" not in (ended.folder / "best" / "README.md").read_text()


def test_a_missing_package_is_named_before_there_is_a_trial(trials: Trials) -> None:
    ended = trials.run(*SMALL, patch=onnx_models.without_onnxscript)
    assert ended.code == 2
    assert ended.output == (
        "callbacks.export.onnx=true: the package is not installed: onnxscript;"
        " pip install 'mlmodeldev[onnx]'\n"
    )
    assert not ended.folder.exists()


def test_onnx_without_an_export_is_refused(trials: Trials) -> None:
    ended = trials.run(*SMALL, "callbacks.export.enabled=false")
    assert ended.code == 2
    assert "onnx=true goes with enabled=true" in ended.output
    assert len(ended.output.splitlines()) == 1


# --- a finished trial


def exported(trial: TrialResult, place: Path, *arguments: str) -> tuple[int, str, Path]:
    """Export a copy of a trial; return the exit status, what was printed, and the copy."""
    folder = place / "runs" / "single" / trial.folder.name
    shutil.copytree(trial.folder, folder)
    printed = place / "printed"
    code = in_fork(printed, onnx_models.run_export, str(folder), "--onnx", *arguments)
    return code, printed.read_text(), folder


@pytest.mark.slow
def test_a_finished_trial_of_the_digits(digits_trial, tmp_path) -> None:
    code, printed, folder = exported(digits_trial, tmp_path)
    assert code == 0, printed
    assert printed.splitlines()[-1] == str(folder / "best" / "model.onnx")
    before = {file.name for file in (digits_trial.folder / "best").iterdir()}
    assert {file.name for file in (folder / "best").iterdir()} == before | {"model.onnx"}
    again = in_fork(
        tmp_path / "second", onnx_models.run_export, str(folder), "--onnx", "--checkpoint", "last"
    )
    assert again == 0, (tmp_path / "second").read_text()
    answer = tmp_path / "answer.json"
    assert in_fork(tmp_path / "p", onnx_models.compare_trial, str(folder), str(answer)) == 0
    for each in json.loads(answer.read_text()).values():
        assert each["inputs"] == ["image", "input_ids", "attention_mask"]
        assert len(each["differences"]) == 2
        assert max(each["differences"]) < 1e-5
    assert in_fork(tmp_path / "shapes", onnx_models.run_documented_lines, str(folder)) == 0
    assert (tmp_path / "shapes").read_text() == "(3, 64) (3, 64)\n"


@pytest.mark.slow
def test_a_finished_trial_of_texts(cola_trial, tmp_path) -> None:
    code, printed, folder = exported(cola_trial, tmp_path)
    assert code == 0, printed
    state = json.loads((folder / "best" / "training_state.json").read_text())
    shapes = {name: each["shape"] for name, each in state["onnx"]["inputs"].items()}
    assert shapes == {"input_ids": ["batch", "length"], "attention_mask": ["batch", "length"]}
    assert "## ONNX" in (folder / "best" / "README.md").read_text()


def test_a_trial_without_an_export_has_nothing_to_write(killed_and_ended, tmp_path) -> None:
    _, _, ended = killed_and_ended
    folder = tmp_path / "runs" / "single" / "empty"
    folder.mkdir(parents=True)
    shutil.copy(ended.folder / "trial.json", folder)
    printed = tmp_path / "printed"
    assert in_fork(printed, onnx_models.run_export, str(folder), "--onnx") == 2
    assert "has no best/" in printed.read_text()
