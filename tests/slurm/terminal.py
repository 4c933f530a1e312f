"""``status --watch`` in a pseudo-terminal: what it draws, and what it leaves of the terminal.

terminal = Terminal(["--sweep", "sweep.yaml"])
terminal.read_until("1 running")
terminal.end()                          # the exit status
terminal.assert_untouched()
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Terminal:
    """The command in a pseudo-terminal of 80 columns."""

    def __init__(self, words: list[str]) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.modes = termios.tcgetattr(self.slave)
        self.text = ""
        environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
        # the tests may be under nohup, in a script's background
        usual = (signal.SIGHUP, signal.SIGINT)
        former = {number: signal.signal(number, signal.SIG_DFL) for number in usual}
        self.process = subprocess.Popen(
            [sys.executable, "slurm/SlurmTrain.py", "status", "--watch", "1", *words],
            cwd=ROOT, env={**environment, "TERM": "xterm-256color"},
            stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True,
        )  # fmt: skip
        for number, handler in former.items():
            signal.signal(number, handler)

    def read_until(self, text: str) -> None:
        deadline = time.monotonic() + 60
        while text not in self.plain:
            assert time.monotonic() < deadline, self.text
            if select.select([self.master], [], [], 1)[0]:
                self.text += os.read(self.master, 65536).decode(errors="replace")

    def end(self) -> int:
        """Return the exit status, once all is read."""
        status = self.process.wait(60)
        while select.select([self.master], [], [], 0)[0]:
            self.text += os.read(self.master, 65536).decode(errors="replace")
        return status

    @property
    def plain(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.text)

    def assert_untouched(self) -> None:
        assert termios.tcgetattr(self.slave) == self.modes
        for taken in ("\x1b[?25l", "\x1b[?1049h", "\x1b[?1h", "\x1b[?2004h"):
            assert taken not in self.text, "a hidden cursor, another screen, other keys"

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)
