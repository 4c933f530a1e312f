"""Optimizer and schedule, against torch's own schedulers and transformers'."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from mlmodeldev.settings.schema import Optimizer
from mlmodeldev.training.optimizer import attach, make_optimizer, schedule

LR = 0.5


def rates(make, steps: int) -> list[float]:
    """Return the rate before each of ``steps`` optimizer steps, and after the last."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = make(optimizer)
    seen = []
    for _ in range(steps + 1):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def ours(steps: int, **settings) -> list[float]:
    chosen = Optimizer(lr=LR, **settings)
    return rates(
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, schedule(chosen, steps)),
        steps,
    )


@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize(("fraction", "warmup"), [(0.0, 0), (0.1, 10), (0.095, 10), (0.5, 50)])
@pytest.mark.parametrize("shape", ["cosine", "linear", "constant"])
def test_the_rate_is_that_of_torchs_schedulers_in_a_row(shape, fraction, warmup, floor):
    steps, lr = 100, torch.optim.lr_scheduler

    def make(optimizer):
        rest = steps - warmup
        after = {
            "cosine": lambda: lr.CosineAnnealingLR(optimizer, rest, eta_min=floor * LR),
            "linear": lambda: lr.LinearLR(optimizer, 1.0, floor, total_iters=rest),
            "constant": lambda: lr.ConstantLR(optimizer, 1.0, total_iters=0),
        }[shape]
        if not warmup:
            return after()
        climb = lr.LinearLR(optimizer, 1 / (warmup + 1), 1.0, total_iters=warmup)
        return lr.SequentialLR(optimizer, [climb, after()], milestones=[warmup])

    wanted = {"schedule": shape, "warmup_fraction": fraction, "min_lr_fraction": floor}
    assert ours(steps, **wanted) == pytest.approx(rates(make, steps), abs=1e-9)


@pytest.mark.parametrize(
    ("shape", "reference"),
    [
        ("cosine", get_cosine_schedule_with_warmup),
        ("linear", get_linear_schedule_with_warmup),
    ],
)
def test_the_decay_is_that_of_transformers(shape, reference):
    theirs = rates(lambda optimizer: reference(optimizer, 0, 60), 60)
    assert ours(60, schedule=shape, warmup_fraction=0.0) == pytest.approx(theirs)


def test_reference_points_of_the_cosine():
    seen = ours(120, schedule="cosine", warmup_fraction=0.0)
    # cos of 0, 60, 90, 120 and 180 degrees
    at = {0: 1.0, 40: 0.75, 60: 0.5, 80: 0.25, 120: 0.0}
    assert [seen[step] / LR for step in at] == pytest.approx(list(at.values()), abs=1e-12)


def test_no_step_is_wasted_at_rate_zero_in_the_warmup():
    seen = ours(100, schedule="constant", warmup_fraction=0.03)
    assert seen[:5] == pytest.approx([LR / 4, LR / 2, LR * 3 / 4, LR, LR])


def test_past_the_planned_end_the_rate_stays_at_the_floor():
    for shape in ("cosine", "linear"):
        factor = schedule(Optimizer(schedule=shape, min_lr_fraction=0.2), 10)
        assert [factor(step) for step in (10, 11, 1000)] == pytest.approx([0.2] * 3)


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("shape", ["cosine", "linear", "constant"])
def test_a_run_of_hardly_any_steps_has_a_rate(shape, steps):
    factor = schedule(Optimizer(schedule=shape, warmup_fraction=0.5), steps)
    assert all(0 <= factor(step) <= 1 for step in range(steps + 2))
    assert factor(0) > 0


class Net(LightningModule):
    """One of each kind of tensor, one of them frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)
        self.embedding = nn.Embedding(5, 3)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def decay_by_name(optimizer: torch.optim.Optimizer, net: nn.Module) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    return {
        names[id(parameter)]: group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_matrices_are_decayed_vectors_are_not_and_frozen_ones_are_left_out():
    net = Net()
    assert decay_by_name(make_optimizer(net, Optimizer(weight_decay=0.3)), net) == {
        "linear.weight": 0.3,
        "embedding.weight": 0.3,
        "linear.bias": 0.0,
        "norm.weight": 0.0,
        "norm.bias": 0.0,
        "scale": 0.0,
    }


def test_one_step_of_decay_shrinks_matrices_only():
    net = Net()
    before = {name: value.clone() for name, value in net.named_parameters()}
    optimizer = make_optimizer(net, Optimizer(lr=0.1, weight_decay=0.5))
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in net.named_parameters():
        shrunk = 0.95 if name in ("linear.weight", "embedding.weight") else 1.0
        assert torch.allclose(value, before[name] * shrunk), name


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)],
)
def test_the_algorithm_and_its_numbers_are_those_requested(name, kind):
    wanted = Optimizer(name=name, lr=0.25, betas=[0.8, 0.95], momentum=0.7)
    optimizer = make_optimizer(Net(), wanted)
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert group["lr"] == 0.25
        assert group["momentum" if name == "sgd" else "betas"] in (0.7, (0.8, 0.95))


def test_a_model_of_vectors_only_has_an_optimizer():
    assert len(make_optimizer(nn.LayerNorm(3), Optimizer()).param_groups) == 1


def test_a_model_with_an_optimizer_of_its_own_keeps_it():
    class Own(Net):
        def configure_optimizers(self):
            return "mine"

    own = Own()
    attach(own, Optimizer())
    assert own.configure_optimizers() == "mine"


def test_a_model_without_one_gets_ours_over_the_estimated_steps(monkeypatch):
    net = Net()
    attach(net, Optimizer(lr=LR, warmup_fraction=0.0, schedule="linear"))
    trainer = type("Trainer", (), {"estimated_stepping_batches": 4, "precision": "32-true"})()
    monkeypatch.setattr(Net, "trainer", trainer)
    made = net.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert made["lr_scheduler"]["interval"] == "step"
    seen = []
    for _ in range(5):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert seen == pytest.approx([LR, LR * 0.75, LR / 2, LR / 4, 0])


class Regression(LightningModule):
    def __init__(self, trainable: bool = True):
        super().__init__()
        self.linear = nn.Linear(3, 1).requires_grad_(trainable)
        self.register_buffer("steps", torch.zeros(()))

    def training_step(self, batch, batch_idx):
        self.steps += 1
        loss = self.linear(batch).square().mean()
        return loss if loss.requires_grad else None


def trained(model: LightningModule, settings: Optimizer, **options) -> Trainer:
    attach(model, settings)
    trainer = Trainer(
        max_steps=3, max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    trainer.fit(model, torch.utils.data.DataLoader(torch.ones(8, 3), batch_size=4))
    return trainer


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "32-true", "64-true"])
def test_it_trains_in_each_precision_with_and_without_clipping(precision, name, clip):
    model = Regression()
    before = model.linear.weight.detach().clone()
    trained(model, Optimizer(name=name), precision=precision, gradient_clip_val=clip)
    assert not torch.equal(model.linear.weight.detach().float(), before)
    assert model.linear.weight.isfinite().all()


def test_a_model_with_nothing_to_train_is_run_without_an_optimizer():
    model = Regression(trainable=False)
    trained(model, Optimizer())
    assert model.configure_optimizers() is None
    assert int(model.steps) == 3
