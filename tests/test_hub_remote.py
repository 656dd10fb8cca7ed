"""The model hub as a place: a faithful stub of it, for no test reaches one."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hub_server
import pytest
from fake_hub import FakeHub, blob_id, http_error
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.sha import git_hash
from share_places import impatient, intact, same_bytes
from store_caches import Made, add_column, make_cache, quick_disk, tree

from frame.manifests.errors import InputError
from frame.pipeline.share import hub_remote
from frame.pipeline.share.hub_errors import hub_failure, hub_final
from frame.pipeline.share.hub_remote import HubRemote
from frame.pipeline.share.pull import Pulled, pull
from frame.pipeline.share.push import Pushed, push
from frame.pipeline.share.remote import RemoteError, outgoing
from frame.pipeline.share.source import look_at
from frame.pipeline.store import CacheError

NAME = "lab/mine"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(HubRemote, "most_files", 7)
    with impatient():
        yield


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_cache(tmp_path / "cache")


def send(made: Made, hub: FakeHub, revision: str = "", *, public: bool = False) -> Pushed:
    with quick_disk():
        return push(look_at(made.open()), HubRemote(NAME, revision, public=public, api=hub))  # type: ignore[arg-type]


def bring(hub: FakeHub, path: Path, revision: str = "") -> Pulled:
    remote = HubRemote(NAME, revision, api=hub)  # type: ignore[arg-type]
    with quick_disk():
        return pull(remote, remote.listing(), path)


@pytest.mark.parametrize(
    "method", ["create_repo", "repo_info", "list_repo_tree", "get_paths_info", "create_commit", "hf_hub_download"]
)
def test_the_stub_takes_what_the_client_takes(method: str) -> None:
    real, stub = (inspect.signature(getattr(kind, method)).parameters for kind in (HfApi, FakeHub))
    assert stub.keys() <= real.keys()
    required = {name for name, item in real.items() if item.default is item.empty and item.kind is not item.VAR_KEYWORD}
    assert required <= stub.keys()


def test_the_real_client_does_it_too(made: Made, tmp_path: Path) -> None:
    """Against a server on the loopback that speaks the hub's protocol."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, hub_server.__file__, made.path, tmp_path / "back"]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=240)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    first, second, back = value["outcome"]
    assert (first["files_sent"], first["card"], second["files_sent"], second["card"]) == (30, "sent", 0, "there")
    assert back["complete"]
    assert value["visibility"] == "private"
    assert sum(call.startswith("PUT /upload/") for call in value["seen"]) > 3  # large files
    assert sum("/commit/" in call for call in value["seen"]) == 1
    assert same_bytes(made, tmp_path / "back")


def test_a_cache_goes_there_and_comes_back(made: Made, tmp_path: Path) -> None:
    hub = FakeHub()
    done = send(made, hub)
    assert hub.repositories[NAME].private
    assert hub.repositories[NAME].files == tree(made.path)
    assert (done.units, done.units_planned, done.files_there) == (5, 5, 0)
    assert "sha256" in done.checked
    back = bring(hub, tmp_path / "back")
    assert back.complete
    assert same_bytes(made, tmp_path / "back")
    assert intact(tmp_path / "back")


def test_what_is_there_is_not_sent_again_and_nothing_is_downloaded_to_know_it(made: Made) -> None:
    hub = FakeHub()
    sent = send(made, hub).files_sent
    hub.calls.clear()
    again = send(made, hub)
    assert (again.files_sent, again.files_there) == (0, sent)
    assert "create_commit" not in hub.calls
    assert hub.calls.count("hf_hub_download") == 2  # whose place it is: both copies of the plan


def test_what_is_here_is_not_fetched_again(made: Made, tmp_path: Path) -> None:
    hub = FakeHub()
    send(made, hub)
    bring(hub, tmp_path / "back")
    hub.calls.clear()
    assert bring(hub, tmp_path / "back").files_fetched == 0
    assert hub.calls.count("hf_hub_download") == 1  # cache.json


def test_every_commit_is_a_cache_without_a_receipt_before_its_data(made: Made) -> None:
    hub = FakeHub()
    send(made, hub)
    commits = list(hub.repositories[NAME].commits.values())
    assert len(commits) > 4
    for files in commits:
        for name in (name for name in files if name.startswith("receipts/")):
            unit = int(Path(name).stem)
            assert {key for key in tree(made.path) if f"/c/{unit}/" in key} <= files.keys()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("times", [1, 99])
