"""Pushing: where each file goes, large files to the CDN, and the commit that names them all."""

import base64
import json
from math import ceil
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from tests.local_hub.access import commit_at, writable
from tests.local_hub.messages import Refused, Request, Response
from tests.local_hub.store import File, goes_to_lfs

if TYPE_CHECKING:
    from tests.local_hub.hub import LocalHub


def preupload(hub: "LocalHub", request: Request, kind: str, repo_id: str, revision: str) -> Response:
    """Tells for each file whether it goes to git or to LFS, and what the repository has under its name."""
    commit = commit_at(writable(hub, request, kind, repo_id), revision)
    answers = []
    for file in request.json()["files"]:
        lfs = goes_to_lfs(file["path"], file["size"], base64.b64decode(file["sample"]))
        answer = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
        present = commit.files.get(file["path"])
        answers.append(answer | ({"oid": present.etag} if present else {}))
    return Response.of({"files": answers})


def lfs_batch(hub: "LocalHub", request: Request, kind: str, repo_id: str) -> Response:
    """Says where to put each object: nowhere if it is here, in one piece, or in parts of `hub.part_size` bytes."""
    writable(hub, request, kind, repo_id)
    git = f"{hub.endpoint}/{'' if kind == 'model' else kind + 's/'}{repo_id}.git/info/lfs/objects"
    objects = []
    for wanted in request.json()["objects"]:
        oid, size = wanted["oid"], wanted["size"]
        entry = {"oid": oid, "size": size, "authenticated": True}
        if hub.store.blob(oid) is None:
            upload = {"href": f"{hub.cdn}/upload/{oid}"}
            if size > hub.part_size:
                parts = range(1, ceil(size / hub.part_size) + 1)
                upload["header"] = {"chunk_size": str(hub.part_size)}
                upload["header"] |= {f"{part:05d}": f"{hub.cdn}/upload/{oid}/{part}" for part in parts}
                upload["href"] = f"{hub.endpoint}/api/complete_multipart?uploadId={oid}"
            entry["actions"] = {"upload": upload, "verify": {"href": f"{git}/verify"}}
        objects.append(entry)
    return Response.of({"transfer": "basic", "objects": objects})


def lfs_verify(hub: "LocalHub", request: Request, kind: str, repo_id: str) -> Response:
    writable(hub, request, kind, repo_id)
    wanted = request.json()
    blob = hub.store.blob(wanted["oid"])
    if blob is None or blob.stat().st_size != wanted["size"]:
        raise Refused(404, f"Object {wanted['oid']} is not here or has another size")
    return Response.of({"success": True})


def cdn_put(hub: "LocalHub", request: Request, oid: str, part: str | None) -> Response:
    """Takes an object or a part of one; whoever has the address may write, as with a signed one."""
    if part is not None:
        hub.parts.setdefault(oid, {})[int(part)] = request.body
    elif hub.store.add(request.body).name != oid:
        raise Refused(400, f"The content is not that of {oid}")
    return Response(headers={"ETag": f'"{oid[:16]}-{part or 1}"'})


def complete_multipart(hub: "LocalHub", request: Request) -> Response:
    [oid] = parse_qs(request.query)["uploadId"]
    parts = hub.parts.pop(oid, {})
    if [part["partNumber"] for part in request.json()["parts"]] != sorted(parts):
        raise Refused(400, "The parts named are not those that arrived")
    if hub.store.add(b"".join(parts[number] for number in sorted(parts))).name != oid:
        raise Refused(400, f"The content is not that of {oid}")
    return Response.of({"success": True})


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
                raise Refused(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
            files[value["path"]] = File(blob, lfs=True)
        elif key in ("deletedFile", "deletedFolder"):
            gone = [n for n in files if n == value["path"] or n.startswith(value["path"].rstrip("/") + "/")]
            if not gone:
                raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
            for name in gone:
                del files[name]
        else:
            raise Refused(400, f"Unknown operation {key}")
    if header.get("parentCommit") not in (None, repository.head.oid):
        raise Refused(412, "A commit has happened since. Please refresh and try again.")
    if not header.get("summary"):
        raise Refused(400, "The commit summary is missing")
    made = repository.commit(header["summary"], files, header.get("description", ""))
    url = f"{hub.endpoint}/{'' if kind == 'model' else kind + 's/'}{repo_id}/commit/{made.oid}"
    return Response.of({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})
