"""A PostgreSQL of a test's own, from Debian's packages, on 127.0.0.1, with a password.

It refuses to run as root, so root starts it as the user that the packages have made.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

PACKAGES = Path(__file__).resolve().parents[2] / ".venv-extras"
PASSWORD = "correct-horse-1729"
OPTIONS = "-c fsync=off -c max_connections=20 -c shared_buffers=16MB -c listen_addresses=127.0.0.1"


def missing() -> str:
    """Return what is not there to run one; empty: all is."""
    if not (PACKAGES / "psycopg").is_dir():
        return "no psycopg: make .venv-extras"
    if not _programs():
        return "no PostgreSQL: tools/debian.sh postgresql, as root"
    if os.getuid() == 0 and not _user():
        return "no user postgres to run it as"
    return ""


def _programs() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))


def _user() -> bool:
    try:
        return bool(pwd.getpwnam("postgres"))
    except KeyError:
        return False


class Server:
    """The server; its password is in `password_file` alone, as libpq reads it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        self.password_file = self.folder / "pgpass"
        self._bin = _programs()[-1].parent
        self._own(self.folder)
        given = self.folder / "password"
        given.write_text(PASSWORD)
        self._own(given)
        options = ("-U", "lab", "-A", "scram-sha-256", f"--pwfile={given}", "-N", "-E", "UTF8")
        self._run("initdb", "-D", str(self.folder / "data"), *options)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.password_file.write_text(f"127.0.0.1:{self.port}:*:lab:{PASSWORD}\n")
        self.password_file.chmod(0o600)
        self.start()

    @property
    def url(self) -> str:
        """The address of its database."""
        return f"postgresql://lab@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        more = f"{OPTIONS} -p {self.port} -k {self.folder}"
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-l",
                  str(self.folder / "data" / "log"), "-o", more, "start")  # fmt: skip

    def stop(self) -> None:
        """Stop it at once, as a crash does."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")

    def remove(self) -> None:
        """Stop it and remove all of it."""
        self.stop()
        shutil.rmtree(self.folder)

    def _own(self, path: Path) -> None:
        if os.getuid() == 0:
            shutil.chown(path, "postgres", "postgres")

    def _run(self, name: str, *words: str) -> None:
        as_other = {"user": "postgres", "group": "postgres", "extra_groups": []}
        subprocess.run(
            [str(self._bin / name), *words],
            cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
            **(as_other if os.getuid() == 0 else {}),
        )  # fmt: skip
