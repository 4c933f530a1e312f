"""``mlmodeldev version``: keep data, trials, weights and logs by DVC; git keeps the pointers.

    mlmodeldev version data/cola --remote /shared/dvc      begin, or another remote from now on
    mlmodeldev version data/cola                           what has changed
    mlmodeldev version runs/digits/ab12cd34/best           weights; a whole trial; a log
    mlmodeldev version --stages                            write dvc.yaml: dvc repro, dvc exp run

Exit status: 0 done, 2 bad input.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlmodeldev.arguments import OneLineParser
from mlmodeldev.data.dvc import Dvc, check_address, repository_of
from mlmodeldev.data.tracked import Tracked
from mlmodeldev.errors import EXIT_BAD_INPUT, UsageError, drop_output
from mlmodeldev.machine import keep_from_others
from mlmodeldev.project import git_output, project_root
from mlmodeldev.secrets import guard_output, refuse_in_arguments

_PROG = "mlmodeldev version"
_EXIT_CTRL_C = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer the command line; return the exit status."""
    guard_output()
    keep_from_others()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        options = _parser().parse_args(given)
        refuse_in_arguments(given)
        _write_stages() if options.stages else _version(options)
        sys.stdout.flush()
    except UsageError as error:
        print(f"{_PROG}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return _EXIT_CTRL_C
    except BrokenPipeError:
        drop_output()
    return 0


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog=_PROG,
        description="Keep data, trials, weights and logs by DVC; git keeps the pointers.",
        epilog="Keys are taken from the environment (AWS_ACCESS_KEY_ID ...). Exit status: 0 done,"
        " 2 bad input.",
    )
    add = parser.add_argument
    add("paths", metavar="PATH", type=Path, nargs="*", help="a file or folder; a trial, its best/")
    add("--remote", metavar="URL", help="where to push, from now on: a folder, s3://bucket/path")
    add("--endpoint", metavar="URL", help="of a server that speaks S3, for --remote")
    add("--no-push", action="store_true", help="keep them in the cache here")
    add("--stages", action="store_true", help="write dvc.yaml: prepare, train, evaluate")
    return parser


def _write_stages() -> None:
    from mlmodeldev.data.stages import write_stages

    project = project_root()
    root = repository_of(project)
    dvc = Dvc(root, project)
    files = write_stages(project)
    dvc.begin()
    own = [root / ".dvc" / "config", root / ".dvcignore"]
    git_output(root, "add", "--", *(str(f) for f in own), *(str(project / f) for f in files))
    for file in files:
        print(file)
    print("next:    git commit; dvc repro; dvc metrics show; dvc exp run -S ...")


def _version(options: argparse.Namespace) -> None:
    """Add, push, and put the pointers into git's index; a repository is begun where none is."""
    if not options.paths:
        raise UsageError(f"which files or folders? ({_PROG} --help)")
    if options.endpoint and not options.remote:
        raise UsageError("--endpoint: belongs to --remote s3://bucket/path")
    for name in ("remote", "endpoint"):
        check_address(f"--{name}", getattr(options, name) or "")
    if missing := [path for path in options.paths if not path.exists()]:
        raise UsageError(f"{missing[0]}: no such file or folder")
    root = repository_of(options.paths[0])
    every = [Tracked.of(path, root) for path in options.paths]
    for each in every:
        each.refuse_running()
        each.refuse_overlap(root)
    dvc = Dvc(root, _project())
    if not (options.no_push or options.remote or dvc.has_remote()):
        raise UsageError(
            "there is no remote to push to: --remote /shared/dvc or s3://bucket/path names one,"
            " --no-push keeps the version here"
        )
    dvc.begin()
    if options.remote:
        dvc.set_remote(options.remote, options.endpoint)
    _add(dvc, every)
    for each in every:
        each.refuse_changed()
    _stage(root, every)
    if not options.no_push:
        dvc.run("push", *(str(each.pointer) for each in every), show=True)
    for each in every:
        print(f"version: {each.version()}  {each.pointer.relative_to(root)}")
    print("next:    git commit -m 'Data: what changed, and why'")


def _project() -> Path | None:
    with contextlib.suppress(UsageError):
        return project_root()
    return None


def _add(dvc: Dvc, every: Sequence[Tracked]) -> None:
    """Let DVC take the data into its cache.

    A trial goes on writing some of its files in place: it is copied, whatever links data get.
    """
    if any(each.records for each in every):
        dvc.ignore(".record.lock*")
    for is_trial in (False, True):
        some = [each for each in every if bool(each.records) == is_trial]
        options = ["--quiet", *(["--no-relink"] if is_trial else [])]
        if beside := [str(each.path) for each in some if each.is_beside]:
            dvc.run("add", *options, *beside, show=False)
        mirrored = [each for each in some if not each.is_beside]
        if mirrored:
            with _pointers_of(mirrored) as pointers:
                dvc.run("commit", "--force", *options, *pointers)


@contextlib.contextmanager
def _pointers_of(some: Sequence[Tracked]) -> Iterator[list[str]]:
    """Write pointers; remove new ones if DVC then refuses the data."""
    new = [each for each in some if each.write_pointer()]
    try:
        yield [str(each.pointer) for each in some]
    except BaseException:
        for each in new:
            each.pointer.unlink(missing_ok=True)
        raise


def _stage(root: Path, every: Sequence[Tracked]) -> None:
    """Put what git is to keep into its index."""
    files = [root / ".dvc" / "config", root / ".dvcignore", *(each.pointer for each in every)]
    # DVC writes one where git does not ignore the data anyway
    files += [file for each in every if (file := each.path.parent / ".gitignore").is_file()]
    git_output(root, "add", "--", *(str(file) for file in files if file.is_file()))


if __name__ == "__main__":
    sys.exit(main())
