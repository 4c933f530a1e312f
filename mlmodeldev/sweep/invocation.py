"""What the trials of a sweep are called with: command line, JSON and settings, on every engine.

Example::

    invocation = Invocation.of(["nice", "${interpreter}", "${program}", "${args}"], "trainer.py")
    invocation.kind                                        # Kind.TRAINER, for nice is no fork
    call = TrialCall({"optimizer": {"lr": 0.1}}, {"optimizer.lr": 0.1})
    invocation.line(call, json_file=folder / "values.json", places=["artefacts.trial=ab12cd34"])

A program with a function ``train(settings)`` is a trainer. Where the command starts it with the
sweep's values, and settings of its own at most, a fork that has imported everything does the same.
Wrappers (``nice``, ``torchrun``, a script) make it a process. Any other program is foreign: it gets
what ``wandb agent`` gives it, to the letter.
"""

from __future__ import annotations

import enum
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.project import project_root
from mlmodeldev.settings.identity import identity
from mlmodeldev.settings.overrides import parse_overrides, to_overrides
from mlmodeldev.sweep.trainer_source import has_train

TRAINER = "trainer.py"
DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
"""What W&B runs when a sweep gives no command."""

HYPHENS = ("args", "args_no_equals", "args_no_boolean_flags")
HYDRA = ("args_no_hyphens", "args_append_hydra", "args_override_hydra")
JSON = ("args_json", "args_json_file")
ARGUMENTS = (*HYPHENS, *HYDRA, *JSON)
"""Macros that stand for the sweep's values."""
MACROS = ("env", "interpreter", "program", *ARGUMENTS)
_MACRO = re.compile(r"\$\{([^}]*)\}")
_VARIABLE = "${envvar:"
_PYTHON = ("${interpreter}", "python", "python3")
"""The first is what W&B's agent runs as the second."""
_SCRIPTS = (".py", ".sh")
_BEFORE_A_SCRIPT = re.compile(
    r"\$\{(env|interpreter)\}|(.*/)?(env|python[\d.]*|(ba)?sh|nice|torchrun|accelerate|uv)"
    r"|launch|run|-\S+|\d+|[A-Za-z_]\w*=\S*"
)
"""A word that leaves the next one a file of this machine and folder; a container's is another."""
_SETTING = re.compile(
    r"(\+\+?)?[A-Za-z_][\w/@-]*(\.[\w@-]+)*=.*|~[A-Za-z_][\w./@-]*(=.*)?", re.DOTALL
)
_PASSES_ON = re.compile(r"""\btrainer\.py\b[^\n]*["']?\$(@|\{@\}|\*)["']?\s*$""", re.MULTILINE)


class Kind(enum.Enum):
    """How a trial runs."""

    FORK = "fork"
    """A fork that calls the program's ``train``."""
    TRAINER = "trainer"
    """The command, a process; the trial's record is the trainer's."""
    FOREIGN = "foreign"
    """The command, a process; the record is kept by who starts it."""


@dataclass(frozen=True)
class TrialCall:
    """What one trial is called with."""

    values: Mapping[str, Any]
    """The sweep's values by the names of its file, nested as they stand there."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The same by dotted key, and what the command itself sets: what the trial is."""

    @property
    def id(self) -> str:
        """The trial's identity."""
        return identity(self.settings)


