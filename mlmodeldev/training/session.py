"""One attempt at a trial: claim its folder, fit or resume, test, and record how it ended.

Example::

    with begin(settings, world) as trial:
        if not trial.done:
            trial.fit(trainer, model, data)
            trial.test(trainer, model, data)
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mlmodeldev.data.shared_memory import shared_memory_full
from mlmodeldev.errors import EXIT_INTERRUPTED, NothingBegun, TrialInterrupted, UsageError
from mlmodeldev.lease import LostLease
from mlmodeldev.machine import number_in
from mlmodeldev.output import output_may_be_lost
from mlmodeldev.secrets import masked
from mlmodeldev.tracking.metadata import CHANGES, models_to_keep, trial_metadata
from mlmodeldev.training.data_record import record_data
from mlmodeldev.training.fit_errors import refuse
from mlmodeldev.training.sampling import begin_sampling, end_sampling, watch_training
from mlmodeldev.training.trial_start import best_value, forget, open_trial
from mlmodeldev.trial import signals
from mlmodeldev.trial.beats import Phase, beat, during, expect
from mlmodeldev.trial.environment import keep_environment
from mlmodeldev.trial.failure import forget_traceback, keep_traceback, shorten_tracebacks
from mlmodeldev.trial.folder import TrialFolder
from mlmodeldev.trial.unanswered import giving_up, seconds_to_answer
from mlmodeldev.trial.watch import Watch, begin_watch

if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer

    from mlmodeldev.callbacks.export import Export
    from mlmodeldev.callbacks.nonfinite import NonFinite
    from mlmodeldev.callbacks.pruning import Pruning
    from mlmodeldev.callbacks.resume import ResumeCheckpoint
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.tracking.clearml_logger import ClearmlTrialLogger
    from mlmodeldev.tracking.mlflow_logger import MlflowTrialLogger
    from mlmodeldev.tracking.wandb_logger import WandbTrialLogger
    from mlmodeldev.training.ranks import World
    from mlmodeldev.trial.usage import UsageSampler


_FINISH_VARIABLES = tuple(f"{name}_FINISH_TIMEOUT" for name in ("WANDB", "MLFLOW", "CLEARML"))


@dataclass
class Attempt:
    """What the processes of a trial share from its start on.

    Attributes:
        folder: the trial's folder; claimed on the first process.
        checkpoint: where to go on from; None: from the beginning.
        step: optimizer steps that the checkpoint holds.
        inherits: whether they are a parent's, of ``training.continue_from``.
        done: whether there is nothing left to do.
        best: best value of the monitored metric so far.
        state: how the trial ended.
        pruned: why it was ended before its time; None if it was not.
        sampler: of what it uses, on the first process.
        numbers: counts the steps that were left out.
        watch: whether it hangs.
    """

    folder: TrialFolder
    settings: Settings
    world: World
    checkpoint: Path | None = None
    step: int = 0
    inherits: bool = False
    done: bool = False
    best: float | None = None
    state: str = "running"
    pruned: str | None = None
    sampler: UsageSampler | None = None
    numbers: NonFinite | None = None
    watch: Watch | None = None
    data: LightningDataModule | None = None
    trackers: list[WandbTrialLogger | MlflowTrialLogger | ClearmlTrialLogger] = field(
        default_factory=list
    )

    def fit(self, trainer: Trainer, model: LightningModule, data: LightningDataModule) -> None:
        """Train from the checkpoint or from the beginning."""
        from mlmodeldev.tracking.loggers import resume_loggers
        from mlmodeldev.training.model_kind import log_what_is_left_out

        resume_loggers(trainer.loggers, self.step, self.checkpoint)
        self.trackers += [each for each in trainer.loggers if hasattr(each, "end")]  # type: ignore[misc]
        if signals.requested():
            raise TrialInterrupted(f"interrupted by {signals.requested()} before training began")
        self.data = data
        bring_together(trainer, model, data, self.settings, self.world)
        if self.world.is_rank_zero:
            log_what_is_left_out(model, data, self.settings)
        if self.settings.training.compile:
            _compile(model)
        policy, goes_on = self.settings.artefacts.changed_data, self.checkpoint is not None
        root = Path(self.settings.artefacts.data_dir).expanduser().absolute()
        self.world.on_rank_zero(lambda: record_data(self.folder, data, root, policy, goes_on))
        if self.world.is_rank_zero:
            keep_environment(self.folder.path, self.folder.attempt, self.world.size)
        if self.settings.artefacts.rehearsal and (self.checkpoint is None or self.inherits):
            self._rehearse(trainer, model, data)
            self._listen()
        if self.checkpoint is None and self.settings.training.init_from:
            from mlmodeldev.training.initial_weights import initialise

            initialise(model, self.settings, self.folder, self.world)
        for tracker in self.trackers:
            tracker.note({"trial": trial_metadata(self.settings, self.folder.read())})
            tracker.keep_file(self.folder.path / CHANGES)
        watch_training(self.sampler, trainer, self.settings)
        self.numbers = _numbers(trainer)
        self.numbers.begins_anew = self.inherits
        try:
            trainer.fit(model, datamodule=data, ckpt_path=self.checkpoint, weights_only=True)
        except Exception as error:
            way = (
                f"training.init_from={self.settings.training.continue_from} takes what fits"
                if self.inherits
                else "artefacts.fresh=true begins anew"
            )
            refuse(error, trainer, self.checkpoint, way)
            raise
        self.numbers.check_taken()
        self._listen()
        self.pruned = next((c.reason for c in _pruners(trainer) if c.reason), None)
        with during(Phase.EXPORT):
            _write_exports(trainer, model)

    def give_up(self, name: str) -> NoReturn:
        """End this process without saving: a step that never ends has not answered a warning."""
        reason = f"{name} was not answered in time: a step, or the loader, hangs"
        print(f"trainer.py: {reason}; the newest checkpoint counts", file=sys.stderr, flush=True)
        with contextlib.suppress(Exception):
            faulthandler.dump_traceback()
        with contextlib.suppress(Exception):
            if self.world.is_rank_zero:
                self.folder.finish("interrupted", reason)
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(EXIT_INTERRUPTED)

    def _listen(self) -> None:
        if self.watch is not None:
            self.watch.listen()

    def _rehearse(
        self, trainer: Trainer, model: LightningModule, data: LightningDataModule
    ) -> None:
        from mlmodeldev.callbacks.stack import make_cka
        from mlmodeldev.training.rehearsal import note_of, rehearse

        record, settings = self.folder.read(), self.settings
        inputs = record.get("data", {}).get("inputs")
        code = record.get("code") or record.get("source")
        note = note_of(settings, code, inputs, self.folder.path.parent)
        rehearse(
            model,
            data,
            settings,
            self.world,
            note,
            make_more=lambda path: [*make_cka(settings, path, model), *_examples(trainer)],
            export=next((_timed(each.try_out) for each in _exporters(trainer)), None),
        )

    def test(self, trainer: Trainer, model: LightningModule, data: LightningDataModule) -> None:
        """Measure the best weights on the test set; not those of a trial that fell behind.

        The last weights are measured where nothing has told which are best.
        """
        from mlmodeldev.callbacks.export import load_weights
        from mlmodeldev.training.model_kind import can_test

        if self.pruned:
            return

        beat(Phase.START)  # data of the test may have to be prepared
        best = self.folder.path / "checkpoints" / "best.ckpt"
        if self.settings.training.test and can_test(model, data):
            if best.is_file():
                load_weights(model, best)
            results = trainer.test(model, datamodule=data, verbose=False)
            self._listen()
            if self.world.is_rank_zero and results:
                self.folder.update(test=dict(results[0]))


def bring_together(
    trainer: Trainer,
    model: LightningModule,
    data: LightningDataModule,
    settings: Settings,
    world: World,
) -> None:
    """Let model, data and Trainer know of each other what they need to."""
    from mlmodeldev.data.plain import OfTheModel, taken_over
    from mlmodeldev.training.model_kind import give_back_left_out, suit

    if isinstance(data, OfTheModel):
        data.take_from(model, settings, world)
    suit(trainer, model, settings)
    give_back_left_out(model)
    if (taken := taken_over(data)) is not None:
        taken.meet(model)


def _write_exports(trainer: Trainer, model: LightningModule) -> None:
    """Write best/ and last/, also where there was nothing left to train.

    A hook would not do: of a trial that was killed after its last step, Lightning calls none.
    """
    from mlmodeldev.callbacks.averages import use_averages

    use_averages(trainer, model)
    for exporter in _exporters(trainer):
        exporter.write(trainer, model)


def _timed(export: Callable[..., None]) -> Callable[..., None]:
    """Let the watcher learn how long an export takes."""

    def call(*arguments: Any) -> None:
        with during(Phase.EXPORT):
            export(*arguments)

    return call


def _exporters(trainer: Trainer) -> list[Export]:
    from mlmodeldev.callbacks.export import Export

    return [c for c in trainer.callbacks if isinstance(c, Export)]  # type: ignore[attr-defined]


def _examples(trainer: Trainer) -> list[Callback]:
    return [each.inputs for each in _exporters(trainer) if each.inputs is not None]


def _numbers(trainer: Trainer) -> NonFinite:
    from mlmodeldev.callbacks.nonfinite import NonFinite

    return next(c for c in trainer.callbacks if isinstance(c, NonFinite))  # type: ignore[attr-defined]


def _pruners(trainer: Trainer) -> list[Pruning | ResumeCheckpoint]:
    from mlmodeldev.callbacks.pruning import Pruning
    from mlmodeldev.callbacks.resume import ResumeCheckpoint

    return [c for c in trainer.callbacks if isinstance(c, Pruning | ResumeCheckpoint)]  # type: ignore[attr-defined]


def _compile(model: LightningModule) -> None:
    """Compile the model's parts in place: names of weights stay, so checkpoints fit either way."""
    from torchmetrics import Metric

    for part in model.children():
        if any(True for _ in part.parameters()) and not isinstance(part, Metric):
            part.compile()


