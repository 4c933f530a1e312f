"""Bad input is refused with the recorded words and exit status, whatever command it is given to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.frozen import error_lines

pytestmark = pytest.mark.project

RECORDED = {e["command"]: e for e in json.loads(error_lines.FILE.read_text(encoding="utf-8"))}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How all recorded commands are refused now."""
    result = error_lines.answers(tmp_path_factory.mktemp("refused"))
    return {each["command"]: each for each in result}


@pytest.mark.parametrize("command", RECORDED)
def test_the_same_is_reported(command: str, answers: dict[str, Any]) -> None:
    assert RECORDED[command]["status"] == 2
    assert answers[command] == RECORDED[command]


def test_nothing_was_trained(tmp_path_factory: pytest.TempPathFactory, answers: Any) -> None:
    assert answers
    assert not list(tmp_path_factory.getbasetemp().glob("refused*/*/runs/**/*.ckpt"))
