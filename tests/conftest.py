"""Fixtures that several rooms share: trials run in processes that are born in a moment.

A server process imports torch and Lightning once; each trial is a fork of it (0.1 s instead of
6 s), so tests can kill trials for real, again and again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

pytest_plugins = ["tests.shipped.plugin", "tests.slurm.fixture"]
collect_ignore = ["shipped/files"]

os.environ["WANDB_MODE"] = "offline"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MLMODELDEV_CLUSTER"] = "local"  # on a login node, no test submits by accident
for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
    os.environ.pop(name, None)
for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):  # `make test` is no part of a test's own make
    os.environ.pop(name, None)

# A busy machine is no defect of what is tested.
hypothesis_settings.register_profile(
    "shared", suppress_health_check=[HealthCheck.too_slow], deadline=None
)
hypothesis_settings.load_profile("shared")

# `make test` hands files to two processes (pytest-xdist); a long one must not come last.
LONGEST = (
    *(
        "test_chaos.py",
        "test_readme.py",
        "test_interrupts.py",
        "test_agent_sh.py",
        "test_resume.py",
    ),
    *("test_same_run.py", "test_jobs.py", "test_ranks.py", "test_wandb_doc.py"),
    *("test_bridge.py", "test_search.py", "test_agents.py", "test_search_here.py"),
    *("test_sweep_control.py", "test_outage.py", "test_sync.py", "test_commands.py"),
    *(
        "test_wandb_runs.py",
        "test_promises.py",
        "test_mlflow.py",
        "test_clearml.py",
        "test_sites.py",
        "test_wheel.py",
        "test_digits.py",
    ),
)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "torch",
        "pytorch_lightning",
        "trainer",
        "model",
        "datamodule",
        "examples.cola",
        "examples.causal_lm",
    ]
)


@dataclass
class TrialResult:
    """How a trial's process ended."""

    code: int
    folder: Path
    output: str = ""

    @property
    def record(self) -> dict[str, Any]:
        return json.loads((self.folder / "trial.json").read_text())

    @property
    def log(self) -> list[dict[str, Any]]:
        return json.loads((self.folder / "log.json").read_text())

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows of metrics.csv without the columns that tell of time."""
        import csv

        with (self.folder / "metrics.csv").open() as file:
            rows = [
                {k: v for k, v in row.items() if v and not k.startswith("time/")}
                for row in csv.DictReader(file)
            ]
        return [row for row in rows if set(row) - {"epoch", "step"}]

    @property
    def checkpoint(self) -> Path:
        """The newest recovery checkpoint."""
        return max((self.folder / "checkpoints").glob("step-*.ckpt"))


class Trials:
    """Runs trials of the bundled data in a folder of the test's own."""

    def __init__(self, runs: Path, data: Path) -> None:
        self.runs, self.data = runs, data

    def run(
        self,
        *overrides: str,
        kill_at: int | None = None,
        signal_at: tuple[int, int] | None = None,
        during: str = "training_step",
        name: str = "trial",
        patch: Callable[[], None] | None = None,
        terminal: str | None = None,
    ) -> TrialResult:
        """Run a trial to its end.

        Args:
            overrides: as on the command line of trainer.py.
            kill_at: number of the call of ``during`` in which the process dies by SIGKILL.
            signal_at: a signal, and the number of the call in which it arrives.
            during: a method of the model.
            name: of the trial's folder.
            patch: called in the trial's process before it begins; a module's function.
            terminal: device to print to; by default a file, which is `Ended.output` then.
        """
        wanted = [
            f"artefacts.runs_dir={self.runs}",
            f"artefacts.data_dir={self.data}",
            f"artefacts.trial={name}",
            "artefacts.rehearsal=false",  # its steps would count; tests/training has its own
            *overrides,
        ]
        number, call = signal_at or (signal.SIGKILL, kill_at)
        printed = self.runs / f"{name}.output"
        code = in_fork(terminal or printed, _run_trial, wanted, int(number), call, during, patch)
        text = "" if terminal else printed.read_text()
        return TrialResult(code, self.runs / "single" / name, text)


