"""Uploads: where each file goes, large files to the CDN, and the commit that names them all."""

import base64
import json
from typing import TYPE_CHECKING

from tests.local_hub.access import commit_at, writable
from tests.local_hub.messages import RefusedError, Request, Response
from tests.local_hub.store import File, goes_to_lfs

if TYPE_CHECKING:
    from tests.local_hub.hub import LocalHub


def preupload(hub: "LocalHub", request: Request, kind: str, repo_id: str, revision: str) -> Response:
    """Responds for each file whether it goes to git or to LFS, and which content the repository has under its name."""
    commit = commit_at(writable(hub, request, kind, repo_id), revision)
    answers = []
    for file in request.json()["files"]:
        lfs = goes_to_lfs(file["path"], file["size"], base64.b64decode(file["sample"]))
        answer = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
        present = commit.files.get(file["path"])
        answers.append(answer | ({"oid": present.etag} if present else {}))
    return Response.of({"files": answers})


def lfs_batch(hub: "LocalHub", request: Request, kind: str, repo_id: str) -> Response:
    """Responds with the address to upload each object to; none if it is here already."""
    writable(hub, request, kind, repo_id)
    git = f"{hub.endpoint}/{'' if kind == 'model' else kind + 's/'}{repo_id}.git/info/lfs/objects"
    objects = []
    for wanted in request.json()["objects"]:
        oid, size = wanted["oid"], wanted["size"]
        entry = {"oid": oid, "size": size, "authenticated": True}
        if hub.store.blob(oid) is None:
            upload = {"href": f"{hub.cdn}/upload/{oid}"}
            entry["actions"] = {"upload": upload, "verify": {"href": f"{git}/verify"}}
        objects.append(entry)
    return Response.of({"transfer": "basic", "objects": objects})


def lfs_verify(hub: "LocalHub", request: Request, kind: str, repo_id: str) -> Response:
    """Confirms that an object has arrived."""
    writable(hub, request, kind, repo_id)
    wanted = request.json()
    blob = hub.store.blob(wanted["oid"])
    if blob is None or blob.stat().st_size != wanted["size"]:
        raise RefusedError(404, f"Object {wanted['oid']} is not here or has another size")
    return Response.of({"success": True})


def cdn_put(hub: "LocalHub", request: Request, oid: str) -> Response:
    """Stores an object; as with a signed address, no token is needed."""
    if hub.store.add(request.body).name != oid:
        raise RefusedError(400, f"The content is not that of {oid}")
    return Response(headers={"ETag": f'"{oid}"'})


def commit(hub: "LocalHub", request: Request, kind: str, repo_id: str, revision: str) -> Response:
    """Applies the lines of a commit: a header, then files, LFS files and deletions; all or nothing."""
    repository = writable(hub, request, kind, repo_id)
    files = dict(commit_at(repository, revision).files)
    header = {}
    for line in request.body.splitlines():
        key, value = (item := json.loads(line))["key"], item["value"]
        if key == "header":
            header = value
        elif key == "file":
            files[value["path"]] = File(hub.store.add(base64.b64decode(value["content"])), lfs=False)
        elif key == "lfsFile":
            blob = hub.store.blob(value["oid"])
            if blob is None:
                raise RefusedError(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
            files[value["path"]] = File(blob, lfs=True)
        elif key in ("deletedFile", "deletedFolder"):
            gone = [n for n in files if n == value["path"] or n.startswith(value["path"].rstrip("/") + "/")]
            if not gone:
                raise RefusedError(404, "A file with this name doesn't exist", "EntryNotFound")
            for name in gone:
                del files[name]
        else:
            raise RefusedError(400, f"Unknown operation {key}")
    if header.get("parentCommit") not in (None, repository.head.oid):
        raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
    if not header.get("summary"):
        raise RefusedError(400, "The commit summary is missing")
    made = repository.commit(header["summary"], files, header.get("description", ""))
    url = f"{hub.endpoint}/{'' if kind == 'model' else kind + 's/'}{repo_id}/commit/{made.oid}"
    return Response.of({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})
