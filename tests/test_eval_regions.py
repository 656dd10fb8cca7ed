"""Regions tracked through a small DAVIS whose objects have colours of their own, by an encoder that sees colours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from frame.eval.cli import app
from frame.eval.encoder import EncoderInfo, Picture
from frame.eval.request import Request
from frame.eval.result import Result
from frame.eval.tasks import regions
from frame.eval.track.proposals import write_run_lengths
from frame.eval.track.region_tracking import Reference
from frame.manifests.errors import InputError
from frame.manifests.progress import Progress
from frame.model import Tokens
from frame.pipeline.view.compare import compare, load

HEIGHT, WIDTH, PATCH = 44, 60, 8
COLOURS = np.array([[30, 90, 30], [220, 30, 30], [30, 30, 220], [220, 220, 30]], dtype=np.uint8)
INFO = EncoderInfo(
    name="colours", kind="timm", model="colours", patch=PATCH, width=3, mean=(0.4, 0.4, 0.4), std=(1.0, 1.0, 1.0),
    memory=0, weights="file", digest="none",
)  # fmt: skip


class Colours:
    """An encoder whose features are a patch's mean colour around grey."""

    info, device = INFO, torch.device("cpu")

    def stream(self, frames: Iterable[Picture], *, std: object = None) -> Iterator[Tokens]:
        assert std is None
        for frame in frames:
            rows, columns = (side // PATCH for side in frame.shape[:2])
            cells = frame.reshape(rows, PATCH, columns, PATCH, 3).mean(axis=(1, 3))
            patches = torch.from_numpy(cells - 102.0).float()
            yield Tokens(cls=patches.mean(dim=(0, 1)), patches=patches)

    def semantic(self, cls_TD: torch.Tensor) -> torch.Tensor:
        raise AssertionError(cls_TD)


@pytest.fixture(autouse=True)
def _colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "open_encoder", lambda *_, **__: Colours())


def ids_of(number: int) -> NDArray[np.uint8]:
    """Three objects that move; the third lies over the first one's corner."""
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    ids[4 + number : 20 + number, 4:22] = 1
    ids[24:40, 40 - 2 * number : 56 - 2 * number] = 2
    ids[16 + number : 34, 18:30] = 3
    return ids


def make_davis(root: Path, frames: int = 5, name: str = "toys") -> Path:
    for number in range(frames):
        ids = ids_of(number)
        for kind, values, suffix in (("JPEGImages", COLOURS[ids], "jpg"), ("Annotations", ids, "png")):
            path = root / kind / "480p" / name / f"{number:05d}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path, **({"quality": 100, "subsampling": 0} if suffix == "jpg" else {}))
    return root


