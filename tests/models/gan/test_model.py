"""The generative adversarial network: its published size, losses, spectral norms, images, and how it opens again."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hf_geo.models import ModelArguments
from hf_geo.models.gan import ResNetGanConfig, ResNetGanForImageGeneration
from hf_geo.models.sources import find_model
from hf_geo.tasks.image_generation import build_gan, open_gan
from tests.training.launching import launch_or_fail

TINY = {"image_size": 16, "width": 4, "chunk_dim": 2, "class_dim": 4, "norm_momentum": 0.1}


def tiny(num_classes: int = 3, **settings) -> ResNetGanForImageGeneration:
    torch.manual_seed(0)
    return ResNetGanForImageGeneration(ResNetGanConfig(num_classes=num_classes, **{**TINY, **settings}))


def batch(model: ResNetGanForImageGeneration, size: int = 6) -> dict[str, torch.Tensor]:
    pixels = torch.rand(size, 3, model.config.image_size, model.config.image_size) * 2 - 1
    labels = torch.arange(size) % max(model.config.num_classes, 1)
    return {"pixel_values": pixels, "class_labels": labels, "latents": model.draw_latents(size)}


def test_the_published_network_has_the_published_parameters() -> None:
    model = ResNetGanForImageGeneration(ResNetGanConfig(num_classes=10, class_rows=1000))
    counts = [sum(p.numel() for p in part.parameters()) for part in (model.generator, model.discriminator)]
    assert counts == [2_183_092, 2_644_130] and model.config.latent_dim == 80


@pytest.mark.parametrize("size", (16, 64))
def test_other_sizes_and_images_without_classes(size: int) -> None:
    model = tiny(num_classes=0, image_size=size).train()
    output = model(batch(model, 2)["pixel_values"], latents=model.draw_latents(2))
    assert output.images.shape == (2, 3, size, size) and output.images.abs().max() <= 1
    output.loss.backward()
    assert all(p.grad is not None for p in model.parameters())  # as DDP expects
    assert model.generate(num_images=4).shape == (4, 3, size, size)


def test_losses_are_the_hinges_of_the_scores() -> None:
    model = tiny().eval()
    values = batch(model)
    labels = values["class_labels"]
    fakes = model.generator(values["latents"], labels)
    fake, real = (model.discriminator(x, labels).detach().double() for x in (fakes, values["pixel_values"]))
    output = model(**values)
    assert torch.equal(output.images, fakes)
    # As the paper writes it, and 2 more.
    expected = fake.clamp(min=-1).mean() - real.clamp(max=1).mean() + 2
    torch.testing.assert_close(output.loss.double(), expected, rtol=1e-5, atol=1e-5)
    values.pop("pixel_values")
    torch.testing.assert_close(model(**values).loss.double(), -fake.mean(), rtol=1e-5, atol=1e-5)


def test_every_weight_is_divided_by_its_largest_singular_value_and_starts_orthogonal() -> None:
    model = tiny()
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    with torch.no_grad():
        for layer in layers:
            start = layer.parametrizations.weight.original.flatten(1)
            gram = start @ start.T if start.shape[0] <= start.shape[1] else start.T @ start
            torch.testing.assert_close(gram, torch.eye(len(gram)), atol=1e-5, rtol=0)
            start.mul_(torch.rand_like(start) * 3)
        model.train()
        for _ in range(100):  # one power iteration each
            for layer in layers:
                layer.weight  # noqa: B018
        norms = [float(torch.linalg.matrix_norm(layer.weight.flatten(1), 2)) for layer in layers]
    assert norms == pytest.approx([1.0] * len(layers), abs=2e-2) and len(layers) > 30


def test_generated_images() -> None:
    model = tiny().train()
    model(**batch(model))
    first = model.generate([0, 1, 2], generator=torch.Generator().manual_seed(1))
    assert model.training and first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, model.generate(range(3), generator=torch.Generator().manual_seed(1)))
    latents = model.draw_latents(1).repeat(3, 1)
    images = model.generate(range(3), latents=latents)
    assert not torch.equal(images[0], images[1])  # the class matters
    assert model.generate(num_images=5).shape[0] == 5
    for labels in ([3], [-1], [0, 1]):
        with pytest.raises(ValueError, match="Give one class from 0 to 2 for each of the 1 images"):
            model.generate(labels, latents=latents[:1])
    with pytest.raises(ValueError, match="trained on images without classes: leave the labels out"):
        tiny(num_classes=0).generate([0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 28}, "16, 32, 64 or 128 pixels and so on, not of 28"),
        ({"image_size": 8}, "not of 8"),
        ({"class_rows": 2}, "class_rows=2 are too few for 3 classes"),
        ({"width": 0}, "width is at least 4, not 0"),
        ({"norm_momentum": 0.0}, "norm_momentum is a share above 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("depth=3", "resnet_gan has no argument 'depth': it takes chunk_dim, class_dim"),
        ("width=1000000000", "resnet_gan cannot be made with width=1000000000: .*; change --model_args"),
    ],
)
def test_arguments_that_make_no_network_are_refused(given: str, message: str) -> None:
    images = SimpleNamespace(num_classes=0, data_config={})
    with pytest.raises(ValueError, match=message):
        build_gan(ModelArguments(model="resnet_gan", model_args=given), images, None)


def test_it_opens_again_with_its_singular_vectors_and_statistics(tmp_path) -> None:
    model = tiny().train()
    for _ in range(3):
        model(**batch(model))
    model.bfloat16().save_pretrained(tmp_path)
    again = open_gan(find_model(str(tmp_path)), SimpleNamespace(num_classes=3, name="images"), False)
    assert type(again) is ResNetGanForImageGeneration
    assert {p.dtype for p in again.parameters()} == {torch.float32}  # however they were stored
    saved = again.state_dict()
    assert all(torch.equal(tensor.to(saved[name]), saved[name]) for name, tensor in model.state_dict().items())
    assert {"config.py", "model.py", "networks.py"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
def test_a_fresh_process_without_this_package_makes_the_same_images(tmp_path) -> None:
    model = tiny().train()
    model(**batch(model))
    model.save_pretrained(tmp_path / "model")
    latents = model.draw_latents(3)
    torch.save(latents, tmp_path / "latents.pt")
    script = tmp_path / "open.py"  # a copy outside of the repository, where the package must not be found
    script.write_text(Path(__file__).with_name("open_gan.py").read_text())
    done = launch_or_fail(script, tmp_path, HF_HOME=str(tmp_path / "home"), PYTHONPATH="")
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["package"]
    torch.testing.assert_close(torch.load(tmp_path / "images.pt"), model.generate(range(3), latents=latents))
