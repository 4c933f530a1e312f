"""What differs between two trials: code, settings, environment, data.

Example::

    a, b = read_trial(Path("runs/digits/ab12cd34")), read_trial(Path("runs/digits/ef56ab78"))
    [str(each) for each in origin_differences(a, b, project_root())]
    # ["code: model.py:41: width = 64 | width = 65", "setting: optimizer.lr: 0.01 | 0.02"]
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.project import git_output
from mlmodeldev.trial.environment import LIBRARY_NAME, normalized, read_environment
from mlmodeldev.trial.record import read_record
from mlmodeldev.trial.source import Source, read_file, read_source

KINDS = ("code", "setting", "environment", "data", "metric", "weights")
"""What may differ, causes first."""

NOT_COMPARED = (
    *("artefacts", "logger", "cluster", "overrides"),
    *("callbacks.progress", "callbacks.pruning"),
)
"""Settings that say where a trial ran and who watched; no weight depends on them."""

FIRST = ("torch", "lightning", "pytorch-lightning", "numpy")
"""Packages that are named before others: most numbers come from these."""


@dataclass(frozen=True)
class Difference:
    """One thing that two trials do not share.

    Attributes:
        kind: one of `KINDS`.
        name: of the file and line, setting, package, input, metric and step, or tensor.
        a, b: its value on either side; None: it is not there.
    """

    kind: str
    name: str
    a: Any
    b: Any

    def __str__(self) -> str:
        sides = (" ".join(str("–" if each is None else each).split()) for each in (self.a, self.b))
        return f"{self.kind}: {self.name}: {' | '.join(sides)}"


@dataclass
class Trial:
    """What a trial's folder tells of where its result comes from."""

    folder: Path
    record: dict[str, Any]
    settings: dict[str, Any]
    environment: dict[str, Any] = field(default_factory=dict)
    source: Source | None = None


