"""Room for trials: whether the runs folder can be written, free bytes and files, quota, purging."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from mlmodeldev import machine
from mlmodeldev.doctor.line import Line, Scope, fail, folder, nearest_folder, ok, warn
from mlmodeldev.errors import UsageError

LITTLE, NOTHING = 5 * 2**30, 200 * 2**20
"""Bytes: what a few trials with checkpoints take, and less than one takes."""
FEW_FILES, NO_FILES = 20_000, 200
FULL = 0.9
"""Share of a quota from which on it is told."""
PURGE_VARIABLE = "MLMODELDEV_PURGE_DAYS"
"""After how many days without use the site deletes files of its scratch file system."""
PURGE_DAYS = {"mila": 90}
"""The same, by the name of the cluster's profile, where its file in conf/cluster/ says so."""
_PURGE_WARNING_DAYS = 14
_SCRATCH = ("SCRATCH", "global_scratch", "WORK")
_WALK_FILES, _WALK_SECONDS = 50_000, 15.0


def runs_folder(scope: Scope) -> Iterator[Line]:
    """Write a file where trials will lie; a folder in memory is no place for them."""
    from mlmodeldev.slurm.preflight import file_system, refuse_memory

    kind, mend = file_system(scope.runs), "python slurm/SlurmTrain.py artefacts.runs_dir=DIR"
    if scope.submits:
        try:
            refuse_memory(scope.runs)
        except UsageError as error:
            yield fail(str(error), mend)
            return
    try:
        probe(scope.runs)
    except UsageError as error:
        reason = str(error).removeprefix(f"{scope.runs}: ")
        yield fail(f"artefacts.runs_dir={scope.runs}: {reason}", mend)
        return
    if kind in ("tmpfs", "ramfs"):
        yield warn(f"artefacts.runs_dir={scope.runs}: lies in memory, and is gone with it", mend)
    else:
        yield ok(f"{scope.runs}: can be written ({kind})")


def probe(path: Path) -> None:
    """Write a file, replace it, and remove it: in the folder, or in the nearest one above it.

    Raises:
        UsageError: the reason why it can't be.
    """
    from mlmodeldev.atomic import writing_to

    there = nearest_folder(path)
    for part in (path, *path.parents):
        if os.path.lexists(part) and not part.is_dir():
            raise UsageError(f"{path}: {part} is a file or a broken link, not a folder")
    file = there / f".doctor-{os.urandom(6).hex()}"
    with writing_to(path):
        try:
            for text in ("first", "second"):
                _write(file, text, path)
                if file.read_text() != text:
                    raise UsageError(f"{path}: a file that was replaced shows its former content")
        finally:
            file.unlink(missing_ok=True)


def _write(file: Path, text: str, path: Path) -> None:
    from mlmodeldev.atomic import write_text

    try:
        write_text(file, text)
    except UsageError as error:
        raise UsageError(str(error).replace(str(file), str(path))) from None


# --- room


def room(scope: Scope) -> Iterator[Line]:
    """Look for free bytes and files, once for each file system."""
    for names, place in _places(scope).items():
        status = os.statvfs(place)
        free, files = status.f_bavail * status.f_frsize, status.f_favail
        counts_files = status.f_files > 0  # btrfs and others make them as they go
        needed = "runs" in names or "data" in names
        mend = f"du -xh --max-depth=2 {place} | sort -h | tail"
        mend = "python -m mlmodeldev trial gc" if "runs" in names else mend
        what = f"{names} ({place}): {free / 2**30:.1f} GiB"
        if counts_files and files < FEW_FILES:
            level = fail if files < NO_FILES and needed else warn
            yield level(f"{names} ({place}): only {files} more files (inodes) fit", mend)
        if free < LITTLE and (needed or free < NOTHING):
            yield (fail if free < NOTHING and needed else warn)(f"{what} free", mend)
        else:
            yield ok(f"{what} and {files:,} files free" if counts_files else f"{what} free")


def _places(scope: Scope) -> dict[str, Path]:
    """Return one folder of each file system that matters, by what lies on it."""
    places = {"runs": scope.runs, "data": scope.data}
    if home := machine.home():
        places["home"] = home
    if scratch := _scratch():
        places["scratch"] = folder(scratch[0])
    shared: dict[int, list[str]] = {}
    for name, place in places.items():
        shared.setdefault(nearest_folder(place).stat().st_dev, []).append(name)
    return {", ".join(names): nearest_folder(places[names[0]]) for names in shared.values()}


def _scratch() -> list[str]:
    """Return the folders that sites name as scratch in the environment."""
    return [os.environ[name] for name in _SCRATCH if os.environ.get(name)]


# --- quota


