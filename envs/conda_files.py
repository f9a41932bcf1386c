"""Write the conda files from the locks: the same versions, for Python 3.11 on 64-bit Linux.

conda brings Python, the compiler and cmake's companions; the packages come from PyPI as in the locks, because conda has
no TensorFlow build that Horovod compiles against in the same way. Run by `make lock`.
"""

import re
from pathlib import Path

from packaging.requirements import Requirement

HERE = Path(__file__).resolve().parent
PYTHON = "3.11"
PLATFORM = {
    "python_version": PYTHON,
    "python_full_version": f"{PYTHON}.0",
    "sys_platform": "linux",
    "platform_machine": "x86_64",
    "platform_system": "Linux",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}
FILES = {"ffn.yaml": ("ffn", "requirements.lock"), "gpu.yaml": ("ffn-gpu", "requirements-gpu.lock")}
HEAD = """\
# Made by `make lock` from envs/{lock}; do not edit.
# conda env create -f envs/{file} && conda activate {name}
# python envs/build_horovod.py && pip install --no-deps --no-build-isolation -e .
name: {name}
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python={python}
  - pip
  - gxx_linux-64
  - make
  - pip:
"""


def locked(path: Path) -> list[Requirement]:
    """The requirements of a lock that apply to the platform of the conda files."""
    lines = re.findall(r"^([A-Za-z0-9][^\\\n]*==[^\\\n]*)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    requirements = [Requirement(line.strip()) for line in lines]
    return [r for r in requirements if r.marker is None or r.marker.evaluate(PLATFORM)]


def conda_file(file: str) -> str:
    """The text of one conda file."""
    name, lock = FILES[file]
    pins = "".join(f"      - {r.name}{r.specifier}\n" for r in locked(HERE / lock))
    return HEAD.format(file=file, name=name, lock=lock, python=PYTHON) + pins


if __name__ == "__main__":
    for file in FILES:
        (HERE / file).write_text(conda_file(file), encoding="utf-8")
        print(f"wrote envs/{file}")
