"""Trials in processes that are born in a moment: forks of one that has imported everything.

A fresh process imports for six seconds before it trains; a fork of a process that did nothing but
import begins at once, and its result is the same. `multiprocessing`'s fork server does the forking.

Example::

    start_server(["trainer", "model", "datamodule"], root)
    process = launch("trainer", ["optimizer.lr=0.003"], log=folder / "log.txt")
    process.join()
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from mlmodeldev.atomic import own_file
from mlmodeldev.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, UsageError
from mlmodeldev.machine import keep_from_others, share_cores, shorten_socket_paths
from mlmodeldev.output import keep_going_without_output
from mlmodeldev.project import PROJECT_VARIABLE, import_places, import_program
from mlmodeldev.secrets import guard_output
from mlmodeldev.trial import signals
from mlmodeldev.trial.agent_run import leave_agent
from mlmodeldev.trial.failure import print_failure

_context: ForkServerContext = multiprocessing.get_context("forkserver")

HEAVY = ("torch", "pytorch_lightning", "transformers", "mlmodeldev.callbacks.stack")
"""What every trial imports. Imports only: a fork after threads or CUDA began would hang."""

_server_environment: dict[str, str] = {}
"""Variables of the fork server, and so of its trials, that this process does not have."""
_PAUSES = (0.1, 0.5, 2.0)
PRELOAD = "MLMODELDEV_PRELOAD"
"""Environment variable: overrides that choose files of ``conf/``, as JSON, for `trial.preload`."""


def start_server(modules: Sequence[str], root: Path) -> None:
    """Say what the server imports; it starts with the first trial.

    Args:
        modules: the user's own code, such as ``trainer`` and ``model``.
        root: the folder that they lie in.
    """
    if (root / "conf" / "config.yaml").is_file():  # the programs of a sweep need not lie in one
        _server_environment[PROJECT_VARIABLE] = str(root)
    share_cores()
    shorten_socket_paths()
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    new = [place for place in import_places(root) if place not in path]
    os.environ["PYTHONPATH"] = os.pathsep.join([*new, *filter(None, path)])
    names, rest = "mlmodeldev.trial.preload_names", "mlmodeldev.trial.preload"
    _context.set_forkserver_preload([names, *HEAVY, *modules, rest])


def launch(
    program: str,
    overrides: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
) -> ForkServerProcess:
    """Start a trial in a process group of its own; its output goes to the end of a file.

    A signal that arrives before the trial listens (`mlmodeldev.trial.signals`) waits for it.

    Args:
        program: module that has ``train(settings)``.
        overrides: as on the command line of trainer.py.
        log: the file.
        environment: variables of this trial alone. ``OMP_NUM_THREADS`` also sets torch's threads.
    """
    arguments = (program, list(overrides), str(log), dict(environment or {}))
    for seconds in _PAUSES:
        with contextlib.suppress(EOFError, ConnectionError):
            return _start(arguments)
        time.sleep(seconds)  # the server has just been killed; the next has its own
    return _start(arguments)


def _start(arguments: tuple[str, list[str], str, dict[str, str]]) -> ForkServerProcess:
    _ensure_server(arguments[1])
    process = _context.Process(target=_run, args=arguments)
    with _without_main():
        process.start()
    return process


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hide this process's main module, which each trial would otherwise import: 0.3 s for nothing.

    multiprocessing does so for the sake of functions defined there; ours are not.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _ensure_server(overrides: Sequence[str]) -> None:
    """Start the fork server if need be, deaf to the signals that are meant for trials.

    Slurm and ``kill -- -GROUP`` signal every process. A server that died of it would take the
    exit status of each trial with it, while they still save. Masks are inherited over exec.
    """
    chosen = [item for item in overrides if "." not in item.partition("=")[0]]
    os.environ[PRELOAD] = json.dumps(chosen)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.SIGNALS)
    try:
        resource_tracker.ensure_running()  # unblocks SIGINT and SIGTERM on its way
        signal.pthread_sigmask(signal.SIG_BLOCK, signals.SIGNALS)
        with _environment(_server_environment):
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the processes that start meanwhile; this one's own stay as they are."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _run(program: str, overrides: list[str], log: str, environment: dict[str, str]) -> None:
    from mlmodeldev.errors import TrialInterrupted
    from mlmodeldev.lease import LostLease
    from mlmodeldev.settings.composition import compose_settings

    os.setpgid(0, 0)
    signals.listen()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.SIGNALS)
    # Inherited from the server otherwise: loader workers would start servers of their own.
    multiprocessing.set_start_method("fork", force=True)
    write_to(log)
    keep_going_without_output()
    _set_environment(environment)
    status = 0
    try:
        import_program(program).train(compose_settings(overrides))
    except UsageError as error:
        print(f"{program}: {error}", file=sys.stderr)
        status = EXIT_BAD_INPUT
    except TrialInterrupted as error:
        print(f"{program}: {error}", file=sys.stderr)
        status = EXIT_INTERRUPTED
    except LostLease as error:
        print(f"{program}: {error}", file=sys.stderr)
        status = 1
    except BaseException as error:
        print_failure(type(error), error, error.__traceback__)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(status)


def _set_environment(environment: dict[str, str]) -> None:
    leave_agent()  # the server has what its own parent was given
    os.environ.update(environment)
    # torch has read the variable when the server imported it
    if "OMP_NUM_THREADS" in environment and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(environment["OMP_NUM_THREADS"]))


def write_to(log: str) -> None:
    """Send this process's output to the end of a file, keys masked."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(own_file(Path(log)), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
    guard_output()
    keep_from_others()
