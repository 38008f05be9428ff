"""Unmodified clients against the local Hub, over real HTTP: what they push, list, fetch, cache and refuse.

Each client runs in a process of its own, because it reads the Hub's address when it is imported.
"""

import hashlib
import json
import random
import urllib.request
from urllib.error import HTTPError

import pyarrow.parquet
import pytest
import torch

from hf_geo.hub.export import export_model
from hf_geo.models import build_image_classifier
from tests.local_hub import LocalHub, Request, Response
from tests.paths import SHARED

CIFAR10 = SHARED / "hub" / "datasets" / "uoft-cs" / "cifar10" / "plain_text"
LARGE = "deep/er/weights.safetensors"
FILES = {"notes.md": b"small\n", LARGE: random.Random(0).randbytes(1_500_000), "a b&c#é.txt": b"x"}


@pytest.fixture
def repository(hub: LocalHub) -> str:
    """A public model repository with `FILES`, pushed by the real client."""
    push(hub, "ada/small")
    hub.requests.clear()
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


def downloaded(requests: list[Request]) -> int:
    """Bytes of file content that were sent to clients."""
    return sum(request.sent for request in requests if request.method == "GET" and "/api/" not in request.path)


def test_what_is_pushed_is_listed_and_read_back(hub, repository):
    code = f"""
import hashlib, json, pathlib
from huggingface_hub import HfApi, snapshot_download
folder = pathlib.Path(snapshot_download({repository!r}))
files = [path for path in folder.rglob("*") if path.is_file()]
found = {{path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}}
print(json.dumps([HfApi().list_repo_files({repository!r}), found]))
"""
    listed, found = json.loads(hub.run(code).stdout)
    assert sorted(listed) == sorted([".gitattributes", *FILES])
    del found[".gitattributes"]
    assert found == {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    assert not [r for r in hub.requests if r.origin == "cdn" and "Authorization" in r.headers]


def test_a_second_download_transfers_no_content(hub, repository):
    code = f"from huggingface_hub import snapshot_download; snapshot_download({repository!r})"
    hub.run(code)
    assert downloaded(hub.requests) >= sum(map(len, FILES.values()))
    hub.requests.clear()
    hub.run(code)
    hub.run(f"from huggingface_hub import hf_hub_download; hf_hub_download({repository!r}, 'notes.md')")
    assert hub.requests and downloaded(hub.requests) == 0


def test_large_files_travel_without_the_token_and_in_parts(hub):
    hub.part_size = 400_000
    push(hub, "ada/parts")
    puts = [request for request in hub.requests if request.method == "PUT"]
    assert [len(request.body) for request in puts] == [400_000, 400_000, 400_000, 300_000]
    assert not [request for request in puts if request.origin != "cdn" or "Authorization" in request.headers]
    head = hub.store.find("model", "ada/parts").head
    assert head.files[LARGE].path.read_bytes() == FILES[LARGE]


def test_listings_come_in_pages(hub, repository):
    hub.page_size = 2
    code = f"from huggingface_hub import HfApi; print(sorted(HfApi().list_repo_files({repository!r})))"
    assert hub.run(code).stdout.strip() == str(sorted([".gitattributes", *FILES]))
    assert sum("/tree/" in request.path for request in hub.requests) == 3  # four files and two folders


def fetch(url: str, method: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method, headers=named)) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except HTTPError as error:
        return error.code, dict(error.headers), error.read()


RANGES = [("bytes=0-0", 0, 1), ("bytes=2-", 2, None), ("bytes=-1", -1, None), ("bytes=0-9999999", 0, None)]


@pytest.mark.parametrize("name", FILES)
def test_a_range_is_that_part_of_the_file(hub, repository, name):
    url = f"{hub.endpoint}/{repository}/resolve/main/{urllib.request.quote(name)}"
    content = FILES[name]
    for asked, start, end in RANGES:
        status, headers, body = fetch(url, "GET", Range=asked)
        if start >= len(content):
            assert (status, headers["Content-Range"]) == (416, f"bytes */{len(content)}")
            continue
        assert (status, body) == (206, content[start:end])
        first = start % len(content)
        assert headers["Content-Range"] == f"bytes {first}-{first + len(body) - 1}/{len(content)}"
        assert fetch(url, "GET", If_None_Match=headers["ETag"])[0] == 304


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def test_etags_and_sizes_are_those_that_git_and_lfs_give(hub, repository):
    code = f"""
import json
from huggingface_hub import get_hf_file_metadata, hf_hub_url, HfApi
metadata = [get_hf_file_metadata(hf_hub_url({repository!r}, name)) for name in {list(FILES)!r}]
print(json.dumps([[m.etag, m.size, m.commit_hash == HfApi().model_info({repository!r}).sha] for m in metadata]))
"""
    small, large, other = FILES.values()
    assert json.loads(hub.run(code).stdout) == [
        [git_sha1(small), len(small), True],
        [hashlib.sha256(large).hexdigest(), len(large), True],
        [git_sha1(other), len(other), True],
    ]
    assert not [request for request in hub.requests if request.method == "HEAD" and request.sent]


HIDDEN, REFUSED, FORBIDDEN = "RepositoryNotFoundError", "HfHubHTTPError 401", "HfHubHTTPError 403"
# For each caller: in what reading a private repository, a missing one and a public one ends, and in what writing.
ACCESS = {
    "nobody": (None, HIDDEN, HIDDEN, "done", REFUSED),
    "wrong token": ("hf_wrong", REFUSED, REFUSED, REFUSED, REFUSED),
    "stranger": (LocalHub.other_token, HIDDEN, HIDDEN, "done", FORBIDDEN),
    "reader": (LocalHub.read_token, "done", HIDDEN, "done", FORBIDDEN),
    "owner": (LocalHub.write_token, "done", HIDDEN, "done", "done"),
}


