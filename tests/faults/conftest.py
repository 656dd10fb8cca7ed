"""The counts of the fault tests, and the table they make. ``make faults N=10`` runs ten times as many trials."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3_server
from tally import Fault, Tally, replace_table

_TALLY = Tally(scale=float(os.environ.get("FRAME_FAULTS", "1")))
README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Fault:
    """The fault that a test's ``@pytest.mark.fault("F01")`` names."""
    marker = request.node.get_closest_marker("fault")
    assert marker is not None, "a fault test names its fault: @pytest.mark.fault(CODE)"
    return _TALLY[marker.args[0]]


@pytest.fixture(scope="session")
def ray_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The videos of the whole builds with Ray."""
    from ray_builds import write_source

    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="session")
def ray_calm(ray_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What these builds must end as."""
    from ray_builds import write_calm

    return write_calm(ray_source, tmp_path_factory.mktemp("calm") / "cache", tmp_path_factory.mktemp("tmp"))


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """The port of a real S3 server."""
    with s3_server.serving() as port:
        yield port


@pytest.fixture
def way(server: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[s3_server.Way]:
    """The way to it, which breaks where a test says."""
    with s3_server.a_way(server) as found:
        s3_server.use(monkeypatch, found.port, tmp_path / "state")
        yield found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table; ``make faults`` puts it into README.md as well, whatever it shows."""
    if not _TALLY.faults:
        return
    terminalreporter.section("faults")
    terminalreporter.write_line(_TALLY.table())
    if os.environ.get("FRAME_FAULTS_REPORT"):
        scale = f"{_TALLY.scale:g} times the counts of `make test`"
        replace_table(
            README,
            _TALLY,
            f"`make faults N={_TALLY.scale:g}` ({scale}), {os.cpu_count()} cores, Python {platform.python_version()}.",
        )
