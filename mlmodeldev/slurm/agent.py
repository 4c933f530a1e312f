"""The command behind ``slurm/agent.sh``: agents of a W&B sweep, in a Slurm job or on a laptop.

Example::

    sbatch --array=1-8%4 slurm/agent.sh ENTITY/PROJECT/ID
    python -m mlmodeldev.slurm.agent ENTITY/PROJECT/ID --count 1 training.devices=2

It takes the options of ``wandb agent``, in whose place it stands.

On the warning signal (USR1) the running trial saves, no other is begun, and the job requeues
itself; it then goes on with the same trial. On SIGTERM it saves as well and leaves the rest to
Slurm, which requeues a preempted job and not a cancelled one. Exit status: 0 all its trials ended
well, 1 some failed, 2 bad input, 75 interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlmodeldev.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, UsageError
from mlmodeldev.machine import keep_from_others, number_in
from mlmodeldev.project import project_root
from mlmodeldev.secrets import guard_output
from mlmodeldev.settings.overrides import to_overrides
from mlmodeldev.slurm.agent_notes import keep_configuration, kept_configuration
from mlmodeldev.slurm.agent_source import AgentSource
from mlmodeldev.slurm.epilog import CRASH_LOOP_REASON, is_crash_loop
from mlmodeldev.slurm.query import COMMAND_MISSING, own_task_name, requeue_job, run_command
from mlmodeldev.sweep.monitor import MonitorChoice, remote_monitor
from mlmodeldev.sweep.served import ServedSweep
from mlmodeldev.sweep.starter import Start, starter
from mlmodeldev.tracking.bounded import Unreachable
from mlmodeldev.tracking.wandb_api import RemoteSweep, host, split_path
from mlmodeldev.trial.pool import run_pool
from mlmodeldev.trial.task import TrialTask

_WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
_MODULES = ("trainer", "model", "datamodule", "wandb", "mlmodeldev.tracking.wandb_logger")
"""What trials import, before they are forked."""
WAITS = (2.0, 5.0, 15.0, 30.0, 60.0, 0.0)
"""Seconds between two questions for the sweep, where the server does not answer; then the end."""
REQUEUES = 5
"""How often a job moves on from a machine without a working GPU."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run agents; return the exit status."""
    args = _parser().parse_intermixed_args(arguments)
    guard_output()
    keep_from_others()
    for variable, value in (("WANDB_ENTITY", args.entity), ("WANDB_PROJECT", args.project)):
        if value:
            os.environ[variable] = value
    begun, signals = time.monotonic(), _ReceivedSignals()
    try:
        sweep = _find_sweep(args.sweep, args.overrides)
        _print_header(sweep)
        problem = gpu_problem()
        if problem:
            return _leave_node(problem, begun)
        source = _make_source(args, sweep)
        try:
            status = run_pool(source, args.slots, _MODULES, on_signal=signals.note)
        finally:
            source.close()
    except UsageError as error:
        print(f"agent.sh: {error}", file=sys.stderr)
        _print_footer(begun, EXIT_BAD_INPUT, "bad input")
        return EXIT_BAD_INPUT
    if status == 0 and (source.failed or source.lost):
        status = 1
    counts = f"{source.done} trials ended well, {source.failed} failed"
    why = f"interrupted by {signals.name}" if status == EXIT_INTERRUPTED else source.why
    _print_footer(begun, status, f"{why}; {counts}")
    if status == EXIT_INTERRUPTED and signals.wants_requeue:
        if _comes_back_in_vain(source):
            print(CRASH_LOOP_REASON, flush=True)
            return 1
        _requeue()
    return status


def _comes_back_in_vain(source: AgentSource) -> bool:
    """Return whether this job was warned too often in a row before its trials had made a step."""
    job = own_task_name()
    if not job or source.done or source.failed or not source.interrupted:
        return False
    note = source.folder / ".agents" / "starts" / f"{job}.json"
    return is_crash_loop(note, source.interrupted)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agent.sh",
        description="Run trials of a W&B sweep until it is over.",
        epilog="sbatch's own options go before slurm/agent.sh: sbatch --array=1-8%%4 slurm/agent.sh"
        " ENTITY/PROJECT/ID",
    )
    parser.add_argument("sweep", metavar="ENTITY/PROJECT/ID", help="as 'wandb sweep' prints it")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="setting of every trial")
    parser.add_argument("--count", type=_positive, help="trials at most that each agent takes")
    parser.add_argument("-e", "--entity", help="where the sweep is given by its ID alone")
    parser.add_argument("-p", "--project", help="likewise")
    parser.add_argument("--slots", type=_positive, default=1, help="trials at once in each job")
    parser.add_argument(
        "--patience",
        type=_positive,
        default=3,
        help="failed trials in a row after which it takes no more (default 3)",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _find_sweep(path: str, overrides: Sequence[str]) -> RemoteSweep:
    """Find the sweep; a server that does not answer is waited for a little.

    A requeued job does not wait: what it has to go on with lies here, and so does the sweep.
    """
    for wait in WAITS:
        try:
            return RemoteSweep.find(path)
        except Unreachable as error:
            if kept := _kept_sweep(path, overrides):
                print(f"agent.sh: {error}; going on with what lies here", file=sys.stderr)
                return kept
            if not wait:
                raise UsageError(f"{error}; is this node allowed to reach it?") from None
            time.sleep(wait)
    raise AssertionError


def _kept_sweep(path: str, overrides: Sequence[str]) -> RemoteSweep | None:
    """Return the sweep as this job had it before it was requeued, or None."""
    from mlmodeldev.settings.composition import compose_settings

    entity, project, name = split_path(path)
    runs_dir = compose_settings(list(overrides), partial=True).artefacts.runs_dir
    folder = Path(runs_dir).expanduser().absolute() / name
    configuration = kept_configuration(folder, own_task_name() or None)
    return RemoteSweep(entity, project, name, configuration) if configuration else None


def _make_source(args: argparse.Namespace, sweep: RemoteSweep) -> AgentSource:
    from mlmodeldev.settings.composition import compose_settings

    key = "artefacts.runs_dir"
    swept = (sweep.config.get("parameters") or {}).get(key) or {}
    own = to_overrides({key: swept["value"]}) if "value" in swept else []
    base = compose_settings([*own, *args.overrides], partial=True)
    runs_dir = Path(base.artefacts.runs_dir)
    served = ServedSweep(sweep.config, args.sweep)
    monitor = MonitorChoice()
    if not served.invocation.is_foreign:
        monitor = remote_monitor(sweep.config, args.overrides, base)
    if monitor.warning:
        print(f"warning: {monitor.warning}", flush=True)
    source = AgentSource(
        sweep,
        runs_dir,
        fixed=[*monitor.overrides, *args.overrides],
        count=args.count,
        patience=args.patience,
        start=trial_start(served, args.overrides),
        served=served,
        job=own_task_name() or None,
        print_line=lambda line: print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True),
    )
    keep_configuration(source.folder, sweep.config)
    return source


