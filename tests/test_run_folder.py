from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from frame.manifests.errors import InputError
from frame.train.run_folder import CONFIG, METRICS, Metrics, owned, read_config, read_metrics, write_config


def test_settings_come_back_and_any_change_of_them_is_found(tmp_path: Path) -> None:
    with owned(tmp_path / "run") as tmp:
        write_config(tmp_path / "run", {"stage": "stage1", "settings": {"lr": 0.1}}, tmp=tmp)
    assert read_config(tmp_path / "run")["settings"] == {"lr": 0.1}
    path = tmp_path / "run" / CONFIG
    data = path.read_bytes()
    path.write_bytes(data.replace(b"0.1", b"0.2"))
    with pytest.raises(InputError, match="settings are damaged"):
        read_config(tmp_path / "run")
    assert not (tmp_path / "run" / "tmp").exists()


def test_a_folder_without_settings_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a training run"):
        read_config(tmp_path)


def test_two_trainings_cannot_share_a_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    code = "import pathlib, sys; from frame.train.run_folder import owned; owned(pathlib.Path(sys.argv[1])).__enter__()"
    with owned(run):
        other = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=False)
        assert "Another training is writing" in other.stderr
    with owned(run):
        pass  # the folder is free again


def test_a_resumed_run_drops_the_lines_it_will_make_again(tmp_path: Path) -> None:
    with owned(tmp_path) as tmp:
        metrics = Metrics.resumed(tmp_path, upto=0, tmp=tmp)
        metrics.add("val", 0, 0.0, {"patch": 2.0})
        for step in range(1, 6):
            metrics.add("train", step, step / 4, {"patch": 1.0 / step})
        metrics.add("val", 5, 1.25, {"patch": 0.1 + 0.2})
        metrics.flush()
        with (tmp_path / METRICS).open("ab") as file:
            file.write(b'{"kind": "train", "step": 6, "ep')  # torn by a kill
        assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1, 2, 3, 4, 5, 5]
        metrics = Metrics.resumed(tmp_path, upto=3, tmp=tmp)
        metrics.add("train", 4, 1.0, {"patch": 0.25})
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    assert lines[-1] == {"kind": "train", "step": 4, "epoch": 1.0, "patch": 0.25}
