"""The line of the quickstart, trained and walked, beside a plain network of the same budget."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.paths import REPOSITORY
from tests.scripts import script

RECIPE = REPOSITORY / "configs" / "subspaces" / "quickstart_line.yaml"
# Half of the epochs; what is measured and saved on the way changes no weight, and costs a third of the time.
SHORT = ("--num_train_epochs", "15", "--eval_strategy", "no", "--save_strategy", "no", "--disable_tqdm", "true")


def results(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_text())


@pytest.mark.slow
def test_the_whole_line_is_good_and_its_centre_as_good_as_a_plain_network(tmp_path: Path) -> None:
    line, plain = tmp_path / "line", tmp_path / "plain"
    train, evaluate = script("train"), script("evaluate")
    assert train(["--config", RECIPE, *SHORT, "--output_dir", line]) == 0
    assert train(["--config", RECIPE, "--variant", "plain", *SHORT, "--output_dir", plain]) == 0
    assert not (plain / "subspace.safetensors").exists()
    assert evaluate(["--model", line, "--dataset", "digits", "--positions", 11, "--ensemble"]) == 0

    walk = results(line, "evaluation.json")
    accuracies = [row["accuracy"] for row in walk["points"]]
    assert len(accuracies) == 11
    assert min(accuracies) > 0.9
    assert accuracies[5] >= results(plain, "eval_results.json")["test_accuracy"] - 0.01
    # The ends are different networks: their predictions are further apart than those of neighbours of the centre.
    assert walk["ensembles"][0]["total_variation"] > 2 * walk["ensembles"][-1]["total_variation"]
    assert Image.open(line / "figures" / "walk.png").size[0] > 1000
