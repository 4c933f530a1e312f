"""Train one module of another's wheel: to the end, killed and resumed, swept, loaded again.

    python -m benchmarks.public_modules.trials NAME PROJECT    # writes PROJECT/outcomes/NAME.json

Each trial is a fork of this process, which has imported the module once, as kill -9 comes five
times; the model is loaded again by a process that has nothing of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

LIST = Path(__file__).with_name("modules.yaml")
EPOCHS = 3
PLACES = {
    "first batches": ("on_train_batch_end", 0, 1),
    "middle of an epoch": ("on_train_batch_end", 1, 2),
    "after validation": ("on_validation_end", 1, None),
    "end of an epoch": ("on_train_epoch_end", 1, None),
    "last batches": ("on_train_batch_end", 2, 3),
}
"""Where a trial dies: hook, epoch, batch."""
RELOAD = """
import sys, mlmodeldev
from benchmarks.public_modules.trials import digest, weights
from pathlib import Path
trial = Path(sys.argv[1])
same = digest(mlmodeldev.load(trial / "last").state_dict()) == digest(weights(trial))
print("same" if same else "other")
"""


def modules() -> dict[str, dict[str, Any]]:
    """Return the list of modules by name."""
    listed: dict[str, dict[str, Any]] = yaml.safe_load(LIST.read_text())
    return listed


def digest(state: dict[str, Any]) -> str:
    """Return a hash of all weights and buffers, bit for bit."""
    result = hashlib.sha256()
    for name, value in sorted(state.items()):
        result.update(name.encode())
        content = value.detach().cpu().numpy().tobytes() if hasattr(value, "numpy") else value
        result.update(content if isinstance(content, bytes) else repr(content).encode())
    return result.hexdigest()


def weights(trial: Path) -> dict[str, Any]:
    """Return the weights of a trial's newest checkpoint."""
    import torch

    newest = max((trial / "checkpoints").glob("step-*.ckpt"))
    state = torch.load(newest, map_location="cpu", weights_only=False)
    matching: dict[str, Any] = state["state_dict"]
    return matching


class Check:
    """One module in one project.

    Args:
        name: in the list.
        project: its folder; the working directory.
    """

    def __init__(self, name: str, project: Path) -> None:
        self.name, self.project, self.entry = name, project, modules()[name]
        self.runs = project / "runs" / name
        for group in ("model", "data"):
            file = project / "conf" / group / f"{name}.yaml"
            file.write_text(yaml.safe_dump(self.entry[group], sort_keys=False))

    def overrides(self) -> list[str]:
        """Return the settings of all trials of this module."""
        monitor = self.entry["monitor"]
        mode = "min" if monitor and "loss" in monitor else "max"
        watched = [f"training.monitor={monitor}", f"training.mode={mode}"] if monitor else []
        return [
            f"model={self.name}",
            f"data={self.name}",
            "logger=csv",
            f"training.max_epochs={EPOCHS}",
            *watched,
            *self.entry.get("settings", []),
        ]

    def run(self) -> None:
        """Write what comes of it, as far as it is known, into ``outcomes/``."""
        for folder in (self.runs, self.runs.with_name(f"{self.name}-sweep")):
            shutil.rmtree(folder, ignore_errors=True)  # of an earlier check
        layers = json.dumps(self.entry.get("cka"))
        compare = f"+callbacks.cka.compare.drift={{a: {layers}, against: start}}"
        status, text = self._trial("whole", [compare] if "cka" in self.entry else [])
        outcome: dict[str, Any] = {"trained": status == 0, "notes": _notes(text)}
        if status:
            self._write({**outcome, "error": text[-3000:]})
            return
        outcome["cka"] = self._layers()
        outcome["resumed"], outcome["places"] = self._killed()
        self._write(outcome)
        outcome["reloaded"] = self._reloaded()
        self._write(outcome)
        outcome["swept"] = self._swept()
        self._write(outcome)

    def _write(self, outcome: dict[str, Any]) -> None:
        folder = self.project / "outcomes"
        folder.mkdir(exist_ok=True)
        (folder / f"{self.name}.json").write_text(json.dumps(outcome, indent=1))

    def _trial(
        self, trial: str, more: list[str], place: tuple[str, int, int | None] | None = None
    ) -> tuple[int, str]:
        names = [f"artefacts.sweep={self.name}", f"artefacts.trial={trial}"]
        printed = self.project / f"{self.name}.{trial}.txt"
        return _forked(printed, lambda: _train([*self.overrides(), *names, *more], place))

    def _layers(self) -> str:
        import numpy as np

        files = sorted((self.runs / "whole" / "cka" / "drift").glob("*.npz"))
        if not files:
            return "no validation"
        with np.load(files[-1], allow_pickle=False) as content:
            matrix = next(content[k] for k in content.files if content[k].ndim == 2)
        return f"{np.isfinite(np.diagonal(matrix)).sum()} layers"

    def _killed(self) -> tuple[str, dict[str, str]]:
        whole = digest(weights(self.runs / "whole"))
        places, same = {}, 0
        for number, (name, place) in enumerate(PLACES.items()):
            trial = f"killed-{number}"
            validates = self.entry["monitor"] is not None or place[0] != "on_validation_end"
            where = place if validates else ("on_train_batch_start", 2, 0)
            status, text = self._trial(trial, ["callbacks.cka.enabled=false"], where)
            if status != -signal.SIGKILL:
                places[name] = f"not killed: {status} {text[-600:]}"
                continue
            status, text = self._trial(trial, ["callbacks.cka.enabled=false"])
            if status:
                places[name] = f"status {status}: {text[-1500:]}"
            elif digest(weights(self.runs / trial)) != whole:
                places[name] = f"other weights; said: {_notes(text)}"
            else:
                same += 1
        return f"{same}/{len(PLACES)}", places

    def _reloaded(self) -> str:
        done = _python("-c", RELOAD, str(self.runs / "whole"))
        return "equal" if done.stdout.strip().endswith("same") else f"no: {done.stderr[-800:]}"

    def _swept(self) -> str:
        parameters = dict(text.split("=", 1) for text in self.overrides())
        fixed = {name: {"value": yaml.safe_load(value)} for name, value in parameters.items()}
        fixed["training.max_epochs"] = {"value": 1}
        sweep: dict[str, Any] = {
            "name": f"{self.name}-sweep",
            "program": "trainer.py",
            "method": "grid",
            "parameters": {**fixed, "training.seed": {"values": [0, 1]}},
            "command": ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"],
        }
        if self.entry["monitor"]:
            goal = "minimize" if parameters["training.mode"] == "min" else "maximize"
            sweep["metric"] = {"name": self.entry["monitor"], "goal": goal}
        file = self.project / "sweep" / f"{self.name}.yaml"
        file.write_text(yaml.safe_dump(sweep, sort_keys=False))
        done = _python("slurm/SlurmTrain.py", "--sweep", str(file), "--yes")
        records = sorted((self.project / "runs" / sweep["name"]).glob("*/trial.json"))
        states = [json.loads(record.read_text())["state"] for record in records]
        if states == ["done", "done"]:
            return "2/2"
        return f"{states}: {(done.stdout + done.stderr)[-1500:]}"


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=300, check=False
    )


