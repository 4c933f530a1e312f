"""What is done to a registry in a process of its own, which may import the package that it takes.

Each function is for `tests.conftest.in_fork`; what it finds it writes as JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.tracking.mlflow_reader import use_mlflow


def prepare(environment: Mapping[str, str]) -> None:
    """Take a place's environment over."""
    use_mlflow()
    os.environ.update(environment)


def whole_flow(
    environment: Mapping[str, str],
    runs: Path,
    lines: Sequence[Sequence[str]],
    second: str,
    answers: Path,
) -> None:
    """Write what lines of ``mlmodeldev registry`` say, and what models are to be had then.

    Args:
        environment: of the place.
        runs: the folder of runs.
        lines: the words of each.
        second: name of a version that nothing has asked for yet.
        answers: the file to write to.
    """
    prepare(environment)
    results = [_result_of([*words, "--runs-dir", str(runs)]) for words in lines]
    taken = _weights(runs)
    copies = None if environment["MLMODELDEV_REGISTRY"].startswith("/") else _copies(runs, second)
    answers.write_text(json.dumps([results, taken, copies]))


def command_results(
    environment: Mapping[str, str], runs: Path, lines: Sequence[Sequence[str]], answers: Path
) -> None:
    """Write exit status, output and errors of lines of ``mlmodeldev registry``."""
    prepare(environment)
    results = [_result_of([*words, "--runs-dir", str(runs)]) for words in lines]
    answers.write_text(json.dumps(results))


def _result_of(words: Sequence[str]) -> tuple[int, str, str]:
    """Return exit status, output and errors of a line."""
    from mlmodeldev.tracking.registry_command import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


def _weights(runs: Path) -> dict[str, dict[str, float]]:
    """Return sums of weights: of both trials, and of the champion by `load` and ``init_from``."""
    os.environ["MLMODELDEV_PROJECT"] = str(ROOT)
    import mlmodeldev
    from mlmodeldev.training.initial_weights import read_source

    os.chdir(runs.parent)
    champion = "models:/digits@champion"
    states = {
        "a": mlmodeldev.load(runs / "digits" / "a").state_dict(),
        "b": mlmodeldev.load(runs / "digits" / "b").state_dict(),
        "load": mlmodeldev.load(champion).state_dict(),
        "init_from": read_source(champion, runs).weights,
    }
    return {
        name: {key: float(value.double().sum()) for key, value in state.items()}
        for name, state in states.items()
    }


def _copies(runs: Path, uri: str) -> list[Any]:
    """Return whether a copy is right, also after it was damaged; the error when the original is."""
    from mlmodeldev.errors import UsageError
    from mlmodeldev.tracking.registry import model_folder

    original = (runs / "digits" / "a" / "best" / "model.safetensors").read_bytes()
    file = model_folder(uri, runs) / "model.safetensors"
    results: list[Any] = [file.read_bytes() == original]
    file.write_bytes(b"damaged")
    model_folder(uri, runs)
    results.append(file.read_bytes() == original)
    shutil.rmtree(file.parent)
    _alter(runs, original)
    try:
        model_folder(uri, runs)
    except UsageError as error:
        results.append(str(error))
    left = [path.name for path in file.parent.parent.iterdir() if "lock" not in path.name]
    return [*results, left]


def _alter(runs: Path, original: bytes) -> None:
    """Change a file of the registry's own."""
    for file in runs.glob(".mlflow-artifacts/models/*/artifacts/model.safetensors"):
        if file.read_bytes() == original:
            file.write_bytes(b"altered")
    if os.environ["MLMODELDEV_REGISTRY"] == "wandb":
        import requests
        import wandb

        artifact = wandb.Api().artifact("wandb-registry-model/digits:v1")
        address = f"{os.environ['WANDB_BASE_URL']}/storage/artifact/{artifact.id}"
        requests.put(f"{address}/model.safetensors", data=b"altered", timeout=20)


def killed(environment: Mapping[str, str], runs: Path, answers: Path) -> None:
    """Write how a registration and a promotion in MLflow ended that were killed at each call.

    And which versions several have made at once.
    """
    prepare(environment)
    from mlflow.tracking import MlflowClient

    from mlmodeldev.tracking.registry import open_registry, promote

    open_registry(runs).add("digits", export(runs.parent / "first", "first"), {}, None)
    promote(open_registry(runs), "digits")
    second = export(runs.parent / "second", "second")
    ends = []
    for call in (*REGISTERING, *PROMOTING):
        if call == PROMOTING[0]:
            open_registry(runs).add("digits", second, {}, None)
        die_at(MlflowClient, call, lambda: open_registry(runs).add("digits", second, {}, None))
        die_at(MlflowClient, call, lambda: promote(open_registry(runs), "digits", 2))
        registry = open_registry(runs)
        aliases = registry.aliases("digits")
        count = len(registry.versions("digits"))
        ends.append([call, count, aliases.champion, aliases.challenger, [*aliases.former]])
    after = promote(open_registry(runs), "digits", 2)
    client = MlflowClient(f"sqlite:///{runs}/mlflow.db")
    models = client.search_logged_models([e.experiment_id for e in client.search_experiments()])
    history = [after.champion, *after.former]
    answers.write_text(json.dumps([ends, history, len(models), _many(runs, 3)]))


REGISTERING = ("log_model_artifact", "finalize_logged_model", "create_model_version")
PROMOTING = ("set_registered_model_tag", "set_registered_model_alias")


def export(folder: Path, text: str) -> Path:
    """Write what stands for an export."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(text)
    (folder / "training_state.json").write_text("{}")
    return folder


def die_at(kind: Any, call: str, work: Callable[[], Any]) -> None:
    """Do something in a fork that is killed where it calls a method."""
    if (child := os.fork()) == 0:
        setattr(kind, call, lambda *args, **named: os.kill(os.getpid(), signal.SIGKILL))
        with contextlib.suppress(BaseException):
            work()
        os._exit(0)
    os.waitpid(child, 0)


def _many(runs: Path, count: int) -> list[tuple[int, int]]:
    """Register that many models at once; return number and content of each version."""
    from mlmodeldev.tracking.registry import open_registry

    children = []
    for number in range(count):
        model = export(runs.parent / "many" / str(number), f"weights {number}")
        if (child := os.fork()) == 0:
            with contextlib.suppress(BaseException):
                open_registry(runs).add("many", model, {"by": number}, None)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    versions = open_registry(runs).versions("many")
    return [(version.number, version.tags["by"]) for version in versions]


def killed_link(environment: Mapping[str, str], runs: Path, model: Path) -> None:
    """Register in W&B, and die after the upload, before there is a version."""
    prepare(environment)
    import wandb

    from mlmodeldev.tracking.registry import open_registry

    wandb.Artifact.link = lambda *args, **named: os.kill(os.getpid(), signal.SIGKILL)
    open_registry(runs).add("cut", model, {"trial": "sweep/cut"}, None)
