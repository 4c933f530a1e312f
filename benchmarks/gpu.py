"""What a GPU is used for: bf16 and compiled steps, several trials at once on it, CKA.

    python -m benchmarks gpu          # where there is CUDA; elsewhere it says that there is none

Throughput is of a transformer of 12 layers, 768 wide, on 64 sequences of 128 tokens: Lightning's
Trainer with the callbacks that look at each of our steps, beside the same step written by hand.
Packed trials are short ones of the digits, by `run_pool` with one slot and with four.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.table import Goal, Table

ROOT = Path(__file__).resolve().parents[1]
STEPS, ROUNDS, FIRST_STEPS = 20, 7, 5
SLOTS, TRIALS = 4, 8
NO_GPU = "No GPU was lent to the machine that this was last run on: nothing is measured."
QUICK = ("logger=csv", "callbacks.cka.enabled=false", "training.max_epochs=3")


def run() -> Table:
    """Measure, where there is a GPU."""
    import torch

    columns = ["what", "figure", "spread", "ours as a ratio"]
    if not torch.cuda.is_available():
        return Table("GPU", columns, note=NO_GPU)
    table = Table("GPU", columns, note=f"Medians of {ROUNDS} rounds in turn; spread: middle half.")
    _throughput(table)
    _packed(table)
    _cka(table)
    return table


def _throughput(table: Table) -> None:
    """Add examples a second in fp32 and bf16, plain and compiled, by hand and by a Trainer."""
    ways = {
        f"{kind}, {precision}{', compiled' if compiled else ''}": make(precision, compiled)
        for precision in ("32-true", "bf16-mixed")
        for compiled in (False, True)
        for kind, make in (("loop", plain_step), ("Trainer", trainer_steps))
    }
    for epoch in ways.values():
        epoch(FIRST_STEPS)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, epoch in ways.items():
            rates[name].append(BATCH * STEPS / epoch(STEPS))
    for name, values in rates.items():
        low, middle, high = statistics.quantiles(values, n=4)
        own, ratio = name.startswith("Trainer"), ""
        if own:
            beside = rates[name.replace("Trainer", "loop")]
            share = statistics.median(a / b for a, b in zip(values, beside, strict=True))
            ratio = f"{share:.3f}"
            table.goals.append(Goal(f"time of {name} beside the loop", 1 / share, 1.05))
        table.add(f"{name}, examples/s", f"{middle:.0f}", f"{low:.0f}–{high:.0f}", ratio)


BATCH, LENGTH, WIDTH, LAYERS, WORDS = 64, 128, 768, 12, 8192


def _module() -> Any:
    from torch import nn

    layer = nn.TransformerEncoderLayer(WIDTH, 12, 4 * WIDTH, 0.0, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
    return nn.Sequential(nn.Embedding(WORDS, WIDTH), encoder, nn.Linear(WIDTH, WORDS))


def _loss(module: Any, tokens: Any) -> Any:
    from torch.nn.functional import cross_entropy

    return cross_entropy(module(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def plain_step(precision: str, compiled: bool) -> Callable[[int], float]:
    """Return what trains so many steps by hand, and the seconds that it takes."""
    import torch

    module = _module().cuda()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    forward = torch.compile(module) if compiled else module
    tokens = torch.randint(0, WORDS, (BATCH, LENGTH), device="cuda")

    def train(steps: int) -> float:
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(steps):
            with torch.autocast("cuda", torch.bfloat16, enabled=precision.startswith("bf16")):
                loss = _loss(forward, tokens)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
        torch.cuda.synchronize()
        return time.perf_counter() - begun

    return train


def trainer_steps(precision: str, compiled: bool) -> Callable[[int], float]:
    """Return the same with the callbacks that each trial has, by Lightning's Trainer."""
    import torch
    from pytorch_lightning import LightningModule, Trainer

    from mlmodeldev.callbacks.nonfinite import NonFinite
    from mlmodeldev.callbacks.seed_steps import SeedSteps
    from mlmodeldev.callbacks.throughput import Throughput

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.inner = _module()
            if compiled:
                self.inner.compile()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = _loss(self.inner, batch)
            self.log("train/loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-4, fused=True)

    module = Module()
    tokens = torch.randint(0, WORDS, (BATCH, LENGTH))

    def train(steps: int) -> float:
        callbacks = [NonFinite("raise"), SeedSteps(0), Throughput(BATCH)]
        trainer = Trainer(
            accelerator="gpu", devices=1, precision=precision, max_steps=steps, logger=False,  # type: ignore[arg-type]
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            gradient_clip_val=1.0 if precision == "32-true" else None, callbacks=callbacks,
        )  # fmt: skip
        torch.cuda.synchronize()
        begun = time.perf_counter()
        trainer.fit(module, [tokens] * steps)
        torch.cuda.synchronize()
        return time.perf_counter() - begun

    return train


def _packed(table: Table) -> None:
    """Add trials an hour: one after the other, and four at once on the one GPU."""
    hours = {slots: _trials_an_hour(slots) for slots in (1, SLOTS)}
    table.add("trials an hour, one at a time", f"{hours[1]:.0f}", "", "")
    gain = f"{hours[SLOTS] / hours[1]:.2f}"
    table.add(f"trials an hour, {SLOTS} at once", f"{hours[SLOTS]:.0f}", "", gain)


def _trials_an_hour(slots: int) -> float:
    from mlmodeldev.trial.pool import run_pool
    from mlmodeldev.trial.task import ListSource, TrialTask

    with tempfile.TemporaryDirectory() as base:
        tasks = []
        for number in range(TRIALS):
            where = [f"artefacts.runs_dir={base}/runs", f"artefacts.data_dir={base}/data"]
            own = [f"artefacts.trial=t{number}", f"optimizer.lr=0.00{number + 1}"]
            folder = Path(base, "runs", "single", f"t{number}")
            tasks.append(TrialTask(f"t{number}", folder, [*QUICK, *where, *own], "trainer"))
        begun = time.perf_counter()
        status = run_pool(ListSource(tasks), slots, ["trainer", "model", "datamodule"], ROOT)
        assert status == 0, status
        return TRIALS * 3600 / (time.perf_counter() - begun)


def _cka(table: Table) -> None:
    """Add the Gram products of CKA beside the bare product on this GPU."""
    import torch

    features = [torch.randn(256, 25_000, device="cuda") for _ in range(16)]

    def products() -> None:
        for each in features:
            each @ each.T

    def matrix() -> None:
        from mlmodeldev.alignment.hsic import gram

        for each in features:
            gram(each)

    seconds = {name: _seconds(call) for name, call in (("floor", products), ("ours", matrix))}
    ratio = f"{seconds['ours'] / seconds['floor']:.2f}"
    table.add("CKA's 16 Grams of 256 x 25,000, ms", f"{1000 * seconds['ours']:.1f}", "", ratio)


def _seconds(call: Callable[[], None]) -> float:
    import torch

    taken = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        call()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


if __name__ == "__main__":
    print(run().text())
