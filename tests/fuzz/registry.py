"""All targets, by name."""

from __future__ import annotations

from tests.fuzz import (
    answers,
    archives,
    checkpoints,
    cluster,
    commands,
    environments,
    overrides,
    search_journals,
    state_files,
    sweep_texts,
    text_rules,
    wandb_runs,
)
from tests.fuzz.target import Target

_GROUPS = (sweep_texts, overrides, state_files, search_journals, wandb_runs, checkpoints, archives,
           answers, cluster, environments, text_rules, commands)  # fmt: skip
TARGETS: dict[str, Target] = {each.name: each for group in _GROUPS for each in group.TARGETS}
