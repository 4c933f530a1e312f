"""``training.init_from``: a trial that begins with weights from elsewhere, and nothing but these.

A source is looked for in this order: a trial (its best weights), a folder that `Export` has
written, a file of weights, and what transformers loads: a folder, or a name of the Hub. A further
kind gets its place in `read_source`, and in `check_source` what can be refused at once.

Example::

    check_source(settings)                          # before anything heavy is imported
    initialise(model, settings, folder, world)      # and says what fits and what does not
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import NothingBegun, UsageError, nearest
from mlmodeldev.fetch.reach import is_reachable
from mlmodeldev.lease import owned
from mlmodeldev.tracking.registry import SCHEME, model_folder
from mlmodeldev.training.parent import file_digest
from mlmodeldev.trial.checkpoint import newest_whole
from mlmodeldev.trial.named import every_trial, trial_folder, trials_named
from mlmodeldev.trial.record import read_record

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule
    from torch import Tensor

    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.training.ranks import World
    from mlmodeldev.training.weights_fit import WeightsFit
    from mlmodeldev.trial.folder import TrialFolder

STATE = "training_state.json"
FILES = (".ckpt", ".pt", ".safetensors")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)
_NAMED = 3
"""Names of weights in a line at most; the record has all."""
_SECONDS = 5.0
"""How long a connection to the Hub is waited for."""


@dataclass(frozen=True)
class Source:
    """Weights by name, and where they are from, as the record has it."""

    weights: Mapping[str, Tensor]
    origin: dict[str, Any] = field(default_factory=dict)


def check_source(settings: Settings) -> None:
    """Refuse at once a ``training.init_from`` that can't be anything.

    Raises:
        UsageError: no such file, folder or trial, and no name of the Hub; a trial that runs; or a
            file that can't be read.
    """
    name = settings.training.init_from
    if name is None:
        return
    given = f"training.init_from={name}"
    runs = Path(settings.artefacts.runs_dir).expanduser()
    named = trials_named(name, runs)
    if any(owned(read_record(folder)) for folder in named):
        raise UsageError(f"{given}: that trial is running; wait for its end")
    try:
        path = _path(name, runs)
    except UsageError as error:
        raise UsageError(f"{given}: {error}") from None
    if named or path.is_dir():
        _check_file(given, _file_of_trial(named[0]) if len(named) == 1 else None)
        return
    if path.is_file() and path.suffix not in FILES:
        raise UsageError(f"{given}: must be a trial, a folder, or a file {', '.join(FILES)}")
    if not path.is_file() and (path.suffix in FILES or not _HUB_NAME.fullmatch(name)):
        raise UsageError(f"{given}: no such file, folder or trial")
    if path.is_file():
        _check_file(given, path)
    else:
        _check_hub(given, name, runs)


def _check_file(given: str, path: Path | None) -> None:
    if path is None:
        return
    from mlmodeldev.trial.checkpoint_values import check_weights

    try:
        check_weights(path)
    except UsageError as error:
        raise UsageError(f"{given}: {error}") from None


def _check_hub(given: str, name: str, runs: Path) -> None:
    """Refuse a name that lies in no cache, where there is no Hub: its client tries for long."""
    from huggingface_hub import constants, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    if constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE is set"
    elif is_reachable(constants.ENDPOINT, "HF_ENDPOINT", _SECONDS):
        return
    else:
        reason = f"{constants.ENDPOINT} can't be reached"
    trials = [folder.name for folder in every_trial(runs)]
    raise UsageError(
        f"{given}: no such file, folder or trial, nor in the Hub's cache, and {reason}"
        f"{nearest(name, trials)}"
    )


def initialise(
    model: LightningModule, settings: Settings, folder: TrialFolder, world: World
) -> None:
    """Put the weights into the model as far as they fit, and say and record how far that is.

    Raises:
        UsageError: there are none, none fits, or one does not and ``training.init_strict`` is set.
    """
    from pytorch_lightning.utilities.model_helpers import is_overridden

    from mlmodeldev.training.weights_fit import fit_weights

    name = settings.training.init_from
    assert name is not None
    if is_overridden("configure_model", model):
        model.configure_model()  # Lightning asks of it that it may be called again
    try:
        source = read_source(name, Path(settings.artefacts.runs_dir).expanduser())
    except UsageError as error:
        raise UsageError(f"training.init_from={name}: {error}") from None
    fit = fit_weights(model.state_dict(), source.weights)
    _check(name, model, source, fit, settings.training.init_strict)
    model.load_state_dict(fit.weights, strict=False)
    if world.is_rank_zero:
        print(f"init_from {name}: {_summary(fit)}", flush=True)
        folder.update(parent={**source.origin, "weights": _recorded(fit)})


def read_source(name: str, runs: Path) -> Source:
    """Return the weights that a name stands for.

    Raises:
        UsageError: there are none.
    """
    if trials_named(name, runs):
        return _of_trial(trial_folder(name, runs))
    path = _path(name, runs)
    if path.is_file():
        return _of_file(path)
    if (path / STATE).is_file():
        return _of_export(path)
    return _of_transformers(str(path) if path.is_dir() else name)


def _path(name: str, runs: Path) -> Path:
    """Return a path as given, below the runs folder, or that of a registered model.

    Raises:
        UsageError: no such model is registered.
    """
    if name.startswith(SCHEME):
        return model_folder(name, runs)
    places = [Path(name).expanduser(), runs / name, runs.parent / name]
    return next((place for place in places if place.exists()), places[0])


def _of_trial(folder: Path) -> Source:
    """Return a trial's best weights; its last where nothing has said which are best."""
    if file := _file_of_trial(folder):
        source = _of_file(file)
    elif exported := _exports(folder):
        source = _of_export(exported[0])
    else:
        raise UsageError(f"{folder} has no weights")
    record = read_record(folder)
    trial = {"sweep": folder.parent.name, "trial": folder.name, "folder": str(folder)}
    about = {"metric": record.get("metric"), "sha": record.get("sha")}
    return Source(source.weights, {**source.origin, **trial, **about})


