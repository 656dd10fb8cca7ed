"""The Slurm scripts of the documentation, run with a pretended Slurm, Ray and frame-cache in front of the real ones."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "docs" / "cluster"
ARRAY, RAY, TRAIN = (SCRIPTS / f"slurm_{name}.sbatch" for name in ("array", "ray", "train"))

PRETENDED = {
    # Drops srun's own options and runs the rest as a step of its own; told to end, it ends the step.
    "srun": """
        note "srun $*"
        while [[ $1 == --* ]]; do shift; done
        "$PYTHON" -c 'import os, signal, sys
os.setsid(); signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])' "$@" & step=$!
        echo "$step" >"$STAGE/step"
        trap 'kill -TERM -- "-$step"' TERM
        wait "$step" || wait "$step" """,
    "scontrol": 'note "scontrol $*"; [[ $1 != show ]] || echo localhost',
    "scancel": 'note "scancel $*"; kill -"${1#--signal=}" -- "-$(cat "$STAGE/step")"',
    # `ray start` opens its port, which the script waits for.
    "ray": """
        note "ray $*"
        stat -c 'token %a' "$RAY_AUTH_TOKEN_PATH" >>"$STAGE/calls"
        cp "$RAY_AUTH_TOKEN_PATH" "$STAGE/token"
        for word in "$@"; do [[ $word == --port=* ]] && port=${word#*=}; done
        exec "$PYTHON" -c 'import socket, sys, time
server = socket.create_server(("", int(sys.argv[1])))
time.sleep(60)' "$port" """,
    "python": "[[ $1 != -c ]]",  # no grpc; the nodes are all there
    "frame-cache": """
        note "frame-cache $*"
        trap 'note interrupted; exit 130' INT
        for ((i = 0; i < NAP; i++)); do sleep 0.05; done
        exit "$CODE" """,
    # A launcher of several processes, whose exit code is 1 for any but 0.
    "accelerate": """
        note "accelerate $*"
        trap 'note saved; exit 1' TERM
        for ((i = 0; i < NAP; i++)); do sleep 0.05; done
        exit "$CODE" """,
}


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, body in PRETENDED.items():
        tool = tools / name
        tool.write_text(f'#!/bin/bash\nnote() {{ echo "$*" >>"$STAGE/calls"; }}\n{body}\n')
        tool.chmod(0o755)
    activate = tmp_path / "frame" / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f"PATH={tools}:$PATH\n")
    return tmp_path


