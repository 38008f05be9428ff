"""`scripts/evaluate.py` on folders as training leaves them: a walk, an exported point, a comparison, and mistakes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import PIL.Image
import pytest
import timm
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from transformers import AutoModelForImageClassification

from hf_geo.cli.trained import parse_trained
from hf_geo.data.config import DataArguments
from hf_geo.data.vision import load_image_data
from hf_geo.hub.export import export_model
from hf_geo.models.build import build_image_classifier, input_config
from hf_geo.subspaces import Subspace, SubspaceConfig
from tests.paths import REPOSITORY
from tests.scripts import script

evaluate = script("evaluate")
CONFIGS = REPOSITORY / "configs"
SETTINGS = {"dataset": "digits", "max_train_samples": 200, "max_eval_samples": 64, "label_noise": 0.4, "optim": "sgd",
            "train_split": "train", "eval_size": None}  # fmt: skip
SMALL_TEXT = ("--max_train_samples", 40, "--max_eval_samples", 10, "--bptt", 9)
QUICK = ("--positions", 5, "--recalibration_batches", 2, "--batch_size", 32)


def make_run(folder: Path, config: SubspaceConfig | None = None, settings: dict = SETTINGS) -> Path:
    """A folder as scripts/train.py leaves it, of an untrained network."""
    data = load_image_data(DataArguments(dataset="digits"))

    def build():
        classes = {"num_classes": 10, "id2label": data.id2label}
        return build_image_classifier("test_resnet", **classes, data_config=data.data_config)

    model = build()
    if config is None:
        export_model(model, folder)
    else:
        subspace = Subspace.attach(model, config, model_init=build)
        subspace.save(folder)
        export_model(model, folder, state_dict=subspace.folded_state_dict())
    (folder / "training_args.json").write_text(json.dumps(settings))
    (folder / "README.md").write_text("# A card\n")
    return folder


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return make_run(tmp_path_factory.mktemp("runs") / "line", SubspaceConfig("line", beta=0.0))


@pytest.fixture(scope="module")
def walked(line: Path) -> Path:
    assert evaluate(["--model", line, *QUICK]) == 0
    return line


def accuracy(model: torch.nn.Module) -> float:
    """Over the 64 test samples of the run, by hand."""
    data = load_image_data(DataArguments(dataset="digits", max_train_samples=200, max_eval_samples=64))
    template = build_image_classifier("test_resnet", num_classes=10, data_config=data.data_config)
    samples = data.dataset("test", input_config(template))
    model.eval()
    with torch.no_grad():
        (batch,) = DataLoader(samples, 64)
        return (model(batch["pixel_values"]).argmax(-1) == batch["labels"]).double().mean().item()


def test_a_walk_leaves_data_pictures_and_a_section_in_the_card(walked: Path) -> None:
    results = json.loads((walked / "evaluation.json").read_text())
    assert [row["position"] for row in results["points"]] == [0, 0.25, 0.5, 0.75, 1]
    assert [row["members"] for row in results["ensembles"]] == [["0", "1"], ["0.25", "0.75"]]
    assert (results["models"], results["split"], results["samples"]) == (["line"], "test", 64)
    assert results["recalibration_samples"] == 64
    assert (walked / "figures" / "walk.png").is_file()
    card = (walked / "README.md").read_text()
    assert "![Accuracy and calibration along the line](figures/walk.png)" in card
    assert "Measured on 64 predictions on the test split of digits, with" in card


def test_a_figure_that_fails_costs_no_evaluation(walked: Path, tmp_path: Path, monkeypatch, caplog) -> None:
    folder, figure = tmp_path / "a line", "![Accuracy and calibration along the line](figures/walk.png)"
    shutil.copytree(walked, folder)
    (folder / "evaluation.json").unlink()
    with monkeypatch.context() as patch, caplog.at_level("WARNING", "hf_geo"):
        patch.setattr("hf_geo.hub.describe.draw", lambda *args: 1 / 0)
        assert evaluate(["--model", folder, *QUICK]) == 0
    assert json.loads((folder / "evaluation.json").read_text())["samples"] == 64
    assert figure not in (folder / "README.md").read_text() and f"`hf-geo card '{folder}'`" in caplog.text
    assert script("card")([folder]) == 0
    assert (folder / "README.md").read_text() == (walked / "README.md").read_text()


def test_the_figure_of_a_comparison_is_made_again(tmp_path: Path, monkeypatch, caplog) -> None:
    """It stands in a folder that holds no run."""
    words = [word for name in "ab" for word in ("--model", make_run(tmp_path / name))]
    with monkeypatch.context() as patch, caplog.at_level("WARNING", "hf_geo"):
        patch.setattr("hf_geo.hub.describe.draw", lambda *args: 1 / 0)
        assert evaluate([*words, "--trust", "--batch_size", 32, "--output_dir", tmp_path / "both"]) == 0
    assert f"`hf-geo card {tmp_path / 'both'}`" in caplog.text
    assert script("card")([tmp_path / "both"]) == 0
    assert (tmp_path / "both" / "figures" / "trust.png").is_file()


def test_an_exported_point_is_the_network_that_was_walked_and_opens_without_this_package(walked, tmp_path) -> None:
    point = json.loads((walked / "evaluation.json").read_text())["points"][3]
    words = ["--model", walked, "--export_position", point["position"], "--output_dir", tmp_path / "out", *QUICK[2:]]
    assert evaluate(words) == 0
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    assert accuracy(model) == point["accuracy"]
    theirs = AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(theirs(images).logits, model.eval()(images))
    assert not any("parametrizations" in name for name in load_file(tmp_path / "out" / "model.safetensors"))


@pytest.mark.parametrize("augmentation", ["crop", None])
def test_norm_statistics_are_of_images_as_the_run_changed_them(tmp_path, augmentation: str | None) -> None:
    """As at the end of training, so that a walk finds there what the run has reported; of unknown changes none are made."""
    settings = {**SETTINGS, **({"augmentation": augmentation} if augmentation else {})}
    run = make_run(tmp_path / "run", SubspaceConfig("line", beta=0.0), settings)
    words = ("--export_position", 0.5, "--recalibration_batches", 0, "--output_dir", tmp_path / "centre")
    assert evaluate(["--model", run, *words]) == 0
    centre = timm.create_model(f"local-dir:{tmp_path / 'centre'}", pretrained=True)
    known = DataArguments(dataset="digits", max_train_samples=200, augmentation=augmentation or "none")
    data = load_image_data(known)
    template = build_image_classifier(str(tmp_path / "centre"), num_classes=10, data_config=data.data_config)
    images = torch.stack([sample["pixel_values"] for sample in data.dataset("train", input_config(template))])
    norm = next(module for module in centre.modules() if isinstance(module, torch.nn.BatchNorm2d))
    with torch.no_grad():
        values = centre.conv1[0](images)  # what the first norm sees
    torch.testing.assert_close(norm.running_mean, values.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, values.var(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_classes_are_compared_by_name(walked: Path, tmp_path: Path) -> None:
    shutil.copytree(walked, tmp_path / "run")
    (tmp_path / "run" / "subspace_config.json").unlink()
    config = json.loads((walked / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps({**config, "label_names": [*"8901234567"]}))
    assert evaluate(["--model", tmp_path / "run"]) == 0
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())["points"][0]["accuracy"]
    model = timm.create_model(f"local-dir:{walked}", pretrained=True)
    with torch.no_grad():  # output i is now that of digit (i - 2) mod 10
        head = model.get_classifier()
        for tensor in (head.weight, head.bias):
            tensor.copy_(tensor.roll(-2, 0))
    assert found == accuracy(model)


def test_models_are_compared_with_their_ensemble(line: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    other = make_run(tmp_path / "other")
    words = ["--model", line, "--model", other, "--ensemble", "--output_dir", tmp_path / "out", "--json"]
    assert evaluate(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["points"]] == ["line", "other"]
    for row, folder in zip(found["points"], (line, other), strict=True):
        assert row["accuracy"] == accuracy(timm.create_model(f"local-dir:{folder}", pretrained=True))
    (ensemble,) = found["ensembles"]
    assert ensemble["members"] == ["line", "other"]
    assert 0 < ensemble["total_variation"] < 1


def test_a_comparison_does_not_replace_a_walk(walked: Path, tmp_path: Path, capsys) -> None:
    before = (walked / "evaluation.json").read_bytes()
    with pytest.raises(SystemExit):
        evaluate(["--model", walked, "--model", make_run(tmp_path / "other"), "--ensemble"])
    assert "name another folder for the comparison with --output_dir" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate(["--model", tmp_path / "other", "--ensemble"])
    assert "--ensemble needs several models" in capsys.readouterr().err
    assert (walked / "evaluation.json").read_bytes() == before


def test_trust_is_measured_and_a_position_chosen_by_validation(line: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    words = ("--trust", "--select_position", "--ood_dataset", "digits", "--output_dir", out)
    assert evaluate(["--model", line, *QUICK, *words]) == 0
    found = json.loads((out / "evaluation.json").read_text())
    assert found["selected"] == min(found["points"], key=lambda row: row["validation_loss"])
    chosen = found["selected"]
    assert f"The validation loss chooses position {chosen['name']}; on the test split it has" in capsys.readouterr().out
    for row in found["points"] + found["ensembles"]:
        assert row["ood_auroc"] == 0.5  # the other data set is the same one
        assert sum(count for count, _, _ in row["reliability"]) == 64 and row["temperature"] > 0
    assert (out / "figures" / "trust.png").is_file()


def test_other_images_need_no_training_split_no_labels_and_may_be_a_configuration(
    line, tmp_path, capsys, monkeypatch
) -> None:
    # `datasets` knows a folder with configurations in its cache by the folder's name alone, whatever its path.
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    pixels = torch.arange(64, dtype=torch.uint8).view(8, 8).numpy()
    for name in ("a", "b"):
        (tmp_path / "other" / name).mkdir(parents=True)
        for number in range(3):
            PIL.Image.fromarray(pixels).save(tmp_path / "other" / name / f"{number}.png")
    configs = [{"config_name": c, "data_files": [{"split": "test", "path": f"{c}/*.png"}]} for c in ("a", "b")]
    (tmp_path / "other" / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    words = ["--model", line, *QUICK, "--output_dir", tmp_path / "out", "--ood_dataset"]
    assert evaluate([*words, f"{tmp_path / 'other'}:b"]) == 0
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert all(0 <= row["ood_auroc"] <= 1 for row in found["points"])
    with pytest.raises(SystemExit):
        evaluate([*words, tmp_path / "other"])
    assert f"name one after a colon, as in {tmp_path / 'other'}:CONFIG" in capsys.readouterr().err


@pytest.fixture(scope="module")
def language_line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A line of small language models, trained for two updates."""
    folder = tmp_path_factory.mktemp("runs") / "words"
    words = ("--config", CONFIGS / "fromage/quickstart_docs.yaml", "--subspace", "line", "--max_steps", 2, *SMALL_TEXT)
    model = ("--model_args", "d_model=16,d_hid=16,dropout=0.0")
    quiet = ("--save_strategy", "no", "--eval_strategy", "no", "--disable_tqdm", "true")
    assert script("train")([*words, *model, *quiet, "--output_dir", folder]) == 0
    return folder


