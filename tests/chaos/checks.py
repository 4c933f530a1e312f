"""What must hold at the end: each trial done once, as if nothing had happened, and nothing left.

Example::

    problems = check(scene, calm)          # [] if all is well
"""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.outcome import Outcome, outcome
from tests.chaos.scene import Scene
from tests.chaos.user import unfinished

_STRAY = re.compile(r"\.tmp|\.soft$|\.part$|\.filler$|~$")


@dataclass
class Findings:
    """What does not hold.

    Attributes:
        lost: trials that are not done, or not as they should be.
        doubled: trials done twice, rows or runs that are there twice.
        left: processes and files that nobody needs.
    """

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """All, in words."""
        kinds = (("lost", self.lost), ("doubled", self.doubled), ("left behind", self.left))
        return [f"{name}: {line}" for name, lines in kinds for line in lines]


def check(scene: Scene, calm: dict[str, dict[str, Outcome]]) -> Findings:
    """Look at everything."""
    findings = Findings()
    for name, folder in scene.folders().items():
        _check_trials(findings, folder, calm[name])
    for name, trials in unfinished(scene).items():
        findings.lost += [f"{name}/{trial}: {state}" for trial, state in trials.items()]
    _check_runs(findings, scene, calm["served"])
    _check_spans(findings, scene.spans)
    _check_processes(findings, scene)
    _check_files(findings, scene)
    return findings


def _check_trials(findings: Findings, sweep: Path, calm: dict[str, Outcome]) -> None:
    present = {f.parent.name for f in sweep.glob("*/trial.json")}
    findings.doubled += [f"{sweep.name}/{name}: a second folder" for name in present - calm.keys()]
    for name in sorted(present & calm.keys()):
        with contextlib.suppress(FileNotFoundError):  # of one that is not done: counted as lost
            _compare(findings, f"{sweep.name}/{name}", outcome(sweep / name), calm[name])


def _compare(findings: Findings, name: str, got: Outcome, wanted: Outcome) -> None:
    if got.weights != wanted.weights:
        findings.lost.append(f"{name}: other weights than undisturbed")
    if got.rows != wanted.rows:
        steps = [row.get("step") for row in got.rows]
        kind = findings.doubled if len(got.rows) > len(wanted.rows) else findings.lost
        kind.append(f"{name}: other rows than undisturbed ({len(got.rows)}): steps {steps}")
    if got.files != wanted.files:
        more, less = sorted(got.files - wanted.files), sorted(wanted.files - got.files)
        findings.left += [f"{name}: files {more}"] if more else []
        findings.lost += [f"{name}: no files {less}"] if less else []


def _check_runs(findings: Findings, scene: Scene, calm: dict[str, Outcome]) -> None:
    """The W&B server has one run for each trial, with the rows of its metrics.csv."""
    runs = {run.name: run for run in scene.server.store.of_project("chaos")}
    taken = {}
    for folder, record in scene.records():
        if folder.parent == scene.folders()["served"]:
            taken[record.get("wandb_id")] = folder.name
    findings.doubled += [f"run {name}: of no trial" for name in runs.keys() - taken.keys()]
    for name, trial in taken.items():
        if name not in runs or trial not in calm:
            findings.lost.append(f"served/{trial}: no run {name}")
            continue
        run, wanted = runs[name], calm[trial].rows
        where = f"served/{trial}, run {name}"
        if run.steps != list(range(len(wanted))):
            kind = findings.doubled if len(run.steps) > len(wanted) else findings.lost
            kind.append(f"{where}: steps {run.steps} of {len(wanted)} rows")
        losses = [float(row["train_loss"]) for row in wanted if "train_loss" in row]
        if [float(v) for v in run.values("train_loss")] != losses:
            findings.lost.append(f"{where}: other losses than undisturbed")
        if run.state != "finished":
            findings.lost.append(f"{where}: is {run.state}")
        again = [line for stream, line in run.rewritten if stream == "wandb-history.jsonl"]
        if again:
            findings.doubled.append(f"{where}: rows {again} sent again with another content")


def _check_spans(findings: Findings, file: Path) -> None:
    """No two processes have trained one trial to its end at the same time."""
    begun: dict[tuple[str, str], float] = {}
    trained: dict[str, list[tuple[float, float]]] = {}
    for line in file.read_text().splitlines():
        trial, event, pid, seconds = line.split("\t")
        if event == "begin":
            begun[trial, pid] = float(seconds)
        else:
            trained.setdefault(trial, []).append((begun[trial, pid], float(seconds)))
    for trial, pairs in trained.items():
        pairs.sort()
        if any(b[0] < a[1] for a, b in itertools.pairwise(pairs)):
            findings.doubled.append(f"{trial}: trained to its end by two at once: {pairs}")


def _check_processes(findings: Findings, scene: Scene) -> None:
    """Nothing of the jobs lives; it has a minute to end in."""
    deadline = time.monotonic() + 60
    while (pids := scene.job_processes()) and time.monotonic() < deadline:
        time.sleep(0.5)
    findings.left += [f"process {pid}: {words}" for pid, words in pids.items()]


def _check_files(findings: Findings, scene: Scene) -> None:
    for file in sorted(scene.runs.rglob("*")):
        name = str(file.relative_to(scene.runs))
        if _STRAY.search(file.name):
            findings.left.append(f"file {name}")
    notes: Any = (scene.folders()["served"] / ".agents").glob("*.json")
    findings.left += [f"note {note.name}" for note in notes if note.name != "sweep.json"]
