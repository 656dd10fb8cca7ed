"""Manifests: ids, the data sets' layouts, official and drawn splits, and the errors for sources that do not fit."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frame.manifests.choose import chosen_per_class, drawn_splits
from frame.manifests.dataset import dataset_names, describe
from frame.manifests.errors import InputError
from frame.manifests.load import load_manifest, load_rows
from frame.manifests.rows import CLIP_PATTERN, SPLITS, ClipSource, Draft, assign_ids, clip_id

NAMES = ["camvid", "csv", "davis", "ego4d", "folder", "hmdb51", "jhmdb", "kinetics", "sa-v", "sprites", "ucf101"]
NAMES += ["vip", "vspw"]


def touch(root: Path, *paths: str) -> Path:
    """Empty files; the manifest looks at names only."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")


def splits(rows: list[ClipSource]) -> dict[str, str]:
    return {Path(row.source).stem: row.split for row in rows}


# Ids


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("bear.mp4", "bear"),
        ("train/air/-abc_000001_000011.mp4", "train__air__-abc_000001_000011"),
        ("A.MP4", "A"),
        ("seq/take_2", "seq__take_2"),
        (".", "frames"),
    ],
)
def test_plain_paths_make_plain_ids(source: str, expected: str) -> None:
    assert clip_id(source) == expected


@pytest.mark.parametrize("source", ["-dash.mp4", "two words.mp4", "a.b.mp4", "take.2", "höhe.mp4", "x" * 121 + ".mp4"])
def test_changed_paths_carry_a_digest(source: str) -> None:
    name = clip_id(source)
    assert CLIP_PATTERN.fullmatch(name)
    assert name[-9] == "-"
    int(name[-8:], 16)


def test_segments_are_in_the_id_in_milliseconds() -> None:
    assert clip_id("a.mp4", 1.5, 2.25) == "a__1500_2250"
    assert clip_id("a.mp4", None, 2) == "a__0_2000"
    assert clip_id("a.mp4", 3, None) == "a__3000_end"


def test_colliding_ids_all_get_the_digest_and_others_none() -> None:
    ids = assign_ids([Draft(source=source) for source in ("a.mkv", "a.mp4", "b.mp4", "c/d.mp4", "c__d.mp4")])
    assert [name[:2] for name in ids[:2]] == ["a-", "a-"]
    assert ids[2] == "b"
    assert ids[3].startswith("c__d-")
    assert ids[4].startswith("c__d-")
    assert len(set(ids)) == 5


def test_an_id_chosen_by_its_owner_stays_and_the_others_give_way() -> None:
    ids = assign_ids([Draft(source="a.mp4"), Draft(source="z.mp4", clip="a")])
    assert ids[1] == "a"
    assert ids[0].startswith("a-")


def test_the_same_clip_twice_is_refused() -> None:
    with pytest.raises(InputError, match=r"two clips have the id"):
        assign_ids([Draft(source="a.mp4", start=0.0, end=1.0), Draft(source="a.mp4", start=0.0, end=1.0)])


_names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
_paths = st.lists(_names.filter(lambda name: name not in (".", "..")), min_size=1, max_size=3).map("/".join)
_sources = st.one_of(
    _paths, _paths.map(lambda path: path + ".mp4"), st.sampled_from(["a.mp4", "a.mkv", "a__b.mp4", "a/b"])
)
_times = st.one_of(st.none(), st.floats(0, 999))


@st.composite
def _drafts(draw: st.DrawFn) -> list[Draft]:
    keys = draw(st.lists(st.tuples(_sources, _times), min_size=1, max_size=12, unique=True))
    return [Draft(source=source, start=start, end=None if start is None else start + 0.5) for source, start in keys]


