"""The step time of ``train(settings)`` beside a hand-written PyTorch loop, in one process.

    python -m benchmarks step_time

An epoch of ours, an epoch of each plain loop, and so on in turn: load of the machine and drift hit
all alike, and the median over the rounds of (ours / plain) cancels them. Ours runs as users run
it: every default callback but CKA, gradient clipping, warm-up and cosine, recovery and logs. The
plain loop has the same model, initial weights, fused AdamW, clipping, schedule and examples with
the same augmentation; it logs nothing and is not deterministic. Both have one thread, for which
CPU time means something too, and which no other program can hold up. It gets its batches

* from a plain ``DataLoader``, as one would write it: shuffled, default collate, no workers;
* from our own loader, which leaves the cost of Lightning, callbacks and logs alone.

An epoch's time is from its first hook to the validation, divided by its batches.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.table import Goal, Table

ROUNDS = 24
LIMIT = 1.05
PLAIN, SAME = "plain DataLoader", "our loader"


def run(rounds: int = ROUNDS) -> Table:
    """Measure with metrics.csv alone, then with a tracker beside it: W&B offline, MLflow's file."""
    table = Table(
        "Step time",
        ["logger", "plain loop's batches from", "ours, ms", "plain, ms", "ratio", "in CPU time"],
        note=(
            f"`train(settings)` on the digits, batches of 64, all default callbacks but CKA, beside"
            f" a hand-written loop of the same model, optimizer, clipping, schedule and data;"
            f" one thread, {rounds} epochs of each in turn, medians."
        ),
    )
    for logger in ("csv", "wandb", *(["mlflow"] if use_mlflow() else [])):
        seconds = measure(logger, rounds)
        for opponent in (PLAIN, SAME):
            wall, cpu = (_ratio(seconds, opponent, which) for which in (0, 1))
            ours, plain = (_median_ms(seconds[name]) for name in ("ours", opponent))
            table.add(logger, opponent, f"{ours:.1f}", f"{plain:.1f}", f"{wall:.3f}", f"{cpu:.3f}")
            if opponent == PLAIN:
                table.goals.append(Goal(f"step time with logger={logger}", wall, LIMIT))
    return table


def use_mlflow() -> bool:
    """Return whether MLflow can be imported; ``make .venv-extras`` puts it beside the rest."""
    beside = Path(__file__).resolve().parents[1] / ".venv-extras"
    if beside.is_dir() and str(beside) not in sys.path:
        sys.path.append(str(beside))
    return importlib.util.find_spec("mlflow") is not None


Times = dict[str, list[tuple[float, float]]]
"""Of each loop, for each round: wall-clock and CPU seconds a step."""


def _ratio(seconds: Times, opponent: str, which: int) -> float:
    pairs = zip(seconds["ours"], seconds[opponent], strict=True)
    return statistics.median(ours[which] / plain[which] for ours, plain in pairs)


def _median_ms(times: list[tuple[float, float]]) -> float:
    return 1000 * statistics.median(wall for wall, _ in times)


def measure(logger: str, rounds: int) -> Times:
    """Train one trial whose epochs take turns with those of the plain loops."""
    import torch

    import trainer
    from mlmodeldev.callbacks import stack
    from mlmodeldev.settings.composition import compose_settings

    torch.set_num_threads(1)
    make = stack.make_callbacks
    with tempfile.TemporaryDirectory() as folder:
        settings = compose_settings(
            [
                f"logger={logger}",
                f"training.max_epochs={rounds + 1}",
                "training.test=false",
                "callbacks.cka.enabled=false",
                f"artefacts.runs_dir={folder}/runs",
                f"artefacts.data_dir={folder}/data",
                *(["logger.wandb.mode=offline"] if logger == "wandb" else []),
            ]
        )
        turns = _turns(settings)
        with mock.patch.object(stack, "make_callbacks", lambda *a: [turns, *make(*a)]):
            trainer.train(settings)
    return {name: times[1:] for name, times in turns.seconds.items()}  # the first one warms up


