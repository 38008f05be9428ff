"""Reading files back: small ones from the Hub itself, large ones by redirect to the CDN; ranges and etags."""

import re
from typing import TYPE_CHECKING

from tests.local_hub.access import commit_at, file_at, readable
from tests.local_hub.messages import Refused, Request, Response
from tests.local_hub.store import File

if TYPE_CHECKING:
    from tests.local_hub.hub import LocalHub

RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def resolve(hub: "LocalHub", request: Request, kind: str, repo_id: str, revision: str, path: str) -> Response:
    commit = commit_at(readable(hub, request, kind, repo_id), revision)
    file = file_at(commit, path)
    headers = {"X-Repo-Commit": commit.oid, "X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(file.size)}
    if not file.lfs:
        return content(request, file, headers)
    hub.shared[file.sha256] = file
    return Response(302, headers=headers | {"Location": f"{hub.cdn}/blob/{file.sha256}", "Accept-Ranges": "bytes"})


def cdn_get(hub: "LocalHub", request: Request, oid: str) -> Response:
    """Serves what `resolve` has redirected to; whoever has the address may read, as with a signed one."""
    if oid not in hub.shared:
        raise Refused(403, "Access denied")
    return content(request, hub.shared[oid], {})


def content(request: Request, file: File, headers: dict[str, str]) -> Response:
    """The bytes asked for: all, a range, or none when the caller has them already."""
    headers |= {"ETag": f'"{file.etag}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return Response(304, headers=headers)
    asked = RANGE.fullmatch(request.headers.get("Range", ""))
    if asked is None or not any(asked.groups()):
        return Response(200, file.path, headers)
    first, last = asked.groups()
    start = int(first) if first else max(file.size - int(last), 0)
    end = min(int(last), file.size - 1) if first and last else file.size - 1
    if start > end:
        return Response(416, headers=headers | {"Content-Range": f"bytes */{file.size}"})
    headers["Content-Range"] = f"bytes {start}-{end}/{file.size}"
    return Response(206, file.path, headers, start, end - start + 1)
