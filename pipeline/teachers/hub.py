"""Fetching weights from the Hugging Face hub: the local copy if there is one, else an answer within seconds."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from frame.manifests.errors import InputError

# The hub's own client retries for half a minute and more where there is no network, and a dead name server can
# hold a look-up longer than any timeout it takes: so one question is asked first, and given this long.
ANSWER_SECONDS = 8.0


def hub_file(repository: str, names: Sequence[str], *, fix: str) -> Path:
    """The local path of the first of ``names`` that ``repository`` has, downloaded if need be.

    A copy in the hub's local cache is taken as it is, without asking. Raises InputError, with ``fix``, where the file
    is neither local nor to be had.
    """
    for name in names:
        if path := _cached(repository, name):
            return path
    for name in names:
        if _hub_has(repository, name, fix):
            try:
                return Path(huggingface_hub.hf_hub_download(repository, name))
            except Exception as error:
                raise _unavailable(repository, name, error, fix) from error
    raise InputError(
        what="The hub has no weights for this teacher.",
        where=f"{huggingface_hub.constants.ENDPOINT}/{repository}",
        why=f"none of {', '.join(names)} is there",
        fix=fix,
    )


def _cached(repository: str, name: str) -> Path | None:
    try:
        return Path(huggingface_hub.hf_hub_download(repository, name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _hub_has(repository: str, name: str, fix: str) -> bool:
    """Ask the hub once whether it has the file; any answer but yes or no is an InputError."""
    outcome: list[BaseException | None] = []

    def ask() -> None:
        try:
            huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(repository, name), timeout=ANSWER_SECONDS)
            outcome.append(None)
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=ask, name="hub-question", daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    error = outcome[0] if outcome else TimeoutError(f"no answer within {ANSWER_SECONDS:g} seconds")
    if error is not None and not isinstance(error, EntryNotFoundError):
        raise _unavailable(repository, name, error, fix) from error
    return error is None


def _unavailable(repository: str, name: str, error: BaseException, fix: str) -> InputError:
    reason = str(error).strip().splitlines()
    return InputError(
        what="The weights cannot be fetched from the hub.",
        where=f"{huggingface_hub.constants.ENDPOINT}/{repository}, file {name}",
        why=f"{type(error).__name__}: {reason[0][:300]}" if reason else type(error).__name__,
        fix=fix,
    )
