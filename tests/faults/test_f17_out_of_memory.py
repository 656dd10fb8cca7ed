"""F17: memory runs out in a decoder or in a teacher's worker: batches stay what they are, or a clip is named."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import striking
from forge import Forge
from ray_builds import ENCODING, RUN, differences
from small_videos import write_video
from tally import Fault
from test_stages import QUIET, make, run

from frame.pipeline import decode_stage
from frame.pipeline.build import finish
from frame.pipeline.decode import DecodeCage, Limits
from frame.pipeline.decode.process import Child
from frame.pipeline.prepare import resume
from frame.pipeline.store import open_cache
from frame.pipeline.store.files import writer_folder
from frame.pipeline.store.receipts import receipt_units

MIB = 1 << 20
REASONS = ("out-of-memory", "decoder-error", "decoder-crashed")


@pytest.fixture
def own_cage(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stands in for the cage of this process's decode stage."""
    cages = []

    def stand_in(cage: DecodeCage) -> DecodeCage:
        cages.append(cage)
        monkeypatch.setattr(decode_stage, "_cage", lambda: cage)
        return cage

    yield stand_in
    for cage in cages:
        cage.close()


@pytest.mark.fault("F17")
def test_a_clip_too_large_for_the_decoders_memory_is_named(fault: Fault, own_cage: Any, tmp_path: Path) -> None:
    for number, frames in enumerate((9, 12, 7)):
        write_video(tmp_path / "videos" / f"{number}.mp4", frames=frames, seed=number)
    write_video(tmp_path / "videos" / "1_large.mp4", frames=3, height=2160, width=3840)
    calm = make(tmp_path / "videos", tmp_path / "calm")
    run(calm)
    with fault.trial(0) as trial:
        struck = make(tmp_path / "videos", tmp_path / "struck")
        own_cage(DecodeCage(limits=Limits(memory=40 * MIB)))
        run(struck)
        a, b = open_cache(tmp_path / "calm"), open_cache(tmp_path / "struck")
        assert a.failed() == {}
        # What FFmpeg makes of memory that it does not get is now and then "invalid data".
        trial.undetected += b.failed().keys() != {"1_large"} or b.failed()["1_large"][0] not in REASONS
        for entry in a.index.to_pylist():
            rows = (entry["first_row"], entry["first_row"] + entry["n_frames"])
            if entry["clip"] != "1_large":
                trial.lost += not np.array_equal(a.read("test_vit.patch", *rows), b.read("test_vit.patch", *rows))


@pytest.mark.fault("F17")
def test_a_decoder_killed_for_its_memory_is_asked_again(
    fault: Fault, ray_source: Path, ray_calm: Path, own_cage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel does it, in the midst of a request; from the second time on the other decoder answers."""
    ask = Child.ask
    for seed in range(fault.count(3)):
        rng = random.Random(seed)
        due = {rng.randrange(2, 12), rng.randrange(16, 26)}  # twice in a row is the clip's own fault, and names it
        asked = iter(range(1 << 30))

        def struck(self: Child, *given: Any, due: set[int] = due, asked: Any = asked, **named: Any) -> Any:
            if next(asked) in due and given[0]["do"] in ("open", "read"):
                os.kill(self._process.pid, signal.SIGKILL)
            return ask(self, *given, **named)

        path = tmp_path / str(seed)
        prepared = make(ray_source, path, encoding=ENCODING)
        with fault.trial(seed) as trial, monkeypatch.context() as patch:
            patch.setattr(Child, "ask", struck)
            own_cage(DecodeCage())
            run(prepared)
            with writer_folder(path) as tmp:
                assert finish(path, tmp=tmp) == 0
            trial.lost += len(differences(ray_calm, path))


@pytest.mark.fault("F17")
@pytest.mark.timeout(600)
def test_a_unit_that_costs_its_teacher_three_lives_ends_the_build_with_one_screen(
    fault: Fault, ray_source: Path, ray_calm: Path, forge: Forge, tmp_path: Path
) -> None:
    """All other units are there already. The unit is made by the next build, of the same batches."""
    for seed in range(fault.count(1)):
        path, strikes = tmp_path / f"cache-{seed}", tmp_path / f"strikes-{seed}"
        (strikes / "careless").mkdir(parents=True)
        prepared = make(ray_source, path, encoding=ENCODING)
        run(prepared, list(range(1, prepared.cache.units)))
        striking.order(strikes, "teach", 0, "during", times=3)
        with fault.trial(seed) as trial:
            command = forge.start("build", path, *RUN, hook="striking:install", folder=str(strikes))
            trial.hung += command.wait() is None
            assert command.code == 1, command.said
            assert "A worker of the build died 3 times on the same unit" in command.said
            assert f"frame-cache build {path}" in command.said
            assert "Traceback" not in command.said
            assert striking.pending(strikes) == []
            assert 0 not in receipt_units(path)
            with trial.recovering():
                run(resume(path, progress=QUIET), [0])
                with writer_folder(path) as tmp:
                    assert finish(path, tmp=tmp) == 0
            trial.lost += len(differences(ray_calm, path))