def _file_of_trial(folder: Path) -> Path | None:
    """Return the file with a trial's best weights; None: an export has them, or nothing."""
    best = folder / "checkpoints" / "best.ckpt"
    if best.is_file():
        return best
    return None if _exports(folder) else newest_whole(folder / "checkpoints")


def _exports(folder: Path) -> list[Path]:
    return [folder / name for name in ("best", "last") if (folder / name / STATE).is_file()]


def _of_file(path: Path) -> Source:
    from mlmodeldev.trial.checkpoint_values import read_weights

    digest = file_digest(path)
    return Source(_tensors(read_weights(path)), _origin(str(path.absolute()), sha256=digest))


def _of_export(folder: Path) -> Source:
    from pytorch_lightning.utilities.seed import isolate_rng

    from mlmodeldev.training.load import load

    with isolate_rng():  # making the model draws numbers
        model = load(folder)
    return Source(
        _tensors(model.state_dict()), _origin(str(folder.absolute()), sha256=_digest(folder))
    )


def _of_transformers(name: str) -> Source:
    from mlmodeldev.alignment.loaded_models import read_model

    model, missing = read_model(name, whole=True)
    weights = {n: v for n, v in _tensors(model.state_dict()).items() if n not in missing}
    if Path(name).is_dir():
        return Source(weights, _origin(str(Path(name).absolute()), sha256=_digest(Path(name))))
    return Source(weights, _origin(name, revision=_revision(name)))


def _revision(name: str) -> str | None:
    """Return the commit of a Hub's model that lies in the cache."""
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(name, "config.json")
    return Path(file).parent.name if isinstance(file, str) else None


def _origin(file: str, **version: Any) -> dict[str, Any]:
    return {"how": "init_from", "file": file, **version}


def _tensors(values: Mapping[str, Any]) -> dict[str, Tensor]:
    from torch import Tensor

    return {str(name): value for name, value in values.items() if isinstance(value, Tensor)}


def _digest(folder: Path) -> str:
    """Return one digest of the weights' files in a folder."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (*FILES, ".bin") and file.is_file():
            digest.update(f"{file.relative_to(folder)}\0{file_digest(file)}\0".encode())
    return digest.hexdigest()


# --- what fits


def _check(
    name: str, model: LightningModule, source: Source, fit: WeightsFit, strict: bool
) -> None:
    given, kind = f"training.init_from={name}", type(model).__name__
    if not fit.weights:
        has, wants = _few(list(source.weights)), _few(list(model.state_dict()))
        shapes = "" if not fit.wrong_shape else f"; {_shapes(fit)}"
        raise NothingBegun(
            f"{given}: none of its {len(source.weights)} weights fits {kind}: it has"
            f" {has or 'none'}, the model {wants}{shapes}"
        )
    if strict and not fit.is_whole:
        raise NothingBegun(f"{given}: {_summary(fit)} (training.init_strict=true)")


def _summary(fit: WeightsFit) -> str:
    total = len(fit.weights) + len(fit.missing) + len(fit.wrong_shape)
    old, new = fit.prefix
    parts = [f"{len(fit.weights)} of {total} weights loaded"]
    if old != new:
        parts[0] += f", {old}* as {new}*"
    if fit.missing:
        parts.append(f"not in it, so drawn from the seed: {_few(fit.missing)}")
    if fit.wrong_shape:
        parts.append(f"of another shape, so drawn from the seed: {_shapes(fit)}")
    if fit.unexpected:
        parts.append(f"without a place here: {_few(fit.unexpected)}")
    return "; ".join(parts)


def _recorded(fit: WeightsFit) -> dict[str, Any]:
    shapes = {name: [list(was), list(now)] for name, (was, now) in fit.wrong_shape.items()}
    return {
        "loaded": len(fit.weights),
        "missing": fit.missing,
        "unexpected": fit.unexpected,
        "wrong_shape": shapes,
        "prefix": list(fit.prefix),
    }


def _shapes(fit: WeightsFit) -> str:
    return _few([f"{n} ({_by(was)}, here {_by(now)})" for n, (was, now) in fit.wrong_shape.items()])


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a number"


def _few(names: Collection[str]) -> str:
    few = ", ".join(list(names)[:_NAMED])
    return few if len(names) <= _NAMED else f"{few} and {len(names) - _NAMED} more"
