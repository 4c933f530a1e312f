"""One batch of each stage of a repository's model, and the metric that it can be judged by.

It is a trial of ``trainer.py`` in a temporary folder: training, validation, test, exports and their
reload, a batch of each.

Example::

    outcome = rehearse(root)
    outcome.status, outcome.monitor    # 0, ("val_loss", "min")
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlmodeldev
from mlmodeldev.project import PROJECT_VARIABLE, import_places

_BATCH = (
    *("logger=csv", "training.max_epochs=1", "training.limit_train_batches=1"),
    *("training.limit_val_batches=1", "training.trainer.limit_test_batches=1"),
    "training.log_every_n_steps=1",
)
_NOT_LOGGED = re.compile(r"training\.monitor=\S+: the model logs no such metric.*\(logged: (.*)\)")
"""What mlmodeldev.callbacks.resume.not_logged says."""
_SMALLER = re.compile(r"loss|err|mae|mse|perplexity|ppl|nll|(^|[/_.])(cer|wer|fid)($|[/_.])")
_LARGER = re.compile(
    r"acc|f1|auroc|auc|precision|recall|iou|dice|psnr|ssim|bleu|rouge|ndcg|r2|score"
    r"|(^|[/_.])(ap|map|mrr)($|[/_.])"
)
_HINTS = {
    "optimizer_idx": "it is written for Lightning 1: with several optimizers, Lightning 2 has"
    " automatic_optimization = False and self.optimizers()",
    "_epoch_end": "it is written for Lightning 1: in Lightning 2 the hook is on_..._epoch_end",
}


@dataclass(frozen=True)
class Outcome:
    """How a rehearsal ended.

    Attributes:
        status: exit status of trainer.py.
        seconds: that it took.
        reason: a line, if it failed.
        logged: metrics to choose a monitor from, where the present one is not logged; with
            status 0 they are of training: nothing is validated.
    """

    status: int
    seconds: float
    reason: str = ""
    logged: tuple[str, ...] | None = None


def environment(root: Path) -> dict[str, str]:
    """Return the variables of a process that runs a program of the repository."""
    library = str(Path(mlmodeldev.__file__).parents[1])
    path = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), library]
    return {
        **os.environ,
        PROJECT_VARIABLE: str(root),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([*import_places(root), *path])),
    }


def rehearse(root: Path, monitor: str) -> Outcome:
    """Run one batch of each stage.

    Args:
        root: a repository with trainer.py and conf/.
        monitor: what the settings have as ``training.monitor``.
    """
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="adopt-") as runs:
        done = subprocess.run(
            [sys.executable, "trainer.py", *_BATCH, f"artefacts.runs_dir={runs}"],
            cwd=root,
            env=environment(root),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        seconds = time.monotonic() - begun
        if done.returncode:
            return _failed(root, done.returncode, seconds, done.stderr)
        logged = _logged(Path(runs))
    return Outcome(0, seconds, logged=None if monitor in logged else logged)


def _failed(root: Path, status: int, seconds: float, printed: str) -> Outcome:
    lines = [line for line in printed.splitlines() if line.strip()] or ["it printed nothing"]
    if match := _NOT_LOGGED.search(printed):
        names = () if match[1] == "none" else tuple(match[1].split(", "))
        return Outcome(status, seconds, lines[-1], _metrics(names))
    reason = lines[-1].removeprefix("trainer.py: ")
    place = _last_place(root, lines)
    hint = next((text for word, text in _HINTS.items() if word in reason), "")
    return Outcome(status, seconds, reason + place + (f"; {hint}" if hint else ""))


def _last_place(root: Path, lines: list[str]) -> str:
    """Return the last line of the repository's own code that a traceback goes through."""
    places = re.findall(r'File "([^"]+)", line (\d+)', "\n".join(lines))
    own = [
        (Path(file).relative_to(root), number)
        for file, number in places
        if Path(file).is_relative_to(root) and Path(file) != root / "trainer.py"
    ]
    return f" [{own[-1][0]}, line {own[-1][1]}]" if own else ""


def _logged(runs: Path) -> tuple[str, ...]:
    for file in runs.glob("*/*/metrics.csv"):
        with file.open(encoding="utf-8") as rows:
            return _metrics(next(csv.reader(rows), []))
    return ()


def _metrics(names: Collection[str]) -> tuple[str, ...]:
    """Return the metrics among columns, without those that say how fast or how far it went."""
    other = re.compile(r"^(epoch|step|lr|time|throughput|cka|trainer|data|grad)|^lr-|_step$|/step$")
    kept = [name for name in names if name and not other.search(name)]
    twice = {f"{name}_epoch" for name in kept}  # Lightning's second name of the same number
    return tuple(name for name in kept if name not in twice)


def choose_monitor(logged: Collection[str]) -> tuple[str, str] | None:
    """Return the metric to judge a model by, with ``min`` or ``max``; None: none is fit.

    A loss of validation comes first, then its other metrics, then those of training.

    >>> choose_monitor(["train_loss", "val_acc", "val_loss"])
    ('val_loss', 'min')
    """
    ranked: list[tuple[tuple[bool, bool, int], str, str]] = []
    for name in logged:
        low = name.lower()
        mode = "min" if _SMALLER.search(low) else "max" if _LARGER.search(low) else ""
        if mode and "test" not in low:
            rank = ("train" in low, "loss" not in low, len(name))
            ranked.append((rank, name, mode))
    return min(ranked)[1:] if ranked else None


def output(root: Path, *command: str) -> tuple[int, str]:
    """Run a program of the repository; return its exit status and all that it printed."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=root,
        env=environment(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout


def others(logged: Collection[str], chosen: str) -> Mapping[str, str]:
    """Return the other metrics that a monitor could be, each with its mode."""
    rest = {name: choose_monitor([name]) for name in logged if name != chosen}
    return {name: best[1] for name, best in rest.items() if best}
