"""What DVC is to keep: where the pointer of a file or folder lies, and whether a trial writes it.

A pointer lies beside its data, ``data/cola.dvc``, so far as git tracks that place. What git
ignores, such as all of ``runs/``, has it in ``versions/``, which mirrors the tree:
``versions/runs/digits/ab12cd34/best.dvc``. A trial's folder may then be wiped, pointers stay.

Example::

    tracked = Tracked.of(Path("runs/digits/ab12cd34"), root)
    tracked.refuse_running()
    tracked.pointer           # <root>/versions/runs/digits/ab12cd34.dvc
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlmodeldev.atomic import write_text, writing_to
from mlmodeldev.data.versions import FOLDER
from mlmodeldev.errors import UsageError
from mlmodeldev.lease import owned
from mlmodeldev.project import run_git
from mlmodeldev.trial.named import RECORD
from mlmodeldev.trial.record import read_record

_DEPTHS = ("", "*/", "*/*/")
"""Where trials lie below a trial, a sweep, the runs folder."""


@dataclass(frozen=True)
class Tracked:
    """A file or folder that DVC is to keep.

    Attributes:
        path: as it was given, absolute.
        pointer: DVC's file of it.
        records: those of the trials that it is, holds, or belongs to, with their contents.
    """

    path: Path
    pointer: Path
    records: dict[Path, bytes]

    @classmethod
    def of(cls, path: Path, root: Path) -> Tracked:
        """Look at a file or folder below the root of DVC's repository.

        Raises:
            UsageError: it lies outside of the repository, or is empty.
        """
        absolute = Path(os.path.abspath(path))  # noqa: PTH100
        if absolute.resolve() == root.resolve():
            raise UsageError(f"{path}: is the repository itself; name what lies in it")
        if not absolute.resolve().is_relative_to(root.resolve()):
            raise UsageError(
                f"{path}: lies outside of the repository {root}, and DVC keeps what lies inside;"
                " move it there, such as by artefacts.runs_dir=runs"
            )
        if absolute.is_dir() and not any(absolute.iterdir()):
            raise UsageError(f"{path}: is empty")
        return cls(absolute, _pointer(absolute, root), _records(absolute, root))

    @property
    def is_beside(self) -> bool:
        """Whether the pointer lies beside the data, as DVC's own commands want it."""
        return self.pointer.parent == self.path.parent

    def refuse_running(self) -> None:
        """Refuse what a trial may be writing now: half of a trial is no version of it.

        Raises:
            UsageError: naming the trial and its host.
        """
        for file in self.records:
            record = read_record(file.parent)
            if owned(record):
                host = (record.get("owner") or {}).get("host")
                raise UsageError(
                    f"{file.parent}: this trial runs on host {host}; keep it once it has ended or"
                    " was interrupted"
                )

    def refuse_changed(self) -> None:
        """Refuse what a trial has begun to write since this was made.

        Raises:
            UsageError: naming the trial.
        """
        if changed := [f for f, content in self.records.items() if _content(f) != content]:
            raise UsageError(
                f"{changed[0].parent}: this trial went on meanwhile; keep it once it has ended"
            )

    def refuse_overlap(self, root: Path) -> None:
        """Refuse what DVC keeps as a part of something else, or a part of which it keeps.

        DVC itself sees it only later, and then refuses all work in the repository.

        Raises:
            UsageError: naming the file that keeps it.
        """
        for file, path in _kept(self.path, root):
            if self.path.is_relative_to(path) or path.is_relative_to(self.path):
                part = path.relative_to(root)
                raise UsageError(
                    f"{self.path.relative_to(root)}: {file.relative_to(root)} keeps {part} already,"
                    " and DVC keeps a file once"
                )

    def write_pointer(self) -> bool:
        """Write the pointer, still without a version, unless there is one; return whether."""
        if self.pointer.exists():
            return False
        folder = os.path.relpath(self.path.parent, self.pointer.parent)
        with writing_to(self.pointer):
            self.pointer.parent.mkdir(parents=True, exist_ok=True)
        text = f"wdir: {_quoted(folder)}\nouts:\n- path: {_quoted(self.path.name)}\n  hash: md5\n"
        write_text(self.pointer, text)
        return True

    def version(self) -> str:
        """Return what the pointer says: DVC's MD5."""
        import yaml

        return str(yaml.safe_load(self.pointer.read_text("utf-8"))["outs"][0]["md5"])


def _pointer(path: Path, root: Path) -> Path:
    beside = path.with_name(f"{path.name}.dvc")
    if beside.exists() or run_git(root, "check-ignore", str(beside)) is None:
        return beside
    mirrored = root / FOLDER / beside.relative_to(root)
    if run_git(root, "check-ignore", str(mirrored)) is not None:
        raise UsageError(f"{mirrored}: git ignores this place of pointers; see .gitignore")
    return mirrored


def _kept(path: Path, root: Path) -> Iterator[tuple[Path, Path]]:
    """Yield pointers around a path, and stages, with what they keep, but for its own pointer."""
    mirror = root / FOLDER
    for place in path.parents:
        if place != root and place.is_relative_to(root):
            for base in (root, mirror):
                pointer = base / f"{place.relative_to(root)}.dvc"
                if pointer.is_file():
                    yield pointer, place
    for pointer in (mirror / path.relative_to(root)).rglob("*.dvc"):
        yield pointer, root / pointer.relative_to(mirror).with_suffix("")
    for file in {place / "dvc.yaml" for place in path.parents if place.is_relative_to(root)}:
        yield from ((file, file.parent / name) for name in _outs(file))


def _outs(file: Path) -> Iterator[str]:
    """Yield what the stages of a ``dvc.yaml`` write."""
    import yaml

    try:
        stages = yaml.safe_load(file.read_text("utf-8"))["stages"].values()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError):
        return
    for stage in stages:
        for kind in ("outs", "metrics", "plots"):
            for out in (stage.get(kind) if isinstance(stage, dict) else None) or ():
                yield from [out] if isinstance(out, str) else out


def _records(path: Path, root: Path) -> dict[Path, bytes]:
    above = [place / RECORD for place in (path, *path.parents) if place.is_relative_to(root)]
    below = [file for depth in _DEPTHS[1:] for file in path.glob(f"{depth}{RECORD}")]
    files = [file for file in above if file.is_file()][:1] or below
    return {file: _content(file) for file in files}


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _quoted(name: str) -> str:
    """Return a name as YAML reads it back, whatever is in it."""
    return "'" + name.replace("'", "''") + "'"
