"""Building a classifier: timm's own weights, a configuration both libraries read, every kind of source, bad input."""

import json

import pytest
import timm
import torch
from timm.data import create_transform, resolve_model_data_config
from timm.models import save_for_hf
from transformers import (
    AutoModelForImageClassification,
    TimmWrapperForImageClassification,
    ViTForImageClassification,
    ViTImageProcessor,
)

from hf_geo.hub.export import export_model
from hf_geo.models import build_image_classifier, input_config
from tests.models.tiny import vit

CIFAR = {"input_size": (3, 32, 32), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "crop_pct": 1.0}
NAMES = {0: "cat", 1: "dog", 2: "frog"}


def assert_same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("cifar_resnet20", {}),
        ("mlp_depth", {"depth": 3, "width": 16, "img_size": 8}),
        ("test_vit", {"img_size": 32}),
        ("test_convnext", {"in_chans": 1}),
    ],
)
def test_initial_weights_are_timms(name, args):
    torch.manual_seed(3)
    expected = timm.create_model(name, num_classes=3, **args)
    torch.manual_seed(3)
    model = build_image_classifier(name, num_classes=3, model_args=args)
    assert isinstance(model, TimmWrapperForImageClassification)
    assert_same_weights(model.timm_model.state_dict(), expected.state_dict())
    assert {t.device.type for t in (*model.parameters(), *model.buffers())} == {"cpu"}


def test_configuration_says_what_an_export_needs():
    args = {"num_classes": 3, "id2label": NAMES, "data_config": CIFAR, "model_args": {"drop_rate": 0.2}}
    model = build_image_classifier("resnet18", **args)
    config = json.loads(json.dumps(model.config.to_dict()))
    expected = {"architecture": "resnet18", "num_classes": 3, "label_names": ["cat", "dog", "frog"]}
    assert config.items() >= {**expected, "model_args": {"drop_rate": 0.2, "in_chans": 3}}.items()
    record = config["pretrained_cfg"]
    assert {**record, **json.loads(json.dumps(CIFAR)), "first_conv": "conv1"} == record
    assert not record.keys() & {"url", "hf_hub_id", "file", "state_dict", "tag", "label_names"}


@pytest.mark.parametrize(
    ("name", "kwargs", "shown"),
    [
        # From scratch the data decides, then what is asked for; an architecture's own values where neither says.
        ("resnet18", {"data_config": CIFAR}, {"input_size": (3, 32, 32), "mean": (0.1, 0.2, 0.3), "crop_pct": 1.0}),
        ("resnet18", {"data_config": {"mean": (0.5,) * 3}}, {"input_size": (3, 224, 224), "mean": (0.5,) * 3}),
        ("resnet18", {"data_config": CIFAR, "img_size": 64}, {"input_size": (3, 64, 64)}),
        ("resnet18", {"img_size": 64, "model_args": {"img_size": 96}}, {"input_size": (3, 96, 96)}),
        ("resnet18", {"data_config": CIFAR, "model_args": {"in_chans": 1}}, {"input_size": (1, 32, 32), "mean": (0.2,)}),
        ("test_vit", {"data_config": CIFAR}, {"input_size": (3, 32, 32)}),
        ("test_vit", {"model_args": {"img_size": (32, 48)}}, {"input_size": (3, 32, 48)}),
    ],
)  # fmt: skip
def test_input_configuration(name, kwargs, shown):
    model = build_image_classifier(name, num_classes=3, **kwargs)
    config = input_config(model)
    for key, value in shown.items():
        assert config[key] == pytest.approx(value) if key != "input_size" else config[key] == value
    assert model.eval()(torch.zeros(1, *config["input_size"])).logits.shape == (1, 3)
    create_transform(**config)  # timm takes it as it is


def trained(name: str = "cifar_resnet20", **kwargs) -> TimmWrapperForImageClassification:
    """A model whose statistics and weights are not the initial ones."""
    model = build_image_classifier(name, num_classes=3, id2label=NAMES, data_config=CIFAR, **kwargs)
    for _ in range(2):
        model(torch.randn(8, *input_config(model)["input_size"]))
    return model.eval()


