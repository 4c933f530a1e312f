"""Drive each shape of the corpus through every engine, and compare what its program is called with.

    python -m tests.sweep.differential write        # the table of docs/sweeps.md

The real `wandb agent`'s calls are recorded (`tests.sweep.corpus_place`); ours are made anew.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.identity import canonical_text, flatten, identity, resolve_ties, says_where
from mlmodeldev.settings.overrides import parse_overrides
from mlmodeldev.slurm.agent_source import AgentSource
from mlmodeldev.slurm.bridge import BridgeSource
from mlmodeldev.slurm.local import trial_task
from mlmodeldev.slurm.sweep_state import SweepState
from mlmodeldev.slurm.trial_entries import TrialEntry, reconcile
from mlmodeldev.sweep import Sweep, Trial, check, load
from mlmodeldev.sweep.search import SearchSource
from mlmodeldev.sweep.served import ServedSweep
from mlmodeldev.sweep.starter import PARAMETERS, starter
from mlmodeldev.tracking.sweep_commands import Command
from mlmodeldev.tracking.wandb_api import RemoteSweep
from mlmodeldev.trial.task import TrialTask
from tests.sweep.corpus_place import ROOT, Row, points, shapes

DOC = ROOT / "docs" / "sweeps.md"
BEGIN, END = "<!-- engines: begin -->\n", "<!-- engines: end -->\n"
_PROGRAMS = ("seen.py", "seen.sh", "seen", "trainer.py", "hand.sh")


def called(task: TrialTask) -> Row:
    """Return what the program of a task sees, as the programs of the corpus write it down."""
    words = list(task.command or ["trainer.py", *task.overrides])
    begin = next(i for i, word in enumerate(words) if Path(word).name in _PROGRAMS)
    mode = "fast" if "CORPUS_MODE=fast" in words[:begin] else None
    arguments = words[begin + 1 :]
    if not task.foreign:
        given = resolve_ties(flatten(parse_overrides(arguments)))
        settings = {key: value for key, value in given.items() if not says_where(key)}
        return {"settings": settings, "id": identity(settings), "mode": mode}
    files = [word for word in arguments if word.endswith(".json")]
    return {
        "argv": ["JSON_FILE" if word in files else word for word in arguments],
        "json": [_yaml(file) for file in files],
        "config": _config(task.folder / f"{PARAMETERS}.yaml"),
        "mode": mode,
    }


def _yaml(file: str | Path) -> Any:
    import yaml

    return yaml.safe_load(Path(file).read_text(encoding="utf-8"))


def _config(file: Path) -> dict[str, Any]:
    return {key: each["value"] for key, each in _yaml(file).items() if key != "wandb_version"}


def identity_of(row: Row) -> str:
    """Return the identity of the trial that a call is of."""
    return str(row["id"]) if "id" in row else identity(resolve_ties(flatten(row["config"])))


def by_identity(rows: Iterable[Row]) -> dict[str, str]:
    """Return calls as comparable texts; the order of ``--key=value`` words is of no account."""
    return {identity_of(row): comparable(row) for row in rows}


def comparable(row: Row) -> str:
    """Return a call as text: its words sorted, JSON in one spelling."""
    if "argv" not in row:
        return canonical_text(row)
    words = [canonical_text(json.loads(w)) if w.startswith("{") else w for w in row["argv"]]
    return canonical_text({**row, "argv": sorted(words)})


# --- the engines


class Handing(RemoteSweep):
    """A server that hands out given points, and ends."""

    def register(self) -> str:
        return "agent1"

    def heartbeat(self, agent: str, running: Any) -> list[Command]:
        number, values = next(self.config["ahead"], (0, None))
        if values is None:
            return [Command(type="exit")]
        args = {key: {"value": value} for key, value in values.items()}
        return [Command(type="run", run_id=f"run{number}", args=args)]


class NoSyncer:
    """Uploads nothing."""

    def visit(self) -> list[Any]:
        return []


@dataclass
class Shape:
    """One sweep file of the corpus.

    Args:
        name: of the shape.
        place: the project of the corpus's programs; the environment names it.
        runs: where trials would lie.
    """

    name: str
    place: Path
    runs: Path
    file: Path = field(init=False)
    sweep: Sweep = field(init=False)

    def __post_init__(self) -> None:
        self.file = self.place / f"shape-{list(shapes()).index(self.name)}.yaml"
        self.file.write_text(shapes()[self.name], encoding="utf-8")
        self.sweep = load(self.file)

    @property
    def config(self) -> dict[str, Any]:
        """The file as a server has it."""
        config: dict[str, Any] = _yaml(self.file)
        return config

    @property
    def points(self) -> list[dict[str, Any]]:
        """What W&B's engine gives."""
        return points()[self.name]

    @property
    def has_rules(self) -> bool:
        """Whether the file says something that the server does not know."""
        return self.sweep.space.has_rules

    @property
    def is_foreign(self) -> bool:
        return self.sweep.invocation.is_foreign

    @property
    def severity(self) -> str:
        """What `check` makes of it."""
        severities = {problem.severity for problem in check(self.file)}
        return "error" if "error" in severities else "ok"

    def enumeration(self) -> list[Row] | None:
        """The calls of the listed trials; of random ones, of the points that the engine drew."""
        state = SweepState(self.file, self.sweep, None, [], [])  # type: ignore[arg-type]
        try:
            start = state.starter(self.place)
        except UsageError:
            return None
        base, module = self.runs / "listed", self.sweep.invocation.module
        entries = list(reconcile(self.sweep, base)) if self.sweep.method != "bayes" else []
        if self.sweep.method != "grid":
            assert len(entries) in (0, len(self.points))
            entries = [TrialEntry(trial, base) for trial in self._drawn()]
        tasks = [trial_task(entry, module, [], start=start) for entry in entries]
        assert all(task.folder.name == identity_of(called(task)) for task in tasks)
        return [called(task) for task in tasks]

    def _drawn(self) -> list[Trial]:
        fixed = self.sweep.invocation.settings
        return [Trial({**flatten(point), **fixed}, self.sweep.naming) for point in self.points]

    def search(self) -> list[Row] | None:
        """The calls of a search's workers; None where the program keeps no log to search by."""
        if self.is_foreign:
            return None
        invocation = self.sweep.invocation_in(self.place)
        start = starter(invocation, self.sweep.call)
        source = SearchSource(
            self.sweep, self.runs / "searched", program=invocation.module, start=start
        )
        try:
            return [called(task) for task in taken(source)]
        finally:
            source.close()

    def agent(self) -> list[Row]:
        """The calls of our agent."""
        served = ServedSweep(self.config, "s", self.place)
        source = AgentSource(
            self._server(), self.runs / "agent", print_line=lambda line: None, served=served,
            start=starter(served.invocation, served.call),
        )  # fmt: skip
        return [called(task) for task in taken(source)]

    def bridge(self) -> list[Row] | None:
        """The calls of the bridge, which runs trainers alone."""
        served = ServedSweep(self.config, "s", self.place)
        if self.is_foreign:
            return None
        source = BridgeSource(
            self._server(), self.runs / "bridge", NoSyncer(), reattach=True,  # type: ignore[arg-type]
            print_line=lambda line: None, served=served,
            start=starter(served.invocation, served.call),
        )  # fmt: skip
        rows = [called(task) for task in taken(source)]
        for row in rows:
            assert row["settings"].pop("logger.wandb.mode") == "offline"
            row["id"] = identity(row["settings"])
        return rows

    def _server(self) -> Handing:
        return Handing("e", "p", "s", {**self.config, "ahead": iter(enumerate(self.points))})


