"""The three stages one after the other in this process: what Ray Data runs, without Ray."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import timm
import torch

from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.pipeline.block import unpack
from frame.pipeline.decode import DecodeCage
from frame.pipeline.decode_stage import DecodeStage
from frame.pipeline.options import BuildOptions
from frame.pipeline.prepare import Prepared, create
from frame.pipeline.store import CacheError, open_cache
from frame.pipeline.store.files import writer_folder
from frame.pipeline.store.receipts import moments_of
from frame.pipeline.teach import TeacherBench
from frame.pipeline.teach_stage import TeachStage
from frame.pipeline.write_stage import WriteStage

QUIET = Progress(quiet=True)
TEACHER = "timm:test_vit"


def make(source: Path, out: Path, **changes: Any) -> Prepared:
    values: dict[str, Any] = {"teachers": (TEACHER,), "size": 64, "unit_rows": 24, "batch_rows": 8, **changes}
    options = BuildOptions(dataset="folder", source=source, weights=("random",), **values)
    return create(options, out, QUIET)


def run(prepared: Prepared, units: list[int] | None = None) -> list[dict[str, Any]]:
    """All units through the stages; the reports of the last."""
    cache = prepared.cache
    chosen = list(range(cache.units)) if units is None else units
    decode = DecodeStage(
        cache=cache.path, source=prepared.source, columns={unit: tuple(cache.columns) for unit in chosen}
    )
    teach = TeachStage(prepared.teachers)
    reports: list[dict[str, Any]] = []
    with writer_folder(cache.path) as tmp:
        write = WriteStage(cache=cache.path, tmp=tmp)
        for unit in chosen:
            taught = teach(decode(pa.table({"item": [unit]})))
            reports += [json.loads(text) for text in write(taught).column("report").to_pylist()]
    return reports


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def reference(source: Path, timestamps: list[float], *, height: int, width: int, size: int) -> torch.Tensor:
    """Pixels that the teacher should have seen, by the plainest means: float [n, 3, size, size] in 0..255."""
    with DecodeCage() as cage:
        frames = cage.decode(source, timestamps, height=height, width=width, decoder="pyav")
    x = torch.tensor(frames).permute(0, 3, 1, 2).float()
    short = min(height, width)
    shape = (int(size * height / short), int(size * width / short))
    x = torch.nn.functional.interpolate(x, size=shape, mode="bicubic", antialias=True, align_corners=False)
    top, left = round((shape[0] - size) / 2), round((shape[1] - size) / 2)
    return x[:, :, top : top + size, left : left + size].clamp(0, 255)


@pytest.mark.parametrize(("encoding", "least"), [("float16", 0.99999), ("int8", 0.999)])
def test_a_stored_feature_is_the_librarys_own_forward_on_the_same_pixels(
    clips: Path, tmp_path: Path, encoding: str, least: float
) -> None:
    prepared = make(clips, tmp_path / "c", encoding=encoding)
    run(prepared)
    cache = open_cache(tmp_path / "c")
    spec = prepared.teachers.specs[0]
    model = timm.create_model("test_vit", num_classes=0, dynamic_img_size=True).eval()
    model.load_state_dict(TeacherBench(prepared.teachers)._teachers[spec.name].model.state_dict(), strict=False)
    for entry in cache.index.to_pylist():
        if not entry["n_frames"]:
            continue
        shape = {"height": entry["height"], "width": entry["width"]}
        pixels = reference(clips / entry["source"], entry["timestamps"], **shape, size=64)
        mean, std = (torch.tensor(value).reshape(1, 3, 1, 1) for value in (spec.mean, spec.std))
        with torch.inference_mode():
            tokens = model.forward_features((pixels / 255 - mean) / std)
        rows = (entry["first_row"], entry["first_row"] + entry["n_frames"])
        patch = torch.tensor(cache.read("test_vit.patch", *rows)).float()
        cls = torch.tensor(cache.read("test_vit.cls", *rows)).float()
        assert torch.cosine_similarity(patch, tokens[:, 1:], dim=-1).min() >= least
        assert torch.cosine_similarity(cls, tokens[:, 0], dim=-1).min() >= least
        stored = cache.read("frames", *rows).astype(float)
        assert np.abs(stored - pixels.permute(0, 2, 3, 1).numpy()).max() <= 0.5 + 1e-3


def test_bad_files_cost_themselves_and_are_named(clips: Path, tmp_path: Path) -> None:
    reports = run(make(clips, tmp_path / "c"))
    cache = open_cache(tmp_path / "c")
    failed = cache.failed()
    assert sorted(failed) == ["text_00", "text_01"]
    assert {reason for reason, _ in failed.values()} <= {"not-a-video", "container-not-allowed", "container-damaged"}
    assert sum(report["rows"] for report in reports) == 9 + 21 + 5 + 3 + 12 + 8 + 16
    assert {clip for receipt in cache.receipts().values() for clip in receipt.failed} == set(failed)


def test_units_are_the_same_bytes_whatever_was_made_before(clips: Path, tmp_path: Path) -> None:
    run(make(clips, tmp_path / "a"))
    other = make(clips, tmp_path / "b")
    run(other, [2, 0])
    run(other, [3, 1])
    run(other, [0])
    a, b = tree(tmp_path / "a"), tree(tmp_path / "b")
    assert a.keys() == b.keys()
    assert [name for name in a if a[name] != b[name]] == []


def test_a_source_that_changed_since_the_plan_fails_and_its_neighbours_do_not_move(clips: Path, tmp_path: Path) -> None:
    moved = tmp_path / "videos"
    moved.mkdir()
    for file in clips.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    calm, struck = make(moved, tmp_path / "a"), make(moved, tmp_path / "b")
    run(calm)
    victim = moved / "clip_04.mp4"
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    run(struck)
    a, b = open_cache(tmp_path / "a"), open_cache(tmp_path / "b")
    assert b.failed()["clip_04"][0] == "source-changed"
    for entry in a.index.to_pylist():
        rows = (entry["first_row"], entry["first_row"] + entry["n_frames"])
        if entry["clip"] == "clip_04":
            with pytest.raises(CacheError, match="source-changed"):
                b.read("test_vit.patch", *rows)
        elif entry["n_frames"]:
            np.testing.assert_array_equal(a.read("test_vit.patch", *rows), b.read("test_vit.patch", *rows))


def test_statistics_are_those_of_the_stored_targets(clips: Path, tmp_path: Path) -> None:
    run(make(clips, tmp_path / "c"))
    cache = open_cache(tmp_path / "c")
    values = [
        cache.read("test_vit.patch", entry["first_row"], entry["first_row"] + entry["n_frames"])
        for entry in cache.index.to_pylist()
        if entry["n_frames"]
    ]
    wanted = moments_of(np.concatenate(values))
    mean, std = cache.stats("test_vit.patch")
    np.testing.assert_allclose(mean, wanted["mean"], atol=1e-5)
    np.testing.assert_allclose(std, np.sqrt(np.array(wanted["m2"]) / wanted["count"]), rtol=1e-4)


def test_other_weights_than_planned_are_refused(clips: Path, tmp_path: Path) -> None:
    prepared = make(clips, tmp_path / "c")
    record = prepared.teachers.records["test_vit"]
    other = {**record, "weights": {**record["weights"], "sha256": "0" * 64}}
    teach = TeachStage(replace(prepared.teachers, records={"test_vit": other}))
    with pytest.raises(InputError, match="not the one this cache was built with"):
        teach(pa.table({"unit": []}))


def test_a_unit_travels_as_one_row(clips: Path, tmp_path: Path) -> None:
    cache = make(clips, tmp_path / "c").cache
    decode = DecodeStage(cache=cache.path, source=clips, columns={1: ("frames",)})
    (block,) = unpack(decode(pa.table({"item": [1]})))
    assert block.unit == 1
    counts = [segment["count"] for batch in block.header["batches"] for segment in batch]
    assert [len(array) for array in block.arrays.values()] == counts
