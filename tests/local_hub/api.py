"""The Hub's API: the function that answers each address."""

import base64
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tests.local_hub import cards
from tests.local_hub.access import account, commit_at, file_at, readable, signed_in, writable
from tests.local_hub.http import RefusedError, Request, Response
from tests.local_hub.store import Commit, File, goes_to_lfs

if TYPE_CHECKING:
    from tests.local_hub.hub import LocalHub

RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def create(hub: "LocalHub", request: Request) -> Response:
    caller = signed_in(hub, request)
    wanted = request.json()
    kind = wanted.get("type", "model")
    namespace = wanted.get("organization") or caller.user
    repo_id = f"{namespace}/{wanted['name']}"
    if not caller.is_member(namespace) or caller.role != "write":
        raise RefusedError(403, f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"')
    url = f"{hub.endpoint}/{'' if kind == 'model' else kind + 's/'}{repo_id}"
    if hub.store.find(kind, repo_id):
        return Response.of({"error": f"You already created this {kind} repo", "url": url, "name": repo_id}, 409)
    hub.store.create(kind, repo_id, private=wanted.get("visibility") == "private" or bool(wanted.get("private")))
    return Response.of({"url": url, "name": repo_id, "id": repo_id})


def validate_card(hub: "LocalHub", request: Request) -> Response:
    account(hub, request)
    errors, warnings = cards.problems(request.json()["content"])
    answer = {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}
    return Response.of(answer, 400 if errors else 200)


def information(hub: "LocalHub", request: Request, kind: str, repo_id: str, revision: str = "main") -> Response:
    repository = readable(hub, request, kind, repo_id)
    commit = commit_at(repository, revision)
    card = _card(commit)
    data = {
        "_id": repository.head.oid[:24],
        "id": repo_id,
        "author": repository.namespace,
        "sha": commit.oid,
        "lastModified": commit.date,
        "createdAt": repository.history[0].date,
        "private": repository.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": card.get("tags", []),
        "cardData": card,
        "siblings": [{"rfilename": name} for name in commit.files],
    }
    if kind == "model":
        data |= {"modelId": repo_id, "library_name": card.get("library_name"), "pipeline_tag": card.get("pipeline_tag")}
        data["model-index"] = card.get("model-index")
    return Response.of(data, X_Repo_Commit=commit.oid)


def _card(commit: Commit) -> dict[str, Any]:
    readme = commit.files.get("README.md")
    return (cards.metadata(readme.path.read_text("utf-8")) or {}) if readme else {}


def tree(
    hub: "LocalHub", request: Request, kind: str, repo_id: str, revision: str, path: str | None = None
) -> Response:
    """Lists the entries below `path`."""
    repository = readable(hub, request, kind, repo_id)
    commit = commit_at(repository, revision)
    options = request.parameters
    recursive = options.get("recursive", ["false"])[0].lower() in ("true", "1")
    entries = _entries(commit)
    prefix = f"{path}/" if path else ""
    names = [n for n in entries if n.startswith(prefix) and (recursive or "/" not in n[len(prefix) :])]
    if path and not names:
        raise RefusedError(404, f"{path} does not exist on {revision!r}", "EntryNotFound", X_Repo_Commit=commit.oid)
    return Response.of([entries[name] for name in names])


def _entries(commit: Commit) -> dict[str, dict[str, Any]]:
    """Returns all files and folders of a commit by path, as the Hub describes them."""
    entries: dict[str, dict[str, Any]] = {}
    for name, file in commit.files.items():
        parts = name.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            entries[folder] = {"type": "directory", "oid": commit.oid, "size": 0, "path": folder}
        entries[name] = {"type": "file", "oid": file.oid, "size": file.size, "path": name}
        if file.lfs:
            entries[name]["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": len(file.pointer)}
    return dict(sorted(entries.items()))


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
    return content(request, hub.shared[oid], {})


def content(request: Request, file: File, headers: dict[str, str]) -> Response:
    """Responds with the whole file or a range of it."""
    headers |= {"ETag": f'"{file.etag}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
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
    assert hub.store.blob(request.json()["oid"]).stat().st_size == request.json()["size"]
    return Response.of({"success": True})


def cdn_put(hub: "LocalHub", request: Request, oid: str) -> Response:
    """Stores an object; as with a signed address, no token is needed."""
    assert hub.store.add(request.body).name == oid
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
            files[value["path"]] = File(hub.store.blob(value["oid"]), lfs=True)
        else:
            assert key in ("deletedFile", "deletedFolder"), key
            for name in [n for n in files if n == value["path"] or n.startswith(value["path"].rstrip("/") + "/")]:
                del files[name]
    if header.get("parentCommit") not in (None, repository.head.oid):
        raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
    made = repository.commit(header["summary"], files)
    url = f"{hub.endpoint}/{'' if kind == 'model' else kind + 's/'}{repo_id}/commit/{made.oid}"
    return Response.of({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})


# A name without an organisation ("gpt2") is a valid address of a repository that this Hub does not have.
REPO = r"(?P<repo_id>[\w.-]+(?:/[\w.-]+)??)"
API = rf"/api/(?P<kind>model|dataset|space)s/{REPO}"
PAGE = rf"/(?:(?P<kind>dataset|space)s/)?{REPO}"
REVISION = r"(?P<revision>[^/]+)"
OID = r"(?P<oid>[0-9a-f]{64})"


_TABLE = [
    ("hub POST", r"/api/repos/create", create),
    ("hub POST", r"/api/validate-yaml", validate_card),
    ("hub GET", rf"{API}/revision/{REVISION}", information),
    ("hub GET", rf"{API}/tree/{REVISION}(?:/(?P<path>.+))?", tree),
    ("hub POST", rf"{API}/preupload/{REVISION}", preupload),
    ("hub POST", rf"{API}/commit/{REVISION}", commit),
    ("hub GET", API, information),
    ("hub POST", rf"{PAGE}\.git/info/lfs/objects/batch", lfs_batch),
    ("hub POST", rf"{PAGE}\.git/info/lfs/objects/verify", lfs_verify),
    ("hub HEAD GET", rf"{PAGE}/resolve/{REVISION}/(?P<path>.+)", resolve),
    ("cdn HEAD GET", rf"/blob/{OID}", cdn_get),
    ("cdn PUT", rf"/upload/{OID}", cdn_put),
]
ROUTES = [(methods.split(), re.compile(pattern), answer) for methods, pattern, answer in _TABLE]


def answer(hub: "LocalHub", request: Request) -> Response:
    """Returns the API's response to a request; 404 for an unknown address, as on the real Hub."""
    for (origin, *methods), pattern, function in ROUTES:
        found = pattern.fullmatch(request.path)
        if found and origin == request.origin and request.method in methods:
            named = {name: unquote(text) if text else None for name, text in found.groupdict().items()}
            if "kind" in named:
                named["kind"] = named["kind"] or "model"
            try:
                return function(hub, request, **named)
            except RefusedError as error:
                return error.response
    return RefusedError(404, "Sorry, we can't find the page you are looking for.").response
