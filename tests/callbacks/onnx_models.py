"""Small models for the tests of ONNX, and what these run in processes that have its packages."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ROOT / ".venv-extras"


def use_onnx() -> None:
    """Let this process import the optional packages, behind those of the environment."""
    if str(PACKAGES) not in sys.path:
        sys.path.append(str(PACKAGES))


def without_onnxscript() -> None:
    """Take one of the packages away."""
    use_onnx()
    sys.modules["onnxscript"] = None  # type: ignore[assignment]


class FromDict(LightningModule):
    """Reads one entry of a mapping and returns several, of which one has no row an example.

    Args:
        width: of the hidden layer.
        others: the settings of the model in whose place this is chosen.
    """

    def __init__(self, width: int = 4, **others: Any) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, width), nn.Linear(width, 10)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        hidden = torch.tanh(self.body(batch["image"].flatten(1)))
        return {"logits": self.head(hidden), "hidden": hidden, "loss": hidden.square().mean()}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch)["logits"], batch["label"])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        right = self(batch)["logits"].argmax(-1) == batch["label"]
        self.log("val/accuracy", right.float().mean())


class Eigenvalues(FromDict):
    """Has an operator that ONNX lacks."""

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        made = super().forward(batch)
        square = batch["image"].flatten(2).reshape(-1, 8, 8)
        return {**made, "values": torch.linalg.eigh(square @ square.mT)[0]}


class Branches(LightningModule):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


class OfThree(LightningModule):
    def forward(self, x: Tensor) -> Tensor:
        return x * 3 if len(x) == 3 else x * 2


class Draws(LightningModule):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Nothing(LightningModule):
    pass


class Tuples(LightningModule):
    """Takes a tuple and a number, returns nested values; a buffer counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 8), nn.BatchNorm1d(8)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, pair: tuple[Tensor, Tensor], scale: float) -> Any:
        self.calls += 1
        steps = self.layer(pair[0]).cumsum(1)
        return steps, (self.norm(steps[:, -1]) * scale, pair[1] + 1)


