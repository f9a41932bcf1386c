"""Running Snakemake as a user does."""

import os
import subprocess
import sys
from pathlib import Path

import forks

ROOT = Path(__file__).resolve().parents[2]


class Snakemake:
    """Calls in a folder of its own, with the workflow's profiles linked as set-up does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE")}
        self.env["PATH"] = f"{Path(sys.executable).parent}:{self.env['PATH']}"
        self.env["XDG_CONFIG_HOME"] = str(folder / "xdg")

    def __call__(self, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """All that it says is in `stdout`."""
        return subprocess.run(
            ["snakemake", *map(str, arguments)],
            cwd=cwd or self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            start_new_session=True,
        )

    def plan(self, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """The same where no job runs: in a fork, as most of the time goes into loading Snakemake."""
        words = [str(word) for word in arguments]
        assert {"-n", "--lint"} & set(words)
        profiles = {"XDG_CONFIG_HOME": self.env["XDG_CONFIG_HOME"]}
        folder = cwd or self.folder
        done = forks.run("snakemake.cli:main", words, loaded=["ffn.workflow"], folder=folder, variables=profiles)
        done.stdout += done.stderr
        return done
