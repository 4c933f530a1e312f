"""A trial's run in MLflow: the same for good, with each metric once a step, whoever was killed.

MLflow keeps whatever it is sent, also twice. So an opened run says for each metric the last step
that it has, and only later ones are sent: a trial that comes back writes the same values by the
same steps. A row goes in one call, which the store takes whole or not at all.

Example::

    run = TrialRun.open(settings, folder)
    run.send([TimedRow({"train/loss": 0.3}, step=130, milliseconds=1_760_000_000_000)])
    run.end("done")
"""

from __future__ import annotations

import getpass
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.tracking.flat_values import shown
from mlmodeldev.tracking.metadata import BY_HAND, run_name
from mlmodeldev.tracking.mlflow_names import LONGEST_TAG, metric_name, parameters, tags
from mlmodeldev.tracking.mlflow_store import KEY, Store, find_run, new_key, open_store, sweep_run
from mlmodeldev.tracking.timed_rows import TimedRow

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import Settings
    from mlmodeldev.trial.folder import TrialFolder

MOST_METRICS, MOST_PARAMETERS = 1000, 100
"""That MLflow takes in one call."""
RUN_ENTRY, KEY_ENTRY, UPLOADED_ENTRY = "mlflow_run", "mlflow_key", "mlflow_uploaded"
"""Names in ``trial.json``: the run's id, its key, and whether MLflow has everything."""

_STATUS = {"done": "FINISHED", "pruned": "FINISHED", "interrupted": "KILLED"}
_CHANGED = "mlmodeldev.changed"
_TABLES = "mlflow.loggedArtifacts"


