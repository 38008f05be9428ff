"""What the README shows works: its Python runs as it stands, its options and files exist."""

import re
import shlex

from hf_geo.cli.config import FieldParser
from hf_geo.cli.run_arguments import RUN_ARGUMENTS
from tests.paths import REPOSITORY
from tests.training.launching import launch_or_fail

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
SHELL = re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", README, re.M | re.S)


def test_python_runs(tmp_path) -> None:
    """Each block by itself, one after the other in a process that is not the tests'."""
    blocks = [block.replace('"outputs/mine"', repr(str(tmp_path))) for block in PYTHON]
    launch_or_fail("-c", f"for block in {blocks!r}: exec(block, {{'__name__': '__main__'}})")


def test_files_and_options_exist() -> None:
    known = set(FieldParser(RUN_ARGUMENTS).options)
    known |= {"--config", "--variant", "--smoke"}
    assert len(PYTHON) >= 4 and len(SHELL) >= 4  # the expressions above find what they are for
    commands = [shlex.split(line, comments=True) for block in SHELL for line in block.splitlines()]
    for words in commands:
        for word in words:
            assert not word.startswith(("scripts/", "configs/")) or (REPOSITORY / word).exists(), word
        for script in {word for word in words if word.startswith("scripts/")} - {"scripts/train.py"}:
            source = (REPOSITORY / script).read_text(encoding="utf-8")
            options = [word for word in words[words.index(script) :] if word.startswith("--")]
            assert [option for option in options if option not in known and f'"{option}"' not in source] == []
        if "scripts/train.py" in words:
            options = words[words.index("scripts/train.py") :]
            assert [word for word in options if word.startswith("--") and word not in known] == []


def test_links_to_files_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert [link for link in links if not (REPOSITORY / link).exists()] == []
    mentioned = re.findall(r"`((?:scripts|configs|tests|hf_geo)/[\w/.\-]+)`", README)
    assert mentioned and [path for path in mentioned if not (REPOSITORY / path).exists()] == []
