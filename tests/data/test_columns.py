"""Which columns are taken, and what is said when it is not clear."""

import re

import pytest
from datasets import Array3D, ClassLabel, Image, Value

from hf_geo.data.columns import find_columns

CAT_DOG = ClassLabel(names=["cat", "dog"])
INTEGER, TEXT, REAL = Value("int64"), Value("string"), Value("float32")


@pytest.mark.parametrize(
    ("features", "named", "found"),
    [
        # The layouts of CIFAR-10, CIFAR-100, MNIST or SVHN, ImageNet, and a folder of images.
        ({"img": Image(), "label": CAT_DOG}, {}, ("img", "label", ("cat", "dog"))),
        (
            {"img": Image(), "fine_label": CAT_DOG, "coarse_label": ClassLabel(2)},
            {},
            ("img", "fine_label", ("cat", "dog")),
        ),
        ({"image": Image(), "label": CAT_DOG}, {}, ("image", "label", ("cat", "dog"))),
        ({"image": Image(), "label": INTEGER}, {}, ("image", "label", None)),
        # By type where the name is another; a class before an integer.
        ({"scan": Image(), "tumour": CAT_DOG, "age": INTEGER}, {}, ("scan", "tumour", ("cat", "dog"))),
        ({"scan": Image(), "grade": INTEGER, "label": TEXT}, {}, ("scan", "grade", None)),
        # Named.
        ({"img": Image(), "a": CAT_DOG, "b": INTEGER, "i": Image()}, {"image": "i", "label": "b"}, ("i", "b", None)),
    ],
)
def test_columns_are_found(features, named, found):
    columns = find_columns(features, **named)
    assert (columns.image, columns.label, columns.class_names) == found


@pytest.mark.parametrize(
    ("features", "named", "message"),
    [
        (
            {"a": Image(), "b": Image(), "label": CAT_DOG},
            {},
            "More than one image column is found: name it with --image_column",
        ),
        ({"text": TEXT, "label": CAT_DOG}, {}, "No image column is found"),
        (
            {"image": Image(), "x": CAT_DOG, "y": CAT_DOG},
            {},
            "More than one label column is found: name it with --label_column",
        ),
        ({"image": Image(), "label": TEXT}, {}, "No label column is found"),
        ({"image": Image(), "label": CAT_DOG}, {"image": "img"}, "There is no column 'img' (--image_column)"),
        ({"image": Image(), "label": CAT_DOG}, {"label": "class"}, "There is no column 'class' (--label_column)"),
        ({"image": Image(), "label": CAT_DOG}, {"image": "label"}, "'label' (--image_column) does not hold images"),
        (
            {"image": Array3D((3, 2, 2), "uint8"), "label": CAT_DOG},
            {"image": "image"},
            "'image' (--image_column) does not hold images",
        ),
        (
            {"image": Image(), "label": CAT_DOG, "y": REAL},
            {"label": "y"},
            "'y' (--label_column) does not hold classes or integers",
        ),
        (
            {"image": Image(), "label": CAT_DOG, "y": TEXT},
            {"label": "y"},
            "'y' (--label_column) does not hold classes or integers",
        ),
    ],
)
def test_unclear_columns_are_refused_with_a_list_of_what_there_is(features, named, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        find_columns(features, **named)
    for name in features:
        assert name in str(error.value).partition("The columns are ")[2]
