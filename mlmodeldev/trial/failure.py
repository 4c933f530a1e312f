"""The traceback of a trial that failed: one's own frames on the terminal, all of them in a file.

Between ``trainer.py`` and a mistake in a model lie dozens of frames of Hydra and Lightning. What is
printed leaves them out; ``traceback.txt`` in the trial's folder has them.

Example::

    try:
        train(settings)
    except Exception as error:
        keep_traceback(error, folder)
        raise                                # printed in short, after `shorten_tracebacks`
"""

from __future__ import annotations

import contextlib
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from mlmodeldev.atomic import write_text
from mlmodeldev.errors import UsageError
from mlmodeldev.secrets import mask

FILE = "traceback.txt"
"""In the trial's folder; of ranks other than the first ``traceback-RANK.txt``."""

_KEPT_IN = "_traceback_file"
"""Attribute of an exception: where all of its frames are."""

_LIBRARIES = tuple(
    str(Path(place).resolve())
    for place in {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        str(Path(__file__).parents[1]),
    }
)


def keep_traceback(error: BaseException, folder: Path, rank: int = 0) -> None:
    """Write all frames into the trial's folder; a full disk is no reason for another error.

    Args:
        error: as it was raised; it is told where its frames are.
        folder: the trial's.
        rank: of this process.
    """
    file = folder / (FILE if not rank else f"traceback-{rank}.txt")
    report = traceback.TracebackException.from_exception(error)
    above = traceback.extract_stack()[:-1]  # who called: the error has not passed there yet
    report.stack = traceback.StackSummary.from_list([*above, *report.stack])
    with contextlib.suppress(OSError, UsageError, AttributeError):
        write_text(file, mask("".join(report.format())))
        setattr(error, _KEPT_IN, file)


def forget_traceback(folder: Path) -> None:
    """Remove what an earlier attempt has left."""
    for file in folder.glob("traceback*.txt"):
        file.unlink(missing_ok=True)


def shorten_tracebacks() -> None:
    """Let the end of this process print in short what `keep_traceback` has kept.

    Another hook, of a debugger for instance, stays.
    """
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = print_failure


def print_failure(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print a traceback as `sys.excepthook` does, without the frames of libraries above one's own.

    All is printed where no frame is of the user's code, or where no file has the rest.
    """
    file = getattr(error, _KEPT_IN, None)
    report = traceback.TracebackException(kind, error, trace, compact=True)
    left_out = sum(map(_shorten, _chain(report))) if file else 0
    text = "".join(report.format())
    if left_out:
        # before it: who reads a log looks for the error in its last line
        text = f"({left_out} frames of libraries are left out; all are in {file})\n{text}"
    sys.stderr.write(text)
    sys.stderr.flush()


def _chain(report: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """Yield an exception and those that it came from."""
    yield report
    for earlier in (report.__cause__, report.__context__):
        if earlier is not None:
            yield from _chain(earlier)


def _shorten(report: traceback.TracebackException) -> int:
    """Leave out the frames of libraries but the last, which raised; return how many."""
    frames = list(report.stack)
    own = [frame for frame in frames if _is_own(frame.filename)]
    program = [frame for frame in own if Path(frame.filename).name == "trainer.py"]
    own = own if len(program) == len(own) else [f for f in own if f not in program]
    if not own:
        return 0
    kept = own if own[-1] is frames[-1] else [*own, frames[-1]]
    report.stack = traceback.StackSummary.from_list(kept)
    return len(frames) - len(kept)


def _is_own(name: str) -> bool:
    if name.startswith("<"):
        return False
    return not str(Path(name).resolve()).startswith(_LIBRARIES)