@given(_drafts(), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_ids_fit_the_pattern_are_unique_and_do_not_depend_on_order(drafts: list[Draft], random: object) -> None:
    ids = assign_ids(drafts)
    assert all(CLIP_PATTERN.fullmatch(name) for name in ids)
    assert len(set(ids)) == len(drafts)
    shuffled = list(range(len(drafts)))
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert assign_ids([drafts[k] for k in shuffled]) == [ids[k] for k in shuffled]


def test_many_names_in_another_script_stay_apart() -> None:
    ids = assign_ids([Draft(source=f"{chr(0x4E00 + k // 100)}{chr(0x4E00 + k % 100)}.mp4") for k in range(5000)])
    assert len(set(ids)) == 5000


@pytest.mark.parametrize(
    "bad",
    [
        {"clip": "a.b"},
        {"clip": "-a"},
        {"split": "dev"},
        {"start": 2.0, "end": 1.0},
        {"start": -1.0},
        {"end": float("inf")},
        {"start": float("nan")},
        {"frame_rate": 0.0},
    ],
)
def test_a_row_refuses_what_no_manifest_may_hold(bad: dict[str, object]) -> None:
    good = {"clip": "a", "source": "a.mp4", "split": "val", "label": "", "start": None, "end": None, "frame_rate": None}
    ClipSource(**good)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        ClipSource(**{**good, **bad})  # type: ignore[arg-type]


# Drawing


@given(st.sets(st.text("abcdef0123456789", min_size=1, max_size=6), max_size=60), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_the_drawn_share_is_exact_and_depends_on_seed_and_ids_only(clips: set[str], seed: int) -> None:
    ordered = sorted(clips)
    drawn = dict(zip(ordered, drawn_splits(ordered, seed), strict=True))
    assert Counter(drawn.values())["val"] == round(0.2 * len(clips))
    backwards = ordered[::-1]
    assert dict(zip(backwards, drawn_splits(backwards, seed), strict=True)) == drawn


def test_one_clip_is_for_training_and_seeds_differ() -> None:
    assert drawn_splits(["only"], 0) == ["train"]
    clips = [f"clip{k}" for k in range(50)]
    assert drawn_splits(clips, 0) != drawn_splits(clips, 1)


def test_choice_per_class_is_exact_and_does_not_decide_the_split() -> None:
    clips = [f"c{k:03d}" for k in range(300)]
    classes = [k % 3 for k in range(300)]
    chosen = chosen_per_class(clips, classes, 40, 0)
    assert Counter(classes[k] for k in chosen) == {0: 40, 1: 40, 2: 40}
    assert chosen == sorted(chosen)
    assert set(chosen_per_class(clips, classes, 20, 0)) < set(chosen)
    assert drawn_splits([clips[k] for k in chosen], 0).count("val") == 24
    assert chosen != chosen_per_class(clips, classes, 40, 1)


# Descriptions


def test_every_data_set_is_there_and_described() -> None:
    assert dataset_names() == sorted(NAMES)
    for name in NAMES:
        dataset = describe(name)
        assert dataset.title
        assert dataset.licence
        assert dataset.kind
        assert dataset.splits
        assert dataset.layout
        assert dataset.reader != "tree" or dataset.ways
        assert dataset.homepage or name in ("folder", "csv", "sprites")


@pytest.mark.parametrize(("name", "near"), [("kinetcs", "kinetics"), ("DAVIS", "davis"), ("../x", "folder")])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str, near: str) -> None:
    with pytest.raises(InputError) as caught:
        describe(name)
    assert near in caught.value.screen()
    assert "kinetics" in caught.value.why


# Layouts: files on disk -> (source, split, label, frame rate) of every row; None = drawn

LAYOUTS: list[tuple[str, list[str], dict[str, str], list[tuple[str, str | None, str, float | None]]]] = [
    (
        "davis",
        [
            "JPEGImages/480p/bear/0.jpg",
            "JPEGImages/480p/cow/0.jpg",
            "JPEGImages/480p/eel/0.jpg",
            "Annotations/480p/a/0.png",
        ],
        {
            "ImageSets/2017/train.txt": "bear\n",
            "ImageSets/2017/val.txt": "cow\n",
            "ImageSets/2017/test-dev.txt": "eel\r\n",
        },
        [
            ("JPEGImages/480p/bear", "train", "", 24.0),
            ("JPEGImages/480p/cow", "val", "", 24.0),
            ("JPEGImages/480p/eel", "test", "", 24.0),
        ],
    ),
    (
        "davis",
        ["JPEGImages/Full-Resolution/bear/0.jpg", "JPEGImages/Full-Resolution/cow/0.jpg"],
        {
            "ImageSets/480p/train.txt": "/JPEGImages/480p/bear/0.jpg /Annotations/480p/bear/0.png\n"
            "/JPEGImages/480p/bear/1.jpg /Annotations/480p/bear/1.png\n",
            "ImageSets/480p/val.txt": "/JPEGImages/480p/cow/0.jpg /Annotations/480p/cow/0.png\n",
        },
        [
            ("JPEGImages/Full-Resolution/bear", "train", "", 24.0),
            ("JPEGImages/Full-Resolution/cow", "val", "", 24.0),
        ],
    ),
    (
        "vip",
        ["VIP_Fine/Images/videos1/1.jpg", "VIP_Fine/Images/videos2/1.jpg"],
        {"VIP_Fine/lists/val_videos.txt": "videos2\n"},
        [
            ("VIP_Fine/Images/videos1", "train", "", 1.0),
            ("VIP_Fine/Images/videos2", "val", "", 1.0),
        ],
    ),
    (
        "jhmdb",
        ["ReCompress_Videos/clap/#a(b)_clap_np1_0.avi", "ReCompress_Videos/run/b_run_np1_0.avi"],
        {
            "splits/clap_test_split1.txt": "#a(b)_clap_np1_0.avi 2\n",
            "splits/run_test_split1.txt": "b_run_np1_0.avi 1 \n",
            "splits/run_test_split2.txt": "b_run_np1_0.avi 2 \n",
        },
        [
            ("ReCompress_Videos/clap/#a(b)_clap_np1_0.avi", "test", "clap", None),
            ("ReCompress_Videos/run/b_run_np1_0.avi", "train", "run", None),
        ],
    ),
    (
        "jhmdb",
        ["Rename_Images/clap/a_np1_0/00001.png", "videos/clap/a_np1_0.avi"],
        {},
        [("Rename_Images/clap/a_np1_0", None, "clap", 30.0)],
    ),
    (
        "camvid",
        ["train/0006R0_f00930.png", "trainannot/0006R0_f00930.png", "val/0016E5_07959.png", "test/Seq05VD_f00000.png"],
        {},
        [
            ("test/Seq05VD_f00000.png", "test", "", 1.0),
            ("train/0006R0_f00930.png", "train", "", 1.0),
            ("val/0016E5_07959.png", "val", "", 1.0),
        ],
    ),
    (
        "camvid",
        ["701_StillsRaw_full/a.png", "701_StillsRaw_full/b.png"],
        {"train.txt": "/S/CamVid/train/a.png /S/CamVid/trainannot/a.png\n", "test.txt": "x/b.png\n"},
        [("701_StillsRaw_full/a.png", "train", "", 1.0), ("701_StillsRaw_full/b.png", "test", "", 1.0)],
    ),
    ("camvid", ["0016E5.MXF"], {}, [("0016E5.MXF", None, "", None)]),
    (
        "vspw",
        ["data/1_a/origin/1.jpg", "data/1_a/mask/1.png", "data/2_b/origin/1.jpg"],
        {"train.txt": "1_a\n", "val.txt": "2_b\n"},
        [("data/1_a/origin", "train", "", 15.0), ("data/2_b/origin", "val", "", 15.0)],
    ),
    (
        "ucf101",
        ["UCF-101/Archery/v_Archery_g01_c01.avi", "UCF-101/Archery/v_Archery_g02_c01.avi"],
        {
            "ucfTrainTestlist/trainlist01.txt": "Archery/v_Archery_g02_c01.avi 3\n",
            "ucfTrainTestlist/testlist01.txt": "Archery/v_Archery_g01_c01.avi\n",
        },
        [
            ("UCF-101/Archery/v_Archery_g01_c01.avi", "test", "Archery", None),
            ("UCF-101/Archery/v_Archery_g02_c01.avi", "train", "Archery", None),
        ],
    ),
    (
        "hmdb51",
        ["run/x_np1_0.avi", "run/y_np1_0.avi", "walk/x_np1_0.avi"],
        {
            "testTrainMulti_7030_splits/run_test_split1.txt": "x_np1_0.avi 1\ny_np1_0.avi 0\n",
            "testTrainMulti_7030_splits/walk_test_split1.txt": "x_np1_0.avi 2\n",
        },
        [
            ("run/x_np1_0.avi", "train", "run", None),
            ("run/y_np1_0.avi", "val", "run", None),
            ("walk/x_np1_0.avi", "test", "walk", None),
        ],
    ),
    (
        "sa-v",
        [
            "sav_train/sav_000/sav_000001.mp4",
            "sav_val/JPEGImages_24fps/sav_9/0.jpg",
            "sav_test/JPEGImages_24fps/sav_8/0.jpg",
        ],
        {"sav_train/sav_000/sav_000001_manual.json": "{}"},
        [
            ("sav_test/JPEGImages_24fps/sav_8", "test", "", 24.0),
            ("sav_train/sav_000/sav_000001.mp4", "train", "", None),
            ("sav_val/JPEGImages_24fps/sav_9", "val", "", 24.0),
        ],
    ),
    (
        "ego4d",
        ["v2/full_scale/a.mp4", "v2/full_scale/b.mp4", "v2/full_scale/c.mp4", "v2/clips/d.mp4"],
        {
            "ego4d.json": json.dumps(
                {
                    "videos": [
                        {"video_uid": "a", "scenarios": ["Cooking", "x"], "split_em": "train", "split_fho": None},
                        {
                            "video_uid": "b",
                            "scenarios": [],
                            "split_em": "train",
                            "split_fho": "test",
                            "split_av": "val",
                        },
                        {"video_uid": "c", "split_em": "unused", "split_fho": "val"},
                    ]
                }
            )
        },
        [
            ("v2/full_scale/a.mp4", "train", "Cooking", None),
            ("v2/full_scale/b.mp4", "test", "", None),
            ("v2/full_scale/c.mp4", "val", "", None),
        ],
    ),
    (
        "ego4d",
        ["clips/d.mp4", "clips/e.mp4"],
        {
            "clips/manifest.csv": "exported_clip_uid,parent_video_uid\nd,a\ne,b\n",
            "ego4d.json": json.dumps(
                {"videos": [{"video_uid": "a", "split_em": "val"}, {"video_uid": "b", "split_em": None}]}
            ),
        },
        [("clips/d.mp4", "val", "", None), ("clips/e.mp4", "train", "", None)],
    ),
    (
        "sprites",
        ["videos/spin/sprite-00000.mp4", "sprites.json"],
        {},
        [("videos/spin/sprite-00000.mp4", None, "spin", None)],
    ),
]


# Those whose names tell the data set apart.
TELLING = [(name, files) for name, files, _, _ in LAYOUTS if not {Path(file).stem for file in files} & set("abcd")]


@pytest.mark.parametrize(("name", "files", "texts", "expected"), LAYOUTS)
def test_layouts_are_read(
    tmp_path: Path,
    name: str,
    files: list[str],
    texts: dict[str, str],
    expected: list[tuple[str, str | None, str, float | None]],
) -> None:
    touch(tmp_path, *files)
    for path, text in texts.items():
        write(tmp_path, path, text)
    rows = load_rows(name, tmp_path)
    assert [(row.source, row.label, row.frame_rate) for row in rows] == [
        (s, label, rate) for s, _, label, rate in expected
    ]
    assert all(want in (None, row.split) for row, (_, want, _, _) in zip(rows, expected, strict=True))


def test_official_lists_that_contradict_themselves_are_refused_with_the_line(tmp_path: Path) -> None:
    touch(tmp_path, "JPEGImages/480p/bear/0.jpg")
    write(tmp_path, "ImageSets/2017/train.txt", "bear\n")
    write(tmp_path, "ImageSets/2017/val.txt", "\nbear\n")
    with pytest.raises(InputError, match=r"val\.txt:2"):
        load_rows("davis", tmp_path)


def test_clips_that_no_list_names_count_as_training_and_that_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "data/a/origin/1.jpg", "data/b/origin/1.jpg")
    write(tmp_path, "val.txt", "b\nc\n")
    manifest = load_manifest("vspw", tmp_path)
    assert [row.split for row in manifest.rows] == ["train", "val"]
    assert any("1 of 2 clips are in no list" in note for note in manifest.notes)


