"""What of a trial's origin is another one here, before it is run again.

Example::

    compare_origin(trial, code, repository, wish, report)
    compare_environment(trial, code.project, python, report)
    report.differences          # code, settings, environment, data: in that order
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlmodeldev.data.versions import fingerprint
from mlmodeldev.training.reproduction import ENVIRONMENT, REQUIREMENTS, Report, Wish
from mlmodeldev.trial.comparison import (
    KINDS,
    Difference,
    Trial,
    differences_of_environments,
    imported_packages,
    inputs_of,
    library_difference,
    setting_differences,
)
from mlmodeldev.trial.environment import LIBRARY_NAME, environment_of
from mlmodeldev.trial.rebuild import RebuiltCode
from mlmodeldev.trial.software import digest_of_library, software


def compare_origin(
    trial: Trial, code: RebuiltCode, repository: Path | None, wish: Wish, report: Report
) -> None:
    """Compare code, settings and data; the environment may have to be built yet."""
    report.differences += code.differences
    report.notes += [f"{name} was not kept ({why})" for name, why in code.missing.items()]
    if trial.source is not None:  # config.yaml as it is now, against what the attempt ran with
        report.differences += setting_differences(trial.source.settings, trial.settings)
    if not wish.fetch:
        _compare_data(trial, repository, report)


def compare_environment(
    trial: Trial, project: Path, repository: Path | None, python: str, report: Report
) -> None:
    """Compare what the trial ran in with an interpreter and its packages."""
    built = report.folder is not None and Path(python).is_relative_to(report.folder / ENVIRONMENT)
    here = environment_of(python, isolated=built)
    environment = list(_environment_differences(trial, project, repository, python, here))
    report.differences += environment
    report.differences.sort(key=lambda each: KINDS.index(each.kind))
    if not built and any(_is_package(each) for each in environment):
        place = report.folder / REQUIREMENTS if report.folder else f"the {REQUIREMENTS} of a run"
        report.notes.append(
            f"--environment builds its environment; or pip install -r {place} in a new one, whose"
            " python --python names"
        )


def _is_package(difference: Difference) -> bool:
    return "." not in difference.name and difference.name != LIBRARY_NAME


def stops(difference: Difference) -> bool:
    """Whether it makes no sense to run: another environment may come to the same, others not."""
    return difference.kind in ("code", "setting", "data")


def _environment_differences(
    trial: Trial,
    project: Path,
    repository: Path | None,
    python: str,
    here: Mapping[str, Any],
) -> Iterator[Difference]:
    before = trial.record.get("software") or {}
    own, now = project / LIBRARY_NAME, software()
    if own.is_dir():  # a clone's, which the commit has made
        now |= {"library": before.get("library"), "library_digest": digest_of_library(own)}
    if own.is_dir() or python == sys.executable:  # of another's, the run's record tells
        yield from library_difference(before, now)
    if trial.environment:
        imported = imported_packages(trial, repository)
        yield from differences_of_environments(trial.environment, here, imported)
        return
    versions = {"python": here["python"], "torch": here["packages"].get("torch")}
    for name, version in versions.items():
        if before.get(name) not in (None, version):
            yield Difference("environment", name, before[name], version)


def _compare_data(trial: Trial, repository: Path | None, report: Report) -> None:
    """Compare the inputs that are here; those that are not, the run itself fetches or makes."""
    differing = []
    for name, digest in inputs_of(trial.record).items():
        path = data_path(trial, repository, name)
        if not path.exists():
            report.notes.append(f"{name} is not here; the run fetches it, if its data can be")
            continue
        now = fingerprint(path)
        if now != digest:
            sides = f"sha256 {digest[:16]}", f"sha256 {now[:16]}"
            differing.append(Difference("data", name, *sides))
    report.differences += differing
    versions = (trial.record.get("data") or {}).get("dvc") or () if differing else ()
    for each in versions:
        report.notes.append(
            f"its version of the data: git checkout {each.get('commit')} -- {each.get('pointer')},"
            " then dvc checkout"
        )
    if differing:
        report.notes.append("--fetch runs it with data that are fetched anew")


def data_path(trial: Trial, repository: Path | None, name: str) -> Path:
    """Return where an input of the trial's data lies: below the data folder, or as it was named."""
    start = start_folder(trial, repository)
    below = start / str(trial.settings.get("artefacts", {}).get("data_dir", "data")) / name
    return below if below.exists() else start / name


def start_folder(trial: Trial, repository: Path | None) -> Path:
    """Return the folder that the trial was started in, from which its settings name places."""
    runs = Path(str(trial.settings.get("artefacts", {}).get("runs_dir", "runs")))
    parts = trial.folder.parts
    at = len(parts) - 2 - len(runs.parts)
    if not runs.is_absolute() and at > 0 and parts[at:-2] == runs.parts:
        return Path(*parts[:at])
    return repository or Path.cwd()
