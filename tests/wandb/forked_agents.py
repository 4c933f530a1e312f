"""Many agents of ours at once, cheaply: forks of one process that has imported them.

    python -m tests.wandb.forked_agents agents.json

``agents.json``: a list of ``{"arguments": [...], "environment": {...}, "log": "..."}``. Each
agent's process number is written to ``<log>.pid``, its exit status to ``<log>.status``.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import wandb.sdk.launch.sweeps.utils  # noqa: F401 - once, for all

from mlmodeldev.atomic import write_text
from mlmodeldev.settings.composition import compose_settings
from mlmodeldev.slurm import agent, agent_channel, agent_source
from mlmodeldev.tracking import wandb_api
from mlmodeldev.trial import pool


def main(file: Path) -> None:
    """Run them all to their ends."""
    compose_settings(partial=True)
    agent_source.BEAT_SECONDS = 0.3
    agent_channel.ANSWER_SECONDS = 0.5
    wandb_api.ANSWER_SECONDS = 4.0
    agent.WAITS = (*[0.2] * 10, 0.0)
    pool.POLL_SECONDS = 0.1
    logs = {}
    for case in json.loads(file.read_text()):
        pid = os.fork()
        if not pid:
            run(case)
        logs[pid] = case["log"]
        write_text(Path(f"{case['log']}.pid"), str(pid))
    while logs:
        pid, status = os.wait()
        ended = {"status": os.waitstatus_to_exitcode(status), "time": time.time()}
        write_text(Path(f"{logs.pop(pid)}.status"), json.dumps(ended))


def run(case: dict[str, Any]) -> None:
    """Be an agent; never returns."""
    descriptor = os.open(case["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(case["environment"])
    status = 1
    try:
        status = agent.main(case["arguments"])
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
