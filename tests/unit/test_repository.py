"""The repository keeps its promises: locks, conda files, Makefile, documents."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.requirements import Requirement

from ffn.cli import build_parser
from ffn.config.inference import Inference
from ffn.config.sections import Data, Network, Prepare, Region
from ffn.config.training import Training

ROOT = Path(__file__).resolve().parents[2]
ENVS = ROOT / "envs"
LOCKS = sorted(ENVS.glob("*.lock"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ENVS.glob("*.md")])
TARGETS = {"setup", "demo", "test", "test-fast", "lint", "bench", "lock", "docs", "clean", "help"}
MADE_BY_THE_READER = {"config/mine.yaml"}


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ENVS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entries(lock: Path) -> list[tuple[Requirement, list[str]]]:
    text = "".join(line for line in lock.read_text().splitlines(keepends=True) if not line.startswith("#"))
    parts = [entry.split() for entry in text.replace("\\\n", " ").splitlines() if entry.strip()]
    found = []
    for words in parts:
        hashes = [word for word in words if word.startswith("--hash=")]
        found.append((Requirement(" ".join(word for word in words if word not in hashes)), hashes))
    return found


def versions(lock: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for requirement, _ in entries(lock):
        found.setdefault(requirement.name, set()).add(str(requirement.specifier))
    return found


def direct(name: str) -> list[Requirement]:
    lines = [line.strip() for line in (ENVS / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


# --- locks


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_locked_package_has_one_version_and_hashes(lock: Path) -> None:
    assert len(entries(lock)) > 0
    for requirement, hashes in entries(lock):
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", item) for item in hashes), requirement


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_no_lock_names_an_index(lock: Path) -> None:
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted-host", lock.read_text())


@pytest.mark.parametrize(
    ("inputs", "lock"),
    [
        (["base.in", "requirements.in"], "requirements.lock"),
        (["base.in", "requirements-gpu.in"], "requirements-gpu.lock"),
        (["requirements-dev.in"], "requirements-dev.lock"),
    ],
)
def test_locks_satisfy_the_direct_dependencies(inputs: list[str], lock: str) -> None:
    locked = {name.lower(): pins for name, pins in versions(ENVS / lock).items()}
    for requirement in (r for name in inputs for r in direct(name)):
        pins = locked[requirement.name.lower()]
        assert all(requirement.specifier.contains(pin.removeprefix("==")) for pin in pins), requirement


def test_what_the_package_imports_is_a_direct_dependency() -> None:
    names = {r.name.lower().replace("_", "-") for file in ("base.in", "requirements.in") for r in direct(file)}
    # Horovod has its own lock; Keras comes with TensorFlow, in the version that fits it.
    names |= {"horovod", "keras"}
    # What Keras may run on instead of TensorFlow; imported only where it does.
    names |= {"jax"}
    distributions = packages_distributions()
    for path in (ROOT / "ffn").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                modules = [node.module]
            for module in {name.split(".")[0] for name in modules} - sys.stdlib_module_names - {"ffn"}:
                owners = {owner.lower().replace("_", "-") for owner in distributions.get(module, [])}
                assert owners & names, f"{path.relative_to(ROOT)} imports {module}, which envs/base.in does not name"


def test_locks_agree_with_each_other() -> None:
    cpu = versions(ENVS / "requirements.lock")
    for other in ("requirements-gpu.lock", "requirements-dev.lock"):
        theirs = versions(ENVS / other)
        assert {name: theirs[name] for name in cpu.keys() & theirs.keys()} == {
            name: cpu[name] for name in cpu.keys() & theirs.keys()
        }


def test_only_the_gpu_lock_brings_cuda() -> None:
    gpu, cpu = versions(ENVS / "requirements-gpu.lock"), versions(ENVS / "requirements.lock")
    assert "tensorflow-cpu" in cpu
    assert not any(name.startswith("nvidia-") for name in cpu)
    assert "tensorflow-cpu" not in gpu
    assert "nvidia-cudnn-cu12" in gpu


def test_conda_files_have_the_locked_versions() -> None:
    for file, (_, lock) in script("conda_files").FILES.items():
        content = yaml.safe_load((ENVS / file).read_text())
        (pip,) = (part["pip"] for part in content["dependencies"] if isinstance(part, dict))
        pinned = {r.name: str(r.specifier) for r in map(Requirement, pip)}
        locked = versions(ENVS / lock)
        assert all(pin in locked[name] for name, pin in pinned.items())
        assert {name for name, _ in _on_linux(ENVS / lock)} == pinned.keys()
        assert "python=3.11" in content["dependencies"]


def _on_linux(lock: Path) -> list[tuple[str, str]]:
    here = {"sys_platform": "linux", "platform_machine": "x86_64", "os_name": "posix", "python_full_version": "3.11.5"}
    here |= {"implementation_name": "cpython", "platform_python_implementation": "CPython", "python_version": "3.11"}
    return [(r.name, str(r.specifier)) for r, _ in entries(lock) if r.marker is None or r.marker.evaluate(here)]


# --- Horovod's build


def test_the_xla_operation_is_left_out(tmp_path: Path) -> None:
    listing = tmp_path / "horovod/tensorflow/CMakeLists.txt"
    listing.parent.mkdir(parents=True)
    lines = ['list(APPEND TF_SOURCES "mpi_ops.cc")\n', 'list(APPEND TF_SOURCES "xla_mpi_ops.cc")\n', "add_library(x)\n"]
    listing.write_text("".join(lines))
    build = script("build_horovod")
    build.leave_out_xla(tmp_path)
    assert listing.read_text() == lines[0] + lines[2]
    with pytest.raises(build.BuildError, match="one line"):
        build.leave_out_xla(tmp_path)


def test_what_changes_the_build_changes_its_place_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    build = script("build_horovod")
    for name in build.user_options():
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.cache_root().is_relative_to(tmp_path)
    mpicxx = tmp_path / "mpicxx"
    mpicxx.write_text("#!/bin/sh\necho g++ -lmpi\n")
    mpicxx.chmod(0o755)
    plain, with_mpi = build.cache_key(None), build.cache_key(str(mpicxx))
    monkeypatch.setenv("HOROVOD_GPU_OPERATIONS", "NCCL")
    assert len({plain, with_mpi, build.cache_key(None)}) == 3
    assert build.horovod_version() in plain
    assert sys.implementation.cache_tag in plain
    assert "HOROVOD_WITH_MPI" in build.build_environment(str(mpicxx))
    assert "HOROVOD_WITHOUT_MPI" in build.build_environment(None)


def test_a_missing_compiler_is_named_before_anything_is_built(tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, str(ENVS / "build_horovod.py"), "--check"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "g++ and make not found" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failing_build_shows_the_end_of_its_log(tmp_path: Path) -> None:
    build = script("build_horovod")
    with pytest.raises(build.BuildError, match="no such header"):
        build.run_logged(
            [sys.executable, "-c", "print('no such header'); raise SystemExit(1)"], dict(os.environ), tmp_path / "log"
        )


def test_an_unusable_python_is_refused_with_what_to_do() -> None:
    finder = str(ENVS / "find_python.sh")
    found = subprocess.run([finder, sys.executable], capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()).resolve() == Path(sys.executable).resolve()
    refused = subprocess.run([finder, "no-such-python"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "make setup PYTHON=" in refused.stderr


# --- Makefile


@pytest.fixture
def set_up(tmp_path: Path) -> Path:
    """A copy of what set-up depends on, with the stamps that a finished set-up leaves."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ENVS, tmp_path / "envs", ignore=shutil.ignore_patterns("__pycache__"))
    stamps = tmp_path / ".venv/stamps"
    stamps.mkdir(parents=True)
    (stamps.parent / "variant").write_text("cpu\n")
    for age, name in enumerate(("venv-cpu", "packages", "horovod", "profiles", "dev")):
        (stamps / name).touch()
        os.utime(stamps / name, (2e9 + age, 2e9 + age))
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "GPU"))}
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, env=environment)


