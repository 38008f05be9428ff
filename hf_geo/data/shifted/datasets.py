"""Data sets that networks are only evaluated on, such as CIFAR-10-C, whether or not they have a split to train on."""

from hf_geo.data.bad_samples import BadSamples
from hf_geo.data.columns import Columns, find_columns, find_image, name_classes, number_classes
from hf_geo.data.config import DataArguments
from hf_geo.data.image_split import ImageSplit
from hf_geo.data.sources import Source, open_source
from hf_geo.data.splits import EVAL_NAMES, are_labels_hidden, check_labels, subset
from hf_geo.data.vision import ImageData


def load_shifted(name: str, args: DataArguments, *, seed: int = 0, needs_classes: bool = True) -> ImageData:
    """Opens one split: "test" or else one to evaluate on, the first whose labels are known; otherwise the only one.

    Args:
        name: A Hub id or folder, and after a colon its configuration, if it has several.
        args: The options for the data that the networks were trained on; of them, the limits count here too.
        seed: As for `load_image_data`.
        needs_classes: Whether the images need classes. If not, they have none, whatever labels are beside them.

    Returns:
        The data set, whose only split is called "test".

    Raises:
        ValueError: The data set does not exist or has no images, has no such split, or no classes where they are needed.
    """
    dataset, _, config = name.partition(":")
    source = open_source(dataset, config or None, config_is_named=f"after a colon, as in {dataset}:CONFIG")
    split, columns = _choose(source, needs_classes)
    bad = BadSamples(args.max_bad_samples)
    images = ImageSplit.read(source.splits[split], columns, split, bad)
    classes = columns.class_names or number_classes(columns, images.labels)
    if needs_classes:
        check_labels(images.labels, len(classes), split)
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


def _choose(source: Source, needs_classes: bool) -> tuple[str, Columns]:
    """Chooses the split, and finds its columns."""
    found = [name for name in ("test", *EVAL_NAMES) if name in source.splits]
    if not found and len(source.splits) == 1:
        found = [*source.splits]
    for name in found:
        rows = source.splits[name]
        if not needs_classes:
            return name, Columns(find_image(rows.features), None, None)
        columns = find_columns(rows.features)
        others = [part for other, part in source.splits.items() if other != name]
        if not are_labels_hidden(rows, name_classes(columns, others or [rows])):
            return name, name_classes(columns, [rows])
    hidden = f", and the labels of {' and '.join(map(repr, found))} are hidden" if found else ""
    raise ValueError(
        f"{source.name} has no split to measure networks on: it has {', '.join(source.splits)}{hidden}. Give a data set with a "
        f"{'labelled ' if needs_classes else ''}split called test, {', '.join(EVAL_NAMES[:-1])} or {EVAL_NAMES[-1]}, or with one "
        "split alone."
    )
