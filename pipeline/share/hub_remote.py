"""A dataset repository on the model hub.

A commit there is whole or not there at all. Files go in batches of commits, so that a push that is killed goes on with
the next; and a commit names the one before it, so that the work of two people who push at once is not mixed up. The hub
itself names the sha256 of large files (LFS) and the git blob id of small ones: by these it is known what is there, and
that it arrived. That is the hub's word; ``pull`` compares the bytes.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from frame.pipeline.share.hub_errors import hub_failure, hub_final
from frame.pipeline.share.remote import BLOCK, KEPT, Arrived, Held, Outgoing, RemoteError, changed
from frame.pipeline.share.retry import patiently
from frame.pipeline.store import disk
from frame.pipeline.store.files import aside, disk_error

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile, RepoFolder

_Result = TypeVar("_Result")

_KIND = "dataset"
_MOST_ENTRIES = 10_000  # in one folder, by the hub's own advice; beyond it commits and listings fail


class HubRemote:
    """See ``Remote``. ``revision``: a branch (for ``pull`` also a tag or a commit), empty for the main one.
    ``public``: make a new repository public, rather than private."""

    # As many operations as the hub answers quickly; some minutes' worth of bytes, for what a kill makes send again.
    most_files, most_bytes = 100, 5_000_000_000

    def __init__(self, repository: str, revision: str = "", *, public: bool = False, api: HfApi | None = None) -> None:
        from huggingface_hub import HfApi

        self._api = api or HfApi(library_name="frame-encoder")
        self._repository, self._revision, self._public = repository, revision or None, public
        self._commit = ""  # what was listed, and what is fetched: no file of a later commit gets in between
        self._held: dict[str, Held] = {}

    @property
    def address(self) -> str:
        """The repository, and the revision if one was given."""
        return f"hf://datasets/{self._repository}" + (f"@{self._revision}" if self._revision else "")

    @property
    def checked(self) -> str:
        """How it is known that files arrived."""
        return "the hub's own sha256 and git blob ids compared"

    def prepare(self, names: Iterable[str]) -> None:
        """Find the repository, or make it. Raises ``RemoteError`` where it is not as public as was said, or where the
        hub would not take so many files."""
        _require_folders(names, self.address)
        there = self._asked(self.address, self._privacy)
        if there is None:
            self._asked(self.address, self._create)
        elif there and self._public:
            raise RemoteError(
                what="The repository is private, and --public makes new ones only.",
                where=self.address,
                fix="Change it in the repository's settings on the hub, or leave --public out.",
            )
        elif not there and not self._public:
            raise RemoteError(
                what="The repository is public: everybody would see what you push.",
                where=self.address,
                why="without --public a cache goes to private repositories only",
                fix="Look into the licences in cache.json, then say --public; or give another name.",
            )

    def listing(self) -> dict[str, Held]:
        """What is there now, by name. What is read and fetched afterwards is of this very commit."""

        def found() -> dict[str, Held]:
            self._commit = self._head()
            tree = self._api.list_repo_tree(
                self._repository, recursive=True, expand=False, revision=self._commit, repo_type=_KIND
            )
            return _files(tree)

        self._held = self._asked(self.address, found)
        return dict(self._held)

    def read(self, name: str, *, most: int) -> bytes | None:
        """A small file's content, None if there is none."""
        if name not in self._held:
            return None
        with tempfile.TemporaryDirectory(prefix="frame-") as folder:
            return self._download(name, Path(folder), most).read_bytes()

    def fetch(self, name: str, tmp: Path, *, most: int) -> Arrived:
        """Bring a file into ``tmp``, by the hub's own client, which goes on where a connection broke."""
        came = self._download(name, tmp / "hub", most)
        path, digest, count = aside(tmp, "pulled"), hashlib.sha256(), 0
        try:
            disk.move(came, path)
            with path.open("rb", buffering=0) as file:
                disk.fsync(file.fileno())
                while block := file.read(BLOCK):
                    digest.update(block)
                    count += len(block)
        except OSError as error:
            raise disk_error(error, path) from error
        return Arrived(path=path, size=count, sha256=digest.hexdigest())

    def right(self, file: Outgoing, held: Held) -> bool:
        """Does the hub itself say that it has just this?"""
        if held.size != file.size:
            return False
        return held.sha256 == file.sha256 if held.sha256 else held.blob == file.git_blob()

    def send(self, files: Sequence[Outgoing]) -> None:
        """Commit them together; what the hub then says to be something else is committed once more."""
        left = list(files)
        for file in left:
            file.require_intact()
        for _ in range(2):
            self._asked(self.address, partial(self._commit_files, left))
            left = self._asked(self.address, lambda: self._wrong(files))
            if not left:
                return
        raise changed(left[0].name, self.address)

    def _commit_files(self, files: Sequence[Outgoing]) -> None:
        """One try. If the head is no longer ours, an answer may have been lost: then all of it is there already."""
        from huggingface_hub import CommitOperationAdd

        head = self._head()
        if head != self._commit:
            if self._wrong(files, head):
                raise self._moved()
            self._commit = head
            return
        # The client marks them as used, so each try makes new ones.
        operations = [CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=_content(file)) for file in files]
        done = self._api.create_commit(
            self._repository,
            operations,
            commit_message=f"frame-cache push: {len(files)} file(s), up to {files[-1].name}",
            repo_type=_KIND,
            revision=self._revision,
            parent_commit=self._commit,
        )
        self._commit = done.oid

    def _wrong(self, files: Sequence[Outgoing], commit: str = "") -> list[Outgoing]:
        """Those of the files that a commit (default: the last) does not have as they are."""
        names = [file.name for file in files]
        found = _files(
            self._api.get_paths_info(self._repository, names, revision=commit or self._commit, repo_type=_KIND)
        )
        return [file for file in files if file.name not in found or not self.right(file, found[file.name])]

    def _head(self) -> str:
        info = self._api.repo_info(self._repository, revision=self._revision, repo_type=_KIND)
        return str(info.sha)

    def _privacy(self) -> bool | None:
        """Is the repository private? None: there is none."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        try:
            return bool(self._api.repo_info(self._repository, repo_type=_KIND).private)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            return None

    def _create(self) -> None:
        self._api.create_repo(self._repository, repo_type=_KIND, private=not self._public, exist_ok=True)

    def _download(self, name: str, folder: Path, most: int) -> Path:
        where, size = f"{self.address}/{name}", self._held[name].size if name in self._held else None
        if size is not None and size > most:
            raise RemoteError(what=f"A file has more than {most:,} bytes.", where=where)

        def came() -> Path:
            return Path(
                self._api.hf_hub_download(
                    self._repository, name, repo_type=_KIND, revision=self._commit, local_dir=folder
                )
            )

        return self._asked(where, came)

    def _moved(self) -> RemoteError:
        return RemoteError(
            what="Somebody else has changed the repository meanwhile.",
            where=self.address,
            why="its newest commit is not the one that this push had looked at",
            fix=f"So far {KEPT} It looks at everything anew.",
        )

    def _asked(self, where: str, action: Callable[[], _Result]) -> _Result:
        return patiently(action, final=hub_final, failure=lambda error: hub_failure(error, where))


def _content(file: Outgoing) -> bytes | str:
    return str(file.path) if file.data is None else file.data


def _files(items: Iterable[RepoFile | RepoFolder]) -> dict[str, Held]:
    from huggingface_hub.hf_api import RepoFile

    return {
        item.path: Held(size=item.size, sha256=item.lfs.sha256 if item.lfs else "", blob=item.blob_id)
        for item in items
        if isinstance(item, RepoFile)
    }


def _require_folders(names: Iterable[str], address: str) -> None:
    inside: dict[str, set[str]] = {}
    for name in names:
        parts = name.split("/")
        for depth, part in enumerate(parts):
            inside.setdefault("/".join(parts[:depth]), set()).add(part)
    for folder, entries in inside.items():
        if len(entries) > _MOST_ENTRIES:
            raise RemoteError(
                what=f"The hub takes {_MOST_ENTRIES:,} entries a folder, and the cache has more.",
                where=f"{address}/{folder}",
                why=f"{len(entries):,} entries",
                fix="Build with larger units (--unit-rows), or push to an object store.",
            )