def in_fork(printed: Path | str, function: Callable[..., None], *args: Any) -> int:
    """Call a module's function in a process of its own, which prints to a file or terminal.

    Returns:
        exit status: 2 for bad input, 75 interrupted.
    """
    Path(printed).parent.mkdir(parents=True, exist_ok=True)
    process = _context.Process(target=_call, args=(str(printed), function, args))
    process.start()
    process.join(240)
    if process.is_alive():
        process.kill()
        raise AssertionError("the process hangs")
    assert process.exitcode is not None
    return process.exitcode


def _call(printed: str, function: Callable[..., None], args: tuple[Any, ...]) -> None:
    from mlmodeldev.errors import TrialInterrupted, UsageError
    from mlmodeldev.lease import LostLease
    from mlmodeldev.trial.signals import SIGNALS

    # A pool that was first to start the fork server has done it with signals blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    file = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOCTTY, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    code = 0
    try:
        function(*args)
    except UsageError as error:
        print(error, file=sys.stderr)
        code = 2
    except TrialInterrupted:
        code = 75
    except LostLease as error:
        print(error, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if code:
        os._exit(code)


def _run_trial(
    overrides: list[str],
    number: int,
    call: int | None,
    method: str,
    patch: Callable[[], None] | None,
) -> None:
    import torch
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    import model
    import trainer
    from examples import causal_lm, text_classifier
    from mlmodeldev.settings import validate

    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        container = OmegaConf.to_container(compose("config", overrides=overrides), resolve=True)
    settings = validate(container, ROOT)  # type: ignore[arg-type]
    kinds = (model.DualEncoder, text_classifier.TextClassifier, causal_lm.CausalLM)
    for kind in kinds:
        if call is not None:
            setattr(kind, method, dying(getattr(kind, method), number, call))
    if patch:
        patch()
    trainer.train(settings)


def dying(function: Any, number: int, call: int) -> Any:
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), number)
        return function(*args, **kwargs)

    return wrapped


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    """Fail the test that leaves its process changed, not a later one that happens to mind."""
    before = _surroundings()
    yield
    after = _surroundings()
    for name in set(before) | set(after):
        if name == "working directory":
            os.chdir(before[name])
        elif name in before:
            os.environ[name] = before[name]
        else:
            del os.environ[name]
    changed = {n for n in set(before) | set(after) if before.get(n) != after.get(n)}
    assert not changed, f"the test left these changed: {sorted(changed)}"


def _surroundings() -> dict[str, str]:
    """What the product goes by: its variables and the cluster's, and the working directory."""
    prefixes = ("MLMODELDEV_", "SLURM_", "SUBMITIT_")
    variables = {n: v for n, v in os.environ.items() if n.startswith(prefixes)}
    variables.pop("MLMODELDEV_PRELOAD", None)  # for the fork server, which stays, too
    return {**variables, "working directory": str(Path.cwd())}


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def shared_trials(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Trials:
    """For trials that several tests look at."""
    return Trials(tmp_path_factory.mktemp("shared") / "runs", data_dir)


@pytest.fixture
def trials(tmp_path: Path, data_dir: Path) -> Trials:
    return Trials(tmp_path / "runs", data_dir)


@pytest.fixture(scope="session")
def cola_files(data_dir: Path) -> Path:
    """The folder of small files of CoLA's shape, in the session's data folder."""
    from tests.small_data import write_cola

    return write_cola(data_dir)


SMALL_COLA = (
    "experiment=cola",
    "logger=csv",
    "model.hidden_size=16",
    "model.num_layers=1",
    "model.dropout=0.0",
    "optimizer.lr=0.01",
    "training.max_epochs=6",
    "processing.batch_size=32",
    "callbacks.cka.enabled=false",
)


@pytest.fixture(scope="session")
def cola_trial(shared_trials: Trials, cola_files: Path) -> TrialResult:
    """A text classifier that has learned the small grammar."""
    ended = shared_trials.run(*SMALL_COLA, name="grammar")
    assert ended.code == 0, ended.output
    return ended


@pytest.fixture(scope="session")
def digits_trial(shared_trials: Trials) -> TrialResult:
    """A small dual encoder after three epochs, with all callbacks but CKA."""
    ended = shared_trials.run(
        "logger=csv",
        "model.hidden_size=16",
        "model.num_layers=1",
        "optimizer.lr=0.01",
        "training.max_epochs=3",
        "training.log_every_n_steps=5",
        "processing.batch_size=64",
        "callbacks.cka.enabled=false",
        name="digits",
    )
    assert ended.code == 0, ended.output
    return ended