def read_trial(folder: Path) -> Trial:
    """Read a trial's folder.

    Raises:
        UsageError: it is none, or what lies in it is damaged.
    """
    import yaml

    record = read_record(folder)
    if not record and (folder / "trial.json").is_file():
        raise UsageError(f"{folder / 'trial.json'}: is damaged")
    if not record:
        beside = [file.parent.name for file in folder.parent.glob("*/trial.json")]
        hint = nearest(folder.name, beside) if folder.name not in beside else ""
        raise UsageError(f"{folder}: is no trial's folder (it has no trial.json){hint}")
    try:
        settings = yaml.safe_load((folder / "config.yaml").read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{folder / 'config.yaml'}: can't be read: {reason}") from None
    if not isinstance(settings, dict):
        raise UsageError(f"{folder / 'config.yaml'}: is no configuration")
    return Trial(folder, record, settings, read_environment(folder), read_source(folder))


def origin_differences(a: Trial, b: Trial, repository: Path | None) -> list[Difference]:
    """Return all that differs of two trials' code, settings, environment and data.

    Args:
        repository: of the project, from which files of a commit are read; None: there is none.
    """
    return [
        *code_differences(a, b, repository),
        *setting_differences(a.settings, b.settings),
        *environment_differences(a, b, repository),
        *data_differences(a.record, b.record),
    ]


# --- code


def code_differences(a: Trial, b: Trial, repository: Path | None) -> list[Difference]:
    """Return the files that differ, each with the first line that does, and the commits."""
    names = [*_differing(_code(a), _code(b)), *_differing_beside(a, b)]
    result = [_line_difference(name, a, b, repository) for name in names]
    commits = [each.record.get("sha") for each in (a, b)]
    if commits[0] != commits[1]:
        result.append(Difference("code", "commit", *(c and c[:12] for c in commits)))
    return result


def _code(trial: Trial) -> Mapping[str, Any]:
    return trial.record.get("code") or {}


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return [name for name in sorted({*a, *b}) if a.get(name) != b.get(name)]


def _differing_beside(a: Trial, b: Trial) -> list[str]:
    """Return files that no import names: edited, or not tracked by git, such as a table of words.

    Of two commits, a file that only one side keeps may be the other's commit's.
    """
    if a.source is None or b.source is None:
        return []
    ours, theirs = a.source.digests, b.source.digests
    same_commit = a.record.get("sha") == b.record.get("sha")
    names = {*ours, *theirs} if same_commit else {*ours} & {*theirs}
    names -= {*_code(a), *_code(b)}
    changed = [name for name in sorted(names) if ours.get(name) != theirs.get(name)]
    removed = {*a.source.deleted} ^ {*b.source.deleted} if same_commit else set()
    return [*changed, *sorted(removed - {*changed} - {*_code(a), *_code(b)})]


def _line_difference(name: str, a: Trial, b: Trial, repository: Path | None) -> Difference:
    texts = [_text(name, trial, repository) for trial in (a, b)]
    if texts[0] is None or texts[1] is None:
        digests = [_shown_digest(name, trial) for trial in (a, b)]
        return Difference("code", name, *digests)
    number, ours, theirs = first_line_difference(texts[0], texts[1])
    return Difference("code", f"{name}:{number}" if number else name, ours, theirs)


def _shown_digest(name: str, trial: Trial) -> str | None:
    digest = _code(trial).get(name) or (trial.source and trial.source.digests.get(name))
    if digest:
        return f"sha256 {str(digest)[:16]}"
    return "removed" if trial.source and name in trial.source.deleted else None


def first_line_difference(a: str, b: str) -> tuple[int, str | None, str | None]:
    """Return number (of the first text), and both sides, of the first line that differs.

    >>> first_line_difference("x = 1\\ny = 2\\n", "x = 1\\ny = 3\\n")
    (2, 'y = 2', 'y = 3')
    """
    ours, theirs = a.splitlines(), b.splitlines()
    matcher = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
    for tag, start, end, other, other_end in matcher.get_opcodes():
        if tag != "equal":
            left = ours[start] if end > start else None
            right = theirs[other] if other_end > other else None
            return start + 1, left, right
    return 0, "the same lines", "other line ends"


def _text(name: str, trial: Trial, repository: Path | None) -> str | None:
    """Return a file as a trial ran it; None: it is not to be had, or no text."""
    content = read_file(trial.folder, name) if trial.source else None
    if content is None and trial.source and name in trial.source.deleted:
        return None
    commit = trial.record.get("sha")
    kept_out = trial.source is None or name in trial.source.left_out
    if content is None and repository and commit and not kept_out:
        prefix = trial.source.prefix if trial.source else ""
        try:
            content = git_output(repository, "show", f"{commit}:{prefix}{name}")
        except UsageError:
            return None
    return None if content is None or b"\0" in content else content.decode(errors="replace")


# --- settings


def setting_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """Return the settings that differ, by their dotted names."""
    ours, theirs = dict(_flat(a)), dict(_flat(b))
    return [
        Difference("setting", name, ours.get(name), theirs.get(name))
        for name in [*ours, *(n for n in theirs if n not in ours)]
        if ours.get(name) != theirs.get(name)
    ]


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested settings; an empty mapping is the same as none."""
    if key in NOT_COMPARED:
        return
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, list(value) if isinstance(value, tuple) else value


# --- environment


def environment_differences(a: Trial, b: Trial, repository: Path | None) -> list[Difference]:
    """Return what differs of Python, library, packages and hardware, as far as both tell."""
    software = [trial.record.get("software") or {} for trial in (a, b)]
    result = library_difference(software[0], software[1])
    if a.environment and b.environment:
        imported = imported_packages(a, repository)
        return [*result, *differences_of_environments(a.environment, b.environment, imported)]
    ours, theirs = software
    return [
        *result,
        *(
            Difference("environment", name, ours[name], theirs[name])
            for name in ("python", "torch")
            if name in ours and name in theirs and ours[name] != theirs[name]
        ),
    ]


def library_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """Return how the library differs, by its version and the digest of its files."""
    shown = [f"{each.get('library')} ({each.get('library_digest')})" for each in (a, b)]
    if not a or not b or shown[0] == shown[1]:
        return []
    return [Difference("environment", "mlmodeldev", *shown)]


def differences_of_environments(
    a: Mapping[str, Any], b: Mapping[str, Any], imported: Collection[str] = ()
) -> list[Difference]:
    """Return what differs of two ``environment.json``: Python, packages, hardware.

    Args:
        a, b: their content.
        imported: packages that the trial's code imports; they come behind `FIRST`, others last.
    """
    pairs = [(name, a.get(name), b.get(name)) for name in ("python", "implementation", "platform")]
    ours, theirs = a.get("packages") or {}, b.get("packages") or {}
    order = {name: place for place, name in enumerate(dict.fromkeys((*FIRST, *sorted(imported))))}
    names = {*ours, *theirs} - {LIBRARY_NAME}
    for name in sorted(names, key=lambda name: (order.get(name, len(order)), name)):
        pairs.append((name, ours.get(name), theirs.get(name)))
    if a.get("machine") and b.get("machine"):
        ours, theirs = a["machine"], b["machine"]
        pairs += [(f"machine.{n}", ours.get(n), theirs.get(n)) for n in {**ours, **theirs}]
    return [Difference("environment", *pair) for pair in pairs if pair[1] != pair[2]]


def imported_packages(trial: Trial, repository: Path | None) -> set[str]:
    """Return the packages that a trial's code imports by name, as far as it can be read."""
    from importlib.metadata import packages_distributions

    texts = (_text(name, trial, repository) for name in _code(trial))
    modules = {name for text in texts for name in _imported(text or "")}
    given = packages_distributions()
    return {normalized(name) for module in modules for name in given.get(module, [module])}


def _imported(text: str) -> Iterator[str]:
    """Yield the top-level modules that a file imports."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError):
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


# --- data


def data_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """Return the inputs of the data that differ, from two records.

    The same data at another place are the same.
    """
    ours, theirs = inputs_of(a), inputs_of(b)
    if sorted(ours.values()) == sorted(theirs.values()):
        return []
    return [
        Difference("data", name, _shown(ours.get(name)), _shown(theirs.get(name)))
        for name in _differing(ours, theirs)
    ]


def inputs_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each input that a record names."""
    return dict((record.get("data") or {}).get("inputs") or {})


def _shown(digest: str | None) -> str | None:
    return None if digest is None else f"sha256 {digest[:16]}"