def _turns(settings: Any) -> Any:
    """Return a callback that times our epochs and runs an epoch of each plain loop after each."""
    from pytorch_lightning import Callback, LightningModule, Trainer

    class Turns(Callback):
        def __init__(self) -> None:
            self.seconds: Times = {name: [] for name in ("ours", PLAIN, SAME)}
            self.begun = (0.0, 0.0)

        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self.loops = {
                PLAIN: PlainLoop(settings, trainer, _plain_loader(trainer)),
                SAME: PlainLoop(settings, trainer, _our_loader(trainer)),
            }

        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self.begun = _now()

        def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self.seconds["ours"].append(_since(self.begun, int(trainer.num_training_batches)))

        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            # the order alternates, so that none always comes right after the other
            order = [PLAIN, SAME] if trainer.current_epoch % 2 else [SAME, PLAIN]
            for name in order:
                self.seconds[name].append(self.loops[name].epoch())

    return Turns()


class PlainLoop:
    """What a researcher writes without a framework."""

    def __init__(self, settings: Any, trainer: Any, loader: Iterable[Any]) -> None:
        import torch

        from mlmodeldev.training import build
        from mlmodeldev.training.optimizer import schedule
        from model import contrastive_loss

        self.loader, self.loss = loader, contrastive_loss
        self.clip = settings.training.gradient_clip_val
        state = torch.get_rng_state()
        self.model = build.model(settings, trainer.datamodule).train()
        torch.set_rng_state(state)
        optimizer = settings.optimizer
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=optimizer.lr,
            weight_decay=optimizer.weight_decay,
            fused=True,
        )
        steps = int(trainer.estimated_stepping_batches)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, schedule(optimizer, steps)
        )

    def epoch(self) -> tuple[float, float]:
        """Train for an epoch as fast as torch goes; return wall-clock and CPU seconds a step."""
        import torch

        deterministic = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(False)
        begun, steps = _now(), 0
        for batch in self.loader:
            self._step(batch)
            steps += 1
        taken = _since(begun, steps)
        torch.use_deterministic_algorithms(deterministic)
        return taken

    def _step(self, batch: Any) -> None:
        import torch

        images, texts = self.model(batch)
        loss = self.loss(images, texts, self.model.logit_scale.exp(), batch["label"])
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.schedule.step()


def _plain_loader(trainer: Any) -> Iterable[Any]:
    """Return torch's own loader over the same examples, one `__getitem__` for each."""
    import random

    from torch.nn.functional import pad
    from torch.utils.data import DataLoader, Dataset

    kept = trainer.datamodule.train_set
    images, labels, prompts = kept.images[kept.index], kept.labels[kept.index], kept.prompts

    class Plain(Dataset[Any]):
        def __len__(self) -> int:
            return len(labels)

        def __getitem__(self, index: int) -> Any:
            label, phrasing = int(labels[index]), random.randrange(5)
            down, right = random.choices((0, 1, 2), (1, 6, 1), k=2)
            image = pad(images[index], (1, 1, 1, 1), mode="replicate")
            return {
                "image": image[:, down : down + 8, right : right + 8],
                "label": label,
                **{name: tokens[label, phrasing] for name, tokens in prompts.items()},
            }

    size = trainer.datamodule.processing.batch_size
    return DataLoader(Plain(), batch_size=size, shuffle=True, drop_last=True)


def _our_loader(trainer: Any) -> Iterable[Any]:
    """Return our loader over whole epochs (the trial's own goes on from where training stands)."""
    from mlmodeldev.data.loader import ExactLoader, Position

    data = trainer.datamodule
    return ExactLoader(
        data.train_set,
        batch_size=data.processing.batch_size,
        seed=data.seed,
        shuffle=True,
        drop_last=True,
        progress=lambda: Position(trainer.current_epoch, 0),
    )


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(begun: tuple[float, float], steps: int) -> tuple[float, float]:
    now = _now()
    return (now[0] - begun[0]) / steps, (now[1] - begun[1]) / steps


if __name__ == "__main__":
    print(run().text())
