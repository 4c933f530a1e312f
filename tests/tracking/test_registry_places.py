"""A registry is the same in a folder, in MLflow and in W&B: versions, aliases, models by alias.

MLflow's own library and W&B's own client are in between; W&B's server is the one on loopback.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from mlmodeldev.slurm.trial_sizes import Choice, measure
from tests.conftest import ROOT, TrialResult, in_fork
from tests.tracking import registry_calls
from tests.tracking.mlflow_reader import PACKAGES
from tests.wandb.conftest import nothing_unknown
from tests.wandb.server import Server

OF_SERVERS = [pytest.mark.slow, pytest.mark.project]
NEEDS_MLFLOW = pytest.mark.skipif(not PACKAGES.is_dir(), reason="no MLflow; make .venv-extras")
FLOW = (
    "register digits digits",
    "promote digits",
    "register digits digits/a --json",
    "register digits digits/b",
    "promote digits",
    "rollback digits",
    "show digits@champion --json",
    "list --json",
    "list",
    "show digits@champoin",
    "rollback digits",
    "promote digits 99",
)


@dataclass
class Place:
    """A registry, what was done with it, and what it said."""

    kind: str
    runs: Path
    environment: dict[str, str]
    printed: dict[str, list[Any]]
    weights: dict[str, dict[str, float]]
    copies: list[Any] | None

    @property
    def first(self) -> int:
        """The number of the first version."""
        return 0 if self.kind == "wandb" else 1


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def two_trials(runs: Path, trial: TrialResult) -> None:
    """A sweep of two trials that have ended; the weights of the worse one are others."""
    for name, value in (("a", 0.5), ("b", 0.9)):
        folder = runs / "digits" / name
        shutil.copytree(trial.folder, folder)
        record = trial.record
        record["metric"]["value"] = value
        (folder / "trial.json").write_text(json.dumps(record))
    (runs / "digits" / "b" / "cka").mkdir()
    (runs / "digits" / "b" / "cka" / "towers.png").write_bytes(b"picture")
    file = runs / "digits" / "a" / "best" / "model.safetensors"
    save_file({name: value * 0.5 for name, value in load_file(file).items()}, file)


@pytest.fixture(
    scope="module",
    params=[
        "folder",
        pytest.param("mlflow", marks=[NEEDS_MLFLOW, *OF_SERVERS]),
        pytest.param("wandb", marks=OF_SERVERS),
    ],
)
def place(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    digits_trial: TrialResult,
    server: Server,
) -> Iterator[Place]:
    runs, before = tmp_path_factory.mktemp(request.param) / "runs", len(server.store.unknown)
    two_trials(runs, digits_trial)
    folder = str(runs / ".registry")
    environment = {
        **online(server, runs.parent),
        "MLMODELDEV_REGISTRY": folder if request.param == "folder" else request.param,
    }
    made = Place(request.param, runs, environment, {}, {}, None)
    answers, printed = runs.parent / "answers.json", runs.parent / "printed.txt"
    given = [line.split() for line in FLOW]
    second = f"models:/digits/{made.first + 1}"
    code = in_fork(printed, registry_calls.whole_flow, environment, runs, given, second, answers)
    assert code == 0, printed.read_text()
    results, made.weights, made.copies = json.loads(answers.read_text())
    # one line is there twice: what it said at last
    made.printed = dict(zip([*FLOW[:-2], "rollback again", FLOW[-1]], results, strict=True))
    yield made
    nothing_unknown(server, before)


def online(server: Server, folder: Path) -> dict[str, str]:
    """Return an environment that leads to W&B's server."""
    return {**server.environment(), "WANDB_MODE": "online", "WANDB_DIR": str(folder)}


def test_register_promote_and_rollback(place: Place) -> None:
    first, printed = place.first, place.printed
    assert printed["register digits digits"][:2] == [0, f"digits/b is models:/digits/{first}\n"]
    assert printed["register digits digits/b"][1].startswith("digits/b is already")
    second = json.loads(printed["register digits digits/a --json"][1])
    assert (second["number"], second["new"]) == (first + 1, True)
    assert second["aliases"] == ["challenger"]
    shown = json.loads(printed["show digits@champion --json"][1])
    assert (shown["number"], shown["aliases"]) == (first, ["champion"])
    tags = shown["tags"]
    assert (tags["trial"], tags["metric"]["value"]) == ("digits/b", 0.9)
    assert (len(tags["commit"]), len(tags["data"])) == (40, 16)
    assert tags["cka"].endswith("/towers.png")
    (versions,) = json.loads(printed["list --json"][1]).values()
    assert [version["aliases"] for version in versions] == [["champion"], []]
    assert "digits/b" in printed["list"][1]


