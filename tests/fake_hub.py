"""A model hub in memory: those functions of ``HfApi`` that are used, with the answers, the errors and the side effects
of the real ones (huggingface_hub 2.4), and faults where a test says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.errors as hub_errors
from huggingface_hub import CommitOperationAdd
from huggingface_hub.hf_api import RepoFile, RepoFolder

LFS_BYTES = 600  # of the caches of the tests, the larger shards; the hub's own limit is 10 MB


def http_error(code: int, kind: type[hub_errors.HfHubHTTPError] = hub_errors.HfHubHTTPError) -> Exception:
    """What the client raises for an answer with this status."""
    import httpx2

    request = httpx2.Request("POST", "https://huggingface.co/api/datasets/lab/mine")
    return kind(f"{code} from the hub, token hf_abcdefghijkl", response=httpx2.Response(code, request=request))


def blob_id(data: bytes) -> str:
    """What git calls a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def lfs_pointer(data: bytes) -> bytes:
    """What git itself holds of a large file."""
    digest = hashlib.sha256(data).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(data)}\n".encode()


@dataclass
class Repository:
    """``commits``: id -> files; ``branches``: name -> id of its newest commit."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        name = hashlib.sha1(f"{branch} {len(self.commits)}".encode()).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        return name

    @property
    def files(self) -> dict[str, bytes]:
        """Of the main branch, without the hub's own."""
        found = self.commits[self.branches["main"]]
        return {name: data for name, data in found.items() if name != ".gitattributes"}


class FakeHub:
    """``fault`` is called before and after whatever is done: ``fault(number, method, when)``. ``spoil`` may change a
    file as it arrives: ``spoil(method, name, data)``."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.fault: Callable[[int, str, str], None] = lambda *_: None
        self.spoil: Callable[[str, str, bytes], bytes] = lambda _method, _name, data: data
        self.calls: list[str] = []
        self.uploaded: list[str] = []

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> str:
        with self._call("create_repo"):
            assert (repo_type, exist_ok) == ("dataset", True)
            if repo_id not in self.repositories:
                made = self.repositories[repo_id] = Repository(private=private)
                made.commit({".gitattributes": b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"})
            return repo_id

    def repo_info(self, repo_id: str, *, revision: str | None = None, repo_type: str) -> Any:
        with self._call("repo_info"):
            repository = self._repository(repo_id, repo_type)
            return SimpleNamespace(sha=self._commit(repository, revision), private=repository.private)

    def list_repo_tree(
        self, repo_id: str, *, recursive: bool, expand: bool, revision: str, repo_type: str
    ) -> Iterator[RepoFile | RepoFolder]:
        """A generator, as the real one is: errors come when it is read."""
        with self._call("list_repo_tree"):
            assert recursive
            assert not expand
            repository = self._repository(repo_id, repo_type)
            files = repository.commits[self._commit(repository, revision)]
            for folder in sorted({name.rpartition("/")[0] for name in files} - {""}):
                yield RepoFolder(path=folder, oid="0" * 40)
            yield from (_described(name, data) for name, data in files.items())

    def get_paths_info(self, repo_id: str, paths: list[str], *, revision: str, repo_type: str) -> list[RepoFile]:
        with self._call("get_paths_info"):
            repository = self._repository(repo_id, repo_type)
            files = repository.commits[self._commit(repository, revision)]
            return [_described(name, files[name]) for name in paths if name in files]

    def create_commit(
        self,
        repo_id: str,
        operations: Iterable[CommitOperationAdd],
        *,
        commit_message: str,
        repo_type: str,
        revision: str | None,
        parent_commit: str,
    ) -> Any:
        with self._call("create_commit"):
            repository = self._repository(repo_id, repo_type)
            head = self._commit(repository, revision)
            assert commit_message
            if head != parent_commit:
                raise http_error(412)
            files = dict(repository.commits[head])
            for operation in list(operations):
                assert isinstance(operation, CommitOperationAdd)
                assert not operation._is_committed
                with operation.as_file() as file:
                    data = self.spoil("create_commit", operation.path_in_repo, file.read())
                self.uploaded.append(operation.path_in_repo)
                files[operation.path_in_repo] = data
                operation._is_committed = True
            return SimpleNamespace(oid=repository.commit(files, revision or "main"))

    def hf_hub_download(self, repo_id: str, filename: str, *, repo_type: str, revision: str, local_dir: Path) -> str:
        with self._call("hf_hub_download"):
            repository = self._repository(repo_id, repo_type)
            files = repository.commits[self._commit(repository, revision)]
            if filename not in files:
                raise http_error(404, hub_errors.RemoteEntryNotFoundError)
            target = local_dir / filename
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.spoil("hf_hub_download", filename, files[filename]))
            (local_dir / ".cache" / "huggingface").mkdir(parents=True, exist_ok=True)
            return str(target)

    def _repository(self, repo_id: str, repo_type: str) -> Repository:
        assert repo_type == "dataset"
        if repo_id not in self.repositories:
            raise http_error(404, hub_errors.RepositoryNotFoundError)
        return self.repositories[repo_id]

    @staticmethod
    def _commit(repository: Repository, revision: str | None) -> str:
        name = repository.branches.get(revision or "main", revision or "")
        if name not in repository.commits:
            raise http_error(404, hub_errors.RevisionNotFoundError)
        return name

    def _call(self, method: str) -> _Call:
        return _Call(self, method)


class _Call:
    """Before and behind what a method does. What fails behind it has been done."""

    def __init__(self, hub: FakeHub, method: str) -> None:
        self.hub, self.method, self.number = hub, method, len(hub.calls)
        hub.calls.append(method)

    def __enter__(self) -> None:
        self.hub.fault(self.number, self.method, "before")

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.hub.fault(self.number, self.method, "after")


def _described(name: str, data: bytes) -> RepoFile:
    large = len(data) > LFS_BYTES or name.endswith(".parquet")
    lfs = {"size": len(data), "oid": hashlib.sha256(data).hexdigest(), "pointerSize": len(lfs_pointer(data))}
    if not large:
        return RepoFile(path=name, size=len(data), oid=blob_id(data))
    return RepoFile(path=name, size=len(data), oid=blob_id(lfs_pointer(data)), lfs=lfs)