def taken(source: Any) -> list[TrialTask]:
    """Return all that a source gives, none of which ends."""
    tasks: list[TrialTask] = []
    waits = 0
    while waits < 20:
        task = source.take()
        if task is None:
            break
        if isinstance(task, TrialTask):
            tasks.append(task)
        else:
            waits += 1
    return tasks


# --- the table


def cells(shape: Shape, recorded: list[Row]) -> list[str]:
    """Return a shape's row of the table."""
    ours, draws = by_identity(shape.agent()), shape.sweep.method != "grid"
    engines = [
        _cell(shape.enumeration(), ours, draws),
        _cell(shape.search(), ours, draws),
        "same",
        _cell(shape.bridge(), ours),
        _cell(recorded, ours),
    ]
    return [shape.name, str(len(ours)), shape.severity, *engines]


def _cell(rows: list[Row] | None, ours: dict[str, str], draws: bool = False) -> str:
    """Return how an engine's calls compare with our agent's."""
    if rows is None:
        return "—"
    theirs = by_identity(rows)
    if theirs == ours:
        return "same, own draws" if draws else "same"
    if theirs.keys() == ours.keys():
        return "ties as text"
    if len(rows) == len(ours):
        return "same, own draws" if draws else "same, own order"
    return f"{len(rows)}: no rules"


HEADINGS = (
    *("shape", "trials", "`check`", "enumeration", "search", "our agent", "bridge"),
    "`wandb agent`",
)


def table(rows: Iterable[list[str]]) -> str:
    """Return the table as Markdown."""
    lines = [HEADINGS, ["---"] * len(HEADINGS), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def written_table() -> str:
    """Return what stands in docs/sweeps.md."""
    match = re.search(f"{re.escape(BEGIN)}(.*){re.escape(END)}", DOC.read_text(), re.DOTALL)
    return match[1] if match else ""


def main() -> None:
    """Write the table."""
    import os
    import tempfile

    from tests.sweep.corpus_place import VARIABLES, make_place, recorded

    seen = recorded()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "project").mkdir()
        place = make_place(Path(folder) / "project")
        os.environ |= {"MLMODELDEV_PROJECT": str(place), **VARIABLES}
        shown = [
            cells(Shape(name, place, Path(folder) / str(i)), seen[name])
            for i, name in enumerate(shapes())
        ]
    text = DOC.read_text()
    head, _, rest = text.partition(BEGIN)
    DOC.write_text(f"{head}{BEGIN}{table(shown)}{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.sweep.differential", description=__doc__)
    parser.add_argument("action", choices=["write"])
    parser.parse_args()
    main()