@pytest.mark.parametrize("caller", ACCESS)
def test_a_token_opens_what_it_may_and_nothing_else(hub, repository, caller):
    token, *expected = ACCESS[caller]
    push(hub, "ada/secret", private=True)
    code = f"""
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
def attempt(action):
    try:
        action()
    except HfHubHTTPError as error:
        kind = type(error).__name__
        print(kind if kind != "HfHubHTTPError" else f"{{kind}} {{error.response.status_code}}")
    else:
        print("done")
for name in ("ada/secret", "ada/missing", {repository!r}):
    attempt(lambda: hf_hub_download(name, "notes.md"))
attempt(lambda: HfApi().upload_file(repo_id={repository!r}, path_in_repo="new.txt", path_or_fileobj=b"new"))
"""
    assert hub.run(code, token=token).stdout.splitlines() == expected
    written = "new.txt" in hub.store.find("model", repository).head.files
    assert written == (caller == "owner")


def test_a_missing_file_and_a_missing_revision_are_told_apart(hub, repository):
    code = f"""
from huggingface_hub import hf_hub_download
for options in ({{"filename": "no.txt"}}, {{"filename": "notes.md", "revision": "v9"}}):
    try:
        hf_hub_download({repository!r}, **options)
    except Exception as error:
        print(type(error).__name__)
"""
    assert hub.run(code).stdout.split() == ["RemoteEntryNotFoundError", "RevisionNotFoundError"]


def test_a_commit_on_an_outdated_parent_changes_nothing(hub, repository):
    first, last = hub.store.find("model", repository).history
    code = f"""
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError
def commit(parent):
    operations = [CommitOperationDelete("deep/", is_folder=True), CommitOperationAdd("more.txt", b"more")]
    HfApi().create_commit({repository!r}, operations, commit_message="More", parent_commit=parent)
try:
    commit({first.oid!r})
except HfHubHTTPError as error:
    print(error.response.status_code, HfApi().model_info({repository!r}).sha == {last.oid!r})
commit({last.oid!r})
print([commit.title for commit in HfApi().list_repo_commits({repository!r})])
"""
    titles = "['More', 'Upload folder using huggingface_hub', 'initial commit']"
    assert hub.run(code, token=hub.write_token).stdout.splitlines() == ["412 True", titles]
    names = [".gitattributes", "a b&c#é.txt", "more.txt", "notes.md"]
    assert list(hub.store.find("model", repository).head.files) == names


def test_a_fault_reaches_the_client_which_then_recovers(hub, repository):
    faults = [ConnectionResetError, Response(503), None]

    def fault(request: Request) -> Response | None:
        if request.origin != "cdn" or not faults:
            return None
        first = faults.pop(0)
        if first is ConnectionResetError:
            raise ConnectionResetError
        return first

    hub.fault = fault
    code = f"""
from huggingface_hub import hf_hub_download
for attempt in range(2):
    try:
        print(len(open(hf_hub_download({repository!r}, {LARGE!r}), "rb").read()))
    except OSError as error:
        print(error.response.status_code)
"""
    # The client tries again by itself when the line is cut, but leaves a 503 to its caller.
    assert hub.run(code).stdout.split() == ["503", "1500000"]


def test_load_dataset_reads_the_whole_real_cifar10(hub):
    code = """
import hashlib, json
from datasets import Image, load_dataset
def digest(rows):
    images, labels = hashlib.sha256(), []
    for row in rows:
        images.update(row["img"]["bytes"])
        labels.append(row["label"])
    return images.hexdigest(), labels
found = {}
for streaming in (False, True):
    for split, data in load_dataset("uoft-cs/cifar10", streaming=streaming).items():
        images, labels = digest(data.cast_column("img", Image(decode=False)))
        found[f"{split} {streaming}"] = [images, labels, data.features["label"].names[3]]
image = load_dataset("uoft-cs/cifar10", split="test")[0]["img"]
found["image"] = [image.mode, image.size]
print(json.dumps(found))
"""
    found = json.loads(hub.run(code).stdout.splitlines()[-1])
    for split, rows in (("train", 50_000), ("test", 10_000)):
        [path] = CIFAR10.glob(f"{split}-*.parquet")
        table = pyarrow.parquet.read_table(path)
        images = hashlib.sha256(b"".join(table["img"].combine_chunks().field("bytes").to_pylist())).hexdigest()
        labels = table["label"].to_pylist()
        assert len(labels) == rows
        assert found[f"{split} False"] == found[f"{split} True"] == [images, labels, "cat"]
    assert found["image"] == ["RGB", [32, 32]]


def test_a_pushed_model_opens_by_its_id_in_timm_and_transformers(hub, tmp_path):
    model = build_image_classifier("test_resnet", num_classes=10).eval()
    export_model(model, tmp_path / "run")
    image = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(image).logits.flatten().tolist()
    code = """
import json, sys, timm, torch
from transformers import AutoModelForImageClassification
image = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
with torch.no_grad():
    by_timm = timm.create_model("hf-hub:ada/run", pretrained=True).eval()(image)
    by_transformers = AutoModelForImageClassification.from_pretrained("ada/run").eval()(image).logits
print(json.dumps([by_timm.flatten().tolist(), by_transformers.flatten().tolist(), "hf_geo" in sys.modules]))
"""
    push_code = f"""
from hf_geo.hub.push import push_folder
push_folder({str(tmp_path / "run")!r}, "ada/run", private=True)
"""
    hub.run(push_code, token=hub.write_token)
    by_timm, by_transformers, imported = json.loads(hub.run(code, token=hub.read_token).stdout.splitlines()[-1])
    assert by_timm == by_transformers == expected and not imported
