from __future__ import annotations

from pathlib import Path

from store_caches import make_cache

from frame.pipeline.kept_index import kept_index
from frame.pipeline.store import open_cache


def test_the_index_is_read_once_for_a_plan_and_anew_for_another(tmp_path: Path) -> None:
    made = make_cache(tmp_path / "a", lengths=[5, 2], failed=(), rows_per_unit=10)
    first = kept_index(made.open())
    assert kept_index(open_cache(made.open().path)).index is first.index
    assert kept_index(open_cache(made.open().path)).row_map is first.row_map
    other = make_cache(tmp_path / "b", lengths=[3], failed=(), rows_per_unit=10).open()
    assert kept_index(other).index == other.index
    assert kept_index(made.open()).index == first.index
