"""Text files as a stream of documents, read in pieces: memory does not grow with the files.

Example::

    for piece, ends in read_pieces([Path("book.txt")], separator=None):
        ...                              # ends: whether its document ends with this piece
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mlmodeldev.errors import UsageError

PIECE = 1 << 18
"""Characters of a piece at most, about."""

_BETWEEN_WORDS = re.compile(r"\w(?= \w)")


def text_files(patterns: str | Sequence[str]) -> list[Path]:
    """Return the files that patterns name, sorted, each once.

    Args:
        patterns: one or several of: a file, a folder (all ``.txt`` and ``.md`` files below it), a
            glob such as ``texts/**/*.txt``. ``~`` is the home folder.

    Raises:
        UsageError: a pattern names no file.
    """
    result: dict[Path, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        files = _matches(Path(pattern).expanduser())
        if not files:
            raise UsageError(
                f"data.files={pattern}: no such text file (a file, a folder with .txt or .md files,"
                " or a glob such as 'texts/**/*.txt')"
            )
        result.update(dict.fromkeys(files))
    if not result:
        raise UsageError("data.files=[]: must name a text file")
    return list(result)


def _matches(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        inside = (file for ending in ("txt", "md") for file in path.rglob(f"*.{ending}"))
        return sorted(file for file in inside if file.is_file())
    root = Path(path.anchor)
    return sorted(file for file in root.glob(str(path.relative_to(root))) if file.is_file())


def read_pieces(
    files: Iterable[Path], separator: str | None, size: int = PIECE
) -> Iterator[tuple[str, bool]]:
    """Yield pieces of documents, and of each whether its document ends there.

    A document longer than ``size`` is cut between two words, before the space: there byte-level
    tokenizers (GPT-2's, Llama 3's and ours) cut, too, so its tokens are those of the whole.

    Args:
        files: of UTF-8.
        separator: text between the documents of a file, which belongs to none; None: each file is
            one document. Empty documents are left out.
        size: characters of a piece, about.

    Raises:
        UsageError: a file can't be read, or is no UTF-8.
    """
    for file in files:
        begun = False
        for text, ends in _split(_chunks(file, size), separator, size):
            if text or (begun and ends):
                yield text, ends
            begun = bool(text or begun) and not ends


def _split(chunks: Iterable[str], separator: str | None, size: int) -> Iterator[tuple[str, bool]]:
    rest = ""
    for chunk in chunks:
        rest += chunk
        if separator:
            *whole, rest = rest.split(separator)
            for text in whole:
                yield text, True
        limit = len(rest) - len(separator or "")  # a separator may have begun after it
        if limit >= size:
            cut = _place_to_cut(rest, limit)
            yield rest[:cut], False
            rest = rest[cut:]
    yield rest, True


def _place_to_cut(text: str, limit: int) -> int:
    """Return the last place between two words before ``limit``, or the limit if none is near."""
    begin = max(1, limit - 4096)
    places = [match.end() for match in _BETWEEN_WORDS.finditer(text, begin, limit)]
    return places[-1] if places else limit


def _chunks(file: Path, size: int) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    place = 0
    try:
        with file.open("rb") as opened:
            while data := opened.read(size):
                yield decoder.decode(data)
                place += len(data)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        near = max(0, place + error.start)
        raise UsageError(f"{file}: is no UTF-8 text (near byte {near})") from None
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
