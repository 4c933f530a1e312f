"""Problems of a sweep file: where, how bad, what to do; and the list that collects them.

Example::

    report = Report("sweep/config.yaml")
    report.error(3, "method", "'gird' is unknown; did you mean 'grid'?")
    print(report.problems[0])
    # sweep/config.yaml:3: error: method: 'gird' is unknown; did you mean 'grid'?
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NoReturn

from mlmodeldev.errors import UsageError


def shown(value: Any) -> str:
    """Return a value as Python writes it, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True)
class Problem:
    """One mistake in a sweep file."""

    file: str
    line: int
    """Line in the file, counted from 1."""
    key: str
    """Dotted place in the file, such as ``parameters.optimizer.lr.values``; may be empty."""
    severity: Literal["error", "warning"]
    """An error keeps the file from running on some engine; a warning is worth a look."""
    message: str

    def __str__(self) -> str:
        where = f"{self.key}: " if self.key else ""
        return f"{self.file}:{self.line}: {self.severity}: {where}{self.message}"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a mapping, for JSON."""
        return asdict(self)


@dataclass
class Report:
    """The problems found so far in one file."""

    file: str
    problems: list[Problem] = field(default_factory=list)

    def error(self, line: int, key: str, message: str) -> None:
        """Note a mistake that keeps the file from running."""
        self.problems.append(Problem(self.file, line, key, "error", message))

    def warning(self, line: int, key: str, message: str) -> None:
        """Note something that is probably not meant."""
        self.problems.append(Problem(self.file, line, key, "warning", message))

    def refuse(self, line: int, message: str) -> NoReturn:
        """Note a mistake after which nothing more can be said about the file, and raise it.

        Raises:
            UsageError: always.
        """
        self.error(line, "", message)
        self.raise_errors()
        raise AssertionError("unreachable: there is an error")

    @property
    def errors(self) -> list[Problem]:
        """The problems that are errors."""
        return [problem for problem in self.problems if problem.severity == "error"]

    def raise_errors(self) -> None:
        """Raise the first error, if there is one.

        Raises:
            UsageError: with the file, the line, the key, and how many more there are.
        """
        errors = self.errors
        if not errors:
            return
        first = errors[0]
        where = f"{first.key}: " if first.key else ""
        more = len(errors) - 1
        tail = f" (and {more} more: python -m mlmodeldev.sweep check {self.file})" if more else ""
        raise UsageError(f"{first.file}:{first.line}: {where}{first.message}{tail}")
