"""Pulling a cache: what comes, what strangers may send, what every fault leaves behind."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from disks import Call, standing_in
from forge import Forge
from power import CUTS, Disk
from share_places import (
    FAULTS,
    bring,
    broken,
    impatient,
    in_memory,
    intact,
    put_in_memory,
    same_bytes,
    send,
    undamaged,
)
from store_caches import CLS, LATER, Made, add_column, commit, make_cache, restore, tree

from frame.manifests.errors import InputError
from frame.pipeline.share import pull as pulling
from frame.pipeline.share.address import open_remote
from frame.pipeline.share.fsspec_remote import FsspecRemote
from frame.pipeline.share.remote import RemoteError
from frame.pipeline.sharing_commands import pull_command
from frame.pipeline.store import CacheError, open_cache
from frame.pipeline.store.card import card_bytes
from frame.pipeline.store.layout import CARD, StoreKind, sealed, unseal
from frame.pipeline.store.objects import ObjectPath
from frame.pipeline.store.verify import verify

SMALL = {"lengths": (3, 5, 0, 8), "failed": (1,)}  # two units
THERE = "memory://there"


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    FAULTS.begin(lambda *_: None)
    put_in_memory("there", {})
    with impatient():
        yield
    FAULTS.begin(lambda *_: None)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = make_cache(tmp_path / "cache")
    put_in_memory("there", tree(made.path))
    return made


def resealed(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A sealed file with another content and a seal that fits, as a stranger can make it."""
    value = unseal(data, where=Path("x"))
    change(value)
    return sealed(value)


@pytest.mark.parametrize("store", ["zarr", "webdataset"])
def test_all_of_it_comes_and_nothing_else(store: StoreKind, tmp_path: Path) -> None:
    made = add_column(make_cache(tmp_path / "cache", store=store))
    strangers = {".gitattributes": b"x", "notes.txt": b"x", "receipts/x.json": b"x", "receipts/000099.json": b"x"}
    put_in_memory("there", {**tree(made.path), **strangers, "tmp/w/x.partial": b"x", "cache.json.part": b"x"})
    done = bring(THERE, tmp_path / "some/folder/back")
    assert same_bytes(made, tmp_path / "some/folder/back")
    assert intact(tmp_path / "some/folder/back")
    assert (done.units, done.units_planned, done.complete, done.files_there) == (5, 5, True, 0)
    again = bring(THERE, tmp_path / "some/folder/back")
    assert (again.files_fetched, again.files_there) == (0, done.files_fetched)


def test_what_is_not_all_there_is_said_and_fetched_later(tmp_path: Path) -> None:
    part = make_cache(tmp_path / "part", units=[0, 3])
    put_in_memory("there", tree(part.path))
    done = bring(THERE, tmp_path / "back")
    assert (done.units, done.units_planned, done.complete) == (2, 5, False)
    assert undamaged(tmp_path / "back")
    made = make_cache(tmp_path / "cache")
    put_in_memory("there", tree(made.path))
    done = bring(THERE, tmp_path / "back")
    assert (done.units, done.complete) == (5, True)
    assert same_bytes(made, tmp_path / "back")
    put_in_memory("there", tree(add_column(made).path))
    assert bring(THERE, tmp_path / "back").complete
    assert same_bytes(made, tmp_path / "back")


def test_damage_here_is_repaired_and_no_more_is_fetched(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "back"
    bring(THERE, path)
    for name in ("cache.json", "cache.copy.json", "index.parquet", "frames/zarr.json", "clip.cls/c/2/0"):
        file = path / name
        file.write_bytes(file.read_bytes()[:-4] + b"wron")
        assert bring(THERE, path).files_fetched == (0 if "copy" in name else 1)
        assert same_bytes(made, path)
    (path / "receipts/000003.json").write_bytes(b"{}")
    (path / "stats/clip.cls.json").unlink()
    (path / "frames/c/4/0/0/0").unlink()
    assert bring(THERE, path).files_fetched == 2
    assert same_bytes(made, path)


def test_another_cache_here_is_refused_and_nothing_is_touched(made: Made, tmp_path: Path) -> None:
    for other in (
        make_cache(tmp_path / "other", lengths=(3, 5)),
        make_cache(tmp_path / "same_plan_other_bytes", seed=1, units=[2]),
        add_column(make_cache(tmp_path / "more_columns")),
    ):
        # Of the same plan and other bytes, units that are whole here stay: they are as good as those there.
        before = tree(other.path)
        if "bytes" in str(other.path):
            add = make_cache(tmp_path / "theirs")
            put_in_memory("there", tree(add_column(add).path))
        with pytest.raises(CacheError, match=r"another cache|another build"):
            bring(THERE, other.path)
        after = tree(other.path)
        assert {name: after[name] for name in before if not name.startswith("cache.")} == {
            name: data for name, data in before.items() if not name.startswith("cache.")
        }
        put_in_memory("there", tree(made.path))


def test_units_that_were_made_here_stay(made: Made, tmp_path: Path) -> None:
    mine = make_cache(tmp_path / "mine", seed=1, units=[2])
    before = tree(mine.path)
    assert bring(THERE, mine.path).complete
    after = tree(mine.path)
    assert {name: after[name] for name in before} == before
    assert after["frames/c/1/0/0/0"] == tree(made.path)["frames/c/1/0/0/0"]
    assert intact(mine.path)


def test_a_folder_with_other_things_is_refused(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "index.parquet").write_bytes((made.path / "index.parquet").read_bytes())  # of a pull that was killed
    (folder / "notes.txt").write_bytes(b"mine")
    with pytest.raises(CacheError, match=r"notes\.txt"):
        bring(THERE, folder)
    (folder / "notes.txt").unlink()
    bring(THERE, folder)
    assert same_bytes(made, folder)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CacheError, match="is a file"):
        bring(THERE, tmp_path / "file")


