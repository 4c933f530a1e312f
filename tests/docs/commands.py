"""Whether the command lines that pages show could run: programs, sub-commands, options, settings.

Each goes through the parser of the program itself, and its settings are composed; nothing is run.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import importlib.util
import io
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlmodeldev import cli
from mlmodeldev.errors import UsageError
from mlmodeldev.settings.composition import compose_settings
from tests.conftest import ROOT

PAGES = ("README.md", "AGENTS.md", "CONTRIBUTING.md", "docs/*.md")
_CLEARML = ("clearml-init", "clearml-task", "clearml-agent")
FOREIGN = {
    **dict.fromkeys(["cd", "export", "source", "sleep", "kill", "sed", "tee", "pip"], "shell"),
    **dict.fromkeys(
        ["git", "dvc", "wandb", "mlflow", "conda", "eval", "for"], "a program of others"
    ),
    **dict.fromkeys(
        ["optuna-dashboard", "torchrun", "accelerate", *_CLEARML], "a program of others"
    ),
    **dict.fromkeys(["tar", "rsync", "scontrol", "sacct"], "a program of others"),
}
"""Programs that are not ours: what they take is not looked at."""
_FLAGS = re.DOTALL | re.MULTILINE
STANDARD = ("venv", "http.server", "pip", "pytest")
"""Modules of others that ``python -m`` starts."""
FILE = re.compile(r"(?:# @package _global_\n)?# (\S+\.(?:py|yaml|txt))\n")
"""How a block begins that is a file: its name in a comment."""


MENTIONED = "the following arguments are required"
"""What a parser says of a command that a text only names."""
AS_EXAMPLES = {
    "docs/benchmarks.md": "no such setting; did you mean 'lr'",  # how soon a typo is answered
    "docs/settings.md": "size: no such setting",  # the page's own key of conf/config.yaml
}
"""What is refused on purpose, by the page where it stands."""


@dataclass(frozen=True)
class Line:
    """A command line of a page; in a text one may be named without all that it needs."""

    page: str
    number: int
    text: str
    in_text: bool = False


def pages() -> list[Path]:
    return sorted(path for pattern in PAGES for path in ROOT.glob(pattern))


def shown_files() -> dict[str, str]:
    """The blocks of all pages that begin with the name of a file, which a reader makes first."""
    blocks = (
        textwrap.dedent(text)
        for page in pages()
        for _, text in re.findall(r"^( *)```\w+\n(.*?)^\1```$", page.read_text(), _FLAGS)
    )
    return {match[1]: text for text in blocks if (match := FILE.match(text))}


def lines() -> Iterator[Line]:
    """Yield the lines of shell blocks, and what stands in code in a text or a table."""
    for page in pages():
        inside, name = "", page.relative_to(ROOT).as_posix()
        whole = page.read_text().replace("\\\n", " ")  # a line may go on in the next
        for number, text in enumerate(whole.splitlines(), 1):
            if fence := re.match(r"\s*```(\S*)", text):
                inside = "" if inside else fence[1] or "text"
            elif inside == "bash":
                yield Line(name, number, text)
            elif inside == "console" and text.startswith("$ "):
                yield Line(name, number, text[2:])
            elif not inside:
                for code in re.findall(r"`([^`]+)`", text):
                    if re.match(r"(python \S+|mlmodeldev|SlurmTrain\.py|make) \S", code):
                        whole = re.sub(r"^SlurmTrain\.py", "python slurm/SlurmTrain.py", code)
                        yield Line(name, number, whole, in_text=True)


def problems(project: Path) -> Iterator[str]:
    """Yield what is wrong with the pages' commands, with page and line."""
    for line in lines():
        for words in commands(line.text):
            text = problem(words, project)
            as_example = AS_EXAMPLES.get(line.page)
            if text is None or (as_example and as_example in text):
                continue
            if not (line.in_text and MENTIONED in text):
                yield f"{line.page}:{line.number}: {' '.join(words)}\n    {text}"