def test_lists_of_training_clips_alone_leave_the_validation_to_be_drawn(tmp_path: Path) -> None:
    touch(tmp_path, *(f"data/{k}/origin/1.jpg" for k in range(5)))
    write(tmp_path, "train.txt", "0\n1\n")
    assert Counter(row.split for row in load_rows("vspw", tmp_path)) == {"train": 4, "val": 1}


# Kinetics


def kinetics(root: Path, *, classes: int = 3, clips: int = 10, split: str = "train") -> Path:
    names = [
        f"{split}/class {c}/{'-' if k % 2 else '_'}{split[:2]}{c:04d}{k:04d}_{k:06d}_{k + 10:06d}.mp4"
        for c in range(classes)
        for k in range(clips)
    ]
    return touch(root, *names)


def test_kinetics_training_alone_is_split_80_20(tmp_path: Path) -> None:
    rows = load_rows("kinetics", kinetics(tmp_path))
    assert Counter(row.split for row in rows) == {"train": 24, "val": 6}
    assert {row.label for row in rows} == {"class 0", "class 1", "class 2"}
    assert [row.source for row in rows] == sorted(row.source for row in rows)
    assert rows == load_rows("kinetics", tmp_path)
    assert rows != load_rows("kinetics", tmp_path, seed=1)


