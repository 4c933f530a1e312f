"""What docs/wandb.md tells a user without an account to type, word for word; it leaves no key.

Keys are planted wherever a careless user has them: in the environment, in a `.netrc` that others
can read, in the address of the repository, in code that was changed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.secrets.planted import HEX, KEYS, NEW
from tests.wandb.server import KEY

ROOT = Path(__file__).resolve().parents[2]
TOKEN = KEYS["GitHub"]
PLANTED = {
    "of W&B, in the environment": KEY,
    "in .netrc": HEX,
    "in the address": TOKEN,
    "in code": NEW,
}

pytestmark = [pytest.mark.project, pytest.mark.slow, pytest.mark.timeout(1800)]


@dataclass
class Tried:
    """A clone in which the block was run."""

    clone: Path
    home: Path
    code: int
    output: str
    shown: set[str] = field(default_factory=set)
    """Keys that stood on a command line meanwhile."""


def git(clone: Path, *words: str) -> None:
    names = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *names, *words], cwd=clone, capture_output=True, check=True)


def clone_of_the_project(clone: Path) -> None:
    """Copy the tracked files, as they are, into a repository with planted keys."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, listed):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, clone / name)
    (clone / ".venv").symlink_to(sys.prefix)
    git(clone, "init", "-q")
    git(clone, "add", "-A")
    git(clone, "commit", "-q", "--no-verify", "-m", "first")
    git(clone, "remote", "add", "origin", f"https://{TOKEN}:x-oauth-basic@example.org/p.git")
    with (clone / "Makefile").open("a") as file:
        file.write(f"# wandb login {NEW}\n")


@pytest.fixture(scope="module")
def tried(tmp_path_factory: Any) -> Iterator[Tried]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "wandb.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "tests.wandb.server" in block]
    home = tmp_path_factory.mktemp("home")
    clone = home / "clone"
    clone_of_the_project(clone)
    (home / ".netrc").write_text(f"machine example.org login user password {HEX}\n")
    (home / ".netrc").chmod(0o644)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "SLURM_"))}
    env = {
        **kept,
        "PATH": f"{clone}/.venv/bin:{kept['PATH']}",
        "HOME": str(home),
        "OMP_NUM_THREADS": "1",
    }
    shown: set[str] = set()
    over = threading.Event()
    watcher = threading.Thread(target=watch_command_lines, args=(shown, over), daemon=True)
    watcher.start()
    printed = home / "printed"
    # the server, if a line fails; it may have ended
    script = f"trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{block}"
    with printed.open("w") as file:  # no pipe, which the server would keep open
        done = subprocess.run(
            ["bash", "-m", "-ec", script], cwd=clone, env=env, stdout=file, stderr=file,
            timeout=500, check=False,
        )  # fmt: skip
    over.set()
    watcher.join()
    yield Tried(clone, home, done.returncode, printed.read_text(), shown)


def watch_command_lines(shown: set[str], over: threading.Event) -> None:
    """Note the planted keys that any process's command line shows, as `ps` would."""
    while not over.wait(0.2):
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = file.read_bytes().decode(errors="replace")
            except OSError:
                continue
            shown |= {where for where, key in PLANTED.items() if key in line}


def test_the_path_without_an_account_works_as_written(tried: Tried):
    assert tried.code == 0, tried.output
    records = [json.loads(f.read_text()) for f in tried.clone.glob("runs/*/*/trial.json")]
    assert [r["state"] for r in records] == ["done"] * 2
    assert all(r["uploaded"] for r in records)
    assert "1 runs taken (--count); 1 trials ended well, 0 failed" in tried.output


def test_no_key_is_left_behind(tried: Tried):
    own = [tried.home / ".netrc", tried.clone / "Makefile", tried.clone / "server.log"]
    files = [
        file
        for file in tried.home.rglob("*")
        if file.is_file() and file not in own and not {".git", ".venv"} & {*file.parts}
    ]
    names = {file.name for file in files}
    assert {"trial.json", "changes.diff", "wandb-metadata.json", "log.txt", "sweep.log"} <= names
    assert any(name.endswith(".wandb") for name in names)
    leaks = {
        (str(file.relative_to(tried.home)), where)
        for file in files
        for where, key in PLANTED.items()
        if key.encode() in file.read_bytes()
    }
    assert leaks == set()
    assert [where for where, key in PLANTED.items() if key in tried.output] == []
    assert tried.shown == set()


def test_the_code_is_described_without_the_keys_in_it(tried: Tried):
    for record in tried.clone.glob("runs/*/*/trial.json"):
        assert json.loads(record.read_text())["remote"] == "https://example.org/p.git"
        changes = (record.parent / "changes.diff").read_text()
        assert "+# wandb login [W&B API key]" in changes
    assert "others can read your keys (mode 644)" in tried.output + "".join(
        file.read_text() for file in tried.clone.glob("runs/*/*/log.txt")
    )
