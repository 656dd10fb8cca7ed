from __future__ import annotations

from pathlib import Path

import pytest

from frame.pipeline.store import CacheError
from frame.pipeline.store.local import LocalFacts, add_timings, facts_path, read_facts, timings_path, write_facts


def test_facts_lie_beside_the_cache_and_come_back(tmp_path: Path) -> None:
    cache = tmp_path / "deep" / "cache"
    cache.mkdir(parents=True)
    facts = LocalFacts(source=tmp_path / "videos", weights={"t": tmp_path / "w.safetensors"})
    write_facts(cache, facts)
    assert read_facts(cache) == facts
    assert sorted(path.name for path in cache.parent.iterdir()) == ["cache", "cache.build.json"]
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"source": 3, "weights": {}}', b"\xff\xfe", b'{"so'])
def test_facts_that_cannot_be_read_are_none(tmp_path: Path, content: bytes) -> None:
    facts_path(tmp_path / "cache").write_bytes(content)
    assert read_facts(tmp_path / "cache") == LocalFacts()


def test_facts_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheError, match="could not be written"):
        write_facts(tmp_path / "file" / "cache", LocalFacts(source=tmp_path))


def test_timings_are_appended_and_never_in_the_way(tmp_path: Path) -> None:
    for units in (1, 2):
        add_timings(tmp_path / "cache", {"units": units})
    assert timings_path(tmp_path / "cache").read_text() == '{"units": 1}\n{"units": 2}\n'
    add_timings(tmp_path / "nowhere" / "cache", {"units": 3})