def test_kinetics_per_class_takes_training_clips_and_splits_them(tmp_path: Path) -> None:
    kinetics(tmp_path)
    kinetics(tmp_path, split="val")
    assert Counter(row.split for row in load_rows("kinetics", tmp_path)) == {"train": 30, "val": 30}
    manifest = load_manifest("kinetics", tmp_path, per_class=5)
    assert Counter(row.split for row in manifest.rows) == {"train": 12, "val": 3}
    assert Counter(row.label for row in manifest.rows) == {"class 0": 5, "class 1": 5, "class 2": 5}
    assert all(row.source.startswith("train/") for row in manifest.rows)
    assert any("among the 30 train clips" in note for note in manifest.notes)
    assert any(
        "3 of 3 classes have fewer than 11" in note for note in load_manifest("kinetics", tmp_path, per_class=11).notes
    )


@pytest.mark.parametrize("place", ["train.csv", "annotations/all.csv"])
def test_kinetics_csv_decides_split_and_label(tmp_path: Path, place: str) -> None:
    touch(
        tmp_path, "train/air_drumming/-3B32lodo2M_000059_000069.mp4", "train/air_drumming/-4B32lodo2M_000001_000011.mp4"
    )
    touch(tmp_path, "train/air_drumming/unlisted.mp4", "val/-5B32lodo2M_000002_000012.mp4")
    write(
        tmp_path,
        place,
        "label,youtube_id,time_start,time_end,split,is_cc\n"
        '"air drumming",-3B32lodo2M,59,69,validate,0\n'
        "air drumming,-4B32lodo2M,1,11,train,0\n"
        "abseiling,-5B32lodo2M,2.0,12.0,val,0\n"
        "abseiling,gone0000000,2,12,test,0\n",
    )
    write(tmp_path, "notes.csv", "what,ever\n1,2\n")
    manifest = load_manifest("kinetics", tmp_path)
    assert [(row.label, row.split) for row in manifest.rows] == [
        ("air drumming", "val"),
        ("air drumming", "train"),
        ("air drumming", "train"),
        ("abseiling", "val"),
    ]
    assert any("3 of 4 clips are named" in note for note in manifest.notes)