def test_a_push_that_dies_anywhere_goes_on(made: Made, when: str, times: int) -> None:
    """Of the hub's answers one breaks off, or all from there on. A commit may have been made all the same."""
    hub = FakeHub()
    send(made, hub)
    calls = len(hub.calls)
    for turn in range(calls):
        hub = FakeHub()

        def fault(number: int, method: str, now: str, turn: int = turn) -> None:
            if turn <= number < turn + times and now == when:
                raise http_error(503) if number % 2 else ConnectionResetError(f"{method} broke off")

        hub.fault = fault
        if times == 1:
            send(made, hub)
        else:
            with pytest.raises(RemoteError, match="run the same command again"):
                send(made, hub)
            hub.fault = lambda *_: None
            send(made, hub)
        assert hub.repositories[NAME].files == tree(made.path)


@pytest.mark.parametrize("times", [1, 99])
def test_a_pull_that_dies_anywhere_goes_on(made: Made, tmp_path: Path, times: int) -> None:
    hub = FakeHub()
    send(made, hub)
    hub.calls.clear()
    bring(hub, tmp_path / "whole")
    for turn in range(0, len(hub.calls), 3):
        hub.calls.clear()
        path = tmp_path / f"{turn}"

        def fault(number: int, method: str, now: str, turn: int = turn) -> None:
            if turn <= number < turn + times and now == "before":
                raise LocalEntryNotFoundError("no answer") if method == "hf_hub_download" else http_error(429)

        hub.fault = fault
        if times == 1:
            bring(hub, path)
        else:
            with pytest.raises(RemoteError):
                bring(hub, path)
            hub.fault = lambda *_: None
            bring(hub, path)
        assert same_bytes(made, path)


def test_a_file_that_arrives_changed_is_committed_once_more_then_named(made: Made) -> None:
    hub, seen = FakeHub(), 0

    def once(method: str, name: str, data: bytes) -> bytes:
        nonlocal seen
        seen += name == "receipts/000001.json"
        return data[:-1] if name == "receipts/000001.json" and seen == 1 and method == "create_commit" else data

    hub.spoil = once
    send(made, hub)
    assert hub.repositories[NAME].files == tree(made.path)
    hub = FakeHub()
    hub.spoil = lambda _, name, data: data[::-1] if name == "dino.patch/c/1/0/0" else data
    with pytest.raises(RemoteError, match=r"arrived changed.*\n.*dino\.patch/c/1/0/0"):
        send(made, hub)


def test_a_file_that_comes_changed_is_never_committed_here(made: Made, tmp_path: Path) -> None:
    hub = FakeHub()
    send(made, hub)
    hub.spoil = lambda _, name, data: data[::-1] if name == "frames/c/2/0/0/0" else data
    with pytest.raises(RemoteError, match=r"arrived changed, twice"):
        bring(hub, tmp_path / "back")
    names = tree(tmp_path / "back").keys()
    assert "receipts/000001.json" in names
    assert not {"receipts/000002.json", "frames/c/2/0/0/0"} & names
    hub.spoil = lambda _method, _name, data: data
    bring(hub, tmp_path / "back")
    assert same_bytes(made, tmp_path / "back")


def test_a_pull_is_of_one_commit_whatever_is_pushed_meanwhile(made: Made, tmp_path: Path) -> None:
    hub = FakeHub()
    send(made, hub)
    before = tree(made.path)
    remote = HubRemote(NAME, api=hub)  # type: ignore[arg-type]
    held = remote.listing()
    add_column(made)
    send(made, hub)
    with quick_disk():
        pull(remote, held, tmp_path / "back")
    assert tree(tmp_path / "back") == before
    bring(hub, tmp_path / "back")
    assert same_bytes(made, tmp_path / "back")
    assert intact(tmp_path / "back")


def test_another_commit_in_between_stops_a_push_before_it_mixes(made: Made) -> None:
    hub = FakeHub()
    send(made, hub)
    add_column(made)

    def fault(_: int, method: str, now: str) -> None:
        if method == "create_commit" and now == "before":
            hub.fault = lambda *_: None
            repository = hub.repositories[NAME]
            repository.commit({**repository.commits[repository.branches["main"]], "notes.txt": b"mine"})

    hub.fault = fault
    with pytest.raises(RemoteError, match="Somebody else has changed"):
        send(made, hub)
    send(made, hub)
    assert hub.repositories[NAME].files == {**tree(made.path), "notes.txt": b"mine"}


