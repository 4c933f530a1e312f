"""One run: begin, disturb, settle, check; and the report of it.

Example::

    report = run(seed=7, minutes="3")
    assert report.is_good, report.text()
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.calm import Calm
from tests.chaos.checks import Findings, check
from tests.chaos.monkey import Monkey
from tests.chaos.scene import Scene
from tests.chaos.trials import SIZES
from tests.chaos.user import Stuck, User, all_done


@dataclass
class Report:
    """How it went.

    Attributes:
        counts: faults by kind.
        log: what the monkey did.
        findings: what did not hold.
        trouble: what kept the run from its end; empty if nothing did.
        attempts: of all trials together.
    """

    seed: int
    minutes: str
    trials: int
    counts: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    trouble: str = ""
    details: str = ""
    attempts: int = 0
    skipped: int = 0
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, doubled or left behind."""
        return not self.trouble and not self.findings.lines

    def text(self) -> str:
        """Return it for people; on failure with all that is needed to look further."""
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(self.counts.items()))
        head = (
            f"{self.trials} trials, {self.attempts} attempts, {self.counts.total()} faults"
            f" ({self.skipped} came too late) in {self.seconds / 60:.1f} min: {faults}"
        )
        if self.is_good:
            return f"{head}\nlost 0, doubled 0, left behind 0"
        again = f"again: python -m tests.chaos --seed {self.seed} --minutes {self.minutes}"
        parts = [self.details, "the monkey's log:", *self.log, head, self.trouble]
        return "\n".join([*parts, *self.findings.lines, again])


def run(
    seed: int,
    minutes: str = "3",
    kinds: Sequence[str] = (),
    keep: bool = False,
    watchdog: bool = False,
) -> Report:
    """Run the trials while the monkey is at it.

    Args:
        seed: of the monkey.
        minutes: a key of `SIZES`.
        kinds: names of the faults; none: all.
        keep: copy the runs to /tmp/chaos-kept before all is removed.
        watchdog: let a trial that hangs hang for good.
    """
    size = SIZES[minutes]
    report = Report(seed, minutes, size.ours + size.theirs + size.agents)
    begun = time.monotonic()
    print(f"seed {seed}, {report.trials} trials", flush=True)
    with Scene(size) as scene:
        calm = Calm(scene)
        scene.watchdog = watchdog
        user = User(scene)
        monkey = Monkey(scene, seed, kinds, meanwhile=user.look)
        try:
            user.submit_all()
            print(f"{time.monotonic() - begun:.0f} s: submitted", flush=True)
            monkey.run(lambda: all_done(scene))
            print(f"{time.monotonic() - begun:.0f} s: the monkey has done", flush=True)
            user.settle()
        except Stuck as error:
            report.trouble = str(error)
        except Exception:
            report.trouble = traceback.format_exc()
        finally:
            monkey.undo_all()
        report.counts, report.log, report.skipped = monkey.counts, monkey.log, monkey.skipped
        report.findings = check(scene, calm.outcomes())
        report.attempts = sum(int(r.get("attempts", 0)) for _, r in scene.records())
        if not report.is_good:
            report.details = details(scene)
        report.seconds = time.monotonic() - begun
        if keep:
            _keep(scene)
    return report


def details(scene: Scene) -> str:
    """Return what people need who look for the cause."""
    printed = scene.printed.read_text() if scene.printed.exists() else ""
    logs = [f"--- {f}\n{f.read_text(errors='replace')}" for f in scene.runs.glob("*/*/log.txt")]
    records = [f"--- {folder}: {record}" for folder, record in scene.records()]
    return "\n".join([*logs, scene.logs(), printed, *records, scene.spans.read_text()])


def _keep(scene: Scene) -> None:
    place = Path("/tmp/chaos-kept")
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(scene.folder, place, symlinks=True, ignore=shutil.ignore_patterns("home"))
    print(f"kept: {place}")
