"""The process in the cage: answers one request at a time, and may be killed at any moment.

Started by `frame.pipeline.decode.process` as ``python -m frame.pipeline.decode.child SOCKET PARENT``.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import resource
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from frame.pipeline.decode import wire
from frame.pipeline.decode.errors import ClipError
from frame.pipeline.decode.folder import Folder, FolderReader
from frame.pipeline.decode.forward import Reader, RefusedError, forward_reader, load
from frame.pipeline.decode.known import Known
from frame.pipeline.decode.limits import Limits
from frame.pipeline.decode.scan import Scan
from frame.pipeline.decode.seclusion import without_network
from frame.pipeline.decode.sequential import PyavReader
from frame.pipeline.decode.source import Source, check_digest, is_folder

PR_SET_PDEATHSIG = 1


def confine(parent: int) -> None:
    """Die with the thread that started this process; leave no core; no network. ``parent`` is that process's id."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        # It died before it could be told to take this process along.
        os._exit(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not without_network():  # FFmpeg's own allow-list of protocols is what is left then
        print("this system cannot keep decoders from the network", file=sys.stderr)


def allow(*, memory: int, files: int = 0) -> None:
    """Let the address space grow to ``memory`` bytes, and files to ``files`` bytes, and no further."""
    for limit, size in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, files)):
        resource.setrlimit(limit, (size, resource.RLIM_INFINITY))


