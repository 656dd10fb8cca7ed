"""Decoders that hang, abort, crash, eat memory, write files or open connections: what that costs is one clip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from clips import steady, write_video
from tally import Fault
from test_cage import SHORT, child_of, faulty, gone, take, video  # noqa: F401 - fixtures among them

from frame.pipeline.decode import ClipError, DecodeCage

Faulty = Callable[..., list[str]]
TWELVE = list(range(12))


def told(cage: DecodeCage, path: Path) -> str:
    """The error of a probe, "" where there is none."""
    try:
        cage.probe(path)
    except ClipError as error:
        return str(error)
    return ""


@pytest.mark.fault("F12")
@pytest.mark.parametrize("kind", ["hangs", "aborts", "segfaults", "exits", "hangs up", "babbles"])
def test_when_decord_dies_pyav_is_asked(fault: Fault, video: Path, faulty: Faulty, kind: str) -> None:  # noqa: F811
    with fault.trial(), DecodeCage(limits=SHORT, command=faulty(kind, "do == 'read' and decoder == 'decord'")) as cage:
        probe = cage.probe(video)
        first = child_of(cage)
        assert take(cage, video, probe) == TWELVE
        assert cage.used == "pyav"
        assert gone(first)
        assert child_of(cage) != first


@pytest.mark.fault("F12")
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("hangs", "decoder-timeout: no answer within 1 seconds"),
        ("aborts", "decoder-crashed: the decode process ended with SIGABRT, twice"),
        ("segfaults", "decoder-crashed: the decode process ended with SIGSEGV, twice"),
        ("exits", "decoder-crashed: the decode process ended with exit status 7, twice"),
    ],
)
@pytest.mark.parametrize("do", ["probe", "read"])
def test_a_clip_that_kills_every_decoder_is_named(
    fault: Fault,
    video: Path,  # noqa: F811
    faulty: Faulty,  # noqa: F811
    kind: str,
    reason: str,
    do: str,
) -> None:
    when = f"do == {do!r} and request.get('path', 'a.mp4').endswith('a.mp4')"
    with DecodeCage() as cage:
        probe = cage.probe(video)
    with DecodeCage(limits=SHORT, command=faulty(kind, when)) as cage:
        for _ in range(2):
            with fault.trial() as trial:
                with trial.recovering(), pytest.raises(ClipError) as caught:
                    cage.probe(video) if do == "probe" else take(cage, video, probe)
                trial.undetected += str(caught.value) != reason
                trial.hung += trial.recovery > 60


@pytest.mark.fault("F12")
@pytest.mark.parametrize("kind", ["aborts", "segfaults", "exits"])
def test_the_next_clip_is_none_the_worse(
    fault: Fault,
    video: Path,  # noqa: F811
    tmp_path: Path,
    faulty: Faulty,  # noqa: F811
    kind: str,
) -> None:
    other = write_video(tmp_path / "b.mp4", steady(5))
    with DecodeCage(limits=SHORT, command=faulty(kind, "'a.mp4' in request.get('path', '')")) as cage:
        for _ in range(2):
            with fault.trial() as trial:
                trial.undetected += "decoder-crashed" not in told(cage, video)
                trial.lost += take(cage, other, cage.probe(other)) != list(range(5))


@pytest.mark.fault("F12")
@pytest.mark.parametrize(
    ("kind", "complaint"),
    [("bloats", "MemoryError"), ("writes", "File too large"), ("calls", "PermissionError")],
)
def test_no_memory_beyond_the_limit_no_file_and_no_connection(
    fault: Fault,
    video: Path,  # noqa: F811
    tmp_path: Path,
    faulty: Faulty,  # noqa: F811
    kind: str,
    complaint: str,
) -> None:
    """The fault comes after the answer, where nobody catches it: what is shown is that the system refuses."""
    with fault.trial() as trial, DecodeCage(command=faulty(kind, "do == 'probe'")) as cage:
        trial.undetected += "decoder-crashed" not in told(cage, video)
        assert complaint in cage.complaints
        written = tmp_path / "written"
        trial.lost += written.exists() and written.stat().st_size > 0
