"""Networks of features: a classifier of this package, Inception in torch-fidelity's layout, and coarse pixels."""

from pathlib import Path

import pytest
import timm
import torch
from timm.models import save_for_hf

from hf_geo.hub.export import export_model
from hf_geo.models import build_image_classifier
from hf_geo.models.gan.features import open_features

IMAGES = (torch.arange(2 * 3 * 32 * 32) % 251).view(2, 3, 32, 32).byte()


def test_a_classifiers_features_are_those_before_its_classifier(tmp_path) -> None:
    torch.manual_seed(0)
    statistics = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), "input_size": (3, 32, 32)}
    model = build_image_classifier("cifar_resnet20", num_classes=10, data_config=statistics).eval()
    export_model(model, tmp_path / "net")
    features = open_features(str(tmp_path / "net"))
    assert (features.name, features.dim, features.is_inception) == ("net", 64, False)
    found = features.compute(IMAGES)
    mean, std = (torch.tensor(statistics[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        logits = model((IMAGES / 255 - mean) / std).logits
        torch.testing.assert_close(model.timm_model.get_classifier()(found), logits)
    assert features.compute(IMAGES[:, :, ::2, ::2]).shape == (2, 64)  # images of another size


def test_a_network_of_timms_without_a_classifier(tmp_path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("cifar_resnet20", num_classes=0).eval()
    save_for_hf(model, tmp_path, safe_serialization=True)
    found = open_features(str(tmp_path)).compute(IMAGES)
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    assert found.shape == (2, model.num_features)
    with torch.no_grad():
        torch.testing.assert_close(found, model((IMAGES / 255 - mean) / std))


def test_coarse_pixels() -> None:
    features = open_features(None)
    found = features.compute(IMAGES)
    expected = IMAGES.double().view(2, 3, 4, 8, 4, 8).mean((3, 5)).flatten(1) / 255
    assert found.shape == (2, features.dim)
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_inception_of_a_users_file(tmp_path, monkeypatch) -> None:
    """The weights are a stand-in in torch-fidelity's layout: the real ones are a download."""
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    class Network(theirs.FeatureExtractorInceptionV3):
        def load_state_dict(self, *args, **kwargs) -> None:
            pass

    torch.manual_seed(0)
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *args, **kwargs: {})
    network = Network("inception", ["2048"])
    monkeypatch.undo()
    path = Path(tmp_path, "weights.pth")
    torch.save(network.state_dict(), path)
    features = open_features(str(path))
    assert (features.name, features.dim, features.is_inception) == ("Inception", 2048, True)
    found = features.compute(IMAGES)
    assert torch.equal(found, network(IMAGES)[0]) and found.std() > 0
