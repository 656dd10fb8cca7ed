"""F14: file systems over a network: answers that are lost, files seen late, stale handles, no flushing of folders."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from broken import believing_every_error, believing_the_first_look
from commits import Command, begin, commands_of, differences, one_after_the_other
from disks import Call, done_but_failing, failing, instead_of, standing_in
from store_caches import columns_of, make_cache, quick_disk
from tally import Fault

from frame.manifests.errors import InputError
from frame.pipeline.store import CacheError

pytestmark = pytest.mark.fault("F14")
SUBJECTS = ["zarr new", "webdataset later", "run new", "run resumed"]
LOST_ANSWER = {  # what a network file system says when asked again for what it has done already
    "create": errno.EEXIST,
    "mkdir": errno.EEXIST,
    "rename": errno.ENOENT,
    "unlink": errno.ENOENT,
    "rmdir": errno.ENOENT,
}
OLD_NAME, OTHER_CASE = "shared.cls", "Shared.cls"


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with quick_disk(), one_after_the_other():
        yield


@pytest.fixture
def command(request: pytest.FixtureRequest, tmp_path: Path) -> Command:
    kind, name = request.param.split()
    return commands_of(kind, tmp_path)[name]


def calls(command: Command, path: Path) -> list[Call]:
    """The calls of an undisturbed run."""
    begin(command, path)
    found: list[Call] = []
    with standing_in(lambda call: (found.append(call), call.perform())[1]):
        command.run(path, lambda _: None)
    shutil.rmtree(path)
    return found


def disturbed(command: Command, path: Path, act: Callable[[Call], Any]) -> tuple[list[str], str]:
    """What is wrong after a run that ``act`` disturbed, and the next, which nobody does; and the first one's error."""
    promised: list[str] = []
    text = ""
    begin(command, path)
    with standing_in(act):
        try:
            command.run(path, promised.append)
        except InputError as error:
            text = str(error)
    found = command.findings(path, promised)
    wrong = [*found.lost, *found.torn]
    if text:
        command.run(path, lambda _: None)
    wrong += differences(command, path)
    shutil.rmtree(path)
    return wrong, text


@pytest.mark.parametrize("command", SUBJECTS, indirect=True)
def test_what_was_done_and_said_to_have_failed_is_not_taken_for_a_failure(
    fault: Fault, tmp_path: Path, command: Command
) -> None:
    for call in calls(command, tmp_path / "cache"):
        if call.name in LOST_ANSWER:
            with fault.trial(call.number) as trial:
                act = instead_of(call.number, done_but_failing(LOST_ANSWER[call.name]))
                wrong, text = disturbed(command, tmp_path / "cache", act)
                trial.lost = len(wrong)
                assert trial.clean, f"{call.name}: {wrong}"
                assert not text


@pytest.mark.parametrize("command", SUBJECTS, indirect=True)
def test_a_stale_handle_is_a_clear_error_at_most(fault: Fault, tmp_path: Path, command: Command) -> None:
    found = calls(command, tmp_path / "cache")
    stride = max(1, round(6 / fault.count(1)))
    for call in found[::stride]:
        with fault.trial(call.number) as trial:
            wrong, text = disturbed(command, tmp_path / "cache", instead_of(call.number, failing(errno.ESTALE)))
            trial.lost = len([name for name in wrong if not name.startswith("tmp")])
            assert trial.clean, f"{call.name}: {wrong}"
            assert not text or str(tmp_path / "cache") in text


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
@pytest.mark.parametrize("command", SUBJECTS, indirect=True)
def test_a_file_system_that_flushes_no_folders_is_good_enough(
    fault: Fault, tmp_path: Path, command: Command, code: int
) -> None:
    def act(call: Call) -> Any:
        if call.name == "fsync" and stat.S_ISDIR(os.fstat(call.arguments[0]).st_mode):
            raise OSError(code, os.strerror(code))
        return call.perform()

    with fault.trial(code) as trial:
        wrong, text = disturbed(command, tmp_path / "cache", act)
        trial.lost = len(wrong)
        assert not text


