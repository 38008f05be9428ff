"""timm's architectures can be saved: all names by their shapes, the smallest of some families trained, saved and reopened."""

import json
import re

import pytest
import timm
import torch
from transformers import AutoModelForImageClassification

from hf_geo.hub.export import export_model
from hf_geo.models import build_image_classifier, check_images, input_config

pytestmark = pytest.mark.slow

# Families that are tried for real: each kind of network, and those whose modules share tensors.
TRIED = ("coat", "convnext", "crossvit", "mlp_mixer", "mobilenetv3", "resnet", "swin_transformer", "vision_transformer")
SMALL_IMAGES = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.25,) * 3, "crop_pct": 1.0}


def test_all_of_timm_is_here():
    names = [name for module in timm.list_modules() for name in timm.list_models(module=module)]
    assert sorted(names) == sorted(timm.list_models()) and len(names) > 1000


@pytest.mark.parametrize("module", timm.list_modules())
def test_no_architecture_shares_memory_or_has_a_configuration_that_cannot_be_written(module):
    for name in timm.list_models(module=module):
        with torch.device("meta"):
            model = build_image_classifier(name, num_classes=3)
        json.dumps(model.config.to_dict())
        storages = {tensor.untyped_storage()._cdata for tensor in model.state_dict().values()}
        assert len(storages) == len(model.state_dict()), f"{name}: tensors share their memory, which cannot be saved"


@pytest.mark.parametrize("module", TRIED)
def test_an_architecture_that_trains_also_saves_and_reopens(module, tmp_path):
    names = timm.list_models(module=module)
    with torch.device("meta"):
        sizes = [build_image_classifier(name, num_classes=3).num_parameters() for name in names]
    trains_saves_and_reopens(names[sizes.index(min(sizes))], tmp_path)


def usable(name: str) -> torch.nn.Module:
    """The network for small images, or for the size that the refusal names."""
    build = {"num_classes": 3, "data_config": SMALL_IMAGES}
    try:
        model = build_image_classifier(name, **build)
        check_images(model, name, input_config(model)["input_size"])
    except ValueError as refusal:
        (size,) = re.findall(r"give --image_size (\d+)\.$", str(refusal))
        model = build_image_classifier(name, **build, img_size=int(size))
        check_images(model, name, input_config(model)["input_size"])
    return model


def trains_saves_and_reopens(name, folder):
    torch.manual_seed(0)
    model = usable(name)
    x = torch.randn(2, *input_config(model)["input_size"])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model.train()(x, labels=torch.tensor([0, 2])).loss.backward()
    optimizer.step()
    with torch.no_grad():
        expected = model.eval()(x).logits
    model.save_pretrained(folder / "checkpoint")
    export_model(model, folder / "export")
    reopened = {
        "our checkpoint": build_image_classifier(str(folder / "checkpoint"), num_classes=3),
        "our export": build_image_classifier(str(folder / "export"), num_classes=3),
        "timm": timm.create_model(f"local-dir:{folder / 'export'}", pretrained=True),
        "transformers": AutoModelForImageClassification.from_pretrained(folder / "export"),
    }
    saved = model.timm_model.state_dict()
    for opener, network in reopened.items():
        network = getattr(network, "timm_model", network).eval()
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, saved[name]), f"{opener}: {name}"
        with torch.no_grad():
            found = network(x)
        # One update leaves some networks with statistics that overflow.
        torch.testing.assert_close(found, expected, equal_nan=True, msg=lambda m, by=opener: f"{by}: {m}")