@dataclass(frozen=True)
class Invocation:
    """How the trials of one sweep are started.

    Attributes:
        command: as the file has it, or W&B's default.
        program: what ``${program}`` stands for.
        kind: how a trial runs.
        module: that has ``train``, of a fork.
        fixed: places in the command of settings that it gives to each trial of a trainer.
        missing: why it can't be started, if that can be seen: the sweep's key, and what is wrong.
    """

    command: tuple[str, ...]
    program: str
    kind: Kind
    module: str = "trainer"
    fixed: tuple[int, ...] = ()
    missing: tuple[str, str] | None = None

    @classmethod
    def of(
        cls, command: Sequence[str] | None, program: str | None, root: Path | None = None
    ) -> Invocation:
        """Return how a sweep's trials are started.

        Args:
            command: of the sweep, if it has one.
            program: likewise.
            root: the project's folder, from which a program is meant.
        """
        root = root or project_root()
        words = tuple(command or DEFAULT_COMMAND)
        name = program or TRAINER
        named = [name if word == "${program}" else word for word in words]
        place = next((i for i, word in enumerate(named) if _is_trainer(word, root)), None)
        missing = _missing(words, name, root)
        if place is None:
            passes_on = program is not None and _is_trainer(program, root)
            passes_on = passes_on and any(_hands_over(word, root) for word in named)
            kind = Kind.TRAINER if passes_on else Kind.FOREIGN
            return cls(words, name, kind, missing=missing)
        fixed = tuple(
            i
            for i, word in enumerate(words)
            if i > place and not _MACRO.fullmatch(word) and _SETTING.fullmatch(word)
        )
        module = _module(named[place], root)
        forks = module is not None and _is_plain(words, place, fixed)
        kind = Kind.FORK if forks else Kind.TRAINER
        return cls(words, name, kind, module or "trainer", fixed, missing)

    def at(self, root: Path) -> Invocation:
        """Return the same with full paths of the project's code, for calls from any folder."""
        is_file = (root / self.program).is_file()
        words = [str(root / word) if _is_code(word, root) else word for word in self.command]
        program = str(root / self.program) if is_file else self.program
        return replace(self, command=tuple(words), program=program)

    @property
    def is_foreign(self) -> bool:
        """Whether nothing is known of the names and types of its parameters."""
        return self.kind is Kind.FOREIGN

    @property
    def name(self) -> str:
        """What it runs, for a message."""
        if "program" in self.macros:
            return self.program
        return " ".join(word for word in self.command if not word.startswith("${"))

    @property
    def macros(self) -> set[str]:
        """The macros in the command, without braces."""
        return {match[1] for word in self.command if (match := _MACRO.fullmatch(word))}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the command itself sets, by dotted key.

        Raises:
            UsageError: an item that Hydra can't read.
        """
        return parse_overrides(self._filled([self.command[i] for i in self.fixed]))

    def check(self) -> None:
        """Raise the first mistake in the command.

        Raises:
            UsageError: an unknown macro.
        """
        for item in self.command:
            if message := macro_message(item):
                raise UsageError(f"the sweep's command: {message}")

    def line(self, call: TrialCall, json_file: Path, places: Sequence[str] = ()) -> list[str]:
        """Return a trial's command line.

        Args:
            call: the trial's values.
            json_file: holds them, for ``${args_json_file}``.
            places: more settings of a trainer, such as those that say where the trial lies; what
                the sweep or its command sets comes before them.
        """
        macros = {
            "env": ["/usr/bin/env"],
            "interpreter": [sys.executable],
            "program": [self.program],
            **self._forms(call, json_file),
        }
        line: list[str] = []
        for name, item in self._words:
            line += [item] if name is None else macros.get(name, [])
        line = _resolved(line)
        if self.is_foreign:
            return line
        own = {key.lstrip("+") for key in call.settings}
        return line + [item for item in places if item.partition("=")[0].lstrip("+") not in own]

    @property
    def _words(self) -> list[tuple[str | None, str]]:
        """The words of the command, with the macro that one stands for."""
        if any(_VARIABLE in item for item in self.command):
            return _macros_in(self._filled(self.command))
        return self._own_words

    @cached_property
    def _own_words(self) -> list[tuple[str | None, str]]:
        return _macros_in(self.command)

    def _forms(self, call: TrialCall, json_file: Path) -> dict[str, list[str]]:
        if not self.is_foreign:
            # Whatever the macro: a trainer reads Hydra's spelling, which keeps types.
            own = {k: v for k, v in call.settings.items() if k not in self.settings}
            return dict.fromkeys(ARGUMENTS, to_overrides(own))
        _, argument_forms = wandb_macros()
        forms = argument_forms({"args": {k: {"value": v} for k, v in call.values.items()}})
        return {**forms, "args_json_file": [str(json_file)]}

    @staticmethod
    def _filled(items: Sequence[str]) -> list[str]:
        """Return items with the environment's variables in the place of ``${envvar:NAME}``."""
        if not any(_VARIABLE in item for item in items):
            return list(items)  # without W&B's client, which takes its time to import
        fill_environment, _ = wandb_macros()
        return fill_environment(list(items))


@cache
def wandb_macros() -> tuple[
    Callable[[list[str]], list[str]], Callable[[dict[str, Any]], dict[str, Any]]
]:
    """Return W&B's own functions that fill a command: environment variables, forms of the values.

    They are no part of its public interface, so they are imported here alone; what W&B makes of a
    value (``--flag``, ``key=None``) is not for us to imitate.
    """
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    return create_sweep_command, create_sweep_command_args


