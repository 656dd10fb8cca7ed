"""Hostile caches: refused by whoever reads them, before they cost memory, and no code of theirs runs."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile_stores as h
import pytest
from damage import problems_of, read_silently, three_units, training_refuses
from store_caches import Made
from tally import Fault

from frame.manifests.errors import InputError
from frame.pipeline.store import CacheError
from frame.pipeline.store.export import export

SECRET = "/etc/passwd"

# What is done to a cache, in whose reading each of these must be seen.
EITHER: dict[str, Callable[[Made], Any]] = {
    "long cache.json": lambda made: (h.long(made.path / "cache.json"), h.long(made.path / "cache.copy.json")),
    "deep cache.json": lambda made: h.meta_json(made, lambda text: text[:-2] + b',\n "x": ' + h.DEEP + b"\n}"),
    "duplicate key": lambda made: h.meta_json(made, lambda text: text.replace(b"{", b'{"rows": 8, ', 1)),
    "no number": lambda made: h.meta_json(made, lambda text: text.replace(b'"rows": 24', b'"rows": NaN')),
    "huge row": lambda made: h.meta_json(made, columns=h.column(made, shape=[1 << 20, 1 << 20])),
    "huge rows": lambda made: h.meta_json(made, columns=h.column(made, shape=[1 << 14, 1 << 14])),
    "many dimensions": lambda made: h.meta_json(made, columns=h.column(made, shape=[1] * 10_000)),
    "many rows": lambda made: h.meta_json(made, rows=8 << 57),
    "many units": lambda made: h.meta_json(made, rows=1 << 40, rows_per_unit=1),
    "huge unit": lambda made: h.meta_json(made, rows=1 << 40, rows_per_unit=1 << 40),
    "pickled column": lambda made: h.meta_json(made, columns=h.column(made, encoding="pickle")),
    "residual without steps": lambda made: h.meta_json(made, columns=h.column(made, encoding="residual")),
    "steps of nothing": lambda made: h.meta_json(
        made, columns=h.column(made, encoding="residual", step=[0.0] * 5, mean=[0.0] * 5)
    ),
    "steps for other channels": lambda made: h.meta_json(
        made, columns=h.column(made, encoding="residual", step=[0.1] * 4, mean=[0.0] * 4)
    ),
    "steps of text": lambda made: h.meta_json(
        made, columns=h.column(made, encoding="residual", step=["1"] * 5, mean=[0.0] * 5)
    ),
    "strange units": lambda made: h.meta_json(made, build={**made.meta.build, "units": [1 << 70, "x"]}),
    "column outside": lambda made: h.meta_json(made, columns={"../x": h.column(made)["dino.patch"]}),
    "metadata outside": lambda made: h.meta_json(made, metadata={"../../secret": "0" * 64}),
    "metadata of a device": lambda made: h.meta_json(made, metadata={"/dev/zero": "0" * 64}),
    "linked cache.json": lambda made: [h.link(made.path / n, SECRET) for n in ("cache.json", "cache.copy.json")],
    "pipe for cache.json": lambda made: [h.pipe(made.path / n) for n in ("cache.json", "cache.copy.json")],
    "long receipt": lambda made: h.long(made.path / "receipts/000000.json"),
    "deep receipt": lambda made: (made.path / "receipts/000000.json").write_bytes(
        h.seal_bytes(b'{"a": ' + h.DEEP + b"\n}")
    ),
    "linked receipt": lambda made: h.link(made.path / "receipts/000000.json", SECRET),
    "pipe for a receipt": lambda made: h.pipe(made.path / "receipts/000000.json"),
    "receipt of a secret": lambda made: h.other_name(made, SECRET),
    "receipt of a device": lambda made: h.other_name(made, "/dev/zero"),
    "receipt outside": lambda made: h.other_name(made, "../../frames/c/0/0/0/0"),
    "size below zero": lambda made: h.receipt(made, lambda r: r["files"][h.first_file(made)].update(bytes=-1)),
    "size of text": lambda made: h.receipt(made, lambda r: r["files"][h.first_file(made)].update(bytes="9")),
    "moments of text": lambda made: h.receipt(made, lambda r: r["columns"]["dino.patch"]["moments"].update(mean=["x"])),
    "moments too wide": lambda made: h.receipt(
        made, lambda r: r["columns"]["dino.patch"]["moments"].update(mean=[0.0] * 9, m2=[0.0] * 9)
    ),
    "infinite moments": lambda made: h.receipt(
        made, lambda r: r["columns"]["dino.patch"]["moments"].update(mean=[10**400] * 5)
    ),
    "extension type": h.smuggled_type,
    "text for an index": lambda made: h.index(made, b"PAR1 and nothing else PAR1"),
    "clips before the first row": lambda made: h.index_with(made, "first_row", lambda v: [-8, *v[1:]]),
    "clips behind the last row": lambda made: h.index_with(made, "n_frames", lambda v: [*v[:-1], 1 << 50]),
    "clip outside": lambda made: h.index_with(made, "clip", lambda v: ["../../x", *v[1:]]),
    "source outside": lambda made: h.index_with(made, "source", lambda v: ["/etc/passwd", *v[1:]]),
    "clips without name": lambda made: h.index_with(made, "clip", lambda v: [None, *v[1:]]),
    "linked shard": lambda made: h.link(made.path / h.first_file(made), SECRET),
    "pipe for a shard": lambda made: h.pipe(made.path / h.first_file(made)),
    "device for a shard": lambda made: h.link(made.path / h.first_file(made), "/dev/zero"),
}
ZARR = {"chunks on top of each other": h.overlapping_chunks, "expanding index": h.expanding_index}
TAR = {"rows on top of each other": h.overlapping_rows, "picture bomb": h.picture_bomb}
# The reader goes by its receipts and sees none of these; other programs would.
ZARR_VERIFY = {"codec": h.codec}
TAR_VERIFY: dict[str, Callable[[Made], Any]] = {
    "link": lambda made: h.tar_with(made, h.member("c1.x", type=tarfile.SYMTYPE, linkname=SECRET)),
    "hard link": lambda made: h.tar_with(made, h.member("c1.json2", type=tarfile.LNKTYPE, linkname=SECRET)),
    "device": lambda made: h.tar_with(made, h.member("c1.json", type=tarfile.CHRTYPE)),
    "pipe": lambda made: h.tar_with(made, h.member("c1.json", type=tarfile.FIFOTYPE)),
    "name outside": lambda made: h.tar_with(made, h.member("../../evil.json", b"{}")),
    "absolute name": lambda made: h.tar_with(made, h.member("/tmp/evil.json", b"{}")),
    "long name outside": lambda made: h.tar_with(made, h.member("../" * 60 + "evil.json", b"{}")),
    "duplicate": lambda made: h.tar_with(made, h.member("c1.json", b"{}")),
    "pickle": lambda made: h.tar_with(made, h.member("c1.pyd", b"cos\nsystem\n(S'true'\ntR.")),
    "pickled array": h.pickled_array,
}
ALL = [
    *((store, name, change, True) for store in ("zarr", "webdataset") for name, change in EITHER.items()),
    *(("zarr", name, change, True) for name, change in ZARR.items()),
    *(("webdataset", name, change, True) for name, change in TAR.items()),
    *(("zarr", name, change, False) for name, change in ZARR_VERIFY.items()),
    *(("webdataset", name, change, False) for name, change in TAR_VERIFY.items()),
]


def refused(call: Callable[[], Any]) -> bool:
    try:
        call()
    except InputError:
        return True
    return False


def peak() -> int:
    """The most memory since ``forget_peak``, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What libraries take when they are used for the first time is not the caches' doing."""
    made = three_units(tmp_path_factory.mktemp("warm") / "cache", "zarr")
    assert problems_of(made) == read_silently(made) == []


