"""Another try where another try may help, with growing pauses, and one screen where it does not."""

from __future__ import annotations

import errno
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from frame.manifests.errors import InputError
from frame.pipeline.share.remote import KEPT, RemoteError

_Result = TypeVar("_Result")

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before the second and each later try, half a minute together: a line that breaks, a server that restarts."""

# What our own mistakes raise, which trying again would only hide.
_MISTAKES = (TypeError, AttributeError, LookupError, AssertionError, NameError, MemoryError)
# What another try does not change: the answer is about what was asked.
_FINAL = (
    *(FileNotFoundError, PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError),
    *(NotImplementedError, ImportError, ValueError),
)
_FINAL_ERRNO = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENAMETOOLONG)
_LOGIN = re.compile(r"//[^/@\s]*@")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9_]{8,}")


def patiently(
    action: Callable[[], _Result],
    *,
    final: Callable[[Exception], bool],
    failure: Callable[[Exception], InputError],
) -> _Result:
    """What ``action`` returns, after as many tries as there are ``PAUSES`` and one. An error that is ``final``, or
    the last, is raised as the screen that ``failure`` makes of it; an ``InputError`` as it is."""
    for pause in (*PAUSES, None):
        try:
            return action()
        except (InputError, *_MISTAKES):
            raise
        except Exception as error:
            if pause is None or final(error):
                raise failure(error) from error
        time.sleep(random.uniform(pause / 2, pause))
    raise AssertionError("the last try returns or raises")


def is_final(error: Exception) -> bool:
    """Is it an answer that stays the same, as far as the error's own kind tells?"""
    return isinstance(error, _FINAL) or (isinstance(error, OSError) and error.errno in _FINAL_ERRNO)


def unreachable(error: Exception, where: str) -> RemoteError:
    """The screen for a place that has failed for good."""
    if isinstance(error, PermissionError):
        return RemoteError(
            what="The other place refuses this.",
            where=where,
            why=reason(error),
            fix="Check the credentials that its driver takes from the environment, and what they are allowed to do.",
        )
    if is_final(error):
        return RemoteError(what="The other place cannot do this.", where=where, why=reason(error), fix=f"So far {KEPT}")
    return RemoteError(
        what="The other place cannot be reached, or breaks off each time.",
        where=where,
        why=f"{reason(error)} (tried {len(PAUSES) + 1} times)",
        fix=f"Check the network and the address; {KEPT}",
    )


def reason(error: BaseException) -> str:
    """One line of what an error says, without a password or a token that it may repeat."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
    return _TOKEN.sub("hf_…", _LOGIN.sub("//…@", text))
