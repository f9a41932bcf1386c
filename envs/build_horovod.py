"""Build Horovod once, keep the wheel in the user's cache and install it into the running Python's environment.

Horovod publishes no wheels, and its last release does not compile against a current TensorFlow as it is: one source
file, its XLA operation, needs headers that the TensorFlow wheel does not carry. That file is left out; the
workflow does not use XLA together with Horovod. Where an MPI compiler is on the PATH, Horovod gets MPI; without one
it runs on Gloo, which it carries itself. Any HOROVOD_* variable that is set (HOROVOD_GPU_OPERATIONS=NCCL, say) is
passed on and gets its own place in the cache.

Run by `make setup`; by hand: `.venv/bin/python envs/build_horovod.py`.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOCK = HERE / "horovod.lock"
XLA_SOURCE = "xla_mpi_ops.cc"
GB_PER_COMPILER = 2
NEWS_EVERY_S = 30.0
TAIL_LINES = 30
BUILD_OPTIONS = {
    "HOROVOD_WITH_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_PYTORCH": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_WITH_GLOO": "1",
    # CMake 4 refuses the minimum that the bundled Gloo asks for.
    "CMAKE_POLICY_VERSION_MINIMUM": "3.5",
}


class BuildError(Exception):
    """The build cannot start or failed; the text says what to do."""


def horovod_version() -> str:
    """The pinned version, read from the lock."""
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if line.startswith("horovod=="):
            return line.removeprefix("horovod==").rstrip(" \\")
    raise BuildError(f"{LOCK} does not pin horovod.")


def tensorflow_build() -> str:
    """Name and version of the installed TensorFlow distribution, e.g. `tensorflow_cpu-2.21.0`."""
    for name in ("tensorflow-cpu", "tensorflow"):
        try:
            return f"{name.replace('-', '_')}-{version(name)}"
        except PackageNotFoundError:
            continue
    raise BuildError("TensorFlow is not installed in this environment: run `make setup` from the repository's root.")


def user_options() -> dict[str, str]:
    """The HOROVOD_* variables of the caller, which change what is built."""
    return {key: value for key, value in sorted(os.environ.items()) if key.startswith("HOROVOD_")}


def transport(mpicxx: str | None) -> str:
    """`gloo`, or `mpi-` and a short hash that tells one MPI installation from another."""
    if mpicxx is None:
        return "gloo"
    shown = subprocess.run([mpicxx, "-show"], capture_output=True, text=True, check=False).stdout
    return "mpi-" + hashlib.sha256(f"{Path(mpicxx).resolve()} {shown}".encode()).hexdigest()[:8]


def cache_key(mpicxx: str | None) -> str:
    """All that a wheel depends on, as a folder name."""
    libc = "".join(platform.libc_ver()) or "libc"
    parts = [
        f"horovod-{horovod_version()}",
        tensorflow_build(),
        sys.implementation.cache_tag,
        f"{sysconfig.get_platform()}-{libc}",
        transport(mpicxx),
    ]
    if user_options():
        parts.append(hashlib.sha256(repr(user_options()).encode()).hexdigest()[:8])
    return "_".join(parts)


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/ffn-workflow/horovod`, by default below `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ffn-workflow" / "horovod"


def check_tools() -> None:
    """Refuse early where the build would fail late for want of a compiler."""
    compiler = os.environ.get("CXX", "g++")
    missing = [tool for tool in (compiler, "make") if shutil.which(tool) is None]
    if missing:
        raise BuildError(
            f"{' and '.join(missing)} not found, needed to compile Horovod. Install a C++ compiler and make "
            "(Debian, Ubuntu: `apt-get install g++ make`; Fedora: `dnf install gcc-c++ make`; cluster: "
            "`module load gcc`), or name the compiler: `CXX=/path/to/g++ make setup`."
        )


def parallel_compilers() -> int:
    """One compiler a core, as far as the memory reaches."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return max(1, min(len(os.sched_getaffinity(0)), int(memory_gb // GB_PER_COMPILER)))


def build_environment(mpicxx: str | None) -> dict[str, str]:
    """The caller's environment with the build's options; what the caller set wins."""
    scripts = sysconfig.get_path("scripts")
    environment = {key: value for key, value in os.environ.items() if key not in {"MAKELEVEL", "MFLAGS"}}
    environment["PATH"] = scripts + os.pathsep + environment.get("PATH", "")
    # An outer make's MAKEFLAGS would take Horovod's parallel build away.
    environment["MAKEFLAGS"] = f"-j{parallel_compilers()}"
    chosen = BUILD_OPTIONS | {"HOROVOD_WITHOUT_MPI" if mpicxx is None else "HOROVOD_WITH_MPI": "1"}
    return {**chosen, **environment, "HOROVOD_CMAKE": str(Path(scripts) / "cmake")}


