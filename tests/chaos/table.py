"""The table of docs/reliability.md: a row for each size and seed, made by the run.

The rows lie between two marks; a new run replaces the row of its size and seed.
"""

from __future__ import annotations

from tests.chaos.run import Report
from tests.chaos.trials import ROOT

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- chaos: begin -->", "<!-- chaos: end -->"
HEAD = [
    "| form | seed | trials | attempts | faults | lost | doubled | left behind | minutes |",
    "|---|---|---|---|---|---|---|---|---|",
]


def row(report: Report) -> str:
    """Return a run's row."""
    found = report.findings
    lost = f"{len(found.lost)}{' (not at its end)' if report.trouble else ''}"
    cells = (
        report.minutes, report.seed, report.trials, report.attempts, report.counts.total(), lost,
        len(found.doubled), len(found.left), f"{report.seconds / 60:.1f}",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def kinds(reports: list[str], report: Report) -> list[str]:
    """Return the lines that tell of the faults by kind, that of this run anew."""
    start = f"- {report.minutes}, seed {report.seed}: "
    faults = ", ".join(f"{kind} {count}" for kind, count in sorted(report.counts.items()))
    return sorted([*(line for line in reports if not line.startswith(start)), start + faults])


def write_row(report: Report) -> None:
    """Put a run's row into the page."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    inner, _, after = rest.partition(END)
    lines = [line for line in inner.splitlines() if line.strip()]
    start = f"| {report.minutes} | {report.seed} |"
    rows = [line for line in lines if line.startswith("| ") and line not in HEAD]
    rows = sorted([*(line for line in rows if not line.startswith(start)), row(report)])
    told = kinds([line for line in lines if line.startswith("- ")], report)
    body = "\n".join([BEGIN, "", *HEAD, *rows, "", *told, "", END])
    PAGE.write_text(before + body + after)
