"""A registry of models in MLflow: its registered models, versions and aliases.

A version is a logged model: the one that the trial's run has, where the trial was logged to MLflow,
else one that is logged now. Champions before are a tag of the registered model, written before the
alias where one is promoted, after it where one is rolled back.

Example::

    registry = MlflowRegistry("sqlite:///runs/mlflow.db", Path("runs"), "mlmodeldev")
    registry.add("digits", Path("runs/digits/ab12cd34/best"), {"trial": "digits/ab12cd34"}, None)
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import UsageError
from mlmodeldev.settings.tracking_address import tracking_address, without_password
from mlmodeldev.tracking.mlflow_model import DIGEST, log_folder, logged_folder
from mlmodeldev.tracking.mlflow_names import LONGEST_TAG, tags
from mlmodeldev.tracking.mlflow_store import (
    Store,
    database_file,
    default_address,
    import_client,
    open_at,
    reason,
)
from mlmodeldev.tracking.registry import (
    CHALLENGER,
    CHAMPION,
    Aliases,
    Version,
    former_champions,
    is_name,
)
from mlmodeldev.tracking.registry_remote import LINEAGE, Package, RemoteRegistry

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import MlflowLogger

CHAMPIONS = "mlmodeldev.champions"
"""Tag of a registered model: all champions as a list of numbers, the present one last."""
MADE_OF = "mlmodeldev.lineage"
"""Tag of a version: where it comes from, as JSON."""

_NO_PART_OF_IT = ("MLmodel", "registered_model_meta", LINEAGE)
_ABSENT = "RESOURCE_DOES_NOT_EXIST"
_MOST_CHAMPIONS = 500


class MlflowRegistry(RemoteRegistry):
    """Versions and aliases in MLflow.

    Args:
        uri: of a server or a database.
        runs_dir: of the project.
        experiment: that models are logged under whose trial was not logged to MLflow.
    """

    def __init__(self, uri: str, runs_dir: Path, experiment: str) -> None:
        super().__init__(f"mlflow:{without_password(uri)}", runs_dir)
        self.uri, self.runs_dir, self.experiment = uri, runs_dir, experiment
        self._opened: Store | None = None

    @classmethod
    def at(cls, uri: str | None, runs_dir: Path, chosen: MlflowLogger | None) -> MlflowRegistry:
        """Return the registry at an address; None: where ``logger=mlflow`` writes to.

        Raises:
            UsageError: it is no address, or the package is not installed.
        """
        runs_dir = runs_dir.expanduser().absolute()
        import_client("registry mlflow")
        try:
            given = tracking_address(uri) if uri else chosen.uri if chosen else None
        except ValueError as error:
            raise UsageError(f"registry mlflow: {error}") from None
        experiment = chosen.experiment if chosen else "mlmodeldev"
        return cls(given or default_address(runs_dir), runs_dir, experiment)

    # --- what there is

    def names(self) -> list[str]:
        """Return the registered models' names."""
        with self._asking():
            if not self._is_there():
                return []
            models = _every(self._client.search_registered_models)
            return sorted(model.name for model in models if is_name(model.name))

    def versions(self, name: str) -> list[Version]:
        """Return a model's versions, the oldest first; none of a name that is not registered."""
        with self._asking():
            if not self._is_there():
                return []
            entries = _every(self._client.search_model_versions, filter_string=f"name='{name}'")
            whole = [self._version(each) for each in entries if str(each.status) == "READY"]
            return sorted(whole, key=lambda version: version.number)

    def aliases(self, name: str) -> Aliases:
        """Return which versions have an alias."""
        from mlflow.exceptions import MlflowException

        with self._asking():
            if not self._is_there():
                return Aliases()
            try:
                model = self._client.get_registered_model(name)
            except MlflowException as error:
                if error.error_code != _ABSENT:
                    raise
                return Aliases()
            numbers = {alias: int(number) for alias, number in model.aliases.items()}
            champion, challenger = numbers.get(CHAMPION), numbers.get(CHALLENGER)
            former = former_champions(_numbers(model.tags.get(CHAMPIONS)), champion)
            return Aliases(champion, None if challenger == champion else challenger, former)

    # --- changes

    def _store(self, name: str, package: Package) -> Version:
        from mlflow.exceptions import MlflowException

        store, run_id = self._of_run(package.tags.get("mlflow_run"))
        model = logged_folder(store, package.digest) or log_folder(
            store, package.model, package.digest, tags(package.tags, "mlmodeldev"), run_id
        )
        lineage = dict(package.tags)
        if package.picture is not None:
            lineage["cka"] = self._keep_picture(model, package.picture)
        try:
            store.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        about = {DIGEST: package.digest, MADE_OF: _as_json(lineage), **tags(lineage, "mlmodeldev")}
        with _as_default(self.uri):
            version = store.client.create_model_version(
                name, f"models:/{model.model_id}", model.source_run_id, about,
                model_id=model.model_id,
            )  # fmt: skip
        return self._version(version)

    def _keep_picture(self, model: Any, picture: Path) -> str:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / LINEAGE
            folder.mkdir()
            shutil.copy2(picture, folder)
            self._client.log_model_artifacts(model.model_id, scratch)
        return f"{model.artifact_location}/{LINEAGE}/{picture.name}"

    def _write(self, name: str, before: Aliases, after: Aliases) -> None:
        champions = [*after.former, *([] if after.champion is None else [after.champion])]
        promoted = len(after.former) >= len(before.former)
        if promoted:
            self._note(name, champions)
        if after.champion != before.champion:
            self._client.set_registered_model_alias(name, CHAMPION, str(after.champion))
        if not promoted:
            self._note(name, champions)
        if after.challenger is None:
            self._client.delete_registered_model_alias(name, CHALLENGER)
        elif after.challenger != before.challenger:
            self._client.set_registered_model_alias(name, CHALLENGER, str(after.challenger))

    def _note(self, name: str, champions: list[int]) -> None:
        text = json.dumps(champions[-_MOST_CHAMPIONS:])
        self._client.set_registered_model_tag(name, CHAMPIONS, text)

    # --- files

    def _fetch(self, name: str, version: Version, folder: Path) -> None:
        from mlflow.artifacts import download_artifacts

        place = self._client.get_model_version_download_uri(name, str(version.number))
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
            where = {"tracking_uri": self.uri, "registry_uri": self.uri}
            fetched = Path(download_artifacts(place, dst_path=scratch, **where))
            for item in fetched.iterdir():
                if item.name not in _NO_PART_OF_IT:
                    item.rename(folder / item.name)

    # --- the store

    @property
    def _client(self) -> Any:
        return self._open().client

    def _open(self) -> Store:
        if self._opened is None:
            self._opened = open_at(self.uri, self.runs_dir, self.experiment)
        return self._opened

    def _is_there(self) -> bool:
        """Return whether there is anything to read: looking makes no database."""
        file = database_file(self.uri)
        return self._opened is not None or file is None or file.is_file()

    def _of_run(self, run_id: str | None) -> tuple[Store, str | None]:
        """Return the experiment of a trial's run, and its id; ours and None: it has none here."""
        from mlflow.exceptions import MlflowException

        store = self._open()
        if not run_id:
            return store, None
        try:
            run = store.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != _ABSENT:
                raise
            return store, None
        return replace(store, experiment=run.info.experiment_id), run_id

    def _version(self, entry: Any) -> Version:
        digest = entry.tags.get(DIGEST, "")
        if not digest and entry.model_id:  # registered by hand
            digest = self._client.get_logged_model(entry.model_id).tags.get(DIGEST, "")
        created = entry.creation_timestamp / 1000
        return Version(
            int(entry.version), created, digest, _from_json(entry.tags.get(MADE_OF)), entry.source
        )

    def _lock_file(self, name: str) -> Path:
        file = database_file(self.uri)
        return file.with_name(f".{file.name}.{name}.lock") if file else super()._lock_file(name)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(f"{self.place}: {reason(error)}") from None


def _every(search: Callable[..., Any], **wanted: Any) -> list[Any]:
    """Return all pages of a search."""
    page = search(**wanted)
    entries = list(page)
    while page.token:
        page = search(**wanted, page_token=page.token)
        entries += page
    return entries


@contextlib.contextmanager
def _as_default(uri: str) -> Iterator[None]:
    """Make an address the process's own for a moment: by it MLflow looks up models in a file."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def _numbers(text: str | None) -> list[int]:
    try:
        return [int(number) for number in json.loads(text or "[]")]
    except (ValueError, TypeError):
        return []


def _as_json(lineage: dict[str, Any]) -> str:
    """Return where a version comes from as JSON, no longer than a tag; the longest goes first."""
    kept = dict(lineage)
    while len(text := json.dumps(kept, default=str)) > LONGEST_TAG:
        kept.pop(max(kept, key=lambda name: len(json.dumps(kept[name], default=str))))
    return text


def _from_json(text: str | None) -> dict[str, Any]:
    try:
        content = json.loads(text or "{}")
    except ValueError:
        content = {}
    return content if isinstance(content, dict) else {}