def commands(text: str) -> list[list[str]]:
    """Return the words of each command of a line, without comments, redirections and variables."""
    plain = re.sub(r"(^|\s)#(\s.*|$)", "", text)
    plain = re.sub(r"(?<!\S)(\.\.\.|…)(?!\S)", "", re.sub(r"\$\([^)]*\)", "X", plain))
    plain = re.sub(r"2>&1|\b(do|done)\b", "", plain)
    lexer = shlex.shlex(plain, posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split, lexer.commenters = True, ""
    result: list[list[str]] = [[]]
    redirected = False
    for word in lexer:
        if redirected or word in (">", ">>", "<"):
            redirected = not redirected
        elif set(word) <= set(";&|"):
            result.append([])
        else:
            result[-1].append(word)
    return [words for words in map(_without_variables, result) if words]


def _without_variables(words: list[str]) -> list[str]:
    while words and re.match(r"[A-Za-z_]+=", words[0]):
        words = words[1:]
    return words


def problem(words: list[str], project: Path) -> str | None:
    """Return what is wrong with a command; None: it could run.

    Args:
        project: where its settings are composed; the working directory.
    """
    program, *rest = words
    if program in FOREIGN or "/bin/" in program:
        return None
    checks: dict[str, Callable[[list[str]], str | None]] = {
        "make": _make,
        "mlmodeldev": _ours,
        "bash": _script,
        "sbatch": _script,
        "python": lambda given: _python(given, project),
    }
    if program not in checks:
        return f"{program}: is no program of ours, nor listed as one of others"
    try:
        return checks[program](rest)
    except UsageError as error:
        return str(error)


@functools.cache
def _targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def _make(words: list[str]) -> str | None:
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        name, is_variable, _ = word.partition("=")
        there = f"$({name})" in makefile or f"$(if $({name})" in makefile
        if not (there if is_variable else name in _targets() or name == "help"):
            return f"make: no {word}"
    return None


def _ours(words: list[str]) -> str | None:
    if words[0].startswith("-"):
        return _parsed(cli._parser(), words)
    if words[0] not in cli.COMMANDS:
        return f"mlmodeldev: no command {words[0]}"
    if words[0] == "slurm":
        return _slurm_train(words[1:])
    return _parsed(_parser(words[0]), words[1:])


def _script(words: list[str]) -> str | None:
    """Check slurm/agent.sh, sbatch's own options before it."""
    while words and words[0].startswith("-"):
        words = words[1:]
    if not words or not (ROOT / words[0]).is_file():
        return f"no such script: {words[:1]}"
    return _parsed(_parser("agent"), words[1:]) if words[0] == "slurm/agent.sh" else None


def _python(words: list[str], project: Path) -> str | None:
    program, *rest = words
    if program == "-m":
        return _module(rest[0], rest[1:])
    if program == "slurm/SlurmTrain.py":
        return _slurm_train(rest)
    if program == "trainer.py":
        return _trainer(rest)
    if program == "inference.py":
        return _silently(importlib.import_module("inference").parse, rest)
    there = program == "-c" or any((top / program).is_file() for top in (project, ROOT))
    return None if there else f"no such file: {program}"


def _module(name: str, words: list[str]) -> str | None:
    if name.partition(".")[0] in STANDARD or name in STANDARD:
        return None
    for command, each in cli.COMMANDS.items():
        if each.module == name and not each.function:
            return _parsed(_parser(command), words)
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.origin:
        return f"python -m {name}: there is no such module"
    file = Path(spec.origin)
    source = (file.with_name("__main__.py") if file.name == "__init__.py" else file).read_text()
    missing = [w for w in words if w.startswith("--") and f'"{w.partition("=")[0]}"' not in source]
    return f"python -m {name}: does not read {missing[0]}" if missing else None


def _slurm_train(words: list[str]) -> str | None:
    from mlmodeldev.slurm import command_line

    others = {"report": cli._REPORT, "doctor": cli._DOCTOR}
    actions = {**command_line.COMMANDS, **others}
    parsed: list[argparse.Namespace] = []
    wrong = _silently(
        lambda given: parsed.append(
            command_line._parse(command_line._with_action(given, actions), actions)
        ),
        words,
    )
    if wrong:
        return wrong
    _compose(getattr(parsed[0], "overrides", []))
    sweep = str(getattr(parsed[0], "sweep", ""))
    return (
        None if not sweep.endswith(".yaml") or Path(sweep).is_file() else f"no such file: {sweep}"
    )


def _trainer(words: list[str]) -> str | None:
    """Compose the settings, of -m the first of each list."""
    flags = [w for w in words if w.startswith("-") or w == "job"]
    if wrong := [w for w in flags if w not in ("-m", "--cfg", "job", "--help")]:
        return f"trainer.py: no option {wrong[0]}"
    given = [w for w in words if w not in flags]
    if "-m" in flags:
        given = [w.split(",")[0] for w in given if not w.startswith("hydra/")]
    _compose(given)
    return None


def _compose(overrides: list[str]) -> None:
    """Compose settings; a name in capitals stands for one of the reader's."""
    compose_settings([w for w in overrides if not re.search(r"=[A-Z]+$", w)], partial=True)


@functools.cache
def _parser(name: str) -> argparse.ArgumentParser:
    kept = sys.argv, list(sys.path)
    try:
        return cli._own_parser(name)
    finally:
        sys.argv, sys.path[:] = kept


def _parsed(parser: argparse.ArgumentParser, words: list[str]) -> str | None:
    try:
        return _silently(parser.parse_intermixed_args, words)
    except TypeError:  # it has sub-commands
        return _silently(parser.parse_args, words)


def _silently(parse: Callable[[list[str]], object], words: list[str]) -> str | None:
    """Return what a parser says against these words."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            parse(words)
    except UsageError as error:
        return str(error)
    except SystemExit as end:
        return printed.getvalue().strip().splitlines()[-1] if end.code else None
    return None