def submit(stage: Path, script: Path, *, code: int = 0, nap: int = 0, **variables: str) -> subprocess.Popen[str]:
    # Numbers of a job as Slurm gives them; the port is made of the job's.
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "localhost"}
    told = {"HOME": str(stage), "STAGE": str(stage), "PYTHON": sys.executable, "CODE": str(code), "NAP": str(nap)}
    return subprocess.Popen(
        ["bash", str(script)],
        env=os.environ | job | {"SLURM_CPUS_PER_TASK": "2"} | told | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(job: subprocess.Popen[str]) -> str:
    """All that the job printed, once it has ended."""
    try:
        output, _ = job.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        job.kill()
        job.communicate()
        raise
    return output


def calls(stage: Path) -> list[str]:
    file = stage / "calls"
    return file.read_text().splitlines() if file.exists() else []


def interrupt_when_building(stage: Path, job: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while (
        not any(call.startswith(("frame-cache", "accelerate")) for call in calls(stage)) and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    time.sleep(0.2)  # until the pretended build has set its trap
    job.send_signal(signal.SIGUSR1)


@pytest.mark.parametrize("script", [ARRAY, RAY, TRAIN], ids=lambda path: path.stem)
def test_the_syntax_is_bashs(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize("code", [0, 1, 3])
def test_an_array_task_builds_its_share_and_passes_the_exit_code_on(stage: Path, code: int) -> None:
    job = submit(stage, ARRAY, code=code, SLURM_ARRAY_TASK_ID="3")
    output = finish(job)
    assert (job.returncode, output) == (code, "")
    (build,) = [call for call in calls(stage) if call.startswith("frame-cache")]
    assert build.startswith("frame-cache build --dataset")
    assert build.endswith("--units 3/16")
    assert not any(call.startswith("scontrol") for call in calls(stage))


def test_an_array_wider_than_its_shares_is_refused(stage: Path) -> None:
    job = submit(stage, ARRAY, SLURM_ARRAY_TASK_ID="17")
    output = finish(job)
    assert job.returncode == 2
    assert "outside 1..16" in output
    assert calls(stage) == []


def test_an_array_task_out_of_time_is_interrupted_and_queued_again(stage: Path) -> None:
    job = submit(stage, ARRAY, nap=600, SLURM_ARRAY_TASK_ID="1")
    interrupt_when_building(stage, job)
    finish(job)
    assert job.returncode == 130
    assert calls(stage)[-3:] == [
        f"scancel --signal=INT {os.getpid()}",
        "interrupted",
        f"scontrol requeue {os.getpid()}",
    ]


@pytest.mark.parametrize("code", [0, 3])
def test_the_cluster_is_started_with_a_token_and_ended_with_the_build(stage: Path, code: int) -> None:
    job = submit(stage, RAY, code=code)
    output = finish(job)
    assert (job.returncode, output.replace("Terminated\n", "")) == (code, "")
    token = (stage / "token").read_text()
    assert len(token) == 64
    assert set(token) <= set("0123456789abcdef")
    assert "token 600" in calls(stage)
    assert not any(token in call for call in calls(stage))
    (start,) = [call for call in calls(stage) if call.startswith("ray start")]
    assert "--head" in start
    assert "--include-dashboard=false" in start
    (build,) = [call for call in calls(stage) if call.startswith("frame-cache")]
    host, _, port = build.rpartition(" --address ")[2].rpartition(":")
    assert f"--node-ip-address={host} --port={port}" in start
    assert not list(stage.glob(".frame-ray-*"))
    assert not Path(f"/tmp/frame-ray-{os.getpid()}-0").exists()
    assert not is_running(int((stage / "step").read_text()))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_cluster_job_out_of_time_is_interrupted_and_queued_again(stage: Path) -> None:
    job = submit(stage, RAY, nap=600)
    interrupt_when_building(stage, job)
    finish(job)
    assert job.returncode == 130
    assert calls(stage)[-2:] == ["interrupted", f"scontrol requeue {os.getpid()}"]
    assert not list(stage.glob(".frame-ray-*"))


def test_a_head_that_does_not_start_ends_the_job(stage: Path) -> None:
    ray = stage / "tools" / "ray"
    ray.write_text("#!/bin/bash\necho no memory >&2\nexit 1\n")
    job = submit(stage, RAY)
    output = finish(job)
    assert job.returncode == 1
    assert "no memory" in output
    assert "Ray's head ended before it opened" in output
    assert not any(call.startswith("frame-cache") for call in calls(stage))
    assert not list(stage.glob(".frame-ray-*"))


def test_both_stages_are_trained_one_after_the_other(stage: Path) -> None:
    job = submit(stage, TRAIN)
    assert (finish(job), job.returncode) == ("", 0)
    first, second = [call for call in calls(stage) if call.startswith("accelerate")]
    assert "-m frame.train.cli stage1 --cache" in first
    assert "-m frame.train.cli stage2 --cache" in second
    assert "--init /data/runs/s16-kinetics-ego4d/stage1" in second
    assert "--resume" in first


def test_a_training_that_fails_is_not_queued_again_and_its_second_stage_not_begun(stage: Path) -> None:
    job = submit(stage, TRAIN, code=1)
    finish(job)
    assert job.returncode == 1
    assert len([call for call in calls(stage) if call.startswith("accelerate")]) == 1
    assert not any(call.startswith("scontrol") for call in calls(stage))


def test_a_training_out_of_time_saves_and_is_queued_again(stage: Path) -> None:
    job = submit(stage, TRAIN, nap=600)
    interrupt_when_building(stage, job)
    finish(job)
    assert job.returncode == 1
    assert calls(stage)[-3:] == [f"scancel --signal=TERM {os.getpid()}", "saved", f"scontrol requeue {os.getpid()}"]


def test_the_scripts_are_not_asked_to_run_as_programs() -> None:
    """They are copied and edited; sbatch reads them."""
    assert all(not path.stat().st_mode & stat.S_IXUSR for path in (ARRAY, RAY))
