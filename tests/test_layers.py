"""The layers of the package: who may import whom, read from every file, and what `import hf_geo.optim` loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import PACKAGE, REPOSITORY

# The rooms from the lowest up; a room may import the rooms listed beside it, itself and the version.
ROOMS = {
    "markdown": set(),
    "optim": set(),
    "subspaces": set(),
    "losses": set(),
    "metrics": set(),
    "models": set(),
    "data": {"hub.retries"},  # reading data and pushing runs meet the same Hub
    "evaluation": {"subspaces", "metrics", "markdown"},
    "checkpoints": set(),
    "runs": {"checkpoints", "markdown"},
    "hub": {"runs", "checkpoints", "evaluation", "models", "markdown"},
    "training": {"optim", "subspaces", "metrics", "evaluation", "checkpoints"},
    "tasks": {"data", "losses", "models", "metrics"},
    "experiments": {"tasks", "training", "hub", "runs", "checkpoints", "optim", "data", "metrics", "markdown"},
    "cli": {"training", "checkpoints", "optim", "data", "models", "runs"},
    "integrations": {"optim", "training"},
    "launch": {"integrations"},
}
# The low layers run on torch alone; a subspace's files come and go through two libraries, imported when it does.
OUTSIDE = {"optim": {"torch"}, "losses": {"torch"}, "subspaces": {"torch", "safetensors", "huggingface_hub"}}
NOT_LOADED = {"transformers", "accelerate", "datasets", "timm", "evaluate", "safetensors", "huggingface_hub"}


def imports(path: Path) -> set[tuple[str, ...]]:
    """Every module that a file imports, anywhere in it, as the parts of its absolute name."""
    here = path.relative_to(REPOSITORY).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: -node.level] if node.level else ()
            module = base + tuple((node.module or "").split(".")) if node.module else base
            found |= {(*module, alias.name) for alias in node.names}
    return found


def layer_of(parts: tuple[str, ...]) -> str:
    """The layer that `hf_geo.<layer>...` belongs to; empty for the package itself."""
    return parts[1] if len(parts) > 1 else ""


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)


def test_relative_imports_are_read():
    assert ("hf_geo", "optim", "registry", "Method") in imports(PACKAGE / "optim" / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=[str(f.relative_to(PACKAGE)) for f in FILES])
def test_a_file_imports_only_lower_layers(path: Path):
    layer = layer_of(path.relative_to(REPOSITORY).with_suffix("").parts)
    assert layer in ROOMS, f"{layer} has no place in the layers"
    modules = imports(path)
    ours = {parts for parts in modules if parts[0] == "hf_geo"}
    allowed = ROOMS[layer] | {layer, "", "__version__"}
    assert not [parts for parts in ours if not {layer_of(parts), ".".join(parts[1:3])} & allowed]
    outside = {parts[0] for parts in modules} - set(sys.stdlib_module_names) - {"hf_geo"}
    assert not outside & {"tests", "scripts"}
    assert outside <= OUTSIDE.get(layer, outside)


@pytest.mark.parametrize("module", ["hf_geo", "hf_geo.optim", "hf_geo.subspaces"])
def test_the_low_layers_load_no_training_stack(module: str):
    code = f"import {module}, sys; print({NOT_LOADED} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
