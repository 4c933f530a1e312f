"""The Trainer does as it was told, or refuses: accelerator, precision, and every number."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.training.checkpoint_io import AtomicCheckpointIO
from mlmodeldev.training.ranks import World
from mlmodeldev.training.trainer import check_precision, choose_accelerator, make_trainer


@pytest.fixture
def machine(monkeypatch):
    """Pretend what hardware there is."""

    def have(gpu: bool = False, mps: bool = False, bf16: bool = True) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)

    return have


@pytest.fixture
def make(machine, tmp_path):
    machine()

    def call(*overrides: str):
        settings = compose_settings(["logger=csv", *overrides])
        return make_trainer(settings, World(), [], [], tmp_path)

    return call


def test_auto_takes_what_is_there(machine):
    for gpu, mps, expected in (
        (False, False, "cpu"),
        (True, False, "gpu"),
        (False, True, "mps"),
        (True, True, "gpu"),
    ):
        machine(gpu=gpu, mps=mps)
        assert choose_accelerator("auto") == expected
        assert choose_accelerator("cpu") == "cpu"


@pytest.mark.parametrize("wanted", ["gpu", "mps"])
def test_what_is_not_there_is_refused_never_replaced(machine, wanted):
    machine()
    with pytest.raises(UsageError, match=f"training.accelerator={wanted}: this machine has none"):
        choose_accelerator(wanted)
    machine(gpu=True, mps=True)
    assert choose_accelerator(wanted) == wanted


REFUSED = {
    ("16-mixed", "cpu"): "half precision needs a GPU",
    ("16-true", "cpu"): "half precision needs a GPU",
    ("64-true", "mps"): "no double precision",
}


@pytest.mark.parametrize("accelerator", ["cpu", "gpu", "mps"])
@pytest.mark.parametrize(
    "precision", ["32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true"]
)
def test_precision_is_as_requested_or_refused(machine, precision, accelerator):
    machine(gpu=True)
    reason = REFUSED.get((precision, accelerator))
    if reason is None:
        check_precision(precision, accelerator)
    else:
        with pytest.raises(
            UsageError, match=f"training.precision={precision}: .*{reason}.*32-true"
        ):
            check_precision(precision, accelerator)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_a_gpu_that_would_emulate_bfloat16_is_refused(machine, precision):
    machine(gpu=True, bf16=False)
    with pytest.raises(UsageError, match="lacks bfloat16"):
        check_precision(precision, "gpu")
    check_precision(precision, "cpu")


class Counting(pl.LightningModule):
    """A line through noise; it counts what the Trainer lets it do."""

    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(4, 1)
        self.calls: dict[str, int] = {"train": 0, "val": 0, "steps": 0, "epochs": 0}
        self.norms: list[float] = []
        self.kinds: set[torch.dtype] = set()

    def training_step(self, batch, batch_idx):
        self.calls["train"] += 1
        out = self.line(batch)
        self.kinds.add(out.dtype)
        return 1000 * out.square().mean()

    def validation_step(self, batch, batch_idx):
        self.calls["val"] += 1

    def on_train_epoch_start(self):
        self.calls["epochs"] += 1

    def on_before_optimizer_step(self, optimizer):
        self.calls["steps"] += 1

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        gradients = torch.cat([each.grad.flatten() for each in self.parameters()])
        self.norms.append(gradients.norm().item())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-6)


def test_numbers_of_the_settings_reach_the_trainer(make):
    model = Counting()
    loader = torch.utils.data.DataLoader(torch.randn(64, 4), 8)  # 8 batches
    trainer = make(
        "training.max_epochs=4",
        "training.gradient_clip_val=0.5",
        "training.accumulate_grad_batches=3",
        "training.limit_train_batches=0.75",
        "training.limit_val_batches=5",
        "training.check_val_every_n_epoch=2",
        "training.precision=bf16-mixed",
    )
    trainer.fit(model, loader, loader)
    # 6 of 8 batches an epoch, 2 steps of 3 each; 5 batches after the 2nd and the 4th, none before
    assert model.calls == {"train": 24, "val": 10, "steps": 8, "epochs": 4}
    assert model.norms == pytest.approx([0.5] * 8, rel=1e-3)
    assert model.kinds == {torch.bfloat16}
    stopped = Counting()
    make("training.max_epochs=4", "training.max_steps=3").fit(stopped, loader, loader)
    assert stopped.calls["steps"] == 3


def test_lightning_neither_saves_nor_finds_processes_by_itself(make, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")  # Lightning would take Slurm over
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    trainer = make()
    assert isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
    assert trainer.world_size == 1
    assert "Slurm" not in type(trainer._accelerator_connector.cluster_environment).__name__


def test_determinism_is_switched_on_and_off(make):
    before = torch.are_deterministic_algorithms_enabled()
    try:
        make("training.deterministic=true")
        assert torch.are_deterministic_algorithms_enabled()
        make("training.deterministic=false")
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("name", ["simple", "advanced", "pytorch"])
def test_a_profile_goes_to_the_trials_folder(make, tmp_path, name):
    profiler = make(f"training.profiler={name}").profiler
    assert name in type(profiler).__name__.lower()
    assert str(profiler.dirpath) == str(tmp_path)


def test_any_other_argument_reaches_the_trainer(make):
    trainer = make("training.trainer={min_epochs: 2, num_sanity_val_steps: 3}")
    assert (trainer.min_epochs, trainer.num_sanity_val_steps) == (2, 3)
    assert make().num_sanity_val_steps == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.trainer.val_check_interval=7.5", "invalid value 7.5 for val_check_interval"),
        ("training.trainer.benchmark=true", "it needs training.deterministic=false"),
    ],
)
def test_what_lightning_refuses_is_one_line(make, override, message):
    with pytest.raises(UsageError, match=message) as error:
        make(override)
    assert str(error.value).startswith("training.trainer")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("strategy", "find"),
    [
        ("ddp", False),
        ("ddp_find_unused_parameters_true", True),
        ("ddp_find_unused_parameters_false", False),
    ],
)
def test_strategies_by_lightnings_names(make, strategy, find):
    made = make(f"training.strategy={strategy}").strategy
    assert made._ddp_kwargs["find_unused_parameters"] is find