def test_a_line_of_language_models_is_walked_by_perplexity(language_line: Path, tmp_path: Path) -> None:
    assert evaluate(["--model", language_line, "--positions", 3]) == 0
    found = json.loads((language_line / "evaluation.json").read_text())
    trained = json.loads((language_line / "eval_results.json").read_text())  # as the Trainer measured the centre
    assert found["points"][1]["perplexity"] == pytest.approx(trained[f"{found['split']}_perplexity"], rel=1e-5)
    assert found["samples"] == trained[f"{found['split']}_tokens"]
    assert len({row["perplexity"] for row in found["points"]}) == 3
    card = (language_line / "README.md").read_text()
    assert "![Perplexity and calibration along the line](figures/walk.png)" in card
    assert "| perplexity |" in card

    out = tmp_path / "end"
    assert evaluate(["--model", language_line, "--export_position", 1, "--output_dir", out]) == 0
    words = ("--model", out, "--model", language_line, "--ensemble", "--dataset", "docs", *SMALL_TEXT)
    assert evaluate([*words, "--output_dir", tmp_path]) == 0
    compared = json.loads((tmp_path / "evaluation.json").read_text())
    for row, index in zip(compared["points"], (2, 1), strict=True):
        assert row["perplexity"] == pytest.approx(found["points"][index]["perplexity"], rel=1e-5)
    assert compared["ensembles"][0]["perplexity"] > 1


