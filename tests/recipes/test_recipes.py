"""Every recipe fits together: each file and variant makes a model, data and an optimizer, and each file runs."""

import json
from pathlib import Path

import pytest

from hf_geo.cli.config import read_recipe
from hf_geo.runs.folder import default_output_dir
from tests.local_hub import LocalHub
from tests.recipes.every import FILES, VARIANTS, called, variants
from tests.recipes.stand_ins import write_all

HERE = Path(__file__).parent
OWN = [path for path in FILES if "quickstart" not in path.stem and "sweep" not in path.stem]
OWN_VARIANTS = [(path, variant) for path, variant in VARIANTS if path in OWN]
BATCHES = [OWN[i : i + 7] for i in range(0, len(OWN), 7)]  # that one process runs


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub with stand-ins for the data sets that recipes name."""
    seeds = tmp_path_factory.mktemp("seeds")
    write_all(seeds)
    with LocalHub(tmp_path_factory.mktemp("hub"), seeds=seeds) as running:
        yield running


def test_the_papers_have_their_files() -> None:
    there = {called(path) for path in OWN}
    cells = {"cifar10_resnet20", "cifar10_resnet18", "cifar10_vgg16", "cifar100_resnet18", "cifar100_vgg16"}
    cells |= {"svhn_resnet18", "svhn_vgg16", "imagenet_resnet18"}
    deep = {f"{data}_{net}" for data in ("cifar10", "cifar100") for net in ("vgg13", "vgg19", "wrn_28_10", "wrn_40_10")}
    deep |= {f"svhn_{net}" for net in ("vgg13", "vgg19", "wrn_16_4", "wrn_22_8")}
    trained = {
        "svhn",
        "imagenet",
        *(f"{name}_{net}" for name in ("cifar10", "cifar100", "cifar_train") for net in ("wrn", "densenet")),
    }
    assert there >= {f"fromage/{name}" for name in ("cifar10", "imagenet", "mnist_depth", "wikitext2")}
    assert {name for name in there if name.startswith("ali-g/")} == {f"ali-g/{name}" for name in trained}
    assert {name for name in there if name.startswith("spherical/")} == {f"spherical/{name}" for name in cells}
    assert {name for name in there if name.startswith("riemannian-bn/")} == {f"riemannian-bn/{name}" for name in deep}
    assert there >= {f"subspaces/{name}" for name in ("cifar10", "tinyimagenet", "imagenet")}


METHODS = {"sgd", "sgdmrt", "adam", "adamw", "adamg", "adams", "adamsrt"}


@pytest.mark.parametrize("path", OWN, ids=called)
def test_methods_of_the_papers_tables_are_variants(path: Path) -> None:
    names = set(variants(path))
    if path.parent.name == "spherical":
        assert names == METHODS - ({"adamw", "adamg"} if "imagenet" in path.stem else set())
    elif path.parent.name == "riemannian-bn":
        assert names == {"sgd", "sgdg", "adamg"}
    elif path.parent.name == "subspaces":
        assert names >= {"standard", "swa", "line", "line_layerwise", "curve", "simplex", "simplex_layerwise"}
    elif path.parent.name == "ali-g":
        assert "alig" in names and len(names) > 1


@pytest.mark.parametrize("path", [path for path in OWN if variants(path)], ids=called)
def test_every_variant_but_one_changes_something(path: Path) -> None:
    plain = read_recipe(path)
    changed = {name: {k: v for k, v in read_recipe(path, name).items() if v != plain.get(k)} for name in variants(path)}
    same = [name for name, values in changed.items() if not values]
    assert len(same) <= 1, "at most one of them is the file's own setting under its name"


def test_no_two_recipes_write_into_one_folder() -> None:
    owner: dict[str, tuple[Path, str | None]] = {}
    for path, variant in OWN_VARIANTS:
        values = read_recipe(path, variant)
        folder = default_output_dir(values.get("output_dir"), values["model"], values["dataset"], values["optim"])
        first = owner.setdefault(folder, (path, variant))
        assert first[0] == path, f"{called(path, variant)} and {called(*first)} both write into {folder}"
        settings = [read_recipe(*first), read_recipe(path, variant)]
        assert settings[0] == settings[1], f"two variants of {called(path)} write into {folder}"


@pytest.mark.parametrize(("path", "variant"), OWN_VARIANTS, ids=[called(*pair) for pair in OWN_VARIANTS])
def test_clipping_and_schedule_are_said(path: Path, variant: str | None) -> None:
    """Neither is left to transformers' defaults, which are nobody's: a norm of 1 and a line down to zero."""
    values = read_recipe(path, variant)
    assert "milestones" in values or "lr_scheduler_type" in values
    assert "max_grad_norm" in values or values["optim"] in ("fromage", "alig", "sgdg", "adamg")


def reports(done) -> list[dict]:
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]


@pytest.fixture(scope="module")
def built(hub, tmp_path_factory) -> dict[str, dict]:
    words = [f"{path}:{variant or ''}" for path, variant in VARIANTS]
    done = hub.run([HERE / "build.py", tmp_path_factory.mktemp("unused"), *words])
    return {called(Path(found["recipe"]), found["variant"]): found for found in reports(done)}


OPTIMIZERS = {
    "fromage": "Fromage", "alig": "AliG", "adamsrt": "AdamSRT", "adams": "AdamS", "sgdmrt": "SGDMRT", "sgdg": "SGDG",
    "adamg": "AdamG", "sgd": "SGD", "adam": "Adam", "adamw_torch": "AdamW", "adamw_torch_fused": "AdamW",
    "adagrad": "Adagrad", "lars": "Lars", "lamb": "Lamb",
}  # fmt: skip


@pytest.mark.parametrize(("path", "variant"), VARIANTS, ids=[called(*pair) for pair in VARIANTS])
def test_model_data_and_optimizer_are_built(built, path: Path, variant: str | None) -> None:
    found, values = built[called(path, variant)], read_recipe(path, variant)
    assert found["optimizer"] == OPTIMIZERS[values["optim"]]
    points = {None: 1, "line": 2, "curve": 3, "simplex": 3}[values.get("subspace")]
    assert found["points"] == pytest.approx(values.get("num_points", points), abs=0.1)
    assert set(found["splits"]) >= {"train", "eval"}


ROWS = [  # recipe and variant, what came out of it
    ("riemannian-bn/cifar10_wrn_28_10 sgdg", {"groups": {"geometry": 0.2, "rest": 0.01, "no_decay": 0.01}}),
    ("riemannian-bn/cifar10_vgg13 adamg", {"groups": {"geometry": 0.05, "rest": 0.01, "no_decay": 0.01}}),
    ("riemannian-bn/svhn_wrn_16_4 adamg", {"groups": {"geometry": 0.005, "rest": 0.001, "no_decay": 0.001}}),
    ("riemannian-bn/cifar10_wrn_40_10", {"parameters": 55_841_754}),
    ("spherical/cifar10_resnet20 adamsrt", {"parameters": 272_474}),
    ("ali-g/cifar100_densenet", {"parameters": 1_901_930 + 90 * (440 + 1)}),
    ("ali-g/imagenet", {"loss": "truncated-top-k", "parameters": 11_689_512}),
    ("subspaces/imagenet line", {"parameters": 68_883_240}),
    ("fromage/mnist_depth", {"parameters": 10 * (784 * 784 + 784) + 7850}),
]


@pytest.mark.parametrize(("name", "expected"), ROWS, ids=[name for name, _ in ROWS])
def test_what_is_built(built, name: str, expected: dict) -> None:
    assert {key: built[name][key] for key in expected} == expected


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
