"""Where the files beside the code are: scripts, recipes, card templates. No heavy import."""

from pathlib import Path


def resource_folder(name: str) -> Path:
    """Returns the folder `scripts`, `configs` or `model_card_templates`: of the clone, or of the installed package."""
    package = Path(__file__).resolve().parent
    is_clone = (package.parent / "pyproject.toml").is_file()
    return (package.parent if is_clone else package) / name
