"""The process that runs a trial once more, from its code and its settings.

Example::

    link_data(trial.settings, start, project, inputs)
    folder, status = run_again(trial, project, Path("again"), sys.executable)
"""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from mlmodeldev.project import PROJECT_VARIABLE
from mlmodeldev.settings.command_line import SETTINGS_VARIABLE
from mlmodeldev.trial.agent_run import without_agent
from mlmodeldev.trial.comparison import Trial
from mlmodeldev.trial.signals import SIGNALS

_STANDARD_ERROR = 2
_OF_A_LAUNCHER = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
"""Variables of a launcher, which may have started this command, not the trial."""

_OF_PYTHON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Variables that lead an interpreter to packages beside its own."""


def run_again(
    trial: Trial,
    project: Path,
    place: Path,
    python: str,
    fetch: bool = False,
    alone: bool = False,
) -> tuple[Path, int]:
    """Run ``trainer.py`` of the project with the trial's settings; return its folder and status.

    No tracker is used but ``metrics.csv``. What the trial prints goes to standard error.

    Args:
        trial: the original.
        project: its code.
        place: the new trial lies in ``runs/`` below it.
        python: the interpreter.
        fetch: have the data below ``place``, whatever folder the trial took.
        alone: import nothing but what the interpreter's environment has.
    """
    settings = settings_again(trial, place, fetch)
    artefacts = settings["artefacts"]
    command = [python, str(project / "trainer.py")]
    variables = _environment(trial, project, settings)
    if alone:
        variables = {name: value for name, value in variables.items() if name not in _OF_PYTHON}
    process = subprocess.Popen(command, cwd=project, env=variables, stdout=_STANDARD_ERROR)
    folder = place / "runs" / artefacts["sweep"] / artefacts["trial"]
    return folder, _wait(process)


def settings_again(trial: Trial, place: Path, fetch: bool) -> dict[str, Any]:
    """Return the settings that the trial ran with, but for its place and its trackers."""
    recorded = trial.source.settings if trial.source else None
    settings: dict[str, Any] = copy.deepcopy(recorded or trial.settings)
    settings["artefacts"] |= {
        "runs_dir": str(place / "runs"),
        "sweep": trial.folder.parent.name,
        "trial": trial.folder.name.lstrip("."),
        "fresh": False,
    }
    settings["training"] |= _parent_places(trial)
    if fetch:
        settings["artefacts"]["data_dir"] = str(place / "data")
    settings["logger"] = {**dict.fromkeys(settings.get("logger") or ()), "csv": {}}
    if pruning := settings.get("callbacks", {}).get("pruning"):
        pruning["enabled"] = False  # the trial was not ended by it; the others are not here
    if "launcher" in settings.get("cluster", {}):
        settings["cluster"]["launcher"] = "local"
    ranks = (trial.environment.get("machine") or {}).get("ranks", 1)
    if ranks > 1 and settings["training"].get("devices") == "auto":  # a launcher had decided
        settings["training"]["devices"] = ranks
    return settings


def _parent_places(trial: Trial) -> dict[str, str]:
    """Return where the trial or the weights lie that this one began with; a Hub's name stays."""
    parent = trial.record.get("parent") or {}
    place = Path(parent.get("folder") or parent.get("file", ""))
    return {parent["how"]: str(place)} if place.is_absolute() else {}


def _environment(trial: Trial, project: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    variables = without_agent(os.environ)
    for name in _OF_A_LAUNCHER:
        variables.pop(name, None)
    threads = (trial.environment.get("machine") or {}).get("threads")
    if threads:  # as many as then: sums over other numbers of threads differ in their last bits
        variables["OMP_NUM_THREADS"] = str(threads)
    return variables | {
        "WANDB_MODE": "offline",
        PROJECT_VARIABLE: str(project),
        SETTINGS_VARIABLE: json.dumps(settings),
    }


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for the process; hand warnings on to it, which saves and ends."""

    def hand_on(number: int, _: FrameType | None) -> None:
        if number != signal.SIGINT:  # a terminal's Ctrl-C comes to both
            process.send_signal(number)

    before = {number: signal.signal(number, hand_on) for number in SIGNALS}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def link_data(
    settings: Mapping[str, Any], start: Path, project: Path, inputs: Iterable[str]
) -> None:
    """Lay links to the trial's data into its rebuilt project, where settings name relative places.

    Args:
        settings: of the trial.
        start: folder that it was started in.
        project: the rebuilt one.
        inputs: files and folders of the data, as the record names them.
    """
    data = Path(str((settings.get("artefacts") or {}).get("data_dir", "data"))).expanduser()
    if not data.is_absolute() and (start / data).is_dir():
        for entry in (start / data).iterdir():
            _link(entry, project / data / entry.name)
    for name in inputs:
        if not Path(name).is_absolute() and (start / name).exists():
            _link(start / name, project / name)


def _link(source: Path, link: Path) -> None:
    if not os.path.lexists(link):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source.resolve())
