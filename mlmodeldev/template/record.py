"""What a project says of where it came from: ``.mlmodeldev/``, which git tracks.

``project.json`` holds the version and the answers of ``init``; ``pristine/`` the files as they were
written, so that an update can tell the user's edits from its own.

Example::

    record = read_record(root)
    record.answers.tracker, record.version    # "csv", "0.1.0"
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from mlmodeldev.errors import UsageError
from mlmodeldev.template.source import Answers
from mlmodeldev.template.swap import FOLDER

FORMAT = 1
"""Of project.json and of the folder; a later one is refused."""
_FILE = FOLDER / "project.json"
_PRISTINE = FOLDER / "pristine"


@dataclass(frozen=True)
class Record:
    """A project's version and answers, and the files that it was made from."""

    version: str
    answers: Answers
    pristine: Mapping[str, bytes]

    def as_files(self) -> dict[str, bytes]:
        """Return the files of ``.mlmodeldev/`` that say this."""
        values = {"format": FORMAT, "version": self.version, **self.answers.as_dict()}
        files = {_FILE.as_posix(): (json.dumps(values, indent=1) + "\n").encode()}
        for name, content in self.pristine.items():
            files[pristine_place(name)] = content
        return files


def pristine_place(name: str) -> str:
    """Return where the pristine copy of a project's file lies."""
    return (_PRISTINE / name).as_posix()


def read_record(root: Path) -> Record:
    """Return what a project's folder says of itself.

    Raises:
        UsageError: it is no project that ``init`` wrote, or one of a later version.
    """
    file = root / _FILE
    if not file.is_file():
        raise UsageError(f"{root}: no project that mlmodeldev init wrote (it has no {_FILE})")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        form, version = values["format"], values["version"]
        names = {each.name for each in fields(Answers)}
        answers = Answers(**{name: value for name, value in values.items() if name in names})
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file}: is damaged ({error}); take it from an older commit") from None
    if form > FORMAT:
        raise UsageError(
            f"{root}: is a project of mlmodeldev {version}, unreadable for this one; install that"
        )
    folder = root / _PRISTINE
    pristine = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return Record(version, answers, pristine)
