"""Where it all happens: a cluster, a W&B server, a small disk for the runs, clocks.

Example::

    with Scene(SIZES["3"]) as scene:
        scene.submit_all()
        ...
        scene.queue()                    # jobs that are still there
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.trials import OURS_ONLY, ROOT, SETTINGS, Size, Trials, names, own_settings
from tests.slurm import machine
from tests.slurm.cluster import OVER, Cluster, Missing
from tests.wandb.server import KEY, Server
from tests.wandb.store import ENTITY
from tests.wandb.sweeps import Sweep

PREFIX = "mlmodeldev-chaos-"
LEASE_SECONDS = 15
"""Of the trials; it is 180 otherwise, for which a test can't wait."""
DISK_MB = 1500
CLUSTER = """\
defaults: [base, _self_]
name: chaos
launcher: slurm
minutes: 3
cpus_per_task: 2
gpus_per_task: 0
max_jobs: {jobs}
trials_per_gpu: {slots}
warn_seconds: 60
setup: [". {profile}"]
"""


class Scene:
    """One place, of its own folder and ports; gone when it is left.

    Attributes:
        folder: holds everything; ``runs`` in it is a disk of its own.
        cluster, server: with the faults that they can be told to have.
        trials: the project and its sweeps.
        sweep: the agents' sweep on the server.
        launchers: commands of the user that are still at it.
        away: nodes that are down.
        removed: trials whose folder somebody has removed.
        released_jobs: those that Slurm had held and the user let go.
        watchdog: whether a trial that hangs is result by the library itself.
    """

    def __init__(self, size: Size) -> None:
        self.size = size
        remove_leftovers()
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        machine.own(self.folder)
        self.runs, self.clocks = self.folder / "runs", self.folder / "clocks"
        self.released = self.folder / "released"
        self.spans = self.folder / "spans.txt"
        self.trials = Trials(self.folder, size)
        self.cluster = Cluster(nodes=4, grace=5, accounting=False)
        self.agent_jobs: list[str] = []
        self.launchers: list[subprocess.Popen[str]] = []
        self.away: set[str] = set()
        self.removed: set[str] = set()
        self.released_jobs: list[str] = []
        self.watchdog = False
        self.printed = self.folder / "printed.txt"

    def __enter__(self) -> Scene:
        self.runs.mkdir()
        self.clocks.mkdir()
        self.spans.touch()
        with contextlib.ExitStack() as stack:
            stack.callback(remove, self.folder)
            self._make_disk()
            self.server = Server()
            stack.callback(self.server.close)
            self.cluster.start()
            stack.callback(self.cluster.stop)
            self._write_profile()
            text = self.trials.files["served"].read_text()
            self.sweep = Sweep(self.server.store, ENTITY, "chaos", text)
            self.server.store.sweeps[self.sweep.name] = self.sweep
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def _make_disk(self) -> None:
        """Mount a small file system for the runs, which can be filled."""
        image = self.folder / "disk"
        with image.open("wb") as file:
            file.truncate(DISK_MB << 20)
        make = ("mkfs.ext4", "-q", "-m", "0", "-N", "100000", image)
        for command in (make, ("mount", "-o", "loop", image, self.runs)):
            try:
                subprocess.run(command, check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                raise Missing(f"a disk of the trials' own can't be had: {error}") from None
        (self.runs / "lost+found").rmdir()

    def _write_profile(self) -> None:
        """Write what jobs have in their environment, and the cluster as the project sees it."""
        home = self.folder / "home"
        home.mkdir()
        machine = self.server.url.partition("//")[2]
        (home / ".netrc").write_text(f"machine {machine} login user password {KEY}\n")
        (home / ".netrc").chmod(0o600)
        self.environment = {
            "PYTHONPATH": f"{Path(__file__).with_name('in_jobs')}:{ROOT}",
            "HOME": str(home),
            "OMP_NUM_THREADS": "1",
            "MLMODELDEV_PYTHON": sys.executable,
            "STEP_SECONDS": str(self.size.step_seconds),
            "RELEASE": str(self.released),
            "SPANS": str(self.spans),
            "CHAOS_CLOCKS": str(self.clocks),
            "CHAOS_LEASE": str(LEASE_SECONDS),
            "WANDB_BASE_URL": self.server.url,
            "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1",
            "WANDB__DISABLE_STATS": "true",
        }
        profile = self.trials.project / "slurm" / "profile.sh"
        profile.write_text("".join(f"export {k}='{v}'\n" for k, v in self.environment.items()))
        file = self.trials.project / "conf" / "cluster" / "chaos.yaml"
        file.parent.mkdir()
        size = self.size
        file.write_text(CLUSTER.format(jobs=size.jobs, slots=size.slots, profile=profile))

    # --- what a user does

    def train(self, action: str, name: str) -> subprocess.CompletedProcess[str]:
        """Call SlurmTrain.py for a sweep."""
        process = self.start_train(action, name)
        output, _ = process.communicate(timeout=600)
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def start_train(self, action: str, name: str) -> subprocess.Popen[str]:
        """Start SlurmTrain.py for a sweep."""
        script = self.trials.project / "slurm" / "SlurmTrain.py"
        again = [f"artefacts.runs_dir={self.runs}"]
        words = self.overrides(name) if action == "submit" else again
        file = self.trials.files[name]
        process: subprocess.Popen[str] = self.start(
            [sys.executable, script, action, "--sweep", file, "--yes", *words]
        )
        return process

    def start(self, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Any:
        """Start a command of the user's in the project."""
        return subprocess.Popen(
            [str(part) for part in command], cwd=self.trials.project, text=True,
            env={**self.cluster.env, **self.environment, **(env or {})},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def call(self, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Any:
        """Run a command of the user's to its end."""
        process = self.start(command, env)
        output, _ = process.communicate(timeout=900)
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def keep(self, process: subprocess.Popen[str]) -> None:
        """Keep what a command that has ended has printed, for a failure's report."""
        output, _ = process.communicate(timeout=600)
        with self.printed.open("a") as file:
            words = " ".join(map(str, process.args))  # type: ignore[arg-type]
            file.write(f"--- {words}: exit status {process.returncode}\n{output}")

    def overrides(self, name: str) -> list[str]:
        """Return the settings of a sweep's trials."""
        count = len(names(self.trials.files[name]))
        each = math.ceil(count / self.size.jobs / (1 if count < 50 else 3))
        job = ["cluster=chaos", f"cluster.trials_per_job={each}", "logger=csv"]
        return [*SETTINGS, *own_settings(name), *self.places, *job]

    @property
    def places(self) -> list[str]:
        """Settings that say where trials and data lie."""
        return [f"artefacts.runs_dir={self.runs}", f"artefacts.data_dir={self.folder}/data"]

    def submit_agents(self, count: int) -> None:
        """Submit agents of the W&B sweep, as docs/wandb.md says."""
        job = self.cluster.run(
            "sbatch", "--parsable", f"--array=1-{count}", "--cpus-per-task=2", "--time=10",
            f"--chdir={self.trials.project}", f"--output={self.folder}/agent-%a.log",
            self.trials.project / "slurm" / "agent.sh", f"{ENTITY}/chaos/{self.sweep.name}",
            f"--slots={self.size.slots}", *SETTINGS, *OURS_ONLY, *self.places,
        )  # fmt: skip
        self.agent_jobs.append(job.partition(";")[0])

    # --- what is there

    def folders(self) -> dict[str, Path]:
        """Return the folder of each sweep, by its file's name."""
        served = {"served": self.runs / self.sweep.name}
        return {name: self.runs / name for name in ("ours", "theirs")} | served

    def records(self) -> list[tuple[Path, dict[str, Any]]]:
        """Return the trials that have begun, with their records."""
        result = []
        for file in sorted(self.runs.glob("*/*/trial.json")):
            with contextlib.suppress(OSError, ValueError):
                result.append((file.parent, json.loads(file.read_text())))
        return result

    def queue(self, running: bool = False) -> list[str]:
        """Return the jobs that have not ended, or those that run, high ones left out."""
        states = ("-t", "R") if running else ("-t", "all")
        text = self.cluster.run("squeue", "-h", "-r", *states, "-o", "%i %T %P", check=False)
        rows = [line.split() for line in text.splitlines()]
        return sorted(r[0] for r in rows if len(r) == 3 and r[1] not in OVER and r[2] == "main")

    def names_in_queue(self) -> set[str] | None:
        """Return the names of the jobs that have not ended; None: Slurm does not answer."""
        try:
            text = self.cluster.run("squeue", "-h", "-t", "all", "-o", "%j %T")
        except AssertionError:
            return None
        rows = [line.split() for line in text.splitlines()]
        return {row[0] for row in rows if row[1] not in OVER}

    def processes(self, pattern: str) -> list[int]:
        """Return processes of the cluster's jobs whose command line matches, by start."""
        result = []
        for pid in machine.processes(self.cluster.folder):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                if re.search(pattern, words):
                    result.append((machine.start_ticks(pid) or 0, pid))
        return [pid for _, pid in sorted(result)]

    def job_processes(self) -> dict[int, str]:
        """Return the processes that jobs have started, with their command lines."""
        result = {}
        for pid in machine.processes(self.cluster.folder):
            with contextlib.suppress(OSError):
                if b"\0SLURM_JOB_ID=" in Path(f"/proc/{pid}/environ").read_bytes():
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                    result[pid] = words.decode(errors="replace")[:200]
        return result

    def calm_environment(self) -> dict[str, str]:
        """Return what the undisturbed trials have in their environment."""
        own = {k: v for k, v in self.environment.items() if k in ("HOME", "OMP_NUM_THREADS")}
        return {**self.cluster.env, **own, "PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"}

    def logs(self) -> str:
        """Return what jobs and agents have printed."""
        files = [*self.folder.glob("agent-*.log"), *self.runs.glob("*/.jobs/*/*_log.out")]
        return "\n".join(f"--- {file}\n{_tail(file)}" for file in files)


def remove(folder: Path) -> None:
    """Unmount the disk of a scene and remove its folder."""
    subprocess.run(["umount", "--lazy", folder / "runs"], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers() -> None:
    """Remove the scenes whose processes were killed; their clusters end by themselves."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/"):
        with contextlib.suppress(OSError, ValueError):
            owner = json.loads((folder / "owner.json").read_text())
            if machine.start_ticks(owner["pid"]) != owner["started"]:
                remove(folder)


def _tail(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text(errors="replace")[-4000:]
    return ""
