"""All targets, by name."""

from __future__ import annotations

from tests.fuzz import state_files, sweep_texts
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {each.name: each for each in (*sweep_texts.TARGETS, *state_files.TARGETS)}