def test_kinetics_csv_with_a_bad_time_names_the_line(tmp_path: Path) -> None:
    kinetics(tmp_path, clips=1)
    write(tmp_path, "train.csv", "label,youtube_id,time_start,time_end,split\na,b,0,10,train\na,b,zero,10,train\n")
    with pytest.raises(InputError, match=r"train\.csv:3"):
        load_rows("kinetics", tmp_path)


# Folders


def test_any_folder_of_videos_and_frames(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b.MP4",
        "a.webm",
        "x/c.avi",
        "x/deep/er/d.mkv",
        "x/still/1.png",
        "notes.txt",
        ".hidden.mp4",
        "y/._c.avi",
    )
    touch(
        tmp_path,
        "x/seq/2.jpg",
        "x/seq/10.jpg",
        "pics/1.jpeg",
        "pics/2.JPG",
        "x/clip.mov",
        "x/thumb1.jpg",
        "x/thumb2.jpg",
    )
    manifest = load_manifest("folder", tmp_path)
    assert [(row.source, row.label, row.frame_rate) for row in manifest.rows] == [
        ("a.webm", "", None),
        ("b.MP4", "", None),
        ("pics", "", 24.0),
        ("x/c.avi", "x", None),
        ("x/clip.mov", "x", None),
        ("x/deep/er/d.mkv", "x", None),
        ("x/seq", "x", 24.0),
    ]
    assert any("4 files" in note and ".txt 1" in note and ".jpg 2" in note for note in manifest.notes)
    assert any("24 frames a second are assumed" in note for note in manifest.notes)


