"""Processes for tests that need many: forks of one that has loaded the libraries, which takes seconds, once for all.

    forks.run("killed_tile:main", *arguments)

calls that function in a process of its own and returns what `subprocess.run` would. A fork has the memory, the threads
and the open files of a process that has done nothing but import.
"""

import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FFN = "ffn.cli:main"
TRAINING = ("ffn.training.run",)
"""What `ffn train` imports, TensorFlow among it."""


def environment() -> dict[str, str]:
    """The environment of these tests' processes: this source tree and its programs, no launcher's variables, no GPU."""
    launchers = ("HOROVOD", "OMPI", "PMI", "PMIX", "SLURM", "MV2", "ALPS", "PALS", "SNAKEMAKE")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(launchers)}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}


def run(function: str, *arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """Make one `call`, and wait for its end."""
    [done] = together(call(function, *arguments, **options))
    return done


def call(
    function: str,
    *arguments: Any,
    loaded: Sequence[str] = (),
    folder: Path = ROOT,
    variables: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A call of a function, to be made in a fork.

    Args:
        function: `module:name`; the module is imported before the fork. It returns the exit status or None.
        arguments: Of JSON's types; paths become text.
        loaded: Other modules that are imported before.
        folder: Where it works.
        variables: Of the environment, beyond `environment()`.
    """
    return {
        "function": function,
        "arguments": arguments,
        "loaded": loaded,
        "folder": folder,
        "variables": variables or {},
    }


def together(*calls: dict[str, Any]) -> list[subprocess.CompletedProcess[str]]:
    """Make all calls at once, each in a process of its own, and wait for all."""
    parent = _parent()
    print(json.dumps(calls, default=os.fspath), file=parent.stdin, flush=True)
    return [subprocess.CompletedProcess(**done) for done in json.loads(parent.stdout.readline())]  # type: ignore[union-attr]


def ffn(*words: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command `ffn` with these words, in a fork that has TensorFlow."""
    return run(FFN, [os.fspath(word) for word in words], loaded=TRAINING, **options)


@functools.cache
def _parent() -> "subprocess.Popen[str]":
    """The process that is forked. It ends with this one, whose end of the pipe is closed then."""
    return subprocess.Popen(
        [sys.executable, __file__], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


class Fork:
    """A call in a process of its own."""

    def __init__(
        self, function: str, arguments: list[Any], loaded: list[str], folder: str, variables: dict[str, str]
    ) -> None:
        for module in loaded:
            importlib.import_module(module)
        module, _, name = function.partition(":")
        called = getattr(importlib.import_module(module), name)
        self._function = function
        self._texts = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115  (read when the process has ended)
        self._process = os.fork()
        if self._process == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for descriptor, text in enumerate(self._texts, start=1):
                os.dup2(text.fileno(), descriptor)
            os.environ.update(variables)
            os.chdir(folder)
            os._exit(_status(called, arguments))

    def ended(self) -> dict[str, Any]:
        """Wait for its end; the attributes of a `subprocess.CompletedProcess`."""
        status = os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])
        said = []
        for text in self._texts:
            with text:
                text.seek(0)
                said.append(text.read())
        return {"args": self._function, "returncode": status, "stdout": said[0], "stderr": said[1]}


def _status(called: Callable[..., int | None], arguments: list[Any]) -> int:
    """The exit status, as Python has it for a program."""
    try:
        status = called(*arguments) or 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    # What a killed process leaves in the folder for temporary files ends with the last of them.
    with tempfile.TemporaryDirectory() as tempfile.tempdir:
        for line in sys.stdin:
            forks = [Fork(**asked) for asked in json.loads(line)]
            print(json.dumps([fork.ended() for fork in forks]), flush=True)
