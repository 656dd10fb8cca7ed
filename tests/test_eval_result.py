"""A result is one file, whole, finite, and read back as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from frame.eval.present.table import result_text
from frame.eval.result import RESULT, Result, data_digest, read_result
from frame.manifests.errors import InputError

ENCODER = {"name": "dino_vits16", "model": "vit_small", "weights": "file"}
RESULT_OF_TWO = Result(
    task="davis",
    preset="dino",
    encoder=ENCODER,
    scores={"J&F": 0.5, "J": 0.25, "sequences": 2.0},
    items=[{"name": "a", "J&F": 0.75, "J": 0.5}, {"name": "b", "J&F": 0.25, "J": 0.0}],
    data={"root": "DAVIS", "digest": "x"},
    options={"topk": 5},
    notes=["frames without labels: 3"],
)


def test_there_and_back(tmp_path: Path) -> None:
    path = RESULT_OF_TWO.write(tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / RESULT
    assert read_result(path) == replace(RESULT_OF_TWO, pictures=[]) == read_result(path.parent)
    assert json.loads(path.read_text())["versions"]["torch"]


def test_a_score_that_is_no_number_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not JSON compliant"):
        replace(RESULT_OF_TWO, scores={"J&F": float("nan")}).write(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 2}', "\0"])
def test_what_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / RESULT).write_text(text)
    with pytest.raises(InputError, match=r"no result|another version"):
        read_result(tmp_path)
    with pytest.raises(InputError, match="no result"):
        read_result(tmp_path / "nowhere")


def test_the_digest_tells_names_contents_and_sets_apart(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a", "b")]
    for file in files:
        file.write_text("same")
    first = data_digest(tmp_path, files)
    assert first == data_digest(tmp_path, [*reversed(files), files[0]])
    assert first != data_digest(tmp_path, files[:1])
    files[1].write_text("other")
    assert first != data_digest(tmp_path, files)
    files[1].write_text("same")
    files[1].rename(tmp_path / "c")
    assert first != data_digest(tmp_path, [files[0], tmp_path / "c"])


def test_the_text_has_items_total_notes_and_a_warning_for_random_weights() -> None:
    text = result_text(replace(RESULT_OF_TWO, encoder={**ENCODER, "weights": "random"}))
    for part in ("0.7500", "0.5000", "sequences: 2.0000", "frames without labels: 3", "RANDOM WEIGHTS"):
        assert part in text
    assert "RANDOM" not in result_text(RESULT_OF_TWO)
