"""Recipes: each one is made of existing parts, builds a model, data and an optimizer, and runs.

Each test goes over all recipes and lists those that break its law.
"""

import csv
import json
from pathlib import Path

import pytest

from hf_geo.runs.folder import default_output_dir
from tests.local_hub import LocalHub
from tests.recipes.every import ALL, ALL_OF_PAPERS, OF_PAPERS, called, settings, variants
from tests.recipes.stand_ins import write_all

HERE = Path(__file__).parent
BATCHES = [OF_PAPERS[i : i + 7] for i in range(0, len(OF_PAPERS), 7)]  # of one process each


def in_cells(networks: str, **data: str) -> set[str]:
    """Names such as "cifar10_vgg13" of every data set with its networks, given as words; "*" stands for `networks`."""
    return {f"{name}_{network}" for name, words in data.items() for network in words.replace("*", networks).split()}


FILES_OF_PAPERS = {
    "fromage": {"cifar10", "cifar10_gan", "imagenet", "mnist_depth", "wikitext2"},
    "ali-g": {"svhn", "imagenet", "snli", "dnc"} | in_cells("wrn densenet", cifar10="*", cifar100="*", cifar_train="*"),
    "spherical": in_cells("resnet18 vgg16", cifar10="* resnet20", cifar100="*", svhn="*", imagenet="resnet18"),
    "riemannian-bn": in_cells(
        "vgg13 vgg19", cifar10="* wrn_28_10 wrn_40_10", cifar100="* wrn_28_10 wrn_40_10", svhn="* wrn_16_4 wrn_22_8"
    ),
    "subspaces": {"cifar10", "tinyimagenet", "imagenet"},
}
OTHERS = {"fromage/wikitext2_line", "fromage/digits_depth"}  # which are in no paper
METHODS_OF_PAPERS = {
    "ali-g": {"alig"},
    "spherical": {"sgd", "sgdmrt", "adam", "adams", "adamsrt"},
    "riemannian-bn": {"sgd", "sgdg", "adamg"},
    "subspaces": {"standard", "swa", "line", "line_layerwise", "curve", "simplex", "simplex_layerwise"},
}


def test_each_table_of_a_paper_has_its_recipes_and_methods() -> None:
    files = {paper: {path.stem for path in OF_PAPERS if path.parent.name == paper} for paper in FILES_OF_PAPERS}
    assert all(files[paper] >= names for paper, names in FILES_OF_PAPERS.items())
    for paper in ("ali-g", "spherical", "riemannian-bn"):  # papers of one table, which is reproduced as a whole
        assert files[paper] == FILES_OF_PAPERS[paper]
    missing = {
        called(path): METHODS_OF_PAPERS[path.parent.name] - set(variants(path))
        for path in OF_PAPERS
        if path.parent.name in METHODS_OF_PAPERS
    }
    assert not {name: methods for name, methods in missing.items() if methods}
    for path in (path for path in OF_PAPERS if path.parent.name == "spherical"):
        beyond = set(variants(path)) - METHODS_OF_PAPERS["spherical"]
        assert beyond == (set() if "imagenet" in path.stem else {"adamw", "adamg"}), called(path)


