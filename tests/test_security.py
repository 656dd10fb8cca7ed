"""What the linter bans is banned, and the switches that would turn a safe reader into an unsafe one are nowhere."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("pipeline", "train", "model", "eval", "manifests")
UNSAFE = {
    "allow_pickle": True,
    "weights_only": False,
    "trust_remote_code": True,
    "shell": True,
    "use_safetensors": False,
}

BANNED = {
    "a pickle": "import pickle\npickle.loads(b'')\n",
    "another pickle": "from cloudpickle import loads\nloads(b'')\n",
    "torch.load": "import torch\ntorch.load('a.pth')\n",
    "TorchScript": "from torch.jit import load\nload('a.pt')\n",
    "the hub's code": "import torch\ntorch.hub.load('a/b', 'c')\n",
    "YAML with constructors": "import yaml\nyaml.load('', yaml.Loader)\n",
    "an archive": "import tarfile\nwith tarfile.open('a.tar') as tar:\n    tar.extractall('.')\n",
    "another archive": "import shutil\nshutil.unpack_archive('a.zip')\n",
    "a shell": "import subprocess\nsubprocess.run('ls', shell=True)\n",
    "the system's shell": "import os\nos.system('ls')\n",
    "eval": "eval('1')\n",
    "exec": "exec('1')\n",
    "Ray's reader of tars": "import ray.data\nray.data.read_webdataset('a.tar')\n",
}


@pytest.mark.parametrize("what", BANNED)
def test_the_linter_bans(what: str) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename", "pipeline/new.py", "-"]
    done = subprocess.run(command, input=BANNED[what], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1, done.stdout + done.stderr
    assert any(code in done.stdout for code in ("TID251", "S1", "S2", "S3", "S6")), done.stdout


def sources() -> list[Path]:
    return sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))


def test_there_is_one_exception_and_it_is_torchs_restricted_loader() -> None:
    excused = [
        (file.relative_to(ROOT).as_posix(), line.strip())
        for file in sources()
        for line in file.read_text("utf-8").splitlines()
        if "noqa: TID251" in line or "noqa: S3" in line or "noqa: S2" in line
    ]
    assert [name for name, _ in excused] == ["pipeline/teachers/checkpoint.py"]
    assert "weights_only=True" in excused[0][1]


@pytest.mark.parametrize("file", [pytest.param(file, id=file.relative_to(ROOT).as_posix()) for file in sources()])
def test_no_call_turns_a_guard_off(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        for keyword in getattr(node, "keywords", ()):
            if keyword.arg in UNSAFE and isinstance(keyword.value, ast.Constant):
                assert keyword.value.value is not UNSAFE[keyword.arg], f"{file}:{keyword.value.lineno}"


FAKE = """#!/usr/bin/env python3
import json, sys
source = sys.argv[sys.argv.index("--vulnerability-service") + 1]
answer = json.loads({answers!r}).get(source)
if answer is None:
    sys.exit("no way to it")
open(sys.argv[sys.argv.index("--output") + 1], "w").write(json.dumps({{"dependencies": answer}}))
"""
GOOD = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        ({"osv": [GOOD, GOOD]}, 0, "0 known vulnerabilities in 2 packages (osv)"),
        ({"osv": [GOOD, BAD]}, 1, "b 2: CVE-1, fixed in 3"),
        ({"osv": [UNKNOWN], "pypi": [GOOD, UNKNOWN]}, 0, "not checked: c: not found"),
        ({"pypi": [UNKNOWN]}, 0, "NOT CHECKED: no source of advisories answered."),
        ({}, 0, "NOT CHECKED"),
    ],
)
def test_an_audit_says_whether_it_could_ask(tmp_path: Path, answers: object, code: int, said: str) -> None:
    fake = tmp_path / "pip-audit"
    fake.write_text(FAKE.format(answers=json.dumps(answers)))
    fake.chmod(0o755)
    command = [sys.executable, ".ci/audit", str(fake), "constraints.txt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, said in done.stdout) == (code, True), done.stdout + done.stderr
