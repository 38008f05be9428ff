"""Settings of the generative adversarial network."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class ResNetGanConfig(PreTrainedConfig):
    """A residual generator and discriminator with spectral normalization and attention, as Fromage's paper trained them.

    Args:
        image_size: Height and width of an image in pixels: 16, 32, 64 or another 4 x 2^n.
        channels: Channels of an image.
        num_classes: Classes of images; 0 for images without classes.
        class_rows: Rows of the tables that classes are looked up in, at least `num_classes`; as many if None. The published
            network has 1000, whatever the data. An unused row takes part in the norms by which its table is divided.
        width: Channels of the layers at the full resolution; those at lower resolutions have up to four times as many.
        chunk_dim: Latent variables that enter at each resolution of the generator.
        class_dim: Width of the generator's embedding of a class.
        norm_momentum: Share of a batch's statistics in the running ones of the generator's batch norms. The published 0.001
            needs some thousands of updates before the running statistics are those of the network.

    Raises:
        ValueError: A size that the generator cannot make, or a number below its least.
    """

    model_type = "resnet_gan"

    image_size: int = 32
    channels: int = 3
    num_classes: int = 0
    class_rows: int | None = None
    width: int = 64
    chunk_dim: int = 20
    class_dim: int = 80
    norm_momentum: float = 0.001

    def __post_init__(self, **kwargs):
        least = {"channels": 1, "num_classes": 0, "width": 4, "chunk_dim": 1, "class_dim": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name} is at least {value}, not {getattr(self, name)}.")
        if self.image_size < 16 or self.image_size & (self.image_size - 1):
            raise ValueError(
                f"The generator doubles 4 x 4 pixels at least twice, which gives images of 16, 32, 64 or 128 pixels and so on, "
                f"not of {self.image_size}: choose another image_size."
            )
        if self.class_rows is not None and self.class_rows < self.num_classes:
            raise ValueError(f"class_rows={self.class_rows} are too few for {self.num_classes} classes.")
        if not 0 < self.norm_momentum <= 1:
            raise ValueError(f"norm_momentum is a share above 0 and up to 1, not {self.norm_momentum}.")
        super().__post_init__(**kwargs)

    @property
    def table_rows(self) -> int:
        """Rows of the tables of classes; images without classes share one row."""
        return self.class_rows or max(self.num_classes, 1)

    @property
    def generator_widths(self) -> tuple[int, ...]:
        """Channels of the generator at 4 x 4 pixels, 8 x 8, and so on up to the image."""
        levels = self.image_size.bit_length() - 3
        return tuple(self.width * min(4, 2 ** (levels - i)) for i in range(levels + 1))

    @property
    def discriminator_widths(self) -> tuple[int, ...]:
        """Channels of the discriminator at half the image's size, a quarter, and so on down to 4 x 4 pixels."""
        return tuple(self.width * min(4, 2**i) for i in range(self.image_size.bit_length() - 3))

    @property
    def latent_dim(self) -> int:
        """Number of latent variables of an image."""
        return self.chunk_dim * len(self.generator_widths)
