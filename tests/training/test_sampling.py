"""A trial's record says what it has used, in attempts that ended badly as well."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path
from types import SimpleNamespace
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


class StoppedClock:
    """`time.perf_counter` that passes when it is told to."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_an_idle_gpu_is_judged_by_what_training_has_waited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Batches take 1 s and come 3 s after each other; the first of an epoch is not counted."""
    import torch

    from mlmodeldev.callbacks import throughput
    from mlmodeldev.training.sampling import watch_training
    from mlmodeldev.trial.usage import UsageSampler

    clock, module = StoppedClock(), SimpleNamespace(log_dict=lambda *_, **__: None)
    monkeypatch.setattr(throughput, "time", clock)
    callback, watched = throughput.Throughput(batch_size=4), []
    trainer: Any = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("cuda", 1)),
        callbacks=[callback],
        train_dataloader=SimpleNamespace(num_workers=2),
        world_size=1,
        global_step=0,
        log_every_n_steps=3,
    )
    settings: Any = SimpleNamespace(cluster=SimpleNamespace(trials_per_gpu=2))
    sampler = UsageSampler()
    monkeypatch.setattr(sampler, "watch", lambda gpu, idle: watched.extend([gpu, idle]))
    watch_training(sampler, trainer, settings)
    gpu, idle = watched
    assert (gpu.index, idle.workers(), idle.trials_per_gpu) == (1, 2, 2)
    assert idle.wait_share() is None
    for _ in range(2):  # epochs
        callback.on_train_epoch_start(trainer, module)  # type: ignore[arg-type]
        for batch in range(5):
            clock.now += 3
            callback.on_train_batch_start(trainer, module, torch.zeros(4), batch)  # type: ignore
            clock.now += 1
            trainer.global_step += 1
            callback.on_train_batch_end(trainer, module, None, torch.zeros(4), batch)  # type: ignore
        callback.on_validation_end(trainer, module)  # type: ignore[arg-type]
        clock.now += 100
    # of each epoch four waits of 3 s, and five batches of 1 s
    assert idle.wait_share() == pytest.approx(12 / 17)


def test_on_a_cpu_no_gpu_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from mlmodeldev.training.sampling import watch_training
    from mlmodeldev.trial.usage import UsageSampler

    sampler = UsageSampler()
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    monkeypatch.setattr(sampler, "watch", lambda *_: pytest.fail("watched"))
    for settings in (None, SimpleNamespace()):
        watch_training(sampler, trainer, settings)  # type: ignore[arg-type]
    watch_training(sampler, SimpleNamespace(), None)  # type: ignore[arg-type]  # nor is it an error
