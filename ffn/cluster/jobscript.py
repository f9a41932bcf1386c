"""The script that Snakemake hands to a submit command: its properties, and a copy that outlives Snakemake."""

import hashlib
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffn.cluster.scheduler import Scheduler
from ffn.errors import ClusterError
from ffn.files import write_text

_PROPERTIES = re.compile(r"^# properties = (\{.*\})\s*$", re.MULTILINE)


@dataclass(frozen=True)
class JobScript:
    """Text of a jobscript and the job properties that Snakemake wrote into it as JSON."""

    text: str
    properties: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "JobScript":
        """Raises ClusterError if `path` is not a Snakemake jobscript."""
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ClusterError(f"The jobscript {path} cannot be read: {error.strerror}.") from error
        match = _PROPERTIES.search(text)
        if match is None:
            raise ClusterError(f"{path} has no line '# properties = {{...}}'; only Snakemake's jobscripts can be run.")
        return cls(text, json.loads(match.group(1)))

    @property
    def name(self) -> str:
        """The rule, or the group of rules that run in one job."""
        return str(self.properties.get("rule") or self.properties.get("groupid") or "job")

    @property
    def resources(self) -> Mapping[str, Any]:
        return self.properties.get("resources", {})

    def works(self, workdir: Path) -> list[str]:
        """Names of its pieces of work, one for each file that it makes: the same whichever job makes that file."""
        outputs: list[Any] = sorted(self.properties.get("output") or [])
        wholes = outputs or [[self.name, self.properties.get("input"), self.properties.get("wildcards")]]
        return [hashlib.sha256(json.dumps([str(workdir), one], sort_keys=True).encode()).hexdigest() for one in wholes]

    def install(self, target: Path, scheduler: Scheduler, ends: Path, setup: Sequence[str] = ()) -> None:
        """Write an executable copy that finds this environment's programs, and leaves its exit code in `ends`.

        Schedulers read the script when the job starts, perhaps after Snakemake has deleted its own; and a job
        does not inherit the user's environment, so PATH is set here, after the lines of `setup` (modules).
        """
        _, _, body = self.text.partition("\n")
        programs, ends = Path(sys.executable).parent, ends.resolve()
        ends.mkdir(parents=True, exist_ok=True)
        lines = [f"#!{scheduler.shell}", *setup]
        lines += [f'export PATH={shlex.quote(str(programs))}:"$PATH"', "(", body.rstrip(), ")", "code=$?"]
        lines += [f'echo "$code" > {shlex.quote(str(ends))}/"${scheduler.id_variable}"', 'exit "$code"']
        write_text(target, "\n".join(lines) + "\n")
        target.chmod(0o755)
