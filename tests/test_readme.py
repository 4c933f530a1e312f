"""The README's commands, run word for word in a fresh clone, in the order in which they stand."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.wandb.server import KEY, Server

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = "## On a cluster"


def commands(cluster: bool = False) -> list[str]:
    """The lines of the README's shell blocks, without comments: on a cluster, or all others."""
    sections = re.split(r"^(?=## )", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    text = "".join(part for part in sections if part.startswith(CLUSTER) == cluster)
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the work tree as it is, with this environment in place of a new one."""
    target = tmp_path_factory.mktemp("clone") / "MLModelDev"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode().split("\0")  # fmt: skip
    for name in filter(None, listed):
        source = ROOT / name
        if source.is_file() and not source.is_symlink():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(source.read_bytes())
            (target / name).chmod(source.stat().st_mode)
    venv = Path(sys.prefix)
    (target / ".venv").symlink_to(venv)
    (venv / ".installed").touch()  # younger than the clone's lock: `make venv` leaves it as it is
    return target


def run(command: str, clone: Path, **variables: str) -> str:
    # what other tests leave in this process's environment is not what a user has
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "SLURM_"))}
    path = f"{clone}/.venv/bin:{os.environ['PATH']}"
    environment = {**kept, **variables, "PATH": path}
    done = subprocess.run(
        ["bash", "-c", command], cwd=clone, env=environment, capture_output=True, text=True,
        timeout=1000, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + (done.stderr if command.startswith("wandb ") else "")


@pytest.mark.slow
@pytest.mark.project
@pytest.mark.timeout(2400)
def test_the_readme_runs(clone: Path) -> None:
    offline = {"WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}  # two files are tested at once
    given = [command for command in commands() if command != "make test"]
    shown = {command: run(command, clone, **offline) for command in given}
    assert len(shown) >= 12
    demo = shown["make demo"]
    assert demo.count("done  val/accuracy") == 4
    for picture in re.findall(r"^CKA: +(.+)$", demo, re.MULTILINE):
        assert (clone / picture).stat().st_size > 10_000
    assert "next:" in demo
    folder = Path(shown["python trainer.py"].splitlines()[-1])
    record = json.loads((folder / "trial.json").read_text())
    assert record["state"] == "done"
    assert record["metric"]["value"] >= 0.95
    seven = next(text for command, text in shown.items() if command.endswith("seven.png"))
    assert seven.startswith("seven ")


@pytest.mark.slow
@pytest.mark.project
@pytest.mark.timeout(2400)
def test_the_readme_runs_on_a_cluster(clone: Path, own_slurm: Cluster, tmp_path: Path) -> None:
    """W&B's agents and SlurmTrain.py, on a real Slurm, with W&B's client and a server of ours."""
    own_slurm.heal()
    shutil.rmtree(clone / "runs", ignore_errors=True)  # what the other test has left
    server = Server()
    # what `wandb login` leaves; and a site's defaults, as jobs get nothing of this environment
    netrc = tmp_path / "netrc"
    netrc.touch(mode=0o600)
    netrc.write_text(f"machine {server.url.partition('//')[2]} login user password {KEY}\n")
    site = {"WANDB_BASE_URL": server.url, "NETRC": str(netrc), "OMP_NUM_THREADS": "1"}
    profile = clone / "slurm" / "profile.sh"
    profile.write_text("".join(f"export {name}={value}\n" for name, value in site.items()))
    here = {**site, "SLURM_CONF": own_slurm.env["SLURM_CONF"], "WANDB_MODE": "online"}
    here |= {"MLMODELDEV_CLUSTER": "generic"}
    shown, sweep = {}, "ENTITY/PROJECT/ID"
    for command in commands(cluster=True):
        if command.endswith("status"):
            own_slurm.wait_for(lambda: not own_slurm.run("squeue", "-h"), 600, "an empty queue")
        shown[command] = run(command.replace("ENTITY/PROJECT/ID", sweep), clone, **here)
        if command.startswith("wandb sweep"):
            sweep = re.findall(r"wandb agent (\S+)", shown[command])[-1]
    logs = "".join(log.read_text() for log in clone.glob("agent-*.log"))
    runs = [r for r in server.store.runs.values() if r.sweep == sweep.rpartition("/")[2]]
    server.close()
    profile.unlink()
    assert sweep != "ENTITY/PROJECT/ID"
    assert [run.ends for run in runs] == [[("finished", 0)]] * 4, logs
    assert server.store.unknown == []
    assert KEY not in logs
    submitted = [json.loads(f.read_text()) for f in clone.glob("runs/digits/*/trial.json")]
    assert sorted(record["state"] for record in submitted) == ["done"] * 4, shown
    assert shown["python slurm/SlurmTrain.py status"].count("done") >= 4


@pytest.mark.project
def test_each_promise_names_a_test_that_there_is() -> None:
    """A file with tests in it, and the function where one is named."""
    pages = [ROOT / "README.md", ROOT / "docs/security.md", ROOT / "docs/reliability.md"]
    links = [
        (page, *link)
        for page in pages
        for link in re.findall(r"\]\(((?:\.\./)?tests/[^)#]+\.py)(?:#(\w+))?\)", page.read_text())
    ]
    for page, link, name in links:
        text = (page.parent / link).read_text()
        functions = re.findall(r"(?m)^ *def (test_\w+)", text)
        is_test = Path(link).name.startswith("test_")  # or what a test is made with
        assert functions or not is_test, f"{page.name}: {link} has no test"
        assert not name or name in functions, f"{page.name}: {link} has no {name}"
    assert len(links) >= 35
    promises = (ROOT / "README.md").read_text().partition("shown by")[2].partition("## When")[0]
    rows = [row for row in promises.splitlines() if row.startswith("| ") and "---" not in row]
    assert len(rows) >= 8
    assert all("](tests/" in row for row in rows), "a promise without its test"


def test_links_of_the_readme_and_docs_lead_somewhere() -> None:
    for file in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", file.read_text()):
            if "://" not in link:
                assert (file.parent / link).exists(), f"{file.name}: {link}"
