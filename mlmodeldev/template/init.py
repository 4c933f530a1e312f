"""Write a new project: ``mlmodeldev init DIR``.

In a terminal it asks; options answer beforehand, and ``--yes`` takes the defaults. The folder
appears whole or not at all.

Example::

    mlmodeldev init digits
    mlmodeldev init digits --cluster generic --tracker csv --yes
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlmodeldev.arguments import OneLineParser
from mlmodeldev.atomic import writing_to
from mlmodeldev.errors import EXIT_BAD_INPUT, UsageError
from mlmodeldev.secrets import refuse_in_arguments
from mlmodeldev.synced import sync_folder
from mlmodeldev.template.origin import requirement
from mlmodeldev.template.record import Record
from mlmodeldev.template.source import TRACKERS, Answers, Template, load_template
from mlmodeldev.template.swap import finish, write_all, write_file

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ALLOWED = {".git"}
"""What may lie in a folder that counts as empty."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer the command line; return the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        refuse_in_arguments(given)
        return _init(parser().parse_args(given))
    except UsageError as error:
        print(f"mlmodeldev init: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except (KeyboardInterrupt, EOFError):
        print("mlmodeldev init: nothing was written", file=sys.stderr)
        return EXIT_BAD_INPUT


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = OneLineParser(prog="mlmodeldev init", description="Write a new project.")
    add = result.add_argument
    add("folder", metavar="DIR", type=Path, help="a new or empty folder")
    add("--name", help="of the project, and of its project on W&B (default: the folder's)")
    add("--cluster", metavar="PROFILE", help="where trials run (default: local)")
    add("--tracker", help=f"where metrics go: {', '.join(TRACKERS)} (default: wandb)")
    add("--example", metavar="NAME", help="copy a ready model and data set, too")
    add("--source", metavar="WHERE", help="where to install mlmodeldev from (default: as here)")
    add("--yes", action="store_true", help="ask nothing")
    return result


def _init(options: argparse.Namespace) -> int:
    folder: Path = options.folder.expanduser().absolute()
    if _finish_killed(folder):
        print(f"{folder}: an init that was cut off is finished now")
        return 0
    check_folder(folder)
    template = load_template()
    asking = sys.stdin.isatty() and sys.stdout.isatty() and not options.yes
    answers = _answers(options, template, folder, asking)
    create(folder, template, answers)
    print(f"{folder}: a project of mlmodeldev {template.version}; next:")
    print(f"  cd {options.folder} && cat README.md && python trainer.py")
    return 0


def _finish_killed(folder: Path) -> bool:
    with contextlib.suppress(NotADirectoryError):
        return finish(folder)
    return False


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        UsageError: naming what is in it.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder}: is a file; name a new or empty folder")
    with writing_to(folder):
        there = sorted(path.name for path in folder.iterdir() if path.name not in _ALLOWED)
    if there:
        more = f" and {len(there) - 1} more" if there[1:] else ""
        raise UsageError(f"{folder}: is not empty (it has {there[0]}{more}); nothing was written")


def _answers(
    options: argparse.Namespace, template: Template, folder: Path, asking: bool
) -> Answers:
    """Return what was given, what is asked for, and the defaults of the rest."""
    default = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-._") or "project"
    examples = template.examples

    def prompt(given: str | None, question: str, default: str, allowed: Sequence[str] = ()) -> str:
        if given is not None or not asking:
            return given if given is not None else default
        listed = f" ({', '.join(allowed)})" if allowed else ""
        return input(f"{question}{listed} [{default}]: ").strip() or default

    name = prompt(options.name, "name", default)
    if not _NAME.fullmatch(name):
        raise UsageError(f"--name {name}: letters, digits, '-', '_' and '.' make a name")
    cluster = prompt(options.cluster, "cluster", "local", template.clusters)
    tracker = prompt(options.tracker, "tracker", "wandb", TRACKERS)
    example = prompt(options.example, "example", "none", examples) if examples else options.example
    answers = Answers(name, cluster, tracker, None if example == "none" else example)
    template.check(answers)
    line = requirement(answers.extras, options.source)
    return Answers(**{**answers.as_dict(), "requirement": line})  # type: ignore[arg-type]


def create(folder: Path, template: Template, answers: Answers) -> None:
    """Write a project, whole or not at all.

    Raises:
        UsageError: the folder can't be written, or is not empty.
    """
    pristine = template.render(answers)
    record = Record(template.version, answers, pristine)
    files = {**pristine, **record.as_files()}
    if folder.exists():  # empty; it may be the working directory, or hold .git
        write_all(folder, files)
    else:
        _write_new(folder, files)


def _write_new(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files beside, and give the whole folder its name."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with writing_to(folder):
        try:
            for name, content in files.items():
                write_file(temporary / name, content)
            temporary.rename(folder)  # refused by the system where something lies there by now
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
