"""Bring a project to the installed version: ``mlmodeldev update [DIR]``.

Three texts of each file are compared: the one that the project was made from (``.mlmodeldev/``),
the user's, and the one of the installed version. ``git merge-file`` merges them, without a network.
All files are written or none; after a kill, the same command goes on.

Example::

    mlmodeldev update                    # in a project without uncommitted changes
    mlmodeldev update --conflicts        # write conflicts, too, with git's markers
"""

from __future__ import annotations

import argparse
import fnmatch
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlmodeldev.arguments import OneLineParser
from mlmodeldev.errors import EXIT_BAD_INPUT, UsageError
from mlmodeldev.project import project_root, run_git
from mlmodeldev.template.origin import requirement
from mlmodeldev.template.record import Record, pristine_place, read_record
from mlmodeldev.template.renames import package_of, rename_settings
from mlmodeldev.template.source import Answers, Template, load_template
from mlmodeldev.template.swap import finish, write_all

YOURS = ("model.py", "datamodule.py", "README.md", "tests/test_mine.py")
"""Files that are there to be replaced: once edited, they are left alone rather than merged."""
_YAML = ("conf/**/*.yaml", "sweep/**/*.yaml")
CONFLICT = "conflict"


@dataclass(frozen=True)
class Change:
    """What becomes of a file.

    Args:
        name: its place in the project.
        what: a word such as ``updated``; nothing where there is nothing to tell.
        content: the new content; None: the file is not there any more.
        note: the rest of the line.
    """

    name: str
    what: str
    content: bytes | None
    note: str = ""

    def __str__(self) -> str:
        return f"{self.what:9} {self.name}" + (f": {self.note}" if self.note else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer the command line; return the exit status."""
    try:
        options = parser().parse_args(sys.argv[1:] if arguments is None else arguments)
        folder = options.folder.expanduser().absolute() if options.folder else project_root()
        if finish(folder):
            print(f"{folder}: an update that was cut off is finished now; git diff shows it")
            return 0
        return update(folder, load_template(), options.conflicts)
    except UsageError as error:
        print(f"mlmodeldev update: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = OneLineParser(
        prog="mlmodeldev update", description="Bring a project to the installed version."
    )
    result.add_argument(
        "folder", metavar="DIR", nargs="?", type=Path, help="the project (default: this one)"
    )
    result.add_argument(
        "--conflicts", action="store_true", help="write conflicts with markers, to be resolved"
    )
    return result


def update(root: Path, template: Template, conflicts: bool = False) -> int:
    """Merge a template into a project; print a line for each file; return the exit status.

    Raises:
        UsageError: no project, a later version, uncommitted changes; nothing is written.
    """
    record = read_record(root)
    _check_version(root, record.version, template.version)
    answers = _renewed(record.answers)
    pristine = template.render(answers)
    _check_clean(root, {*record.pristine, *pristine})
    results = merge(root, record, replace(template, files=pristine))
    for change in results:
        if change.what:
            print(change, file=sys.stderr if change.what == CONFLICT else sys.stdout)
    clashes = [change for change in results if change.what == CONFLICT]
    if clashes and not conflicts:
        raise UsageError(
            f"nothing was written, for {clashes[0].name} is in conflict"
            + (f", as are {len(clashes) - 1} other files" if clashes[1:] else "")
            + "; --conflicts writes all, with markers to be resolved by hand"
        )
    new = Record(template.version, answers, pristine)
    contents = _contents(root, record, new, results)
    if not contents:
        print(f"{root}: is at {template.version} already")
        return 0
    write_all(root, contents)
    print(f"{root}: {record.version} -> {template.version}; look at it (git diff) and commit it")
    return int(bool(clashes))


def _check_version(root: Path, project: str, installed: str) -> None:
    from packaging.version import InvalidVersion, Version

    try:
        older = Version(installed) < Version(project)
    except InvalidVersion as error:
        raise UsageError(f"{root}: {error}") from None
    if older:
        raise UsageError(
            f"{root}: is a project of mlmodeldev {project}, but {installed} is installed;"
            " install that version or a later one"
        )


def _renewed(answers: Answers) -> Answers:
    """Return the answers with the place that the package is installed from today."""
    try:
        return replace(answers, requirement=requirement(answers.extras))
    except UsageError:  # nothing tells: the project's own line stays
        return answers


def _check_clean(root: Path, names: Collection[str]) -> None:
    """Refuse uncommitted changes, and files that git does not know among those to be written."""
    listed = run_git(root, "status", "--porcelain", "-z", "--untracked-files=all", "--", ".")
    prefix = run_git(root, "rev-parse", "--show-prefix")
    if listed is None or prefix is None:
        raise UsageError(
            f"{root}: no git repository, so nothing would lead back; first: git init && git add -A"
            " && git commit"
        )
    for entry in listed.split("\0"):
        name = entry[3:].removeprefix(prefix)
        ours = name in names or name.startswith(".mlmodeldev/")
        if entry and (ours or not entry.startswith("?? ")):
            raise UsageError(
                f"{root}: {name} has changes that are not committed; commit them first"
            )


def merge(root: Path, record: Record, template: Template) -> list[Change]:
    """Return what becomes of each file; nothing is written.

    Args:
        root: the project.
        record: what it was made from.
        template: the new version, its files as this project's answers make them.
    """
    names = sorted({*record.pristine, *template.files, *_yaml_files(root)})
    results = []
    for name in names:
        path = root / name
        mine = path.read_bytes() if path.is_file() else None
        base, new = record.pristine.get(name), template.files.get(name)
        renamed_mine, renamed_base = (
            _renamed(name, text, template.renamed) for text in (mine, base)
        )
        change = _merge_file(
            name, renamed_base, renamed_mine, new, (record.version, template.version)
        )
        if not change.what and change.content != mine:
            change = replace(change, what="renamed", note="settings that have a new name")
        results.append(change)
    return results


def _yaml_files(root: Path) -> list[str]:
    """Return the user's files of settings and sweeps, those that no template has included."""
    paths = [path for pattern in _YAML for path in root.glob(pattern)]
    return [path.relative_to(root).as_posix() for path in paths if path.is_file()]


def _renamed(name: str, content: bytes | None, renames: Mapping[str, str]) -> bytes | None:
    is_yaml = name.startswith(("conf/", "sweep/")) and name.endswith(".yaml")
    if content is None or not renames or not is_yaml:
        return content
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return content
    return rename_settings(text, package_of(name, text), renames).encode()


def _merge_file(
    name: str,
    base: bytes | None,
    mine: bytes | None,
    new: bytes | None,
    versions: tuple[str, str],
) -> Change:
    """Return what becomes of one file."""
    if new in (base, mine):
        return Change(name, "", mine)
    if mine == base:
        what = "removed" if new is None else "new" if mine is None else "updated"
        return Change(name, what, new)
    if mine is None:
        return Change(name, "kept", None, "you removed it; it does not come back")
    if new is None:
        return Change(name, "kept", mine, "no longer part of a project; you have edited it")
    if any(fnmatch.fnmatch(name, pattern) for pattern in YOURS):
        return Change(name, "kept", mine, f"yours; {pristine_place(name)} is {versions[1]}'s")
    return _merge_texts(name, base or b"", mine, new, versions)


def _merge_texts(
    name: str, base: bytes, mine: bytes, new: bytes, versions: tuple[str, str]
) -> Change:
    """Return the merge of three texts by ``git merge-file``."""
    labels = ("yours", *versions)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / word for word in ("mine", "base", "new")]
        for file, content in zip(files, (mine, base, new), strict=True):
            file.write_bytes(content)
        flags = [word for label in labels for word in ("-L", label)]
        command = ["git", "merge-file", "-p", *flags, *map(str, files)]
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except FileNotFoundError:
            raise UsageError("git is missing; it does the merge") from None
    if done.returncode == 0:
        return Change(name, "merged", done.stdout, "your edits are kept")
    if done.returncode > 127:  # an error: the text is binary, for one
        return Change(name, CONFLICT, mine, f"{done.stderr.decode().strip()}; yours is kept")
    line = done.stdout[: _first_marker(done.stdout)].count(b"\n") + 1
    note = f"you and {versions[1]} changed the same lines, from line {line}"
    if done.returncode > 1:
        note += f" and at {done.returncode - 1} more places"
    return Change(name, CONFLICT, done.stdout, note)


def _first_marker(text: bytes) -> int:
    actual = re.search(rb"^<<<<<<< yours$", text, re.MULTILINE)
    return actual.start() if actual else 0


def _contents(
    root: Path, old: Record, new: Record, results: Sequence[Change]
) -> dict[str, bytes | None]:
    """Return what is to be written and removed, the project's notes included."""
    contents: dict[str, bytes | None] = {change.name: change.content for change in results}
    contents |= dict.fromkeys(old.as_files())
    contents |= new.as_files()
    return {name: content for name, content in contents.items() if _current(root / name) != content}


def _current(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
