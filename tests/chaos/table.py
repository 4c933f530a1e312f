"""The table of docs/reliability.md: a row for each size and seed, made by the run.

The rows lie between two marks; a new run replaces the row of its size and seed.
"""

from __future__ import annotations

from tests.chaos.run import Report
from tests.chaos.trials import ROOT

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- chaos: begin -->", "<!-- chaos: end -->"
HEAD = [
    "| form, seed | trials | attempts | faults | lost | doubled | left behind | minutes |",
    "|---|---|---|---|---|---|---|---|",
]


def write_row(report: Report) -> None:
    """Put a run's row into the page."""
    PAGE.write_text(with_row(PAGE.read_text(), report))


def with_row(text: str, report: Report) -> str:
    """Return a page with a run's row, and the line that tells of its faults by kind."""
    before, _, rest = text.partition(BEGIN)
    inner, _, after = rest.partition(END)
    lines = [line for line in inner.splitlines() if line not in HEAD]
    name = _name(report)
    rows = [line for line in lines if line.startswith("| ") and name not in line]
    kinds = [line for line in lines if line.startswith("- ") and name not in line]
    parts = [BEGIN, *HEAD, *sorted([*rows, row_of(report)]), ""]
    parts += [*sorted([*kinds, kinds_of(report)]), END]
    return before + "\n".join(parts) + after


def row_of(report: Report) -> str:
    """Return a run's row."""
    findings = report.findings
    lost = f"{len(findings.lost)}{' (did not come to its end)' if report.trouble else ''}"
    cells = (
        _name(report), report.trials, report.attempts, report.counts.total(), lost,
        len(findings.doubled), len(findings.left), f"{report.seconds / 60:.1f}",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def kinds_of(report: Report) -> str:
    """Return the line that tells of its faults by kind."""
    faults = ", ".join(f"{kind} {count}" for kind, count in sorted(report.counts.items()))
    return f"- {_name(report)}: {faults}"


def _name(report: Report) -> str:
    return f"`MINUTES={report.minutes} SEED={report.seed}`"