def test_a_repository_is_as_public_as_was_said(made: Made) -> None:
    hub = FakeHub()
    send(made, hub, public=True)
    assert not hub.repositories[NAME].private
    with pytest.raises(RemoteError, match="is public"):
        send(made, hub)
    assert send(made, hub, public=True).files_sent == 0
    hub.repositories[NAME].private = True
    with pytest.raises(RemoteError, match="is private"):
        send(made, hub, public=True)


def test_a_branch(made: Made, tmp_path: Path) -> None:
    hub = FakeHub()
    with pytest.raises(RemoteError, match="no such revision"):
        send(made, hub, "v2")
    repository = hub.repositories[NAME]
    repository.branches["v2"] = repository.branches["main"]
    send(made, hub, "v2")
    assert repository.files == {}
    bring(hub, tmp_path / "back", repository.branches["v2"])
    assert same_bytes(made, tmp_path / "back")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (http_error(401), "HF_TOKEN"),
        (http_error(403), "may write"),
        (http_error(404, RepositoryNotFoundError), "hf auth login"),
        (http_error(403, GatedRepoError), "by request"),
        (http_error(404, RevisionNotFoundError), "@REVISION"),
        (http_error(429), "slow down"),
        (http_error(500), "Check the network"),
        (http_error(422), "refuses"),
        (HFValidationError("bad name"), "hf://datasets/USER/NAME"),
        (OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE"),
        (ConnectionError("no route to hf_abcdefghijkl"), "Check the network"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_each_refusal_has_a_screen_that_holds_no_token(made: Made, error: Exception, said: str) -> None:
    hub = FakeHub()

    def fault(_: int, method: str, now: str) -> None:
        if method == "create_commit" and now == "before":
            raise error

    hub.fault = fault
    with pytest.raises(RemoteError) as caught:
        send(made, hub)
    assert said in str(caught.value)
    assert "abcdefghijkl" not in str(caught.value)
    final = isinstance(error, HFValidationError | OfflineModeIsEnabled) or (
        isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404, 422)
    )
    assert hub.calls.count("create_commit") == (1 if final else 3)


def test_other_things_in_the_repository_are_refused(made: Made) -> None:
    hub = FakeHub()
    hub.create_repo(NAME, repo_type="dataset", private=True, exist_ok=True)
    hub.repositories[NAME].commit({".gitattributes": b"", "data.csv": b"1"})
    with pytest.raises(RemoteError, match=r"something else"):
        send(made, hub)
    assert hub.repositories[NAME].files == {"data.csv": b"1"}


def test_a_damaged_cache_is_not_committed(made: Made) -> None:
    file = made.path / "clip.cls/c/3/0"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    hub = FakeHub()
    with pytest.raises(CacheError, match=r"clip\.cls/c/3/0"):
        send(made, hub)
    assert "clip.cls/c/3/0" not in hub.repositories[NAME].files


def test_more_entries_than_the_hub_takes(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub()
    monkeypatch.setattr(hub_remote, "_MOST_ENTRIES", 4)
    with pytest.raises(RemoteError, match="--unit-rows"):
        send(made, hub)
    assert hub.repositories == {}


def test_too_large_a_file_is_not_downloaded(made: Made) -> None:
    hub = FakeHub()
    send(made, hub)
    remote = HubRemote(NAME, api=hub)  # type: ignore[arg-type]
    remote.listing()
    with pytest.raises(InputError, match="more than 5 bytes"):
        remote.read("cache.json", most=5)
    assert remote.read("nothing.json", most=5) is None


def test_git_blob_ids_are_gits() -> None:
    for data in (b"", b"hello\n", bytes(range(256)) * 10):
        assert outgoing("a", data).git_blob() == git_hash(data) == blob_id(data)


def test_a_failed_upload_is_what_its_cause_says() -> None:
    error = RuntimeError("Error while uploading 'a' to the Hub.")
    error.__cause__ = http_error(403)
    assert hub_final(error)
    assert "may write" in str(hub_failure(error, "hf://datasets/lab/mine"))
    error.__cause__ = http_error(503)
    assert not hub_final(error)
