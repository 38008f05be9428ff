"""Downloads: small files from the Hub itself, large ones by redirect to the CDN; ranges and etags."""

import re
from typing import TYPE_CHECKING

from tests.local_hub.access import commit_at, file_at, readable
from tests.local_hub.messages import RefusedError, Request, Response
from tests.local_hub.store import File

if TYPE_CHECKING:
    from tests.local_hub.hub import LocalHub

RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def resolve(hub: "LocalHub", request: Request, kind: str, repo_id: str, revision: str, path: str) -> Response:
    """Serves a file, or redirects to the CDN if it is in LFS."""
    commit = commit_at(readable(hub, request, kind, repo_id), revision)
    file = file_at(commit, path)
    headers = {"X-Repo-Commit": commit.oid, "X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(file.size)}
    if not file.lfs:
        return content(request, file, headers)
    hub.shared[file.sha256] = file
    return Response(302, headers=headers | {"Location": f"{hub.cdn}/blob/{file.sha256}", "Accept-Ranges": "bytes"})


def cdn_get(hub: "LocalHub", request: Request, oid: str) -> Response:
    """Serves a file that `resolve` has redirected to; as with a signed address, no token is needed."""
    if oid not in hub.shared:
        raise RefusedError(403, "Access denied")
    return content(request, hub.shared[oid], {})


def content(request: Request, file: File, headers: dict[str, str]) -> Response:
    """Responds with the whole file, a range of it, or 304 if the client has it already."""
    headers |= {"ETag": f'"{file.etag}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return Response(304, headers=headers)
    wanted = RANGE.fullmatch(request.headers.get("Range", ""))
    if wanted is None or not any(wanted.groups()):
        return Response(200, file.path, headers)
    first, last = wanted.groups()
    start = int(first) if first else max(file.size - int(last), 0)
    end = min(int(last), file.size - 1) if first and last else file.size - 1
    if start > end:
        return Response(416, headers=headers | {"Content-Range": f"bytes */{file.size}"})
    headers["Content-Range"] = f"bytes {start}-{end}/{file.size}"
    return Response(206, file.path, headers, start, end - start + 1)
