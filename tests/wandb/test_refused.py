"""A server that does not take a run: the trial trains offline, unless it was to be online."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

from tests.wandb.conftest import ROOT, Client, nothing_unknown, steps_are_whole
from tests.wandb.server import Server

SYNC = ("python", str(ROOT / "slurm" / "SlurmTrain.py"), "sync")


@pytest.mark.slow
def test_a_refused_run_trains_offline_and_is_uploaded_when_it_may_be(client: Client):
    client.server.faults.fail(403, 10**6, "UpsertBucket")  # a project without the right to write
    words = ("artefacts.trial=refused", f"logger.wandb.project={client.project}")
    demanded = client.trial(*words, "artefacts.sweep=online", "logger.wandb.mode=online")
    demanded.join(150)
    assert demanded.exitcode == 2, client.output()
    output = client.output()
    assert output.count("logger.wandb.mode=online: ") == 1
    assert "does not take the run: a fault that was asked for" in output
    assert "Traceback" not in output
    trial = client.trial(*words)
    trial.join(150)
    assert trial.exitcode == 0, client.output()
    assert client.output().count("Weights & Biases: offline, because ") == 1
    assert "Traceback" not in client.output()
    folder = client.runs_dir / "single" / "refused"
    record = json.loads((folder / "trial.json").read_text())
    assert (record["state"], record["wandb_path"]) == ("done", None)
    client.server.faults.clear()
    client.sh(*SYNC, "--runs-dir", str(client.runs_dir), "--sweep", "single")
    (run,) = client.runs
    assert (run.name, run.ends) == (record["wandb_id"], [("finished", 0)])
    steps_are_whole(run, len((folder / "metrics.csv").read_text().splitlines()) - 1)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/graphql", {"query": "query NewThing { viewer { id } }"}),
        ("/graphql", {"query": "mutation UpsertBucket { }", "variables": {"config": 7}}),
        ("/files/a/b/c/new_stream", {}),
    ],
)
def test_a_request_that_the_loopback_server_does_not_know_fails_a_test(path: str, body: dict):
    server = Server()
    try:
        nothing_unknown(server, 0)
        request = urllib.request.Request(server.url + path, json.dumps(body).encode())
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(request, timeout=20)
        with pytest.raises(AssertionError):
            nothing_unknown(server, 0)
    finally:
        server.close()
