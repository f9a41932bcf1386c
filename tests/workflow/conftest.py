"""What the tests of the workflow share."""

import subprocess
from pathlib import Path

import pytest
from calling import Snakemake


@pytest.fixture
def snakemake(tmp_path: Path) -> Snakemake:
    caller = Snakemake(tmp_path)
    subprocess.run(["ffn", "profiles", "link"], env=caller.env, check=True, stdout=subprocess.DEVNULL)
    return caller