def trial_start(served: ServedSweep, fixed: Sequence[str] = ()) -> Start | None:
    """Return how a trial is started, or None: as a fork in this job's own process.

    A job of several tasks starts its trials on all of them by ``srun``; a ``command`` of the sweep
    that is not ours runs as it says.
    """
    own = starter(served.invocation, served.call, fixed)
    tasks = number_in(os.environ, "SLURM_NTASKS", 1)
    if own or tasks == 1:
        return own
    program = str(project_root() / served.invocation.program)
    srun = ["srun", f"--ntasks={tasks}", "--kill-on-bad-exit=1", "--unbuffered", "--export=ALL"]
    if cpus := os.environ.get("SLURM_CPUS_PER_TASK"):  # not inherited from Slurm 22.05 on
        srun.append(f"--cpus-per-task={cpus}")

    def on_all_tasks(work: TrialTask, params: Mapping[str, Any]) -> TrialTask:
        line = [*srun, sys.executable, program, *work.overrides]
        # srun kills its tasks on SIGTERM, but hands SIGUSR1 on
        return replace(work, command=line, telling=signal.SIGUSR1)

    return on_all_tasks


class _ReceivedSignals:
    """The signals that asked for an end."""

    def __init__(self) -> None:
        self.received: list[int] = []

    def note(self, signum: int) -> None:
        self.received.append(signum)

    @property
    def name(self) -> str:
        return signal.Signals(self.received[0]).name if self.received else "a signal"

    @property
    def wants_requeue(self) -> bool:
        return any(number in _WARNINGS for number in self.received)


# --- the machine


def gpu_problem() -> str:
    """Return what is wrong with the GPUs that Slurm gave, or an empty text.

    Only a machine with the driver's files or a torch built for GPUs is args.
    """
    if not os.environ.get("SLURM_JOB_GPUS") or not Path("/proc/driver/nvidia").exists():
        return ""
    done = run_command("nvidia-smi", "-L")
    if done.returncode == COMMAND_MISSING:
        return f"nvidia-smi: {done.stderr}"
    return "" if done.returncode == 0 and "GPU 0" in done.stdout else f"no GPU: {done.stdout}"


def _leave_node(problem: str, begun: float) -> int:
    """Leave a broken machine to others: requeue elsewhere, a few times."""
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    job = own_task_name()
    if job and number_in(os.environ, "SLURM_RESTART_COUNT", 0) < REQUEUES:
        _print_footer(begun, EXIT_INTERRUPTED, f"{problem}; going on without {node}")
        requeue_job(job, without=node)
        return EXIT_INTERRUPTED
    _print_footer(begun, 1, problem)
    return 1


def _requeue() -> None:
    if job := own_task_name():
        requeue_job(job)


# --- the log


def _print_header(sweep: RemoteSweep) -> None:
    from mlmodeldev.trial.provenance import provenance

    source = provenance()
    restart = os.environ.get("SLURM_RESTART_COUNT", "0")
    lines = {
        "job": f"{own_task_name() or 'none'} (restart {restart})",
        "host": socket.gethostname(),
        "GPU": os.environ.get("SLURM_JOB_GPUS") or os.environ.get("CUDA_VISIBLE_DEVICES") or "none",
        "commit": f"{source['sha']}{' (changed)' if source['dirty'] else ''}",
        "python": sys.executable,
        "sweep": f"{sweep.entity}/{sweep.project}/{sweep.id} at {host()}",
    }
    print(f"===== begin {time.strftime('%Y-%m-%d %H:%M:%S')}")
    for name, value in lines.items():
        print(f"{name:8}{value}")
    sys.stdout.flush()


def _print_footer(begun: float, status: int, why: str) -> None:
    seconds = round(time.monotonic() - begun)
    elapsed = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    print(f"===== end  elapsed {elapsed}  exit status {status}  {why}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
