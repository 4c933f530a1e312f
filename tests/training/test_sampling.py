"""A trial's record says what it has used, in attempts that ended badly as well."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from mlmodeldev.lease import HEARTBEAT_SECONDS
from tests.conftest import Trials

SMALL = (
    *("training.max_epochs=1", "training.limit_train_batches=8", "training.limit_val_batches=1"),
    *("callbacks.cka.enabled=false", "callbacks.export.enabled=false", "logger=csv"),
    "training.test=false",
)


def beat_always() -> None:
    """Renew the lease after every step, and sample all the while."""
    from mlmodeldev.callbacks import resume
    from mlmodeldev.trial import usage

    resume.HEARTBEAT_SECONDS = 0.0
    usage.EVERY_SECONDS, usage.COST = 0.01, 0


def count_cpu_time() -> None:
    """Note the CPU time that the kernel counts for this process, while the attempt lasts."""
    from mlmodeldev.training import session
    from mlmodeldev.trial.folder import TrialFolder

    finish, begin = TrialFolder.finish, session.begin_sampling
    before: list[float] = []

    def now() -> float:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime

    def begun(*args: Any) -> Any:
        before.append(now())
        return begin(*args)

    def finished(folder: TrialFolder, *args: Any, **changes: Any) -> None:
        finish(folder, *args, **changes)
        (folder.path / "cpu.json").write_text(json.dumps(now() - before[0]))

    session.begin_sampling, TrialFolder.finish = begun, finished  # type: ignore


def test_attempts_add_up_to_the_end(trials: Trials) -> None:
    killed = trials.run(*SMALL, kill_at=5, patch=beat_always)
    first = killed.record["usage"]  # it had no time to write an end
    assert killed.code == -signal.SIGKILL
    assert first["samples"] >= 1
    interrupted = trials.run(*SMALL, signal_at=(signal.SIGTERM, 2))
    second = interrupted.record["usage"]
    assert interrupted.record["state"] == "interrupted"
    assert second["cpu_seconds"] > first["cpu_seconds"]
    done = trials.run(*SMALL, patch=count_cpu_time)
    last = done.record["usage"]
    assert (done.record["state"], done.record["attempts"]) == ("done", 3)
    of_this = last["cpu_seconds"] - second["cpu_seconds"]
    assert of_this == pytest.approx(json.loads((done.folder / "cpu.json").read_text()), abs=0.2)
    assert last["samples"] == second["samples"] + 1  # shorter than ten seconds: one at its end
    assert last["memory_gib"] >= second["memory_gib"] > 0.05
    assert set(last) == {"seconds", "cpu_seconds", "memory_gib", "samples", "cores"}
    assert last["seconds"] == pytest.approx(done.record["seconds"], abs=2 + HEARTBEAT_SECONDS)


def test_a_failed_attempt_is_counted_too(trials: Trials, tmp_path: Path) -> None:
    failed = trials.run(*SMALL, "training.nonfinite=stop", patch=fail)
    assert failed.record["state"] == "failed"
    assert failed.record["usage"]["samples"] == 1


def fail() -> None:
    from mlmodeldev.training import session

    def refused(*_: object) -> None:
        raise RuntimeError("planted")

    session.record_data = refused  # type: ignore[assignment]
