"""Data sets that are there to be evaluated on, such as CIFAR-10-C, and therefore have no split to train on."""

from hf_geo.data.bad_samples import BadSamples
from hf_geo.data.columns import find_columns, name_classes, number_classes
from hf_geo.data.config import DataArguments
from hf_geo.data.image_split import ImageSplit
from hf_geo.data.sources import open_source
from hf_geo.data.splits import subset
from hf_geo.data.vision import ImageData


def load_shifted(name: str, args: DataArguments, *, seed: int = 0) -> ImageData:
    """Opens one split, "test" where there is one.

    Args:
        name: A Hub id or folder, and after a colon its configuration, if it has several.
        args: The options for the data that the networks were trained on; of them, the limits count here too.
        seed: As for `load_image_data`.

    Returns:
        The data set, whose only split is called "test".

    Raises:
        ValueError: The data set does not exist or has no images with classes.
    """
    dataset, _, config = name.partition(":")
    source = open_source(dataset, config or None)
    split = "test" if "test" in source.splits else next(iter(source.splits))
    rows, bad = source.splits[split], BadSamples(args.max_bad_samples)
    columns = name_classes(find_columns(rows.features), [rows])
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