def test_a_folder_of_frames_itself_is_one_clip(tmp_path: Path) -> None:
    (row,) = load_rows("folder", touch(tmp_path, "1.jpg", "2.jpg"))
    assert (row.source, row.clip, row.label) == (".", "frames", "")


def test_top_folders_named_as_splits_are_splits_only_when_training_is_there(tmp_path: Path) -> None:
    touch(tmp_path, "a/train/x/1.mp4", "a/valid/x/2.mp4", "a/test/3.mp4", "b/test/x/1.mp4", "b/test/x/2.mp4")
    rows = load_rows("folder", tmp_path / "a")
    assert [(row.split, row.label) for row in rows] == [("test", ""), ("train", "x"), ("val", "x")]
    assert {row.label for row in load_rows("folder", tmp_path / "b")} == {"test"}


@given(
    st.lists(st.sampled_from(["a", "b", "c/d", "c/e", "-f", "g h", "é"]), min_size=1, unique=True), st.integers(1, 8)
)
@settings(max_examples=30, deadline=None)
def test_a_limit_is_a_prefix(tmp_path_factory: pytest.TempPathFactory, names: list[str], limit: int) -> None:
    root = touch(tmp_path_factory.mktemp("limit"), *(f"{name}.mp4" for name in names))
    rows = load_rows("folder", root)
    assert load_rows("folder", root, limit=limit) == rows[:limit]
    assert sorted(row.source for row in rows) == sorted(f"{name}.mp4" for name in names)


