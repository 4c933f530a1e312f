"""A trial that is killed and started again equals one that was left alone, bit for bit."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from tests.conftest import TrialResult, Trials

SMALL = (
    "logger=csv",
    "training.max_epochs=3",
    "training.limit_train_batches=7",
    "training.limit_val_batches=2",
    "training.log_every_n_steps=1",
    "training.test=false",
    "processing.batch_size=16",
    "model.hidden_size=16",
    "model.num_layers=1",
    "model.dropout=0.1",
    "callbacks.cka.enabled=false",
)
# name -> settings beside SMALL
SETUPS = {
    "epoch checkpoints": (),
    "step checkpoints": ("training.checkpoint_every_n_steps=1",),
    "accumulation": (
        "training.checkpoint_every_n_steps=1",
        "training.accumulate_grad_batches=3",
    ),
    "workers": ("training.checkpoint_every_n_steps=2", "processing.num_workers=2"),
    "alignment": ("callbacks.cka.enabled=true",),
    "sgd linear": ("optimizer=sgd", "optimizer.schedule=linear"),
    "validation every other epoch": (
        "training.check_val_every_n_epoch=2",
        "training.max_epochs=4",
        "training.checkpoint_every_n_steps=3",
    ),
}


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """Weights and optimizer state of a checkpoint, flat."""
    checkpoint = torch.load(path, weights_only=True)
    flat = dict(checkpoint["state_dict"])
    for number, state in checkpoint["optimizer_states"][0]["state"].items():
        flat |= {f"optimizer.{number}.{name}": torch.as_tensor(v) for name, v in state.items()}
    return flat


def assert_same(disturbed, undisturbed) -> None:
    assert disturbed.record["state"] == undisturbed.record["state"] == "done"
    ours, theirs = tensors(disturbed.checkpoint), tensors(undisturbed.checkpoint)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert different == []
    assert disturbed.rows == undisturbed.rows
    assert disturbed.log == undisturbed.log
    for folder in ("best", "last"):
        file = f"{folder}/model.safetensors"
        assert (disturbed.folder / file).read_bytes() == (undisturbed.folder / file).read_bytes()


@pytest.fixture(scope="module")
def undisturbed(shared_trials: Trials) -> TrialResult:
    """The trial of `SMALL` that nothing happens to."""
    ended = shared_trials.run(*SMALL, name="whole")
    assert ended.code == 0, ended.output
    return ended


@pytest.mark.parametrize("setup", SETUPS.values(), ids=SETUPS)
def test_killed_at_any_step(trials, setup) -> None:
    undisturbed = trials.run(*SMALL, *setup, name="whole")
    assert undisturbed.code == 0
    # inside an epoch, an epoch's last step, the first step of the last epoch
    for kill_at in (5, 7, 15):
        name = f"killed-{kill_at}"
        killed = trials.run(*SMALL, *setup, kill_at=kill_at, name=name)
        assert killed.code == -signal.SIGKILL
        resumed = trials.run(*SMALL, *setup, name=name)
        assert resumed.code == 0
        assert resumed.record["attempts"] == 2
        assert_same(resumed, undisturbed)


def test_killed_in_the_first_step(trials, undisturbed) -> None:
    trials.run(*SMALL, kill_at=1)
    ended = trials.run(*SMALL)
    assert_same(ended, undisturbed)


def test_a_resumed_trial_is_the_same_run_in_wandb(trials) -> None:
    setup = [item for item in SMALL if item != "logger=csv"]
    killed = trials.run(*setup, kill_at=9)
    identifier = killed.record["wandb_id"]
    resumed = trials.run(*setup)
    assert resumed.code == 0
    assert resumed.record["wandb_id"] == identifier
    offline = list((resumed.folder / "wandb").glob("offline-run-*"))
    assert len(offline) == 2
    assert all(folder.name.endswith(identifier) for folder in offline)


def test_killed_in_validation(trials, undisturbed) -> None:
    for kill_at in (1, 2, 3):
        name = f"killed-{kill_at}"
        trials.run(*SMALL, kill_at=kill_at, during="validation_step", name=name)
        assert_same(trials.run(*SMALL, name=name), undisturbed)


IN_EPOCH, AT_ITS_END, IN_VALIDATION = (
    (3, "training_step"),
    (7, "training_step"),
    (2, "validation_step"),
)


@pytest.mark.parametrize(
    ("number", "places"),
    [
        (signal.SIGTERM, [IN_EPOCH, AT_ITS_END, IN_VALIDATION]),
        (signal.SIGUSR1, [IN_EPOCH]),
        (signal.SIGUSR2, [AT_ITS_END]),
        (signal.SIGINT, [IN_VALIDATION]),
    ],
)
def test_signalled(trials, undisturbed, number, places) -> None:
    for call, during in places:
        name = f"{during}-{call}"
        stopped = trials.run(*SMALL, signal_at=(number, call), during=during, name=name)
        assert stopped.code == 75
        assert stopped.record["state"] == "interrupted"
        assert signal.Signals(number).name in stopped.record["reason"]
        assert (
            stopped.checkpoint.name == f"step-{min(call, 7) if during[0] == 't' else 7:010d}.ckpt"
        )
        assert_same(trials.run(*SMALL, name=name), undisturbed)


def test_interrupted_again_and_again(trials) -> None:
    """The harshest case: one step an attempt, accumulation and workers on."""
    setup = (
        *SMALL,
        "training.accumulate_grad_batches=2",
        "training.limit_train_batches=4",
        "processing.num_workers=2",
    )
    undisturbed = trials.run(*setup, name="whole")
    for _ in range(20):
        ended = trials.run(*setup, signal_at=(signal.SIGTERM, 1), name="stuttering")
        if ended.code == 0:
            break
        assert ended.code == 75
    assert ended.record["attempts"] > 5
    assert_same(ended, undisturbed)