def memory_now() -> int:
    """Bytes of address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


class Session:
    """One open source whose planned pictures are being handed over."""

    def __init__(self, request: dict[str, Any], limits: Limits, known: Known) -> None:
        self._request, self._limits, self._known = request, limits, known
        self._source: Source | None = None
        self._scan: Scan | None = None
        self._wanted: list[int] = []
        self._given: int = request["given"]
        path = Path(request["path"])
        self._reader = self._open_folder(path) if is_folder(path) else self._open_file(path)

    def read(self, count: int, memory: mmap.mmap, start: int) -> dict[str, Any]:
        """Write the next ``count`` pictures into ``memory``, from the byte ``start`` on."""
        shape = (count, self._request["height"], self._request["width"], 3)
        out = np.frombuffer(memory, np.uint8, math.prod(shape), start).reshape(shape)
        try:
            self._reader.read(out)
        except RefusedError:
            self._reader = self._pyav()
            self._reader.read(out)
        self._given += count
        return {"decoder": self._reader.name}

    def close(self) -> None:
        """Let go of the source."""
        del self._reader
        if self._source is not None:
            self._source.close()

    def _open_file(self, path: Path) -> Reader:
        self._source = Source(path)
        try:
            if self._request["sha256"] is not None:
                check_digest(self._known.sha256(self._source), self._request["sha256"])
            self._scan = self._known.scan(self._source, self._limits)
            self._check_size(*self._scan.shown_size)
            ticks = dict(zip(self._scan.seconds(), self._scan.ticks, strict=True))
            self._wanted = self._chosen(ticks)
            return self._fast() or self._pyav()
        except BaseException:
            self._source.close()
            raise

    def _open_folder(self, path: Path) -> Reader:
        folder = self._known.folder(path, self._limits)
        check_digest(folder.sha256, self._request["sha256"])
        self._check_size(folder.height, folder.width)
        numbers = {second: at for at, second in enumerate(folder.seconds(self._request["frame_rate"]))}
        return FolderReader(folder, self._chosen(numbers)[self._given :], self._limits)

    def _fast(self) -> Reader | None:
        assert self._source is not None
        assert self._scan is not None
        if self._request["decoder"] == "pyav" or self._given:
            return None
        try:
            return forward_reader(self._request["decoder"], self._source.path, self._scan, self._wanted)
        except RefusedError:
            return None

    def _pyav(self) -> PyavReader:
        assert self._source is not None
        assert self._scan is not None
        return PyavReader(self._source, self._scan, self._limits, self._wanted, self._given)

    def _chosen(self, known: dict[float, int]) -> list[int]:
        times = self._request["timestamps"]
        strange = [time for time in times if time not in known]
        if strange:
            raise ClipError("frames-differ", f"no picture at {strange[0]:.6f} s, nor at {len(strange) - 1} other times")
        return [known[time] for time in times]

    def _check_size(self, height: int, width: int) -> None:
        planned = self._request["height"], self._request["width"]
        if (height, width) != planned:
            raise ClipError("frames-differ", f"{width} x {height}, planned were {planned[1]} x {planned[0]}")


class Server:
    """Answers requests until the other side hangs up."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._session: Session | None = None
        self._idle = 0
        self._known = Known()
        self._arenas: dict[int, mmap.mmap] = {}

    def serve(self) -> None:
        """Say hello, then one answer a request."""
        wire.send(self._connection, {"ok": {}})
        while True:
            try:
                request, descriptors = wire.receive(self._connection)
            except EOFError:
                return
            try:
                answer = self.answer(request, descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            wire.send(self._connection, answer)

    def answer(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """``ok`` with what was asked for, ``clip`` with a reason and a detail, or ``unusable`` with why."""
        try:
            return self._do(request, descriptors)
        except ClipError as error:
            return {"clip": [error.reason, error.detail]}
        except MemoryError:
            return {"clip": ["out-of-memory", "it takes more memory than the limit"]}
        except Exception as error:
            # Not foreseen; still no reason to lose more than this clip. The whole story goes to standard error.
            traceback.print_exc()
            return {"clip": ["decoder-error", f"it raises {type(error).__name__}"]}

    def _do(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        limits = Limits(**request.pop("limits"))
        if request["do"] == "read":
            return {"ok": self._read(request, descriptors[0], limits)}
        self._drop()
        # Libraries that are being loaded look for a place for temporary files. Sources are given none.
        allow(memory=resource.RLIM_INFINITY, files=resource.RLIM_INFINITY)
        if request["do"] in ("check", "open"):
            try:
                load(request["decoder"])
            except Exception as error:
                lines = str(error).strip().splitlines() or [""]
                return {"unusable": f"{type(error).__name__}: {lines[0][:200]}"}
        # The frames handed over do not count: who holds on to them is on the other side.
        self._idle = memory_now() - self._shared()
        allow(memory=self._idle + self._shared() + limits.memory)
        if request["do"] == "probe":
            return {"ok": probe(request, limits, self._known)}
        if request["do"] == "open":
            self._session = Session(request, limits, self._known)
        return {"ok": {}}

    def _read(self, request: dict[str, Any], descriptor: int, limits: Limits) -> dict[str, Any]:
        if self._session is None:
            raise RuntimeError("nothing is open")
        # Mappings are kept as the other side keeps its arenas: what costs is to touch their pages for the first time.
        number, live = request["arena"], request["live"]
        self._arenas = {arena: memory for arena, memory in self._arenas.items() if arena in (number, *live)}
        size = os.fstat(descriptor).st_size
        allow(memory=self._idle + self._shared() + size + limits.memory)
        if number not in self._arenas:
            self._arenas[number] = mmap.mmap(descriptor, size)
        return self._session.read(request["count"], self._arenas[number], request["start"])

    def _shared(self) -> int:
        return sum(len(memory) for memory in self._arenas.values())

    def _drop(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


def probe(request: dict[str, Any], limits: Limits, known: Known) -> dict[str, Any]:
    """The fields of `Probe` for the source that ``request`` names. Raises ClipError."""
    path = Path(request["path"])
    if is_folder(path):
        return _probe_folder(known.folder(path, limits), request)
    source = Source(path)
    try:
        found = known.scan(source, limits)
        height, width = found.shown_size
        return {
            "width": width,
            "height": height,
            "rotation": found.orientation.degrees,
            "timestamps": _segment(found.seconds(), found.start, request),
            "rate": found.rate,
            "codec": found.codec,
            "container": found.container,
            "bytes": source.size,
            "sha256": known.sha256(source),
        }
    finally:
        source.close()


def _probe_folder(folder: Folder, request: dict[str, Any]) -> dict[str, Any]:
    rate = request["frame_rate"]
    return {
        "width": folder.width,
        "height": folder.height,
        "rotation": 0,
        "timestamps": _segment(folder.seconds(rate), 0.0, request),
        "rate": rate,
        "codec": folder.codec,
        "container": "folder",
        "bytes": folder.bytes,
        "sha256": folder.sha256,
    }


def _segment(seconds: tuple[float, ...], origin: float, request: dict[str, Any]) -> list[float]:
    start, end = request["start"], request["end"]
    chosen = [
        second
        for second in seconds
        if (start is None or second - origin >= start) and (end is None or second - origin < end)
    ]
    if not chosen:
        raise ClipError("segment-empty", f"no picture from {start} to {end} s; there are {len(seconds)} in all")
    return chosen


def main() -> None:
    """Serve on the socket whose number is the first argument, for the process whose id is the second."""
    confine(int(sys.argv[2]))
    Server(socket.socket(fileno=int(sys.argv[1]))).serve()


if __name__ == "__main__":
    main()
