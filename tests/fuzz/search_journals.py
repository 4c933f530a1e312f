"""The target that a search's workers share: its journal."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from random import Random

from tests.fuzz.mutation import (
    spoiled_bytes,
    spoiled_json,
)
from tests.fuzz.target import Target, may_refuse


@cache
def _journal_text() -> tuple[bytes, ...]:
    import tempfile

    from optuna.distributions import FloatDistribution
    from optuna.trial import TrialState, create_trial

    from mlmodeldev.sweep.journal import Journal

    with tempfile.TemporaryDirectory() as name:
        journal = Journal(Path(name))
        with journal.lock:
            study = journal.study("odd", "maximize")
            for number in range(3):
                trial = create_trial(
                    state=TrialState.RUNNING, params={"x": 0.1 * number},
                    distributions={"x": FloatDistribution(0.0, 1.0)},
                    user_attrs={"id": f"t{number}", "owner": None},
                )  # fmt: skip
                made = journal.storage.create_new_trial(study, trial)
                journal.storage.set_trial_user_attr(made, "owner", "w")
                if number:
                    journal.storage.set_trial_intermediate_value(made, 1, 0.5)
                    journal.storage.set_trial_state_values(made, TrialState.COMPLETE, [0.5])
        text = journal.path.read_text()
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+", "2026-01-02T03:04:05.000006", text)
    text = re.sub(r'"worker_id":"[^"]+"', '"worker_id":"w-1"', text)  # the same in each process
    return tuple(text.encode().splitlines(keepends=True))


def make_journal(rng: Random) -> bytes:
    """Return a journal with a line spoilt, torn, doubled, moved or foreign, anywhere but at first."""
    lines = [*_journal_text()]
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(1, len(lines) + 1)
        kind = rng.randrange(7)
        if kind < 4 and at < len(lines):
            try:
                tree = json.loads(lines[at])
            except (ValueError, RecursionError):
                continue
            lines[at] = spoiled_json(rng, tree).replace(b"\n", b" ") + b"\n"
        elif kind == 4 and at < len(lines):
            lines[at] = spoiled_bytes(rng, lines[at])
        elif kind == 5:
            lines.insert(at, rng.choice(lines))
        else:
            code = rng.choice((-1, 99, None, "x", 3, 4, 8, 1.5, True, [1]))
            lines.insert(at, json.dumps({"op_code": code, "worker_id": "w"}).encode() + b"\n")
        lines = [line for line in lines if line] or [b""]
    data = b"".join(lines)
    return data[: -rng.randrange(1, 60)] if rng.random() < 0.2 else data


def check_journal(given: bytes, folder: Path) -> None:
    """A worker reads on behind any line, and what it writes is read by the next."""
    from optuna.trial import TrialState, create_trial

    from mlmodeldev.sweep.journal import Journal

    (folder / "journal.log").write_bytes(given)
    journal = Journal(folder)
    with may_refuse(), journal.lock:
        study = journal.study("odd", "maximize")
        before = len(journal.storage.get_all_trials(study))
        state = create_trial(state=TrialState.RUNNING, user_attrs={"id": "new"})
        journal.storage.create_new_trial(study, state)
        other = Journal(folder)
        other.lock = journal.lock
        rows = other.storage.get_all_trials(other.study("odd", "maximize"))
        torn = not given.endswith(b"\n")  # a last line that is whole but for its end counts then
        assert len(rows) - before in ((1, 2) if torn else (1,))
        assert rows[-1].user_attrs["id"] == "new"


TARGETS = [
    Target("search journals", ("mlmodeldev.sweep.journal",), make_journal, check_journal),
]
