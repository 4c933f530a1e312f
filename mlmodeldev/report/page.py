"""The HTML file: the page's parts and its content in one, which asks for nothing from outside.

Example::

    write_text(Path("report.html"), render(gather(sweep_state, jobs)))

Apache ECharts draws the charts: a bundle of the parts that are used, pinned, made by
``tools/plots.sh``. A policy in the page forbids every request.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

SCRIPTS = (
    "plots.min.js",
    "values.js",
    "table.js",
    "charts.js",
    "curves.js",
    "cka.js",
    "compare.js",
    "start.js",
)
"""In the order in which they need each other."""
_BEGIN = 'id="content">'


def render(content: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        content: as `content.gather` makes it.
    """
    parts = {
        "TITLE": html.escape(f"{content['sweep']}: {content['metric']}"),
        "STYLE": _file("page.css"),
        "CONTENT": as_json(content),
        "LICENCE": html.escape(_file("plots.LICENSE.txt")),
        "SCRIPTS": "\n".join(f"<script>\n{_file(name)}\n</script>" for name in SCRIPTS),
    }
    page = _file("page.html")
    first, *rest = page.split("{{")
    return first + "".join(_filled(piece, parts) for piece in rest)


def _filled(piece: str, parts: Mapping[str, str]) -> str:
    """Return a piece with its mark, which stands at its front, replaced.

    What is put in is never looked through for marks: a log line may hold ``{{`` itself.
    """
    name, _, rest = piece.partition("}}")
    return parts[name] + rest


def read_content(file: Path) -> dict[str, Any]:
    """Return the content of a page that was written before; nothing of any other file."""
    try:
        text = file.read_text(encoding="utf-8")
        begin = text.index(_BEGIN) + len(_BEGIN)
        content = json.loads(text[begin : text.index("</script>", begin)])
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def as_json(content: Any) -> str:
    """Return JSON that may stand in a ``script`` element: no text of a log can end it."""
    text = json.dumps(_finite(content), separators=(",", ":"), default=str, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _finite(value: Any) -> Any:
    """Return a value without NaN and infinity, which JSON has no word for; their names instead."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return value


def _file(name: str) -> str:
    return (files("mlmodeldev.report.files") / name).read_text(encoding="utf-8")