def test_where_there_is_no_cache(made: Made, tmp_path: Path) -> None:
    copy = in_memory("there")["cache.copy.json"]
    for files, said in (({}, "no cache there"), ({"cache.copy.json": copy}, "a push has begun"), ({"a": b""}, "no")):
        put_in_memory("there", files)
        with pytest.raises(RemoteError, match=said):
            bring(THERE, tmp_path / "back")
    put_in_memory("there", {"cache.json": copy[:-9] + b"wrong"})
    with pytest.raises(RemoteError, match="cannot be used"):
        bring(THERE, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    assert made.path.exists()


def test_the_card_is_written_here_whatever_theirs_says(made: Made, tmp_path: Path) -> None:
    put_in_memory("there", {**tree(made.path), CARD: b"# Theirs\n"})
    bring(THERE, tmp_path / "back")
    assert (tmp_path / "back" / CARD).read_bytes() == card_bytes(open_cache(tmp_path / "back"))
    assert not verify(open_cache(tmp_path / "back")).problems


def _stranger(files: Mapping[str, bytes], unit: int, change: Callable[[dict[str, Any]], None]) -> dict[str, bytes]:
    name = f"receipts/{unit:06d}.json"
    return {**files, name: resealed(files[name], change)}


def _entry(value: dict[str, Any]) -> dict[str, Any]:
    name = next(name for name in value["files"] if name.startswith("clip.cls/"))
    found: dict[str, Any] = value["files"][name]
    return found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: value["files"].update({"../../out/c/1/0": _entry(value)}), "is no file of unit 1"),
        (lambda value: value["files"].update({"/etc/c/1/0": _entry(value)}), "is no file of unit 1"),
        (lambda value: value["files"].update({"other/c/1/0": _entry(value)}), "the plan does not have"),
        (lambda value: value["files"].update({"frames/c/2/0/0/0": _entry(value)}), "is no file of unit 1"),
        (lambda value: _entry(value).update({"bytes": 1 << 50}), "larger than the plan allows"),
        (lambda value: _entry(value).update({"bytes": -1}), "larger than the plan allows"),
        (lambda value: _entry(value).update({"bytes": 1}), "arrived changed"),
        (lambda value: _entry(value).update({"sha256": "0" * 64}), "arrived changed"),
        (lambda value: _entry(value).update({"members": {CLS: [[0, 0, 8, [1, 2]]]}}), "not a unit of this cache"),
        (lambda value: value["columns"]["clip.cls"].update({"rows": 3}), "not a unit of this cache"),
        (lambda value: value["columns"]["clip.cls"].update({"teacher": "0" * 64}), "not a unit of this cache"),
        (lambda value: value.update({"unit": 2}), "cannot be used"),
        (lambda value: value.update({"plan": "0" * 64}), "cannot be used"),
    ],
)
def test_a_receipt_of_a_stranger_commits_nothing(
    made: Made, tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    put_in_memory("there", _stranger(tree(made.path), 1, change))
    before = tree(tmp_path)
    with pytest.raises(RemoteError, match=said):
        bring(THERE, tmp_path / "back")
    names = tree(tmp_path / "back").keys()
    assert "receipts/000000.json" in names
    assert "receipts/000001.json" not in names
    assert undamaged(tmp_path / "back")
    assert {name: data for name, data in tree(tmp_path).items() if not name.startswith("back/")} == before


def test_names_are_made_here_whatever_the_plan_says(made: Made, tmp_path: Path) -> None:
    whole = tree(made.path)
    for change in (
        lambda value: value["metadata"].update({"../../out": "0" * 64}),
        lambda value: value["columns"].update({"../out": value["columns"]["clip.cls"]}),
        lambda value: value.update({"rows_per_unit": 1 << 40}),
    ):
        put_in_memory("there", {**whole, "cache.json": resealed(whole["cache.json"], change)})
        with pytest.raises(RemoteError, match="cannot be used"):
            bring(THERE, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_metadata_and_an_index_that_no_program_of_ours_wrote(made: Made, tmp_path: Path) -> None:
    from frame.pipeline.store.files import sha256_bytes

    whole = tree(made.path)
    other = whole["frames/zarr.json"].replace(b"uint8", b"uint16")
    meta = replace(made.meta, metadata={**made.meta.metadata, "frames/zarr.json": sha256_bytes(other)})
    put_in_memory("there", {**whole, "frames/zarr.json": other, "cache.json": meta.to_bytes()})
    with pytest.raises(RemoteError, match="another array"):
        bring(THERE, tmp_path / "back")
    meta = replace(made.meta, index_sha256=sha256_bytes(b"PAR1 nonsense PAR1"))
    put_in_memory("there", {**whole, "index.parquet": b"PAR1 nonsense PAR1", "cache.json": meta.to_bytes()})
    with pytest.raises(RemoteError, match="index there cannot be used"):
        bring(THERE, tmp_path / "back")
    assert not (tmp_path / "back/cache.json").exists()
    assert not (tmp_path / "back/index.parquet").exists()


def test_a_file_that_arrives_wrong_is_fetched_once_more(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, wrong = FsspecRemote._blocks, {"left": 1}

    def spoilt(self: FsspecRemote, path: str) -> Iterator[bytes]:
        if path.endswith("clip.cls/c/1/0") and wrong["left"]:
            wrong["left"] -= 1
            yield b"something else"
        yield from honest(self, path)

    monkeypatch.setattr(FsspecRemote, "_blocks", spoilt)
    bring(THERE, tmp_path / "back")
    assert same_bytes(made, tmp_path / "back")
    wrong["left"] = 2
    with pytest.raises(RemoteError, match=r"arrived changed, twice.*\n.*clip\.cls/c/1/0"):
        bring(THERE, tmp_path / "other")
    assert undamaged(tmp_path / "other")
    assert not (tmp_path / "other/clip.cls/c/1/0").exists()


def test_a_receipt_whose_data_are_not_there(made: Made, tmp_path: Path) -> None:
    put_in_memory("there", {name: data for name, data in tree(made.path).items() if name != "clip.cls/c/1/0"})
    with pytest.raises(RemoteError, match="A file is not there"):
        bring(THERE, tmp_path / "back")
    assert undamaged(tmp_path / "back")


def test_a_cache_that_grows_while_it_is_pulled(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = open_remote(THERE)
    held = remote.listing()
    honest = pulling.require_plan

    def grow(*arguments: Any) -> Any:
        found = honest(*arguments)
        put_in_memory("there", tree(add_column(made).path))
        return found

    monkeypatch.setattr(pulling, "require_plan", grow)
    with pytest.raises(RemoteError, match=LATER):
        pulling.pull(remote, held, tmp_path / "back")
    assert undamaged(tmp_path / "back")
    monkeypatch.undo()
    with impatient():
        bring(THERE, tmp_path / "back")
    assert same_bytes(made, tmp_path / "back")


@pytest.mark.usefixtures("made")
def test_a_build_here_that_commits_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = pulling.exclusive
    mine = replace(make_cache(tmp_path / "other", seed=1), path=tmp_path / "back")

    def build_first(path: Path) -> Any:
        if (path / "receipts/000000.json").exists():
            monkeypatch.setattr(pulling, "exclusive", honest)
            commit(mine, 1)
        return honest(path)

    monkeypatch.setattr(pulling, "exclusive", build_first)
    with pytest.raises(CacheError, match="another build"):
        bring(THERE, tmp_path / "back")
    bring(THERE, tmp_path / "back")  # what was built is whole, and stays
    assert tree(tmp_path / "back")["receipts/000001.json"] == tree(tmp_path / "other")["receipts/000001.json"]
    assert intact(tmp_path / "back")


@pytest.mark.parametrize("times", [1, 999_999, -1])
def test_any_operation_may_fail_once_or_for_good_or_be_the_last(times: int, tmp_path: Path) -> None:
    """What is here afterwards is a valid cache, or none yet; the same command makes it whole. -1: Ctrl-C."""
    made = make_cache(tmp_path / "cache", **SMALL)  # type: ignore[arg-type]
    url = f"faultydisk://{made.path}"
    FAULTS.begin(lambda *_: None)
    bring(url, tmp_path / "probe")
    operations = FAULTS.count
    assert operations > 50
    for turn in range(0, operations, 1 if times == 1 else 2):
        path = tmp_path / f"{turn}"
        FAULTS.begin(interrupted(turn) if times < 0 else broken(turn, times=times))
        if times == 1:
            assert bring(url, path).complete
        else:
            with pytest.raises((RemoteError, KeyboardInterrupt)):
                bring(url, path)
            FAULTS.begin(lambda *_: None)
            assert not (path / "tmp").exists()
            if (path / "cache.json").exists():
                assert undamaged(path)
            assert bring(url, path).complete
        FAULTS.begin(lambda *_: None)
        assert same_bytes(made, path)
        shutil.rmtree(path)


@pytest.mark.parametrize("flushing", [True, False])
def test_a_power_cut_at_any_moment_leaves_a_valid_cache(flushing: bool, tmp_path: Path) -> None:
    """And, as a control, not where nothing is flushed."""
    put_in_memory("there", tree(make_cache(tmp_path / "cache", **SMALL).path))  # type: ignore[arg-type]
    path, copy = tmp_path / "back", tmp_path / "copy"
    path.mkdir()
    cut, left = Disk(path), list[dict[str, bytes]]()

    def act(call: Call) -> object:
        try:
            return cut.act(call) if flushing or call.name != "fsync" else call.perform()
        finally:
            left.extend(cut.cut(how, random.Random(call.number)) for how in CUTS[:2])

    with standing_in(act):
        bring(THERE, path)
    assert len(left) > 200
    found = 0
    for files in left[::3]:
        restore(copy, files)
        found += "cache.json" in files and not _valid(copy)
    assert (found == 0) == flushing


def _valid(path: Path) -> bool:
    try:
        return undamaged(path)
    except CacheError:
        return False


def interrupted(number: int) -> Callable[[int, str], None]:
    def fault(turn: int, _: str) -> None:
        if turn == number:
            raise KeyboardInterrupt

    return fault


def test_a_disk_that_refuses_is_no_error_of_the_network(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from frame.pipeline.store import disk

    honest, calls = disk.write_all, []

    def full(descriptor: int, data: bytes) -> None:
        calls.append(1)
        if len(calls) > 12:
            raise OSError(28, "No space left on device")
        honest(descriptor, data)

    monkeypatch.setattr(disk, "write_all", full)
    with pytest.raises(CacheError, match="disk is full"):
        bring(THERE, tmp_path / "back")
    assert len(calls) == 13
    monkeypatch.setattr(disk, "write_all", honest)
    assert undamaged(tmp_path / "back")
    bring(THERE, tmp_path / "back")
    assert same_bytes(made, tmp_path / "back")


def test_a_pulled_cache_is_read_like_any_other(made: Made, tmp_path: Path) -> None:
    bring(THERE, tmp_path / "back")
    cache = open_cache(tmp_path / "back")
    assert (cache.read(CLS, 0, 3) == made.values(CLS)[0:3]).all()
    restore(tmp_path / "back", tree(made.path))


def test_it_is_pulled_into_a_folder() -> None:
    with pytest.raises(InputError, match="a folder of this machine"):
        pull_command(THERE, ObjectPath("lab", "mine"), as_json=False)


def test_the_command(made: Made, tmp_path: Path, forge: Forge) -> None:
    url, back = f"file://{tmp_path}/there", tmp_path / "back"
    send(make_cache(tmp_path / "part", units=[0]).path, url)
    done = forge.run("pull", url, back)
    assert done.returncode == 0, done.stderr
    assert "1 of 5: the cache is not complete" in done.stdout
    send(made.path, url)
    done = forge.run("pull", url, back, "--json")
    value = json.loads(done.stdout)
    assert (value["complete"], value["units"], value["url"], value["cache"]) == (True, 5, url, str(back))
    assert forge.run("verify", back).returncode == 0
    done = forge.run("pull", f"file://{tmp_path}/nothing", tmp_path / "other", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["what"] == "There is no cache there."


@pytest.mark.parametrize("command", ["push", "pull"])
def test_ctrl_c_says_what_is_kept(command: str, made: Made, tmp_path: Path, forge: Forge) -> None:
    pipe = tmp_path / "pipe"
    pipe.mkdir()
    os.mkfifo(pipe / "cache.json")  # whoever opens it waits for ever
    arguments = [made.path, f"file://{pipe}"] if command == "push" else [f"file://{pipe}", tmp_path / "back"]
    started = forge.start(command, *arguments)
    time.sleep(1.5)
    assert started.code is None, started.said
    started.signal(signal.SIGINT)
    assert started.wait(20) == 130
    assert "run the same command again" in started.said
    assert "Traceback" not in started.said
