"""Models that cannot be built are refused in one sentence."""

import json
import re

import pytest

from hf_geo.hub.export import export_model
from hf_geo.models import build_image_classifier
from tests.models.test_build import trained


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("", {}, "No model is named"),
        ("resnet_18", {}, "Unknown model 'resnet_18'.*Nearest: resnet18"),
        ("/no/where", {}, "no folder '/no/where'"),
        ("hf-hub:some/model", {}, "'some/model' is no folder here, and the Hub cannot be reached"),
        ("resnet18", {"pretrained": True}, "pretrained weights of 'resnet18' are not on this machine"),
        ("cifar_resnet20", {"pretrained": True}, "No pretrained weights exist for cifar_resnet20"),
        ("resnet18.no_such_tag", {}, "Invalid pretrained tag"),
        ("resnet18", {"model_args": {"dept": 3}}, "timm cannot build 'resnet18' with dept=3: .*unexpected keyword"),
        ("resnet18", {"model_args": {"global_pool": "mean"}}, "timm cannot build 'resnet18' with global_pool='mean'"),
        ("resnet18", {"model_args": {"num_classes": 3}}, "num_classes follows from the data set"),
    ],
)
def test_bad_input(name, kwargs, message):
    with pytest.raises(ValueError, match=message) as error:
        build_image_classifier(name, num_classes=3, **kwargs)
    assert "\n" not in str(error.value)


def test_folders_that_hold_no_model_or_another(tmp_path):
    with pytest.raises(ValueError, match=re.escape(f"{str(tmp_path)!r} holds no model, as there is no config.json")):
        build_image_classifier(str(tmp_path), num_classes=3)
    export_model(trained(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for architecture, problem in (("resnet18", "Missing key"), ("test_vit", "has no attribute")):
        (tmp_path / "config.json").write_text(json.dumps({**config, "architecture": architecture}))
        with pytest.raises(ValueError, match=rf"timm cannot build .*{problem}"):
            build_image_classifier(str(tmp_path), num_classes=3)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="has no weights, neither"):
        build_image_classifier(str(tmp_path), num_classes=3)
