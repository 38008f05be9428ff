"""Accounts and repositories: who am I, create, information, file listings."""

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from tests.local_hub import cards
from tests.local_hub.access import account, commit_at, readable, signed_in
from tests.local_hub.messages import RefusedError, Request, Response
from tests.local_hub.store import Commit, File, Repository

if TYPE_CHECKING:
    from tests.local_hub.hub import LocalHub


def whoami(hub: "LocalHub", request: Request) -> Response:
    caller = signed_in(hub, request)
    organizations = [{"type": "org", "name": name, "fullname": name} for name in caller.organizations]
    token = {"type": "access_token", "accessToken": {"displayName": "test", "role": caller.role}}
    return Response.of(
        {"type": "user", "id": caller.user, "name": caller.user, "fullname": caller.user, "isPro": False}
        | {"orgs": organizations, "auth": token}
    )


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
    with_sizes = "blobs" in request.parameters
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
        "siblings": [_sibling(name, file, with_sizes) for name, file in commit.files.items()],
    }
    if kind == "model":
        data |= {"modelId": repo_id, "library_name": card.get("library_name"), "pipeline_tag": card.get("pipeline_tag")}
        data["model-index"] = card.get("model-index")
    if "expand" in request.parameters:
        data = {name: data.get(name) for name in ("_id", "id", *request.parameters["expand"])}
    return Response.of(data, X_Repo_Commit=commit.oid)


def _card(commit: Commit) -> dict[str, Any]:
    readme = commit.files.get("README.md")
    return (cards.metadata(readme.path.read_text("utf-8")) or {}) if readme else {}


def _sibling(name: str, file: File, with_sizes: bool) -> dict[str, Any]:
    if not with_sizes:
        return {"rfilename": name}
    lfs = {"lfs": {"sha256": file.sha256, "size": file.size, "pointerSize": len(file.pointer)}} if file.lfs else {}
    return {"rfilename": name, "size": file.size, "blobId": file.oid} | lfs


def tree(
    hub: "LocalHub", request: Request, kind: str, repo_id: str, revision: str, path: str | None = None
) -> Response:
    """Lists the entries below `path`."""
    repository = readable(hub, request, kind, repo_id)
    commit = commit_at(repository, revision)
    options = request.parameters
    recursive = options.get("recursive", ["false"])[0].lower() in ("true", "1")
    entries = _entries(repository, commit, options)
    prefix = f"{path}/" if path else ""
    names = [n for n in entries if n.startswith(prefix) and (recursive or "/" not in n[len(prefix) :])]
    if path and not names:
        raise RefusedError(404, f"{path} does not exist on {revision!r}", "EntryNotFound", X_Repo_Commit=commit.oid)
    return Response.of([entries[name] for name in names])


def paths(hub: "LocalHub", request: Request, kind: str, repo_id: str, revision: str) -> Response:
    """Lists those of the given paths that exist."""
    repository = readable(hub, request, kind, repo_id)
    form = parse_qs(request.body.decode())
    entries = _entries(repository, commit_at(repository, revision), form)
    return Response.of([entries[path] for path in form.get("paths", []) if path in entries])


def _entries(repository: Repository, commit: Commit, options: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """Returns all files and folders of a commit by path, as the Hub describes them."""
    entries: dict[str, dict[str, Any]] = {}
    extra = {}
    if options.get("expand", ["false"])[0].lower() in ("true", "1"):
        extra["lastCommit"] = {"id": commit.oid, "title": commit.title, "date": commit.date}
    for name, file in commit.files.items():
        parts = name.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            entries[folder] = {"type": "directory", "oid": commit.oid, "size": 0, "path": folder} | extra
        entries[name] = {"type": "file", "oid": file.oid, "size": file.size, "path": name} | extra
        if file.lfs:
            entries[name]["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": len(file.pointer)}
    return dict(sorted(entries.items()))