def save_by_timm(model, folder, safe=True):
    # timm's own export writes num_classes into model_args and takes preprocessing from the network's pretrained_cfg.
    model.timm_model.pretrained_cfg = {**model.timm_model.pretrained_cfg, **CIFAR}
    save_for_hf(model.timm_model, folder, safe_serialization=safe)


SAVERS = {
    "our export": lambda model, folder: export_model(model, folder),
    "a Trainer checkpoint": lambda model, folder: model.save_pretrained(folder),
    "timm": save_by_timm,
    "timm, pickled": lambda model, folder: save_by_timm(model, folder, safe=False),
}


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("test_vit", {"img_size": 96, "dynamic_img_size": True}),
        ("test_vit", {"img_size": (64, 96), "dynamic_img_size": True}),
        ("test_vit", {"class_token": False, "global_pool": "avg", "fc_norm": True, "depth": 2}),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 4, "depths": (1, 1), "embed_dim": 12,
                                          "num_heads": (1, 2), "strict_img_size": False}),
        ("test_resnet", {"in_chans": 1, "global_pool": "max", "act_layer": "silu"}),
    ],
)  # fmt: skip
def test_a_network_saved_by_timm_is_the_one_that_timm_opens(name, args, tmp_path):
    network = timm.create_model(name, num_classes=3, **args)
    for p in network.parameters():
        p.data = torch.randn_like(p)
    save_for_hf(network, str(tmp_path), model_args=args, safe_serialization=True)
    by_timm = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    model = build_image_classifier(str(tmp_path), num_classes=3).eval()
    x = torch.randn(2, *input_config(model)["input_size"])
    torch.testing.assert_close(model(x).logits, network.eval()(x), rtol=0, atol=0)
    torch.testing.assert_close(by_timm(x), network(x), rtol=0, atol=0)
    for key in ("crop_pct", "crop_mode", "interpolation"):
        assert input_config(model)[key] == resolve_model_data_config(by_timm)[key]
    # Exported again it is still the same, to timm and to transformers.
    export_model(model, tmp_path / "again")
    for reopened in (
        timm.create_model(f"local-dir:{tmp_path / 'again'}", pretrained=True).eval(),
        AutoModelForImageClassification.from_pretrained(tmp_path / "again").timm_model.eval(),
    ):
        torch.testing.assert_close(reopened(x), network(x), rtol=0, atol=0)
        assert reopened.state_dict().keys() == network.state_dict().keys()


@pytest.mark.parametrize(("how", "prefix"), [*((how, "") for how in SAVERS), ("our export", "local-dir:")])
def test_a_folder_brings_its_weights(how, prefix, tmp_path):
    model, x = trained(), torch.randn(2, 3, 32, 32)
    SAVERS[how](model, tmp_path)
    reopened = build_image_classifier(f"{prefix}{tmp_path}", num_classes=3).eval()
    torch.testing.assert_close(reopened(x).logits, model(x).logits, rtol=0, atol=0)
    assert reopened.config.architecture == "cifar_resnet20"
    assert input_config(reopened)["mean"] == pytest.approx(CIFAR["mean"])
    assert str(tmp_path) not in json.dumps(reopened.config.to_dict()), "a local path would be pushed along"


@pytest.mark.parametrize("how", ["our export", "a Trainer checkpoint"])
def test_tensors_that_modules_share_are_saved_under_all_their_names(how, tmp_path):
    dims = {"embed_dims": (16,) * 4, "serial_depths": (1, 2, 1, 1), "parallel_depth": 2, "num_heads": 8}
    model = build_image_classifier("coat_tiny", num_classes=3, img_size=64, model_args=dims)
    x = torch.randn(2, 3, 64, 64)
    model.timm_model.cpe1.proj.weight.data.normal_()
    assert len(model.state_dict()) > len(list(model.parameters())) + len(list(model.buffers()))
    SAVERS[how](model.eval(), tmp_path)
    for reopened in (
        build_image_classifier(str(tmp_path), num_classes=3),
        AutoModelForImageClassification.from_pretrained(tmp_path),
    ):
        torch.testing.assert_close(reopened.eval()(x).logits, model(x).logits, rtol=0, atol=0)
        assert reopened.timm_model.cpe1.proj.weight is reopened.timm_model.serial_blocks1[0].cpe.proj.weight


