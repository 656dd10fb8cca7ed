"""F06: each system call of a commit is refused once."""

from __future__ import annotations

import errno
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from commits import Command, Findings, begin, commands_of, differences, one_after_the_other
from disks import failing, instead_of, standing_in
from store_caches import quick_disk
from tally import Fault

from frame.manifests.errors import InputError

pytestmark = pytest.mark.fault("F06")
SUBJECTS = ["zarr new", "webdataset later", "run new", "run resumed"]
CODES = [errno.EIO, errno.EINTR, errno.ENOSPC, errno.EDQUOT, errno.EMFILE]
SCREEN = 12  # lines


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with quick_disk(), one_after_the_other():
        yield


def refused(command: Command, path: Path, number: int, code: int) -> tuple[bool, Findings]:
    """Refuse one call: was there one, and what is wrong afterwards, before and after the next run."""
    promised: list[str] = []
    lost: list[str] = []
    begin(command, path)
    with standing_in(instead_of(number, failing(code))) as called:
        try:
            command.run(path, promised.append)
        except InputError as error:
            text = str(error)
            lost += [text] if str(path) not in text or len(text.splitlines()) > SCREEN else []
        else:
            lost += [name for name in differences(command, path) if not name.startswith("tmp")]
    found = command.findings(path, promised)
    command.run(path, lambda _: None)
    lost += [*found.lost, *differences(command, path)]
    shutil.rmtree(path)
    return len(called) > number, Findings(lost=tuple(lost), torn=found.torn)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_refused_call_is_an_error_that_names_the_path_and_nothing_is_lost(
    fault: Fault, tmp_path: Path, subject: str
) -> None:
    kind, name = subject.split()
    command = commands_of(kind, tmp_path)[name]
    each = fault.count(1, most=len(CODES))
    for number in itertools.count():
        for code in (CODES[(number + i) % len(CODES)] for i in range(each)):
            with fault.trial(number) as trial:
                touched, found = refused(command, tmp_path / "cache", number, code)
                trial.lost, trial.undetected = len(found.lost), len(found.torn)
                assert trial.clean, f"call {number}, {errno.errorcode[code]}: {found}"
        if not touched:
            break
    assert number > 50
