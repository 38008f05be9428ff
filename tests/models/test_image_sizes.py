"""A size that a network refuses is told before training with one that works; so is a network that gives no logits."""

import re

import pytest
import torch
from transformers import ViTConfig

from hf_geo.models import build_image_classifier, check_images, input_config
from tests.models.tiny import vit

SMALL_IMAGES = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.25,) * 3, "crop_pct": 1.0}


def use(name: str, **kwargs) -> None:
    """What a run does with a network before it is trained."""
    model = build_image_classifier(name, num_classes=3, **kwargs)
    check_images(model, name, input_config(model)["input_size"])


@pytest.mark.parametrize(
    ("name", "kwargs", "size"),
    [
        ("test_vit", {"img_size": 50}, 64),  # a multiple of the patch
        ("test_vit", {"img_size": 50, "model_args": {"dynamic_img_size": True}}, 64),
        ("cifar_vgg13_bn", {"img_size": 16}, 32),  # the feature map vanishes
        pytest.param("inception_v3", {}, 96, marks=pytest.mark.slow),  # so it does at 32 pixels
        pytest.param("crossvit_tiny_240", {}, 240, marks=pytest.mark.slow),  # two patch sizes
        pytest.param("halonet26t", {}, 256, marks=pytest.mark.slow),  # blocks of a feature map
        pytest.param("efficientformer_l1", {}, 224, marks=pytest.mark.slow),  # one size
        ("test_resnet", {"img_size": 32, "model_args": {"in_chans": 0}}, None),  # no size is right
    ],
)
def test_a_size_that_is_refused_is_told_with_one_that_works(name, kwargs, size):
    kwargs = {"data_config": SMALL_IMAGES, **kwargs}
    with pytest.raises(ValueError) as refused:
        use(name, **kwargs)
    message = str(refused.value)
    assert "\n" not in message
    assert re.search(rf"^('{name}' (does not take|is not made for) images of|timm cannot)", message)
    assert re.findall(r"--image_size (\d+)", message) == ([str(size)] if size else [])
    if size:
        use(name, **{**kwargs, "img_size": size})


def test_weights_that_do_not_fit_are_not_taken_for_a_wrong_size(tmp_path):
    build_image_classifier("test_vit", num_classes=3).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="timm cannot build") as refused:
        use(str(tmp_path), img_size=64, model_args={"depth": 9})
    assert "--image_size" not in str(refused.value)


@pytest.mark.parametrize(("image_size", "found"), [(24, "32"), (64, "32")])
def test_a_vit_of_transformers_takes_its_size_alone(image_size, found, tmp_path):
    vit(image_size=32).save_pretrained(tmp_path)
    model = build_image_classifier(str(tmp_path), num_classes=3)
    message = rf"'start' does not take images of 3 x {image_size} .*: give --image_size {found}"
    with pytest.raises(ValueError, match=message):
        check_images(model, "start", (3, image_size, image_size))
    check_images(model, "start", (3, 32, 32))
    with pytest.raises(ValueError, match=r"does not take images of 1 x 32 x 32 .*: choose another --model"):
        check_images(model, "start", (1, 32, 32))


@pytest.mark.parametrize(
    ("name", "args", "found"),
    [
        ("test_resnet", {"features_only": True}, "a list for 2 images"),
        ("test_vit", {"global_pool": ""}, r"shape \(2, 17, 3\)"),
    ],
)
def test_a_network_that_gives_no_logits_is_told(name, args, found):
    with pytest.raises(ValueError, match=rf"{name!r} gives {found}.* instead of logits of shape \(2, 3\)"):
        use(name, img_size=64, model_args=args)


class Head(torch.nn.Module):
    """Gives what a test wants."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs, self.config = outputs, ViTConfig(num_labels=3)

    def forward(self, pixel_values):
        return self.outputs(len(pixel_values))


@pytest.mark.parametrize(
    ("outputs", "found"),
    [
        (lambda n: {"logits": torch.zeros(n, 3)}, None),
        (lambda n: (torch.zeros(n, 3), "hidden states"), None),
        (lambda n: {"logits": torch.zeros(n, 100, 92), "pred_boxes": torch.zeros(n, 100, 4)}, r"shape \(2, 100, 92\)"),
        (lambda n: {"last_hidden_state": torch.zeros(n, 3)}, "a NoneType for 2 images"),
        (lambda n: {"logits": [torch.zeros(n, 3)] if n == 1 else torch.zeros(n, 3)}, "a list for 1 image instead"),
        (lambda n: {"logits": torch.zeros(2, 3)}, r"shape \(2, 3\) for 1 image instead of logits of shape \(1, 3\)"),
    ],
)
def test_outputs_of_other_networks(outputs, found):
    model = Head(outputs)
    if found is None:
        check_images(model, "head", (3, 8, 8))
    else:
        with pytest.raises(ValueError, match=f"'head' gives {found}"):
            check_images(model, "head", (3, 8, 8))


def test_a_check_leaves_the_model_and_the_random_state_as_they_were():
    model = build_image_classifier("test_resnet", num_classes=3, model_args={"drop_rate": 0.5, "drop_path_rate": 0.5})
    model.timm_model.bn1.eval()
    modes = [module.training for module in model.modules()]
    before, state = {name: t.clone() for name, t in model.state_dict().items()}, torch.get_rng_state()
    check_images(model, "test_resnet", (3, 32, 32))
    assert torch.equal(state, torch.get_rng_state())
    assert [module.training for module in model.modules()] == modes
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