@contextlib.contextmanager
def begin(settings: Settings, world: World) -> Iterator[Attempt]:
    """Claim the trial on the first process, share that with all, and record how it ends.

    What asked this trial to end asks no later one of the same process (a notebook's kernel).
    """
    with signals.answered(), output_may_be_lost(), _attempt(settings, world) as attempt:
        yield attempt
    signals.restore()


@contextlib.contextmanager
def _attempt(settings: Settings, world: World) -> Iterator[Attempt]:
    path, start = world.on_rank_zero(lambda: open_trial(settings))
    folder = TrialFolder(path)
    folder.attempt, folder.token = start.pop("attempt"), start.pop("token")
    attempt = Attempt(folder, settings, world, **start)
    attempt.sampler = begin_sampling(folder, world)
    if not attempt.done:
        seconds = settings.training.watchdog_seconds
        attempt.watch = begin_watch(folder, seconds, world.rank, world.size)
    shorten_tracebacks()
    if world.is_rank_zero and not attempt.done:
        forget_traceback(path)
    try:
        with giving_up(seconds_to_answer(settings.cluster.warn_seconds), attempt.give_up):
            yield attempt
    except TrialInterrupted as error:
        _finish(attempt, "interrupted", str(error))
        raise
    except LostLease as error:
        _end_watch(attempt)
        _step_aside(folder, error)
        raise
    except BaseException as error:
        line = shared_memory_full(error)
        reason = line or f"{type(error).__name__}: {error}"
        with contextlib.suppress(UsageError, LostLease):  # a full disk takes no record either
            _finish(attempt, "failed", masked(reason, 500))
        if isinstance(error, Exception) and not isinstance(error, UsageError):
            keep_traceback(error, path, world.rank)
        if isinstance(error, NothingBegun) and world.is_rank_zero:
            forget(folder, settings)
        if line:
            raise UsageError(line) from None
        raise
    else:
        if not attempt.done:
            _finish(attempt, "pruned" if attempt.pruned else "done", attempt.pruned)
    finally:
        end_sampling(attempt.sampler)
        beat(Phase.END)
        if attempt.data is not None:
            close(attempt.data)
        world.leave()
        _end_watch(attempt)


