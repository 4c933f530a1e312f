"""Check, plan and submit give one answer to a sweep file: all of them take it, or none does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlmodeldev.settings.composition import refusal
from mlmodeldev.slurm.command_line import main
from mlmodeldev.sweep.__main__ import main as sweep_main
from tests.sweep.corpus_place import VARIABLES, make_place, shapes

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = {
    "program": "seen.py",
    "method": "random",
    "run_cap": 3,
    "metric": {"name": "val/loss", "goal": "minimize"},
    "parameters": {"lr": {"min": 0.1, "max": 0.2}},
}
REFUSED: dict[str, Any] = {
    "a search of another program": {**FOREIGN, "method": "bayes"},
    "early stopping of another program": {
        **FOREIGN,
        "early_terminate": {"type": "hyperband", "min_iter": 1},
    },
    "no program": {**FOREIGN, "program": "none.py"},
    "no such macro": {**FOREIGN, "command": ["${interpreter}", "${program}", "${arg}"]},
    "no such setting": {**FOREIGN, "program": "trainer.py"},
    "text for a number": {
        **FOREIGN,
        "program": "trainer.py",
        "parameters": {"optimizer.lr": {"values": ["1e-5"]}},
    },
    "no point": {**FOREIGN, "controller": {"constraints": ["lr > 1"]}},
}


# The corpus's own trainer.py takes any setting, which this project's settings do not have.
NO_SETTINGS = {
    *("trainer.py, args_no_boolean_flags", "trainer.py, args_json", "trainer.py, args_json_file"),
    "trainer.py, settings in the command",
}
STOPPED_EARLY = {"hyperband, another program"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The corpus's programs in a project with the settings and the model of this one."""
    with pytest.MonkeyPatch.context() as patch:
        folder = make_place(tmp_path_factory.mktemp("corpus"))
        shutil.copytree(ROOT / "conf", folder / "conf", dirs_exist_ok=True)
        for name in ("model.py", "datamodule.py"):
            shutil.copy(ROOT / name, folder)
        patch.setenv("MLMODELDEV_PROJECT", str(folder))
        patch.chdir(folder)
        for name, value in VARIABLES.items():
            patch.setenv(name, value)
        yield folder


def answers(place: Path, text: str) -> dict[str, int]:
    """Return the exit status of each command."""
    file = place / "sweep.yaml"
    file.write_text(text)
    words = ["--sweep", str(file), "--json", "cluster=local", f"artefacts.runs_dir={place}/runs"]
    return {
        "check": sweep_main(["check", str(file)], settings=refusal),
        "plan": main(["plan", *words]),
        "submit": main(["submit", "--dry-run", *words]),
    }


@pytest.mark.parametrize("name", shapes())
def test_a_file_of_the_corpus_has_one_answer(name: str, place: Path) -> None:
    status = 2 if name in NO_SETTINGS | STOPPED_EARLY else 0
    expected = {"check": status, "plan": status, "submit": status}
    assert answers(place, shapes()[name]) == expected


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_with_a_mistake_is_refused_by_all(name: str, place: Path) -> None:
    text = yaml.safe_dump({"name": "refused", **REFUSED[name]})
    assert answers(place, text) == {"check": 2, "plan": 2, "submit": 2}
