"""The accuracy of training batches over the last epoch, and its maximum over learning rates at each update."""

import json
from pathlib import Path

import pandas as pd
import pytest

from hf_geo.experiments.training_curves import join_rates, read_last_epoch
from tests.experiments.sweeps import Sweeps

CURVES = {"a": [0.0, 0.0, 0.2, 0.8], "b": [0.9, 0.9, 0.6, 0.4], "c": [0.1] * 4}  # two updates an epoch


def write_log(run: Path, curve: list[float]) -> None:
    run.mkdir(parents=True, exist_ok=True)
    log = [{"step": i + 1, "epoch": (i + 1) / 2, "training_accuracy": value} for i, value in enumerate(curve)]
    (run / "trainer_state.json").write_text(json.dumps({"log_history": [*log, {"step": 4, "train_loss": 1.0}]}))


def test_at_each_update_the_best_rate_counts(tmp_path) -> None:
    for name, curve in CURVES.items():
        write_log(tmp_path / name, curve)
    rows = [("adam", 0.1, "a"), ("adam", 0.01, "b"), ("sgd", 0.1, "c"), ("sgd", 1.0, "diverged")]
    table = pd.DataFrame(rows, columns=["variant", "learning_rate", "folder"])
    table["training_accuracy"] = [read_last_epoch(tmp_path / name).mean() for name in table.folder]
    assert table.training_accuracy.tolist() == pytest.approx([0.5, 0.5, 0.1, float("nan")], nan_ok=True)
    joined = join_rates(table, tmp_path, ["variant", "learning_rate"])
    assert joined.variant.tolist() == ["adam", "sgd"] and "learning_rate" not in joined
    assert joined.training_accuracy.tolist() == pytest.approx([0.7, 0.1])  # of 0.6 and 0.8


@pytest.mark.slow
def test_a_sweep_over_depths_is_ranked_by_it(tmp_path) -> None:
    sweeps = Sweeps(tmp_path)
    words = ["--variants=sgd,fromage", "--lrs=0.1,0.01", "--x=model_args.depth", "--over=model_args.depth=1,2"]
    recipe = tmp_path / "c.yaml"
    recipe.write_text("model: test_resnet\ndataset: digits\nvariants: {sgd: {optim: sgd}, fromage: {optim: fromage}}\n")
    words += [f"--config={recipe}", f"--output_dir={sweeps.folder}"]
    assert sweeps.script.main(words) == 0
    for run in sweeps.folder.glob("trials/*/run"):
        write_log(run, CURVES["a" if "learning_rate=0.1" in str(run) else "b"])
    assert sweeps.script.main([*words, "--metric=training_accuracy"]) == 0
    report = (sweeps.folder / "sweep.md").read_text()
    assert "| training_accuracy at depth | 1 | 2 |" in report
    assert "| sgd | 70.00 % | 70.00 % |" in report
