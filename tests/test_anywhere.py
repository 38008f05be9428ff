"""From anywhere: the wheel outside the clone, and a fresh clone with uv alone."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

import pytest

from hf_geo.cli.command import find_scripts
from tests.paths import REPOSITORY

pytestmark = pytest.mark.slow
SCRIPTS = {path.stem for path in find_scripts().values()}
QUICK = ("--smoke", "--model=test_resnet", "--report_to=none")
OUTSIDE = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def run(*command: str | Path, cwd: Path, status: int = 0) -> str:
    """What a command prints."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=OUTSIDE,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == status, done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel, which sees the other packages of the tests' own but not the clone."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist", cwd=REPOSITORY)
    (wheel,) = (folder / "dist").iterdir()
    venv.create(folder / "venv", with_pip=False)
    programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    run(
        sys.executable,
        "-m",
        "pip",
        f"--python={programs / 'python'}",
        "install",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=folder,
    )
    packages = sysconfig.get_path("purelib", vars={"base": str(folder / "venv")})
    Path(packages, "tests.pth").write_text(sysconfig.get_path("purelib"))  # its own .pth files have no effect there
    return programs


def test_a_wheel_needs_no_clone(programs: Path, tmp_path: Path) -> None:
    """Scripts, recipes and card templates come with it."""
    where = run(programs / "python", "-c", "import hf_geo; print(hf_geo.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(programs.parent)
    shown = run(programs / "hf-geo", "--help", cwd=tmp_path)
    assert all(f"\n  {name} " in shown for name in find_scripts())
    several = ("-m", "accelerate.commands.launch", "--cpu", "-m", "hf_geo.scripts.train")
    line = run(programs / "python", *several, "--config=quickstart_line", *QUICK, "--output_dir=line", cwd=tmp_path)
    assert "hf-geo explore line\n" in line and "hf-geo push line NAMESPACE/NAME" in line and "Card:" not in line
    assert (
        run(programs / "hf-geo", "evaluate", "--model=line", "--positions=3", cwd=tmp_path).count("line/figures/") >= 1
    )
    assert "scale-invariant: " in run(programs / "hf-geo", "inspect", "--model=test_resnet", cwd=tmp_path)
    assert "name the copy with --configs" in run(programs / "hf-geo", "results", "--overview", cwd=tmp_path, status=2)
    assert "tags:" in (tmp_path / "line" / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone, without what git does not know."""
    folder = tmp_path_factory.mktemp("fresh") / "clone"
    shutil.copytree(REPOSITORY, folder, ignore=shutil.ignore_patterns(".*", "outputs", "tests", "__pycache__"))
    return folder


def test_uv_resolves_the_scripts_of_a_fresh_clone(clone: Path, tmp_path: Path) -> None:
    """Each script's header leads to this package and what it requires."""
    scripts = (clone / "scripts").glob("*.py")
    headers = {re.split(r'\n(?=""")', path.read_text("utf-8"))[0]: path for path in scripts if path.stem in SCRIPTS}
    assert len(headers) < len(SCRIPTS)
    for path in headers.values():  # one script of each header
        tree = run("uv", "tree", "--script", path, "--cache-dir", tmp_path / "cache", cwd=tmp_path)
        assert re.search(r"^hf-geo(\[\w+\])? v0", tree, re.M) and " torch v" in tree
        extras = {name for name in ("gradio", "optuna") if f" {name} v" in tree}
        assert extras == {"explore": {"gradio"}, "sweep": {"optuna"}}.get(path.stem, set())


@pytest.mark.skipif(shutil.disk_usage(tempfile.gettempdir()).free < 12 * 2**30, reason="the environment takes 6 GiB")
def test_uv_trains_in_a_fresh_clone(clone: Path) -> None:
    """`uv run scripts/train.py` needs nothing else: it downloads what the script requires into an environment of its own."""
    recipe = ("--config=configs/quickstart.yaml", "--num_train_epochs=3")
    with tempfile.TemporaryDirectory() as cache:  # gigabytes, which pytest would keep for three more runs
        printed = run("uv", "run", "--cache-dir", cache, "scripts/train.py", *recipe, cwd=clone)
    assert "uv run scripts/push.py outputs/quickstart NAMESPACE/NAME" in printed
    assert json.loads((clone / "outputs/quickstart/eval_results.json").read_text())["test_accuracy"] > 0.9
