"""Unmodified clients against the local Hub, over real HTTP: what they push, read back, and are refused.

Each client runs in a process of its own, because it reads the Hub's address when it is imported.
"""

import hashlib
import json
import random

import pytest

from tests.local_hub import LocalHub, Request, Response

LARGE = "deep/er/weights.safetensors"
FILES = {"notes.md": b"small\n", LARGE: random.Random(0).randbytes(1_500_000), "a b&c#é.txt": b"x"}


@pytest.fixture
def repository(hub: LocalHub) -> str:
    """A public model repository with `FILES`, pushed by the real client."""
    push(hub, "ada/small")
    return "ada/small"


def push(hub: LocalHub, repo_id: str, **options: object) -> None:
    folder = hub.folder / "to-push"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    code = f"""
from huggingface_hub import HfApi
HfApi().create_repo({repo_id!r}, **{options!r})
HfApi().upload_folder(repo_id={repo_id!r}, folder_path={str(folder)!r})
"""
    hub.run(code, token=hub.write_token)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def test_what_is_pushed_is_read_back_as_from_the_real_hub(hub, repository) -> None:
    """With the etags of git and LFS, without the token on its way to the CDN, and the second time without content."""
    code = f"""
import hashlib, json, pathlib
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url, snapshot_download
folder = pathlib.Path(snapshot_download({repository!r}))
files = [path for path in folder.rglob("*") if path.is_file()]
found = {{path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}}
metadata = [get_hf_file_metadata(hf_hub_url({repository!r}, name)) for name in {list(FILES)!r}]
head = HfApi().model_info({repository!r}).sha
print(json.dumps([HfApi().list_repo_files({repository!r}), found, [[m.etag, m.size, m.commit_hash == head] for m in metadata]]))
"""
    listed, found, metadata = json.loads(hub.run(code).stdout)
    assert sorted(listed) == sorted(found) == sorted([".gitattributes", *FILES])
    assert {name: found[name] for name in FILES} == {name: sha256(content) for name, content in FILES.items()}
    etags = [sha256(content) if name == LARGE else git_sha1(content) for name, content in FILES.items()]
    assert metadata == [[etag, len(content), True] for etag, content in zip(etags, FILES.values(), strict=True)]
    on_cdn = [request for request in hub.requests if request.origin == "cdn"]
    assert {request.method for request in on_cdn} == {"PUT", "GET"}
    assert not [request for request in on_cdn if "Authorization" in request.headers]
    assert not [request for request in hub.requests if request.method == "HEAD" and request.sent]

    hub.requests.clear()
    assert json.loads(hub.run(code).stdout)[1] == found
    assert hub.requests and not [r for r in hub.requests if r.method == "GET" and r.sent and "/api/" not in r.path]


HIDDEN, REFUSED, FORBIDDEN = "RepositoryNotFoundError", "HfHubHTTPError 401", "HfHubHTTPError 403"
# For each caller: in what reading a private repository, a missing one and a public one ends, and in what writing.
ACCESS = {
    "nobody": (None, HIDDEN, HIDDEN, "done", REFUSED),
    "wrong token": ("hf_wrong", REFUSED, REFUSED, REFUSED, REFUSED),
    "stranger": (LocalHub.other_token, HIDDEN, HIDDEN, "done", FORBIDDEN),
    "reader": (LocalHub.read_token, "done", HIDDEN, "done", FORBIDDEN),
    "owner": (LocalHub.write_token, "done", HIDDEN, "done", "done"),
}


def test_a_token_opens_what_it_may_and_nothing_else(hub, repository) -> None:
    push(hub, "ada/secret", private=True)
    code = f"""
import json, os, sys
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
def attempt(action):
    try:
        action()
    except HfHubHTTPError as error:
        kind = type(error).__name__
        return kind if kind != "HfHubHTTPError" else f"{{kind}} {{error.response.status_code}}"
    return "done"
ended = {{}}
for caller, (token, *_) in json.loads(sys.argv[1]).items():
    token = token or False
    ended[caller] = [
        attempt(lambda: hf_hub_download(name, "notes.md", token=token, local_dir=f"{{caller}} {{name}}"))
        for name in ("ada/secret", "ada/missing", {repository!r})
    ]
    upload = dict(repo_id={repository!r}, path_in_repo=f"by {{caller}}.txt", path_or_fileobj=b"new")
    ended[caller].append(attempt(lambda: HfApi(token=token).upload_file(**upload)))
print(json.dumps(ended))
for options in ({{"filename": "no.txt"}}, {{"filename": "notes.md", "revision": "v9"}}):
    try:
        hf_hub_download({repository!r}, **options)
    except Exception as error:
        print(type(error).__name__)
"""
    ended, *missing = hub.run(["-c", code, json.dumps(ACCESS)]).stdout.splitlines()
    assert json.loads(ended) == {caller: expected for caller, (_, *expected) in ACCESS.items()}
    assert missing == ["RemoteEntryNotFoundError", "RevisionNotFoundError"]
    written = [name for name in hub.store.find("model", repository).head.files if name.startswith("by ")]
    assert written == ["by owner.txt"]


def test_faults_reach_the_client_and_outdated_commits_change_nothing(hub, repository) -> None:
    faults = [ConnectionResetError, Response(503)]

    def fault(request: Request) -> Response | None:
        if request.origin != "cdn" or not faults:
            return None
        first = faults.pop(0)
        if first is ConnectionResetError:
            raise ConnectionResetError
        return first

    hub.fault = fault
    first, last = hub.store.find("model", repository).history
    code = f"""
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
for attempt in range(2):
    try:
        print(len(open(hf_hub_download({repository!r}, {LARGE!r}), "rb").read()))
    except OSError as error:
        print(error.response.status_code)
operations = [CommitOperationDelete("deep/", is_folder=True), CommitOperationAdd("more.txt", b"more")]
for parent in ({first.oid!r}, {last.oid!r}):
    try:
        HfApi().create_commit({repository!r}, operations, commit_message="More", parent_commit=parent)
    except HfHubHTTPError as error:
        print(error.response.status_code, HfApi().model_info({repository!r}).sha == {last.oid!r})
"""
    # The client itself tries again after a reset, but leaves a 503 to its caller.
    assert hub.run(code, token=hub.write_token).stdout.splitlines() == ["503", "1500000", "412 True"]
    history = hub.store.find("model", repository).history
    assert [commit.title for commit in history[1:]] == ["Upload folder using huggingface_hub", "More"]
    assert list(history[-1].files) == [".gitattributes", "a b&c#é.txt", "more.txt", "notes.md"]
