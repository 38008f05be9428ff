"""The local Hub's storage: files, commits and repositories."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatch
from functools import cache, cached_property
from pathlib import Path

# As in the `.gitattributes` with which the Hub starts every repository.
LFS_PATTERNS = (
    *("*.7z", "*.arrow", "*.bin", "*.ckpt", "*.gz", "*.h5", "*.msgpack", "*.npy", "*.npz", "*.onnx", "*.parquet"),
    *("*.pickle", "*.pkl", "*.pt", "*.pth", "*.safetensors", "*.tar", "*.zip", "*tfevents*"),
)
LFS_SIZE = 10 * 2**20  # larger files go to LFS whatever their name
EPOCH = datetime(2024, 1, 1)


def goes_to_lfs(name: str, size: int, sample: bytes) -> bool:
    return size > LFS_SIZE or b"\0" in sample or any(fnmatch(name.rpartition("/")[2], p) for p in LFS_PATTERNS)


@dataclass(frozen=True)
class File:
    """A file on disk, and the ids that git (`oid`) and LFS (`sha256`) give its content."""

    path: Path
    lfs: bool

    @cached_property
    def size(self) -> int:
        return self.path.stat().st_size

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        with self.path.open("rb") as stream:
            while chunk := stream.read(2**20):
                digest.update(chunk)
        return digest.hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """The LFS pointer that git stores in the file's place."""
        return b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize %d\n" % (
            self.sha256.encode(),
            self.size,
        )

    @cached_property
    def oid(self) -> str:
        content = self.pointer if self.lfs else self.path.read_bytes()
        return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    oid: str
    title: str
    date: str  # as the Hub writes it
    files: Mapping[str, File]


@dataclass
class Repository:
    """A repository with one branch, `main`, and its history."""

    kind: str  # "model" or "dataset"
    id: str
    private: bool = False
    history: list[Commit] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        return self.id.partition("/")[0]

    @property
    def head(self) -> Commit:
        return self.history[-1]

    def at(self, revision: str) -> Commit | None:
        if revision in ("main", "refs/heads/main"):
            return self.head
        return next((commit for commit in self.history if commit.oid == revision), None)

    def commit(self, title: str, files: Mapping[str, File]) -> Commit:
        """Adds a commit with `files` as the whole content of the repository."""
        parent = self.head.oid if self.history else ""
        tree = "".join(f"{name} {file.etag}\n" for name, file in sorted(files.items()))
        oid = hashlib.sha1(f"{self.kind} {self.id} {parent}\n{title}\n{tree}".encode()).hexdigest()
        date = (EPOCH + timedelta(minutes=len(self.history))).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        self.history.append(Commit(oid, title, date, dict(sorted(files.items()))))
        return self.head


class Store:
    """Repositories created at run time under `folder`, and read-only ones from `seeds`/{models,datasets}/<org>/<name>."""

    def __init__(self, folder: Path, seeds: Path) -> None:
        self.blobs = folder / "blobs"
        self.blobs.mkdir(parents=True)
        self.seeds = seeds
        self.repositories: dict[tuple[str, str], Repository] = {}

    def find(self, kind: str, repo_id: str) -> Repository | None:
        key = (kind, repo_id)
        folder = self.seeds / f"{kind}s" / repo_id
        if key not in self.repositories and repo_id.count("/") == 1 and ".." not in repo_id and folder.is_dir():
            repository = Repository(kind, repo_id)
            repository.commit("Seed", _seed_files(folder))
            self.repositories[key] = repository
        return self.repositories.get(key)

    def create(self, kind: str, repo_id: str, private: bool) -> Repository:
        repository = self.repositories[kind, repo_id] = Repository(kind, repo_id, private)
        lines = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS)
        repository.commit("initial commit", {".gitattributes": File(self.add(lines.encode()), lfs=False)})
        return repository

    def add(self, content: bytes) -> Path:
        """Stores `content` under its SHA-256 and returns the path."""
        path = self.blobs / hashlib.sha256(content).hexdigest()
        path.write_bytes(content)
        return path

    def blob(self, sha256: str) -> Path | None:
        path = self.blobs / sha256
        return path if path.is_file() else None


@cache
def _seed_files(folder: Path) -> dict[str, File]:
    """Returns the files below `folder`; cached so that their hashes are computed once a process."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            with path.open("rb") as stream:
                sample = stream.read(512)
            files[name] = File(path, goes_to_lfs(name, path.stat().st_size, sample))
    return files