def test_split_keeps_one_split_of_the_same_rows(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{k}.mp4" for k in range(10)))
    rows = load_rows("folder", tmp_path)
    parts = [load_rows("folder", tmp_path, split=split) for split in ("train", "val")]
    assert [len(part) for part in parts] == [8, 2]
    assert sorted(parts[0] + parts[1], key=lambda row: row.source) == rows
    with pytest.raises(InputError, match="no clip is in the split 'test'"):
        load_rows("folder", tmp_path, split="test")


# Links and names


def test_links_inside_the_root_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.mp4")
    (tmp_path / "link.mp4").symlink_to("real/a.mp4")
    (tmp_path / "again").symlink_to("real", target_is_directory=True)
    assert [row.source for row in load_rows("folder", tmp_path)] == ["again/a.mp4", "link.mp4", "real/a.mp4"]


@pytest.mark.parametrize("case", ["outside file", "outside folder", "broken", "itself", "above", "to and fro"])
def test_links_that_lead_astray_are_named(tmp_path: Path, case: str) -> None:
    root = tmp_path / "root"
    touch(tmp_path, "out/a.mp4", "root/x/b.mp4", "root/y/c.mp4")
    link = root / "x" / ("l.mp4" if case in ("outside file", "broken", "itself") else "l")
    target: dict[str, Path | str] = {
        "outside file": tmp_path / "out/a.mp4",
        "outside folder": tmp_path / "out",
        "broken": "nowhere",
        "itself": link,
        "above": "..",
        "to and fro": "../y",
    }
    link.symlink_to(target[case])
    if case == "to and fro":
        (root / "y" / "l").symlink_to("../x")
    with pytest.raises(InputError, match="a link cannot be a source") as caught:
        load_rows("folder", root)
    assert str(root / "x" / "l") in caught.value.where


def test_links_that_the_data_set_does_not_look_at_do_no_harm(tmp_path: Path) -> None:
    touch(tmp_path, "JPEGImages/480p/bear/0.jpg")
    (tmp_path / "Annotations").symlink_to("/")
    assert len(load_rows("davis", tmp_path)) == 1


def test_a_source_that_is_itself_a_link_is_fine(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.mp4")
    (tmp_path / "data").symlink_to("real")
    assert [row.source for row in load_rows("folder", tmp_path / "data")] == ["a.mp4"]


def test_a_name_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    try:
        Path(os.fsdecode(path)).touch()
    except OSError:
        pytest.skip("this file system refuses such names")
    with pytest.raises(InputError, match="not valid UTF-8") as caught:
        load_rows("folder", tmp_path)
    caught.value.screen().encode()


def test_an_unreadable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.mp4", "locked/b.mp4")
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"locked") as caught:
        load_rows("folder", tmp_path)
    assert "Permission denied" in caught.value.why


# CSV


def test_a_csv_lists_segments_labels_splits_ids_and_frames(tmp_path: Path) -> None:
    touch(tmp_path, "a b.mp4", "seq/1.png", "still.jpg")
    text = "path,start,end,label,split,clip,frame_rate,who\n"
    text += "a b.mp4,0,1.5,run,train,,,me\na b.mp4,1.5,,run,validation,mine,,me\n"
    text += "seq,,,,test,,12,\n./still.jpg,,,,train,,,\n"
    write(tmp_path, "clips.csv", "\ufeff" + text)
    manifest = load_manifest("csv", tmp_path)
    assert manifest == load_manifest("csv", tmp_path / "clips.csv")
    assert manifest.root == tmp_path
    rows = [(row.source, row.start, row.end, row.label, row.split, row.frame_rate) for row in manifest.rows]
    assert rows == [
        ("a b.mp4", 0.0, 1.5, "run", "train", None),
        ("a b.mp4", 1.5, None, "run", "val", None),
        ("seq", None, None, "", "test", 12.0),
        ("still.jpg", None, None, "", "train", 24.0),
    ]
    assert [row.clip for row in manifest.rows][1:3] == ["mine", "seq"]
    assert "columns that are not used: who" in manifest.notes


def test_a_csv_without_splits_is_drawn_and_one_of_training_clips_is_not(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{k}.mp4" for k in range(5)))
    write(tmp_path, "plain.csv", "path\n" + "".join(f"{k}.mp4\n" for k in range(5)))
    write(tmp_path, "meant.csv", "path,split\n" + "".join(f"{k}.mp4,train\n" for k in range(5)))
    assert Counter(row.split for row in load_rows("csv", tmp_path / "plain.csv")) == {"train": 4, "val": 1}
    assert Counter(row.split for row in load_rows("csv", tmp_path / "meant.csv")) == {"train": 5}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("../a.mp4,,,", "leaves the folder"),
        ("/etc/passwd,,,", "leaves the folder"),
        ("x/../../a.mp4,,,", "leaves the folder"),
        ("a\0.mp4,,,", "NUL"),
        (",,,", "the path is empty"),
        ("gone.mp4,,,", "there is no 'gone.mp4'"),
        ("n" * 300 + ".mp4,,,", "name too long"),
        ("out.mp4,,,", "leads out of the source folder"),
        ("a.mp4,2,1,", "end must be greater than start"),
        ("a.mp4,-1,1,", "outside 0"),
        ("a.mp4,x,,", "start is 'x'"),
        ("a.mp4,,inf,", "end is 'inf'"),
        ("a.mp4,,,no.dots", "the clip id 'no.dots'"),
        ("a.mp4,,,,surplus", "more cells"),
        ("empty,,,", "holds no pictures"),
        ("ok.mp4,,,", "the same clip as line 2"),
    ],
)
def test_bad_csv_rows_are_refused_with_their_line(tmp_path: Path, row: str, why: str) -> None:
    touch(tmp_path, "csv/a.mp4", "csv/ok.mp4", "out.mp4")
    (tmp_path / "csv/empty").mkdir()
    (tmp_path / "csv/out.mp4").symlink_to(tmp_path / "out.mp4")
    write(tmp_path, "csv/list.csv", f"path,start,end,clip\nok.mp4,,,\n{row}\n")
    with pytest.raises(InputError) as caught:
        load_rows("csv", tmp_path / "csv/list.csv")
    assert "list.csv:3" in caught.value.why
    assert why.lower() in caught.value.why.lower()
    assert "Error" not in caught.value.screen()


