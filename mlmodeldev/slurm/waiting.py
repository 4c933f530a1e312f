"""What a trial waits for, in plain words: Slurm's reasons, a submit, a retry.

Example::

    waits_for("queued", job)        # "free nodes (Resources)"
    waits_for("missing", None)      # "submit"
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlmodeldev.slurm.query import Queued
    from mlmodeldev.slurm.submission import TrialJob

_REASONS = {
    "Resources": "free nodes",
    "Priority": "jobs ahead of it",
    "JobArrayTaskLimit": "the sweep's other jobs",
    "BeginTime": "its start time",
    "DependencyNeverSatisfied": "a job that failed: cancel, then submit",
    "Dependency": "another job's end",
    "JobHeld": "scontrol release",
    "launch failed requeued held": "scontrol release",
    "ReqNodeNotAvail": "nodes that are down or reserved",
    "NodeDown": "a node that is down",
    "Reservation": "its reservation",
    "PartitionTimeLimit": "nothing: a longer time than the partition allows",
    "PartitionNodeLimit": "nothing: more nodes than the partition allows",
    "Partition": "its partition, which is down",
    "Licenses": "a licence",
    "MaxSubmit": "your limit of jobs",
    "QOSGrp": "the QOS's limit, which all share",
    "QOSMaxWall": "nothing: a longer time than the QOS allows",
    "QOSMax": "your limit in the QOS",
    "QOSMin": "nothing: less than the QOS asks for",
    "QOS": "its QOS",
    "AssocGrp": "the account's limit, which all share",
    "AssocMaxWall": "nothing: a longer time than the account allows",
    "AssocMax": "your limit in the account",
    "Association": "the account's limit",
    "Invalid": "nothing: account or QOS is not allowed",
    "sbatch said no number": "its number, which sbatch did not say",
}
"""By the beginning of Slurm's reason; the first that fits counts."""
_STATES = {
    "CONFIGURING": "its node to boot",
    "COMPLETING": "its node to let the job go",
    "REQUEUED": "its job to come back",
    "SUSPENDED": "its job to go on",
}
_OTHERS = {"missing": "submit", "interrupted": "submit", "lost": "submit", "failed": "retry"}
"""Where no job is in the queue: the sub-command that lets the trial go on."""


def waits_for(state: str, job: TrialJob | None, is_begun: bool = False) -> str:
    """Return what a trial waits for; empty: for nothing, it runs or has ended.

    Args:
        state: as `slurm.plan.state` tells it.
        job: the trial's newest.
        is_begun: whether trials run that no job was submitted for: a submit on this machine, whose
            next trials have no place in any queue.
    """
    if state == "queued" and job is not None and job.queued is not None:
        return queue_reason(job.queued)
    words = _OTHERS.get(state, "")
    return f"its turn, or {words}" if is_begun and words == "submit" else words


def queue_reason(queued: Queued) -> str:
    """Return what a job in the queue waits for."""
    if queued.state in _STATES:
        return _STATES[queued.state]
    if queued.state == "RUNNING":
        return "its turn: the job has begun"
    reason = queued.reason.strip("()")
    if reason in ("", "None"):
        return "the scheduler"
    words = next((w for begin, w in _REASONS.items() if reason.startswith(begin)), None)
    return f"{words} ({reason.partition(',')[0]})" if words else reason
