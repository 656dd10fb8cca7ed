"""Hostile videos: each gives its reason, writes nothing, calls nobody, and the clip after it is decoded as ever."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from clips import steady, write_video
from hostile_videos import FINE, HOSTILE
from tally import Fault
from test_cage import child_of, take

from frame.pipeline.decode import ClipError, DecodeCage, Limits


@pytest.fixture
def telephone() -> Iterator[tuple[str, socket.socket]]:
    """An address of this machine, and who would notice a call."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield f"http://127.0.0.1:{server.getsockname()[1]}", server


def called(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def outcome(cage: DecodeCage, path: Path) -> str:
    """The reason for which the clip cannot be used, or FINE with every planned picture there."""
    try:
        probe = cage.probe(path)
        frames = cage.decode(path, probe.timestamps, height=probe.height, width=probe.width)
    except ClipError as error:
        return error.reason
    return FINE if frames.shape == (len(probe.timestamps), probe.height, probe.width, 3) else "wrong"


@pytest.mark.fault("F12")
def test_each_gives_its_reason_and_costs_itself_only(
    fault: Fault, tmp_path: Path, telephone: tuple[str, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, server = telephone
    good = write_video(tmp_path / "good.mp4", steady(8))
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    monkeypatch.chdir(corpus)
    with DecodeCage(limits=Limits(frames=40, memory=1 << 30)) as cage:
        probe = cage.probe(good)
        for name, (make, expected) in HOSTILE.items():
            path = corpus / name
            make(path)
            if path.suffix and path.is_file() and not path.is_symlink() and path.stat().st_size:
                path.write_bytes(path.read_bytes().replace(b"CALL", address.encode()))
            before = sorted(tmp_path.rglob("*"))
            with fault.trial() as trial:
                reason = outcome(cage, path)
                trial.undetected += reason not in expected.split()
                trial.hung += reason == "decoder-timeout"
                trial.lost += take(cage, good, probe) != list(range(8)) or called(server)
                trial.duplicated += sorted(tmp_path.rglob("*")) != before
                assert trial.clean, f"{name}: {reason}, expected {expected}"
            assert resident(child_of(cage)) < (1 << 30) + (400 << 20)


def resident(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
