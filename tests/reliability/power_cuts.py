"""Cut the power at every point of what was recorded, and of an ext4 on a loop device, and look.

    python -m tests.reliability.power_cuts            figures into docs/reliability.md, some minutes
    python -m tests.reliability.power_cuts --print    figures to the terminal

What is looked for: `tests.reliability.promises` (any file), `tests.reliability.after_power_cut`
(the product's own readers), and whether a trial that goes on from there ends with the same weights.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mlmodeldev.atomic import recover_folder
from tests.conftest import ROOT, TrialResult, Trials
from tests.reliability import after_power_cut, ext4_images, recorded_programs
from tests.reliability.after_power_cut import Undisturbed, trial_problems
from tests.reliability.disk import FORMS, Disk, after_cut, cleared
from tests.reliability.recorded_programs import (
    RETURNED,
    SBATCH,
    SMALL,
    Recorded,
    record,
    record_trial,
)

Look = Callable[[Path, int], list[str]]
"""Returns the problems of a folder after so many operations."""


@dataclass
class Figures:
    """What was tried, and what did not hold."""

    points: int = 0
    states: int = 0
    resumed: int = 0
    bad: list[str] = field(default_factory=list)

    def row(self, name: str) -> str:
        """Return a row of the table."""
        return f"| {name} | {self.points} | {self.states} | {self.resumed} | {len(self.bad)} |"


# --- recorded writes


def cut_everywhere(
    recorded: Recorded,
    look: Look,
    scratch: Path,
    points: Sequence[int] | None = None,
    may_be_lost: bool = False,
) -> Figures:
    """Cut after each operation, or after those given, in each form.

    Args:
        look: the product's readers; called once for equal folders.
        may_be_lost: whether what is not there is made anew.
    """
    figures, seen = Figures(), dict[str, list[str]]()
    for count in range(recorded.count + 1) if points is None else points:
        figures.points += 1
        for form in FORMS:
            figures.states += 1
            disk = after_cut(recorded.writes, count, form)
            problems = recorded.promises.broken(disk, count)
            if may_be_lost:
                problems = [each for each in problems if not each.endswith("is lost")]
            problems += _looked(disk, count, look, scratch, seen)
            figures.bad += [f"after {count} operations, {form}: {each}" for each in problems]
    return figures


def cut_replacing(recorded: Recorded, scratch: Path) -> Figures:
    """Cut everywhere while a folder is replaced: it is whole, and no older than was promised."""
    figures, returned = Figures(), 0
    for count in range(recorded.count + 1):
        figures.points += 1
        if count and RETURNED in str(recorded.writes.operations[count - 1]):
            returned += 1
        for form in FORMS:
            figures.states += 1
            after_cut(recorded.writes, count, form).write(cleared(scratch))
            recover_folder(scratch / "best")
            content = after_power_cut.files_of(scratch / "best")
            whole = [
                {"weights": n * 1000, "deep/state": n * 100}
                for n in (b"1", b"2", b"3")[max(0, returned - 1) :]
            ]
            if content not in [*whole, *([{}] if not returned else [])]:
                figures.bad.append(f"after {count} operations, {form}: {sorted(content)}")
    return figures


def _looked(
    disk: Disk, count: int, look: Look, scratch: Path, seen: dict[str, list[str]]
) -> list[str]:
    digest = disk.digest()
    if digest not in seen:
        disk.write(cleared(scratch))
        try:
            seen[digest] = look(scratch, count)
        except Exception as error:  # a traceback is a problem like any other
            seen[digest] = [f"{type(error).__name__}: {error}"]
    return seen[digest]


def look_at_trial(whole: Undisturbed) -> Look:
    """Return what looks at a recorded trial's folder."""
    return lambda folder, _: trial_problems(folder / "single" / "whole", whole)


def look_at_submission(folder: Path, count: int) -> list[str]:
    """Look at what jobs find that Slurm has."""
    return after_power_cut.submission_problems(folder, (folder / SBATCH).exists())


def look_at_journal(folder: Path, count: int) -> list[str]:
    """Look whether a worker can go on with the journal."""
    return after_power_cut.journal_problems(folder)


def look_at_prepared(folder: Path, count: int) -> list[str]:
    """Look whether damaged arrays are taken for whole."""
    return after_power_cut.prepared_problems(folder, recorded_programs.KEY)


def resume(
    trials: Trials, left: Callable[[Path], None], whole: TrialResult, name: str
) -> list[str]:
    """Start a trial again from what is left of it; return how it differs from the undisturbed one.

    Args:
        left: writes the folders of trials, as they were found.
    """
    left(cleared(trials.runs))
    again = trials.run(*SMALL, name="whole")
    if again.code != 0:
        return [f"{name}: ends with {again.code}: {again.output[-300:]}"]
    differing = [
        part
        for part in ("best/model.safetensors", "last/model.safetensors")
        if (again.folder / part).read_bytes() != (whole.folder / part).read_bytes()
    ]
    differing += ["metrics.csv"] if again.rows != whole.rows else []
    differing += ["log.json"] if again.log != whole.log else []
    return [f"{name}: {part} differs" for part in differing]


def resume_after_cuts(
    recorded: Recorded, whole: TrialResult, trials: Trials, cuts: Sequence[tuple[int, str]]
) -> Figures:
    """Start the recorded trial again after some of the cuts."""
    figures = Figures()
    for count, form in cuts:
        figures.resumed += 1
        left = after_cut(recorded.writes, count, form).write
        figures.bad += resume(trials, left, whole, f"after {count} operations, {form}")
    return figures


# --- a mounted image


