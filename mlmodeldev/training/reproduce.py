"""A trial run once more in a folder of its own, and whether it came out bit for bit.

Example::

    report = reproduce(Wish(Path("runs/digits/ab12cd34")))
    report.verdict          # "reproduced", "differs", "stopped", "failed", "same origin"
    str(report.culprit)     # "data: cola/in_domain_train.tsv: sha256 1f0c... | sha256 9a0d..."
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlmodeldev.atomic import write_json, write_text, writing_to
from mlmodeldev.data.versions import fingerprint
from mlmodeldev.errors import EXIT_INTERRUPTED, TrialInterrupted, UsageError
from mlmodeldev.training.rerun import link_data, run_again
from mlmodeldev.trial.comparison import (
    KINDS,
    Difference,
    Trial,
    code_differences,
    data_differences,
    differences_of_environments,
    environment_differences,
    inputs_of,
    library_difference,
    read_trial,
    setting_differences,
)
from mlmodeldev.trial.environment import environment_of, requirements
from mlmodeldev.trial.outcome import compare_outcomes
from mlmodeldev.trial.rebuild import RebuiltCode, find_repository, rebuild_code
from mlmodeldev.trial.software import digest_of_library, software

FOLDER = ".reproduced"
"""Beside the sweeps' folders: trials that were run again."""
REPORT = "reproduction.json"
REQUIREMENTS = "requirements.txt"

_ORIGINAL = "original"


@dataclass
class Wish:
    """What is asked for.

    Attributes:
        trial: its folder.
        to: where to run it again; None: ``<runs_dir>/.reproduced/<sweep>/<trial>``.
        repository: a clone that has the commit; None: this project.
        python: the interpreter to run it with.
        fetch: take no data that are here; fetch and prepare them anew.
        anyway: run it, even where code, settings or data differ beforehand.
        dry_run: compare only what can be compared beforehand; nothing is left behind.
    """

    trial: Path
    to: Path | None = None
    repository: Path | None = None
    python: str = sys.executable
    fetch: bool = False
    anyway: bool = False
    dry_run: bool = False


@dataclass
class Report:
    """What came of it.

    Attributes:
        trial: the original's folder.
        folder: where it was run again; None: nowhere.
        verdict: ``reproduced``, ``differs``, ``stopped`` (before the run), ``failed``, or of a dry
            run ``same origin``.
        differences: causes first: `mlmodeldev.trial.comparison.KINDS`.
        notes: what else there is to know.
        rows, tensors: how many were compared.
    """

    trial: Path
    folder: Path | None = None
    verdict: str = ""
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rows: int = 0
    tensors: int = 0

    @property
    def culprit(self) -> Difference | None:
        """The first thing that differs."""
        return next(iter(self.differences), None)

    def as_json(self) -> dict[str, Any]:
        """Return the report with plain values."""
        culprit = asdict(self.culprit) if self.culprit else None
        paths = {"trial": str(self.trial), "folder": self.folder and str(self.folder)}
        return {**asdict(self), **paths, "culprit": culprit}


def reproduce(wish: Wish) -> Report:
    """Run a trial again and compare.

    Raises:
        UsageError: it is no finished trial, its code can't be had, or the folder is taken.
        TrialInterrupted: a signal ended the run; the same command goes on with it.
    """
    trial = read_trial(wish.trial.absolute())
    _check_finished(trial)
    repository = find_repository(trial, wish.repository)
    report = Report(trial.folder, notes=list(_notes(trial)))
    if wish.dry_run:
        with tempfile.TemporaryDirectory() as place:
            code = rebuild_code(trial, Path(place) / "code", repository)
            _compare_beforehand(trial, code, repository, wish, report)
        report.verdict = "differs" if report.differences else "same origin"
        return report
    report.folder = _own_folder(trial, wish.to)
    with writing_to(report.folder):
        code = _code_in(report.folder, trial, repository)
        _compare_beforehand(trial, code, repository, wish, report)
        if any(_stops(each) for each in report.differences) and not wish.anyway:
            report.verdict = "stopped"
        else:
            _run_and_compare(trial, code, repository, wish, report)
            if report.verdict != "failed":  # else the same command tries again
                write_json(report.folder / REPORT, report.as_json())
    return report


def _check_finished(trial: Trial) -> None:
    state, nodes = trial.record.get("state"), trial.settings.get("training", {}).get("num_nodes")
    if state == "pruned":
        raise UsageError(
            f"{trial.folder}: was ended before its time, for other trials of its sweep were better;"
            " only a trial that is done can be reproduced"
        )
    if state != "done":
        raise UsageError(
            f"{trial.folder}: is {state or 'not begun'}; only a trial that is done can be"
            " reproduced"
        )
    if nodes not in (None, "auto", 1):
        raise UsageError(
            f"{trial.folder}: ran on {nodes} nodes; this command starts processes on one alone"
        )
    if not any((trial.folder / name).exists() for name in ("metrics.csv", "checkpoints", "last")):
        raise UsageError(f"{trial.folder}: has neither metrics nor weights left to compare with")


