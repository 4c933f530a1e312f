"""A trial's code, made again in a folder of its own: its commit, and what differed from it.

Example::

    repository = find_repository(trial, given=None)
    code = rebuild_code(trial, Path("again"), repository)
    code.project            # again/code: `python trainer.py` runs there what the trial ran
    code.differences        # files that are not what the record says
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mlmodeldev.errors import UsageError
from mlmodeldev.project import git_output, project_root, run_git
from mlmodeldev.trial.comparison import Difference, Trial
from mlmodeldev.trial.source import unpack

_CHANGES = "changes.diff"
_WITHOUT_HOOKS = ("-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false")


@dataclass
class RebuiltCode:
    """A project that was made again.

    Attributes:
        project: its folder.
        differences: files of the trial's code that did not come out as the record has them.
        missing: other files that the trial's folder does not keep, and why.
    """

    project: Path
    differences: list[Difference] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


def find_repository(trial: Trial, given: Path | None) -> Path | None:
    """Return the project, in the repository that has the trial's commit; None: it needs none.

    Args:
        given: where to look; None: this project, and that which the trial's folder lies in.

    Raises:
        UsageError: the commit is not there.
    """
    commit = trial.record.get("sha")
    places = [given.expanduser().absolute()] if given else list(_places(trial))
    if not commit:
        return next(iter(places), None)
    for place in places:
        if place.is_dir() and run_git(place, "cat-file", "-e", f"{commit}^{{commit}}") is not None:
            return place
    where = ", ".join(map(str, places)) or str(Path.cwd())
    remote = trial.record.get("remote")
    origin = f" (it came from {remote})" if remote else ""
    raise UsageError(
        f"{trial.folder}: its commit {commit[:12]} is not in {where}; fetch it, or name a clone"
        f" that has it: --repository DIR{origin}"
    )


def _places(trial: Trial) -> Iterator[Path]:
    with contextlib.suppress(UsageError):
        yield project_root()
    for folder in trial.folder.absolute().parents:
        if (folder / "conf" / "config.yaml").is_file():
            yield folder
            return


def rebuild_code(trial: Trial, target: Path, repository: Path | None) -> RebuiltCode:
    """Make the trial's code again, in ``target``.

    Args:
        target: a folder that is not there yet, or empty.
        repository: the project that `find_repository` has returned.

    Raises:
        UsageError: the code was not kept, or git refuses.
    """
    source, commit = trial.source, trial.record.get("sha")
    prefix = source.prefix if source else ""
    target.mkdir(parents=True, exist_ok=True)
    if commit and repository:
        if source is None:
            prefix = run_git(repository, "rev-parse", "--show-prefix") or ""
        _check_out(repository, commit, target)
    elif source is None:
        raise UsageError(
            f"{trial.folder}: its code was not kept: the record names no commit, and there is no"
            " source.zip (earlier versions kept none)"
        )
    code = RebuiltCode(target / prefix)
    code.project.mkdir(parents=True, exist_ok=True)
    if source is None:
        _apply_changes(trial.folder / _CHANGES, code.project)
    else:
        unpack(trial.folder, source, code.project)
        _take_left_out(trial, repository, code)
    code.differences = list(_wrong_files(trial, code.project))
    return code


def _check_out(repository: Path, commit: str, target: Path) -> None:
    """Check a commit out, with the objects of the repository that has it; nothing is copied."""
    common = git_output(repository, "rev-parse", "--git-common-dir").decode().strip()
    git_output(target, "init", "--quiet", "--template=")
    alternates = target / ".git" / "objects" / "info" / "alternates"
    alternates.parent.mkdir(parents=True, exist_ok=True)
    alternates.write_text(f"{(repository / common).resolve() / 'objects'}\n")
    git_output(target, *_WITHOUT_HOOKS, "checkout", "--quiet", "--detach", commit, seconds=600)


def _apply_changes(changes: Path, project: Path) -> None:
    """Apply what an earlier version kept; a file that this leaves wrong is named afterwards."""
    if changes.is_file():
        with contextlib.suppress(UsageError):
            git_output(project, "apply", "--whitespace=nowarn", str(changes.absolute()))


def _take_left_out(trial: Trial, repository: Path | None, code: RebuiltCode) -> None:
    """Take files that were not kept from the project, where they are still the same."""
    assert trial.source is not None
    for name, entry in trial.source.left_out.items():
        file = repository / name if repository else None
        digest = entry["sha256"]
        same = digest is not None and file is not None and _digest(file) == digest
        if file is not None and same:
            (code.project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, code.project / name)
        else:
            code.missing[name] = str(entry["reason"])


def _wrong_files(trial: Trial, project: Path) -> Iterator[Difference]:
    """Yield the files that are others than the record and ``source.zip`` say."""
    wanted: dict[str, str] = {**(trial.source.files if trial.source else {})}
    wanted |= trial.record.get("code") or {}
    reasons = trial.source.left_out if trial.source else {}
    for name, digest in wanted.items():
        actual = _digest(project / name)
        if actual is None or not actual.startswith(digest):
            reason = reasons.get(name, {}).get("reason")
            shown = f"sha256 {digest[:16]}" + (f", not kept: {reason}" if reason else "")
            yield Difference("code", name, shown, actual and f"sha256 {actual[:16]}")


def _digest(file: Path) -> str | None:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return None
