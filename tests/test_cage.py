"""The cage: whatever a decoder does, it costs its own clip and no more, and soon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clips import SIZE, number_of, steady, write_video

from frame.manifests.errors import InputError
from frame.pipeline.decode import ClipError, DecodeCage, Limits, Probe
from frame.pipeline.decode.shared import KEPT, PAGE, Pool

SHORT = Limits(seconds=1.0, seconds_per_second=0.0, seconds_per_megabyte=0.0, seconds_per_megapixel=0.0)

FAULTS = {
    # A regular expression that never ends: native code that holds the interpreter's lock, deaf to signals.
    "hangs": "signal.signal(signal.SIGTERM, signal.SIG_IGN); re.match('(a+)+$', 'a' * 64 + 'b')",
    "aborts": "os.abort()",
    "segfaults": "ctypes.string_at(0)",
    "exits": "os._exit(7)",
    "bloats": "bytearray(1 << 40)",
    "calls": "socket.socket().connect(('127.0.0.1', 9))",
    "writes": "os.write(os.open(WHERE, os.O_CREAT | os.O_WRONLY), b'x')",
    "shouts": "os.write(2, b'decoder says no\\n' * 10)",
    "floods": "[os.write(2, b'!' * 60000) for _ in range(3)]",
    "raises": "1 / 0",
    "hangs up": "self._connection.close(); time.sleep(60)",
    "babbles": "self._connection.sendall(b'\\xff' * 100); time.sleep(60)",
}


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "a.mp4", steady(12))


@pytest.fixture
def faulty(tmp_path: Path) -> Callable[..., list[str]]:
    """Makes the command of a child that has one of the FAULTS at requests that fit ``when``."""

    def make(fault: str, when: str) -> list[str]:
        script = tmp_path / "child.py"
        script.write_text(
            textwrap.dedent(f"""
            import ctypes, os, re, signal, socket, sys, time
            from frame.pipeline.decode.child import Server, confine

            WHERE = {str(tmp_path / "written")!r}

            class Faulty(Server):
                opened = None
                def answer(self, request, descriptors):
                    self.opened = request.get("decoder", self.opened)
                    do, decoder = request["do"], self.opened
                    answer = super().answer(request, descriptors)
                    if {when}:
                        try:
                            {FAULTS[fault]}
                        except BlockingIOError:
                            pass
                    return answer

            confine(int(sys.argv[2]))
            Faulty(socket.socket(fileno=int(sys.argv[1]))).serve()
            """)
        )
        return [sys.executable, str(script)]

    return make


def take(cage: DecodeCage, path: Path, probe: Probe, decoder: str = "decord") -> list[int]:
    frames = cage.decode(path, probe.timestamps, height=probe.height, width=probe.width, decoder=decoder)
    return [number_of(frame) for frame in frames]


def child_of(cage: DecodeCage) -> int:
    assert cage._child is not None
    return cage._child._process.pid


def gone(pid: int, *, within: float = 5.0) -> bool:
    """Whether the process ends within so many seconds; a zombie that nobody has reaped counts as ended."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_memory_refused_costs_the_clip(tmp_path: Path) -> None:
    # FFmpeg itself does not always tell apart data that is wrong and memory that it did not get.
    path = write_video(tmp_path / "a.mp4", steady(4), size=(3840, 2160))
    with (
        DecodeCage(limits=Limits(memory=16 << 20)) as cage,
        pytest.raises(ClipError, match=r"out-of-memory|decoder-error"),
    ):
        cage.probe(path)
    with DecodeCage(limits=Limits(memory=256 << 20)) as cage:
        assert len(cage.probe(path).timestamps) == 4


@pytest.mark.parametrize(("fault", "heard"), [("shouts", "decoder says no"), ("floods", "!!!")])
def test_complaints_are_kept_and_stop_nothing(
    video: Path, faulty: Callable[..., list[str]], fault: str, heard: str
) -> None:
    with DecodeCage(command=faulty(fault, "do == 'probe'")) as cage:
        probe = cage.probe(video)
        assert heard in cage.complaints
        assert len(cage.complaints) <= 8192
        assert take(cage, video, probe) == list(range(12))


def test_what_is_not_foreseen_costs_one_clip(video: Path, tmp_path: Path) -> None:
    child = tmp_path / "child.py"
    child.write_text(
        "import frame.pipeline.decode.known as known\n"
        "known.scan = lambda *_: 1 / 0\n"
        "from frame.pipeline.decode.child import main\n"
        "main()\n"
    )
    with DecodeCage(command=[sys.executable, str(child)]) as cage:
        with pytest.raises(ClipError, match="decoder-error: it raises ZeroDivisionError"):
            cage.probe(video)
        assert "Traceback" in cage.complaints