def _notes(trial: Trial) -> Iterator[str]:
    """Yield what may keep one run from repeating what several attempts did."""
    if trial.record.get("earlier_code"):
        yield "an earlier attempt at this trial ran other code; the last attempt's is run"
    for pattern, what in (
        ("environment-*.json", "environment"),
        ("source-*.zip", "code or settings"),
    ):
        if names := sorted(file.name for file in trial.folder.glob(pattern)):
            yield f"an earlier attempt had another {what} ({', '.join(names)})"
    if trial.source is None:
        yield "it keeps no source.zip (an earlier version's): untracked files may be missing"
    if not trial.environment:
        yield "it keeps no environment.json (an earlier version's): packages are not compared"


def _own_folder(trial: Trial, to: Path | None) -> Path:
    """Return the folder to run in: a new one, or that of a run which has not come to its end.

    Raises:
        UsageError: it lies in the trial's, or holds something else.
    """
    sweep, name = trial.folder.parent.name, trial.folder.name.lstrip(".")
    folder = to.expanduser().absolute() if to else trial.folder.parents[1] / FOLDER / sweep / name
    if folder.resolve().is_relative_to(trial.folder.resolve()):
        raise UsageError(f"--to {folder}: lies in the trial's own folder; name another")
    number = 1
    while to is None and (folder / REPORT).exists():
        number += 1
        folder = folder.with_name(f"{name}-{number}")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--to {folder}: is a file")
    if folder.is_dir() and any(folder.iterdir()) and not _is_unfinished(folder, trial):
        raise UsageError(f"--to {folder}: is not empty; name another folder, or remove it")
    return folder


def _is_unfinished(folder: Path, trial: Trial) -> bool:
    """Whether a run of this very trial was begun here, and not compared yet."""
    try:
        begun = json.loads((folder / f"{_ORIGINAL}.json").read_text())
    except (OSError, ValueError):
        return False
    return not (folder / REPORT).exists() and begun == _mark(trial)


def _mark(trial: Trial) -> dict[str, Any]:
    return {"trial": str(trial.folder), "token": trial.record.get("token")}


def _code_in(folder: Path, trial: Trial, repository: Path | None) -> RebuiltCode:
    """Make the code anew, also where a run is gone on with: its folder may have been edited."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{_ORIGINAL}.json", _mark(trial))
    shutil.rmtree(folder / "code", ignore_errors=True)
    if trial.environment:
        write_text(folder / REQUIREMENTS, requirements(trial.environment))
    return rebuild_code(trial, folder / "code", repository)


# --- before the run


def _compare_beforehand(
    trial: Trial, code: RebuiltCode, repository: Path | None, wish: Wish, report: Report
) -> None:
    report.differences += code.differences
    report.notes += [f"{name} was not kept ({why})" for name, why in code.missing.items()]
    if trial.source is not None:  # config.yaml as it is now, against what the attempt ran with
        report.differences += setting_differences(trial.source.settings, trial.settings)
    environment = list(_environment_differences(trial, code.project, wish))
    report.differences += environment
    if any("." not in each.name and each.name != "mlmodeldev" for each in environment):
        place = report.folder / REQUIREMENTS if report.folder else f"the {REQUIREMENTS} of a run"
        report.notes.append(
            f"its environment: pip install -r {place} in a new one, whose python --python names"
        )
    if not wish.fetch:
        _compare_data(trial, repository, report)


def _stops(difference: Difference) -> bool:
    """Whether it makes no sense to run: another environment may come to the same, others not."""
    return difference.kind in ("code", "setting", "data")


def _environment_differences(trial: Trial, project: Path, wish: Wish) -> Iterator[Difference]:
    before = trial.record.get("software") or {}
    own, now = project / "mlmodeldev", software()
    if own.is_dir():  # a clone's, which the commit has made
        now |= {"library": before.get("library"), "library_digest": digest_of_library(own)}
    if own.is_dir() or wish.python == sys.executable:  # of another's, the run's record tells
        yield from library_difference(before, now)
    here = environment_of(wish.python)
    if trial.environment:
        yield from differences_of_environments(trial.environment, here)
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


# --- the run, and after it


def _run_and_compare(
    trial: Trial, code: RebuiltCode, repository: Path | None, wish: Wish, report: Report
) -> None:
    assert report.folder is not None
    start = start_folder(trial, repository)
    if not wish.fetch:
        link_data(trial.settings, start, code.project, inputs_of(trial.record))
    folder, status = run_again(trial, code.project, report.folder, wish.python, wish.fetch)
    if status == EXIT_INTERRUPTED:
        raise TrialInterrupted(f"{report.folder}: interrupted; the same command goes on with it")
    if status:
        report.verdict = "failed"
        report.notes.append(f"the run ended with status {status}")
        return
    again = read_trial(folder)
    _add(report, code_differences(trial, again, repository))
    _add(report, environment_differences(trial, again))
    _add(report, data_differences(trial.record, again.record))
    outcome = compare_outcomes(trial.folder, folder)
    report.rows, report.tensors = outcome.rows, outcome.tensors
    report.differences += outcome.differences
    equal = not outcome.differences and (outcome.rows or outcome.tensors)
    report.verdict = "reproduced" if equal else "differs"


def _add(report: Report, differences: Iterable[Difference]) -> None:
    """Add what was not seen beforehand, beside others of its kind."""
    seen = {(each.kind, each.name.partition(":")[0]) for each in report.differences}
    new = [each for each in differences if (each.kind, each.name.partition(":")[0]) not in seen]
    report.differences = sorted(
        [*report.differences, *new], key=lambda each: KINDS.index(each.kind)
    )
