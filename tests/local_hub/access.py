"""Who asks, and what they may see and change: tokens, private repositories, and the Hub's ways to say no."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.local_hub.messages import Refused, Request
from tests.local_hub.store import Commit, File, Repository

if TYPE_CHECKING:
    from tests.local_hub.hub import LocalHub


@dataclass(frozen=True)
class Account:
    """Whom a token stands for, and its role: "read" or "write"."""

    user: str
    role: str
    organizations: tuple[str, ...] = ()

    def is_member(self, namespace: str) -> bool:
        return namespace == self.user or namespace in self.organizations


def account(hub: "LocalHub", request: Request) -> Account | None:
    """The caller; None without a token. A wrong token is refused everywhere, public repositories included."""
    if "Authorization" not in request.headers:
        return None
    if request.token not in hub.accounts:
        raise Refused(401, "Invalid credentials in Authorization header")
    return hub.accounts[request.token]


def signed_in(hub: "LocalHub", request: Request) -> Account:
    caller = account(hub, request)
    if caller is None:
        raise Refused(401, "Invalid username or password.")
    return caller


def readable(hub: "LocalHub", request: Request, kind: str, repo_id: str) -> Repository:
    """The repository; a private one looks to others as if it did not exist."""
    caller = account(hub, request)
    repository = hub.store.find(kind, repo_id)
    if repository is None or (repository.private and not (caller and caller.is_member(repository.namespace))):
        if caller is None:
            # The real Hub sends this 401 without a code, and clients tell its meaning from an https:// address,
            # which this Hub does not have.
            raise Refused(401, "Invalid username or password.", "RepoNotFound")
        raise Refused(404, "Repository not found", "RepoNotFound")
    return repository


def writable(hub: "LocalHub", request: Request, kind: str, repo_id: str) -> Repository:
    repository = readable(hub, request, kind, repo_id)
    caller = signed_in(hub, request)
    if not caller.is_member(repository.namespace):
        raise Refused(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
    if caller.role != "write":
        raise Refused(403, "You have read access but not the required permissions for this operation")
    return repository


def commit_at(repository: Repository, revision: str) -> Commit:
    commit = repository.at(revision)
    if commit is None:
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return commit


def file_at(commit: Commit, path: str) -> File:
    if path not in commit.files:
        raise Refused(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit.oid)
    return commit.files[path]
