"""Shared by all tests: caches and runs made once a session, commands that start at once, and a machine that asks nobody
for anything."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from forge import Forge
from hypothesis import settings
from small_videos import write_folder

# No deadline: these machines are shared, and a slow moment is no failure. The same examples each time.
settings.register_profile("frame", deadline=None, derandomize=True)
settings.load_profile("frame")

# Ctrl-C is tested, and whatever runs in the background of a script is started deaf to it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Threads of torch spin while they wait for each other, and where a decoder or another user has the core of the one that
# they wait for, small models take many times as long. Read as torch is imported; the threads are as many as ever, so
# that no number changes.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that reaches for a hub must fail at once, here and in every child


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    """Accelerate keeps one state a process, mixed precision and all; one test must not decide it for the next."""
    yield
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven readable videos of 3 to 21 frames, and two files that are no videos."""
    return write_folder(tmp_path_factory.mktemp("videos"), [9, 21, 5, 3, 12, 8, 16], bad=2)


@pytest.fixture(scope="session")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """Where commands come from that start at once."""
    forge = Forge(tmp_path_factory.mktemp("commands"))
    yield forge
    forge.close()


@pytest.fixture(scope="session")
def train_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cache of eight clips of 21 to 40 frames with a patch and a CLS column, to train from."""
    from small_runs import write_cache

    return write_cache(tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="session")
def stage1_run(train_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished stage-1 run of six steps."""
    from small_runs import stage1

    out = tmp_path_factory.mktemp("runs") / "stage1"
    stage1(train_cache, out)
    return out
