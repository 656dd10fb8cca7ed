"""The command as a whole: every task is there, errors are one screen, nothing heavy is imported for the help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from forge import Forge

TASKS = (
    "camvid", "compare", "davis", "deltas", "finegym", "hmdb51", "jhmdb", "masks", "penn", "pouring", "regions",
    "report", "show", "sprites", "text", "ucf101", "vip", "vspw",
)  # fmt: skip
INSTALLED = str(Path(sys.executable).with_name("frame-eval"))
HELP = """
import sys
from frame.eval.cli import app
try:
    app(args=["--help"])
finally:
    print([name for name in ("torch", "cv2", "sklearn", "timm", "ray") if name in sys.modules], file=sys.stderr)
"""


def started(*words: str) -> Any:
    return subprocess.run([*words], capture_output=True, text=True, check=False, timeout=120)


def test_every_task_is_listed_and_the_help_imports_nothing_heavy() -> None:
    done = started(sys.executable, "-c", HELP)
    assert done.returncode == 0
    assert all(task in done.stdout for task in TASKS)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("task", ["davis", "camvid", "sprites"])
def test_a_missing_folder_is_one_screen(task: str, forge: Forge, tmp_path: Path) -> None:
    given = ["--data", str(tmp_path / "no"), "--encoder", "dino_vits16", "--out", str(tmp_path / "out")]
    arguments = [task, *given, "--weights", "random"]
    # One of them as it was installed, started for real.
    done = started(INSTALLED, *arguments) if task == "davis" else forge.run(*arguments, program="eval", whole=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "no") in done.stderr
    assert not (tmp_path / "out").exists()
