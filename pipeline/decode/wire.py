"""What the builder and the decode process say to each other: JSON behind its length, and sometimes a file descriptor.

Nothing is pickled: what comes back from a process that reads hostile files is data, never code.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

LENGTH = 8
LONGEST = 1 << 28
"""A message is at most 256 MiB, far above the times of the longest video allowed."""


def send(connection: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send one message. ``descriptors`` are open files that the receiver gets copies of."""
    body = json.dumps(message).encode("ascii")
    head = len(body).to_bytes(LENGTH, "big")
    if descriptors:
        socket.send_fds(connection, [head], list(descriptors))
    else:
        connection.sendall(head)
    connection.sendall(body)


def receive(connection: socket.socket, *, until: float | None = None) -> tuple[dict[str, Any], list[int]]:
    """Receive one message and its open files, which the caller has to close.

    ``until`` is a moment of `time.monotonic`. Raises TimeoutError after it, EOFError when the other side has gone.
    """
    _arm(connection, until)
    first, descriptors, _, _ = socket.recv_fds(connection, LENGTH, 1)
    try:
        if not first:
            raise EOFError("the other side has gone")
        head = first + _exactly(connection, LENGTH - len(first), until)
        length = int.from_bytes(head, "big")
        if length > LONGEST:
            raise EOFError("the other side talks nonsense")
        message: dict[str, Any] = json.loads(_exactly(connection, length, until))
        return message, descriptors
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def _exactly(connection: socket.socket, length: int, until: float | None) -> bytes:
    parts = []
    while length:
        _arm(connection, until)
        part = connection.recv(min(length, 1 << 20))
        if not part:
            raise EOFError("the other side has gone")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _arm(connection: socket.socket, until: float | None) -> None:
    if until is None:
        return
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    connection.settimeout(left)
