"""`scripts/results.py`: what finished runs and sweeps become in RESULTS.md."""

import json
from pathlib import Path

import pytest

from hf_geo.cli.run_arguments import resolve_settings
from hf_geo.experiments.results.sections import name_sweep
from tests.experiments.sweeps import Sweeps, load

RECIPE = """
model: test_resnet
dataset: uoft-cs/cifar10
per_device_train_batch_size: 64
learning_rate: 0.1
variants:
  sgd: {optim: sgd}
  fromage: {optim: fromage, learning_rate: 0.01}
"""
PUBLISHED = {"a": {"metric": "test_accuracy", "source": "Table 1.", "values": {"sgd": {"value": 91.5, "std": 0.25}}}}


@pytest.fixture
def configs(tmp_path) -> Path:
    paper = tmp_path / "configs" / "paper"
    paper.mkdir(parents=True)
    (paper / "a.yaml").write_text(RECIPE)
    (paper / "b.yaml").write_text("base: a.yaml")
    (paper / "published.json").write_text(json.dumps(PUBLISHED))
    return paper.parent


def write_run(
    configs: Path, name: str, variant: str | None, accuracy: float, recipe: str = "a", changes: dict | None = None
) -> Path:
    """Writes a finished run as train.py would leave it, with some of its settings changed."""
    words = [f"--config={configs / 'paper' / recipe}.yaml", *([f"--variant={variant}"] if variant else [])]
    settings = resolve_settings(words) | {"recipe": f"paper/{recipe}.yaml", **(changes or {})}
    folder = configs.parent / "runs" / name
    folder.mkdir(parents=True)
    trained = {"train_runtime": 120.0, "hardware": "an abacus", "num_processes": 1, "epoch": 4.0}
    (folder / "train_results.json").write_text(json.dumps(trained))
    (folder / "eval_results.json").write_text(json.dumps({"test_accuracy": accuracy, "eval_accuracy": 0.5}))
    (folder / "training_args.json").write_text(json.dumps(settings, default=str))
    (folder / "README.md").write_text("# A card")
    return folder


def gather(configs: Path, *folders: Path) -> str:
    assert load("results").main([f"--configs={configs}", *map(str, folders)]) == 0
    return (configs / "paper" / "RESULTS.md").read_text()


def test_a_section_is_replaced_and_what_people_wrote_stays(configs) -> None:
    run = write_run(configs, "sgd", "sgd", 0.5)
    path = configs / "paper" / "RESULTS.md"
    assert "Published: Table 1." in gather(configs, run)
    path.write_text("Mine above.\n" + path.read_text() + "Mine below.\n")
    other = write_run(configs, "b", None, 0.7, recipe="b")
    gather(configs, other)
    (run / "eval_results.json").write_text(json.dumps({"test_accuracy": 0.6}))
    text = gather(configs, run)
    assert text.startswith("Mine above.\n") and "Mine below.\n" in text and text.count("## a\n") == 1
    assert "| sgd | 60.00 |" in text and "50.00" not in text and "| as it stands | 70.00 |" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.2}, "is not a run of paper/a.yaml, variant sgd: learning_rate is 0.2 and not 0.1."),
        ({"recipe": "paper/c.yaml"}, "There is no recipe 'paper/c.yaml'"),
    ],
)
def test_runs_that_are_not_the_recipes_end_in_one_sentence(configs, capsys, changes: dict, message: str) -> None:
    run = write_run(configs, "run", "sgd", 0.9, changes=changes)
    with pytest.raises(SystemExit) as raised:
        gather(configs, run)
    assert raised.value.code == 2 and not (configs / "paper" / "RESULTS.md").exists()
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("results.py: error: ") and message in line


def test_a_run_that_diverged_is_not_averaged(configs, capsys) -> None:
    runs = [
        write_run(configs, f"run-{seed}", "sgd", value, changes={"seed": seed}) for seed, value in ((0, 0.9), (1, None))
    ]
    with pytest.raises(SystemExit):
        gather(configs, *runs)
    assert "run-1' is not finite, so paper/a.yaml, variant sgd has no mean: leave all" in capsys.readouterr().err


def test_a_sweep_gets_a_section_with_its_figure(tmp_path, configs) -> None:
    sweeps = Sweeps(tmp_path)
    recipe = configs / "paper" / "sweep_c.yaml"
    recipe.write_text(RECIPE)
    words = [f"--config={recipe}", f"--output_dir={sweeps.folder}", "--variants=sgd,fromage", "--lrs=0.1,0.01"]
    assert sweeps.script.main([*words, "--seeds=0,2", "--over=model_args.width=8", "--title=Rates"]) == 0
    text = gather(configs, sweeps.folder)
    assert "- sgd: `optim` sgd" in text and "- fromage: `optim` fromage" in text and "`model` test_resnet" in text
    # Golden: 0.9 and 0.92 have the mean 0.91 and the deviation 0.0141; 12.706 times the deviation / sqrt(2) is 0.1271.
    assert "## Rates" in text and "| sgd, width 8 | 91.00 ± 1.41 % (78.29 to 103.71) | learning rate 0.1 |" in text
    assert "![Rates](sweep-sweep_c-width.png)" in text and "[sweep-sweep_c-width.csv](sweep-sweep_c-width.csv)" in text
    assert all((configs / "paper" / f"sweep-sweep_c-width.{kind}").exists() for kind in ("png", "csv"))


SWEEPS = {
    "sweep-a": {"x": "learning_rate"},
    "search-a": {"x": "learning_rate", "is_search": True},
    "sweep-a-width": {"x": "learning_rate", "over": ["model_args.width"]},
    "sweep-a-by_width": {"x": "model_args.width"},
    "sweep-a-by_width-best_learning_rate": {"x": "model_args.width", "searched": ["learning_rate"]},
    "search-a-best_width": {"x": "learning_rate", "is_search": True, "searched": ["model_args.width"]},
}


def test_sweeps_over_different_fields_have_sections_of_their_own() -> None:
    assert [name_sweep("a", sweep) for sweep in SWEEPS.values()] == list(SWEEPS)
