"""Generator and discriminator as one model of transformers."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from .config import ResNetGanConfig
from .networks import Discriminator, Generator


@dataclass
class ImageGenerationOutput(ModelOutput):
    """The loss of one of the two networks, and the images that it is of.

    Args:
        loss: Scalar; the discriminator's where real images were given, else the generator's.
        images: Generated images with values from -1 to 1, shape (batch, channels, height, width).
    """

    loss: Tensor | None = None
    images: Tensor | None = None


class ResNetGanForImageGeneration(PreTrainedModel):
    """The class-conditional generative adversarial network of Fromage's paper (Bernstein et al. 2020, arXiv 2002.03432).

    Every convolution, linear layer and embedding is spectrally normalized and starts orthogonal. The networks play the game
    of hinge losses (Lim & Ye 2017, arXiv 1705.02894):

        discriminator: mean max(0, 1 + D(G(z, y), y)) + mean max(0, 1 - D(x, y))
        generator:     -mean D(G(z, y), y)

    Differs from the authors' code: sizes other than 32 pixels and images without classes are possible, and the
    discriminator's loss is larger by the constant 2.
    """

    config: ResNetGanConfig
    config_class = ResNetGanConfig
    main_input_name = "latents"

    def __init__(self, config: ResNetGanConfig) -> None:
        super().__init__(config)
        self.generator = Generator(config)
        self.discriminator = Discriminator(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # Layers initialise themselves as they are made, before their weights are normalized.
        pass

    def forward(
        self,
        pixel_values: Tensor | None = None,
        class_labels: Tensor | None = None,
        latents: Tensor | None = None,
    ) -> ImageGenerationOutput:
        """Generates images, and computes the loss of one network's step.

        Args:
            pixel_values: Real images with values from -1 to 1, shape (batch, channels, height, width), for the discriminator's
                loss; None for the generator's.
            class_labels: Their classes and those of the images to generate, integers (batch,); None without classes.
            latents: Latent variables from N(0, 1), shape (batch, latent_dim).
        """
        labels = class_labels
        if labels is None:
            labels = torch.zeros(len(latents), dtype=torch.long, device=latents.device)
        images = self.generator(latents, labels)
        if pixel_values is None:
            return ImageGenerationOutput(-self.discriminator(images, labels).mean(), images)
        # One pass over both, so that the singular vectors are the same for both.
        scores = self.discriminator(torch.cat([images, pixel_values]), labels.repeat(2))
        fake, real = scores.chunk(2)
        return ImageGenerationOutput(F.relu(1 + fake).mean() + F.relu(1 - real).mean(), images)

    def draw_latents(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws latent variables on the generator's device (the CPU if None), shape (count, latent_dim)."""
        device = generator.device if generator is not None else "cpu"
        return torch.randn(count, self.config.latent_dim, generator=generator, device=device).to(self.device)

    @torch.no_grad()
    def generate(
        self,
        labels: Tensor | list[int] | None = None,
        *,
        num_images: int = 1,
        latents: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Generates images in evaluation mode.

        Args:
            labels: A class for each image, integers; drawn if None and there are classes.
            num_images: Number of images, where neither `labels` nor `latents` say it.
            latents: Latent variables, shape (images, latent_dim); drawn if None.
            generator: For the draws; torch's global one if None.

        Returns:
            Shape (images, channels, height, width), values from 0 to 1.

        Raises:
            ValueError: Classes that the model does not have, or a number of them other than that of the latents.
        """
        classes = self.config.num_classes
        if latents is None:
            latents = self.draw_latents(num_images if labels is None else len(labels), generator)
        if labels is None and classes:
            where = generator.device if generator is not None else "cpu"
            labels = torch.randint(classes, (len(latents),), generator=generator, device=where)
        if labels is not None:
            labels = torch.as_tensor(labels).to(self.device)
            if not classes:
                raise ValueError("This model was trained on images without classes: leave the labels out.")
            if labels.shape != (len(latents),) or bool(((labels < 0) | (labels >= classes)).any()):
                raise ValueError(
                    f"Give one class from 0 to {classes - 1} for each of the {len(latents)} images, not {labels.tolist()}."
                )
        else:
            labels = torch.zeros(len(latents), dtype=torch.long, device=self.device)
        was_training = self.training
        self.eval()
        images = self.generator(latents.to(self.device, self.dtype), labels)
        self.train(was_training)
        return (images.clamp(-1, 1) + 1) / 2
