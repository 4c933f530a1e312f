"""A trial's folder and the record of its state, ``trial.json``.

The folder is the only truth: launchers, status, resume and skipping what is done all read it.
One process at a time owns it, by a lease that it renews; a killed owner's lease runs out, and on
the same machine its death is seen at once.

Example::

    folder = TrialFolder.open(settings)          # refuses another configuration's folder
    folder.claim()                               # raises UsageError while another process owns it
    folder.update(state="done", metric={"name": "val/accuracy", "value": 0.97})
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock

from mlmodeldev.atomic import remove_leftovers, write_json, write_text, writing_to
from mlmodeldev.errors import UsageError
from mlmodeldev.secrets import mask
from mlmodeldev.settings.identity import identity

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings

State = Literal["pending", "running", "interrupted", "done", "failed", "pruned"]

LEASE_SECONDS = 180.0
"""How long a silent owner on another machine is believed to be alive."""
HEARTBEAT_SECONDS = 30.0
"""How often an owner renews its lease."""

# Settings that say where, how long and how fast, not what: they may differ when a trial goes on.
MAY_CHANGE = (
    "artefacts",
    "logger",
    "callbacks",
    "cluster",
    "overrides",
    "processing.num_workers",
    "processing.pin_memory",
    "processing.prefetch_factor",
    "processing.stage",
    "training.accelerator",
    "training.checkpoint_every_n_steps",
    "training.check_val_every_n_epoch",
    "training.compile",
    "training.detect_anomaly",
    "training.devices",
    "training.limit_val_batches",
    "training.log_every_n_steps",
    "training.max_epochs",
    "training.max_steps",
    "training.nonfinite",
    "training.num_nodes",
    "training.patience",
    "training.profiler",
    "training.strategy",
    "training.test",
)


class LostLease(Exception):
    """Another attempt has taken this trial over; this process must not write to it any more."""


class TrialFolder:
    """The folder of one trial and its record.

    Attributes:
        path: ``<runs_dir>/<sweep>/<trial>``.
        id: the trial's identity (its folder's name).
        attempt: number of this attempt, from 1; 0 before `claim`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name
        self.attempt = 0
        self._settings: dict[str, Any] = {}
        self._lock = FileLock(path / ".record.lock", timeout=60)

    @classmethod
    def open(cls, settings: Settings) -> TrialFolder:
        """Make or find the folder of these settings.

        Raises:
            UsageError: it can't be written, or it holds a trial of another configuration.
        """
        artefacts = settings.artefacts
        sweep = Path(artefacts.runs_dir).expanduser().absolute() / artefacts.sweep
        path = sweep / artefacts.trial if artefacts.trial else own_path(sweep, settings.overrides)
        folder = cls(path)
        if artefacts.fresh and path.exists():
            folder._move_aside()
        with writing_to(path):
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        folder._check_configuration(settings)
        return folder

    def _move_aside(self) -> None:
        self._refuse_if_owned(self.read())
        number = 1
        while (aside := self.path.with_name(f".{self.path.name}.{number}")).exists():
            number += 1
        with writing_to(self.path):
            self.path.rename(aside)

    def _check_configuration(self, settings: Settings) -> None:
        import yaml

        file = self.path / "config.yaml"
        wanted = settings.model_dump()
        if file.is_file():
            try:
                found = yaml.safe_load(file.read_text())
            except (yaml.YAMLError, UnicodeDecodeError):
                raise UsageError(
                    f"{file}: is no configuration; artefacts.fresh=true begins anew"
                ) from None
            difference = first_difference(found or {}, wanted)
            if difference:
                raise UsageError(
                    f"{self.path}: this folder holds a trial with {difference}; name another"
                    " folder by artefacts.trial=NAME, or begin anew by artefacts.fresh=true"
                )
        self._settings = wanted
        if not file.is_file():
            self._write_configuration()

    def _write_configuration(self) -> None:
        import yaml

        if self._settings:
            text = yaml.safe_dump(self._settings, sort_keys=False, allow_unicode=True)
            write_text(self.path / "config.yaml", text)

    # --- the record

    def read(self) -> dict[str, Any]:
        """Return the record; an empty one where there is none yet."""
        file = self.path / "trial.json"
        try:
            record: dict[str, Any] = json.loads(file.read_text())
        except FileNotFoundError:
            return {}
        except (json.JSONDecodeError, UnicodeDecodeError):
            record = {}
        if not isinstance(record, dict) or not record:
            raise UsageError(
                f"{file}: is no record of a trial; move it away, the trial goes on from its"
                " checkpoints"
            )
        return record

    def update(self, **changes: Any) -> dict[str, Any]:
        """Change some entries of the record; the file is replaced whole.

        Raises:
            LostLease: another attempt owns the trial now.
        """
        with writing_to(self.path), self._lock:
            self.check_owner()
            record = self.read()
            changes = {name: _masked(value) for name, value in changes.items()}
            record = {**record, **changes, "updated": time.time()}
            write_json(self.path / "trial.json", record)
            return record

    # --- ownership

    def claim(self) -> dict[str, Any]:
        """Become the trial's owner: a new attempt, state ``running``.

        Raises:
            UsageError: a live process owns it.
        """
        with writing_to(self.path), self._lock:
            record = self.read()
            self._refuse_if_owned(record)
            remove_leftovers(self.path)
            remove_leftovers(self.path / "checkpoints")
            self._write_configuration()
            attempt = int(record.get("attempts", 0)) + 1
            record = self.update(
                **{
                    "id": self.id,
                    "sweep": self.path.parent.name,
                    **({} if "created" in record else {"created": time.time()}),
                    "state": "running",
                    "reason": None,
                    "attempts": attempt,
                    "begun": time.time(),
                    "owner": _me(),
                    "lease": time.time() + LEASE_SECONDS,
                    "slurm": _slurm(),
                    "uploaded": False,
                    **_agents_run(),
                }
            )
            self.attempt = attempt
            return record

    def heartbeat(self) -> None:
        """Renew the lease.

        Raises:
            LostLease: another attempt owns the trial now.
        """
        self.update(lease=time.time() + LEASE_SECONDS)

    def check_owner(self) -> None:
        """Read whether the trial still belongs to this attempt.

        Raises:
            LostLease: another attempt owns it now.
        """
        attempts = self.read().get("attempts", self.attempt)
        if self.attempt and attempts != self.attempt:
            raise LostLease(f"{self.path}: attempt {attempts} has taken over")

    def finish(self, state: State, reason: str | None = None, **changes: Any) -> None:
        """Write the state that this attempt ends in and give the trial up."""
        record = self.read()
        seconds = record.get("seconds", 0.0) + time.time() - record.get("begun", time.time())
        ended = {"state": state, "reason": reason, "owner": None, "lease": None}
        self.update(**ended, seconds=round(seconds, 3), **changes)

    def mark_failed(self, state: State, reason: str | None) -> None:
        """Write how an attempt ended that had no time to say so itself; others are left alone."""
        if not (self.path / "trial.json").is_file():
            return
        with writing_to(self.path), self._lock:
            record = self.read()
            if record.get("state") in ("running", "pending") and not owned(record):
                self.update(state=state, reason=reason, owner=None, lease=None)

    def _refuse_if_owned(self, record: Mapping[str, Any]) -> None:
        if not owned(record):
            return
        owner = record["owner"]
        raise UsageError(
            f"{self.path}: this trial is running already (host {owner['host']}, process"
            f" {owner['pid']}); stop it first, or wait"
        )