def make_proposals(folder: Path, frames: int = 5, name: str = "toys") -> Path:
    """The true masks and, apart from them, the whole frame's left and right half."""
    for number in range(frames):
        ids = ids_of(number)
        halves = [np.arange(WIDTH)[None] < WIDTH // 2, np.arange(WIDTH)[None] >= WIDTH // 2]
        masks = [*(np.broadcast_to(half, ids.shape) for half in halves), *(ids == one for one in (3, 1, 2))]
        write_run_lengths(folder / name / f"{number:05d}.json", np.array(masks))
    return folder


def evaluated(data: Path, proposals: Path | str, out: Path, reference: Reference = "previous") -> Result:
    request = Request(data=data, encoder="colours", out=out)
    return regions.evaluate(request, proposals=str(proposals), reference=reference, progress=Progress(quiet=True))


@pytest.mark.parametrize("reference", ["first", "previous", "ema"])
def test_objects_of_their_own_colour_are_found_among_true_masks(tmp_path: Path, reference: Reference) -> None:
    data, proposals = make_davis(tmp_path / "davis"), make_proposals(tmp_path / "masks")
    result = evaluated(data, proposals, tmp_path / "out", reference)
    assert (result.task, result.preset) == ("regions", "masks")
    names = [f"J&F_mean ({way})" for way in ("first", "previous", "oracle") if way != reference]
    assert [result.scores[name] for name in ("J&F_mean", "J_mean", "F_mean", *names)] == [1.0] * (3 + len(names))
    assert result.scores["part of the oracle"] == 1.0
    assert [item["name"] for item in result.items] == ["toys/1", "toys/2", "toys/3"]
    assert next(iter(result.scores)) == "J&F_mean"
    for number in range(5):
        found = np.asarray(Image.open(tmp_path / "out" / "masks" / "toys" / f"{number:05d}.png"))
        assert (found == ids_of(number)).all()
    assert [(tmp_path / "out" / path).is_file() for path in result.pictures] == [True]
    result.write(tmp_path / "out")


def test_the_oracle_takes_the_best_overlap_and_scores_what_it_is(tmp_path: Path) -> None:
    """Only halves of the frame are proposed: the overlap of each object with its half, by hand."""
    data, folder = make_davis(tmp_path / "davis"), tmp_path / "masks"
    halves = np.where(np.arange(WIDTH) < WIDTH // 2, 1, 2).astype(np.uint8)
    for number in range(5):
        (folder / "toys").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.broadcast_to(halves, (HEIGHT, WIDTH)).copy()).save(folder / "toys" / f"{number:05d}.png")
    result = evaluated(data, folder, tmp_path / "out")
    expected = []
    for number in (1, 2, 3):
        ids, iou = ids_of(number), []
        for one in (1, 2, 3):
            inside = [(ids == one) & (halves == half) for half in (1, 2)]
            iou.append(max(part.sum() / ((halves == half).sum() * HEIGHT + (ids == one).sum() - part.sum())
                           for half, part in zip((1, 2), inside, strict=True)))  # fmt: skip
        # Objects 1 and 3 want the left half: the better one has it.
        expected.append((max(iou[0], iou[2]) + 0.0 + iou[1]) / 3)
    assert result.scores["J_mean (oracle)"] == pytest.approx(np.mean(expected))


def test_frames_without_proposals_void_and_absent_objects(tmp_path: Path) -> None:
    data, proposals = make_davis(tmp_path / "davis"), make_proposals(tmp_path / "masks")
    (proposals / "toys" / "00002.json").write_text("[]")
    for number in range(5):
        ids = ids_of(number)
        ids[ids == 2] = 0  # never shown, but object 3 keeps its number
        ids[:2] = 255
        Image.fromarray(ids).save(data / "Annotations" / "480p" / "toys" / f"{number:05d}.png")
    result = evaluated(data, proposals, tmp_path / "out")
    scores = {item["name"]: item["J_mean"] for item in result.items}
    assert scores == {"toys/1": pytest.approx(2 / 3), "toys/2": 1.0, "toys/3": pytest.approx(2 / 3)}
    notes = " ".join(result.notes)
    assert "no object was found: 1." in notes
    assert "never found: toys/2" in notes


def test_frames_without_annotation_are_tracked_but_not_scored(tmp_path: Path) -> None:
    data, proposals = make_davis(tmp_path / "davis"), make_proposals(tmp_path / "masks")
    (data / "Annotations" / "480p" / "toys" / "00002.png").unlink()
    assert evaluated(data, proposals, tmp_path / "out").scores["J&F_mean"] == 1.0
    assert (tmp_path / "out" / "masks" / "toys" / "00002.png").is_file()


def test_superpixels_are_named_as_such(tmp_path: Path) -> None:
    result = evaluated(make_davis(tmp_path / "davis"), "slic", tmp_path / "out")
    assert result.preset == "superpixels"
    assert any("SLIC superpixels" in note for note in result.notes)
    assert 0 <= result.scores["J&F_mean"] <= result.scores["J&F_mean (oracle)"] <= 1


def test_results_of_other_proposals_do_not_stand_in_one_table(tmp_path: Path) -> None:
    data, proposals = make_davis(tmp_path / "davis"), make_proposals(tmp_path / "masks")
    for name in ("a", "b"):
        evaluated(data, proposals, tmp_path / name).write(tmp_path / name)
    assert len(compare(load([tmp_path / "a", tmp_path / "b"])).entries) == 2
    write_run_lengths(proposals / "toys" / "00003.json", np.array([ids_of(3) == 1]))
    evaluated(data, proposals, tmp_path / "c").write(tmp_path / "c")
    with pytest.raises(InputError, match="option proposals"):
        compare(load([tmp_path / "a", tmp_path / "c"]))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    data, proposals = make_davis(tmp_path / "davis"), make_proposals(tmp_path / "masks")
    with pytest.raises(InputError, match="Nothing can be scored"):
        evaluated(make_davis(tmp_path / "two", frames=2), proposals, tmp_path / "out")
    with pytest.raises(InputError, match="Nothing can be scored"):
        evaluated(make_davis(tmp_path / "one", frames=1), proposals, tmp_path / "out")
    with pytest.raises(InputError, match="no such reference"):
        evaluated(data, proposals, tmp_path / "out", "last")  # type: ignore[arg-type]
    (proposals / "toys" / "00004.json").unlink()
    with pytest.raises(InputError, match=r"no proposals(.|\n)*00004"):
        evaluated(data, proposals, tmp_path / "out")
    Image.new("RGB", (30, 20)).save(data / "JPEGImages" / "480p" / "toys" / "00001.jpg")
    with pytest.raises(InputError, match=r"not as large(.|\n)*00001\.jpg"):
        evaluated(data, proposals, tmp_path / "out")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, proposals = make_davis(tmp_path / "davis"), make_proposals(tmp_path / "masks")
    monkeypatch.setattr(Colours, "info", replace(INFO, weights="random"))
    done = CliRunner().invoke(
        app,
        ["regions", "--data", str(data), "--encoder", "colours", "--proposals", str(proposals), "--out",
         str(tmp_path / "out"), "--reference", "first", "--sequences", "toys", "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    printed = json.loads(done.output)
    assert printed["options"]["reference"] == "first"
    assert json.loads((tmp_path / "out" / "result.json").read_text())["scores"] == printed["scores"]