def _end_watch(attempt: Attempt) -> None:
    if attempt.watch is not None:
        attempt.watch.end()
        attempt.watch = None


def _step_aside(folder: TrialFolder, error: LostLease) -> None:
    """Stand still for good, where a later start of this very job has taken over.

    Slurm has given this task up for dead, and knows its successor by the same job and step: an
    exit of this one would be taken for the other's, and end it.
    """
    slurm = folder.read().get("slurm") or {}
    job, starts = slurm.get("job_id"), int(slurm.get("restart_count", "0"))
    if job is None or job != os.environ.get("SLURM_JOB_ID"):
        return
    if starts <= number_in(os.environ, "SLURM_RESTART_COUNT", 0):
        return  # another process of this very start, as in an allocation's shells
    print(f"{error}; standing still until Slurm ends this task", file=sys.stderr, flush=True)
    for number in signals.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(60)


def _finish(attempt: Attempt, state: Any, reason: str | None) -> None:
    attempt.state = state
    expect(Phase.FINISH, _finish_seconds(len(attempt.trackers)))
    beat(Phase.FINISH)
    if attempt.world.is_rank_zero and attempt.folder.attempt:
        left_out = attempt.numbers.left_out if attempt.numbers else {}
        entries = {"skipped_steps": left_out} if left_out else {}
        attempt.folder.finish(state, reason, **entries)
        attempt.best = best_value(attempt.folder.read())
        for tracker in attempt.trackers:
            models = models_to_keep(attempt.settings, attempt.folder.path, state, tracker.name)
            attempt.folder.update(**{tracker.uploaded_entry: tracker.end(state, models)})


def _finish_seconds(trackers: int) -> float:
    """Return how long the trackers may wait at the end, by their own limits."""
    each = [float(os.environ.get(name) or 60) for name in _FINISH_VARIABLES]
    return max(each) * max(1, trackers)


def close(data: LightningDataModule) -> None:
    """End the worker processes of the loaders."""
    from mlmodeldev.data.plain import taken_over

    owner: Any = taken_over(data) or data
    owner.close()
