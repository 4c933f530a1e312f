"""A folder of runs that this version has written, for later versions to go on with.

``runs/kept``: trials that are done, failed, interrupted, killed; ``runs/kept-search``: a search
partly through; ``runs/kept-jobs``: a submission to the pretended Slurm. Paths of the machine, its
name and the commit are words between ``@``, which `restore` fills in.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import signal
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.frozen import trained
from tests.frozen.commands import FROZEN, ROOT, Done, Place

KEPT = FROZEN / "runs"
FILE = FROZEN / "runs.json"
QUEUE = FROZEN / "queue.json"
"""What the pretended Slurm has in its queue when the kept runs are looked at."""

TRAIN = "python slurm/SlurmTrain.py"
SETTINGS = f"{trained.SMALL} optimizer.warmup_fraction=0.0 training.gradient_clip_val=null"
GRID = f"--sweep tests/frozen/sweeps/kept.yaml {SETTINGS}"
SEARCH = f"--sweep tests/frozen/sweeps/kept_search.yaml {SETTINGS} model.width=16"
JOBS = f"--sweep tests/frozen/sweeps/kept_jobs.yaml {SETTINGS} model.width=16 cluster=debug"
TEXT = (".json", ".yaml", ".csv", ".txt", ".log", ".sh", ".out")
PRUNED = ("*.png", "changes.diff", "last", ".record.lock", "*.pkl", "*.lock", "lock")
"""What is not kept of a folder: it is large, or of no use to a later version."""

LISTINGS = (
    *(f"{TRAIN} {action} --json {GRID}" for action in ("status", "collect", "plan")),
    *(f"{TRAIN} {action} --json {SEARCH}" for action in ("status", "collect", "plan")),
    *(f"{TRAIN} {action} --json {JOBS}" for action in ("status", "plan")),
    f"{TRAIN} plan --json {GRID} cluster=hec",
    f"{TRAIN} plan --json {SEARCH} cluster=debug",
    f"{TRAIN} logs @DONE@ {GRID}",
    f"{TRAIN} logs @FAILED@ -n 1 {GRID}",
    f"{TRAIN} logs @JOB@ {JOBS}",
)
WITHOUT_SLURM = (f"{TRAIN} status --json {JOBS}", f"{TRAIN} logs @JOB@ {JOBS}")


def names() -> dict[str, str]:
    """Return what the words between ``@`` in the kept files stand for, the folder aside."""
    sklearn = importlib.util.find_spec("sklearn")
    assert sklearn is not None
    assert sklearn.origin is not None
    return {
        "@SKLEARN@": str(Path(sklearn.origin).parent),
        "@PYTHON@": sys.executable,
        "@PROJECT@": str(ROOT),
    }


def restore(folder: Path) -> None:
    """Copy the kept runs into a place, with its paths filled in; also the pretended queue."""
    shutil.copytree(KEPT, folder / "runs")
    shutil.copy2(QUEUE, folder / "slurm.json")
    for file in (folder / "slurm.json", *texts(folder / "runs")):
        text = file.read_text(encoding="utf-8")
        # Another machine, whatever machine this is: what was killed there is not looked for here.
        there = {"@HOST@": "another-machine", "@COMMIT@": "0" * 40}
        for word, meant in {"@HERE@": str(folder), **names(), **there}.items():
            text = text.replace(word, meant)
        file.write_text(text, encoding="utf-8")


def texts(folder: Path) -> Iterable[Path]:
    """Return the files of a folder that hold text."""
    return (f for f in sorted(folder.rglob("*")) if f.suffix in TEXT and f.is_file())


def trials() -> dict[str, str]:
    """Return the identities that stand for ``@DONE@`` and its like in commands."""
    result: dict[str, str] = json.loads(FILE.read_text(encoding="utf-8"))["trials"]
    return result


def run_all(place: Place, lines: Iterable[str], fields: dict[str, str]) -> list[dict[str, Any]]:
    """Run commands that list; return what they answer."""
    wanted = list(lines)
    commands = list(wanted)
    for word, trial in fields.items():
        commands = [command.replace(word, trial) for command in commands]
    answers = place.run_all(commands)
    return [{"command": a, **answer(done)} for a, done in zip(wanted, answers, strict=True)]


def answer(done: Done) -> dict[str, Any]:
    """Return how a command ended, with its JSON read where it printed some."""
    try:
        out = json.loads(done.out)
    except ValueError:
        out = done.out
    # How Slurm was asked is nobody's business.
    err = re.sub(r"(?m)^.*(?=: Slurm does not answer)", "@QUESTION@", done.err)
    return {"status": done.status, "out": out, "err": err}


# --- recording


def record(folder: Path) -> None:
    """Make the runs, keep them, and write down what the commands say of them."""
    place = Place(folder, slurm=True)
    fields = {**_grid(place), **_jobs(place)}
    _search(place)
    _keep(place)
    again = Place(folder / "again", slurm=True)
    restore(again.folder)
    alone = Place(folder / "alone")
    restore(alone.folder)
    result: dict[str, Any] = {
        "trials": fields,
        "machine": trained.machine(),
        "listings": run_all(again, LISTINGS, fields),
        "results": results(again),
        "without_slurm": run_all(alone, WITHOUT_SLURM, fields),
    }
    FILE.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    result |= {"resumed": resumed(alone), "inferred": inferred(alone), "search": following(again)}
    FILE.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


# --- going on


def results(place: Place) -> str:
    """Return the table that `collect` has written, this machine's paths left out."""
    return place.plain((place.folder / "runs/kept/results.csv").read_text())