def leave_out_xla(source: Path) -> None:
    """Drop the one line that adds the XLA operation to the build."""
    listing = source / "horovod" / "tensorflow" / "CMakeLists.txt"
    lines = listing.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if XLA_SOURCE not in line]
    if len(kept) != len(lines) - 1:
        raise BuildError(f"Expected one line with {XLA_SOURCE} in {listing.name}, found {len(lines) - len(kept)}.")
    listing.write_text("".join(kept), encoding="utf-8")


def run_logged(command: list[str], environment: dict[str, str], log: Path) -> None:
    """Run a command with its output in `log`, saying now and then that it still runs."""
    began = time.monotonic()
    with log.open("a", encoding="utf-8") as out:
        print("$ " + " ".join(command), file=out, flush=True)
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
        while True:
            try:
                code = process.wait(timeout=NEWS_EVERY_S)
                break
            except subprocess.TimeoutExpired:
                print(f"Horovod: still building after {time.monotonic() - began:.0f} s", flush=True)
    if code != 0:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:])
        raise BuildError(f"`{' '.join(command[:5])} ...` failed (exit code {code}). The end of {log}:\n{tail}")


def build_wheel(work: Path, log: Path, mpicxx: str | None) -> Path:
    """Download, unpack, change, compile and try out; the wheel ends in `work/wheel`."""
    environment = build_environment(mpicxx)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    isolated = ["--no-deps", "--no-build-isolation"]
    sources = ["--no-binary", "horovod", "--require-hashes", "-r", str(LOCK), "--dest", str(work / "sdist")]
    run_logged([*pip, "download", *isolated, *sources], environment, log)
    (archive,) = (work / "sdist").glob("horovod-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(work / "source", filter="data")
    (source,) = (work / "source").iterdir()
    leave_out_xla(source)
    run_logged([*pip, "wheel", *isolated, "--wheel-dir", str(work / "wheel"), str(source)], environment, log)
    (wheel,) = (work / "wheel").glob("horovod-*.whl")
    trial = work / "trial"
    run_logged([*pip, "install", "--no-deps", "--no-index", "--target", str(trial), str(wheel)], environment, log)
    loaded = environment | {"PYTHONPATH": str(trial)}
    run_logged([sys.executable, "-c", "import horovod.tensorflow"], loaded, log)
    return wheel


def cached_wheel(root: Path) -> Path:
    """The wheel for this environment, built first where the cache has none."""
    mpicxx = shutil.which("mpicxx")
    home = root / cache_key(mpicxx)
    sys.path.insert(0, str(HERE.parent))  # conda's users build Horovod before they install the package
    from ffn.files import atomic_path
    from ffn.locks import lock

    with lock(home.with_name(home.name + ".lock"), waits=True):
        found = list(home.glob("*.whl"))
        if found:
            print(f"Horovod: using the wheel kept in {home}", flush=True)
            return found[0]
        check_tools()
        log = home.with_name(home.name + ".log")
        log.unlink(missing_ok=True)
        over = "Gloo (no mpicxx on the PATH)" if mpicxx is None else f"Gloo and MPI ({mpicxx})"
        print(f"Horovod: compiling {horovod_version()} with {over}, once for all environments; 2 to 6 minutes.")
        print(f"Horovod: log in {log}", flush=True)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="build-", dir=root) as folder:
            wheel = build_wheel(Path(folder), log, mpicxx)
            with atomic_path(home) as partial:
                shutil.copytree(wheel.parent, partial)
        print(f"Horovod: built in {time.monotonic() - began:.0f} s, kept in {home}", flush=True)
        return home / wheel.name


def install(wheel: Path) -> None:
    """Install the wheel alone; what it depends on is in the requirements lock."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    done = subprocess.run([*pip, "--no-deps", "--no-index", "--force-reinstall", str(wheel)], check=False)
    if done.returncode != 0:
        raise BuildError(f"pip could not install {wheel} (its message is above). Delete that file to build it anew.")


def main() -> int:
    """Check the tools, or build and install; returns the exit code."""
    parser = argparse.ArgumentParser(description="Build Horovod once, keep the wheel, install it.")
    parser.add_argument("--check", action="store_true", help="only check that a build could start")
    args = parser.parse_args()
    try:
        if args.check:
            if not list(cache_root().glob("*/*.whl")):
                check_tools()
        else:
            install(cached_wheel(cache_root()))
    except BuildError as error:
        print(f"Horovod: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
