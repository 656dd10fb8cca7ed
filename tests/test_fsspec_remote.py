"""Places that fsspec reaches, for real (the disk, memory) and failing: names, drivers, what is there at each moment."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem
from share_places import FAULTS, broken, impatient

from frame.manifests.errors import InputError
from frame.pipeline.share.address import open_remote, shown
from frame.pipeline.share.fsspec_remote import PART, FsspecRemote, open_fsspec
from frame.pipeline.share.hub_remote import HubRemote
from frame.pipeline.share.object_remote import ObjectRemote
from frame.pipeline.share.remote import Outgoing, RemoteError, outgoing
from frame.pipeline.store.files import CacheError, sha256_bytes


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    FAULTS.begin(lambda *_: None)
    with impatient():
        yield
    FAULTS.begin(lambda *_: None)


def large(folder: Path, data: bytes, name: str = "a/b") -> Outgoing:
    file = folder / "source"
    file.write_bytes(data)
    return Outgoing(name=name, size=len(data), sha256=sha256_bytes(data), path=file)


def at(url: str, *, read_back: bool = True) -> FsspecRemote:
    return open_fsspec(url, address=shown(url), read_back=read_back)


@pytest.mark.parametrize("scheme", ["faultydisk://", "faultyobjects://"])
def test_what_is_sent_is_there(scheme: str, tmp_path: Path) -> None:
    remote = at(f"{scheme}{tmp_path}/there")
    assert remote.listing() == {}
    assert remote.read("a/b", most=9) is None
    first, second = large(tmp_path, b"hello"), outgoing("c", b"")
    remote.send([first, second])
    held = remote.listing()
    assert {name: item.size for name, item in held.items()} == {"a/b": 5, "c": 0}
    assert remote.right(first, held["a/b"])
    assert not remote.right(outgoing("a/b", b"hallo"), held["a/b"])
    assert not remote.right(outgoing("a/b", b"hell"), held["a/b"])
    assert remote.read("a/b", most=5) == b"hello"
    with pytest.raises(RemoteError, match="more than 4 bytes"):
        remote.read("a/b", most=4)
    came = remote.fetch("a/b", tmp_path, most=5)
    assert (came.path.read_bytes(), came.size, came.sha256) == (b"hello", 5, first.sha256)
    with pytest.raises(RemoteError, match="FileNotFoundError"):
        remote.fetch("nothing", tmp_path, most=5)


def test_no_more_is_fetched_than_may_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frame.pipeline.share.fsspec_remote.BLOCK", 10)
    remote = at(f"memory:/{tmp_path}/there")
    remote.send([large(tmp_path, b"x" * 1000)])
    assert remote.fetch("a/b", tmp_path, most=25).size == 30


@pytest.mark.parametrize("scheme", ["faultydisk://", "faultyobjects://"])
@pytest.mark.parametrize("times", [1, 99])
def test_no_name_ever_holds_half_of_a_file(scheme: str, times: int, tmp_path: Path) -> None:
    """Whatever breaks off, its name holds all of the old content, all of the new, or nothing."""
    new = b"the new content" * 40
    at(f"{scheme}{tmp_path}/probe").send([large(tmp_path, new)])
    for turn in range(FAULTS.count):
        folder = tmp_path / f"{turn}"
        remote = at(f"{scheme}{folder}")
        remote.send([large(tmp_path, b"old" * 50)])
        file = large(tmp_path, new)
        FAULTS.begin(broken(turn, times=times))
        if times > 1:
            with pytest.raises(RemoteError, match="run the same command again"):
                remote.send([file])
        else:
            remote.send([file])
        FAULTS.begin(lambda *_: None)
        assert remote.read("a/b", most=9999) in (b"old" * 50 if times > 1 else new, new)
        if scheme == "faultyobjects://":
            assert list(remote.listing()) == ["a/b"]
        file = large(tmp_path, new)
        remote.send([file])
        assert remote.read("a/b", most=9999) == new
        assert list(remote.listing()) == ["a/b"]


@pytest.mark.parametrize("scheme", ["faultydisk", "faultyobjects"])
def test_a_file_that_arrives_changed_is_sent_once_more_and_never_takes_its_name(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, spoilt = at(f"{scheme}://{tmp_path}/there"), 1
    honest = FsspecRemote._blocks

    def read_back(self: FsspecRemote, path: str) -> Iterator[bytes]:
        nonlocal spoilt
        spoilt -= 1
        yield from (b"something else",) if spoilt >= 0 else honest(self, path)

    monkeypatch.setattr(FsspecRemote, "_blocks", read_back)
    remote.send([large(tmp_path, b"hello")])
    assert remote.read("a/b", most=9) == b"hello"
    spoilt = 9
    with pytest.raises(RemoteError, match="arrived changed, twice"):
        remote.send([large(tmp_path, b"other", "d")])
    assert (scheme == "faultydisk") == ("d" not in remote.listing())


def test_without_reading_back_sizes_alone_are_compared_but_for_small_files(tmp_path: Path) -> None:
    remote = at(f"memory:/{tmp_path}/there", read_back=False)
    remote.send([large(tmp_path, b"hello"), outgoing("c", b"small")])
    held = remote.listing()
    assert remote.right(large(tmp_path, b"hallo"), held["a/b"])
    assert not remote.right(large(tmp_path, b"hall"), held["a/b"])
    assert not remote.right(outgoing("c", b"smell"), held["c"])
    assert "sizes" in remote.checked
    assert "sha256" in at("memory://x").checked


@pytest.mark.parametrize("scheme", ["faultydisk://", "faultyobjects://"])
def test_a_source_that_is_damaged_while_it_is_read_is_not_sent(scheme: str, tmp_path: Path) -> None:
    remote, file = at(f"{scheme}{tmp_path}/there"), large(tmp_path, b"hello")
    assert file.path is not None
    file.path.write_bytes(b"hallo")
    with pytest.raises(CacheError, match=r"source\n.*not pushed"):
        remote.send([file])
    assert "a/b" not in remote.listing()
    file.path.unlink()
    file.path.symlink_to("/etc/passwd")
    with pytest.raises(CacheError):
        remote.send([file])


def test_a_folder_that_cannot_be_listed_is_no_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = at(f"file://{tmp_path}/there")
    remote.send([large(tmp_path, b"hello")])
    honest = LocalFileSystem.ls

    def ls(self: LocalFileSystem, path: str, detail: bool = False, **kwargs: Any) -> Any:
        if path.endswith("/a"):
            raise OSError(5, "an error of the disk")
        return honest(self, path, detail, **kwargs)

    monkeypatch.setattr(LocalFileSystem, "ls", ls)
    with pytest.raises(RemoteError, match="an error of the disk"):
        remote.listing()


def test_a_full_disk_there_and_a_refusal_are_not_tried_again(tmp_path: Path) -> None:
    remote = at(f"faultydisk://{tmp_path}/there")

    def full(_: int, name: str) -> None:
        if name == "write":
            raise OSError(28, "No space left on device")

    FAULTS.begin(full)
    with pytest.raises(RemoteError, match="No space left"):
        remote.send([large(tmp_path, b"hello")])
    assert FAULTS.count == 3

    def refused(*_: object) -> None:
        raise PermissionError(13, "not yours")

    FAULTS.begin(refused)
    with pytest.raises(RemoteError, match="refuses"):
        remote.listing()
    assert FAULTS.count == 1


def test_our_own_mistakes_are_not_hidden(tmp_path: Path) -> None:
    def mistake(*_: object) -> None:
        raise TypeError("a mistake")

    FAULTS.begin(mistake)
    with pytest.raises(TypeError):
        at(f"faultydisk://{tmp_path}/there").listing()


def test_where_the_place_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"1")
    with pytest.raises(RemoteError, match="a file, where a folder"):
        at(f"file://{tmp_path}/there").listing()


def test_urls() -> None:
    assert isinstance(open_remote("s3://lab/mine"), ObjectRemote)
    hub = open_remote("hf://datasets/lab/mine@refs/pr/1")
    assert isinstance(hub, HubRemote)
    assert hub.address == "hf://datasets/lab/mine@refs/pr/1"
    assert isinstance(open_remote("memory://mine"), FsspecRemote)
    assert open_remote("file:///a/b/").address == "file:///a/b/"


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("lab/mine", {}, "file:///FOLDER"),
        ("/mnt/disk", {}, "file:///FOLDER"),
        ("simplecache::memory://mine", {}, "a copy here"),
        ("hf://lab/mine", {}, "hf://datasets/USER/NAME"),
        ("hf://datasets/mine", {}, "hf://datasets/USER/NAME"),
        ("hf://datasets/lab/mine/sub", {}, "hf://datasets/USER/NAME"),
        (f"hf://datasets/lab/mine@{'0' * 40}", {"pushing": True}, "Give a branch"),
        ("hf://datasets/lab/mine", {"read_back": False}, "Leave it out"),
        ("memory://mine", {"public": True}, "Leave it out"),
        ("s3://lab/mine", {"public": True}, "Leave it out"),
        ("s3://lab", {}, "no name for a cache"),
        ("memory://", {}, "names no folder"),
        ("file:///", {}, "names no folder"),
        ("nonsense://lab/mine", {}, "fsspec knows no nonsense://"),
    ],
)
def test_other_urls_are_refused(url: str, options: dict[str, bool], said: str) -> None:
    with pytest.raises(InputError) as caught:
        open_remote(url, **options)
    assert said in str(caught.value)


def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(RemoteError, match="gcsfs") as caught:
        open_remote("gs://lab/mine")
    assert "not installed" in caught.value.what


def test_passwords_are_never_shown() -> None:
    class Server(AbstractFileSystem):
        def __init__(self, **_: Any) -> None:
            raise ConnectionRefusedError("geheim@example.org refuses ftpx://me:geheim@example.org")

    fsspec.register_implementation("ftpx", Server, clobber=True)
    with pytest.raises(RemoteError) as caught:
        open_remote("ftpx://me:geheim@example.org/mine?signature=geheim")
    assert "geheim" not in str(caught.value)
    assert "example.org/mine" in str(caught.value)


def test_which_drivers_rename() -> None:
    assert at("file:///a")._renames
    assert at("faultydisk:///a")._renames
    assert not at("memory://a")._renames
    assert not at("faultyobjects://a")._renames
    for name in ("sftp", "ftp", "smb", "arrow_hdfs"):
        module = {"arrow_hdfs": "arrow"}.get(name, name)
        path = Path(fsspec.__file__).parent / "implementations" / f"{module}.py"
        assert "    def mv(" in path.read_text()  # they need not be installed to be looked at
    assert type(MemoryFileSystem()).mv is AbstractFileSystem.mv
    assert PART == ".part"
