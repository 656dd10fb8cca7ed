"""Which ports a local Ray session opens, and whether anyone without its token gets an answer there.

Ray runs whatever code reaches its job, agent and worker ports, so a session is used only after this check: every
listener on the loopback interface, and every HTTP server among them answering 401. Read from /proc: Linux only.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"  # the state of a listening socket in /proc/net/tcp
_TIMEOUT = 5.0  # seconds for one answer; loopback answers within milliseconds, so this is a machine in trouble


@dataclass(frozen=True, kw_only=True, slots=True)
class Listener:
    """A listening TCP socket. ``address`` is the numeric one it is bound to (IPv4 also when mapped into IPv6)."""

    pid: int
    process: str
    address: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether other machines cannot reach it."""
        return ipaddress.ip_address(self.address).is_loopback

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port} ({self.process}, pid {self.pid})"


def session_listeners(driver: int) -> list[Listener]:
    """All listening TCP sockets of ``driver`` and of every process it started, directly or not."""
    sockets = _listening_sockets()
    return [
        Listener(pid=pid, process=_name(pid), address=sockets[inode][0], port=sockets[inode][1])
        for pid in sorted(_family(driver))
        for inode in sorted(_open_sockets(pid) & sockets.keys())
    ]


def complaints(listeners: Iterable[Listener]) -> list[str]:
    """One sentence for each listener that another machine, or another user of this one, could use; [] is good."""
    found = []
    for listener in listeners:
        if not listener.loopback:
            found.append(f"{listener} can be reached from other machines")
        elif answer := answer_without_token(listener):
            found.append(f"{listener} answers {answer!r} to a request without the token")
    return found


def answer_without_token(listener: Listener) -> str:
    """The status line an HTTP server gives to a job submission without a token; "" where it refuses or is none.

    A server that checks tokens says 401 (or 403) to every path. gRPC ports do not speak HTTP/1 and check the token
    of every call. The one kind of server allowed to say more is a page of Prometheus counters, which Ray opens where
    its ``default`` extra is installed: it reads nothing from a request and runs nothing.
    """
    status = _request(listener, "POST", "/api/jobs/").partition(b"\r\n")[0].decode("latin-1")
    if not status.startswith("HTTP/1.") or status.split()[1] in ("401", "403"):
        return ""
    if status.split()[1] == "405" and _request(listener, "GET", "/").partition(b"\r\n\r\n")[2].startswith(b"# HELP"):
        return ""
    return status


def _request(listener: Listener, method: str, path: str) -> bytes:
    """The first bytes of the answer, b"" when the server closed without one or said nothing in time."""
    # An empty job: should a server take it, it is refused for lack of an entry point, and nothing runs.
    request = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Content-Length: 2\r\nConnection: close\r\n\r\n{}"
    ).encode()
    answer = b""
    try:
        with socket.create_connection((listener.address, listener.port), _TIMEOUT) as connection:
            connection.sendall(request)
            while len(answer) < 4096 and (part := connection.recv(4096)):
                answer += part
                if not answer.startswith(b"HTTP/1."[: len(answer)]):
                    break  # HTTP/2 keeps the connection open after its first frame
    except OSError:
        return answer
    return answer


def _listening_sockets() -> dict[str, tuple[str, int]]:
    """Inode -> (address, port) of every listening TCP socket in this network namespace."""
    found = {}
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text("ascii").splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for fields in map(str.split, lines):
            if fields[3] == _LISTEN:
                found[fields[9]] = _endpoint(fields[1])
    return found


def _endpoint(text: str) -> tuple[str, int]:
    """``0100007F:1F90`` -> ("127.0.0.1", 8080). The kernel prints 32-bit words in the machine's byte order."""
    address, port = text.split(":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    ip = ipaddress.ip_address(b"".join(word.to_bytes(4, byteorder=sys.byteorder) for word in words))
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip), int(port, 16)


def _family(root: int) -> set[int]:
    """``root`` and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := _parent(int(entry.name))) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    family, todo = set[int](), [root]
    while todo:
        pid = todo.pop()
        family.add(pid)
        todo += children.get(pid, [])
    return family


def _parent(pid: int) -> int | None:
    try:
        # The name in brackets may hold anything, so count from its last bracket: state, parent, ...
        return int(Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return None


def _open_sockets(pid: int) -> set[str]:
    found = set()
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(entry.readlink())
            except FileNotFoundError:  # closed meanwhile
                continue
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:  # ended meanwhile
        return found
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    except OSError:
        return "?"
