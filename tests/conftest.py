"""Shared by all tests: caches and runs made once a session, and a machine that asks nobody for anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings
from small_videos import write_folder

# No deadline: these machines are shared, and a slow moment is no failure. The same examples each time.
settings.register_profile("frame", deadline=None, derandomize=True)
settings.load_profile("frame")

os.environ["HF_HUB_OFFLINE"] = "1"  # a test that reaches for a hub must fail at once, here and in every child


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven readable videos of 3 to 21 frames, and two files that are no videos."""
    return write_folder(tmp_path_factory.mktemp("videos"), [9, 21, 5, 3, 12, 8, 16], bad=2)
