"""``frame-cache`` as a person meets it. Most commands are forked (see ``forge``), some started for real."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forge import Forge
from small_videos import write_video
from test_stages import make, run

from frame.pipeline.build import finish
from frame.pipeline.commands import parse_units
from frame.pipeline.store import open_cache

WIDE = {"COLUMNS": "200"}
FRAME_CACHE = str(Path(sys.executable).with_name("frame-cache"))


def frame_cache(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command as it was installed, started for real."""
    return subprocess.run(
        [FRAME_CACHE, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **WIDE},
    )


def forked(forge: Forge, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return forge.run(*arguments, cwd=cwd, variables=WIDE, whole=False)


@pytest.fixture(scope="module")
def cache(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "cache"
    run(make(clips, path))
    finish(path, tmp=tmp_path_factory.mktemp("tmp"))
    return path


BUILD = ("build", "--dataset", "folder", "--teachers", "timm:test_vit", "--weights", "random", "--size", "64")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["info", "/nowhere"], ["There is no cache here", "/nowhere"]),
        ([*BUILD, "--source", "/nowhere", "--out", "OUT"], ["/nowhere"]),
        ([*BUILD[:2], "nonsense", *BUILD[3:], "--source", "CLIPS", "--out", "OUT"], ["nonsense", "folder"]),
        ([*BUILD, "--source", "CLIPS", "--out", "OUT", "--teachers", "dino_vits17"], ["dino_vits17", "dino_vits16"]),
        ([*BUILD, "--source", "CLIPS", "--out", "OUT", "--weights", "test_vit=/nowhere.pth"], ["/nowhere.pth"]),
        ([*BUILD, "--source", "CLIPS", "--out", "OUT", "--size", "3"], ["--size"]),
        ([*BUILD, "--source", "CLIPS", "--out", "OUT", "--units", "5/4"], ["--units 5/4"]),
        ([*BUILD, "--source", "CLIPS", "--out", "OUT", "--encoding", "residual:3"], ["residual:3", "auto:COSINE"]),
        (["recode", "CACHE", "OUT", "--encoding", "auto:1"], ["auto:1", "below 1"]),
        (["recode", "CACHE", "CACHE", "--encoding", "int8"], ["another cache", "new folder"]),
        ([*BUILD, "--source", "CLIPS", "--out", "/proc/nope/cache"], ["/proc/nope"]),
        (["export", "CACHE", "OUT", "--to", "zarr", "--columns", "nope"], ["nope"]),
        (["export", "CACHE", "OUT", "--to", "zarr", "--units", "7-3"], ["7-3"]),
        (["export", "CACHE", "OUT", "--to", "zarr", "--clips", "-nope,nor this"], ["'-nope', 'nor this'", "--clips"]),
        (["export", "CACHE", "OUT", "--to", "zarr", "--clips", "no_*"], ["No clip fits 'no_*'", "9 clips"]),
        (["export", "CACHE", "OUT", "--to", "zarr", "--clips", "@/nowhere"], ["/nowhere"]),
        (["export", "CACHE", "OUT", "--to", "zarr", "--clips", "*", "--units", "0"], ["--units cannot be joined"]),
        (["export", "CACHE", "OUT", "--to", "zarr", "--unit-rows", "0"], ["--unit-rows 0"]),
        (["merge", "OUT", "CACHE"], ["two caches or more"]),
        (["merge", "OUT", "CACHE", "CACHE"], ["two caches or more"]),
        (["merge", "OUT", "CACHE", "/nowhere"], ["There is no cache here", "/nowhere"]),
        (["view", "CACHE", "--out", "/nowhere/deep/report.html"], ["/nowhere/deep"]),
    ],
)
def test_bad_input_is_one_screen(
    arguments: list[str], said: list[str], clips: Path, cache: Path, forge: Forge, tmp_path: Path
) -> None:
    known = {"CLIPS": str(clips), "CACHE": str(cache), "OUT": str(tmp_path / "out")}
    done = forked(forge, *[known.get(item, item) for item in arguments])
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) < 30
    for text in said:
        assert text in done.stderr
    assert not (tmp_path / "out" / "cache.json").exists()


@pytest.mark.parametrize(
    "arguments",
    [["build"], ["build", "x", "--size", "64"], ["build", "--nope"], ["export", "a", "b"], ["merge", "a"], ["nope"]],
)
def test_wrong_use_is_exit_code_2(forge: Forge, arguments: list[str]) -> None:
    assert forked(forge, *arguments).returncode == 2


def test_the_installed_command_ends_with_its_exit_code() -> None:
    missing = frame_cache("info", "/nowhere")
    assert (missing.returncode, "There is no cache here" in missing.stderr) == (1, True)
    assert frame_cache("nope").returncode == 2


def test_info_and_verify_speak_json_and_plain(cache: Path, forge: Forge) -> None:
    value = json.loads(frame_cache("info", cache, "--json").stdout)
    assert (value["clips"], value["frames"], len(value["failed"])) == (9, 74, 2)
    assert value["columns"]["test_vit.patch"]["rows"] == 74
    plain = forked(forge, "info", cache).stdout
    assert "text_00: not-a-video" in plain
    assert "RANDOM WEIGHTS" in plain
    verified = forked(forge, "verify", cache)
    assert verified.returncode == 0
    assert verified.stdout.startswith("Intact")