def test_what_is_refused_is_one_line(place: Place) -> None:
    for line, reason in (
        ("show digits@champoin", "; did you mean 'champion'?\n"),
        ("rollback again", "there was no champion before, nothing to go back to\n"),
        ("promote digits 99", f"(there are {place.first}, {place.first + 1})\n"),
    ):
        code, _, error = place.printed[line]
        assert (code, error.count("\n")) == (2, 1)
        assert error.endswith(reason)


def test_inference_by_alias_in_a_fresh_process(place: Place) -> None:
    picture = str(ROOT / "docs" / "images" / "seven.png")
    words = ["inference.py", "models:/digits@champion", picture, "--json"]
    words += ["--runs-dir", str(place.runs)]
    code = (
        f"import runpy, sys; sys.path.append({str(PACKAGES)!r}); sys.argv = {words!r};"
        "sys.path.insert(0, ''); runpy.run_path('inference.py', run_name='__main__')"
    )
    environment = {**os.environ, **place.environment, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    from inference import Predictor

    best, worse = (
        Predictor(place.runs / "digits" / name / "best")([picture], [])[0] for name in "ba"
    )
    assert json.loads(done.stdout)["all"] == pytest.approx(best)
    assert best != pytest.approx(worse, abs=1e-3)


def test_load_and_init_from_take_the_same_weights(place: Place) -> None:
    assert place.weights["load"] == pytest.approx(place.weights["b"])
    assert place.weights["init_from"] == pytest.approx(place.weights["b"])
    assert place.weights["a"] != pytest.approx(place.weights["b"])


def test_the_trial_is_kept(place: Place) -> None:
    folder = place.runs / "digits" / "b"
    kept = measure(folder, Choice(), {}).kept
    where = "" if place.kind == "folder" else f" ({place.kind}:"
    assert kept.startswith(f"is registered as digits {place.first}{where}")


def test_a_copy_is_checked_and_what_was_altered_is_refused(place: Place) -> None:
    if place.copies is None:
        assert place.kind == "folder"
        return
    is_right, is_mended, error, left = place.copies
    assert (is_right, is_mended) == (True, True)
    assert "\n" not in error
    shown = json.loads(place.printed["show digits@champion --json"][1])
    assert left == [shown["digest"]]  # the champion's, and nothing of the other one


@pytest.mark.slow
@NEEDS_MLFLOW
def test_kills_and_many_at_once_in_mlflow(tmp_path: Path) -> None:
    runs, answers = tmp_path / "runs", tmp_path / "answers.json"
    printed = tmp_path / "printed.txt"
    code = in_fork(printed, registry_calls.killed, {"MLMODELDEV_REGISTRY": "mlflow"}, runs, answers)
    assert code == 0, printed.read_text()
    ends, after, models, many = json.loads(answers.read_text())
    assert ends == [
        *([call, 1, 1, None, []] for call in registry_calls.REGISTERING),
        *([call, 2, 1, 2, []] for call in registry_calls.PROMOTING),
    ]
    assert (after, models) == ([2, 1], 2)
    assert [number for number, _ in many] == [1, 2, 3]
    assert {content for _, content in many} == {0, 1, 2}


@pytest.mark.slow
def test_a_kill_before_the_link_leaves_no_version_in_wandb(tmp_path: Path, server: Server) -> None:
    before, runs, model = len(server.store.unknown), tmp_path / "runs", tmp_path / "best"
    registry_calls.export(model, "weights")
    given = {**online(server, tmp_path), "MLMODELDEV_REGISTRY": "wandb"}
    code = in_fork(tmp_path / "cut.txt", registry_calls.killed_link, given, runs, model)
    assert code == -signal.SIGKILL
    assert not [path for path in server.store.links if path.endswith("/cut")]
    nothing_unknown(server, before)
