"""configs/README.md, the table of all recipes: `scripts/results.py --overview`."""

import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

import hf_geo.models  # noqa: F401  (registers the architectures)
from tests.experiments.sweeps import load
from tests.experiments.test_results import configs  # noqa: F401  (a fixture)
from tests.recipes.every import CONFIGS, FILES, OF_PAPERS, called, variants

COSTS = json.loads((CONFIGS / "costs.json").read_text())


def overview(folder: Path) -> str:
    assert load("results").main(["--overview", f"--configs={folder}"]) == 0
    return (folder / "README.md").read_text()


def test_the_table_is_of_the_recipes_as_they_are(tmp_path) -> None:
    shutil.copytree(CONFIGS, tmp_path / "configs")
    made = overview(tmp_path / "configs")
    committed = (CONFIGS / "README.md").read_text()
    assert made == committed, "run `python scripts/results.py --overview` and commit configs/README.md"
    rows = [line for line in committed.splitlines() if line.startswith("| [")]
    assert len(rows) == len(FILES)
    for path in FILES:
        (row,) = (row for row in rows if row.startswith(f"| [{path.stem}]({path.relative_to(CONFIGS)})"))
        assert f"| {', '.join(variants(path)) or 'none'} |" in row


def test_published_figures_ours_costs_and_the_command_stand_in_a_row(configs) -> None:  # noqa: F811
    # 3 * 2 GFLOP * 50,000 samples * 3 epochs at 120 GFLOP/s are 7,500 s, and at 20 TFLOP/s 45 s.
    (configs / "costs.json").write_text(
        json.dumps({"paper/a": {"gflop": 2, "samples": 50_000}, "paper/b": {"cpu_hours": 50}})
    )
    (configs / "paper" / "c.yaml").write_text("base: a.yaml")
    for name in ("a", "b", "c"):
        with (configs / "paper" / f"{name}.yaml").open("a") as file:
            file.write("\nnum_train_epochs: 3\n")
    results = "<!-- a -->\n| variant | ours |\n|---|---|\n| sgd | 91.00 ± 1.00 | 2 |\n<!-- end of a -->\n<!-- sweep-b-width -->\n<!-- sweep-sweep_c -->"
    (configs / "paper" / "RESULTS.md").write_text(results)
    text = overview(configs)
    start = "accelerate launch scripts/train.py --config configs/paper"
    what = "test_resnet on uoft-cs/cifar10, 3 epochs | sgd, fromage"
    assert (
        f"| {what} | test accuracy (%): sgd 91.5 | sgd 91.00 ± 1.00 | 2 h | 1 min | `{start}/a.yaml --variant sgd` |"
        in text
    )
    assert f"| {what} | not known | [in part](paper/RESULTS.md) | 2 days |  | `{start}/b.yaml --variant sgd` |" in text
    assert f"| {what} | not known | not run |  |  | `{start}/c.yaml --variant sgd` |" in text


def test_every_recipe_of_a_paper_has_its_cost() -> None:
    assert COSTS.keys() == {called(path) for path in OF_PAPERS}
    assert COSTS["fromage/mnist_depth"]["gflop"] == pytest.approx(2e-9 * (10 * 784**2 + 10 * 784), rel=1e-3)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        timm.create_model("cifar_resnet20")(torch.empty(1, 3, 32, 32))
    assert COSTS["subspaces/cifar10"]["gflop"] == pytest.approx(1e-9 * counter.get_total_flops(), rel=1e-3)


def test_folders_and_the_overview_exclude_each_other(capsys) -> None:
    for words in ([], ["--overview", "outputs"], ["--overview", "--walks"]):
        with pytest.raises(SystemExit):
            load("results").main(words)
        assert "name the folders of runs, or give --overview alone" in capsys.readouterr().err
