"""`--model_args` and its types."""

import pytest

from hf_geo.models import ModelArguments, parse_model_args


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (None, {}),
        ("in_chans=1,global_pool=avg", {"in_chans": 1, "global_pool": "avg"}),
        (" a = 1 , b = -2e-3 ", {"a": 1, "b": -2e-3}),
        ("img_size=(32,48),depths=[1, 2]", {"img_size": (32, 48), "depths": [1, 2]}),
        ("qkv_bias=true,x=False,y=none", {"qkv_bias": True, "x": False, "y": None}),
        ("name='a-b.c',other=\"d,e\"", {"name": "a-b.c", "other": "d,e"}),
    ],
)
def test_values_have_types(text, values):
    parsed = ModelArguments(model_args=text).parsed_model_args
    assert parsed == values
    assert [type(v) for v in parsed.values()] == [type(v) for v in values.values()]


@pytest.mark.parametrize(
    "text", ["drop_rate", "a=1,,b=2", "a=1)", "a=b.c", "a=f(1)", "**a", "a=1,a=2", "a={[1]: 2}", "a=1) or f(b=2"]
)
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match="cannot be read: write key=value"):
        parse_model_args(text)
