"""`hf-geo`: every script is a command, starts at once, and its messages say what was typed."""

import os
import resource
import subprocess
import sys

import pytest

from hf_geo.cli.command import find_scripts, main, summarize
from hf_geo.cli.recipes import recipe_file
from tests.paths import REPOSITORY
from tests.recipes.every import FILES

COMMANDS = {
    "train", "explore", "curvature", "evaluate", "merge", "inspect", "sweep", "results", "push", "card", "benchmark",
}  # fmt: skip


def test_help_names_every_command_and_starts_at_once(capsys) -> None:
    assert main(["--help"]) == main([]) == 0
    text = capsys.readouterr().out
    scripts = find_scripts()
    assert set(scripts) >= COMMANDS and all(
        f"\n  {name} " in text and summarize(scripts[name]) in text for name in scripts
    )
    code = "from hf_geo.cli.command import main; main(['--help'])"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)  # processor time, as other tests run beside this one
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.mark.parametrize(("word", "near"), [("trian", "train"), ("eval", "evaluate"), ("inspect_model", "inspect")])
def test_an_unknown_command(word: str, near: str, capsys) -> None:
    assert main([word]) == 2
    assert capsys.readouterr().err == (
        f"hf-geo: error: There is no command {word!r}: did you mean {near}? hf-geo --help lists them all.\n"
    )


def test_help_and_errors_say_what_was_typed() -> None:
    def call(*words: str) -> subprocess.CompletedProcess:
        code = (
            f"import sys; sys.argv = ['bin/hf-geo', *{words!r}]; from hf_geo.cli.command import main; sys.exit(main())"
        )
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )

    shown = call("push", "--help").stdout
    assert shown.startswith("usage: hf-geo push ") and "\n    hf-geo push runs/digits ada/digits-fromage\n" in shown
    done = call("push", "gone", "ada/digits")
    assert done.returncode == 2 and done.stderr.startswith("hf-geo push: error: ")


def test_recipes_have_names(tmp_path, monkeypatch) -> None:
    """Every recipe of the package has one, and a file of that name comes first."""
    configs = REPOSITORY / "configs"
    names = [path.relative_to(configs).with_suffix("").as_posix() for path in FILES]
    assert [recipe_file(name) for name in names] == [str(path) for path in FILES]
    assert recipe_file("snli") == recipe_file("snli.yaml") == recipe_file("ali-g/snli")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "snli").mkdir()  # a folder does not
    assert recipe_file("snli").endswith("snli.yaml")
    (tmp_path / "quickstart").touch()
    assert recipe_file("quickstart") == "quickstart"
