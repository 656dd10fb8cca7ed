from __future__ import annotations

from pathlib import Path

from test_stages import make, run

from frame.pipeline.build import Summary, finish
from frame.pipeline.estimate import Estimate
from frame.pipeline.report import estimate_text, info_text, summary_text, verify_text
from frame.pipeline.store import open_cache
from frame.pipeline.store.verify import verify


def test_the_limit_is_the_stage_whose_workers_were_busiest() -> None:
    summary = Summary(
        units=2,
        rows=100,
        clips=5,
        wall=12.0,
        start=2.0,
        seconds={"decode": 4.0, "resize": 1.0, "teacher": 17.0, "encode": 1.0, "write": 0.5},
        workers={"decode": 1, "teach": 2, "write": 1},
        failed={"a<b": ("empty", "nothing in it")},
    )
    text = summary_text(summary)
    assert "limit   teach: its 2 worker(s) were busy 95% of the time" in text
    assert "4 good, 1 failed, 5 in all" in text
    assert "a<b: empty: nothing in it" in text
    assert "10.0/s once started" in text


def test_many_failures_are_counted_by_reason() -> None:
    failed = {f"clip{i}": ("empty" if i % 2 else "encrypted", "x") for i in range(40)}
    text = summary_text(Summary(clips=50, failed=failed))
    assert "and 28 more; by reason: encrypted 20, empty 20" in text
    assert len(text.splitlines()) < 30


def test_an_estimate_names_its_limit_and_a_disk_that_is_too_small() -> None:
    value = Estimate(
        clips=10,
        failed=1,
        rows=36_000,
        units=4,
        rows_per_unit=9000,
        column_bytes={"frames": 10**9, "t.patch": 3 * 10**9},
        free_bytes=10**9,
        decode_rate=1000.0,
        teach_rate=10.0,
        write_rate=500.0,
        device="some GPU",
    )
    text = estimate_text(value)
    assert value.limit == ("teacher", 10.0)
    assert value.hours == 1.0
    assert "NOT ENOUGH" in text
    assert "limited by the teacher" in text
    assert "1 of them cannot be read" in text


def test_info_and_verify_of_a_real_cache(clips: Path, tmp_path: Path) -> None:
    run(make(clips, tmp_path / "c"))
    finish(tmp_path / "c", tmp=tmp_path)
    cache = open_cache(tmp_path / "c")
    assert "RANDOM WEIGHTS: for trials only" in info_text(cache)
    assert "text_00: not-a-video" in info_text(cache)
    assert verify_text(verify(cache), cache).startswith("Intact: ")
    (cache.path / "test_vit.patch" / "c" / "0" / "0" / "0").write_bytes(b"x")
    text = verify_text(verify(open_cache(cache.path)), cache)
    assert text.startswith("DAMAGED")
    assert f"do: frame-cache build {cache.path}" in text