def _forked(printed: Path, function: Callable[[], int]) -> tuple[int, str]:
    """Call a function in a fork; return its exit status, or minus its signal, and its output."""
    process = os.fork()
    if not process:
        file = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os._exit(_status(function))
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), printed.read_text()


def _status(function: Callable[[], int]) -> int:
    import traceback

    status = 1
    try:
        status = function()
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _train(overrides: list[str], place: tuple[str, int, int | None] | None) -> int:
    from pytorch_lightning import Trainer

    import trainer
    from mlmodeldev.errors import UsageError
    from mlmodeldev.settings.composition import compose_settings

    if place is not None:
        fit, killer = Trainer.fit, _killer(*place)

        def dying(self: Any, *args: Any, **kwargs: Any) -> None:
            if self.max_epochs == EPOCHS:  # the rehearsal goes through one
                self.callbacks.append(killer)
            fit(self, *args, **kwargs)

        Trainer.fit = dying  # type: ignore[method-assign]
    try:
        return int(trainer.train(compose_settings(overrides)).state != "done")
    except UsageError as error:
        print(error)
        return 2


def _killer(hook: str, epoch: int, batch: int | None) -> Any:
    from pytorch_lightning import Callback

    def die(trainer: Any, module: Any, *args: Any) -> None:
        right = batch is None or args[-1] == batch
        if trainer.current_epoch == epoch and right and not trainer.sanity_checking:
            os.kill(os.getpid(), signal.SIGKILL)

    return type("Killer", (Callback,), {hook: lambda self, *args: die(*args)})()


def _notes(text: str) -> list[str]:
    words = ("resume", "exact", "warning", "unused")
    return [line.strip() for line in text.splitlines() if any(word in line for word in words)][:6]


def main(name: str, project: str) -> None:
    """Check a module; write the outcome as JSON."""
    os.chdir(project)
    sys.path.insert(0, project)
    os.environ.update(WANDB_MODE="offline", MLMODELDEV_CLUSTER="local", OMP_NUM_THREADS="1")
    import torch
    from hydra.utils import get_class

    from mlmodeldev.settings.lightning_names import accept_both_names

    torch.set_num_threads(1)
    accept_both_names()
    check = Check(name, Path(project))
    get_class(check.entry["model"]["_target_"])
    check.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