def resumed(place: Place) -> dict[str, Any]:
    """Go on with the interrupted trial by its own command; return what it comes to."""
    name = trials()["@INTERRUPTED@"]
    script = json.loads(place.run(f"{TRAIN} plan --json {GRID}").out)["script"]
    (line,) = (each for each in script.splitlines() if each.endswith(f"artefacts.trial={name}"))
    done = place.run(line)
    assert done.status == 0, done.err
    assert "going on from step" in done.out
    folder = place.folder / "runs/kept" / name
    return {
        "state": trained.record(folder)["state"],
        "attempts": trained.record(folder)["attempts"],
        "rows": trained.rows(folder),
        "log": trained.log(folder),
        "weights": trained.weights(folder / "last"),
    }


def following(place: Place) -> list[str]:
    """Go on with the search by two trials; return all that it has then."""
    done = place.run(f"{TRAIN} {SEARCH} --count 5")
    assert done.status == 0, done.out + done.err
    listed = json.loads(place.run(f"{TRAIN} status --json {SEARCH}").out)["trials"]
    assert {trial["state"] for trial in listed} <= {"done", "pruned"}
    return [trial["id"] for trial in listed]


def inferred(place: Place) -> dict[str, Any]:
    """Ask the kept export of a trial what is in a picture."""
    folder = f"@HERE@/runs/kept/{trials()['@DONE@']}"
    done = place.run(f"python inference.py {folder} docs/images/seven.png --json")
    assert done.status == 0, done.err
    result: dict[str, Any] = json.loads(done.out)
    return result


def _grid(place: Place) -> dict[str, str]:
    """Run four trials by the launcher, the last interrupted; and one more, which is killed."""
    plan = json.loads(place.run(f"{TRAIN} plan --json {GRID}").out)
    done, _, failed, interrupted, killed, _ = (trial["id"] for trial in plan["trials"])
    folder = place.folder / "runs/kept"
    process = place.start(f"{TRAIN} {GRID} --count 4")
    trained.end_after_a_checkpoint(process, folder / interrupted, signal.SIGTERM)
    assert process.returncode == trained.INTERRUPTED, process.communicate()
    line = plan["script"].splitlines()[4].replace("@HERE@", str(place.folder))
    trained.end_after_a_checkpoint(place.start(line), folder / killed, signal.SIGKILL)
    states = {t: trained.record(folder / t)["state"] for t in (done, failed, interrupted, killed)}
    assert list(states.values()) == ["done", "failed", "interrupted", "running"], states
    return {
        "@DONE@": done, "@FAILED@": failed, "@INTERRUPTED@": interrupted, "@KILLED@": killed,
    }  # fmt: skip


