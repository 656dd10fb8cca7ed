"""``build`` makes the damaged unit again, to the byte, and touches no other file."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from ray_builds import differences
from tally import Fault
from test_resume import QUIET, cache, calm, complete, tree, without_ray  # noqa: F401 - fixtures among them

from frame.pipeline.prepare import resume
from frame.pipeline.store import open_cache, reopen
from frame.pipeline.store.verify import verify

KINDS = [
    pytest.param("cut", marks=pytest.mark.fault("F08")),
    pytest.param("flip", marks=pytest.mark.fault("F09")),
    pytest.param("delete", marks=pytest.mark.fault("F10")),
]


def damaged(data: bytes, kind: str, rng: random.Random) -> bytes | None:
    """The file's new content, None for a file that is gone."""
    if kind == "delete":
        return None
    where = rng.randrange(len(data))
    return (
        data[:where]
        if kind == "cut"
        else data[:where] + bytes([data[where] ^ 1 << rng.randrange(8)]) + data[where + 1 :]
    )


def others(path: Path, named: str) -> dict[Path, int]:
    """When the shards of other units were written last."""
    receipts = open_cache(path).receipts()
    kept = [name for receipt in receipts.values() if named not in receipt.files for name in receipt.files]
    return {path / name: (path / name).stat().st_mtime_ns for name in kept}


@pytest.mark.parametrize("kind", KINDS)
def test_build_mends_any_file_and_touches_no_other_unit(fault: Fault, calm: Path, cache: Path, kind: str) -> None:  # noqa: F811
    intact = tree(calm)
    for seed in range(fault.count(3)):
        rng = random.Random(f"{kind} {seed}")
        shards = [name for name in sorted(intact) if "/c/" in name or name.startswith("shards/")]
        name = rng.choice(shards if seed % 2 else sorted(intact))
        content, before = damaged(intact[name], kind, rng), others(cache, name)
        with fault.trial(seed) as trial:
            (cache / name).unlink()
            if content is not None:
                (cache / name).write_bytes(content)
            trial.undetected += name not in {problem.file for problem in verify(reopen(cache)).problems}
            with trial.recovering():
                complete(resume(cache, progress=QUIET))
            trial.lost += len(differences(calm, cache))
            if name in shards:
                trial.duplicated += any(file.stat().st_mtime_ns != time for file, time in before.items())


@pytest.mark.fault("F10")
@pytest.mark.parametrize("content", [None, b"", b"{}", b"\x00" * 100], ids=["gone", "empty", "other", "zeros"])
def test_a_broken_receipt_costs_its_unit_only(
    fault: Fault,
    calm: Path,  # noqa: F811
    cache: Path,  # noqa: F811
    content: bytes | None,
) -> None:
    receipt = cache / "receipts" / "000001.json"
    with fault.trial() as trial:
        receipt.unlink()
        if content is not None:
            receipt.write_bytes(content)
        with trial.recovering():
            trial.duplicated += complete(resume(cache, progress=QUIET)).units != 1
        trial.lost += len(differences(calm, cache))
