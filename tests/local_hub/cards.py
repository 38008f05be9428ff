"""The Hub's checks of a card's metadata before it accepts a README."""

import re
from typing import Any

import yaml

FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
LICENSES = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "openrail", "other")
# The fields that each result of a `model-index` must have.
REQUIRED = (("task", "type"), ("dataset", "name"), ("dataset", "type"))


def metadata(readme: str) -> Any:
    """Returns the YAML front matter of a README; None without any. Raises `yaml.YAMLError`."""
    found = FRONT_MATTER.match(readme)
    return yaml.safe_load(found.group(1)) if found else None


def problems(readme: str) -> tuple[list[str], list[str]]:
    """Returns the errors and the warnings, in the Hub's words."""
    try:
        data = metadata(readme)
    except yaml.YAMLError as error:
        return [f"YAML Metadata Error: {error}"], []
    if data is None:
        return [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(data, dict):
        return ["YAML Metadata Error: must be of type object"], []
    errors = []
    if "license" in data and data["license"] not in LICENSES:
        errors.append(f'"license" must be one of {list(LICENSES)}')
    for name in ("tags", "datasets", "metrics"):
        value = data.get(name, [])
        if not all(isinstance(item, str) for item in (value if isinstance(value, list) else [value])):
            errors.append(f'"{name}" must be a string or an array of strings')
    return errors + _model_index_errors(data.get("model-index", [])), []


def _model_index_errors(index: Any) -> list[str]:
    if not isinstance(index, list):
        return ['"model-index" must be an array']
    errors = []
    for i, model in enumerate(index):
        if not isinstance(model.get("name"), str):
            errors.append(f'"model-index[{i}].name" is required')
        for j, result in enumerate(model.get("results", [])):
            where = f"model-index[{i}].results[{j}]"
            errors += [f'"{where}.{a}.{b}" is required' for a, b in REQUIRED if not result.get(a, {}).get(b)]
            for k, metric in enumerate(result.get("metrics", [])):
                absent = [key for key in ("type", "value") if key not in metric]
                errors += [f'"{where}.metrics[{k}].{key}" is required' for key in absent]
    return errors
