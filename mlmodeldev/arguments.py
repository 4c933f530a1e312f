"""A parser of command lines whose errors are one line, as all bad input is.

Example::

    parser = OneLineParser(prog="mlmodeldev init", description="Write a new project.")
    parser.parse_args(["--yess"])    # UsageError: unrecognized arguments: --yess
"""

from __future__ import annotations

import argparse
from typing import NoReturn

from mlmodeldev.errors import UsageError


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser that raises `UsageError` where argparse prints its usage and exits."""

    def error(self, message: str) -> NoReturn:
        """Raise the message as bad input."""
        raise UsageError(f"{message} ({self.prog} --help)")
