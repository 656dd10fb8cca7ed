"""Durable writes, temporary folders of the living and the dead, and the lock."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from frame.pipeline.store import disk, files
from frame.pipeline.store.files import (
    CacheError,
    exclusive,
    remove_leftovers,
    sha256_bytes,
    sha256_file,
    write_durable,
    writer_folder,
)


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process that runs ``code``; it can be talked to, and killed."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 5000])
def test_a_written_file_holds_exactly_its_data_and_nothing_else_remains(tmp_path: Path, data: bytes) -> None:
    target = tmp_path / "a" / "b" / "file"
    with writer_folder(tmp_path) as tmp:
        write_durable(target, b"old", tmp=tmp)
        write_durable(target, memoryview(data), tmp=tmp)
    assert target.read_bytes() == data
    assert listing(tmp_path) == ["a/b/file"]
    assert not (tmp_path / "tmp").exists()
    assert sha256_file(target) == sha256_bytes(data)


def test_the_file_is_flushed_before_it_gets_its_name_and_every_new_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (events.append(str(Path(f"/proc/self/fd/{fd}").readlink())), fsync(fd))[1]
    )
    monkeypatch.setattr(Path, "replace", lambda a, b: (events.append(f"-> {b}"), replace(a, b))[1])
    with writer_folder(tmp_path) as tmp:
        write_durable(tmp_path / "a" / "b" / "file", b"data", tmp=tmp)
    assert events[:2] == [str(tmp_path), str(tmp_path / "a")]
    assert events[2].endswith(".partial")
    assert events[3:] == [f"-> {tmp_path / 'a' / 'b' / 'file'}", str(tmp_path / "a" / "b")]


@pytest.mark.parametrize("operation", ["create", "write", "fsync", "close", "rename", "mkdir"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_failing_disk_leaves_the_old_file_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    target = tmp_path / ("new" if operation == "mkdir" else ".") / "file"
    with writer_folder(tmp_path) as tmp:
        write_durable(tmp_path / "file", b"old", tmp=tmp)
        with monkeypatch.context() as patch:
            patch.setattr(disk, operation, fail)
            with pytest.raises(CacheError) as error:
                write_durable(target, b"new", tmp=tmp)
    assert ("full" in error.value.what) == (code != errno.EIO)
    assert error.value.where == str(target)
    assert error.value.why == os.strerror(code)
    assert "again" in error.value.fix
    assert listing(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


HOLD = """
import sys
from pathlib import Path
from frame.pipeline.store.files import exclusive, writer_folder
with {context}(Path(sys.argv[1])) as folder:
    if folder:
        (folder / "half.partial").write_bytes(b"half")
    print("ready", flush=True)
    sys.stdin.readline()
"""


def hold(cache: Path, context: str) -> subprocess.Popen[str]:
    """A process inside ``context`` of ``cache``."""
    process = run_python(HOLD.format(context=context), cache)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_leftovers_of_a_killed_writer_go_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    living, dying = hold(tmp_path, "writer_folder"), hold(tmp_path, "writer_folder")
    assert len(list((tmp_path / "tmp").iterdir())) == 2
    dying.kill()
    dying.communicate()
    with writer_folder(tmp_path) as mine:
        left = [path for path in (tmp_path / "tmp").iterdir() if path != mine]
        assert len(left) == 1
        assert (left[0] / "half.partial").read_bytes() == b"half"
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    _, err = living.communicate("\n", timeout=60)
    assert living.returncode == 0, err
    assert not (tmp_path / "tmp").exists()


def test_the_lock_of_a_killed_process_is_free_and_leaves_nothing(tmp_path: Path) -> None:
    dying = hold(tmp_path, "exclusive")
    dying.kill()
    dying.communicate()
    assert (tmp_path / "tmp").exists()
    with exclusive(tmp_path):
        pass
    assert not (tmp_path / "tmp").exists()

    dying = hold(tmp_path, "exclusive")
    dying.kill()
    dying.communicate()
    with writer_folder(tmp_path):
        pass
    assert not (tmp_path / "tmp").exists()


def test_many_processes_at_once_lose_neither_folders_nor_counts(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from frame.pipeline.store.files import exclusive, write_durable, writer_folder
root = Path(sys.argv[1])
for _ in range(40):
    with writer_folder(root) as tmp:
        (tmp / "mine").write_bytes(b"mine")
        with exclusive(root):
            value = int((root / "count").read_text())
            (root / "count").write_text(str(value + 1))
        assert (tmp / "mine").read_bytes() == b"mine"
"""
    (tmp_path / "count").write_text("0")
    processes = [run_python(code, tmp_path) for _ in range(4)]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert (tmp_path / "count").read_text() == "160"
    remove_leftovers(tmp_path)
    assert listing(tmp_path) == ["count"]
    assert not (tmp_path / "tmp").exists()


def test_a_file_system_without_locks_still_works_and_touches_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "tmp" / "other"
    other.mkdir(parents=True)
    (other / "half.partial").write_bytes(b"half")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with writer_folder(tmp_path) as tmp, exclusive(tmp_path):
        write_durable(tmp_path / "file", b"data", tmp=tmp)
    assert (tmp_path / "file").read_bytes() == b"data"
    assert (other / "half.partial").exists()


@pytest.mark.parametrize("context", [writer_folder, exclusive])
def test_a_cache_that_is_gone_or_a_file_in_the_way_is_one_clear_error(tmp_path: Path, context: object) -> None:
    with pytest.raises(CacheError, match="gone"), context(tmp_path / "nowhere"):  # type: ignore[operator]
        pass
    (tmp_path / "tmp").write_text("a file where the folder should be")
    with pytest.raises(CacheError, match="could not be written"), context(tmp_path):  # type: ignore[operator]
        pass


def test_leftovers_of_a_cache_without_any_are_no_error(tmp_path: Path) -> None:
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "nowhere")
    assert files.TMP == "tmp"