def _search(place: Place) -> None:
    """Run three trials of the search and a part of the fourth."""
    assert place.run(f"{TRAIN} {SEARCH} --count 3").status == 0
    base = place.folder / "runs/kept-search"
    before = {folder.name for folder in base.iterdir()}
    process = place.start(f"{TRAIN} {SEARCH} --count 4")
    while not (new := [f for f in base.iterdir() if f.name not in before]):
        assert process.poll() is None, process.communicate()
    trained.end_after_a_checkpoint(process, new[0], signal.SIGTERM)
    assert process.returncode == trained.INTERRUPTED, process.communicate()


def _jobs(place: Place) -> dict[str, str]:
    """Submit; the first job has begun and printed something, the last has left the queue."""
    done = place.run(f"{TRAIN} submit --yes --json {JOBS}")
    assert done.status == 0, done.err
    made = json.loads(done.out)
    (number,) = made["submitted"]
    (folder,) = (place.folder / "runs/kept-jobs/.jobs").glob("2*")
    (folder / f"{number}_0_0_log.out").write_text("the job's own words\n")
    file = place.folder / "slurm.json"
    fields = json.loads(file.read_text())
    fields["queue"].pop()
    fields["queue"][0] |= {"state": "RUNNING", "reason": "None", "time_left": "9:58", "node": "n1"}
    QUEUE.write_text(_masked(json.dumps(fields, indent=1), place) + "\n")
    return {"@JOB@": made["trials"][0]["id"]}


def _keep(place: Place) -> None:
    shutil.rmtree(KEPT, ignore_errors=True)
    ignored = shutil.ignore_patterns(*PRUNED, ".snapshots")
    shutil.copytree(place.folder / "runs", KEPT, ignore=ignored, symlinks=True)
    for trial in (file.parent for file in KEPT.glob("*/*/trial.json")):
        _thin(trial)
    for file in texts(KEPT):
        if file.is_symlink():
            file.unlink()
        else:
            file.write_text(_masked(file.read_text(encoding="utf-8"), place), encoding="utf-8")


def _thin(folder: Path) -> None:
    """Keep of a trial what is read later: of checkpoints the newest, where it is gone on with."""
    fields = trained.record(folder)
    unused = {*folder.glob("checkpoints/*"), folder / "cka/start.safetensors"}
    if fields["state"] == "interrupted":
        newest = max(folder.glob("checkpoints/step-*.ckpt"))
        unused -= {newest, folder / "checkpoints/best.ckpt", folder / "cka/start.safetensors"}
    for file in unused:
        file.unlink(missing_ok=True)
    if fields["lease"]:  # of the killed one; else its state would depend on the hour
        (folder / "trial.json").write_text(
            json.dumps({**fields, "lease": fields["begun"]}, indent=1)
        )
    if fields["state"] == "failed":  # a traceback leads through files of this machine
        printed = (folder / "log.txt").read_text().splitlines()
        (folder / "log.txt").write_text(f"{printed[-1]}\n")


def _masked(text: str, place: Place) -> str:
    text = text.replace(str(place.folder), "@HERE@")
    for word, meant in names().items():
        text = text.replace(meant, word)
    text = re.sub(r"\b[0-9a-f]{40}\b", "@COMMIT@", text)
    text = re.sub(rf'"{re.escape(socket.gethostname())}(?=["-])', '"@HOST@', text)
    return re.sub(r"-m mlmodeldev(?!\.sweep\b)[\w.]*", "-m @MODULE@", text)
