"""An object store as a place to push to and pull from: a real server, and one whose connections break."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import s3_server
from s3_server import BUCKET
from share_places import bring, intact, same_bytes, send
from store_caches import CLS, Made, add_column, make_cache, tree

from frame.manifests.errors import InputError
from frame.pipeline.share.object_remote import ObjectRemote
from frame.pipeline.share.remote import RemoteError, outgoing
from frame.pipeline.store import bucket as requests
from frame.pipeline.store import open_cache
from frame.pipeline.store.bucket import StoreError
from frame.pipeline.store.objects import ObjectPath, names_below
from frame.pipeline.store.verify import verify

SMALL = {"lengths": (3, 5, 0, 8), "failed": (1,)}


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with s3_server.serving() as port:
        yield port


@pytest.fixture
def root(server: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> ObjectPath:
    s3_server.use(monkeypatch, server, tmp_path / "state")
    return ObjectPath(BUCKET, request.node.name.translate(str.maketrans("[] ", "---")))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_cache(tmp_path / "cache", **SMALL)  # type: ignore[arg-type]


def test_what_is_pushed_there_is_a_cache_in_place_and_comes_back(made: Made, root: ObjectPath, tmp_path: Path) -> None:
    done = send(made.path, str(root))
    assert names_below(root) == sorted(tree(made.path))
    cache = open_cache(root)
    assert not verify(cache).problems
    assert (cache.read(CLS, 0, 3) == made.values(CLS)[0:3]).all()
    assert send(made.path, str(root)).files_there == done.files_sent
    add_column(made)
    assert send(made.path, str(root), read_back=False).checked.startswith("sizes")
    assert bring(str(root), tmp_path / "back").complete
    assert same_bytes(made, tmp_path / "back")
    assert intact(tmp_path / "back")


def test_connections_that_break_cost_tries_and_nothing_else(
    made: Made, root: ObjectPath, server: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with s3_server.a_way(server) as way:
        s3_server.use(monkeypatch, way.port, tmp_path / "state")
        way.begin(s3_server.at_random(1, 0.2))
        send(made.path, str(root))
        bring(str(root), tmp_path / "back")
        assert way.broken > 10
    assert same_bytes(made, tmp_path / "back")


def test_a_store_that_does_not_answer(made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    s3_server.use(monkeypatch, 1, tmp_path / "state")
    monkeypatch.setitem(requests.RETRIES, "max_retries", 1)
    with pytest.raises(StoreError, match="what is finished is kept") as caught:
        send(made.path, "s3://lab/mine")
    assert s3_server.SECRET not in str(caught.value)


def test_reading_and_arriving(root: ObjectPath, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    remote = ObjectRemote(root, read_back=True)
    assert remote.listing() == {}
    assert remote.read("a", most=9) is None
    file = outgoing("a", b"hello")
    remote.send([file])
    assert {name: held.size for name, held in remote.listing().items()} == {"a": 5}
    assert remote.read("a", most=5) == b"hello"
    for action in (lambda: remote.read("a", most=4), lambda: remote.fetch("b", tmp_path, most=9)):
        with pytest.raises(InputError, match=str(root)):
            action()
    assert remote.fetch("a", tmp_path, most=5).sha256 == file.sha256
    assert not remote.right(outgoing("a", b"hallo"), remote.listing()["a"])
    monkeypatch.setattr(ObjectRemote, "_blocks", staticmethod(lambda _: iter([b"other"])))
    with pytest.raises(RemoteError, match="arrived changed, twice"):
        remote.send([file])
