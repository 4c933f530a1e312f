"""A registry of models in W&B: a collection of links to artifacts, with aliases.

A version is a link to an artifact of type ``model``: the one that the trial's run has, where it has
these files, else one that is uploaded now, by a run of the job type ``register``. Numbers are
W&B's own, which begin at 0. The k-th champion has the alias ``champion-k`` beside ``champion``; a
promotion sets both in one step, and ``rollback`` goes back along them.

Example::

    registry = WandbRegistry("wandb-registry-model", Path("runs"), entity="team", project="digits")
    registry.add("digits", Path("runs/digits/ab12cd34/best"), {"trial": "digits/ab12cd34"}, None)
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmodeldev.errors import UsageError, nearest
from mlmodeldev.secrets import mask, masked
from mlmodeldev.tracking.bounded import Unreachable
from mlmodeldev.tracking.registry import (
    CHALLENGER,
    CHAMPION,
    Aliases,
    Version,
    former_champions,
    is_name,
)
from mlmodeldev.tracking.registry_remote import LINEAGE, Package, RemoteRegistry
from mlmodeldev.tracking.wandb_api import DEFAULT_HOST, Refused, host, query_server
from mlmodeldev.tracking.wandb_init import prepare_environment
from mlmodeldev.tracking.wandb_model import KIND, trials_artifact, upload

if TYPE_CHECKING:
    from mlmodeldev.settings.schema import WandbLogger

FRONT = "wandb-registry-"
"""What W&B's registries begin with, as projects."""
OUR_METADATA = "mlmodeldev"
"""An artifact's metadata: the digest of the model's files, and where it comes from."""

_TARGET = re.compile(r"([^/\\#?%:]+/)?[^/\\#?%:]+")
_ONCE_CHAMPION = re.compile(rf"{CHAMPION}-([1-9]\d*)")
_LOOK_SECONDS = 10.0
_OFFLINE = ("offline", "dryrun", "disabled")


