"""Masks from folders, run lengths, superpixels and SAM; whatever is damaged or of another size is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from frame.eval.track.proposals import (
    SUPERPIXELS,
    Digest,
    MaskFolder,
    Superpixels,
    decode_run_lengths,
    open_proposals,
    read_run_lengths,
    split,
    write_run_lengths,
)
from frame.manifests.errors import InputError

SIZE = (6, 9)
PICTURE = np.zeros((*SIZE, 3), dtype=np.uint8)
CPU = torch.device("cpu")


def some_masks(count: int = 3, seed: int = 0) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random((count, *SIZE)) < 0.4


def written(folder: Path, labels: NDArray[np.generic]) -> MaskFolder:
    (folder / "libby").mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(folder / "libby" / "00001.png")
    return MaskFolder(folder)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_each_value_of_a_label_map_but_0_is_a_mask(tmp_path: Path, kind: type) -> None:
    labels = np.zeros(SIZE, dtype=kind)
    labels[1:3, 2:5], labels[4:, :3], labels[0, 8] = 3, np.iinfo(kind).max, 1
    found = written(tmp_path, labels).masks("libby", "00001", PICTURE)
    assert (found == split(labels)).all()
    assert found.sum(axis=(1, 2)).tolist() == [1, 6, 6]
    assert found[2, 5, 0]


def test_a_palette_is_read_by_its_numbers(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 5]] * 6, dtype=np.uint8).repeat(3, axis=1))
    image.putpalette([7, 7, 7] * 256)
    (tmp_path / "libby").mkdir()
    image.save(tmp_path / "libby" / "00001.png")
    assert MaskFolder(tmp_path).masks("libby", "00001", PICTURE).shape == (2, *SIZE)


def test_a_frame_without_any_mask_has_none(tmp_path: Path) -> None:
    assert written(tmp_path, np.zeros(SIZE, np.uint8)).masks("libby", "00001", PICTURE).shape == (0, *SIZE)
    (tmp_path / "libby" / "00002.json").write_text("[]")
    assert MaskFolder(tmp_path).masks("libby", "00002", PICTURE).shape == (0, *SIZE)


def test_proposals_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        MaskFolder(tmp_path / "nowhere")
    folder = written(tmp_path, np.zeros((6, 8), np.uint8))
    with pytest.raises(InputError, match=r"not as large(.|\n)*\(6, 8\) instead of \(6, 9\)"):
        folder.masks("libby", "00001", PICTURE)
    with pytest.raises(InputError, match=r"no proposals(.|\n)*00007\.png"):
        folder.masks("libby", "00007", PICTURE)
    written(tmp_path, np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(InputError, match="no label map"):
        folder.masks("libby", "00001", PICTURE)
    (tmp_path / "libby" / "00001.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        folder.masks("libby", "00001", PICTURE)


@given(st.integers(1, 12), st.integers(1, 70), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.02, 0.5, 1.0]))
def test_run_lengths_are_those_of_pycocotools(height: int, width: int, seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    code = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    text = code["counts"].decode("ascii")
    assert (decode_run_lengths({"size": [height, width], "counts": text}, (height, width)) == mask).all()
    flat = mask.T.reshape(-1)
    changes = np.flatnonzero(np.diff(np.concatenate([[False], flat, [not flat[-1]]]).astype(int))).tolist()
    runs = np.diff([0, *changes]).tolist()
    assert (decode_run_lengths({"size": [height, width], "counts": runs}, (height, width)) == mask).all()


def test_run_lengths_there_and_back(tmp_path: Path) -> None:
    masks = some_masks()
    write_run_lengths(tmp_path / "a.json", masks)
    assert (read_run_lengths(tmp_path / "a.json", SIZE) == masks).all()
    rows = [{"segmentation": row, "area": 3} for row in json.loads((tmp_path / "a.json").read_text())]
    for form in (rows, {"annotations": rows}):
        (tmp_path / "b.json").write_text(json.dumps(form))
        assert (read_run_lengths(tmp_path / "b.json", SIZE) == masks).all()
    write_run_lengths(tmp_path / "none.json", masks[:0])
    assert read_run_lengths(tmp_path / "none.json", SIZE).shape == (0, *SIZE)


@pytest.mark.parametrize(
    "content",
    [
        "", "null", "3", "[3]", "[[]]", "{}", '[{"size": [6, 9]}]', '[{"size": [9, 6], "counts": [54]}]',
        '[{"size": [6, 9], "counts": [53]}]', '[{"size": [6, 9], "counts": [55, -1]}]',
        '[{"size": [6, 9], "counts": []}]', '[{"size": [6, 9], "counts": ""}]', '[{"size": [6, 9], "counts": "0"}]',
        '[{"size": [6, 9], "counts": "P"}]', '[{"size": [6, 9], "counts": "\\u00ff"}]',
        '[{"size": [6, 9], "counts": [1e300]}]', '[{"size": [6, 9], "counts": [NaN]}]',
        '[{"size": [6, 9], "counts": [99999999999999999999999]}]', '[{"size": null, "counts": [54]}]',
        '[{"segmentation": [[0, 0, 3, 3, 3, 0]]}]', "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_run_length_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match="no run lengths"):
        read_run_lengths(tmp_path / "a.json", SIZE)


def test_superpixels_cover_the_frame_at_each_size_and_are_the_same_each_time() -> None:
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 255, (6, 8, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    source = open_proposals("slic", keep=Path("unused"), device=CPU)
    assert isinstance(source, Superpixels)
    found = source.masks("a", "b", picture)
    assert found.any(axis=(1, 2)).all()
    assert (found.sum(axis=0) == len(SUPERPIXELS)).all()
    assert (found == source.masks("a", "b", picture)).all()
    assert source.kind == "superpixels"
    assert "superpixels" in source.note


@pytest.mark.skipif(importlib.util.find_spec("transformers") is not None, reason="transformers is installed")
def test_sam_without_its_library_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"transformers(.|\n)*frame-encoder\[sam\]"):
        open_proposals(f"sam:{tmp_path}", keep=tmp_path / "keep", device=CPU)


def test_sam_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weights of SAM"):
        open_proposals(f"sam:{tmp_path / 'nowhere'}", keep=tmp_path, device=CPU)


def test_the_digest_tells_masks_frames_and_order_apart() -> None:
    def digest(*parts: tuple[str, NDArray[np.bool_]]) -> str:
        made = Digest()
        for name, masks in parts:
            made.add(("libby", name), masks)
        return made.text()

    one, two = some_masks(seed=1), some_masks(seed=2)
    texts = [digest(("0", one)), digest(("0", two)), digest(("1", one)), digest(("0", one), ("1", two)), digest()]
    assert len(set(texts)) == 5
    assert digest(("0", one.copy())) == texts[0]
