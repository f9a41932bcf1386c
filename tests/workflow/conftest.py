"""What the tests of the workflow share."""

from pathlib import Path

import forks
import pytest
from calling import Snakemake


@pytest.fixture
def snakemake(tmp_path: Path) -> Snakemake:
    caller = Snakemake(tmp_path)
    profiles = {"XDG_CONFIG_HOME": caller.env["XDG_CONFIG_HOME"]}
    forks.run(forks.FFN, ["profiles", "link"], variables=profiles).check_returncode()
    return caller