def macro_message(item: str) -> str | None:
    """Return what is wrong with the macros in an item of a command, or None."""
    for name in _MACRO.findall(item):
        if re.fullmatch(r"envvar:[A-Z0-9_]*", name):
            continue
        allowed = ", ".join(f"${{{macro}}}" for macro in (*MACROS, "envvar:NAME"))
        if name not in MACROS:
            hint = nearest(name, MACROS)
            message = f"${{{name}}} is no macro of W&B, which drops it silently"
            return f"{message}{hint}; allowed: {allowed}"
        if item != f"${{{name}}}":
            return f"{item!r}: W&B replaces ${{{name}}} only where it stands alone"
    return None


# --- the program


def _is_trainer(word: str, root: Path) -> bool:
    """Return whether a word of a command is a trainer: by its name, or by its ``train``."""
    if not word.endswith(".py"):
        return False
    return Path(word).name == TRAINER or has_train(root / word, root)


def _is_code(word: str, root: Path) -> bool:
    """Return whether a word of a command is a script of the project."""
    return Path(word).suffix in _SCRIPTS and (root / word).is_file()


def _module(name: str, root: Path) -> str | None:
    """Return the module of a file in the project; None for one that lies elsewhere."""
    path = Path(name)
    if path.is_absolute():
        if not path.is_relative_to(root):
            return None
        path = path.relative_to(root)
    return None if ".." in path.parts else ".".join(path.with_suffix("").parts)


def _is_plain(words: Sequence[str], place: int, fixed: Sequence[int]) -> bool:
    """Return whether a command starts the trainer with values and settings, and does no more."""
    before = {i for i, word in enumerate(words) if word in ("${env}", *_PYTHON)}
    values = {f"${{{name}}}" for name in ARGUMENTS}
    given = {i for i, word in enumerate(words) if i > place and word in values}
    others = set(range(len(words))) - {place, *before, *given, *fixed}
    return all(i < place for i in before) and not others and bool(given)


def _hands_over(word: str, root: Path) -> bool:
    """Return whether a word is a script that ends a call of trainer.py with its own arguments."""
    path = root / word
    if "$" in word or not os.path.isfile(path):  # noqa: PTH113 - no error for odd names
        return False
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return len(re.findall(r"\btrainer\.py\b", text)) == 1 and bool(_PASSES_ON.search(text))


def _missing(words: Sequence[str], program: str, root: Path) -> tuple[str, str] | None:
    """Return which key names what can't be started, and why, where a look at the disk tells."""
    script = _first_script(words)
    if script and not os.path.isfile(root / script) and not shutil.which(script):  # noqa: PTH113
        return "command", f"{root / script}: no such file"
    if "${program}" in words and (why := _missing_program(words, program, root)):
        return "program", why
    return None


def _first_script(words: Sequence[str]) -> str:
    """Return the script that a command itself names to be run; empty: none, or none for sure."""
    place = next((i for i, word in enumerate(words) if not _BEFORE_A_SCRIPT.fullmatch(word)), 0)
    word, before = words[place], words[place - 1] if place else ""
    is_script = Path(word).suffix in _SCRIPTS and not set(word) & set("$ \n")
    return word if is_script and before not in ("-m", "-c") else ""


def _missing_program(words: Sequence[str], program: str, root: Path) -> str:
    before = words[words.index("${program}") - 1] if words[0] != "${program}" else ""
    if before == "-m" or os.path.isfile(root / program):  # noqa: PTH113
        return ""
    is_file = before in _PYTHON or "/" in program or Path(program).suffix in _SCRIPTS
    if is_file:
        return f"{root / program}: no such file"
    is_command = shutil.which(program) or os.path.isfile(_beside_python(program))  # noqa: PTH113
    return "" if is_command else f"{program}: no such file, and no such command"


def _beside_python(name: str) -> Path:
    """Return where a program of our own Python environment lies."""
    return Path(sys.executable).parent / name


def _macros_in(words: Sequence[str]) -> list[tuple[str | None, str]]:
    return [(match[1] if (match := _MACRO.fullmatch(each)) else None, each) for each in words]


def _resolved(line: list[str]) -> list[str]:
    """Return a command line that starts ``torchrun`` though the environment is not activated."""
    place = 1 if line[:1] == ["/usr/bin/env"] else 0
    if place < len(line) and "/" not in line[place] and not shutil.which(line[place]):
        path = _beside_python(line[place])
        return [*line[:place], str(path), *line[place + 1 :]] if os.path.isfile(path) else line  # noqa: PTH113
    return line