def test_what_is_set_up_is_not_set_up_again(set_up: Path) -> None:
    assert make(set_up, "--question", "setup").returncode == 0
    assert make(set_up, "--question", "setup-dev").returncode == 0


def test_a_new_lock_is_installed_into_the_same_environment(set_up: Path) -> None:
    os.utime(set_up / "envs/requirements.lock", (2.1e9, 2.1e9))
    commands = make(set_up, "--dry-run", "setup").stdout
    assert "install --require-hashes -r envs/requirements.lock" in commands
    assert "-m venv" not in commands


def test_the_gpu_switch_makes_the_environment_anew_and_is_remembered(set_up: Path) -> None:
    commands = make(set_up, "--dry-run", "setup", "GPU=1").stdout
    assert "rm -rf .venv" in commands
    assert "-r envs/requirements-gpu.lock" in commands
    (set_up / ".venv/variant").write_text("gpu\n")
    (set_up / ".venv/stamps/venv-cpu").rename(set_up / ".venv/stamps/venv-gpu")
    assert make(set_up, "--question", "setup").returncode == 0
    assert "rm -rf .venv" in make(set_up, "--dry-run", "setup", "GPU=0").stdout


def test_the_makefile_has_and_explains_its_targets() -> None:
    shown = make(ROOT, "help").stdout
    assert {line.split()[1] for line in shown.splitlines() if line.startswith("  make ")} >= TARGETS


