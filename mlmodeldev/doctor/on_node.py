"""What the job of ``doctor --job`` runs on its node: the checks, their lines into a file.

python -m mlmodeldev.doctor.on_node RUNS/.doctor/JOB
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlmodeldev.atomic import write_json
from mlmodeldev.doctor.job import ANSWER, REQUEST
from mlmodeldev.doctor.line import Line, Scope
from mlmodeldev.doctor.run import run_checks
from mlmodeldev.project import PROJECT_VARIABLE, project_root
from mlmodeldev.secrets import masked
from mlmodeldev.settings.composition import compose_settings


def main(place: Path) -> None:
    """Make the checks, and write their lines whole or not at all."""
    where = os.environ.get("SLURMD_NODENAME") or os.uname().nodename
    request = json.loads((place / REQUEST).read_text())
    try:
        lines = list(_lines(request))
    except Exception as error:
        traceback.print_exc()
        text = masked(" ".join(str(error).split()), 300)
        mend = "python slurm/SlurmTrain.py doctor --job"
        lines = [Line("FAIL", f"the node can't make the checks: {text}", mend, "job")]
    rows = [dataclasses.asdict(dataclasses.replace(line, where=where)) for line in lines]
    write_json(place / ANSWER, rows)


def _lines(request: dict[str, Any]) -> Iterator[Line]:
    import mlmodeldev

    # the copy of the code, as for trials
    os.environ[PROJECT_VARIABLE] = str(Path(mlmodeldev.__path__[0]).parent)
    here = [f"artefacts.{name}_dir={request[name]!r}" for name in ("runs", "data")]
    settings = compose_settings([*request["overrides"], *here], partial=True)
    what = f"job {os.environ.get('SLURM_JOB_ID', '?')} runs, and sees what was written here"
    yield Line("OK", what, "", "shared")
    scope = Scope(settings, project_root(), login_key=request["login_key"], in_job=True)
    yield from run_checks(scope)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
