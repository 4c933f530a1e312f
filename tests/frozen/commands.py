"""Commands run from outside, in an environment of their own, with this machine's paths left out.

Example::

    place = Place(tmp_path)
    done = place.run("python trainer.py optimizer.lrr=1 artefacts.runs_dir=@HERE@/runs")
    done.status, done.err            # 2, 'trainer.py: optimizer.lrr: no such setting; ...'
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FROZEN = Path(__file__).resolve().parent

_OURS = ("WANDB_", "SLURM_", "SBATCH_", "SQUEUE_", "MLMODELDEV_", "PYTEST_", "HYDRA_", "PRETENDED_")
_FIXED = {
    "MLMODELDEV_CLUSTER": "local",
    "WANDB_MODE": "offline",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "CUDA_VISIBLE_DEVICES": "",
    "COLUMNS": "100",
    "NO_COLOR": "1",
    "LC_ALL": "C.UTF-8",
}
SLURM_COMMANDS = ("sbatch", "squeue", "scontrol", "sinfo", "sacct", "sacctmgr", "scancel", "srun")


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed, without paths of this machine."""

    status: int
    out: str
    err: str


class Place:
    """A folder that commands write to: ``@HERE@`` in their words.

    Commands run in the project's folder, as a user's do. Its ``bin`` holds Slurm's commands, which
    answer as on a machine that has the packages and no cluster, or as a pretended cluster.

    Args:
        folder: the place.
        slurm: whether the pretended cluster of `pretended_slurm.py` answers.
    """

    def __init__(self, folder: Path, slurm: bool = False) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
        path = f"{_slurm_commands(folder / 'bin', slurm)}:{kept.get('PATH', '')}"
        self.env = {
            **kept,
            **_FIXED,
            "PATH": path,
            "HOME": str(folder / "home"),
            "PYTHONPATH": str(ROOT),
            "MLMODELDEV_PYTHON": sys.executable,
            "PRETENDED_SLURM": str(folder / "slurm.json"),
        }

    def words(self, line: str) -> tuple[dict[str, str], list[str]]:
        """Return the variables set at a line's beginning, and the command itself."""
        parts = [part.replace("@HERE@", str(self.folder)) for part in shlex.split(line)]
        variables: dict[str, str] = {}
        while re.match(r"[A-Z_]+=", parts[0]):
            name, _, variables[name] = parts.pop(0).partition("=")
        return variables, [sys.executable, *parts[1:]] if parts[0] == "python" else parts

    def start(self, line: str) -> subprocess.Popen[str]:
        """Begin a command as a shell would be given it; ``python`` is the one that runs this."""
        variables, command = self.words(line)
        return subprocess.Popen(
            command,
            env={**self.env, **variables},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, line: str, seconds: float = 240) -> Done:
        """Run a command to its end."""
        process = self.start(line)
        out, err = process.communicate(timeout=seconds)
        return Done(process.returncode, self.plain(out), without_renamed(self.plain(err)))

    def run_all(self, lines: Iterable[str]) -> list[Done]:
        """Run several commands, two at a time."""
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(self.run, lines))

    def plain(self, text: str) -> str:
        """Return a text with this machine's paths and the package's inner names left out."""
        text = re.sub(r"-m mlmodeldev(?!\.sweep\b)[\w.]*", "-m @MODULE@", text)
        for path, name in self._names().items():
            text = text.replace(path, name)
        return text

    def _names(self) -> Mapping[str, str]:
        # The longest first: one may lie in another.
        names = {sys.executable: "@PYTHON@", str(self.folder): "@HERE@", str(ROOT): "@PROJECT@"}
        return dict(sorted(names.items(), key=lambda item: -len(item[0])))


def without_renamed(text: str) -> str:
    """Return what was printed without the lines that say a setting's new name."""
    return re.sub(r"(?m)^warning: (\S+) is called (\S+) now\n", "", text)


def without_usage(text: str) -> str:
    """Return what was printed without argparse's usage, which is wrapped by Python's version."""
    return re.sub(r"(?ms)^usage: .*?(?=^[^\n]+: error: )", "", text)


def _slurm_commands(folder: Path, pretended: bool) -> Path:
    folder.mkdir(exist_ok=True)
    program = FROZEN / "pretended_slurm.py"
    answer = f'exec {shlex.quote(sys.executable)} {shlex.quote(str(program))} "$(basename $0)" "$@"'
    refusal = "echo 'fatal: Could not establish a configuration source' >&2; exit 1"
    for name in SLURM_COMMANDS:
        file = folder / name
        file.write_text(f"#!/bin/sh\n{answer if pretended else refusal}\n")
        file.chmod(0o755)
    return folder
