"""`scripts/results.py`: what finished runs and sweeps become in RESULTS.md, and which are refused."""

import json
from pathlib import Path

import pytest

from hf_geo.cli.config import read_recipe
from tests.experiments.sweeps import Sweeps, load
from tests.paths import REPOSITORY

RECIPE = """
model: test_resnet
dataset: uoft-cs/cifar10
num_train_epochs: 2
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


def write_run(configs: Path, name: str, variant: str | None, accuracy: float, recipe: str = "a", **changes) -> Path:
    """A finished run as train.py would leave it, its settings changed afterwards."""
    results = load("results")
    words = [f"--config={configs / 'paper' / recipe}.yaml", *([f"--variant={variant}"] if variant else [])]
    settings = results.public_settings(*results.parse_command_line(results.KINDS, words)[:-1])
    settings |= {"recipe": f"paper/{recipe}.yaml", "variant": variant, "remove_unused_columns": False}
    folder = configs.parent / "runs" / name
    folder.mkdir(parents=True)
    processes, card = changes.pop("num_processes", 1), changes.pop("card", "# A card")
    trained = {"train_runtime": 120.0, "hardware": "an abacus", "num_processes": processes}
    (folder / "train_results.json").write_text(json.dumps(trained))
    (folder / "eval_results.json").write_text(json.dumps({"test_accuracy": accuracy, "eval_accuracy": 0.5}))
    (folder / "training_args.json").write_text(json.dumps(settings | changes, default=str))
    (folder / "README.md").write_text(card)
    return folder


def gather(configs: Path, *folders: Path) -> str:
    assert load("results").main([f"--configs={configs}", *map(str, folders)]) == 0
    return (configs / "paper" / "RESULTS.md").read_text()


def test_mean_and_deviation_stand_beside_the_published_figures(configs) -> None:
    """Golden: 91 and 92 % have mean 91.5 and deviation sqrt(0.5)."""
    card = 'model = timm.create_model("hf-hub:ada/sgd-0", pretrained=True)'
    write_run(configs, "sgd-0", "sgd", 0.91, seed=0, card=card)
    write_run(configs, "sgd-1", "sgd", 0.92, seed=1, logging_steps=7)
    write_run(configs, "sgd-1/checkpoint-5", "sgd", 0.1, seed=2).joinpath("eval_results.json").unlink()
    write_run(configs, "fromage", "fromage", 0.904)
    text = gather(configs, configs.parent / "runs")
    link = "[ada/sgd-0](https://huggingface.co/ada/sgd-0), not pushed"
    assert f"| sgd | 91.50 ± 0.71 | 2 | 91.50 ± 0.25 | +0.00 | an abacus | 2 min | {link} |" in text
    assert "| fromage | 90.40 | 1 | not known |  | an abacus | 2 min | not pushed |" in text
    assert text.index("| sgd |") < text.index("| fromage |") and "Published: Table 1." in text


def test_a_section_is_replaced_and_what_people_wrote_stays(configs) -> None:
    run = write_run(configs, "sgd", "sgd", 0.5)
    path = configs / "paper" / "RESULTS.md"
    gather(configs, run)
    path.write_text("Mine above.\n" + path.read_text() + "Mine below.\n")
    other = write_run(configs, "b", None, 0.7, recipe="b")
    gather(configs, other)
    (run / "eval_results.json").write_text(json.dumps({"test_accuracy": 0.6}))
    text = gather(configs, run)
    assert text.startswith("Mine above.\n") and "Mine below.\n" in text and text.count("## a\n") == 1
    assert "60.00" in text and "50.00" not in text and "| as it stands | 70.00 |" in text


def test_a_batch_may_be_divided_and_data_may_lie_in_a_folder(configs) -> None:
    run = write_run(
        configs,
        "run",
        "sgd",
        0.9,
        per_device_train_batch_size=16,
        gradient_accumulation_steps=2,
        num_processes=2,
        dataset="cifar10",
    )
    assert "| sgd | 90.00 | 1 |" in gather(configs, run)


REFUSED = {
    "settings": ({"learning_rate": 0.2}, "is not a run of paper/a.yaml, variant sgd: learning_rate is 0.2 and not 0.1."),
    "budget": ({"max_steps": 3}, "max_steps is 3 and not -1"),
    "batch": ({"num_processes": 2}, "batch is 128 and not 64"),
    "precision": ({"bf16": True}, "bf16 is True and not False"),
    "no recipe": ({"recipe": None}, "was not made from a recipe"),
    "recipe gone": ({"recipe": "paper/c.yaml"}, "There is no recipe 'paper/c.yaml'"),
    "variant gone": ({"variant": "adam"}, "has no variant 'adam': it has sgd, fromage"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_runs_that_are_not_the_recipes_are_refused(name: str, configs, capsys) -> None:
    changes, message = REFUSED[name]
    run = write_run(configs, "run", "sgd", 0.9)
    for name in ("training_args.json", "train_results.json"):
        values = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps({key: changes.get(key, value) for key, value in values.items()}))
    refused(configs, [run], message, capsys)


def refused(configs: Path, folders: list[Path], message: str, capsys) -> None:
    with pytest.raises(SystemExit) as raised:
        gather(configs, *folders)
    assert raised.value.code == 2 and not (configs / "paper" / "RESULTS.md").exists()
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_folders_that_do_not_belong_together_are_refused(configs, capsys) -> None:
    run = write_run(configs, "run", "sgd", 0.9)
    again = write_run(configs, "again", "sgd", 0.9)
    refused(configs, [run, again], "with the same seed, 42, which count once", capsys)
    write_run(configs, "b", None, 0.9, recipe="b")
    message = "These are runs of several recipes (paper/a.yaml, paper/b.yaml): name those of one."
    refused(configs, [configs.parent / "runs"], message, capsys)
    refused(configs, [configs], "holds no finished run", capsys)
    refused(configs, [configs / "gone"], "There is no folder", capsys)


PAPERS = sorted((REPOSITORY / "configs").glob("*/published.json"))


@pytest.mark.parametrize("path", PAPERS, ids=[path.parent.name for path in PAPERS])
def test_published_figures_are_of_recipes_and_variants_there_are(path: Path) -> None:
    assert {paper.parent.name for paper in PAPERS} == {"fromage", "riemannian-bn", "spherical"}
    for recipe, known in json.loads(path.read_text()).items():
        assert known["metric"] in ("test_accuracy", "test_loss", "test_perplexity") and len(known["source"]) > 20
        for variant, figures in known["values"].items():
            assert read_recipe(path.parent / f"{recipe}.yaml", variant)["model"] and figures["value"] > 0


def test_a_run_that_did_not_measure_what_was_published_is_refused(configs, capsys) -> None:
    run = write_run(configs, "run", "sgd", 0.9)
    (run / "eval_results.json").write_text('{"eval_accuracy": 0.5}')
    refused(configs, [run], "did not measure test_accuracy, which was published", capsys)


def test_a_sweep_gets_a_section_with_its_figure(tmp_path, configs) -> None:
    sweeps = Sweeps(tmp_path)
    recipe = configs / "paper" / "sweep_c.yaml"
    recipe.write_text(RECIPE)
    words = [f"--config={recipe}", f"--output_dir={sweeps.folder}", "--variants=sgd,fromage", "--lrs=0.1,0.01"]
    assert sweeps.script.main([*words, "--seeds=0,2", "--title=Rates"]) == 0
    text = gather(configs, sweeps.folder)
    assert "- sgd: `optim` sgd" in text and "- fromage: `optim` fromage" in text and "`model` test_resnet" in text
    # Golden: 0.9 and 0.92 have mean 0.91 and deviation 0.0141.
    assert "## Rates" in text and "| sgd | 91.00 ± 1.41 % | learning_rate 0.1 |" in text
    assert "![Rates](sweep-c.png)" in text and "[sweep-c.csv](sweep-c.csv)" in text
    assert (configs / "paper" / "sweep-c.png").exists() and (configs / "paper" / "sweep-c.csv").exists()