class TrialRun:
    """An open run; all calls raise what the client raises, and may be made again.

    Args:
        store: where it lies.
        run_id: the run's.

    Attributes:
        begun_anew: whether this attempt made it.
    """

    def __init__(self, store: Store, run_id: str, begun_anew: bool) -> None:
        self.store, self.client, self.id = store, store.client, run_id
        self.begun_anew = begun_anew
        self._last: dict[str, int] = {}
        self._names: dict[str, str] = {}

    @classmethod
    def open(cls, settings: Settings, folder: TrialFolder) -> TrialRun:
        """Return the trial's run, which is in ``trial.json`` from then on."""
        record = folder.read()
        key = record.get(KEY_ENTRY)
        if not key:
            key = new_key()
            folder.update(**{KEY_ENTRY: key})  # before there is a run that it has to find
        store = open_store(settings)
        there = _former_run(store, record.get(RUN_ENTRY), key)
        if there is None:
            run = store.client.create_run(
                store.experiment,
                tags=_first_tags(store, settings, folder, record, key),
                run_name=run_name(settings),
            )
        else:
            run = there
            store.client.update_run(run.info.run_id, status="RUNNING")
        opened = cls(store, str(run.info.run_id), begun_anew=there is None)
        folder.update(**{RUN_ENTRY: opened.id, UPLOADED_ENTRY: False})
        opened._send_parameters(parameters(settings), run.data.params)
        opened.refresh()
        return opened

    def refresh(self) -> None:
        """Ask MLflow what it has of each metric; to be called after anything went wrong."""
        latest = self.client.get_run(self.id).data.to_proto().metrics
        self._last = {metric.key: int(metric.step) for metric in latest}

    def send(self, rows: Iterable[TimedRow]) -> None:
        """Send what MLflow lacks of rows, which are in the order of their steps."""
        from mlflow.entities import Metric

        queued: list[Any] = []
        ahead = dict(self._last)
        for row in rows:
            metrics = [
                Metric(name, float(value), row.milliseconds, row.step)
                for name, value in self._named(row.values)
                if row.step > ahead.get(name, -1)
            ]
            if len(queued) + len(metrics) > MOST_METRICS:
                self._log(queued)
                queued = []
            queued += metrics
            ahead.update({metric.key: metric.step for metric in metrics})
        self._log(queued)

    def _named(self, values: Mapping[str, float]) -> Iterable[tuple[str, float]]:
        for name, value in values.items():
            if name not in self._names:
                self._names[name] = metric_name(name)
            yield self._names[name], value

    def _log(self, metrics: list[Any]) -> None:
        for first in range(0, len(metrics), MOST_METRICS):
            part = metrics[first : first + MOST_METRICS]
            self.client.log_batch(self.id, metrics=part, synchronous=True)
            self._last.update({metric.key: metric.step for metric in part})

    def _send_parameters(self, wanted: Mapping[str, str], there: Mapping[str, str]) -> None:
        """Send settings; of one that has changed since the run began, a tag tells: it must not."""
        from mlflow.entities import Param

        new = [Param(name, value) for name, value in wanted.items() if name not in there]
        for first in range(0, len(new), MOST_PARAMETERS):
            part = new[first : first + MOST_PARAMETERS]
            self.client.log_batch(self.id, params=part, synchronous=True)
        changed = {n: v for n, v in wanted.items() if there.get(n, v) != v}
        if changed:
            text = " ".join(f"{name}={value}" for name, value in changed.items())
            self.client.set_tag(self.id, _CHANGED, shown(_CHANGED, text, LONGEST_TAG))

    def set_tags(self, values: Mapping[str, Any], front: str = "mlmodeldev") -> None:
        """Set tags, ``front.name``, nested mappings by dots."""
        from mlflow.entities import RunTag

        listed = [RunTag(name, value) for name, value in tags(values, front).items()]
        for first in range(0, len(listed), MOST_PARAMETERS):
            part = listed[first : first + MOST_PARAMETERS]
            self.client.log_batch(self.id, tags=part, synchronous=True)

    def keep_file(self, file: Path, place: str | None) -> None:
        """Keep a file, in a folder of the run's artifacts; one of the same name gives way."""
        self.client.log_artifact(self.id, str(file), place)

    def files_in(self, place: str) -> set[str]:
        """Return the names of the files in a folder of the run's artifacts."""
        return {Path(each.path).name for each in self.client.list_artifacts(self.id, place)}

    def keep_table(self, name: str, columns: list[str], data: list[list[Any]]) -> None:
        """Keep a table as MLflow's page of a run shows it: ``<name>.json``."""
        rows = [[_cell(value) for value in row] for row in data]
        text = json.dumps({"columns": columns, "data": rows}, default=str)
        self.client.log_text(self.id, text, f"{name}.json")

    def announce_tables(self, names: Iterable[str]) -> None:
        """Tell MLflow's page which artifacts are tables."""
        listed = [{"path": f"{name}.json", "type": "table"} for name in sorted(names)]
        self.client.set_tag(self.id, _TABLES, json.dumps(listed))

    def end(self, state: str) -> None:
        """Tell how the trial ended; one that is interrupted goes on in the same run."""
        self.client.set_tag(self.id, "mlmodeldev.state", state)
        self.client.set_terminated(self.id, _STATUS.get(state, "FAILED"))


def _former_run(store: Store, run_id: str | None, key: str) -> Any:
    """Return the run that the trial has; None: none, or it was deleted, or is of another store."""
    from mlflow.exceptions import MlflowException

    if run_id:
        try:
            run = store.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        else:
            return run if run.info.lifecycle_stage == "active" else None
    return find_run(store, key)


def _first_tags(
    store: Store, settings: Settings, folder: TrialFolder, record: Mapping[str, Any], key: str
) -> dict[str, str]:
    sweep = settings.artefacts.sweep
    own = {
        KEY: key,
        "mlmodeldev.sweep": sweep,
        "mlmodeldev.trial": folder.id,
        "mlflow.user": _user(),
        "mlflow.source.name": "trainer.py",
        "mlflow.source.type": "LOCAL",
    }
    if record.get("sha"):
        own["mlflow.source.git.commit"] = str(record["sha"])
    if sweep != BY_HAND:
        own["mlflow.parentRunId"] = sweep_run(store, folder.path.parent)
    return own


def _cell(value: Any) -> Any:
    """Return a value of a table as JSON has it, in which there is no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