class WandbRegistry(RemoteRegistry):
    """Versions and aliases in W&B.

    Args:
        target: ``wandb-registry-NAME``, ``ORG/wandb-registry-NAME`` or ``ENTITY/PROJECT``.
        runs_dir: of the project.
        entity: that models are uploaded to, and whose organization has the registry; None: the
            account's.
        project: that models are uploaded to.
    """

    def __init__(self, target: str, runs_dir: Path, entity: str | None, project: str) -> None:
        address = host()
        super().__init__(
            f"wandb:{target}" + ("" if address == DEFAULT_HOST else f" at {address}"), runs_dir
        )
        self.target, self.entity, self.project = target, entity, project
        self._client: Any = None

    @classmethod
    def at(cls, target: str | None, runs_dir: Path, chosen: WandbLogger | None) -> WandbRegistry:
        """Return a registry, or a project; None: the registry for models.

        Raises:
            UsageError: it is neither.
        """
        target = target or f"{FRONT}model"
        owner, _, project = target.rpartition("/")
        if not _TARGET.fullmatch(target) or not (owner or project.startswith(FRONT)):
            hint = nearest(target, [f"{FRONT}model"]) or f"; did you mean '{FRONT}{target}'?"
            raise UsageError(
                f"registry wandb:{target}: must be wandb:ENTITY/PROJECT or wandb:[ORG/]{FRONT}NAME"
                f"{hint}"
            )
        entity = (chosen.entity if chosen else None) or os.environ.get("WANDB_ENTITY") or None
        if not project.startswith(FRONT):
            return cls(target, runs_dir, owner, project)
        return cls(target, runs_dir, entity, chosen.project if chosen else "mlmodeldev")

    # --- what there is

    def names(self) -> list[str]:
        """Return the registered models' names."""
        with self._asking():
            collections = self._api().artifact_collections(self.target, KIND)
            try:
                return sorted(each.name for each in collections if is_name(each.name))
            except ValueError:  # the client's: there is no such project yet, or no model in it
                return []

    def versions(self, name: str) -> list[Version]:
        """Return a model's versions, the oldest first; none of a name that is not registered."""
        with self._asking():
            versions = [self._version(name, each) for each in self._links(name)]
            return sorted(versions, key=lambda version: version.number)

    def aliases(self, name: str) -> Aliases:
        """Return which versions have an alias."""
        with self._asking():
            return _read(self._numbers(name))

    def _links(self, name: str) -> list[Any]:
        if name not in self.names():
            return []
        return list(self._api().artifacts(KIND, f"{self.target}/{name}"))

    def _numbers(self, name: str) -> dict[str, int]:
        """Return the version of each alias."""
        links = self._links(name)
        return {alias: _number(link) for link in links for alias in link.aliases}

    def _link(self, name: str, number: int) -> Any:
        return self._api().artifact(f"{self.target}/{name}:v{number}")

    def _version(self, name: str, link: Any) -> Version:
        ours = link.metadata.get(OUR_METADATA)
        ours = ours if isinstance(ours, dict) else {}
        created = datetime.fromisoformat(link.created_at).timestamp()
        number = _number(link)
        place = f"{self.target}/{name}:v{number}"
        return Version(number, created, ours.get("digest", ""), dict(ours.get(LINEAGE, {})), place)

    # --- changes

    def _store(self, name: str, package: Package) -> Version:
        lineage = dict(package.tags)
        artifact = trials_artifact(self._api(), package)
        if artifact is None:
            if package.picture is not None:
                lineage["cka"] = f"{LINEAGE}/{package.picture.name}"
            metadata = {OUR_METADATA: {"digest": package.digest, LINEAGE: lineage}}
            artifact = upload(package, metadata, self.entity, self.project)
        else:
            artifact.metadata[OUR_METADATA] = {"digest": package.digest, LINEAGE: lineage}
            artifact.save()
        link = artifact.link(f"{self.target}/{name}", aliases=[CHALLENGER])
        return self._version(name, link)

    def _write(self, name: str, before: Aliases, after: Aliases) -> None:
        numbers = self._numbers(name)
        history = _history(numbers)
        wanted = [*after.former, *([] if after.champion is None else [after.champion])]
        same = _common(list(history.values()), wanted)
        kept = list(history)[:same]
        following = (kept or [0])[-1] + 1
        new = {following + i: number for i, number in enumerate(wanted[same:])}
        for count, number in new.items():
            is_last = count == max(new)
            self._put(name, number, [f"{CHAMPION}-{count}", *([CHAMPION] if is_last else [])])
        if after.champion is not None and not new and after.champion != before.champion:
            self._put(name, after.champion, [CHAMPION])
        for count in set(history) - {*kept, *new}:
            self._take(name, history[count], f"{CHAMPION}-{count}")
        there = numbers.get(CHALLENGER)
        if after.challenger is None and there is not None:
            self._take(name, there, CHALLENGER)
        elif after.challenger is not None and after.challenger != there:
            self._put(name, after.challenger, [CHALLENGER])

    def _put(self, name: str, number: int, aliases: Iterable[str]) -> None:
        """Give a version aliases, all in one step; who had them has them no more."""
        link = self._link(name, number)
        link.aliases = [*dict.fromkeys([*link.aliases, *aliases])]
        link.save()

    def _take(self, name: str, number: int, alias: str) -> None:
        link = self._link(name, number)
        link.aliases = [each for each in link.aliases if each != alias]
        link.save()

    # --- files

    def _fetch(self, name: str, version: Version, folder: Path) -> None:
        self._link(name, version.number).download(root=str(folder), skip_cache=True)
        shutil.rmtree(folder / LINEAGE, ignore_errors=True)

    # --- the server

    def _api(self) -> Any:
        """Return W&B's client for questions.

        Raises:
            UsageError: there is no key, or W&B is to be left alone.
            Unreachable: the server does not answer; its client would try for minutes.
        """
        if self._client is None:
            mode = os.environ.get("WANDB_MODE", "")
            if mode in _OFFLINE:
                raise UsageError(f"{self.place}: can't be had with WANDB_MODE={mode}; unset it")
            query_server("query Viewer { viewer { entity } }", seconds=_LOOK_SECONDS)
            prepare_environment()
            import wandb

            given = {"base_url": host(), **({"entity": self.entity} if self.entity else {})}
            self._client = wandb.Api(overrides=given)
        return self._client

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except UsageError:
            raise
        except (Unreachable, Refused) as error:
            raise UsageError(f"{self.place}: {mask(str(error))}") from None
        except Exception as error:  # of the client, which has many
            text = masked(" ".join(str(error).split()), 300)
            raise UsageError(f"{self.place}: {text or type(error).__name__}") from None


def _number(link: Any) -> int:
    """Return a version's number in the collection; the client has the source's elsewhere."""
    return int(link.name.rpartition(":v")[2])


def _read(numbers: dict[str, int]) -> Aliases:
    champion, challenger = numbers.get(CHAMPION), numbers.get(CHALLENGER)
    former = former_champions(list(_history(numbers).values()), champion)
    return Aliases(champion, None if challenger == champion else challenger, former)


def _history(numbers: dict[str, int]) -> dict[int, int]:
    """Return the champions, the present one too, by their count, in its order."""
    counts = {
        int(match[1]): number
        for alias, number in numbers.items()
        if (match := _ONCE_CHAMPION.fullmatch(alias))
    }
    return dict(sorted(counts.items()))


def _common(one: list[int], other: list[int]) -> int:
    """Return how many numbers two lists begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
