"""Classes are matched by name where both sides name them, and by number otherwise; what cannot be matched is refused."""

import pytest

from hf_geo.data.columns import match_classes

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
    (["0", "1"], ["cat", "dog", "owl"], "tells 2 classes apart, but pets has 3"),
]


@pytest.mark.parametrize(("model", "data", "numbers"), MATCHED)
def test_names_decide_where_both_sides_have_them(model, data, numbers) -> None:
    assert match_classes(model, data, "net", "pets").tolist() == numbers


@pytest.mark.parametrize(("model", "data", "message"), REFUSED)
def test_what_cannot_be_matched_is_refused(model, data, message) -> None:
    with pytest.raises(ValueError, match=message):
        match_classes(model, data, "net", "pets")
