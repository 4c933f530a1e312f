"""What a user does meanwhile and afterwards, until every trial has ended.

    submit, again; retry what failed; scontrol release; sbatch slurm/agent.sh, again;
    by hand what W&B gives up; sync

Nothing here is timed by the clock: it goes on while anything moves, and is given up after many
rounds, or when nothing at all has moved for minutes.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from typing import Any

from tests.chaos.cluster_faults import wait_for_launchers
from tests.chaos.scene import Scene
from tests.chaos.trials import OURS_ONLY, SETTINGS, names
from tests.wandb.store import ENTITY, Run

ROUNDS = 20
"""How often each sweep is begun anew once nothing disturbs it any more, at most."""
STILL_SECONDS = 300.0
"""So long without any move, and it is stuck; a loaded machine may be slow."""
JOB_NAMES = {"ours": "ours", "theirs": "theirs", "served": "agent"}


class Stuck(Exception):
    """The trials do not come to an end."""


def all_done(scene: Scene) -> bool:
    """Whether every trial has ended well."""
    return not any(unfinished(scene).values())


def unfinished(scene: Scene) -> dict[str, dict[str, str]]:
    """Return the states of the trials of each sweep that are not done."""
    states = {(f.parent, f.name): str(r.get("state")) for f, r in scene.records()}
    folders = scene.folders()
    return {
        name: {
            trial: state
            for trial in names(scene.trials.files[name])
            if (state := states.get((folders[name], trial), "missing")) != "done"
        }
        for name in folders
    }


class User:
    """Somebody who looks again and again, and begins anew what has no job and is not done.

    Attributes:
        rounds: how often each sweep was begun anew.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.rounds: Counter[str] = Counter()
        self._at_it: dict[str, subprocess.Popen[str]] = {}
        self._looked = 0.0

    def submit_all(self) -> None:
        """Begin: two sweeps by SlurmTrain.py, one by agents."""
        self.scene.submit_agents(self.scene.size.jobs)
        for name in ("ours", "theirs"):
            done = self.scene.train("submit", name)
            if done.returncode:
                raise Stuck(f"submit of {name}: exit status {done.returncode}\n{done.stdout}")

    def look(self) -> None:
        """Look, a second after the last time or later."""
        if time.monotonic() - self._looked < 1:
            return
        self._looked = time.monotonic()
        self._release_jobs()
        in_queue = self.scene.names_in_queue()
        for name, job in JOB_NAMES.items():
            if in_queue is None or job in in_queue or self._is_at_it(name):
                continue
            if left := unfinished(self.scene)[name]:
                self.rounds[name] += 1
                self._begin_again(name, left)

    def _release_jobs(self) -> None:
        """Let go what Slurm holds whose launch has failed, as ``status`` says to do."""
        text = self.scene.cluster.run("squeue", "-h", "-r", "-t", "PD", "-o", "%i %r", check=False)
        for line in text.splitlines():
            job, _, reason = line.partition(" ")
            if "held" in reason.lower():
                self.scene.cluster.run("scontrol", "release", job, check=False)
                self.scene.released_jobs.append(f"{job}: {reason}")

    def _is_at_it(self, name: str) -> bool:
        process = self._at_it.get(name)
        if process is None:
            return False
        if process.poll() is None:
            return True
        self.scene.keep(process)
        del self._at_it[name]
        return False

    def _begin_again(self, name: str, left: dict[str, str]) -> None:
        if name != "served":
            action = "retry" if "failed" in left.values() else "submit"
            self._at_it[name] = self.scene.start_train(action, name)
        elif given_up := self._given_up(left):
            self._at_it[name] = self._by_hand(given_up[0])
        else:
            self._hand_out_again()
            self.scene.submit_agents(1)

    def _hand_out_again(self) -> None:
        """Let the server hand out again what it gave to an agent that died before it began it."""
        scene = self.scene
        begun = {r.get("wandb_id") for _, r in scene.records() if r.get("attempts")}
        with scene.server.store.lock:
            for run in scene.sweep.runs:
                if not run.starts and run.name not in begun:
                    scene.sweep.give_back(run)
            if scene.sweep.preempted:
                scene.sweep.state = "RUNNING"

    def _given_up(self, left: dict[str, str]) -> list[str]:
        """Return trials that neither the server nor an agent comes back to.

        They have failed; or have begun, and nothing could be recorded: of a full disk, of a folder
        that was removed.
        """
        notes = (self.scene.folders()["served"] / ".agents").glob("*.json")
        noted = {note.name.split(".")[-2] for note in notes}
        seeds, given_up = names(self.scene.trials.files["served"]), []
        for trial, state in left.items():
            run = self._runs().get(seeds[trial])
            begun = run is not None and run.starts and run.name not in noted
            if state == "failed" or (begun and run.state != "preempted"):
                given_up.append(trial)
        return given_up

    def _runs(self) -> dict[int, Run]:
        """Return the server's runs by their seeds."""
        sweep = self.scene.sweep
        with self.scene.server.store.lock:
            return {sweep.given[run.name]["training.seed"]: run for run in sweep.runs}

    def _by_hand(self, trial: str) -> subprocess.Popen[str]:
        """Go on with a trial whose run W&B hands out no more, as docs/wandb.md says."""
        scene = self.scene
        seed = names(scene.trials.files["served"])[trial]
        run = {
            "WANDB_RUN_ID": self._runs()[seed].name,
            "WANDB_SWEEP_ID": scene.sweep.name,
            "WANDB_PROJECT": "chaos",
            "WANDB_ENTITY": ENTITY,
            "WANDB_RESUME": "allow",
        }
        words = [*scene.places, f"artefacts.sweep={scene.sweep.name}", "model=ours", "data=ours"]
        # what the agents were given beside the sweep is no part of the trial's identity: name it
        words += [f"training.seed={seed}", f"artefacts.trial={trial}", *SETTINGS, *OURS_ONLY]
        process: subprocess.Popen[str] = scene.start(
            [sys.executable, scene.trials.project / "trainer.py", *words], run
        )
        return process

    # --- afterwards

    def settle(self) -> None:
        """Go on until all trials are done and no job is left.

        Raises:
            Stuck: they are not after many rounds, or nothing moves.
        """
        self.scene.released.touch()
        wait_for_launchers(self.scene)
        self.rounds.clear()
        seen: Any = None
        since = time.monotonic()
        while self._at_it or self.scene.names_in_queue() != set() or not all_done(self.scene):
            self.look()
            if max(self.rounds.values(), default=0) > ROUNDS:
                raise Stuck(f"not done after {ROUNDS} rounds: {unfinished(self.scene)}")
            if (now := self._moves()) != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > STILL_SECONDS:
                queue = self.scene.cluster.run("squeue", check=False)
                raise Stuck(f"nothing has moved for {STILL_SECONDS:.0f} s\n{queue}")
            time.sleep(0.5)
        done = self._sync()
        if done.returncode:
            raise Stuck(f"sync: exit status {done.returncode}\n{done.stdout}")

    def _moves(self) -> Any:
        """Return what changes while anything goes on."""
        keys = ("state", "step", "attempts", "lease")
        records = [(f, *(r.get(key) for key in keys)) for f, r in self.scene.records()]
        return self.scene.queue(), records, dict(self.rounds)

    def _sync(self) -> subprocess.CompletedProcess[str]:
        """Upload what an outage has kept from the server."""
        scene = self.scene
        script = scene.trials.project / "slurm" / "SlurmTrain.py"
        command = [sys.executable, script, "sync", "--runs-dir", scene.runs]
        done: subprocess.CompletedProcess[str] = scene.call([*command, "--sweep", scene.sweep.name])
        return done
