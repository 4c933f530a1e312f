"""Trackers: is the package there, is there a key, does the server take it, what is its clock.

A key is never shown, not a letter of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from importlib.util import find_spec

from mlmodeldev.doctor.checks.locks import skew_line
from mlmodeldev.doctor.line import Line, Scope, fail, ok, warn
from mlmodeldev.errors import UsageError
from mlmodeldev.fetch.reach import is_reachable
from mlmodeldev.secrets import key_is_left_out, open_netrc
from mlmodeldev.tracking.bounded import Unreachable
from mlmodeldev.tracking.wandb_api import Refused, host, key_for, part, query_server

_SECONDS = 10.0
_SYNC = "python slurm/SlurmTrain.py sync"
_OFFLINE = ("offline", "dryrun", "disabled")


def _mode(scope: Scope) -> str:
    """Return how trials log to W&B: ``online``, ``auto`` or ``offline``; empty: not at all."""
    wandb = scope.settings.logger.wandb
    if wandb is None:
        return ""
    inherited = os.environ.get("WANDB_MODE") in _OFFLINE
    return "offline" if wandb.mode == "auto" and inherited else str(wandb.mode)


def key(scope: Scope) -> Iterator[Line]:
    """Look for the key, and who may read it."""
    mode = _mode(scope)
    if mode == "":
        yield ok("W&B: not chosen (logger)")
        return
    if mode == "offline":
        yield ok(f"W&B: offline; '{_SYNC}' uploads later")
        return
    readable = open_netrc()
    if not key_for(host()) and readable:
        what = f"W&B: no key is taken from {readable}, which others can read"
        yield (fail if mode == "online" else warn)(what, f"chmod 600 {readable}")
        return
    if not key_for(host()):
        what = f"W&B: there is no key for {host()} (WANDB_API_KEY or .netrc)"
        if mode == "online":
            yield fail(f"{what}: each trial would be refused", "wandb login")
        else:
            yield ok(f"{what}: trials log offline; 'wandb login' changes that")
        return
    yield ok(f"W&B: there is a key for {host()}")
    if readable:
        yield warn(f"{readable}: others can read your keys", f"chmod 600 {readable}")


def key_of_jobs(scope: Scope) -> Iterator[Line]:
    """Look for the key where jobs look: they do not get the environment's."""
    mode = _mode(scope)
    if mode in ("", "offline") or not (scope.submits or scope.in_job):
        return
    missing = not key_for(host()) if scope.in_job else key_is_left_out()
    where = "this node" if scope.in_job else "jobs, which do not get WANDB_API_KEY"
    if missing and mode == "online":
        yield fail(f"W&B: no key for {where}: each trial would be refused", "wandb login")
    elif missing and (scope.login_key or not scope.in_job):
        yield warn(f"W&B: no key for {where}: trials log offline", "wandb login")
    elif scope.in_job:
        yield ok("W&B: there is no key, trials log offline" if missing else "W&B: there is a key")


def server(scope: Scope) -> Iterator[Line]:
    """Ask the server who the key is of."""
    mode, address = _mode(scope), host()
    if mode in ("", "offline"):
        return
    if not key_for(address):
        there = is_reachable(address, "WANDB_BASE_URL", _SECONDS / 2)
        reached = "answers" if there else "can't be reached from here"
        yield ok(f"W&B: {address} {reached}; there is no key to try")
        return
    needed = fail if mode == "online" else warn
    try:
        answer = query_server("query Viewer { viewer { entity } }", seconds=_SECONDS)
    except UsageError:
        yield needed(f"W&B: {address} does not take the key", "wandb login --relogin")
    except Refused as error:
        yield needed(f"W&B: {address} refuses: {error}", "wandb login --relogin")
    except Unreachable as error:
        what = f"W&B: can't be reached: {error}"
        offline = "python slurm/SlurmTrain.py logger.wandb.mode=offline"
        if mode == "online":
            yield fail(f"{what}; each trial would be refused", offline)
        else:
            yield warn(f"{what}; trials log offline, and can be uploaded later", _SYNC)
    else:
        entity = part(answer, "viewer", "entity")
        if entity:
            yield ok(f"W&B: {address} takes the key; runs go to {entity}")
        else:
            yield needed(f"W&B: {address} does not take the key", "wandb login --relogin")


def server_clock(scope: Scope) -> Iterator[Line]:
    """Compare this machine's clock with the Date of the server's answer."""
    import requests

    if _mode(scope) in ("", "offline") or not key_for(host()):
        return
    try:
        before = time.time()
        with requests.get(host(), timeout=_SECONDS, stream=True, allow_redirects=False) as answer:
            date = answer.headers.get("Date", "")
        there = parsedate_to_datetime(date).timestamp()
    except (requests.RequestException, ValueError):
        return  # the line before says that it can't be reached; a proxy may leave the date out
    # whole seconds, of a moment between the question and now
    middle = (before + time.time()) / 2
    apart = there + 0.5 - middle
    line = skew_line(apart, host())
    # leases go by the files' clock, not by this one
    yield warn(line.what.partition(": trials")[0], line.mend) if line.level == "FAIL" else line


def packages(scope: Scope) -> Iterator[Line]:
    """Look for the packages of the trackers that are chosen."""
    logger = scope.settings.logger
    chosen = {
        "wandb": ("wandb", logger.wandb),
        "mlflow": ("mlflow", logger.mlflow),
        "clearml": ("clearml", logger.clearml),
        "tensorboard": ("tensorboard", logger.tensorboard),
    }
    for name, (module, settings) in chosen.items():
        if settings is not None and find_spec(module) is None:
            yield fail(f"logger={name}: the package is not installed", f"pip install {module}")
