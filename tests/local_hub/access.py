"""Authentication and permissions: tokens, private repositories, and the errors with which the Hub refuses."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.local_hub.http import RefusedError, Request
from tests.local_hub.store import Commit, File, Repository

if TYPE_CHECKING:
    from tests.local_hub.hub import LocalHub


@dataclass(frozen=True)
class Account:
    """The account that a token belongs to, and the token's role: "read" or "write"."""

    user: str
    role: str
    organizations: tuple[str, ...] = ()

    def is_member(self, namespace: str) -> bool:
        return namespace == self.user or namespace in self.organizations


def account(hub: "LocalHub", request: Request) -> Account | None:
    """Returns the caller's account; None without a token. An invalid token is refused even for public repositories."""
    if "Authorization" not in request.headers:
        return None
    if request.token not in hub.accounts:
        raise RefusedError(401, "Invalid credentials in Authorization header")
    return hub.accounts[request.token]


def signed_in(hub: "LocalHub", request: Request) -> Account:
    """Returns the caller's account; refuses callers without a token."""
    caller = account(hub, request)
    if caller is None:
        raise RefusedError(401, "Invalid username or password.")
    return caller


def readable(hub: "LocalHub", request: Request, kind: str, repo_id: str) -> Repository:
    """Returns a repository that the caller may read; to others a private one looks as if it did not exist."""
    caller = account(hub, request)
    repository = hub.store.find(kind, repo_id)
    if repository is None or (repository.private and not (caller and caller.is_member(repository.namespace))):
        if caller is None:
            # The real Hub sends this 401 without a code; clients infer its meaning from the https:// address, which
            # this Hub does not have.
            raise RefusedError(401, "Invalid username or password.", "RepoNotFound")
        raise RefusedError(404, "Repository not found", "RepoNotFound")
    return repository


def writable(hub: "LocalHub", request: Request, kind: str, repo_id: str) -> Repository:
    """Returns a repository that the caller may write to."""
    repository = readable(hub, request, kind, repo_id)
    caller = signed_in(hub, request)
    if not caller.is_member(repository.namespace):
        raise RefusedError(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
    if caller.role != "write":
        raise RefusedError(403, "You have read access but not the required permissions for this operation")
    return repository


def commit_at(repository: Repository, revision: str) -> Commit:
    """Returns the commit of a branch name or a commit id."""
    commit = repository.at(revision)
    if commit is None:
        raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return commit


def file_at(commit: Commit, path: str) -> File:
    """Returns a file of a commit."""
    if path not in commit.files:
        raise RefusedError(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit.oid)
    return commit.files[path]
