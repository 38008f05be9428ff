"""What the READMEs show works: their Python runs as it stands, their commands run, options, files and links exist."""

import re
import shlex
from pathlib import Path

import pytest

from hf_geo.cli.config import FieldParser
from hf_geo.cli.run_arguments import RUN_ARGUMENTS
from tests.paths import REPOSITORY
from tests.training.launching import launch_or_fail

READMES = {
    folder: (REPOSITORY / folder / "README.md").read_text(encoding="utf-8")
    for folder in ("", "configs", "scripts", "tests")
}
PACKAGE = "".join(path.read_text(encoding="utf-8") for path in sorted((REPOSITORY / "hf_geo").rglob("*.py")))
SHELL = "bash|sh|shell|console"


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```(?:{language})\n(.*?)^```", text, re.M | re.S)


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line, comments=True) for block in blocks(SHELL, text) for line in block.splitlines()]


def test_python_runs(tmp_path) -> None:
    """Each block by itself, one after the other in a process that is not the tests'."""
    found = [block for text in READMES.values() for block in blocks("python", text)]
    assert len(found) >= 4  # the expressions find what they are for
    found = [block.replace('"outputs/mine"', repr(str(tmp_path))) for block in found]
    launch_or_fail("-c", f"for block in {found!r}: exec(block, {{'__name__': '__main__'}})")


@pytest.mark.slow
def test_the_first_readme_s_commands_run(hub) -> None:
    """In a folder of their own, in their order, but for the installation, the tests and what waits for a visitor."""
    left_out = ("python3", "-m", "scripts/explore.py", "configs/subspaces/quickstart_line.yaml")
    run = [words for words in commands(READMES[""]) if not set(left_out) & set(words)]
    assert len(run) >= 4
    lines = [shlex.join("ada/digits" if word == "NAMESPACE/NAME" else word for word in words) for words in run]
    links = [f"ln -s {shlex.quote(str(REPOSITORY / name))} {name}" for name in ("configs", "scripts")]
    call = "import subprocess, sys; sys.exit(subprocess.call(['bash', '-ec', sys.argv[1]]))"
    hub.run(["-c", call, "\n".join([*links, *lines])], token=hub.write_token)
    assert hub.store.find("model", "ada/digits") is not None


@pytest.mark.parametrize("folder", READMES)
def test_files_and_options_exist(folder: str) -> None:
    known = set(FieldParser(RUN_ARGUMENTS).options)
    known |= {"--config", "--variant", "--smoke"}
    for words in commands(READMES[folder]):
        for word in words:
            assert not word.startswith(("scripts/", "configs/")) or (REPOSITORY / word).exists(), word
        for script in {word for word in words if word.startswith("scripts/")} - {"scripts/train.py"}:
            source = (REPOSITORY / script).read_text(encoding="utf-8") + PACKAGE
            options = [word for word in words[words.index(script) :] if word.startswith("--")]
            assert [option for option in options if option not in known and f'"{option}"' not in source] == []
        if "scripts/train.py" in words:
            options = words[words.index("scripts/train.py") :]
            assert [word for word in options if word.startswith("--") and word not in known] == []


@pytest.mark.parametrize("folder", READMES)
def test_links_to_files_lead_somewhere(folder: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", READMES[folder]) if "://" not in link]
    assert links and [link for link in links if not Path(REPOSITORY, folder, link).exists()] == []
    mentioned = re.findall(r"`((?:scripts|configs|tests|hf_geo)/[\w/.\-]+)`", READMES[folder])
    assert [path for path in mentioned if not (REPOSITORY / path).exists()] == []
