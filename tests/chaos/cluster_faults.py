"""Faults of the cluster: nodes, controller, requeues, preemption, two launchers at once."""

from __future__ import annotations

from random import Random

from tests.chaos.faults import Undo, fault
from tests.chaos.scene import Scene


def _busy_node(scene: Scene, draw: Random) -> str | None:
    """Return a node that a job runs on; None while another is away, or all are idle."""
    if scene.away:
        return None
    text = scene.cluster.run("squeue", "-h", "-r", "-t", "R", "-p", "main", "-o", "%N", check=False)
    nodes = sorted(set(text.split()))
    return draw.choice(nodes) if nodes else None


@fault("slurmd and all its processes killed")
def kill_node(scene: Scene, draw: Random, undo: Undo) -> str | None:
    return _kill_slurmd(scene, draw, undo, tasks=True)


@fault("slurmd alone killed")
def kill_slurmd(scene: Scene, draw: Random, undo: Undo) -> str | None:
    return _kill_slurmd(scene, draw, undo, tasks=False)


def _kill_slurmd(scene: Scene, draw: Random, undo: Undo, tasks: bool) -> str | None:
    node = _busy_node(scene, draw)
    if node is None:
        return None
    seconds = draw.choice([2.0, 6.0, 14.0])  # from 10 on the controller takes it for down
    scene.cluster.kill_node(node, tasks=tasks)
    scene.away.add(node)

    def back() -> None:
        scene.cluster.start_node(node)
        scene.away.discard(node)

    undo(seconds, back)
    return f"{node} for {seconds:.0f} s"


@fault("node down and up")
def down(scene: Scene, draw: Random, undo: Undo) -> str | None:
    node = _busy_node(scene, draw)
    if node is None:
        return None
    seconds = draw.uniform(2, 8)
    scene.cluster.run(
        "scontrol", "update", f"nodename={node}", "state=down", "reason=chaos", check=False
    )
    scene.away.add(node)

    def back() -> None:
        scene.away.discard(node)
        scene.cluster.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)

    undo(seconds, back)
    return f"{node} for {seconds:.0f} s"


@fault("slurmctld restarted")
def restart_controller(scene: Scene, draw: Random, undo: Undo) -> str | None:
    scene.cluster.restart_slurmctld()
    return "by SIGTERM"


@fault("scontrol requeue")
def requeue(scene: Scene, draw: Random, undo: Undo) -> str | None:
    jobs = scene.queue(running=True)
    if not jobs:
        return None
    job = draw.choice(jobs)
    scene.cluster.run("scontrol", "requeue", job, check=False)
    return f"job {job}"


@fault("preemption")
def preempt(scene: Scene, draw: Random, undo: Undo) -> str | None:
    """Somebody's job of a higher priority wants a node for itself."""
    node = _busy_node(scene, draw)
    if node is None:
        return None
    options = ("-p", "high", "-w", node, "-c", "4", "--mem=0", "-o", "/dev/null")
    scene.cluster.run("sbatch", *options, "--wrap", "sleep 2", check=False)
    return node


@fault("two launchers at once")
def launch_twice(scene: Scene, draw: Random, undo: Undo) -> str | None:
    name = draw.choice(["ours", "theirs"])
    for _ in range(2):
        scene.launchers.append(scene.start_train("submit", name))
    return name


def wait_for_launchers(scene: Scene) -> None:
    """Take up how the launchers ended that are still at it."""
    while scene.launchers:
        scene.keep(scene.launchers.pop())
