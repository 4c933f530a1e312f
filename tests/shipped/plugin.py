"""What pytest does where the user has changed shipped files: each test runs where it belongs.

Loaded by tests/conftest.py. The library's tests run by a pytest of their own in a copy of the
checkout, with the same arguments; then the user's run here. The exit status is the worse of both.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.shipped import OWN_TESTS, ROOT, differing, run_in_copy, summary

_CHANGED = pytest.StashKey[list[str]]()
_CODE = pytest.StashKey[int]()
_NO_TESTS = int(pytest.ExitCode.NO_TESTS_COLLECTED)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_CHANGED] = differing()
    if config.stash[_CHANGED]:
        config.args = [arg for arg in config.args if _place(arg).is_dir() or _is_own(_place(arg))]


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Run the library's tests in a copy; None: go on with the user's tests here."""
    changed = differing()
    if hasattr(config, "workerinput") or not changed or _only_shows(config):
        return None
    places = [_place(arg) for arg in config.args]
    if all(_is_own(place) for place in places):
        return None
    print(summary(changed), flush=True)
    code = _in_copy(config)
    if not any(place.is_dir() or _is_own(place) for place in places):
        return code
    config.stash[_CODE] = code
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    codes = [int(session.exitstatus), session.config.stash.get(_CODE, _NO_TESTS)]
    session.exitstatus = max((code for code in codes if code != _NO_TESTS), default=_NO_TESTS)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the library's tests to the copy."""
    below = collection_path.is_relative_to(ROOT / "tests") and collection_path != ROOT / "tests"
    if below and config.stash[_CHANGED] and not _is_own(collection_path):
        return True
    return None


def _place(argument: str) -> Path:
    return Path(argument.partition("::")[0])


def _is_own(path: Path) -> bool:
    return path.match(OWN_TESTS)


def _only_shows(config: pytest.Config) -> bool:
    options = config.option
    return bool(options.help or options.version or options.markers or options.showfixtures)


def _in_copy(config: pytest.Config) -> int:
    given = config.invocation_params
    arguments = [str(arg) for arg in given.args if not _is_own(_place(str(arg)))]
    cache = ["-o", f"cache_dir={ROOT / '.pytest_cache' / 'shipped'}"]  # for --last-failed
    own = ["--ignore-glob", str(ROOT / "tests" / OWN_TESTS)]
    below = Path(os.path.relpath(given.dir, ROOT))
    return run_in_copy([sys.executable, "-m", "pytest", *arguments, *own, *cache], below)
