"""What `wandb.Api` asks of artifacts: those of a run, one by its name, its manifest and files."""

from __future__ import annotations

from typing import Any

from tests.wandb.operations import answers, opaque, project_node, stamp
from tests.wandb.public import LAST
from tests.wandb.store import ENTITY, Artifact, Link, Store


def collection_node(kind: str, entity: str, project: str, name: str) -> dict[str, Any]:
    """Return what is told of a collection: an ``ArtifactSequence`` or an ``ArtifactPortfolio``."""
    place = project_node(entity, project)
    return {
        "__typename": kind, "id": opaque(kind, f"{entity}/{project}/{name}"), "name": name,
        "project": place, "description": None, "createdAt": stamp(0), "updatedAt": None,
        "type": {"name": "model"}, "tags": {"edges": []},
    }  # fmt: skip


def artifact_node(store: Store, artifact: Artifact) -> dict[str, Any]:
    """Return what is told of an artifact, with the aliases that it has as a link, too."""
    own = collection_node("ArtifactSequence", *artifact.place, artifact.collection)
    aliases = [(alias, own) for alias in artifact.aliases]
    for path, links in store.links.items():
        collection = collection_node("ArtifactPortfolio", *path.split("/"))
        for link in links:
            if link.artifact is artifact:
                aliases += [(alias, collection) for alias in link.aliases]
    manifest = {"file": {"directUrl": f"{store.url}/storage/manifest/{artifact.id}"}}
    return {
        "__typename": "Artifact", "id": artifact.id, "artifactSequence": own,
        "versionIndex": artifact.version, "artifactType": {"name": artifact.kind},
        "description": None, "metadata": artifact.metadata, "ttlDurationSeconds": -1,
        "ttlIsInherited": True, "tags": [], "historyStep": None, "state": artifact.state,
        "size": "0", "digest": artifact.digest, "commitHash": artifact.digest,
        "createdAt": stamp(0), "fileCount": len(artifact.files), "updatedAt": None,
        "aliases": [
            {"__typename": "ArtifactAlias", "id": opaque("Alias", alias), "alias": alias,
             "artifactCollection": collection}
            for alias, collection in aliases
        ],
        "currentManifest": manifest,
    }  # fmt: skip


@answers("RunOutputArtifacts")
def of_run(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    matches = [a for a in store.artifacts.values() if a.run == given["run"]]
    edges = [{"node": artifact_node(store, each), "cursor": each.id} for each in matches]
    return {"project": {"run": {"artifacts": {
        "totalCount": len(edges), "pageInfo": LAST, "edges": edges,
    }}}}  # fmt: skip


def _named(store: Store, given: dict[str, Any], collection: str, alias: str) -> Link | None:
    """Return the version of a collection that has an alias, be it made here or linked to."""
    entity, project = given.get("entity") or ENTITY, given["project"]
    links = store.links.get(f"{entity}/{project}/{collection}") or [
        Link(each.version, each, each.aliases)
        for each in store.artifacts.values()
        if (each.place, each.collection) == ((entity, project), collection)
    ]
    return next((each for each in links if alias in (*each.aliases, f"v{each.number}")), None)


@answers("ArtifactMembershipByName")
def by_name(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    entity, project = given.get("entity") or ENTITY, given["project"]
    name, _, alias = given["name"].partition(":")
    link = _named(store, given, name, alias)
    if link is None:
        return {"project": {"artifactCollectionMembership": None}}
    is_linked = f"{entity}/{project}/{name}" in store.links
    kind = "ArtifactPortfolio" if is_linked else "ArtifactSequence"
    collection = collection_node(kind, entity, project, name)
    aliases = [
        {"__typename": "ArtifactAlias", "id": opaque("Alias", each), "alias": each,
         "artifactCollection": collection}
        for each in link.aliases
    ]  # fmt: skip
    member = {
        "id": opaque("Member", link.artifact.id), "versionIndex": link.number,
        "createdAt": stamp(0), "aliases": aliases, "artifactCollection": collection,
        "artifact": artifact_node(store, link.artifact),
    }  # fmt: skip
    return {"project": {"artifactCollectionMembership": member}}


@answers("FetchArtifactManifest")
def manifest_of(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    file = {"directUrl": f"{store.url}/storage/manifest/{given['id']}"}
    return {"artifact": {"currentManifest": {"file": file}}}


@answers("GetArtifactMembershipFileUrls")
def file_addresses(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    link = _named(store, given, given["collection"], given["alias"])
    assert link is not None
    matches = link.artifact
    edges = [
        {"node": {"__typename": "File", "name": name,
                  "directUrl": f"{store.url}/storage/artifact/{matches.id}/{name}"}}
        for name in matches.files
    ]  # fmt: skip
    files = {"files": {"pageInfo": LAST, "edges": edges}}
    return {"project": {"artifactCollection": {
        "__typename": "ArtifactSequence", "artifactMembership": files,
    }}}  # fmt: skip
