"""``training.compile=true``: the model's parts are compiled, and the trial is the same trial."""

from __future__ import annotations

import signal

import pytest

from tests.conftest import Trials
from tests.trial.test_resume import assert_same, tensors

pytestmark = pytest.mark.slow

SMALL = (
    "logger=csv",
    "training.max_epochs=2",
    "training.limit_train_batches=3",
    "training.limit_val_batches=1",
    "training.log_every_n_steps=1",
    "training.test=false",
    "processing.batch_size=8",
    "model.hidden_size=8",
    "model.num_layers=1",
    "model.dropout=0.0",
    "callbacks.cka.enabled=false",
)


def count_compilations() -> None:
    """Print a line for each graph that torch hands to its compiler."""
    from torch._inductor import compile_fx

    real = compile_fx.compile_fx

    def counted(*arguments, **options):
        print("a graph is compiled", flush=True)
        return real(*arguments, **options)

    compile_fx.compile_fx = counted


def test_a_compiled_trial_learns_the_same_and_resumes(trials: Trials) -> None:
    eager = trials.run(*SMALL, patch=count_compilations, name="eager")
    assert eager.code == 0, eager.output
    assert "a graph is compiled" not in eager.output

    compiled = (*SMALL, "training.compile=true")
    whole = trials.run(*compiled, patch=count_compilations, name="whole")
    assert whole.code == 0, whole.output
    assert "a graph is compiled" in whole.output
    losses = [[float(r["train/loss"]) for r in t.rows if "train/loss" in r] for t in (eager, whole)]
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert tensors(whole.checkpoint).keys() == tensors(eager.checkpoint).keys(), "no other names"

    stopped = trials.run(*compiled, signal_at=(signal.SIGTERM, 2), name="stopped")
    assert (stopped.code, stopped.record["state"]) == (75, "interrupted"), stopped.output
    resumed = trials.run(*compiled, patch=count_compilations, name="stopped")
    assert resumed.code == 0, resumed.output
    assert "going on from step 2" in resumed.output
    assert "a graph is compiled" in resumed.output
    assert_same(resumed, whole)