def test_it_dies_with_its_parent_even_while_it_hangs(video: Path, faulty: Callable[..., list[str]]) -> None:
    code = f"""
from pathlib import Path
from frame.pipeline.decode import DecodeCage
cage = DecodeCage(command={faulty("hangs", "do == 'read'")!r})
probe = cage.probe(Path({str(video)!r}))
print(cage._child._process.pid, flush=True)
cage.decode(Path({str(video)!r}), probe.timestamps, height=probe.height, width=probe.width)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(child)


def test_an_interrupt_leaves_a_cage_that_works(video: Path, faulty: Callable[..., list[str]]) -> None:
    with DecodeCage(command=faulty("hangs", "do == 'probe' and not os.environ.get('CALM')")) as cage:
        signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        try:
            with pytest.raises(KeyboardInterrupt):
                cage.probe(video)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        os.environ["CALM"] = "1"
        try:
            assert take(cage, video, cage.probe(video)) == list(range(12))
        finally:
            del os.environ["CALM"]


def test_a_child_killed_between_two_pieces_is_replaced(video: Path) -> None:
    with DecodeCage() as cage:
        probe = cage.probe(video)
        pieces = cage.decode_pieces(video, probe.timestamps, height=probe.height, width=probe.width, piece=5)
        seen = [number_of(frame) for frame in next(pieces)]
        os.kill(child_of(cage), signal.SIGKILL)
        assert gone(child_of(cage))
        seen += [number_of(frame) for piece in pieces for frame in piece]
        assert seen == list(range(12))


def test_pieces_end_when_something_else_is_asked(video: Path) -> None:
    with DecodeCage() as cage:
        probe = cage.probe(video)
        pieces = cage.decode_pieces(video, probe.timestamps, height=probe.height, width=probe.width, piece=5)
        next(pieces)
        assert take(cage, video, probe) == list(range(12))
        with pytest.raises(RuntimeError, match="another source"):
            next(pieces)


def test_frames_outlive_what_comes_after_them_and_their_memory_is_used_again(video: Path) -> None:
    cage = DecodeCage()
    probe = cage.probe(video)
    height, width, times = probe.height, probe.width, probe.timestamps
    one = cage.decode(video, times[:4], height=height, width=width)
    kept = one[2]
    copy = kept.copy()
    where = one.ctypes.data
    del one
    two = cage.decode(video, times[4:8], height=height, width=width)
    assert two.ctypes.data != where
    assert np.array_equal(kept, copy)
    del kept
    numbers = [number_of(frame) for frame in two]
    del two
    three = cage.decode(video, times[8:12], height=height, width=width)
    assert three.ctypes.data == where
    cage.close()
    assert numbers + [number_of(frame) for frame in three] == list(range(4, 12))


def test_many_small_clips_at_once_take_few_open_files(video: Path) -> None:
    with DecodeCage() as cage:
        probe = cage.probe(video)
        before = len(list(Path("/proc/self/fd").iterdir()))
        held = [
            cage.decode(video, probe.timestamps[at : at + 2], height=probe.height, width=probe.width)
            for at in (0, 2, 4, 6, 8) * 20
        ]
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 4
        assert [number_of(frame) for frames in held for frame in frames] == list(range(10)) * 20


def test_memory_that_is_not_looked_at_is_given_back() -> None:
    pool = Pool()
    places = [pool.take(KEPT // 2) for _ in range(4)]
    arrays = [pool.lend(place, (10,)) for place in places]
    assert len(pool.live()) == 4
    del arrays
    assert len(pool.live()) == 2
    place = pool.take(100)
    assert place.start == 0
    assert pool.take(100).start == PAGE


def test_closing_ends_the_child_and_asking_again_starts_one(video: Path) -> None:
    with DecodeCage() as cage:
        probe = cage.probe(video)
        first = child_of(cage)
        cage.close()
        assert gone(first, within=0.5)
        cage.close()
        assert take(cage, video, probe) == list(range(12))


def test_a_child_that_cannot_start_is_the_machines_fault(video: Path, tmp_path: Path) -> None:
    broken = tmp_path / "child.py"
    broken.write_text("import a_library_that_is_not_there\n")
    cage = DecodeCage(command=[sys.executable, str(broken)])
    with pytest.raises(InputError, match="No module named 'a_library_that_is_not_there'"):
        cage.probe(video)


def test_a_working_folder_full_of_namesakes_does_no_harm(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("av", "numpy", "socket", "frame", "decord"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the wrong one')")
    monkeypatch.chdir(tmp_path)
    with DecodeCage() as cage:
        assert take(cage, video, cage.probe(video)) == list(range(12))


def test_deadlines_grow_with_what_is_asked() -> None:
    limits = Limits()
    assert limits.deadline() == 30
    assert limits.deadline(seconds=10) == 50
    assert limits.deadline(size=5_000_000) == 35
    assert limits.deadline(pixels=300 * SIZE[0] * SIZE[1]) > 30