def copies_in_flight(
    scratch: Path, data: Path, options: str, pauses: Iterator[float], most: int
) -> tuple[TrialResult, list[Path]]:
    """Run a trial on an ext4, and copy its device again and again meanwhile, and at the end."""
    copies: list[Path] = []
    with ext4_images.mounted(scratch / "disk", options) as disk:
        trials = Trials(disk.folder / "runs", data)
        noted = scratch / "process"
        ended: list[TrialResult] = []
        run = partial(trials.run, *SMALL, name="whole", patch=partial(_note_process, noted))
        thread = threading.Thread(target=lambda: ended.append(run()))
        thread.start()
        while thread.is_alive() and len(copies) < most:
            time.sleep(next(pauses))
            if noted.exists():
                copies.append(_copy_standing(disk, int(noted.read_text()), scratch, len(copies)))
        thread.join()
        copies.append(disk.copy(scratch / f"copy-{len(copies)}"))
        whole = ended[0]
        assert whole.code == 0, whole.output
        kept = scratch / "whole" / "single" / "whole"
        shutil.copytree(whole.folder, kept)
    return TrialResult(whole.code, kept, whole.output), copies


def _note_process(file: Path) -> None:
    file.write_text(str(os.getpid()))


def _copy_standing(disk: ext4_images.Mounted, process: int, scratch: Path, number: int) -> Path:
    """Copy while the trial stands still: else it writes faster than a file can be copied."""
    try:
        os.kill(process, signal.SIGSTOP)
        return disk.copy(scratch / f"copy-{number}")
    except ProcessLookupError:
        return disk.copy(scratch / f"copy-{number}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


def look_at_copies(
    whole: TrialResult, copies: Sequence[Path], trials: Trials, resumed: Sequence[int]
) -> Figures:
    """Mount each copy, look at its trial, and start some of them again.

    Args:
        resumed: numbers of the copies whose trial is started again.
    """
    figures, undisturbed = Figures(), Undisturbed(whole.folder)
    for number, copy in enumerate(copies):
        figures.points += 1
        figures.states += 1
        with ext4_images.opened(copy) as disk:
            runs = disk.folder / "runs"
            problems = trial_problems(runs / "single" / "whole", undisturbed)
            if number in resumed:
                figures.resumed += 1
                problems += resume(trials, partial(_take, runs), whole, "started again")
            is_done = '"state": "done"' in _text(runs / "single" / "whole" / "trial.json")
        if number == len(copies) - 1 and not is_done:
            problems.append("the trial had ended, and is not done")
        if not ext4_images.is_sound(copy):
            problems.append("is no sound file system: the copy is not of one moment")
        figures.bad += [f"{copy.name}: {each}" for each in problems]
    return figures


def _take(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


# --- the command

BEGIN, END = "<!-- power cuts: begin -->", "<!-- power cuts: end -->"
_HEAD = """\
| What was written | Points | States of the disk | Started again | Bad |
|---|---|---|---|---|"""


def all_figures(scratch: Path, data: Path, seed: int) -> Iterator[tuple[str, Figures]]:
    """Yield the figures of each thing that is written, and its name."""
    chance = random.Random(seed)
    place, trials = scratch / "cut", Trials(scratch / "again", data)
    recorded, whole = record_trial(scratch / "trial", data)
    figures = cut_everywhere(recorded, look_at_trial(Undisturbed(whole.folder)), place)
    cuts = [(chance.randrange(recorded.count + 1), chance.choice(FORMS)) for _ in range(12)]
    again = resume_after_cuts(recorded, whole, trials, cuts)
    figures.resumed, figures.bad = again.resumed, [*figures.bad, *again.bad]
    yield "a trial: each of its writes, replayed", figures
    for name, program, look in (
        ("a submission, twice", recorded_programs.submission, look_at_submission),
        ("a search's journal", recorded_programs.journal, look_at_journal),
        ("prepared arrays", recorded_programs.prepared, look_at_prepared),
    ):
        record_of = record(scratch / program.__name__, program)
        lost = program is recorded_programs.prepared
        yield name, cut_everywhere(record_of, look, place, may_be_lost=lost)
    for name, program in (
        ("a folder replaced at once", recorded_programs.replaced_at_once),
        ("a folder replaced by renames", recorded_programs.replaced_by_renames),
    ):
        yield name, cut_replacing(record(scratch / program.__name__, program), place)
    if reason := ext4_images.missing():
        print(f"no ext4 images: {reason}", file=sys.stderr)
        return
    for options in (ext4_images.USUAL, ext4_images.HARSH):
        folder = scratch / options.partition(",")[0].removeprefix("data=")
        folder.mkdir()
        pauses = iter(lambda: chance.uniform(0, 0.3), None)
        whole, copies = copies_in_flight(folder, data, options, pauses, 40)
        some = chance.sample(range(len(copies)), min(4, len(copies)))
        figures = look_at_copies(whole, copies, trials, some)
        yield f"a trial on ext4 ({options}), its device copied in flight", figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the figures, and write them where they are shown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--print", action="store_true", help="to the terminal only")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    logging.getLogger("mlmodeldev").setLevel(logging.ERROR)  # what was damaged, by the thousand
    rows, bad = [_HEAD], 0
    with tempfile.TemporaryDirectory() as scratch:
        for name, figures in all_figures(Path(scratch), Path(scratch, "data"), chosen.seed):
            rows.append(figures.row(name))
            print("\n".join([rows[-1], *figures.bad[:40]]), flush=True)
            bad += len(figures.bad)
    table = "\n".join(rows)
    if not chosen.print:
        page = ROOT / "docs" / "reliability.md"
        before, _, rest = page.read_text().partition(BEGIN)
        page.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
