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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FFN = "ffn.cli:main"
TRAINING = ("ffn.training.run",)
"""What `ffn train` imports, TensorFlow among it."""


def environment() -> dict[str, str]:
    """The environment of a process of these tests: this source tree, no launcher's variables, no GPU."""
    launchers = ("HOROVOD", "OMPI", "PMI", "PMIX", "SLURM", "MV2", "ALPS", "PALS")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(launchers)}
    return {**kept, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}


def run(
    function: str, *arguments: Any, loaded: Sequence[str] = (), folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Call a function in a fork.

    Args:
        function: `module:name`; the module is imported before the fork. It returns the exit status or None.
        arguments: Of JSON's types; paths become text.
        loaded: Other modules that are imported before.
        folder: Where it works.
    """
    parent = _parent()
    asked = {"function": function, "arguments": arguments, "loaded": loaded, "folder": str(folder)}
    print(json.dumps(asked, default=os.fspath), file=parent.stdin, flush=True)
    return subprocess.CompletedProcess(**json.loads(parent.stdout.readline()))  # type: ignore[union-attr]


def ffn(*words: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command `ffn` with these words, in a fork that has TensorFlow."""
    return run(FFN, [os.fspath(word) for word in words], loaded=TRAINING, **options)


@functools.cache
def _parent() -> "subprocess.Popen[str]":
    """The process that is forked. It ends with this one, whose end of the pipe is closed then."""
    return subprocess.Popen(
        [sys.executable, __file__], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _forked(function: str, arguments: list[Any], loaded: list[str], folder: str) -> dict[str, Any]:
    for module in loaded:
        importlib.import_module(module)
    module, _, name = function.partition(":")
    called = getattr(importlib.import_module(module), name)
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            os.chdir(folder)
            os._exit(_status(called, arguments))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        errors.seek(0)
        return {"args": function, "returncode": status, "stdout": output.read(), "stderr": errors.read()}


def _status(called: Callable[..., int | None], arguments: list[Any]) -> int:
    """The exit status, as Python has it for a program."""
    try:
        status = called(*arguments) or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(_forked(**json.loads(line))), flush=True)