def _masked(value: Any) -> Any:
    return mask(value) if isinstance(value, str) and " " in value else value


def own_path(sweep: Path, overrides: Mapping[str, Any], run: str | None = None) -> Path:
    """Return where the trial of these overrides lies.

    A W&B sweep may draw one point twice. While the first run of it is under way the second gets a
    folder of its own; once it is done, its result is the second's too.

    Args:
        sweep: the sweep's folder.
        overrides: what was asked.
        run: id of the W&B run that an agent has given; None: the environment's, if any.
    """
    path = sweep / identity(overrides)
    run = run or (os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None)
    if run is None:
        return path
    second = path.with_name(f"{path.name}-{run}")
    record = TrialFolder(path).read() if path.is_dir() else {}
    other = record.get("wandb_id") not in (None, run) and record.get("state") not in _OVER
    return second if second.is_dir() or other else path


_OVER = ("done", "pruned")


def owned(record: Mapping[str, Any]) -> bool:
    """Return whether a live process runs the trial that this record tells of."""
    owner = record.get("owner")
    return record.get("state") == "running" and owner is not None and _alive(owner, record)


def owner_record() -> dict[str, Any]:
    """Return what a record says of a live owner, for this process: owner, lease, Slurm's ids."""
    lease = time.time() + LEASE_SECONDS
    return {"state": "running", "owner": _me(), "lease": lease, "slurm": _slurm()}


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of the trial in a folder; an empty one where none can be read."""
    try:
        record = json.loads((folder / "trial.json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _me() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": start_ticks(pid)}


def _agents_run() -> dict[str, str]:
    if not os.environ.get("WANDB_SWEEP_ID") or not os.environ.get("WANDB_RUN_ID"):
        return {}
    return {"wandb_id": os.environ["WANDB_RUN_ID"], "wandb_sweep": os.environ["WANDB_SWEEP_ID"]}


def _slurm() -> dict[str, str]:
    job = ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID", "RESTART_COUNT", "JOB_PARTITION")
    names = (*job, "JOB_NODELIST", "JOB_ACCOUNT", "CLUSTER_NAME")
    return {n.lower(): os.environ[f"SLURM_{n}"] for n in names if f"SLURM_{n}" in os.environ}


def _alive(owner: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    if _requeued_since(record.get("slurm") or {}):
        return False  # if the job's former self lives on after all, its writes are refused
    if owner["host"] == socket.gethostname() and owner["started"] is not None:
        return owner["pid"] != os.getpid() and start_ticks(owner["pid"]) == owner["started"]
    return time.time() < float(record.get("lease") or 0)


def _requeued_since(slurm: Mapping[str, Any]) -> bool:
    """Whether this process belongs to a later start of the job that the record tells of."""
    job = slurm.get("job_id")
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    return (
        job is not None
        and job == os.environ.get("SLURM_JOB_ID")
        and int(restarts) > int(slurm.get("restart_count", "0"))
    )


def start_ticks(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot (proc(5), stat, field 22), if it lives.

    Together with the process id it names a process for good; ids alone are used again.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def first_difference(
    old: Any, new: Any, key: str = "", ignored: Collection[str] = MAY_CHANGE
) -> str:
    """Return ``"optimizer.lr=0.1 (now 0.2)"`` for the first setting that must not change."""
    if key in ignored:
        return ""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(n for n in new if n not in old)]:
            inner = f"{key}.{name}" if key else str(name)
            found = first_difference(old.get(name), new.get(name), inner, ignored)
            if found:
                return found
        return ""
    return "" if old == new else f"{key}={old} (asked now: {new})"
