"""The files of a new project, and what its answers change in them.

In a clone they are the clone's own top level; a wheel carries them in
``mlmodeldev/template/project`` (pyproject.toml maps that package to the top level). Either way one
table says which they are.

Example::

    template = load_template()
    template.render(Answers(name="digits", tracker="csv"))["conf/config.yaml"]    # bytes
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

import mlmodeldev
from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.project import run_git
from mlmodeldev.template.origin import CLONE, is_clone
from mlmodeldev.template.renames import RENAMED_SETTINGS

TOP_LEVEL = (
    "trainer.py",
    "model.py",
    "datamodule.py",
    "inference.py",
    "conf/**/*.yaml",
    "sweep/*.yaml",
    "slurm/*.py",
    "slurm/*.sh",
    "examples/*.py",
    "examples/*.txt",
    "tests/test_mine.py",
)
"""What of the top level goes into a project; pyproject.toml puts the same into the wheel."""

NOT_SHARED = ("conf/**/local_*.yaml", "slurm/profile.sh")
"""A user's own files, which git ignores."""

OWN_FILES = {
    "README.md": "README.md",
    "environment.yml": "environment.yml",
    "gitignore": ".gitignore",
    "requirements.txt": "requirements.txt",
}
"""Files of ``template/files/``, and their places in a project."""

TRACKERS = ("csv", "wandb", "mlflow", "clearml", "tensorboard")
_EXTRAS = {"mlflow": ["mlflow"], "clearml": ["clearml"], "tensorboard": ["tensorboard"]}
_HERE = Path(__file__).resolve().parent
_CONFIG = "conf/config.yaml"
_WANDB = "conf/logger/wandb.yaml"


@dataclass(frozen=True)
class Answers:
    """What ``init`` asks; a project keeps it, so that ``update`` makes the same choices."""

    name: str
    cluster: str = "local"
    tracker: str = "wandb"
    example: str | None = None
    requirement: str = ""

    @property
    def extras(self) -> list[str]:
        """The optional parts of the package that the tracker needs."""
        return _EXTRAS.get(self.tracker, [])

    def as_dict(self) -> dict[str, str | None]:
        """Return the answers by their names."""
        return asdict(self)


@dataclass(frozen=True)
class Template:
    """The files that projects of one version are made from.

    Args:
        version: of the package.
        files: contents by their places in a project, examples included.
        library: the library's own files of settings, by the place of one that replaces it.
        renamed: old names of settings to their new ones.
    """

    version: str
    files: Mapping[str, bytes]
    library: Mapping[str, bytes] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def examples(self) -> list[str]:
        """The names that ``--example`` takes."""
        paths = [PurePosixPath(name) for name in self.files]
        return sorted(
            path.stem
            for path in paths
            if path.parts[0] == "examples" and path.suffix == ".py" and path.stem[0] != "_"
        )

    @property
    def clusters(self) -> list[str]:
        """The profiles that ``--cluster`` takes."""
        paths = [PurePosixPath(name) for name in (*self.files, *self.library)]
        result = {path.stem for path in paths if path.parts[:-1] == ("conf", "cluster")}
        return sorted(result - {"base"})

    def check(self, answers: Answers) -> None:
        """Refuse a cluster, tracker or example that is not there.

        Raises:
            UsageError: naming those that are.
        """
        for option, value, allowed in (
            ("--cluster", answers.cluster, self.clusters),
            ("--tracker", answers.tracker, TRACKERS),
            ("--example", answers.example, self.examples),
        ):
            if value is not None and value not in allowed:
                listed = ", ".join(allowed) or "none here"
                raise UsageError(f"{option} {value}: not there{nearest(value, allowed)} ({listed})")

    def render(self, answers: Answers) -> dict[str, bytes]:
        """Return the files of a project, as these answers make them."""
        files = dict(_without_other_examples(self.files, answers.example))
        if _WANDB in self.library:  # the name of the W&B project is the user's
            files.setdefault(_WANDB, self.library[_WANDB])
        for name in (_CONFIG, _WANDB):
            files[name] = _configured(name, files[name].decode(), answers).encode()
        for name in OWN_FILES.values():
            files[name] = _filled(files[name].decode(), answers, self.version).encode()
        return files


