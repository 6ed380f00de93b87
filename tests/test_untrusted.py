"""JSON of anybody's: one object, or a ValueError."""

import pytest

from tombola.untrusted import json_object


def test_an_object_comes_back_as_it_was_written() -> None:
    assert json_object('{"a": [1, 2.5, null, true, "é \\ud83d\\ude00"]}') == {
        "a": [1, 2.5, None, True, "é \U0001f600"]
    }
    assert json_object(b'{"a": {}}') == {"a": {}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Expecting value"),
        ("[1]", "it holds no object"),
        ('{"a": NaN}', "NaN is no JSON"),
        ('{"a": -Infinity}', "-Infinity is no JSON"),
        ('{"a": ' + "[" * 200_000, "nested too deeply"),
        ('{"a": ' + "[" * 300 + "]" * 300 + "}", "nested too deeply"),
        ('{"a": "\\ud800"}', "surrogates not allowed"),
        ('{"a": ' + "9" * 5_000 + "}", "integer string conversion"),
        (b'{"a": "\xa0"}', "invalid start byte"),
    ],
)
def test_anything_else_is_refused(text: str | bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        json_object(text)


def test_wide_objects_are_no_deep_ones() -> None:
    assert len(json_object("{" + ", ".join(f'"{n}": [[]]' for n in range(1000)) + "}")) == 1000
