"""A process without network: it keeps the connections it has, and can make no other.

FFmpeg is told to open files alone. Should a hostile file make it do as the file says, there must be nobody to talk to.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2
_CLONE_NEWNET = 0x40000000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # words of the kernel's packet filter
_NUMBER, _ARCHITECTURE = 0, 4  # where they stand in what a filter of system calls sees
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_OTHER_CALLS = 0x40000000  # numbers from here on are x86-64's second way to the same calls

# socket; ptrace; io_uring_setup, through which sockets can be made as well; pidfd_getfd, which takes another process's.
_CALLS = {
    "x86_64": (0xC000003E, (41, 101, 425, 438)),
    "aarch64": (0xC00000B7, (198, 117, 425, 438)),
}


def without_network() -> bool:
    """From now on, no thread of this process that is started later can open a connection. False where the system has
    no means to that."""
    libc = ctypes.CDLL(None, use_errno=True)
    return _filtered(libc) or libc.unshare(_CLONE_NEWNET) == 0


def _filtered(libc: ctypes.CDLL) -> bool:
    if platform.machine() not in _CALLS:
        return False
    code = _program(*_CALLS[platform.machine()])
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    # A condition of the kernel's: else a filter could confuse a program that runs as somebody else.
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(program), 0, 0) == 0)


def _program(architecture: int, calls: tuple[int, ...]) -> bytes:
    """The filter: a call made the usual way, and none of ``calls``, is allowed; any other is not permitted."""
    tests = [(_AT_LEAST, _OTHER_CALLS), *((_EQUAL, call) for call in calls)]
    words = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _REFUSE)]
    words.append((_LOAD, 0, 0, _NUMBER))
    words += [(kind, len(tests) - at, 0, value) for at, (kind, value) in enumerate(tests)]
    words += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    return b"".join(struct.pack("HBBI", *word) for word in words)