class Tokens(LightningModule):
    """Tokens with a mask by name, of any number up to twelve."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(9, 8), nn.Parameter(torch.randn(12, 8))

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        layers = self.embedding(ids) + self.places[: ids.shape[1]]
        weights = layers @ layers.mT
        if mask is not None:
            weights = weights.masked_fill(mask[:, None], float("-inf"))
        return weights.softmax(-1) @ layers


class InHalf(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2).bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def calls() -> dict[str, tuple[LightningModule, tuple[Any, ...], dict[str, Any]]]:
    """Models, and how their forward is called on seven examples."""
    torch.manual_seed(0)
    x = torch.randn(7, 3, 4)
    image = {"image": torch.randn(7, 1, 8, 8), "label": torch.arange(7)}
    ids, mask = torch.randint(0, 9, (7, 6)), torch.zeros(7, 6, dtype=torch.bool)
    return {
        "dict": (FromDict(), (image,), {}),
        "tuples": (Tuples(), ((x, torch.arange(7)), 0.5), {}),
        "tokens": (Tokens(), (ids,), {"mask": mask}),
        "half": (InHalf(), (x.bfloat16(),), {}),
        "operator": (Eigenvalues(), (image,), {}),
        "branches": (Branches(), (x,), {}),
        "of three": (OfThree(), (x,), {}),
        "draws": (Draws(), (x,), {}),
        "nothing": (Nothing(), (x,), {}),
    }


def write_all(place: str) -> None:
    """Write each model as ONNX; note what came of it, and whether the model was left alone."""
    use_onnx()
    torch.set_num_threads(1)
    from mlmodeldev.callbacks.example_inputs import Call
    from mlmodeldev.callbacks.onnx_check import CannotExport
    from mlmodeldev.callbacks.onnx_file import write_onnx

    results: dict[str, Any] = {}
    for name, (module, args, kwargs) in calls().items():
        file = Path(place) / f"{name}.onnx"
        before = {key: value.clone() for key, value in module.state_dict().items()}
        try:
            results[name] = write_onnx(module, Call(module, args, kwargs), file)
        except CannotExport as error:
            results[name] = {"failed": str(error)}
        after = module.state_dict()
        results[name]["unchanged"] = all(torch.equal(before[k], after[k]) for k in before)
        results[name]["training"] = module.training
    again = Path(place) / "again.onnx"
    module, args, kwargs = calls()["dict"]
    write_onnx(module, Call(module, args, kwargs), again)
    results["tokens"]["differences"] = _token_differences(Path(place) / "tokens.onnx")
    (Path(place) / "results.json").write_text(json.dumps(results))


def _token_differences(file: Path) -> list[float]:
    """Compare on batches that the writer has not seen."""
    import onnxruntime

    module = calls()["tokens"][0].eval()
    session = onnxruntime.InferenceSession(file)
    answers = []
    for count, length in ((2, 6), (9, 11), (1, 2)):
        ids, mask = torch.randint(0, 9, (count, length)), torch.zeros(count, length).bool()
        mask[:, -1] = True
        (given,) = session.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})
        with torch.no_grad():
            answers.append(float((module(ids, mask) - torch.from_numpy(given)).abs().max()))
    return answers


def compare_trial(folder: str, answer: str) -> None:
    """Compare a trial's model.onnx with its loaded model, on batches of its own data's shape."""
    use_onnx()
    import onnxruntime

    import mlmodeldev

    answers = {}
    for name in ("best", "last"):
        model = mlmodeldev.load(f"{folder}/{name}")
        session = onnxruntime.InferenceSession(f"{folder}/{name}/model.onnx")
        names = [each.name for each in session.get_inputs()]
        for count in (2, 11):
            batch = {
                "image": torch.randn(count, 1, 8, 8),
                "input_ids": torch.randint(0, 20, (count, 5)),
                "attention_mask": torch.ones(count, 5).long(),
            }
            given = session.run(None, {each: batch[each].numpy() for each in names})
            with torch.no_grad():
                made = model(batch)
            wanted = made.values() if isinstance(made, dict) else made
            pairs = zip(wanted, given, strict=False)
            differences = [float((w - torch.from_numpy(g)).abs().max()) for w, g in pairs]
            answers[f"{name} {count}"] = {"inputs": names, "differences": differences}
    Path(answer).write_text(json.dumps(answers))


def run_export(*arguments: str) -> None:
    """Call ``mlmodeldev trial export``; an exit status that is not 0 is the process's."""
    use_onnx()
    torch.set_num_threads(1)
    from mlmodeldev.slurm.trial_command import main

    status = main(["export", *arguments])
    sys.stdout.flush()
    sys.stderr.flush()
    if status:
        os._exit(status)


def run_card(folder: str) -> None:
    """Run the lines that a model card gives for ONNX."""
    use_onnx()
    card = Path(folder, "README.md").read_text()
    lines = card.partition("## ONNX")[2].partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(lines.replace("path/of/this/folder", folder), names)
    print([each.shape for each in names["outputs"]])


def run_documented_lines(folder: str) -> None:
    """Run what docs/export.md says of onnxruntime."""
    use_onnx()
    text = (ROOT / "docs" / "export.md").read_text()
    lines = text.partition("## ONNX")[2].partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(lines.replace("runs/single/first", folder), names)
    print(names["images"].shape, names["texts"].shape)


def dying_in_the_second_file() -> None:
    """Kill the process when half of the second model.onnx is written."""
    use_onnx()
    from torch.onnx import ONNXProgram

    save, written = ONNXProgram.save, []

    def dies(self: Any, destination: Any, **options: Any) -> None:
        written.append(destination)
        save(self, destination, **options)
        if len(written) == 2:
            with Path(destination).open("r+b") as file:
                file.truncate(100)
            os.kill(os.getpid(), signal.SIGKILL)

    ONNXProgram.save = dies  # type: ignore[method-assign]
