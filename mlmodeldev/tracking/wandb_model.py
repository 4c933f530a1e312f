"""An export as an artifact of W&B: the one that the trial's run has, or one uploaded now.

Example::

    artifact = trials_artifact(api, package) or upload(package, metadata, "team", "digits")
    artifact.link("wandb-registry-model/digits")
"""

from __future__ import annotations

import re
import secrets
import tempfile
from collections.abc import Mapping
from typing import Any

from mlmodeldev.tracking.registry_remote import LINEAGE, Package
from mlmodeldev.tracking.wandb_init import init_seconds

KIND = "model"
"""Type of the artifacts."""

_NOT_IN_NAMES = re.compile(r"[^\w.-]")


def trials_artifact(api: Any, package: Package) -> Any:
    """Return the artifact of the trial's run that has these very files; None: there is none.

    Args:
        api: W&B's client for questions.
        package: its tag ``wandb_run`` names the run, ``entity/project/id``.
    """
    path = package.tags.get("wandb_run")
    if not path:
        return None
    try:
        logged = list(api.run(path).logged_artifacts())
    except (ValueError, LookupError, _client_error()):  # it was deleted, or is on another server
        return None
    digest = _draft(package, "model").digest
    same = (each for each in logged if each.type == KIND and each.digest == digest)
    return next(same, None)


def upload(package: Package, metadata: Mapping[str, Any], entity: str | None, project: str) -> Any:
    """Upload an export, by a run of its own; return the artifact, which is whole then.

    Args:
        package: the export; its picture goes along.
        metadata: the artifact's.
        entity: team or user; None: the account's default.
        project: that the run is filed under.
    """
    import wandb

    trial = str(package.tags.get("trial") or package.digest[:16])
    name = _NOT_IN_NAMES.sub("-", f"model-{trial.rpartition('/')[2]}")
    artifact = _draft(package, name, dict(metadata))
    if package.picture is not None:
        shown = f"{LINEAGE}/{package.picture.name}"
        artifact.add_file(str(package.picture), name=shown, policy="immutable", skip_cache=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        run = wandb.init(
            id=f"register-{secrets.token_hex(4)}",
            name=f"register {trial}"[:128],
            entity=entity,
            project=project,
            job_type="register",
            dir=scratch,
            mode="online",
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                x_disable_stats=True,
                x_disable_meta=True,
                init_timeout=init_seconds(),
            ),
        )
        try:
            run.log_artifact(artifact)
            artifact.wait()
        finally:
            run.finish()
    return artifact


def _draft(package: Package, name: str, metadata: dict[str, Any] | None = None) -> Any:
    import wandb

    artifact = wandb.Artifact(name, type=KIND, metadata=metadata)
    artifact.add_dir(str(package.model), policy="immutable", skip_cache=True)
    return artifact


def _client_error() -> type[Exception]:
    from wandb.errors import CommError

    return CommError