def verify_names(made: Made) -> bool:
    try:
        return bool(problems_of(made))
    except CacheError:
        return True


@pytest.mark.fault("F13")
@pytest.mark.parametrize(("store", "name", "change", "seen"), ALL, ids=[f"{store}: {name}" for store, name, *_ in ALL])
def test_a_hostile_cache_is_refused(
    fault: Fault, tmp_path: Path, store: str, name: str, change: Callable[[Made], Any], seen: bool
) -> None:
    made = three_units(tmp_path / "cache", store)
    change(made)
    forget_peak()
    before = peak()
    with fault.trial() as trial:
        trial.undetected += not verify_names(made)
        trial.lost += len(read_silently(made))
        if seen and name != "moments too wide":  # of which readers make no use
            trial.undetected += not training_refuses(made)
            trial.undetected += not refused(lambda: export(made.open(), tmp_path / "copy", to="zarr"))
        trial.lost += h.marker(made).exists() or list(tmp_path.rglob("evil*")) != []
        index = (made.path / "index.parquet").lstat().st_size
        trial.undetected += peak() - before > (150 << 20) + 1000 * index


@pytest.mark.fault("F13")
def test_an_honest_cache_is_refused_by_nobody(fault: Fault, tmp_path: Path) -> None:
    """If it were, the test above would show nothing."""
    for store in ("zarr", "webdataset"):
        made = three_units(tmp_path / store, store)
        h.meta_json(made)
        h.receipt(made, lambda _: None)
        fine = not verify_names(made) and not training_refuses(made) and read_silently(made) == []
        exported = not refused(
            lambda made=made: export(made.open(), made.path.parent / f"copy of {made.path.name}", to="zarr")
        )  # type: ignore[misc]
        fault.control(caught=fine and exported, why="a cache that it made itself")
