"""A real Slurm of several nodes on this machine, in a few seconds: no systemd, no GPU, loopback.

Example::

    with Cluster(nodes=4) as cluster:
        job = cluster.sbatch("--wrap", "srun hostname")
        cluster.wait_for(lambda: cluster.state(job) == "COMPLETED", 30)
        cluster.kill_node("n2")            # slurmd and all that it started, by SIGKILL
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.slurm import machine
from tests.slurm.configuration import Layout, Ports, write
from tests.slurm.machine import wait_for

ROOT = Path(__file__).resolve().parents[2]
_QUESTIONS = ("squeue", "sinfo", "sacct", "scontrol")
_UNANSWERED = ("Unable to contact slurm controller", "timed out", "Connection refused")


OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
"""States of jobs that have ended for good, as squeue tells them."""


class Missing(Exception):
    """Slurm can't be brought up here; the text says why."""


class Slurm:
    """A Slurm that is there: its commands, run from outside.

    Attributes:
        env: environment in which its commands work.
        owned: whether its daemons and nodes are the test's to kill.
    """

    owned = False

    def __init__(self) -> None:
        ours = ("SLURM_", "SBATCH_")
        self.env = {
            k: v for k, v in os.environ.items() if k == "SLURM_CONF" or not k.startswith(ours)
        }

    wait_for = staticmethod(wait_for)

    def run(self, *command: str | Path, check: bool = True, timeout: float = 60) -> str:
        """Run a command on the login node; return what it prints.

        A question that a busy controller did not answer is asked again, for a minute.
        """
        parts = [str(part) for part in command]
        deadline = time.monotonic() + 60
        while True:
            done = subprocess.run(
                parts, env=self.env, capture_output=True, text=True, timeout=timeout, check=False
            )
            unanswered = any(text in done.stderr for text in _UNANSWERED)
            if not (unanswered and parts[0] in _QUESTIONS) or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        if check and done.returncode:
            raise AssertionError(f"{parts}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def sbatch(self, *arguments: str | Path) -> str:
        """Submit; return the job's number."""
        return self.run("sbatch", "--parsable", *arguments).partition(";")[0]

    def scontrol(self, *arguments: str) -> str:
        """Run scontrol."""
        return self.run("scontrol", *arguments)

    def state(self, job: str) -> str:
        """Return what squeue says of a job, also of one that has ended lately."""
        answer = self.run("squeue", "-h", "-t", "all", "-o", "%T", "-j", job, check=False)
        return answer.splitlines()[0] if answer else ""

    def over(self, *jobs: str) -> bool:
        """Whether jobs, with all their tasks, have ended; no answer is no end."""
        command = ("squeue", "-h", "-r", "-t", "all", "-o", "%T", "-j", ",".join(jobs))
        states = self.run(*command, check=False).split()
        return bool(states) and set(states) <= OVER

    def job(self, job: str) -> dict[str, str]:
        """Return the fields of ``scontrol show job``."""
        text = self.run("scontrol", "-o", "show", "job", job, check=False)
        line = text.splitlines()[0] if text else ""
        return dict(part.split("=", 1) for part in line.split() if "=" in part)

    def bring_limit_near(self, job: str) -> None:
        """Let a running job meet its time limit in one to two minutes; Slurm warns it by itself."""
        hours, minutes, _ = self.job(job)["RunTime"].split(":")
        limit = 60 * int(hours) + int(minutes) + 2
        self.scontrol("update", f"JobId={job}", f"TimeLimit={limit}")

    def wait_for_requeue(self, job: str, minutes: int, seconds: float = 200) -> None:
        """Wait for a job's next start, and give that so many minutes."""
        self.wait_for(lambda: self.job(job).get("Restarts", "0") != "0", seconds, f"requeue {job}")
        # it may have come to its end by now
        self.run("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}", check=False)

    def running(self, *arguments: str) -> list[str]:
        """Return the jobs and array tasks that run now."""
        return self.run("squeue", "-h", "-r", "-t", "R", "-o", "%i", *arguments).split()

    def sacct(self, job: str, fields: str = "JobID,State,ExitCode,NodeList") -> list[list[str]]:
        """Return sacct's rows of a job, all attempts, without steps."""
        text = self.run("sacct", "-n", "-X", "-D", "-P", "-j", job, "-o", fields)
        return [line.split("|") for line in text.splitlines()]


class Cluster(Slurm):
    """A Slurm of its own, in one temporary folder; several may live side by side.

    Args:
        keep: leave it up when this process ends (``make slurm``).
        what: fields of `Layout`.
    """

    owned = True

    def __init__(self, keep: bool = False, **what: Any) -> None:
        super().__init__()
        self.keep = keep
        self._what = what
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    # --- up

    def start(self) -> Cluster:
        """Bring it up and wait until all nodes are idle.

        Raises:
            Missing: not root, or no packages.
        """
        _require()
        machine.end_orphans()
        with machine.machine_lock():
            self._prepare()
            try:
                self._start_daemons()
            except BaseException as error:
                logs = self.logs()
                machine.kill_processes(self.folder)
                machine.unname_hosts(self.folder)
                shutil.rmtree(self.folder, ignore_errors=True)
                raise RuntimeError(f"the cluster did not come up: {error}\n{logs}") from error
        return self

    def _prepare(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=machine.PREFIX))
        self.folder.chmod(0o755)
        if not self.keep:
            machine.own(self.folder)
        nodes = self._what.get("nodes", 4)
        control, database, sql, *slurmd = machine.free_ports(3 + nodes)
        ports = Ports(control, database, sql, tuple(slurmd))
        self.layout = Layout(self.folder, ports, **self._what)
        for name in ("etc", "run", "log", "state", "spool", "dev", "db", "munge"):
            (self.folder / name).mkdir()
        (self.folder / "munge").chmod(0o711)
        for number in range(self.layout.gpus):  # no driver: Slurm only looks that it is a device
            os.mknod(self.folder / f"dev/nvidia{number}", 0o20600, os.makedev(195, number))
        key = self.folder / "munge" / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        write(self.layout)
        self.env["SLURM_CONF"] = str(self.layout.conf)
        (self.folder / "env.sh").write_text(f"export SLURM_CONF={self.layout.conf}\n")
        machine.name_hosts(self.folder, self.layout.names)

    def _start_daemons(self) -> None:
        ports = self.layout.ports
        self._start_munge()
        if self.layout.accounting:
            self._start_database()
            self._daemon("slurmdbd", "slurmdbd", "-D")
            self._until_listening("slurmdbd", ports.slurmdbd)
        self.start_slurmctld()
        for name in self.layout.names:
            self.start_node(name)
        self.wait_for_nodes()

    def _start_munge(self) -> None:
        munge = self.folder / "munge"
        self._daemon(
            "munged",
            *("munged", "-F", f"--key-file={munge}/munge.key"),
            f"--socket={self.layout.munge_socket}",
            f"--pid-file={self.folder}/run/munged.pid",
            f"--log-file={self.folder}/log/munged.log",
            f"--seed-file={munge}/munged.seed",
        )
        wait_for(self.layout.munge_socket.exists, 10, "munged")

    def _start_database(self) -> None:
        # on an empty folder without grant tables: no installation script, users or passwords
        tables = self.folder / "etc" / "tables.sql"
        tables.write_text(_procedures())
        self._daemon(
            "mariadbd",
            *("mariadbd", "--no-defaults", "--user=root", f"--datadir={self.folder}/db"),
            f"--socket={self.folder}/run/mysqld.sock",
            f"--pid-file={self.folder}/run/mariadbd.pid",
            *("--bind-address=127.0.0.1", f"--port={self.layout.ports.mariadbd}"),
            f"--init-file={tables}",
            *("--skip-name-resolve", "--skip-grant-tables", "--performance-schema=OFF"),
            *("--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M"),
            *("--innodb-lock-wait-timeout=900", "--innodb-flush-log-at-trx-commit=0"),
        )
        self._until_listening("mariadbd", self.layout.ports.mariadbd)

    def _daemon(self, name: str, *command: str) -> None:
        """Start a process that stays in the foreground and dies with this one."""
        bound = () if self.keep else ("setpriv", "--pdeathsig", "KILL")
        env = {**self.env, machine.MARK: str(self.folder)}
        with (self.folder / "log" / f"{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                [*bound, *command],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _until_listening(self, name: str, port: int) -> None:
        def there() -> bool:
            if self._daemons[name].poll() is not None:
                raise RuntimeError(f"{name} ended")
            return machine.listening(port)

        wait_for(there, 60, name)

    # --- daemons, to kill and start again

    def start_slurmctld(self) -> None:
        """Start the controller and wait until it answers."""
        self._daemon("slurmctld", "slurmctld", "-D")
        self._until_listening("slurmctld", self.layout.ports.slurmctld)

    def restart_slurmctld(self) -> None:
        """End the controller and start it again; jobs go on meanwhile.

        By SIGTERM, upon which it saves its state: killed, it forgets its last five seconds.
        """
        process = self._daemons.pop("slurmctld")
        process.terminate()
        process.wait(60)
        self.start_slurmctld()

    def start_node(self, name: str) -> None:
        """Start a node's slurmd; jobs on it see the node's own host name."""
        command = f"hostname {name} && exec slurmd -D -N {name}"
        self._daemon(name, "unshare", "--uts", "--", "sh", "-c", command)

    def kill_node(self, name: str, tasks: bool = True) -> None:
        """Let a node die: slurmd by SIGKILL and, unless told otherwise, all that it started."""
        job_processes = self.processes_on(name) if tasks else []
        self._kill(name)
        for pid in job_processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def processes_on(self, name: str) -> list[int]:
        """Return slurmstepds and tasks of a node: those that share its host name's namespace."""
        daemon = self._daemons[name].pid
        space = Path(f"/proc/{daemon}/ns/uts").readlink()
        pids = []
        for pid in machine.processes(self.folder):
            with contextlib.suppress(OSError):
                if pid != daemon and Path(f"/proc/{pid}/ns/uts").readlink() == space:
                    pids.append(pid)
        return pids

    def _kill(self, name: str) -> None:
        process = self._daemons.pop(name)
        process.kill()
        process.wait()

    def wait_for_nodes(self, seconds: float = 60) -> None:
        """Wait until every node can take jobs."""

        def ready() -> bool:
            answer = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%T", check=False)
            states = answer.split()
            return len(states) == self.layout.nodes and set(states) <= {"idle", "mixed"}

        wait_for(ready, seconds, "idle nodes")

    def heal(self) -> None:
        """Start what was killed, end all jobs, and wait until all nodes are idle."""
        self.run("scancel", "-u", "root", check=False)
        self.run("scancel", "--full", "--signal=KILL", "-u", "root", check=False)
        for name in self.layout.names:
            if name not in self._daemons:
                self.start_node(name)
        self.wait_for(self._empty, 60, "an empty queue")
        self.wait_for_nodes()

    def _empty(self) -> bool:
        done = subprocess.run(["squeue", "-h"], env=self.env, capture_output=True, check=False)
        return done.returncode == 0 and not done.stdout

    # --- down

    def stop(self) -> None:
        """End the jobs and the daemons, and remove the folder."""
        with contextlib.suppress(Exception):
            self.run("scancel", "--full", "--signal=KILL", "-u", "root", timeout=15, check=False)
        machine.remove(self.folder)
        for process in self._daemons.values():
            process.wait()

    def __enter__(self) -> Cluster:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def logs(self, lines: int = 15) -> str:
        """Return the ends of the daemons' logs."""
        parts = []
        for file in sorted((self.folder / "log").glob("*")):
            tail = file.read_text(errors="replace").splitlines()[-lines:]
            parts += [f"--- {file.name}", *tail] if tail else []
        return "\n".join(parts)


def _require() -> None:
    """Install what is missing, where that is allowed."""
    if os.geteuid():
        raise Missing("a Slurm of the tests' own needs root")
    if not _there():
        subprocess.run(["bash", str(ROOT / "tools" / "slurm.sh")], check=False)
    if not _there():
        raise Missing("slurmctld, slurmd, slurmdbd, munged and mariadbd are not all installed")


def _procedures() -> str:
    """Return SQL for the table of stored procedures: limits are handed down through them."""
    system_tables = Path("/usr/share/mysql/mysql_system_tables.sql")
    lines = system_tables.read_text().splitlines() if system_tables.is_file() else []
    head = "CREATE TABLE IF NOT EXISTS proc "
    table = next((line for line in lines if line.startswith(head)), "")
    return f"CREATE DATABASE IF NOT EXISTS mysql;\nUSE mysql;\n{table}\n"


def _there() -> bool:
    return all(map(shutil.which, ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd")))
