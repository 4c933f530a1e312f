"""The command ``mlmodeldev trial`` as tests call it, and a process that may fetch."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlmodeldev.slurm.trial_command import main

OFFLINE = ("MLMODELDEV_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY")


def online(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OFFLINE:
        monkeypatch.delenv(name, raising=False)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the command with --json."""
    capsys.readouterr()
    status = main([*arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)
