"""The columns that are taken, what is said when they are not clear, and how classes are matched with a model's."""

import re

import numpy as np
import pytest
from datasets import ClassLabel, Image, Value

from hf_geo.data.columns import Columns, find_columns, match_classes, number_classes

CAT_DOG = ClassLabel(names=["cat", "dog"])
PANDAS = {"bytes": Value("binary"), "path": Value("null")}
INTEGER, TEXT, REAL = Value("int64"), Value("string"), Value("float32")


@pytest.mark.parametrize(
    ("features", "named", "found"),
    [
        # The layouts of CIFAR-10, CIFAR-100, MNIST or SVHN, ImageNet, and a folder of images.
        ({"img": Image(), "label": CAT_DOG}, {}, ("img", "label", ("cat", "dog"))),
        ({"img": Image(), "fine_label": CAT_DOG, "x": ClassLabel(2)}, {}, ("img", "fine_label", ("cat", "dog"))),
        ({"image": Image(), "label": CAT_DOG}, {}, ("image", "label", ("cat", "dog"))),
        ({"image": Image(), "label": INTEGER}, {}, ("image", "label", None)),
        # By type where the name is another; a class before an integer.
        ({"scan": Image(), "tumour": CAT_DOG, "age": INTEGER}, {}, ("scan", "tumour", ("cat", "dog"))),
        ({"scan": Image(), "grade": INTEGER, "note": TEXT}, {}, ("scan", "grade", None)),
        # Classes by name, and images as pandas and pyarrow write them.
        ({"scan": Image(), "age": INTEGER, "label": TEXT}, {}, ("scan", "label", None)),
        ({"image": Image(), "caption": TEXT, "kind": TEXT}, {"label": "kind"}, ("image", "kind", None)),
        ({"image": Image(), "is_cat": Value("bool")}, {"label": "is_cat"}, ("image", "is_cat", None)),
        ({"image": PANDAS, "label": INTEGER}, {}, ("image", "label", None)),
        ({"png": Value("binary"), "label": INTEGER}, {"image": "png"}, ("png", "label", None)),
        ({"image": Value("binary"), "label": INTEGER, "raw": Value("binary")}, {}, ("image", "label", None)),
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
        ({"a": Image(), "b": Image(), "label": CAT_DOG}, {}, "More than one image column is found: name it with --im"),
        ({"text": TEXT, "label": CAT_DOG}, {}, "No image column is found"),
        ({"image": Image(), "x": CAT_DOG, "y": CAT_DOG}, {}, "More than one label column is found: name it with --la"),
        ({"image": Image(), "caption": TEXT}, {}, "No label column is found: name it with --label_column"),
        ({"png": Value("binary"), "label": INTEGER}, {}, "No image column is found: name it with --image_column"),
        ({"image": Image()}, {}, "nor one that could be it: give a folder of images for each class, or a column of"),
        ({"image": Image(), "label": CAT_DOG}, {"image": "img"}, "There is no column 'img' (--image_column)"),
        ({"image": Image(), "label": CAT_DOG}, {"label": "class"}, "There is no column 'class' (--label_column)"),
        ({"image": Image(), "label": CAT_DOG}, {"image": "label"}, "'label' (--image_column) does not hold images"),
        ({"image": Image(), "label": CAT_DOG, "y": REAL}, {"label": "y"}, "'y' (--label_column) does not hold classes"),
    ],
)
def test_unclear_columns_are_refused_with_a_list_of_what_there_is(features, named, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        find_columns(features, **named)
    for name in features:
        assert name in str(error.value).partition("The columns are ")[2]


@pytest.mark.parametrize(
    ("columns", "labels", "message"),
    [
        (("image", "photo_id", None, True), range(24), "'photo_id' run from 0 to 23 in 24 samples, and nothing says"),
        (("image", "taken", None), [25_000, 1], "which are ids or dates rather than classes"),
    ],
)
def test_integers_that_are_no_classes_are_refused_with_their_range(columns, labels, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        number_classes(Columns(*columns), np.array(labels))
    assert "--label_column" in str(error.value)


def test_numbers_without_names_are_classes_where_they_are_named():
    assert number_classes(Columns("image", "label", None), np.array([0, 2, 2])) == ("0", "1", "2")
    assert len(number_classes(Columns("image", "label", None), np.array([24_999, 0]))) == 25_000
    assert find_columns({"image": Image(), "age": INTEGER}).guessed
    assert not find_columns({"image": Image(), "age": INTEGER}, label="age").guessed


UNNAMED = (["0", "1", "2"], ["LABEL_0", "LABEL_1", "LABEL_2"])
# The model's classes, the data's, and the model's number of each of the data's.
MATCHED = [
    (["cat", "dog"], ["dog", "cat"], [1, 0]),
    (["cat", "dog", "owl"], ["owl", "cat"], [2, 0]),
    (["Cat", "dog "], ["DOG", "cat"], [1, 0]),
    (["a", "A"], ["A", "a"], [1, 0]),
    (["9", "1", "0"], ["0", "1", "9"], [2, 1, 0]),
    *((names, ["x", "y", "z"], [0, 1, 2]) for names in UNNAMED),
    *((["x", "y", "z"], names, [0, 1, 2]) for names in UNNAMED),
]
REFUSED = [
    (["cat", "dog"], ["cat", "owl"], "does not know the class 'owl' of pets .its own are 'cat', 'dog'."),
    (["cat", "dog"], ["cat", "dog", "owl"], "does not know the class 'owl'"),
    (["a", "A"], ["a", "b"], "does not know the class 'b'"),
    (["cat", "dog"], ["cat", "Cat"], "does not know"),
    (["Cat", "CAT"], ["cat"], "does not know the class 'cat'"),
    (["0", "1"], ["cat", "dog", "owl"], "has 2 classes, but pets has 3"),
]


@pytest.mark.parametrize(("model", "data", "found"), [*MATCHED, *REFUSED])
def test_names_decide_where_both_sides_have_them(model, data, found) -> None:
    if isinstance(found, list):
        assert match_classes(model, data, "net", "pets").tolist() == found
    else:
        with pytest.raises(ValueError, match=found):
            match_classes(model, data, "net", "pets")
