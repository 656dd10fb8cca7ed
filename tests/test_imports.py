"""Who may import whom: one direction, and nothing heavy where it is not used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import frame.pipeline.store

ROOT = Path(__file__).parent.parent
# Rooms and layers from the bottom up; a module may import from its own layer and from those below it.
LAYERS = [
    ["manifests"],
    ["pipeline.store", "model"],
    ["pipeline.decode", "pipeline.teachers", "pipeline.view", "pipeline.share", "train"],
    ["pipeline"],
    ["eval"],
]


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def room(name: str) -> str:
    first, _, rest = name.partition(".")
    longer = f"{first}.{rest.partition('.')[0]}"
    return longer if any(longer in layer for layer in LAYERS) else first


def level(name: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if room(name) in layer)


FILES = [
    file for top in ("manifests", "pipeline", "model", "train", "eval") for file in sorted((ROOT / top).rglob("*.py"))
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_down_only(file: Path) -> None:
    mine = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for name in imports(file):
        if name.startswith("frame."):
            other = name.removeprefix("frame.")
            assert level(other) < level(mine) or room(other) == room(mine), f"{mine} imports {other}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_runs_pickled_code(file: Path) -> None:
    """`torch.load` is allowed in one place, where a test holds that it is called with `weights_only=True`."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("pickle.load", "pickle.loads", "torch.jit.load", "torch.hub.load", "yaml.load")
            if called == "torch.load":
                assert any(key.arg == "weights_only" and ast.unparse(key.value) == "True" for key in node.keywords)
            if called == "np.load":
                assert any(key.arg == "allow_pickle" and ast.unparse(key.value) == "False" for key in node.keywords)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("frame.pipeline.store", ["torch", "ray", "decord", "av", "timm", "open_clip", "webdataset"]),
        ("frame.pipeline.decode_stage", ["torch", "ray", "decord", "av", "timm", "webdataset"]),
        ("frame.pipeline.write_stage", ["torch", "ray", "decord", "av", "timm"]),
        ("frame.pipeline.view", ["torch", "ray", "decord", "av", "timm", "frame.eval"]),
        ("frame.pipeline.cli", ["torch", "ray", "decord", "av", "timm", "zarr"]),
        ("frame.model", ["ray", "decord", "open_clip", "av", "frame.pipeline.teachers", "frame.pipeline.decode"]),
        ("frame.train", ["ray", "decord", "open_clip", "av", "frame.pipeline.teachers", "frame.pipeline.decode"]),
    ],
)
def test_importing_a_room_does_not_bring_others(module: str, absent: list[str]) -> None:
    script = f"import sys, {module}; print([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_is_installed_from_this_tree() -> None:
    assert Path(str(frame.pipeline.store.__file__)).resolve().is_relative_to(ROOT)