@contextmanager
def seen_late(root: Path, number: int, code: int) -> Iterator[list[Path]]:
    """The ``number``-th file that is opened below ``root`` is not there at first. Yields what was opened."""
    opened: list[Path] = []
    genuine = Path.open

    def late(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.is_relative_to(root):
            opened.append(self)
            if len(opened) - 1 == number:
                raise OSError(code, os.strerror(code), str(self))
        return genuine(self, *arguments, **options)

    def read(self: Path) -> bytes:
        with self.open("rb") as file:
            return bytes(file.read())

    with mock.patch.object(Path, "open", late), mock.patch.object(Path, "read_bytes", read):
        yield opened


def late_everywhere(command: Command, path: Path, code: int) -> Iterator[tuple[int, list[str]]]:
    """For every file that a run opens: what is wrong if it is seen late."""
    number = 0
    while True:
        promised: list[str] = []
        text = ""
        begin(command, path)
        with seen_late(path, number, code) as opened:
            try:
                command.run(path, promised.append)
            except (InputError, AssertionError) as error:
                text = str(error)
        if len(opened) <= number:
            shutil.rmtree(path)
            return
        found = command.findings(path, promised)
        wrong = [*found.lost, *found.torn]
        if text:
            command.run(path, lambda _: None)
        yield number, [*wrong, *differences(command, path)]
        shutil.rmtree(path)
        number += 1


@pytest.mark.parametrize(
    ("command", "code"), [("zarr later", errno.ENOENT), ("webdataset later", errno.ESTALE)], indirect=["command"]
)
def test_a_file_that_is_seen_late_is_not_taken_for_one_that_is_not_there(
    fault: Fault, tmp_path: Path, command: Command, code: int
) -> None:
    for number, wrong in late_everywhere(command, tmp_path / "cache", code):
        with fault.trial(number) as trial:
            trial.lost = len(wrong)
            assert trial.clean, f"open {number}: {wrong}"


@pytest.mark.parametrize("command", SUBJECTS, indirect=True)
def test_no_two_names_differ_by_capitals_alone(fault: Fault, tmp_path: Path, command: Command) -> None:
    with fault.trial() as trial:
        names = {
            str(each) for call in calls(command, tmp_path / "cache") for each in call.arguments if str(each) != each
        }
        names |= {str(Path(name).parents[i]) for name in command.whole for i in range(len(Path(name).parents))}
        trial.lost = len(names) - len({name.lower() for name in names})


def test_columns_that_differ_by_capitals_alone_are_refused(fault: Fault, tmp_path: Path) -> None:
    meta = make_cache(tmp_path / "cache").meta
    column = columns_of("float16")["clip.cls"]
    twins = {name: replace(column, name=name) for name in (OLD_NAME, OTHER_CASE)}
    with fault.trial(), pytest.raises(CacheError, match="share the name"):
        replace(meta, columns=twins)


@pytest.mark.parametrize("command", ["zarr new"], indirect=True)
def test_believing_every_error_is_noticed(fault: Fault, tmp_path: Path, command: Command) -> None:
    with believing_every_error():
        renames = [call.number for call in calls(command, tmp_path / "cache") if call.name == "rename"]
        outcomes = [
            disturbed(command, tmp_path / "cache", instead_of(number, done_but_failing(errno.ENOENT)))
            for number in renames[-4:]
        ]
    fault.control(caught=any(wrong or text for wrong, text in outcomes), why="that every error was believed")


@pytest.mark.parametrize("command", ["zarr later"], indirect=True)
def test_believing_the_first_look_is_noticed(fault: Fault, tmp_path: Path, command: Command) -> None:
    with believing_the_first_look():
        caught = any(wrong for _, wrong in late_everywhere(command, tmp_path / "cache", errno.ENOENT))
    fault.control(caught=caught, why="that a receipt seen late was taken for none")
