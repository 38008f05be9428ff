"""Data sets that are there to be evaluated on, such as CIFAR-10-C, and therefore have no split to train on."""

from hf_geo.data.bad_samples import BadSamples
from hf_geo.data.columns import Columns, find_columns, name_classes, number_classes
from hf_geo.data.config import DataArguments
from hf_geo.data.image_split import ImageSplit
from hf_geo.data.sources import open_source
from hf_geo.data.splits import subset
from hf_geo.data.vision import ImageData


def load_shifted(name: str, args: DataArguments, *, seed: int = 0, needs_classes: bool = True) -> ImageData:
    """Opens one split, "test" where there is one.

    Args:
        name: A Hub id or folder, and after a colon its configuration, if it has several.
        args: The options for the data that the networks were trained on; of them, the limits count here too.
        seed: As for `load_image_data`.
        needs_classes: Whether the images need classes. If not, they have none, whatever labels are beside them.

    Returns:
        The data set, whose only split is called "test".

    Raises:
        ValueError: The data set does not exist or has no images, or none with classes where they are needed.
    """
    dataset, _, config = name.partition(":")
    source = open_source(dataset, config or None, config_is_named=f"after a colon, as in {dataset}:CONFIG")
    split = "test" if "test" in source.splits else next(iter(source.splits))
    rows, bad = source.splits[split], BadSamples(args.max_bad_samples)
    columns = find_columns(rows.features, needs_classes=needs_classes)
    columns = name_classes(columns, [rows]) if needs_classes else Columns(columns.image, None, None)
    images = ImageSplit.read(rows, columns, split, bad)
    classes = columns.class_names or number_classes(columns, images.labels)
    images = images.select(subset(len(images), args.max_eval_samples))
    return ImageData(
        name=name,
        hub_id=source.hub_id,
        label_names=classes,
        splits={"test": images},
        native_size=(images.first.height, images.first.width),
        args=args,
        seed=seed,
        origin=f"{len(images):,} images of split {split!r}.",
        bad=bad,
    )
