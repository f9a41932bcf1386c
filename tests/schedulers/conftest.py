"""Fixtures: a cluster of each kind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import SlurmCluster, StandIn, slurm_cluster, stand_in
from slurm.cluster import HINT, Slurm, missing_programs


@pytest.fixture
def cobalt(tmp_path: Path) -> StandIn:
    return stand_in("cobalt", tmp_path)


@pytest.fixture
def pbs(tmp_path: Path) -> StandIn:
    return stand_in("pbs", tmp_path)


@pytest.fixture(params=["cobalt", pytest.param("pbs", marks=pytest.mark.slow)])
def standin(request: pytest.FixtureRequest, tmp_path: Path) -> StandIn:
    """Each of the stand-ins in turn."""
    return stand_in(request.param, tmp_path)


@pytest.fixture(scope="session")
def real_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if missing := missing_programs():
        pytest.skip(f"no {', '.join(missing)} here; the tests with Slurm need {HINT}")
    slurm = Slurm(tmp_path_factory.mktemp("slurm", numbered=True) / "c")
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()


@pytest.fixture
def slurm(real_slurm: Slurm, tmp_path: Path) -> Iterator[SlurmCluster]:
    """The real Slurm, with nothing of another test in its queue."""
    yield slurm_cluster(real_slurm, tmp_path)
    real_slurm.clear()


@pytest.fixture(params=["cobalt", "pbs", "slurm"])
def cluster(request: pytest.FixtureRequest) -> StandIn | SlurmCluster:
    """Each of the schedulers in turn."""
    return request.getfixturevalue(request.param)
