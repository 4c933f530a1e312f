"""The table of docs/reliability.md, from what the targets came to when they were last run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- fuzz: begin -->", "<!-- fuzz: end -->"


def write_table(kept: dict[str, Any]) -> None:
    """Write the table between its marks."""
    from tests.fuzz.registry import TARGETS

    rows = ["| target | inputs tried | faults | branches taken |", "|---|---:|---:|---:|"]
    for name, target in TARGETS.items():
        result = kept.get(name)
        if result:
            what = f"{name} (whole commands)" if target.whole else name
            rows.append(f"| {what} | {result['tried']:,} | {len(result['faults'])}"
                        f" | {result.get('branches', '')} % |")  # fmt: skip
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n" + "\n".join(rows) + f"\n{END}{after}", encoding="utf-8")