def test_only_the_first_bad_rows_are_shown(tmp_path: Path) -> None:
    write(tmp_path, "clips.csv", "path\n" + "gone.mp4\n" * 9)
    with pytest.raises(InputError, match=r"9 rows of the CSV file") as caught:
        load_rows("csv", tmp_path)
    assert caught.value.why.count("clips.csv:") == 5
    assert "and 4 more" in caught.value.why


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "no column 'path'"),
        (b"file,label\na.mp4,x\n", "no column 'path'"),
        (b"path,path\na.mp4,b.mp4\n", "column 'path' twice"),
        (b"path\n", "lists no clips"),
        (b"path\ncaf\xe9.mp4\n", "cannot be read"),
        (b'path\n"a.mp4\n', "cannot be read"),
        (b"path,split\na.mp4,dev\n", "1 row "),
        (b"path,split\na.mp4\n", "1 row "),
    ],
)
def test_csv_files_that_are_none_are_refused(tmp_path: Path, text: bytes, what: str) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "clips.csv").write_bytes(text)
    with pytest.raises(InputError, match=what):
        load_rows("csv", tmp_path)


# Sources that do not fit


def screen(name: str, source: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_rows(name, source)
    return caught.value.screen()


def test_a_missing_and_an_empty_source(tmp_path: Path) -> None:
    for name in NAMES:
        assert "does not exist" in screen(name, tmp_path / "-nowhere ü")
        assert "is empty" in screen(name, tmp_path)


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.csv", "a.txt")
    assert "--dataset folder" in screen("kinetics", tmp_path / "a.mp4")
    assert "--dataset csv" in screen("folder", tmp_path / "a.csv")
    assert "not a folder" in screen("folder", tmp_path / "a.txt")


@pytest.mark.parametrize(("name", "files"), TELLING)
def test_the_right_data_set_is_suggested(tmp_path: Path, name: str, files: list[str]) -> None:
    touch(tmp_path, *files)
    wrong = "vspw" if name != "vspw" else "davis"
    text = screen(wrong, tmp_path)
    assert "expected:" in text
    assert "found: " in text
    assert f"'{name}'" in text.splitlines()[-1]


def test_the_right_folder_is_suggested_above_and_below(tmp_path: Path) -> None:
    touch(tmp_path, "davis/JPEGImages/480p/bear/0.jpg", "k/train/a/-abcdefghij_000001_000011.mp4")
    assert f"found at {tmp_path / 'davis'}:" in screen("davis", tmp_path)
    assert f"found at {tmp_path / 'davis'}:" in screen("davis", tmp_path / "davis/JPEGImages/480p")
    assert f"found at {tmp_path / 'k'}:" in screen("kinetics", tmp_path / "k/train")


def test_an_unfinished_sprites_folder_is_called_that(tmp_path: Path) -> None:
    touch(tmp_path, "videos/spin/sprite-00000.mp4")
    assert "unfinished" in screen("sprites", tmp_path)


def test_a_folder_without_videos_says_what_it_holds(tmp_path: Path) -> None:
    touch(tmp_path, "a.wmv", "b/c.txt")
    text = screen("folder", tmp_path)
    assert "found: b/, a.wmv" in text
    assert "mp4,mkv" in text


def test_arguments_out_of_range(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    for arguments in ({"per_class": 0}, {"limit": 0}, {"split": "dev"}, {"per_class": 3}):
        with pytest.raises(InputError):
            load_rows("folder", tmp_path, **arguments)


def test_splits_are_the_three_words() -> None:
    assert SPLITS == ("train", "val", "test")
