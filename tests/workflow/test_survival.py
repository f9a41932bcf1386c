"""All that follows inference, through Snakemake, killed at random: processes, Snakemake itself; and twice at once."""

import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from calling import ROOT, Snakemake

from ffn.export.layer import open_layer_level
from ffn.runs import labels_in
from ffn.volumes import open_volume

RUN = Path("results/tiny")
KILLS = int(os.environ.get("FFN_KILLS", "8"))
"""More of them take longer: FFN_KILLS=60."""
AFTER = ("assemble", "agglomerate", "evaluate", "export")
pytestmark = pytest.mark.slow


def command(folder: Path) -> list[str]:
    options = ["--cores", "2", "--configfile", "config.yaml", "--rerun-incomplete", "--nolock", "--quiet"]
    targets = [str(RUN / stage / "done.json") for stage in ("evaluate", "export")]
    return ["snakemake", "--snakefile", str(ROOT / "Snakefile"), *options, "--", *targets]
