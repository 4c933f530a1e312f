"""What `wandb.Api` asks of artifacts: those of a run, one by its name, its manifest and files."""

from __future__ import annotations

from typing import Any

from tests.wandb.operations import answers, opaque, project_node, stamp
from tests.wandb.public import LAST
from tests.wandb.store import ENTITY, Artifact, Store


def _collection(entity: str, project: str, name: str) -> dict[str, Any]:
    kind = {"__typename": "ArtifactSequence", "id": opaque("Sequence", name)}
    return {**kind, "name": name, "project": project_node(entity, project)}


def _node(store: Store, artifact: Artifact, entity: str, project: str) -> dict[str, Any]:
    collection = _collection(entity, project, artifact.collection)
    aliases = [
        {"__typename": "ArtifactAlias", "id": opaque("Alias", alias), "alias": alias,
         "artifactCollection": collection}
        for alias in artifact.aliases
    ]  # fmt: skip
    manifest = {"file": {"directUrl": f"{store.url}/storage/manifest/{artifact.id}"}}
    return {
        "__typename": "Artifact", "id": artifact.id, "artifactSequence": collection,
        "versionIndex": artifact.version, "artifactType": {"name": artifact.kind},
        "description": None, "metadata": "{}", "ttlDurationSeconds": -1, "ttlIsInherited": True,
        "tags": [], "historyStep": None, "state": artifact.state, "size": "0",
        "digest": artifact.digest, "commitHash": artifact.digest, "createdAt": stamp(0),
        "fileCount": len(artifact.files), "updatedAt": None, "aliases": aliases,
        "currentManifest": manifest,
    }  # fmt: skip


@answers("RunOutputArtifacts")
def of_run(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    entity, project = given.get("entity") or ENTITY, given["project"]
    matches = [a for a in store.artifacts.values() if a.run == given["run"]]
    edges = [{"node": _node(store, each, entity, project), "cursor": each.id} for each in matches]
    return {"project": {"run": {"artifacts": {
        "totalCount": len(edges), "pageInfo": LAST, "edges": edges,
    }}}}  # fmt: skip


def _named(store: Store, collection: str, alias: str) -> Artifact | None:
    for each in store.artifacts.values():
        if each.collection == collection and alias in (*each.aliases, f"v{each.version}"):
            return each
    return None


@answers("ArtifactMembershipByName")
def by_name(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    entity, project = given.get("entity") or ENTITY, given["project"]
    name, _, alias = given["name"].partition(":")
    matches = _named(store, name, alias)
    if matches is None:
        return {"project": {"artifactCollectionMembership": None}}
    node = _node(store, matches, entity, project)
    member = {
        "id": opaque("Member", matches.id), "versionIndex": matches.version,
        "createdAt": stamp(0), "aliases": node["aliases"], "artifact": node,
        "artifactCollection": node["artifactSequence"],
    }  # fmt: skip
    return {"project": {"artifactCollectionMembership": member}}


@answers("FetchArtifactManifest")
def manifest_of(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    file = {"directUrl": f"{store.url}/storage/manifest/{given['id']}"}
    return {"artifact": {"currentManifest": {"file": file}}}


@answers("GetArtifactMembershipFileUrls")
def file_addresses(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    matches = _named(store, given["collection"], given["alias"])
    assert matches is not None
    edges = [
        {"node": {"__typename": "File", "name": name,
                  "directUrl": f"{store.url}/storage/artifact/{matches.id}/{name}"}}
        for name in matches.files
    ]  # fmt: skip
    files = {"files": {"pageInfo": LAST, "edges": edges}}
    return {"project": {"artifactCollection": {
        "__typename": "ArtifactSequence", "artifactMembership": files,
    }}}  # fmt: skip
