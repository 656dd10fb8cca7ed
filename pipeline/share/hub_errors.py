"""What the model hub's client raises, as screens: what was refused, and what the person can do about it."""

from __future__ import annotations

from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from frame.pipeline.share.remote import KEPT, RemoteError
from frame.pipeline.share.retry import PAUSES, is_final, reason

_LOGIN = "Log in: `hf auth login`, or set HF_TOKEN to a token from the hub's settings"
_FINAL = (
    *(DisabledRepoError, GatedRepoError, HFValidationError, OfflineModeIsEnabled),
    *(RepositoryNotFoundError, RevisionNotFoundError),
)
# Answers that may be another one soon: too slow, another commit in between, too many requests.
_PASSING = (408, 409, 412, 425, 429)


def status(error: Exception) -> int | None:
    """The HTTP status behind an error, if there is one."""
    found = getattr(getattr(error, "response", None), "status_code", None)
    return found if isinstance(found, int) else None


def _behind(error: Exception) -> Exception:
    """What the client says only that an upload failed of, it names the cause of."""
    while type(error) is RuntimeError and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def hub_final(error: Exception) -> bool:
    """Is it an answer that another try does not change?"""
    error = _behind(error)
    if isinstance(error, _FINAL):
        return True
    code = status(error)
    if code is not None:
        return code < 500 and code not in _PASSING
    if isinstance(error, LocalEntryNotFoundError):  # the client's word for: not here, and the hub did not answer
        return False
    return is_final(error)


def hub_failure(error: Exception, where: str) -> RemoteError:
    """The screen for a request that has failed for good."""
    error = _behind(error)
    what, fix = _said(error)
    return RemoteError(what=what, where=where, why=reason(error), fix=fix)


def _said(error: Exception) -> tuple[str, str]:
    code = status(error)
    if isinstance(error, OfflineModeIsEnabled):
        return "The hub's client is switched offline.", "Unset HF_HUB_OFFLINE."
    if isinstance(error, GatedRepoError):
        return "The owner of this repository gives access by request.", f"Ask on its page. {_LOGIN} of that account."
    if isinstance(error, RepositoryNotFoundError):
        return "There is no such dataset repository, or you may not see it.", f"Check the name. {_LOGIN}."
    if isinstance(error, RevisionNotFoundError):
        return "The repository has no such revision.", "Leave @REVISION out, or make the branch on the hub first."
    if isinstance(error, DisabledRepoError):
        return "The hub has disabled this repository.", "Ask the hub, or its owner."
    if isinstance(error, HFValidationError):
        return "The hub has no such names.", "Give hf://datasets/USER/NAME, with @REVISION if you want one."
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return "The hub does not have this file.", "Whoever pushed it may not be done, or has removed it since."
    if code == 401:
        return "The hub does not know who asks.", f"{_LOGIN}."
    if code == 403:
        return "The hub refuses this.", f"{_LOGIN}, one that may write here; or push under a name of your own."
    if code == 429:
        return "The hub asks to slow down.", f"Wait some minutes; {KEPT}"
    if hub_final(error):
        return "The hub refuses this.", f"Mend what it says; {KEPT}"
    return f"The hub cannot be reached, or breaks off each time ({len(PAUSES) + 1} tries).", (
        f"Check the network; {KEPT}"
    )
