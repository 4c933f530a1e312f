"""Put the pages of the documentation together for the builder of the site: into build/docs/.

    python tools/docs_site.py

The pages of docs/ are read in the repository, too, and link to files beside docs/, as README.md
links into it. Here these few files become pages like the others, and a link to any other file
leads to the repository. A page that no section of tools/docs.yml lists comes last: none is missing.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ROOT / "tools" / "docs.yml"
TOP_LEVEL = {
    "README.md": "repository/overview.md",
    "CONTRIBUTING.md": "repository/contributing.md",
    "AGENTS.md": "repository/agents.md",
    "CHANGELOG.md": "repository/changes.md",
}
"""Files beside docs/ that are pages, and their places on the site."""

_CODE = re.compile(r"^(```+|~~~+).*?^\1$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?![a-z]+:|#|/)([^)\s#]+)(#[^)\s]*)?\)")


def gather(target: Path) -> None:
    """Write the pages, their pictures and the builder's settings into an empty folder."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "docs", target / "pages")
    settings = SETTINGS.read_text(encoding="utf-8")
    address = re.search(r"repository: ([^\s}]+)", settings)
    sources = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
    for source in [*TOP_LEVEL, *sources]:
        place = target / "pages" / _place(source)
        place.parent.mkdir(exist_ok=True)
        text = (ROOT / source).read_text(encoding="utf-8")
        place.write_text(relinked(text, source, address[1] if address else ""), encoding="utf-8")
    more = unlisted(settings, map(_place, sources))
    (target / "mkdocs.yml").write_text(settings + more, encoding="utf-8")


def unlisted(settings: str, pages: Iterable[str]) -> str:
    """Return a last section of the navigation, with the pages that no other names."""
    listed = set(re.findall(r"^ +- (\S+\.md)$", settings, re.MULTILINE))
    names = sorted(set(pages) - listed)
    return "".join(["  - More:\n", *(f"      - {name}\n" for name in names)]) if names else ""


def relinked(text: str, source: str, address: str) -> str:
    """Return a page with its links to the repository's files leading to where they are now.

    Args:
        text: the page; what stands in its code is left as it is.
        source: its file, from the repository's top.
        address: of the repository.

    Raises:
        FileNotFoundError: a link leads nowhere; of those among pages the builder says so.
    """
    folder = posixpath.dirname(_place(source))
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(match[0])
        return f"\0{len(kept) - 1}\0"

    def lead(match: re.Match[str]) -> str:
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        if file in TOP_LEVEL or file.startswith("docs/"):
            return f"]({posixpath.relpath(_place(file), folder or '.')}{match[2] or ''})"
        if not (ROOT / file).exists():
            raise FileNotFoundError(f"{source} has a link to {match[1]}, which does not exist")
        return f"]({address}/blob/main/{file})"

    text = _LINK.sub(lead, _CODE.sub(keep, text))
    return re.sub("\0(\\d+)\0", lambda match: kept[int(match[1])], text)


def _place(source: str) -> str:
    """Return where a file of the repository lies among the pages."""
    return TOP_LEVEL.get(source, source.removeprefix("docs/"))


if __name__ == "__main__":
    gather(ROOT / "build" / "docs")