def test_a_language_model_and_a_classifier_are_not_compared(line, language_line, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        evaluate(["--model", line, "--model", language_line, "--output_dir", tmp_path])
    assert "The models are of different tasks (causal-lm, image-classification)" in capsys.readouterr().err


@pytest.mark.parametrize("dataset", ["digits", "./digits", "ada/letters"])
def test_a_run_is_reopened_with_what_fits_the_data(tmp_path, dataset: str) -> None:
    """Splits and columns of the run's own data say nothing about other data, and its export resizes images by itself."""
    settings = {"image_size": 32, "eval_resize": 36, "max_bad_samples": 3}
    settings |= {"eval_split": "held_out", "label_column": "letter"}
    (tmp_path / "training_args.json").write_text(json.dumps({**SETTINGS, "dataset": dataset, **settings}))
    (tmp_path / "config.json").write_text("{}")
    _, found = parse_trained(["--model", str(tmp_path), "--dataset", "digits"], lambda add: None)
    assert (found.image_size, found.eval_resize, found.max_bad_samples) == (None, None, 3)
    own = ("held_out", "letter") if dataset != "ada/letters" else (None, None)
    assert (found.eval_split, found.label_column, found.train_split) == (*own, "train")


def test_the_samples_that_a_stream_held_out_are_named_where_its_run_does_not_say_how_many(tmp_path) -> None:
    (tmp_path / "training_args.json").write_text(json.dumps({"dataset": "docs", "streaming": True, "eval_size": None}))
    (tmp_path / "config.json").write_text("{}")
    _, found = parse_trained(["--model", str(tmp_path), "--eval_size", "9"], lambda add: None)
    assert (found.eval_size, found.streaming) == (9, True)


def _of_three_classes(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_classes": 3, "label_names": None}))


def _of_one_network(folder: Path) -> None:
    (folder / "subspace_config.json").unlink()


def _trained_with(**settings: object) -> Callable[[Path], object]:
    return lambda folder: (folder / "training_args.json").write_text(json.dumps({**SETTINGS, **settings}))


@pytest.mark.parametrize(
    ("spoil", "words", "message"),
    [
        (None, ("--export_position", "0.5,0.5", "--output_dir", "new"), "got a value of shape (2,)"),
        (None, ("--export_position", "half", "--output_dir", "new"), "a number, or weights separated by commas"),
        (None, ("--model", "resnet18"), "'resnet18' names an architecture without weights"),
        (_of_three_classes, (), "has 3 classes, but digits has 10"),
        (lambda folder: (folder / "training_args.json").unlink(), (), "does not name its dataset: name the data"),
        (None, ("--eval_size", 100), "--eval_size 100 would evaluate"),
        (_trained_with(dataset="./digits"), ("--dataset", "digits", "--eval_size", 9), "--eval_size 9 would evaluate"),
        (_trained_with(streaming=True, eval_size=9), ("--streaming", "false"), "--streaming False would evaluate"),
        (_trained_with(dataset="./birds"), (), "was trained on './birds', whose path it does not keep: name the data"),
        (_of_one_network, ("--export_position", 0.5), "with a subspace"),
        (_of_one_network, ("--select_position",), "--select_position is for a subspace"),
        (_of_one_network, ("--draws", 3), "--draws is for a subspace"),
        (_of_one_network, (), "--positions is for a subspace"),
        (None, ("--trust", "--eval_split", "test"), "no split to choose on besides the reported one, 'test'"),
        (None, ("--corruption", "rain"), "no corruption 'rain': --corruption is one of gaussian_noise, shot_noise"),
        (None, ("--corruption", "fog", "--shifted_dataset", "gone"), "'gone'"),
        (None, ("--fid_model", "ada/classifier"), "--fid_model is for models that generate images"),
        *(
            (None, ("--export_position", 0.5, "--output_dir", "new", *idle), f"measures nothing: leave {idle[0]} out")
            for idle in (
                ("--corruption", "fog"),
                ("--positions", 5),
                ("--average", "logits"),
                ("--ece_bins", 20),
                ("--severity", 3),
                ("--json",),
                ("--max_eval_samples", 9),
            )
        ),
        (None, ("--severity", 3), "--severity needs a --corruption"),
        (shutil.rmtree, (), "There is no folder"),
    ],
)
def test_mistakes_end_with_one_sentence(
    line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, spoil, words, message
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(line, folder)
    if spoil:
        spoil(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hf_geo.evaluation.walk._evaluate", None)  # nothing is measured before
    with pytest.raises(SystemExit) as exit_:
        evaluate(["--model", folder, *(QUICK[2:] if "--export_position" in words else QUICK), *words])
    assert exit_.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("evaluate.py: error: ")
    assert message in error
    assert not (tmp_path / "new").exists()


def test_corrupted_images_and_other_data_sets_of_the_same_classes_are_measured(
    line: Path, tmp_path: Path, capsys
) -> None:
    words = ("--corruption", "contrast", "gaussian_noise", "--severity", 5, "--shifted_dataset", "digits")
    assert evaluate(["--model", line, *QUICK, "--positions", 3, *words, "--output_dir", tmp_path]) == 0
    found = json.loads((tmp_path / "evaluation.json").read_text())
    shifts = {(row["shift"], row["severity"]): row["points"] for row in found["shifts"]}
    assert [*shifts] == [("contrast", 5), ("gaussian_noise", 5), ("digits", None)]
    assert shifts["digits", None] == found["points"]  # the same test images
    assert len({rows[1]["nll"] for rows in shifts.values()}) == 3
    assert "| contrast | 5 |" in capsys.readouterr().out
    assert (tmp_path / "figures" / "severities.png").is_file()
