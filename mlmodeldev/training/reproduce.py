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
from pathlib import Path
from typing import Any

from mlmodeldev.atomic import write_json, write_text, writing_to
from mlmodeldev.errors import EXIT_INTERRUPTED, TrialInterrupted, UsageError
from mlmodeldev.fetch.verify import wrong_content
from mlmodeldev.training.origin_checks import (
    compare_environment,
    compare_origin,
    start_folder,
    stops,
)
from mlmodeldev.training.reproduction import (
    ENVIRONMENT,
    FOLDER,
    REPORT,
    REQUIREMENTS,
    Report,
    Wish,
)
from mlmodeldev.training.rerun import link_data, run_again
from mlmodeldev.trial.comparison import (
    KINDS,
    Difference,
    Trial,
    code_differences,
    data_differences,
    environment_differences,
    inputs_of,
    read_trial,
)
from mlmodeldev.trial.environment import requirements
from mlmodeldev.trial.outcome import compare_outcomes
from mlmodeldev.trial.rebuild import RebuiltCode, find_repository, rebuild_code
from mlmodeldev.trial.record import read_record
from mlmodeldev.trial.virtual_environment import build

_ORIGINAL = "original"


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
        _compare_only(trial, repository, wish, report)
        return report
    report.folder = _own_folder(trial, wish.to)
    with writing_to(report.folder):
        code = _code_in(report.folder, trial, repository)
        compare_origin(trial, code, repository, wish, report)
        stopped = any(stops(each) for each in report.differences) and not wish.anyway
        python = wish.python or sys.executable
        if wish.environment and not stopped:
            place = report.folder / ENVIRONMENT
            python = build(trial, place, code.project, wish.python, wish.anyway)
        compare_environment(trial, code.project, repository, python, report)
        if stopped:
            report.verdict = "stopped"
        else:
            _run_and_compare(trial, code, repository, wish, python, report)
            if report.verdict != "failed":  # else the same command tries again
                write_json(report.folder / REPORT, report.as_json())
    return report


def _compare_only(trial: Trial, repository: Path | None, wish: Wish, report: Report) -> None:
    """Compare what can be compared without a run.

    Raises:
        UsageError: an environment is to be built for it.
    """
    if wish.environment:
        raise UsageError("--environment builds one to run in, and --dry-run runs nothing; drop one")
    with tempfile.TemporaryDirectory() as place:
        code = rebuild_code(trial, Path(place) / "code", repository)
        compare_origin(trial, code, repository, wish, report)
        python = wish.python or sys.executable
        compare_environment(trial, code.project, repository, python, report)
    report.verdict = "differs" if report.differences else "same origin"


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


# --- the run, and after it


def _run_and_compare(
    trial: Trial,
    code: RebuiltCode,
    repository: Path | None,
    wish: Wish,
    python: str,
    report: Report,
) -> None:
    assert report.folder is not None
    start = start_folder(trial, repository)
    if not wish.fetch:
        link_data(trial.settings, start, code.project, inputs_of(trial.record))
    folder, status = run_again(
        trial, code.project, report.folder, python, wish.fetch, alone=wish.environment
    )
    if status == EXIT_INTERRUPTED:
        raise TrialInterrupted(f"{report.folder}: interrupted; the same command goes on with it")
    if status:
        _note_failure(report, folder, status)
        return
    again = read_trial(folder)
    _add(report, code_differences(trial, again, repository))
    _add(report, environment_differences(trial, again, repository))
    _add(report, data_differences(trial.record, again.record))
    outcome = compare_outcomes(trial.folder, folder)
    report.rows, report.tensors = outcome.rows, outcome.tensors
    report.differences += outcome.differences
    equal = not outcome.differences and (outcome.rows or outcome.tensors)
    report.verdict = "reproduced" if equal else "differs"


def _note_failure(report: Report, folder: Path, status: int) -> None:
    """Say why the run failed; a source that sends other data is what differs."""
    report.verdict = "failed"
    reason = str(read_record(folder).get("reason") or "")
    report.notes.append(f"the run ended with status {status}{reason and f': {reason}'}")
    if wrong := wrong_content(reason):
        _add(report, [Difference("data", *wrong)])


def _add(report: Report, differences: Iterable[Difference]) -> None:
    """Add what was not seen beforehand, beside others of its kind."""
    seen = {(each.kind, each.name.partition(":")[0]) for each in report.differences}
    new = [each for each in differences if (each.kind, each.name.partition(":")[0]) not in seen]
    report.differences = sorted(
        [*report.differences, *new], key=lambda each: KINDS.index(each.kind)
    )
