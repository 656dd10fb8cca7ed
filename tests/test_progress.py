from __future__ import annotations

import pytest

from frame.manifests.progress import Progress


def test_a_log_gets_a_line_with_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress().bar("building", total=20, unit="frames") as tick:
        for _ in range(4):
            tick(5, "unit 3")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("building: 20/20 frames, ")
    assert said.err.endswith("/s, 0:00:00 left unit 3\n")
    assert said.err.count("\n") == 1


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(quiet=True)
    progress.note("hello")
    with progress.bar("building", total=1, unit="frames") as tick:
        tick()
    assert capsys.readouterr() == ("", "")


def test_a_command_in_a_note_is_never_broken_into_lines(capsys: pytest.CaptureFixture[str]) -> None:
    command = "frame-cache build " + "/very/long/path" * 20 + " [brackets]"
    Progress().note(command)
    assert capsys.readouterr().err == command + "\n"
