"""NaN and infinity in gradients, weights and averages: never in what is saved, never in silence."""

from __future__ import annotations

import math
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from pytorch_lightning.plugins import MixedPrecision
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from mlmodeldev.callbacks.nonfinite import NonFinite, NonFiniteLoss
from mlmodeldev.callbacks.resume import ResumeCheckpoint
from mlmodeldev.callbacks.soundness import NonFiniteWeights, gradient_norm
from mlmodeldev.training.checkpoint_io import AtomicCheckpointIO
from mlmodeldev.trial.checkpoint import newest_whole
from mlmodeldev.trial.folder import TrialFolder


class Planted(pl.LightningModule):
    """Plain Lightning code of one's own: the gradient of chosen steps is spoiled, the loss is not.

    Args:
        at: steps whose gradient is spoiled.
        value: by what.
    """

    def __init__(self, at: Any = (), value: float = math.nan) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.at, self.value, self.step = at, value, -1
        self.norm, self.net = nn.BatchNorm1d(4), nn.Linear(4, 2)
        self.net.weight.register_hook(self.spoil)

    def spoil(self, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * self.value if self.step in self.at else gradient

    def loss(self, batch: Any) -> torch.Tensor:
        return F.cross_entropy(self.net(self.norm(batch[0])), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.step += 1
        loss = self.loss(batch)
        assert loss.isfinite()
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


class ByHand(Planted):
    """Manual optimization with two optimizers, of which one has the spoiled gradient."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.automatic_optimization = False
        self.other = nn.Linear(4, 2)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.step += 1
        for optimizer, net in zip(self.optimizers(), (self.net, self.other), strict=True):
            optimizer.zero_grad()
            self.manual_backward(F.cross_entropy(net(batch[0]), batch[1]))
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(net.parameters(), lr=0.01) for net in (self.net, self.other)]


class Breaks(torch.optim.SGD):
    """Makes a weight infinite in one of its steps, though all gradients are finite."""

    steps, breaks_at = 0, 5

    def step(self, closure: Any = None) -> Any:
        result = super().step(closure)
        type(self).steps += 1
        if self.steps == self.breaks_at:
            self.param_groups[0]["params"][-1].data[0] = math.inf
        return result


class Broken(Planted):
    def loss(self, batch: Any) -> torch.Tensor:
        return super().loss(batch).nan_to_num(1.0, 1.0, 1.0)

    def configure_optimizers(self) -> Any:
        Breaks.steps = 0
        return Breaks(self.parameters(), lr=0.01)


def loader() -> DataLoader:
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 4)


class Fit:
    """Three epochs of three steps each, with a checkpoint after each step."""

    def __init__(self, path: Any, policy: Any, *more: Any, **options: Any) -> None:
        self.path = path / "trial"
        (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        folder = TrialFolder(self.path)
        folder.claim(patient=False)
        self.numbers = NonFinite(policy, self.path / "checkpoints")
        self.recovery = ResumeCheckpoint(folder, "val_loss", "min", 1, numbers=self.numbers)
        callbacks = [self.numbers, self.recovery, *more]
        plugins = [AtomicCheckpointIO(), *options.pop("plugins", ())]
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        self.trainer = pl.Trainer(
            accelerator="cpu", max_epochs=3, callbacks=callbacks, plugins=plugins,
            num_sanity_val_steps=0, **quiet, **options,
        )  # fmt: skip

    def run(self, module: Any) -> Any:
        goes_on = newest_whole(self.path / "checkpoints")
        self.trainer.fit(module, loader(), loader(), ckpt_path=goes_on, weights_only=True)
        return module

    @property
    def saved(self) -> dict[str, dict[str, Any]]:
        files = sorted((self.path / "checkpoints").glob("*.ckpt"))
        return {file.name: torch.load(file, weights_only=True) for file in files}


def finite(state: Any) -> bool:
    if isinstance(state, torch.Tensor):
        return bool(state.isfinite().all())
    if isinstance(state, dict | list | tuple):
        return all(map(finite, state.values() if isinstance(state, dict) else state))
    return True


def all_saved_is_finite(fit: Fit) -> bool:
    assert fit.saved
    parts = ("state_dict", "optimizer_states", "current_model_state")
    return all(finite(saved.get(part)) for saved in fit.saved.values() for part in parts)


@pytest.mark.parametrize("kind", [Planted, ByHand])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_a_spoiled_gradient_changes_no_weight_though_the_loss_is_finite(
    tmp_path, kind, value
) -> None:
    """1e30 is finite, but its square, which Adam would keep for good, is not."""
    skips = Fit(tmp_path, "skip")
    assert finite(skips.run(kind([4], value)).state_dict())
    assert skips.numbers.left_out == {"skip": 1}
    assert all_saved_is_finite(skips)
    stops = Fit(tmp_path / "stops", "stop")
    assert finite(stops.run(kind([4], value)).state_dict())
    assert stops.trainer.current_epoch == 2
    assert all_saved_is_finite(stops)
    raises = Fit(tmp_path / "raises", "raise")
    with pytest.raises(NonFiniteLoss, match=r"the gradient is not finite at step .*nonfinite=skip"):
        raises.run(kind([4], value))
    assert all_saved_is_finite(raises)


def test_a_retry_goes_on_from_the_last_step_with_sound_weights(tmp_path) -> None:
    with pytest.raises(NonFiniteLoss):
        Fit(tmp_path, "raise").run(Planted([4]))
    again = Fit(tmp_path, "raise")
    assert newest_whole(again.path / "checkpoints").name == "step-0000000004.ckpt"
    module = again.run(Planted())
    assert (module.step, again.trainer.global_step) == (9 - 4 - 1, 9)
    assert all_saved_is_finite(again)


@pytest.mark.parametrize("policy", ["raise", "skip", "stop"])
def test_weights_that_became_infinite_are_never_saved(tmp_path, policy) -> None:
    fit = Fit(tmp_path, policy)
    if policy == "stop":
        module = fit.run(Broken())
        assert finite(module.state_dict())
        assert fit.trainer.should_stop
        assert fit.trainer.current_epoch == 2
    else:
        with pytest.raises(NonFiniteWeights, match=r"net.bias, 1 in all\) at step 5; nothing was"):
            fit.run(Broken())
    assert all_saved_is_finite(fit)
    assert "best.ckpt" in fit.saved
    assert len(fit.saved) == 3


def test_weights_that_are_lost_before_any_checkpoint_fail_whatever_the_policy(tmp_path) -> None:
    module = Broken()
    module.net.weight.data[0] = math.nan
    with pytest.raises(NonFiniteWeights, match=r"net\.weight, 1 in all"):
        Fit(tmp_path, "stop").run(module)
    assert not list((tmp_path / "trial" / "checkpoints").iterdir())


@pytest.mark.parametrize("policy", ["skip", "stop"])
def test_a_training_without_a_step_is_a_failure(tmp_path, policy) -> None:
    fit = Fit(tmp_path, policy)
    module = fit.run(Planted(range(99)))
    assert all_saved_is_finite(fit)
    assert module.step == (8 if policy == "skip" else 0)
    with pytest.raises(NonFiniteLoss, match="nothing was learned"):
        fit.numbers.check_taken()


def test_steps_of_another_trials_checkpoint_do_not_count(tmp_path) -> None:
    state = Fit(tmp_path / "parent", "skip").numbers.state_dict() | {"taken": 7, "skipped": 2}
    child = NonFinite("skip")
    child.begins_anew = True
    child.load_state_dict(state)
    assert (child.taken, child.left_out) == (0, {})


def half(start: float) -> list[Any]:
    scaler = torch.amp.GradScaler("cpu", init_scale=start, growth_interval=1000)
    return [MixedPrecision("16-mixed", "cpu", scaler)]


def test_what_half_precisions_scaler_leaves_out_is_counted_and_no_fault(tmp_path) -> None:
    """A scale that is too large at first is usual; the scaler finds a smaller one."""
    fit = Fit(tmp_path, "raise", plugins=half(2.0**20))
    module = fit.run(Planted())
    assert finite(module.state_dict())
    assert all_saved_is_finite(fit)
    assert 1 <= fit.numbers.left_out["scaler"] < 9
    assert fit.numbers.taken == 9 - fit.numbers.by_scaler


def test_a_gradient_that_no_scale_makes_finite_is_one(tmp_path) -> None:
    fit = Fit(tmp_path, "raise", plugins=half(4.0))
    with pytest.raises(NonFiniteLoss, match="the gradient is not finite at step 2"):
        fit.run(Planted(range(99)))
    assert fit.numbers.left_out == {"scaler": 2}


def test_a_skipped_batch_leaves_no_trace_in_running_statistics(tmp_path) -> None:
    class NanBatch(Planted):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            self.step += 1
            return self.loss([batch[0] * (math.nan if self.step in self.at else 1), batch[1]])

    fit = Fit(tmp_path, "skip")
    module = fit.run(NanBatch([3]))
    assert module.norm.running_mean.isfinite().all()
    assert fit.numbers.left_out == {"skip": 1}
    assert all_saved_is_finite(fit)
    assert fit.recovery.best_value is not None and math.isfinite(fit.recovery.best_value)


def test_masks_may_be_infinite(tmp_path) -> None:
    module = Planted()
    module.register_buffer("mask", torch.full((2, 2), -math.inf).triu(1))
    module.frozen = nn.Parameter(torch.tensor([math.nan]), requires_grad=False)
    fit = Fit(tmp_path, "raise")
    fit.run(module)
    assert "best.ckpt" in fit.saved


def test_the_best_of_an_average_is_the_average_that_was_validated(tmp_path) -> None:
    class Sees(EMAWeightAveraging):
        def __init__(self) -> None:
            super().__init__(decay=0.5)
            self.validated: dict[int, Any] = {}

        def on_validation_epoch_start(self, trainer: Any, module: Any) -> None:
            super().on_validation_epoch_start(trainer, module)
            state = {name: value.clone() for name, value in module.state_dict().items()}
            self.validated[trainer.current_epoch] = state

    sees = Sees()
    fit = Fit(tmp_path, "skip", sees)
    fit.run(Planted([4]))
    assert all_saved_is_finite(fit)
    best, expected = fit.saved["best.ckpt"], sees.validated[fit.recovery.best_epoch]
    assert all(torch.equal(best["state_dict"][name], value) for name, value in expected.items())
    recovery = fit.saved["step-0000000008.ckpt"]
    assert not torch.equal(
        recovery["state_dict"]["net.weight"], recovery["current_model_state"]["net.weight"]
    )


@pytest.mark.parametrize(
    "average", [EMAWeightAveraging(decay=0.5), StochasticWeightAveraging(0.01, 1)]
)
def test_an_average_of_lost_weights_is_not_saved(tmp_path, average) -> None:
    fit = Fit(tmp_path, "raise", average)
    with pytest.raises(NonFiniteWeights):
        fit.run(Broken())
    assert all_saved_is_finite(fit)


def test_an_infinite_metric_is_not_the_best(tmp_path) -> None:
    class Boasts(Planted):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", torch.tensor(-math.inf if self.current_epoch == 1 else 1.0))

    fit = Fit(tmp_path, "raise")
    fit.run(Boasts())
    assert (fit.recovery.best_value, fit.recovery.best_epoch) == (1.0, 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_gradients_of_any_kind_are_looked_at(dtype) -> None:
    dense = nn.Parameter(torch.ones(3, dtype=dtype))
    table = nn.Embedding(5, 2, sparse=True)
    empty = nn.Parameter(torch.ones(0))
    optimizer = torch.optim.SGD([dense, table.weight, empty], lr=0.1)
    assert gradient_norm(optimizer) is None
    table(torch.tensor([1, 1])).sum().backward()
    dense.grad, empty.grad = torch.full_like(dense, 6e4), torch.zeros(0)
    assert gradient_norm(optimizer).isfinite()
    table.weight.grad._values()[0] = math.inf
    assert not gradient_norm(optimizer).isfinite()
