"""Pushing a cache: what goes, in which order, what is refused, and what every fault leaves behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from forge import Forge
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
from store_caches import LATER, Made, add_column, commit, make_cache, restore, tree

from frame.manifests.errors import InputError
from frame.pipeline.share import push as pushing
from frame.pipeline.share.fsspec_remote import PART
from frame.pipeline.share.remote import RemoteError
from frame.pipeline.share.source import look_at
from frame.pipeline.store import CacheError
from frame.pipeline.store.card import card_bytes
from frame.pipeline.store.layout import CARD, StoreKind
from frame.pipeline.store.objects import ObjectPath
from frame.pipeline.store.reader import Cache

SMALL = {"lengths": (3, 5, 0, 8), "failed": (1,)}  # two units


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    FAULTS.begin(lambda *_: None)
    put_in_memory("there", {})
    with impatient():
        yield
    FAULTS.begin(lambda *_: None)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_cache(tmp_path / "cache")


@pytest.mark.parametrize("store", ["zarr", "webdataset"])
@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_all_of_it_arrives_and_nothing_else_goes(store: StoreKind, scheme: str, tmp_path: Path) -> None:
    made = add_column(make_cache(tmp_path / "cache", store=store))
    whole = tree(made.path)
    (made.path / "tmp" / "writer").mkdir(parents=True)
    for stranger in ("tmp/writer/x.partial", "notes.txt", "receipts/notes.txt", "stats/old.cls.json", "shards.bak"):
        (made.path / stranger).parent.mkdir(exist_ok=True)
        (made.path / stranger).write_bytes(b"not ours")
    url = "memory://there" if scheme == "memory" else f"file://{tmp_path}/some/folder/there"
    done = send(made.path, url)
    there = in_memory("there") if scheme == "memory" else tree(tmp_path / "some/folder/there")
    assert there == whole
    assert done.files_sent == len(whole)
    assert done.bytes_sent == sum(map(len, whole.values()))
    assert (done.units, done.units_planned, done.files_there, done.card) == (5, 5, 0, "sent")
    again = send(made.path, url)
    assert (again.files_sent, again.files_there, again.bytes_there) == (0, done.files_sent, done.bytes_sent)


def test_no_receipt_is_there_before_its_data_and_the_plan_is_there_first(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    honest = pushing._Sending.add

    def add(self: pushing._Sending, file: object) -> None:
        order.append(file.name)  # type: ignore[attr-defined]
        honest(self, file)  # type: ignore[arg-type]

    monkeypatch.setattr(pushing._Sending, "add", add)
    send(made.path, "memory://there")
    assert order[0] == "cache.copy.json"
    assert order.index("cache.json") < min(order.index(name) for name in order if name.startswith("receipts"))
    for unit in made.units:
        receipt = order.index(f"receipts/{unit:06d}.json")
        assert all(order.index(name) < receipt for name in order if f"/c/{unit}/" in name)
    assert order[-2].startswith("stats/")
    assert order[-1] == CARD


def test_more_units_and_columns_are_added_later(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "cache", units=[0, 3])
    done = send(made.path, "memory://there")
    assert (done.units, done.units_planned) == (2, 5)
    assert not [name for name in in_memory("there") if name.startswith("stats/")]
    shutil.rmtree(made.path)
    made = make_cache(tmp_path / "cache")
    done = send(made.path, "memory://there")
    assert (done.units, done.files_there) == (5, 15)
    assert in_memory("there") == tree(made.path)
    grown = add_column(made)
    send(grown.path, "memory://there")
    assert in_memory("there") == tree(made.path)
    bring("memory://there", tmp_path / "back")
    assert intact(tmp_path / "back")


def test_units_that_are_only_there_are_left(tmp_path: Path) -> None:
    whole = make_cache(tmp_path / "whole")
    send(whole.path, "memory://there")
    part = make_cache(tmp_path / "part", units=[1])
    assert send(part.path, "memory://there").files_sent == 0
    assert in_memory("there") == tree(whole.path)


def test_damage_there_is_repaired(made: Made) -> None:
    send(made.path, "memory://there")
    whole = in_memory("there")
    for name in ("cache.json", "cache.copy.json", "index.parquet", "clip.cls/c/2/0", "receipts/000001.json"):
        put_in_memory("there", {**whole, name: whole[name][:-5] + b"wrong"})
        assert send(made.path, "memory://there").files_sent == 1
        assert in_memory("there") == whole
    put_in_memory("there", {name: data for name, data in whole.items() if "clip.cls" not in name})
    send(made.path, "memory://there")
    assert in_memory("there") == whole


def test_another_cache_there_is_refused_and_nothing_is_touched(made: Made, tmp_path: Path) -> None:
    for other in (
        make_cache(tmp_path / "other", lengths=(3, 5)),
        make_cache(tmp_path / "same_plan_other_bytes", seed=1),
        add_column(make_cache(tmp_path / "more_columns")),
    ):
        put_in_memory("there", before := tree(other.path))
        with pytest.raises(RemoteError, match=r"another cache|another build") as caught:
            send(made.path, "memory://there")
        assert caught.value.fix
        assert in_memory("there") == before
    assert "later.cls" in caught.value.why


@pytest.mark.parametrize("name", ["notes.txt", "data/a.csv", "receipts/000000.json", "cache.json", "cache.copy.json"])
def test_other_things_there_are_refused(made: Made, name: str) -> None:
    put_in_memory("there", {name: b"mine"})
    with pytest.raises(RemoteError, match="something else"):
        send(made.path, "memory://there")
    assert in_memory("there") == {name: b"mine"}


def test_a_card_goes_along_but_never_over_another(made: Made) -> None:
    (made.path / CARD).unlink()  # a cache of before there were cards
    assert send(made.path, "memory://there").card == "sent"
    assert in_memory("there")[CARD] == card_bytes(made.open())
    assert send(made.path, "memory://there").card == "there"
    put_in_memory("there", {**in_memory("there"), CARD: b"# Edited there\n"})
    assert send(made.path, "memory://there").card == "kept"
    assert in_memory("there")[CARD] == b"# Edited there\n"


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("frames/c/3/0/0/0", "flip"),
        ("frames/c/3/0/0/0", "cut"),
        ("frames/c/3/0/0/0", "gone"),
        ("receipts/000002.json", "flip"),
        ("index.parquet", "flip"),
        ("clip.cls/zarr.json", "gone"),
        ("cache.copy.json", "flip"),
        ("stats/clip.cls.json", "flip"),
        ("stats/clip.cls.json", "gone"),
    ],
)
def test_a_damaged_cache_is_named_and_its_damage_never_sent(made: Made, name: str, how: str) -> None:
    file, data = made.path / name, (made.path / name).read_bytes()
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(data[:-3] if how == "cut" else data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    with pytest.raises(CacheError, match=name.replace(".", r"\.")):
        send(made.path, "memory://there")
    there = in_memory("there")
    assert name not in there
    assert (how == "flip" and name.startswith("frames")) or not there  # sizes are looked at before anything is sent
    assert "receipts/000003.json" not in there
    restore(made.path, {**tree(made.path), name: data})
    send(made.path, "memory://there")
    assert in_memory("there") == tree(made.path)


def test_a_column_of_another_teacher_is_not_sent(made: Made) -> None:
    grown = add_column(made)
    receipt = made.path / "receipts/000000.json"
    old = receipt.read_bytes()
    commit(grown, 0, [LATER])
    assert receipt.read_bytes() == old
    (made.path / "later.cls/c/0/0").unlink()
    with pytest.raises(CacheError, match=r"later\.cls/c/0/0: missing"):
        look_at(grown.open())


def test_a_cache_that_is_pushed_lies_on_a_disk(made: Made) -> None:
    with pytest.raises(InputError, match="frame-cache pull"):
        look_at(Cache(ObjectPath("lab", "mine"), made.meta))


@pytest.mark.parametrize("scheme", ["faultydisk", "faultyobjects"])
@pytest.mark.parametrize("times", [1, 999_999])
def test_any_operation_may_fail_once_or_for_good(scheme: str, times: int, tmp_path: Path) -> None:
    """Failing once it goes on by itself, failing for good it goes on when it is started again; what is there in
    between is a cache that can be pulled, or none yet."""
    made = make_cache(tmp_path / "cache", **SMALL)  # type: ignore[arg-type]
    send(made.path, f"{scheme}://{tmp_path}/probe")
    operations = FAULTS.count
    assert operations > 80
    for turn in range(0, operations, 1 if times == 1 else 3):
        url = f"{scheme}://{tmp_path}/{times}-{turn}"
        FAULTS.begin(broken(turn, times=times))
        if times == 1:
            assert send(made.path, url).files_there == 0
            FAULTS.begin(lambda *_: None)
        else:
            with pytest.raises(RemoteError, match="run the same command again"):
                send(made.path, url)
            FAULTS.begin(lambda *_: None)
            if turn % 9 == 0:
                _pull_what_is_there(url, tmp_path / f"between-{turn}")
            send(made.path, url)
        bring(url, tmp_path / f"back-{turn}")
        assert same_bytes(made, tmp_path / f"back-{turn}")
        if scheme == "faultydisk":
            assert tree(tmp_path / f"{times}-{turn}") == tree(made.path)  # no .part is left either
        shutil.rmtree(tmp_path / f"back-{turn}")
    assert intact(made.path)


def _pull_what_is_there(url: str, path: Path) -> None:
    try:
        bring(url, path)
    except RemoteError as error:
        assert "no cache there" in str(error)  # noqa: PT017
    else:
        assert undamaged(path)


def test_a_kill_between_writing_and_renaming_leaves_no_wrong_name(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "cache", **SMALL)  # type: ignore[arg-type]

    def killed(_: int, name: str) -> None:
        if name == "write" and (tmp_path / "there/cache.json").exists():
            raise KeyboardInterrupt

    FAULTS.begin(killed)
    with pytest.raises(KeyboardInterrupt):
        send(made.path, f"faultydisk://{tmp_path}/there")
    FAULTS.begin(lambda *_: None)
    there = tree(tmp_path / "there")
    assert [name for name in there if name.endswith(PART)]
    assert all(tree(made.path)[name] == data for name, data in there.items() if not name.endswith(PART))
    send(made.path, f"faultydisk://{tmp_path}/there")
    assert same_bytes(made, tmp_path / "there")


def test_the_command(made: Made, tmp_path: Path, forge: Forge) -> None:
    url = f"file://{tmp_path}/there"
    done = forge.run("push", made.path, url)
    assert done.returncode == 0, done.stderr
    assert "30 files" in done.stdout
    assert "read back" in done.stdout
    assert same_bytes(made, tmp_path / "there")
    done = forge.run("push", made.path, url, "--no-read-back", "--json")
    value = json.loads(done.stdout)
    assert (value["files_sent"], value["units"], value["units_planned"]) == (0, 5, 5)
    assert value["checked"] == "sizes alone were compared"
    assert value["url"] == url
    file = made.path / "frames/c/3/0/0/0"
    file.write_bytes(file.read_bytes()[:-1] + b"\x07")
    shutil.rmtree(tmp_path / "there")
    done = forge.run("push", made.path, url)
    assert done.returncode == 1
    assert "frames/c/3/0/0/0" in done.stderr
    assert "Traceback" not in done.stderr
