"""How many workers a build gets, and what each claims."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from frame.pipeline.ray_pipeline import Pools
from frame.pipeline.ray_session import RaySession


def session(cpus: int, gpus: int) -> RaySession:
    return RaySession(address="here", local=True, cpus=cpus, gpus=gpus, warnings=(), logs=None)


@given(
    cpus=st.integers(1, 256),
    gpus=st.integers(1, 64),
    workers=st.none() | st.integers(1, 200),
    units=st.integers(1, 999),
)
def test_every_teacher_finds_a_place_on_a_gpu(cpus: int, gpus: int, workers: int | None, units: int) -> None:
    """Ray gives whole GPUs, or a share of one; 2.67 of them it refuses, and shares do not reach over two."""
    pools = Pools.choose(session(cpus, gpus), workers=workers, units=units)
    share = Fraction(pools.gpus).limit_denominator(1000)
    assert share.numerator == 1
    assert pools.teachers == (workers or gpus) <= gpus * share.denominator
    assert min(pools.decoders, pools.writers) >= 1


@given(cpus=st.integers(1, 256), workers=st.none() | st.integers(1, 200), units=st.integers(1, 999))
def test_without_a_gpu_there_are_no_more_workers_than_units(cpus: int, workers: int | None, units: int) -> None:
    pools = Pools.choose(session(cpus, 0), workers=workers, units=units)
    assert (pools.teachers, pools.gpus, pools.threads) == (min(workers or cpus, units), 0.0, 1)
