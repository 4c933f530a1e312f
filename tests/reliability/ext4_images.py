"""A real ext4 on a loop device, of which copies are taken while it is mounted and written to.

A copy of the backing file at a moment is what a power cut at that moment leaves: what the kernel
has not yet written to the device is not in it. Mounting the copy replays ext4's journal.

Example::

    with mounted(scratch / "disk", HARSH) as disk:
        copy = disk.copy(scratch / "copy")          # the power goes
    with opened(copy) as folder: ...
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SIZE = 64 << 20
USUAL = "data=ordered"
HARSH = "data=writeback,noauto_da_alloc,commit=1"
"""Names go to the disk every second, the content of their files when it pleases."""


def missing() -> str:
    """Return why there can be no loop device here; empty: there can."""
    if os.getuid() != 0:
        return "only root may mount"
    if not all(map(shutil.which, ("losetup", "mkfs.ext4", "mount"))):
        return "losetup, mkfs.ext4 or mount are not installed"
    done = subprocess.call(["losetup", "--find"], stdout=subprocess.DEVNULL)
    return "" if done == 0 else "this machine has no loop devices"


def _call(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


@dataclass
class Mounted:
    """A file system in a file, mounted."""

    image: Path
    device: Path
    folder: Path

    def copy(self, target: Path, attempts: int = 200) -> Path:
        """Copy the device as it is at one moment: nothing was written to it meanwhile."""
        for _ in range(attempts):
            before = self._written()
            _call("cp", "--sparse=always", self.image, target)
            if self._written() == before:
                return target
            time.sleep(0.002)
        raise AssertionError("the device is written to all the time")

    def _written(self) -> tuple[str, str]:
        """Return how many writes the device has done, and how many it has in hand."""
        fields = Path("/sys/block", self.device.name, "stat").read_text().split()
        return fields[4], fields[8]


@contextlib.contextmanager
def mounted(image: Path, options: str) -> Iterator[Mounted]:
    """Make a file system and mount it."""
    with image.open("wb") as file:
        file.truncate(SIZE)
    _call("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
    with opened(image, options) as made:
        yield made


@contextlib.contextmanager
def opened(image: Path, options: str = USUAL) -> Iterator[Mounted]:
    """Mount an image, which replays its journal."""
    folder = image.with_name(f"{image.name}-mounted")
    folder.mkdir(exist_ok=True)
    device = Path(_call("losetup", "--find", "--show", image))
    try:
        _call("mount", "-t", "ext4", "-o", options, device, folder)
        try:
            yield Mounted(image, device, folder)
        finally:
            _call("umount", folder)
    finally:
        _call("losetup", "--detach", device)
        folder.rmdir()


def is_sound(image: Path) -> bool:
    """Whether ext4's own checker finds nothing, after the journal was replayed."""
    command = ["e2fsck", "-fn", str(image)]
    return subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
