"""Power iteration against singular values."""

import pytest
import torch

from hf_geo.training.callbacks import spectral_norms


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
@pytest.mark.parametrize("shape", [(64, 64), (10, 300), (300, 10), (1, 5), (5, 1)])
def test_they_are_the_largest_singular_values(shape: tuple[int, int], scale: float) -> None:
    torch.manual_seed(0)
    noise, steep = scale * torch.randn(shape), scale * torch.outer(torch.randn(shape[0]), torch.randn(shape[1]))
    for matrix, tolerance in ((noise, 0.03), (steep, 1e-5), (steep + 0.01 * noise, 1e-5)):
        true = torch.linalg.matrix_norm(matrix, 2).item()
        assert true * (1 - tolerance) <= spectral_norms(matrix)[0].item() <= true * (1 + 1e-5)
        turned = matrix * torch.exp(1j * torch.arange(shape[0]))[:, None]
        assert true * (1 - tolerance) <= spectral_norms(turned)[0].item() <= true * (1 + 1e-5)
    assert spectral_norms(torch.zeros(shape)) == [0.0]
