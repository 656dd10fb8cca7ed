"""Commands run in the order their needs allow, some at a time; what has ended well is not run again."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from real_steps import Step


class StepError(Exception):
    """A command that did not end well; the text is a screen."""


def run_all(steps: Sequence[Step], out: Path, *, jobs: int) -> None:
    """Run what has not been run. Each command's words go to OUT/logs/NAME.log. Raises ``StepError``, once those that
    are under way have ended."""
    for folder in ("logs", "done"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    done = {step.name for step in steps if _is_done(step, out)}
    todo = [step for step in steps if step.name not in done]
    began, count = time.monotonic(), len(steps)
    running: dict[Future[None], Step] = {}
    failures: list[BaseException] = []
    with ThreadPoolExecutor(jobs) as pool:
        while running or (todo and not failures):
            while not failures and (step := _next(todo, done, list(running.values()), jobs)) is not None:
                todo.remove(step)
                _say(began, " ".join(step.words))
                running[pool.submit(_run, step, out, jobs)] = step
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                step, failure = running.pop(future), future.exception()
                failures += [failure] if failure else []
                done |= set() if failure else {step.name}
                _say(began, f"[{len(done)}/{count}] {step.name} {'FAILED' if failure else 'done'}")
    if failures:
        raise failures[0]


def seconds(step: Step, out: Path) -> float:
    """How long a command took."""
    return float(json.loads(_stamp(step, out).read_text())["seconds"])


def _next(todo: Sequence[Step], done: set[str], running: Sequence[Step], jobs: int) -> Step | None:
    """The first that may begin now, if any."""
    if len(running) >= jobs or any(step.alone for step in running):
        return None
    for step in todo:
        if done.issuperset(step.after) and not (step.alone and running):
            return step
    return None


def _run(step: Step, out: Path, jobs: int) -> None:
    program, *words = step.words
    threads = 0 if step.alone else max(1, (os.cpu_count() or 1) // jobs)
    more = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    log, began = out / "logs" / f"{step.name}.log", time.monotonic()
    with log.open("w") as file:
        command = [str(Path(sys.executable).parent / program), *words]
        code = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **more}, check=False
        ).returncode
    if code:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        ending = f"ended with {code}. The end of {log}:"
        raise StepError(f"{' '.join(step.words)}\n{ending}\n\n{tail}\n\nThe same `make real` goes on.")
    _stamp(step, out).write_text(
        json.dumps({"words": step.words, "seconds": round(time.monotonic() - began, 3), "code": _digest(step)})
    )


def _stamp(step: Step, out: Path) -> Path:
    return out / "done" / f"{step.name}.json"


def _is_done(step: Step, out: Path) -> bool:
    """Has this very command ended well before?"""
    try:
        return bool(json.loads(_stamp(step, out).read_text())["code"] == _digest(step))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _digest(step: Step) -> str:
    return hashlib.sha256(json.dumps(step.words).encode()).hexdigest()


def _say(began: float, text: str) -> None:
    minutes, seconds_ = divmod(int(time.monotonic() - began), 60)
    print(f"{minutes:3d}:{seconds_:02d}  {text}", flush=True)
