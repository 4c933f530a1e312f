"""The same trials, jobs and batch scripts are planned as were recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.frozen import plans
from tests.frozen.commands import Place

pytestmark = pytest.mark.project

RECORDED = {each["command"]: each for each in json.loads(plans.FILE.read_text(encoding="utf-8"))}


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All recorded plans, made now."""
    place = Place(tmp_path_factory.mktemp("plans"))
    return dict(zip(RECORDED, place.run_all(RECORDED), strict=True))


@pytest.mark.parametrize("command", RECORDED)
def test_the_same_is_planned(command: str, planned: dict[str, Any]) -> None:
    result, recorded = plans.plan(planned[command]), RECORDED[command]
    assert result["plan"].get("script") == recorded["plan"].get("script")
    assert json.dumps(result["plan"]) == json.dumps(recorded["plan"])
    assert result["said"] == recorded["said"]


def test_every_profile_is_recorded(tmp_path: Path) -> None:
    profiles = {file.stem for file in (Path(plans.FILE).parents[2] / "conf/cluster").glob("*.yaml")}
    named = {profile for profile in profiles if any(profile in command for command in RECORDED)}
    assert named == profiles - {"base"}