def test_settings_are_the_published() -> None:
    """Of the authors' repositories; what a variant has from its recipe stands in the recipe's own rows alone."""
    with (HERE / "published_settings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    files = {called(path): path for path in OF_PAPERS}
    wrong = []
    for row in rows:
        found = settings(files[row["recipe"]], row["variant"] or None).get(row["key"])
        if found != json.loads(row["value"]):
            wrong.append((*row.values(), found))
    assert not wrong
    assert {row["recipe"] for row in rows} == set(files) - OTHERS


def test_every_variant_changes_something() -> None:
    """At most one variant of a file is the file's own setting under its name."""
    unchanged = {
        called(path): [name for name in variants(path) if settings(path, name).items() <= settings(path, None).items()]
        for path in OF_PAPERS
    }
    assert not {name: same for name, same in unchanged.items() if len(same) > 1}


def test_no_two_recipes_write_into_one_folder() -> None:
    owners: dict[str, list[str]] = {}
    for name, pair in ALL_OF_PAPERS.items():
        values = settings(*pair)
        folder = default_output_dir(values.get("output_dir"), values["model"], values["dataset"], values["optim"])
        owners.setdefault(folder, []).append(name)
    for names in owners.values():
        (path, _), *others = pairs = [ALL_OF_PAPERS[name] for name in names]
        assert all(other == path for other, _ in others), names
        assert all(settings(*pair) == settings(*pairs[0]) for pair in pairs), names


def test_clipping_and_schedule_are_given() -> None:
    """Neither is left to transformers' defaults, which no paper uses: a norm of 1 and a line down to zero."""
    unsaid = []
    for name, pair in ALL_OF_PAPERS.items():
        values = settings(*pair)
        has_schedule = "milestones" in values or "lr_scheduler_type" in values
        if not has_schedule or not (
            "max_grad_norm" in values or values["optim"] in ("fromage", "alig", "sgdg", "adamg")
        ):
            unsaid.append(name)
    assert not unsaid


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub with stand-ins for the data sets that recipes name."""
    seeds = tmp_path_factory.mktemp("seeds")
    write_all(seeds)
    with LocalHub(tmp_path_factory.mktemp("hub"), seeds=seeds) as running:
        yield running


def reports(done) -> list[dict]:
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]


@pytest.fixture(scope="module")
def built(hub, tmp_path_factory) -> dict[str, dict]:
    words = [f"{path}:{variant or ''}" for path, variant in ALL.values()]
    done = hub.run([HERE / "build.py", tmp_path_factory.mktemp("unused"), *words])
    return {called(Path(found["recipe"]), found["variant"]): found for found in reports(done)}


OPTIMIZERS = {
    "fromage": "Fromage", "alig": "AliG", "adamsrt": "AdamSRT", "adams": "AdamS", "sgdmrt": "SGDMRT", "sgdg": "SGDG",
    "adamg": "AdamG", "sgd": "SGD", "adam": "Adam", "adamw_torch": "AdamW", "adamw_torch_fused": "AdamW",
    "adagrad": "Adagrad", "rmsprop": "RMSprop", "lars": "Lars", "lamb": "Lamb", "timm:muon": "Muon",
}  # fmt: skip
POINTS = {None: 1, "line": 2, "curve": 3, "simplex": 3}


def test_model_data_and_optimizer_are_built(built) -> None:
    expected, found = {}, {}
    for name, pair in ALL.items():
        values = settings(*pair)
        points = values.get("num_points", POINTS[values.get("subspace")])
        expected[name] = OPTIMIZERS[values["optim"]], points, True
        made = built[name]
        found[name] = made["optimizer"], round(made["points"]), {"train", "eval"} <= set(made["splits"])
        assert abs(made["points"] - round(made["points"])) < 0.11
    assert found == expected


BUILT = {
    "riemannian-bn/cifar10_wrn_28_10 sgdg": {"groups": {"geometry": 0.2, "rest": 0.01, "no_decay": 0.01}},
    "riemannian-bn/cifar10_vgg13 adamg": {"groups": {"geometry": 0.05, "rest": 0.01, "no_decay": 0.01}},
    "riemannian-bn/svhn_wrn_16_4 adamg": {"groups": {"geometry": 0.005, "rest": 0.001, "no_decay": 0.001}},
    "riemannian-bn/cifar10_wrn_40_10": {"parameters": 55_841_754},
    "spherical/cifar10_resnet20 adamsrt": {"parameters": 272_474},
    "ali-g/cifar100_densenet": {"parameters": 1_901_930 - 10 + 90 * 440},
    "ali-g/imagenet": {"loss": "truncated-top-k", "parameters": 11_689_512},
    "ali-g/snli sgd_hinge": {
        "loss": "crammer-singer",
        "parameters": 47_155_715 + 300 * (4 + 13),
    },  # special ones and words
    "subspaces/imagenet line": {"parameters": 68_883_240},
    "fromage/mnist_depth": {"parameters": 10 * (784 * 784 + 784) + 7850},
}


def test_groups_and_sizes_are_the_papers(built) -> None:
    assert {name: {key: built[name][key] for key in values} for name, values in BUILT.items()} == BUILT


def test_training_and_validation_parts_are_the_published(built) -> None:
    """The stand-ins have 5,100 and 6,100 images to hold out from, so what is held out is the published number."""
    data = built["ali-g/svhn"]["data"]
    assert "from split 'train' and all of split 'extra'" in data and "from split 'train' held out" in data
    assert "split 'test'" in built["riemannian-bn/cifar10_vgg13"]["data"].partition("eval:")[2].partition(";")[0]
    assert "split 'valid'" in built["subspaces/tinyimagenet"]["data"]
    assert "the labels of split 'test' are hidden" in built["subspaces/imagenet"]["data"]


@pytest.mark.slow
@pytest.mark.parametrize("files", BATCHES, ids=lambda files: f"{called(files[0])} to {called(files[-1])}")
def test_every_recipe_runs(hub, tmp_path, files: list[Path]) -> None:
    found = reports(hub.run([HERE / "smoke.py", tmp_path, *files]))
    assert [row["recipe"] for row in found] == [str(path) for path in files]
    for row in found:
        assert (row["status"], row["steps"], row["card"]) == (0, 2, True), row
        assert row["losses"] and all(0 <= loss < 1e4 for loss in row["losses"]), row
