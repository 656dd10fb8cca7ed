"""A cache in an object store: names, what is said when something is wrong with them, and the commands on it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import s3_server
from s3_server import BUCKET
from store_caches import LATER, add_column, make_cache, tree

from frame.manifests.errors import InputError
from frame.pipeline.decode.process import COMMAND, Child
from frame.pipeline.estimate import _existing, _measure_disk
from frame.pipeline.store import CacheError, open_cache, reopen
from frame.pipeline.store import bucket as requests
from frame.pipeline.store.bucket import StoreError
from frame.pipeline.store.claims import claim, require_conditions, update
from frame.pipeline.store.export import export
from frame.pipeline.store.files import sha256_bytes, sha256_file
from frame.pipeline.store.local import LocalFacts, add_timings, facts_path, read_facts, timings_path, write_facts
from frame.pipeline.store.merge import plan_merge
from frame.pipeline.store.objects import ObjectPath, names_below, store_path
from frame.pipeline.store.repack import plan_repack, repack
from frame.pipeline.store.verify import verify


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with s3_server.serving() as port:
        yield port


@pytest.fixture
def root(server: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> ObjectPath:
    s3_server.use(monkeypatch, server, tmp_path / "state")
    return ObjectPath(BUCKET, request.node.name.translate(str.maketrans("[] ", "---")))


def test_names() -> None:
    path = store_path("s3://lab/a/b/")
    assert path == ObjectPath("lab", "a/b")
    assert str(path / "c/d") == "s3://lab/a/b/c/d"
    assert ((path / "c/d").name, (path / "c/d").parent, path.absolute()) == ("d", path / "c", path)
    assert path.resolve() == path.expanduser() == pickle.loads(pickle.dumps(path)) == path  # noqa: S301
    assert sorted([path / "b", path / "a"]) == [path / "a", path / "b"]
    assert store_path("a/b") == Path("a/b")
    assert store_path(Path("a")) == Path("a")
    assert store_path("a:b//c") == Path("a:b//c")


@pytest.mark.parametrize(
    "text",
    [
        *("gs://lab/a", "https://lab/a", "file:///a", "az://lab/a", "S3A://lab/a"),
        *(
            "s3://",
            "s3://lab",
            "s3://lab/",
            "s3://lab//a",
            "s3://lab/../a",
            "s3://lab/a/./b",
            "s3://lab/ü",
            "s3://lab/a?b",
        ),
        "s3://AKID:geheim@lab/a",
    ],
)
def test_other_names_are_refused_and_nothing_secret_is_repeated(text: str) -> None:
    with pytest.raises(InputError) as caught:
        store_path(text)
    assert caught.value.fix
    assert "geheim" not in str(caught.value)


def test_it_does_what_the_store_asks_of_a_path(root: ObjectPath) -> None:
    file = root / "a/b"
    assert not file.exists()
    assert not root.exists()
    for action in (file.read_bytes, file.stat, file.unlink):
        with pytest.raises(FileNotFoundError, match=r"s3://lab/"):
            action()
    file.unlink(missing_ok=True)
    (root / "a").mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"hello")
    (root / "c").write_bytes(memoryview(b""))
    assert (file.read_bytes(), file.stat().st_size, (root / "c").read_bytes()) == (b"hello", 5, b"")
    assert file.is_file()
    assert not file.is_dir()
    assert (root / "a").is_dir()
    assert not (root / "a").is_file()
    assert list(root.iterdir()) == [root / "a", root / "c"]
    assert names_below(root) == ["a/b", "c"]
    assert sha256_file(file) == sha256_bytes(b"hello")
    assert requests.get_range(file.bucket, file.key, 1, 3) == b"el"
    assert requests.get_range(file.bucket, file.key, 3, 30) == b"lo"
    assert requests.get_range(file.bucket, file.key, 30, 40) == b""
    with pytest.raises(OSError, match="may have 4"):
        file.read_bytes(most=4)
    file.unlink()
    (root / "a").rmdir()
    assert names_below(root) == ["c"]


def test_changes_are_made_from_what_is_there(root: ObjectPath) -> None:
    path = root / "x"
    assert claim(path, b"1") == b"1"
    assert claim(path, b"2") == b"1"

    def change(old: bytes | None) -> bytes:
        if old == b"1":
            path.write_bytes(b"1, and another's")  # between the look and the put
        return (old or b"") + b"+"

    assert update(path, change) == b"1, and another's+"
    assert path.read_bytes() == b"1, and another's+"
    require_conditions(path)
    assert path.read_bytes() == b"1, and another's+"


def test_a_server_without_conditional_puts_is_refused(
    root: ObjectPath, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with s3_server.serving(conditions=False) as port:
        s3_server.use(monkeypatch, port, tmp_path / "state")
        with pytest.raises(StoreError, match="conditional") as caught:
            make_cache(root)  # type: ignore[arg-type]
        assert not (root / "cache.json").exists()
    assert "s3://lab/" in caught.value.where


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("AWS_ENDPOINT_URL", "http://me:geheim@127.0.0.1:1", "did not do what was asked"),
        ("AWS_ALLOW_HTTP", "false", "did not do what was asked"),
        ("bucket", "nosuchbucket", "no such bucket"),
    ],
    ids=["nobody there", "no http", "no bucket"],
)
def test_a_wrong_setting_is_one_screen(
    root: ObjectPath, monkeypatch: pytest.MonkeyPatch, name: str, value: str, what: str
) -> None:
    monkeypatch.setitem(requests.RETRIES, "max_retries", 1)
    monkeypatch.setenv(name, value)
    requests._clients.clear()  # those that are there have the settings of before
    path = ObjectPath(value, "a") if name == "bucket" else root
    with pytest.raises(StoreError, match=what) as caught:
        open_cache(path)
    screen = caught.value.screen()
    assert len(screen.splitlines()) <= 5
    assert str(path) in screen
    assert not [secret for secret in (s3_server.SECRET, s3_server.KEY_ID, "geheim") if secret in screen]


def test_there_is_no_cache(root: ObjectPath) -> None:
    for function in (open_cache, reopen):
        with pytest.raises(CacheError, match="There is no cache here") as caught:
            function(root)
        assert caught.value.where == str(root)


def test_a_forked_process_says_so_and_does_not_hang(root: ObjectPath) -> None:
    """The client has threads, which no fork takes along."""
    assert not root.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python's own, which warns of just this
        child = os.fork()
    if not child:
        code = 1
        try:
            root.exists()
        except RuntimeError:
            code = 7
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.parametrize("store", ["zarr", "webdataset"])
def test_it_is_the_same_cache_byte_for_byte_with_columns_added_later(
    root: ObjectPath, tmp_path: Path, store: Any
) -> None:
    made = [add_column(make_cache(place, store=store), failed=[3]) for place in (root, tmp_path / "cache")]  # type: ignore[arg-type]
    assert {name: (root / name).read_bytes() for name in names_below(root)} == tree(tmp_path / "cache")
    there, here = (item.open() for item in made)
    assert LATER in there.columns
    assert there.failed() == here.failed()
    assert pickle.loads(pickle.dumps(there)).receipts() == here.receipts()  # noqa: S301
    assert verify(there).problems == ()


def test_a_copy_of_the_plan_that_a_dead_build_left_behind_is_brought_up(root: ObjectPath) -> None:
    """It died over adding a column, between the two copies."""
    make_cache(root)  # type: ignore[arg-type]
    before = (root / "cache.json").read_bytes()
    add_column(made := make_cache(root))  # type: ignore[arg-type]
    after = (root / "cache.json").read_bytes()
    (root / "cache.json").write_bytes(before)
    assert [problem.file for problem in verify(made.open()).problems if problem.kind == "stale"] == ["cache.copy.json"]
    make_cache(root)  # type: ignore[arg-type]
    assert (root / "cache.json").read_bytes() == (root / "cache.copy.json").read_bytes() == after


def test_export_goes_both_ways(root: ObjectPath, tmp_path: Path) -> None:
    made = make_cache(tmp_path / "here", store="zarr", encoding="int8")
    export(made.open(), root / "tar", to="webdataset")
    assert {problem.file for problem in verify(open_cache(root / "tar")).problems} == set()
    export(open_cache(root / "tar"), tmp_path / "back", to="zarr")
    assert tree(tmp_path / "back") == tree(made.path)
    export(open_cache(root / "tar"), root / "zarr", to="zarr", units=[1])
    (root / "other/x").write_bytes(b"mine")
    with pytest.raises(CacheError, match="not empty"):
        export(made.open(), root / "other", to="zarr")
    with pytest.raises(CacheError, match="another cache"):
        export(made.open(), root / "tar", to="zarr")


def test_chosen_clips_and_merges_go_both_ways(root: ObjectPath, tmp_path: Path) -> None:
    made = make_cache(tmp_path / "here", encoding="int8")
    names = made.table.column("clip").to_pylist()
    for part, clips in (("some", names[:4]), ("rest", names[3:])):
        copy = repack(root / part, plan_repack(made.open(), to="webdataset", clips=clips))
        assert verify(copy).problems == ()
    parts = [open_cache(root / "some"), open_cache(root / "rest")]
    assert plan_merge(parts, root / "whole").twice == ("c3",)
    for place, to in ((root / "whole", "zarr"), (tmp_path / "whole", "zarr")):
        merged = repack(place, plan_merge(parts, place, to=cast(Any, to)).packing)
        assert verify(merged).problems == ()
    assert {name: (root / "whole" / name).read_bytes() for name in names_below(root / "whole")} == tree(
        tmp_path / "whole"
    )
    with pytest.raises(InputError, match="lies in one of the caches"):
        plan_merge(parts, root / "rest")


def test_the_command_refuses_other_schemes_in_one_screen() -> None:
    command = [sys.executable, "-m", "frame.pipeline.cli", "info", "gs://lab/cache"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("A cache cannot lie at gs://")
    assert "Traceback" not in done.stderr


def test_a_plan_measures_the_store_and_leaves_nothing(root: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frame.pipeline.estimate._OBJECT_BYTES", 1 << 16)
    assert _existing(root) == root
    assert _measure_disk(root) > 0
    assert names_below(root) == []


def test_what_lies_beside_it_is_kept_by_this_user(
    root: ObjectPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = LocalFacts(source=tmp_path, weights={"a": tmp_path / "w"})
    assert read_facts(root) == LocalFacts()
    write_facts(root, facts)
    add_timings(root, {"wall": 1.0})
    assert read_facts(root) == facts
    assert facts_path(root).is_relative_to(tmp_path / "state/frame-encoder")
    assert timings_path(root).read_text() == '{"wall": 1.0}\n'
    assert names_below(root) == []
    assert read_facts(root / "other") == LocalFacts()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://another.server")
    assert read_facts(root) == LocalFacts()
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert facts_path(root).is_relative_to(tmp_path / ".local/state/frame-encoder")


def test_decoders_of_videos_that_may_be_hostile_do_not_get_the_keys(
    root: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, str] = {}

    def start(*_: object, env: dict[str, str], **__: object) -> None:
        given.update(env)
        raise RuntimeError("enough")

    monkeypatch.setattr("frame.pipeline.decode.process.subprocess.Popen", start)
    with pytest.raises(RuntimeError, match="enough"):
        Child(COMMAND)
    assert "PATH" in given
    assert not [name for name in given if name.startswith("AWS_")]
    assert s3_server.SECRET not in given.values()
    assert not root.exists()
