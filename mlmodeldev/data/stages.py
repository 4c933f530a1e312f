"""The stages prepare, train and evaluate, for ``dvc repro`` and ``dvc exp run``.

Example::

    write_stages(project_root())       # dvc.yaml, conf/experiment/stages.yaml
"""

from __future__ import annotations

from pathlib import Path

from mlmodeldev.atomic import write_text, writing_to
from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.trial.code import code_digests

_SETTINGS = Path("conf") / "experiment" / "stages.yaml"
_PROGRAM = "trainer.py"

_STAGES = """\
# The stages of `dvc repro`, which runs those that something has changed for. All that differs
# between experiments is in {settings}: edit it, or
#   dvc exp run -S '{settings}:optimizer.lr=0.01'
stages:
  prepare:
    cmd: python -m mlmodeldev trial prepare experiment=stages --digests runs/stages/data.json
    deps:
{data}
    params:
      - {settings}:
          - data
    outs:
      - runs/stages/data.json
  train:
    cmd: python trainer.py experiment=stages artefacts.runs_dir=runs artefacts.sweep=stages
      artefacts.trial=trial
    deps:
      - runs/stages/data.json
      - conf
{code}
    params:
      - {settings}:
    outs:
      - runs/stages/trial
  evaluate:
    cmd: python -m mlmodeldev trial evaluate runs/stages/trial --metrics runs/stages/metrics.json
    deps:
      - runs/stages/trial
{code}
    metrics:
      - runs/stages/metrics.json

plots:
  - runs/stages/trial/log.json:
      x: epoch
      y: [{curves}]
  - runs/stages/trial/metrics.csv:
      x: step
      y: [train/loss]
"""

_EXPERIMENT = """\
# @package _global_
# What the stages of dvc.yaml are run with; python trainer.py experiment=stages is the same by hand.
data:
{data}
optimizer:
  lr: {rate}
training:
  max_epochs: {epochs}
  seed: {seed}
processing:
  batch_size: {batch}
"""


def write_stages(root: Path) -> list[Path]:
    """Write ``dvc.yaml`` and the settings of its stages; return their paths below the project.

    The stages depend on the files that the project's default model and data are made of.

    Args:
        root: the project's folder.

    Raises:
        UsageError: one of the files is there, or the project's settings are wrong.
    """
    for name in (Path("dvc.yaml"), _SETTINGS):
        if (root / name).exists():
            raise UsageError(f"{name}: is there already; nothing was written")
    settings = compose_settings([])
    code = list(code_digests(settings.model_dump(), root))
    module = [f for f in code if f != _PROGRAM and _is_of(settings.data["_target_"], f)]
    folder = ["conf/data"] if (root / "conf" / "data").is_dir() else []
    curves = ["train/loss", settings.training.monitor or "val/loss"]
    values = {k: v for k, v in settings.data.items() if k != "_target_" and _is_plain(v)}
    experiment = _EXPERIMENT.format(
        data="\n".join(f"  {k}: {_text(v)}" for k, v in values.items()) or "  {}",
        rate=_text(settings.optimizer.lr),
        epochs=settings.training.max_epochs,
        seed=settings.training.seed,
        batch=settings.processing.batch_size,
    )
    stages = _STAGES.format(
        settings=_SETTINGS.as_posix(),
        data=_items([*folder, *(module or [_PROGRAM])]),
        code=_items(code),
        curves=", ".join(dict.fromkeys(curves)),
    )
    with writing_to(root / _SETTINGS):
        (root / _SETTINGS).parent.mkdir(parents=True, exist_ok=True)
    write_text(root / _SETTINGS, experiment)
    write_text(root / "dvc.yaml", stages)
    return [Path("dvc.yaml"), _SETTINGS]


def _is_of(target: str, file: str) -> bool:
    module = target.rpartition(".")[0].replace(".", "/")
    return file.endswith((f"{module}.py", f"{module}/__init__.py"))


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _text(value: object) -> str:
    import yaml

    text: str = yaml.safe_dump(value).removesuffix("...\n").strip()
    return text


def _items(names: list[str]) -> str:
    return "\n".join(f"      - {name}" for name in names)
