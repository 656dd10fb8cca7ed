"""What ``--clips`` can say."""

from __future__ import annotations

from pathlib import Path

import pytest

from frame.manifests.errors import InputError
from frame.pipeline.clip_choice import choose_clips

IDS = ["cat_1", "cat_2", "dog_1", "Dog_2", "_x-y"]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("cat_1", {"cat_1"}),
        (" cat_1 ,dog_1,", {"cat_1", "dog_1"}),
        ("cat_*", {"cat_1", "cat_2"}),
        ("?og_[12]", {"dog_1", "Dog_2"}),
        ("*_1,cat_1", {"cat_1", "dog_1"}),
        ("nothing,cat_1", {"nothing", "cat_1"}),  # whether it is there is said by whoever looks for it
        ("*", set(IDS)),
    ],
)
def test_ids_and_patterns(text: str, chosen: set[str]) -> None:
    assert choose_clips(text, IDS) == chosen


def test_a_file_with_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "a list, of clips"
    file.write_text("\n dog_1\r\ncat_?\n\n_x-y")
    assert choose_clips(f"@{file}", IDS) == {"dog_1", "cat_1", "cat_2", "_x-y"}


@pytest.mark.parametrize("text", ["", ",", " , ,"])
def test_nothing_is_no_choice(text: str) -> None:
    with pytest.raises(InputError, match="names no clip"):
        choose_clips(text, IDS)


def test_patterns_that_fit_nothing_are_named() -> None:
    with pytest.raises(InputError, match=r"No clip fits 'cow_\*', '\[z\]'.(.|\n)*5 clips, such as 'cat_1'"):
        choose_clips("cow_*,cat_*,[z],cow_*", IDS)
    with pytest.raises(InputError, match=r"'a4\*', nor 3 more"):
        choose_clips(",".join(f"a{i}*" for i in range(8)), IDS)
    with pytest.raises(InputError, match="CAT"):
        choose_clips("CAT_*", IDS)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"\n \n"])
def test_a_list_that_cannot_be_read_is_one_screen(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "list"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError) as error:
        choose_clips(f"@{file}", IDS)
    assert str(file) in error.value.screen()
    assert error.value.fix