def test_a_folder_keeps_its_own_preprocessing_and_structure(tmp_path):
    export_model(trained("test_vit", model_args={"in_chans": 1}), tmp_path)
    others = {"mean": (0.9,) * 3, "input_size": (3, 64, 64)}
    model = build_image_classifier(str(tmp_path), num_classes=3, data_config=others)
    assert input_config(model)["input_size"] == (1, 32, 32)
    assert input_config(model)["mean"] == pytest.approx((0.2,))


def test_a_finetuned_folder_opens_in_timm_and_transformers(tmp_path):
    first = trained()
    export_model(first, tmp_path / "first")
    model, x = build_image_classifier(str(tmp_path / "first"), num_classes=5).eval(), torch.randn(2, 3, 32, 32)
    assert model.timm_model.fc.weight.shape == (5, 64)  # a new classifier, and the rest as it was
    for name, tensor in model.timm_model.state_dict().items():
        assert name.startswith("fc.") or torch.equal(tensor, first.timm_model.state_dict()[name]), name
    export_model(model, tmp_path / "second")
    by_timm = timm.create_model(f"local-dir:{tmp_path / 'second'}", pretrained=True).eval()
    by_transformers = AutoModelForImageClassification.from_pretrained(tmp_path / "second").eval()
    torch.testing.assert_close(by_timm(x), model(x).logits)
    torch.testing.assert_close(by_transformers(x).logits, model(x).logits)
    assert resolve_model_data_config(by_timm)["mean"] == pytest.approx(CIFAR["mean"])


def test_a_model_of_transformers_own(tmp_path):
    vit(image_size=32, problem_type="multi_label_classification").bfloat16().save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.1] * 3).save_pretrained(tmp_path)
    model = build_image_classifier(str(tmp_path), num_classes=3, id2label=NAMES)
    assert isinstance(model, ViTForImageClassification)
    assert model.config.id2label == NAMES
    assert input_config(model).size == (3, 32, 32)
    assert input_config(model).processor.image_mean == (0.1,) * 3
    output = model(torch.zeros(1, 3, 32, 32), labels=torch.tensor([2]))
    assert output.loss.item() == pytest.approx(-output.logits[0].log_softmax(-1)[2].item(), rel=1e-5)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    with pytest.raises(ValueError, match="--model_args are arguments of timm architectures"):
        build_image_classifier(str(tmp_path), num_classes=3, model_args={"drop_rate": 0.1})


def test_a_hub_id_brings_its_weights(hub, tmp_path):
    model = trained()
    export_model(model, tmp_path / "export")
    hub.run(
        f"""
import torch
from huggingface_hub import HfApi
from hf_geo.models import build_image_classifier
HfApi().create_repo("ada/small")
HfApi().upload_folder(repo_id="ada/small", folder_path={str(tmp_path / "export")!r})
for name in ("hf-hub:ada/small", "ada/small", "ada/small@main"):
    model = build_image_classifier(name, num_classes=3)
    torch.save(model.timm_model.state_dict(), {str(tmp_path)!r} + f"/{{name.replace('/', '_')}}.pt")
for name in ("ada/none", "hf-hub:ada/none"):
    try:
        build_image_classifier(name, num_classes=3)
    except ValueError as error:
        assert "gives no model 'ada/none'" in str(error), error
    else:
        raise AssertionError("opened a model that is not there")
""",
        token=hub.write_token,
    )
    for name in ("hf-hub:ada_small", "ada_small", "ada_small@main"):
        assert_same_weights(model.timm_model.state_dict(), torch.load(tmp_path / f"{name}.pt"))
