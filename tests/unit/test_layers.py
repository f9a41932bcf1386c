"""Each layer of the package imports only from layers above it, by its source; what is started often loads little."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "ffn"

# From the bottom of the dependencies up; docs/architecture.md draws it.
LAYERS = [
    "errors", "geometry", "batches", "peers", "processes", "files", "bundles", "progress", "locks", "stages",
    "attempts", "blockwise",
    "config", "runs", "fingerprint", "volumes", "sources", "synthetic", "prepare", "preflight",
    "model", "training", "inference", "exchange", "assembly", "agglomeration", "evaluation", "export", "report",
    "scaling", "planning", "cluster", "workflow", "cli",
]  # fmt: skip
HEAVY = {"tensorflow", "keras", "horovod"}
MAY_BE_HEAVY = {"model", "training", "inference", "scaling"}


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE or not path.stem.startswith("__")]


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, top_level_only: bool = False) -> list[str]:
    """Dotted names that a module imports; absolute only, as ruff's settings demand."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = []
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def upward(layer: str, names: list[str]) -> set[str]:
    """Layers among the imported names that are not below or equal to `layer`."""
    used = {name.split(".")[1] for name in names if name.startswith("ffn.")} & set(LAYERS)
    return {other for other in used if LAYERS.index(other) > LAYERS.index(layer)}


def test_every_module_has_a_layer():
    assert {layer_of(path) for path in modules()} - set(LAYERS) == set()


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_no_later_layer(path):
    assert upward(layer_of(path), imports(path)) == set()


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_tensorflow_stays_in_its_layers(path):
    if layer_of(path) not in MAY_BE_HEAVY:
        assert {name.split(".")[0] for name in imports(path)} & HEAVY == set()


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda path: path.stem)
def test_commands_import_their_work_only_when_run(path):
    light = ("ffn.errors", "ffn.geometry", "ffn.attempts", "ffn.cli")
    ours = [name for name in imports(path, top_level_only=True) if name.startswith("ffn.")]
    assert [name for name in ours if not name.startswith(light)] == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_are_small(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize(
    ("module", "libraries"),
    [
        ("ffn.cli", {"numpy", "pydantic", "tqdm"}),  # every command
        ("ffn.cluster.commands", {"numpy", "pydantic", "tqdm"}),  # each question for the state of a job
        ("ffn.workflow", {"tensorflow", "matplotlib", "scipy", "zarr", "cloudvolume"}),  # each start of Snakemake
    ],
)
def test_what_is_started_often_loads_little(module, libraries):
    told = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout.split()
    assert libraries & set(loaded) == set()


def test_an_import_of_a_later_layer_is_seen():
    assert upward("volumes", ["ffn.geometry", "ffn.training.loop", "numpy"]) == {"training"}
