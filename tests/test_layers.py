"""The layers of the package: who may import whom, read from every file, and what `import hf_geo.optim` loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import PACKAGE, REPOSITORY

# The rooms from the lowest up; a room may import the rooms listed beside it, itself and the version.
ROOMS = {
    "errors": set(), "embedded": set(), "markdown": set(), "resources": set(), "scripts": {"resources"},
    "plotting": {"checkpoints"}, "optim": set(), "subspaces": set(), "losses": set(), "metrics": set(),
    "models": {"hub.downloads"},
    "data": {"embedded", "hub.retries", "metrics.perplexity"},  # one rule for the Hub's failures, one number for unscored labels
    "evaluation": {"subspaces", "metrics", "checkpoints", "markdown", "plotting"},
    "checkpoints": set(),
    "runs": {"checkpoints", "metrics", "plotting", "embedded"},
    "hub": {"runs", "checkpoints", "evaluation", "models", "markdown", "resources"},
    "training": {"optim", "subspaces", "metrics", "evaluation", "checkpoints"},
    "tasks": {"embedded", "training", "evaluation", "data", "losses", "models", "metrics", "hub.downloads"},
    "experiments": {"tasks", "training", "hub", "runs", "checkpoints", "optim", "data", "metrics", "markdown", "plotting"},
    "cli": {"embedded", "tasks", "training", "hub", "evaluation", "checkpoints", "optim", "data", "metrics", "models", "runs",
            "resources"},
    "explore": {"embedded", "cli", "tasks", "hub.contents", "resources", "runs", "evaluation", "checkpoints", "data", "models",
                "metrics", "subspaces", "plotting"},
    "integrations": {"optim", "training"},
    "launch": {"integrations"},
}  # fmt: skip
# The low layers run on torch alone (and Triton, for those who have it); a subspace's files come and go through two libraries, imported when it does.
OUTSIDE = {"optim": {"torch", "triton"}, "losses": {"torch"}, "subspaces": {"torch", "safetensors", "huggingface_hub"}}
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


def test_relative_imports_are_read():
    assert ("hf_geo", "optim", "registry", "Method") in imports(PACKAGE / "optim" / "__init__.py")


def forbidden(path: Path) -> list[str]:
    """What a file imports that its layer may not."""
    layer = layer_of(path.relative_to(REPOSITORY).with_suffix("").parts)
    modules = imports(path)
    allowed = ROOMS[layer] | {layer, "", "__version__", "errors"}
    ours = [parts for parts in modules if parts[0] == "hf_geo"]
    found = [".".join(parts) for parts in ours if not {layer_of(parts), ".".join(parts[1:3])} & allowed]
    outside = {parts[0] for parts in modules} - set(sys.stdlib_module_names) - {"hf_geo"}
    return found + sorted(outside & {"tests", "scripts"} | outside - OUTSIDE.get(layer, outside))


def test_a_file_imports_only_lower_layers():
    files = [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py"]
    assert len(files) > 90
    found = {path.relative_to(PACKAGE).as_posix(): forbidden(path) for path in files}
    assert {name: modules for name, modules in found.items() if modules} == {}


@pytest.mark.parametrize(
    ("modules", "not_loaded"),
    [
        ("hf_geo, hf_geo.optim, hf_geo.subspaces", NOT_LOADED),
        (
            "scripts.push, hf_geo.cli.user_errors",
            {"torch", "transformers", "accelerate", "datasets", "timm"},
        ),  # start at once
    ],
)
def test_a_light_import_loads_nothing_heavy(modules: str, not_loaded: set[str]):
    code = f"import {modules}, sys; print({not_loaded} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
