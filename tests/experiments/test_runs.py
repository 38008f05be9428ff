"""Which runs belong to a recipe, and how they compare with what was published."""

import json
from pathlib import Path

import pytest

from hf_geo.cli.recipes import read_recipe
from hf_geo.experiments.results.comparison import compare_with_published
from hf_geo.experiments.runs import FinishedRun, check_runs, common_recipe, find_runs, origin
from tests.paths import REPOSITORY

RECIPE = {
    "dataset": "uoft-cs/cifar10",
    "learning_rate": 0.1,
    "per_device_train_batch_size": 64,
    "gradient_accumulation_steps": 1,
    "columns": None,
    "max_steps": -1,
    "bf16": False,
    "seed": 42,
}
PUBLISHED = {"metric": "test_accuracy", "values": {"sgd": {"value": 91.25, "std": 0.25}}}


def make_run(folder: Path | str = "run", accuracy: float = 0.9, num_processes: int = 1, **changes) -> FinishedRun:
    settings = {"recipe": "paper/a.yaml", "variant": "sgd", "remove_unused_columns": False, **RECIPE, **changes}
    metrics = {"train_runtime": 120.0, "hardware": "an abacus", "num_processes": num_processes}
    return FinishedRun(
        Path(folder), settings, metrics | {"test_accuracy": accuracy, "test_loss": 1.0, "eval_accuracy": 0.5}
    )


def check(*runs: FinishedRun) -> None:
    common_recipe(runs)
    check_runs(runs, lambda variant: RECIPE)


ACCEPTED = {
    "as the recipe": {},
    "batch divided": {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 2, "num_processes": 2},
    "data in a folder": {"dataset": "cifar10"},
    "seed and logging": {"seed": 3, "logging_steps": 7, "save_total_limit": 2},
}
REFUSED = {
    "'run' is not a run of paper/a.yaml, variant sgd: learning_rate is 0.2 and not 0.1.": {"learning_rate": 0.2},
    "max_steps is 3 and not -1": {"max_steps": 3},
    "batch is 128 and not 64": {"num_processes": 2},
    "'run' was not made from a recipe": {"recipe": None},
}


def test_runs_that_are_not_the_recipes_are_refused() -> None:
    for changes in ACCEPTED.values():
        check(make_run(**changes))
    for message, changes in REFUSED.items():
        with pytest.raises(ValueError, match=message):
            check(make_run(**changes))


def test_a_streams_columns_are_its_batch() -> None:
    stream = {"columns": 20}
    check_runs([make_run(num_processes=2, **stream)], lambda variant: RECIPE | stream)


def test_runs_that_do_not_belong_together_are_refused(tmp_path) -> None:
    check(make_run(), make_run("other", seed=1), make_run("third", variant="adam"))
    with pytest.raises(ValueError, match=r"'run' and 'again' are runs .* with the same seed, 42, which count once"):
        check(make_run(), make_run("again"))
    with pytest.raises(ValueError, match=r"several recipes \(paper/a.yaml, paper/b.yaml\): name those of one"):
        check(make_run(), make_run(recipe="paper/b.yaml"))
    with pytest.raises(ValueError, match="holds no finished run"):
        find_runs([tmp_path])
    with pytest.raises(ValueError, match="There is no finished run in"):
        find_runs([tmp_path], in_each=False)
    with pytest.raises(ValueError, match="There is no folder"):
        find_runs([tmp_path / "gone"])


def test_finished_runs_are_found_below_folders_once(tmp_path) -> None:
    names = ["training_args.json", "train_results.json", "eval_results.json"]
    for folder, files in {"b": names, "a/deep": names, "a/checkpoint-5": names[:2]}.items():
        (tmp_path / folder).mkdir(parents=True)
        for name in files:
            (tmp_path / folder / name).write_text(json.dumps({name: folder}))
    first, second = find_runs([tmp_path, tmp_path / "a" / "deep"])
    assert [run.folder.name for run in (first, second)] == ["deep", "b"]
    assert (first.settings, first.metrics) == ({names[0]: "a/deep"}, dict.fromkeys(names[1:], "a/deep"))


def write_card(run: FinishedRun, text: str) -> FinishedRun:
    run.folder.mkdir(parents=True)
    (run.folder / "README.md").write_text(text)
    return run


def test_means_and_deviations_stand_beside_the_published_values(tmp_path) -> None:
    """Golden: 91 and 92 % have the mean 91.5 and the deviation sqrt(0.5); half the interval is 12.706 / 2."""
    card = 'model = timm.create_model("hf-hub:ada/sgd-0", pretrained=True)'
    runs = [
        write_card(make_run(tmp_path / "c", 0.904, variant="fromage"), "# A card"),
        write_card(make_run(tmp_path / "b", 0.92, seed=1), "# A card"),
        write_card(make_run(tmp_path / "a", 0.91, seed=0), card),
        make_run(tmp_path / "d", 0.7, variant=None),  # its card could not be made
    ]
    head, _, first, *others = compare_with_published(runs, PUBLISHED).splitlines()
    assert head.startswith("| variant | ours, test_accuracy (%) | n | 95 % interval | published | difference |")
    link = "[ada/sgd-0](https://huggingface.co/ada/sgd-0), not pushed"
    assert (
        first
        == f"| sgd | 91.50 ± 0.71 | 2 | 85.15 to 97.85 | 91.25 ± 0.25 | +0.25, within the interval | an abacus | 2 min | {link} |"
    )
    assert others == [
        "| as it stands | 70.00 | 1 |  | not known |  | an abacus | 2 min | not pushed |",
        "| fromage | 90.40 | 1 |  | not known |  | an abacus | 2 min | not pushed |",
    ]
    assert "| ours, test_accuracy (%) |" in compare_with_published(runs, {})
    with pytest.raises(ValueError, match="did not measure test_perplexity, which was published"):
        compare_with_published(runs, {"metric": "test_perplexity"})


def test_a_recipe_is_named_by_its_place_below_configs() -> None:
    assert origin("/home/ada/configs/paper/a.yaml", "sgd") == {"recipe": "paper/a.yaml", "variant": "sgd"}
    assert origin("/home/ada/a.yaml", None) == {"recipe": "a.yaml", "variant": None}
    assert origin(None, None) == {"recipe": None, "variant": None}


def test_published_values_are_of_recipes_and_variants_that_exist() -> None:
    papers = {path.parent.name: path for path in (REPOSITORY / "configs").glob("*/published.json")}
    assert papers.keys() == {"fromage", "riemannian-bn", "spherical"}
    for path in papers.values():
        for recipe, known in json.loads(path.read_text()).items():
            # Where the test labels are hidden, figures are of the validation images.
            part = "eval" if recipe.startswith("imagenet") else "test"
            assert known["metric"].removeprefix(f"{part}_") in ("accuracy", "loss", "perplexity", "fid")
            assert len(known["source"]) > 20
            for variant, figures in known["values"].items():
                assert read_recipe(path.parent / f"{recipe}.yaml", variant)["model"] and figures["value"] > 0
