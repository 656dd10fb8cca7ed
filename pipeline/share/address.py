"""Which place a URL names."""

from __future__ import annotations

import re

from frame.manifests.errors import InputError
from frame.pipeline.share.remote import Remote
from frame.pipeline.store.objects import ObjectPath, store_path

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_HUB = re.compile(rf"hf://datasets/({_NAME}/{_NAME})(?:@([A-Za-z0-9][A-Za-z0-9._/-]{{0,200}}))?/?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def open_remote(url: str, *, read_back: bool = True, public: bool = False, pushing: bool = False) -> Remote:
    """The place at ``url``. Raises ``InputError`` for what names none, and for options that mean nothing there."""
    address = shown(url)
    scheme = _SCHEME.match(url)
    if scheme is None or "::" in url:
        why = "it would read from a copy here, not from there" if "::" in url else "it has no scheme"
        raise InputError(what="This is no URL to share a cache at.", where=address, why=why, fix=_FORMS)
    if url.lower().startswith("hf://"):
        return _hub(url, read_back=read_back, public=public, pushing=pushing)
    if public:
        raise InputError(
            what="--public is for repositories on the hub.",
            where=address,
            fix="Leave it out: who may read there is for that place's own settings.",
        )
    if scheme[0].lower() == "s3://":
        from frame.pipeline.share.object_remote import ObjectRemote

        root = store_path(url)
        assert isinstance(root, ObjectPath)
        return ObjectRemote(root, read_back=read_back)
    from frame.pipeline.share.fsspec_remote import open_fsspec

    return open_fsspec(url, address=address, read_back=read_back)


def _hub(url: str, *, read_back: bool, public: bool, pushing: bool) -> Remote:
    match = _HUB.fullmatch(url)
    if match is None:
        raise InputError(
            what="This is no dataset repository on the hub.", where=shown(url), fix="Give hf://datasets/USER/NAME."
        )
    repository, revision = match[1], match[2] or ""
    if pushing and _COMMIT.fullmatch(revision):
        raise InputError(what="A commit cannot be pushed to.", where=url, fix="Give a branch, or none.")
    if not read_back:
        raise InputError(
            what="--no-read-back means nothing on the hub.",
            where=url,
            why="nothing is read back: the hub names the checksums of what it has",
            fix="Leave it out.",
        )
    import huggingface_hub
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from frame.pipeline.share.hub_remote import HubRemote

    if huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS is None:  # else the person has said which they want
        disable_progress_bars()  # a bar a file, into the one of the whole
    return HubRemote(repository, revision, public=public)


def shown(url: str) -> str:
    """The URL as it can be shown: somebody may have put a password, a signature or a token into it."""
    return re.sub(r"[?#].*", "?…", re.sub(r"//[^/]*@", "//…@", url))


_FORMS = "Give hf://datasets/USER/NAME, s3://BUCKET/NAME, file:///FOLDER, or a URL of an installed fsspec driver."