def test_continuous_integration_can_start() -> None:
    script_file = ROOT / ".ci/run"
    assert os.access(script_file, os.X_OK)
    subprocess.run(["bash", "-n", str(script_file)], check=True)
    assert "set -euo pipefail" in script_file.read_text()


# --- files and documents


def repository_files() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git repository")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_large_file_is_in_the_repository() -> None:
    assert [path for path in repository_files() if path.stat().st_size > 1_000_000] == []


def test_license_and_citation() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == "Apache-2.0"
    assert any("1905.06236" in str(reference) for reference in citation["references"])


def commands_in(path: Path) -> list[str]:
    """Lines of what a shell is given; code of other languages is not."""
    found = re.findall(r"^```([a-z]*)\n(.*?)^```", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    blocks = [block for language, block in found if language not in ("python", "snakemake")]
    return [re.sub(r"\s+#.*", "", line).strip() for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_documents_exist(path: Path) -> None:
    (subparsers,) = (action for action in build_parser()._actions if hasattr(action, "choices") and action.choices)
    assert isinstance(subparsers.choices, dict)
    makefile = (ROOT / "Makefile").read_text()
    for command in commands_in(path):
        words = command.split()
        for name in re.findall(r"(?:^|&& )make ([a-z-]+)", command):
            assert re.search(rf"^{name}:", makefile, flags=re.MULTILINE), command
        for name in re.findall(r"(?:^|&& )ffn ([a-z-]+)", command):
            assert name in subparsers.choices, command
        if "--profile" in words:
            assert (ROOT / "workflow/profiles" / words[words.index("--profile") + 1]).is_dir(), command
        for option in {"--configfile", "--config"} & set(words):
            file = words[words.index(option) + 1]
            assert file in MADE_BY_THE_READER or file == "FILE" or (ROOT / file).is_file(), command


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_in_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" not in target and not target.startswith("#"):
            assert (path.parent / target.split("#")[0]).exists(), f"{path}: {target}"


def test_keys_for_those_who_come_from_google_ffn_exist() -> None:
    text = (ROOT / "docs/guides/google_ffn.md").read_text()
    keys = re.findall(r"`((?:data|network|prepare|training|inference)\.[a-z_.]+)", text)
    assert len(keys) > 30
    known = {f"data.{name}" for name in Data.model_fields} | {f"data.test.{name}" for name in Region.model_fields}
    sections = {"network": Network, "prepare": Prepare, "training": Training, "inference": Inference}
    known |= {f"{section}.{name}" for section, model in sections.items() for name in model.model_fields}
    assert set(keys) - known == set()


def test_the_two_commands_come_first_in_the_readme() -> None:
    found = [command for command in commands_in(ROOT / "README.md") if command]
    assert found[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda path: path.stem)
def test_benchmarks_import_what_there_is(path):
    # They are run by hand, so nothing else would notice that a name has moved.
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ffn":
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name) or importlib.util.find_spec(f"{node.module}.{name.name}")
