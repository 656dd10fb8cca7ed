"""Lists of files: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from frame.eval.data.lists import inside, read_lines, require_files, shown
from frame.manifests.errors import InputError


def test_lines_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeff a b \r\n\r\n# not a comment\n".encode())
    assert read_lines(path) == [(1, "a b"), (3, "# not a comment")]


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", None])
def test_what_is_no_text_or_not_there_is_refused(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "list.txt"
    if data:
        path.write_bytes(data)
    with pytest.raises(InputError, match="list cannot be read"):
        read_lines(path)


def test_a_list_of_absurd_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(InputError, match="too long"):
        read_lines(path)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../b", "", ".", "a\0b"])
def test_names_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="no file of this dataset"):
        inside(name, where="list")


def test_names_inside_are_kept() -> None:
    assert inside("./a//b.avi", where="list") == "a/b.avi"


def test_missing_files_are_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    require_files(tmp_path, ["a"], what="files")
    names = ["a", *(f"b{number}" for number in range(12)), "c" * 300]
    with pytest.raises(InputError, match=r"13 of 14 files are missing[\s\S]*b0, b1, [\s\S]*and 5 more"):
        require_files(tmp_path, names, what="files")
    assert shown(["a", "b"]) == "a, b"
