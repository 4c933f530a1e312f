"""Registries: collections that link to artifacts, with numbers and aliases of their own.

A registry lies below the organization of an account, as a project ``wandb-registry-NAME``.
"""

from __future__ import annotations

from typing import Any

from tests.wandb.artifact_pages import artifact_node, collection_node
from tests.wandb.operations import answers
from tests.wandb.public import LAST
from tests.wandb.store import Artifact, Link, Store

ORGANIZATION = "loopback-org"
"""The one organization that there is."""


@answers("FetchOrgInfoFromEntity")
def organization(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    org = {"name": "Loopback", "orgEntity": {"name": ORGANIZATION}}
    return {"entity": {"organization": org, "user": None}}


@answers("IsProjectReadOnly")
def read_only(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    return {"project": {"readOnly": False}}


@answers("LinkArtifact")
def link(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    request = given["input"]
    place = (request["entityName"], request["projectName"], request["artifactPortfolioName"])
    links = store.links.setdefault("/".join(place), [])
    artifact = store.artifacts[request["artifactID"]]
    assert artifact.state == "COMMITTED"
    made = next((each for each in links if each.artifact is artifact), None)
    if made is None:
        made = Link(len(links), artifact, [])
        links.append(made)
    _give(links, made, ["latest", *(each["alias"] for each in request.get("aliases") or [])])
    return {"result": {"versionIndex": made.number}}


def _give(links: list[Link], to: Link, aliases: list[str]) -> None:
    for each in links:
        each.aliases = [alias for alias in each.aliases if alias not in aliases]
    to.aliases += aliases


@answers("AddAliases")
def add_aliases(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    for links, mine, alias in _named(store, given["input"]):
        _give(links, mine, [alias])
    return {"result": {"success": True}}


@answers("DeleteAliases")
def delete_aliases(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    for _, mine, alias in _named(store, given["input"]):
        mine.aliases.remove(alias)
    return {"result": {"success": True}}


def _named(store: Store, request: dict[str, Any]) -> list[tuple[list[Link], Link, str]]:
    answer = []
    for each in request["aliases"]:
        place = (each["entityName"], each["projectName"], each["artifactCollectionName"])
        links = store.links["/".join(place)]
        mine = next(one for one in links if one.artifact.id == request["artifactID"])
        answer.append((links, mine, each["alias"]))
    return answer


@answers("UpdateArtifact")
def update(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    request = given.get("input") or given
    artifact: Artifact = store.artifacts[request["artifactID"]]
    artifact.metadata = request.get("metadata") or artifact.metadata
    return {"result": {"artifact": artifact_node(store, artifact)}}


@answers("ArtifactByID")
def by_id(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    return {"artifact": artifact_node(store, store.artifacts[given["id"]])}


@answers("ArtifactTypeArtifactCollections")
def collections(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    front = f"{given['entity']}/{given['project']}/"
    names = [path.removeprefix(front) for path in store.links if path.startswith(front)]
    if not names:
        return {"project": None}
    edges = [
        {"node": collection_node("ArtifactPortfolio", *f"{front}{name}".split("/")), "cursor": name}
        for name in names
    ]
    listed = {"totalCount": len(edges), "pageInfo": LAST, "edges": edges}
    return {"project": {"artifactType": {"artifactCollections": listed}}}


@answers("ProjectArtifacts")
def versions(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    path = f"{given['entity']}/{given['project']}/{given['collection']}"
    edges = [
        {"version": f"v{each.number}", "node": artifact_node(store, each.artifact), "cursor": "c"}
        for each in store.links.get(path, [])
    ]
    listed = {"totalCount": len(edges), "pageInfo": LAST, "edges": edges}
    collection = {"__typename": "ArtifactPortfolio", "artifacts": listed}
    return {"project": {"artifactType": {"artifactCollection": collection}}}
