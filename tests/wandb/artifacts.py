"""Artifacts: made, their manifest and files uploaded, committed; aliases move to the newest."""

from __future__ import annotations

from typing import Any

from tests.wandb.operations import answers, opaque
from tests.wandb.store import Artifact, Store, new_id


@answers("ClientIDMapping")
def client_id(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    return {"clientIDMapping": None}


@answers("FetchArtifactDigestAlgorithm")
def digest_algorithm(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    return {"project": None}


@answers("XXHashDigestsEnabled")
def xxhash(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    return {"entity": {"xxhashDigestsEnabled": False}}


@answers("CreateArtifact")
def create(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    request = given["input"]
    collection = request.get("artifactCollectionName") or request["artifactCollectionNames"][0]
    place = (request["entityName"], request["projectName"])
    versions = [
        a for a in store.artifacts.values() if (a.collection, a.place) == (collection, place)
    ]
    existing = next((a for a in versions if a.digest == request["digest"]), None)
    made = existing or Artifact(
        opaque("Artifact", new_id()), request["runName"], collection, request["artifactTypeName"],
        request["digest"], [], len(versions), place, request.get("metadata") or "{}",
    )  # fmt: skip
    store.artifacts[made.id] = made
    wanted = [alias["alias"] for alias in request.get("aliases") or []]
    for other in versions:
        other.aliases = [alias for alias in other.aliases if alias not in wanted]
    made.aliases = [*dict.fromkeys([*made.aliases, *wanted])]
    sequence = {"id": opaque("Sequence", collection), "name": collection}
    latest = {"id": made.id, "versionIndex": made.version} if made.state == "COMMITTED" else None
    answer = {"id": made.id, "state": made.state, "digest": made.digest,
              "artifactSequence": {**sequence, "latestArtifact": latest},
              "artifactType": {"name": made.kind}}  # fmt: skip
    return {"createArtifact": {"artifact": answer}}


@answers("CreateArtifactManifest", "UpdateArtifactManifest")
def manifest(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    key = f"manifest/{given.get('artifactID') or given.get('artifactManifestID')}"
    file = {"id": "1", "uploadUrl": f"{store.url}/storage/{key}", "uploadHeaders": []}
    made = {"artifactManifest": {"id": given.get("artifactID") or "1", "file": file}}
    return {"createArtifactManifest": made, "updateArtifactManifest": made}


@answers("CreateArtifactFiles")
def files(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    edges = []
    for one in given["input"]["artifactFiles"]:
        artifact = store.artifacts[one["artifactID"]]
        artifact.files[one["name"]] = one["md5"]
        url = f"{store.url}/storage/artifact/{artifact.id}/{one['name']}"
        edges.append({"node": {
            "id": "1", "name": one["name"], "displayName": one["name"], "storagePath": one["name"],
            "uploadUrl": url, "uploadHeaders": [], "uploadMultipartUrls": None,
            "artifact": {"id": artifact.id},
        }})  # fmt: skip
    return {"createArtifactFiles": {"files": {"edges": edges}}}


@answers("CommitArtifact")
def commit(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    artifact = store.artifacts[given["artifactID"]]
    artifact.state = "COMMITTED"
    return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}


@answers("ArtifactType")
def artifact_type(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    return {"project": {"artifact": None}}


@answers("UseArtifact")
def use(store: Store, given: dict[str, Any]) -> dict[str, Any]:
    return {"useArtifact": {"artifact": {"id": given.get("artifactID") or "1"}}}