def load_template() -> Template:
    """Return the template of the installed package."""
    top = CLONE if is_clone() else _HERE / "project"
    files = {name: (top / name).read_bytes() for name in _shared_files(top)}
    for source, place in OWN_FILES.items():
        files[place] = (_HERE / "files" / source).read_bytes()
    settings = _HERE.parent / "conf"
    library = {
        f"conf/{path.relative_to(settings).as_posix()}": path.read_bytes()
        for path in settings.glob("**/*.yaml")
    }
    return Template(mlmodeldev.__version__, files, library, RENAMED_SETTINGS)


def _shared_files(top: Path) -> list[str]:
    """Return the names of `TOP_LEVEL` that are there; in a repository, those that git tracks."""
    excluded = {path for pattern in NOT_SHARED for path in top.glob(pattern)}
    paths = {path for pattern in TOP_LEVEL for path in top.glob(pattern)} - excluded
    names = {path.relative_to(top).as_posix() for path in paths if path.is_file()}
    tracked = run_git(top, "ls-files", "-z") if top == CLONE else None
    return sorted(names & set(tracked.split("\0")) if tracked else names)


def _without_other_examples(
    files: Mapping[str, bytes], example: str | None
) -> Iterable[tuple[str, bytes]]:
    """Yield the files, without examples that were not chosen and the settings that need them."""
    needed = _needed_examples(files)
    wanted = _with_needs(files, needed, example)
    for name, content in files.items():
        path = PurePosixPath(name)
        if path.parts[0] == "examples":
            if path.stem in wanted or (path.stem == "__init__" and wanted):
                yield name, content
        elif needed.get(name, set()) <= wanted:
            yield name, content


def _named_in(content: bytes) -> set[str]:
    """Return the examples that a file names, such as ``examples.cola.TextClassifier``."""
    return {name.decode() for name in re.findall(rb"\bexamples(?:\.| import )(\w+)", content)}


def _with_needs(
    files: Mapping[str, bytes], needed: Mapping[str, set[str]], example: str | None
) -> set[str]:
    """Return the example, those of its experiments (its data's model), and those they import."""
    if example is None:
        return set()
    experiments = [names for file, names in needed.items() if file.startswith("conf/experiment/")]
    todo = set[str]({example}).union(*(names for names in experiments if example in names))
    result = set[str]()
    while todo:
        name = todo.pop()
        result.add(name)
        imported = _named_in(files.get(f"examples/{name}.py", b"")) & _examples_of(files)
        todo |= imported - result
    return result


def _needed_examples(files: Mapping[str, bytes]) -> dict[str, set[str]]:
    """Return for each file of conf/ and sweep/ the examples that it can't do without."""
    texts = {
        name: content
        for name, content in files.items()
        if name.startswith(("conf/", "sweep/")) and name != _CONFIG
    }
    needed = {
        name: _named_in(re.sub(rb"#.*", b"", content)) & _examples_of(files)
        for name, content in texts.items()
    }
    for name, content in texts.items():
        for group, choice in re.findall(rb"override /(\w+): (\w+)", content):
            needed[name] |= needed.get(f"conf/{group.decode()}/{choice.decode()}.yaml", set())
    return needed


def _examples_of(files: Mapping[str, bytes]) -> set[str]:
    return {PurePosixPath(name).stem for name in files if name.startswith("examples/")}


def _configured(name: str, text: str, answers: Answers) -> str:
    """Return a file of settings with the cluster, the tracker and the name that were chosen."""
    replacements = (
        {"- cluster": answers.cluster, "- logger": answers.tracker}
        if name == _CONFIG
        else {"project": answers.name}
    )
    for key, value in replacements.items():
        text, count = re.subn(rf"(?m)^( *{key}: )\S+", rf"\g<1>{value}", text)
        if count != 1:
            raise RuntimeError(f"{name}: has {count} lines of '{key}', one is expected")
    return text


def _filled(text: str, answers: Answers, version: str) -> str:
    """Return a file of ``template/files`` with the answers in place of ``{{name}}`` and others."""
    example = f"examples/{answers.example}.py" if answers.example else ""
    values = {
        "name": answers.name,
        "version": version,
        "requirement": answers.requirement,
        "example": f"- **Example**: `{example}` and the files of `conf/` that name it.\n"
        if example
        else "",
    }
    for key, value in values.items():
        text = text.replace(f"{{{{{key}}}}}", value)
    return text