def quota(scope: Scope) -> Iterator[Line]:
    """Compare what is used with the user's quota, where a command tells of one."""
    from mlmodeldev.slurm.preflight import file_system
    from mlmodeldev.slurm.query import run_command, user_name

    tables = []
    if shutil.which("quota"):
        tables.append(run_command("quota", "-w", "-p", seconds=8).stdout)
    if shutil.which("lfs"):
        user = user_name() or str(os.getuid())
        lustre = {p for p in _places(scope).values() if file_system(p) == "lustre"}
        for place in sorted(lustre):
            tables.append(run_command("lfs", "quota", "-q", "-u", user, str(place)).stdout)
    rows = [row for table in tables for row in read_quota(table)]
    full = [line for row in rows for line in _of_row(row)]
    yield from full
    if rows and not full:
        yield ok(f"quota: room on {', '.join(sorted({row[0] for row in rows}))}")


Row = tuple[str, int, int, int, int, int, int]


def read_quota(table: str) -> list[Row]:
    """Read the rows of ``quota -w -p`` or ``lfs quota -q``.

    Returns:
        file system; blocks of 1 KiB used, soft limit, hard limit; files used, soft, hard limit.
    """
    rows: list[Row] = []
    for line in re.sub(r"(?m)^(\s*/\S+)\s*\n", r"\1 ", table).splitlines():
        name, *fields = line.split() or [""]
        fields = [field.rstrip("*") for field in fields]
        numbers = [fields[index] for index in (0, 1, 2, 4, 5, 6)] if len(fields) >= 7 else []
        if numbers and all(number.isdigit() for number in numbers):
            used, soft, hard, files, soft_files, hard_files = map(int, numbers)
            rows.append((name, used, soft, hard, files, soft_files, hard_files))
    return rows


def _of_row(row: Row) -> Iterator[Line]:
    name, used, soft, hard, files, soft_files, hard_files = row
    kinds = ((used, soft, hard, 2**20, "GiB"), (files, soft_files, hard_files, 1, "files"))
    for count, low, high, scale, unit in kinds:
        most = high or low
        if not most or count < FULL * (low or high):
            continue
        what = f"quota of {name}: {count / scale:,.1f} of {most / scale:,.1f} {unit} used"
        what = what.replace(".0 ", " ")
        yield (fail if count >= most else warn)(what, "python -m mlmodeldev trial gc")


# --- purging


def purge(scope: Scope) -> Iterator[Line]:
    """Say when the oldest files of runs and data go, where scratch is purged by age."""
    places = {"runs": scope.runs, "data": scope.data}
    on_scratch = {name: place for name, place in places.items() if _is_scratch(place)}
    if not on_scratch:
        return
    given = os.environ.get(PURGE_VARIABLE, "")
    days = PURGE_DAYS.get(scope.settings.cluster.name, 0)
    if given and not given.isdigit():
        mend = f"export {PURGE_VARIABLE}=90"
        yield warn(f"{PURGE_VARIABLE}={given}: must be a number of days", mend)
        return
    days = int(given) if given else days
    if not days:
        names = " and ".join(on_scratch)
        yield ok(f"{names} on scratch; if it is purged by age, set {PURGE_VARIABLE}=DAYS")
        return
    for name, place in on_scratch.items():
        yield _purge_date(name, place, days)


def _is_scratch(place: Path) -> bool:
    roots = [folder(text) for text in _scratch()]
    named = any("scratch" in part.lower() for part in place.parts)
    return named or any(place.is_relative_to(root) for root in roots)


def _purge_date(name: str, place: Path, days: int) -> Line:
    oldest = _oldest(place)
    if oldest is None:
        return ok(f"{name} on scratch, purged after {days} days: nothing there yet")
    goes, file = oldest[0] + days * 86400, oldest[1]
    date = time.strftime("%Y-%m-%d", time.localtime(goes))
    if goes - time.time() > _PURGE_WARNING_DAYS * 86400:
        return ok(f"{name} on scratch, purged after {days} days: the oldest file goes on {date}")
    mend = f"cp -a {place} BACKUP"
    if name == "data" and place in file.parents and len(file.relative_to(place).parts) > 1:
        first = file.relative_to(place).parts[0]
        mend = f"python -m mlmodeldev.data fetch {first} --directory {place} --touch"
    return warn(f"{name} on scratch, purged after {days} days: {file} goes on {date}", mend)


def _oldest(place: Path) -> tuple[float, Path] | None:
    """Return the file that was last used longest ago, and when; of very many a part is seen."""
    end, count, oldest = time.monotonic() + _WALK_SECONDS, 0, None
    for parent, _, names in os.walk(place):
        for name in names:
            file = Path(parent, name)
            status = file.lstat()
            used = max(status.st_atime, status.st_mtime)
            oldest = min(oldest or (used, file), (used, file))
        count += len(names)
        if count > _WALK_FILES or time.monotonic() > end:
            break
    return oldest
