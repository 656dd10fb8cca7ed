"""A file appears whole or not at all, and whatever goes wrong is said once, clearly."""

from __future__ import annotations

from pathlib import Path

import pytest

from frame.manifests.errors import InputError
from frame.model.files import replacing


def test_a_file_takes_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as partial:
        partial.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    with pytest.raises(ZeroDivisionError), replacing(path) as partial:
        partial.write_text(f"half{1 / 0}")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"(?s)cannot be written.*file/a\.txt"), replacing(tmp_path / "file" / "a.txt"):
        pass
