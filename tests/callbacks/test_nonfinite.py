"""A loss of NaN: fail, stop or leave the step out; no weight ever becomes NaN."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.callbacks import patches

SMALL = (
    "logger=csv",
    "training.max_epochs=2",
    "training.limit_train_batches=6",
    "training.limit_val_batches=2",
    "training.log_every_n_steps=1",
    "training.test=false",
    "training.checkpoint_every_n_steps=1",
    "processing.batch_size=16",
    "model.hidden_size=16",
    "model.num_layers=1",
    "callbacks.cka.enabled=false",
    "optimizer.schedule=constant",
    "optimizer.warmup_fraction=0",
)


def weights(path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def assert_finite(ended) -> None:
    files = list((ended.folder / "checkpoints").glob("*.ckpt"))
    assert files
    for file in files:
        checkpoint = torch.load(file, weights_only=True)
        tensors = dict(checkpoint["state_dict"])
        for number, state in checkpoint.get("optimizer_states", [{"state": {}}])[0][
            "state"
        ].items():
            tensors |= {f"optimizer {number} {name}": value for name, value in state.items()}
        assert [name for name, value in tensors.items() if not value.isfinite().all()] == []
    for file in ended.folder.glob("*/model.safetensors"):
        assert all(value.isfinite().all() for value in load_file(file).values())


def test_raise_fails_the_trial_and_keeps_what_was_good(trials) -> None:
    whole = trials.run(*SMALL, name="whole", patch=patches.keep_weights)
    failed = trials.run(*SMALL, name="failed", patch=patches.nan_at_3)
    assert failed.code == 1
    assert failed.record["state"] == "failed"
    assert "the loss is not finite at step 3" in failed.record["reason"]
    assert "training.nonfinite=skip" in failed.record["reason"]
    assert failed.checkpoint.name == "step-0000000003.ckpt"
    assert_finite(failed)
    # the cause removed, it goes on as if nothing had been
    again = trials.run(*SMALL, name="failed")
    assert again.code == 0
    ours, theirs = weights(again.checkpoint), weights(whole.checkpoint)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_stop_ends_with_the_weights_before(trials) -> None:
    stopped = trials.run(
        *SMALL, "training.nonfinite=stop", patch=patches.infinite_at_3_and_4, name="stopped"
    )
    assert stopped.code == 0
    assert stopped.record["state"] == "done"
    assert stopped.output.count("the loss is not finite at step 3") == 1
    assert stopped.record["epoch"] == 1
    assert_finite(stopped)
    assert (stopped.folder / "last" / "model.safetensors").is_file()
    again = trials.run(*SMALL, "training.nonfinite=stop", name="stopped")
    assert "done already" in again.output


def test_skip_leaves_just_that_step_out(trials) -> None:
    """What was skipped is skipped: the weights before and after it are the same."""
    setup = (*SMALL, "training.nonfinite=skip")
    killed = [
        trials.run(*setup, patch=patches.nan_at_3, kill_at=call, name=f"killed-{call}")
        for call in (4, 5, 6)
    ]
    before, after, later = (weights(ended.checkpoint) for ended in killed)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not all(torch.equal(later[name], before[name]) for name in before)
    done = trials.run(*setup, patch=patches.nan_at_3, name="done")
    assert done.code == 0
    assert done.output.count("step left out (1 so far)") == 1
    assert done.record["epoch"] == 2
    assert done.record["skipped_steps"] == {"skip": 1}
    assert_finite(done)


def test_skip_leaves_out_the_whole_window_of_accumulation(trials) -> None:
    """Batches 3 to 5 form a window: it is lost as one, and Adam has counted three steps of 4."""
    done = trials.run(
        *SMALL,
        "training.nonfinite=skip",
        "training.accumulate_grad_batches=3",
        patch=patches.nan_at_3,
    )
    assert done.code == 0
    assert_finite(done)
    states = torch.load(done.checkpoint, weights_only=True)["optimizer_states"][0]["state"]
    assert {float(state["step"]) for state in states.values()} == {3.0}


def test_all_steps_skipped_is_a_failure_that_changes_nothing(trials) -> None:
    ended = trials.run(*SMALL, "training.nonfinite=skip", patch=patches.never_finite)
    assert ended.code == 1
    assert ended.record["state"] == "failed"
    assert "no step was taken (12 were left out)" in ended.record["reason"]
    assert ended.record["skipped_steps"] == {"skip": 12}
    first = weights(ended.folder / "checkpoints" / "best.ckpt")
    assert all(torch.equal(value, first[name]) for name, value in weights(ended.checkpoint).items())
    assert_finite(ended)
    again = trials.run(*SMALL, "training.nonfinite=skip", patch=patches.never_finite)
    assert (again.code, again.record["state"]) == (1, "failed")


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_first_step_that_makes_all_weights_nan_fails_and_saves_nothing(trials, policy) -> None:
    ended = trials.run(*SMALL, f"training.nonfinite={policy}", "optimizer.lr=3e38")
    assert (ended.code, ended.record["state"]) == (1, "failed")
    assert "the weights are not finite (logit_scale, 50 in all) at step 1" in ended.record["reason"]
    assert not list(ended.folder.glob("checkpoints/*"))
    assert not list(ended.folder.glob("*/model.safetensors"))


@pytest.mark.parametrize("policy", ["skip", "stop"])
def test_the_log_is_json_that_anyone_reads(trials, policy) -> None:
    """NaN is no JSON: jq, JavaScript and others would refuse the file."""
    ended = trials.run(*SMALL, f"training.nonfinite={policy}", patch=patches.nan_at_3)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in log.json")

    for name in ("log.json", "trial.json"):
        json.loads((ended.folder / name).read_text(), parse_constant=refuse)