def test_another_format_version_is_named(cache: Path, forge: Forge, tmp_path: Path) -> None:
    shutil.copytree(cache, tmp_path / "c")
    for name in ("cache.json", "cache.copy.json"):
        file = tmp_path / "c" / name
        file.write_text(file.read_text().replace('"format": 1', '"format": 2'))
    done = forked(forge, "info", tmp_path / "c")
    assert done.returncode == 1
    assert "format version 2; this program reads version 1" in done.stderr


def test_an_encoding_is_chosen_told_kept_and_checked(clips: Path, cache: Path, forge: Forge, tmp_path: Path) -> None:
    asked = ("--source", clips, "--out", tmp_path / "out", "--encoding", "auto:0.999")
    planned = forked(forge, "plan", *BUILD[1:], *asked)
    assert planned.returncode == 0, planned.stderr
    assert "test_vit.patch, on a sample:" in planned.stdout
    assert sum(line.startswith("> residual") for line in planned.stdout.splitlines()) == 2
    recoded = forked(forge, "recode", cache, tmp_path / "copy", "--encoding", "auto:0.999", "--to", "webdataset")
    assert recoded.returncode == 0, recoded.stderr
    assert "Recoded" in recoded.stdout
    value = json.loads(forked(forge, "info", tmp_path / "copy", "--json").stdout)
    column = value["columns"]["test_vit.patch"]
    assert (column["encoding"], value["build"]["encoding"], value["build"]["recoded_from"]) == (
        "residual",
        "auto:0.999",
        "float16",
    )
    assert 1 < column["bits"] < 8
    assert 0.998 < column["mean_cosine"] < 0.9999
    checked = forked(
        forge, "verify", tmp_path / "copy", "--against-teacher", "6", "--source", clips, "--weights", "test_vit=random"
    )
    assert checked.returncode == 0, checked.stderr + checked.stdout
    assert "6 of 6 rows agree" in checked.stdout


def test_clips_are_exported_and_merged(cache: Path, forge: Forge, tmp_path: Path) -> None:
    ids = [row["clip"] for row in open_cache(cache).index.to_pylist()]
    (tmp_path / "list").write_text("\n".join(ids[4:]))
    for name, clips in (("a", ",".join(ids[:5])), ("b", f"@{tmp_path}/list")):
        done = forked(
            forge, "export", cache, tmp_path / name, "--to", "webdataset", "--clips", clips, "--unit-rows", "64"
        )
        assert done.returncode == 0, done.stderr
        assert "5 clips packed anew into" in done.stdout
    asked = ("merge", tmp_path / "c", tmp_path / "a", tmp_path / "b", "--to", "zarr")
    done = forked(forge, *asked)
    assert done.returncode == 0, done.stderr
    assert "Merged 2 caches" in done.stdout
    assert "9 clips (of 5 + 5)" in done.stdout
    assert f"taken once  1 clip that several have alike: {ids[4]}" in done.stdout
    value = json.loads(forked(forge, *asked, "--json").stdout)
    assert value["merged"]["taken_once"] == [ids[4]]
    assert (value["clips"], value["frames"]) == (9, 74)
    assert forked(forge, "verify", tmp_path / "c").returncode == 0
    assert set(open_cache(tmp_path / "c").failed()) == set(open_cache(cache).failed())


def test_plan_says_what_it_will_cost_and_writes_nothing(clips: Path, tmp_path: Path) -> None:
    plan = ("plan", *BUILD[1:], "--source", clips, "--out", tmp_path / "out")
    value = json.loads(frame_cache(*plan, "--json").stdout)
    assert (value["clips"], value["failed"], value["rows"]) == (9, 2, 74)
    assert value["column_bytes"]["frames"] == 74 * 64 * 64 * 3
    assert value["hours"] > 0
    assert value["limit"] in ("decode", "teacher", "disk")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["-dash", "with space", "\u00fcn\u00efc\u00f6de \u65e5\u672c", "-x y\u00e9"])
def test_odd_paths_work(name: str, forge: Forge, tmp_path: Path) -> None:
    write_video(tmp_path / name / f"{name}.mp4", frames=4)
    plan = ("plan", *BUILD[1:], "--source", name, "--out", f"{name}.cache", "--json")
    done = forked(forge, *plan, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 4


def test_units_are_numbers_and_ranges() -> None:
    assert parse_units("0,3,8-10,9") == [0, 3, 8, 9, 10]


def test_an_interrupt_while_planning_is_said_and_leaves_nothing_half_made(clips: Path, tmp_path: Path) -> None:
    build = [*BUILD, "--source", str(clips), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "frame.pipeline.cli", *build],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    while process.poll() is None and not (tmp_path / "out" / "tmp").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "run the same command again" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "out").rglob("*")) or not (tmp_path / "out" / "cache.json").exists()
